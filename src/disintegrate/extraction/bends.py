"""Where a piecewise linear function bends along a line, found from tangents: one unit for each bend.

Between two points of a line the gradient of a network with one hidden layer jumps by `sum_i +-v_i w_i^T` over the units
whose hyperplanes lie between. One unit alone leaves a matrix of rank one: its direction and its output weights; and the
two tangents meet on its hyperplane, in all classes at the same place, which gives its offset (Milli et al. 2019).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from disintegrate.extraction.hidden_units import HiddenUnits
from disintegrate.extraction.tangents import Tangents

Ask = Callable[[Float64[np.ndarray, "n d"]], Tangents]

# Multiples of the noise's standard deviation that count as signal.
SIGNAL = 6.0
# Angles closer than so many roundings are not parted: the service itself cannot tell there which units are on.
CLOSEST = 16.0
# The share of an interval that a new point stays away from its ends.
MARGIN = 0.1
# The share of a gap in which a unit that is foretold must lie.
NARROW = 1e-3


@dataclass(frozen=True, eq=False)
class Line:
    """Points `c + tan(a) q` for angles `a`: hyperplanes near the origin lie evenly in them.

    That holds for random `c` and `q` of one length.

    Attributes:
        centre: where the angle is 0.
        direction: where 45 degrees lead to.
        reach: the largest angle, below a quarter turn.
    """

    centre: Float64[np.ndarray, " d"]
    direction: Float64[np.ndarray, " d"]
    reach: float

    def at(self, angles: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, "n d"]:
        """The points at these angles."""
        return np.asarray(self.centre + np.tan(angles)[:, None] * self.direction)


@dataclass(frozen=True)
class Precision:
    """What the answers are good for.

    Attributes:
        gradients: standard deviation of their noise, relative to their norm.
        outputs: the same of the outputs.
        points: a unit in the last place of the numbers that are sent, relative.
    """

    gradients: float
    outputs: float
    points: float


@dataclass(frozen=True, eq=False)
class Bends:
    """What a line gave.

    Attributes:
        units: one for each bend, oriented along the line.
        asked: all tangents that were asked for.
        unparted: bends of several units too close together to tell apart.
    """

    units: HiddenUnits
    asked: Tangents
    unparted: int


@dataclass(frozen=True, eq=False)
class Gap:
    """Two neighbouring points, and what the function does in between."""

    jump: Float64[np.ndarray, "classes d"]
    lift: Float64[np.ndarray, " classes"]
    near: Float64[np.ndarray, " d"]
    far: Float64[np.ndarray, " d"]
    noise: float
    doubt: float

    @property
    def bent(self) -> bool:
        """Whether anything happens here."""
        return float(np.linalg.norm(self.jump)) > SIGNAL * self.noise

    @property
    def share(self) -> float:
        """Where the two tangents meet, all bends taken for one: 0 at the near end, 1 at the far."""
        slope = self.jump @ (self.far - self.near)
        square = float(slope @ slope)
        return 1 - float(slope @ self.lift) / square if square else 0.5


def bends(
    ask: Ask, known: HiddenUnits, line: Line, precision: Precision, ends: Tangents, *, confirm: bool, tolerable: float
) -> Bends:
    """Find every bend of a function less known units along a line.

    A gap between two points is asked in its middle, or where its tangents meet, until it holds one unit or none.
    With one class rank cannot tell one unit from several. Then the place where the tangents meet is asked as well, and
    a place just behind it: they must have the gradients of the two sides.

    Args:
        ask: tangents at points.
        known: units found before, whose bends are not looked for.
        line: where to look.
        precision: of the tangents.
        ends: tangents at the line's ends.
        confirm: whether to ask around the place where tangents meet.
        tolerable: the largest doubt about an offset; a unit with a larger one is asked about from closer by.
    """
    angles = np.array([-line.reach, line.reach])
    asked, rest = ends, known.less(ends)
    found, unparted = [HiddenUnits.none(asked.points.shape[1], asked.outputs.shape[1])], 0
    # The last says that the gap was narrowed down to one unit that its surroundings foretold.
    open_gaps = [(0, 1, False)]
    while open_gaps:
        parting: list[tuple[int, int, float, bool]] = []
        for first, second, foretold in open_gaps:
            gap = gap_between(asked, rest, known, first, second, precision)
            if not gap.bent:
                continue
            unit = one_unit(gap)
            closest = bool(angles[second] - angles[first] < CLOSEST * precision.points)
            sure = closest or not confirm or foretold
            if unit is not None and sure and (closest or unit.doubts[0] <= tolerable):
                found.append(unit)
            elif closest:
                found.append(_cluster(gap))
                unparted += 1
            elif confirm and unit is not None:
                parting.append((first, second, *_closing_in(line, angles[first], angles[second], gap, unit)))
            else:
                angle = _between(line, angles[first], angles[second], gap.share)
                parting.append((first, second, angle, False))
        if not parting:
            break
        fresh = np.array([angle for _, _, angle, _ in parting])
        answers = ask(line.at(fresh))
        start = len(angles)
        angles, asked, rest = np.append(angles, fresh), asked.joined(answers), rest.joined(known.less(answers))
        open_gaps = []
        for index, (first, second, _, foretold) in enumerate(parting, start):
            # The narrower side is the one that was foretold.
            left = angles[index] - angles[first] < angles[second] - angles[index]
            open_gaps += [(first, index, foretold and bool(left)), (index, second, foretold and not left)]
    units = found[0]
    for some in found[1:]:
        units = units.joined(some)
    return Bends(units, asked, unparted)


def gap_between(
    asked: Tangents, rest: Tangents, known: HiddenUnits, first: int, second: int, precision: Precision
) -> Gap:
    """Two of the points that were asked, less known units."""
    near, far = rest.points[first], rest.points[second]
    step = far - near
    sizes = np.linalg.norm(asked.gradients[[first, second]].reshape(2, -1), axis=1)
    # Each known unit that changes in between brings its own error.
    changed = 0 if not len(known) else int((known.active(near[None]) != known.active(far[None])).sum())
    noise = precision.gradients * math.hypot(*sizes) * math.sqrt(1 + changed)
    # The service's own sums are as large as its inputs, however small their outcome is.
    length = max(float(np.linalg.norm(near)), float(np.linalg.norm(far)))
    sums = 2 * float(sizes.max()) * length / math.sqrt(len(step))
    outputs = np.abs(asked.outputs[[first, second]]).max() + sums
    doubt = math.hypot(
        precision.outputs * float(outputs) * math.sqrt(1 + changed),
        noise * float(np.linalg.norm(step)) / math.sqrt(len(step)),
    )
    return Gap(
        jump=rest.gradients[second] - rest.gradients[first],
        lift=rest.outputs[second] - rest.outputs[first] - rest.gradients[first] @ step,
        near=near,
        far=far,
        noise=noise,
        doubt=doubt,
    )


def one_unit(gap: Gap) -> HiddenUnits | None:
    """The one unit of a gap, or none where there are several."""
    _, sizes, right = np.linalg.svd(gap.jump, full_matrices=False)
    if len(sizes) > 1 and sizes[1] > SIGNAL * gap.noise:
        return None
    normal = right[0] if right[0] @ (gap.far - gap.near) > 0 else -right[0]
    weights = gap.jump @ normal
    size = float(np.linalg.norm(weights))
    # The far end lies so far behind the hyperplane.
    behind, span = float(weights @ gap.lift) / size**2, float(normal @ (gap.far - gap.near))
    doubt = gap.doubt / size
    slack = SIGNAL * doubt
    if np.linalg.norm(gap.lift - weights * behind) > SIGNAL * gap.doubt * math.sqrt(len(weights)):
        return None
    if not -slack <= behind <= span + slack:
        return None
    offset = behind - float(normal @ gap.far)
    return HiddenUnits(normal[None], np.array([offset]), weights[None], np.array([doubt]))


def _cluster(gap: Gap) -> HiddenUnits:
    """Several units at one place of the line, as the jump's own directions."""
    left, sizes, right = np.linalg.svd(gap.jump, full_matrices=False)
    kept = sizes > SIGNAL * gap.noise
    signs = np.where(right[kept] @ (gap.far - gap.near) > 0, 1.0, -1.0)
    normals = right[kept] * signs[:, None]
    middle = (gap.near + gap.far) / 2
    weights = (left[:, kept] * sizes[kept] * signs).T
    return HiddenUnits(normals, -normals @ middle, weights, np.abs(normals @ (gap.far - gap.near)) / 2)


def _between(line: Line, first: float, second: float, share: float) -> float:
    """The angle of the next point: where the tangents meet, but not close to an end."""
    low, high = math.tan(first), math.tan(second)
    meeting = math.atan(low + share * (high - low))
    width = second - first
    if not first + MARGIN * width < meeting < second - MARGIN * width:
        return (first + second) / 2
    return meeting


def _closing_in(line: Line, first: float, second: float, gap: Gap, unit: HiddenUnits) -> tuple[float, bool]:
    """The next point around what may be one unit: first where the tangents meet, then just behind."""
    low, high = math.tan(first), math.tan(second)
    span = max(float(unit.normals[0] @ (gap.far - gap.near)), 1e-300)
    slack = SIGNAL * float(unit.doubts[0]) / span
    step = max(4 * slack, NARROW)
    if step > 0.5 - MARGIN:
        return (first + second) / 2, False
    share = min(max(gap.share, 0.0), 1.0)
    if share <= slack:
        return math.atan(low + step * (high - low)), True
    if share >= 1 - slack:
        return math.atan(high - step * (high - low)), True
    return math.atan(low + share * (high - low)), False
