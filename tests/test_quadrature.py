from math import factorial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from disintegrate import InvalidValue, Quadrature, UnknownName, rule_named
from disintegrate.quadrature import gauss_legendre, riemann_left, riemann_right, trapezoid
from disintegrate.rules import RULES
from tests.strategies import TEXTBOOK, steps_of


@given(data=st.data(), name=st.sampled_from(TEXTBOOK))
def test_every_textbook_rule_has_mass_one_and_nodes_in_the_unit_interval(data: st.DataObject, name: str) -> None:
    rule = rule_named(name)(data.draw(steps_of(name)))
    assert rule.mass == pytest.approx(1, abs=1e-14)
    assert (rule.nodes >= 0).all()
    assert (rule.nodes <= 1).all()
    assert (np.diff(rule.nodes) > 0).all()


@given(steps=st.integers(1, 60))
def test_riemann_sums_miss_the_integral_of_t_by_half_a_step(steps: int) -> None:
    right, left = riemann_right(steps), riemann_left(steps)
    assert right.weights @ right.nodes == pytest.approx(0.5 + 0.5 / steps, abs=1e-14)
    assert left.weights @ left.nodes == pytest.approx(0.5 - 0.5 / steps, abs=1e-14)


@given(steps=st.integers(2, 60), name=st.sampled_from(("midpoint", "trapezoid", "gauss_legendre")))
def test_symmetric_rules_integrate_t_exactly(steps: int, name: str) -> None:
    rule = RULES[name](steps)
    assert rule.weights @ rule.nodes == pytest.approx(0.5, abs=1e-14)


@given(steps=st.integers(2, 60))
def test_error_of_t_squared_is_the_textbooks(steps: int) -> None:
    h = 1 / steps
    midpoint = RULES["midpoint"](steps)
    assert midpoint.weights @ midpoint.nodes**2 == pytest.approx(1 / 3 - h**2 / 12, abs=1e-13)
    ends = trapezoid(steps + 1)
    assert ends.weights @ ends.nodes**2 == pytest.approx(1 / 3 + h**2 / 6, abs=1e-13)


@given(steps=st.integers(1, 20), data=st.data())
def test_gauss_legendre_is_exact_up_to_its_degree(steps: int, data: st.DataObject) -> None:
    rule, degree = gauss_legendre(steps), data.draw(st.integers(0, 2 * steps - 1))
    assert rule.weights @ rule.nodes**degree == pytest.approx(1 / (degree + 1), abs=1e-13)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_the_first_error_of_gauss_legendre_is_the_textbooks(steps: int) -> None:
    """On t^2m it misses (m!)^4 / ((2m + 1) ((2m)!)^2)."""
    rule = gauss_legendre(steps)
    missed = 1 / (2 * steps + 1) - rule.weights @ rule.nodes ** (2 * steps)
    expected = factorial(steps) ** 4 / ((2 * steps + 1) * factorial(2 * steps) ** 2)
    assert missed == pytest.approx(expected, rel=1e-6)


def test_gauss_legendre_with_two_nodes_is_known_in_closed_form() -> None:
    rule = gauss_legendre(2)
    np.testing.assert_allclose(rule.nodes, [0.5 - 0.5 / np.sqrt(3), 0.5 + 0.5 / np.sqrt(3)], atol=1e-15)
    np.testing.assert_allclose(rule.weights, [0.5, 0.5], atol=1e-15)


@pytest.mark.parametrize("name", TEXTBOOK)
@pytest.mark.parametrize("steps", [0, -3, True])
def test_bad_steps_are_told_with_what_to_write_instead(name: str, steps: int) -> None:
    if name == "trapezoid" and steps is True:
        return
    with pytest.raises(InvalidValue, match=rf"{name}.*Got {steps}\. Use steps="):
        RULES[name](steps)


def test_the_trapezoid_rule_refuses_one_step() -> None:
    with pytest.raises(InvalidValue, match="Use steps=2"):
        trapezoid(1)


def test_an_unknown_rule_is_told_with_the_known_ones() -> None:
    with pytest.raises(UnknownName, match=r"Got 'simpson'\. Choose from riemann_right"):
        rule_named("simpson")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("nodes", "weights"), [([], []), ([0.5], [0.5, 0.5]), ([[0.5]], [[1.0]]), ([0.5], [np.nan]), ([np.inf], [1.0])]
)
def test_a_quadrature_refuses_what_is_none(nodes: list[float], weights: list[float]) -> None:
    with pytest.raises(InvalidValue):
        Quadrature(np.array(nodes), np.array(weights))


def test_a_quadrature_cannot_be_changed_from_outside() -> None:
    nodes = np.array([0.5])
    rule = Quadrature(nodes, np.array([1.0]))
    nodes[0] = 9
    assert rule.nodes[0] == 0.5
    with pytest.raises(ValueError, match="read-only"):
        rule.nodes[0] = 9
