"""What sums of attributions and outputs tell of a rule, where attributions alone cannot.

On a ray from the baseline let `h(t)` be the derivative of the output. Each answer gives two functionals of it,

    S(s) = s sum_i w_i h(s t_i)    (the sum of the attributions),    f(s) = f(0) + int_0^s h                  (P.3)

and `h` itself is unknown. Taken as a walk with independent jumps, whose variance per length falls beyond some distance,
both are Gaussian, with a covariance that the rule sets; the likelihood of the answers says which rule made them. Mass,
the weight of a node at 0 and the end of the last interval all show here. Behind a softmax `h` bends between its jumps:
there its derivative is a walk as well. With `n` intervals, up to terms of order `1 / n^2`,

    S(s) - (f(s) - f(0)) =  s (h(s) - h(0)) / 2n                     right,    -s (h(s) - h(0)) / 2n    left,
                            (s (h(0) + h(s)) / 2 - (f(s) - f(0))) / n        saliency,

each give or take a sawtooth from every jump, which is another one at another scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from disintegrate.quadrature import Quadrature

# Places of jumps: so many over all scales, and so many in each interval of a rule up to the largest of the scales
# that are no further out than this.
PLACES, WITHIN_INTERVAL, LEAST_WITHIN, MOST_WITHIN, FAR_OUT = 500, 8, 600, 4000, 50.0
# And so many between neighbouring scales, seen from each node where a rule has few.
BETWEEN, FEW_NODES = 3, 30
DISTANCES = (0.3, 2.0)
# Jumps begin at the baseline, or only beyond one of so many scales: the first kink may lie anywhere.
ONSETS = 8
# Variances of jumps and of bends, so close that the likeliest lies near one of them.
VARIANCES, SOFT_VARIANCES = 10.0 ** np.arange(-2, 1.6, 0.5), 10.0 ** np.arange(-4, 1.6, 0.75)
BENDS = 10.0 ** np.arange(-2, 3.1, 1.0)
# The least noise, as a share of the largest datum.
LEAST = 1e-9
# The least that p (1 - p) is taken for.
FAINT = 1e-6
# A jump at the baseline itself: its square in units of the variance, and how much rarer than none.
TIES, RARE = (0.2, 6.0, 200.0), 20.0
# Where such a jump is put, in units of the smallest scale.
JUST_BEHIND = 1e-9


@dataclass(frozen=True, eq=False)
class Sums:
    """Scales of one ray with the sums of attributions, the outputs, and their standard deviations."""

    scales: Float64[np.ndarray, " q"]
    total: Float64[np.ndarray, " q"]
    total_deviation: Float64[np.ndarray, " q"]
    output: Float64[np.ndarray, " q"]
    output_deviation: Float64[np.ndarray, " q"]


def log_likelihoods(
    rays: Sequence[Sums], rules: Sequence[Quadrature], *, bending: bool = False
) -> Float64[np.ndarray, "2 rules"]:
    """The logarithm of how likely each rule is to make these answers, up to a constant.

    The second row says how far the answers lie outside what each rule makes at all: the largest square of a ray's
    answers per answer, in units of their spread. Where `bending`, the gradient changes between its jumps too.
    """
    found = np.array([[_log_likelihood(ray, rule, bending) for ray in rays] for rule in rules])
    return np.stack([found[:, :, 0].sum(1), found[:, :, 1].max(1)])


@dataclass(frozen=True, eq=False)
class _Walks:
    """The rows of (P.3) as functionals of a walk, each in units of its own size, so that near and far weigh alike.

    Attributes:
        jumps: what a jump at each place adds to the sums, then to the outputs.
        ramps: what a bend at each place adds.
        free: the slope and the offset, and behind a softmax the bend at the baseline, which may be anything.
        places: where jumps may lie, the first of them at the baseline itself.
        clock: how large the square of a jump is at each place.
        onsets: beyond which scale jumps may begin.
        middle: the unit of distances.
    """

    jumps: Float64[np.ndarray, "m k"]
    ramps: Float64[np.ndarray, "m k"]
    free: Float64[np.ndarray, "m p"]
    places: Float64[np.ndarray, " k"]
    clock: Float64[np.ndarray, " k"]
    onsets: Float64[np.ndarray, " o"]
    middle: float

    def covariances(self, bending: bool) -> tuple[Float64[np.ndarray, "h m m"], Float64[np.ndarray, " h"]]:
        """One for each distance, onset, variance and bend, with or without a jump at the baseline; and their rarity."""
        tied = np.outer(self.jumps[:, 0], self.jumps[:, 0])
        found, rarity = [], []
        for distance in DISTANCES:
            away = np.append(0.0, self.places[1:]) / (distance * self.middle)
            share = np.diff(away / (1 + away)) * self.clock[1:]
            bends = (self.ramps[:, 1:] * share) @ self.ramps[:, 1:].T / distance**2
            smooth = [bend * bends for bend in (BENDS if bending else (0.0,))]
            for onset in self.onsets:
                kept = share * (self.places[1:] > onset)
                spread = (self.jumps[:, 1:] * kept) @ self.jumps[:, 1:].T
                for variance in SOFT_VARIANCES if bending else VARIANCES:
                    found += [variance * spread + bent for bent in smooth]
                    rarity += [0.0] * len(smooth)
                    if onset == 0:
                        found += [variance * (spread + tie * tied) + bent for bent in smooth for tie in TIES]
                        rarity += [float(np.log(RARE * len(TIES)))] * len(smooth) * len(TIES)
        return np.array(found), np.array(rarity)


def _walks(ray: Sums, rule: Quadrature, bending: bool) -> tuple[_Walks, Float64[np.ndarray, " m"]]:
    """The functionals at the scales of a ray, and the units that they are in."""
    scales = ray.scales
    size = float(np.abs(ray.total / ray.scales).max()) or 1.0
    middle = float(ray.scales[ray.scales < FAR_OUT].max(initial=ray.scales.min()))
    order = np.argsort(rule.nodes)
    nodes, weights = rule.nodes[order], rule.weights[order]
    places = _places(scales, middle, nodes)
    beyond = np.searchsorted(nodes, places / scales[:, None], side="right")
    stairs = np.append(np.cumsum(weights[::-1])[::-1], 0.0)[beyond]
    ahead = np.maximum(scales[:, None] - places, 0)
    unit = np.concatenate([scales, scales]) * size
    jumps = np.concatenate([scales[:, None] * stairs, ahead]) / unit[:, None] * size
    # an offset in units of what the smallest scale moves, or the free columns differ by all orders of magnitude
    offset = np.concatenate([np.zeros(len(scales)), np.ones(len(scales))]) / unit * (ray.scales.min() * size)
    free = [np.concatenate([scales * rule.mass, scales]) / unit * size, offset]
    ramps = np.zeros_like(jumps)
    if bending:
        moments = np.append(np.cumsum((weights * nodes)[::-1])[::-1], 0.0)[beyond]
        ramps = np.concatenate([scales[:, None] * (scales[:, None] * moments - places * stairs), ahead**2 / 2])
        ramps = ramps / unit[:, None] * size / middle
        free.append(ramps[:, 0])
    clock = _clock(ray, places) if bending else np.ones(len(places))
    inside = np.sort(scales[scales <= middle])[: None if bending else -1]
    later = inside[np.unique(np.linspace(0, len(inside) - 1, ONSETS - 1).astype(int))] if len(inside) else inside
    return _Walks(jumps, ramps, np.column_stack(free), places, clock, np.append(0.0, later), middle), unit


def _log_likelihood(ray: Sums, rule: Quadrature, bending: bool) -> tuple[float, float]:
    """Averaged over the walk's distance and variance, and over whether the gradient at the baseline is its own."""
    walks, unit = _walks(ray, rule, bending)
    data = np.concatenate([ray.total, ray.output]) / unit
    if len(data) <= walks.free.shape[1]:
        return 0.0, 0.0  # whatever the rule, what is free makes so few answers
    noise = np.maximum(np.concatenate([ray.total_deviation, ray.output_deviation]) / unit, 3e-7 * np.abs(data))
    # sums that are 0, as where all units of a layer are silent, are no more exact than that
    noise = np.maximum(noise, LEAST * float(np.abs(data).max()))
    covariances, rarity = walks.covariances(bending)
    values, squares = _marginal(covariances + np.diag(noise**2), walks.free, data)
    values = values - rarity
    best = int(np.argmax(values))
    return float(values[best] + np.log(np.mean(np.exp(values - values[best])))), float(squares[best])


