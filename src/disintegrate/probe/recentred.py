"""A ray on which a softmax falls, moved to where the baseline lies in coordinates in which it was not known.

What such a coordinate answers far out, over what the others do, is `x_i - b_i` times a share of the gradient that does
not change there, so that two answers make a secant that meets `b_i`. Those in which it vanishes need not be known.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from disintegrate.probe.fall import Fall
from disintegrate.probe.ray import Origin, Ray

# The longest step, in units of how far the coordinate was moved; and how far above its noise a slope must be.
MOST, ABOVE = 6.0, 5.0


def recentred(fall: Fall, answered: Ray, row: int, places: Float64[np.ndarray, " k"]) -> Fall | None:
    """The ray from the point that a secant leads to, asked for outputs; None where the answers do not say.

    Args:
        fall: the ray that begins beside the baseline.
        answered: the same ray with answers that put the first node where the output falls.
        row: the answer to begin with.
        places: where to ask for outputs.
    """
    origin, asker = answered.origin, answered.asker
    lost = ~np.isfinite(origin.error)
    size = np.abs(answered.direction[~lost])
    moved = np.where(lost, float(size[size > 0].mean()), 0.0)
    point = origin.point + answered.scales[row] * answered.direction
    aside = asker.sent((point + moved)[None])
    raw = np.stack([answered.raw[row], asker.ask(aside, answered.target).attribution[0]])
    whole = raw[:, ~lost].sum(1, keepdims=True)
    if not whole.all():
        return None
    first, second = raw / whole
    noise = np.hypot(*(asker.deviation(raw) / np.abs(whole)))
    turned = lost & (np.abs(second - first) > ABOVE * noise)
    step = np.divide(-first * moved, second - first, out=np.zeros(lost.size), where=turned)
    step = np.where(np.abs(step) < MOST * moved, step, 0.0)
    begin = Origin(asker.sent((origin.point + step)[None])[0], origin.error, origin.named)
    ray, near = (Ray(asker, begin, answered.direction, answered.target, drifting=True) for _ in range(2))
    near.ask([min(map(abs, fall.near.scales))])
    ray.ask(places)
    return Fall(ray, near, fall.out)
