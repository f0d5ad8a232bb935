"""The convolution behind the first ReLU, computed by what changes along a ray, against every node on its own."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from disintegrate import Rewriting, integrated_gradients, prepare
from disintegrate.gradients.second_layer import FEWEST_NODES, second_layer
from disintegrate.quadrature import Quadrature
from tests import oracles


def model_of(seed: int, kernel: int, stride: int, padding: int, dilation: int, *, bias: bool, pool: bool) -> nn.Module:
    torch.manual_seed(seed)
    layers: list[nn.Module] = [
        nn.Conv2d(1, 3, 3, padding=1, bias=bias),
        nn.ReLU(),
        nn.Conv2d(3, 4, kernel, stride, padding, dilation, bias=bias),
        nn.ReLU(),
    ]
    layers += [nn.MaxPool2d(2)] if pool else []
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(5), nn.Tanh(), nn.Linear(5, 2))


def slowly(model: nn.Module, x: Tensor, b: Tensor, target: int, rule: Quadrature) -> Tensor:
    points = zip(rule.nodes.tolist(), rule.weights.tolist(), strict=True)
    total: Tensor = sum(
        (weight * oracles.gradient(model, b + node * (x - b), target) for node, weight in points), 0 * x
    )
    return (x - b) * total


@given(
    seed=st.integers(0, 10_000),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    padding=st.integers(0, 1),
    dilation=st.integers(1, 2),
    bias=st.booleans(),
    pool=st.booleans(),
    steps=st.integers(FEWEST_NODES, 30),
    memory=st.sampled_from([1, 100_000, 2**27]),
)
def test_any_convolution_any_nodes(
    seed: int, kernel: int, stride: int, padding: int, dilation: int, bias: bool, pool: bool, steps: int, memory: int
) -> None:
    model = model_of(seed, kernel, stride, padding, dilation, bias=bias, pool=pool)
    x = 3 * torch.randn(3, 1, 8, 8, dtype=torch.float64)
    model = model.double().eval()
    model(x)  # gives the lazy layer its size
    b, targets = torch.randn_like(x), torch.tensor([0, 1, 1])
    # In no order, some of them twice, some beyond the ends.
    nodes = torch.randint(-5, 15, (steps,)).double() / 10 + 1e-3
    rule = Quadrature(nodes.numpy(), torch.randn(steps).double().numpy())
    prepared = prepare(model, x, targets, memory=memory)
    assert prepared.rewritten is not None
    assert prepared.rewritten.second is not None
    threads = torch.get_num_threads()
    found = integrated_gradients(prepared, x, b, targets, rule)
    assert torch.get_num_threads() == threads
    expected = torch.stack([slowly(model, *of, rule) for of in zip(x, b, targets.tolist(), strict=True)])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def test_only_what_changes_between_nodes_is_computed() -> None:
    # Without biases every unit switches at t = 0, before the first node.
    model = model_of(0, 3, 1, 1, 1, bias=False, pool=True).double().eval()
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    model(x)
    prepared = prepare(model, x, torch.tensor([0, 1]))
    assert prepared.rewritten is not None
    maps: list[int] = []
    prepared.rewritten.second.convolution.register_forward_hook(  # type: ignore[union-attr]
        lambda _, __, output: maps.append(len(output))
    )
    rule = Quadrature(torch.arange(1, 21).double().numpy() / 20, torch.full((20,), 0.05).double().numpy())
    integrated_gradients(prepared, x, torch.zeros_like(x), torch.tensor([0, 1]), rule)
    assert sum(maps) == 2 * 2  # the constant and the slope of each ray, whatever the number of nodes


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
        nn.Linear(4, 4),
        None,
    ],
)
def test_other_layers_are_computed_at_every_node(convolution: nn.Module | None) -> None:
    assert second_layer(convolution, torch.Size((2, 4, 6, 6))) is None


@pytest.mark.parametrize("function", [False, True])
def test_relu_behind_max_pooling_is_the_same_to_the_last_bit(function: bool) -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.relu = nn.Conv2d(1, 3, 3), nn.ReLU()
            self.pool, self.last = nn.MaxPool2d(3, 2, padding=1), nn.Linear(27, 2)

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.first(x)
            hidden = torch.relu(hidden) if function else self.relu(hidden)
            out: Tensor = self.last(self.pool(hidden).flatten(1))
            return out

    model = Pooled().eval()
    with torch.no_grad():
        model.first.weight.round_()  # sums without rounding, many of them equal
        model.first.bias.zero_()  # type: ignore[union-attr]
    x = torch.randint(-1, 2, (6, 1, 8, 8)).float()
    prepared = prepare(model, x, torch.zeros(6, dtype=torch.long), measuring=False)
    assert prepared.rewritten is not None
    order = [str(node.target) for node in prepared.rewritten.body.graph.nodes]  # type: ignore[union-attr]
    assert order[1] == "pool"
    asked = prepare(model, x, torch.zeros(6, dtype=torch.long), rewriting=Rewriting.NONE)
    assert (prepared.gradient(x, targets := torch.ones(6, dtype=torch.long)) == asked.gradient(x, targets)).all()


def test_nodes_of_a_ray_are_put_in_order() -> None:
    model = model_of(3, 3, 1, 1, 1, bias=True, pool=False).double().eval()
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64)
    model(x)
    prepared, target = prepare(model, x, torch.tensor([0])), torch.tensor([0])
    nodes, weights = torch.linspace(0.01, 1, 40).double(), torch.randn(40).double()
    found = [
        integrated_gradients(prepared, x, 0 * x, target, Quadrature(nodes[o].numpy(), weights[o].numpy()))
        for o in (torch.arange(40), torch.randperm(40), torch.arange(39, -1, -1))
    ]
    for one, other in pairwise(found):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
