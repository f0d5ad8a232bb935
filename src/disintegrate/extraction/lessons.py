"""What a student learns from: a service's outputs at inputs, and the gradients or raw answers that came with them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn

from disintegrate.errors import BadAnswer
from disintegrate.explainers.protocol import Explainer, Output, Predictor
from disintegrate.extraction.harness import predictor_of
from disintegrate.extraction.tangents import with_output
from disintegrate.plan import Plan
from disintegrate.planner import Proposal
from disintegrate.recover import ask, check_question, recover
from disintegrate.rules import rule_named


class Learnt(Enum):
    """What of the answers a student learns; the value is the word shown."""

    LABELS = "labels"
    PROBABILITIES = "probabilities"
    LOGITS = "logits"
    GRADIENTS = "logits and recovered gradients"
    ANSWERS = "outputs and raw answers"


# What a service that predicts tells without an explanation.
OF_OUTPUTS = (Learnt.LABELS, Learnt.PROBABILITIES, Learnt.LOGITS)


class Head(Enum):
    """What a student's logits are turned into before they are compared."""

    LOGITS = "logits"
    LOG_PROBABILITIES = "log-probabilities"
    LOGIT_DIFFERENCES = "logits less their mean over the explained classes"
    PROBABILITIES = "probabilities"

    def __call__(self, logits: Float[Tensor, "n classes"]) -> Float[Tensor, "n classes"]:
        """The outputs that these logits stand for."""
        if self in (Head.LOGITS, Head.LOGIT_DIFFERENCES):
            return logits
        return logits.log_softmax(1) if self is Head.LOG_PROBABILITIES else logits.softmax(1)


@dataclass(frozen=True, eq=False)
class Lessons:
    """Explanations as a student matches them: a measurement of the gradient for each input and class asked.

    Attributes:
        inputs: the points.
        classes: which outputs were explained at each.
        outputs: logits, log-probabilities where the service answers probabilities, or probabilities.
        measured: the gradients of these outputs, or what the service measured of them along the ray; None for none.
        positions: where on the ray the measurement looks.
        weights: and how it weighs.
        of: what the outputs are.
    """

    inputs: Float[Tensor, "n *shape"]
    classes: Int[Tensor, "n asked"]
    outputs: Float[Tensor, "n asked"]
    measured: Float[Tensor, "n asked *shape"] | None
    positions: tuple[float, ...]
    weights: tuple[float, ...]
    of: Head

    def __len__(self) -> int:
        return len(self.inputs)


def lessons_of(
    explainer: Explainer, inputs: Float[np.ndarray, "n *shape"], classes: Int[np.ndarray, "n asked"],
    plan: Plan | Proposal,
    learnt: Learnt,
) -> Lessons:  # fmt: skip
    """Ask for explanations and make lessons of them, one explanation for each input, class and query of the plan.

    Outputs alone are told by one prediction for each input where the service predicts.

    Of a service of probabilities, `log p_c` and its gradient `grad p_c / p_c` are learnt: unlike those of `p_c` they do
    not fade where the service is sure. Of several classes each is taken less their mean, which leaves the logits'.

    Args:
        explainer: the service; its baseline is zero.
        inputs: the points.
        classes: the outputs to ask about at each.
        plan: how a gradient is asked for; with raw answers its first query alone counts.
        learnt: what of the answers is kept.

    Raises:
        BadAnswer: a probability underflowed, so that nothing can be divided by it.
    """
    asked = classes.shape[1]
    repeated, targets = np.repeat(inputs, asked, axis=0), classes.reshape(-1)
    probabilities = explainer.capabilities.output is Output.PROBABILITIES
    told = predictor_of(explainer) if learnt in OF_OUTPUTS else None
    if learnt is Learnt.ANSWERS:
        answered = _raw(explainer, repeated, targets, plan)
        head = Head.PROBABILITIES if probabilities else Head.LOGITS
    else:
        answered = _recovered(explainer, repeated, targets, plan) if told is None else _predicted(told, inputs, classes)
        answered, head = _of_logits(answered, asked) if probabilities else (answered, Head.LOGITS)
    gradients = None
    if learnt not in OF_OUTPUTS and answered.measured is not None:
        gradients = torch.tensor(answered.measured.reshape(-1, asked, *inputs.shape[1:]), dtype=torch.float32)
    return Lessons(
        torch.tensor(inputs, dtype=torch.float32),
        torch.tensor(classes),
        torch.tensor(answered.outputs.reshape(-1, asked), dtype=torch.float32),
        gradients,
        tuple(answered.positions.tolist()),
        tuple(answered.weights.tolist()),
        head,
    )


