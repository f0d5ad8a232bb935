"""Rules of few nodes, told by sums of attributions and by outputs on either side of each node (P.10)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from disintegrate import Capabilities, Deaf, LocalExplainer, Wire, Wired, probe
from disintegrate.probe.alike import groups_of
from disintegrate.probe.along_gradient import Gradient
from disintegrate.probe.asking import Asker
from disintegrate.probe.at_nodes import _wanted, at_nodes
from disintegrate.probe.explore import Verdict
from disintegrate.probe.ray import Origin, Ray
from disintegrate.probe.staircase import Fit, Readings, patterns
from disintegrate.probe.weighing import Weighing, undecided
from disintegrate.progress import SILENT
from disintegrate.rules import rule_named
from tests.test_probe import SIZE, TARGETS, Blank, inputs, model

FEW = (("riemann_right", 1), ("riemann_right", 2), ("riemann_left", 2), ("midpoint", 2), ("midpoint", 3),
       ("gauss_legendre", 2), ("gauss_legendre", 3), ("saliency", 3), ("trapezoid", 3))  # fmt: skip
MANY = (("riemann_right", 16), ("midpoint", 16), ("gauss_legendre", 16), ("trapezoid", 16))


def _gradient(rule: str, steps: int, wire: Wire | None = None) -> Gradient:
    service = LocalExplainer(model(), Capabilities(rule=rule, default_steps=steps))
    asker = Asker(service, (SIZE,), np.dtype(np.float32), 60, SILENT.task("queries", 60))
    asker.wire = wire or Wire()
    near = Ray(asker, Origin(np.zeros(SIZE), np.zeros(SIZE)), inputs()[0].astype(float), 1)
    near.ask([1e-3])
    gradient = Gradient.of(near, 1.0)
    assert gradient is not None
    return gradient


def test_where_small_numbers_are_lost_nothing_need_have_been_asked_along_the_gradient() -> None:
    gradient = _gradient("midpoint", 2, Wire(dtype="float16"))
    assert not any(ray.scales for ray in gradient.rays)
    groups = groups_of([*FEW, *MANY])
    few = np.array([group[0] in FEW for group in groups])
    weighing = Weighing(gradient.rays[0].asker, groups, False, 0.0, None)
    score, asked = at_nodes(weighing, gradient, np.zeros(len(groups)), few, few)
    assert asked > 0
    assert ("midpoint", 2) in groups[int(np.argmax(score))]


@pytest.mark.parametrize(("rule", "steps"), FEW)
def test_outputs_beside_their_nodes_tell_rules_of_few_nodes_apart(rule: str, steps: int) -> None:
    gradient = _gradient(rule, steps)
    asker = gradient.rays[0].asker
    groups = groups_of([*FEW, *MANY])
    few = np.array([group[0] in FEW for group in groups])
    before = asker.spent
    score, asked = at_nodes(Weighing(asker, groups, False, 0.0, None), gradient, np.zeros(len(groups)), few, few)
    assert not undecided(score)
    assert (rule, steps) in groups[int(np.argmax(score))]
    assert 0 < asked == asker.spent - before


def test_a_rule_of_many_nodes_is_none_of_few() -> None:
    gradient = _gradient("riemann_right", 16)
    groups = groups_of([*FEW, *MANY])
    few = np.array([group[0] in FEW for group in groups])
    weighing = Weighing(gradient.rays[0].asker, groups, False, 0.0, None)
    score, _ = at_nodes(weighing, gradient, np.zeros(len(groups)), few, few)
    assert not few[int(np.argmax(score))]


@pytest.mark.parametrize(("rule", "steps"), [("midpoint", 2), ("riemann_right", 3), ("saliency", 3)])
def test_sums_are_those_of_the_outputs_slopes_at_the_nodes(rule: str, steps: int) -> None:
    # (P.10) the slow way, from the outputs at the places that are asked; a wrong place or side misses a hundredth
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(SIZE, 8), nn.Tanh(), nn.Linear(8, 3))
    asker = Asker(
        LocalExplainer(network, Capabilities(rule=rule, default_steps=steps)),
        (SIZE,), np.dtype(np.float32), 60, SILENT.task("queries", 60),
    )  # fmt: skip
    ray = Ray(asker, Origin(np.zeros(SIZE), np.zeros(SIZE)), inputs()[0].astype(float), 1)
    scale, apart, true = 0.9, 0.02, rule_named(rule)(steps)
    ray.ask([1e-3])
    ray.ask(_wanted(ray, [(rule, steps)], scale, apart))
    first, total, *pairs = range(len(ray.scales))
    inner = [float(node) for node in true.nodes if node > 0]
    sides = zip(pairs[::2], pairs[1::2], strict=True)
    slopes = [
        (ray.outputs[high] - ray.outputs[low]) / (2 * scale * node * apart)
        for node, (low, high) in zip(inner, sides, strict=True)
    ]
    begin = float(ray.raw[first].sum()) / ray.scales[first] / true.mass
    made = scale * float(true.weights @ np.array([begin] * (true.steps - len(inner)) + slopes))
    assert float(ray.raw[total].sum()) == pytest.approx(made, rel=2e-3)


@pytest.mark.parametrize(("rule", "steps", "digits"), [("gauss_legendre", 2, 7), ("midpoint", 2, 6)])
def test_a_service_of_two_nodes_is_named(rule: str, steps: int, digits: int) -> None:
    service = LocalExplainer(model(), Capabilities(rule=rule, default_steps=steps))
    found = probe(
        Blank(Deaf(Wired(service, Wire(significant_digits=digits)), steps=True, baseline=True)), inputs(), TARGETS
    )
    assert (rule, steps) in {(named.rule, named.steps) for named in found.rules.value or ()}, found.rules.evidence


@pytest.mark.parametrize(("misfit", "refuted"), [(24.0, False), (26.0, True)])
def test_answers_that_come_later_refute_a_pattern_that_lies_far_from_them(misfit: float, refuted: bool) -> None:
    before, after = (_verdict(pattern_misfit, rows) for pattern_misfit, rows in ((10.0, 12), (misfit, 17)))
    assert after.refuted_since(before) is refuted
    assert not before.refuted_since(before)
    assert not _verdict(misfit, 17, 1000.0).refuted_since(before)


@pytest.mark.parametrize(
    ("misfit", "second", "alone"),
    [(9.0, 2e4, True), (9.0, 9e3, False), (0.5, 2e4, False), (12.0, 1.1e4, False), (9.0, np.inf, False)],
    ids=["alone", "another comes near", "noise was taken for too large", "hardly fits", "no other was there"],
)
def test_a_pattern_stands_alone_that_fits_to_the_noise_where_all_others_lie_far_off(
    misfit: float, second: float, alone: bool
) -> None:
    # ten answers are left to contradict it
    assert _verdict(misfit, 12, second).alone is alone


def _verdict(misfit: float, rows: int, second: float = 80.0) -> Verdict:
    some = np.zeros(rows)
    found = Readings(some, some, some[:, None], some[:, None], np.ones(1), np.ones((1, 1)), some[:, None], ramps=False)
    fit = Fit(patterns(8)[9], misfit, np.ones(1), np.ones(1), np.ones(1), rows - 2, np.ones(1))
    return Verdict((fit,), True, "the one that is left", found=found, second=second)
