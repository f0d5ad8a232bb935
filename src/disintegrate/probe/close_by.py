"""Close to the baseline: what its gradient is there, and by what share it may be another where that is not known."""

from __future__ import annotations

import math

import numpy as np

from disintegrate.probe.far_out import agreeing_saturated
from disintegrate.probe.ray import Ray
from disintegrate.probe.softmax import NEAR, liveliness
from disintegrate.probe.staircase import Pattern, patterns

# How much nearer the baseline is asked for its gradient, in units of the inputs' spread; under a coarse wire; and in
# units of how far the baseline may be off.
NEARER, NEARER_COARSE, RESOLVED = 2e-4, 2.5e-3, 100.0
# By what share the gradient close by may be another behind a softmax, as the baseline is not known in all coordinates.
STRAY_SOFTMAX = 0.1


def stray(near: Ray, spread: float) -> float:
    """Ask close to the baseline; by what share the gradient there may be another where that is not known.

    Args:
        near: a ray from the baseline.
        spread: the size of a typical coordinate.
    """
    lost = ~np.isfinite(near.origin.error)
    if lost.all():
        return math.inf
    resolved = RESOLVED * float(np.median(near.origin.error[~lost])) / spread
    nearer = min(max(NEARER_COARSE if near.asker.coarse else NEARER, resolved), NEAR / 2)
    near.ask([nearer] if near.scales else [NEAR, nearer])
    nearest = near.raw[-1]
    if not nearest.any():
        return math.inf
    if near.drifting:
        return abs(float(nearest[lost].sum())) / max(liveliness(near), 1e-300)
    # it shifts the gradient as much as a step along the ray that changes the output as much
    return float(np.linalg.norm(nearest[lost])) * near.scales[-1] / float(np.linalg.norm(nearest[~lost]))


def agreeing_close_by(near: Ray, out: Ray, spread: float) -> tuple[Pattern, ...]:
    """The patterns that weigh the baseline as answers behind a softmax do; all where that is not known so well.

    Args:
        near: a ray from the baseline, asked close to it.
        out: the same ray, asked far out.
        spread: the size of a typical coordinate.
    """
    share = stray(near, spread)
    return agreeing_saturated(near, out, patterns(), 2 * share) if share < STRAY_SOFTMAX else patterns()
