"""Estimates from fixed queries, the fit of the walk, and the planner's choices."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from disintegrate import (
    Capabilities,
    InvalidValue,
    LocalExplainer,
    Noise,
    NotPermitted,
    Plan,
    Query,
    Recording,
    UnknownName,
    Walk,
    Way,
    Wire,
    Wired,
    carry_out,
    distance,
    estimate,
    krige,
    propose,
    recover,
    rule_named,
    shared_piece,
)
from disintegrate.exact import Reach
from disintegrate.planner import repeated
from disintegrate.quadrature import riemann_right
from disintegrate.refit import ROUGHNESSES, fit_walk
from disintegrate.scales import candidate_scales, choose_queries, pool_of
from tests.strategies import INPUTS, Case, cases, network
from tests.test_closed_form import truth

FIXED = Capabilities("riemann_right", 20, 20, baseline=False)
SPREAD = [Query(0, float(scale), 20) for scale in np.linspace(0.1, 1.3, 13)]


class TwoPieces(nn.Module):
    """Gradients (1, 2, 3) before the kink at 0.55 of the ray to (1, 1, 1), and another behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Parameter(torch.tensor([1.0, 2, 3], dtype=torch.float64))
        self.jump = nn.Parameter(torch.tensor([4.0, -3, 1], dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = x @ self.before + torch.relu((x - 0.55) @ self.jump)
        return out[:, None]


def test_outputs_bring_the_error_down_by_showing_where_the_kink_is() -> None:
    service = LocalExplainer(TwoPieces(), FIXED)
    inputs, target = np.ones((1, 3)), np.array([0])
    expected = np.array([[5.0, -1, 4]])
    errors = {
        outputs: float(distance(estimate(service, inputs, target, SPREAD, outputs=outputs).gradient, expected)[0])
        for outputs in (False, True)
    }
    assert errors[True] < errors[False] / 3
    assert errors[True] < 0.02


def test_an_estimate_beats_equation_3_and_asks_exactly_its_queries() -> None:
    model = network("relu", 5)
    service = Recording(LocalExplainer(model, FIXED))
    inputs, targets = np.random.default_rng(0).normal(size=(8, INPUTS)), np.zeros(8, np.int64)
    case = Case("relu", model, inputs, targets)
    found = estimate(service, inputs, targets, SPREAD)
    assert [request.steps for request in service.requests] == [20] * 13
    assert all(request.baselines is None for request in service.requests)
    np.testing.assert_allclose(service.requests[3].inputs, 0.4 * inputs)
    assert found.queries == 13 * 8
    equation = recover(LocalExplainer(model, FIXED), inputs, targets, shared_piece(0.95, 20)).gradient
    assert distance(found.gradient, truth(case)).mean() < distance(equation, truth(case)).mean() / 2
    assert (found.predicted_error < 1).all()


def test_what_is_not_permitted_is_refused_before_anything_is_asked() -> None:
    service = Recording(LocalExplainer(network("relu", 5), FIXED))
    inputs, target = np.ones((1, INPUTS)), np.array([0])
    with pytest.raises(NotPermitted):
        estimate(service, inputs, target, [Query(0, 1, 20), Query(0, 1, 19)])
    with pytest.raises(NotPermitted):
        estimate(service, inputs, target, [Query(0.5, 1, 20)])
    assert service.requests == []


@given(
    roughness=st.sampled_from((0.02, 0.15, 0.6)),
    seed=st.integers(0, 50),
    name=st.sampled_from(("midpoint", "saliency")),
)
def test_the_fit_finds_the_roughness_that_the_answers_were_drawn_with(roughness: float, seed: int, name: str) -> None:
    """Answers drawn from the walk itself, by a Cholesky factor of the covariance of its atoms."""
    rule, walk = rule_named(name), Walk(roughness, 0.02, 3.0)
    queries = [Query(0, float(scale), 10) for scale in np.linspace(0.2, 1.3, 8)]
    quadrature = rule(10)
    places = np.unique(np.concatenate([query.stop * quadrature.nodes for query in queries]))
    times = walk.clock(places)
    factor = np.linalg.cholesky(np.exp(-np.abs(times[:, None] - times)) + 1e-12 * np.eye(len(places)))
    gradients = factor @ np.random.default_rng(seed).normal(size=(len(places), 400))
    rows = np.zeros((len(queries), len(places)))
    for row, query in enumerate(queries):
        np.add.at(rows[row], np.searchsorted(places, query.stop * quadrature.nodes), query.stop * quadrature.weights)
    answers = rows @ gradients
    fitted = fit_walk((answers @ answers.T)[None], queries, rule, Noise(), Walk())

    def run(one: Walk) -> float:
        return float(np.diff(one.clock(np.array([0.5, 1.3])))[0])

    assert run(fitted) / run(walk) == pytest.approx(1, abs=0.6)


def test_one_query_cannot_tell_and_the_given_walk_stays() -> None:
    walk = Walk(0.123)
    assert fit_walk(np.ones((3, 1, 1)), [Query(0, 1, 5)], riemann_right, Noise(), walk) is walk
    assert fit_walk(np.zeros((1, 2, 2)), SPREAD[:2], riemann_right, Noise(), walk) is walk
    assert 0.15 in ROUGHNESSES


@given(highest=st.sampled_from((1.0, 1.3, 2.0, 1e9)), count=st.integers(1, 30), steps=st.integers(2, 60))
def test_chosen_scales_are_different_and_within_reach(highest: float, count: int, steps: int) -> None:
    scales = candidate_scales(riemann_right, steps, highest)
    assert scales.max() <= highest
    queries = choose_queries(pool_of(riemann_right, steps, highest, Walk(), Noise()), count)
    assert len({query.stop for query in queries}) == len(queries) == min(count, len(scales))
    assert {query.start for query in queries} == {0}


def test_more_queries_predict_less_error() -> None:
    predicted = []
    for budget in (1, 2, 3, 10, 20):
        pool = pool_of(riemann_right, 50, 2.0, Walk(), Noise(relative=1e-7))
        plan = krige(choose_queries(pool, budget), riemann_right, Walk(), Noise(relative=1e-7))
        measure = plan.measure(riemann_right)
        predicted.append(float(np.abs(measure.difference.weights).max()))
        assert len(plan) == budget
    proposals = [propose(Capabilities("riemann_right", 50, 50, baseline=False), budget=b) for b in (1, 2, 3, 10)]
    errors = [proposal.predicted_error for proposal in proposals]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1.5 * errors[1]


@pytest.mark.parametrize(
    ("allowed", "budget", "way", "queries"),
    [
        (Capabilities("riemann_right"), 10, Way.EXACT, 1),
        (Capabilities("riemann_right", 20, 100, baseline=False), 10, Way.EXACT, 2),
        (Capabilities("riemann_right", 20, 100, baseline=False), 1, Way.KRIGING, 1),
        (Capabilities("gauss_legendre", 50, 50), 10, Way.WINDOW, 1),
        (Capabilities("gauss_legendre", 2, 2, baseline=False), 8, Way.CASCADE, 8),
        (Capabilities("captum_riemann_right", 20, 100, baseline=False), 10, Way.NEARLY_EXACT, 2),
        (Capabilities("gauss_legendre", 50, 50, baseline=False), 2, Way.KRIGING, 2),
    ],
)
def test_the_planner_takes_the_best_way_there_is(allowed: Capabilities, budget: int, way: Way, queries: int) -> None:
    proposal = propose(allowed, budget=budget)
    assert (proposal.way, len(proposal.plan)) == (way, queries)


def test_noise_turns_the_planner_from_an_exact_plan_to_an_estimate() -> None:
    """Equation (4) with 200 steps multiplies one rounded digit by 280; two queries farther apart do not."""
    allowed = Capabilities("riemann_right", 200, 300, baseline=False)
    assert propose(allowed).way is Way.EXACT
    rounded = Capabilities("riemann_right", 200, 300, baseline=False, wire=Wire(significant_digits=2))
    assert propose(rounded).way is Way.KRIGING


def test_repeats_average_where_noise_is_drawn_anew() -> None:
    noisy = Wire(noise=1e-3, deterministic=False)
    noise = Noise(absolute=0.05, repeats_average=True)
    # a baseline of the caller's own could be so far away that the noise would not matter
    pinned = Capabilities("riemann_right", baseline=False, wire=noisy)
    proposal = propose(pinned, budget=16, noise=noise)
    assert len(proposal.plan) == 16
    assert proposal.predicted_error == pytest.approx(0.05 / 4, rel=0.01)
    assert repeated(proposal.plan, 3).amplification == pytest.approx(proposal.plan.amplification / np.sqrt(3))
    alike = Noise(absolute=0.05)
    assert len(propose(pinned, budget=16, noise=alike).plan) == 1


@given(case=cases(kinds=("relu",)))
def test_images_within_bounds_are_never_asked_beyond_them(case: Case) -> None:
    inputs = np.abs(case.inputs) / 2
    allowed = Capabilities("midpoint", 10, 30, baseline=False, smallest_value=0, largest_value=1)
    lowest, highest = allowed.reach(inputs, np.zeros_like(inputs))
    service = Recording(LocalExplainer(case.model, allowed))
    proposal = propose(allowed, lowest=lowest, highest=highest, budget=5)
    carry_out(service, inputs, case.targets, proposal)
    assert all(request.inputs.min() >= 0 and request.inputs.max() <= 1 for request in service.requests)
    with pytest.raises(NotPermitted, match="stays within"):
        recover(service, inputs, case.targets, Plan([(1, Query(0, 1.01 * highest, 20))]))


def test_bad_settings_get_a_sentence() -> None:
    with pytest.raises(InvalidValue, match="budget=1 or more"):
        propose(FIXED, budget=0)
    with pytest.raises(InvalidValue, match=r"capabilities\.reach"):
        propose(FIXED, highest=0.5)
    with pytest.raises(UnknownName):
        propose(Capabilities("simpson"))
    with pytest.raises(InvalidValue, match=r"trapezoid with 1 to 1 steps"):
        propose(Capabilities("trapezoid", 1, 1, baseline=False))
    with pytest.raises(InvalidValue, match="leave nothing to ask"):
        Capabilities("midpoint", fewest_steps=5, most_steps=4)
    assert not Reach(0, 1, 5, 9, baseline=False).permits(Query(0.1, 1, 5))


@pytest.mark.parametrize(
    "wire", [Wire(significant_digits=3), Wire(significant_digits=6), Wire(dtype="float16"), Wire(dtype="float32")]
)
def test_the_rounding_that_a_wire_names_is_the_rounding_it_does(wire: Wire) -> None:
    values = np.exp(np.random.default_rng(0).uniform(np.log(1e-3), np.log(1e3), 100_000))
    rounded = wire.round(values)
    error = np.sqrt(np.mean(((rounded - values) / values) ** 2))
    assert error == pytest.approx(wire.relative, rel=0.05)


def test_decimals_and_noise_are_absolute() -> None:
    values = np.random.default_rng(0).normal(size=100_000)
    wire = Wire(decimals=2)
    assert np.std(wire.round(values) - values) == pytest.approx(wire.absolute, rel=0.02)
    model = nn.Linear(3, 1).double()
    x, target = np.ones((2000, 3)), np.zeros(2000, np.int64)
    for deterministic in (True, False):
        noisy = Wired(LocalExplainer(model, Capabilities("midpoint")), Wire(noise=0.1, deterministic=deterministic))
        found = [recover(noisy, x, target, propose(Capabilities("midpoint")).plan).gradient for _ in range(2)]
        assert (found[0] == found[1]).all() == deterministic
        # The plan's one query, on [0, 2], halves the noise.
        assert np.std(found[0] - model.weight.detach().numpy()) == pytest.approx(0.05, rel=0.05)
    with pytest.raises(InvalidValue, match="At least one"):
        Wire(significant_digits=0)
    with pytest.raises(InvalidValue, match="standard deviation"):
        Wire(noise=-1)
