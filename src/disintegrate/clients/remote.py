"""A service behind a network as an `Explainer`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int

from disintegrate.clients.dialect import Dialect, rows_of
from disintegrate.clients.link import Link
from disintegrate.explainers.protocol import Capabilities, Explanation, Request


class RemoteExplainer:
    """Asks a live endpoint, some rows at a time.

    Its capabilities are the protocol's and the user's word; the probe confirms them.

    Args:
        dialect: how the protocol words questions and answers.
        capabilities: what a caller may set, as far as it is known.
        link: the way to the service.
        rows: the most rows of one exchange.
    """

    def __init__(self, dialect: Dialect, capabilities: Capabilities, link: Link, *, rows: int = 32) -> None:
        self.dialect = dialect
        self.link = link
        self.rows = rows
        self._capabilities = capabilities

    def __enter__(self) -> RemoteExplainer:
        return self

    def __exit__(self, *error: object) -> None:
        self.link.close()

    @property
    def capabilities(self) -> Capabilities:
        """What a caller may set, as far as it is known."""
        return self._capabilities

    def parts(self, request: Request) -> Iterator[Int[np.ndarray, " r"]]:
        """Which rows of a request each exchange carries."""
        return self.dialect.parts(request, self.rows)

    def explain(self, request: Request) -> Explanation:
        """Answer a batch; what it raises says whether the service was asked (see `Link.post`).

        Raises:
            NotPermitted: the protocol does not take such steps, or the service refused.
            BadAnswer: the answer holds no explanations of these rows.
        """
        if request.steps is not None:
            self._capabilities.check_steps(request.steps)
        rows = list(self.parts(request))
        answers = [self.dialect.ask(self.link, rows_of(request, part)) for part in rows]
        return joined(request, rows, answers)


def joined(request: Request, rows: list[np.ndarray], answers: list[Explanation]) -> Explanation:
    """The answers to parts of a request as the answer to the whole."""
    output, attribution = np.empty(len(request.inputs)), np.empty(request.inputs.shape)
    for part, answer in zip(rows, answers, strict=True):
        output[part], attribution[part] = answer.output, answer.attribution
    return Explanation(output, attribution)
