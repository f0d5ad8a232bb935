"""One kink closed in on where a baseline may be sent, and the rule that makes the answers of rays across it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from disintegrate import Capabilities, Deaf, LocalExplainer, Recording, Wire, Wired, probe
from disintegrate.explainers.protocol import Explainer
from disintegrate.probe import naming
from disintegrate.probe.across import across
from disintegrate.probe.asking import Asker
from disintegrate.probe.close_up import BEFORE, NARROW, CloseUp, close_up, gradient_at
from disintegrate.probe.explore import Verdict
from disintegrate.probe.one_kink import FLOORS, Crossed, crossed, matches, members_of, shapes
from disintegrate.probe.ray import Origin, Ray
from disintegrate.probe.staircase import Fit, patterns
from disintegrate.probe.weighing import SURE, Weighing
from disintegrate.progress import SILENT
from disintegrate.rules import RULES, rule_named

SIZE, HIDDEN = 30, 40


def _network(seed: int, *, softmax: bool = False) -> nn.Sequential:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(SIZE, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 3))
    return model.append(nn.Softmax(1)) if softmax else model


def _ray(model: nn.Module, rule: str, steps: int, seed: int, digits: int | None = None) -> Ray:
    generator = np.random.default_rng(seed)
    served: Explainer = LocalExplainer(model, Capabilities(rule=rule, default_steps=steps))
    if digits is not None:
        served = Wired(served, Wire(significant_digits=digits))
    asker = Asker(served, (SIZE,), np.dtype(np.float32), 200, SILENT.task("queries", 200))
    begin = generator.normal(size=SIZE).astype(np.float32).astype(float)
    return Ray(asker, Origin(begin, np.zeros(SIZE), begin), generator.normal(size=SIZE), 0)


def _closed(ray: Ray) -> CloseUp:
    ray.ask([0.02, 0.6])
    ray.asker.learn_wire()
    closer = close_up(ray)
    assert closer is not None
    return closer


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("rule", "steps"), [("riemann_right", 7), ("captum_riemann_trapezoid", 4)])
def test_a_kink_is_closed_in_with_the_gradients_on_its_sides(rule: str, steps: int, seed: int) -> None:
    model = _network(seed)
    ray = _ray(model, rule, steps, seed)
    closer = _closed(ray)
    weight, bias = (part.detach().double().numpy() for part in list(model.parameters())[:2])
    out = list(model.parameters())[2].detach().double().numpy()[0]
    places = -(weight @ ray.origin.point + bias) / (weight @ ray.direction)
    unit = int(np.argmin(np.abs(places - closer.place)))
    assert abs(places[unit] - closer.place) < 2 * NARROW
    jump = np.sign(weight[unit] @ ray.direction) * out[unit] * weight[unit] * rule_named(rule)(steps).mass
    found = closer.behind - closer.before
    seen = np.isfinite(found)  # a coordinate that so short a ray does not move is not known
    assert seen.mean() > 0.8
    assert np.allclose(found[seen], jump[seen], atol=1e-4 * np.abs(jump).max())
    # on the short ray, too, the kink lies where it is said to
    short = closer.ray
    along = -(weight[unit] @ short.origin.point + bias[unit]) / (weight[unit] @ short.direction)
    assert closer.low < along < closer.high
    assert abs(along - BEFORE) < 1.1


@pytest.mark.parametrize(("rule", "steps"), [("captum_riemann_left", 9), ("gauss_legendre", 20), ("trapezoid", 6)])
def test_a_share_is_the_sum_of_the_weights_beyond_the_kink(rule: str, steps: int) -> None:
    shape = next(shape for shape in shapes() if (rule, steps) in shape.members)
    quadrature = rule_named(rule)(steps)
    positions = np.random.default_rng(0).uniform(0, 1.1, 50)
    for position, found in zip(positions, shape.staircase(positions), strict=True):
        beyond = sum(w for t, w in zip(quadrature.nodes, quadrature.weights, strict=True) if t > position)
        assert abs(found - beyond / quadrature.mass) < 1e-9


@pytest.mark.parametrize(("steps", "softmax"), [(5, True), (60, False)])
@pytest.mark.parametrize("rule", sorted(RULES))
def test_every_rule_is_told_by_one_kink(rule: str, steps: int, softmax: bool) -> None:
    ray = _ray(_network(11, softmax=softmax), rule, steps, 3, digits=6)
    seen = crossed(_closed(ray), generator=np.random.default_rng(0))
    assert seen.decided, seen.evidence
    assert (rule, steps) in seen.members
    grids = {(rule_named(name)(n).steps, round(float(rule_named(name)(n).nodes[-1]), 6)) for name, n in seen.members}
    assert len(grids) == 1  # what is left has the same nodes, and differs in its mass at the most


def test_other_kinks_on_the_ray_are_told_from_the_one_that_was_closed_in() -> None:
    model = _network(2)
    ray = _ray(model, "riemann_right", 12, 2)
    closer = _closed(ray)
    # two more units, whose kinks lie a little further out on the short ray
    generator = np.random.default_rng(1)
    normals = generator.normal(size=(2, SIZE))
    at = closer.ray.origin.point + np.array([[16.0], [25.0]]) * closer.ray.direction
    old, out = model[0], model[2]
    assert isinstance(old, nn.Linear)
    assert isinstance(out, nn.Linear)
    wide, last = nn.Linear(SIZE, HIDDEN + 2), nn.Linear(HIDDEN + 2, 3)
    with torch.no_grad():
        wide.weight.copy_(torch.cat([old.weight, torch.tensor(normals, dtype=torch.float32)]))
        offsets = -(normals * at).sum(1)
        wide.bias.copy_(torch.cat([old.bias, torch.tensor(offsets, dtype=torch.float32)]))
        last.weight.copy_(torch.cat([out.weight, 0.3 * torch.ones(3, 2)], 1))
        last.bias.copy_(out.bias)
    ray = _ray(nn.Sequential(wide, nn.ReLU(), last), "riemann_right", 12, 2)
    ray.asker.learn_wire()
    short = Ray(ray.asker, closer.ray.origin, closer.ray.direction, 0)
    ends = [gradient_at(short, end, 2.0) for end in closer.ends]
    closer = replace(closer, ray=short, before=ends[0], behind=ends[1])
    seen = crossed(closer, generator=generator)
    assert seen.decided
    assert set(seen.members) == {("riemann_right", 12), ("captum_riemann_right", 12)}
    whole = closer.crossings(np.inf)
    assert whole.company.shape[1] == 2
    alone = replace(whole, company=whole.company[:, :0])
    blind = matches(closer, alone, shapes(), np.array([10.0]), FLOORS[-1])
    assert blind[0].misfit > 10 * len(whole.scales)  # no rule alone makes these shares


def test_with_few_rules_left_a_second_kink_needs_few_answers() -> None:
    ray = _ray(_network(4), "midpoint", 40, 4)
    closer = _closed(ray)
    begin = ray.asker.spent
    among = [("midpoint", 40), ("midpoint", 41), ("gauss_legendre", 40)]
    seen = crossed(closer, generator=np.random.default_rng(2), among=among, needed=1)
    assert seen.decided
    assert seen.members == (("midpoint", 40),)
    assert ray.asker.spent - begin <= 11


@pytest.mark.parametrize("rule", ["trapezoid", "captum_riemann_trapezoid"])
def test_far_out_a_sum_over_the_outputs_says_the_mass(rule: str) -> None:
    ray = _ray(_network(6), rule, 120, 6, digits=4)
    ray.ask([0.02, 0.6])
    ray.asker.learn_wire()
    groups = [[("trapezoid", 120)], [("captum_riemann_trapezoid", 120)]]
    begin = ray.asker.spent
    score = Weighing(ray.asker, groups, probabilities=False, scatter=0.0, few=None).by_length(ray)
    assert ray.asker.spent - begin == 2
    assert groups[int(np.argmax(score))] == [(rule, 120)]
    assert np.ptp(score) > SURE


def test_the_number_of_steps_that_a_library_takes_by_itself_is_asked_for() -> None:
    recording = Recording(LocalExplainer(_network(0), Capabilities(rule="captum_gausslegendre", default_steps=50)))
    inputs = np.random.default_rng(0).normal(size=(2, SIZE)).astype(np.float32)
    found = probe(recording, inputs, np.array([0, 1]))
    named = found.rules.value or ()
    assert {(one.rule, one.steps) for one in named} == {("gauss_legendre", 50), ("captum_gausslegendre", 50)}
    asked = [request.steps for request in recording.requests if request.steps is not None]
    # 3 says that steps are honoured; then each library's own number, the largest first; one more must differ
    assert asked == [3, 50, 51]
    assert {steps for _, steps in members_of(50)} == {50}


def _beside(ray: Ray) -> CloseUp:
    """A kink of a ray, about which nothing is asked."""
    return CloseUp(ray, 0.1, 0.2, (0.05, 0.25), np.zeros(SIZE), np.ones(SIZE), 0.15)


@pytest.mark.parametrize("baseline", [True, False])
def test_a_rule_whose_number_of_steps_gets_another_answer_is_not_named(
    monkeypatch: pytest.MonkeyPatch, baseline: bool
) -> None:
    # whatever the rays say, here of midpoint(8), the service's own answer is that of 12 steps
    members = (("midpoint", 8), ("captum_riemann_middle", 8))
    one = np.ones(1)
    pattern = next(pattern for pattern in patterns(8) if ("midpoint", 8) in pattern.members)
    verdict = Verdict((Fit(pattern, 1.0, one, one, one, 9, one),), True, "the rays say so")
    monkeypatch.setattr(naming, "by_steps", lambda *_, **__: None)
    monkeypatch.setattr(naming, "across", lambda ray, *_: Crossed(members, True, "the rays say so", _beside(ray)))
    monkeypatch.setattr(naming, "explore", lambda *_, **__: verdict)
    permitted = Capabilities(rule="midpoint", default_steps=12, baseline=baseline)
    inputs = np.random.default_rng(0).normal(size=(2, SIZE)).astype(np.float32)
    found = probe(LocalExplainer(_network(0), permitted), inputs, np.array([0, 1]))
    assert found.rules.value is None
    assert found.rules.evidence.startswith("the rays say so; but the service")


def test_what_a_kink_left_open_is_gone_on_with_once_the_baseline_is_solved_for(monkeypatch: pytest.MonkeyPatch) -> None:
    service = LocalExplainer(
        _network(0), Capabilities(rule="midpoint", default_steps=9), own_baseline=np.full(SIZE, 0.3, np.float32)
    )
    inputs = np.random.default_rng(0).normal(size=(2, SIZE)).astype(np.float32)
    left: list[int] = []

    def undecided(*given: Any) -> Crossed | None:
        found = across(*given)
        left.append(given[0].asker.left)
        return None if found is None else replace(found, decided=False)

    monkeypatch.setattr(naming, "across", undecided)
    found = probe(Deaf(service, steps=True, baseline=False), inputs, np.array([0, 1]))
    assert left, "the first look must end before the baseline is solved for"
    assert found.baseline.value is not None
    assert ("midpoint", 9) in [(one.rule, one.steps) for one in found.rules.value or ()], found.rules.evidence
