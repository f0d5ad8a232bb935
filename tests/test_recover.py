"""The query loop: exactly which questions go out, and what is made of the answers."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from disintegrate import (
    BadAnswer,
    Capabilities,
    Explanation,
    InvalidValue,
    LocalExplainer,
    NotPermitted,
    Plan,
    Query,
    Recording,
    Remembering,
    Request,
    baseline_window,
    bias_free,
    recover,
    rule_named,
    shared_piece,
    single_step,
    single_step_beyond,
    step_count,
)
from tests.strategies import INPUTS, Case, cases, network, plans, rule_names


def recording(case: Case, rule: str = "riemann_right") -> Recording:
    return Recording(LocalExplainer(case.model, Capabilities(rule=rule)))


@given(case=cases(kinds=("relu",)))
def test_equation_4_asks_two_questions(case: Case) -> None:
    service = recording(case)
    recovery = recover(service, case.inputs, case.targets, step_count(50))
    first, second = service.requests
    assert (first.steps, second.steps) == (50, 49)
    assert (first.inputs == case.inputs).all()
    np.testing.assert_allclose(second.inputs, 0.98 * case.inputs, rtol=1e-15)
    for request in (first, second):
        assert request.baselines is not None
        assert not request.baselines.any()
        assert (request.targets == case.targets).all()
    assert recovery.queries == 2 * len(case.inputs)


def test_the_points_are_sent_in_the_dtype_of_the_wire() -> None:
    service = Recording(LocalExplainer(network("relu", 0).float(), Capabilities(rule="riemann_right")))
    inputs = np.random.default_rng(0).normal(size=(2, INPUTS)).astype(np.float32)
    recover(service, inputs, np.array([0, 1]), shared_piece(0.98, 4))
    scaled = service.requests[1].inputs
    assert scaled.dtype == np.float32
    assert (scaled == (0.98 * inputs.astype(np.float64)).astype(np.float32)).all()


@given(case=cases(kinds=("relu",)), seed=st.integers(0, 99))
def test_a_window_asks_one_question_from_a_baseline_close_to_the_input(case: Case, seed: int) -> None:
    service = recording(case)
    baselines = np.random.default_rng(seed).normal(size=case.inputs.shape)
    recover(service, case.inputs, case.targets, baseline_window(0.25, 8), baselines=baselines)
    (request,) = service.requests
    assert (request.inputs == case.inputs).all()
    assert request.baselines is not None
    np.testing.assert_allclose(request.baselines, 0.25 * baselines + 0.75 * case.inputs, atol=1e-14)


@given(plan=plans, rule=rule_names, seed=st.integers(0, 99))
def test_any_plan_on_a_cubic_gives_what_its_measure_says(plan: Plan, rule: str, seed: int) -> None:
    """On f = sum(x^3) / 3 the gradient on the ray from 0 is t^2 x^2: the measure's second moment times x^2."""
    inputs = np.random.default_rng(seed).uniform(0.5, 1, (2, 3))
    service = LocalExplainer(Cubes(), Capabilities(rule=rule))
    recovery = recover(service, inputs, np.zeros(2, np.int64), plan)
    measure = plan.measure(rule_named(rule))
    moment = measure.weights @ measure.positions**2
    size = sum(abs(term.coefficient) for term in plan) * 20
    np.testing.assert_allclose(recovery.gradient, moment * inputs**2, atol=1e-10 * max(size, 1))


