"""What is known of a service before it is asked for gradients: by word, by a probe, or by trying what is possible."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from disintegrate.audit.choosing import Choice, choose, choose_behind_softmax, rules_left
from disintegrate.audit.described import Described
from disintegrate.audit.ties import Beside, beside_kinks
from disintegrate.audit.verdict import RECOVERED
from disintegrate.audit.word import Said, contradictions, settings
from disintegrate.errors import InvalidValue, NotPermitted
from disintegrate.explainers.protocol import Capabilities, Explainer, Output, Request
from disintegrate.measure import Exactness
from disintegrate.planner import propose
from disintegrate.probe.result import Override, ProbeResult
from disintegrate.probe.service import STEPS, probe
from disintegrate.progress import SILENT, Progress
from disintegrate.rules import RULES

# Inputs that a probe is shown, and at which plans are tried; queries of a probe that looks for the rule, or does not.
FEW, PROBE_BUDGET, CHECK_BUDGET = 4, 60, 30
# A caller's steps are looked for up to here.
MOST_STEPS_TRIED = 100
# The rule that stands for an unknown one where it is only asked how far out a plan goes.
USUAL = "captum_gausslegendre"


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of a service before it is asked for gradients.

    Attributes:
        capabilities: what its callers may do; None where no plan is known for it.
        baseline: the service's own; None for zero.
        probed: what a probe found.
        unknown: why there are no capabilities.
        choice: which rule was taken where it is not known.
        notes: what a reader of the verdict must know, each a sentence.
        queries: spent on this beside the probe.
        beside: inputs without a kink, where plans had to be tried; None where none was.
    """

    capabilities: Capabilities | None
    baseline: Float[np.ndarray, "*shape"] | None
    probed: ProbeResult | None
    unknown: str = ""
    choice: Choice | None = None
    notes: tuple[str, ...] = ()
    queries: int = 0
    beside: Beside | None = None


def understand(
    explainer: Explainer,
    inputs: Float[np.ndarray, "n *shape"],
    targets: Int[np.ndarray, " n"],
    *,
    baseline: Float[np.ndarray, "*shape"] | None,
    budget: int,
    said: Said | None,
    probing: int | None,
    probed: ProbeResult | None,
    seed: int,
    progress: Progress,
) -> Known:
    """Find out what is needed for a plan: what is said is confirmed, the rest probed, and what stays open tried.

    Raises:
        InvalidValue: a budget below what a probe needs.
        BadAnswer: the service answers what cannot be explanations.
    """
    allowed = explainer.capabilities
    silent = said is None and allowed.rule in RULES and probing is None
    if probed is None and probing != 0 and not silent:
        probed = first_look(
            explainer, inputs, targets, said=said, baseline=baseline, probing=probing, seed=seed, progress=progress
        )
    if probed is None:
        return Known(allowed, baseline, None)
    return _Understanding(explainer, inputs, targets, baseline, budget, said or Said(), probed, seed).known()


