"""Kriging: the paper's equations are its special cases, and its predictions those of a slow oracle."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from disintegrate import (
    InvalidValue,
    Noise,
    Plan,
    Query,
    Walk,
    baseline_window,
    bias_free,
    krige,
    predicted_distance,
    rule_named,
    shared_piece,
    single_step,
    single_step_beyond,
    step_count,
)
from disintegrate.kriging import coefficients
from disintegrate.quadrature import Rule, gauss_legendre, midpoint, riemann_right
from disintegrate.walk import Covariance, Jumps, Prior, Stopped, affine_stretches, covariance
from tests.strategies import plans, rule_names

walks = st.builds(Walk, st.floats(0.01, 1), st.floats(0.005, 0.3), st.floats(0.1, 5))
NO_NOISE = Noise()


def same(plan: Plan, other: Plan, rel: float = 1e-6) -> bool:
    pairs = zip(plan, other, strict=True)
    return all(
        a.query == b.query and math.isclose(a.coefficient, b.coefficient, rel_tol=rel, abs_tol=1e-9) for a, b in pairs
    )


def kriged(plan: Plan, rule: Rule, prior: Prior) -> Plan:
    return krige([term.query for term in plan], rule, prior, NO_NOISE)


@given(walk=walks, steps=st.integers(2, 50))
def test_equation_4_and_the_one_query_plans_come_out_for_every_walk(walk: Walk, steps: int) -> None:
    assert same(kriged(step_count(steps), riemann_right, walk), step_count(steps), rel=1e-4)
    assert same(kriged(single_step(), riemann_right, walk), single_step())
    for rule in (midpoint, gauss_legendre):
        assert same(kriged(single_step_beyond(), rule, walk), single_step_beyond())


@given(steps=st.integers(1, 60), name=st.sampled_from(("riemann_right", "midpoint", "gauss_legendre", "trapezoid")))
def test_equation_2_and_the_window_come_out_where_the_gradient_does_not_change(steps: int, name: str) -> None:
    """Without a jump the clock stands still: one answer tells all, and is divided by its mass."""
    steps += name == "trapezoid"
    assert same(kriged(bias_free(steps), rule_named(name), Jumps()), bias_free(steps))
    window = baseline_window(0.125, steps)
    assert same(kriged(window, rule_named(name), Jumps()), window)


@pytest.mark.parametrize("alpha", [0.5, 0.8, 0.98])
def test_equation_3_comes_out_where_the_gradient_jumps_at_alpha(alpha: float) -> None:
    """One gradient below alpha and another above that share nothing: the setting of theorem 3.3."""
    assert same(kriged(shared_piece(alpha, 50), riemann_right, Jumps((alpha,))), shared_piece(alpha, 50))


@given(plan=plans, name=rule_names, walk=walks)
def test_the_covariance_is_the_double_sum_over_atoms(plan: Plan, name: str, walk: Walk) -> None:
    rule, queries = rule_named(name), [term.query for term in plan]
    found = covariance(queries, rule, walk)

    def atoms(query: Query) -> list[tuple[float, float]]:
        q = rule(query.steps)
        length = query.stop - query.start
        return [(query.start + t * length, length * w) for t, w in zip(q.nodes, q.weights, strict=True)]

    def correlation(s: float, t: float) -> float:
        times = walk.clock(np.array([s, t]))
        return math.exp(-abs(times[0] - times[1]))

    for j, first in enumerate(queries):
        slow = sum(w * correlation(p, 1.0) for p, w in atoms(first))
        assert found.wanted[j] == pytest.approx(slow, abs=1e-9)
        for k, second in enumerate(queries):
            slow = sum(v * w * correlation(p, q) for p, v in atoms(first) for q, w in atoms(second))
            assert found.answers[j, k] == pytest.approx(slow, abs=1e-9)


@given(plan=plans, name=rule_names, walk=walks, relative=st.floats(0, 0.1))
def test_no_other_coefficients_predict_less_error(plan: Plan, name: str, walk: Walk, relative: float) -> None:
    rule, noise = rule_named(name), Noise(relative=relative)
    best = krige([term.query for term in plan], rule, walk, noise)
    assert predicted_distance(best, rule, walk, noise) <= predicted_distance(plan, rule, walk, noise) + 1e-6


def test_predicted_errors_are_those_of_gradients_drawn_from_the_walk() -> None:
    """Gaussian gradients with the walk's covariance on the atoms, drawn by an independent Cholesky factor."""
    generator, walk, noise = np.random.default_rng(0), Walk(0.3, 0.05, 1.0), Noise(relative=0.02)
    queries = [Query(0, 1, 10), Query(0, 0.8, 10), Query(0, 1.1, 10)]
    for plan in (krige(queries, riemann_right, walk, noise), Plan([(1, queries[0])]), shared_piece(0.8, 10)):
        measure = plan.measure(riemann_right)
        places = np.append(measure.positions[measure.positions != 1], 1.0)
        weights = np.append(measure.weights[measure.positions != 1], measure.weights[measure.positions == 1].sum())
        times = walk.clock(places)
        factor = np.linalg.cholesky(np.exp(-np.abs(times[:, None] - times)) + 1e-12 * np.eye(len(places)))
        gradients = factor @ generator.normal(size=(len(places), 20_000))
        found = covariance([term.query for term in plan], riemann_right, walk)
        scale = np.sqrt(np.diag(found.answers)) * noise.relative
        disturbed = weights @ gradients + sum(
            term.coefficient * one * generator.normal(size=20_000) for term, one in zip(plan, scale, strict=True)
        )
        truth = gradients[-1]
        apart = np.linalg.norm(disturbed / np.linalg.norm(disturbed) - truth / np.linalg.norm(truth))
        assert apart == pytest.approx(predicted_distance(plan, riemann_right, walk, noise), rel=0.03)


