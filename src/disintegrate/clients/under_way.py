"""Several requests under way at once, with a bound."""

from __future__ import annotations

from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

from disintegrate.clients.dialect import chunks, rows_of
from disintegrate.clients.remote import joined
from disintegrate.explainers.protocol import Capabilities, Explainer, Explanation, Request


class Concurrent:
    """Splits a request and asks its parts at once, never more than so many.

    Args:
        explainer: the service inside; it must be safe to call from several threads.
        under_way: the most parts under way.
        rows: queries of one part.
    """

    def __init__(self, explainer: Explainer, *, under_way: int = 4, rows: int = 32) -> None:
        self.explainer = explainer
        self.under_way = under_way
        self.rows = rows

    @property
    def capabilities(self) -> Capabilities:
        """Those of the explainer inside."""
        return self.explainer.capabilities

    def explain(self, request: Request) -> Explanation:
        """Answer all parts; after a failure what is under way ends, and nothing more is begun.

        Raises:
            DisintegrateError: what the first part that failed raised.
        """
        parts = list(chunks(len(request.inputs), self.rows))
        with ThreadPoolExecutor(self.under_way, thread_name_prefix="ask") as pool:
            futures = [pool.submit(self.explainer.explain, rows_of(request, part)) for part in parts]
            _done, waiting = wait(futures, return_when=FIRST_EXCEPTION)
            for future in waiting:
                future.cancel()
        failed = [future for future in futures if not future.cancelled() and future.exception()]
        if failed:
            failed[0].result()
        return joined(request, parts, [future.result() for future in futures])
