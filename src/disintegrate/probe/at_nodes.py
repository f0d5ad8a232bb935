"""Rules of few nodes: a sum of attributions beside the outputs' slopes at each of its nodes.

With `h(t)` the derivative of the output along a ray, a sum of attributions is

    S(s) = s sum_i w_i h(s t_i),    h(s t_i) = (f(s t_i (1 + e)) - f(s t_i (1 - e))) / (2 s t_i e)             (P.10)

between kinks, so that few outputs on either side of each node say whether a rule is the service's. Staircases leave
open where a kink lies among the scales, and so which of few nodes it has met; here nodes stand where they are. Answers
are weighed by (P.3), against rules of many nodes too: what looks like few may be many.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64

from disintegrate.probe.along_gradient import NEAR, Gradient, apart
from disintegrate.probe.ray import Ray
from disintegrate.probe.weighing import Weighing, furthest, undecided
from disintegrate.rules import rule_named

# Where sums are asked, one after the other, in units of where kinks lie; how far out these are looked for, and how
# near, in units of the inputs' spread; and what counts as no change of slope.
SUMS = (1.0, 0.5, 1.7, 0.7)
END, NEAREST, FLAT = 1.0, 0.03, 0.02
# How much less likely rules are, as a logarithm, whose nodes need not be looked at.
CLOSE = 15.0
# Answers that a ray must have for its sums to be weighed.
LEAST = 3


def at_nodes(
    weighing: Weighing,
    gradient: Gradient,
    start: Float64[np.ndarray, " g"],
    few: Bool[np.ndarray, " g"],
    fitting: Bool[np.ndarray, " g"],
) -> tuple[Float64[np.ndarray, " g"], int]:
    """How likely each rule is after looks at the nodes of the likeliest, and how many answers that took.

    Args:
        weighing: the rules that are left, and those of many nodes that are to be ruled out.
        gradient: the rays along the gradient at the baseline.
        start: how likely each group is before, as a logarithm, without what these rays say.
        few: which of the groups have few nodes.
        fitting: which of them staircases left.
    """
    asker, before = weighing.asker, weighing.asker.spent
    score = start + _said(weighing, gradient.rays, start)
    looks = np.zeros(len(weighing.groups), int)
    while asker.left:
        # sums of other rays say little of rules whose nodes were not seen: all that fit and are close are looked at
        best = int(np.argmax(np.where(few, score, -np.inf)))
        fresh = few & fitting & (looks == 0) & (score > score.max() - CLOSE)
        if fresh.any():
            best = int(np.argmax(np.where(fresh, score, -np.inf)))
        elif not undecided(score) or looks[best] == 2 * len(SUMS):
            break
        ray = gradient.rays[looks[best] % 2]
        scale = SUMS[looks[best] // 2] * _unit(ray)
        looks[best] += 1
        ray.ask(_wanted(ray, weighing.groups[best], scale, apart(ray))[: asker.left])
        score = start + _said(weighing, gradient.rays, start)
    return score, asker.spent - before


def _unit(ray: Ray) -> float:
    """Twice as far out as kinks lie on the average, as far as the slopes on either side of them tell."""
    if not ray.scales:
        # where small numbers are lost, how far out one may go is known by an answer
        ray.ask([NEAR])
    missing = [scale for scale in (NEAR, END, furthest(ray)) if not np.isclose(ray.scales, scale, rtol=1e-6).any()]
    ray.ask(missing[: ray.asker.left])
    order = np.argsort(ray.scales)
    scales, outputs = np.array(ray.scales)[order], np.array(ray.outputs)[order]
    end = int(np.argmin(np.abs(scales - END)))
    before, behind = ray.totals()[0][order][[0, -1]] / scales[[0, -1]]
    if scales[end] != END or abs(before - behind) < FLAT * abs(before):
        return END
    middle = (outputs[end] - outputs[0] - behind * END) / (before - behind)
    return float(np.clip(2 * middle, NEAREST, END))


def _wanted(ray: Ray, group: Sequence[tuple[str, int]], scale: float, share: float) -> list[float]:
    """What is not yet asked of what tells whether a ray's sums are those of a rule."""
    rule = rule_named(group[0][0])(group[0][1])
    wanted = [scale, *(scale * node * (1 + sign * share) for node in rule.nodes if node > 0 for sign in (-1, 1))]
    return [place for place in wanted if not np.isclose(place, ray.scales, rtol=1e-6).any()]


def _said(weighing: Weighing, rays: Sequence[Ray], start: Float64[np.ndarray, " g"]) -> Float64[np.ndarray, " g"]:
    """What both rays say, and nothing where not even the likeliest rule makes such answers."""
    return sum((weighing.by_paid(ray, start) for ray in rays if len(ray.scales) >= LEAST), np.zeros(len(start)))
