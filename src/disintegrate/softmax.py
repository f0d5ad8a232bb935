"""From answers about probabilities to the gradients of the logits behind the softmax.

Differences of logits are all that probabilities tell: adding one function to every logit changes nothing. With
`p = softmax(z)`, `dp_c/dz_j = p_c (delta_cj - p_j)`. Whatever a plan of measure `mu` sums up of the answers for
class c is therefore, wherever the gradients `G_j` of the logits are constant on the piece of the ray that it measures,

    A_c = sum_j J_cj G_j,    J_cj = sum_a mu_a p_c(t_a) (delta_cj - p_j(t_a))                                     (J)

For `mu = delta_1` that is one point, and the inverse is in closed form: `A_c / p_c - A_k / p_k = G_c - G_k`, for every
differentiable model and for as few classes as one likes. For other measures the ray must not leave one
linear region there. Then the logits are affine in t, so `log p` is too but for a constant common to all classes:
two outputs give `p` at every atom, `J` is known in the service's own quadrature, and the answers of all classes
are a linear system of rank classes - 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from disintegrate.errors import BadAnswer, InvalidValue, NotPermitted
from disintegrate.explainers.protocol import Capabilities, Explainer, Output
from disintegrate.explainers.wire import BINARY_ROUNDING
from disintegrate.logit_system import (
    affine_logs,
    applied,
    condition_number,
    diagonal_inverse,
    disagreement_with,
    doubt_of,
    grounded_inverse,
    magnitudes_of,
    softmax_at,
    softmax_jacobian,
)
from disintegrate.measure import Exactness
from disintegrate.nudge import moved_inputs
from disintegrate.plan import Plan, Query, Term
from disintegrate.recover import recover
from disintegrate.rules import rule_named

# Ten probabilities of two decimals miss 1 by as much at most.
SUM_TOLERANCE = 0.05


@dataclass(frozen=True, eq=False)
class LogitDifference:
    """The gradient of one logit minus another's, and what it would take to spoil it.

    Attributes:
        gradient: `grad z_c - grad z_k`; 0 where it was not observed.
        amplification: what noise on the summed answers is multiplied by: `sqrt(1 / p_c^2 + 1 / p_k^2)` for a plan of
            measure delta_1.
        conditioning: relative error of the gradient for each unit of relative rounding of the answers; infinite where a
            probability underflowed.
        predicted_error: the conditioning times the relative rounding of the answers.
    """

    gradient: Float64[np.ndarray, "n *shape"]
    amplification: Float64[np.ndarray, " n"]
    conditioning: Float64[np.ndarray, " n"]
    predicted_error: Float64[np.ndarray, " n"]


@dataclass(frozen=True, eq=False)
class LogitGradients:
    """Gradients of logits up to one vector common to all: only their differences mean something.

    Attributes:
        classes: the outputs that were asked about; the second axis of all that follows.
        gradients: for each input and class, the gradient of its logit plus that common vector.
        observed: coordinates that some query tells of.
        probabilities: those of the classes at the inputs, as answered.
        inverse: what the summed answers are multiplied by, a generalised inverse of J.
        magnitudes: for each class, what rounding is relative to: the norms of what was summed, as in `Recovery`, and
            of what the rounded probabilities multiply.
        condition: for each input, the condition number of J where the gradients sum to zero. It is about noise of one
            size for all classes; rounding is relative to each class's answer, which `LogitDifference` accounts for.
        disagreement: how far the gradients miss the change of the log-probabilities between two outputs,
            relative to it; large where a kink lies in between. NaN where the plan has one output alone.
        relative_rounding: that of the answers, root mean square.
        smallest: the smallest normal number of the answers' type.
        queries: queries spent, over all inputs and classes.
    """

    classes: tuple[int, ...]
    gradients: Float64[np.ndarray, "n classes *shape"]
    observed: Bool[np.ndarray, "n *shape"]
    probabilities: Float64[np.ndarray, "n classes"]
    inverse: Float64[np.ndarray, "n classes classes"]
    magnitudes: Float64[np.ndarray, "n classes"]
    condition: Float64[np.ndarray, " n"]
    disagreement: Float64[np.ndarray, " n"]
    relative_rounding: float
    smallest: float
    queries: int

    def difference(self, first: int | Int[np.ndarray, " n"], second: int | Int[np.ndarray, " n"]) -> LogitDifference:
        """The gradient of one logit minus another's, one pair of classes for all inputs or one for each.

        Raises:
            InvalidValue: a class that was not asked about.
        """
        rows = np.arange(len(self.gradients))
        c, k = (self._places(given) for given in (first, second))
        gradient = self.gradients[rows, c] - self.gradients[rows, k]
        weights = self.inverse[rows, c] - self.inverse[rows, k]
        # Below the smallest normal number digits go missing: rounding is relative to that number then.
        with np.errstate(divide="ignore", invalid="ignore"):
            coarser = np.where(self.probabilities > 0, np.maximum(1, self.smallest / self.probabilities), np.inf)
            spoilt = np.sqrt(np.sum((np.abs(weights) * self.magnitudes * coarser) ** 2, axis=1, where=weights != 0))
            conditioning = np.where(c == k, 0.0, spoilt / np.linalg.norm(gradient.reshape(len(rows), -1), axis=1))
        return LogitDifference(
            gradient=gradient,
            amplification=np.linalg.norm(weights, axis=1),
            conditioning=np.where(np.isnan(conditioning), np.inf, conditioning),
            predicted_error=np.where(np.isnan(conditioning), np.inf, conditioning * self.relative_rounding),
        )

    def _places(self, given: int | Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        wanted = np.broadcast_to(given, len(self.gradients))
        if not np.isin(wanted, self.classes).all():
            raise InvalidValue(
                "This class was not asked about.",
                got=sorted(set(wanted.tolist()) - set(self.classes)),
                instead=f"Choose from {list(self.classes)}.",
            )
        order = np.argsort(self.classes)
        return order[np.searchsorted(np.array(self.classes)[order], wanted)]


def recover_logits(
    explainer: Explainer,
    inputs: Float[np.ndarray, "n *shape"],
    classes: Sequence[int],
    plan: Plan,
    *,
    baselines: Float[np.ndarray, "n *shape"] | None = None,
    relative_rounding: float | None = None,
) -> LogitGradients:
    """Ask a service of probabilities a plan for several classes, and undo the softmax by equation (J).

    A plan of measure delta_1 is exact for every differentiable model, for two classes or more; any other is exact
    where the model has no kink on the piece of the ray that it measures, and needs all classes. Outputs that it
    lacks (at the input; at a second point of the piece) are asked for, with a coefficient of 0, and counted.

    Saturation alone does not spoil the differences: an answer about `p_k = 1e-20` has as many digits as any other, so
    with nothing cancelled they are as exact as the arithmetic until `p_k` underflows, although the gradient of `p_c`
    itself is lost as soon as `1 - p_c` is. What spoils them is whatever does not shrink with `p_k`: cancellation in
    the plan's sum, decimals, noise. `LogitDifference` tells which.

    Args:
        explainer: the service; its capabilities say that its outputs are probabilities.
        inputs: points where the gradients are wanted.
        classes: outputs to ask about, at least two; all of them unless the plan's measure is delta_1.
        plan: the queries and their coefficients.
        baselines: where the rays begin; None for zero.
        relative_rounding: of the answers, root mean square; None for what the wire and its type say.

    Raises:
        NotPermitted: the service answers logits, or does not allow what the plan needs.
        InvalidValue: fewer than two classes, one twice, or arrays that do not match.
        BadAnswer: what the service answered are no probabilities, or not those of all classes.

    Example:
        >>> from torch import nn
        >>> from disintegrate.closed_form import single_step
        >>> from disintegrate.explainers import LocalExplainer
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.Softmax(dim=1)).double()
        >>> service = LocalExplainer(model, Capabilities(rule="riemann_right", output=Output.PROBABILITIES))
        >>> found = recover_logits(service, np.ones((1, 3)), (0, 2), single_step()).difference(0, 2)
        >>> weight = model[0].weight.detach().numpy()
        >>> bool(np.allclose(found.gradient, weight[0] - weight[2]))
        True
    """
    chosen = _checked_classes(explainer.capabilities, classes)
    measure = plan.measure(rule_named(explainer.capabilities.rule))
    at_input = measure.exactness is Exactness.EVERY_MODEL
    asked = _with_outputs(plan, 1 if at_input else 2)
    found = [recover(explainer, inputs, np.full(len(inputs), c), asked, baselines=baselines) for c in chosen]
    outputs = np.stack([recovery.outputs for recovery in found], axis=1)
    _check_probabilities(outputs, whole=not at_input)
    stops = np.array([term.query.stop for term in asked])
    here: Float64[np.ndarray, "n classes"] = outputs[:, :, list(stops).index(1)]
    flat = np.stack([recovery.gradient for recovery in found], axis=1).reshape(*here.shape, -1)
    if at_input:
        jacobian = here[:, :, None] * (np.eye(len(chosen)) - here[:, None])
        inverse = diagonal_inverse(here)
        gradients, doubt, disagreement = applied(inverse, flat), np.zeros_like(here), np.full(len(inputs), np.nan)
    else:
        logs, slopes, ends = affine_logs(stops, outputs)
        jacobian = softmax_jacobian(softmax_at(measure.positions, logs, slopes, ends[0]), measure.weights)
        inverse = grounded_inverse(jacobian)
        gradients = applied(inverse, flat)
        begin = np.zeros_like(inputs) if baselines is None else baselines
        ray = (moved_inputs(plan, explainer.capabilities, inputs, begin) - begin).reshape(len(inputs), -1)
        doubt = doubt_of(here, measure.positions, ends)
        disagreement = disagreement_with(slopes, gradients, ray, here)
    return LogitGradients(
        classes=chosen,
        gradients=gradients.reshape(*here.shape, *inputs.shape[1:]),
        observed=found[0].observed,
        probabilities=here,
        inverse=inverse,
        magnitudes=magnitudes_of(
            np.stack([recovery.magnitude for recovery in found], axis=1), jacobian, gradients, doubt
        ),
        condition=condition_number(jacobian),
        disagreement=disagreement,
        relative_rounding=_rounding(explainer.capabilities, inputs) if relative_rounding is None else relative_rounding,
        smallest=_smallest(explainer.capabilities, inputs),
        queries=sum(recovery.queries for recovery in found),
    )


def _checked_classes(capabilities: Capabilities, classes: Sequence[int]) -> tuple[int, ...]:
    if capabilities.output is not Output.PROBABILITIES:
        raise NotPermitted(
            "The service answers logits, whose gradients need no softmax undone.",
            got=f"output {capabilities.output.value}",
            instead="Use recover, or say Capabilities(output=Output.PROBABILITIES) if it answers probabilities.",
        )
    chosen = tuple(int(c) for c in classes)
    if len(chosen) < 2 or len(set(chosen)) < len(chosen):
        raise InvalidValue(
            "Differences of logits need two different classes or more.",
            got=list(chosen),
            instead="Give the classes to ask about, such as range(10).",
        )
    return chosen


def _with_outputs(plan: Plan, points: int) -> Plan:
    """The plan, and queries of coefficient 0 so that some query stops at the input, and some at so many points."""
    terms, fewest = list(plan), min(term.query.steps for term in plan)
    if all(term.query.stop != 1 for term in terms):
        terms.append(Term(0.0, Query(0, 1, fewest)))
    if len({term.query.stop for term in terms}) < points:
        begin = plan.terms[0].query.start
        terms.append(Term(0.0, Query(0, begin if begin not in (0, 1) else 0.5, fewest)))
    return Plan(terms, nudge=plan.nudge)


def _check_probabilities(outputs: Float64[np.ndarray, "n classes queries"], *, whole: bool) -> None:
    if not ((outputs >= 0) & (outputs <= 1 + SUM_TOLERANCE)).all():
        raise BadAnswer(
            "The service answered outputs that are no probabilities.",
            got=f"{outputs.min():.6g} to {outputs.max():.6g}",
            instead="Use recover where its outputs are logits.",
        )
    sums = outputs.sum(1)
    if (sums > 1 + SUM_TOLERANCE).any() or (whole and (sums < 1 - SUM_TOLERANCE).any()):
        raise BadAnswer(
            "The probabilities of all classes must sum to 1.",
            got=f"sums from {sums.min():.6g} to {sums.max():.6g}",
            instead="Give all the service's classes, or a plan whose measure is delta_1, such as single_step().",
        )


def _rounding(capabilities: Capabilities, inputs: Float[np.ndarray, "n *shape"]) -> float:
    computed = BINARY_ROUNDING * float(np.finfo(capabilities.dtype or inputs.dtype).eps)
    return math.hypot(computed, capabilities.wire.relative)


def _smallest(capabilities: Capabilities, inputs: Float[np.ndarray, "n *shape"]) -> float:
    answered = capabilities.wire.dtype or capabilities.dtype or inputs.dtype
    return float(np.finfo(answered).smallest_normal)
