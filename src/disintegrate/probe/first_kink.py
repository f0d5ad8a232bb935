"""Where the first kink of a ray lies, as far as its answers show."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from disintegrate.probe.ray import Bracket, Ray

# Where a kink is looked for first, in units of the inputs' spread, by how much nearer then, and the bounds of that.
FIRST, SHRINK, SMALLEST, FURTHEST = 0.5, 0.22, 1e-5, 20.0
# Where a kink is looked for beyond answers that have met none, and how many coordinates must have moved enough.
OUTWARD, SEEN = (FIRST, 4.0, 40.0), 0.8
# Changes that count as no kink beside those further out, as a share of them; and as a share of the answers, where
# kinks further out are taken instead; and both in units of the noise.
FAINT, LITTLE, HIDDEN, MUCH = 0.01, 0.01, 8.0, 30.0
# How narrow the bracket of a kink is made: what three halvings of a ratio of 1 : SHRINK give.
WITHIN = 1.22
# Where ties of the model leave noise at the smallest scales: what counts as no change.
TIED = 2e-2


def kink_beyond(ray: Ray) -> Bracket | None:
    """The first kink of a ray that was asked twice close to its origin; None where there is none, or no plateau."""
    if len(ray.scales) < 2:
        return None
    inner, outer = np.argsort(ray.scales)[:2].tolist()
    if not ray.drifting:
        return _between(ray, inner, outer)
    low = ray.scales[outer]
    while low < FURTHEST:
        ray.ask([low / SHRINK])
        high = ray.scales[-1]
        if ray.shows(ray.news(-1, int(np.argmin(np.abs(np.array(ray.scales) - low))))):
            if low == ray.scales[outer]:
                # the two make a line whatever lies between them: a third says whether a kink does
                ray.ask([math.sqrt(ray.scales[inner] * low)])
                if ray.shows(ray.news(outer, len(ray.scales) - 1)):
                    return None
            return ray.bisected(Bracket(low, high), WITHIN)
        low = high
    return None


def _between(ray: Ray, inner: int, outer: int) -> Bracket | None:
    """The first kink beyond one of two answers, by halving what lies between two that differ."""
    if ray.usable().sum() < max(SEEN * (ray.direction != 0).sum(), 1):
        return None
    begin, end = ray.scales[inner], ray.scales[outer]
    changed, noise = _changed(ray, outer, inner), _noise(ray, outer)
    if changed > max(LITTLE, MUCH * noise) and ray.shows(ray.news(outer, inner)):
        ray.blur = max(FAINT * changed, HIDDEN * noise)
        found = ray.bisected(Bracket(begin, end), WITHIN)
        return _kink(ray, found, inner) if found.low > begin else _below(ray)
    for further in OUTWARD:
        if further > end:
            ray.ask([further])
            if ray.shows(ray.news(-1, outer)):
                ray.blur = max(FAINT * _changed(ray, -1, outer), HIDDEN * noise)
                return _kink(ray, ray.bisected(Bracket(end, further), WITHIN), outer)
            end = further
    return None


def _kink(ray: Ray, found: Bracket, plateau: int) -> Bracket:
    """The bracket of a kink, beside which only what is faint beside it counts as none from now on."""
    behind = int(np.argmin(np.abs(np.array(ray.scales) - found.high)))
    ray.blur = FAINT * _changed(ray, behind, plateau)
    return found


def _below(ray: Ray) -> Bracket | None:
    """The first kink of a ray that lies before all of its answers but perhaps the nearest; None where there is none."""
    nearest = int(np.argmin(ray.scales))
    while ray.scales[nearest] > SMALLEST and ray.asker.left:
        ray.ask([SHRINK * ray.scales[nearest]])
        if not ray.shows(ray.news(nearest, -1)):
            plateau, ascending = len(ray.scales) - 1, np.argsort(ray.scales).tolist()
            for low, high in pairwise(ascending):
                if ray.shows(ray.news(high, plateau)):
                    return ray.bisected(Bracket(ray.scales[low], ray.scales[high]), WITHIN)
            return None
        nearest = len(ray.scales) - 1
    # max pooling over equal neighbours ties at the baseline, and rounding decides: look for a plateau above
    ray.blur = TIED
    outward = np.argsort(ray.scales)[::-1].tolist()
    for high, low, lower in zip(outward, outward[1:], outward[2:], strict=False):
        if not ray.shows(ray.news(low, lower)):
            return ray.bisected(Bracket(ray.scales[low], ray.scales[high]), WITHIN)
    return None


def _changed(ray: Ray, far: int, near: int) -> float:
    """How much two answers differ, as a share of a typical one."""
    answers, _ = ray.divided()
    return ray.size(ray.news(far, near)) / max(float(np.sqrt((answers**2).mean() * answers.shape[1])), 1e-300)


def _noise(ray: Ray, row: int) -> float:
    """The noise of an answer as a share of it."""
    answers, deviations = ray.divided()
    return float(np.sqrt((deviations[row] ** 2).mean() / max(float((answers[row] ** 2).mean()), 1e-300)))


def first_kink(ray: Ray) -> Bracket | None:
    """Look for the first kink of a ray; None where the answers do not change beyond noise."""
    # where the gradient drifts, it takes one answer more to see a line
    lag = 1 if ray.drifting else 0
    ray.ask(FIRST * SHRINK ** np.arange(1 + lag))
    while ray.scales[-1] > SMALLEST:
        ray.ask([ray.scales[-1] * SHRINK])
        quiet = len(ray.scales) - 2 - lag
        if not ray.shows(ray.news(quiet, quiet + 1)):
            break
    else:
        # max pooling over equal neighbours ties at the baseline, and rounding decides: look for a plateau above
        ray.blur = TIED
        rows = range(1, len(ray.scales) - 1 - lag)
        quiet = next((row for row in rows if not ray.shows(ray.news(row, row + 1))), len(ray.scales) - 2 - lag)
    if quiet > 0:
        return ray.bisected(Bracket(ray.scales[quiet], ray.scales[quiet - 1]), WITHIN)
    # nothing changes below the first scale: look further out
    low = FIRST
    for further in OUTWARD[1:]:
        ray.ask([further])
        if ray.shows(ray.news(-1, quiet)):
            return ray.bisected(Bracket(low, further), WITHIN)
        low = further
    return None
