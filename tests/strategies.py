"""What Hypothesis draws: rules, plans and random networks with inputs that have no zero coordinate."""

from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import assume
from hypothesis import strategies as st
from torch import Tensor, nn

from disintegrate.plan import Plan, Query
from disintegrate.rules import RULES
from tests import oracles

INPUTS, CLASSES = 6, 3


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.inner(x)
        return out


def network(kind: str, seed: int) -> nn.Module:
    """A small float64 network with large weights, so that its kinks and curvature matter."""
    torch.manual_seed(seed)
    wide = 12
    bodies: dict[str, list[nn.Module]] = {
        "bias-free relu": [nn.Linear(INPUTS, wide, bias=False), nn.ReLU(), nn.Linear(wide, CLASSES, bias=False)],
        "relu": [nn.Linear(INPUTS, wide), nn.ReLU(), nn.Linear(wide, wide), nn.ReLU(), nn.Linear(wide, CLASSES)],
        "tanh": [nn.Linear(INPUTS, wide), nn.Tanh(), nn.Linear(wide, CLASSES)],
        "softmax": [nn.Linear(INPUTS, wide), nn.ReLU(), nn.Linear(wide, CLASSES), nn.Softmax(dim=1)],
        "max-pool": [nn.Unflatten(1, (1, INPUTS)), nn.Conv1d(1, 4, 3, padding=1), nn.MaxPool1d(2), nn.ReLU(),
                     nn.Flatten(), nn.Linear(4 * INPUTS // 2, CLASSES)],
        "residual": [nn.Linear(INPUTS, wide), Residual(nn.Sequential(nn.Linear(wide, wide), nn.ReLU())),
                     nn.ReLU(), nn.Linear(wide, CLASSES)],
    }  # fmt: skip
    model = nn.Sequential(*bodies[kind]).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return model


KINDS = ("bias-free relu", "relu", "tanh", "softmax", "max-pool", "residual")


@dataclass(frozen=True)
class Case:
    """A network with a batch of inputs and targets."""

    kind: str
    model: nn.Module
    inputs: np.ndarray
    targets: np.ndarray


@st.composite
def cases(draw: st.DrawFn, kinds: tuple[str, ...] = KINDS, images: int = 2) -> Case:
    kind, seed = draw(st.sampled_from(kinds)), draw(st.integers(0, 10_000))
    generator = np.random.default_rng(seed)
    size = generator.uniform(0.2, 2, (images, INPUTS))
    inputs = size * generator.choice((-1.0, 1.0), size.shape)
    model, targets = network(kind, seed), generator.integers(0, CLASSES, images)
    for x, target in zip(torch.tensor(inputs), targets, strict=True):
        # A gradient that is zero has no direction to recover.
        assume(oracles.gradient(model, x, int(target)).norm() > 1e-6)
    return Case(kind, model, inputs, targets)


def steps_of(rule: str) -> st.SearchStrategy[int]:
    return st.integers(2 if rule == "trapezoid" or rule.startswith("captum_riemann") else 1, 40)


TEXTBOOK = ("gauss_legendre", "midpoint", "riemann_left", "riemann_right", "trapezoid")
rule_names = st.sampled_from(sorted(RULES))
positions = st.floats(-1, 2).map(lambda value: round(value, 3))
queries = st.builds(
    lambda start, length, steps: Query(start, start + length, steps),
    positions,
    st.floats(0.01, 1.5).map(lambda value: round(value, 3)),
    st.integers(2, 20),
)
plans = st.lists(st.tuples(st.floats(-5, 5), queries), min_size=1, max_size=4).map(Plan)
