"""What a ray near the baseline tells of a rule: every kink of the model is a staircase in the scale.

A gradient that jumps by `D_k` at the positions `tau_k` of a ray makes the answers at scale `s`, over what was moved,

    rho(s) = rho(0) + sum_k D_k W(tau_k / s),    W(u) = sum of the weights w_i with t_i > u                  (P.1)

so the columns of `rho`, one row per scale, lie in the span of a constant and of the staircases of the rule: few
vectors of the measured space, which a wrong rule cannot make. Attributions alone cannot tell rules apart whose nodes
above 0 differ by a stretch of the ray (right and left Riemann sums, saliency): those share one `Pattern`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Float64

MOST_STEPS = 256
# A staircase this many times further from the signal than noise would put it is not in it.
GATE = 12.0
# The price of a kink: its place is one of thousands, so that noise explains about so much of itself by it.
PLACE = 14.0
SWEEPS = 2


@dataclass(frozen=True, eq=False)
class Pattern:
    """Nodes above 0, and weights up to a factor, that several rules share.

    Attributes:
        members: the rules and steps that look like this.
        nodes: ascending, the largest one is 1.
        above: weights beyond each place: `above[k]` is the sum of all from the k-th node on; one more entry, 0.
    """

    members: tuple[tuple[str, int], ...]
    nodes: Float64[np.ndarray, " n"]
    above: Float64[np.ndarray, " n+1"]

    def staircase(self, positions: Float64[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape"]:
        """The sum of the weights whose nodes lie beyond each position."""
        return self.above[np.searchsorted(self.nodes, positions, side="right")]


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
        legendre = [("gauss_legendre", n), ("captum_gausslegendre", n)]
        middle = [("midpoint", n), ("captum_riemann_middle", n)]
        if n == 1:  # one node: nothing but a stretch sets these apart
            found.append(_pattern([*uniform, *halved, *legendre, *middle], grid, ones))
            continue
        found.append(_pattern(uniform, grid, ones))
        found.append(_pattern(halved, grid, np.append(ones[1:], 0.5)))
        found.append(_pattern(middle, grid - 0.5 / n, ones))
        found.append(_pattern(legendre, *_legendre(n)))
    return tuple(found)


def _pattern(
    members: list[tuple[str, int]], nodes: Float64[np.ndarray, " n"], weights: Float64[np.ndarray, " n"]
) -> Pattern:
    known = tuple((name, n) for name, n in members if not (n == 1 and name.startswith("captum_riemann")))
    above = np.append(np.cumsum(weights[::-1])[::-1], 0.0)
    return Pattern(known, nodes / nodes[-1], above / above[0])


def _legendre(n: int) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
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
        signal: orthonormal columns that hold all of the answers but noise.
        strength: singular values of the columns, in units of the noise.
        drift: orthonormal columns of what needs no kink.
        ramps: whether a kink may bend the gradient as well as make it jump, as it does behind a softmax.
    """

    scales: Float64[np.ndarray, " q"]
    certainty: Float64[np.ndarray, " q"]
    signal: Float64[np.ndarray, "q r"]
    strength: Float64[np.ndarray, " r"]
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
    seen = (deviation > 0).all(0)
    answers, deviation = answers[:, seen], deviation[:, seen]
    rows = np.sqrt(np.exp(np.log(deviation**2).mean(1)))
    columns = np.sqrt(((deviation / rows[:, None]) ** 2).mean(0))
    basis = np.linalg.qr((scales[:, None] / scales.max()) ** np.arange(drift + 1) / rows[:, None])[0]
    white = answers / rows[:, None] / columns
    white = white - basis @ (basis.T @ white)
    left, values, _ = np.linalg.svd(white, full_matrices=False)
    edge = 1.2 * (np.sqrt(white.shape[1]) + np.sqrt(len(scales)))
    count = int((values > edge).sum())
    return Readings(scales, 1 / rows, left[:, :count], values[:count], basis, ramps=drift > 0)


@dataclass(frozen=True, eq=False)
class Fit:
    """How well a pattern explains readings: `misfit` is the sum of squares that is left, in units of the noise."""

    pattern: Pattern
    misfit: float
    kinks: Float64[np.ndarray, " k"]
    widths: Float64[np.ndarray, " k"]
    freedom: int
    parameters: int
    apart: float = 0.0

    @property
    def cost(self) -> float:
        """The misfit, with the price of the kinks that were put in to make it small."""
        return self.misfit + self.parameters + PLACE * len(self.kinks)


def atoms(
    pattern: Pattern, scales: Float64[np.ndarray, " q"], low: float, high: float
) -> tuple[Float64[np.ndarray, " c"], Float64[np.ndarray, "q c"]]:
    """One kink in every cell between positions where some node at some scale changes sides, and its staircase."""
    edges = np.multiply.outer(scales, pattern.nodes)
    edges = np.sort(edges[(edges > low) & (edges < high)])
    edges = np.concatenate(([low], edges, [high]))
    middle = (edges[1:] + edges[:-1]) / 2
    middle = middle[np.diff(edges) > 1e-9 * high]
    return middle, pattern.staircase(middle / scales[:, None])


def _ramp(pattern: Pattern, scales: Float64[np.ndarray, " q"], place: float) -> Float64[np.ndarray, " q"]:
    weights = -np.diff(pattern.above)
    beyond = np.maximum(np.multiply.outer(scales, pattern.nodes) - place, 0)
    ramp: Float64[np.ndarray, " q"] = beyond @ weights
    return ramp


