"""Kinks on the ray against dense bisection by the model itself, in float64."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from disintegrate import InvalidValue, riemann_right, rule_named, shared_piece
from disintegrate.regions import (
    exact_integrated_gradients,
    exact_recovery,
    nearest_kinks,
    plan_errors,
    ray_regions,
)
from tests import oracles

MAPS = (2, 6, 6)
GRID = 1500


class Adding(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.relu(self.inner(x) + x)
        return out


NETWORKS: dict[str, tuple[Callable[[], list[nn.Module]], tuple[int, ...]]] = {
    "linear": (lambda: [nn.Linear(5, 9), nn.ReLU(), nn.Linear(9, 9), nn.LeakyReLU(0.3), nn.Linear(9, 2)], (5,)),
    "one dimension": (lambda: [nn.Conv1d(2, 4, 3, padding=1), nn.BatchNorm1d(4), nn.ReLU(), nn.MaxPool1d(2),
                               nn.AvgPool1d(2), nn.Flatten(), nn.Linear(8, 2)], (2, 8)),
    "maps": (lambda: [nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.MaxPool2d(2),
                      nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 2)], MAPS),
    "overlapping windows": (lambda: [nn.BatchNorm2d(2), nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4),
                                     nn.MaxPool2d(3, 2, 1), nn.LeakyReLU(), nn.Flatten(1), nn.Linear(16, 2)], MAPS),
    "residual": (lambda: [nn.Conv2d(2, 3, 3, padding=1), Adding(nn.Sequential(
        nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1))),
        nn.AdaptiveAvgPool2d(2), nn.Dropout(), nn.Identity(), nn.Flatten(), nn.Linear(12, 2)], MAPS),
    "averages": (lambda: [nn.AvgPool2d(2), nn.Conv2d(2, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                          nn.Linear(3, 2)], MAPS),
}  # fmt: skip


def drawn(kind: str, seed: int) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(seed)
    layers, shape = NETWORKS[kind]
    model = nn.Sequential(*layers()).double().eval()
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.normal_(module.running_mean, std=0.3)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    x, b = torch.randn(2, *shape, dtype=torch.float64)
    return model, x, b


def patterns(model: nn.Module, points: Tensor) -> np.ndarray:
    """Signs of all ReLUs' inputs and places of all windows' largest entries, by hooks on the model itself."""
    found: list[Tensor] = []

    def rectified(module: nn.Module, arguments: tuple[Tensor], output: Tensor) -> None:
        found.append((arguments[0] > 0).flatten(1).long())

    def pooled(module: Any, arguments: tuple[Tensor], output: Tensor) -> None:
        function: Any = nn.functional.max_pool1d if isinstance(module, nn.MaxPool1d) else nn.functional.max_pool2d
        _, places = function(arguments[0], module.kernel_size, module.stride, module.padding, return_indices=True)
        # Windows that hold nothing but what a ReLU has put to zero have no place worth a kink.
        found.append(torch.where(output == 0, -1, places).flatten(1))

    hooks = []
    for module in model.modules():
        if isinstance(module, (nn.ReLU, nn.LeakyReLU)):
            hooks.append(module.register_forward_hook(rectified))
        elif isinstance(module, (nn.MaxPool1d, nn.MaxPool2d)):
            hooks.append(module.register_forward_hook(pooled))
        elif isinstance(module, Adding):
            hooks.append(module.register_forward_hook(
                lambda module, arguments, output: found.append((output > 0).flatten(1).long())
            ))  # fmt: skip
    try:
        with torch.no_grad():
            model(points)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat(found, 1).numpy()


def bisected(model: nn.Module, x: Tensor, b: Tensor) -> list[float]:
    """Every change of pattern between points of a dense grid, halved until it is known to 1e-13."""

    def at(positions: np.ndarray) -> np.ndarray:
        shape = (-1, *[1] * x.ndim)
        return patterns(model, b + torch.tensor(positions).view(shape) * (x - b))

    edges = np.linspace(0, 1, GRID + 1)
    intervals = list(pairwise(edges))
    for _ in range(34):
        known = at(np.array(intervals).ravel()).reshape(len(intervals), 2, -1)
        intervals = [one for one, (low, high) in zip(intervals, known, strict=True) if (low != high).any()]
        if not intervals:
            return []
        intervals = [half for low, high in intervals for half in ((low, (low + high) / 2), ((low + high) / 2, high))]
    known = at(np.array(intervals).ravel()).reshape(len(intervals), 2, -1)
    return [low for (low, _), (one, other) in zip(intervals, known, strict=True) if (one != other).any()]


@settings(max_examples=24)
@given(kind=st.sampled_from(sorted(NETWORKS)), seed=st.integers(0, 10_000), walkers=st.sampled_from([1, 3, 16]))
def test_every_kink_against_dense_bisection(kind: str, seed: int, walkers: int) -> None:
    model, x, b = drawn(kind, seed)
    found = ray_regions(model, x, b, walkers=walkers)
    positions = np.array([kink.position for kink in found.kinks])
    slow = np.array(bisected(model, x, b))
    assert found.stepped_over == 0
    for position in slow:
        assert np.abs(positions - position).min() < 1e-10, "missed"
    for index, position in enumerate(positions):
        others = np.delete(positions, index)
        near = float(np.abs(others - position).min()) if len(others) else 1.0
        if near < 1e-9:
            continue
        around = torch.tensor([position - near / 3, position + near / 3]).view(-1, *[1] * x.ndim)
        before, behind = patterns(model, b + around * (x - b))
        # A window passes from one zero to another unseen by the oracle; everything else is a change of pattern.
        assert (before != behind).any() or "pool" in str(found.kinks[index].units), "invented"


@settings(max_examples=24)
@given(kind=st.sampled_from(sorted(NETWORKS)), seed=st.integers(0, 10_000), target=st.integers(0, 1))
def test_the_gradient_of_each_piece_and_exact_completeness(kind: str, seed: int, target: int) -> None:
    model, x, b = drawn(kind, seed)
    found = ray_regions(model, x, b, target=target)
    for low, high, gradient in zip(found.edges[:-1], found.edges[1:], found.gradients, strict=True):
        if high - low > 1e-9:
            middle = b + (low + high) / 2 * (x - b)
            torch.testing.assert_close(gradient, oracles.gradient(model, middle, target), rtol=1e-10, atol=1e-12)
    whole = exact_integrated_gradients(model, x, b, target=target)
    with torch.no_grad():
        ends = model(torch.stack([x, b]))[:, target]
    scale = float(ends.abs().max()) + float(whole.abs().sum())
    assert abs(float(whole.sum() - (ends[0] - ends[1]))) < 1e-12 * scale


def test_edges_begin_and_end_where_they_were_asked_to() -> None:
    model, x, b = drawn("maps", 1)
    found = ray_regions(model, x, b, 0.25, 0.75)
    assert (found.edges[0], found.edges[-1]) == (0.25, 0.75)
    assert list(found.edges) == sorted(found.edges)
    assert len(found.gradients) == len(found.edges) - 1 == len(found.kinks) + 1
    whole = ray_regions(model, x, b)
    inside = [kink.position for kink in whole.kinks if 0.25 < kink.position < 0.75]
    np.testing.assert_allclose([kink.position for kink in found.kinks], inside, atol=1e-12)
    torch.testing.assert_close(found.mean(0.3, 0.7), whole.mean(0.3, 0.7), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.at(0.5), oracles.gradient(model, b + 0.5 * (x - b), 0))


def test_the_unit_that_causes_a_kink_is_named() -> None:
    """Two ReLUs, off until 1/4 and 1/2: the place in the layer is told, and the jump is that unit's own gradient."""
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1)).double().eval()
    weights = (torch.ones(2, 1), torch.tensor([-0.5, -0.25]), torch.tensor([[3.0, 5.0]]), torch.zeros(1))
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), weights, strict=True):
            parameter.copy_(value)
    found = ray_regions(model, torch.ones(1).double(), torch.zeros(1).double())
    assert [(kink.position, [unit.place for unit in kink.units]) for kink in found.kinks] == [(0.25, [1]), (0.5, [0])]
    assert found.gradients.flatten().tolist() == [0.0, 5.0, 8.0]
    assert found.kinks[0].units[0].layer == "_1"


