"""Close to the baseline: what its gradient is there, and by what share it may be another where that is not known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from disintegrate.probe.far_out import agreeing_saturated
from disintegrate.probe.findings import Findings
from disintegrate.probe.ray import Origin, Ray
from disintegrate.probe.softmax import NEAR, liveliness
from disintegrate.probe.staircase import Pattern, patterns

# How much nearer the baseline is asked for its gradient, in units of the inputs' spread; under a coarse wire; and in
# units of how far the baseline may be off.
NEARER, NEARER_COARSE, RESOLVED = 2e-4, 2.5e-3, 100.0
# By what share the gradient close by may be another behind a softmax, as the baseline is not known in all coordinates.
STRAY_SOFTMAX = 0.1
# How far off a coordinate is to lie elsewhere, in units of the noise and as a share of the way to the second answer;
# and for which share of them that may be.
OFF, ASIDE, FEW = 6.0, 0.02, 0.3
# How much nearer that is borne out, and how far off a coordinate may be then at least, in units of the noise.
CLOSER, DOUBT = 0.3, 3.0


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
    if not near.scales:
        near.ask([NEAR, nearer])
    elif min(map(abs, near.scales)) > nearer:
        near.ask([nearer])
    closest = int(np.argmin(np.abs(near.scales)))
    nearest = near.raw[closest]
    if not nearest.any():
        return math.inf
    if near.drifting:
        return abs(float(nearest[lost].sum())) / max(liveliness(near), 1e-300)
    # it shifts the gradient as much as a step along the ray that changes the output as much
    return float(np.linalg.norm(nearest[lost])) * near.scales[closest] / float(np.linalg.norm(nearest[~lost]))


def righted(near: Ray) -> Origin:
    """Where a ray begins, by its two answers nearest to there, in the few coordinates that these say lie elsewhere.

    A gradient that changed its sign between two points looks like the baseline; but what a coordinate answers close by
    vanishes on a line through both only there. Where many lie off, the gradient itself changes between the two.
    """
    origin = near.origin
    if len(near.scales) < 2 or not origin.error.any() or not near.asker.left:
        return origin
    first, second = np.argsort(np.abs(near.scales))[:2].tolist()
    (before, behind), (low, high) = ((rows[first], rows[second]) for rows in (near.raw, near.moved))
    slope = np.divide(behind - before, high - low, out=np.zeros(low.size), where=high != low)
    rough = np.hypot(near.asker.deviation(before) * high, near.asker.deviation(behind) * low)
    seen = (slope != 0) & np.isfinite(origin.error)
    off, noise = (
        np.divide(values, slope, out=np.zeros(low.size), where=seen)
        for values in (before - slope * low, rough / np.where(high != low, high - low, 1.0))
    )
    elsewhere = (np.abs(off) > OFF * np.abs(noise)) & (np.abs(off) > ASIDE * np.abs(high))
    if not 0 < elsewhere.sum() <= FEW * seen.sum():
        return origin
    # a kink between the two looks alike, but nearer than both answers then vanish at the origin
    near.ask([CLOSER * near.scales[first]])
    there, moved = near.raw[-1], near.moved[-1]
    through = before * np.divide(moved, low, out=np.zeros(low.size), where=low != 0)
    elsewhere &= np.abs(there - (before - slope * (low - moved))) < np.abs(there - through)
    point = np.where(elsewhere, origin.point - off, origin.point)
    return replace(
        origin, point=point, error=np.where(elsewhere, np.maximum(DOUBT * np.abs(noise), origin.error), origin.error)
    )


def put_right(near: Ray, findings: Findings) -> None:
    """Let a ray begin where its answers say that it does, and report the baseline there.

    Args:
        near: a ray from the baseline, asked close to it.
        findings: what was found so far.
    """
    before = near.origin
    near.begins_at(righted(near))
    known, moved = findings.result.baseline, near.origin.point != before.point
    if known.value is None or not moved.any():
        return
    shape = known.value.point.shape
    point = np.where(moved, near.origin.point, known.value.point.ravel())
    error = np.where(moved, np.maximum(near.origin.error, known.value.error.ravel()), known.value.error.ravel())
    evidence = f"{known.evidence}; put right in {int(moved.sum())} by what these answer close by"
    mended = replace(known.value, point=point.reshape(shape), error=error.reshape(shape))
    findings.add(baseline=replace(known, value=mended, evidence=evidence))


def agreeing_close_by(near: Ray, out: Ray, spread: float) -> tuple[Pattern, ...]:
    """The patterns that weigh the baseline as answers behind a softmax do; all where that is not known so well.

    Args:
        near: a ray from the baseline, asked close to it.
        out: the same ray, asked far out.
        spread: the size of a typical coordinate.
    """
    share = stray(near, spread)
    return agreeing_saturated(near, out, patterns(), 2 * share) if share < STRAY_SOFTMAX else patterns()
