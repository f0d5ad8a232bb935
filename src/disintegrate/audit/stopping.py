"""What stops a leak: each change of the settings against the best plan for the changed settings."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from torch import nn

from disintegrate.audit.changes import Change, changes
from disintegrate.audit.faithfulness import Faithfulness, exact_attributions, faithfulness
from disintegrate.audit.run import audit
from disintegrate.audit.verdict import Judgement, judge
from disintegrate.explainers import Explainer, LocalExplainer, Wire, Wired
from disintegrate.explainers.protocol import Capabilities, Output, Request
from disintegrate.planner import propose
from disintegrate.progress import SILENT, Progress


@dataclass(frozen=True)
class Stop:
    """One change, and what is left of the leak.

    Attributes:
        words: what the owner does.
        judgement: of the best plan for the changed settings.
        measured: whether that plan was executed, against a local service; otherwise its error is predicted.
        explanation: how good the changed service's explanations are; None where that was not measured.
    """

    words: str
    judgement: Judgement
    measured: bool
    explanation: Faithfulness | None

    def record(self) -> dict[str, Any]:
        """As plain values for JSON."""
        judgement = asdict(self.judgement) | {"verdict": self.judgement.verdict.value}
        shown = asdict(self.explanation) if self.explanation else None
        return {"change": self.words, "measured": self.measured, **judgement, "explanation": shown}


def what_stops(
    allowed: Capabilities,
    inputs: Float[np.ndarray, "n *shape"],
    targets: Int[np.ndarray, " n"],
    *,
    model: nn.Module | None = None,
    baseline: Float[np.ndarray, "*shape"] | None = None,
    budget: int = 10,
    seed: int = 0,
    progress: Progress = SILENT,
) -> tuple[Stop, ...]:
    """Try every change of a service's settings against the best plan for the changed settings; "as it is" comes first.

    Args:
        allowed: the settings as they are.
        inputs: points whose gradients are asked for.
        targets: the output to explain for each.
        model: what the service explains now; None to predict instead of measuring.
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
    for change in tried:
        if model is None:
            found.append(_predicted(change, inputs, baseline, budget))
        else:
            found.append(_measured(change, allowed, inputs, targets, model, baseline, budget, seed))
        bar.advance()
    return tuple(found)


def _measured(
    change: Change,
    allowed: Capabilities,
    inputs: Float[np.ndarray, "n *shape"],
    targets: Int[np.ndarray, " n"],
    model: nn.Module,
    baseline: Float[np.ndarray, "*shape"] | None,
    budget: int,
    seed: int,
) -> Stop:
    softmaxed = change.changed.output is Output.PROBABILITIES and allowed.output is Output.LOGITS
    served = nn.Sequential(model, nn.Softmax(1)).eval() if softmaxed else model
    inside = replace(change.changed, wire=Wire())
    service: Explainer = Wired(LocalExplainer(served, inside, own_baseline=baseline), change.changed.wire)
    found = audit(service, inputs, targets, model=served, baseline=baseline, budget=budget, seed=seed)
    starts = np.zeros_like(inputs) if baseline is None else np.broadcast_to(baseline, inputs.shape).copy()
    shown = service.explain(Request(inputs, None, targets, None)).attribution
    exact = exact_attributions(served, inputs, starts, targets)
    score = faithfulness(served, inputs, starts, targets, shown, exact)
    return Stop(change.words, found.judgement, measured=True, explanation=score)


def _predicted(
    change: Change,
    inputs: Float[np.ndarray, "n *shape"],
    baseline: Float[np.ndarray, "*shape"] | None,
    budget: int,
) -> Stop:
    starts = np.zeros_like(inputs) if baseline is None else np.broadcast_to(baseline, inputs.shape)
    lowest, highest = change.changed.reach(inputs, starts)
    plan = propose(change.changed, budget=budget, lowest=lowest, highest=highest)
    seen = (inputs != starts).reshape(len(inputs), -1).sum(1).astype(float)
    errors = np.full(len(inputs), min(plan.predicted_error, float(np.sqrt(2))))
    return Stop(change.words, judge(errors, len(plan.plan), seen), measured=False, explanation=None)