def test_coincident_kinks_are_one_with_all_their_units() -> None:
    """Three equal units of the first layer and the unit behind them turn on together."""
    model = nn.Sequential(nn.Linear(1, 3), nn.ReLU(), nn.Linear(3, 1, bias=False), nn.ReLU()).double().eval()
    with torch.no_grad():
        for parameter, number in zip(model.parameters(), (1.0, -0.3, 2.0), strict=True):
            parameter.fill_(number)
    found = ray_regions(model, torch.ones(1).double(), torch.zeros(1).double(), walkers=1)
    (kink,) = found.kinks
    assert kink.position == pytest.approx(0.3, abs=1e-15)
    assert len(kink.units) in (3, 4)
    assert found.gradients.flatten().tolist() == [0.0, 6.0]
    assert found.stepped_over == 0


def test_ties_in_max_pooling_are_reported_and_settled_as_the_model_does() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2, 1)).double().eval()
    x, b = torch.ones(1, 2, 2).double(), torch.zeros(1, 2, 2).double()
    found = ray_regions(model, x, b)
    assert len(found.ties) == 2
    assert found.kinks == ()
    torch.testing.assert_close(found.gradients[0], oracles.gradient(model, x, 0))
    distinct = x * torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert ray_regions(model, distinct, b, 0.1).ties == ()


