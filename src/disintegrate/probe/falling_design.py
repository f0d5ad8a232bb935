"""Which output or answer of a ray on which a softmax falls would tell two rules apart best."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from disintegrate.probe.falling import CHANGES, FADING, Answered, Falling, Given, Line

# How many outputs are weighed, and how far beyond the places of first nodes they lie.
OUTPUTS, AROUND = 48, 1.4

Rule = tuple[Float64[np.ndarray, " _"], Float64[np.ndarray, " _"]]


@dataclass(frozen=True)
class Telling:
    """What to ask next: an output at a scale, or else an answer there, and how much it would tell, as a logarithm."""

    scale: float
    output: bool
    gain: float


def most_telling(
    falling: Falling,
    answered: Answered,
    best: Rule,
    rival: Rule,
    scales: Float64[np.ndarray, " s"],
    exact: Callable[[Float64[np.ndarray, " k"]], Float64[np.ndarray, " k"]],
    deviation: Callable[[Float64[np.ndarray, " s"]], Float64[np.ndarray, " s"]],
) -> Telling:
    """What tells a rule from its rival best.

    Args:
        falling: the outputs of the ray.
        answered: its answers.
        best: nodes and weights of the likelier rule.
        rival: those of the other.
        scales: at which answers may be asked.
        exact: how exact the logarithm of an output is, by that logarithm.
        deviation: how exact answers are, by their size.
    """
    given = _likeliest(falling, answered, best)
    every = np.concatenate([answered.scales, scales])
    predicted = given.predicted(every, *best)
    apart = np.log(given.predicted(every, *rival).total) - np.log(predicted.total)
    kept = len(answered.scales)
    rough = np.concatenate([answered.deviation, deviation(predicted.total[kept:])])
    covariance = predicted.covariance(rough, answered.common, answered.level)
    before = _told(apart[:kept], covariance[:kept, :kept])
    found: list[Telling] = []
    for index, scale in enumerate(scales.tolist()):
        rows = [*range(kept), kept + index]
        found.append(Telling(scale, False, _told(apart[rows], covariance[np.ix_(rows, rows)]) - before))
    places = answered.scales * best[0].min()
    asked = np.geomspace(places.min() / AROUND, places.max() * AROUND, OUTPUTS)
    lines = given.line.rows(asked)[0]
    for scale, row, noise in zip(asked.tolist(), lines @ given.root, exact(lines @ given.mean), strict=True):
        seen = predicted.moved[:kept] @ row
        left = covariance[:kept, :kept] - np.outer(seen, seen) / (noise**2 + row @ row)
        found.append(Telling(scale, True, _told(apart[:kept], left) - before))
    return max(found, key=lambda one: one.gain)


def _told(apart: Float64[np.ndarray, " q"], covariance: Float64[np.ndarray, "q q"]) -> float:
    return float(apart @ np.linalg.solve(covariance, apart)) / 2


def _likeliest(falling: Falling, answered: Answered, rule: Rule) -> Given:
    every = (Given(Line(falling, fading), float(change)) for fading, change in itertools.product(FADING, CHANGES))
    return max(every, key=lambda given: given.likely(answered, *rule)[0])
