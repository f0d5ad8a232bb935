"""What an audit found, and its record."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from disintegrate.audit.checking import Check
from disintegrate.audit.choosing import Choice
from disintegrate.audit.examples import Example
from disintegrate.audit.verdict import RECOVERED, Judgement
from disintegrate.explainers.protocol import Capabilities
from disintegrate.planner import Proposal
from disintegrate.probe.result import ProbeResult
from disintegrate.versions import versions

# The weakness, as MITRE ATLAS names it: "Extract ML Model" under "Exfiltration via AI Inference API".
WEAKNESS = "AML.T0024.002"
# Of the record; a reader refuses a newer one.
FORMAT = 1


@dataclass(frozen=True, eq=False)
class AuditResult:
    """What an audit found.

    Attributes:
        judgement: the verdict with its figures.
        capabilities: what the service lets its callers do, as given or as probed.
        probed: the probe's findings; None where the capabilities were given.
        proposal: the plan that was executed; None where none is known.
        inputs: where the gradients hold: the given ones, or others close by, off a kink.
        gradient: the recovered gradient of each input; 0 where it was not observed.
        observed: coordinates that some query told of.
        distance: to the truth, or an upper estimate of it.
        check: what the gradients were held against; None where no plan is known, so that there are none.
        targets: the outputs explained.
        baseline: the service's own, as given or as probed; None for zero.
        queries_for_plan: spent on recovering, over all inputs.
        queries_for_check: spent on checking.
        seed: of the directions drawn.
        queries_for_choice: spent on bounds of the steps, on trying plans where several rules were possible, and on
            looking for kinks at the inputs.
        choice: the rule that was taken where none is known.
        moved_by: how far each coordinate was moved off a kink of the outputs, root mean square; 0 for not at all.
        notes: what a reader of the verdict must know beside it, each a sentence.
        examples: a few inputs, for whom one query more was spent on the plain explanation.
    """

    judgement: Judgement
    capabilities: Capabilities | None
    probed: ProbeResult | None
    proposal: Proposal | None
    inputs: Float[np.ndarray, "n *shape"]
    gradient: Float64[np.ndarray, "n *shape"]
    observed: Bool[np.ndarray, "n *shape"]
    distance: Float64[np.ndarray, " n"]
    check: Check | None
    targets: Int[np.ndarray, " n"]
    baseline: Float[np.ndarray, "*shape"] | None
    queries_for_plan: int
    queries_for_check: int
    seed: int
    queries_for_choice: int = 0
    choice: Choice | None = None
    moved_by: float = 0.0
    notes: tuple[str, ...] = ()
    examples: tuple[Example, ...] = ()

    @property
    def queries(self) -> int:
        """All that were spent."""
        before = self.queries_for_choice + (self.probed.queries if self.probed else 0)
        return before + self.queries_for_plan + self.queries_for_check + len(self.examples)

    def record(self) -> dict[str, Any]:
        """As plain values for JSON.

        Example:
            >>> import numpy as np
            >>> from torch import nn
            >>> from disintegrate import Capabilities, LocalExplainer, audit
            >>> service = LocalExplainer(nn.Linear(5, 2), Capabilities(rule="riemann_right"))
            >>> found = audit(service, np.ones((3, 5), np.float32), np.array([0, 1, 0]), model=service.model)
            >>> found.record()["verdict"] == "leaks" and len(found.record()["inputs"]) == 3
            True
        """
        judgement = asdict(self.judgement)
        del judgement["verdict"]
        seen = self.observed.reshape(len(self.observed), -1).sum(1)
        per_input = self.queries_for_plan // len(self.distance)
        rows = zip(self.targets.tolist(), self.distance.tolist(), seen.tolist(), strict=True)
        return {
            "kind": "audit",
            "format": FORMAT,
            "verdict": self.judgement.verdict.value,
            **judgement,
            "notes": list(self.notes),
            "weakness": {"framework": "MITRE ATLAS", "id": WEAKNESS},
            "recovered_within": RECOVERED,
            "check": self.check.value if self.check else None,
            "moved_by": self.moved_by,
            "coordinates": int(np.prod(self.observed.shape[1:])),
            "queries": {
                "probe": self.probed.queries if self.probed else 0,
                "choice": self.queries_for_choice,
                "plan": self.queries_for_plan,
                "check": self.queries_for_check,
                "examples": len(self.examples),
                "all": self.queries,
            },
            "service": _service(self.capabilities) if self.capabilities else None,
            "probe": self.probed.record() if self.probed else None,
            "choice": self.choice.record() if self.choice else None,
            "plan": _plan(self.proposal) if self.proposal else None,
            "inputs": [
                {"target": target, "distance": apart, "queries": per_input, "observed": observed}
                for target, apart, observed in rows
            ],
            "examples": [example.record() for example in self.examples],
            "seed": self.seed,
            "versions": versions(),
        }


def _service(allowed: Capabilities) -> dict[str, Any]:
    fixed = allowed.fewest_steps == allowed.most_steps
    return {
        "rule": allowed.rule,
        "steps": allowed.own_steps,
        "steps_of_the_caller": None if fixed else [allowed.fewest_steps, allowed.most_steps],
        "baseline_of_the_caller": allowed.baseline,
        "output": allowed.output.value,
        "wire": asdict(allowed.wire),
    }


def _plan(proposal: Proposal) -> dict[str, Any]:
    return {
        **json.loads(proposal.plan.to_json()),
        "way": proposal.way.value,
        "exactness": proposal.measure.exactness.value,
        "amplification": proposal.plan.amplification,
        "predicted_error": proposal.predicted_error,
        "atoms": [[float(at), float(weight)] for at, weight in _atoms(proposal)],
    }


def _atoms(proposal: Proposal) -> list[tuple[float, float]]:
    measure = proposal.measure
    return list(zip(measure.positions.tolist(), measure.weights.tolist(), strict=True))
