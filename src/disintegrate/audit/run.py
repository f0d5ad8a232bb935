"""An audit: probe, plan, recover, check, judge."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from functools import partial

import numpy as np
from jaxtyping import Float, Float64, Int
from torch import nn

from disintegrate.audit.checking import Check, of_all
from disintegrate.audit.described import Described
from disintegrate.audit.engines import Engine, LocalEngine, blocks_of
from disintegrate.audit.examples import examples_of
from disintegrate.audit.knowing import Known, understand
from disintegrate.audit.recovering import Recovering, starts_of
from disintegrate.audit.result import AuditResult
from disintegrate.audit.ties import beside_kinks
from disintegrate.audit.truth import true_gradients
from disintegrate.audit.verdict import Judgement, Verdict, fewer_than_differences, judge
from disintegrate.audit.word import Said
from disintegrate.errors import InvalidValue
from disintegrate.explainers.protocol import Explainer
from disintegrate.metrics import NO_DIRECTION
from disintegrate.planner import Proposal, propose
from disintegrate.probe.result import ProbeResult
from disintegrate.progress import SILENT, Progress

LOCAL: Engine = LocalEngine()


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
    said: Said | None = None,
    seed: int = 0,
    examples: int = 0,
    engine: Engine = LOCAL,
    progress: Progress = SILENT,
) -> AuditResult:
    """Say whether a service gives its model's gradients away, by the best plan for what it permits.

    A service whose rule is not told is probed first; what is said of it is confirmed. Where several rules stay
    possible, the one whose plan predicts the service's outputs best at a few inputs is taken. The best plan for its
    capabilities is executed at every input, and each recovered gradient held against the model's own where the model
    is given, else against the service's own outputs at small steps. Nothing recovered is no proof of safety: the
    verdict then is that no leak was shown.

    Args:
        explainer: the service.
        inputs: points whose gradients are asked for, of the kind that the service sees.
        targets: the output to explain for each.
        model: the model behind the service, where it is at hand; it answers what the service explains.
        baseline: the service's own baseline, where it is known and not zero.
        budget: the most queries for one input's gradient; no more are spent than finite differences of outputs need.
        probing: the most queries of the probe; None for 60 where the rule is not told, 30 where it is said, and none
            where the explainer tells it itself.
        probed: what a probe has found out before; then none is made.
        said: what the owner says that the service does, where the explainer does not tell it.
        seed: for the directions that are drawn.
        examples: so many of the inputs are kept in the record, for its page; each costs one query more.
        engine: who asks at the inputs; the result is the same. A probe is made from here.
        progress: where to show queries.

    Raises:
        InvalidValue: inputs and targets that do not match, or budgets below what a probe or a plan needs.
        BadAnswer: the service answers what cannot be explanations.

    Example:
        >>> from disintegrate import Capabilities, LocalExplainer
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
    if not np.isfinite(inputs).all():
        raise InvalidValue(
            "Inputs must be numbers.",
            got=f"{int((~np.isfinite(inputs)).any(axis=tuple(range(1, inputs.ndim))).sum())} inputs with NaN or inf",
            instead="Leave those out.",
        )
    known = understand(
        explainer, inputs, targets, baseline=baseline, budget=budget, said=said, probing=probing, probed=probed,
        seed=seed, progress=progress,
    )  # fmt: skip
    moved_by = 0.0
    if model is None and known.capabilities is not None:
        service, starts = Described(explainer, known.capabilities), starts_of(inputs, known.baseline)
        beside, asked = known.beside, 0
        if beside is None:
            beside = beside_kinks(service, inputs, targets, starts, seed=seed)
            asked = beside.queries
        inputs, moved_by = beside.inputs, beside.moved_by
        notes = (*known.notes, beside.note) if moved_by else known.notes
        known = replace(known, notes=notes, queries=known.queries + asked)
    proposal = None
    if known.capabilities is not None:
        starts = starts_of(inputs, known.baseline)
        lowest, highest = known.capabilities.reach(inputs, starts)
        budget = min(budget, fewer_than_differences((inputs != starts).reshape(len(inputs), -1).sum(1)))
        proposal = propose(known.capabilities, budget=budget, lowest=lowest, highest=highest)
    found = _executed(explainer, inputs, targets, known, proposal, model, seed, engine, progress)
    shown = examples_of(
        explainer if known.capabilities is None else Described(explainer, known.capabilities), inputs, targets,
        distances=found.distance, gradient=found.gradient, observed=found.observed,
        truths=None if model is None else partial(true_gradients, model), count=examples,
    )  # fmt: skip
    return replace(found, moved_by=moved_by, examples=shown)


def _executed(
    explainer: Explainer,
    inputs: Float[np.ndarray, "n *shape"],
    targets: Int[np.ndarray, " n"],
    known: Known,
    proposal: Proposal | None,
    model: nn.Module | None,
    seed: int,
    engine: Engine,
    progress: Progress,
) -> AuditResult:
    gradient, observed = np.zeros(inputs.shape), np.zeros(inputs.shape, bool)
    apart, spent = np.full(len(inputs), NO_DIRECTION), {"plan": 0, "check": 0}
    check: Check | None = None
    if proposal is not None and known.capabilities is not None:
        length = known.choice.length if known.choice else 1.0
        work = Recovering(known.capabilities, proposal, known.baseline, model, seed, length)
        bar = progress.task("audit: inputs", len(inputs))
        with closing(engine.run(explainer, work, blocks_of(inputs, targets))) as done:
            for found in done:
                part = slice(found.first, found.first + len(found.distance))
                gradient[part], observed[part] = found.gradient, found.observed
                apart[part], check = found.distance, found.check
                spent["plan"] += found.queries_for_plan
                spent["check"] += found.queries_for_check
                bar.advance(len(found.distance), f"{spent['plan'] + spent['check']} queries")
    return AuditResult(
        judgement=_judged(of_all(apart, check), proposal, observed, known),
        capabilities=known.capabilities,
        probed=known.probed,
        proposal=proposal,
        inputs=inputs,
        gradient=gradient,
        observed=observed,
        distance=apart,
        check=check,
        targets=targets,
        baseline=known.baseline,
        queries_for_plan=spent["plan"],
        queries_for_check=spent["check"],
        seed=seed,
        queries_for_choice=known.queries,
        choice=known.choice,
        notes=known.notes,
    )


def _judged(
    apart: Float64[np.ndarray, " n"], proposal: Proposal | None, observed: np.ndarray, known: Known
) -> Judgement:
    seen = observed.reshape(len(observed), -1).sum(1).astype(float)
    if proposal is not None:
        return judge(apart, len(proposal.plan), seen)
    whole = float(observed[0].size) + 1
    sentence = f"Not shown: the service's rule stayed unknown, so no plan is known for it: {known.unknown}."
    return Judgement(Verdict.NOT_SHOWN, 0.0, float(NO_DIRECTION), 0.0, 0, whole, sentence)
