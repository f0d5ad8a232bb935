"""Rules that share a staircase, told apart by sums of attributions against outputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from disintegrate import Capabilities, Deaf, Explainer, Explanation, LocalExplainer, Request, Wire, Wired, probe
from disintegrate.probe import Override
from disintegrate.probe.along_gradient import WIDEST, Gradient, along_gradient
from disintegrate.probe.asking import Asker
from disintegrate.probe.completeness import Sums, log_likelihoods
from disintegrate.probe.ray import Origin, Ray
from disintegrate.probe.result import Finding, NamedRule
from disintegrate.probe.siblings import Siblings
from disintegrate.probe.weighing import BETWEEN, SURE, Weighing, undecided
from disintegrate.progress import SILENT
from disintegrate.quadrature import Quadrature
from disintegrate.rules import rule_named
from tests.test_probe import SIZE, inputs, model

SCALES = np.concatenate([[1e-3], np.geomspace(0.05, 1.5, 11)])
UNIFORM = (("riemann_right", 20), ("riemann_left", 21), ("saliency", 21))
HALVED = (("trapezoid", 21), ("captum_riemann_trapezoid", 21))


def _asker(network: nn.Module, rule: str, steps: int, digits: int | None = None) -> Asker:
    service: Explainer = LocalExplainer(network, Capabilities(rule=rule, default_steps=steps))
    wire = Wire(significant_digits=digits)
    asker = Asker(Wired(service, wire), (SIZE,), np.dtype(np.float32), 60, SILENT.task("queries", 60))
    asker.wire = wire
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


def _tied(rule: Quadrature, scales: np.ndarray, tie: float, kink: float, jump: float) -> Sums:
    """A gradient of 1 with one kink, and another gradient at the baseline itself, where max pooling ties."""
    places = np.multiply.outer(scales, rule.nodes)
    gradient = np.where(places == 0, 1 + tie, 1 + jump * (places > kink))
    total, output = scales * (gradient @ rule.weights), 3 + scales + jump * np.maximum(scales - kink, 0)
    return Sums(scales, total, 3e-7 * np.abs(total), output, 3e-7 * np.abs(output))


@pytest.mark.parametrize("tie", [0.0, 0.3, 3.0, 5.0])
def test_a_tie_at_the_baseline_is_not_taken_for_another_mass(tie: float) -> None:
    # captum's trapezoid weighs less in all by what a tie at the baseline may add
    scales = np.concatenate([[1e-4, 3e-4], np.geomspace(8e-4, 2.2e-3, 16)])
    for true in ("trapezoid", "captum_riemann_trapezoid"):
        sums = [_tied(rule_named(true)(35), scales, tie, 1e-3, 0.02)]
        likely = dict(
            zip(
                ("trapezoid", "captum_riemann_trapezoid"),
                log_likelihoods(sums, [rule_named("trapezoid")(35), rule_named("captum_riemann_trapezoid")(35)])[0],
                strict=True,
            )
        )
        assert likely[true] > max(likely.values()) - SURE / 2


def test_the_slopes_at_the_ends_of_paths_are_asked_from_the_second_look_on() -> None:
    asker = _asker(model(), "saliency", 21, 3)
    near = Ray(asker, Origin(np.zeros(SIZE), np.zeros(SIZE)), inputs()[0].astype(float), 0)
    near.ask([1e-3])
    gradient = Gradient.of(near, 1.0)
    assert gradient is not None
    weighing = Weighing(asker, [[member] for member in UNIFORM], False, 0.0, None)
    along_gradient(weighing, gradient, np.zeros(len(UNIFORM)), range(1))
    first = len(gradient.rays[0].scales)
    along_gradient(weighing, gradient, np.zeros(len(UNIFORM)), range(1, 2))
    ends = np.array(gradient.rays[0].scales[first:])
    assert len(ends) == 4
    # three digits leave no slope open that neighbours so far apart do not show
    assert np.allclose(ends[2:] / ends[:2], 1 + WIDEST)
    assert (BETWEEN[0] <= ends).all()
    assert (ends <= BETWEEN[1] * (1 + WIDEST)).all()


@pytest.mark.parametrize("digits", [None, 4])
@pytest.mark.parametrize("softmax", [False, True], ids=["logits", "probabilities"])
@pytest.mark.parametrize(("rule", "steps"), [*UNIFORM, *HALVED])
def test_sums_along_the_gradient_tell_siblings_apart(rule: str, steps: int, softmax: bool, digits: int | None) -> None:
    family = UNIFORM if (rule, steps) in UNIFORM else HALVED
    asker = _asker(model(softmax), rule, steps, digits)
    near = Ray(asker, Origin(np.zeros(SIZE), np.zeros(SIZE)), inputs()[0].astype(float), 0, drifting=softmax)
    near.ask([1e-3])
    gradient = Gradient.of(near, 1.0)
    assert gradient is not None
    weighing = Weighing(asker, [[member] for member in family], softmax, 0.0, None)
    score, asked = along_gradient(weighing, gradient, np.zeros(len(family)))
    assert asked == asker.spent - 1 <= 32
    own = family.index((rule, steps))
    # sure of the right one, or of none
    assert int(np.argmax(score)) == own or undecided(score)
    assert digits is not None or not undecided(score)


def test_along_the_gradient_all_coordinates_add_to_the_sum() -> None:
    asker = _asker(model(True), "midpoint", 9)
    near = Ray(asker, Origin(np.zeros(SIZE), np.zeros(SIZE)), inputs()[0].astype(float), 0, drifting=True)
    near.ask([1e-3])
    gradient = Gradient.of(near, 1.0)
    assert gradient is not None
    for ray, sign in zip(gradient.rays, (-1, 1), strict=True):
        ray.ask([1e-3 * gradient.unit])
        assert (np.sign(ray.raw[0]) == sign).all()
        # L is p (1 - p) over the slope of the output
        slope = float(ray.raw[0].sum()) / ray.scales[0]
        assert sign * slope * gradient.unit == pytest.approx(ray.outputs[0] * (1 - ray.outputs[0]), rel=1e-2)


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


@pytest.mark.parametrize(
    ("rule", "steps", "others"),
    [("midpoint", 2, None), ("trapezoid", 51, "many"), ("trapezoid", 3, "other"), ("riemann_left", 2, "other")],
)
def test_a_rule_of_few_nodes_is_taken_back_where_sums_are_those_of_others(
    rule: str, steps: int, others: str | None
) -> None:
    asker = _asker(model(), rule, steps)
    origin = Origin(np.zeros(SIZE), np.zeros(SIZE))
    siblings = Siblings(
        asker, inputs().astype(float), 1, 1.0, np.random.default_rng(0), False, steps_honoured=False,
        baseline_honoured=False,
    )  # fmt: skip
    ray = Ray(asker, origin, 2 * inputs()[0].astype(float), 1)
    ray.ask(SCALES)
    found = siblings._unless_others(Finding((NamedRule("midpoint", 2),), "its staircase"), [ray])
    assert (found.value is not None) == (others is None)
    assert others is None or found.evidence.endswith(f"of a rule of {others} nodes")


class _Simpson:
    """A service of a rule that the probe does not know: composite Simpson sums of 12 intervals, from zero."""

    capabilities = Capabilities(rule="")

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    def explain(self, request: Request) -> Explanation:
        """Explain from zero, whatever is asked."""
        weights = np.array([1, *[4, 2] * 5, 4, 1]) / 36
        points = torch.tensor(request.inputs)
        total = torch.zeros_like(points)
        for place, weight in enumerate(weights):
            at = (points * place / 12).requires_grad_()
            picked = self._network(at)[torch.arange(len(at)), torch.tensor(request.targets)]
            total = total + float(weight) * torch.autograd.grad(picked.sum(), at)[0]
        with torch.no_grad():
            output = self._network(points)[torch.arange(len(points)), torch.tensor(request.targets)]
        return Explanation(output.numpy(), (points * total).numpy())


@pytest.mark.parametrize(("softmax", "most"), [(False, 0), (True, 1)], ids=["logits", "probabilities"])
def test_a_rule_that_is_not_known_is_hardly_taken_for_one_that_weighs_the_baseline_alike(
    softmax: bool, most: int
) -> None:
    # a trapezoid of 19 points weighs the baseline as this does, and so does a left sum of 36
    named = []
    for seed in range(4):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(SIZE, 30), nn.ReLU(), nn.Linear(30, 4))
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(2)
        served = nn.Sequential(network, nn.Softmax(1)) if softmax else network
        found = probe(_Simpson(served), inputs(), np.array([0, 1, 2]))
        named += [found.rules.evidence] if found.rules.value else []
    # behind a softmax the budget may end before enough answers contradict a trapezoid
    assert len(named) <= most, named


@pytest.mark.parametrize("rule", ["riemann_left", "saliency", "captum_riemann_trapezoid"])
def test_behind_a_softmax_a_rule_that_weighs_the_baseline_is_named_in_few_queries(rule: str) -> None:
    service = Deaf(LocalExplainer(model(True), Capabilities(rule=rule, default_steps=20)), steps=True, baseline=True)
    found = probe(service, inputs(), np.array([0, 1, 2]))
    assert (rule, 20) in {(named.rule, named.steps) for named in found.rules.value or ()}, found.rules.evidence
    assert found.queries <= 40
    assert found.steps_override.value is Override.IGNORED
