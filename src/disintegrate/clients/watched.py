"""A canary: one query that is asked again now and then, whose answer must stay what it was."""

from __future__ import annotations

import threading

import numpy as np

from disintegrate.clients.journaled import Journaled
from disintegrate.errors import TargetChanged
from disintegrate.explainers.protocol import Capabilities, Explanation, Request


class Watched:
    """Ends clearly when the target changes underneath.

    The canary's first answer comes through the journal, so that it outlives the run; every later one is asked afresh,
    at the first request of a run and after every so many queries, and is paid for.

    Args:
        journaled: what answers, and remembers the canary.
        canary: one query.
        every: queries between two looks.
        tolerance: by how much answers of an unchanged target may differ, relative to their size.
    """

    def __init__(self, journaled: Journaled, canary: Request, *, every: int = 200, tolerance: float = 1e-3) -> None:
        self.journaled = journaled
        self.canary = canary
        self.every = every
        self.tolerance = tolerance
        self.looks = 0
        self._since = every
        self._lock = threading.Lock()

    @property
    def capabilities(self) -> Capabilities:
        """Those of the explainer inside."""
        return self.journaled.capabilities

    def explain(self, request: Request) -> Explanation:
        """Look at the canary if it is time, then answer.

        Raises:
            TargetChanged: the canary's answer is another.
        """
        with self._lock:
            due = self._since >= self.every
            self._since = len(request.inputs) if due else self._since + len(request.inputs)
        if due:
            self.look()
        return self.journaled.explain(request)

    def look(self) -> None:
        """Ask the canary afresh.

        Raises:
            TargetChanged: its answer is another.
            BudgetSpent: nothing is left to look with.
        """
        asked = self.journaled.asked
        then = self.journaled.explain(self.canary)
        if self.journaled.asked > asked:
            return  # this was its first answer
        now = self.journaled.ask_afresh(self.canary)
        self.looks += 1
        for name in ("output", "attribution"):
            before, after = (np.asarray(getattr(answer, name), np.float64) for answer in (then, now))
            size = float(np.abs(np.nan_to_num(before)).max())
            gap = float(np.abs(np.nan_to_num(after) - np.nan_to_num(before)).max())
            if gap > self.tolerance * size:
                raise TargetChanged(
                    "The target has changed: it answers an old question in a new way.",
                    got=f"{name} off by {gap:.3g} of {size:.3g}",
                    instead="Start anew with another journal; answers from before and after do not belong together.",
                )
