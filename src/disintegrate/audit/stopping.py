"""What stops a leak: each change of the settings against the best plan for the changed settings."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int
from torch import nn

from disintegrate.audit.changes import Change, changes
from disintegrate.audit.checking import against_model
from disintegrate.audit.described import Described
from disintegrate.audit.faithfulness import Faithfulness, exact_attributions, faithfulness
from disintegrate.audit.formulas import PaperFormula, best_formula, formulas
from disintegrate.audit.run import audit
from disintegrate.audit.truth import true_gradients
from disintegrate.audit.verdict import Judgement, fewer_than_differences, judge
from disintegrate.explainers import Explainer, LocalExplainer, Wire, Wired
from disintegrate.explainers.protocol import Capabilities, Output, Request
from disintegrate.kriging import predicted_distance
from disintegrate.measure import Exactness
from disintegrate.metrics import NO_DIRECTION
from disintegrate.noise import noise_of
from disintegrate.planner import Way, propose
from disintegrate.progress import SILENT, Progress
from disintegrate.recover import recover
from disintegrate.rules import rule_named
from disintegrate.walk import Walk

# Inputs at which a change is tried on a service whose queries may cost.
TRIED = 8


@dataclass(frozen=True)
class Stop:
    """One change, and what is left of the leak.

    Attributes:
        words: what the owner does.
        judgement: of the best plan for the changed settings.
        measured: whether that plan was executed, against a local service or the audited one; otherwise its error is
            predicted.
        explanation: how good the changed service's explanations are; None where that was not measured.
        paper: the best of the paper's own formulas against the changed settings, measured with the model and else
            predicted. Where it fails and the best plan does not, the change stops the formula and not the leak.
        queries: spent on the audited service to find this out.
    """

    words: str
    judgement: Judgement
    measured: bool
    explanation: Faithfulness | None
    paper: PaperFormula
    queries: int = 0

    @property
    def stops_the_formula_alone(self) -> bool:
        """Whether the paper's formulas come to less than the best plan."""
        return self.paper.judgement.verdict.rank < self.judgement.verdict.rank

    def record(self) -> dict[str, Any]:
        """As plain values for JSON."""
        judgement = asdict(self.judgement) | {"verdict": self.judgement.verdict.value}
        shown = asdict(self.explanation) if self.explanation else None
        formula = self.paper.record() | {"stopped_alone": self.stops_the_formula_alone}
        return {
            "change": self.words, "measured": self.measured, **judgement, "paper_formula": formula,
            "explanation": shown, "queries": self.queries,
        }  # fmt: skip


def what_stops(
    allowed: Capabilities,
    inputs: Float[np.ndarray, "n *shape"],
    targets: Int[np.ndarray, " n"],
    *,
    model: nn.Module | None = None,
    service: Explainer | None = None,
    baseline: Float[np.ndarray, "*shape"] | None = None,
    budget: int = 10,
    seed: int = 0,
    progress: Progress = SILENT,
) -> tuple[Stop, ...]:
    """Try every change of a service's settings against the best plan for the changed settings; "as it is" comes first.

    With the model each change is made to a local service. Without it, what an exact plan will still get is foretold,
    for it hangs on no model. What an estimate will get hangs on how rough the model is, and what rounded outputs can
    still confirm hangs on it too: where the audited service is given, it is asked no more than the change would permit,
    at a few of the inputs, and its answers are rounded here.

    Args:
        allowed: the settings as they are.
        inputs: points whose gradients are asked for.
        targets: the output to explain for each.
        model: what the service explains now; None where it is not at hand.
        service: the audited service; None to predict estimates too.
        baseline: the service's own baseline where it is not zero.
        budget: the most queries for one gradient.
        seed: for what is drawn.
        progress: where to show the changes tried.

    Example:
        >>> from disintegrate import Verdict
        >>> model = nn.Sequential(nn.Linear(8, 9), nn.ReLU(), nn.Linear(9, 3))
        >>> x = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
        >>> rows = what_stops(Capabilities("midpoint"), x, np.array([0, 1, 2, 0]), model=model)
        >>> rows[0].words == "as it is" and rows[0].judgement.verdict is Verdict.LEAKS
        True
    """
    tried = (Change("as it is", allowed), *changes(allowed))
    bar = progress.task("what stops it: changes", len(tried))
    found = []
    exact: dict[Output, Float64[np.ndarray, "n *shape"]] = {}
    for change in tried:
        if model is None:
            stop, estimated = _predicted(change, inputs, baseline, budget)
            rounded = change.changed.wire != allowed.wire
            if service is not None and (estimated or rounded) and change.changed.output is allowed.output:
                stop = _tried(stop, change, service, inputs[:TRIED], targets[:TRIED], baseline, budget, seed)
            found.append(stop)
        else:
            found.append(_measured(change, allowed, inputs, targets, model, baseline, budget, seed, exact))
        bar.advance()
    return tuple(found)


