"""What every protocol asks in the end: a question about some inputs, and its answer."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import nn

from disintegrate.errors import InvalidValue, Misuse
from disintegrate.explainers.local import LocalExplainer
from disintegrate.explainers.protocol import Explainer, Output, Request
from disintegrate.explainers.wire import Wire
from disintegrate.explainers.wrappers import Deaf, Wired
from disintegrate.server.engine import Engine
from disintegrate.server.keys import Key
from disintegrate.server.refusals import Refusal, bad
from disintegrate.server.settings import Settings

PREDICT_ROWS = 256


@dataclass(frozen=True, eq=False)
class Question:
    """What a caller asks, whatever the protocol; that the shapes match is checked when it is answered.

    Attributes:
        inputs: the points to explain.
        baselines: where the rays begin, several for each input, whose explanations are averaged; None for the
            service's own.
        targets: the outputs to explain, the same number for each input; None for the largest ones.
        top: how many of the largest, where no targets are named; None for all.
        steps: nodes of the quadrature; None for the service's own number.
    """

    inputs: Float[np.ndarray, "..."]
    baselines: Float[np.ndarray, "..."] | None = None
    targets: Int[np.ndarray, "rows k"] | None = None
    top: int | None = 1
    steps: int | None = None


@dataclass(frozen=True, eq=False)
class Answer:
    """The explanations: for each input and each of its targets, the output and the attributions."""

    targets: Int[np.ndarray, "n k"]
    output: Float[np.ndarray, "n k"]
    attribution: Float[np.ndarray, "n k *shape"]


class Service:
    """A model behind its settings: it checks, counts against budgets, and computes.

    Args:
        model: answers `[n, classes]` logits.
        settings: what is computed and what callers may set.
        own_baseline: where rays without a caller's baseline begin; None for zero.
        device: where to compute.

    Raises:
        UnknownName: no such rule.
        InvalidValue: a device that cannot be used, or a model that does not take inputs of the settings' shape.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: Settings,
        *,
        own_baseline: Float[np.ndarray, "*shape"] | None = None,
        device: str = "cpu",
    ) -> None:
        served = nn.Sequential(model, nn.Softmax(1)) if settings.output is Output.PROBABILITIES else model
        self.settings = settings
        self.capabilities = settings.capabilities(zero_baseline=own_baseline is None or not own_baseline.any())
        dtype = getattr(torch, settings.dtype) if settings.dtype else None
        if dtype is not None:
            served = deepcopy(served).to(dtype)
        local = LocalExplainer(served, self.capabilities, own_baseline=own_baseline, device=device, dtype=dtype)
        explainer: Explainer = local
        self.dtype: np.dtype[np.floating] = np.dtype(local.capabilities.dtype)
        self.own_baseline = own_baseline
        if settings.overrides == "ignore":
            explainer = Deaf(explainer, steps=settings.steps_allowed is None, baseline=not settings.caller_baseline)
        if settings.wire != Wire():
            explainer = Wired(explainer, settings.wire)
        self._model = deepcopy(served).eval().requires_grad_(False).to(device)
        self.engine = Engine(explainer, self._outputs, settings.limits, together=settings.together)
        self.classes = self._classes()

    @property
    def answered(self) -> np.dtype[np.floating]:
        """The type of the numbers in answers: rounded decimals are doubles."""
        wire = self.settings.wire
        if wire.dtype is not None:
            return np.dtype(wire.dtype)
        return self.dtype if wire == Wire() else np.dtype(np.float64)

    async def explain(self, question: Question, key: Key | None) -> Answer:
        """Answer a question, at the cost of one explanation for each input, target and baseline.

        Raises:
            Refusal: the question is wrong, too large or not permitted, the key's budget does not cover it, or the
                service has too much to do.
        """
        self._check(question)
        inputs, shape = question.inputs, question.inputs.shape[1:]
        several = 1 if question.baselines is None else question.baselines.shape[1]
        k = self._outputs_asked(question)
        cost = len(inputs) * k * several
        self._check_size(cost, question.steps)
        if key is not None:
            key.spend(cost)
        try:
            targets = await self._targets(question, k)
            rows = np.repeat(inputs, k * several, axis=0)
            begin = None if question.baselines is None else np.repeat(question.baselines, k, axis=0).reshape(rows.shape)
            answer = await self.engine.explain(
                Request(rows, begin, np.repeat(targets.ravel(), several), question.steps)
            )
        except BaseException:
            if key is not None:
                key.give_back(cost)
            raise
        attribution = answer.attribution.reshape(len(inputs), k, several, *shape)
        output = answer.output.reshape(len(inputs), k, several)[:, :, 0]
        attribution = attribution.mean(axis=2, dtype=np.float64) if several > 1 else attribution[:, :, 0]
        if not (np.isfinite(attribution).all() and np.isfinite(output).all()):
            raise bad("The model answers NaN or infinity for these values. Ask about smaller ones.")
        return Answer(targets, output, attribution)

    async def predict(self, inputs: Float[np.ndarray, "..."]) -> Float[np.ndarray, "n classes"]:
        """All outputs of some inputs, rounded as the wire rounds.

        Raises:
            Refusal: the inputs are wrong or too many, or the service has too much to do.
        """
        self._check(Question(inputs))
        self._check_size(len(inputs), 1)
        outputs = self.settings.wire.round(await self.engine.predict(inputs)).astype(self.answered)
        if not np.isfinite(outputs).all():
            raise bad("The model answers NaN or infinity for these values. Ask about smaller ones.")
        return outputs

    def own_baselines(self, inputs: Float[np.ndarray, "n *shape"]) -> Float[np.ndarray, "n *shape"]:
        """Where the rays of these inputs begin when their caller names no baseline."""
        zero = np.zeros_like(inputs)
        return zero if self.own_baseline is None else (zero + self.own_baseline).astype(inputs.dtype)

    def numbers(self, values: object, what: str) -> Float[np.ndarray, "*shape"]:
        """An array in the service's type out of nested lists.

        Raises:
            Refusal: ragged lists, what is no number, NaN, or a number too large for the type.
        """
        try:
            array = np.asarray(values)
        except (ValueError, TypeError, OverflowError):
            raise bad(f"The {what} must be lists of numbers of equal length.") from None
        if array.ndim == 0 or array.size == 0 or array.dtype.kind not in "fiu":
            raise bad(f"The {what} must be lists of numbers, with at least one.")
        with np.errstate(over="ignore"):
            numbers = array.astype(self.dtype)
        if not np.isfinite(numbers).all():
            raise bad(f"The {what} must be finite {self.dtype.name} numbers.")
        return numbers

    def _outputs_asked(self, question: Question) -> int:
        if question.targets is not None:
            named: int = question.targets.shape[1]
            return named
        most = self.classes if self.settings.top_outputs is None else min(self.classes, self.settings.top_outputs)
        return most if question.top is None else min(question.top, most)

    async def _targets(self, question: Question, k: int) -> Int[np.ndarray, "n k"]:
        limit = self.settings.top_outputs
        if question.targets is not None and limit is None:
            return question.targets
        outputs = await self.engine.predict(question.inputs)
        largest = np.argsort(-outputs, axis=1, kind="stable")
        if question.targets is None:
            return largest[:, :k]
        if not (question.targets[:, :, None] == largest[:, None, :limit]).any(axis=2).all():
            raise bad(f"Only the {limit} largest outputs of an input are explained.")
        return question.targets

    def _check(self, question: Question) -> None:
        inputs, wanted = question.inputs, self.settings.input_shape
        if inputs.ndim < 2:
            raise bad("The inputs must be a list of instances, each a list of numbers.")
        if wanted is not None and inputs.shape[1:] != wanted:
            raise bad(f"Each input must have the shape {list(wanted)}. Got {list(inputs.shape[1:])}.")
        if question.baselines is not None and (
            question.baselines.shape[0] != len(inputs) or question.baselines.shape[2:] != inputs.shape[1:]
        ):
            raise bad("A baseline must have the shape of its input.")
        targets = question.targets
        if targets is not None:
            if len(targets) != len(inputs) or targets.shape[1] == 0:
                raise bad(f"There must be a target for each input. Got {len(targets)} for {len(inputs)} inputs.")
            if targets.min() < 0 or targets.max() >= self.classes:
                raise bad(f"A target must be an output of the model: 0 to {self.classes - 1}.")
        try:
            self._check_permitted(question)
        except Misuse as error:
            raise bad(str(error)) from None

    def _check_permitted(self, question: Question) -> None:
        allowed, refuse = self.capabilities, self.settings.overrides == "refuse"
        allowed.check_values(question.inputs)
        if question.steps is not None and (refuse or self.settings.steps_allowed):
            if self.settings.steps_allowed is None:
                raise bad(f"The service does not let its callers set the steps. It uses {allowed.own_steps}.")
            allowed.check_steps(question.steps)
        if question.baselines is not None and (refuse or allowed.baseline):
            if not allowed.baseline:
                raise bad("The service does not let its callers set the baseline.")
            allowed.check_values(question.baselines)

    def _check_size(self, rows: int, steps: int | None) -> None:
        limits = self.settings.limits
        if rows > limits.rows:
            raise Refusal(413, "size", f"A request may ask for {limits.rows} explanations. Got {rows}.")
        evaluations = rows * (steps or self.capabilities.own_steps)
        if evaluations > limits.evaluations:
            raise Refusal(
                413, "size", f"A request may cost {limits.evaluations} gradients, rows times steps. Got {evaluations}."
            )

    def _outputs(self, inputs: Float[np.ndarray, "n *shape"]) -> Float[np.ndarray, "n classes"]:
        parameter = next(self._model.parameters(), None)
        tensor = torch.from_numpy(np.ascontiguousarray(inputs))
        if parameter is not None:
            tensor = tensor.to(parameter.device, parameter.dtype)
        try:
            with torch.no_grad():
                outputs = torch.cat([self._model(part) for part in tensor.split(PREDICT_ROWS)])
        except RuntimeError:
            raise InvalidValue(
                "The model does not take inputs of this shape.", got=list(inputs.shape[1:]), instead="Give another."
            ) from None
        return np.asarray(outputs.cpu())

    def _classes(self) -> int:
        """How many outputs the model has: asked of the model where the shape is known."""
        if self.settings.input_shape is None:
            raise InvalidValue(
                "The shape of one input is not known.", got="a model without one", instead="Give --input-shape 3,32,32."
            )
        probe = np.zeros((1, *self.settings.input_shape), self.dtype)
        outputs = self._outputs(probe)
        if outputs.ndim != 2:
            raise InvalidValue(
                "The model must answer one row of outputs for each input.",
                got=f"shape {outputs.shape} for one input",
                instead="Wrap it so that it answers [n, classes].",
            )
        return len(outputs[0])
