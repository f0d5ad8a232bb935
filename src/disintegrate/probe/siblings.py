"""Telling apart the rules that share a pattern: by few steps, from both ends, and by sums against outputs.

Right and left Riemann sums and saliency have the same nodes above 0 but for a stretch of the ray, and the trapezoid
rules of Captum and of textbooks differ in their mass alone. What tells them apart is the weight of a node at 0, the
mass, and where the last node lies: seen where the service honours steps or baselines, or else in the outputs.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from jaxtyping import Float64

from disintegrate.probe.alike import groups_of
from disintegrate.probe.along_gradient import CLOSE, TURNS, Gradient, along_gradient
from disintegrate.probe.anchored import weighting
from disintegrate.probe.asking import Asker, Spent
from disintegrate.probe.at_nodes import at_nodes
from disintegrate.probe.completeness import JUST_BEHIND, RARE, Sums, kinks_misfit
from disintegrate.probe.explore import FEW_NODES, STAIRCASE, Verdict
from disintegrate.probe.first_kink import kink_beyond
from disintegrate.probe.first_rules import Told
from disintegrate.probe.one_kink import quadrature
from disintegrate.probe.ray import Origin, Ray
from disintegrate.probe.result import Finding, NamedRule
from disintegrate.probe.staircase import Fit, keeping, patterns
from disintegrate.probe.weighing import SURE, SURE_AT_LAST, Weighing, sums_of, undecided
from disintegrate.quadrature import Quadrature
from disintegrate.rules import rule_named

FEW_STEPS = 2
# Looks along the gradient before staircases are looked at, where several patterns are left.
FEW_TURNS = 2
# What is nearly the integral: rules of few nodes are held against it.
INTEGRAL = ("gauss_legendre", 128)
# Rules of so few nodes are told by outputs on either side of each; numbers of steps of the others that they are held
# against; and how much less likely those are that no staircase fitted.
AT_NODES, RIVALS, UNEXPECTED = 4, (5, 6, 8, 11, 16, 32, 64), 8.0
# How badly staircases may fit whose sums are weighed, in units of the noise.
CLEAN = 1.2
# What such sums count for: few large kinks are no walk of many small ones.
TEMPERED = 0.5
# Numbers of steps beside those that fit.
BESIDE = (-2, -1, 0, 1, 2)
# How far the ends of a ray that is asked from both lie aside of the baseline and the input, in units of the inputs.
ASIDE = 0.1


@dataclasses.dataclass(frozen=True, eq=False)
class Siblings:
    """What is needed to ask further: the service, the caller's inputs, and what is known by now.

    Attributes:
        asker: the service.
        inputs: the caller's, flat.
        target: the output that is explained.
        spread: the size of a typical coordinate.
        generator: for directions.
        probabilities: whether outputs are behind a softmax.
        steps_honoured: whether the service takes steps of the caller's.
        baseline_honoured: whether it takes a baseline of the caller's.
        gradient: the rays along the gradient at the baseline, if something was asked there.
    """

    asker: Asker
    inputs: Float64[np.ndarray, "n d"]
    target: int
    spread: float
    generator: np.random.Generator
    probabilities: bool
    steps_honoured: bool
    baseline_honoured: bool
    gradient: Gradient | None = None

    def choose(self, first: Ray, kink: float, near: Ray, verdict: Verdict) -> Finding[tuple[NamedRule, ...]]:
        """The rule that answers a few more questions best, if it stands alone.

        Args:
            first: a ray as it was drawn.
            kink: where its first kink lies.
            near: the ray that the verdict is about.
            verdict: the patterns that are left.
        """
        if not verdict.decided:
            return self._of_any(first, near, verdict)
        groups = groups_of([member for fit in verdict.fits for member in fit.pattern.members])
        fits = [next(fit for fit in verdict.fits if group[0] in fit.pattern.members) for group in groups]
        misfit = np.array([fit.misfit for fit in fits])
        score = -(misfit - misfit.min()) / (2 * verdict.scale)
        evidence = verdict.evidence
        few = FEW_STEPS if self.steps_honoured else None
        weighing = Weighing(self.asker, groups, self.probabilities, near.scatter, few)
        if len(groups) > 1 and self.steps_honoured and self.asker.left >= 3:
            score = score + self._by_few_steps(near, verdict, groups, fits)
            evidence += "; answers with few steps tell its like apart"
        if undecided(score) and self.baseline_honoured and self.asker.left > 1:
            score = score + self._by_mirror(near.origin, groups)
            evidence += "; the same ray from both ends says whether it is symmetric"
        if undecided(score) and verdict.drift == 0 and not self.probabilities and near is not first:
            said = self._by_kinks(near, verdict, groups, fits)
            score = score + (said if said.any() or near.scatter else weighing.by_paid(near))
            evidence += "; the places of its kinks in the outputs were weighed too"
        found = self._by_sums(first, kink, weighing, score, evidence)
        # a staircase of several steps that fits to the noise alone is none of another rule
        return found if verdict.alone and not verdict.fewest_nodes else self._unless_others(found, [near, first])

    def _of_any(self, first: Ray, near: Ray, verdict: Verdict) -> Finding[tuple[NamedRule, ...]]:
        """The rule of several that staircases leave, if sums tell it from them and from those that fit none."""
        misfits = {member: fit.misfit for fit in verdict.fits for member in fit.pattern.members}
        numbers = {steps + beside for _, steps in misfits for beside in BESIDE}
        groups = groups_of(
            [
                (rule, steps)
                for pattern in patterns()
                for rule, steps in pattern.members
                if steps in numbers or len(pattern.nodes) <= AT_NODES or steps in RIVALS
            ]
        )
        least = min(misfits.values())
        worse = [min(misfits.get(member, math.inf) for member in group) - least for group in groups]
        score = np.array([-min(value / (2 * verdict.scale), UNEXPECTED) for value in worse])
        weighing = Weighing(self.asker, groups, self.probabilities, near.scatter, None)
        # where other kinks are mixed in, sums of these answers are not those of one
        for ray in dict.fromkeys([near, first] if verdict.scale < CLEAN else [first]):
            score = score + TEMPERED * weighing.by_paid(ray, score)
        evidence = (
            f"{verdict.evidence}; their sums were weighed against the outputs, and against those of any other rule"
        )
        few = np.array([_has_few(group) for group in groups])
        if few[int(np.argmax(score))]:
            gradient = self.gradient or Gradient.of(first, self.spread)
            if near.scatter or self.probabilities or gradient is None:
                return Finding(None, f"{evidence}; that does not tell rules of few nodes apart here")
            score, asked = at_nodes(weighing, gradient, score, few, np.isfinite(worse))
            evidence += f"; {asked} answers on either side of their nodes were weighed too"
        known = np.isfinite(worse) | np.array([len(quadrature(*group[0])[0]) <= AT_NODES for group in groups])
        if not known[int(np.argmax(score))]:
            return Finding(None, f"{evidence}; they are rather those of another")
        return _chosen(groups, score, evidence)

    def _unless_others(self, found: Finding[tuple[NamedRule, ...]], rays: list[Ray]) -> Finding[tuple[NamedRule, ...]]:
        """Take a rule of few nodes back if sums are rather the integrals themselves, or those of other few nodes.

        Many kinks may look like few, and one of several steps like the only one.
        """
        if found.value is None or not _has_few([((named := found.value[0]).rule, named.steps)]):
            return found
        few = [member for pattern in patterns(AT_NODES) for member in pattern.members]
        groups = [[(named.rule, named.steps)], [INTEGRAL], *groups_of(few)]
        weighing = Weighing(self.asker, groups, self.probabilities, 0.0, None)
        every = dict.fromkeys([*rays, *(self.gradient.rays if self.gradient else ())])
        score = sum((weighing.by_paid(ray) for ray in every if ray.scales), np.zeros(len(groups)))
        best = int(np.argmax(score))
        if float(score[best] - score[0]) <= SURE:
            return found
        kind = "many nodes" if best == 1 else "other nodes"
        return Finding(None, f"{found.evidence}; but its sums are rather those of a rule of {kind}")

    def of_mass(
        self, ray: Ray, kink: float, members: list[tuple[str, int]], evidence: str
    ) -> Finding[tuple[NamedRule, ...]]:
        """The rule of those that differ in their mass alone, if there are several.

        Args:
            ray: a ray on which something was asked.
            kink: where a kink of it lies.
            members: rules and steps.
            evidence: what was seen so far.
        """
        groups = groups_of(members)
        few = FEW_STEPS if self.steps_honoured else None
        weighing = Weighing(self.asker, groups, self.probabilities, ray.scatter, few)
        score = np.zeros(len(groups))
        if undecided(score) and not self.probabilities and self.asker.left > 1:
            score = score + weighing.by_length(ray)
            evidence += "; far out, where the model is affine, a sum over the outputs' difference is the mass"
        return self._by_sums(ray, kink, weighing, score, evidence)

    def at_baseline(
        self, near: Ray, gradient: Gradient, members: list[tuple[str, int]], evidence: str, told: Told | None
    ) -> tuple[Finding[tuple[NamedRule, ...]], list[tuple[str, int]]]:
        """The rule of those that weigh the baseline alike, if sums leave one; and what is left.

        Args:
            near: a ray with answers near the baseline.
            gradient: the rays along the gradient there.
            members: rules and steps.
            evidence: what was seen so far.
            told: what first nodes say of them, if anything.
        """
        nodes_seen, scores = (told.seen, told.scores) if told is not None else (False, {})
        weighing = Weighing(self.asker, groups_of(members), self.probabilities, 0.0, None, complete=nodes_seen)
        before, others = np.array([scores.get(group[0], 0.0) for group in weighing.groups]), 0
        start = before
        score, asked = along_gradient(weighing, gradient, start, range(FEW_TURNS))
        if undecided(score) and not self.probabilities and all(_has_few(group) for group in weighing.groups):
            every = np.ones(len(weighing.groups), bool)
            score, more = at_nodes(weighing, gradient, start, every, every)
            asked += more
        if undecided(score) and not near.origin.error.any():
            # where a baseline is known exactly, sums before the first kink of a ray say more than any
            try:
                bracket = kink_beyond(near)
                further, others = weighing.by_sums(near, bracket.middle if bracket else 0.0, [near], score)
                score, start = further, before + further - score
            except Spent:
                # what sums said by then still counts
                evidence += "; the budget ended while a kink was looked for"
        # staircases tell other patterns apart with fewer answers, if there are queries for them
        left = _close(weighing.groups, score, SURE)
        alike = len(keeping(patterns(), lambda *member: member in left)) == 1
        if undecided(score) and (alike or self.asker.left < STAIRCASE):
            score, asked = along_gradient(weighing, gradient, start, range(FEW_TURNS, TURNS))
        asked += others
        evidence += f"; the sums of {asked} answers, most of them along the gradient, were weighed against the outputs"
        sure = SURE if self.asker.left else SURE_AT_LAST
        found, left = _chosen(weighing.groups, score, evidence, sure), _close(weighing.groups, score, CLOSE)
        closed = told is not None and told.closed
        if not closed and found.value is not None and any(named.rule == "trapezoid" for named in found.value):
            # so would those of any closed rule of a higher order
            return Finding(None, f"{evidence}; they fit a trapezoid, as those of another closed rule might"), left
        return found, left

    def _by_sums(
        self, first: Ray, kink: float, weighing: Weighing, score: Float64[np.ndarray, " g"], evidence: str
    ) -> Finding[tuple[NamedRule, ...]]:
        if undecided(score) and weighing.few is None:
            score = score + weighing.by_first(first, score)
            gradient = self.gradient or Gradient.of(first, self.spread)
            if undecided(score) and gradient is not None:
                score, asked = along_gradient(weighing, gradient, score)
                evidence += f"; the sums of {asked} answers along the gradient were weighed against the outputs"
        if undecided(score):
            others = [
                Ray(self.asker, first.origin, self._ahead(first.origin, number), self.target, steps=weighing.few)
                for number in range(2 * len(self.inputs))
            ]
            score, asked = weighing.by_sums(first, kink, others, score)
            evidence += f"; the sums of {asked} answers were weighed against the outputs"
        return _chosen(weighing.groups, score, evidence, SURE if self.asker.left else SURE_AT_LAST)

    def _by_few_steps(
        self, near: Ray, verdict: Verdict, groups: list[list[tuple[str, int]]], fits: list[Fit]
    ) -> Float64[np.ndarray, " g"]:
        """How well each rule explains answers with two steps by the kinks that it sees with its own number."""
        few = Ray(self.asker, near.origin, near.direction, near.target, steps=FEW_STEPS)
        few.ask([1.35 * verdict.near, min(2.4 * verdict.near, verdict.cap), verdict.cap])
        rows = np.array(near.scales) <= verdict.cap * (1 + 1e-9)
        scales = np.concatenate([np.array(near.scales)[rows], few.scales])
        own, own_noise = near.divided()
        other, other_noise = few.divided()
        if verdict.found is None or own.shape[1] != other.shape[1]:
            return np.zeros(len(groups))
        answers = np.concatenate([own[rows], other])
        noise = np.concatenate([own_noise[rows], other_noise])
        score = np.full(len(groups), np.inf)
        freedom = 1
        # rules that share nodes with their own number need not share them with two: each counts for its group
        for index, rule, steps in ((i, *member) for i, group in enumerate(groups) for member in group):
            fit = fits[index]
            part = verdict.found.coordinates @ weighting(verdict.found, fit)
            both = (rule_named(rule)(steps), rule_named(rule)(FEW_STEPS))
            kinks = fit.kinks * both[0].nodes.max()
            design = np.array(
                [
                    _predicted(both[late], scale, kinks, verdict.drift)
                    for scale, late in zip(scales, [0] * int(rows.sum()) + [1] * len(few.scales), strict=True)
                ]
            )
            design = design / np.linalg.norm(design, axis=0).clip(1e-300)
            weight = 1 / np.sqrt(noise**2 @ part**2)
            data = (answers @ part) * weight
            left = np.linalg.lstsq(design * weight[:, None], data, rcond=1e-10)[0]
            freedom = max(len(data) - design.shape[1], 1)
            score[index] = min(score[index], float(((data - (design * weight[:, None]) @ left) ** 2).sum()))
        blur = max(float(score.min()) / freedom, 1.0)
        found: Float64[np.ndarray, " g"] = -(score - score.min()) / (2 * blur)
        return found if blur < 10 else np.zeros(len(groups))

    def _by_kinks(
        self, near: Ray, verdict: Verdict, groups: list[list[tuple[str, int]]], fits: list[Fit]
    ) -> Float64[np.ndarray, " g"]:
        """How well each rule explains the outputs by the kinks that its staircases have."""
        sums = sums_of(near, 0.0)
        kept = sums.scales <= verdict.cap * (1 + 1e-9)
        sums = Sums(*(getattr(sums, field.name)[kept] for field in dataclasses.fields(sums)))
        left, begin = [], JUST_BEHIND * sums.scales.min()
        for group, fit in zip(groups, fits, strict=True):
            rule = rule_named(group[0][0])(group[0][1])
            far = float(rule.nodes.max())
            places, widths = fit.kinks * far, fit.widths * far
            # max pooling may tie at the baseline, so that the gradient is another there
            tied = kinks_misfit(sums, rule, np.append(places, begin), np.append(widths, 0.0)) + 2 * math.log(RARE)
            left.append(min(kinks_misfit(sums, rule, places, widths), tied))
        freedom = max(2 * len(sums.scales) - 2 - len(fits[0].kinks), 1)
        blur = max(min(left) / freedom, 1.0)
        # where no rule explains them, some kink is not what it seems
        return (min(left) - np.array(left)) / (2 * blur) if blur < 4 else np.zeros(len(groups))

    def _by_mirror(self, origin: Origin, groups: list[list[tuple[str, int]]]) -> Float64[np.ndarray, " g"]:
        symmetric, noise = self.mirrored(origin)
        if symmetric is None:
            return np.zeros(len(groups))
        kinds = np.array([_symmetric(rule_named(group[0][0])(group[0][1])) for group in groups])
        # a symmetric rule cannot answer otherwise; an asymmetric one of so many steps may look symmetric
        most = max(steps for group in groups for _, steps in group)
        weight = SURE / 2 if symmetric and noise * most > 0.02 else 2 * SURE
        return np.where(kinds != symmetric, -weight, 0.0)

    def mirrored(self, origin: Origin) -> tuple[bool | None, float]:
        """Whether a ray asked from both ends answers the same: whether nodes and weights are symmetric.

        Only where a baseline may be sent; None where noise does not let it be told, and the noise as a share.
        """
        # both ends a little aside: max pooling ties at a baseline, and which entry it takes is not symmetric
        aside = ASIDE * self.spread * self.generator.normal(size=(2, origin.point.size))
        far = self.asker.sent((origin.point + self._ahead(origin, 0) + aside[0])[None])[0]
        near = self.asker.sent((origin.point + aside[1])[None])[0]
        moved = far - near
        seen = moved != 0
        there = self.asker.ask(far[None], self.target, origin=near).attribution[0][seen]
        back = -self.asker.ask(near[None], self.target, origin=far).attribution[0][seen]
        noise = np.hypot(self.asker.deviation(there), self.asker.deviation(back)) + 5e-7 * np.sqrt((there**2).mean())
        gap = ((there - back) / noise) ** 2
        share = float(np.sqrt((noise**2).sum())) / max(float(np.sqrt((there**2).sum())), 1e-300)
        if gap.mean() > 4 + 12 * np.sqrt(2 / gap.size):
            return False, share
        return (True if gap.mean() < 2 + 6 * np.sqrt(2 / gap.size) else None), share

    def _ahead(self, origin: Origin, number: int) -> Float64[np.ndarray, " d"]:
        """A ray through an input, or through one mirrored at the baseline."""
        if number < len(self.inputs):
            ahead = self.inputs[number] - origin.point
            if np.abs(ahead).max() > 1e-3 * self.spread:
                return np.where(np.isfinite(origin.error), ahead, 0.0)
        signs = self.generator.choice((-1.0, 1.0), origin.point.size)
        return np.where(np.isfinite(origin.error), signs * self.spread, 0.0)


def _has_few(group: list[tuple[str, int]]) -> bool:
    return len(quadrature(*group[0])[0]) <= FEW_NODES


def _close(groups: list[list[tuple[str, int]]], score: Float64[np.ndarray, " g"], by: float) -> list[tuple[str, int]]:
    """Rules that are not so much less likely than the best."""
    return [member for group, value in zip(groups, score, strict=True) if value > score.max() - by for member in group]


def _chosen(
    groups: list[list[tuple[str, int]]], score: Float64[np.ndarray, " g"], evidence: str, sure: float = SURE
) -> Finding[tuple[NamedRule, ...]]:
    """The likeliest rule if it stands alone."""
    best = int(np.argmax(score))
    if not undecided(score, sure):
        return Finding(tuple(NamedRule(*member) for member in groups[best]), evidence)
    close = np.flatnonzero(score[best] - score <= sure)
    alike = ", ".join(f"{groups[i][0][0]}({groups[i][0][1]})" for i in close[:4])
    return Finding(None, f"{evidence}; they fit {alike} alike")


def _predicted(rule: Quadrature, scale: float, kinks: Float64[np.ndarray, " k"], drift: int) -> list[float]:
    """What a rule makes of a constant, a drift, and kinks, at one scale."""
    places = scale * rule.nodes
    smooth = [float(rule.weights @ places**power) for power in range(drift + 1)]
    steps = [float(rule.weights[places > kink].sum()) for kink in kinks]
    ramps = [float(rule.weights @ np.maximum(places - kink, 0)) for kink in kinks] if drift else []
    return smooth + steps + ramps


def _symmetric(rule: Quadrature) -> bool:
    order = np.argsort(rule.nodes)
    nodes, weights = rule.nodes[order], rule.weights[order]
    return bool(np.allclose(nodes, 1 - nodes[::-1], atol=1e-6) and np.allclose(weights, weights[::-1], atol=1e-6))
