import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from disintegrate import Exactness, Measure, Plan, Query, riemann_right, rule_named
from tests.strategies import plans, rule_names

coefficients = st.floats(-3, 3)


def integral(measure: Measure, g: np.polynomial.Polynomial) -> float:
    return float(measure.weights @ g(measure.positions))


@given(plan=plans, name=rule_names, polynomial=st.lists(coefficients, min_size=1, max_size=5))
def test_the_measure_is_the_sum_of_the_answers(plan: Plan, name: str, polynomial: list[float]) -> None:
    """Each query asked one by one, by equation (1) of the design, against the one measure."""
    g = np.polynomial.Polynomial(polynomial)
    slow = 0.0
    for term in plan:
        rule = rule_named(name)(term.query.steps)
        for node, weight in zip(rule.nodes, rule.weights, strict=True):
            length = term.query.stop - term.query.start
            slow += term.coefficient * length * weight * g(term.query.start + node * length)
    size = sum(abs(t.coefficient) for t in plan) * sum(abs(c) for c in polynomial) * 100
    assert integral(plan.measure(rule_named(name)), g) == pytest.approx(slow, abs=1e-10 * max(1.0, size))


@given(plan=plans, other=plans, name=rule_names)
def test_the_mass_of_two_plans_together_is_the_sum_of_their_masses(plan: Plan, other: Plan, name: str) -> None:
    rule = rule_named(name)
    both = Plan([*plan, *other])
    expected = plan.measure(rule).mass + other.measure(rule).mass
    assert both.measure(rule).mass == pytest.approx(expected, abs=1e-9)


@given(plan=plans, name=rule_names, scale=st.floats(0.1, 4))
def test_stretching_the_queries_stretches_the_measure(plan: Plan, name: str, scale: float) -> None:
    """Mu of the queries [s k, e k] is mu of [s, e] with positions and weights times k."""
    rule = rule_named(name)
    stretched = Plan((t.coefficient, Query(t.query.start * scale, t.query.stop * scale, t.query.steps)) for t in plan)
    g = np.polynomial.Polynomial([1.0, -0.5, 0.25])
    expected = scale * integral(plan.measure(rule), np.polynomial.Polynomial([1.0, -0.5 * scale, 0.25 * scale**2]))
    assert integral(stretched.measure(rule), g) == pytest.approx(expected, abs=1e-7)


def test_atoms_that_coincide_are_merged_and_those_that_cancel_are_dropped() -> None:
    measure = Measure(np.array([0.5, 1.0, 0.5, 0.2]), np.array([2.0, 1.0, -2.0, 3.0]))
    assert measure.positions.tolist() == [0.2, 1.0]
    assert measure.weights.tolist() == [3.0, 1.0]
    assert measure.support == (0.2, 1.0)
    assert measure.mass == 4.0


def test_exactness_is_read_off_the_atoms() -> None:
    def exactness(*atoms: tuple[float, float]) -> Exactness:
        return Measure(np.array([float(a) for a, _ in atoms]), np.array([float(w) for _, w in atoms])).exactness

    assert exactness((1, 1)) is Exactness.EVERY_MODEL
    assert exactness((1, 0.5), (1, 0.5)) is Exactness.EVERY_MODEL
    assert exactness((0.9, 1)) is Exactness.CONSTANT_PIECE
    assert exactness((0.5, 0.5), (1, 0.5)) is Exactness.CONSTANT_PIECE
    assert exactness((1, 0.99)) is Exactness.NONE
    assert exactness((0.5, 1), (0.5, -1)) is Exactness.NONE


def test_a_bias_free_network_wants_all_atoms_behind_the_origin() -> None:
    assert Measure(np.array([0.02, 1.0]), np.array([0.5, 0.5])).exact_for_bias_free
    assert not Measure(np.array([0.0, 1.0]), np.array([0.5, 0.5])).exact_for_bias_free
    assert not Measure(np.array([-0.5, 1.0]), np.array([0.5, 0.5])).exact_for_bias_free
    assert not Measure(np.array([0.5]), np.array([0.9])).exact_for_bias_free


@given(
    atoms=st.lists(st.tuples(st.floats(0, 1.5), st.floats(-3, 3)), min_size=1, max_size=6),
    kinks=st.lists(st.tuples(st.floats(0, 1.5), st.floats(-2, 2)), max_size=6),
)
def test_the_error_bound_holds_for_every_step_function(
    atoms: list[tuple[float, float]], kinks: list[tuple[float, float]]
) -> None:
    rest = 1 - sum(weight for _, weight in atoms)
    measure = Measure(np.array([p for p, _ in atoms] + [1.0]), np.array([w for _, w in atoms] + [rest]))

    def g(t: float) -> float:
        return sum(jump for place, jump in kinks if t > place)

    error = abs(sum(w * g(p) for p, w in zip(measure.positions, measure.weights, strict=True)) - g(1.0))
    variation = sum(abs(jump) for _, jump in kinks)
    assert error <= measure.error_bound * variation + 1e-9


def test_the_error_bound_is_attained() -> None:
    """All mass at 1/2, a jump of 1 between there and the input: the error is the whole jump."""
    assert Measure(np.array([0.5]), np.array([1.0])).error_bound == 1.0
    assert Measure(np.array([0.5, 1.0]), np.array([0.25, 0.75])).error_bound == 0.25
    assert Measure(np.array([1.0]), np.array([1.5])).error_bound == float("inf")


@given(steps=st.integers(2, 80))
def test_the_plain_explanation_leaves_all_but_one_step_in_error(steps: int) -> None:
    plain = Plan([(1, Query(0, 1, steps))]).measure(riemann_right)
    assert plain.error_bound == pytest.approx((steps - 1) / steps)
