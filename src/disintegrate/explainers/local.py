"""The explanation service that runs in this process: a torch model and a quadrature rule."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from disintegrate.errors import InvalidValue
from disintegrate.explainers.protocol import Capabilities, Explanation, Request
from disintegrate.gradients import DEFAULT_MEMORY, Prepared, Rewriting, integrated_gradients, prepare
from disintegrate.rules import rule_named


class LocalExplainer:
    """Integrated Gradients of a torch model, as a service answers them.

    Every request is computed from its own inputs in the model's dtype. What is kept between requests is the model made
    ready for inputs of one shape.

    Args:
        model: answers `[n, classes]`; a copy in eval mode is used, the caller's is left as it is.
        capabilities: the service's rule, and what its callers may set.
        device: where to compute, such as "cpu" or "cuda".
        dtype: the service's arithmetic; None for that of the model's parameters.
        own_baseline: where the ray of a request without a baseline begins, for one input; None for zero.
        memory: bytes that a tile's activations may take, roughly.
        rewriting: how much of the model may be rewritten into one that computes the same faster.
        measuring: whether to spend a second on the best layout and tile. What is best hangs on the moment, and so do
            the last digits of the answers then; without it they are the same in every run.

    Raises:
        UnknownName: the capabilities name no rule of this package.
        InvalidValue: the device cannot be used.

    Example:
        >>> import numpy as np
        >>> explainer = LocalExplainer(nn.Linear(3, 1), Capabilities(rule="riemann_right"))
        >>> x = np.ones((1, 3), np.float32)
        >>> answer = explainer.explain(Request(x, 0 * x, np.array([0]), steps=8))
        >>> bool(np.isclose(answer.attribution.sum(), answer.output - explainer.model.bias.item()))
        True
    """

    def __init__(
        self,
        model: nn.Module,
        capabilities: Capabilities,
        *,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
        own_baseline: Float[np.ndarray, "*shape"] | None = None,
        memory: int = DEFAULT_MEMORY,
        rewriting: Rewriting = Rewriting.ALL,
        measuring: bool = False,
    ) -> None:
        self.rule = rule_named(capabilities.rule)
        self.device = usable_device(device)
        self.memory = memory
        self.rewriting = rewriting
        self.measuring = measuring
        self.own_baseline = own_baseline
        self._prepared: dict[tuple[int, ...], Prepared] = {}
        self.model = deepcopy(model).eval().requires_grad_(False).to(self.device)
        self.dtype = dtype or next((p.dtype for p in self.model.parameters()), torch.float32)
        self._capabilities = replace(capabilities, dtype=capabilities.dtype or str(self.dtype).removeprefix("torch."))

    @property
    def capabilities(self) -> Capabilities:
        """What a caller may set."""
        return self._capabilities

    def explain(self, request: Request) -> Explanation:
        """Answer a batch by equation (1).

        Raises:
            NotPermitted: steps or values outside the bounds, or a baseline where callers may set none.
            InvalidValue: shapes that do not match, NaN, or a target that the model lacks.
        """
        allowed = self.capabilities
        if request.steps is not None:
            allowed.check_steps(request.steps)
        if request.baselines is not None:
            allowed.check_baselines(request.baselines)
            allowed.check_values(request.baselines)
        allowed.check_values(request.inputs)
        inputs = torch.tensor(request.inputs, dtype=self.dtype, device=self.device)
        baselines = self._baselines(request)
        targets = torch.tensor(request.targets, dtype=torch.long, device=self.device)
        quadrature = self.rule(request.steps or allowed.own_steps)
        ready = self.prepared(inputs, targets)
        attribution = integrated_gradients(ready, inputs, baselines, targets, quadrature)
        with torch.no_grad():
            output = torch.cat([self.model(part) for part in inputs.split(256)]).gather(1, targets[:, None])[:, 0]
        return Explanation(np.asarray(output.cpu()), np.asarray(attribution.cpu()))

    def predict(self, inputs: Float[np.ndarray, "n *shape"]) -> Float[np.ndarray, "n classes"]:
        """Answer a batch with all outputs.

        Raises:
            NotPermitted: values outside the bounds.
        """
        self.capabilities.check_values(inputs)
        given = torch.tensor(inputs, dtype=self.dtype, device=self.device)
        with torch.no_grad():
            return np.asarray(torch.cat([self.model(part) for part in given.split(256)]).cpu())

    def prepared(self, inputs: Float[Tensor, "n *shape"], targets: Int[Tensor, " n"]) -> Prepared:
        """The model made ready for inputs of this shape; its `path` says how gradients are computed.

        Raises:
            InvalidValue: shapes that do not match, NaN in an input, a target that the model does not have.
        """
        shape = tuple(inputs.shape[1:])
        if shape not in self._prepared:
            self._prepared[shape] = prepare(
                self.model, inputs, targets, memory=self.memory, rewriting=self.rewriting, measuring=self.measuring
            )
        return self._prepared[shape]

    def _baselines(self, request: Request) -> Float[Tensor, "n *shape"]:
        named = request.baselines
        if named is None or not self.capabilities.baseline:
            named = np.zeros_like(request.inputs)
            if self.own_baseline is not None:
                named = named + self.own_baseline.astype(named.dtype)
        return torch.tensor(named, dtype=self.dtype, device=self.device)


def usable_device(name: str) -> torch.device:
    """Turn a name into a device that works here.

    Raises:
        InvalidValue: there is no such device on this machine.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0][:100]
        raise InvalidValue("The device cannot be used here.", got=f"{name!r} ({reason})", instead="Use cpu.") from None
    return device
