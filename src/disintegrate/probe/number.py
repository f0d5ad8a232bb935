"""Which number of steps a service of a known rule takes by itself, as far as answers with few and with many steps tell.

A rule with a node at 0 is seen far out (P.7), where two numbers of steps tell both gradients. Any other is weighed by
how far its answers lie from those of many steps: kinks all along a ray make the gradient a random walk there, whose
answers with n and m steps have the covariance `integral of W_n W_m`, with the sums `W` of (P.1), as in kriging.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float64

from disintegrate.errors import DisintegrateError
from disintegrate.probe.asking import Spent
from disintegrate.probe.explore import STAIRCASE
from disintegrate.probe.family import MOST
from disintegrate.probe.far_out import baseline_and_mass, far_of
from disintegrate.probe.last_kink import by_last_kink
from disintegrate.probe.one_kink import quadrature
from disintegrate.probe.ray import Ray, seen_by
from disintegrate.probe.staircase import MOST_STEPS

# Numbers of steps that tell the two gradients.
LOW, HIGH = 2, 16
# Scales of the ray on which families were told, and the number that is nearly an integral.
SCALES, MANY = (1.0, 2 / 3, 4 / 3), 200
GRID, TINY = 6000, 1e-10
# How much worse one end of a ray may be explained than the other.
WORSE = 10.0
# How many numbers are worth asking: as a share of the likeliest, and at least; and where a walk tells.
TRIED, FEWEST, WALKED = 0.6, 6, 0.35
# What must be left to look for the last kink of a ray; and for the first, whose staircase is that of a known rule; and
# what a walk takes.
ENOUGH, STAIRCASE_OF_ONE, WALK = 16, 22, 6


def numbers(ray: Callable[[int | None], Ray], rule: str, most: int, *, walk: bool) -> Sequence[int]:
    """The likeliest numbers of steps, the best first; none where the service refuses to answer.

    Args:
        ray: one for each number of steps and one for none, on which families were told.
        rule: of the service.
        most: how many to tell, where the baseline's weight does.
        walk: whether to guess where no node at 0 tells.
    """
    weighed, left = baseline_and_mass(rule, LOW)[0] > 0, ray(None).asker.left - 1
    logits = not ray(None).asker.in_unit_range
    # what a walk costs may leave too little for kinks, which tell more
    if not weighed and (not walk or (logits and STAIRCASE_OF_ONE <= left < STAIRCASE_OF_ONE + WALK)):
        return []
    try:
        misfits = (_far_out if weighed else _by_walk)(ray, rule)
    except Spent:
        raise
    except DisintegrateError:
        return []
    likely = sorted(misfits, key=misfits.__getitem__)
    if weighed:
        return likely[: min(int(max(TRIED * likely[0], FEWEST)), most)]
    # a walk tells a large number too roughly for a few questions to hit it: kinks tell more, if enough is left for them
    left = ray(None).asker.left - 1
    if likely[0] > FEWEST and logits and left >= STAIRCASE_OF_ONE:
        return []
    if likely[0] > FEWEST and left >= ENOUGH and logits:
        try:
            told = by_last_kink(ray, rule)
        except Spent:
            raise
        except DisintegrateError:
            # Captum's Riemann rules refuse a single step
            told = []
        if told:
            return told
        left = ray(None).asker.left - 1
    return likely[:left] if WALKED * likely[0] <= left or left < STAIRCASE else []


def _far_out(ray: Callable[[int | None], Ray], rule: str) -> dict[int, float]:
    rays = {steps: ray(steps) for steps in (LOW, HIGH, None)}
    far = far_of(rays[None])
    for each in rays.values():
        each.ask([far, -far])
    answers, noise = seen_by(rays)
    known = np.linalg.inv([baseline_and_mass(rule, steps) for steps in (LOW, HIGH)])
    every = range(2, MOST_STEPS + 1)
    misfits = np.zeros((2, len(every)))
    for row, end in enumerate((far, -far)):
        for column, steps in enumerate(every):
            low, high = baseline_and_mass(rule, steps) @ known
            rest = answers[None, end] - low * answers[LOW, end] - high * answers[HIGH, end]
            doubt = noise[None, end] ** 2 + (low * noise[LOW, end]) ** 2 + (high * noise[HIGH, end]) ** 2
            misfits[row, column] = float((rest**2 / doubt).sum())
    # a kink still further out, which hardly changes the output, changes the gradient as much as any
    least = misfits.min(1)
    found = misfits[least <= WORSE * least.min()].sum(0)
    return dict(zip(every, found.tolist(), strict=True))


def _by_walk(ray: Callable[[int | None], Ray], rule: str) -> dict[int, float]:
    rays = {steps: ray(steps) for steps in (1, 2, 3, MANY, None)}
    for steps in (MANY, None):
        rays[steps].ask(list(SCALES))
    answers, noise = seen_by(rays)
    known = [(steps, scale) for steps, scale in answers if steps is not None]
    every = [*known, *((None, scale) for scale in SCALES)]
    rows = np.array([answers[term] for term in every])
    doubt = np.array([float((noise[term] ** 2).mean()) for term in every])
    places = (np.arange(GRID) + 0.5) / GRID * max(scale for _, scale in every)

    def walked(steps: int, scale: float) -> Float64[np.ndarray, " g"]:
        nodes, weights = quadrature(rule, steps)
        order = np.argsort(nodes)
        above = np.append(np.cumsum(weights[order][::-1])[::-1], 0.0)
        beyond: Float64[np.ndarray, " g"] = above[np.searchsorted(nodes[order], places / scale, side="right")]
        return beyond

    # the gradient at the baseline is free: answers count by what they differ from one of them
    free = known.index((2, 1))
    kept = np.arange(len(every)) != free
    rows = (rows - rows[free])[kept]
    given = [walked(steps, scale) for steps, scale in known]
    misfits = {}
    for steps in range(2, MOST_STEPS + 1):
        sums = np.array(given + [walked(steps, scale) for scale in SCALES])
        sums = (sums - sums[free])[kept]
        covariance = sums @ sums.T / GRID
        # the size of the walk's steps is not known: that of all answers, and then what the number leaves of it
        size = covariance.trace() / len(covariance) / float((rows**2).mean())
        covariance = covariance + np.diag(doubt[kept] * size + TINY)
        lower = np.linalg.cholesky(covariance)
        white = np.linalg.solve(lower, rows)
        squares = np.sort((white**2).mean(0))[: math.ceil(MOST * white.shape[1])]
        misfits[steps] = float(2 * np.log(np.diag(lower)).mean() + np.log(squares.mean()))
    return misfits
