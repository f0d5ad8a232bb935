"""Explanation services drawn from a seed, with what is true of each: the population on which the probe is measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from disintegrate import Capabilities, Explainer, Explanation, LocalExplainer, NotPermitted, Request, Wire, Wired
from disintegrate.paper import mnist
from disintegrate.paper.training import recipe, train
from disintegrate.rules import PRESETS, RULES

MODELS = Path(__file__).parents[1] / "results" / "reproduction" / "models"
NETWORKS = ("TwoLayerNet", "LeNet", "relu", "deep relu", "max-pool", "residual")
DIGITS = ("exact", "3 digits", "4 digits", "5 digits", "6 digits", "7 digits", "float16")
OVERRIDES = ("honoured", "ignored", "refused")
BASELINES = ("zero", "mean", "random")
MOST_STEPS = 200
EXAMPLES = 4


@dataclass(frozen=True)
class Truth:
    """What is true of a drawn service."""

    seed: int
    network: str
    rule: str
    steps: int
    baseline: str
    softmax: bool
    digits: str
    steps_override: str
    baseline_override: str

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Service:
    """A drawn service, with the inputs of a caller."""

    explainer: Explainer
    inputs: Float[np.ndarray, "n *shape"]
    targets: np.ndarray
    baseline: Float[np.ndarray, "*shape"]


class Hidden:
    """A service that says nothing of itself, counts its queries, and honours, ignores or refuses what callers set."""

    capabilities = Capabilities(rule="", dtype="float32")

    def __init__(self, explainer: Explainer, steps: str, baseline: str) -> None:
        self._explainer = explainer
        self._steps = steps
        self._baseline = baseline
        self.queries = 0

    def explain(self, request: Request) -> Explanation:
        """Count the rows, refused or not, and pass on what is honoured."""
        self.queries += len(request.inputs)
        for given, mode in ((request.steps, self._steps), (request.baselines, self._baseline)):
            if given is not None and mode == "refused":
                raise NotPermitted("The service does not take this.")
        steps = request.steps if self._steps == "honoured" else None
        baselines = request.baselines if self._baseline == "honoured" else None
        return self._explainer.explain(Request(request.inputs, baselines, request.targets, steps))


class Residual(nn.Module):
    """A block with a shortcut around it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Add the block's answer to its input."""
        out: Tensor = x + self.inner(x)
        return out


def draw(seed: int, number: int) -> Truth:
    """Draw what is true of one service."""
    generator = np.random.default_rng([seed, number])
    rule = str(generator.choice(sorted(RULES)))
    steps = round(float(np.exp(generator.uniform(np.log(2), np.log(MOST_STEPS)))))
    if generator.random() < 1 / 4:
        preset = list(PRESETS.values())[generator.integers(len(PRESETS))]
        rule, steps = preset.rule, preset.steps
    return Truth(
        seed=int(generator.integers(2**31)),
        network=str(generator.choice(NETWORKS)),
        rule=rule,
        steps=steps,
        baseline=str(generator.choice(BASELINES)),
        softmax=bool(generator.random() < 1 / 2),
        digits=str(generator.choice(DIGITS)),
        steps_override=str(generator.choice(OVERRIDES)),
        baseline_override=str(generator.choice(OVERRIDES)),
    )


def serve(truth: Truth) -> Service:
    """Start the service that a truth describes."""
    generator = np.random.default_rng(truth.seed)
    model, inputs, classes = _network(truth.network, generator)
    baseline = np.zeros_like(inputs[0])
    if truth.baseline == "mean":
        baseline = inputs.mean(0, dtype=np.float32)
    elif truth.baseline == "random":
        baseline = (generator.normal(size=baseline.shape) * inputs.std()).astype(np.float32)
    served = nn.Sequential(model, nn.Softmax(1)) if truth.softmax else model
    inside: Explainer = LocalExplainer(
        served, Capabilities(rule=truth.rule, default_steps=truth.steps), own_baseline=baseline
    )
    if truth.digits != "exact":
        inside = Wired(inside, wire(truth.digits))
    hidden = Hidden(inside, truth.steps_override, truth.baseline_override)
    return Service(hidden, inputs, generator.integers(0, classes, len(inputs)), baseline)


def wire(digits: str) -> Wire:
    """The wire of that many digits."""
    if digits == "float16":
        return Wire(dtype="float16")
    return Wire() if digits == "exact" else Wire(significant_digits=int(digits[0]))


def _network(kind: str, generator: np.random.Generator) -> tuple[nn.Module, Float[np.ndarray, "n *shape"], int]:
    if kind in ("TwoLayerNet", "LeNet"):
        images, model = _trained(kind)
        return model, images[generator.choice(len(images), EXAMPLES, replace=False)], mnist.CLASSES
    size, wide, classes = (int(generator.integers(*span)) for span in ((16, 65), (16, 65), (3, 9)))
    size += size % 2
    bodies: dict[str, list[nn.Module]] = {
        "relu": [nn.Linear(size, wide), nn.ReLU(), nn.Linear(wide, classes)],
        "deep relu": [
            nn.Linear(size, wide), nn.ReLU(), nn.Linear(wide, wide), nn.ReLU(), nn.Linear(wide, wide), nn.ReLU(),
            nn.Linear(wide, classes),
        ],
        "max-pool": [
            nn.Unflatten(1, (1, size)), nn.Conv1d(1, 6, 5, padding=2), nn.MaxPool1d(2), nn.ReLU(), nn.Flatten(),
            nn.Linear(6 * size // 2, classes),
        ],
        "residual": [
            nn.Linear(size, wide), Residual(nn.Sequential(nn.Linear(wide, wide), nn.ReLU())), nn.ReLU(),
            nn.Linear(wide, classes),
        ],
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator.integers(2**31)))
        for layer in bodies[kind]:
            for module in layer.modules():
                if isinstance(module, nn.Linear | nn.Conv1d):
                    module.reset_parameters()
        model = nn.Sequential(*bodies[kind])
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(2)
    return model, generator.normal(size=(EXAMPLES, size)).astype(np.float32), classes


@cache
def _trained(name: str) -> tuple[Float[np.ndarray, "n 1 28 28"], nn.Module]:
    test = mnist.load("test")
    return test.normalised(), train(recipe(name), mnist.load("train"), test, MODELS).model
