"""Where to ask next: at the scales for which the patterns that are left predict the most different answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from disintegrate.probe.anchored import columns_of, weighting
from disintegrate.probe.staircase import Fit, Readings

CANDIDATES, RIVALS = 400, 10
# A difference in squares of the noise beyond which a larger one tells no more.
CLEAR = 60.0
FAINT = 2.0


def telling_scales(
    found: Readings, fits: Sequence[Fit], low: float, high: float, count: int, generator: np.random.Generator
) -> Float64[np.ndarray, " k"]:
    """Scales that tell the first fit from the others, at most so many; none where no scale does."""
    if len(fits) < 2:
        return np.zeros(0)
    scales = low * (high / low) ** ((np.arange(CANDIDATES) + generator.random(CANDIDATES)) / CANDIDATES)
    weights = weighting(found, fits[0])
    seen = found.data @ weights / np.linalg.norm(weights)
    best, *others = (_predicted(found, seen, fit, scales) for fit in fits[: RIVALS + 1])
    gaps = np.array([_apart(best, other) for other in others])
    chosen: list[float] = []
    open_ = np.ones(len(others))
    while len(chosen) < count:
        worth = open_ @ gaps
        worth[[bool(np.any(np.abs(np.log(scale / np.array(chosen))) < 2e-3)) for scale in scales]] = 0.0
        pick = int(np.argmax(worth))
        if worth[pick] < FAINT:
            break
        chosen.append(float(scales[pick]))
        open_ = open_ * np.exp(-gaps[:, pick] / 20)
    return np.array(chosen)


def _predicted(
    found: Readings, seen: Float64[np.ndarray, " q"], fit: Fit, scales: Float64[np.ndarray, " s"]
) -> Float64[np.ndarray, "a s"]:
    """What a fit expects to see at new scales in units of the noise, for each place of its kink."""
    order = np.argsort(found.scales)
    certainty = np.exp(np.interp(np.log(scales), np.log(found.scales[order]), np.log(found.certainty[order])))
    every = []
    for cell in fit.cells:
        known, new = (_design(found, fit, float(cell), at) for at in (found.scales, scales))
        size = np.linalg.norm(known, axis=0).clip(1e-300)
        coefficients = np.linalg.lstsq(known / size * found.certainty[:, None], seen, rcond=1e-12)[0]
        every.append((new / size) @ coefficients * certainty)
    return np.array(every)


def _design(found: Readings, fit: Fit, kink: float, scales: Float64[np.ndarray, " s"]) -> Float64[np.ndarray, "s p"]:
    drift = (scales[:, None] / found.scales.max()) ** np.arange(found.drift.shape[1])
    whole: Float64[np.ndarray, "s p"] = np.column_stack(
        [drift, *columns_of(fit.pattern, scales, np.array([kink]), ramps=found.ramps)]
    )
    return whole


def _apart(one: Float64[np.ndarray, "a s"], other: Float64[np.ndarray, "b s"]) -> Float64[np.ndarray, " s"]:
    """The squared distance of one fit's prediction to the nearest of another's, on average over its kink's place."""
    gaps = (one[:, None] - other[None]) ** 2
    mean: Float64[np.ndarray, " s"] = np.minimum(gaps.min(1), CLEAR).mean(0)
    return mean
