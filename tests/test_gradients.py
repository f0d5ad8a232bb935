from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from disintegrate import InvalidValue, integrated_gradients, riemann_right, rule_named, vanilla_gradient
from disintegrate.gradients import rows_within
from tests import oracles
from tests.strategies import Case, cases, rule_names, steps_of


class Quadratic(nn.Module):
    """f(x) = x' A x + c' x, whose gradient is (A + A') x + c."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(4, 4, dtype=torch.float64))
        self.slope = nn.Parameter(torch.randn(4, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return ((x @ self.matrix * x).sum(1) + x @ self.slope)[:, None]


class RowsSeen(nn.Module):
    """Notes the largest batch that passes."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.most = inner, 0

    def forward(self, x: Tensor) -> Tensor:
        self.most = max(self.most, len(x))
        out: Tensor = self.inner(x)
        return out


def test_the_vanilla_gradient_of_a_quadratic_is_its_closed_form() -> None:
    model, x = Quadratic(), torch.randn(3, 4, dtype=torch.float64)
    expected = x @ (model.matrix + model.matrix.T) + model.slope
    torch.testing.assert_close(vanilla_gradient(model, x, torch.zeros(3, dtype=torch.long)), expected)


@pytest.mark.parametrize("name", ["midpoint", "trapezoid", "gauss_legendre"])
def test_symmetric_rules_integrate_a_quadratic_exactly(name: str) -> None:
    """The gradient is affine on the ray, so IG = (x - b) * g((x + b) / 2)."""
    model, (x, b) = Quadratic(), torch.randn(2, 3, 4, dtype=torch.float64)
    targets = torch.zeros(3, dtype=torch.long)
    expected = (x - b) * ((x + b) / 2 @ (model.matrix + model.matrix.T) + model.slope)
    torch.testing.assert_close(integrated_gradients(model, x, b, targets, rule_named(name)(7)), expected)


@given(case=cases(), steps=st.integers(1, 8), seed=st.integers(0, 99))
def test_equation_1_against_a_slow_loop(case: Case, steps: int, seed: int) -> None:
    x = torch.tensor(case.inputs)
    b = torch.tensor(np.random.default_rng(seed).normal(size=case.inputs.shape))
    targets = torch.tensor(case.targets)
    slow = torch.stack([
        oracles.integrated(case.model, one, start, int(target), steps)
        for one, start, target in zip(x, b, targets, strict=True)
    ])  # fmt: skip
    torch.testing.assert_close(integrated_gradients(case.model, x, b, targets, riemann_right(steps)), slow)


@given(data=st.data(), name=rule_names, case=cases())
def test_any_rule_against_a_slow_loop(data: st.DataObject, name: str, case: Case) -> None:
    rule = rule_named(name)(data.draw(steps_of(name)))
    x, targets = torch.tensor(case.inputs), torch.tensor(case.targets)
    b = torch.full_like(x, 0.3)
    slow = torch.zeros_like(x)
    for row, (one, start, target) in enumerate(zip(x, b, targets, strict=True)):
        for node, weight in zip(rule.nodes.tolist(), rule.weights.tolist(), strict=True):
            slow[row] += weight * oracles.gradient(case.model, start + node * (one - start), int(target))
    torch.testing.assert_close(integrated_gradients(case.model, x, b, targets, rule), (x - b) * slow)


def test_completeness_in_the_limit_of_many_steps() -> None:
    model = nn.Sequential(nn.Linear(4, 9), nn.Tanh(), nn.Linear(9, 2)).double()
    x, b = torch.randn(2, 5, 4, dtype=torch.float64)
    targets = torch.tensor([0, 1, 0, 1, 0])
    attribution = integrated_gradients(model, x, b, targets, rule_named("gauss_legendre")(60))
    difference = (model(x) - model(b)).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(attribution.sum(1), difference.detach())


@given(case=cases(images=3), steps=st.integers(1, 9))
def test_the_bound_on_memory_changes_nothing_but_the_tiles(case: Case, steps: int) -> None:
    x, targets, rule = torch.tensor(case.inputs), torch.tensor(case.targets), riemann_right(steps)
    b = torch.zeros_like(x)
    whole = integrated_gradients(case.model, x, b, targets, rule)
    for memory in (1, 20_000):
        torch.testing.assert_close(integrated_gradients(case.model, x, b, targets, rule, memory=memory), whole)
        torch.testing.assert_close(
            vanilla_gradient(case.model, x, targets, memory=memory), vanilla_gradient(case.model, x, targets)
        )


