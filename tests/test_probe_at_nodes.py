"""Rules of few nodes, told by sums of attributions and by outputs on either side of each node (P.10)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from jaxtyping import Float64

from disintegrate import Capabilities, Deaf, LocalExplainer, Wire, Wired, probe
from disintegrate.probe.alike import groups_of
from disintegrate.probe.along_gradient import Gradient
from disintegrate.probe.asking import Asker
from disintegrate.probe.at_nodes import at_nodes
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


def _gradient(rule: str, steps: int) -> Gradient:
    service = LocalExplainer(model(), Capabilities(rule=rule, default_steps=steps))
    asker = Asker(service, (SIZE,), np.dtype(np.float32), 60, SILENT.task("queries", 60))
    asker.wire = Wire()
    near = Ray(asker, Origin(np.zeros(SIZE), np.zeros(SIZE)), inputs()[0].astype(float), 1)
    near.ask([1e-3])
    gradient = Gradient.of(near, 1.0)
    assert gradient is not None
    return gradient


@pytest.mark.parametrize(("rule", "steps"), FEW)
def test_outputs_beside_their_nodes_tell_rules_of_few_nodes_apart(rule: str, steps: int) -> None:
    gradient = _gradient(rule, steps)
    asker = gradient.rays[0].asker
    groups = groups_of([*FEW, *MANY])
    few = np.array([group[0] in FEW for group in groups])
    score, asked = at_nodes(Weighing(asker, groups, False, 0.0, None), gradient, np.zeros(len(groups)), few, few)
    assert not undecided(score)
    assert (rule, steps) in groups[int(np.argmax(score))]
    assert asked <= asker.spent <= 60


def test_a_rule_of_many_nodes_is_none_of_few() -> None:
    gradient = _gradient("riemann_right", 16)
    groups = groups_of([*FEW, *MANY])
    few = np.array([group[0] in FEW for group in groups])
    weighing = Weighing(gradient.rays[0].asker, groups, False, 0.0, None)
    score, _ = at_nodes(weighing, gradient, np.zeros(len(groups)), few, few)
    assert not few[int(np.argmax(score))]


@pytest.mark.parametrize(("rule", "steps"), [("midpoint", 2), ("riemann_right", 3), ("saliency", 3)])
def test_sums_are_those_of_the_outputs_slopes_at_the_nodes(rule: str, steps: int) -> None:
    # (P.10) in float64, where the model has a closed form: f(x) = tanh(a x), h(t) = a d / cosh(a d t)^2
    a = torch.linspace(-1, 1, SIZE, dtype=torch.float64)
    d = np.linspace(0.2, 1.1, SIZE)
    true = rule_named(rule)(steps)
    along = float(a.numpy() @ d)

    def output(scale: Float64[np.ndarray, " k"]) -> Float64[np.ndarray, " k"]:
        return np.tanh(along * scale)

    apart = 1e-4
    inner = true.nodes > 0
    slopes = np.full(true.steps, along)
    places = true.nodes[inner]
    slopes[inner] = (output(places * (1 + apart)) - output(places * (1 - apart))) / (2 * places * apart)
    total = sum(
        weight * (a.numpy() / np.cosh(along * node) ** 2 * d).sum()
        for node, weight in zip(true.nodes, true.weights, strict=True)
    )
    assert total == pytest.approx(true.weights @ slopes, rel=1e-7)


@pytest.mark.parametrize(("rule", "steps", "digits"), [("gauss_legendre", 2, 7), ("midpoint", 2, 6)])
def test_a_service_of_two_nodes_is_named(rule: str, steps: int, digits: int) -> None:
    service = LocalExplainer(model(), Capabilities(rule=rule, default_steps=steps))
    found = probe(
        Blank(Deaf(Wired(service, Wire(significant_digits=digits)), steps=True, baseline=True)), inputs(), TARGETS
    )
    assert (rule, steps) in {(named.rule, named.steps) for named in found.rules.value or ()}, found.rules.evidence


@pytest.mark.parametrize(("misfit", "refuted"), [(24.0, False), (26.0, True)])
def test_answers_that_come_later_refute_a_pattern_that_lies_far_from_them(misfit: float, refuted: bool) -> None:
    pattern = patterns(8)[9]
    before, after = (_verdict(pattern_misfit, rows) for pattern_misfit, rows in ((10.0, 12), (misfit, 17)))
    assert after.refuted_since(before) is refuted
    assert not before.refuted_since(before)
    assert not _verdict(misfit, 17, 1000.0).refuted_since(before)
    assert pattern is before.fits[0].pattern


def _verdict(misfit: float, rows: int, second: float = 80.0) -> Verdict:
    some = np.zeros(rows)
    found = Readings(some, some, some[:, None], some[:, None], np.ones(1), np.ones((1, 1)), some[:, None], ramps=False)
    fit = Fit(patterns(8)[9], misfit, np.ones(1), np.ones(1), np.ones(1), rows - 2, np.ones(1))
    return Verdict((fit,), True, "the one that is left", found=found, second=second)
