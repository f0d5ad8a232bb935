"""How wrong an answer is before any plan is made of it: the service's arithmetic, the wire, noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from disintegrate.explainers.protocol import Capabilities

# Sums of m gradients in a service's arithmetic were found to err by this much of the unit roundoff times sqrt(m).
ARITHMETIC = 0.5
# The norm of a gradient over that of 1 / (x - b), where nothing is known of it: that of the paper's networks on MNIST
# (`studies/floor.py`).
TYPICAL_NORM = 0.01


@dataclass(frozen=True)
class Noise:
    """Root mean square errors of one answer that has been divided by `x - b`.

    Attributes:
        arithmetic: relative to the answer, times the square root of the steps.
        relative: relative to the answer, whatever its steps: digits, and the type in which it is sent.
        absolute: relative to the gradient's norm, whatever the answer's size: decimals, noise of a defence.
        repeats_average: whether the same question asked again is disturbed anew.
    """

    arithmetic: float = 0.0
    relative: float = 0.0
    absolute: float = 0.0
    repeats_average: bool = False

    def variance(self, steps: int, size: float) -> float:
        """Of one answer with so many steps, whose mean square is `size`.

        Example:
            >>> Noise(relative=0.5).variance(50, 4.0) == 1.0
            True
        """
        return (self.arithmetic**2 * steps + self.relative**2) * size + self.absolute**2


def noise_of(capabilities: Capabilities, *, gradient_norm: float = TYPICAL_NORM) -> Noise:
    """What a service's arithmetic and wire do to its answers.

    Args:
        capabilities: of the service; a dtype of None counts as float32.
        gradient_norm: norm of the gradient divided by that of the vector `1 / (x - b)`: what one unit of noise on
            every attribution is measured against. Infinite leaves out what is absolute.

    Example:
        >>> noise_of(Capabilities(rule="midpoint", dtype="float64")).arithmetic < 1e-15
        True
    """
    wire = capabilities.wire
    arithmetic = "float32" if capabilities.dtype in (None, "float16", "bfloat16") else capabilities.dtype
    unit = float(np.finfo(arithmetic).eps) / 2
    return Noise(
        arithmetic=ARITHMETIC * unit,
        relative=wire.relative,
        absolute=wire.absolute / gradient_norm,
        repeats_average=not wire.deterministic,
    )