def test_no_batch_is_larger_than_the_bound_allows() -> None:
    inner = nn.Sequential(nn.Linear(4, 100), nn.ReLU(), nn.Linear(100, 2))
    x, targets = torch.randn(30, 4), torch.zeros(30, dtype=torch.long)
    memory = 40_000
    rows = rows_within(inner, x, memory)
    assert 1 < rows < 30
    model = RowsSeen(inner)
    integrated_gradients(model, x, torch.zeros_like(x), targets, riemann_right(10), memory=memory)
    assert 1 < model.most <= rows
    model.most = 0
    integrated_gradients(model, x, torch.zeros_like(x), targets, riemann_right(10), memory=1)
    assert model.most == 1


def test_float32_in_float32_out() -> None:
    x = torch.randn(2, 3)
    answer = integrated_gradients(nn.Linear(3, 1), x, 0 * x, torch.tensor([0, 0]), riemann_right(4))
    assert answer.dtype == torch.float32


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("inputs", "targets", "sentence"),
    [
        (torch.zeros(2, 3), torch.tensor([0]), "Inputs must be a batch"),
        (torch.zeros(3), torch.tensor([0, 0, 0]), "Inputs must be a batch"),
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), "Inputs must be a batch"),
        (torch.tensor([[0.0, 1, 2], [0, torch.nan, 0]]), torch.tensor([0, 0]), "NaN or infinity. Got row 1"),
        (torch.zeros(2, 5), torch.tensor([0, 0]), "does not take inputs of this shape"),
        (torch.zeros(2, 3).double(), torch.tensor([0, 0]), "does not take inputs of this shape or dtype"),
        (torch.zeros(2, 3), torch.tensor([0, 2]), "Use 0 to 1"),
        (torch.zeros(2, 3), torch.tensor([0, -1]), "Use 0 to 1"),
        (torch.zeros(2, 3), torch.tensor([0.5, 1]), "Targets are indices of outputs. Got torch.float32"),
    ],
)
def test_bad_input_gets_a_sentence(inputs: Tensor, targets: Tensor, sentence: str) -> None:
    model = nn.Linear(3, 2)
    with pytest.raises(InvalidValue, match=sentence):
        vanilla_gradient(model, inputs, targets)
    with pytest.raises(InvalidValue, match=sentence):
        integrated_gradients(model, inputs, torch.zeros_like(inputs), targets, riemann_right(3))


@pytest.mark.usefixtures("unchecked")
def test_numpy_arrays_are_told_to_become_tensors() -> None:
    arrays: Any = (np.zeros((2, 3), np.float32), np.zeros(2, np.int64))
    with pytest.raises(
        InvalidValue, match=r"The inputs must be a torch tensor. Got ndarray. Use torch.tensor\(inputs\)"
    ):
        vanilla_gradient(nn.Linear(3, 2), *arrays)


@pytest.mark.usefixtures("unchecked")
def test_a_model_must_answer_rows_of_outputs() -> None:
    with pytest.raises(InvalidValue, match=r"Wrap it so that it answers \[n, classes\]"):
        vanilla_gradient(nn.Flatten(0), torch.zeros(2, 3), torch.tensor([0, 0]))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("baseline", [torch.zeros(2, 4), torch.full((2, 3), torch.inf)])
def test_a_bad_baseline_gets_a_sentence(baseline: Tensor) -> None:
    with pytest.raises(InvalidValue, match="A baseline must have the shape of its input"):
        integrated_gradients(nn.Linear(3, 2), torch.zeros(2, 3), baseline, torch.tensor([0, 0]), riemann_right(3))


def test_a_bound_of_no_memory_is_refused() -> None:
    with pytest.raises(InvalidValue, match="at least one byte"):
        vanilla_gradient(nn.Linear(3, 2), torch.zeros(2, 3), torch.tensor([0, 0]), memory=0)
