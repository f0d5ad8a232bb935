"""Weighing sums of attributions against outputs, a few answers at a time, until one rule is left.

Each answer on a ray says a little of which rule made it (P.3): scales are asked between the baseline and a little
beyond the inputs, a few at a time, after what is paid for already.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from disintegrate.probe.asking import Asker
from disintegrate.probe.completeness import FAR_OUT, Sums, log_likelihoods
from disintegrate.probe.ray import Ray
from disintegrate.quadrature import Quadrature
from disintegrate.rules import rule_named

# How much likelier, as a logarithm, the best rule must be than any other to be named at any of many looks; and at the
# last one, when the budget has ended.
SURE, SURE_AT_LAST = 10.0, 7.0
# The largest square of a rule that fits one number, in units of its noise.
FITS = 9.0
# How far answers may lie outside what the likeliest rule makes, in squares of their spread per answer.
OUTSIDE = 2.5
# Scales of a new ray that show where it begins and how far it goes, those that are spread between, how many at once.
SCAN, BETWEEN, AT_ONCE, MOST_ON_A_RAY = (1e-3, 0.03, 0.4), (0.1, 1.5), 4, 30
# A ray is left when so many rounds on it made the best rule no more than so much likelier.
PATIENCE, WORTH = 3, 1.5
# And how far beyond its first kink at least.
BEYOND = 6.0
# Behind a softmax scales count where p (1 - p) is no less than so much of its largest.
LIVELY = 0.25
# So far out a ray is straight, and what a softmax answers is saturated; and the largest sum that float16 is to carry.
FAR, LARGEST = 1e6, 2e4
# Where a ray begins that lies far out altogether, as a share of its end; and how straight outputs are there.
STRETCH, STRAIGHT = 0.03, 3e-5
# What is lost of what coordinates answer in which the baseline is not known, as a share.
LOST = 0.05


@dataclass(frozen=True, eq=False)
class Weighing:
    """What is weighed, and for whom.

    Attributes:
        asker: the service.
        groups: the rules that are left; those of a group make the same answers.
        probabilities: whether outputs are behind a softmax.
        scatter: how much ties at the baseline scatter answers, as a share.
        few: the steps that are sent along, if the service takes any.
        complete: whether the rule is sure to be one of these.
    """

    asker: Asker
    groups: list[list[tuple[str, int]]]
    probabilities: bool
    scatter: float
    few: int | None
    complete: bool = True

    def by_sums(
        self, first: Ray, kink: float, rays: Sequence[Ray], start: Float64[np.ndarray, " g"]
    ) -> tuple[Float64[np.ndarray, " g"], int]:
        """The scores after as many answers as it takes, and how many were weighed.

        Args:
            first: a ray on which something was asked, which says how far out one may go.
            kink: where its first kink lies.
            rays: those to ask on, one after the other; what was asked there already counts as well.
            start: how likely each group is before, as a logarithm.
        """
        before, score, asked = start, start, 0
        rules = [[rule_named(rule)(self.few or steps) for rule, steps in group] for group in self.groups]
        for ray in rays:
            inside, gaps = False, [gap(before)]
            for new in self._rounds(ray, furthest(first), kink):
                if not new and not ray.scales:
                    return score, asked
                ray.ask(new)
                likely, inside = self._likely(ray, rules, before)
                score = before + likely
                if inside and not undecided(score):
                    return score, asked + len(ray.scales)
                gaps.append(gap(score))
                if len(gaps) > PATIENCE and gaps[-1] < gaps[-1 - PATIENCE] + WORTH:
                    break
            # where not even the likeliest rule makes such answers, their likelihoods say nothing
            before, asked = (score, asked + len(ray.scales)) if inside else (before, asked)
            score = before
        return score, asked

    def by_first(self, first: Ray, start: Float64[np.ndarray, " g"]) -> Float64[np.ndarray, " g"]:
        """What a ray says that is paid for, and without a softmax one more answer on it, far out."""
        first.ask([] if self.probabilities or max(first.scales) >= FAR_OUT else [furthest(first)][: self.asker.left])
        return self.by_paid(first, start)

    def by_paid(self, ray: Ray, start: Float64[np.ndarray, " g"] | None = None) -> Float64[np.ndarray, " g"]:
        """What a ray says that was asked already; nothing where not even the likeliest rule makes such answers."""
        rules = [[rule_named(rule)(ray.steps or steps) for rule, steps in group] for group in self.groups]
        likely, inside = self._likely(ray, rules, np.zeros(len(rules)) if start is None else start)
        return likely if inside else np.zeros(len(rules))

    def _likely(
        self, ray: Ray, rules: list[list[Quadrature]], before: Float64[np.ndarray, " g"]
    ) -> tuple[Float64[np.ndarray, " g"], bool]:
        """How likely each rule makes a ray's sums, and whether the likeliest makes such at all."""
        sums = [sums_of(ray, self.scatter)]
        likely = [log_likelihoods(sums, members, bending=self.probabilities) for members in rules]
        values = np.array([found[0].max() for found in likely])
        likeliest = likely[int(np.argmax(before + values))]
        return values, bool(likeliest[1][int(np.argmax(likeliest[0]))] < OUTSIDE)

    def by_length(self, first: Ray) -> Float64[np.ndarray, " g"]:
        """How well each rule's mass agrees with a ray between two points far out, of which both may be sent.

        A network without softmax is affine there, so that the sum of the attributions is the mass times the difference
        of the outputs, whatever the nodes.
        """
        far = furthest(first) * np.array([[STRETCH], [1.0]])
        begin, end = self.asker.sent(first.origin.point + far * first.direction)
        answers = [self.asker.ask(one[None], first.target, origin=other) for one, other in ((begin, end), (end, begin))]
        gap = float(answers[1].output[0] - answers[0].output[0])
        noise = self.asker.deviation(np.array([answer.output[0] for answer in answers]))
        totals = [float(sign * answer.attribution.sum()) for sign, answer in zip((-1, 1), answers, strict=True)]
        spreads = [float(np.sqrt((self.asker.deviation(answer.attribution) ** 2).sum())) for answer in answers]
        masses = np.array([rule_named(group[0][0])(group[0][1]).mass for group in self.groups])
        deviation = np.hypot(np.mean(spreads), masses * float(np.hypot(*noise)))
        deviation = np.hypot(deviation, STRAIGHT * masses * abs(gap))
        return _scores(((np.mean(totals) - masses * gap) / deviation) ** 2)

    def _rounds(self, ray: Ray, far: float, kink: float) -> Iterator[list[float]]:
        """What to ask on a ray, a few scales at a time: where it begins, far out, and in between."""
        begin = [] if ray.scales else [*SCAN]
        yield (begin if self.probabilities else [*begin, far])[: self.asker.left]
        low, high = max(BETWEEN[0], kink), max(BETWEEN[1], BEYOND * kink)
        if self.probabilities:
            output = np.array(ray.outputs)
            lively = output * (1 - output)
            seen = np.array(ray.scales)[lively >= LIVELY * lively.max()]
            high = min(high, 2.0 * float(seen.max()))
            low = high * BETWEEN[0] / BETWEEN[1]
        count = 0
        while len(ray.scales) < MOST_ON_A_RAY and self.asker.left > 0:
            now = min(AT_ONCE, self.asker.left)
            # a golden section of the logarithm: whatever their number, scales lie evenly
            places = (0.5 + 0.618034 * np.arange(count, count + now)) % 1
            yield (low * (high / low) ** places).tolist()
            count += now


