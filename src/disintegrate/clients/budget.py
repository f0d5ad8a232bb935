"""A hard budget of queries that concurrency cannot overrun."""

from __future__ import annotations

import threading
from typing import Protocol, runtime_checkable

from disintegrate.errors import BudgetSpent, InvalidValue


@runtime_checkable
class Allowance(Protocol):
    """What covers queries: a budget, or one that is kept elsewhere."""

    def reserve(self, rows: int) -> None:
        """Take so many queries, all or none."""

    def reserve_earlier(self, rows: int) -> None:
        """Count what was spent before this run."""

    def give_back(self, rows: int) -> None:
        """Return queries that surely were not answered."""


class Budget:
    """Counts queries, each row of a request one; what is reserved is spent until it is given back.

    Args:
        limit: the most queries; None for any number.
        spent: what earlier runs have spent.

    Raises:
        InvalidValue: a negative limit.

    Example:
        >>> budget = Budget(3)
        >>> budget.reserve(2)
        >>> budget.left == 1
        True
    """

    def __init__(self, limit: int | None, spent: int = 0) -> None:
        if limit is not None and limit < 0:
            raise InvalidValue("A budget is a number of queries.", got=limit, instead="Use 0 or more.")
        self.limit = limit
        self.spent = spent
        self._lock = threading.Lock()

    @property
    def left(self) -> int | None:
        """Queries that the budget still covers; None for any number."""
        return None if self.limit is None else max(0, self.limit - self.spent)

    def reserve(self, rows: int) -> None:
        """Take so many queries, all or none.

        Raises:
            BudgetSpent: the budget does not cover them.
        """
        with self._lock:
            if self.limit is not None and self.spent + rows > self.limit:
                raise BudgetSpent(
                    "The budget does not cover the next queries.",
                    got=f"{self.limit - self.spent} left for {rows}",
                    instead="Raise it to go on where this stopped.",
                )
            self.spent += rows

    def reserve_earlier(self, rows: int) -> None:
        """Count what was spent before this run, even where it is more than the limit."""
        with self._lock:
            self.spent += rows

    def give_back(self, rows: int) -> None:
        """Return queries that surely were not answered."""
        with self._lock:
            self.spent -= rows
