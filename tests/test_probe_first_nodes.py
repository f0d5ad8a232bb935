"""The first nodes of a rule, alone where a softmax falls: likelihoods against slow oracles, queries, rules unlisted."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float64
from torch import nn

from disintegrate import Capabilities, Deaf, Explanation, LocalExplainer, Recording, Request, Wire, Wired, probe
from disintegrate.probe import Override
from disintegrate.probe.asking import Asker, Spent
from disintegrate.probe.baseline import _common
from disintegrate.probe.falling import Answered, Falling, Given, Line, log_likelihoods
from disintegrate.probe.falling_ray import CLOSED
from disintegrate.probe.first_nodes import by_first_nodes
from disintegrate.probe.first_rules import Group, Told, alike
from disintegrate.probe.naming import Naming
from disintegrate.probe.one_kink import quadrature
from disintegrate.probe.ray import Origin, Ray
from disintegrate.probe.staircase import patterns
from disintegrate.progress import SILENT
from tests.test_probe import SIZE, TARGETS, inputs, model, rules_of

OPEN = [("riemann_right", 7), ("riemann_right", 120), ("midpoint", 3), ("midpoint", 60), ("gauss_legendre", 40)]
ALL = [member for pattern in patterns() for member in pattern.members]
Vector = Float64[np.ndarray, " n"]


def _logistic(scales: Vector, slope: float, begin: float) -> tuple[Vector, Vector]:
    """A probability whose log odds fall like a line, and how fast it falls."""
    p = 1 / (1 + np.exp(np.minimum(slope * scales - begin, 600.0)))
    return p, slope * p * (1 - p)


def _answered(scales: Vector, rule: str, steps: int, slope: float, begin: float) -> Answered:
    nodes, weights = quadrature(rule, steps)
    falls = (_logistic(scales[:, None] * nodes, slope, begin)[1] * weights * (nodes > 0)).sum(1)
    return Answered(scales, falls, 1e-6 * falls, 0.0, 0.0, np.zeros(0), np.zeros(0))


def _above(rule: str, steps: int) -> tuple[Vector, Vector]:
    nodes, weights = quadrature(rule, steps)
    return nodes[nodes > 0], weights[nodes > 0]


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(OPEN), st.floats(0.3, 3.0), st.floats(-3.0, 0.0))
def test_the_rule_is_likelier_than_all_others_where_logits_are_straight(
    member: tuple[str, int], slope: float, begin: float
) -> None:
    places = np.array([0.0, 1.0, 3.0, 6.0, 12.0, 20.0, 40.0]) / slope
    p = _logistic(places, slope, begin)[0]
    scales = places[[3, 4, 5, 6]] / quadrature(*member)[0].min()
    rules = list(dict.fromkeys([*OPEN, *((rule, steps + 1) for rule, steps in OPEN)]))
    likely, misfit = log_likelihoods(
        Falling(places, np.log(p), np.full(len(p), 1e-6)),
        _answered(scales, *member, slope, begin),
        [_above(*rule) for rule in rules],
    )
    best = int(np.argmax(likely))
    assert rules[best] == member
    assert np.sort(likely)[-2] < likely[best] - 10
    assert misfit[best] < 4 * len(scales)


def test_a_weight_that_is_a_tenth_too_large_is_seen_and_one_that_is_not_is_likeliest() -> None:
    places = np.array([0.0, 1.0, 3.0, 6.0, 12.0, 20.0, 40.0])
    falling = Falling(places, np.log(_logistic(places, 1.0, -1.0)[0]), np.full(len(places), 1e-6))
    nodes, weights = _above("riemann_right", 30)
    answered = _answered(places[[3, 4, 5]] / nodes.min(), "riemann_right", 30, 1.0, -1.0)
    rules = [(nodes, weights * factor) for factor in (0.9, 1.0, 1.1)] + [(nodes * 1.01, weights)]
    likely = log_likelihoods(falling, answered, rules)[0]
    assert int(np.argmax(likely)) == 1
    assert likely[1] > np.delete(likely, 1).max() + 5


def test_a_rule_that_would_have_answered_where_there_was_silence_is_left_out() -> None:
    places = np.array([0.0, 1.0, 3.0, 6.0, 12.0, 20.0, 40.0])
    falling = Falling(places, np.log(_logistic(places, 1.0, -1.0)[0]), np.full(len(places), 1e-6))
    nodes, weights = _above("riemann_right", 30)
    heard = _answered(places[[3]] / nodes.min(), "riemann_right", 30, 1.0, -1.0)
    for scale, left_out in ((6.0 / nodes.min(), True), (200.0 / nodes.min(), False)):
        least = np.full(1, 1e-3 * heard.falls[0])
        answered = Answered(heard.scales, heard.falls, heard.deviation, 0.0, 0.0, np.array([scale]), least)
        assert np.isneginf(log_likelihoods(falling, answered, [(nodes, weights)])[0, 0]) == left_out


@pytest.mark.parametrize("seed", range(3))
def test_what_an_answer_is_given_outputs_is_that_of_the_plain_formula(seed: int) -> None:
    # the slow way: covariances of the line's parameters, conditioned on the outputs by the textbook's formula
    rng = np.random.default_rng(seed)
    places = np.sort(rng.uniform(0.5, 20.0, 6))
    falling = Falling(places, -places * rng.uniform(0.8, 1.2, 6), np.full(6, 0.02))
    line = Line(falling, 1.5)
    given_ = Given(line, 0.5)
    design = line.rows(places)[0]
    prior = np.diag(np.concatenate([[30.0**2, (10 * falling.slope) ** 2], (0.5 * line.changes) ** 2]))
    inside = design @ prior @ design.T + 0.02**2 * np.eye(6)
    mean = prior @ design.T @ np.linalg.solve(inside, falling.log)
    covariance = prior - prior @ design.T @ np.linalg.solve(inside, design @ prior)
    other = rng.uniform(1.0, 15.0, 4)
    seen, steep = line.rows(other)
    parts = given_._parts(other, np.ones(4))
    np.testing.assert_allclose(parts[0], -steep @ given_.mean, rtol=1e-9)
    np.testing.assert_allclose(parts[1], parts[0] * np.exp(np.minimum(seen @ given_.mean, 0.0)), rtol=1e-9)
    np.testing.assert_allclose(seen @ given_.mean, seen @ mean, rtol=1e-6)
    np.testing.assert_allclose(
        seen @ given_.root @ (seen @ given_.root).T, seen @ covariance @ seen.T, rtol=1e-4, atol=1e-8
    )


def _told(
    rule: str, steps: int, *, error: Vector | None = None, begin: Vector | None = None
) -> tuple[Told | None, Recording]:
    network = model(True)
    service = Recording(LocalExplainer(network, Capabilities(rule=rule, default_steps=steps)))
    asker = Asker(service, (SIZE,), np.dtype(np.float32), 60, SILENT.task("queries", 60))
    asker.learn_wire()
    known = np.ones(SIZE, bool) if error is None else np.isfinite(error)
    direction = np.where(known, np.random.default_rng(1).choice((-1.0, 1.0), SIZE), 0.0)
    origin = Origin(np.zeros(SIZE) if begin is None else begin, np.zeros(SIZE) if error is None else error)
    near, out = (Ray(asker, origin, direction, 1, drifting=True) for _ in range(2))
    near.ask([1e-2])
    out.ask([1e5])
    return by_first_nodes(near, out, range(4), ALL), service


@pytest.mark.parametrize(("rule", "steps"), OPEN)
def test_fewer_than_twenty_queries_name_a_rule_without_a_node_at_the_baseline(rule: str, steps: int) -> None:
    told, service = _told(rule, steps)
    assert told is not None
    assert told.decided
    assert told.seen
    assert (rule, steps) in told.members
    assert sum(len(request.inputs) for request in service.requests) < 20


@pytest.mark.parametrize(("rule", "steps"), [("riemann_left", 12), ("trapezoid", 30), ("saliency", 9)])
def test_a_rule_with_a_node_at_the_baseline_keeps_its_first_node_among_those_left(rule: str, steps: int) -> None:
    told, _ = _told(rule, steps)
    assert told is not None
    assert (rule, steps) in told.members
    firsts = [np.sort(quadrature(*member)[0])[1] for member in told.members]
    assert np.ptp(firsts) < 0.1 * np.mean(firsts)


@pytest.mark.parametrize(("rule", "steps"), [("riemann_right", 7), ("midpoint", 60), ("gauss_legendre", 40)])
def test_a_baseline_that_is_not_known_in_some_coordinates_does_not_mislead(rule: str, steps: int) -> None:
    begin, error = np.zeros(SIZE), np.zeros(SIZE)
    begin[:2], error[:2] = (1.0, -1.0), np.inf
    told, _ = _told(rule, steps, begin=begin, error=error)
    assert told is not None
    assert told.decided
    assert (rule, steps) in told.members


@pytest.mark.parametrize(("rule", "steps"), [("riemann_right", 7), ("midpoint", 60), ("gauss_legendre", 40)])
def test_a_baseline_that_lies_further_off_than_it_seems_lifts_all_answers_alike(rule: str, steps: int) -> None:
    begin = np.zeros(SIZE)
    begin[:3] = 0.14, -0.21, 0.07
    # solved for, and said to be exact to a millionth
    told, _ = _told(rule, steps, begin=begin, error=np.full(SIZE, 1e-6))
    assert told is not None
    assert told.decided
    assert (rule, steps) in told.members
    # what is said to be exact altogether is held to it, so that ray after ray tells nothing
    with pytest.raises(Spent):
        _told(rule, steps, begin=begin)


@pytest.mark.parametrize(("digits", "same"), [(3e-4, True), (1e-6, False)])
def test_weights_that_no_digits_tell_apart_are_left_to_sums(digits: float, same: bool) -> None:
    def group(rule: str, steps: int) -> Group:
        nodes, weights = _above(rule, steps)
        return Group(((rule, steps),), nodes, weights)

    # one node at the baseline, and the same nodes; the first weights differ by one part in 131
    assert alike(group("saliency", 131), group("riemann_left", 130), digits) is same
    assert not alike(group("saliency", 12), group("riemann_left", 11), digits)
    assert not alike(group("saliency", 131), group("riemann_left", 131), digits)


def _composite(nodes: list[float], weights: list[float], panels: int) -> tuple[Vector, Vector]:
    begins = np.arange(panels)[:, None]
    return ((begins + nodes) / panels).ravel(), np.tile(np.array(weights) / panels, panels)


def _closed_by_moments(nodes: Vector) -> tuple[Vector, Vector]:
    """Weights that integrate all polynomials of as many terms as there are nodes."""
    powers = np.polynomial.legendre.legvander(2 * nodes - 1, len(nodes) - 1)
    return nodes, np.linalg.solve(powers.T, np.eye(len(nodes))[0])


def _lobatto(count: int) -> Vector:
    inner = np.polynomial.legendre.Legendre.basis(count - 1).deriv().roots()
    return (np.concatenate([[-1.0], np.sort(inner.real), [1.0]]) + 1) / 2


UNLISTED = {
    "composite Gauss": _composite([0.5 - 0.5 / 3**0.5, 0.5 + 0.5 / 3**0.5], [0.5, 0.5], 10),
    "three-point Gauss": _composite([0.5 - 0.5 * 0.6**0.5, 0.5, 0.5 + 0.5 * 0.6**0.5], [5 / 18, 8 / 18, 5 / 18], 6),
    "open Newton-Cotes": (np.arange(1, 11) / 11, np.full(10, 0.1)),
    "aside": ((np.arange(20) + 0.75) / 20, np.full(20, 0.05)),
    "stratified": ((np.arange(20) + np.random.default_rng(0).random(20)) / 20, np.full(20, 0.05)),
    "drawn": (np.sort(np.random.default_rng(1).random(30)), np.full(30, 1 / 30)),
    "Clenshaw-Curtis": _closed_by_moments((1 - np.cos(np.pi * np.arange(13) / 12)) / 2),
    "Gauss-Lobatto": _closed_by_moments(_lobatto(10)),
    "Boole": (np.arange(13) / 12, np.array([7, 32, 12, 32, 14, 32, 12, 32, 14, 32, 12, 32, 7]) / 270),
    "three eighths": (np.arange(13) / 12, np.array([1, 3, 3, 2, 3, 3, 2, 3, 3, 2, 3, 3, 1]) / 32),
    "Simpson": (np.arange(13) / 12, np.array([1, *[4, 2] * 5, 4, 1]) / 36),
}


def test_the_first_nodes_of_other_closed_rules_are_those_of_their_own_weights() -> None:
    def first(name: str) -> Vector:
        nodes, weights = UNLISTED[name]
        # a trapezoid that weighs the baseline alike has twice that between its nodes
        found: Vector = np.array([nodes[1], weights[1]]) / (2 * weights[0])
        return found

    for known, name in zip(CLOSED[:3], ("Simpson", "three eighths", "Boole"), strict=True):
        np.testing.assert_allclose(known, first(name), rtol=1e-9)
    np.testing.assert_allclose(CLOSED[-1], first("Gauss-Lobatto"), rtol=1e-2)
    # what lies further still is excluded with it
    assert (first("Clenshaw-Curtis") > 1.3 * np.array(CLOSED[-1])).all()


class _Unlisted:
    """A service of some nodes and weights behind a softmax, whatever is asked."""

    capabilities = Capabilities(rule="")

    def __init__(self, seed: int, nodes: Vector, weights: Vector) -> None:
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(SIZE, 30), nn.ReLU(), nn.Linear(30, 4))
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(2)
        self._network = nn.Sequential(network, nn.Softmax(1))
        self._rule = list(zip(nodes.tolist(), weights.tolist(), strict=True))
        generator = np.random.default_rng(seed)
        self._baseline = torch.tensor(generator.normal(size=SIZE) if seed % 2 else np.zeros(SIZE)).float()

    def explain(self, request: Request) -> Explanation:
        """Explain by the sum itself."""
        points = torch.tensor(request.inputs)
        moved = points - self._baseline
        total = torch.zeros_like(points)
        for node, weight in self._rule:
            at = (self._baseline + moved * node).requires_grad_()
            picked = self._network(at)[torch.arange(len(at)), torch.tensor(request.targets)]
            total = total + weight * torch.autograd.grad(picked.sum(), at)[0]
        with torch.no_grad():
            output = self._network(points)[torch.arange(len(points)), torch.tensor(request.targets)]
        return Explanation(output.numpy(), (moved * total).numpy())


@pytest.mark.parametrize("name", UNLISTED)
@pytest.mark.parametrize(("seed", "digits"), [(0, None), (1, 4)], ids=["exact", "4 digits"])
def test_a_rule_that_no_list_holds_is_not_taken_for_another(name: str, seed: int, digits: int | None) -> None:
    service = Wired(_Unlisted(seed, *UNLISTED[name]), Wire(significant_digits=digits))
    found = probe(service, inputs(), TARGETS)
    assert found.rules.value is None, found.rules


@pytest.mark.parametrize(("rule", "steps"), [("riemann_right", 50), ("midpoint", 11), ("gauss_legendre", 50)])
def test_behind_a_softmax_a_rule_is_named_without_any_kink(rule: str, steps: int) -> None:
    service = LocalExplainer(model(True), Capabilities(rule=rule, default_steps=steps))
    found = probe(Deaf(service, steps=True, baseline=True), inputs(), TARGETS)
    assert (rule, steps) in rules_of(found), found.rules.evidence
    assert "first nodes" in found.rules.evidence
    assert found.queries <= 35
    assert found.steps_override.value is Override.IGNORED


@pytest.mark.parametrize(("rule", "steps"), [("riemann_left", 30), ("riemann_right", 30), ("riemann_right", 3)])
def test_a_baseline_behind_a_softmax_is_solved_for_with_few_queries_whatever_the_rule(rule: str, steps: int) -> None:
    baseline = np.random.default_rng(4).normal(size=SIZE).astype(np.float32)
    service = LocalExplainer(model(True), Capabilities(rule=rule, default_steps=steps), own_baseline=baseline)
    found = probe(Deaf(service, steps=True, baseline=True), inputs(), TARGETS, naming=False)
    assert found.baseline.value is not None
    off = np.abs(found.baseline.value.point - baseline)
    assert (off <= found.baseline.value.error).all()
    assert np.median(off) < 1e-4
    # two secants of two or three answers each, a first step, a bracket or two, and the answer at the end
    assert found.queries <= 8 + 14


def test_a_secant_allows_for_the_factor_by_which_a_softmax_changes_all_answers() -> None:
    before = np.random.default_rng(0).normal(size=50)
    assert abs(_common(before, 0.03 * before) - 0.03) < 1e-12
    assert _common(np.zeros(50), before) == 1.0
    assert _common(before, -before) == 1.0


def test_queries_are_kept_for_asking_the_numbers_that_first_nodes_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    def spending(near: Ray, *_: object, **__: object) -> Told:
        near.ask(np.full(near.asker.left, 1e-2))
        left = (("riemann_right", 31), ("riemann_right", 30))
        return Told(left, decided=False, seen=True, closed=True, answers=3, scores={})

    monkeypatch.setattr(sys.modules[Naming.__module__], "by_first_nodes", spending)
    service = LocalExplainer(model(True), Capabilities(rule="riemann_right", default_steps=30))
    found = probe(Deaf(service, steps=False, baseline=True), inputs(), TARGETS)
    assert rules_of(found) == {("riemann_right", 30)}
    assert "30 steps got the answer without a number" in found.rules.evidence


@pytest.mark.parametrize("rule", ["riemann_left", "saliency"])
def test_few_rules_that_weigh_the_baseline_alike_are_left_to_sums_after_one_ray(rule: str) -> None:
    network = model(True)
    asker = Asker(
        Wired(LocalExplainer(network, Capabilities(rule=rule, default_steps=152)), Wire(significant_digits=4)),
        (SIZE,), np.dtype(np.float32), 80, SILENT.task("queries", 80),
    )  # fmt: skip
    asker.learn_wire()
    direction = np.random.default_rng(1).choice((-1.0, 1.0), SIZE)
    origin = Origin(np.zeros(SIZE), np.zeros(SIZE))
    near, out = (Ray(asker, origin, direction, 1, drifting=True) for _ in range(2))
    near.ask([1e-2, 1e-4])
    out.ask([1e5, -1e5])
    left = [(name, 152) for name in ("riemann_left", "captum_riemann_left", "saliency")]
    told = by_first_nodes(near, out, range(4), left)
    assert told is None or (rule, 152) in told.members
    # eight outputs or nine and no more answers than that; three rays take as many each
    assert asker.spent - 4 <= 18
    by_first_nodes(near, out, range(4), [*left, ("trapezoid", 152)])
    assert asker.spent - 4 > 2 * 18


@pytest.mark.parametrize(("rule", "steps"), [("saliency", 9), ("riemann_left", 30), ("trapezoid", 12)])
def test_in_float16_a_rule_that_weighs_the_baseline_is_named_without_a_kink_where_one_may_be_sent(
    rule: str, steps: int
) -> None:
    # answers across a kink are closed in on with more than thirty queries, and drown in the digits of larger networks
    inside = LocalExplainer(model(softmax=True), Capabilities(rule=rule, default_steps=steps))
    explainer = Wired(inside, Wire(dtype="float16"))
    found = probe(Deaf(explainer, steps=True, baseline=False), inputs(), TARGETS, budget=28)
    assert (rule, steps) in rules_of(found), found.rules.evidence