def _clock(ray: Sums, places: Float64[np.ndarray, " k"]) -> Float64[np.ndarray, " k"]:
    """How large the square of a jump is behind a softmax, in units of its largest: that of `p (1 - p)`."""
    order = np.argsort(ray.scales)
    lively = np.log(np.maximum(ray.output * (1 - ray.output), FAINT)[order])
    found: Float64[np.ndarray, " k"] = np.exp(
        2 * (np.interp(np.log(places), np.log(ray.scales[order]), lively) - lively.max())
    )
    return found


def _places(
    scales: Float64[np.ndarray, " q"], middle: float, nodes: Float64[np.ndarray, " n"]
) -> Float64[np.ndarray, " k"]:
    """Where jumps may lie; the first is the baseline itself, where max pooling over equal neighbours ties.

    They lie close enough that every node has some between any two scales.
    """
    every = np.geomspace(scales.min() / 300, scales.max(), PLACES)
    count = min(max(WITHIN_INTERVAL * len(nodes), LEAST_WITHIN), MOST_WITHIN)
    inside = np.sort(scales[scales <= middle])
    between = (inside[:-1] + np.diff(inside) * ((np.arange(BETWEEN)[:, None] + 0.5) / BETWEEN)).ravel()
    between = np.multiply.outer(between, nodes[nodes > 0] if len(nodes) <= FEW_NODES else np.ones(1)).ravel()
    places = np.concatenate([[JUST_BEHIND * scales.min()], every, middle * np.arange(1, count + 1) / count, between])
    found: Float64[np.ndarray, " k"] = np.unique(places)
    return found


