"""Which rule makes the answers of a ray on which a softmax falls to 0: far out, where its first nodes stand alone.

No kink need be found and none need stand alone, and the baseline need be known no better than what the output changes
over its error, so it costs fewer than twenty answers (P.8).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float64

from disintegrate.errors import NotPermitted
from disintegrate.probe.asking import Spent
from disintegrate.probe.fall import DEEPEST_COARSE, Fall, Floor, outputs_down, outputs_of
from disintegrate.probe.falling_ray import FallingRay
from disintegrate.probe.first_rules import Aside, Group, Told, kept_for
from disintegrate.probe.one_kink import quadrature
from disintegrate.probe.ray import Ray

# How many outputs are tried for one that falls; how many rays are looked at, and what must be left for another; and how
# many rules are few.
TARGETS, RAYS, ENOUGH_LEFT, FEW = 3, 3, 16, 6
# Rules that weigh the baseline like any other node.
WEIGHED_WHOLE = {"riemann_left", "captum_riemann_left", "saliency"}
# How far beyond the first what is left by the node at the baseline is seen to stay; how large answers may be there; by
# what share it falls where there is no such node.
FURTHER, LARGEST, FALLS_ON = 100.0, 2e4, 0.7


def by_first_nodes(
    near: Ray, out: Ray, others: Sequence[int], among: Sequence[tuple[str, int]], *, most: int = RAYS
) -> Told | None:
    """Tell rules apart by their first nodes; None where no output falls, or no rule answers so.

    Args:
        near: a ray with an answer near the baseline.
        out: the same ray, asked far out on one side or on both; where that was refused nothing is told.
        others: outputs that may be asked for instead.
        among: rules and steps that are left.
        most: how many rays to look at.
    """
    groups: list[Group] | None = None
    aside: Aside = {}
    score, told, answers = np.zeros(0), None, 0
    if not out.scales:
        return None
    try:
        for fall in itertools.islice(_falls(near, out, others), most):
            if groups is None:
                groups = _groups(among, closed=_floor(fall, among).seen)
                score = np.zeros(len(groups))
            digits = float(near.asker.deviation(np.ones(1))[0])
            if not groups or (told is not None and near.asker.left < ENOUGH_LEFT + kept_for(groups, score, digits)):
                break
            floor = _floor(fall, [member for group in groups for member in group.members])
            falling = outputs_down(fall, floor, float(np.median([group.nodes[0] for group in groups])))
            if falling is None:
                continue
            again: Fall | None = fall
            while again is not None and falling is not None:
                ray = FallingRay(again, falling, floor, groups, score, aside)
                found, aside = ray.told(), ray.aside
                if found is None:
                    break
                answers += found.answers
                told = replace(found, answers=answers, closed=found.closed or (told is not None and told.closed))
                groups, score = _left(groups, ray.score, found)
                again = ray.recentred() if again is fall and not found.decided else None
                falling = None if again is None else outputs_of(again)
            # sums tell these apart rather than another ray; a trapezoid they name only if it is no other closed rule
            whole = {group.members[0][0] for group in groups} <= WEIGHED_WHOLE
            sums = floor.seen and len(groups) <= FEW and (whole or (told is not None and told.closed))
            if sums or (told is not None and (told.decided or _alike_far_out(groups))):
                break
    except NotPermitted:
        near.asker.refused = True
    except Spent:
        if told is None:
            raise
    return told


def _left(
    groups: list[Group], score: Float64[np.ndarray, " g"], found: Told
) -> tuple[list[Group], Float64[np.ndarray, " k"]]:
    """The groups that are left, and how likely each is."""
    kept = [index for index, group in enumerate(groups) if group.members[0] in found.members]
    return [groups[index] for index in kept], score[kept]


def _alike_far_out(groups: Sequence[Group]) -> bool:
    """Whether several are left that all have the same first node: sums tell them apart rather than another ray."""
    nodes = np.array([group.nodes[0] for group in groups])
    return len(groups) > 1 and bool(np.allclose(nodes, nodes[0], rtol=1e-9))


def _falls(near: Ray, out: Ray, others: Sequence[int]) -> Iterator[Fall]:
    """The ray and the one against it if the output falls there, then either with another output."""
    far = max(map(abs, out.scales))
    for target in [out.target, *[other for other in others if other != out.target][:TARGETS]]:
        beyond, close = out, near
        if target != out.target:
            beyond, close = (Ray(out.asker, out.origin, out.direction, target, drifting=True) for _ in range(2))
        for sign in (1.0, -1.0):
            if sign * far not in beyond.scales:
                beyond.ask([sign * far])
            if beyond.outputs[beyond.scales.index(sign * far)] <= math.exp(DEEPEST_COARSE):
                if not close.scales:
                    close.ask([min(map(abs, near.scales))])
                yield Fall(Ray(out.asker, out.origin, sign * out.direction, target, drifting=True), close, beyond)


def _groups(among: Sequence[tuple[str, int]], *, closed: bool) -> list[Group]:
    """Rules with a node at the baseline, or those without one; equal ones together, with their nodes above 0."""
    alike: dict[tuple[float, ...], list[tuple[str, int]]] = {}
    for rule, steps in among:
        nodes, weights = quadrature(rule, steps)
        if bool((nodes == 0).any()) == closed:
            order = np.argsort(nodes)[:3]
            key = (len(nodes), *np.round(np.concatenate([nodes[order], weights[order], [weights.sum()]]), 6))
            alike.setdefault(key, []).append((rule, steps))
    found = []
    for members in alike.values():
        nodes, weights = quadrature(*members[0])
        order = np.argsort(nodes)
        order = order[nodes[order] > 0]
        if len(order):
            found.append(Group(tuple(members), nodes[order], weights[order]))
    return found


def _floor(fall: Fall, among: Sequence[tuple[str, int]]) -> Floor:
    """What is left far out, or further out where the rules that are left may have a node at 0 or none."""
    out = fall.out
    kinds = {bool((quadrature(*member)[0] == 0).any()) for member in among}
    far = int(np.argmax(np.abs(out.scales)))
    if True not in kinds or not out.raw[far].any():
        return Floor(False, 0.0, 0.0, 0.0)
    if len(kinds) > 1:
        carried = LARGEST / float(np.abs(out.raw[far]).max()) if out.asker.coarse else math.inf
        out.ask([out.scales[far] * min(FURTHER, max(carried, 1.0))])
        left, before = (float(np.linalg.norm(out.raw[row])) / abs(out.scales[row]) for row in (-1, far))
        if left < FALLS_ON * before:
            return Floor(False, 0.0, 0.0, 0.0)
        far = len(out.scales) - 1
    raw, moved = out.raw[far], out.moved[far]
    share = np.divide(fall.ray.direction, moved, out=np.zeros(moved.size), where=moved != 0)
    deviation = np.asarray(out.asker.deviation(raw)) * share
    lost = float(raw[~np.isfinite(out.origin.error)].sum())
    return Floor(True, -float(raw @ share), float(np.linalg.norm(deviation)), lost)
