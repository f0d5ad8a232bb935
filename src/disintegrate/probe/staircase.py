"""What a ray near the baseline tells of a rule: every kink of the model is a staircase in the scale.

A gradient that jumps by `D_k` at the positions `tau_k` of a ray makes the answers at scale `s`, over what was moved,

    rho(s) = rho(0) + sum_k D_k W(tau_k / s),    W(u) = sum of the weights w_i with t_i > u                  (P.1)

so the columns of `rho`, one row per scale, lie in the span of a constant and of the staircases of the rule: few
vectors of the measured space, which a wrong rule cannot make. Attributions alone cannot tell rules apart whose nodes
above 0 differ by a stretch of the ray (right and left Riemann sums, saliency): those share one `Pattern`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float64

MOST_STEPS = 256


@dataclass(frozen=True, eq=False)
class Pattern:
    """Nodes, and weights up to a factor, that several rules share.

    Attributes:
        members: the rules and steps that look like this.
        nodes: ascending; those above 0, the largest one 1, where answers tell no more than that.
        above: weights beyond each place: `above[k]` is the sum of all from the k-th node on; one more entry, 0.
    """

    members: tuple[tuple[str, int], ...]
    nodes: Float64[np.ndarray, " n"]
    above: Float64[np.ndarray, " n+1"]

    def with_steps(self, steps: int) -> Pattern | None:
        """The pattern of those members that have so many steps, if any."""
        members = tuple(member for member in self.members if member[1] == steps)
        return dataclasses.replace(self, members=members) if members else None

    def staircase(self, positions: Float64[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape"]:
        """The sum of the weights whose nodes lie beyond each position."""
        return self.above[np.searchsorted(self.nodes, positions, side="right")]

    def beyond(
        self, positions: Float64[np.ndarray, "*shape"]
    ) -> tuple[Float64[np.ndarray, "*shape"], Float64[np.ndarray, "*shape"]]:
        """The sums of weight, and of weight times node, over the nodes beyond each position."""
        index = np.searchsorted(self.nodes, positions, side="right")
        parts = -np.diff(self.above) * self.nodes
        moments = np.append(np.cumsum(parts[::-1])[::-1], 0.0)
        return self.above[index], moments[index]


@lru_cache
def patterns(most: int = MOST_STEPS) -> tuple[Pattern, ...]:
    """All that attributions near the baseline can tell apart, with up to so many nodes.

    Example:
        >>> pattern = patterns(4)[0]
        >>> ("riemann_right", 1) in pattern.members and ("riemann_left", 2) in pattern.members
        True
    """
    found = []
    for n in range(1, most + 1):
        grid, ones = np.arange(1, n + 1) / n, np.ones(n)
        uniform = [("riemann_right", n), ("captum_riemann_right", n), ("riemann_left", n + 1)]
        uniform += [("captum_riemann_left", n + 1), ("saliency", n + 1)]
        halved = [("trapezoid", n + 1), ("tensorflow_tutorial", n), ("captum_riemann_trapezoid", n + 1)]
        gaussian = [("gauss_legendre", n), ("captum_gausslegendre", n)]
        middle = [("midpoint", n), ("captum_riemann_middle", n)]
        if n == 1:  # one node: nothing but a stretch sets these apart
            found.append(_pattern([*uniform, *halved, *gaussian, *middle], grid, ones))
            continue
        found.append(_pattern(uniform, grid, ones))
        found.append(_pattern(halved, grid, np.append(ones[1:], 0.5)))
        found.append(_pattern(middle, grid - 0.5 / n, ones))
        found.append(_pattern(gaussian, *legendre(n)))
    return tuple(found)


def keeping(among: Sequence[Pattern], kept: Callable[[str, int], bool]) -> tuple[Pattern, ...]:
    """Those of some patterns that have members of which something holds, with these alone."""
    left = [(pattern, tuple(member for member in pattern.members if kept(*member))) for pattern in among]
    return tuple(dataclasses.replace(pattern, members=members) for pattern, members in left if members)


def _pattern(
    members: list[tuple[str, int]], nodes: Float64[np.ndarray, " n"], weights: Float64[np.ndarray, " n"]
) -> Pattern:
    known = tuple((name, n) for name, n in members if not (n == 1 and name.startswith("captum_riemann")))
    above = np.append(np.cumsum(weights[::-1])[::-1], 0.0)
    return Pattern(known, nodes / nodes[-1], above / above[0])


def legendre(n: int) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Gauss-Legendre by Newton's method: all of them up to 256 steps in a second, where eigenvalues take a minute."""
    x = -np.cos(np.pi * (np.arange(1, n + 1) - 0.25) / (n + 0.5))
    for _ in range(4):
        before, value = np.ones(n), x.copy()
        for k in range(2, n + 1):
            before, value = value, ((2 * k - 1) * x * value - (k - 1) * before) / k
        slope = n * (x * value - before) / (x * x - 1)
        x = x - value / slope
    return (x + 1) / 2, 1 / ((1 - x * x) * slope**2)


