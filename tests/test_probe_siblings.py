"""Rules that share a staircase, told apart by sums of attributions against outputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from disintegrate import Capabilities, Deaf, LocalExplainer, Wire, Wired, probe
from disintegrate.probe.asking import Asker
from disintegrate.probe.completeness import Sums, log_likelihoods
from disintegrate.probe.ray import Origin, Ray
from disintegrate.probe.siblings import Siblings
from disintegrate.probe.weighing import SURE, Weighing
from disintegrate.progress import SILENT
from disintegrate.quadrature import Quadrature
from disintegrate.rules import rule_named
from tests.test_probe import SIZE, inputs, model

SCALES = np.concatenate([[1e-3], np.geomspace(0.05, 1.5, 11)])
UNIFORM = (("riemann_right", 20), ("riemann_left", 21), ("saliency", 21))
HALVED = (("trapezoid", 21), ("captum_riemann_trapezoid", 21))


def _asker(network: nn.Module, rule: str, steps: int) -> Asker:
    service = LocalExplainer(network, Capabilities(rule=rule, default_steps=steps))
    asker = Asker(service, (SIZE,), np.dtype(np.float32), 60, SILENT.task("queries", 60))
    asker.learn_wire()
    return asker


@pytest.mark.parametrize("family", [UNIFORM, HALVED], ids=["uniform", "halved"])
def test_siblings_are_told_apart_where_the_gradient_is_smooth(family: tuple[tuple[str, int], ...]) -> None:
    # logits are affine: p is a closed form of the scale, and nothing but (P.3) sets the rules apart
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(SIZE, 3), nn.Softmax(1))
    rules = [rule_named(rule)(steps) for rule, steps in family]
    for index, (rule, steps) in enumerate(family):
        asker = _asker(model, rule, steps)
        ray = Ray(asker, Origin(np.zeros(SIZE), np.zeros(SIZE)), 2 * inputs()[0].astype(float), 1)
        ray.ask(SCALES)
        total, deviation = ray.totals()
        output = np.array(ray.outputs)
        likely = log_likelihoods([Sums(SCALES, total, deviation, output, 3e-7 * np.abs(output))], rules, bending=True)[
            0
        ]
        assert int(np.argmax(likely)) == index
        assert np.sort(likely)[-1] > np.sort(likely)[-2] + SURE


def test_a_single_answer_behind_a_softmax_tells_no_rules_apart() -> None:
    one = np.ones(1)
    sums = [Sums(0.1 * one, 0.03 * one, 1e-6 * one, 0.4 * one, 1e-7 * one)]
    likely = log_likelihoods(sums, [rule_named(rule)(steps) for rule, steps in UNIFORM], bending=True)
    assert (likely == 0).all()


def _walked(rule: Quadrature, generator: np.random.Generator, scales: np.ndarray) -> Sums:
    """The sums and outputs of a gradient that jumps at random places of a ray, term by term."""
    places, jumps = generator.exponential(0.8, 12), generator.normal(size=12)
    total = [
        scale
        * sum(
            weight * (3 + jumps[places < scale * node].sum())
            for node, weight in zip(rule.nodes, rule.weights, strict=True)
        )
        for scale in scales
    ]
    output = [1 + 3 * scale + (jumps * np.maximum(scale - places, 0)).sum() for scale in scales]
    noise = 1e-5
    return Sums(
        scales,
        np.array(total) * (1 + noise * generator.normal(size=len(scales))),
        noise * np.abs(total),
        np.array(output) * (1 + noise * generator.normal(size=len(scales))),
        noise * np.abs(output),
    )


def test_likelihoods_are_as_sure_as_they_are_right() -> None:
    scales = np.concatenate([[1e-3], np.geomspace(0.1, 1.5, 9)])
    rules = [rule_named("riemann_left")(13), rule_named("saliency")(13)]
    gaps = []
    for seed in range(60):
        generator = np.random.default_rng(seed)
        true = seed % 2
        likely, outside = log_likelihoods([_walked(rules[true], generator, scales)], rules)
        gaps.append(likely[true] - likely[1 - true])
        assert outside[true] < 2.5
    found = np.array(gaps)
    assert np.median(found) > 3
    # a rule that is wrong seems exp(4) times likelier at most once in exp(4)
    assert (found < -4).mean() <= 2 / 60


@pytest.mark.parametrize("rule", ["riemann_right", "riemann_left"])
def test_far_out_behind_a_softmax_only_the_baseline_has_a_gradient(rule: str) -> None:
    steps = dict(UNIFORM)[rule]
    asker = _asker(model(True), rule, steps)
    ray = Ray(asker, Origin(np.zeros(SIZE), np.zeros(SIZE)), inputs()[0].astype(float), 0, drifting=True)
    ray.ask([1e-3, 0.03])
    weighing = Weighing(asker, [[member] for member in UNIFORM], True, 0.0, None)
    score = weighing.by_saturation(ray)
    # left sum and saliency have the same weight there
    assert score[1] == score[2]
    assert abs(score[0] - score[1]) > SURE
    assert (score[0] > score[1]) == (rule == "riemann_right")
    assert len(ray.scales) == 2


@pytest.mark.parametrize(
    ("rule", "steps", "softmax", "digits"),
    [
        ("saliency", 25, False, 5),
        ("riemann_left", 21, False, 6),
        ("riemann_right", 24, True, 5),
        ("captum_riemann_trapezoid", 12, True, None),
        ("trapezoid", 12, False, 4),
    ],
)
def test_siblings_are_told_apart_where_nothing_may_be_set(
    rule: str, steps: int, softmax: bool, digits: int | None
) -> None:
    service = LocalExplainer(model(softmax), Capabilities(rule=rule, default_steps=steps))
    wired = Wired(service, Wire(significant_digits=digits)) if digits else service
    found = probe(Deaf(wired, steps=True, baseline=True), inputs(), np.array([0, 1, 2]))
    named = found.rules.value or ()
    assert (rule, steps) in {(member.rule, member.steps) for member in named}, found.rules.evidence
    true = rule_named(rule)(steps)
    for member in named:
        other = rule_named(member.rule)(member.steps)
        assert np.allclose(other.nodes, true.nodes, atol=1e-6)
        assert np.allclose(other.weights, true.weights, atol=1e-6)


@pytest.mark.parametrize(("rule", "symmetric"), [("saliency", True), ("riemann_left", False)])
def test_ties_at_the_baseline_do_not_look_asymmetric(rule: str, symmetric: bool) -> None:
    # every window of the pooling holds equal values at the zero baseline
    torch.manual_seed(2)
    model = nn.Sequential(
        nn.Unflatten(1, (1, SIZE)), nn.Conv1d(1, 6, 5, padding=2), nn.MaxPool1d(2), nn.ReLU(), nn.Flatten(),
        nn.Linear(3 * SIZE, 3),
    )  # fmt: skip
    siblings = Siblings(
        asker=_asker(model, rule, 25),
        inputs=inputs().astype(float),
        target=0,
        spread=1.0,
        generator=np.random.default_rng(0),
        probabilities=False,
        steps_honoured=False,
        baseline_honoured=True,
    )
    assert siblings.mirrored(Origin(np.zeros(SIZE), np.zeros(SIZE)))[0] is symmetric
