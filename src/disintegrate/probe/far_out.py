"""What a rule weighs the baseline with, seen far out, where every other node has left all kinks behind.

An answer there, over what was moved, is `M P + w_0 (g_0 - P)` with the gradients `g_0` at the baseline and `P` far out,
the mass `M` and the weight `w_0` of a node at 0. Behind a softmax `P` vanishes; else the outputs tell its share along
the ray.                                                                                                     (P.7)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np
from jaxtyping import Float64

from disintegrate.errors import NotPermitted
from disintegrate.probe.one_kink import quadrature
from disintegrate.probe.ray import Ray, seen_by
from disintegrate.probe.staircase import Pattern, keeping
from disintegrate.probe.weighing import furthest, sums_of

# How far out, in units of the inputs' spread, and where numbers are carried coarsely.
FAR, FAR_COARSE = 1e5, 2e3
# How far off, in units of the noise, a rule is left out; how far out kinks may lie; and what drifts near the baseline.
OFF, KINKS, NEAR = 6.0, 10.0, 0.01
# By what share sums near the baseline may disagree, where ties or kinks lie there.
TIED = 0.005
# How much of what points elsewhere is noise; how far apart two answers must lie to read the drift off them; and what is
# lost where it does not stay a line: of its square, of itself, and at least.
BEYOND, LATER, CURVED, STRAY, LOST = 2.0, 1.5, 2.0, 0.02, 1e-4


def far_of(ray: Ray) -> float:
    """The scale that is far out."""
    return FAR_COARSE if ray.asker.coarse else FAR


@cache
def baseline_and_mass(rule: str, steps: int) -> tuple[float, float]:
    """The weight of a node at the baseline, and the mass."""
    nodes, weights = quadrature(rule, steps)
    return float(weights[nodes == 0].sum()), float(weights.sum())


def alike_at_baseline(among: Sequence[Pattern]) -> bool:
    """Whether all of some patterns have a node at the baseline, or none of them."""
    return len({baseline_and_mass(*pattern.members[0])[0] > 0 for pattern in among}) == 1


def weigh_baseline(among: Sequence[Pattern]) -> bool:
    """Whether all of some patterns have a node at the baseline."""
    return all(baseline_and_mass(*pattern.members[0])[0] > 0 for pattern in among)


def agreeing_saturated(ray: Ray, out: Ray, among: Sequence[Pattern], stray: float = 0.0) -> tuple[Pattern, ...]:
    """Those of some patterns whose members answer so far out behind a softmax, with these alone; all where none does.

    A service that refuses a point so far out tells nothing either. The other end of the ray is asked only where the one
    leaves open whether there is a node at the baseline.

    Args:
        ray: one that was asked near the baseline, at two scales at least.
        out: the same ray far out; what was asked there already is not asked again.
        among: the patterns that are left.
        stray: by what share the gradient near the baseline may be another, as that is not known in all coordinates.
    """
    left = tuple(among)
    for end in (far_of(ray), -far_of(ray)):
        try:
            if end not in out.scales:
                out.ask([end])
        except NotPermitted:
            ray.asker.refused = True
            return tuple(among)
        left = _within(among, _saturated(ray, out, stray))
        if alike_at_baseline(left):
            break
    return left or tuple(among)


def agreeing_affine(near: Ray, rays: Sequence[Ray], among: Sequence[Pattern]) -> tuple[Pattern, ...]:
    """The same without a softmax, by the sums of rays; the second is asked where the first leaves that open.

    Args:
        near: another ray with an answer near the baseline; what the rays say otherwise there is lost in ties and kinks.
        rays: the rays; they are asked as near, and far out.
        among: the patterns that are left.
    """
    left = tuple(among)
    for ray in rays:
        ray.ask([min(map(abs, near.scales))])
        tied = _tied(near, ray)
        if tied > TIED:
            break
        try:
            ray.ask([furthest(ray)])
        except NotPermitted:
            near.asker.refused = True
            break
        left = _within(left, _affine(ray, tied)) or left
        if alike_at_baseline(left):
            break
    return left


def _within(among: Sequence[Pattern], misfit: Callable[[float, float], float]) -> tuple[Pattern, ...]:
    return keeping(among, lambda rule, steps: misfit(*baseline_and_mass(rule, steps)) < OFF)


def _saturated(ray: Ray, out: Ray, stray: float) -> Callable[[float, float], float]:
    """How far off an answer behind a softmax is, for a weight at the baseline and a mass."""
    answers, noise = seen_by({"near": ray, "far": out})
    near, blur, drift = _at_baseline(answers, noise, ray.scales)
    drift = math.hypot(drift, stray)
    size = max(float((near**2).sum()), 1e-300)
    shares, doubts = [], []
    for end in out.scales:
        row, rough = answers["far", end], noise["far", end]
        share = float(row @ near) / size
        # what points elsewhere: max pooling ties at the baseline, or the softmax has not saturated
        rounding = rough**2 + (share * blur) ** 2
        aside = max(float(((row - share * near) ** 2).sum()) - BEYOND * float(rounding.sum()), 0.0)
        projected = float((rounding * near**2).sum()) / size
        shares.append(share)
        doubts.append(math.sqrt((aside + projected) / size + (drift * share) ** 2))
    best = int(np.argmin(doubts))

    def misfit(weight: float, mass: float) -> float:
        return abs(shares[best] - weight / mass) / max(doubts[best], 1e-300) if mass > 0 else math.inf

    return misfit


def _at_baseline(
    answers: Mapping[tuple[str, float], Float64[np.ndarray, " k"]],
    noise: Mapping[tuple[str, float], Float64[np.ndarray, " k"]],
    scales: list[float],
) -> tuple[Float64[np.ndarray, " k"], Float64[np.ndarray, " k"], float]:
    """The answer in the limit of no distance, its noise, and what may be lost on the way there, as a share.

    Behind a softmax the gradient drifts from the very begin: two answers tell how much.
    """
    ascending: list[float] = np.array(scales)[np.argsort(np.abs(scales))].tolist()
    first, others = ascending[0], ascending[1:]
    near, blur = answers["near", first], noise["near", first]
    later: list[float] = [scale for scale in others if scale >= LATER * first]
    if not later:
        return near, blur, NEAR
    second = later[0]
    further = first / (second - first)
    limit = near + further * (near - answers["near", second])
    blur = np.hypot((1 + further) * blur, further * noise["near", second])
    change = float(np.linalg.norm(limit - near)) / max(float(np.linalg.norm(limit)), 1e-300)
    return limit, blur, min(CURVED * change**2 * second / first + STRAY * change + LOST, NEAR)


def _tied(near: Ray, ray: Ray) -> float:
    """By what share the sum of a ray near the baseline is not that of another's gradient there."""
    close, begin = (int(np.argmin(np.abs(each.scales))) for each in (near, ray))
    moved = near.moved[close]
    gradient = np.divide(near.raw[close], moved, out=np.zeros(moved.size), where=moved != 0)
    own = float(ray.raw[begin][ray.direction != 0].sum()) / ray.scales[begin]
    return abs(float(gradient @ ray.direction) - own) / max(abs(own), 1e-300)


def _affine(ray: Ray, tied: float) -> Callable[[float, float], float]:
    """How far off the sum of a ray's last answer is, far out without a softmax, for a weight and a mass."""
    seen = sums_of(ray, 0.0)
    begin, end = (int(found(np.abs(seen.scales))) for found in (np.argmin, np.argmax))
    sums, spread = seen.total / seen.scales, seen.total_deviation / seen.scales
    gap = float(seen.scales[end] - seen.scales[begin])
    slope = float(seen.output[end] - seen.output[begin]) / gap
    rough = float(np.hypot(*seen.output_deviation[[begin, end]])) / gap
    around = math.hypot(spread[begin], tied * sums[begin])
    kinks = KINKS / gap * abs(slope - sums[begin])

    def misfit(weight: float, mass: float) -> float:
        if mass <= 0:
            return math.inf
        wanted = mass * slope + weight * (sums[begin] / mass - slope)
        doubt = math.hypot(spread[end], mass * rough, weight * around, kinks)
        return float(abs(sums[end] - wanted)) / max(doubt, 1e-300)

    return misfit