@dataclass(frozen=True, eq=False)
class Readings:
    """Answers on one ray, whitened so that their noise is about 1, less what is free: a constant and a drift.

    Attributes:
        scales: where on the ray was asked.
        certainty: what each row was multiplied by, so that all are equally noisy.
        data: the answers in the directions that hold more than noise, whitened, drift included.
        signal: orthonormal columns that hold all of the answers but noise and drift.
        strength: singular values of the columns, in units of the noise.
        coordinates: how much of each coordinate goes into each column.
        drift: orthonormal columns of what needs no kink.
        ramps: whether a kink may bend the gradient as well as make it jump, as it does behind a softmax.
    """

    scales: Float64[np.ndarray, " q"]
    certainty: Float64[np.ndarray, " q"]
    data: Float64[np.ndarray, "q r"]
    signal: Float64[np.ndarray, "q r"]
    strength: Float64[np.ndarray, " r"]
    coordinates: Float64[np.ndarray, "d r"]
    drift: Float64[np.ndarray, "q p"]
    ramps: bool

    @property
    def freedom(self) -> int:
        """Rows that are left to contradict a rule."""
        return len(self.scales) - int(self.drift.shape[1]) - int(self.signal.shape[1])


def readings(
    scales: Float64[np.ndarray, " q"],
    answers: Float64[np.ndarray, "q d"],
    deviation: Float64[np.ndarray, "q d"],
    drift: int,
) -> Readings:
    """Split answers into drift, signal and noise by their singular values."""
    seen = np.asarray((deviation > 0).all(0))
    answers, deviation = answers[:, seen], deviation[:, seen]
    rows = np.sqrt(np.exp(np.log(deviation**2).mean(1)))
    columns = np.sqrt(((deviation / rows[:, None]) ** 2).mean(0))
    basis = np.linalg.qr((scales[:, None] / scales.max()) ** np.arange(drift + 1) / rows[:, None])[0]
    whole = answers / rows[:, None] / columns
    white = whole - basis @ (basis.T @ whole)
    left, values, right = np.linalg.svd(white, full_matrices=False)
    edge = 1.2 * (np.sqrt(white.shape[1]) + np.sqrt(len(scales)))
    count = int((values > edge).sum())
    data = whole @ right[:count].T
    coordinates = np.zeros((len(seen), count))
    coordinates[seen] = right[:count].T / columns[:, None]
    return Readings(
        scales=scales,
        certainty=1 / rows,
        data=data,
        signal=left[:, :count],
        strength=values[:count],
        coordinates=coordinates,
        drift=basis,
        ramps=drift > 0,
    )


@dataclass(frozen=True, eq=False)
class Fit:
    """How well a pattern explains readings.

    Attributes:
        pattern: the nodes and weights.
        misfit: how far its staircase lies from the answers, as a square in units of the noise (P.4).
        kinks: where its kink is placed.
        widths: the distance to the next place that the answers could tell from it.
        slope: the shares of staircase and ramp.
        freedom: rows that were left to contradict the pattern.
        cells: places that would do nearly as well.
    """

    pattern: Pattern
    misfit: float
    kinks: Float64[np.ndarray, " 1"]
    widths: Float64[np.ndarray, " 1"]
    slope: Float64[np.ndarray, " s"]
    freedom: int
    cells: Float64[np.ndarray, " c"]


def places_between(
    pattern: Pattern, scales: Float64[np.ndarray, " q"], low: float, high: float
) -> Float64[np.ndarray, " c"]:
    """A place in every cell between positions where some node at some scale changes sides."""
    edges = np.multiply.outer(scales, pattern.nodes)
    edges = np.sort(edges[(edges > low) & (edges < high)])
    edges = np.concatenate(([low], edges, [high]))
    middle: Float64[np.ndarray, " c"] = ((edges[1:] + edges[:-1]) / 2)[np.diff(edges) > 1e-9 * high]
    return middle