def kinks_misfit(
    ray: Sums, rule: Quadrature, kinks: Float64[np.ndarray, " k"], widths: Float64[np.ndarray, " k"]
) -> float:
    """What is left, in units of the noise, where all kinks of the ray are known, each to within some width.

    Then both parts of (P.3) are linear in the slope at 0, the jumps and an offset.
    """
    scales, noise = ray.scales, np.concatenate([ray.total_deviation / ray.scales, ray.output_deviation])
    data = np.concatenate([ray.total / scales, ray.output])
    beyond = np.array([[rule.weights[scale * rule.nodes > kink].sum() for kink in kinks] for scale in scales])
    slope = np.append(np.full(len(scales), rule.mass), scales)
    offset = np.append(np.zeros(len(scales)), np.ones(len(scales)))
    jumps = np.concatenate([beyond, np.maximum(scales[:, None] - kinks, 0)])
    design = np.column_stack([slope, offset, jumps])
    weight = 1 / np.maximum(noise, 1e-12 * np.abs(data).max())
    first = np.linalg.lstsq(design * weight[:, None], data * weight, rcond=1e-14)[0]
    # a kink that is off within its cell lifts the output beyond it
    moves = np.concatenate([np.zeros_like(beyond), (scales[:, None] > kinks).astype(float)])
    moves = moves * np.abs(first[2:]) * widths / np.sqrt(12)
    known = np.eye(len(kinks), design.shape[1] + len(kinks), design.shape[1])
    whole = np.vstack([np.column_stack([design, moves]) * weight[:, None], known])
    target = np.append(data * weight, np.zeros(len(kinks)))
    found = np.linalg.lstsq(whole, target, rcond=1e-14)[0]
    return float(((target - whole @ found) ** 2).sum())


def _marginal(
    covariances: Float64[np.ndarray, "h m m"], free: Float64[np.ndarray, "m p"], data: Float64[np.ndarray, " m"]
) -> tuple[Float64[np.ndarray, " h"], Float64[np.ndarray, " h"]]:
    """The likelihood of data whose free columns may be there to any extent, and their square per datum."""
    diagonal = np.einsum("hmm->hm", covariances)
    lower = np.linalg.cholesky(covariances + 1e-15 * diagonal[:, None] * np.eye(len(data)))
    white = np.linalg.solve(lower, np.column_stack([data, free])[None])
    basis, triangle = np.linalg.qr(white[:, :, 1:])
    left = white[:, :, 0] - np.einsum("hmp,hnp,hn->hm", basis, basis, white[:, :, 0], optimize=True)
    logs = np.log(np.einsum("hmm->hm", lower)).sum(1) + np.log(np.abs(np.einsum("hpp->hp", triangle))).sum(1)
    square = (left**2).sum(1)
    return -0.5 * square - logs, square / len(data)