@dataclass(frozen=True, eq=False)
class _Answered:
    outputs: Float64[np.ndarray, " rows"]
    measured: Float64[np.ndarray, "rows *shape"] | None
    positions: Float64[np.ndarray, " p"]
    weights: Float64[np.ndarray, " p"]


def _raw(
    explainer: Explainer, inputs: Float[np.ndarray, "rows *shape"], targets: Int[np.ndarray, " rows"],
    plan: Plan | Proposal,
) -> _Answered:  # fmt: skip
    single = Plan([(1.0, with_output(plan).terms[0].query)])
    check_question(explainer.capabilities, single, inputs, targets, None)
    answer = next(ask(explainer, inputs, targets, single))
    measure = single.measure(rule_named(explainer.capabilities.rule))
    return _Answered(answer.output, answer.integral, measure.positions, measure.weights)


def _recovered(
    explainer: Explainer, inputs: Float[np.ndarray, "rows *shape"], targets: Int[np.ndarray, " rows"],
    plan: Plan | Proposal,
) -> _Answered:  # fmt: skip
    found = recover(explainer, inputs, targets, with_output(plan))
    return _Answered(found.output, found.gradient, np.ones(1), np.ones(1))


def _predicted(
    told: Predictor, inputs: Float[np.ndarray, "n *shape"], classes: Int[np.ndarray, "n asked"]
) -> _Answered:
    outputs = np.take_along_axis(np.asarray(told.predict(inputs), np.float64), classes, axis=1)
    return _Answered(outputs.reshape(-1), None, np.ones(1), np.ones(1))


def _of_logits(answered: _Answered, asked: int) -> tuple[_Answered, Head]:
    """Log-probabilities with their gradients, less their mean where several classes were asked about.

    Differences of these are differences of logits: the softmax's sum, common to all, is no lesson.
    """
    outputs, measured = answered.outputs, answered.measured
    if outputs.min() <= 0:
        raise BadAnswer("A probability underflowed.", got=0.0, instead="Ask about likelier classes.")
    if measured is not None:
        measured = measured / outputs.reshape(-1, *[1] * (measured.ndim - 1))
    outputs = np.log(outputs)
    if asked == 1:
        return replace(answered, outputs=outputs, measured=measured), Head.LOG_PROBABILITIES
    if measured is not None:
        measured = _centred(measured.reshape(-1, asked, *measured.shape[1:])).reshape(measured.shape)
    outputs = _centred(outputs.reshape(-1, asked)).reshape(-1)
    return replace(answered, outputs=outputs, measured=measured), Head.LOGIT_DIFFERENCES


@dataclass(frozen=True, eq=False)
class Said:
    """What a student says where its lessons were taught.

    Attributes:
        outputs: of the explained classes at the inputs.
        measured: what the lessons' measurement would say of it, for one mixture of the classes of each input.
    """

    outputs: Float[Tensor, "b asked"]
    measured: Float[Tensor, "b *shape"]


def said_by(
    student: nn.Module, lessons: Lessons, rows: Int[Tensor, " b"], mix: Float[Tensor, "b asked"]
) -> Said:  # fmt: skip
    """Ask a student what the service was asked, by one backward pass for each position on the ray."""
    inputs = lessons.inputs[rows]
    total, outputs = torch.zeros_like(inputs), None
    for position, weight in zip(lessons.positions, lessons.weights, strict=True):
        points = (position * inputs).requires_grad_()
        here = outputs_of(student, lessons, rows, points)
        (gradient,) = torch.autograd.grad((here * mix).sum(), points, create_graph=True)
        total = total + weight * gradient
        outputs = here if position == 1 else outputs
    return Said(outputs_of(student, lessons, rows, inputs) if outputs is None else outputs, total)


def outputs_of(
    student: nn.Module, lessons: Lessons, rows: Int[Tensor, " b"], points: Float[Tensor, "b *shape"]
) -> Float[Tensor, "b asked"]:
    """A student's outputs of the explained classes."""
    outputs = lessons.of(student(points)).gather(1, lessons.classes[rows])
    return outputs - outputs.mean(1, keepdim=True) if lessons.of is Head.LOGIT_DIFFERENCES else outputs


def _centred(values: Float64[np.ndarray, "n asked *shape"]) -> Float64[np.ndarray, "n asked *shape"]:
    return np.asarray(values - values.mean(1, keepdims=True))
