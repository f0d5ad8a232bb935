"""How fast a service is asked, over all who ask it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from disintegrate.clients.budget import Allowance
from disintegrate.errors import InvalidValue


@runtime_checkable
class Turns(Protocol):
    """Who may ask when."""

    def turn(self, rows: int) -> float:
        """Seconds to wait before so many queries may go out."""

    def hold(self, seconds: float) -> None:
        """Let nobody's turn come for so long."""


class Pace:
    """At most so many queries a second, evenly spaced, over all who take their turn here.

    Args:
        per_second: None for as many as the service answers.

    Raises:
        InvalidValue: no positive number.

    Example:
        >>> pace = Pace(10)
        >>> waits = [pace.turn(2) for _ in range(3)]
        >>> waits[0] == 0 and 0.3 < waits[2] <= 0.4
        True
    """

    def __init__(self, per_second: float | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        if per_second is not None and not per_second > 0:
            raise InvalidValue("A pace is queries in a second.", got=per_second, instead="Use a number above 0.")
        self.per_second = per_second
        self._clock = clock
        self._free = float("-inf")
        self._lock = threading.Lock()

    def turn(self, rows: int) -> float:
        """Seconds to wait before so many queries may go out."""
        with self._lock:
            now = self._clock()
            begins = max(now, self._free)
            if self.per_second is not None:
                self._free = begins + rows / self.per_second
            return begins - now

    def hold(self, seconds: float) -> None:
        """Let nobody's turn come for so long, as a service asks with Retry-After."""
        with self._lock:
            self._free = max(self._free, self._clock() + seconds)


class Paced:
    """A budget whose every reservation waits for its turn, so that nothing is noted as asked that only waits.

    Args:
        allowance: what covers the queries.
        turns: who may ask when.
        pause: how to wait; for tests.
    """

    def __init__(self, allowance: Allowance, turns: Turns, *, pause: Callable[[float], None] = time.sleep) -> None:
        self.allowance = allowance
        self.turns = turns
        self._pause = pause

    def reserve(self, rows: int) -> None:
        """Take so many queries, all or none, and wait until they may go out.

        Raises:
            BudgetSpent: the budget does not cover them.
        """
        self.allowance.reserve(rows)
        seconds = self.turns.turn(rows)
        if seconds > 0:
            self._pause(seconds)

    def reserve_earlier(self, rows: int) -> None:
        """Count what was spent before this run."""
        self.allowance.reserve_earlier(rows)

    def give_back(self, rows: int) -> None:
        """Return queries that surely were not answered."""
        self.allowance.give_back(rows)

    def back_off(self, seconds: float) -> None:
        """Wait, and let all others wait, as `Retrying` does between two attempts."""
        self.turns.hold(seconds)
        self._pause(seconds)
