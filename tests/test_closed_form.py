"""The five plans against slow oracles of the paper's equations, and against what they claim to be exact for."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from disintegrate import (
    Capabilities,
    Exactness,
    InvalidValue,
    LocalExplainer,
    Plan,
    Rule,
    baseline_window,
    bias_free,
    distance,
    gauss_legendre,
    midpoint,
    recover,
    riemann_left,
    riemann_right,
    shared_piece,
    single_step,
    single_step_beyond,
    step_count,
    trapezoid,
)
from tests import oracles
from tests.strategies import Case, cases


def recovered(case: Case, plan: Plan, rule: str = "riemann_right") -> np.ndarray:
    explainer = LocalExplainer(case.model, Capabilities(rule=rule))
    return recover(explainer, case.inputs, case.targets, plan).gradient


def truth(case: Case) -> np.ndarray:
    rows = zip(torch.tensor(case.inputs), case.targets, strict=True)
    return np.stack([oracles.gradient(case.model, x, int(target)).numpy() for x, target in rows])


def slowly(case: Case, equation: object, *settings: float) -> np.ndarray:
    assert callable(equation)
    rows = zip(torch.tensor(case.inputs), case.targets, strict=True)
    return np.stack([equation(case.model, x, int(target), *settings).numpy() for x, target in rows])


@given(case=cases(), steps=st.integers(2, 12), alpha=st.floats(0.1, 0.95))
def test_the_plans_are_the_papers_equations(case: Case, steps: int, alpha: float) -> None:
    for plan, slow in (
        (bias_free(steps), slowly(case, oracles.equation_2, steps)),
        (shared_piece(alpha, steps), slowly(case, oracles.equation_3, steps, alpha)),
        (step_count(steps), slowly(case, oracles.equation_4, steps)),
    ):
        assert distance(recovered(case, plan), slow).max() < 1e-9 * max(1, plan.amplification)


@given(case=cases(), steps=st.integers(2, 60))
def test_what_measures_delta_one_is_exact_for_every_model(case: Case, steps: int) -> None:
    for plan, rule in (
        (step_count(steps), "riemann_right"),
        (single_step(), "riemann_right"),
        (single_step_beyond(), "midpoint"),
        (single_step_beyond(), "gauss_legendre"),
    ):
        assert distance(recovered(case, plan, rule), truth(case)).max() <= 1e-10 * max(1, plan.amplification)


@given(case=cases(kinds=("tanh",)))
def test_equation_3_is_not_exact_for_a_smooth_model(case: Case) -> None:
    assert distance(recovered(case, shared_piece(0.98, 50)), truth(case)).min() > 1e-6


@given(case=cases(kinds=("bias-free relu",)), steps=st.integers(1, 60))
def test_equation_2_is_exact_for_bias_free_networks(case: Case, steps: int) -> None:
    assert distance(recovered(case, bias_free(steps)), truth(case)).max() <= 1e-10


@given(case=cases(kinds=("relu", "max-pool", "residual")), steps=st.integers(2, 20))
def test_a_small_window_is_exact_where_no_kink_lies_in_it(case: Case, steps: int) -> None:
    plan = baseline_window(1e-9, steps)
    assert distance(recovered(case, plan, "trapezoid"), truth(case)).max() <= 1e-5


@given(case=cases(kinds=("tanh",)))
def test_a_centred_window_is_of_second_order_on_smooth_models(case: Case) -> None:
    def error(width: float, *, centred: bool) -> float:
        plan = baseline_window(width, 2, centred=centred)
        return float(distance(recovered(case, plan, "gauss_legendre"), truth(case)).max())

    assert error(2e-3, centred=False) == pytest.approx(2 * error(1e-3, centred=False), rel=0.1)
    assert error(2e-3, centred=True) == pytest.approx(4 * error(1e-3, centred=True), rel=0.1)


@pytest.mark.parametrize(
    ("plan", "rule", "expected"),
    [
        (step_count(50), riemann_right, Exactness.EVERY_MODEL),
        (step_count(50), gauss_legendre, Exactness.CONSTANT_PIECE),
        (step_count(50), riemann_left, Exactness.CONSTANT_PIECE),
        (single_step(), riemann_right, Exactness.EVERY_MODEL),
        (single_step(), midpoint, Exactness.CONSTANT_PIECE),
        (single_step_beyond(), midpoint, Exactness.EVERY_MODEL),
        (single_step_beyond(), gauss_legendre, Exactness.EVERY_MODEL),
        (baseline_window(0.01, 50), trapezoid, Exactness.CONSTANT_PIECE),
        (shared_piece(0.98, 50), riemann_right, Exactness.CONSTANT_PIECE),
        (bias_free(50), riemann_right, Exactness.CONSTANT_PIECE),
    ],
)
def test_exactness_hangs_on_the_rule(plan: Plan, rule: Rule, expected: Exactness) -> None:
    assert plan.measure(rule).exactness is expected


@given(steps=st.integers(2, 300))
def test_equation_4_telescopes_for_every_step_count(steps: int) -> None:
    measure = step_count(steps).measure(riemann_right)
    assert measure.exactness is Exactness.EVERY_MODEL
    assert measure.weights[0] == pytest.approx(1, abs=1e-12)


def test_equation_3_with_steps_still_measures_the_whole_ray() -> None:
    """Theorem 3.3 confines it to [alpha, 1] for the integral only."""
    assert shared_piece(0.98, 50).measure(riemann_right).piece[0] == pytest.approx(0.98 / 50)


@pytest.mark.parametrize("alpha", [0, 1, -0.5, 1.5])
def test_alpha_outside_its_range_is_refused(alpha: float) -> None:
    with pytest.raises(InvalidValue, match=r"Use 0\.98"):
        shared_piece(alpha, 50)


def test_equation_4_wants_two_steps() -> None:
    with pytest.raises(InvalidValue, match=r"Use single_step\(\)"):
        step_count(1)


@pytest.mark.parametrize("width", [0, -1, 1.5, float("inf"), float("nan")])
def test_a_window_needs_a_width(width: float) -> None:
    with pytest.raises(InvalidValue, match="not above 1"):
        baseline_window(width, 5)
