"""Weighing rules by sums of attributions on the rays along the gradient at the baseline and against it.

There all coordinates add to the sum alike, so that it stands out of their noise as far as it can, and the output
changes fastest. Behind a softmax it saturates there, within a distance `L = p (1 - p) / |h(0)|`: around it the sums
say what is lost of the output's change, and near `n L` only the first nodes of a rule of n steps are left to see.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float64

from disintegrate.probe.completeness import log_likelihoods
from disintegrate.probe.ray import Ray
from disintegrate.probe.weighing import BETWEEN, OUTSIDE, Weighing, furthest, sums_of, undecided
from disintegrate.quadrature import Quadrature
from disintegrate.rules import rule_named

# Where a ray begins, in units of L, and under a coarse wire; where p still bends alone; the scales around L; those in
# units of n L, and for how many steps they lie apart from the others.
BEGIN, BEGIN_COARSE = 0.01, 0.1
NEARBY = np.array([0.05, 0.1, 0.2])
AROUND, FIRST_NODES, MANY = np.array([0.4, 0.8, 1.6, 3.2]), np.array([0.15, 0.5, 1.8]), 8
# Without a softmax: where a ray begins, and how many scales lie beyond it.
NEAR, COUNT = 1e-3, 4
# How far apart neighbours lie whose outputs tell a slope, as a share: so many times what their digits leave open,
# within bounds; and at least where a kink between them does little.
APART, NARROWEST, WIDEST, NEIGHBOURS = 1e3, 2e-4, 0.08, 5e-3
# How often each of the two rays is asked; by how much its scales behind a softmax are moved from the third time on.
MOVED = (0.85, 1.2)
TURNS = 2 + len(MOVED)
# How far then beyond where p (1 - p) is no less than so much of its largest.
REACH, LIVELY = 1.6, 0.1
# How much more noise than the digits make is granted where else no rule makes such answers, though it is sure to be one
# of those weighed: many steps add rounding.
NOISIER = (1.0, 4.0)
# How much less likely than the best a rule must be to be weighed no further, and to be none of those left.
HOPELESS, CLOSE = 40.0, 20.0


@dataclass(frozen=True, eq=False)
class Gradient:
    """The rays along the gradient at the baseline and against it.

    Attributes:
        rays: the two.
        unit: behind a softmax, the scale `L` on which it saturates there.
        silent: those of the two whose answers none of the rules made; they are asked no further.
    """

    rays: tuple[Ray, Ray]
    unit: float
    silent: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, near: Ray, size: float) -> Gradient | None:
        """That which the answer of a ray nearest to the baseline tells; None where it vanishes.

        Args:
            near: the ray.
            size: of a typical coordinate.
        """
        begin = int(np.argmin(np.abs(near.scales)))
        moved, output = near.moved[begin], near.outputs[begin]
        seen = (moved != 0) & np.isfinite(near.origin.error)
        slope = np.divide(near.raw[begin], moved, out=np.zeros(moved.size), where=seen)
        if not slope.any():
            return None
        ahead = size * np.sign(slope)
        against, along = (
            Ray(near.asker, near.origin, sign * ahead, near.target, drifting=near.drifting) for sign in (-1, 1)
        )
        return cls((against, along), output * (1 - output) / float(slope @ ahead))


def along_gradient(
    weighing: Weighing, gradient: Gradient, start: Float64[np.ndarray, " g"], turns: range = range(TURNS)
) -> tuple[Float64[np.ndarray, " g"], int]:
    """The scores after some answers on the two rays, and how many.

    Args:
        weighing: the rules that are left.
        gradient: the rays.
        start: how likely each group is before, as a logarithm.
        turns: which of the looks at both rays to take.
    """
    rays = gradient.rays
    rules = [[rule_named(rule)(steps) for rule, steps in group] for group in weighing.groups]
    said, hopeless = np.zeros((len(rays), len(rules))), np.zeros(len(rules), bool)
    score = start
    for turn, at in itertools.product(turns, range(len(rays))):
        if at in gradient.silent:
            continue
        if not weighing.asker.left:
            break
        ray = rays[at]
        if weighing.probabilities:
            steps = max(member.steps for rule, gone in zip(rules, hopeless, strict=True) if not gone for member in rule)
            scales = (
                _further(ray, turn)
                if turn > 1 and ray.scales
                else gradient.unit * _around(steps, weighing.asker.coarse, turn)
            )
        else:
            if not ray.scales:
                ray.ask([NEAR])
            scales = _beyond(turn) if turn == 0 else _slopes(turn, ray)
            if max(ray.scales) < scales.max():
                scales = np.append(furthest(ray), scales)
        scales = np.array([scale for scale in scales if not np.isclose(ray.scales, scale).any()])
        scales = scales[: weighing.asker.left]
        if not len(scales):
            break
        ray.ask(scales)
        found, squares = _said(ray, weighing, rules, hopeless)
        # where not even the likeliest rule makes such answers, their likelihoods say nothing
        said[at] = np.where(hopeless | (squares >= OUTSIDE), 0.0, found - found.max())
        if squares >= OUTSIDE:
            gradient.silent.add(at)
        score = start + said.sum(0)
        hopeless |= score < score[~hopeless].max() - HOPELESS
        score = np.where(hopeless, score[~hopeless].max() - HOPELESS, score)
        if not undecided(score):
            break
    return score, sum(len(ray.scales) for ray in rays)


def _around(steps: int, coarse: bool, turn: int) -> Float64[np.ndarray, " k"]:
    """What is asked first behind a softmax, in units of L."""
    if turn == 1:
        return NEARBY
    return np.concatenate([[BEGIN_COARSE if coarse else BEGIN], AROUND, steps * FIRST_NODES if steps > MANY else []])


def _further(ray: Ray, turn: int) -> Float64[np.ndarray, " k"]:
    """What is asked later: up to a little beyond where the output was still seen to change."""
    scales, outputs = np.array(ray.scales), np.array(ray.outputs)
    lively = outputs * (1 - outputs)
    end = float(scales[lively >= LIVELY * lively.max()].max())
    found: Float64[np.ndarray, " k"] = REACH * end * MOVED[turn - 2] * AROUND / AROUND.max()
    return found


def _beyond(turn: int) -> Float64[np.ndarray, " k"]:
    """What is asked elsewhere, in units of the inputs: a golden section of the logarithm, evenly spread at any time."""
    low, high = BETWEEN
    found: Float64[np.ndarray, " k"] = low * (high / low) ** ((0.5 + 0.618034 * (COUNT * turn + np.arange(COUNT))) % 1)
    return found


def _slopes(turn: int, ray: Ray) -> Float64[np.ndarray, " k"]:
    """Pairs of neighbours: with the slope of the output at the end of a path, rules differ to first order in 1 / n."""
    low, high = BETWEEN
    count = COUNT // 2
    ends = low * (high / low) ** ((0.9 - 0.618034 * (count * turn + np.arange(count))) % 1)
    found: Float64[np.ndarray, " k"] = np.concatenate([ends, ends * (1 + max(apart(ray), NEIGHBOURS))])
    return found


def apart(ray: Ray) -> float:
    """How far apart, as a share, outputs are asked whose difference is to tell their slope, by the last of a ray."""
    output = np.abs(ray.outputs[-1:])
    grain = float(ray.asker.deviation(output)[0]) / max(float(output[0]), 1e-300)
    return min(max(APART * grain, NARROWEST), WIDEST)


def _said(
    ray: Ray, weighing: Weighing, rules: list[list[Quadrature]], hopeless: Bool[np.ndarray, " g"]
) -> tuple[Float64[np.ndarray, " g"], float]:
    """How likely each rule makes the answers of a ray, and how far outside of what the likeliest makes they lie."""
    sums = sums_of(ray, weighing.scatter)
    found = np.full((2, len(rules)), -np.inf)
    for times in NOISIER if weighing.complete else NOISIER[:1]:
        noisy = replace(
            sums, total_deviation=times * sums.total_deviation, output_deviation=times * sums.output_deviation
        )
        for index in np.flatnonzero(~hopeless):
            likely = log_likelihoods([noisy], rules[index], bending=weighing.probabilities)
            found[:, index] = likely[:, int(np.argmax(likely[0]))]
        if found[1, int(np.argmax(found[0]))] < OUTSIDE:
            break
    return found[0], float(found[1, int(np.argmax(found[0]))])
