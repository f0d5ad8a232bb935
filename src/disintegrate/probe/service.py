"""The probe: few questions, one after the other, until what stands behind an explainer is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Float64, Int

from disintegrate.errors import DisintegrateError, NotPermitted
from disintegrate.explainers.protocol import Explainer, Output
from disintegrate.probe import baseline as baselines
from disintegrate.probe.asking import Asker, Spent
from disintegrate.probe.checked import checked
from disintegrate.probe.closing_in import Found
from disintegrate.probe.findings import Findings
from disintegrate.probe.naming import Naming
from disintegrate.probe.own_number import OwnNumber
from disintegrate.probe.ray import Origin
from disintegrate.probe.result import Baseline, Finding, Override, ProbeResult
from disintegrate.probe.softmax import CLASSES
from disintegrate.progress import SILENT, Progress

# How far from the service's own baseline rays begin where another may be sent, in units of the inputs' spread.
ASIDE = 0.5
# Queries that it takes to solve for a baseline at the least.
SOLVABLE = 14
# Queries kept for solving for the service's own baseline, behind a softmax and elsewhere.
KEPT_PROBABILITIES, KEPT = 14, 12
# How much further off a solved baseline may be than answers on both sides say, as the gradient may change its sign
# between them.
WIDER = 4.0
# From which error on a coordinate is not known, in units of the inputs' spread.
VAGUE = 0.3
# Steps that are asked to see whether a caller may set them.
STEPS = (3, 7, 50, 64)


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
        self.findings = Findings()

    def run(self, naming: bool) -> ProbeResult:
        """All steps in order; the budget may end in any of them."""
        try:
            self._repeat()
            self._baseline_override()
            self._steps_override()
            named = baselines.candidate(self.asker, self.target, self.candidates)
            if named is not None and not self.first.attribution.any():
                named = None
            if naming and self.findings.baseline_honoured:
                self._name_on_any_ray(named)
            else:
                origin = self._baseline(named)
                if naming and origin is not None:
                    self._naming().name(origin)
        except Spent:
            pass
        except NotPermitted as refusal:
            self._refused(refusal)
        self._digits()
        self._outputs_seen()
        self._values()
        return replace(self.findings.result, queries=self.asker.spent, refused_values=self.asker.refused)

    def _refused(self, refusal: NotPermitted) -> None:
        self.asker.refused = True
        if self.findings.result.rules.value is None:
            self.findings.add(rules=Finding(None, f"the service refused a point: {refusal.problem}"))

    def _repeat(self) -> None:
        twice = [self.asker.ask(self.inputs[:1], self.target) for _ in range(2)]
        self.first = twice[0]
        gap = twice[1].attribution - twice[0].attribution
        same = not gap.any() and bool((twice[0].output == twice[1].output).all())
        if not same:
            self.asker.noise = float(np.sqrt((gap**2).mean() / 2))
        evidence = "the same question twice got the same answer" if same else "the same question got two answers"
        self.findings.add(deterministic=Finding(same, evidence))
        self.asker.learn_wire()

    def _same(self, attribution: Float64[np.ndarray, " d"]) -> bool:
        gap = np.abs(attribution - self.first.attribution[0])
        return bool((gap <= 6 * self.asker.noise).all())

    def _baseline_override(self) -> None:
        try:
            answer = self.asker.ask(self.inputs[:1], self.target, origin=self.inputs[0])
        except NotPermitted as refusal:
            self.findings.add(baseline_override=Finding(Override.REFUSED, f"a baseline got: {refusal.problem}"))
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
        self.findings.add(baseline_override=finding)

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
                self.findings.add(
                    steps_override=Finding(Override.HONOURED, f"{steps} steps got another answer than no number")
                )
                return
        if not answers:
            self.findings.add(steps_override=Finding(Override.REFUSED, f"steps {self.refused_steps} were refused"))
        elif len(answers) == 2 and self.first.attribution.any():
            # holds only if the gradient changes along the ray: see naming.py
            self.findings.add(steps_override=Finding(None, f"steps {list(answers)} got the answer without a number"))

    def _naming(self) -> Naming:
        steps = self.findings.steps_honoured
        steady = bool(self.findings.result.deterministic.value)
        return Naming(
            asker=self.asker,
            inputs=self.inputs,
            targets=self.targets,
            target=self.target,
            spread=self.spread,
            generator=self.generator,
            findings=self.findings,
            own_number=OwnNumber(self.asker, self.inputs[:1], self.target, self._same, steps and steady),
            few_steps=steps and not self.refused_steps,
        )

    def _name_on_any_ray(self, named: Found | None) -> None:
        """Where a baseline may be sent, rays need not begin at the service's own: what is left solves for that."""
        point, kept = np.zeros(self.inputs.shape[1]), 0
        if named is None:
            kept = KEPT_PROBABILITIES if self.asker.in_unit_range else KEPT
        else:
            self._baseline(named)
            point = named.point
        naming = self._naming()
        self.asker.budget -= kept
        try:
            naming.name(self._free_origin(point))
        except Spent:
            pass
        except NotPermitted as refusal:
            self._refused(refusal)
        finally:
            self.asker.budget += kept
        if named is None:
            self._baseline(None)
        naming.go_on()

    def _baseline(self, named: Found | None) -> Origin | None:
        found = named or self._solved()
        if found is None:
            self.findings.add(baseline=Finding(None, "the answers did not vanish anywhere that was asked"))
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
        self.findings.add(baseline=Finding(Baseline(name, point.reshape(shape), found.error.reshape(shape)), evidence))
        return Origin(found.point, found.doubt)

    def _solved(self) -> Found | None:
        """The baseline, solved for by some output; None where none shows it in any coordinate."""
        self.asker.learn_wire()
        looks, thorough = self.asker.in_unit_range, not self.findings.baseline_honoured
        # an output that is saturated wherever it is asked shows no gradient; another may
        others = [*self.targets.tolist(), *range(CLASSES)] if looks else []
        for number, target in enumerate(dict.fromkeys([self.target, *others])):
            if number and self.asker.left < SOLVABLE:
                break
            try:
                found = baselines.solve(self.asker, target, self.spread, looks, self.generator, thorough=thorough)
            except Spent:
                raise
            except DisintegrateError:
                # not every service has so many outputs
                if not number:
                    raise
                continue
            if found is not None:
                # what may be off by much of what inputs differ by is not known
                error = WIDER * found.error
                known = error < VAGUE * self.spread
                return replace(found, error=np.where(known, error, np.inf)) if known.any() else None
        return None

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
            self.findings.add(
                values=Finding((low, high), f"coordinates from {low:.4g} to {high:.4g} were taken{refused}")
            )

    def _digits(self) -> None:
        self.asker.learn_wire()
        wire = self.asker.wire
        if wire is None:
            self.findings.add(
                wire=Finding(None, f"{len(self.asker.sample())} numbers do not say in which digits they come")
            )
            return
        steady = self.findings.result.deterministic.value is not False
        found = wire if steady else replace(wire, noise=self.asker.noise, deterministic=False)
        self.findings.add(wire=Finding(found, f"{len(self.asker.sample())} numbers stay as they are under {found}"))

    def _outputs_seen(self) -> None:
        if self.findings.result.output.value is None and self.asker.outputs and not self.asker.in_unit_range:
            self.findings.add(output=Finding(Output.LOGITS, "outputs lie outside [0, 1]"))
