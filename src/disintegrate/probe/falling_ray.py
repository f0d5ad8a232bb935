"""Answers whose first nodes lie where the output of a softmax falls, until one rule is left."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float64, Int

from disintegrate.probe.asking import Asker
from disintegrate.probe.fall import ABOVE, APART, DOWN, ENOUGH, TINY, Fall, Floor, exactness, outputs_of, way_down
from disintegrate.probe.falling import Answered, Falling, log_likelihoods
from disintegrate.probe.falling_design import Telling, most_telling
from disintegrate.probe.first_rules import Aside, Group, Told, alike, kept_for
from disintegrate.probe.ray import Ray
from disintegrate.probe.recentred import recentred
from disintegrate.probe.weighing import SURE, SURE_AT_LAST, undecided

# In which order answers are asked that put the first node on one of these: by their shares.
ORDER = (0.35, 0.8, 0.2, 0.6, 1.0, 0.45)
# How close to another an answer tells nothing new.
SAME = 0.02
# After how many answers that no rule makes no more are asked, and how much less likely than the best a rule is weighed
# no further.
MANY, HOPELESS = 5, 50.0
# How many depths are weighed for the next answer, and the least of them.
DEPTHS, SHALLOWEST = 32, -0.5
# How much an output or an answer must tell, as a logarithm, to be asked.
WORTH = 0.15
# How often an answer is looked for that lies on the way down, where first nodes differ by more than this factor; and
# how far down it is wanted.
SEARCHES, NARROW, WANTED = 6, 2.5, 6.0
# What the first node weighs, about, in units of its place.
TYPICAL = 1.5
# How far from the answers the rule may lie, in squares of the noise for each; and what arithmetic in float32 makes of
# an answer so far down.
OUTSIDE, ARITHMETIC = 8.0, 2e-5
# How far aside the first nodes of other rules may lie, and how much more or less they may weigh; how much likelier they
# may be, as a logarithm, and how much less the furthest must be.
ASIDE, MORE = (0.0, -0.01, 0.01, -0.03, 0.03), (0.0, -0.03, 0.03, -0.1, 0.1, -0.2, 0.2)
LIKELIER, TOLD = 3.0, 3.0
# The first node of other closed rules that weigh the baseline alike, and its weight, in units of a trapezoid's:
# Simpson's, that of three eighths, Boole's, one of no rule that lies nearer and weighs more, Gauss-Lobatto's.
CLOSED = ((1.5, 2.0), (4 / 3, 1.5), (45 / 28, 16 / 7), (1.23, 2.47), (1.81, 3.0))
# How many queries it takes to begin anew at the baseline, how far beside it rays must begin for that, as a logarithm,
# and at how many places outputs are asked then.
RECENTRED, BESIDE, PLACES = 7, 0.04, 4
# How much lower outputs may be where the baseline is not known, as a logarithm, and what is not sure of that; and how
# much so where it was solved for, as a coordinate may lie further off than it seems.
MOST_SHIFT, UNSURE, ASTRAY = 3.0, 0.2, 0.05


class FallingRay:
    """Asks a ray whose outputs are known for answers that put the first node on them, until one rule is left.

    Attributes:
        score: how likely each of the groups is by now, as a logarithm.
        aside: how likely rules are that lie a little aside of some group, by its members.
    """

    def __init__(
        self,
        fall: Fall,
        falling: Falling,
        floor: Floor,
        groups: list[Group],
        before: Float64[np.ndarray, " g"],
        aside: Aside,
    ) -> None:
        ray = fall.ray
        self.fall = fall
        self.falling = falling
        self.floor = floor
        self.groups = groups
        self.before = before
        self.score = before
        self.aside_before = aside
        self.aside = dict(aside)
        self.asker: Asker = ray.asker
        self.digits = float(ray.asker.deviation(np.ones(1))[0])
        self.known = np.isfinite(ray.origin.error)
        self.first = np.array([group.nodes[0] for group in groups])
        self.top = float(falling.log.max())
        self.way = way_down(self.asker, floor, float(np.median(self.first)), self.top, falling.slope)
        self.level = _level(ray, falling)
        self.hopeful = np.arange(len(groups))
        self.ray = Ray(self.asker, ray.origin, ray.direction, ray.target, drifting=True)

    def told(self) -> Told | None:
        """Look for a scale on the way down, then ask around it."""
        node = self._search()
        if node is None:
            return None
        score, misfit = self._weighed()
        for share in ORDER:
            if not self.asker.left or self._decided(score, misfit) or self._beside_baseline():
                break
            if np.isfinite(score).any():
                scale = self._place(share) / float(self.first[int(np.argmax(score))])
            elif self.ray.scales:
                scale = self._between()
            else:
                scale = self._place(share) / node
            if not np.isclose(self.ray.scales, scale, rtol=SAME).any():
                self.ray.ask([scale])
                score, misfit = self._weighed()
        while np.isfinite(score).any() and not self._decided(score, misfit) and not self._beside_baseline():
            kept, best = len(self._kept()), int(np.argmax(score))
            # where no rule makes such answers, more of them name none
            least = kept_for(self.groups, score, self.digits)
            if self.asker.left <= least or (kept > MANY and misfit[best] > OUTSIDE * kept):
                break
            telling = self._next(score, misfit)
            if telling is None or telling.gain < WORTH:
                break
            if telling.output:
                self.fall.ray.ask([telling.scale])
                self.falling = outputs_of(self.fall) or self.falling
            else:
                self.ray.ask([telling.scale])
            score, misfit = self._weighed()
        self.score = score
        return self._left(score, misfit)

    def _next(self, score: Float64[np.ndarray, " g"], misfit: Float64[np.ndarray, " g"]) -> Telling | None:
        """What tells the two likeliest rules apart best, or the likeliest from one that weighs more."""
        order = np.argsort(-score)
        at = int(order[0])
        best = self.groups[at]
        nodes, weights = best.nodes, best.weights
        close = order[score[order] > score[at] - SURE * self._blur(float(misfit[at]))]
        others = [self.groups[index] for index in close if not alike(self.groups[index], best, self.digits)]
        if not others and self._seen(at, misfit):
            return None
        rival = (others[0].nodes, others[0].weights) if others else (nodes, weights * (1 + MORE[-1]))
        scales, falls, deviation = self._falls()
        kept = self._kept()
        per = float(np.median(deviation[kept] / (falls[kept] + abs(self.floor.value))))

        def rough(total: Float64[np.ndarray, " s"]) -> Float64[np.ndarray, " s"]:
            found: Float64[np.ndarray, " s"] = np.hypot(per * (total + abs(self.floor.value)), ARITHMETIC * total)
            return found

        def exact(log: Float64[np.ndarray, " k"]) -> Float64[np.ndarray, " k"]:
            return exactness(self.asker, np.exp(log))

        depths = np.linspace(SHALLOWEST, self.way, DEPTHS)
        wanted = np.array([self.falling.where(self.top + depth) for depth in depths]) / nodes[0]
        wanted = wanted[[not np.isclose(scales, scale, rtol=SAME).any() for scale in wanted]]
        return most_telling(self.falling, self._answered(), (nodes, weights), rival, wanted, exact, rough)

    def recentred(self) -> Fall | None:
        """The ray from where the baseline lies in all coordinates, where it begins too far beside it to say enough."""
        if not self._beside_baseline():
            return None
        scales, kept = np.array(self.ray.scales), self._kept()
        deep = kept[np.argsort(scales[kept])]
        node = float(self.first[int(np.argmax(self.score))])
        places = scales[deep][np.unique(np.linspace(0, len(deep) - 1, PLACES).astype(int))] * node
        return recentred(self.fall, self.ray, int(deep[len(deep) // 2]), places)

    def _beside_baseline(self) -> bool:
        """Whether the ray begins so far beside the baseline that it pays to begin anew."""
        kept = self._kept()
        if self.known.all() or self.floor.seen or self.asker.left < RECENTRED or len(kept) < ENOUGH:
            return False
        _, falls, _ = self._falls()
        return bool(np.abs(self._shifts(np.array(self.ray.raw), falls)[kept]).max() > BESIDE)

    def _left(self, score: Float64[np.ndarray, " g"], misfit: Float64[np.ndarray, " g"]) -> Told | None:
        if not np.isfinite(score).any():
            return None
        order = np.argsort(-score)
        left = order[score[order] > score.max() - 2 * SURE * self._blur(misfit[order[0]])]
        if misfit[left[0]] > OUTSIDE * len(self._kept()):
            return None
        blur = self._blur(float(misfit[left[0]]))
        likelier, told = self._beside(int(left[0]))
        if likelier > LIKELIER * blur:
            return None
        decided = self._decided(score, misfit)
        members = [member for index in (left[:1] if decided else left) for member in self.groups[index].members]
        scores = {member: float(score[index] / blur) for index in left for member in self.groups[index].members}
        seen = told >= TOLD * blur
        closed = seen or self._beside_closed(int(left[0])) >= SURE * blur
        return Told(tuple(members), decided, seen, closed, len(self.ray.scales), scores)

    def _decided(self, score: Float64[np.ndarray, " g"], misfit: Float64[np.ndarray, " g"]) -> bool:
        kept = len(self._kept())
        if kept < ENOUGH or not np.isfinite(score).any():
            return False
        best = int(np.argmax(score))
        blur = self._blur(float(misfit[best]))
        sure = SURE if self.asker.left else SURE_AT_LAST
        if misfit[best] > OUTSIDE * kept or undecided(score / blur, sure):
            return False
        return self._seen(best, misfit)

    def _seen(self, best: int, misfit: Float64[np.ndarray, " g"]) -> bool:
        """Whether no rule is likelier whose first nodes lie a little aside, or weigh a little more."""
        blur = self._blur(float(misfit[best]))
        likelier, told = self._beside(best)
        return likelier <= LIKELIER * blur and told >= TOLD * blur

    def _beside(self, best: int) -> tuple[float, float]:
        """How much likelier some rule is whose first nodes lie a little aside or weigh a little more or less.

        And how much less likely such rules are at least: others than those of a list may be like this one.
        """
        best_one = self.groups[best]
        rules = [(best_one.nodes * (1 + aside), best_one.weights * (1 + more)) for aside in ASIDE for more in MORE]
        found = log_likelihoods(self.falling, self._answered(), rules)[0].reshape(len(ASIDE), len(MORE))
        found = self.aside_before.get(best_one.members, 0.0) + found - found[0, 0]
        self.aside[best_one.members] = found
        far = [found[0, MORE.index(sign * MORE[-1])] for sign in (-1, 1)]
        far += [found[ASIDE.index(sign * ASIDE[-1]), 0] for sign in (-1, 1)]
        return float(found.max()), -float(max(far))

    def _beside_closed(self, best: int) -> float:
        """How much less likely other closed rules are at least that weigh the baseline like a trapezoid."""
        nodes, weights = self.groups[best].nodes, self.groups[best].weights
        rules = [(nodes, weights), *((nodes * further, weights * more) for further, more in CLOSED)]
        found = log_likelihoods(self.falling, self._answered(), rules)[0]
        return float(found[0] - found[1:].max())

    def _blur(self, misfit: float) -> float:
        """How many times the noise the best rule misses, at least 1: others may miss as much by chance."""
        return max(misfit / max(len(self._kept()), 1), 1.0)

    def _between(self) -> float:
        """A scale further out than the last answer that is more than noise, and nearer than the first that is not."""
        scales = np.array(self.ray.scales)
        kept = self._kept()
        beyond = scales[self._silent(kept)]
        if not len(kept):
            return float(beyond.min()) / APART if len(beyond) else APART * float(scales.max())
        last = float(scales[kept].max())
        return math.sqrt(last * float(beyond.min())) if len(beyond) else APART * last

    def _place(self, share: float) -> float:
        """Where the first node is to lie: on one of the outputs that were asked."""
        scales = self.falling.scales[self.falling.scales > 0]
        wanted = self.falling.where(self.top + share * self.way)
        return float(scales[int(np.argmin(np.abs(np.log(scales / wanted))))])

    def _falls(self) -> tuple[Float64[np.ndarray, " q"], Float64[np.ndarray, " q"], Float64[np.ndarray, " q"]]:
        scales = np.array(self.ray.scales)
        if not len(scales):
            return scales, scales, scales
        raw = np.array(self.ray.raw)
        deviation = np.sqrt((self.asker.deviation(raw[:, self.known]) ** 2).sum(1) + (2e-7 * np.abs(raw).sum(1)) ** 2)
        falls = -raw[:, self.known].sum(1) / scales - self.floor.value
        return scales, falls * np.exp(self._shifts(raw, falls)), deviation / scales

    def _shifts(self, raw: Float64[np.ndarray, "q d"], falls: Float64[np.ndarray, " q"]) -> Float64[np.ndarray, " q"]:
        """How much lower the logarithm of an output is at the first node, as the ray begins beside the baseline.

        Coordinates in which that is not known are not moved, so what they answer is the product of both.
        """
        if self.known.all():
            return np.zeros(len(raw))
        lost = raw[:, ~self.known].sum(1) - self.floor.lost
        shift = self.falling.slope * np.divide(lost, falls, out=np.zeros(len(raw)), where=falls > 0)
        found: Float64[np.ndarray, " q"] = np.clip(shift, -MOST_SHIFT, MOST_SHIFT)
        return found

    def _kept(self) -> Int[np.ndarray, " k"]:
        """Which of the answers are more than noise, and lie where they fall already."""
        scales, falls, deviation = self._falls()
        noise = ABOVE * np.hypot(deviation, self.floor.deviation)
        total = falls * scales
        still = [
            scale >= scales[falls < -noise].max(initial=0) and at >= total[scales > scale].max(initial=0)
            for scale, at in zip(scales, total, strict=True)
        ]
        return np.flatnonzero((falls > noise) & (total > TINY) & np.array(still, bool))

    def _silent(self, kept: Int[np.ndarray, " k"]) -> Int[np.ndarray, " z"]:
        """Those further out in which there is nothing but noise."""
        scales, falls, deviation = self._falls()
        noise = np.maximum(ABOVE * np.hypot(deviation, self.floor.deviation), TINY / scales)
        return np.flatnonzero((np.abs(falls) <= noise) & (scales > scales[kept].max(initial=0)))

    def _weighed(self) -> tuple[Float64[np.ndarray, " g"], Float64[np.ndarray, " g"]]:
        if not len(self._kept()):
            nothing = np.full(len(self.groups), -np.inf)
            return nothing, -nothing
        found = np.full((2, len(self.groups)), -np.inf)
        found[1] = np.inf
        rules = [(self.groups[index].nodes, self.groups[index].weights) for index in self.hopeful]
        found[:, self.hopeful] = log_likelihoods(self.falling, self._answered(), rules)
        score = found[0] - found[0].max() + self.before if np.isfinite(found[0]).any() else found[0]
        if len(self._kept()) >= ENOUGH and np.isfinite(score).any():
            blur = self._blur(float(found[1, int(np.argmax(score))]))
            self.hopeful = np.flatnonzero(score > score.max() - HOPELESS * blur)
        return score, found[1]

    def _answered(self) -> Answered:
        kept = self._kept()
        scales, falls, deviation = self._falls()
        silent = self._silent(kept)
        least = ABOVE * np.hypot(deviation, self.floor.deviation)[silent] + TINY / scales[silent]
        deviation = np.hypot(deviation, ARITHMETIC * falls)[kept]
        shifts = self._shifts(np.array(self.ray.raw), falls)[kept]
        level = math.hypot(self.level, UNSURE * float(np.abs(shifts).max(initial=0)))
        return Answered(scales[kept], falls[kept], deviation, self.floor.deviation, level, scales[silent], least)

    def _search(self) -> float | None:
        """About where the first node is: scales are halved, as a logarithm, until an answer lies on the way down."""
        if self.first.max() < NARROW * self.first.min():
            return float(np.sqrt(self.first.max() * self.first.min()))
        place = self.falling.where(self.top - min(WANTED, -self.way / 2))
        low, high = place / self.first.max(), place / self.first.min()
        # what `s w_1 h(s t_1)` is there
        depths = np.linspace(-DOWN, self.way, 400)
        at = np.array([self.falling.where(self.top + depth) for depth in depths])
        wanted = np.log(TYPICAL * at * self.falling.slope) + self.top + depths
        for _ in range(min(SEARCHES, self.asker.left)):
            scale = math.sqrt(low * high)
            self.ray.ask([scale])
            falls, deviation = (values[-1] for values in self._falls()[1:])
            if falls <= ABOVE * math.hypot(deviation, self.floor.deviation) or falls * scale < TINY:
                high = scale
                continue
            seen = math.log(falls * scale)
            if seen <= wanted.max():
                return float(at[int(np.argmin(np.abs(wanted - seen)))] / scale)
            low = scale
        return None


def _level(ray: Ray, falling: Falling) -> float:
    """How far off the logarithm of all outputs of a ray may be, as the baseline is not known better."""
    error = np.where(np.isfinite(ray.origin.error), ray.origin.error, 0.0)
    if not ray.origin.error.any():
        return 0.0
    deep = int(np.argmax(ray.scales))
    moved = ray.moved[deep]
    row = np.divide(ray.raw[deep], moved, out=np.zeros(moved.size), where=moved != 0)
    along = abs(float(row @ ray.direction))
    off = falling.slope * float(np.linalg.norm(row * error)) / along if along else 0.0
    return math.hypot(off, ASTRAY)
