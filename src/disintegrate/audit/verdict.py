"""From distances and queries to a verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np
from jaxtyping import Float64, Int

from disintegrate.errors import InvalidValue

# A gradient counts as recovered within this distance: an angle of 6 degrees.
RECOVERED = 0.1
# The share of recovered gradients from which on the endpoint leaks, or leaks in part.
MOST, SOME = 0.5, 0.05
# A median distance below this says much of the direction: an angle of 29 degrees.
TELLING = 0.5


class Verdict(Enum):
    """What an audit shows; never that an endpoint is safe."""

    LEAKS = "leaks"
    PARTLY = "partly"
    NOT_SHOWN = "not shown"

    @property
    def rank(self) -> int:
        """How bad it is: 0 for not shown, 2 for leaks."""
        return [Verdict.NOT_SHOWN, Verdict.PARTLY, Verdict.LEAKS].index(self)


@dataclass(frozen=True)
class Judgement:
    """What the distances say.

    Attributes:
        verdict: in a word.
        share_recovered: of the gradients, those within `RECOVERED`.
        median_distance: over all inputs.
        bits: effective bits of a coordinate, `log2(sqrt(2) / distance)` at the median.
        queries_per_gradient: what the plan asks for one input.
        queries_by_differences: what finite differences of outputs would ask for the same coordinates.
        sentence: the verdict with its reason.
    """

    verdict: Verdict
    share_recovered: float
    median_distance: float
    bits: float
    queries_per_gradient: int
    queries_by_differences: float
    sentence: str


def fewer_than_differences(coordinates: Int[np.ndarray, " n"]) -> int:
    """The most queries for one gradient that finite differences of outputs still cost more than; at least one.

    Example:
        >>> fewer_than_differences(np.array([784, 784, 100])) == 784
        True
    """
    return max(1, math.ceil(float(np.median(coordinates)) + 1) - 1)


def judge(distances: Float64[np.ndarray, " n"], queries: int, coordinates: Float64[np.ndarray, " n"]) -> Judgement:
    """Judge recovered gradients.

    An endpoint leaks by its explanations only where they cost fewer queries than finite differences of its outputs,
    one for each coordinate and one for the input.

    Args:
        distances: of each recovered gradient to the truth, or upper estimates.
        queries: spent for each gradient.
        coordinates: observed for each input.

    Raises:
        InvalidValue: no distances.

    Example:
        >>> judge(np.array([1e-7, 1e-6]), 1, np.array([784.0, 784.0])).verdict is Verdict.LEAKS
        True
        >>> judge(np.array([1e-7, 1e-6]), 5, np.array([4.0, 4.0])).verdict is Verdict.NOT_SHOWN
        True
    """
    if len(distances) == 0:
        raise InvalidValue("There is nothing to judge.", got="no distances", instead="Audit at least one input.")
    recovered = float((distances <= RECOVERED).mean())
    median = float(np.median(distances))
    differences = float(np.median(coordinates)) + 1
    bits = max(0.0, float(np.log2(np.sqrt(2) / max(median, 2.0**-52))))
    counted = "1 query" if queries == 1 else f"{queries} queries"
    spent = f"{counted} for each, where finite differences of outputs need {differences:.0f}"
    if queries >= differences:
        verdict = Verdict.NOT_SHOWN
        sentence = f"Not shown: it takes {spent}."
    elif recovered >= MOST:
        verdict = Verdict.LEAKS
        sentence = f"Leaks: {recovered:.0%} of the gradients were recovered, by {spent}."
    elif recovered >= SOME or median <= TELLING:
        verdict = Verdict.PARTLY
        sentence = (
            f"Leaks in part: {recovered:.0%} of the gradients were recovered, and the median distance to the truth is "
            f"{median:.2g} (1.41: unrelated), by {spent}."
        )
    else:
        verdict = Verdict.NOT_SHOWN
        sentence = f"Not shown: the best plan known comes no nearer than a distance of {median:.2g} (1.41: unrelated)."
    return Judgement(verdict, recovered, median, bits, queries, differences, sentence)
