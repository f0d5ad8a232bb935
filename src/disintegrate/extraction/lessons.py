"""What a student learns from: a service's outputs at inputs, and the gradients or raw answers that came with them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn

from disintegrate.errors import BadAnswer
from disintegrate.explainers.protocol import Explainer, Output
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
    if learnt is Learnt.ANSWERS:
        single = Plan([(1.0, with_output(plan).terms[0].query)])
        check_question(explainer.capabilities, single, repeated, targets, None)
        answer = next(ask(explainer, repeated, targets, single))
        outputs, measured = answer.output, answer.integral
        measure = single.measure(rule_named(explainer.capabilities.rule))
        positions, weights = measure.positions, measure.weights
        head = Head.PROBABILITIES if probabilities else Head.LOGITS
    else:
        found = recover(explainer, repeated, targets, with_output(plan))
        outputs, measured = found.output, found.gradient
        positions, weights = np.ones(1), np.ones(1)
        head = Head.LOGITS
        if probabilities:
            if outputs.min() <= 0:
                raise BadAnswer("A probability underflowed.", got=0.0, instead="Ask about likelier classes.")
            spread = outputs.reshape(-1, *[1] * (inputs.ndim - 1))
            outputs, measured, head = np.log(outputs), measured / spread, Head.LOG_PROBABILITIES
            if asked > 1:
                # Differences of these are differences of logits: the softmax's sum, common to all, is no lesson.
                head = Head.LOGIT_DIFFERENCES
                outputs = _centred(outputs.reshape(-1, asked))
                measured = _centred(measured.reshape(-1, asked, *inputs.shape[1:]))
    kept = learnt in (Learnt.GRADIENTS, Learnt.ANSWERS)
    shape = inputs.shape[1:]
    return Lessons(
        torch.tensor(inputs, dtype=torch.float32),
        torch.tensor(classes),
        torch.tensor(outputs.reshape(-1, asked), dtype=torch.float32),
        torch.tensor(measured.reshape(-1, asked, *shape), dtype=torch.float32) if kept else None,
        tuple(positions.tolist()),
        tuple(weights.tolist()),
        head,
    )


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