class Cubes(nn.Module):
    """f(x) = sum_i x_i^3 / 3."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, dtype=torch.float64) / 3)

    def forward(self, x: Tensor) -> Tensor:
        return (x**3).sum(1, keepdim=True) * self.scale


def test_coordinates_that_do_not_move_are_reported_as_not_observed() -> None:
    service = LocalExplainer(network("relu", 1), Capabilities(rule="riemann_right"))
    inputs = np.array([[0.0, 1, 2, 0, 3, 4]])
    recovery = recover(service, inputs, np.array([0]), single_step())
    assert recovery.observed.tolist() == [[False, True, True, False, True, True]]
    assert (recovery.gradient[~recovery.observed] == 0).all()
    assert (recovery.gradient[recovery.observed] != 0).all()


def test_the_output_at_the_input_is_told_where_a_query_stops_there() -> None:
    model = network("tanh", 2)
    service = LocalExplainer(model, Capabilities(rule="midpoint"))
    inputs, targets = np.random.default_rng(0).normal(size=(2, INPUTS)), np.array([2, 0])
    outputs = model(torch.tensor(inputs)).detach().numpy()[[0, 1], targets]
    for plan in (bias_free(5), shared_piece(0.5, 5), step_count(3), baseline_window(0.1, 4)):
        np.testing.assert_allclose(recover(service, inputs, targets, plan).output, outputs, atol=1e-14)
    beyond = recover(service, inputs, targets, single_step_beyond())
    assert np.isnan(beyond.output).all()
    twice = model(torch.tensor(2 * inputs)).detach().numpy()[[0, 1], targets]
    np.testing.assert_allclose(beyond.outputs[:, 0], twice, atol=1e-14)


def test_cancelled_digits_count_what_the_subtraction_lost() -> None:
    service = LocalExplainer(nn.Linear(3, 1).double(), Capabilities(rule="riemann_right"))
    inputs, target = np.ones((1, 3)), np.array([0])
    assert recover(service, inputs, target, bias_free(50)).cancelled_digits[0] == pytest.approx(0, abs=1e-12)
    # 50 g and -49 g leave g: log10(99).
    assert recover(service, inputs, target, step_count(50)).cancelled_digits[0] == pytest.approx(np.log10(99))


def test_a_plan_beyond_the_capabilities_is_refused_before_anything_is_asked() -> None:
    inputs, targets = np.ones((1, INPUTS)), np.array([0])
    for allowed, plan in (
        (Capabilities(rule="riemann_right", fewest_steps=50, most_steps=50), step_count(50)),
        (Capabilities(rule="riemann_right", most_steps=10), bias_free(11)),
        (Capabilities(rule="riemann_right", baseline=False), baseline_window(0.1, 5)),
    ):
        service = Recording(LocalExplainer(network("relu", 0), allowed))
        with pytest.raises(NotPermitted, match="Use a plan"):
            recover(service, inputs, targets, plan)
        assert service.requests == []


def test_a_baseline_that_the_service_would_not_take_is_refused_before_anything_is_asked() -> None:
    service = Recording(LocalExplainer(network("relu", 0), Capabilities(rule="riemann_right", baseline=False)))
    inputs, targets = np.ones((1, INPUTS)), np.array([0])
    with pytest.raises(NotPermitted, match="Use the zero baseline"):
        recover(service, inputs, targets, bias_free(5), baselines=inputs / 2)
    assert service.requests == []
    recover(service, inputs, targets, bias_free(5), baselines=0 * inputs)
    assert len(service.requests) == 1


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("inputs", "targets", "baselines"),
    [
        (np.ones((2, 3)), np.array([0]), None),
        (np.ones(3), np.array([0, 0, 0]), None),
        (np.ones((0, 3)), np.zeros(0, int), None),
        (np.ones((2, 3)), np.array([0, 0]), np.zeros((2, 4))),
        (np.full((2, 3), np.nan), np.array([0, 0]), None),
        (np.ones((2, 3)), np.array([0, 0]), np.full((2, 3), np.inf)),
    ],
)
def test_bad_input_is_refused_before_anything_is_asked(
    inputs: np.ndarray, targets: np.ndarray, baselines: np.ndarray | None
) -> None:
    service = Recording(LocalExplainer(nn.Linear(3, 1), Capabilities(rule="riemann_right")))
    with pytest.raises(InvalidValue):
        recover(service, inputs, targets, single_step(), baselines=baselines)
    assert service.requests == []


def test_remembering_asks_no_question_twice() -> None:
    inside = Recording(LocalExplainer(network("relu", 0), Capabilities(rule="riemann_right")))
    service, inputs, targets = Remembering(inside), np.ones((1, INPUTS)), np.array([0])
    first = recover(service, inputs, targets, step_count(8))
    recover(service, inputs, targets, shared_piece(0.5, 8))
    again = recover(service, inputs, targets, step_count(8))
    assert [request.steps for request in inside.requests] == [8, 7, 8]
    assert (first.gradient == again.gradient).all()
    recover(service, inputs, targets, Plan([(1, Query(0, 1, 9))]))
    recover(service, 2 * inputs, targets, bias_free(8))
    recover(service, inputs, targets + 1, bias_free(8))
    assert len(inside.requests) == 6


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("inputs", "targets", "plan", "sentence"),
    [
        (torch.ones(1, 3), np.array([0]), single_step(), "The inputs must be a numpy array. Got Tensor"),
        ([[1.0, 2, 3]], np.array([0]), single_step(), "The inputs must be a numpy array. Got list"),
        (np.ones((1, 3)), 0, single_step(), "The targets must be a numpy array. Got int"),
        (np.ones((1, 3)), np.array([0.5]), single_step(), "Targets are indices of outputs. Got float64"),
        (np.ones((1, 3)), np.array([0]), "step_count", "A plan is wanted. Got str"),
    ],
)
def test_what_is_no_array_or_plan_gets_a_sentence(inputs: Any, targets: Any, plan: Any, sentence: str) -> None:
    service = Recording(LocalExplainer(nn.Linear(3, 1), Capabilities(rule="riemann_right")))
    with pytest.raises(InvalidValue, match=sentence):
        recover(service, inputs, targets, plan)
    assert service.requests == []


class Answering:
    """A service that answers the same whatever it is asked."""

    capabilities = Capabilities(rule="riemann_right")

    def __init__(self, attribution: np.ndarray) -> None:
        self.attribution = attribution

    def explain(self, request: Request) -> Explanation:
        return Explanation(np.zeros(1), self.attribution)


@pytest.mark.parametrize(
    ("attribution", "sentence"),
    [
        (np.array([[1.0, np.nan, 2]]), "NaN or infinity. Got 1 such"),
        (np.ones((1, 4)), r"another shape.*\(1, 4\) for \(1, 3\)"),
    ],
)
def test_an_answer_that_is_no_explanation_gets_a_sentence(attribution: np.ndarray, sentence: str) -> None:
    with pytest.raises(BadAnswer, match=sentence):
        recover(Answering(attribution), np.ones((1, 3)), np.array([0]), single_step())


@pytest.mark.usefixtures("unchecked")
def test_an_answer_with_outputs_of_another_shape_gets_a_sentence() -> None:
    with pytest.raises(BadAnswer, match=r"one for each input. Got \(1,\) for 2 inputs"):
        recover(Answering(np.ones((2, 3))), np.ones((2, 3)), np.array([0, 0]), single_step())
