"""What a rule weighs the baseline with, seen far out, where every other node has left all kinks behind.

An answer there, over what was moved, is `M P + w_0 (g_0 - P)` with the gradients `g_0` at the baseline and `P` far out,
the mass `M` and the weight `w_0` of a node at 0. Behind a softmax `P` vanishes; else the outputs tell its share along
the ray.                                                                                                     (P.7)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from disintegrate.errors import NotPermitted
from disintegrate.probe.one_kink import quadrature
from disintegrate.probe.ray import Ray
from disintegrate.probe.staircase import Pattern, keeping

# How far out, in units of the inputs' spread, and where numbers are carried coarsely.
FAR, FAR_COARSE = 1e5, 2e3
# How far off, in units of the noise, a rule is left out; and what is lost on the way: where kinks lie, and what drifts
# or ties near the baseline.
OFF, KINKS, NEAR = 6.0, 1e-4, 0.01


def far_of(ray: Ray) -> float:
    """The scale that is far out."""
    return FAR_COARSE if ray.asker.coarse else FAR


@cache
def baseline_and_mass(rule: str, steps: int) -> tuple[float, float]:
    """The weight of a node at the baseline, and the mass."""
    nodes, weights = quadrature(rule, steps)
    return float(weights[nodes == 0].sum()), float(weights.sum())


def agreeing(ray: Ray, kink: float, among: Sequence[Pattern]) -> tuple[Pattern, ...]:
    """Those of some patterns whose members answer so far out, with these alone; all where none does.

    A service that refuses a point so far out tells nothing either.

    Args:
        ray: one that was asked before its first kink.
        kink: where no kink lies yet.
        among: the patterns that are left.
    """
    far, asked = far_of(ray), len(ray.scales)
    # behind a softmax the gradient drifts from the very begin
    begin = int(np.argmin(np.abs(np.array(ray.scales) - (0 if ray.drifting else kink))))
    try:
        ray.ask([far, -far])
    except NotPermitted:
        ray.asker.refused = True
        return tuple(among)
    misfit = _saturated(ray, begin) if ray.drifting else _affine(ray, begin)
    while len(ray.scales) > asked:
        ray.drop(-1)
    left = keeping(among, lambda rule, steps: misfit(*baseline_and_mass(rule, steps)) < OFF)
    return left or tuple(among)


def _saturated(ray: Ray, begin: int) -> Callable[[float, float], float]:
    """How far off an answer behind a softmax is, for a weight at the baseline and a mass."""
    answers, noise = ray.divided()
    near = answers[begin]
    size = max(float((near**2).sum()), 1e-300)
    shares, doubts = [], []
    for row in (-2, -1):
        share = float(answers[row] @ near) / size
        # what points elsewhere: max pooling ties at the baseline, or the softmax has not saturated
        aside = float(((answers[row] - share * near) ** 2).sum())
        rounding = float((noise[row] ** 2).sum()) + share**2 * float((noise[begin] ** 2).sum())
        shares.append(share)
        doubts.append(math.sqrt((aside + rounding) / size + (NEAR * share) ** 2))
    best = int(np.argmin(doubts))

    def misfit(weight: float, mass: float) -> float:
        return abs(shares[best] - weight / mass) / max(doubts[best], 1e-300) if mass > 0 else math.inf

    return misfit


def _affine(ray: Ray, begin: int) -> Callable[[float, float], float]:
    """The same of the sum of an answer without a softmax."""
    total, spread = ray.totals()
    scales, output = np.array(ray.scales), np.array(ray.outputs)
    grain = ray.asker.deviation(output)
    near = total[begin] / scales[begin]
    around = np.hypot(spread[begin] / scales[begin], NEAR * abs(near))

    def misfit(weight: float, mass: float) -> float:
        if mass <= 0:
            return math.inf
        off = []
        for row in (-2, -1):
            slope = output[row] / scales[row]
            wanted = mass * slope + weight * (near / mass - slope)
            doubt = np.hypot(spread[row] / scales[row], mass * grain[row] / scales[row])
            doubt = np.hypot(doubt, weight * around) + KINKS * abs(slope)
            off.append(abs(total[row] / scales[row] - wanted) / max(doubt, 1e-300))
        return float(max(off))

    return misfit
