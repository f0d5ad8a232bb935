"""A rule told by numbers of steps: identities of its answers, what it weighs the baseline with, and its own number."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from disintegrate import Capabilities, Deaf, Explainer, LocalExplainer, Output, Recording, Wire, Wired, probe
from disintegrate.errors import NotPermitted
from disintegrate.explainers.protocol import Explanation, Request
from disintegrate.probe import Override
from disintegrate.probe.along_gradient import Gradient
from disintegrate.probe.asking import Asker
from disintegrate.probe.by_steps import by_steps
from disintegrate.probe.explore import Verdict, explore
from disintegrate.probe.family import IDENTITIES, family
from disintegrate.probe.far_out import agreeing_affine, agreeing_saturated
from disintegrate.probe.number import numbers
from disintegrate.probe.own_number import OwnNumber
from disintegrate.probe.ray import Origin, Ray
from disintegrate.probe.staircase import Fit, Pattern, keeping, patterns
from disintegrate.progress import SILENT
from disintegrate.rules import RULES, rule_named
from tests.test_probe import SIZE, inputs

AT_BASELINE = [rule for rule in sorted(RULES) if rule_named(rule)(3).nodes.min() == 0]


def _rays(
    explainer: Explainer, *, drifting: bool = False, seed: int = 0, off: dict[int, float] | None = None
) -> Callable[[int | None], Ray]:
    """Rays of one direction from zero or a little off it in some coordinates, one for each number of steps."""
    asker = Asker(explainer, (SIZE,), np.dtype(np.float32), 200, SILENT.task("queries", 200))
    asker.learn_wire()
    direction = 2 * np.random.default_rng(seed).normal(size=SIZE)
    made: dict[int | None, Ray] = {}
    begin = np.zeros(SIZE)
    begin[list(off or {})] = list((off or {}).values())

    def ray(steps: int | None) -> Ray:
        origin = Origin(begin, np.zeros(SIZE))
        return made.setdefault(steps, Ray(asker, origin, direction, 1, drifting=drifting, steps=steps))

    return ray


def _network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return nn.Sequential(nn.Linear(SIZE, 80), nn.ReLU(), nn.Linear(80, 4))


def _service(rule: str, steps: int, *, softmax: bool = False) -> LocalExplainer:
    served = nn.Sequential(_network(), nn.Softmax(1)) if softmax else _network()
    output = Output.PROBABILITIES if softmax else Output.LOGITS
    return LocalExplainer(served, Capabilities(rule=rule, default_steps=steps, output=output))


@pytest.mark.parametrize("rule", sorted(RULES))
@given(seed=st.integers(0, 2**20))
@settings(max_examples=15, deadline=None)
def test_only_a_rules_own_identity_vanishes_on_any_gradient_that_changes_often(rule: str, seed: int) -> None:
    # the answers straight from nodes and weights, of a gradient that jumps at 60 places of the ray
    generator = np.random.default_rng(seed)
    kinks, jumps = np.sort(generator.uniform(0, 1.6, 60)), generator.normal(size=(61, 5))

    def answer(steps: int, scale: float) -> np.ndarray:
        quadrature = rule_named(rule)(steps)
        gradients = np.cumsum(jumps, axis=0)[np.searchsorted(kinks, scale * quadrature.nodes)]
        return np.asarray(quadrature.weights @ gradients)

    for one in IDENTITIES:
        if any(steps == 1 for steps, _ in one.terms) and rule not in one.rules:
            continue  # some rules refuse a single step
        terms = [weight * answer(steps, scale) for (steps, scale), weight in one.terms.items()]
        rest = np.linalg.norm(np.sum(terms, axis=0)) / max(np.linalg.norm(term) for term in terms)
        assert (rest < 1e-6) == (rule in one.rules), one.rules


@pytest.mark.parametrize("softmax", [False, True], ids=["logits", "probabilities"])
@pytest.mark.parametrize("rule", sorted(RULES))
def test_a_rule_is_told_by_fifteen_answers_with_few_steps(rule: str, softmax: bool) -> None:
    ray = _rays(_service(rule, 40, softmax=softmax))
    found = family(ray)
    assert found is not None
    assert rule in found.rules
    assert len({tuple(rule_named(name)(3).nodes.round(6)) for name in found.rules}) == 1
    assert ray(2).asker.spent <= 15


@pytest.mark.parametrize("rule", ["midpoint", "riemann_right", "saliency"])
@given(seed=st.integers(0, 2**20), units=st.integers(1, 4))
@settings(max_examples=15, deadline=None)
def test_few_kinks_do_not_make_another_rule(rule: str, seed: int, units: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(SIZE, units), nn.ReLU(), nn.Linear(units, 3))
    found = family(_rays(LocalExplainer(network, Capabilities(rule=rule, default_steps=40)), seed=seed))
    assert found is None or rule in found.rules


def test_a_baseline_that_lies_elsewhere_in_a_few_coordinates_hides_no_family_and_no_number() -> None:
    ray = _rays(_service("midpoint", 12), off={3: 0.01})
    found = family(ray)
    assert found is not None
    assert "midpoint" in found.rules
    assert "riemann_right" not in found.rules
    assert 12 in numbers(ray, "midpoint", 14, walk=True)
    lost = family(_rays(_service("midpoint", 12), off=dict.fromkeys(range(SIZE // 2), 0.01)))
    assert lost is None or "midpoint" not in lost.rules


def test_where_hardly_a_kink_lies_on_the_ray_all_rules_are_left_whose_identity_is_obeyed() -> None:
    ray = _rays(LocalExplainer(nn.Linear(SIZE, 3), Capabilities(rule="midpoint", default_steps=12)))
    own_number = OwnNumber(ray(None).asker, inputs()[:1].astype(float), 0, lambda _: False, False)
    told = by_steps(ray, own_number, 14, walk=True)
    assert told is not None
    assert told.own is None
    assert {"midpoint", "riemann_right", "gauss_legendre"} <= told.rules
    assert ray(None).asker.spent == 15


def test_a_service_that_refuses_so_few_steps_tells_no_rule() -> None:
    within = Capabilities(rule="midpoint", default_steps=40, fewest_steps=20, most_steps=100)
    ray = _rays(LocalExplainer(_network(), within))
    assert family(ray) is None
    assert ray(2).asker.spent == 1


@pytest.mark.parametrize("softmax", [False, True], ids=["logits", "probabilities"])
def test_of_a_service_with_a_fewest_number_of_steps_no_fewer_are_asked_twice(softmax: bool) -> None:
    network = nn.Sequential(_network(), nn.Softmax(1)) if softmax else _network()
    within = Capabilities(rule="saliency", default_steps=37, fewest_steps=20, most_steps=100)
    recording = Recording(LocalExplainer(network, within))
    found = probe(recording, inputs(), np.zeros(len(inputs()), np.int64))
    asked = [request.steps for request in recording.requests if request.steps is not None and request.steps < 20]
    assert sorted(asked) in ([3, 7], [3, 7, 15])  # whether steps are honoured, and a number that libraries take
    assert not found.refused_values
    assert "refused" not in found.rules.evidence


@pytest.mark.parametrize("softmax", [False, True], ids=["logits", "probabilities"])
@pytest.mark.parametrize("rule", AT_BASELINE)
def test_far_out_the_weight_at_the_baseline_tells_the_number_of_steps(rule: str, softmax: bool) -> None:
    service = Wired(_service(rule, 83, softmax=softmax), Wire(significant_digits=5))
    assert numbers(_rays(service, drifting=softmax), rule, 6, walk=False)[0] == 83


def test_a_kink_still_further_out_on_one_side_leaves_the_other_side_to_tell() -> None:
    network = _network()
    assert isinstance(network, nn.Sequential)
    assert isinstance(network[0], nn.Linear)
    direction = 2 * np.random.default_rng(0).normal(size=SIZE)
    with torch.no_grad():
        # a unit that hardly changes along the ray: with 83 steps its kink lies among the nodes on one side of it
        across = torch.randn(SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64).numpy()
        across -= (across @ direction) / (direction @ direction) * direction
        across += 1e-5 * direction / np.linalg.norm(direction)
        network[0].weight[0], network[0].bias[0] = torch.tensor(across).float(), -1.0
    rays = _rays(LocalExplainer(network, Capabilities(rule="riemann_left", default_steps=83)))
    assert numbers(rays, "riemann_left", 6, walk=False)[0] == 83
    ends = [rays(16).raw[row] / rays(16).scales[row] for row in (-2, -1)]
    assert not np.allclose(ends[0], ends[1], rtol=0.1)


@pytest.mark.parametrize("rule", ["riemann_right", "midpoint", "gauss_legendre"])
def test_a_walk_tells_about_how_many_steps(rule: str) -> None:
    ray = _rays(_service(rule, 12))
    family(ray)
    assert 12 in numbers(ray, rule, 14, walk=True)
    assert numbers(ray, rule, 14, walk=False) == []


def _far_out(near: Ray, out: Ray) -> tuple[Pattern, ...]:
    """The patterns that are left after a look near the baseline and far out."""
    near.ask([1e-3, 2e-5])
    if near.drifting:
        return agreeing_saturated(near, out, patterns())
    gradient = Gradient.of(near, 1.0)
    assert gradient is not None
    return agreeing_affine(near, gradient.rays, patterns())


@pytest.mark.parametrize("softmax", [False, True], ids=["logits", "probabilities"])
@pytest.mark.parametrize("steps", [6, 150])
@pytest.mark.parametrize("rule", sorted(RULES))
def test_far_out_leaves_rules_of_one_weight_at_the_baseline(rule: str, steps: int, softmax: bool) -> None:
    service = Wired(_service(rule, steps, softmax=softmax), Wire(significant_digits=6))
    near, out = (_rays(service, drifting=softmax)(None) for _ in range(2))
    left = [member for pattern in _far_out(near, out) for member in pattern.members]
    assert (rule, steps) in left
    own = rule_named(rule)(steps)
    for name, other_steps in left:
        other = rule_named(name)(other_steps)
        weights = [float(one.weights[one.nodes == 0].sum()) / one.mass for one in (own, other)]
        # behind a softmax so exactly that even of 150 steps no other number is left
        assert abs(weights[0] - weights[1]) < (0.003 if softmax else 0.05) * max(weights) + 1e-9, (name, other_steps)
    assert near.asker.spent + out.asker.spent <= 6


class _Bounded:
    """A service that refuses what is far out."""

    capabilities = Capabilities(rule="")

    def explain(self, request: Request) -> Explanation:
        """Refuse beyond 10."""
        if np.abs(request.inputs).max() > 10:
            raise NotPermitted("The point is too far out.")
        return _service("saliency", 20).explain(request)


def test_a_service_that_refuses_points_far_out_keeps_all_rules() -> None:
    for softmax in (False, True):
        near, out = (_rays(_Bounded(), drifting=softmax)(None) for _ in range(2))
        assert _far_out(near, out) == patterns()
        assert near.asker.refused


@pytest.mark.parametrize("rule", AT_BASELINE)
def test_the_probe_names_a_rule_by_numbers_of_steps(rule: str) -> None:
    network = nn.Sequential(_network(), nn.Softmax(1))
    own = np.random.default_rng(1).normal(size=SIZE).astype(np.float32)
    service = LocalExplainer(network, Capabilities(rule=rule, default_steps=37, baseline=False), own_baseline=own)
    found = probe(service, inputs(), np.zeros(len(inputs()), np.int64))
    assert found.rules.value is not None
    assert (rule, 37) in {(named.rule, named.steps) for named in found.rules.value}
    assert found.queries <= 50


@pytest.mark.parametrize(("left", "walked", "asked"), [(29, 6, False), (28, 0, False), (23, 0, False), (22, 6, True)])
def test_large_numbers_are_left_to_a_staircase_only_if_enough_queries_are(left: int, walked: int, asked: bool) -> None:
    below = nn.Linear(4, 4)
    with torch.no_grad():
        # logits that no softmax makes
        below.weight.copy_(torch.eye(4))
        below.bias.fill_(-5.0)
    network = nn.Sequential(_network(), below)
    ray = _rays(LocalExplainer(network, Capabilities(rule="gauss_legendre", default_steps=121)))
    family(ray)
    asker = ray(None).asker
    # a walk takes six of them, and one is kept; where it would leave too few there is none
    asker.budget = asker.spent + left
    told = numbers(ray, "gauss_legendre", 14, walk=True)
    assert left - asker.left == walked
    assert (len(told) > 0) is asked


@pytest.mark.parametrize(("rule", "steps"), [("gauss_legendre", 121), ("riemann_right", 144)])
def test_a_large_number_of_a_rule_that_few_steps_named_is_told_by_its_staircase(rule: str, steps: int) -> None:
    service = LocalExplainer(_network(), Capabilities(rule=rule, default_steps=steps))
    found = probe(Deaf(service, steps=False, baseline=True), inputs(), np.zeros(len(inputs()), np.int64))
    assert found.rules.value is not None, found.rules.evidence
    assert (rule, steps) in {(named.rule, named.steps) for named in found.rules.value}


def test_members_that_are_kept_are_those_of_which_it_holds() -> None:
    kept = keeping(patterns(5), lambda rule, steps: rule == "saliency" and steps > 3)
    assert [pattern.members for pattern in kept] == [(("saliency", steps),) for steps in (4, 5, 6)]


def test_a_number_that_a_rule_cannot_have_is_not_the_service_s_own_and_refutes_nothing() -> None:
    service = _service("captum_riemann_right", 2)
    asker = _rays(service)(None).asker
    first = asker.ask(inputs()[:1].astype(float), 0).attribution[0]
    own = OwnNumber(asker, inputs()[:1].astype(float), 0, lambda answer: bool((answer == first).all()), True)
    asked = asker.spent
    assert own.among([1, 2]) == 2
    assert asker.spent == asked + 3  # Captum's Riemann rules refuse 1; 3 answers otherwise than 2
    assert not own.refuted([1])
    assert own.refuted([3])


def test_the_last_few_numbers_are_asked_about_rather_than_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = _rays(_service("midpoint", 40))(None)
    one = np.ones(1)
    left = [
        pattern for pattern in patterns() if ("midpoint", 40) in pattern.members or ("midpoint", 41) in pattern.members
    ]
    verdict = Verdict(tuple(Fit(pattern, 1.0, one, one, one, 9, one) for pattern in left), False, "", cap=2.0)
    monkeypatch.setattr(sys.modules[explore.__module__], "_judged", lambda *_: verdict)
    for askable in (0, 3):
        ray.asker.budget = ray.asker.spent + 30
        found = explore(ray, 1.0, reserve=0, generator=np.random.default_rng(0), known=left, askable=askable)
        assert found.numbers == [40, 41]
        assert (ray.asker.left == 20) is bool(askable)  # as many as are asked at first


@pytest.mark.parametrize("ignored", [True, False])
def test_steps_are_honoured_though_the_gradient_changes_only_beyond_the_input(ignored: bool) -> None:
    # all units are on up to the inputs, so any number of steps gets the same answer there
    torch.manual_seed(0)
    first = nn.Linear(SIZE, 20)
    with torch.no_grad():
        nn.init.constant_(first.bias, 3.0)
    network = nn.Sequential(first, nn.ReLU(), nn.Linear(20, 3))
    # in three digits; in all of them rounding tells
    within = Capabilities(rule="riemann_right", default_steps=3)
    service = Wired(LocalExplainer(network, within), Wire(significant_digits=3))
    found = probe(Deaf(service, steps=ignored, baseline=True), inputs()[:2], np.array([0, 1]))
    assert found.steps_override.value is (Override.IGNORED if ignored else Override.HONOURED), found.steps_override


def test_steps_that_are_ignored_are_said_to_be_though_a_batch_is_rounded_otherwise() -> None:
    # a baseline may be sent, so kinks are closed in on in requests of several rows
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(SIZE, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 3))
    service = LocalExplainer(network, Capabilities(rule="gauss_legendre", default_steps=50))
    found = probe(Deaf(_Unsteady(service), steps=True, baseline=False), inputs()[:2], np.array([0, 1]))
    assert found.steps_override.value is Override.IGNORED, found.steps_override


class _Unsteady:
    """A service whose last bit hangs on how many rows a request has."""

    def __init__(self, inside: Explainer) -> None:
        self._inside = inside
        self.capabilities = inside.capabilities

    def explain(self, request: Request) -> Explanation:
        """Answer, a little larger where there are several rows."""
        answer = self._inside.explain(request)
        factor = np.float32(1 + 3e-7 * (len(request.inputs) > 1))
        return replace(answer, attribution=answer.attribution * factor)
