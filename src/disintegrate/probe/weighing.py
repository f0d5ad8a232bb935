"""Weighing sums of attributions against outputs, a few answers at a time, until one rule is left.

Each answer on a ray says a little of which rule made it (P.3): scales are asked between the baseline and a little
beyond the inputs, first on the ray whose first kink was sought, whose answers are paid for, then on others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from disintegrate.probe.asking import Asker
from disintegrate.probe.completeness import Sums, log_likelihoods
from disintegrate.probe.ray import Ray
from disintegrate.quadrature import Quadrature
from disintegrate.rules import rule_named

# How much likelier, as a logarithm, the best rule must be than any other.
SURE = 10.0
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
# How far the weight at the baseline that is seen may lie from a rule's, as a share.
NEAR_ENOUGH = 0.1


@dataclass(frozen=True, eq=False)
class Weighing:
    """What is weighed, and for whom.

    Attributes:
        asker: the service.
        groups: the rules that are left; those of a group make the same answers.
        probabilities: whether outputs are behind a softmax.
        scatter: how much ties at the baseline scatter answers, as a share.
        few: the steps that are sent along, if the service takes any.
    """

    asker: Asker
    groups: list[list[tuple[str, int]]]
    probabilities: bool
    scatter: float
    few: int | None

    def by_sums(
        self, first: Ray, kink: float, others: Sequence[Ray], start: Float64[np.ndarray, " g"]
    ) -> tuple[Float64[np.ndarray, " g"], int]:
        """The scores after as many answers as it takes, and how many were weighed.

        Args:
            first: a ray on which something was asked, if without steps.
            kink: where its first kink lies.
            others: rays on which nothing was asked yet.
            start: how likely each group is before, as a logarithm.
        """
        before, score, asked = start, start, 0
        rules = [[rule_named(rule)(self.few or steps) for rule, steps in group] for group in self.groups]
        for ray in others if self.few else [first, *others]:
            inside, gaps = False, [gap(before)]
            for new in self._rounds(ray, [] if ray is first else [*SCAN], self._far(first, 1), kink):
                if not new and not ray.scales:
                    return score, asked
                ray.ask(new)
                sums = [sums_of(ray, self.scatter)]
                likely = [log_likelihoods(sums, members, bending=self.probabilities) for members in rules]
                score = before + np.array([found[0].max() for found in likely])
                likeliest = likely[int(np.argmax(score))]
                inside = bool(likeliest[1][int(np.argmax(likeliest[0]))] < OUTSIDE)
                if inside and not undecided(score):
                    return score, asked + len(ray.scales)
                gaps.append(gap(score))
                if len(gaps) > PATIENCE and gaps[-1] < gaps[-1 - PATIENCE] + WORTH:
                    break
            # where not even the likeliest rule makes such answers, their likelihoods say nothing
            before, asked = (score, asked + len(ray.scales)) if inside else (before, asked)
            score = before
        return score, asked

    def by_saturation(self, first: Ray) -> Float64[np.ndarray, " g"]:
        """How well each rule's weight at the baseline agrees with what is left of the sum far out.

        Behind a softmax `S(s) = s sum_i w_i h(s t_i)` goes to `s w(0) h(0)`, and near the baseline it is
        `s h(0) sum_i w_i`.
        """
        weights = np.array([_at_baseline(rule_named(group[0][0])(group[0][1])) for group in self.groups])
        if weights.max() == weights.min():
            return np.zeros(len(self.groups))
        begin = int(np.argmin(first.scales))
        first.ask([self._far(first, max(steps for group in self.groups for _, steps in group))])
        total, spread = first.totals()
        at = first.scales[-1]
        far = total[-1] / at
        near, noise = total[begin] / first.scales[begin], spread[begin] / first.scales[begin]
        first.drop(-1)
        deviation = np.hypot(spread[-1] / at, np.hypot(noise * weights.max(), NEAR_ENOUGH / 3 * near * weights.max()))
        return _scores(((far - near * weights) / deviation) ** 2)

    def by_length(self, first: Ray) -> Float64[np.ndarray, " g"]:
        """How well each rule's mass agrees with a ray between two points far out, of which both may be sent.

        A network without softmax is affine there, so that the sum of the attributions is the mass times the difference
        of the outputs, whatever the nodes.
        """
        far = self._far(first, 1) * np.array([[STRETCH], [1.0]])
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

    def _rounds(self, ray: Ray, begin: list[float], far: float, kink: float) -> Iterator[list[float]]:
        """What to ask on a ray, a few scales at a time: where it begins, far out, and in between."""
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

    def _far(self, ray: Ray, steps: int) -> float:
        """A scale far out, but not so far that sums and outputs leave float16 where they come in it."""
        if not self.asker.coarse:
            return FAR
        largest = max(float(np.abs(raw).sum()) / scale for raw, scale in zip(ray.raw, ray.scales, strict=True))
        return float(min(FAR, LARGEST * steps / max(largest, 1e-300)))


def _scores(misfits: Float64[np.ndarray, " g"]) -> Float64[np.ndarray, " g"]:
    """What squares in units of the noise say of each rule; nothing where they fit none."""
    if not np.isfinite(misfits).all() or misfits.min() > FITS:
        return np.zeros(len(misfits))
    found: Float64[np.ndarray, " g"] = np.maximum(-(misfits - misfits.min()) / 2, -2 * SURE)
    return found


def gap(score: Float64[np.ndarray, " g"]) -> float:
    """How much likelier the best is than the second, as a logarithm."""
    return float(np.sort(score)[-1] - np.sort(score)[-2]) if len(score) > 1 else float("inf")


def undecided(score: Float64[np.ndarray, " g"]) -> bool:
    """Whether some rule is not yet so much less likely than the best."""
    return gap(score) <= SURE


def sums_of(ray: Ray, scatter: float) -> Sums:
    """The sums of a ray's answers and the outputs; ties at the baseline scatter each answer by some share."""
    total, spread = ray.totals()
    answers = np.array(ray.raw)
    spread = np.hypot(spread, scatter * np.linalg.norm(answers, axis=1))
    # where the origin is off, a sum holds the product of that with the gradient
    off = np.linalg.norm(ray.origin.error) / np.linalg.norm(np.array(ray.moved), axis=1)
    spread = np.hypot(spread, off * np.linalg.norm(answers, axis=1))
    output = np.array(ray.outputs)
    fine = np.isfinite(total) & np.isfinite(output)
    deviation = ray.asker.deviation(output) + 3e-7 * np.abs(output)
    return Sums(np.array(ray.scales)[fine], total[fine], spread[fine], output[fine], deviation[fine])


def _at_baseline(rule: Quadrature) -> float:
    """The weight of the baseline as a share of all."""
    return float(rule.weights[rule.nodes == 0].sum()) / rule.mass