def furthest(ray: Ray) -> float:
    """A scale far out, but not so far that sums and outputs leave float16 where they come in it."""
    if not ray.asker.coarse:
        return FAR
    largest = max(float(np.abs(raw).sum()) / abs(scale) for raw, scale in zip(ray.raw, ray.scales, strict=True))
    return float(min(FAR, LARGEST / max(largest, 1e-300)))


def _scores(misfits: Float64[np.ndarray, " g"]) -> Float64[np.ndarray, " g"]:
    """What squares in units of the noise say of each rule; nothing where they fit none."""
    if not np.isfinite(misfits).all() or misfits.min() > FITS:
        return np.zeros(len(misfits))
    found: Float64[np.ndarray, " g"] = np.maximum(-(misfits - misfits.min()) / 2, -2 * SURE)
    return found


def gap(score: Float64[np.ndarray, " g"]) -> float:
    """How much likelier the best is than the second, as a logarithm."""
    return float(np.sort(score)[-1] - np.sort(score)[-2]) if len(score) > 1 else float("inf")


def undecided(score: Float64[np.ndarray, " g"], sure: float = SURE) -> bool:
    """Whether some rule is not yet so much less likely than the best."""
    return gap(score) <= sure


def sums_of(ray: Ray, scatter: float) -> Sums:
    """The sums of a ray's answers and the outputs; ties at the baseline scatter each answer by some share."""
    total, spread = ray.totals()
    answers = np.array(ray.raw)
    spread = np.hypot(spread, scatter * np.linalg.norm(answers, axis=1))
    # where the origin is off, a sum holds the product of that with the gradient
    moved = np.isfinite(ray.origin.error) & (ray.direction != 0)
    off = np.linalg.norm(ray.origin.error[moved]) / np.linalg.norm(np.array(ray.moved)[:, moved], axis=1)
    spread = np.hypot(spread, off * np.linalg.norm(answers, axis=1))
    output = np.array(ray.outputs)
    if not moved.all():
        # paths begin beside the ray in coordinates that are not known, or not as well as it seems: what those that are
        # not moved answer close by is how much the output changes up to it, and what is of second order in that is lost
        begin = float(answers[int(np.argmin(np.abs(ray.scales))), ~moved].sum())
        total = total - begin
        spread = np.hypot(spread, LOST * abs(begin) + begin**2)
    fine = np.isfinite(total) & np.isfinite(output)
    deviation = ray.asker.deviation(output) + 3e-7 * np.abs(output)
    return Sums(np.array(ray.scales)[fine], total[fine], spread[fine], output[fine], deviation[fine])
