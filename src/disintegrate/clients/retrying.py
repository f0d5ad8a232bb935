"""Trying again, only where a request surely was not answered."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from disintegrate.errors import Unreachable
from disintegrate.explainers.protocol import Capabilities, Explainer, Explanation, Request

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0


class Retrying:
    """Asks again after refused connections, 429, and 503 with Retry-After; nothing else is ever asked twice.

    The pauses grow by two with full jitter, and are at least what the service asks for.

    Args:
        explainer: the service inside.
        attempts: how often to ask in all.
        patience: the longest that all pauses together may take, in seconds.
        pause: how to wait; for tests.
        seed: of the jitter; None for the system's.
    """

    def __init__(
        self,
        explainer: Explainer,
        *,
        attempts: int = 8,
        patience: float = 120,
        pause: Callable[[float], None] = time.sleep,
        seed: int | None = None,
    ) -> None:
        self.explainer = explainer
        self.attempts = attempts
        self.patience = patience
        self.retries = 0
        self._pause = pause
        self._random = random.Random(seed)

    @property
    def capabilities(self) -> Capabilities:
        """Those of the explainer inside."""
        return self.explainer.capabilities

    def explain(self, request: Request) -> Explanation:
        """Answer, perhaps not at the first attempt.

        Raises:
            Unreachable: no attempt was answered, or the service asks for more patience than there is.
        """
        waited = 0.0
        for attempt in range(self.attempts):
            try:
                return self.explainer.explain(request)
            except Unreachable as refused:
                longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt)
                seconds = max(refused.retry_after or 0.0, self._random.uniform(0, longest))
                last = attempt == self.attempts - 1
                if refused.lasting or last or waited + seconds > self.patience:
                    raise
                self._pause(seconds)
                waited += seconds
                self.retries += 1
        raise AssertionError  # the last attempt has returned or raised
