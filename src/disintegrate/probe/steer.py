"""Turning a ray towards one unit of the model, so that its kink stands alone.

Where a ray crosses the hyperplane of a unit, the gradient jumps by a multiple of the unit's normal `n`. So the change
of two answers on either side of a ray's first kink points along `n`; on the ray along `n` that kink lies nearer by the
cosine between the two, and the kinks of all other units, whose normals are nearly orthogonal to it in many dimensions,
do not.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from disintegrate.probe.first_kink import SHRINK, SMALLEST, TIED, WITHIN
from disintegrate.probe.ray import Bracket, Ray

TURNS = 3
PLATEAU, MIDWAY, BEFORE, BEHIND = 0.15, 0.35, 0.7, 1.5
# How narrow a bracket is made where it holds more than one unit.
CLOSE = 1.06
# The least share of the jump that must show behind the kink that is expected.
FAINT = 0.35
# How much of the change may come before the kink that is expected.
NEARER = 0.5
# How often answers are asked further in before a nearer kink is taken to begin where they change.
LOOKS = 3
# Squares of the jump over those of its noise from which on its direction is known.
CLEAR = 4.0
# How far from the baseline, in units of a typical coordinate, float32 places a kink to a thousandth.
FINE, FINE_TIED = 1e-4, 1e-2
# The smallest attributions that float16 carries with all its digits.
NORMAL = 2e-4


def steered(ray: Ray, bracket: Bracket) -> tuple[Ray, float]:
    """The ray turned towards the unit of its first kink, and the scale at which that kink should lie.

    The ray as it is, where its answers do not say which way the unit lies.
    """
    for _ in range(TURNS):
        jump = _jump(ray, bracket)
        if jump is None:
            break
        turned, near = _turned(ray, bracket, jump)
        turned.ask([PLATEAU * near, MIDWAY * near, BEFORE * near, BEHIND * near])
        before, behind = turned.news(2, 1), turned.news(3, 2)
        late = turned.size(behind)
        expected = float(np.linalg.norm(jump)) * (1 - 1 / BEHIND) if turned.blur < TIED else 0.0
        if late < FAINT * expected or not turned.shows(behind):
            # the jump was that of several units, and not towards any of them
            if bracket.high < CLOSE * bracket.low:
                break
            bracket = ray.bisected(bracket, CLOSE)
            continue
        if turned.size(before if turned.drifting else turned.news(2, 0)) < NEARER * late:
            if not turned.drifting and turned.shows(before) and turned.shows(turned.news(1, 0)):
                # where max pooling ties at the baseline, rounding decides, and each answer has its own gradient
                size = float(np.linalg.norm(turned.divided()[0][2]))
                turned.scatter = turned.size(before) / np.sqrt(2) / size
            return turned, near
        # another unit lies nearer: it is the next to turn to, if it is one at all and no tie that rounding decides
        nearer = turned.bisected(_nearer(turned, near), WITHIN)
        if nearer.high < SMALLEST:
            break
        ray, bracket = turned, nearer
    return ray, bracket.high


def _nearer(ray: Ray, near: float) -> Bracket:
    """Where the answers first change before the kink that is expected.

    A kink shows once for each node, last where the first node meets it; what was asked before may lie between.
    """
    low, high = PLATEAU * near, BEFORE * near
    row = int(np.argmin(np.abs(np.array(ray.scales) - low)))
    for _ in range(LOOKS):
        # where the gradient drifts, it takes one answer more to see a line
        ray.ask(low * SHRINK ** np.arange(1, 3 if ray.drifting else 2))
        inner = len(ray.scales) - (2 if ray.drifting else 1)
        if not ray.shows(ray.news(row, inner)):
            break
        low, high, row = ray.scales[inner], low, inner
    return Bracket(low, high)


def _jump(ray: Ray, bracket: Bracket) -> Float64[np.ndarray, " d"] | None:
    """How much the gradient jumps at the kink, but for its sign; None where noise hides it."""
    answers, deviations = ray.divided()
    scales = np.array(ray.scales)
    below, beyond = (int(np.argmin(np.abs(scales - end))) for end in (bracket.low, bracket.high))
    weights = ray.news(beyond, below)
    jump, noise = weights @ answers, weights**2 @ deviations**2
    if not jump.size or (jump**2).sum() < CLEAR * noise.sum():
        return None
    whole = np.zeros(ray.direction.size)
    whole[ray.usable()] = jump * np.maximum(1 - noise / np.maximum(jump**2, 1e-300), 0)
    # an answer holds about so much of a jump that lies so far below it
    return whole / (1 - bracket.middle / bracket.high) if whole @ ray.direction else None


def _turned(ray: Ray, bracket: Bracket, jump: Float64[np.ndarray, " d"]) -> tuple[Ray, float]:
    """A ray along the normal, or only so far towards it that coordinates move enough, and where its kink should lie."""
    asker, origin = ray.asker, ray.origin
    length = float(np.linalg.norm(ray.direction))
    normal = jump * np.sign(jump @ ray.direction) / np.linalg.norm(jump)
    along = float(normal @ ray.direction)
    distance = bracket.middle * along
    fine = FINE_TIED if ray.blur >= TIED else FINE
    enough = fine * max(float(np.sqrt((origin.point**2).mean())), length / np.sqrt(np.count_nonzero(ray.direction)))
    # the same for each coordinate of a normal that spreads over so many
    count = np.sqrt(1 / float((normal**4).sum()))
    if asker.coarse:
        enough = max(enough, count * NORMAL / float(np.sqrt((ray.divided()[0] ** 2).mean())))
    known = np.isfinite(origin.error)
    enough = max(enough, 30 * count * float(np.median(origin.error[known])) if known.any() else 0.0)
    cosine = max(min(1.0, distance / enough), along / length)
    aside = ray.direction - along * normal
    size = float(np.linalg.norm(aside))
    direction = cosine * normal
    if size > 0:
        direction = direction + np.sqrt(1 - cosine**2) * aside / size
    turned = Ray(asker, origin, direction * length, ray.target, drifting=ray.drifting, steps=ray.steps)
    turned.blur, turned.normal = ray.blur, normal
    return turned, distance / (cosine * length)
