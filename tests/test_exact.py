"""Exact plans of every rule: found wherever they should be, exact for every model, within what may be asked."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from disintegrate import (
    Capabilities,
    Exactness,
    LocalExplainer,
    Plan,
    Query,
    Recording,
    Wire,
    Wired,
    distance,
    recover,
    rule_named,
    vanilla_gradient,
)
from disintegrate.exact import Reach, cascade, exact_plans, solve, window_plans
from disintegrate.planner import propose
from tests import oracles
from tests.strategies import Case, cases, rule_names
from tests.test_closed_form import truth

ANYWHERE = 1e9
PERMITTED = ((1, 100), (2, 9), (3, 12), (20, 100))


@given(
    case=cases(),
    name=rule_names,
    permitted=st.sampled_from(PERMITTED),
    highest=st.sampled_from((1.0, 1.5, 2.0, ANYWHERE)),
    baseline=st.booleans(),
)
def test_exact_plans_recover_the_gradient_of_every_model(
    case: Case, name: str, permitted: tuple[int, int], highest: float, baseline: bool
) -> None:
    rule, reach = rule_named(name), Reach(-ANYWHERE if baseline else 0, highest, *permitted, baseline)
    plans = exact_plans(rule, reach)
    assume(plans)
    service = Recording(LocalExplainer(case.model, Capabilities(name, *permitted, baseline=baseline)))
    expected = truth(case)
    for plan in plans:
        assert plan.measure(rule).exactness is Exactness.EVERY_MODEL
        recovered = recover(service, case.inputs, case.targets, plan).gradient
        assert distance(recovered, expected).max() <= 1e-10 * max(1, plan.amplification)
    largest = np.abs(case.inputs).max()
    for request in service.requests:
        assert request.steps is not None
        assert permitted[0] <= request.steps <= permitted[1]
        assert np.abs(request.inputs).max() <= highest * largest * (1 + 1e-9)
        assert baseline or request.baselines is None
    assert [len(plan) for plan in plans] == sorted(len(plan) for plan in plans)


@pytest.mark.parametrize(
    ("name", "permitted", "highest", "queries", "coefficients"),
    [
        ("riemann_right", (1, 100), 1.0, 1, [1]),
        ("riemann_right", (20, 100), 1.0, 2, [21, -21]),
        ("riemann_left", (20, 100), 2.0, 2, [20, -20]),
        ("riemann_left", (1, 100), 2.0, 2, [1, -0.5]),
        ("midpoint", (1, 100), 2.0, 1, [0.5]),
        ("midpoint", (20, 100), 2.0, 2, [20.5, -20.5]),
        ("gauss_legendre", (1, 100), 2.0, 1, [0.5]),
        ("saliency", (2, 100), 1.0, 2, [3, -4]),
        ("trapezoid", (2, 100), 1.0, 3, [1, 2, -4]),
        ("trapezoid", (2, 100), 2.0, 2, [1, -0.5]),
        ("trapezoid", (20, 100), 2.0, 4, None),
        ("trapezoid", (20, 100), 1.0, 5, None),
        ("tensorflow_tutorial", (1, 100), 2.0, 2, [1, -0.5]),
    ],
)
def test_fewest_queries_then_least_amplification(
    name: str, permitted: tuple[int, int], highest: float, queries: int, coefficients: list[float] | None
) -> None:
    plan = exact_plans(rule_named(name), Reach(0, highest, *permitted, baseline=False))[0]
    assert len(plan) == queries
    if coefficients is not None:
        assert sorted(t.coefficient for t in plan) == pytest.approx(sorted(coefficients))


@pytest.mark.parametrize(
    ("name", "permitted", "highest"),
    [
        ("riemann_left", (1, 100), 1.0),
        ("midpoint", (1, 100), 1.0),
        ("gauss_legendre", (1, 100), 1.0),
        ("gauss_legendre", (20, 100), ANYWHERE),
        ("riemann_right", (50, 50), ANYWHERE),
        ("captum_riemann_right", (20, 100), ANYWHERE),
    ],
)
def test_where_no_node_meets_the_input_or_nothing_cancels_there_is_no_exact_plan(
    name: str, permitted: tuple[int, int], highest: float
) -> None:
    """Captum's nodes are rounded to float32, so that those of two step counts miss each other by 1e-8."""
    assert exact_plans(rule_named(name), Reach(0, highest, *permitted, baseline=False)) == []


def test_solving_finds_equation_4_and_nothing_where_there_is_nothing() -> None:
    plan = solve([Query(0, 1, 50), Query(0, 49 / 50, 49)], rule_named("riemann_right"))
    assert plan is not None
    assert [term.coefficient for term in plan] == pytest.approx([50, -50])
    assert solve([Query(0, 1, 50), Query(0, 0.9, 49)], rule_named("riemann_right")) is None


