"""Which number of steps a service takes where none is sent, if it takes a caller's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64

from disintegrate.errors import DisintegrateError
from disintegrate.probe.asking import Asker, Spent
from disintegrate.probe.explore import LEAST_KEPT
from disintegrate.rules import PRESETS

# Numbers of steps that libraries take by themselves.
USUAL = tuple(sorted({preset.steps for preset in PRESETS.values()}, reverse=True))


@dataclass(frozen=True, eq=False)
class OwnNumber:
    """Asks one input with numbers of steps, each once.

    Attributes:
        asker: the service.
        inputs: the input.
        target: the output that is explained.
        same: whether an answer is that without a number.
        honoured: whether the service takes numbers of steps, and answers alike twice; nothing is asked otherwise.
        alike: for each number that was answered, whether it got the answer without one.
        refused: numbers that were not.
    """

    asker: Asker
    inputs: Float64[np.ndarray, "1 d"]
    target: int
    same: Callable[[Float64[np.ndarray, " d"]], bool]
    honoured: bool
    alike: dict[int, bool] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)

    def among(self, numbers: Sequence[int], kept: int = LEAST_KEPT) -> int | None:
        """That of some numbers which gets the answer without one, where one step more does not."""
        found = next((steps for steps in numbers if self._is_alike(steps, kept)), None)
        return None if found is None or self._is_alike(found + 1, kept - 1) else found

    def found(self) -> int | None:
        """The number that was asked and got the answer without one, where one step more did not."""
        alike = (steps for steps, same in self.alike.items() if same)
        return next((steps for steps in alike if self.alike.get(steps + 1) is False), None)

    def refuted(self, numbers: Sequence[int]) -> bool:
        """Whether each of these numbers gets another answer than none, by what is left of the budget."""
        if any(self._is_alike(steps, 0) for steps in numbers):
            return False
        return all(self.alike.get(steps) is False for steps in numbers)

    def _is_alike(self, steps: int, kept: int) -> bool:
        if self.honoured and steps not in self.alike and steps not in self.refused and self.asker.left > kept:
            try:
                answer = self.asker.ask(self.inputs, self.target, steps=steps)
            except Spent:
                raise
            except DisintegrateError:
                # a service may refuse a number in whatever words: Captum's Riemann rules take no single step
                self.refused.add(steps)
                return False
            self.alike[steps] = self.same(answer.attribution[0])
        return self.alike.get(steps, False)