def first_look(
    explainer: Explainer,
    inputs: Float[np.ndarray, "n *shape"],
    targets: Int[np.ndarray, " n"],
    *,
    said: Said | None = None,
    baseline: Float[np.ndarray, "*shape"] | None = None,
    probing: int | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> ProbeResult:
    """Probe a service for what is not said of it, and confirm the rest; of the rule only where it is not said."""
    told = said is not None and said.rule is not None
    return probe(
        explainer,
        inputs[:FEW],
        targets[:FEW],
        budget=probing or (CHECK_BUDGET if told else PROBE_BUDGET),
        candidates={} if baseline is None else {"the given one": baseline},
        seed=seed,
        steps=(said.tried_steps() if said else None) or STEPS,
        naming=not told,
        progress=progress,
    )


@dataclass(frozen=True, eq=False)
class _Understanding:
    """A service that was probed, and what may still be asked of it."""

    explainer: Explainer
    inputs: Float[np.ndarray, "n *shape"]
    targets: Int[np.ndarray, " n"]
    given: Float[np.ndarray, "*shape"] | None
    budget: int
    said: Said
    probed: ProbeResult
    seed: int

    def known(self) -> Known:
        found, notes = self.probed, contradictions(self.said, self.probed)
        at = found.baseline.value
        own = self.given if at is None else None if at.name == "zero" else at.point
        if self.given is not None and at is not None and at.name != "the given one":
            notes = (*notes, f"It was said that the service has a baseline of its own, but {found.baseline.evidence}.")
        rule = found.rules.value[0].rule if found.rules.value else self.said.rule
        if rule is None and found.baseline_override.value is Override.HONOURED:
            # close to the input every rule answers the gradient there but for its mass, whatever its nodes
            window = replace(self._settings("midpoint"), fewest_steps=50, most_steps=50, default_steps=50)
            return Known(window, own, found, notes=notes)
        known, asked = self._bounded_steps(self._settings(rule or self.explainer.capabilities.rule))
        if self.said.steps is not None and self.said.steps[0] < known.fewest_steps < known.most_steps:
            said = f"It was said that callers may ask for {self.said.steps[0]} steps or more"
            notes = (*notes, f"{said}, but fewer than {known.fewest_steps} are refused.")
        known, more = self._bounded_values(known, own)
        asked += more
        if found.rules.value:
            return Known(known, own, found, notes=notes, queries=asked)
        if at is None and self.given is None:
            return Known(None, own, found, found.baseline.evidence, notes=notes, queries=asked)
        if rule is not None:
            return self._told(known, own, notes, asked)
        beside = self._beside(known, own)
        return self._chosen(known, own, beside, notes, asked + beside.queries)

    def _settings(self, rule: str) -> Capabilities:
        allowed = self.explainer.capabilities
        known = settings(self.said, self.probed, allowed, rule)
        if self.probed.values.value is None or not self.probed.refused_values:
            return known
        # within the values that the service took, and those that its users send, where it refused others
        low, high = self.probed.values.value
        low, high = min(low, float(self.inputs.min())), max(high, float(self.inputs.max()))
        return replace(known, smallest_value=low, largest_value=high)

    def _beside(self, known: Capabilities, own: Float[np.ndarray, "*shape"] | None) -> Beside:
        """The inputs, moved where plans that are tried at them could not be told apart by outputs."""
        service = Described(self.explainer, known)
        return beside_kinks(service, self.inputs, self.targets, self._all_starts(own), seed=self.seed)

    def _bounded_steps(self, known: Capabilities) -> tuple[Capabilities, int]:
        """The fewest steps that the service takes of a caller, which may be more than is said."""
        if known.fewest_steps == known.most_steps:
            return known, 0
        asked = 0

        def takes(steps: int) -> bool:
            nonlocal asked
            asked += 1
            try:
                self.explainer.explain(Request(self.inputs[:1], None, self.targets[:1], steps))
            except (NotPermitted, InvalidValue):
                return False
            return True

        least = known.fewest_steps
        if takes(least):
            return known, asked
        most = known.most_steps if self.said.free_steps else MOST_STEPS_TRIED
        tried = sorted(steps for steps in {2, *STEPS, most} if least < steps <= most)
        refused, taken = least, next((steps for steps in tried if takes(steps)), 0)
        if not taken:
            own = known.own_steps
            return replace(known, fewest_steps=own, most_steps=own, default_steps=own), asked
        refused = max((steps for steps in tried if steps < taken), default=least)
        while taken - refused > 1:
            middle = (taken + refused) // 2
            refused, taken = (refused, middle) if takes(middle) else (middle, taken)
        own_steps = known.default_steps
        return replace(
            known, fewest_steps=taken, default_steps=own_steps if own_steps and own_steps >= taken else None
        ), asked

    def _bounded_values(self, known: Capabilities, own: Float[np.ndarray, "*shape"] | None) -> tuple[Capabilities, int]:
        """Within the values of the inputs, where the service refuses the points furthest out that a plan would ask."""
        starts = self._all_starts(own)
        likely = known if known.rule in RULES else replace(known, rule=USUAL)
        lowest, highest = likely.reach(self.inputs, starts)
        stops = [term.query.stop for term in propose(likely, budget=self.budget, lowest=lowest, highest=highest).plan]
        largest = int(np.abs(self.inputs - starts).reshape(len(self.inputs), -1).max(1).argmax())
        asked = 0
        for stop in {min(stops), max(stops)} - {0.0, 1.0}:
            point = starts[largest] + stop * (self.inputs[largest].astype(np.float64) - starts[largest])
            point = np.clip(point, known.smallest_value, known.largest_value)
            asked += 1
            try:
                steps = None if known.fewest_steps == known.most_steps else known.fewest_steps
                one = slice(largest, largest + 1)
                self.explainer.explain(Request(point[None].astype(self.inputs.dtype), None, self.targets[one], steps))
            except NotPermitted:
                ends = float(min(self.inputs.min(), starts.min())), float(max(self.inputs.max(), starts.max()))
                return replace(known, smallest_value=ends[0], largest_value=ends[1]), asked
        return known, asked

    def _told(
        self,
        known: Capabilities,
        own: Float[np.ndarray, "*shape"] | None,
        notes: tuple[str, ...],
        asked: int,
    ) -> Known:
        """Take the rule that is said, unless a plan that must be exact then does not predict the outputs."""
        lowest, highest = known.reach(self.inputs, self._all_starts(own))
        proposal = propose(known, budget=self.budget, lowest=lowest, highest=highest)
        if proposal.measure.exactness is not Exactness.EVERY_MODEL:
            return Known(known, own, self.probed, notes=notes, queries=asked)
        beside = self._beside(known, own)
        few, starts = self._few(beside), self._all_starts(own)[:FEW]
        found = choose(self.explainer, *few, [known], starts=starts, budget=self.budget, seed=self.seed)
        asked += beside.queries + found.queries
        if found.tried[0].distance <= RECOVERED:
            return Known(known, own, self.probed, notes=notes, queries=asked, beside=beside)
        best = self._chosen(known, own, beside, notes, asked)
        if best.choice is None or best.choice.tried[0].distance >= found.tried[0].distance / 2:
            return Known(known, own, self.probed, notes=notes, queries=best.queries, beside=beside)
        said = (
            f"It was said that the rule is {known.rule}, but the plan that is exact for it does not predict the "
            f"service's outputs: a distance of {found.tried[0].distance:.2g} where it would be 0."
        )
        return replace(best, notes=(*notes, said, *best.notes[len(notes) :]))

    def _chosen(
        self,
        known: Capabilities,
        own: Float[np.ndarray, "*shape"] | None,
        beside: Beside,
        notes: tuple[str, ...],
        asked: int,
    ) -> Known:
        possible = rules_left(self.probed.possible, known)
        asked_of, few, starts = self.explainer, self._few(beside), self._all_starts(own)[:FEW]
        fixed = known.fewest_steps == known.most_steps
        try:
            if fixed and known.output is Output.PROBABILITIES:
                choice = choose_behind_softmax(asked_of, *few, possible, known, starts=starts, seed=self.seed)
            else:
                choice = choose(asked_of, *few, possible, starts=starts, budget=self.budget, seed=self.seed)
        except InvalidValue as error:
            evidence = f"{self.probed.rules.evidence}; {error.problem}"
            return Known(None, own, self.probed, evidence, notes=notes, queries=asked)
        notes = (*notes, choice.sentence)
        return Known(choice.capabilities, own, self.probed, "", choice, notes, asked + choice.queries, beside)

    def _few(self, beside: Beside) -> tuple[Float[np.ndarray, "n *shape"], Int[np.ndarray, " n"]]:
        return beside.inputs[:FEW], self.targets[:FEW]

    def _all_starts(self, own: Float[np.ndarray, "*shape"] | None) -> Float[np.ndarray, "n *shape"]:
        zeros = np.zeros_like(self.inputs)
        return zeros if own is None else zeros + own.astype(zeros.dtype)
