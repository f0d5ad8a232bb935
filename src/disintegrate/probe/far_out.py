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
from disintegrate.probe.ray import Ray, seen_by
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


def agreeing(ray: Ray, out: Ray, kink: float, among: Sequence[Pattern]) -> tuple[Pattern, ...]:
    """Those of some patterns whose members answer so far out, with these alone; all where none does.

    A service that refuses a point so far out tells nothing either. Behind a softmax the other end of the ray is asked
    only where the one leaves open whether there is a node at the baseline.

    Args:
        ray: one that was asked before its first kink.
        out: the same ray far out; what was asked there already is not asked again.
        kink: where no kink lies yet.
        among: the patterns that are left.
    """
    left = tuple(among)
    for end in (far_of(ray), -far_of(ray)):
        try:
            if end not in out.scales:
                out.ask([end])
        except NotPermitted:
            ray.asker.refused = True
            return tuple(among)
        left = _within(among, (_saturated if ray.drifting else _affine)(ray, out, kink))
        at_baseline = [baseline_and_mass(*pattern.members[0])[0] > 0 for pattern in left]
        if ray.drifting and left and all(at_baseline) == any(at_baseline):
            break
    return left or tuple(among)


def _within(among: Sequence[Pattern], misfit: Callable[[float, float], float]) -> tuple[Pattern, ...]:
    return keeping(among, lambda rule, steps: misfit(*baseline_and_mass(rule, steps)) < OFF)


def _saturated(ray: Ray, out: Ray, _: float) -> Callable[[float, float], float]:
    """How far off an answer behind a softmax is, for a weight at the baseline and a mass."""
    answers, noise = seen_by({"near": ray, "far": out})
    # behind a softmax the gradient drifts from the very begin
    begin = ("near", min(ray.scales, key=abs))
    near = answers[begin]
    size = max(float((near**2).sum()), 1e-300)
    shares, doubts = [], []
    for end in out.scales:
        row = answers["far", end]
        share = float(row @ near) / size
        # what points elsewhere: max pooling ties at the baseline, or the softmax has not saturated
        aside = float(((row - share * near) ** 2).sum())
        rounding = float((noise["far", end] ** 2).sum()) + share**2 * float((noise[begin] ** 2).sum())
        shares.append(share)
        doubts.append(math.sqrt((aside + rounding) / size + (NEAR * share) ** 2))
    best = int(np.argmin(doubts))

    def misfit(weight: float, mass: float) -> float:
        return abs(shares[best] - weight / mass) / max(doubts[best], 1e-300) if mass > 0 else math.inf

    return misfit


def _affine(ray: Ray, out: Ray, kink: float) -> Callable[[float, float], float]:
    """The same of the sum of an answer without a softmax."""
    begin = int(np.argmin(np.abs(np.array(ray.scales) - kink)))
    close, blur = ray.totals()
    near = close[begin] / ray.scales[begin]
    around = np.hypot(blur[begin] / ray.scales[begin], NEAR * abs(near))
    total, spread = out.totals()
    scales, output = np.array(out.scales), np.array(out.outputs)
    grain = ray.asker.deviation(output)

    def misfit(weight: float, mass: float) -> float:
        if mass <= 0:
            return math.inf
        slope = output / scales
        wanted = mass * slope + weight * (near / mass - slope)
        doubt = np.hypot(np.hypot(spread, mass * grain) / np.abs(scales), weight * around) + KINKS * np.abs(slope)
        return float((np.abs(total / scales - wanted) / np.maximum(doubt, 1e-300)).max())

    return misfit
