"""A budget and a pace that are kept in one place, and asked for from others."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from disintegrate.clients.budget import Allowance
from disintegrate.clients.pace import Turns


class Wish(Enum):
    """What a worker wants of the place where budget and pace are kept."""

    RESERVE = "reserve"
    GIVE_BACK = "give back"
    TURN = "turn"
    HOLD = "hold"


def granted(budget: Allowance, turns: Turns, wish: Wish, amount: float) -> float:
    """Fulfil a wish; seconds to wait.

    Raises:
        BudgetSpent: the budget does not cover what is wished for.
    """
    match wish:
        case Wish.RESERVE:
            budget.reserve(int(amount))
        case Wish.GIVE_BACK:
            budget.give_back(int(amount))
        case Wish.TURN:
            return turns.turn(int(amount))
        case Wish.HOLD:
            turns.hold(amount)
    return 0.0


class FarBudget:
    """A budget that is kept elsewhere; what earlier runs have spent is counted there."""

    def __init__(self, ask: Callable[[Wish, float], float]) -> None:
        self._ask = ask

    def reserve(self, rows: int) -> None:
        """Take so many queries, all or none.

        Raises:
            BudgetSpent: the budget does not cover them.
        """
        self._ask(Wish.RESERVE, rows)

    def reserve_earlier(self, rows: int) -> None:
        """Nothing: it was counted when it was reserved."""

    def give_back(self, rows: int) -> None:
        """Return queries that surely were not answered."""
        self._ask(Wish.GIVE_BACK, rows)


class FarTurns:
    """A pace that is kept elsewhere."""

    def __init__(self, ask: Callable[[Wish, float], float]) -> None:
        self._ask = ask

    def turn(self, rows: int) -> float:
        """Seconds to wait before so many queries may go out."""
        return self._ask(Wish.TURN, rows)

    def hold(self, seconds: float) -> None:
        """Let nobody's turn come for so long."""
        self._ask(Wish.HOLD, seconds)
