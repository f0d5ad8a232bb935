"""Why a cell is what it is: the same plans on the same images with one thing changed at a time."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from disintegrate.explainers import Capabilities, LocalExplainer
from disintegrate.metrics import summarise
from disintegrate.paper.experiments import TABLES, measure, methods_for, provenance
from disintegrate.paper.mnist import Digits
from disintegrate.paper.records import Evidence
from disintegrate.paper.store import Recipe, TrainedNetwork
from disintegrate.paper.training import train
from disintegrate.paper.units import Units
from disintegrate.progress import SILENT, Progress

SERVICE = Capabilities(rule="riemann_right")
OTHER_EPOCHS = {"TwoLayerNet": (1, 16), "LeNet_nobias": (1,), "LeNet": (1, 12), "ResNet18": (2,)}


@dataclass(frozen=True)
class Condition:
    """One change to the service, with what it isolates."""

    explanation: str
    service: Callable[[nn.Module, str], LocalExplainer]


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


def _served(model: nn.Module, device: str) -> LocalExplainer:
    return LocalExplainer(model, SERVICE, device=device, dtype=torch.float32)


def _with_softmax(model: nn.Module) -> nn.Module:
    return nn.Sequential(model, nn.Softmax(dim=1))


CONDITIONS: dict[str, Condition] = {
    "as_served": Condition("float32 throughout, as in the tables", _served),
    "float64_model": Condition(
        "the model in float64, the service's points and sums in float32: without the rounding inside the model",
        lambda model, device: _served(DoubleInside(model), device),
    ),
    "float64_sums": Condition(
        "model and sums in float64, inputs and points still rounded to float32: without cancellation, so that what is "
        "left are kinks and ties between the points of the two queries, which rounding sets apart",
        lambda model, device: LocalExplainer(RoundedPoints(model), replace(SERVICE, dtype="float32"), device=device),
    ),
    "float64": Condition(
        "float64 throughout: the two queries' points differ in the sixteenth digit; what is left are kinks, quadrature "
        "and ties, which even that digit decides",
        lambda model, device: LocalExplainer(model.double(), SERVICE, device=device),
    ),
    "untied": Condition(
        "float32, a fixed pattern of 1e-3 added to every input inside the model: no exact ties in max pooling",
        lambda model, device: _served(Untied(model), device),
    ),
    "untied_float64": Condition(
        "the same in float64: neither rounding nor ties; what is left is the plan's own error, kinks and quadrature",
        lambda model, device: LocalExplainer(Untied(model).double(), SERVICE, device=device),
    ),
    "random_last_digit": Condition(
        "float32, the last digit of every convolution's output at random: ties in max pooling settled at random",
        lambda model, device: _served(random_last_digit(model), device),
    ),
    "softmax": Condition(
        "float32, probabilities instead of logits: a softmax left on",
        lambda model, device: _served(_with_softmax(model), device),
    ),
    "softmax_float64": Condition(
        "float64, probabilities instead of logits",
        lambda model, device: LocalExplainer(_with_softmax(model).double(), SERVICE, device=device),
    ),
}


def conditions_for(network: str) -> tuple[str, ...]:
    """The conditions worth a look: ties only where there is pooling, softmax where the paper fails."""
    names = ["as_served", "float64_model", "float64_sums", "float64"]
    if not network.startswith("TwoLayerNet"):
        names += ["untied", "untied_float64", "random_last_digit"]
    if network == "ResNet18":
        names += ["softmax", "softmax_float64"]
    return tuple(names)


def gather(
    trained: TrainedNetwork, digits: Digits, units: Units, *, device: str = "cpu", progress: Progress = SILENT
) -> list[Evidence]:
    """Measure the paper's own methods on one network under every condition, and equation (3) with finer steps.

    Raises:
        DamagedFile: a stored unit cannot be read.
    """
    network = trained.record.recipe.network
    own = _own_methods(network)
    found = [
        evidence
        for name in conditions_for(network)
        for evidence in _under(name, CONDITIONS[name], own, trained, digits, units, device, progress)
    ]
    if "shared_piece" in own:
        finer = Condition(
            "float32 as served, but 500 steps in both queries: nearer to the integral of theorem 3.3", _served
        )
        fine = {"shared_piece_fine": own["shared_piece"]}
        found += _under("steps_500", finer, fine, trained, digits.first(100), units, device, progress)
    return found


def gather_trainings(
    trained: TrainedNetwork,
    training: Digits,
    test: Digits,
    digits: Digits,
    units: Units,
    models: Path,
    *,
    device: str = "cpu",
    progress: Progress = SILENT,
) -> list[Evidence]:
    """Measure the same methods on the same network trained for fewer and for more epochs."""
    found = []
    recipe = trained.record.recipe
    for epochs in OTHER_EPOCHS.get(recipe.network, ()):
        other: Recipe = recipe.model_copy(update={"epochs": epochs})
        again = train(other, training, test, models, device=device, progress=progress)
        condition = Condition(
            f"float32 as served, but trained for {epochs} epochs (test accuracy {again.record.accuracy:.2%})",
            _served,
        )
        found += _under(
            f"epochs_{epochs}",
            condition,
            _own_methods(recipe.network),
            again,
            digits,
            units,
            device,
            progress,
        )
    return found


def _own_methods(network: str) -> dict[str, str]:
    return {method: table for method, table in methods_for(network).items() if table in TABLES}


def _under(
    name: str,
    condition: Condition,
    methods: dict[str, str],
    trained: TrainedNetwork,
    digits: Digits,
    units: Units,
    device: str,
    progress: Progress,
) -> list[Evidence]:

    # A condition changes the model it is given, so it gets a copy.
    explainer = condition.service(deepcopy(trained.model), device)
    measured = measure(explainer, trained, digits, tuple(methods), units, condition=name, progress=progress)
    return [
        Evidence(
            table=table,
            method=method,
            condition=name,
            explanation=condition.explanation,
            measured=summarise(measured[f"{method}.distance"]),
            provenance=provenance(trained, digits, device=device, dtype=str(explainer.dtype).removeprefix("torch.")),
            seconds=float(measured["seconds"].sum()),
        )
        for method, table in methods.items()
    ]
