"""A Captum user's own explainer as a service: their `IntegratedGradients` object, or a function that explains."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from disintegrate.errors import BadAnswer, InvalidValue, NotPermitted, UnknownName
from disintegrate.explainers.protocol import Capabilities, Explanation, Output, Request
from disintegrate.models.factory import called

PREFIX = "captum:"
METHODS = {
    "gausslegendre": "captum_gausslegendre",
    "riemann_left": "captum_riemann_left",
    "riemann_middle": "captum_riemann_middle",
    "riemann_right": "captum_riemann_right",
    "riemann_trapezoid": "captum_riemann_trapezoid",
}
# Inputs that Captum is given at once; it expands each by its steps.
ROWS = 16
# What a function that explains may take, as `IntegratedGradients.attribute` does.
ARGUMENTS = ("inputs", "baselines", "target", "n_steps", "method")


class CaptumExplainer:
    """Asks a Captum explainer what a service with these settings would answer; made by `from_captum`."""

    def __init__(self, explain: Callable[..., Any], model: Callable[..., Any] | None, capabilities: Capabilities,
                 arguments: dict[str, Any], times_inputs: bool) -> None:  # fmt: skip
        self.model = model if isinstance(model, nn.Module) else None
        self._explain = explain
        self._forward = model
        self._capabilities = capabilities
        self._arguments = arguments
        self._times_inputs = times_inputs
        taken = inspect.signature(explain).parameters
        anything = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in taken.values())
        self._taken = ARGUMENTS if anything else tuple(name for name in ARGUMENTS if name in taken)

    @property
    def capabilities(self) -> Capabilities:
        """What a caller may set."""
        return self._capabilities

    def explain(self, request: Request) -> Explanation:
        """Answer a batch as Captum does.

        Raises:
            NotPermitted: steps, a baseline or values that callers may not set.
            BadAnswer: the function answers something else than attributions.
        """
        allowed = self._capabilities
        if request.steps is not None:
            allowed.check_steps(request.steps)
        if request.baselines is not None:
            allowed.check_baselines(request.baselines)
        rows = [slice(first, first + ROWS) for first in range(0, len(request.inputs), ROWS)]
        parts = [self._part(request, part) for part in rows]
        return Explanation(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def _part(self, request: Request, part: slice) -> tuple[np.ndarray, np.ndarray]:
        like = self._like()
        inputs = torch.tensor(request.inputs[part], dtype=like.dtype, device=like.device)
        named = request.baselines if self._capabilities.baseline else None
        baselines = torch.zeros_like(inputs) if named is None else inputs.new_tensor(named[part])
        targets = torch.tensor(request.targets[part], dtype=torch.long, device=like.device)
        outputs = None
        if self._forward is not None:
            with torch.no_grad():
                outputs = self._forward(inputs)
        given = {
            "baselines": baselines,
            "target": None if outputs is not None and outputs.ndim == 1 else targets,
            "n_steps": request.steps or self._capabilities.own_steps,
            **self._arguments,
        }
        try:
            answer = self._explain(inputs, **{name: value for name, value in given.items() if name in self._taken})
        except AssertionError as error:  # so Captum refuses steps that a method does not have
            raise NotPermitted("Captum refuses the question.", got=str(error)[:150]) from None
        if isinstance(answer, tuple) and len(answer) == 2 and outputs is None:
            answer, outputs = answer
        if not isinstance(answer, Tensor) or answer.shape != inputs.shape:
            raise BadAnswer(
                "The Captum explainer did not answer one attribution for each coordinate.",
                got=f"{tuple(answer.shape)} for {tuple(inputs.shape)}" if isinstance(answer, Tensor) else type(answer),
                instead="Return a tensor of the inputs' shape, or a pair of it and the outputs.",
            )
        if not self._times_inputs:
            answer = answer * (inputs - baselines)
        return self._told(outputs, targets), answer.detach().cpu().numpy()

    def _told(self, outputs: Tensor | None, targets: Tensor) -> np.ndarray:
        """The explained output of each input; NaN where none is told."""
        if outputs is None:
            return np.full(len(targets), np.nan)
        chosen = outputs if outputs.ndim == 1 else outputs.gather(1, targets[:, None])[:, 0]
        values: np.ndarray = chosen.detach().cpu().numpy()
        return values

    def _like(self) -> Tensor:
        parameters = self.model.parameters() if self.model is not None else iter(())
        return next(parameters, torch.zeros(1))


def from_captum(
    explainer: object,
    *,
    method: str = "gausslegendre",
    n_steps: int = 50,
    steps: tuple[int, int] | None = None,
    baseline: bool = False,
    output: Output = Output.LOGITS,
) -> CaptumExplainer:
    """A Captum explainer as a service that may be audited, with Captum's own defaults.

    Args:
        explainer: a `captum.attr.IntegratedGradients` object, or a function with such arguments as its `attribute` has
            that returns attributions, or a pair of them and the explained outputs.
        method: Captum's name of the quadrature rule.
        n_steps: the service's own steps.
        steps: the fewest and the most steps that its callers may set; None where they may set none.
        baseline: whether its callers may set a baseline; otherwise it is zero.
        output: what the model answers.

    Raises:
        InvalidValue: something else than a Captum explainer, or steps that leave nothing to ask.
        UnknownName: Captum has no such method.

    Example:
        >>> from captum.attr import IntegratedGradients
        >>> from disintegrate import audit
        >>> model = nn.Sequential(nn.Linear(8, 9), nn.ReLU(), nn.Linear(9, 3)).eval()
        >>> service = from_captum(IntegratedGradients(model), steps=(1, 100))
        >>> x = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
        >>> audit(service, x, np.array([0, 1, 2, 0, 1])).judgement.verdict.value == "leaks"
        True
    """
    if method not in METHODS:
        raise UnknownName("Captum has no such method.", got=repr(method), instead=f"Choose from {', '.join(METHODS)}.")
    fewest, most = steps or (n_steps, n_steps)
    allowed = Capabilities(
        METHODS[method], fewest, most, baseline=baseline, dtype="float32", default_steps=n_steps, output=output
    )
    forward = getattr(explainer, "forward_func", None)
    attribute = getattr(explainer, "attribute", None)
    if forward is not None and attribute is not None:
        times = bool(getattr(explainer, "multiplies_by_inputs", True))
        return CaptumExplainer(attribute, forward, allowed, {"method": method}, times)
    if callable(explainer) and not isinstance(explainer, nn.Module):
        return CaptumExplainer(explainer, None, allowed, {"method": method}, times_inputs=True)
    raise InvalidValue(
        "This is no Captum explainer.",
        got=type(explainer).__name__,
        instead="Give captum.attr.IntegratedGradients(model), or a function that explains.",
    )


def made_by(name: str) -> object:
    """What the user's own function makes that `captum:package.module:function` names; it runs their code.

    Raises:
        UnknownName: there is no such module or function.
        InvalidValue: the name is none, or the function fails.
    """
    return called(name, PREFIX)
