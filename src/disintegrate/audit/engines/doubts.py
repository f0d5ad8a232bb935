"""Blocks that fell in doubt, told of when all others are done."""

from __future__ import annotations

from disintegrate.errors import InDoubt


class Doubts:
    """What has fallen in doubt so far."""

    def __init__(self) -> None:
        self._told: list[InDoubt] = []

    def add(self, doubt: InDoubt) -> None:
        """One more block has queries in doubt."""
        self._told.append(doubt)

    def raise_any(self) -> None:
        """End the run, if there was any.

        Raises:
            InDoubt: what the first block said, and how many others there are.
        """
        if not self._told:
            return
        first, others = self._told[0], len(self._told) - 1
        if not others:
            raise first
        raise InDoubt(first.problem, got=f"{first.got}, and so in {others} more blocks", instead=first.instead)
