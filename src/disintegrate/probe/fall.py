"""A ray on which the output of a softmax falls to 0: how far down answers are seen, and outputs on the way."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from disintegrate.probe.asking import Asker
from disintegrate.probe.falling import Falling
from disintegrate.probe.ray import Ray

# How far down outputs are followed, as a logarithm, and what float32 carries with all digits.
DEEPEST, DEEPEST_COARSE, TINY = -55.0, -9.0, 1e-30
# Where the first is asked, in units of the inputs' spread; by what factor further or nearer next, how often; and what
# has fallen.
BEGIN, APART, LOOKS, FALLEN = 10.0, 4.0, 5, -3.0
# Where outputs are asked then, as shares of the way down; closer where a node at the baseline leaves little of it; and
# how close to the first none is.
SHARES, SHARES_CLOSED, CLOSE = (0.04, 0.1, 0.2, 0.35, 0.6, 1.0), (0.1, 0.25, 0.4, 0.55, 0.7, 0.85, 1.0), 0.1
# How many outputs it takes, and how many answers; how rough outputs may be, and how exact arithmetic in float32 leaves
# their logarithm.
ENOUGH, ROUGH, EXACT = 3, 0.05, 1e-6
# How far down an answer lies at least, and how far above its noise one must; the largest share of the way's begin that
# noise is taken for.
DOWN, ABOVE, NOISY = 2.0, 8.0, 0.2


@dataclass(frozen=True, eq=False)
class Fall:
    """A ray on which an output falls, to be asked for outputs, and the same near the baseline and far out."""

    ray: Ray
    near: Ray
    out: Ray


@dataclass(frozen=True, eq=False)
class Floor:
    """What is left of an answer, over its scale, where all nodes but one at the baseline have fallen.

    Attributes:
        seen: whether there is such a node.
        value: what is left, negated.
        deviation: how exact that is.
        lost: the sum of what is left in coordinates in which the baseline is not known.
    """

    seen: bool
    value: float
    deviation: float
    lost: float


def deepest(asker: Asker) -> float:
    """How far down outputs are followed, as a logarithm."""
    return DEEPEST_COARSE if asker.coarse else DEEPEST


def way_down(asker: Asker, floor: Floor, node: float, top: float, slope: float) -> float:
    """How far down answers are more than noise, as a logarithm below 0.

    Args:
        asker: the service.
        floor: what is left furthest out.
        node: about where the first node lies, which is about what it weighs.
        top: the logarithm of the largest output.
        slope: how fast it falls.
    """
    deep = deepest(asker) - top
    if floor.seen and floor.deviation > 0:
        deep = max(deep, math.log(min(2 * ABOVE * floor.deviation / (node * slope * math.exp(top)), NOISY)))
    return min(deep, -DOWN)


def outputs_down(fall: Fall, floor: Floor, node: float) -> Falling | None:
    """Ask for outputs down a ray; None where it does not fall steadily.

    Args:
        fall: the ray.
        floor: what is left furthest out.
        node: about where the first node lies.
    """
    ray, last = fall.ray, deepest(fall.ray.asker)
    top = math.log(max(_at_baseline(fall), TINY))
    fallen = top + max(FALLEN, (last - top) / 2)
    scale, low, high, log = BEGIN, 0.0, math.inf, 0.0
    for _ in range(LOOKS):
        if scale not in ray.scales:
            ray.ask([scale])
        output = ray.outputs[ray.scales.index(scale)]
        log = math.log(output) if output > 0 else -math.inf
        if last - 1 < log < fallen:
            break
        low, high = (scale, high) if log >= fallen else (low, scale)
        scale = scale * APART if high == math.inf else scale / APART if not low else math.sqrt(low * high)
    else:
        return None
    way = way_down(ray.asker, floor, node, top, (top - log) / scale) if top > log else last
    end = scale * way / (log - top)
    places = [share * end for share in (SHARES_CLOSED if floor.seen else SHARES)]
    ray.ask([place for place in places if abs(place - scale) > CLOSE * place][: ray.asker.left])
    return outputs_of(fall)


def _at_baseline(fall: Fall) -> float:
    return fall.near.outputs[int(np.argmin(np.abs(fall.near.scales)))]


def exactness(asker: Asker, outputs: Float64[np.ndarray, " k"]) -> Float64[np.ndarray, " k"]:
    """How exact the logarithms of outputs are that are answered."""
    digits = np.asarray(asker.deviation(outputs)) / outputs
    found: Float64[np.ndarray, " k"] = np.hypot(digits, EXACT * np.maximum(np.abs(np.log(outputs)), 1.0))
    return found


def outputs_of(fall: Fall) -> Falling | None:
    """The outputs that are more than noise, with that at the baseline."""
    scales, outputs = np.append(fall.ray.scales, 0.0), np.append(fall.ray.outputs, _at_baseline(fall))
    order = np.argsort(scales)
    scales, outputs = scales[order], outputs[order]
    rough = np.asarray(fall.ray.asker.deviation(outputs))
    fine = (outputs > TINY) & (rough < ROUGH * outputs)
    if fine.sum() < ENOUGH:
        return None
    log = np.log(outputs[fine])
    found = Falling(scales[fine], log, exactness(fall.ray.asker, outputs[fine]))
    return found if found.slope > 0 and log.max() - log[-1] > DOWN else None