def changed_model(model: nn.Module, allowed: Capabilities, change: Change) -> nn.Module:
    """What is explained after a change: the model, behind a softmax where probabilities take the place of logits.

    Example:
        >>> model, allowed = nn.Linear(3, 2), Capabilities("midpoint")
        >>> changed_model(model, allowed, Change("as it is", allowed)) is model
        True
    """
    softmaxed = change.changed.output is Output.PROBABILITIES and allowed.output is Output.LOGITS
    return nn.Sequential(model, nn.Softmax(1)).eval() if softmaxed else model


def changed_service(
    served: nn.Module, change: Change, baseline: Float[np.ndarray, "*shape"] | None = None
) -> Explainer:
    """A service of this process under changed settings.

    Args:
        served: what it explains, of `changed_model`.
        change: to which settings.
        baseline: the service's own baseline where it is not zero.

    Example:
        >>> change = changes(Capabilities("midpoint", dtype="float32"))[0]
        >>> changed_service(nn.Linear(3, 2), change).capabilities == change.changed
        True
    """
    inside = replace(change.changed, wire=Wire())
    return Wired(LocalExplainer(served, inside, own_baseline=baseline), change.changed.wire)


def _measured(
    change: Change,
    allowed: Capabilities,
    inputs: Float[np.ndarray, "n *shape"],
    targets: Int[np.ndarray, " n"],
    model: nn.Module,
    baseline: Float[np.ndarray, "*shape"] | None,
    budget: int,
    seed: int,
    exact: dict[Output, Float64[np.ndarray, "n *shape"]],
) -> Stop:
    """A change made; the exact attributions of what is explained then are kept for the other changes."""
    served = changed_model(model, allowed, change)
    service = changed_service(served, change, baseline)
    found = audit(service, inputs, targets, model=served, baseline=baseline, budget=budget, seed=seed)
    starts = np.zeros_like(inputs) if baseline is None else np.broadcast_to(baseline, inputs.shape).copy()
    shown = service.explain(Request(inputs, None, targets, None)).attribution
    output = change.changed.output
    if output not in exact:
        exact[output] = exact_attributions(served, inputs, starts, targets)
    score = faithfulness(served, inputs, starts, targets, shown, exact[output])
    truth, tried = true_gradients(served, inputs, targets), []
    for equation, plan in formulas(change.changed).items():
        got = recover(service, inputs, targets, plan, baselines=starts)
        apart = against_model(truth, got.gradient, got.observed).distance
        seen = got.observed.reshape(len(inputs), -1).sum(1).astype(float)
        tried.append(PaperFormula(equation, judge(apart, len(plan), seen)))
    return Stop(change.words, found.judgement, measured=True, explanation=score, paper=best_formula(tried))


def _predicted(
    change: Change,
    inputs: Float[np.ndarray, "n *shape"],
    baseline: Float[np.ndarray, "*shape"] | None,
    budget: int,
) -> tuple[Stop, bool]:
    """What to expect, and whether that hangs on the model."""
    starts = np.zeros_like(inputs) if baseline is None else np.broadcast_to(baseline, inputs.shape)
    lowest, highest = change.changed.reach(inputs, starts)
    moved = (inputs != starts).reshape(len(inputs), -1).sum(1)
    budget, seen = min(budget, fewer_than_differences(moved)), moved.astype(float)
    plan = propose(change.changed, budget=budget, lowest=lowest, highest=highest)
    found = _expected(plan.predicted_error, len(plan.plan), seen)
    rule, noise = rule_named(change.changed.rule), noise_of(change.changed)
    tried = [
        PaperFormula(equation, _expected(predicted_distance(one, rule, Walk(), noise), len(one), seen))
        for equation, one in formulas(change.changed).items()
    ]
    stop = Stop(change.words, found, measured=False, explanation=None, paper=best_formula(tried))
    return stop, plan.measure.exactness is not Exactness.EVERY_MODEL and plan.way is not Way.WINDOW


def _tried(
    stop: Stop,
    change: Change,
    service: Explainer,
    inputs: Float[np.ndarray, "n *shape"],
    targets: Int[np.ndarray, " n"],
    baseline: Float[np.ndarray, "*shape"] | None,
    budget: int,
    seed: int,
) -> Stop:
    restricted: Explainer = Described(service, change.changed)
    if change.changed.wire != service.capabilities.wire:
        restricted = Wired(restricted, change.changed.wire)
    found = audit(restricted, inputs, targets, baseline=baseline, budget=budget, probing=0, seed=seed)
    return replace(stop, judgement=found.judgement, measured=True, queries=found.queries)


def _expected(error: float, queries: int, seen: Float64[np.ndarray, " n"]) -> Judgement:
    return judge(np.full(len(seen), min(error, NO_DIRECTION)), queries, seen)
