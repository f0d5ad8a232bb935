"""Kink after kink, until one names the rule: where a baseline may be sent."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64

from disintegrate.probe.close_up import NARROW, ROUGH, close_up
from disintegrate.probe.one_kink import FREEDOM, Crossed, crossed, members_of
from disintegrate.probe.own_number import USUAL, OwnNumber
from disintegrate.probe.ray import Ray

# Kinks that are closed in on where the answers across one leave several rules, and the queries that this takes; fewer
# where few are left.
RAYS, FRESH, FRESH_FEW = 3, 20, 15
# So many rules that are left are few; and answers across a second kink that must be left to contradict one of them.
FEW, SECOND = 20, 1


def across(
    ray: Ray,
    direction: Callable[[], Float64[np.ndarray, " d"]],
    own_number: OwnNumber,
    generator: np.random.Generator,
    among: tuple[tuple[str, int], ...] | None = None,
) -> Crossed | None:
    """The rules that explain the answers across the strongest kinks of some rays; None where a ray has no kink.

    Args:
        ray: the first, from a point that is sent along.
        direction: draws that of another.
        own_number: of the service's steps.
        generator: for scales.
        among: the rules and steps that it may be; None for any.
    """
    seen = None
    for number in range(RAYS):
        if number:
            # across another kink, of those rules that the first one left
            ray = Ray(ray.asker, ray.origin, direction(), ray.target, drifting=ray.drifting)
        few = among is not None and len(among) < FEW
        again = few and number > 0
        closer = close_up(ray, ROUGH if again else NARROW)
        if closer is None:
            break
        if number == 0 and (own := own_number.among(USUAL)) is not None:
            among = tuple(member for member in among or () if member[1] == own) or members_of(own)
        seen = crossed(closer, generator=generator, among=among, needed=SECOND if again else FREEDOM)
        among = seen.members or among
        fresh = FRESH_FEW if among is not None and len(among) < FEW else FRESH
        if seen.decided or ray.asker.left < fresh:
            break
    return seen
