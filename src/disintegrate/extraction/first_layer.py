"""The first layer of a deeper network: the units whose hyperplanes go on straight wherever a line meets them.

A unit of the first layer bends along one hyperplane of the whole input space; one of a later layer bends along a
surface that has another direction in every region of the layers before it. So a bend is of the first layer where the
gradient jumps along the same normal at other places of its hyperplane. And as

    G(x) = C(x) N,    C_i(x) = 0 where unit i is off,                                                       (D.1)

with the normals `N` as rows, the gradients say by themselves on which side each unit is on, and whether any unit is
missing: then they leave the span of the normals that are known. A hyperplane is a row here: its normal, of length 1,
and its offset behind.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from disintegrate.errors import BadAnswer
from disintegrate.extraction.bends import Precision, bends, gap_between, one_unit
from disintegrate.extraction.hidden_units import HiddenUnits
from disintegrate.extraction.lines import Domain, reachable
from disintegrate.extraction.tangents import Oracle, Tangents

# Normals of one unit, seen from different lines, differ by less, or by so many times the noise of gradients.
SAME, NOISY = 1e-3, 100.0
# Places of a hyperplane that are looked at first, at one of which a unit must bend, and those looked at then; and the
# share of all at which it must, but for those without a gradient.
FEW, MANY, SHARE = 2, 8, 0.75
# Below this share of the largest a gradient counts as none.
NONE = 1e-6
# How far on either side is asked there, in multiples of the doubt about the offset and of the domain's spacing.
ASIDE, APART = 30.0, 1e-4
# And of how far behind an input the service's answers about it end.
BEHIND = 3.0
# What the normals may leave of a gradient in multiples of its noise, and the share of places where they may leave more.
LEFT, STRAY = 30.0, 0.02
# How much of a unit's coefficients may lie on the side where it is off: some points lie too close to its hyperplane.
BOTH = 0.1
# Normals that are more alike than this, by the condition of all, are not independent.
WORST_CONDITION = 1e4
# The largest doubt about an offset, in multiples of how far a random point lies from a hyperplane through the middle.
TOLERABLE = 0.01


@dataclass(frozen=True, eq=False)
class FirstLayer:
    """The first layer `relu(N x + b)`, each row of length 1.

    Attributes:
        normals: `N`, turned to the side where the unit is on.
        offsets: `b`.
        asked: every tangent that was asked for.
        lines: that were looked along.
        left: the share of the points asked whose gradients leave the span of the normals.
        both: the largest share of a unit's coefficients (D.1) that lies on the side where it is off.
    """

    normals: Float64[np.ndarray, "h d"]
    offsets: Float64[np.ndarray, " h"]
    asked: Tangents
    lines: int
    left: float
    both: float

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def complete(self) -> bool:
        """Whether the units explain the gradients wherever something was asked, each on one side."""
        return self.left <= STRAY and self.both <= BOTH


def first_layer(
    oracle: Oracle, domain: Domain, precision: Precision, generator: np.random.Generator, most_lines: int
) -> FirstLayer:
    """Look along lines until the units found explain every gradient that was answered.

    Args:
        oracle: tangents of the model.
        domain: where to look.
        precision: of the tangents.
        generator: for lines and places.
        most_lines: after which to stop, whatever is left.
    """
    width = domain.inputs.shape[1]
    asked = oracle.at(domain.points(generator, 1))
    known, left, lines = np.zeros((0, width + 1)), 1.0, 0
    same = max(SAME, NOISY * precision.gradients)
    while left > STRAY and lines < most_lines:
        lines += 1
        line, ends = reachable(oracle, domain.line(generator))
        nothing = HiddenUnits.none(width, ends.outputs.shape[1])
        try:
            found = bends(
                oracle.at, nothing, line, precision, ends, confirm=True, tolerable=TOLERABLE * domain.spacing
            )  # fmt: skip
        except BadAnswer:
            continue
        answered = [found.asked]
        candidates = np.column_stack([found.units.normals, found.units.offsets])
        for candidate, doubt in zip(candidates, found.units.doubts, strict=True):
            if _among(candidate, known, domain.length, same):
                continue
            unit, answers = _straight(oracle, domain, precision, generator, candidate, float(doubt))
            answered.append(answers)
            if unit is not None:
                known = np.vstack([known, unit])
        asked = asked.joined(*answered)
        left = _left(known[:, :-1], asked, precision)
    known = _independent(known, asked, precision)
    sides = _energies(known, asked)
    known = known * np.where(sides.argmax(0), -1.0, 1.0)[:, None]
    both = float((sides.min(0) / np.maximum(sides.sum(0), 1e-300)).max(initial=0))
    return FirstLayer(known[:, :-1], known[:, -1], asked, lines, _left(known[:, :-1], asked, precision), both)


def _among(candidate: Float64[np.ndarray, " e"], known: Float64[np.ndarray, "h e"], length: float, same: float) -> bool:
    """Whether a hyperplane is one of these, from either side."""
    if not len(known):
        return False
    cosines = known[:, :-1] @ candidate[:-1]
    signs = np.where(cosines < 0, -1.0, 1.0)
    apart = np.linalg.norm(signs[:, None] * known[:, :-1] - candidate[:-1], axis=1)
    shifted = np.abs(signs * known[:, -1] - candidate[-1]) / length
    return bool(((apart < same) & (shifted < same)).any())


def _straight(
    oracle: Oracle,
    domain: Domain,
    precision: Precision,
    generator: np.random.Generator,
    candidate: Float64[np.ndarray, " e"],
    doubt: float,
) -> tuple[Float64[np.ndarray, " e"] | None, Tangents]:
    """The hyperplane as other places of it show it, if they do; and the tangents that were asked there."""
    normal = candidate[:-1]
    places = _places(domain, generator, normal, float(candidate[-1]))
    aside = ASIDE * doubt + APART * domain.spacing + BEHIND * oracle.ahead * domain.length
    seen, answered, alive = [], [], 0
    for some in (places[:FEW], places[FEW:]):
        answers = oracle.at(np.concatenate([some - aside * normal, some + aside * normal]))
        answered.append(answers)
        nothing = HiddenUnits.none(len(normal), answers.outputs.shape[1])
        sizes = np.linalg.norm(answers.gradients.reshape(2, len(some), -1), axis=2).max(0)
        alive += int((sizes > NONE * sizes.max(initial=0)).sum())
        for place in range(len(some)):
            gap = gap_between(answers, answers, nothing, place, place + len(some), precision)
            unit = one_unit(gap) if gap.bent else None
            if unit is not None and float(unit.normals[0] @ normal) > 1 - SAME:
                seen.append(unit)
        if not seen and alive:
            break
    asked = answered[0].joined(*answered[1:])
    if not seen or len(seen) < SHARE * alive:
        return None, asked
    sizes = np.array([np.linalg.norm(unit.weights) for unit in seen])
    mean = sizes**2 @ np.array([unit.normals[0] for unit in seen])
    trust = np.array([unit.doubts[0] for unit in seen]) ** -2.0
    offset = float(trust @ np.array([unit.offsets[0] for unit in seen]) / trust.sum())
    return np.append(mean / np.linalg.norm(mean), offset), asked


def _places(
    domain: Domain, generator: np.random.Generator, normal: Float64[np.ndarray, " d"], offset: float
) -> Float64[np.ndarray, "places d"]:
    """Where segments between random points of the domain cross a hyperplane; the feet of points where none does."""
    found: list[Float64[np.ndarray, " d"]] = []
    points = domain.points(generator, 16 * MANY)
    side = points @ normal + offset
    for first, second in zip(np.flatnonzero(side > 0), np.flatnonzero(side <= 0), strict=False):
        share = side[first] / (side[first] - side[second])
        found.append(points[first] + share * (points[second] - points[first]))
    feet = points - side[:, None] * normal
    return np.array([*found, *feet][:MANY])


def _left(normals: Float64[np.ndarray, "h d"], asked: Tangents, precision: Precision) -> float:
    """The share of the points whose gradients leave the span of the normals by more than noise."""
    if not len(normals):
        return 1.0
    basis = np.linalg.qr(normals.T)[0]
    flat = asked.gradients
    outside = np.linalg.norm((flat - flat @ basis @ basis.T).reshape(len(asked), -1), axis=1)
    sizes = np.linalg.norm(flat.reshape(len(asked), -1), axis=1)
    # the normals have errors too, about as large, and each brings its own
    noise = precision.gradients * sizes * math.sqrt(1 + len(normals))
    alive = sizes > NONE * sizes.max()
    return float((outside > LEFT * noise)[alive].mean())


def _energies(known: Float64[np.ndarray, "h e"], asked: Tangents) -> Float64[np.ndarray, "2 h"]:
    """The mean coefficient of each unit in (D.1) where it is ahead of its hyperplane, and where it is behind.

    One of the two is 0, where the units are those of the first layer and their normals independent.
    """
    normals, offsets = known[:, :-1], known[:, -1]
    sizes = np.linalg.norm(asked.gradients.reshape(len(asked), -1), axis=1)
    coefficients = np.linalg.norm(asked.gradients @ np.linalg.pinv(normals), axis=1)
    coefficients /= np.maximum(sizes, max(NONE * float(sizes.max()), 1e-300))[:, None]
    ahead = asked.points @ normals.T + offsets > 0
    return np.array([(coefficients * side).sum(0) / np.maximum(side.sum(0), 1) for side in (ahead, ~ahead)])


def _independent(
    known: Float64[np.ndarray, "h e"], asked: Tangents, precision: Precision
) -> Float64[np.ndarray, "k e"]:
    """The units without those of later layers that passed for some of the first, whose normals depend on the others'.

    Left out is what leaves the others on one side each, and no more of the gradients unexplained.
    """
    while len(known) > 1 and np.linalg.cond(known[:, :-1]) > WORST_CONDITION:
        worth = []
        for row in range(len(known)):
            others = np.delete(known, row, 0)
            worth.append(_left(others[:, :-1], asked, precision) + float(_energies(others, asked).min(0).max()))
        known = np.delete(known, int(np.argmin(worth)), 0)
    return known
