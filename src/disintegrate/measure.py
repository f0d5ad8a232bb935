"""What a plan measures: a signed atomic measure on the ray, and for which models it recovers the gradient."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import numpy as np
from jaxtyping import Float64

ATOM_TOLERANCE = 1e-12


class Exactness(Enum):
    """For which models a plan recovers the gradient at the input exactly; the value is the sentence shown."""

    EVERY_MODEL = "exact for every differentiable model: the plan measures the gradient at the input alone"
    CONSTANT_PIECE = "exact for every model whose gradient is constant on the piece of the ray that is measured"
    NONE = "exact for no class of models: the plan's mass is not 1"


@dataclass(frozen=True, eq=False)
class Measure:
    """Signed atoms on the ray `b + t (x - b)`: the plan's answers sum to `sum_i weights_i g(positions_i)`.

    Atoms that coincide are merged and those that cancel are dropped, so that what is left is what counts.
    """

    positions: Float64[np.ndarray, " atoms"]
    weights: Float64[np.ndarray, " atoms"]

    def __post_init__(self) -> None:
        positions, weights = _merged(np.asarray(self.positions, float), np.asarray(self.weights, float))
        for name, values in (("positions", positions), ("weights", weights)):
            values.setflags(write=False)
            object.__setattr__(self, name, values)

    @property
    def mass(self) -> float:
        """Sum of all weights."""
        return float(self.weights.sum())

    @property
    def support(self) -> tuple[float, float]:
        """The smallest interval of the ray that holds all atoms; (nan, nan) where there are none."""
        if self.positions.size == 0:
            return float("nan"), float("nan")
        return float(self.positions[0]), float(self.positions[-1])

    @cached_property
    def error_bound(self) -> float:
        """Largest error for a gradient of total variation 1 along the ray; infinite where the mass is not 1.

        With `F(t) = mu((-inf, t]) - [t >= 1]`, the error is `-integral F dg`, so it is at most `max |F|` times
        the variation of `g` over the atoms' interval, the point 1 included.

        Example:
            >>> Measure(np.array([1.0]), np.array([1.0])).error_bound == 0
            True
        """
        if not self._has_mass(1.0):
            return float("inf")
        return float(np.abs(np.cumsum(self.difference.weights)).max(initial=0.0))

    @cached_property
    def difference(self) -> Measure:
        """`mu - delta_1`: what stands between this measure and that of the gradient at the input."""
        return Measure(np.append(self.positions, 1.0), np.append(self.weights, -1.0))

    @property
    def piece(self) -> tuple[float, float]:
        """The smallest interval of the ray that holds all atoms of `mu - delta_1`: where the gradient must not change.

        The input, at 1, lies outside where its atom already has weight 1; (1, 1) where nothing else is measured.

        Example:
            >>> Measure(np.array([1.0, 3.0, 9.0]), np.array([1.0, -2.0, 2.0])).piece == (3.0, 9.0)
            True
        """
        return self.difference.support if self.difference.positions.size else (1.0, 1.0)

    @property
    def exactness(self) -> Exactness:
        """Which models the plan is exact for, found from the atoms and not from a label."""
        if not self._has_mass(1.0):
            return Exactness.NONE
        return Exactness.CONSTANT_PIECE if self.difference.positions.size else Exactness.EVERY_MODEL

    @property
    def exact_for_bias_free(self) -> bool:
        """Whether the plan is exact for bias-free ReLU networks with baseline 0, whose ray has its one kink at 0."""
        return self.exactness is not Exactness.NONE and self.piece[0] > ATOM_TOLERANCE

    def _has_mass(self, mass: float) -> bool:
        # Rounding of a sum grows with what is summed, so the tolerance does too.
        return abs(self.mass - mass) <= ATOM_TOLERANCE * max(1.0, float(np.abs(self.weights).sum()))


def _merged(
    positions: Float64[np.ndarray, " n"], weights: Float64[np.ndarray, " n"]
) -> tuple[Float64[np.ndarray, " k"], Float64[np.ndarray, " k"]]:
    if positions.size == 0:
        return positions, weights
    order = np.argsort(positions, kind="stable")
    positions, weights = positions[order], weights[order]
    tolerance = ATOM_TOLERANCE * max(1.0, float(np.abs(positions).max()))
    starts = np.flatnonzero(np.diff(positions, prepend=-np.inf) > tolerance)
    merged = np.add.reduceat(weights, starts)
    kept = np.abs(merged) > ATOM_TOLERANCE * float(np.abs(weights).sum())
    return positions[starts][kept], merged[kept]
