"""What a rule weighs both ends of a path with, where a baseline may be sent.

An answer from a point `b` to one far out, over what was moved, is `M P + w_0 (g - P)`, and that from far out to `b` is
`M P + w_1 (g - P)`: with the gradients `g` at `b` and `P` far out, the mass `M`, and the weights `w_0` and `w_1` of
nodes at the baseline and at the input. Between two points that lie close together, or both far out, an answer is the
gradient there times the mass, so that all coordinates tell both weights. Behind a softmax `P` is 0.         (P.12)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from disintegrate.errors import NotPermitted
from disintegrate.probe.close_up import divided
from disintegrate.probe.far_out import OFF
from disintegrate.probe.one_kink import quadrature
from disintegrate.probe.ray import Ray

# How far out, in units of the inputs' spread: float32 places the other end no better than to a millionth of that, and
# behind a softmax every other node must lie where it is saturated.
FAR, FAR_PROBABILITIES = 3e4, 1e5
# How close by, and where small numbers are lost; and the largest number that float16 is to carry.
CLOSE, CLOSE_COARSE, LARGEST = 1e-3, 0.02, 1e4
# How many squares of the noise what points elsewhere may hold; and how well weights must be known.
BEYOND, TOLD = 2.0, 0.05
# What a network rounds, as a share; and by what share the gradient close by may be another behind a softmax.
ROUNDED, DRIFT = 1e-6, 0.03


@dataclass(frozen=True)
class Ends:
    """The weights of both ends over the mass, and how far off each may be."""

    baseline: float
    input: float
    doubts: tuple[float, float]

    def agreeing(self, among: Sequence[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
        """Those of some rules that weigh both ends so."""
        return tuple(member for member in among if self._misfit(*member) < OFF)

    def _misfit(self, rule: str, steps: int) -> float:
        nodes, weights = quadrature(rule, steps)
        found = zip((self.baseline, self.input), (0.0, 1.0), self.doubts, strict=True)
        mass = float(weights.sum())
        return max(abs(seen - float(weights[nodes == end].sum()) / mass) / doubt for seen, end, doubt in found)


def ends(ray: Ray) -> Ends | None:
    """Ask for both, in four queries or three behind a softmax; None where points far out are refused, or tell nothing.

    Args:
        ray: from a point that is sent as the baseline.
    """
    asker, begin = ray.asker, ray.origin.point
    near = Ray(asker, ray.origin, ray.direction, ray.target)
    close = CLOSE_COARSE if asker.coarse else CLOSE
    near.ask([close])
    seen = near.moved[0] != 0
    largest = float(np.abs(near.raw[0]).max()) / close
    if largest == 0:
        return None
    scale = FAR_PROBABILITIES if ray.drifting else FAR
    scale = min(scale, LARGEST / largest) if asker.coarse else scale
    far, further = asker.sent(begin + np.array([[scale], [2 * scale]]) * ray.direction)
    rows, noises = [divided(near.raw[0], near.moved[0])], [divided(asker.deviation(near.raw[0]), np.abs(near.moved[0]))]
    pairs = [(further, far), (far, begin), (begin, far)]
    if ray.drifting:
        # so far out a softmax is saturated
        del pairs[0]
        rows.append(np.zeros(begin.size))
        noises.append(np.zeros(begin.size))
    try:
        for point, baseline in pairs:
            answer = asker.ask(point[None], ray.target, origin=baseline).attribution[0]
            rough = np.hypot(asker.deviation(answer), ROUNDED * np.abs(answer))
            rows.append(divided(answer, point - baseline))
            noises.append(divided(rough, np.abs(point - baseline)))
    except NotPermitted:
        asker.refused = True
        return None
    found = [row[seen] for row in rows]
    if not np.isfinite(found).all():
        return None
    blurs = [noise[seen] for noise in noises]
    both = [_share(found[row], found[1], found[0], np.hypot(blurs[row], blurs[1])) for row in (2, 3)]
    drift = DRIFT if ray.drifting else 0.0
    (begins, first), (finishes, last) = both
    doubts = (math.hypot(first, drift * begins), math.hypot(last, drift * finishes))
    return Ends(begins, finishes, doubts) if max(doubts) < TOLD else None


def _share(
    row: Float64[np.ndarray, " d"],
    far: Float64[np.ndarray, " d"],
    close: Float64[np.ndarray, " d"],
    noise: Float64[np.ndarray, " d"],
) -> tuple[float, float]:
    """How far an answer lies on the way from one gradient to the other, and how far off that may be."""
    way = close - far
    size = max(float(way @ way), 1e-300)
    share = float((row - far) @ way) / size
    # kinks further out than the first node, and what the gradient changes close by, lead elsewhere as well
    left = float(((row - far - share * way) ** 2).sum())
    aside = max(left - BEYOND * float((noise**2).sum()), 0.0)
    return share, math.sqrt((float((noise**2 * way**2).sum()) / size + aside) / size) + 1e-9
