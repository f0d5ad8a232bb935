"""The softmax undone: against gradients of the logits themselves, against the formulas, and as it saturates."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from disintegrate import (
    BadAnswer,
    Capabilities,
    Explanation,
    InvalidValue,
    LocalExplainer,
    LogitGradients,
    NotPermitted,
    Output,
    Plan,
    Query,
    Recording,
    Request,
    Wire,
    Wired,
    baseline_window,
    bias_free,
    recover_logits,
    rule_named,
    shared_piece,
    single_step,
    single_step_beyond,
    step_count,
)
from tests import oracles
from tests.strategies import CLASSES, INPUTS, Case, cases, network

ALL = tuple(range(CLASSES))
PROBABILITIES = Capabilities(rule="riemann_right", output=Output.PROBABILITIES)


def softmaxed(model: nn.Module, scale: float = 1.0) -> nn.Module:
    return nn.Sequential(model, Scaled(scale), nn.Softmax(dim=1))


class Scaled(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def service(model: nn.Module, rule: str = "riemann_right", scale: float = 1.0) -> Recording:
    capabilities = Capabilities(rule=rule, output=Output.PROBABILITIES)
    return Recording(LocalExplainer(softmaxed(model, scale), capabilities))


def logit_gradients(model: nn.Module, inputs: np.ndarray) -> np.ndarray:
    """For each class, input and coordinate."""
    found = torch.autograd.functional.jacobian(lambda x: model(x).sum(0), torch.tensor(inputs))
    return np.asarray(found)


def relative_error(found: LogitGradients, model: nn.Module, inputs: np.ndarray, c: int, k: int) -> np.ndarray:
    all_classes = logit_gradients(model, inputs)
    truth = all_classes[c] - all_classes[k]
    missed: np.ndarray = np.linalg.norm(found.difference(c, k).gradient - truth, axis=1) / np.linalg.norm(truth, axis=1)
    return missed


@settings(max_examples=15)
@given(case=cases(kinds=("relu", "max-pool", "residual", "tanh")), steps=st.integers(2, 60))
def test_plans_of_measure_delta_one_give_logit_differences_of_every_model(case: Case, steps: int) -> None:
    for plan, rule in (
        (single_step(), "riemann_right"),
        (step_count(steps), "riemann_right"),
        (single_step_beyond(), "midpoint"),
        (single_step_beyond(), "gauss_legendre"),
    ):
        found = recover_logits(service(case.model, rule), case.inputs, ALL, plan)
        for c, k in ((0, 1), (2, 0)):
            conditioning = found.difference(c, k).conditioning
            assert (relative_error(found, case.model, case.inputs, c, k) <= 1e-10 * np.maximum(1, conditioning)).all()
        assert np.isnan(found.disagreement).all()


@settings(max_examples=20)
@given(
    case=cases(kinds=("relu", "max-pool", "residual")),
    rule=st.sampled_from(("trapezoid", "midpoint", "captum_riemann_trapezoid")),
)
def test_a_window_inside_one_linear_region_gives_them_by_any_rule(case: Case, rule: str) -> None:
    plan = baseline_window(1e-3, 7)
    assume(in_one_region(case.model, case.inputs, 1 - 1e-3))
    found = recover_logits(service(case.model, rule), case.inputs, ALL, plan)
    for c, k in pairwise((*ALL, 0)):
        conditioning = found.difference(c, k).conditioning
        assert (relative_error(found, case.model, case.inputs, c, k) <= 1e-10 * np.maximum(1, conditioning)).all()


@settings(max_examples=15)
@given(case=cases(kinds=("bias-free relu",)), steps=st.integers(1, 20))
def test_the_whole_ray_gives_them_for_networks_without_biases(case: Case, steps: int) -> None:
    for plan in (bias_free(steps), shared_piece(0.75, steps)):
        found = recover_logits(service(case.model), case.inputs, ALL, plan)
        for c, k in pairwise((*ALL, 0)):
            conditioning = found.difference(c, k).conditioning
            assert (relative_error(found, case.model, case.inputs, c, k) <= 1e-10 * np.maximum(1, conditioning)).all()


@settings(max_examples=15)
@given(case=cases(kinds=("bias-free relu",)), steps=st.integers(2, 9))
def test_the_system_is_that_of_the_formulas(case: Case, steps: int) -> None:
    """The slow oracle takes J from the model at every atom, and the pseudo-inverse."""
    plan = shared_piece(0.5, steps)
    measure = plan.measure(rule_named("riemann_right"))
    found = recover_logits(service(case.model), case.inputs, ALL, plan)
    assume((found.condition < 1e4).all())
    for row, x in enumerate(torch.tensor(case.inputs)):
        slow = oracles.logit_gradients(
            case.model, x, torch.zeros_like(x), measure.positions.tolist(), measure.weights.tolist()
        ).numpy()
        centred = found.gradients[row] - found.gradients[row].mean(0)
        np.testing.assert_allclose(centred, slow, atol=1e-10 * found.condition[row] * max(1, np.abs(slow).max()))


def in_one_region(model: nn.Module, inputs: np.ndarray, start: float) -> bool:
    """Whether the gradients are the same along the way."""
    here = logit_gradients(model, inputs)
    return all(np.allclose(logit_gradients(model, t * inputs), here, atol=1e-12) for t in np.linspace(start, 1, 5)[:-1])


def linear(classes: int = 4) -> tuple[nn.Linear, np.ndarray]:
    torch.manual_seed(3)
    model = nn.Linear(INPUTS, classes).double()
    return model, np.random.default_rng(1).uniform(0.5, 1, (3, INPUTS))


def test_on_a_linear_model_the_differences_are_those_of_its_weights() -> None:
    model, inputs = linear()
    weight = model.weight.detach().numpy()
    for plan in (single_step(), step_count(50), bias_free(5), shared_piece(0.98, 50), baseline_window(0.01, 3)):
        found = recover_logits(service(model), inputs, range(4), plan)
        np.testing.assert_allclose(found.difference(3, 1).gradient, np.tile(weight[3] - weight[1], (3, 1)), atol=1e-10)
        if not np.isnan(found.disagreement).all():
            assert found.disagreement.max() < 1e-9
    first, second = np.array([0, 1, 2]), np.array([1, 3, 0])
    np.testing.assert_allclose(found.difference(first, second).gradient, weight[first] - weight[second], atol=1e-10)


def test_for_delta_one_the_amplification_is_one_over_the_probabilities() -> None:
    model, inputs = linear()
    found = recover_logits(service(model), inputs, (2, 0), single_step())
    p = torch.softmax(model(torch.tensor(inputs)), 1).detach().numpy()
    np.testing.assert_allclose(found.difference(0, 2).amplification, np.hypot(1 / p[:, 0], 1 / p[:, 2]), rtol=1e-12)
    np.testing.assert_allclose(found.probabilities, p[:, [2, 0]], rtol=1e-14)
    assert found.condition.tolist() == [1, 1, 1]


def test_outputs_that_the_plan_lacks_are_asked_for_and_counted() -> None:
    model, inputs = linear()
    for plan, rule, queries in (
        (single_step(), "riemann_right", 1),
        (step_count(9), "riemann_right", 2),
        (single_step_beyond(), "midpoint", 2),
        (baseline_window(0.5, 4), "midpoint", 2),
        (baseline_window(0.5, 4, centred=True), "midpoint", 2),
        (shared_piece(0.5, 4), "midpoint", 2),
        (Plan([(2, Query(0.25, 0.75, 4))]), "midpoint", 2),
    ):
        asked = service(model, rule)
        found = recover_logits(asked, inputs, range(4), plan)
        assert len(asked.requests) == 4 * queries
        assert found.queries == 4 * queries * len(inputs)
        assert sum((request.inputs == inputs).all() for request in asked.requests) >= 4


def test_a_kink_in_the_piece_is_told_by_the_outputs() -> None:
    model = network("relu", 5)
    inputs = np.random.default_rng(5).normal(size=(8, INPUTS))
    wide = recover_logits(service(model), inputs, ALL, bias_free(20))
    narrow = recover_logits(service(model), inputs, ALL, baseline_window(1e-6, 20))
    errors = [relative_error(found, model, inputs, 0, 1) for found in (wide, narrow)]
    assert np.median(errors[0]) > 0.1
    assert np.median(wide.disagreement) > 0.1
    assert np.median(errors[1]) < 1e-6
    assert np.median(narrow.disagreement) < 1e-6


def decided() -> tuple[nn.Linear, np.ndarray]:
    """A linear model whose last class wins by 1 or more."""
    model, inputs = linear()
    with torch.no_grad():
        model.bias.copy_(2 * torch.arange(4))
    logits = model(torch.tensor(inputs)).detach().numpy()
    assert (logits[:, 3] - logits[:, :3].max(1)).min() > 1
    return model, inputs


def saturated(scale: float, plan: Plan) -> tuple[np.ndarray, LogitGradients, np.ndarray, np.ndarray]:
    """Relative error of likeliest minus unlikeliest from a float32 service whose logits are multiplied by a scale."""
    model, inputs = decided()
    weight = scale * model.weight.detach().numpy()
    found = recover_logits(service(model.float(), scale=scale), inputs.astype(np.float32), range(4), plan)
    c, k = found.probabilities.argmax(1), found.probabilities.argmin(1)
    truth = weight[c] - weight[k]
    missed = np.linalg.norm(found.difference(c, k).gradient - truth, axis=1) / np.linalg.norm(truth, axis=1)
    return missed, found, c, k


def test_saturation_alone_costs_no_digits_until_a_probability_underflows() -> None:
    for scale in (1.0, 2.0, 4.0, 8.0):
        error, found, c, k = saturated(scale, single_step())
        difference = found.difference(c, k)
        assert (error < 4 * difference.predicted_error).all()
        assert (difference.conditioning < 10).all()
    assert (found.probabilities.max(1) == 1).any()
    assert found.probabilities.min() < 1e-20
    error, found, c, k = saturated(12.0, single_step())
    assert (error < 4 * found.difference(c, k).predicted_error).all()
    assert 0 < found.probabilities.min() < 2**-126
    error, found, c, k = saturated(16.0, single_step())
    gone = found.probabilities.min(1) == 0
    assert gone.any()
    assert np.isinf(found.difference(c, k).conditioning[gone]).all()


def test_the_gradient_of_a_saturated_probability_is_lost_where_logit_differences_are_not() -> None:
    """1 - p_c has the digits that float32 leaves beside 1, so grad p_c has an error of 2^-24 / (1 - p_c) and more."""
    model, inputs = decided()
    worst = []
    for scale in (1.0, 4.0, 8.0):
        wide = recover_logits(service(model, scale=scale), inputs, range(4), single_step())
        narrow = recover_logits(service(model.float(), scale=scale), inputs.astype(np.float32), range(4), single_step())
        model.double()
        c, k, rows = wide.probabilities.argmax(1), wide.probabilities.argmin(1), np.arange(len(inputs))
        truth, found = (one.gradients[rows, c] * one.probabilities[rows, c, None] for one in (wide, narrow))
        worst.append(float((np.linalg.norm(found - truth, axis=1) / np.linalg.norm(truth, axis=1)).max()))
        exact = wide.difference(c, k).gradient
        apart = np.linalg.norm(narrow.difference(c, k).gradient - exact, axis=1) / np.linalg.norm(exact, axis=1)
        assert apart.max() < 1e-5
    assert worst[0] < 1e-5
    assert worst[2] > 0.1


def test_what_cancels_is_amplified_by_saturation_and_the_conditioning_tells() -> None:
    predicted = []
    for scale in (1.0, 2.0, 4.0, 8.0):
        error, found, c, k = saturated(scale, step_count(50))
        difference = found.difference(c, k)
        # The service's own sums of 50 terms round more than once. What is all noise is measured against noise: an
        # error is one draw of it, which hangs on the machine.
        lost = difference.predicted_error > 0.03
        assert (error < 30 * difference.predicted_error)[~lost].all()
        assert (error > difference.predicted_error / 30).all()
        assert error[lost].max(initial=0) > 0.03 or not lost.any()
        predicted.append(float(difference.predicted_error.max()))
    assert predicted == sorted(predicted)
    assert predicted[0] < 1e-4
    assert predicted[-1] > 0.03


def test_inside_one_linear_region_the_prediction_holds_too() -> None:
    """However large the condition number of J: it reaches 1e17 here, and the error stays below 1e-3."""
    for plan in (baseline_window(0.1, 5), baseline_window(1e-3, 5), bias_free(20), shared_piece(0.5, 50)):
        for scale in (1.0, 2.0, 8.0):
            error, found, c, k = saturated(scale, plan)
            predicted = found.difference(c, k).predicted_error
            assert (error < 10 * predicted).all()
            assert (predicted < 1e-3).all()
    assert found.condition.max() > 1e12


def test_decimals_on_the_wire_cost_what_the_amplification_says() -> None:
    model, inputs = linear()
    plain = service(model, scale=3.0)
    exact = recover_logits(plain, inputs, range(4), single_step())
    coarse = recover_logits(Wired(plain.explainer, Wire(decimals=6)), inputs, range(4), single_step())
    c, k = exact.probabilities.argmax(1), exact.probabilities.argmin(1)
    missed = np.abs(coarse.difference(c, k).gradient - exact.difference(c, k).gradient)
    assert (missed.max(1) < 3e-6 * exact.difference(c, k).amplification).all()
    assert (missed.max(1) > 1e-8 * exact.difference(c, k).amplification).all()
    told = recover_logits(Wired(plain.explainer, Wire(significant_digits=3)), inputs, range(4), single_step())
    error = np.linalg.norm(told.difference(c, k).gradient - exact.difference(c, k).gradient, axis=1)
    size = np.linalg.norm(exact.difference(c, k).gradient, axis=1)
    assert (error / size < 4 * told.difference(c, k).predicted_error).all()


def test_the_relative_rounding_may_be_given() -> None:
    model, inputs = linear()
    found = recover_logits(service(model), inputs, (0, 1), single_step(), relative_rounding=0.5).difference(0, 1)
    assert (found.predicted_error == 0.5 * found.conditioning).all()


class Answering:
    """A service whose outputs are the same whatever it is asked."""

    capabilities = PROBABILITIES

    def __init__(self, output: float) -> None:
        self.output = output

    def explain(self, request: Request) -> Explanation:
        return Explanation(np.full(len(request.inputs), self.output), np.ones_like(request.inputs))


def test_what_cannot_be_undone_gets_a_sentence() -> None:
    model, inputs = linear()
    logits = Recording(LocalExplainer(model, Capabilities(rule="riemann_right")))
    with pytest.raises(NotPermitted, match="answers logits.*Use recover"):
        recover_logits(logits, inputs, (0, 1), single_step())
    assert logits.requests == []
    for classes in ((), (1,), (0, 1, 0)):
        with pytest.raises(InvalidValue, match="two different classes or more"):
            recover_logits(service(model), inputs, classes, single_step())
    with pytest.raises(InvalidValue, match=r"was not asked about. Got \[3\]. Choose from \[0, 1\]"):
        recover_logits(service(model), inputs, (0, 1), single_step()).difference(0, 3)
    with pytest.raises(BadAnswer, match="must sum to 1.*Give all the service's classes"):
        recover_logits(service(model), inputs, (0, 1, 2), baseline_window(0.01, 5))
    for output in (1.7, -0.1, float("nan")):
        with pytest.raises(BadAnswer, match="no probabilities"):
            recover_logits(Answering(output), inputs, (0, 1), single_step())
    with pytest.raises(BadAnswer, match="must sum to 1"):
        recover_logits(Answering(0.9), inputs, (0, 1), single_step())