def test_noise_alone_costs_its_size_times_the_amplification() -> None:
    plan = step_count(50)
    noise = Noise(absolute=1e-4)
    expected = 1e-4 * plan.amplification
    assert predicted_distance(plan, riemann_right, Walk(), noise) == pytest.approx(expected, rel=1e-3)


def test_answers_that_tell_the_same_do_not_break_the_solution() -> None:
    twins = Covariance(np.ones((2, 2)), np.ones(2))
    assert sum(coefficients(twins, np.zeros(2))) == pytest.approx(1, abs=1e-6)


@given(walk=walks, positions=st.lists(st.floats(-3, 100), min_size=2, max_size=8))
def test_a_clock_never_runs_backwards_and_stands_where_it_is_stopped(walk: Walk, positions: list[float]) -> None:
    at = np.sort(np.array(positions))
    stopped = Stopped(walk, ((0.5, 2.0),))
    for clock in (walk, stopped):
        assert (np.diff(clock.clock(at)) >= -1e-12).all()
    inside = stopped.clock(np.array([0.5, 0.7, 1.3, 2.0]))
    assert np.ptp(inside) < 1e-12
    apart = np.diff(walk.clock(np.array([3.0, 5.0])))
    assert np.diff(stopped.clock(np.array([3.0, 5.0]))) == pytest.approx(apart)


def test_outputs_show_where_no_kink_lies() -> None:
    at = np.linspace(0.1, 1.3, 13)
    outputs = 2 * at + 3 * np.maximum(at - 0.62, 0)
    (low, high) = affine_stretches(at, outputs, 1e-9)
    assert low == pytest.approx((0.1, 0.6))
    assert high == pytest.approx((0.7, 1.3))
    # Two values close together and one far away do not show a kink between the close ones.
    assert affine_stretches(np.array([1.0, 1.01, 50.0]), np.array([1.0, 1.01, 50.0]), 1e-9) == ()
    assert affine_stretches(at[:2], outputs[:2], 1e-9) == ()


def test_a_walk_needs_positive_numbers() -> None:
    with pytest.raises(InvalidValue, match=r"Use Walk\(\)"):
        Walk(roughness=0)
