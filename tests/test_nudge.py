"""Coordinates where the input equals the baseline: unobserved without a nudge, recovered with one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

from disintegrate import (
    Capabilities,
    InvalidValue,
    LocalExplainer,
    Output,
    Plan,
    Recording,
    Wire,
    Wired,
    baseline_window,
    distance,
    nudged,
    recover,
    recover_logits,
    single_step,
    step_count,
)
from disintegrate.nudge import moved_inputs
from disintegrate.paper import mnist
from disintegrate.paper.store import load_weights
from tests import oracles
from tests.strategies import INPUTS, Case, cases

MODELS = Path(__file__).parents[1] / "results" / "reproduction" / "models"
IMAGES = Capabilities(rule="riemann_right", smallest_value=0, largest_value=1, dtype="float32")


class Normalised(nn.Module):
    """A network of the paper that takes pixels in [0, 1]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.network((x - mnist.MEAN.item()) / mnist.STANDARD_DEVIATION.item())
        return out


def trained(network: str) -> nn.Module:
    return Normalised(load_weights(next(MODELS.glob(f"{network}-*.safetensors")), network)).eval()


def raw_digits(count: int) -> tuple[np.ndarray, np.ndarray]:
    digits = mnist.load("test").first(count)
    return digits.images[:, None].astype(np.float32) / np.float32(255), digits.labels.astype(np.int64)


def truth(model: nn.Module, inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    rows = zip(torch.tensor(inputs), targets, strict=True)
    return np.stack([oracles.gradient(model, x, int(target)).numpy() for x, target in rows])


@pytest.mark.parametrize("network", ["TwoLayerNet", "LeNet"])
def test_the_dark_four_fifths_of_a_digit_are_recovered(network: str) -> None:
    model, (inputs, targets) = trained(network), raw_digits(8)
    service = LocalExplainer(model, IMAGES)
    plan = nudged(single_step(), service.capabilities, inputs)
    assert plan.nudge == 2**-23
    without, with_nudge = (recover(service, inputs, targets, one) for one in (single_step(), plan))
    gradient, dark = truth(model, inputs, targets), inputs == 0

    assert dark.mean() > 0.75
    assert (without.observed == ~dark).all()
    assert (without.gradient[dark] == 0).all()
    assert not without.nudged.any()
    assert distance(gradient, without.gradient).min() > 0.1

    assert with_nudge.observed.all()
    assert (with_nudge.nudged == dark).all()
    assert with_nudge.queries == without.queries
    assert distance(gradient, with_nudge.gradient).max() < 1e-6
    kept = [np.where(dark, one, 0) for one in (gradient, with_nudge.gradient)]
    assert distance(*kept).max() < 1e-6


@given(case=cases(kinds=("relu", "residual", "max-pool")))
def test_every_plan_of_measure_delta_one_recovers_nudged_coordinates(case: Case) -> None:
    inputs, baselines = case.inputs.copy(), np.full_like(case.inputs, 0.25)
    inputs[:, ::2] = 0.25
    service = Recording(LocalExplainer(case.model, Capabilities(rule="riemann_right")))
    for plan in (single_step(), step_count(5)):
        moved = replace(plan, nudge=1e-9)
        recovery = recover(service, inputs, case.targets, moved, baselines=baselines)
        assert recovery.nudged[:, ::2].all()
        assert not recovery.nudged[:, 1::2].any()
        point = inputs + 1e-9 * (inputs == 0.25)
        assert distance(truth(case.model, point, case.targets), recovery.gradient).max() < 1e-6
    assert (service.requests[0].inputs[:, 1::2] == inputs[:, 1::2]).all()
    assert len(service.requests) == 3


def test_a_nudge_stays_inside_the_bounds() -> None:
    inputs = np.array([[0.0, 1.0, 0.5, 0.0]])
    baselines = np.array([[0.0, 1.0, 0.5, 0.25]])
    plan = replace(single_step(), nudge=0.125)
    moved = moved_inputs(plan, IMAGES, inputs, baselines)
    assert moved.tolist() == [[0.125, 0.875, 0.625, 0.0]]
    narrow = replace(IMAGES, smallest_value=1.0)
    assert moved_inputs(plan, narrow, baselines * 0 + 1, baselines * 0 + 1).tolist() == [[1.0] * 4]
    assert moved_inputs(single_step(), IMAGES, inputs, baselines) is inputs


def test_a_step_that_the_wire_cannot_carry_leaves_the_coordinate_unobserved() -> None:
    inputs = np.full((1, INPUTS), 0.5, np.float32)
    service = LocalExplainer(nn.Linear(INPUTS, 1), Capabilities(rule="riemann_right"))
    recovery = recover(service, inputs, np.array([0]), Plan(single_step(), nudge=1e-12), baselines=inputs)
    assert not recovery.observed.any()
    assert not recovery.nudged.any()


def test_the_default_grows_with_the_scale_and_with_what_the_wire_adds() -> None:
    wide = replace(IMAGES, dtype="float64")
    x = np.array([[0.0, 4.0]])
    assert nudged(single_step(), wide, x).nudge == 4 * 2**-52
    assert nudged(single_step(), IMAGES, x, np.array([[-8.0, 0]])).nudge == 8 * 2**-23
    noisy = replace(IMAGES, wire=Wire(noise=0.01))
    assert nudged(single_step(), noisy, x).nudge == pytest.approx(0.2)
    assert nudged(single_step(), replace(IMAGES, wire=Wire(significant_digits=2)), x).nudge == 4 * 2**-23
    with pytest.raises(InvalidValue, match="inputs that are not all zero"):
        nudged(single_step(), IMAGES, np.zeros((1, 2)))


def test_decimals_want_a_larger_step() -> None:
    """A plan's default against a hundredth and a hundred times it, behind a wire of four decimals."""
    model, (inputs, targets) = trained("LeNet"), raw_digits(6)
    service = Wired(LocalExplainer(model, IMAGES), Wire(decimals=4))
    plan, dark = nudged(single_step(), service.capabilities, inputs), inputs == 0
    gradient = np.where(dark, truth(model, inputs, targets), 0)

    def error(nudge: float) -> float:
        found = recover(service, inputs, targets, replace(plan, nudge=nudge)).gradient
        return float(np.median(distance(gradient, np.where(dark, found, 0))))

    best = error(plan.nudge)
    assert best < 0.2
    assert best < 0.5 * error(plan.nudge / 100)
    assert best < 0.5 * error(min(1.0, 100 * plan.nudge))


def test_a_nudge_does_for_logit_differences_too() -> None:
    model, (inputs, _) = trained("TwoLayerNet"), raw_digits(3)
    service = LocalExplainer(
        nn.Sequential(model, nn.Softmax(dim=1)), replace(IMAGES, output=Output.PROBABILITIES, dtype="float64"),
        dtype=torch.float64,
    )  # fmt: skip
    service.model.double()
    model.double()
    wide = inputs.astype(np.float64)
    expected = truth(model, wide, np.full(3, 7)) - truth(model, wide, np.full(3, 2))
    for plan in (single_step(), baseline_window(1e-6, 4)):
        found = recover_logits(service, wide, range(10), nudged(plan, service.capabilities, wide))
        assert found.observed.all()
        assert distance(expected, found.difference(7, 2).gradient).max() < 1e-4