def test_a_kink_where_two_walkers_meet_is_found_once() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU()).double().eval()
    with torch.no_grad():
        for parameter, number in zip(model.parameters(), (1.0, -0.5), strict=True):
            parameter.fill_(number)
    for walkers in (1, 2, 4):
        found = ray_regions(model, torch.ones(1).double(), torch.zeros(1).double(), walkers=walkers)
        assert [kink.position for kink in found.kinks] == [0.5]
        assert found.gradients.flatten().tolist() == [0.0, 1.0]


@given(kind=st.sampled_from(sorted(NETWORKS)), seed=st.integers(0, 300))
@settings(max_examples=15)
def test_the_nearest_kinks_on_both_sides(kind: str, seed: int) -> None:
    model, x, b = drawn(kind, seed)
    beyond = ray_regions(model, x, b, 0.0, 2.0)
    positions = np.array([kink.position for kink in beyond.kinks])
    before, behind = nearest_kinks(model, x, b)
    expected_before = 1 - positions[positions < 1].max() if (positions < 1).any() else np.inf
    expected_behind = positions[positions > 1].min() - 1 if (positions > 1).any() else np.inf
    assert before == pytest.approx(expected_before, abs=1e-10)
    assert behind == pytest.approx(expected_behind, abs=1e-10)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Sigmoid()), r"Tanh \(1\)"),
        (nn.Sequential(nn.Linear(3, 3), nn.Softmax(1)), r"Softmax \(1\)"),
        (nn.Sequential(nn.Linear(3, 3), nn.GELU()), r"GELU \(1\)"),
    ],
)
def test_the_first_operation_that_bends_is_named(model: nn.Module, name: str) -> None:
    with pytest.raises(InvalidValue, match=f"not piecewise linear, or not one that is known here. Got {name}"):
        ray_regions(model.double().eval(), torch.ones(3).double(), torch.zeros(3).double())


def test_training_mode_and_bad_rays_are_refused() -> None:
    model, one = nn.Sequential(nn.Linear(3, 3), nn.ReLU()).double(), torch.ones(3).double()
    with pytest.raises(InvalidValue, match="eval mode"):
        ray_regions(model, one, 0 * one)
    with pytest.raises(InvalidValue, match="its positions grow"):
        ray_regions(model.eval(), one, 0 * one, 1.0, 0.5)
    with pytest.raises(InvalidValue, match="do not reach so far"):
        ray_regions(model, one, 0 * one, 0.5, 1.0).mean(0.0, 1.0)


def test_float32_finds_the_same_kinks_to_its_own_digits() -> None:
    model, x, b = drawn("maps", 3)
    exact = [kink.position for kink in ray_regions(model, x, b).kinks]
    rough = [kink.position for kink in ray_regions(model.float(), x.float(), b.float()).kinks]
    assert len(rough) == pytest.approx(len(exact), abs=2)
    assert all(np.abs(np.array(rough) - position).min() < 1e-3 for position in exact)


def test_a_plans_error_falls_into_its_parts() -> None:
    """Equation (3) without a kink has no part of kinks; equation (4) and one step no part of quadrature at all."""
    model, x, b = drawn("linear", 4)
    truth = oracles.gradient(model, x, 1)
    clear = float(nearest_kinks(model, x, b)[0])
    recovered = truth + 1e-3
    near = plan_errors(model, x, b, shared_piece(1 - clear / 2, 50), riemann_right, recovered, target=1)
    assert float(near.kink.norm()) < 1e-12
    far = plan_errors(model, x, b, shared_piece(0.5 - clear, 50), riemann_right, recovered, target=1)
    assert far.relative["kink"] > 1e-3
    for errors in (near, far):
        torch.testing.assert_close(errors.gradient, truth)
        torch.testing.assert_close(errors.kink + errors.quadrature + errors.rounding, recovered - truth)
    zero = torch.zeros_like(x)
    errors = plan_errors(model, x, zero, shared_piece(0.5, 50), riemann_right, recovered, target=1)
    slow = oracles.equation_3(model, x, 1, 50, 0.5)
    torch.testing.assert_close(slow, errors.gradient + errors.kink + errors.quadrature)


def test_the_exact_recovery_is_the_limit_of_ever_more_steps() -> None:
    model, x, b = drawn("linear", 5)
    plan = shared_piece(0.6, 20_000)
    errors = plan_errors(model, x, b, plan, rule_named("midpoint"), torch.zeros_like(x))
    assert errors.relative["quadrature"] < 1e-3
    exact = exact_recovery(model, x, b, shared_piece(0.6, 50))
    torch.testing.assert_close(errors.gradient + errors.kink, exact)
