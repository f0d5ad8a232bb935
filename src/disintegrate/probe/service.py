"""The probe: few questions, one after the other, until what stands behind an explainer is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int

from disintegrate.errors import DisintegrateError, NotPermitted
from disintegrate.explainers.protocol import Explainer, Output
from disintegrate.probe import baseline as baselines
from disintegrate.probe.across import across
from disintegrate.probe.asking import Asker, Spent
from disintegrate.probe.by_steps import by_steps
from disintegrate.probe.checked import checked
from disintegrate.probe.explore import FEW, LEAST_KEPT, Verdict, explore
from disintegrate.probe.far_out import agreeing, far_of
from disintegrate.probe.one_kink import members_of
from disintegrate.probe.own_number import USUAL, OwnNumber
from disintegrate.probe.ray import Origin, Ray, first_kink
from disintegrate.probe.result import Baseline, Finding, NamedRule, Override, ProbeResult
from disintegrate.probe.siblings import Siblings
from disintegrate.probe.staircase import keeping, patterns
from disintegrate.probe.steer import steered
from disintegrate.progress import SILENT, Progress

# Queries kept for telling apart the rules that attributions alone cannot.
RESERVE, RESERVE_FEW_STEPS = 8, 3
# Largest input that is made of neighbouring coordinates only: fewer kinks, and digits enough.
WIDE = 400
PATCH = 10
# Outputs that are looked at for one that is not saturated, and what counts as such: p (1 - p).
CLASSES, LIVELY = 4, 0.02
# How far from the service's own baseline rays begin where another may be sent, in units of the inputs' spread.
ASIDE = 0.5
# How much of an answer may come from coordinates in which the baseline is not known.
STRAY = 1e-3
# How long the ray is on which numbers of steps are asked, in the same units.
MANY_KINKS = 2.0
# Steps that are asked to see whether a caller may set them.
STEPS = (3, 7, 50, 64)
# Numbers of steps that are asked whether they are the service's own, at most.
NUMBERS = 14
# So few that are left are asked about rather than told apart by more kinks.
ASKABLE = 3
# Why a rule was taken back, and why something was not found.
REFUTED = "but the service, which takes numbers of steps, answers otherwise with theirs than with none"
NOT_ASKED = "the budget did not reach so far"


def probe(
    explainer: Explainer,
    inputs: Float[np.ndarray, "n *shape"],
    targets: Int[np.ndarray, " n"],
    *,
    budget: int = 60,
    candidates: Mapping[str, Float[np.ndarray, "*shape"]] | None = None,
    dtype: str | None = None,
    seed: int = 0,
    steps: tuple[int, ...] = STEPS,
    naming: bool = True,
    progress: Progress = SILENT,
) -> ProbeResult:
    """Find out what stands behind an explainer: rule, steps, baseline, outputs, digits, and what callers may set.

    It reads nothing of the explainer's capabilities and asks at most `budget` queries; each row of a request is one.
    What the answers do not settle is None in the result, with the reason.

    Args:
        explainer: the service.
        inputs: a few typical inputs; they set the scale of what is asked.
        targets: an output for each that the service is known to have.
        budget: the most queries to spend.
        candidates: points that may be the service's baseline, by name, beside zero and the mean of the inputs.
        dtype: the type in which points are sent; None for that of the inputs.
        seed: for the directions that are drawn.
        steps: what is asked to see whether the service takes a caller's: two, and more where some were refused.
        naming: whether to look for the rule, which takes most of the queries.
        progress: where to show the queries spent.

    Raises:
        InvalidValue: inputs, targets or candidates that do not match, or a budget below 8.
        BadAnswer: the service answers what cannot be explanations.

    Example:
        >>> import torch
        >>> from disintegrate import Capabilities, LocalExplainer
        >>> model = torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.ReLU(), torch.nn.Linear(30, 4))
        >>> service = LocalExplainer(model, Capabilities(rule="midpoint", default_steps=12))
        >>> x = np.random.default_rng(0).normal(size=(2, 20)).astype(np.float32)
        >>> found = probe(service, x, np.array([0, 1]))
        >>> found.rules.value[0].rule == "midpoint" and found.rules.value[0].steps == 12 and found.queries <= 60
        True
    """
    checked(inputs, targets, budget, candidates)
    asker = Asker(
        explainer, inputs.shape[1:], np.dtype(dtype or inputs.dtype), budget, progress.task("probe: queries", budget)
    )
    flat = inputs.reshape(len(inputs), -1).astype(np.float64)
    points = {
        "zero": np.zeros(flat.shape[1]),
        "mean of the inputs": inputs.mean(0, dtype=inputs.dtype).ravel().astype(np.float64),
    }
    points |= {name: np.asarray(point, np.float64).ravel() for name, point in (candidates or {}).items()}
    return _Session(asker, flat, targets, points, np.random.default_rng(seed), steps).run(naming)


class _Session:
    """One probe under way: findings so far, unknown until a step of it is through."""

    def __init__(
        self,
        asker: Asker,
        inputs: Float64[np.ndarray, "n d"],
        targets: Int[np.ndarray, " n"],
        candidates: Mapping[str, Float64[np.ndarray, " d"]],
        generator: np.random.Generator,
        steps: tuple[int, ...],
    ) -> None:
        self.asker = asker
        self.steps = steps
        self.refused_steps: list[int] = []
        self.inputs = inputs
        self.targets = targets
        self.target = int(targets[0])
        self.candidates = candidates
        self.generator = generator
        self.spread = float(inputs.std()) or float(np.abs(inputs).max()) or 1.0
        unknown: Finding[Any] = Finding(None, NOT_ASKED)
        self.result = ProbeResult(
            rules=unknown, baseline=unknown, output=unknown, wire=unknown, deterministic=unknown,
            steps_override=unknown, baseline_override=unknown, values=unknown, queries=0,
        )  # fmt: skip

    def run(self, naming: bool) -> ProbeResult:
        """All steps in order; the budget may end in any of them."""
        try:
            self._repeat()
            self._baseline_override()
            self._steps_override()
            origin = self._baseline()
            if origin is not None and naming:
                self._rule(origin)
                self._confirm()
        except Spent:
            pass
        except NotPermitted as refusal:
            self.asker.refused = True
            if self.result.rules.value is None:
                self._found(rules=Finding(None, f"the service refused a point: {refusal.problem}"))
        self._digits()
        self._outputs_seen()
        self._values()
        return replace(self.result, queries=self.asker.spent, refused_values=self.asker.refused)

    def _found(self, **findings: object) -> None:
        self.result = replace(self.result, **findings)  # type: ignore[arg-type]

    def _repeat(self) -> None:
        twice = [self.asker.ask(self.inputs[:1], self.target) for _ in range(2)]
        self.first = twice[0]
        gap = twice[1].attribution - twice[0].attribution
        same = not gap.any() and bool((twice[0].output == twice[1].output).all())
        if not same:
            self.asker.noise = float(np.sqrt((gap**2).mean() / 2))
        evidence = "the same question twice got the same answer" if same else "the same question got two answers"
        self._found(deterministic=Finding(same, evidence))
        self.asker.learn_wire()

    def _same(self, attribution: Float64[np.ndarray, " d"]) -> bool:
        gap = np.abs(attribution - self.first.attribution[0])
        return bool((gap <= 6 * self.asker.noise).all())

    def _baseline_override(self) -> None:
        try:
            answer = self.asker.ask(self.inputs[:1], self.target, origin=self.inputs[0])
        except NotPermitted as refusal:
            self._found(baseline_override=Finding(Override.REFUSED, f"a baseline got: {refusal.problem}"))
            return
        size = np.abs(answer.attribution).max()
        if not self.first.attribution.any():
            finding = Finding[Override](None, "attributions are 0 with the service's own baseline too")
        elif size <= 6 * self.asker.noise:
            finding = Finding(Override.HONOURED, "an input that is its own baseline got attributions of 0")
        elif self._same(answer.attribution[0]):
            finding = Finding(Override.IGNORED, "an input that is its own baseline got the answer without a baseline")
        else:
            finding = Finding(None, "an input that is its own baseline got neither 0 nor the usual answer")
        self._found(baseline_override=finding)

    def _steps_override(self) -> None:
        answers: dict[int, Float64[np.ndarray, " d"]] = {}
        for number, steps in enumerate(self.steps):
            if len(answers) == 2 or (number >= 3 and not answers):
                break
            try:
                answers[steps] = self.asker.ask(self.inputs[:1], self.target, steps=steps).attribution[0]
            except NotPermitted:
                self.refused_steps.append(steps)
                continue
            if not self._same(answers[steps]):
                self._found(
                    steps_override=Finding(Override.HONOURED, f"{steps} steps got another answer than no number")
                )
                return
        if not answers:
            self._found(steps_override=Finding(Override.REFUSED, f"steps {self.refused_steps} were refused"))
        elif len(answers) == 2 and self.first.attribution.any():
            # holds only if the gradient changes along the ray: see _rule
            self._found(steps_override=Finding(None, f"steps {list(answers)} got the answer without a number"))

    def _baseline(self) -> Origin | None:
        found = baselines.candidate(self.asker, self.target, self.candidates)
        if found is not None and not self.first.attribution.any():
            found = None
        if found is None:
            self.asker.learn_wire()
            looks = self._in_unit_range()
            honoured = self.result.baseline_override.value is Override.HONOURED
            found = baselines.solve(self.asker, self.target, self.spread, looks, self.generator, thorough=not honoured)
        if found is None:
            self._found(baseline=Finding(None, "the answers did not vanish anywhere that was asked"))
            if self.result.baseline_override.value is Override.HONOURED:
                return self._free_origin(np.zeros(self.inputs.shape[1]))
            return None
        name, point = found.name or "another", found.point
        evidence = f"all attributions are 0 at {name}"
        if found.name is None:
            known = np.isfinite(found.error)
            evidence = (
                f"attributions vanish at a point known to {np.median(found.error[known]):.1g} "
                f"in {known.sum()} of {known.size} coordinates"
            )
        shape = self.asker.shape
        self._found(baseline=Finding(Baseline(name, point.reshape(shape), found.error.reshape(shape)), evidence))
        if self.result.baseline_override.value is Override.HONOURED:
            return self._free_origin(point)
        return Origin(found.likeliest, found.unlikely)

    def _free_origin(self, point: Float64[np.ndarray, " d"]) -> Origin:
        """A point that is sent along as the baseline of every ray, away from what max pooling ties on.

        Over equal neighbours, as in a baseline of zeros, it ties, and rounding decides.
        """
        aside = ASIDE * self.spread * self.generator.normal(size=point.size)
        begin = self.asker.sent((point + aside)[None])[0]
        return Origin(begin, np.zeros(point.size), begin)

    def _values(self) -> None:
        low, high = self.asker.taken
        refused = "; a value further out was refused" if self.asker.refused else "; none was refused"
        if low <= high:
            self._found(values=Finding((low, high), f"coordinates from {low:.4g} to {high:.4g} were taken{refused}"))

    def _in_unit_range(self) -> bool:
        outputs = np.array(self.asker.outputs)
        return bool(((outputs >= -1e-6) & (outputs <= 1 + 1e-3)).all())

    def _direction(self) -> Float64[np.ndarray, " d"]:
        shape = self.asker.shape
        mask = np.ones(shape)
        if mask.size >= WIDE:
            mask[...] = 0
            if len(shape) >= 2 and min(shape[-2:]) > PATCH:
                top, left = (shape[-2] - PATCH) // 2, (shape[-1] - PATCH) // 2
                mask[..., top : top + PATCH, left : left + PATCH] = 1
            else:
                mask.ravel()[: PATCH * PATCH] = 1
        size = mask.size
        signs = self.generator.choice((-1.0, 1.0), size) * self.generator.uniform(0.5, 1.5, size)
        return signs * self.spread * mask.ravel()

    def _rule(self, origin: Origin) -> None:
        direction = self._direction()
        if self._in_unit_range():
            self._choose_target(origin, direction)
        out = Ray(self.asker, origin, direction, self.target)
        drifting = self._in_unit_range() and self._saturates(out)
        ray = Ray(self.asker, origin, direction, self.target, drifting=drifting)
        rules = self._rule_by_steps(origin)
        if self.result.rules.value is not None:
            return
        if origin.named is not None and self._rule_across(ray, rules):
            return
        first, kink = ray, 0.0
        verdict = Verdict((), False, "the answers do not change along the ray beyond what the wire rounds")
        bracket = first_kink(ray)
        if bracket is not None:
            self._steps_ignored()
            kink = bracket.middle
            own = self._own_number.among(USUAL)
            among = keeping(patterns(), lambda rule, steps: (rules is None or rule in rules) and own in (None, steps))
            if rules is None and origin.named is None:
                among = agreeing(ray, out, bracket.low, among)
            ray, near = steered(ray, bracket)
            reserve = RESERVE_FEW_STEPS if (self._few_steps and rules is None) or len(among) <= FEW else RESERVE
            askable = ASKABLE if self._own_number.honoured and own is None else 0
            verdict = explore(ray, near, reserve=reserve, generator=self.generator, known=among, askable=askable)
            if (
                own is None
                and len(verdict.numbers) > 1
                and (own := self._own_number.among(verdict.numbers, LEAST_KEPT if rules is None else 1)) is not None
            ):
                verdict = verdict.with_steps(own)
        possible = tuple(NamedRule(*member) for fit in verdict.fits for member in fit.pattern.members)
        self._found(rules=Finding(None, verdict.evidence), possible=possible)
        judged = [row for row, scale in zip(ray.raw, ray.scales, strict=True) if scale <= verdict.cap * (1 + 1e-9)]
        if (verdict.decided or verdict.few_nodes) and self._begins_there(origin, judged):
            asked = len(self.asker.numbers)
            chosen = self._siblings(probabilities=drifting).choose(first, kink, ray, verdict)
            if self._begins_there(origin, self.asker.numbers[asked:]):
                self._found(rules=chosen)

    @property
    def _few_steps(self) -> bool:
        """Whether the service takes a caller's number of steps, and no fewest of its own stands against it."""
        return self.result.steps_override.value is Override.HONOURED and not self.refused_steps

    @cached_property
    def _own_number(self) -> OwnNumber:
        honoured = self.result.steps_override.value is Override.HONOURED and bool(self.result.deterministic.value)
        return OwnNumber(self.asker, self.inputs[:1], int(self.targets[0]), self._same, honoured)

    def _siblings(self, *, probabilities: bool) -> Siblings:
        return Siblings(
            asker=self.asker,
            inputs=self.inputs,
            target=self.target,
            spread=self.spread,
            generator=self.generator,
            probabilities=probabilities,
            steps_honoured=self._few_steps,
            baseline_honoured=self.result.baseline_override.value is Override.HONOURED,
        )

    def _rule_by_steps(self, origin: Origin) -> frozenset[str] | None:
        """Find the rule by numbers of steps, where a caller may set them; the names that are left, None for all."""
        if not self._few_steps or not self._own_number.honoured:
            return None
        signs = self.generator.choice((-1.0, 1.0), origin.point.size)
        direction = MANY_KINKS * self.spread * signs * self.generator.uniform(0.5, 1.5, origin.point.size)
        rays: dict[int | None, Ray] = {}

        def ray(steps: int | None) -> Ray:
            return rays.setdefault(steps, Ray(self.asker, origin, direction, self.target, steps=steps))

        # where a baseline may be sent, a kink that is closed in on tells the number better than a walk
        told = by_steps(ray, self._own_number, NUMBERS, walk=origin.named is None)
        if told is None:
            return None
        possible = tuple(NamedRule(rule, steps) for rule, steps in members_of(told.own, told.rules))
        self._found(rules=Finding(None if told.own is None else possible, told.evidence), possible=possible)
        return told.rules

    def _rule_across(self, ray: Ray, rules: frozenset[str] | None) -> bool:
        """Find the rule across single kinks, where a baseline may be sent; whether there are such."""
        found = across(ray, self._direction, self._own_number, self.generator, rules)
        if found is None:
            return False
        self._steps_ignored()
        own = self._own_number.among(found.numbers)
        members = [member for member in found.members if own in (None, member[1])]
        self._found(rules=Finding(None, found.evidence), possible=tuple(NamedRule(*member) for member in members))
        if found.decided:
            siblings = self._siblings(probabilities=ray.drifting)
            self._found(rules=siblings.of_mass(ray, found.place, members, found.evidence))
        return True

    def _confirm(self) -> None:
        """Take a rule back whose number of steps, where a caller may set them, gets another answer than none."""
        rules = self.result.rules
        if rules.value is not None and self._own_number.refuted([named.steps for named in rules.value]):
            self._found(rules=Finding(None, f"{rules.evidence}; {REFUTED}"))

    def _begins_there(self, origin: Origin, answers: list[Float64[np.ndarray, " d"]]) -> bool:
        """Whether rays begin at the baseline as far as answers show.

        A coordinate that is not known matters only where the gradient in it does not vanish.
        """
        lost = ~np.isfinite(origin.error)
        if all(np.linalg.norm(answer[lost]) <= STRAY * np.linalg.norm(answer) for answer in answers):
            return True
        evidence = f"{int(lost.sum())} coordinates of the baseline are unknown, so no ray is known to begin there"
        self._found(rules=Finding(None, evidence))
        return False

    def _steps_ignored(self) -> None:
        if self.result.steps_override.value is None and self.result.steps_override.evidence != NOT_ASKED:
            evidence = self.result.steps_override.evidence + ", and the gradient changes along rays"
            self._found(steps_override=Finding(Override.IGNORED, evidence))

    def _saturates(self, out: Ray) -> bool:
        """Whether outputs stay within [0, 1] far out on a ray, where logits would be large."""
        far = far_of(out)
        out.ask([far])
        inside = self._in_unit_range()
        if inside:
            evidence = f"outputs stay within [0, 1] even {far:g} times as far out as the inputs"
            self._found(output=Finding(Output.PROBABILITIES, evidence))
        return inside

    def _choose_target(self, origin: Origin, direction: Float64[np.ndarray, " d"]) -> None:
        """Take an output that is not saturated at the baseline, where its gradient would drown in the digits."""
        near = origin.point + 1e-2 * direction
        lively: dict[int, float] = {}
        for target in dict.fromkeys([self.target, *self.targets.tolist(), *range(CLASSES)]):
            if len(lively) == CLASSES or max(lively.values(), default=0.0) > LIVELY:
                break
            try:
                output = float(self.asker.ask(near[None], target, origin=origin.named).output[0])
            except Spent:
                raise
            except DisintegrateError:
                continue
            lively[target] = output * (1 - output)
        self.target = max(lively, key=lively.__getitem__, default=self.target)

    def _digits(self) -> None:
        self.asker.learn_wire()
        wire = self.asker.wire
        if wire is None:
            self._found(wire=Finding(None, f"{len(self.asker.sample())} numbers do not say in which digits they come"))
            return
        steady = self.result.deterministic.value is not False
        found = wire if steady else replace(wire, noise=self.asker.noise, deterministic=False)
        self._found(wire=Finding(found, f"{len(self.asker.sample())} numbers stay as they are under {found}"))

    def _outputs_seen(self) -> None:
        if self.result.output.value is None and self.asker.outputs and not self._in_unit_range():
            self._found(output=Finding(Output.LOGITS, "outputs lie outside [0, 1]"))
