"""Which rule a service explains by, on rays from its baseline or from one that is sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float64, Int

from disintegrate.probe.across import across
from disintegrate.probe.alike import groups_of
from disintegrate.probe.along_gradient import Gradient
from disintegrate.probe.asking import Asker, Spent
from disintegrate.probe.by_steps import by_steps
from disintegrate.probe.close_by import agreeing_close_by, put_right, stray
from disintegrate.probe.ends import ends
from disintegrate.probe.explore import FEW, LEAST_KEPT, Verdict, explore
from disintegrate.probe.far_out import (
    agreeing_affine,
    alike_at_baseline,
    weigh_baseline,
)
from disintegrate.probe.findings import NOT_ASKED, Findings
from disintegrate.probe.first_kink import first_kink, kink_beyond
from disintegrate.probe.first_nodes import RAYS, by_first_nodes
from disintegrate.probe.first_rules import Told
from disintegrate.probe.one_kink import Crossed, crossed, members_of
from disintegrate.probe.own_number import USUAL, OwnNumber
from disintegrate.probe.patch import drawn
from disintegrate.probe.ray import Origin, Ray
from disintegrate.probe.result import Finding, NamedRule, Override
from disintegrate.probe.siblings import Siblings
from disintegrate.probe.softmax import CLASSES, liveliest, saturates, some_is_left
from disintegrate.probe.staircase import Pattern, keeping, patterns
from disintegrate.probe.steer import steered
from disintegrate.probe.ties import agreeing_tied, borne_out

# Queries kept for telling apart the rules that attributions alone cannot.
RESERVE, RESERVE_FEW_STEPS = 8, 3
# Rules that weigh the baseline alike are weighed by sums if there are no more.
WEIGHED = 48
# How much of an answer may come from coordinates in which the baseline is not known.
STRAY = 1e-3
# How long the ray is on which numbers of steps are asked, in units of the inputs' spread.
MANY_KINKS = 2.0
# A number of steps that is not asked elsewhere, and by what share its answer must be another.
OTHER_STEPS, OTHERWISE = 5, 0.01
# Numbers of steps that are asked whether they are the service's own, at most.
NUMBERS = 14
# Queries that are kept for that.
NUMBERS_KEPT = 6
# So few that are left are asked about rather than told apart by more kinks.
ASKABLE = 3
# So many that staircases leave are weighed by sums.
SEVERAL = 50
# Queries that must be left to ask across a kink once more.
AGAIN = 3
# Why a rule was taken back.
REFUTED = "but the service, which takes numbers of steps, answers otherwise with theirs than with none"


@dataclass(eq=False)
class Naming:
    """What is needed to look for the rule.

    Attributes:
        asker: the service.
        inputs: the caller's, flat.
        targets: outputs that the service has.
        target: the output that is explained, until another one shows more.
        spread: the size of a typical coordinate.
        generator: for directions.
        findings: what was found so far.
        own_number: asks for the service's own number of steps.
        few_steps: whether the service takes a caller's number of steps, and no fewest of its own stands against it.
        gradient: the rays along the gradient at the baseline, once something was asked there.
        by_mass: asks what tells rules apart that differ in their mass alone, once such are left.
        unfinished: what answers across a kink left open, which more of them may decide.
    """

    asker: Asker
    inputs: Float64[np.ndarray, "n d"]
    targets: Int[np.ndarray, " n"]
    target: int
    spread: float
    generator: np.random.Generator
    findings: Findings
    own_number: OwnNumber
    few_steps: bool
    gradient: Gradient | None = None
    by_mass: Callable[[], Finding[tuple[NamedRule, ...]]] | None = None
    unfinished: tuple[Ray, Crossed] | None = None

    def name(self, origin: Origin) -> None:
        """Look for the rule on rays from a point, and take it back where its number of steps gets other answers."""
        self._look(origin)
        self._confirm()

    def go_on(self) -> None:
        """Ask once more what tells the last rules apart, where queries are left after all."""
        if self._is_named():
            return
        if self.unfinished is not None and self.asker.left > AGAIN:
            ray, found = self.unfinished
            self._crossed(ray, crossed(found.closer, generator=self.generator, among=found.members))
        elif self.by_mass is not None:
            self.findings.add(rules=self.by_mass())
        self._confirm()

    def _look(self, origin: Origin) -> None:
        lost = ~np.isfinite(origin.error)
        direction = np.where(lost & (not lost.all()), 0.0, self._direction())
        begin = Ray(self.asker, origin, direction, self.target)
        if self.asker.in_unit_range:
            begin = liveliest(self.asker, origin, direction, [self.target, *self.targets.tolist()])
            self.target = begin.target
        out = Ray(self.asker, origin, direction, self.target)
        drifting = self.asker.in_unit_range and saturates(out, self.findings)
        ray = Ray(self.asker, origin, direction, self.target, drifting=drifting)
        if drifting:
            begin.drifts()
        weighed = drifting and some_is_left(begin, out)
        among, told, tied = self._by_ends(ray), None, False
        if drifting:
            # what is left far out needs no kink, nor that the baseline be known to the last digit
            among, told, tied = self._far_out(begin, out, among, weighed=weighed and origin.named is not None)
            if self._is_named():
                return
        if origin.named is not None and self._rule_across(ray, among):
            return
        if self.few_steps and not drifting and origin.named is None and origin.error.any():
            # one coordinate in which the baseline lies elsewhere makes other answers than any rule's
            stray(begin, self.spread)
            put_right(begin, self.findings)
            origin = begin.origin
        rules = self._rule_by_steps(origin)
        if not self._is_named() and rules is not None and told is not None and told.seen:
            self._both(among, rules)
        before = among
        if not self._is_named() and rules is None and origin.named is None:
            among = self._rule_at_baseline(begin, out, among, told, tied=tied)
        if not self._is_named():
            # what is weighed far out is shifted by ties at the baseline
            self._by_kinks(begin, ray, among, rules, () if drifting else before)

    def _by_ends(self, ray: Ray) -> tuple[Pattern, ...]:
        """The patterns of rules that weigh both ends of a path as the service does, where a baseline may be sent."""
        weights = None if ray.origin.named is None else ends(ray)
        if weights is None:
            return patterns()
        return keeping(patterns(), lambda *member: bool(weights.agreeing([member]))) or patterns()

    def _far_out(
        self, begin: Ray, out: Ray, among: tuple[Pattern, ...], *, weighed: bool
    ) -> tuple[tuple[Pattern, ...], Told | None, bool]:
        """Find the rule by what is left far out behind a softmax; the patterns that are left, and what was told.

        The last says whether it is open whether and with what the baseline is weighed.
        """
        members = {member for pattern in among for member in pattern.members}
        close = agreeing_close_by(begin, out, self.spread)
        among = keeping(close, lambda *member: member in members) or among
        # ties, or a baseline that is not known well, leave that open
        tied = len(among) > WEIGHED
        if tied:
            among = agreeing_tied([begin], out, among) or among
            tied = len(among) > WEIGHED
        among, told = self._first_nodes(begin, out, among)
        if weighed and not self._is_named():
            among = self._rule_at_baseline(begin, out, among, told, tied=tied)
        return among, told, tied

    def _by_kinks(
        self,
        begin: Ray,
        ray: Ray,
        among: tuple[Pattern, ...],
        rules: frozenset[str] | None,
        wider: tuple[Pattern, ...],
    ) -> None:
        """Look for the rule by the staircases that kinks make of it."""
        origin = begin.origin
        ray.begins_at(origin)
        kink, verdict = 0.0, Verdict((), False, "the answers do not change along the ray beyond what the wire rounds")
        if not begin.drifting and origin.named is None and not begin.scales:
            stray(begin, self.spread)
            put_right(begin, self.findings)
            origin = begin.origin
        # ties at the baseline leave open whether it is weighed, and make the answers close by no plateau
        bracket = kink_beyond(begin) if alike_at_baseline(among) or not begin.drifting else None
        if bracket is not None:
            ray = begin
            if not begin.drifting and origin.named is None:
                # answers before the first kink say better than any across it where the ray begins
                put_right(ray, self.findings)
                origin = ray.origin
        else:
            bracket = first_kink(ray)
        first = ray
        if bracket is not None:
            self._steps_ignored(ray)
            kink = bracket.middle
            own = self.own_number.among(USUAL)
            among, wider = (
                keeping(each, lambda rule, steps: (rules is None or rule in rules) and own in (None, steps))
                for each in (among, wider)
            )
            ray, near = steered(ray, bracket)
            reserve = RESERVE_FEW_STEPS if (self.few_steps and rules is None) or len(among) <= FEW else RESERVE
            askable = ASKABLE if self.own_number.honoured and own is None else 0
            verdict = explore(
                ray, near, reserve=reserve, generator=self.generator, known=among, wider=wider, askable=askable
            )
            if (
                own is None
                and len(verdict.numbers) > 1
                and (own := self.own_number.among(verdict.numbers, LEAST_KEPT if rules is None else 1)) is not None
            ):
                verdict = verdict.with_steps(own)
        possible = tuple(NamedRule(*member) for fit in verdict.fits for member in fit.pattern.members)
        self.findings.add(rules=Finding(None, verdict.evidence), possible=possible)
        judged = [row for row, scale in zip(ray.raw, ray.scales, strict=True) if scale <= verdict.cap * (1 + 1e-9)]
        if (verdict.decided or 0 < len(verdict.fits) <= SEVERAL) and self._begins_there(origin, judged):
            asked = len(self.asker.numbers)
            chosen = self._siblings(probabilities=begin.drifting).choose(first, kink, ray, verdict)
            if self._begins_there(origin, self.asker.numbers[asked:]):
                self.findings.add(rules=chosen)

    def _is_named(self) -> bool:
        return self.findings.result.rules.value is not None

    def _rule_by_steps(self, origin: Origin) -> frozenset[str] | None:
        """Find the rule by numbers of steps, where a caller may set them; the names that are left, None for all."""
        if not self.few_steps or not self.own_number.honoured:
            return None
        signs = self.generator.choice((-1.0, 1.0), origin.point.size)
        direction = MANY_KINKS * self.spread * signs * self.generator.uniform(0.5, 1.5, origin.point.size)
        rays: dict[int | None, Ray] = {}

        def ray(steps: int | None) -> Ray:
            return rays.setdefault(steps, Ray(self.asker, origin, direction, self.target, steps=steps))

        # where a baseline may be sent, a kink that is closed in on tells the number better than a walk
        told = by_steps(ray, self.own_number, NUMBERS, walk=origin.named is None)
        if told is None:
            return None
        possible = tuple(NamedRule(rule, steps) for rule, steps in members_of(told.own, told.rules))
        self.findings.add(rules=Finding(None if told.own is None else possible, told.evidence), possible=possible)
        return told.rules

    def _both(self, among: tuple[Pattern, ...], rules: frozenset[str]) -> None:
        """Name the rule where first nodes and few steps leave one between them."""
        members = [member for pattern in among for member in pattern.members if member[0] in rules]
        if len(groups_of(members)) == 1:
            evidence = f"{self.findings.result.rules.evidence}; of those with such first nodes that leaves one"
            self.findings.add(rules=Finding(tuple(NamedRule(*member) for member in members), evidence))

    def _rule_across(self, ray: Ray, among: tuple[Pattern, ...]) -> bool:
        """Find the rule across single kinks, where a baseline may be sent; whether there are such."""
        possible = None if among is patterns() else tuple(member for pattern in among for member in pattern.members)
        found = across(ray, self._direction, self.own_number, self.generator, possible)
        if found is None:
            return False
        self._crossed(ray, found)
        return True

    def _crossed(self, ray: Ray, found: Crossed) -> None:
        """Take note of what answers across a kink say."""
        self._steps_ignored(ray)
        own = self.own_number.among(found.numbers)
        members = [member for member in found.members if own in (None, member[1])]
        self.findings.add(rules=Finding(None, found.evidence), possible=tuple(NamedRule(*member) for member in members))
        # before anything is asked further, for the budget may end there
        self.unfinished = (ray, found) if members and not found.decided else None
        if found.decided:
            siblings = self._siblings(probabilities=ray.drifting)
            self.by_mass = partial(siblings.of_mass, ray, found.closer.place, members, found.evidence)
            self.findings.add(rules=self.by_mass())

    def _confirm(self) -> None:
        """Take a rule back whose number of steps, where a caller may set them, gets another answer than none."""
        rules = self.findings.result.rules
        if rules.value is not None and self.own_number.refuted([named.steps for named in rules.value]):
            self.findings.add(rules=Finding(None, f"{rules.evidence}; {REFUTED}"))

    def _begins_there(self, origin: Origin, answers: list[Float64[np.ndarray, " d"]]) -> bool:
        """Whether rays begin at the baseline as far as answers show.

        A coordinate that is not known matters only where the gradient in it does not vanish.
        """
        lost = ~np.isfinite(origin.error)
        if all(np.linalg.norm(answer[lost]) <= STRAY * np.linalg.norm(answer) for answer in answers):
            return True
        evidence = f"{int(lost.sum())} coordinates of the baseline are unknown, so no ray is known to begin there"
        self.findings.add(rules=Finding(None, evidence))
        return False

    def _siblings(self, *, probabilities: bool) -> Siblings:
        return Siblings(
            asker=self.asker,
            inputs=self.inputs,
            target=self.target,
            spread=self.spread,
            generator=self.generator,
            probabilities=probabilities,
            steps_honoured=self.few_steps,
            baseline_honoured=self.findings.baseline_honoured,
            gradient=self.gradient,
        )

    def _steps_ignored(self, ray: Ray | None = None) -> None:
        """Take note that a number of steps is ignored, once the gradient is seen to change: it did not get others.

        Without a softmax it may not have changed on the way to the input that was asked with numbers of steps, so a ray
        on which it does is asked with another one.
        """
        found = self.findings.result.steps_override
        if found.value is not None or found.evidence == NOT_ASKED:
            return
        if ray is not None and ray.scales and not ray.drifting and self.asker.left:
            row = int(np.argmax(np.abs(ray.scales)))
            point = self.asker.sent((ray.origin.point + ray.moved[row])[None])
            answer = self.asker.ask(point, ray.target, steps=OTHER_STEPS, origin=ray.origin.named).attribution[0]
            # answers to one row and to several may differ by what a network rounds
            if np.linalg.norm(answer - ray.raw[row]) > OTHERWISE * np.linalg.norm(answer):
                evidence = f"{OTHER_STEPS} steps got another answer than no number, where the gradient changes"
                self.findings.add(steps_override=Finding(Override.HONOURED, evidence))
                return
        evidence = f"{found.evidence}, and the gradient changes along rays"
        self.findings.add(steps_override=Finding(Override.IGNORED, evidence))

    def _first_nodes(self, near: Ray, out: Ray, among: tuple[Pattern, ...]) -> tuple[tuple[Pattern, ...], Told | None]:
        """Find the rule by its first nodes, where a softmax falls; the patterns that are left, and what they told."""
        members = [member for pattern in among for member in pattern.members]
        others = list(dict.fromkeys([*self.targets.tolist(), *range(CLASSES)]))
        # what one ray leaves open, numbers of steps tell with fewer answers
        most = 1 if self.few_steps and self.own_number.honoured else RAYS
        # a few numbers that are left are asked
        kept = min(NUMBERS_KEPT if self.own_number.honoured else 0, self.asker.left)
        self.asker.budget -= kept
        try:
            told = by_first_nodes(near, out, others, members, most=most)
        except Spent:
            told = None
        finally:
            self.asker.budget += kept
        if told is None:
            return among, None
        possible = tuple(NamedRule(*member) for member in told.members)
        evidence = f"{told.answers} answers far out, where the output falls, are those of its first nodes alone"
        self._steps_ignored()
        self.findings.add(rules=Finding(possible if told.decided else None, evidence), possible=possible)
        among = keeping(among, lambda *member: member in told.members)
        numbers = list(dict.fromkeys(steps for _, steps in told.members))
        if not told.decided and len(numbers) <= NUMBERS and (own := self.own_number.among(numbers, 1)) is not None:
            among = keeping(among, lambda _, steps: steps == own)
            members = [member for pattern in among for member in pattern.members]
            if len(groups_of(members)) == 1:
                evidence = f"{evidence}; of those left {own} steps got the answer without a number"
                self.findings.add(rules=Finding(tuple(NamedRule(*member) for member in members), evidence))
        return among, told

    def _rule_at_baseline(
        self, near: Ray, out: Ray, among: tuple[Pattern, ...], told: Told | None, *, tied: bool
    ) -> tuple[Pattern, ...]:
        """Find the rule by what it weighs the baseline with; the patterns that are left."""
        if not near.drifting:
            if stray(near, self.spread) > STRAY:
                return among
            put_right(near, self.findings)
        gradient = Gradient.of(near, self.spread)
        left = among
        # rules without a node there are told apart by staircases, unless their first nodes were seen
        seen = told is not None and told.seen
        if gradient is None or (near.drifting and not seen and not weigh_baseline(among)):
            return left
        if not near.drifting:
            left = agreeing_affine(near, gradient.rays, left)
        self.gradient = gradient
        members = [member for pattern in left for member in pattern.members]
        # without a softmax staircases tell patterns apart with fewer answers than sums
        if len(members) > WEIGHED or (len(left) > 1 and not near.drifting):
            return left
        evidence = f"far out {len(left)} patterns weigh the gradient at the baseline as the answers do"
        found, likely = self._siblings(probabilities=near.drifting).at_baseline(near, gradient, members, evidence, told)
        if tied and weigh_baseline(left):
            agreeing = agreeing_tied([near, *gradient.rays], out, left)
            left = agreeing or left
            found = borne_out(found, agreeing, coarse=self.asker.coarse)
        self.findings.add(rules=found)
        if found.value is not None:
            self._steps_ignored()
        return keeping(left, lambda *member: member in likely)

    def _direction(self) -> Float64[np.ndarray, " d"]:
        return self.spread * drawn(self.asker.shape, self.generator, probabilities=self.asker.in_unit_range)
