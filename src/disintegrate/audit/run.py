"""An audit: probe, plan, recover, check, judge."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import nn

from disintegrate.audit.checking import Check, against_model, against_outputs, of_all
from disintegrate.audit.result import AuditResult
from disintegrate.audit.verdict import Judgement, Verdict, fewer_than_differences, judge
from disintegrate.errors import InvalidValue
from disintegrate.estimate import carry_out
from disintegrate.explainers.protocol import Capabilities, Explainer, Explanation, Output, Request
from disintegrate.gradients import vanilla_gradient
from disintegrate.metrics import NO_DIRECTION
from disintegrate.planner import Proposal, propose
from disintegrate.probe.result import Override, ProbeResult
from disintegrate.probe.service import probe
from disintegrate.progress import SILENT, Progress
from disintegrate.rules import RULES

# Inputs that are asked together.
BLOCK = 200
PROBED, PROBE_BUDGET = 4, 60


class Described:
    """An explainer with capabilities that were found out about it; what it does not take is not sent."""

    def __init__(self, explainer: Explainer, capabilities: Capabilities) -> None:
        self._explainer = explainer
        self._capabilities = capabilities

    @property
    def capabilities(self) -> Capabilities:
        """What was found out."""
        return self._capabilities

    def explain(self, request: Request) -> Explanation:
        """Pass the request on, without steps and baselines that a caller may not set."""
        allowed = self._capabilities
        steps = None if allowed.fewest_steps == allowed.most_steps else request.steps
        baselines = request.baselines if allowed.baseline else None
        return self._explainer.explain(replace(request, steps=steps, baselines=baselines))


@dataclass(frozen=True, eq=False)
class _Known:
    """What is known of a service before it is asked for gradients."""

    capabilities: Capabilities | None
    baseline: Float[np.ndarray, "*shape"] | None
    probed: ProbeResult | None
    unknown: str = ""


def audit(
    explainer: Explainer,
    inputs: Float[np.ndarray, "n *shape"],
    targets: Int[np.ndarray, " n"],
    *,
    model: nn.Module | None = None,
    baseline: Float[np.ndarray, "*shape"] | None = None,
    budget: int = 10,
    probing: int | None = None,
    probed: ProbeResult | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> AuditResult:
    """Say whether a service gives its model's gradients away, by the best plan for what it permits.

    A service whose rule is not told is probed first. The best plan for its capabilities is executed at every input, and
    each recovered gradient held against the model's own where the model is given, else against the service's own
    outputs at small steps. Nothing recovered is no proof of safety: the verdict then is that no leak was shown.

    Args:
        explainer: the service.
        inputs: points whose gradients are asked for, of the kind that the service sees.
        targets: the output to explain for each.
        model: the model behind the service, where it is at hand; it answers what the service explains.
        baseline: the service's own baseline, where it is known and not zero.
        budget: the most queries for one input's gradient; no more are spent than finite differences of outputs need.
        probing: the most queries to find out what the service permits; None for 60 where its rule is not told and none
            where it is.
        probed: what a probe has found out before; then none is made.
        seed: for the directions that are drawn.
        progress: where to show queries.

    Raises:
        InvalidValue: inputs and targets that do not match, or budgets below what a probe or a plan needs.
        BadAnswer: the service answers what cannot be explanations.

    Example:
        >>> from disintegrate import LocalExplainer
        >>> model = nn.Sequential(nn.Linear(8, 9), nn.ReLU(), nn.Linear(9, 3))
        >>> service = LocalExplainer(model, Capabilities(rule="midpoint"))
        >>> x = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
        >>> found = audit(service, x, np.array([0, 1, 2, 0, 1]))
        >>> found.judgement.verdict is Verdict.LEAKS and found.check is Check.OUTPUTS
        True
    """
    if inputs.ndim < 2 or len(inputs) == 0 or targets.shape != inputs.shape[:1]:
        raise InvalidValue(
            "Inputs need a batch dimension, and one target each.",
            got=f"inputs {inputs.shape}, targets {targets.shape}",
            instead="Give inputs of shape [n, ...] and n targets.",
        )
    allowed = explainer.capabilities
    if probing is None:
        probing = 0 if allowed.rule in RULES else PROBE_BUDGET
    if probed is None and probing:
        candidates = {} if baseline is None else {"the given one": baseline}
        few = inputs[:PROBED], targets[:PROBED]
        probed = probe(explainer, *few, budget=probing, candidates=candidates, seed=seed, progress=progress)
    known = _Known(allowed, baseline, None) if probed is None else _by_probe(probed, allowed, inputs)
    truth = None if model is None else true_gradients(model, inputs, targets)
    proposal = None
    if known.capabilities is not None:
        starts = _starts(inputs, known.baseline)
        lowest, highest = known.capabilities.reach(inputs, starts)
        budget = min(budget, fewer_than_differences((inputs != starts).reshape(len(inputs), -1).sum(1)))
        proposal = propose(known.capabilities, budget=budget, lowest=lowest, highest=highest)
    return _executed(explainer, inputs, targets, known, proposal, truth, seed, progress)


def _by_probe(found: ProbeResult, allowed: Capabilities, inputs: Float[np.ndarray, "n *shape"]) -> _Known:
    at = found.baseline.value
    own = None if at is None or at.name == "zero" else at.point
    if found.rules.value:
        return _Known(_bounded(replace(found.capabilities(), dtype=allowed.dtype), found, inputs), own, found)
    if found.baseline_override.value is Override.HONOURED:
        # close to the input every rule answers the gradient there but for its mass, whatever its nodes
        free = Capabilities(
            "midpoint", 50, 50, dtype=allowed.dtype, output=found.output.value or Output.LOGITS,
            wire=found.wire.value or allowed.wire,
        )  # fmt: skip
        return _Known(_bounded(free, found, inputs), own, found)
    return _Known(None, own, found, found.rules.evidence)


def _bounded(allowed: Capabilities, found: ProbeResult, inputs: Float[np.ndarray, "n *shape"]) -> Capabilities:
    """Within the values that the service took, and those that its users send, where it refused others."""
    if found.values.value is None or not found.refused_values:
        return allowed
    low, high = found.values.value
    return replace(allowed, smallest_value=min(low, float(inputs.min())), largest_value=max(high, float(inputs.max())))


def _executed(
    explainer: Explainer,
    inputs: Float[np.ndarray, "n *shape"],
    targets: Int[np.ndarray, " n"],
    known: _Known,
    proposal: Proposal | None,
    truth: Float[np.ndarray, "n *shape"] | None,
    seed: int,
    progress: Progress,
) -> AuditResult:
    gradient, observed = np.zeros(inputs.shape), np.zeros(inputs.shape, bool)
    apart, spent = np.full(len(inputs), NO_DIRECTION), {"plan": 0, "check": 0}
    check: Check | None = None
    generator = np.random.default_rng(seed)
    if proposal is not None and known.capabilities is not None:
        service, starts = Described(explainer, known.capabilities), _starts(inputs, known.baseline)
        bar = progress.task("audit: inputs", len(inputs))
        for first in range(0, len(inputs), BLOCK):
            part = slice(first, first + BLOCK)
            asked = inputs[part], targets[part]
            found = carry_out(service, *asked, proposal, baselines=starts[part])
            gradient[part], observed[part] = found.gradient, found.observed
            checked = (
                against_outputs(service, *asked, found.gradient, found.observed, generator)
                if truth is None
                else against_model(truth[part], found.gradient, found.observed)
            )
            apart[part], check = checked.distance, checked.check
            spent = {"plan": spent["plan"] + found.queries, "check": spent["check"] + checked.queries}
            bar.advance(len(asked[0]))
    return AuditResult(
        judgement=_judged(of_all(apart, check), proposal, observed, known),
        capabilities=known.capabilities,
        probed=known.probed,
        proposal=proposal,
        gradient=gradient,
        observed=observed,
        distance=apart,
        check=check,
        targets=targets,
        baseline=known.baseline,
        queries_for_plan=spent["plan"],
        queries_for_check=spent["check"],
        seed=seed,
    )


def _judged(
    apart: Float64[np.ndarray, " n"], proposal: Proposal | None, observed: np.ndarray, known: _Known
) -> Judgement:
    seen = observed.reshape(len(observed), -1).sum(1).astype(float)
    if proposal is not None:
        return judge(apart, len(proposal.plan), seen)
    whole = float(observed[0].size) + 1
    sentence = f"Not shown: the service's rule stayed unknown, so no plan is known for it: {known.unknown}."
    return Judgement(Verdict.NOT_SHOWN, 0.0, float(NO_DIRECTION), 0.0, 0, whole, sentence)


def _starts(
    inputs: Float[np.ndarray, "n *shape"], baseline: Float[np.ndarray, "*shape"] | None
) -> Float[np.ndarray, "n *shape"]:
    if baseline is None:
        return np.zeros_like(inputs)
    return np.broadcast_to(baseline.astype(inputs.dtype), inputs.shape).copy()


def true_gradients(
    model: nn.Module, inputs: Float[np.ndarray, "n *shape"], targets: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "n *shape"]:
    """The model's own gradients, in its own arithmetic."""
    parameter = next(model.parameters(), None)
    dtype, device = (torch.float32, "cpu") if parameter is None else (parameter.dtype, parameter.device)
    points = torch.tensor(inputs, dtype=dtype, device=device)
    found = vanilla_gradient(model, points, torch.tensor(targets, dtype=torch.long, device=device))
    return np.asarray(found.cpu())
