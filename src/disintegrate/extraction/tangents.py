"""The tangents of a model, its outputs with their gradients, as a service's explanations give them away."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

from disintegrate.errors import BadAnswer, NotPermitted
from disintegrate.estimate import carry_out
from disintegrate.explainers.protocol import Explainer, Output
from disintegrate.plan import Plan, Query, Term
from disintegrate.planner import Proposal, Way
from disintegrate.recover import recover
from disintegrate.rules import rule_named
from disintegrate.softmax import recover_logits

# An output this close to the input, as a share of the ray, is carried there along the tangent.
NEAR = 0.01
# A probability below this has lost digits of its gradient, or will soon: float32 ends at 1e-38.
LEAST = 1e-30


@dataclass(frozen=True, eq=False)
class Tangents:
    """Outputs and gradients of all classes at points, everything flat and in float64.

    Attributes:
        points: as they were sent, rounding included.
        outputs: logits; log-probabilities less their mean over the classes where the service answers probabilities.
        gradients: of these outputs.
    """

    points: Float64[np.ndarray, "n d"]
    outputs: Float64[np.ndarray, "n classes"]
    gradients: Float64[np.ndarray, "n classes d"]

    def __len__(self) -> int:
        return len(self.points)

    def chosen(self, rows: Sequence[int] | np.ndarray) -> Tangents:
        """Some of them."""
        return Tangents(self.points[rows], self.outputs[rows], self.gradients[rows])

    def joined(self, *others: Tangents) -> Tangents:
        """These and others behind them."""
        every = (self, *others)
        return Tangents(
            np.concatenate([one.points for one in every]),
            np.concatenate([one.outputs for one in every]),
            np.concatenate([one.gradients for one in every]),
        )


class Oracle:
    """Asks a service for tangents by a plan: one explanation for each point, class and query of the plan.

    Args:
        explainer: the service, its baseline zero.
        shape: of one input.
        classes: outputs to ask about; two or more where the service answers probabilities.
        plan: how a gradient is asked for; a proposal that is an estimate is weighed by the answers. A plan none of
            whose queries stops at or close to the input gets one more, for the output.

    Raises:
        NotPermitted: one class alone of a service of probabilities.

    Example:
        >>> from torch import nn
        >>> from disintegrate import Capabilities, LocalExplainer, single_step
        >>> service = LocalExplainer(nn.Linear(3, 2), Capabilities(rule="riemann_right"))
        >>> found = Oracle(service, (3,), (0, 1), single_step()).at(np.ones((1, 3)))
        >>> bool(np.allclose(found.gradients[0], service.model.weight.numpy()))
        True
    """

    def __init__(
        self, explainer: Explainer, shape: tuple[int, ...], classes: Sequence[int], plan: Plan | Proposal
    ) -> None:
        self.explainer = explainer
        self.shape = shape
        self.classes = tuple(classes)
        self.plan = plan if isinstance(plan, Proposal) and plan.way is Way.KRIGING else with_output(plan, NEAR)
        self.dtype = np.dtype(explainer.capabilities.dtype or "float32")
        if self._probabilities and len(self.classes) < 2:
            raise NotPermitted(
                "Probabilities tell of differences between classes alone.",
                got=f"class {self.classes[0]}",
                instead="Give two classes or more.",
            )

    @property
    def _probabilities(self) -> bool:
        return self.explainer.capabilities.output is Output.PROBABILITIES

    def at(self, points: Float[np.ndarray, "n d"], classes: Sequence[int] | None = None) -> Tangents:
        """Ask about each point, for all classes or for some.

        Raises:
            BadAnswer: the service tells no outputs.
            BudgetSpent: the budget around the service does not cover it.
        """
        asked = self.classes if classes is None else tuple(classes)
        sent = np.ascontiguousarray(points).reshape(len(points), *self.shape).astype(self.dtype)
        flat = sent.reshape(len(sent), -1).astype(np.float64)
        if self._probabilities:
            outputs, gradients = self._of_probabilities(sent, asked)
        else:
            outputs, gradients = self._of_logits(sent, flat, asked)
        if not np.isfinite(outputs).all():
            raise BadAnswer(
                "The service tells no outputs, or infinite ones.",
                got=f"{int((~np.isfinite(outputs)).sum())} of {outputs.size}",
                instead="Ask closer to the data, or a service that tells the explained output.",
            )
        return Tangents(flat, outputs, gradients)

    def _of_logits(
        self, sent: np.ndarray, flat: np.ndarray, classes: tuple[int, ...]
    ) -> tuple[Float64[np.ndarray, "n classes"], Float64[np.ndarray, "n classes d"]]:
        count = len(classes)
        repeated, targets = np.repeat(sent, count, axis=0), np.tile(np.array(classes), len(sent))
        if isinstance(self.plan, Proposal):
            found = carry_out(self.explainer, repeated, targets, self.plan)
        else:
            found = recover(self.explainer, repeated, targets, self.plan)
        gradients = found.gradient.reshape(len(sent), count, -1)
        stops = np.array([term.query.stop for term in found.plan])
        nearest = int(np.abs(stops - 1).argmin())
        outputs = found.outputs[:, nearest].reshape(len(sent), count)
        # Where no kink lies between, the output at the query's end and the gradient tell the output at the point.
        outputs = outputs - (stops[nearest] - 1) * np.einsum("ncd,nd->nc", gradients, flat)
        return outputs, gradients

    def _of_probabilities(
        self, sent: np.ndarray, classes: tuple[int, ...]
    ) -> tuple[Float64[np.ndarray, "n classes"], Float64[np.ndarray, "n classes d"]]:
        plan = self.plan.plan if isinstance(self.plan, Proposal) else self.plan
        found = recover_logits(self.explainer, sent, classes, plan)
        gradients = found.gradients.reshape(len(sent), len(classes), -1)
        if found.probabilities.min() < LEAST:
            raise BadAnswer(
                "So far out the service is too sure: probabilities underflow.",
                got=f"{found.probabilities.min():.3g}",
                instead="Ask closer to the data.",
            )
        logs = np.log(found.probabilities)
        return logs - logs.mean(1, keepdims=True), gradients - gradients.mean(1, keepdims=True)

    @property
    def stretch(self) -> float:
        """How much further out the input lies than the first node of the plan's queries.

        Raises:
            UnknownName: the service's rule is none of this package's.
        """
        plan = self.plan.plan if isinstance(self.plan, Proposal) else self.plan
        positions = plan.measure(rule_named(self.explainer.capabilities.rule)).positions
        return 1 / float(positions[positions > 0].min())

    @property
    def ahead(self) -> float:
        """How far from an input, as a share of it, the output is told that is carried there along the tangent."""
        plan = self.plan.plan if isinstance(self.plan, Proposal) else self.plan
        return min(abs(term.query.stop - 1) for term in plan)

    @property
    def rounding(self) -> float:
        """What rounding alone does to a gradient, relative to it: the type's, times what the plan cancels."""
        plan = self.plan.plan if isinstance(self.plan, Proposal) else self.plan
        lengths = math.hypot(*(term.coefficient * term.query.length for term in plan))
        wire = self.explainer.capabilities.wire
        return math.hypot(float(np.finfo(self.dtype).eps), wire.relative) * max(1.0, lengths)


def with_output(plan: Plan | Proposal, near: float = 0.0) -> Plan:
    """The plan, with a query of coefficient 0 that stops at the input where none stops so close to it.

    Example:
        >>> from disintegrate.closed_form import single_step, single_step_beyond
        >>> len(with_output(single_step())) == 1 and len(with_output(single_step_beyond())) == 2
        True
    """
    plain = plan.plan if isinstance(plan, Proposal) else plan
    if any(abs(term.query.stop - 1) <= near for term in plain):
        return plain
    fewest = min(term.query.steps for term in plain)
    return Plan([*plain, Term(0.0, Query(0, 1, fewest))], nudge=plain.nudge)