def scan(found: Readings, pattern: Pattern, low: float, high: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each place of a kink: how far its staircase lies from the signal, in units of what noise would do."""
    places, stairs = atoms(pattern, found.scales, low, high)
    stairs = stairs * found.certainty[:, None] / found.certainty.max()
    stairs = stairs - found.drift @ (found.drift.T @ stairs)
    inside = found.signal.T @ stairs
    total = np.einsum("qc,qc->c", stairs, stairs)
    far = np.maximum(total - np.einsum("rc,rc->c", inside, inside), 0)
    expected = found.freedom * np.einsum("rc,r->c", inside**2, 1 / found.strength**2) + 1e-14
    return places, far / expected, total


def explain(found: Readings, pattern: Pattern, low: float, high: float) -> Fit:
    """Fit kinks one after the other, those whose staircases lie in the signal before any other."""
    places, apart, total = scan(found, pattern, low, high)
    data = found.signal * found.strength
    target = data.copy()
    usable = total > 1e-12
    within = np.flatnonzero(usable & (apart < GATE))
    rest = np.flatnonzero(usable)
    stairs = pattern.staircase(places / found.scales[:, None]) * found.certainty[:, None] / found.certainty.max()
    stairs = stairs - found.drift @ (found.drift.T @ stairs)
    original = np.linalg.norm(stairs, axis=0)
    chosen: list[int] = []
    basis, spent = found.drift, 0
    misfit = float((target**2).sum())
    for candidates in (within, rest):
        while len(candidates) and len(chosen) < data.shape[1] + 2:
            norms = np.linalg.norm(stairs[:, candidates], axis=0)
            ok = norms > 1e-5 * original[candidates]
            unit = np.where(ok, stairs[:, candidates] / np.where(ok, norms, 1), 0)
            gain = ((target.T @ unit) ** 2).sum(0)
            best = int(np.argmax(gain))
            if gain[best] < 3 * data.shape[1] + 12:
                break
            chosen.append(int(candidates[best]))
            columns = unit[:, [best]]
            spent += 1
            if found.ramps:
                ramp = _ramp(pattern, found.scales, places[chosen[-1]]) * found.certainty
                ramp = ramp - basis @ (basis.T @ ramp)
                ramp = ramp - columns @ (columns.T @ ramp)
                if np.linalg.norm(ramp) > 1e-9 * np.linalg.norm(found.certainty) * found.scales.max():
                    columns = np.column_stack([columns, ramp / np.linalg.norm(ramp)])
                    spent += 1
            basis = np.column_stack([basis, columns])
            target = target - columns @ (columns.T @ target)
            stairs = stairs - columns @ (columns.T @ stairs)
            misfit = float((target**2).sum())
    freedom = data.shape[1] * max(len(found.scales) - found.drift.shape[1] - spent, 0)
    near = np.abs(places[:, None] - places[chosen])
    near[near == 0] = np.inf
    widths = near.min(0, initial=high) if len(places) > 1 else np.full(len(chosen), high)
    return Fit(pattern, misfit, places[chosen], widths, freedom, data.shape[1] * spent)


def refine(found: Readings, fit: Fit, low: float, high: float) -> Fit:
    """Move each kink to where it explains most beside the others: what was put in first need not be the best."""
    places, stairs = atoms(fit.pattern, found.scales, low, high)
    stairs = stairs * found.certainty[:, None] / found.certainty.max()
    data = found.signal * found.strength
    kinks = fit.kinks.copy()
    misfit = fit.misfit
    for _ in range(SWEEPS):
        before = misfit
        for number in range(len(kinks)):
            basis = _span(found, fit.pattern, np.delete(kinks, number))
            target = data - basis @ (basis.T @ data)
            free = stairs - basis @ (basis.T @ stairs)
            norms = np.linalg.norm(free, axis=0)
            ok = norms > 1e-5 * np.linalg.norm(stairs, axis=0).clip(1e-300)
            gain = ((target.T @ np.where(ok, free / np.where(ok, norms, 1), 0)) ** 2).sum(0)
            trial = kinks.copy()
            trial[number] = places[int(np.argmax(gain))]
            whole = _span(found, fit.pattern, trial)
            left = float(((data - whole @ (whole.T @ data)) ** 2).sum())
            if left < misfit:
                kinks, misfit = trial, left
        if before - misfit < 1:
            break
    return replace(fit, kinks=kinks, misfit=misfit)


def _span(found: Readings, pattern: Pattern, kinks: Float64[np.ndarray, " k"]) -> Float64[np.ndarray, "q c"]:
    """Orthonormal columns of the drift, the staircases of these kinks, and their ramps."""
    columns = [found.drift, pattern.staircase(kinks / found.scales[:, None]) * found.certainty[:, None]]
    if found.ramps:
        ramps = [_ramp(pattern, found.scales, float(kink)) * found.certainty for kink in kinks]
        columns += [np.array(ramps).reshape(-1, len(found.scales)).T]
    whole = np.column_stack(columns)
    whole = whole / np.linalg.norm(whole, axis=0).clip(1e-300)
    left, values, _ = np.linalg.svd(whole, full_matrices=False)
    kept: Float64[np.ndarray, "q c"] = left[:, values > 1e-10 * values.max(initial=1e-300)]
    return kept
