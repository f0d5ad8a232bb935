import numpy as np
import pytest
import torch
from torch import nn

from disintegrate import Capabilities, InvalidValue, LocalExplainer, NotPermitted, Request, UnknownName
from tests import oracles
from tests.strategies import INPUTS, network


def request(steps: int = 5, dtype: type = np.float32) -> Request:
    inputs: np.ndarray = np.random.default_rng(0).normal(size=(3, INPUTS)).astype(dtype)
    return Request(inputs, np.zeros_like(inputs), np.array([0, 1, 2]), steps)


def test_it_answers_by_equation_1_with_the_output_at_the_input() -> None:
    model, asked = network("tanh", 3), request(dtype=np.float64)
    answer = LocalExplainer(model, Capabilities(rule="riemann_right")).explain(asked)
    for row in range(3):
        x, target = torch.tensor(asked.inputs[row]), int(asked.targets[row])
        expected = oracles.integrated(model, x, torch.zeros_like(x), target, 5)
        np.testing.assert_allclose(answer.attribution[row], expected.numpy(), atol=1e-13)
        assert answer.output[row] == pytest.approx(model(x[None])[0, target].item(), abs=1e-14)


def test_the_callers_model_is_left_as_it_is() -> None:
    model = nn.Sequential(nn.Linear(INPUTS, 3), nn.Dropout()).train()
    explainer = LocalExplainer(model, Capabilities(rule="midpoint"))
    first, second = (explainer.explain(request()).attribution for _ in range(2))
    assert (first == second).all()
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_rows_do_not_hang_on_their_neighbours() -> None:
    explainer = LocalExplainer(network("max-pool", 1), Capabilities(rule="trapezoid"))
    asked = request(dtype=np.float64)
    together = explainer.explain(asked).attribution
    for row in range(3):
        part = slice(row, row + 1)
        alone = explainer.explain(Request(asked.inputs[part], 0 * asked.inputs[part], asked.targets[part], asked.steps))
        np.testing.assert_allclose(alone.attribution[0], together[row], atol=1e-13)


def test_the_wire_has_the_dtype_of_the_model_unless_it_is_told_otherwise() -> None:
    model = network("relu", 0)
    assert LocalExplainer(model, Capabilities(rule="midpoint")).capabilities.dtype == "float64"
    assert LocalExplainer(model.float(), Capabilities(rule="midpoint")).capabilities.dtype == "float32"
    narrow = LocalExplainer(model.double(), Capabilities(rule="midpoint", dtype="float32"))
    assert (narrow.capabilities.dtype, narrow.dtype) == ("float32", torch.float64)


def test_steps_outside_the_bounds_are_refused() -> None:
    explainer = LocalExplainer(network("relu", 0), Capabilities(rule="midpoint", fewest_steps=20, most_steps=100))
    for steps in (19, 101):
        with pytest.raises(NotPermitted, match=f"Got {steps}. Use a plan with steps in 20 to 100"):
            explainer.explain(request(steps))
    assert explainer.explain(request(20)).output.shape == (3,)


def test_a_baseline_of_the_callers_is_refused_where_the_service_has_its_own() -> None:
    fixed = LocalExplainer(network("relu", 0), Capabilities(rule="midpoint", baseline=False))
    asked = request(dtype=np.float64)
    assert fixed.explain(asked).output.shape == (3,)
    for baselines in (0 * asked.inputs + 0.5, 0.999 * asked.inputs):
        with pytest.raises(NotPermitted, match=r"baseline of the caller's\. Got 18 coordinates"):
            fixed.explain(Request(asked.inputs, baselines, asked.targets, 5))


def test_an_unknown_rule_and_a_device_that_is_not_there_get_a_sentence() -> None:
    with pytest.raises(UnknownName, match="Choose from"):
        LocalExplainer(network("relu", 0), Capabilities(rule="simpson"))
    for device in ("cuda:7", "toaster"):
        with pytest.raises(InvalidValue, match="The device cannot be used here"):
            LocalExplainer(network("relu", 0), Capabilities(rule="midpoint"), device=device)
