"""Answers at scales of one ray from the baseline, and where the first kink of the ray lies."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float64

from disintegrate.probe.asking import Asker
from disintegrate.probe.staircase import Readings, readings

FIRST, SHRINK, SMALLEST, FURTHEST = 0.5, 0.22, 1e-5, 20.0
# Where a kink is looked for beyond an answer that has met none, and how many coordinates must have moved enough.
OUTWARD, SEEN = (0.5, 4.0, 40.0), 0.8
# The least that an answer is taken for where float32 rounds it, as a share of the largest.
SILENT = 0.1
# Changes that count as no kink beside those further out, as a share of them; and as a share of the answers, where
# kinks further out are taken instead; and both in units of the noise.
FAINT, LITTLE, HIDDEN, MUCH = 0.01, 0.01, 8.0, 30.0
# How narrow the bracket of a kink is made: what three halvings of a ratio of 1 : SHRINK give.
WITHIN = 1.22
# Where ties of the model leave noise at the smallest scales: what counts as no change.
TIED = 2e-2
# What counts as no bend where the gradient drifts, and how far answers must lie apart to read a line off them.
BENT, APART = 3e-3, 0.9


K = TypeVar("K")


@dataclass(frozen=True, eq=False)
class Origin:
    """Where rays begin: the point, how far it may be off, and what is sent as the baseline (None: nothing)."""

    point: Float64[np.ndarray, " d"]
    error: Float64[np.ndarray, " d"]
    named: Float64[np.ndarray, " d"] | None = None


@dataclass(frozen=True)
class Bracket:
    """Where the first kink of a ray lies: at `low` the answers are as below, at `high` they are not."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        """Where the kink is taken to lie."""
        return math.sqrt(self.low * self.high)


class Ray:
    """Answers at scales of one ray, divided by what was moved.

    Attributes:
        drifting: whether the gradient changes between kinks too, as it does behind a softmax.
        blur: changes of the answers that count as none, relative to their size.
        scatter: noise beyond that of the wire, relative to the answers.
        normal: that of the unit whose kink the ray is turned to.
        reached: how far along the normal each answered point lies, in units of the direction.
    """

    def __init__(
        self,
        asker: Asker,
        origin: Origin,
        direction: Float64[np.ndarray, " d"],
        target: int,
        *,
        drifting: bool = False,
        steps: int | None = None,
    ) -> None:
        self.asker = asker
        self.origin = origin
        self.direction = direction
        self.target = target
        self.steps = steps
        self.drifting = drifting
        self.blur = 0.0
        if drifting:
            self.drifts()
        self.scatter = 0.0
        self.normal = direction
        self.scales: list[float] = []
        self.reached: list[float] = []
        self.raw: list[Float64[np.ndarray, " d"]] = []
        self.moved: list[Float64[np.ndarray, " d"]] = []
        self.outputs: list[float] = []

    def drifts(self) -> None:
        """Take note that the gradient changes between kinks, so that what bends it little is none yet."""
        self.drifting = True
        self.blur = BENT

    def begins_at(self, origin: Origin) -> None:
        """Take note that rays begin elsewhere than was thought; what was asked stays where it was."""
        self.moved = [moved + self.origin.point - origin.point for moved in self.moved]
        self.origin = origin

    def ask(self, scales: Float64[np.ndarray, " k"] | list[float]) -> None:
        """Ask at these scales, all in one request."""
        wanted = np.asarray(scales, np.float64)
        if not len(wanted):
            return
        points = self.asker.sent(self.origin.point + wanted[:, None] * self.direction)
        answer = self.asker.ask(points, self.target, steps=self.steps, origin=self.origin.named)
        self.scales += wanted.tolist()
        self.raw += list(answer.attribution)
        moved = points - self.origin.point
        self.moved += list(moved)
        # rounded to the type in which it is sent, a point close to the origin lies beside the ray
        self.reached += (moved @ self.normal / (self.direction @ self.normal)).tolist()
        self.outputs += answer.output.tolist()

    def usable(self) -> Bool[np.ndarray, " d"]:
        """The coordinates that all questions moved by more than the origin may be off."""
        moved = np.array(self.moved).reshape(-1, self.origin.point.size)
        seen: Bool[np.ndarray, " d"] = ((moved != 0) & (self.origin.error < 0.02 * np.abs(moved))).all(0)
        return seen

    def divided(self) -> tuple[Float64[np.ndarray, "q d"], Float64[np.ndarray, "q d"]]:
        """The answers divided by what was moved, and their standard deviations, in the usable coordinates."""
        size = self.origin.point.size
        raw, moved = (np.array(values).reshape(-1, size) for values in (self.raw, self.moved))
        error = self.origin.error
        usable = self.usable()
        raw, moved, error = raw[:, usable], np.abs(moved[:, usable]) * np.sign(moved[:, usable]), error[usable]
        rho = raw / moved
        typical = np.linalg.norm(rho, axis=1, keepdims=True) / np.sqrt(max(rho.shape[1], 1))
        # an answer of 0, as where all units of a layer are silent, is no more exact than the others
        typical = np.maximum(typical, SILENT * typical.max(initial=0))
        size = np.abs(moved)
        noise = np.sqrt((self.asker.deviation(raw) / size) ** 2 + (2e-7 * typical) ** 2 + (error / size * rho) ** 2)
        return rho, noise

    def totals(self) -> tuple[Float64[np.ndarray, " q"], Float64[np.ndarray, " q"]]:
        """Sums of attributions, and their standard deviations."""
        raw = np.array(self.raw)
        spread = np.sqrt((self.asker.deviation(raw) ** 2).sum(1) + (2e-7 * np.abs(raw).sum(1)) ** 2)
        return raw.sum(1), spread

    def news(self, row: int, since: int) -> Float64[np.ndarray, " q"]:
        """Weights of answers whose sum is what one answer says beyond what those up to another led to expect.

        That is the answer itself again, or where the gradient drifts, the line through it and the one before.
        """
        weights = np.zeros(len(self.scales))
        scales = np.array(self.scales)
        weights[row] = 1.0
        before = np.flatnonzero(scales < APART * scales[since]) if self.drifting else np.zeros(0, int)
        further = 0.0
        if len(before):
            last = before[np.argmax(scales[before])]
            further = (scales[row] - scales[since]) / (scales[since] - scales[last])
            weights[last] = further
        weights[since] = -1 - further
        return weights

    def shows(self, weights: Float64[np.ndarray, " q"]) -> bool:
        """Whether a weighted sum of answers is more than noise."""
        answers, deviations = self.divided()
        if not answers.shape[1]:
            return False
        noise = np.sqrt(weights**2 @ deviations**2)
        noise = np.hypot(noise, self.blur * np.sqrt((answers**2).mean(0)))
        gap = weights @ answers / np.where(noise > 0, noise, np.inf)
        return float(gap @ gap) / len(gap) > 1.4 + 6 * float(np.sqrt(2 / len(gap)))

    def size(self, weights: Float64[np.ndarray, " q"]) -> float:
        """The norm of a weighted sum of answers, beyond what noise does on average."""
        answers, deviations = self.divided()
        noise = float((weights**2 @ deviations**2).sum())
        return math.sqrt(max(float(((weights @ answers) ** 2).sum()) - noise, 0.0))

    def bisected(self, bracket: Bracket, within: float) -> Bracket:
        """The bracket made so narrow, its ends asked."""
        low, high = bracket.low, bracket.high
        plateau = int(np.argmin(np.abs(np.array(self.scales) - low)))
        while high > within * low:
            middle = math.sqrt(low * high)
            self.ask([middle])
            low, high = (middle, high) if not self.shows(self.news(-1, plateau)) else (low, middle)
        return Bracket(low, high)

    def below(self, cap: float, drift: int, scatter: float = 0.0) -> Readings | None:
        """The readings at scales up to some cap, taken to be so noisy at least, relative to the answers."""
        kept = np.array(self.scales) <= cap * (1 + 1e-9)
        answers, deviations = self.divided()
        if not answers.shape[1] or not kept.any():
            return None
        deviations = np.hypot(deviations, scatter * np.sqrt((answers**2).mean(0)))
        return readings(np.array(self.reached)[kept], answers[kept], deviations[kept], drift)


def kink_beyond(ray: Ray) -> Bracket | None:
    """The first kink of a ray beyond its answer nearest to the origin; None where there is none, or no plateau."""
    if len(ray.scales) < 2:
        return None
    inner, outer = np.argsort(ray.scales)[:2].tolist()
    if not ray.drifting:
        return _between(ray, inner, outer)
    low = ray.scales[outer]
    while low < FURTHEST:
        ray.ask([low / SHRINK])
        high = ray.scales[-1]
        if ray.shows(ray.news(-1, int(np.argmin(np.abs(np.array(ray.scales) - low))))):
            if low == ray.scales[outer]:
                # the two make a line whatever lies between them: a third says whether a kink does
                ray.ask([math.sqrt(ray.scales[inner] * low)])
                if ray.shows(ray.news(outer, len(ray.scales) - 1)):
                    return None
            return ray.bisected(Bracket(low, high), WITHIN)
        low = high
    return None


def _between(ray: Ray, inner: int, outer: int) -> Bracket | None:
    """The first kink beyond one of two answers, by halving what lies between two that differ."""
    if ray.usable().sum() < max(SEEN * (ray.direction != 0).sum(), 1):
        return None
    begin, end = ray.scales[inner], ray.scales[outer]
    changed, noise = _changed(ray, outer, inner), _noise(ray, outer)
    if changed > max(LITTLE, MUCH * noise) and ray.shows(ray.news(outer, inner)):
        ray.blur = max(FAINT * changed, HIDDEN * noise)
        found = ray.bisected(Bracket(begin, end), WITHIN)
        return _kink(ray, found, inner) if found.low > begin else _below(ray)
    for further in OUTWARD:
        if further > end:
            ray.ask([further])
            if ray.shows(ray.news(-1, outer)):
                ray.blur = max(FAINT * _changed(ray, -1, outer), HIDDEN * noise)
                return _kink(ray, ray.bisected(Bracket(end, further), WITHIN), outer)
            end = further
    return None


def _kink(ray: Ray, found: Bracket, plateau: int) -> Bracket:
    """The bracket of a kink, beside which only what is faint beside it counts as none from now on."""
    behind = int(np.argmin(np.abs(np.array(ray.scales) - found.high)))
    ray.blur = FAINT * _changed(ray, behind, plateau)
    return found


def _below(ray: Ray) -> Bracket | None:
    """The first kink of a ray that lies before all of its answers but perhaps the nearest; None where there is none."""
    nearest = int(np.argmin(ray.scales))
    while ray.scales[nearest] > SMALLEST and ray.asker.left:
        ray.ask([SHRINK * ray.scales[nearest]])
        if not ray.shows(ray.news(nearest, -1)):
            plateau, ascending = len(ray.scales) - 1, np.argsort(ray.scales).tolist()
            for low, high in pairwise(ascending):
                if ray.shows(ray.news(high, plateau)):
                    return ray.bisected(Bracket(ray.scales[low], ray.scales[high]), WITHIN)
            return None
        nearest = len(ray.scales) - 1
    # max pooling over equal neighbours ties at the baseline, and rounding decides: look for a plateau above
    ray.blur = TIED
    outward = np.argsort(ray.scales)[::-1].tolist()
    for high, low, lower in zip(outward, outward[1:], outward[2:], strict=False):
        if not ray.shows(ray.news(low, lower)):
            return ray.bisected(Bracket(ray.scales[low], ray.scales[high]), WITHIN)
    return None


def _changed(ray: Ray, far: int, near: int) -> float:
    """How much two answers differ, as a share of a typical one."""
    answers, _ = ray.divided()
    return ray.size(ray.news(far, near)) / max(float(np.sqrt((answers**2).mean() * answers.shape[1])), 1e-300)


def _noise(ray: Ray, row: int) -> float:
    """The noise of an answer as a share of it."""
    answers, deviations = ray.divided()
    return float(np.sqrt((deviations[row] ** 2).mean() / max(float((answers[row] ** 2).mean()), 1e-300)))


def first_kink(ray: Ray) -> Bracket | None:
    """Look for the first kink of a ray; None where the answers do not change beyond noise."""
    # where the gradient drifts, it takes one answer more to see a line
    lag = 1 if ray.drifting else 0
    ray.ask(FIRST * SHRINK ** np.arange(1 + lag))
    while ray.scales[-1] > SMALLEST:
        ray.ask([ray.scales[-1] * SHRINK])
        quiet = len(ray.scales) - 2 - lag
        if not ray.shows(ray.news(quiet, quiet + 1)):
            break
    else:
        # max pooling over equal neighbours ties at the baseline, and rounding decides: look for a plateau above
        ray.blur = TIED
        rows = range(1, len(ray.scales) - 1 - lag)
        quiet = next((row for row in rows if not ray.shows(ray.news(row, row + 1))), len(ray.scales) - 2 - lag)
    if quiet > 0:
        return ray.bisected(Bracket(ray.scales[quiet], ray.scales[quiet - 1]), WITHIN)
    # nothing changes below the first scale: look further out
    low = FIRST
    for further in (4.0, 40.0):
        ray.ask([further])
        if ray.shows(ray.news(-1, quiet)):
            return ray.bisected(Bracket(low, further), WITHIN)
        low = further
    return None


def seen_by(
    rays: Mapping[K, Ray],
) -> tuple[dict[tuple[K, float], Float64[np.ndarray, " k"]], dict[tuple[K, float], Float64[np.ndarray, " k"]]]:
    """What each ray answered over what was moved, and its noise, in the coordinates that all of them moved enough."""
    asked = {steps: ray for steps, ray in rays.items() if ray.scales}
    seen = np.all([ray.usable() for ray in asked.values()], axis=0)
    answers, noise = {}, {}
    for steps, ray in asked.items():
        kept = seen[ray.usable()]
        for scale, row, spread in zip(ray.scales, *ray.divided(), strict=True):
            answers[steps, scale], noise[steps, scale] = row[kept], spread[kept]
    return answers, noise
