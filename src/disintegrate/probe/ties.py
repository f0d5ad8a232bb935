"""What a rule weighs all but the baseline with, where max pooling ties there: seen in sums close by.

Over equal neighbours, as in a baseline of zeros, max pooling ties, so that the gradient `g_0` at the baseline is not
the limit of those on a ray that begins there, and (P.7) cannot say the weight `w_0`. Sums of attributions need not know
it: as long as the output `f` changes like a line along the ray,

    S(s) = (M - w_0) (f(s) - f(0)) + s w_0 g_0 d,                                                            (P.9)

and far out behind a softmax nothing but `w_0 g_0` is left, in every coordinate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from disintegrate.probe.far_out import OFF, baseline_and_mass
from disintegrate.probe.one_kink import quadrature
from disintegrate.probe.ray import Ray
from disintegrate.probe.result import Finding, NamedRule
from disintegrate.probe.staircase import Pattern, keeping

# By what share of itself what is left far out on one side may not be there on the other.
ALIKE = 1e-3
# How many times what a staircase of n steps misses of what the gradient changes may be missed; how much that may be of
# the gradient; and how exact outputs are in float32, relative to them.
MISSED, BENT, ARITHMETIC = 2.0, 0.5, 3e-7


def agreeing_tied(rays: Sequence[Ray], out: Ray, among: Sequence[Pattern]) -> tuple[Pattern, ...] | None:
    """Those of some patterns whose members make such sums close by, with these alone; None where that says nothing.

    It does not where the baseline is not known exactly, where nothing is left far out, or another gradient on either
    side as that is not yet saturated, and where the gradient changes too much close by.

    Args:
        rays: some that were asked near the baseline.
        out: one of the same baseline far out on both sides, which moves all that they move.
        among: the patterns that are left.
    """
    floor = None if out.origin.error.any() else _left_far_out(out)
    if floor is None:
        return None
    close = [near for ray in rays for near in _close_by(ray, *floor)]
    return keeping(among, lambda *member: all(near.agrees(*member) for near in close)) if close else None


def borne_out(
    found: Finding[tuple[NamedRule, ...]], agreeing: Sequence[Pattern] | None, *, coarse: bool
) -> Finding[tuple[NamedRule, ...]]:
    """A rule that sums named, taken back where ties hide the weight of the baseline and sums close by say another.

    Where those agree with none, the gradient changes too much close by for them to say anything: then it stands, unless
    numbers are carried coarsely.
    """
    among = {member for pattern in agreeing or () for member in pattern.members}
    if {(one.rule, one.steps) for one in found.value or ()} <= among or (not among and not coarse):
        return found
    return Finding(None, f"{found.evidence}; but with what it weighs the baseline is not known, so that says little")


class _Near:
    """Two answers of a ray: the sum between them but for the node at the baseline, and the change of the output.

    Attributes:
        total: the sum.
        change: of the output.
        noise: of the sum, and `blur`: of the change.
        bend: how much of the sum changes on the way, by kinks or drift, in some coordinates or in all.
    """

    def __init__(
        self, ray: Ray, inner: int, outer: int, floor: Float64[np.ndarray, " d"], rough: Float64[np.ndarray, " d"]
    ) -> None:
        moved = ray.moved[outer] - ray.moved[inner]
        raw, outputs = np.stack([ray.raw[inner], ray.raw[outer]]), np.array(ray.outputs)[[inner, outer]]
        self.total = float((raw[1] - raw[0] - floor * moved).sum())
        self.change = float(outputs[1] - outputs[0])
        self.noise = math.hypot(float(np.linalg.norm(ray.asker.deviation(raw))), float(np.linalg.norm(rough * moved)))
        self.blur = float(np.linalg.norm(ray.asker.deviation(outputs) + ARITHMETIC * np.abs(outputs)))
        bent = (_over(raw[1], ray.moved[outer]) - _over(raw[0], ray.moved[inner])) * ray.moved[outer]
        self.bend = math.hypot(float(bent.sum()), float(np.linalg.norm(bent)))

    def agrees(self, rule: str, steps: int) -> bool:
        """Whether the two may be answers of a rule with a node at the baseline."""
        weight, mass = baseline_and_mass(rule, steps)
        doubt = OFF * math.hypot(self.noise, (mass - weight) * self.blur)
        missed = MISSED * self.bend / len(quadrature(rule, steps)[0])
        return weight > 0 and abs(self.total - (mass - weight) * self.change) < doubt + missed


def _close_by(ray: Ray, floor: Float64[np.ndarray, " d"], rough: Float64[np.ndarray, " d"]) -> list[_Near]:
    """Each answer with that closest to the baseline, as far as the gradient does not change too much."""
    order = np.argsort(np.abs(ray.scales)).tolist()
    found = [_Near(ray, order[0], outer, floor, rough) for outer in order[1:]]
    return [near for near in found if near.bend < BENT * abs(near.total)]


def _left_far_out(out: Ray) -> tuple[Float64[np.ndarray, " d"], Float64[np.ndarray, " d"]] | None:
    """What is left of the gradient far out, and its noise; None where both sides do not agree on it."""
    if not out.scales or max(out.scales) <= 0 or min(out.scales) >= 0:
        return None
    ends = [int(np.argmax(out.scales)), int(np.argmin(out.scales))]
    ahead, back = (_over(out.raw[end], out.moved[end]) for end in ends)
    rough = np.hypot(*(_over(out.asker.deviation(out.raw[end]), np.abs(out.moved[end])) for end in ends))
    size, gap = (float(np.linalg.norm(value)) for value in (ahead, ahead - back))
    if not size or gap > ALIKE * size + OFF * float(np.linalg.norm(rough)):
        return None
    return (ahead + back) / 2, rough / 2


def _over(answer: Float64[np.ndarray, " d"], moved: Float64[np.ndarray, " d"]) -> Float64[np.ndarray, " d"]:
    """An answer over what was moved, 0 where nothing was."""
    found: Float64[np.ndarray, " d"] = np.divide(answer, moved, out=np.zeros(moved.size), where=moved != 0)
    return found
