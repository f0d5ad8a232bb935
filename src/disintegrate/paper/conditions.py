"""Services changed in one thing each, to find what an error comes from."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from disintegrate.explainers import Capabilities, LocalExplainer
from disintegrate.gradients import Rewriting

SERVICE = Capabilities(rule="riemann_right")
# Where the last digit of a sum decides what max pooling passes on, that sum is the model's own.
TIES_AS_THEY_ARE = Rewriting.BEHIND_POOLING


@dataclass(frozen=True)
class Condition:
    """One change to the service or to what it is asked about, with what it isolates.

    Attributes:
        explanation: the change and its meaning, as the page tells them.
        service: makes the service of a model on a device.
        noise: standard deviation of what is added to the inputs.
    """

    explanation: str
    service: Callable[[nn.Module, str], LocalExplainer]
    noise: float = 0.0


class DoubleInside(nn.Module):
    """A float32 service around a model that computes in float64."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.double()

    def forward(self, inputs: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        """Widen, compute, narrow."""
        outputs: Tensor = self.model(inputs.double())
        return outputs.to(inputs.dtype)


class RoundedPoints(nn.Module):
    """A float64 service that looks at the points a float32 service would: rounded, gradients passed through."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.double()

    def forward(self, inputs: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        """Round the input to float32 and compute in float64."""
        outputs: Tensor = self.model(inputs + (inputs.float().double() - inputs).detach())
        return outputs


class Untied(nn.Module):
    """The model behind a fixed pattern of 1e-3 that is added to its input, so that no two patches are equal."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        """Add the pattern, the same for every input and every point."""
        generator = torch.Generator().manual_seed(0)
        pattern = 1e-3 * torch.randn(inputs.shape[1:], generator=generator, dtype=torch.float64)
        outputs: Tensor = self.model(inputs + pattern.to(inputs))
        return outputs


def random_last_digit(model: nn.Module) -> nn.Module:
    """Give every convolution's output a relative error of 2^-24 at random, as reordered float32 sums have.

    On one machine equal patches of an image get equal outputs, so max pooling over a constant background
    ties exactly and autograd settles every tie alike. Where the order of summation hangs on the position (as
    in Winograd or FFT convolutions on a GPU) the last digit decides instead, and anew for each point.
    """

    def disturb(module: nn.Module, arguments: object, output: Tensor) -> Tensor:
        # Seeded by the content, so that a run which is killed and goes on draws the same digits.
        generator = torch.Generator().manual_seed(zlib.crc32(output.detach().cpu().numpy().tobytes()))
        return output * (1 + 2**-24 * torch.randn(output.shape, generator=generator).to(output))

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(disturb)
    return model


def as_served(model: nn.Module, device: str, rewriting: Rewriting = Rewriting.ALL) -> LocalExplainer:
    """The service of the tables: float32, right Riemann sum."""
    return LocalExplainer(model, SERVICE, device=device, dtype=torch.float32, rewriting=rewriting)


def _wide(model: nn.Module, device: str) -> LocalExplainer:
    return LocalExplainer(model.double(), SERVICE, device=device, rewriting=TIES_AS_THEY_ARE)


def _with_softmax(model: nn.Module) -> nn.Module:
    return nn.Sequential(model, nn.Softmax(dim=1))


CONDITIONS: dict[str, Condition] = {
    "as_served": Condition("float32 throughout, as in the tables", as_served),
    "float64_model": Condition(
        "the model in float64, the service's points and sums in float32: without the rounding inside the model",
        lambda model, device: as_served(DoubleInside(model), device, TIES_AS_THEY_ARE),
    ),
    "float64_sums": Condition(
        "model and sums in float64, inputs and points still rounded to float32: without cancellation, so that what is "
        "left are kinks and ties between the points of the two queries, which rounding sets apart",
        lambda model, device: LocalExplainer(
            RoundedPoints(model), replace(SERVICE, dtype="float32"), device=device, rewriting=TIES_AS_THEY_ARE
        ),
    ),
    "float64": Condition(
        "float64 throughout: the two queries' points differ in the sixteenth digit; what is left are kinks, quadrature "
        "and ties, which even that digit decides",
        _wide,
    ),
    "untied": Condition(
        "float32, a fixed pattern of 1e-3 added to every input inside the model: no exact ties in max pooling",
        lambda model, device: as_served(Untied(model), device),
    ),
    "untied_float64": Condition(
        "the same in float64: neither rounding nor ties; what is left is the plan's own error, kinks and quadrature",
        lambda model, device: _wide(Untied(model), device),
    ),
    "noisy_inputs": Condition(
        "float32, noise of 1e-3 on every pixel of the normalised inputs: no ties but at the baseline", as_served, 1e-3
    ),
    "noisy_inputs_float64": Condition("the same inputs in float64", _wide, 1e-3),
    "random_last_digit": Condition(
        "float32, the last digit of every convolution's output at random: ties in max pooling settled at random",
        lambda model, device: as_served(random_last_digit(model), device),
    ),
    "softmax": Condition(
        "float32, probabilities instead of logits: a softmax left on",
        lambda model, device: as_served(_with_softmax(model), device),
    ),
    "softmax_float64": Condition(
        "float64, probabilities instead of logits",
        lambda model, device: _wide(_with_softmax(model), device),
    ),
}


def conditions_for(network: str) -> tuple[str, ...]:
    """The conditions worth a look: ties only where there is pooling, softmax where the paper fails.

    A pattern added to the input is a bias, so networks without biases are not untied by it.
    """
    names = ["as_served", "float64_model", "float64_sums", "float64"]
    if not network.startswith("TwoLayerNet"):
        names += [] if network.endswith("nobias") else ["untied", "untied_float64"]
        names += ["noisy_inputs", "noisy_inputs_float64", "random_last_digit"]
    if network == "ResNet18":
        names += ["softmax", "softmax_float64"]
    return tuple(names)
