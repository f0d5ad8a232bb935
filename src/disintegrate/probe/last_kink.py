"""Which number of steps a service of a known rule takes by itself: by the last kink of a ray, without a softmax.

Behind its last kink, at `tau`, the gradient of a ray is constant, `P`, and `P + D` just before it. So far out that few
nodes lie before the kink, an answer of a rule without a node at 0 is, over what was moved,

    rho(s) = M P + D sum of the w_i with t_i s < tau                                                          (P.11)

and the share of `D` in it is a sum of the first few weights, which tells how many there are. One step, where a caller
may set it, shows the gradient at any place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from disintegrate.probe.one_kink import quadrature
from disintegrate.probe.ray import Ray, seen_by
from disintegrate.probe.staircase import MOST_STEPS

# How far out no kink is expected, where none is looked for any nearer, and by what factor one goes.
FAR, NEAR, CLOSER = 1e4, 0.3, 4.0
# How many nodes may lie before the kink at first; how often an answer is asked; and so few numbers are asked about.
BEFORE, ANSWERS, LAST = 8.0, 8, 12
# What digits may leave open of an answer, as a share, and how small a weight must show.
DIGITS, RESOLVED = 1e-4, 3e-3
# Squares of a change over those of its noise from which on it is one; how far shares may lie from a sum of weights, in
# units of their noise, and what else is noise of a share; how much of an answer may point elsewhere, of which so many
# times its noise is none.
CLEAR, OFF, ROUNDED, ASIDE, BEYOND, TINY = 9.0, 5.0, 2e-4, 0.03, 2.0, 1e-300


def by_last_kink(ray: Callable[[int | None], Ray], rule: str) -> list[int]:
    """The numbers of steps that a few answers far out leave, the likeliest first, if no more than may be asked.

    Args:
        ray: one for each number of steps and one for none; all from the same point in the same direction.
        rule: of the service; it has no node at the baseline.
    """
    own = ray(None)
    if float(own.asker.deviation(np.ones(1))[0]) > DIGITS:
        return []
    kink = _last_kink(ray(1), float(quadrature(rule, 1)[0][0]))
    if kink is None:
        return []
    left = dict.fromkeys(range(2, MOST_STEPS + 1), 0.0)
    nearest, furthest, scale = kink.low, math.inf, BEFORE * kink.high
    for _ in range(ANSWERS):
        if not own.asker.left:
            break
        own.ask([scale])
        seen = _share(ray, kink, scale)
        if OFF * seen.noise > RESOLVED:
            break
        if abs(seen.share) < OFF * seen.noise:
            furthest = scale
        elif seen.aside > ASIDE:
            nearest = scale
        else:
            nearest = scale
            off = {steps: before + _off(rule, steps, scale, kink, seen) for steps, before in left.items()}
            left = {steps: value for steps, value in off.items() if value < OFF} or left
            if len(left) < max(own.asker.left, LAST):
                return sorted(left, key=left.__getitem__)
        scale = math.sqrt(nearest * furthest) if math.isfinite(furthest) else CLOSER * scale
    return []


@dataclass(frozen=True)
class LastKink:
    """Between which places the last kink lies, and the scales of the answers of one step before and behind all."""

    low: float
    high: float
    before: float
    behind: float


@dataclass(frozen=True)
class Share:
    """How much of the last jump is in an answer, the noise of that, and how much else, as a share of it."""

    share: float
    noise: float
    aside: float


def _last_kink(one: Ray, node: float) -> LastKink | None:
    """The last kink of a ray by the gradients that one step shows; None where none is seen."""
    one.ask([FAR / node])
    behind, low = one.scales[-1], FAR
    while low > NEAR and one.asker.left > 1:
        high, low = low, low / CLOSER
        one.ask([low / node])
        before = one.scales[-1]
        if _changed(one, behind, before):
            if high == FAR:
                return None
            middle = math.sqrt(low * high)
            one.ask([middle / node])
            if _changed(one, behind, one.scales[-1]):
                return LastKink(middle, high, one.scales[-1], behind)
            return LastKink(low, middle, before, behind)
    return None


def _changed(one: Ray, behind: float, scale: float) -> bool:
    answers, noise = seen_by({1: one})
    gap = answers[1, scale] - answers[1, behind]
    return float(gap @ gap) > CLEAR * float((noise[1, scale] ** 2 + noise[1, behind] ** 2).sum())


def _share(ray: Callable[[int | None], Ray], kink: LastKink, scale: float) -> Share:
    answers, noise = seen_by({1: ray(1), None: ray(None)})
    behind = answers[1, kink.behind]
    jump, added = answers[1, kink.before] - behind, answers[None, scale] - behind
    rough = np.hypot(noise[None, scale], noise[1, kink.behind])
    size = float(jump @ jump)
    share = float(added @ jump) / size
    rest = added - share * jump
    beyond = max(float(rest @ rest) - BEYOND * float((rough**2).sum()), 0.0)
    spread = float(np.sqrt(((jump * rough) ** 2).sum())) / size
    return Share(share, spread, math.sqrt(beyond / size) / max(abs(share), TINY))


def _off(rule: str, steps: int, scale: float, kink: LastKink, seen: Share) -> float:
    """How far off a share the nearest is that a rule of so many steps may have there, in units of its noise."""
    nodes, weights = quadrature(rule, steps)
    order = np.argsort(nodes)
    places, sums = scale * nodes[order], np.cumsum(weights[order])
    possible = (places < kink.high) & (np.append(places[1:], np.inf) > kink.low)
    off = np.abs(sums - seen.share)[possible] / math.hypot(seen.noise, ROUNDED * seen.share)
    return float(off.min(initial=np.inf))
