"""Explanations through the journal: what is known is not asked, what is asked is written down, before and after."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

import numpy as np
from jaxtyping import Int

from disintegrate.clients.budget import Allowance, Budget
from disintegrate.clients.dialect import chunks, rows_of
from disintegrate.clients.journal import Answered, Counts, Journal, query_keys
from disintegrate.errors import BudgetSpent, DisintegrateError, InDoubt, Misuse, Unreachable
from disintegrate.explainers.protocol import Capabilities, Explainer, Explanation, Request


class Doubt(Enum):
    """What becomes of queries that may have been paid for without an answer."""

    LEAVE = "leave"
    ASK = "ask"


@dataclass(frozen=True)
class Outcome:
    """What the journal says of a run so far."""

    counts: Counts
    asked: int


class Journaled:
    """An explainer whose every query is asked once, across runs and kills.

    A query is in doubt when it went out and its answer did not come whole, since then it may have been paid for. Such
    queries stay spent; they are asked again only under `Doubt.ASK`, and once only.

    Args:
        explainer: the service inside.
        journal: the file.
        target: a name of the service, the same for all runs that shall share answers.
        budget: shared by all that ask this service; what the journal holds counts as spent.
        in_doubt: what becomes of queries in doubt.
        parts: which rows of a request one exchange carries; a kill leaves at most one exchange of each thread in doubt.
    """

    def __init__(
        self,
        explainer: Explainer,
        journal: Journal,
        target: str,
        *,
        budget: Allowance | None = None,
        in_doubt: Doubt = Doubt.LEAVE,
        parts: Callable[[Request], Iterable[Int[np.ndarray, " r"]]] | None = None,
    ) -> None:
        self.explainer = explainer
        self.journal = journal
        self.target = target
        self.budget: Allowance = budget or Budget(None)
        self.parts = parts or (lambda request: chunks(len(request.inputs), 32))
        self.asked = 0
        self.budget.reserve_earlier(journal.counts().paid)
        self._ask_again = journal.doubtful() if in_doubt is Doubt.ASK else set()
        self._under_way: set[bytes] = set()
        self._settled = threading.Condition()

    @property
    def capabilities(self) -> Capabilities:
        """Those of the explainer inside."""
        return self.explainer.capabilities

    @property
    def outcome(self) -> Outcome:
        """Answered, in doubt, and asked in this run."""
        return Outcome(self.journal.counts(), self.asked)

    def explain(self, request: Request) -> Explanation:
        """Answer from the journal, and ask for the rest; safe to call from several threads.

        A part that falls in doubt does not keep those behind it from being asked.

        Raises:
            InDoubt: some queries are in doubt; all others are answered and in the journal.
            BudgetSpent: the budget does not cover the rest.
            DisintegrateError: what the explainer inside raised, and ended the run.
        """
        return self.answered(request, query_keys(self.target, request))

    def answered(self, request: Request, keys: list[bytes]) -> Explanation:
        """Answer each row under a key of its own, as `explain` does under those of their content.

        Raises:
            DisintegrateError: as for `explain`.
        """
        failure: DisintegrateError | None = None
        for part in self.parts(request):
            try:
                self._ensure(rows_of(request, part), [keys[row] for row in part])
            except DisintegrateError as error:
                failure = error
                if not isinstance(error, InDoubt):
                    break
        found = self.journal.look_up(keys)
        answers = [found.get(key) for key in keys]
        missing = sum(answer is None for answer in answers)
        if missing:
            raise failure or self._doubtful(missing)
        shape = request.inputs.shape
        return Explanation(
            np.array([answer.output for answer in answers if answer is not None]),
            np.stack([answer.attribution for answer in answers if answer is not None]).reshape(shape),
        )

    def _ensure(self, part: Request, keys: list[bytes]) -> None:
        """Ask what of this part is neither known nor in doubt."""
        wanted = self._claim(keys)
        if not wanted:
            return
        asked = list(wanted)
        try:
            self._ask(rows_of(part, np.array([wanted[key] for key in asked])), asked)
        finally:
            with self._settled:
                self._under_way -= set(asked)
                self._settled.notify_all()

    def _claim(self, keys: list[bytes]) -> dict[bytes, int]:
        """The first row of each query that this thread is to ask; others wait until it is settled."""
        rows: dict[bytes, int] = {}
        for row, key in enumerate(keys):
            rows.setdefault(key, row)
        with self._settled:
            self._settled.wait_for(lambda: not self._under_way & set(rows))
            known = self.journal.look_up(list(rows))
            wanted = {key: row for key, row in rows.items() if key not in known or key in self._ask_again}
            self._under_way |= set(wanted)
            return wanted

    def ask_afresh(self, request: Request) -> Explanation:
        """Ask what may be known already, at its price; the journal counts it and keeps the first answer.

        Raises:
            DisintegrateError: as for `explain`.
        """
        return self._sent(request, query_keys(self.target, request))

    def _ask(self, request: Request, keys: list[bytes]) -> None:
        with self._settled:
            again = self._ask_again & set(keys)
            self._ask_again -= again
        try:
            answer = self._sent(request, keys)
        except (Unreachable, Misuse, BudgetSpent):
            # It did not go out: what was in doubt before is as much in doubt as it was.
            with self._settled:
                self._ask_again |= again
            raise
        flat = np.asarray(answer.attribution, np.float64).reshape(len(keys), -1)
        answers = (Answered(float(output), row) for output, row in zip(answer.output, flat, strict=True))
        self.journal.keep(zip(keys, answers, strict=True))

    def _sent(self, request: Request, keys: list[bytes]) -> Explanation:
        self.budget.reserve(len(keys))
        try:
            self.journal.intend(keys)
        except DisintegrateError:
            self.budget.give_back(len(keys))
            raise
        try:
            answer = self.explainer.explain(request)
        except (Unreachable, Misuse):
            # Surely not answered: nothing was paid, and it may be asked another time.
            self.journal.withdraw(keys)
            self.budget.give_back(len(keys))
            raise
        with self._settled:
            self.asked += len(keys)
        return answer

    def _doubtful(self, count: int) -> InDoubt:
        return InDoubt(
            "Some queries may have been paid for, and their answers did not come.",
            got=f"{count} in doubt",
            instead="Ask them again with --in-doubt ask, at their price.",
        )
