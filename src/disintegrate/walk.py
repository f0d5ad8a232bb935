"""The gradient along the ray as a random walk: the prior by which an estimate is weighed and its error foretold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64

from disintegrate.errors import InvalidValue
from disintegrate.plan import Query
from disintegrate.quadrature import Rule

# A middle value closer than this to an outer one, relative to their distance, tells too little of the line.
LEAST_SHARE = 0.2
# Beyond this much of the clock two gradients have nothing in common; more would overflow.
LONGEST_TIME = 300.0


@runtime_checkable
class Prior(Protocol):
    """Anything with a clock `T` and a size `a`: gradients at `s` and `t` covary as `a(s) a(t) exp(-|T(s) - T(t)|)`."""

    def clock(self, positions: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """The clock at positions on the ray; it never runs backwards."""

    def size(self, positions: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """How large the gradient is to be expected, in units of its size at the input."""


@dataclass(frozen=True)
class Walk:
    """A walk that knows no scale between the positions where kinks begin and where they end.

    `T(t) = roughness log((t + onset) / (t + onset + ending))`, up to a constant: between the two, gradients at
    `s` and `t` correlate as `(s / t)^roughness`, whatever `t` is. A unit of a ReLU network has its kink where
    `t w.x + c = 0`; kinks get rare towards the baseline, where biases decide every unit, and far out, where none
    does. `studies/floor.py` measures the paper's networks; what answers say of it is fitted in `refit.py`.

    Attributes:
        roughness: how fast the gradient changes with the logarithm of the position.
        onset: the position where kinks begin.
        ending: the position beyond which they get rare.

    Raises:
        InvalidValue: a number that is not positive.

    Example:
        >>> times = Walk().clock(np.array([0.0, 0.5, 1.0, 2.0]))
        >>> bool((np.diff(times) > 0).all() and times[0] == 0)
        True
    """

    roughness: float = 0.15
    onset: float = 0.02
    ending: float = 3.0

    def __post_init__(self) -> None:
        if not (self.roughness > 0 and self.onset > 0 and self.ending > 0):
            raise InvalidValue("The numbers of a walk must be positive.", got=self, instead="Use Walk().")

    def clock(self, positions: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """`T` at positions on the ray, 0 at the baseline and odd around it."""
        away = np.abs(positions)
        passed = np.log1p(away / self.onset) - np.log1p(away / (self.onset + self.ending))
        times: Float64[np.ndarray, " n"] = self.roughness * np.sign(positions) * passed
        return times

    def size(self, positions: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """The same everywhere."""
        return np.ones(len(positions))


@dataclass(frozen=True)
class Jumps:
    """A clock that stands still but for jumps at given positions: gradients on their two sides share nothing.

    With one jump at alpha, kriging the queries of equation (3) gives equation (3).

    Example:
        >>> Jumps((0.98,)).clock(np.array([0.0, 0.98, 0.99])).tolist() == [0.0, 0.0, LONGEST_TIME]
        True
    """

    positions: tuple[float, ...] = ()

    def clock(self, positions: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """Number of jumps passed, times what separates."""
        passed = np.searchsorted(np.sort(self.positions), positions - 1e-12, side="left")
        return LONGEST_TIME * passed.astype(np.float64)

    def size(self, positions: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """The same everywhere."""
        return np.ones(len(positions))


@dataclass(frozen=True, eq=False)
class Covariance:
    """Of the answers, each divided by `x - b`, with each other and with the gradient at the input, whose own is 1."""

    answers: Float64[np.ndarray, "queries queries"]
    wanted: Float64[np.ndarray, " queries"]


def covariance(queries: Sequence[Query], rule: Rule, prior: Prior) -> Covariance:
    """Covariances of the answers under a prior, for one unit of squared gradient norm.

    An answer is `sum_i w_i g(p_i)`. On the clock, `exp(-|T - U|) = exp(-T - U) min(exp(2 T), exp(2 U))`, so every
    covariance is a sum over the steps between neighbouring atoms of the product of the two tails.

    Example:
        >>> from disintegrate.quadrature import riemann_right
        >>> found = covariance([Query(0, 1, 1)], riemann_right, Walk())
        >>> bool(np.isclose(found.answers[0, 0], 1) and np.isclose(found.wanted[0], 1))
        True
    """
    quadratures = {steps: rule(steps) for steps in {query.steps for query in queries}}
    positions = [query.start + quadratures[query.steps].nodes * query.length for query in queries]
    weights = np.concatenate([query.length * quadratures[query.steps].weights for query in queries])
    rows = np.repeat(np.arange(len(queries) + 1), [*map(len, positions), 1])
    places, place = np.unique(np.round(np.append(np.concatenate(positions), 1.0), 12), return_inverse=True)
    times = from_input(prior, places)
    values = np.append(weights, 1.0) * (prior.size(places) * np.exp(-times))[place]
    cells = np.bincount(rows * len(places) + place, values, minlength=(len(queries) + 1) * len(places))
    tails = cells.reshape(len(queries) + 1, len(places))[:, ::-1]
    np.cumsum(tails, axis=1, out=tails)
    # The square root of each step on both sides: a product of a matrix with its own transpose takes half the time.
    # A clock that stands still may run backwards by a rounding.
    tails *= np.sqrt(np.maximum(np.diff(np.exp(2 * times), prepend=0.0), 0))[::-1]
    joint = tails @ tails.T
    return Covariance(joint[:-1, :-1], joint[:-1, -1])


def sizes(queries: Sequence[Query], rule: Rule, prior: Prior) -> Float64[np.ndarray, " queries"]:
    """Mean squares of the answers alone: the diagonal of their covariance.

    Example:
        >>> from disintegrate.quadrature import riemann_right
        >>> queries = [Query(0, 1, 5), Query(0, 0.5, 8)]
        >>> whole = covariance(queries, riemann_right, Walk()).answers
        >>> bool(np.allclose(sizes(queries, riemann_right, Walk()), np.diag(whole)))
        True
    """
    found = []
    for query in queries:
        quadrature = rule(query.steps)
        positions = query.start + quadrature.nodes * query.length
        order = np.argsort(positions)
        times = from_input(prior, positions[order])
        values = query.length * quadrature.weights[order] * prior.size(positions[order]) * np.exp(-times)
        tails = np.cumsum(values[::-1])[::-1]
        found.append(float(tails**2 @ np.diff(np.exp(2 * times), prepend=0.0)))
    return np.array(found)


def from_input(prior: Prior, positions: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """The clock from the input on, cut where two gradients have nothing in common any more."""
    times = prior.clock(positions) - prior.clock(np.array([1.0]))
    clipped: Float64[np.ndarray, " n"] = np.clip(times, -LONGEST_TIME, LONGEST_TIME)
    return clipped


@dataclass(frozen=True)
class Stopped:
    """A clock that stands still on some stretches of the ray, where outputs have shown that no kink lies.

    Example:
        >>> still = Stopped(Walk(), ((1.0, 100.0),))
        >>> times = still.clock(np.array([1.0, 50.0, 100.0, 200.0]))
        >>> bool(times[0] == times[1] == times[2] < times[3])
        True
    """

    prior: Prior
    stretches: tuple[tuple[float, float], ...]

    def clock(self, positions: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """The prior's clock, less what it ran on the stretches up to each position."""
        times = self.prior.clock(positions)
        for start, stop in self.stretches:
            ends = self.prior.clock(np.array([start, stop]))
            times = times - np.clip(self.prior.clock(positions) - ends[0], 0, ends[1] - ends[0])
        return times

    def size(self, positions: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """The prior's."""
        return self.prior.size(positions)


def affine_stretches(
    positions: Float64[np.ndarray, " n"], outputs: Float64[np.ndarray, " n"], rounding: float
) -> tuple[tuple[float, float], ...]:
    """Stretches of the ray on which a piecewise linear output has no kink, as its values at some positions show.

    Three neighbouring values on one line leave no room for a kink between them, but for two that cancel. The
    middle one must meet the line through the outer two within the rounding of all three.

    Example:
        >>> at = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
        >>> affine_stretches(at, np.maximum(at, 1.5), 1e-12) == ((2.0, 4.0),)
        True
    """
    order = np.argsort(positions)
    place, value = positions[order], outputs[order]
    found: list[tuple[float, float]] = []
    for left, middle, right in zip(range(len(place)), range(1, len(place)), range(2, len(place)), strict=False):
        share = (place[middle] - place[left]) / (place[right] - place[left])
        if not LEAST_SHARE <= share <= 1 - LEAST_SHARE:
            continue  # a kink close to one of two close values would not be seen
        on_line = (1 - share) * value[left] + share * value[right]
        allowed = rounding * ((1 - share) * abs(value[left]) + share * abs(value[right]) + abs(value[middle]))
        if abs(value[middle] - on_line) <= allowed:
            if found and place[left] <= found[-1][1]:
                found[-1] = (found[-1][0], float(place[right]))
            else:
                found.append((float(place[left]), float(place[right])))
    return tuple(found)
