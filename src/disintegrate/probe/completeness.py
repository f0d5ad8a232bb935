"""What sums of attributions and outputs tell of a rule, where attributions alone cannot.

On a ray from the baseline let `h(t)` be the derivative of the output. Each answer gives two functionals of it,

    S(s) = s sum_i w_i h(s t_i)    (the sum of the attributions),    f(s) = f(0) + int_0^s h                  (P.3)

and `h` itself is unknown. Taken as a walk with independent jumps, whose variance per length falls beyond some distance,
both are Gaussian, with a covariance that the rule sets; the likelihood of the answers says which rule made them. Mass,
the weight of a node at 0 and the end of the last interval all show here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from disintegrate.quadrature import Quadrature

PLACES = 700
DISTANCES = (0.15, 0.8, 4.0)
VARIANCES = (0.03, 0.3, 2.0)
# A jump at the baseline itself: its share of the variance, and how much rarer than none.
TIE, RARE = 0.2, 20.0


@dataclass(frozen=True, eq=False)
class Sums:
    """Scales of one ray with the sums of attributions, the outputs, and their standard deviations."""

    scales: Float64[np.ndarray, " q"]
    total: Float64[np.ndarray, " q"]
    total_deviation: Float64[np.ndarray, " q"]
    output: Float64[np.ndarray, " q"]
    output_deviation: Float64[np.ndarray, " q"]


def log_likelihoods(rays: Sequence[Sums], rules: Sequence[Quadrature]) -> Float64[np.ndarray, "2 rules"]:
    """The logarithm of how likely each rule is to make these answers, up to a constant.

    The second row says how far the answers lie outside what each rule makes at all: the largest square of a ray's
    answers per answer, in units of their spread.
    """
    found = np.array([[_log_likelihood(ray, rule) for ray in rays] for rule in rules])
    return np.stack([found[:, :, 0].sum(1), found[:, :, 1].max(1)])


def _log_likelihood(ray: Sums, rule: Quadrature) -> tuple[float, float]:
    """Averaged over the walk's distance and variance, and over whether the gradient at the baseline is its own."""
    scales = ray.scales
    size = float(np.abs(ray.total / scales).max()) or 1.0
    # the first place is the baseline itself, where max pooling over equal neighbours ties
    places = np.append(1e-9 * scales.min(), np.geomspace(scales.min() / 300, scales.max(), PLACES))
    order = np.argsort(rule.nodes)
    above = np.append(np.cumsum(rule.weights[order][::-1])[::-1], 0.0)
    stairs = above[np.searchsorted(rule.nodes[order], places / scales[:, None], side="right")]
    jumps = np.concatenate([scales[:, None] * stairs, np.maximum(scales[:, None] - places, 0)])
    slope = np.concatenate([scales * rule.mass, scales])
    offset = np.concatenate([np.zeros(len(scales)), np.ones(len(scales))])
    data = np.concatenate([ray.total, ray.output])
    noise = np.concatenate([ray.total_deviation, ray.output_deviation])
    # each row in units of its own size, so that near and far are equally well conditioned
    unit = np.concatenate([scales, scales]) * size
    rows, slope, offset, data, noise = jumps / unit[:, None], slope / unit, offset / unit, data / unit, noise / unit
    # an offset in units of what the smallest scale moves, or the two free columns differ by all orders of magnitude
    free = np.column_stack([slope * size, offset / np.linalg.norm(offset)])
    noise = np.maximum(noise, 3e-7 * np.abs(data))
    found = []
    middle = float(np.median(scales))
    for distance in DISTANCES:
        away = np.append(0.0, places[1:]) / (distance * middle)
        share = np.diff(away / np.sqrt(1 + away**2))
        spread = (rows[:, 1:] * share) @ rows[:, 1:].T * size**2
        tied = TIE * np.outer(rows[:, 0], rows[:, 0]) * size**2
        for variance in VARIANCES:
            smooth = variance * spread + np.diag(noise**2)
            found += [_marginal(smooth, free, data), _marginal(smooth + variance * tied, free, data)]
    values = np.array(found)
    values[1::2, 0] -= np.log(RARE)
    best = int(np.argmax(values[:, 0]))
    total = values[best, 0] + np.log(np.mean(np.exp(values[:, 0] - values[best, 0])))
    return float(total), float(values[best, 1])


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
    covariance: Float64[np.ndarray, "m m"], free: Float64[np.ndarray, "m p"], data: Float64[np.ndarray, " m"]
) -> tuple[float, float]:
    """The likelihood of data whose slope and offset may be anything, and their square per datum."""
    lower = np.linalg.cholesky(covariance + 1e-15 * np.diag(np.diag(covariance)))
    white = np.linalg.solve(lower, np.column_stack([data, free]))
    triangle = np.linalg.qr(white[:, 1:])
    left = white[:, 0] - triangle[0] @ (triangle[0].T @ white[:, 0])
    logs = np.log(np.diag(lower)).sum() + np.log(np.abs(np.diag(triangle[1]))).sum()
    square = float(left @ left)
    return -0.5 * square - float(logs), square / len(data)