@given(steps=st.integers(2, 5), queries=st.integers(2, 9), name=st.sampled_from(("gauss_legendre", "midpoint")))
def test_a_cascade_leaves_the_input_alone_and_pushes_the_rest_outwards(steps: int, queries: int, name: str) -> None:
    rule = rule_named(name)
    plan = cascade(rule, steps, queries, outwards=True)
    assert plan is not None
    measure = plan.measure(rule)
    assert measure.mass == pytest.approx(1, abs=1e-9)
    assert measure.exactness is Exactness.CONSTANT_PIECE
    assert len(plan) <= queries
    first = rule(steps).nodes[1] / rule(steps).nodes[0]
    assert measure.piece[0] >= first - 1e-9
    # What noise costs stays bounded outwards; towards the baseline it grows.
    inwards = cascade(rule, steps, queries, outwards=False)
    assert inwards is not None
    assert plan.amplification < 1 <= inwards.amplification
    assert inwards.measure(rule).piece[1] < 1


@given(case=cases(kinds=("relu", "max-pool", "residual")), steps=st.integers(2, 4))
def test_a_cascade_is_exact_on_networks_that_are_affine_far_out(case: Case, steps: int) -> None:
    plan = cascade(rule_named("gauss_legendre"), steps, 12, outwards=True)
    assert plan is not None
    beyond = plan.measure(rule_named("gauss_legendre")).piece[0]
    for x, target in zip(torch.tensor(case.inputs), case.targets, strict=True):
        near, far = (oracles.gradient(case.model, scale * x, int(target)) for scale in (beyond, 100 * beyond))
        assume((near - far).norm() == 0)
    recovered = recover(
        LocalExplainer(case.model, Capabilities("gauss_legendre")), case.inputs, case.targets, plan
    ).gradient
    assert distance(recovered, truth(case)).max() < 1e-9


@given(name=rule_names, highest=st.sampled_from((1.0, 2.0)), steps=st.integers(2, 60))
def test_windows_have_mass_1_and_are_centred_where_rule_and_bounds_allow(name: str, highest: float, steps: int) -> None:
    rule = rule_named(name)
    plans = window_plans(rule, Reach(-ANYWHERE, highest, steps, steps, baseline=True), narrowest=1e-6)
    assert plans
    symmetric = np.allclose(rule(steps).nodes + rule(steps).nodes[::-1], 1)
    for plan in plans:
        (term,) = plan
        assert plan.measure(rule).mass == pytest.approx(1, abs=1e-9)
        centred = math.isclose(term.query.start + term.query.stop, 2)
        assert centred == (symmetric and highest > 1)
        assert term.query.stop <= highest


@given(
    case=cases(),
    name=st.sampled_from(("riemann_right", "riemann_left", "midpoint", "trapezoid", "gauss_legendre", "saliency")),
    permitted=st.sampled_from(PERMITTED),
    baseline=st.booleans(),
)
def test_what_the_planner_calls_exact_is(case: Case, name: str, permitted: tuple[int, int], baseline: bool) -> None:
    service = LocalExplainer(case.model, Capabilities(name, *permitted, baseline=baseline))
    proposal = propose(service.capabilities, highest=2.0)
    assume(proposal.measure.exactness is Exactness.EVERY_MODEL)
    recovered = recover(service, case.inputs, case.targets, proposal.plan).gradient
    assert distance(recovered, truth(case)).max() <= 1e-10 * max(1, proposal.plan.amplification)
    assert isinstance(proposal.plan, Plan)


@pytest.mark.parametrize(("rule", "wire"), [("riemann_right", Wire(noise=0.3)), ("midpoint", Wire(decimals=0))])
def test_noise_that_does_not_grow_with_the_attributions_is_outweighed_by_a_far_baseline(rule: str, wire: Wire) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(30, 40), torch.nn.ReLU(), torch.nn.Linear(40, 2)).eval()
    x, targets = np.random.default_rng(1).choice((-1, 1), (6, 30)).astype(np.float32), np.zeros(6, int)
    service = Wired(LocalExplainer(model, Capabilities(rule, 1, 100)), wire)
    inside = recover(service, x, targets, exact_plans(rule_named(rule), Reach(-ANYWHERE, ANYWHERE, 1, 100, True))[0])
    proposal = propose(service.capabilities)
    far = recover(service, x, targets, proposal.plan)
    true = vanilla_gradient(model, torch.tensor(x), torch.tensor(targets)).numpy()
    assert len(proposal.plan) == 1
    near, off = (float(np.median(distance(true, found.gradient))) for found in (far, inside))
    assert near < 0.1
    assert off > 0.8
    # without such noise nothing is gained, and a digit of the node's place would be lost
    assert max(abs(term.query.length) for term in propose(Capabilities(rule, 1, 100)).plan) <= 2
