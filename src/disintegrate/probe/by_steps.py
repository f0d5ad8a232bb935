"""The rule of a service that takes a caller's number of steps: its name by few of them, its own number by asking it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from disintegrate.probe.family import family
from disintegrate.probe.number import numbers
from disintegrate.probe.own_number import USUAL, OwnNumber
from disintegrate.probe.ray import Ray


@dataclass(frozen=True)
class ToldBySteps:
    """What numbers of steps tell.

    Attributes:
        rules: the names that are left.
        own: the service's own number of steps, where they all have the same nodes and weights; None where not found.
        evidence: why, as a sentence.
    """

    rules: frozenset[str]
    own: int | None
    evidence: str


def by_steps(ray: Callable[[int | None], Ray], own_number: OwnNumber, most: int, *, walk: bool) -> ToldBySteps | None:
    """The rule, and its own number of steps if few questions find it; None where no rule is told.

    Args:
        ray: one for each number of steps and one for none; all from the same point in the same direction.
        own_number: asks whether a number is the service's own.
        most: numbers that are asked, beside the usual ones.
        walk: whether to guess the number where no weight of the baseline tells it.
    """
    own = own_number.found() or own_number.among(USUAL)
    found = family(ray)
    if found is None:
        return None
    if len(found.obeyed) > 1:
        return ToldBySteps(found.rules, None, found.evidence)
    if own is None:
        own = own_number.among(numbers(ray, min(found.rules, key=len), most, walk=walk), kept=1)
    evidence = found.evidence
    if own is not None:
        evidence += f"; {own} steps got the answer without a number"
    return ToldBySteps(found.rules, own, evidence)
