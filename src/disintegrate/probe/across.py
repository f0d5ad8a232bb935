"""Kink after kink, until one names the rule: where a baseline may be sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from disintegrate.probe.close_up import NARROW, ROUGH, close_up
from disintegrate.probe.one_kink import FREEDOM, members_of, told
from disintegrate.probe.ray import Ray
from disintegrate.rules import PRESETS

# Kinks that are closed in on where the answers across one leave several rules, and the queries that this takes; fewer
# where few are left.
RAYS, FRESH, FRESH_FEW = 3, 20, 15
# So many rules that are left are few; and answers across a second kink that must be left to contradict one of them.
FEW, SECOND = 20, 1
# Numbers of steps that libraries take by themselves.
USUAL = tuple(sorted({preset.steps for preset in PRESETS.values()}, reverse=True))


@dataclass(frozen=True)
class Across:
    """What rays across kinks tell.

    Attributes:
        members: the rules and steps that are left, the likeliest first.
        decided: whether nothing but their mass may tell them apart.
        place: where the last kink lies on its ray.
        evidence: the reason, as a sentence.
    """

    members: tuple[tuple[str, int], ...]
    decided: bool
    place: float
    evidence: str

    @property
    def numbers(self) -> list[int]:
        """The numbers of steps of the rules that are left."""
        return list(dict.fromkeys(steps for _, steps in self.members))


def across(
    ray: Ray,
    direction: Callable[[], Float64[np.ndarray, " d"]],
    own_number: Callable[[Sequence[int]], int | None],
    generator: np.random.Generator,
) -> Across | None:
    """The rules that explain the answers across the strongest kinks of some rays; None where a ray has no kink.

    Args:
        ray: the first, from a point that is sent along.
        direction: draws that of another.
        own_number: which of some numbers of steps is the service's own, where that can be asked.
        generator: for scales.
    """
    among: tuple[tuple[str, int], ...] | None = None
    seen, place = None, 0.0
    for number in range(RAYS):
        if number:
            # across another kink, of those rules that the first one left
            ray = Ray(ray.asker, ray.origin, direction(), ray.target, drifting=ray.drifting)
        few = number > 0 and among is not None and len(among) < FEW
        closer = close_up(ray, ROUGH if few else NARROW)
        if closer is None:
            break
        place = closer.place
        if number == 0:
            own = own_number(USUAL)
            among = None if own is None else members_of(own)
        seen = told(closer, kept=0, generator=generator, among=among, needed=SECOND if few else FREEDOM)
        among = seen.members or among
        fresh = FRESH_FEW if among is not None and len(among) < FEW else FRESH
        if seen.decided or ray.asker.left < fresh:
            break
    if seen is None:
        return None
    return Across(seen.members, seen.decided, place, seen.evidence)
