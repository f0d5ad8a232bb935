"""Answers at scales of one ray from the baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float64

from disintegrate.probe.asking import Asker
from disintegrate.probe.staircase import Readings, readings

# The least that an answer is taken for where float32 rounds it, as a share of the largest.
SILENT = 0.1
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
