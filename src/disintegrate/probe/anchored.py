"""Which pattern has a staircase in the answers of a ray whose strong kink lies about where it is expected.

The answers are a few orthonormal columns `U` with strengths `S`, and noise. A staircase `a` is part of them if some
weighting of the coordinates makes it, up to the noise that this weighting amplifies:

    T = |a - U U^T a|^2 / |S^-1 U^T a|^2     is chi-squared distributed where it is, and large where not.    (P.4)

Other kinks, and ties that rounding decides, are columns of their own and do no harm but to take rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from disintegrate.probe.staircase import Fit, Pattern, Readings, patterns, places_between

# How far from where it is expected a kink may lie, as a factor; and nearer, where nothing was asked between.
WINDOW, FURTHER = 1.5, 2.2
# How much worse than the best place another may be to be kept, how many are, and places inside each.
ALIKE, MOST_CELLS, INSIDE = 8.0, 6, 7
# The steepest ramp behind a kink, in units of its jump over its place.
STEEP = 3.0
# How much of a staircase must be more than drift.
SEEN = 1e-4
# Noise that a weighting may amplify: the least, relative to the staircase, and the most, as for a kink so many times
# weaker than the strongest column; what is fainter is not the kink that the ray was turned to.
LEAST, MOST = 1e-7, 6.0


def anchored(found: Readings, near: float, known: Sequence[Pattern] | None = None) -> tuple[Fit, ...]:
    """All patterns with a kink close to a place, the likeliest first; or those of some patterns alone."""
    fits = [_fit(found, pattern, near) for pattern in (patterns() if known is None else known)]
    return tuple(sorted(fits, key=lambda fit: fit.misfit))


def columns_of(
    pattern: Pattern, scales: Float64[np.ndarray, " q"], places: Float64[np.ndarray, " c"], *, ramps: bool
) -> list[Float64[np.ndarray, "q c"]]:
    """What a kink at each place adds to the answers: a staircase, and behind a softmax a ramp as well (P.1)."""
    ends = places / scales[:, None]
    if not ramps:
        return [pattern.staircase(ends)]
    weights, moments = pattern.beyond(ends)
    return [weights, scales[:, None] * moments - places * weights]


def weighting(found: Readings, fit: Fit) -> Float64[np.ndarray, " r"]:
    """The weights of the signal's columns that make the staircase of a fit."""
    staircase = fit.slope @ np.array([column[:, 0] for column in _whitened(found, fit.pattern, fit.kinks)])
    weights: Float64[np.ndarray, " r"] = (found.signal.T @ staircase) / found.strength
    return weights


def _fit(found: Readings, pattern: Pattern, near: float) -> Fit:
    # a kink may lie anywhere between two scales that were asked
    low = float(found.scales[found.scales < near / WINDOW].max(initial=near / FURTHER))
    places = places_between(pattern, found.scales, low, near * WINDOW)
    columns = _whitened(found, pattern, places)
    outside = [column - found.signal @ (found.signal.T @ column) for column in columns]
    inside = [(found.signal.T @ column) / found.strength[:, None] for column in columns]
    slope = np.zeros(len(places))
    if found.ramps:
        slope = _steepness(outside, inside, STEEP / near)
    far, amplified = (parts[0] + (slope * parts[1] if found.ramps else 0.0) for parts in (outside, inside))
    size = np.linalg.norm(columns[0], axis=0)
    noise = np.clip(np.linalg.norm(amplified, axis=0), LEAST * size, MOST * size / found.strength[0])
    misfits = (far**2).sum(0) / np.maximum(noise**2, 1e-300)
    # a kink that all answers see alike, or none, is no part of them
    misfits[size < SEEN * np.linalg.norm(found.certainty)] = np.inf
    best = int(np.argmin(misfits))
    alike = places[misfits < misfits[best] + ALIKE]
    alike = alike[:: 1 + len(alike) // MOST_CELLS]
    freedom = len(found.scales) - found.drift.shape[1] - len(columns) + 1 - found.signal.shape[1]
    edges = np.diff(places)[max(best - 1, 0) : best + 1]
    width = float(edges.min()) if len(edges) else near
    return Fit(
        pattern=pattern,
        misfit=float(misfits[best]),
        kinks=places[[best]],
        widths=np.array([width]),
        slope=np.array([1.0, slope[best]])[: len(columns)],
        freedom=freedom,
        cells=_within(alike, places),
    )


def _steepness(
    outside: list[Float64[np.ndarray, "q c"]], inside: list[Float64[np.ndarray, "r c"]], most: float
) -> Float64[np.ndarray, " c"]:
    """The share of the ramp that makes (P.4) least, of all those not steeper than allowed."""
    n0, n1, n2 = (np.einsum("qc,qc->c", outside[i], outside[j]) for i, j in ((0, 0), (0, 1), (1, 1)))
    d0, d1, d2 = (np.einsum("rc,rc->c", inside[i], inside[j]) for i, j in ((0, 0), (0, 1), (1, 1)))
    a, b, c = n2 * d1 - n1 * d2, n2 * d0 - n0 * d2, n1 * d0 - n0 * d1
    root = np.sqrt(np.maximum(b * b - 4 * a * c, 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        tried = np.stack([np.zeros_like(a), (-b + root) / (2 * a), (-b - root) / (2 * a), -c / b])
    tried = np.clip(np.nan_to_num(tried, nan=0.0, posinf=most, neginf=-most), -most, most)
    # a ramp that fits to nothing is no candidate, whatever its ratio
    with np.errstate(over="ignore"):
        ratios = (n0 + 2 * n1 * tried + n2 * tried**2) / np.maximum(d0 + 2 * d1 * tried + d2 * tried**2, 1e-300)
    best: Float64[np.ndarray, " c"] = np.take_along_axis(tried, ratios.argmin(0)[None], 0)[0]
    return best


def _within(chosen: Float64[np.ndarray, " a"], places: Float64[np.ndarray, " c"]) -> Float64[np.ndarray, " b"]:
    """Several places within each of the chosen cells, whose middles are the places."""
    if len(places) < 2:
        return chosen
    edges = (places[1:] + places[:-1]) / 2
    index = np.searchsorted(places, chosen)
    low, high = edges[np.maximum(index - 1, 0)], edges[np.minimum(index, len(edges) - 1)]
    found: Float64[np.ndarray, " b"] = np.unique(low[:, None] + (high - low)[:, None] * np.linspace(0.04, 0.96, INSIDE))
    return found


def _whitened(found: Readings, pattern: Pattern, places: Float64[np.ndarray, " c"]) -> list[Float64[np.ndarray, "q c"]]:
    """The columns of kinks in units of the noise, without what drift explains."""
    columns = columns_of(pattern, found.scales, places, ramps=found.ramps)
    weighted = [column * found.certainty[:, None] for column in columns]
    return [column - found.drift @ (found.drift.T @ column) for column in weighted]
