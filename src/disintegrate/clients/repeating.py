"""Questions that are asked twice on purpose, each answer kept by itself."""

from __future__ import annotations

import hashlib
from collections import Counter

from disintegrate.clients.journal import query_keys
from disintegrate.clients.journaled import Journaled
from disintegrate.explainers.protocol import Capabilities, Explanation, Request


class Repeating:
    """Asks a question as often as it is told to, and in the next run reads the same answers in the same order.

    The journal asks each question once. A probe repeats some, to see whether the answer stays the same; so the
    repetitions of one run are numbered, and each number is a question of its own. The first is the journal's own.
    """

    def __init__(self, journaled: Journaled) -> None:
        self.journaled = journaled
        self._asked: Counter[bytes] = Counter()

    @property
    def capabilities(self) -> Capabilities:
        """Those of the explainer inside."""
        return self.journaled.capabilities

    def explain(self, request: Request) -> Explanation:
        """Answer from the journal what earlier runs have asked so often, and ask for the rest.

        Raises:
            DisintegrateError: as for `Journaled.explain`.
        """
        keys = []
        for key in query_keys(self.journaled.target, request):
            number = self._asked[key]
            self._asked[key] += 1
            keys.append(hashlib.sha256(key + number.to_bytes(8, "little")).digest() if number else key)
        return self.journaled.answered(request, keys)
