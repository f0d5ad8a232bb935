"""Rays turned towards one unit, staircases found in answers, and where to ask next."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from disintegrate import Capabilities, LocalExplainer
from disintegrate.probe.alike import groups_of, have_siblings
from disintegrate.probe.anchored import anchored, weighting
from disintegrate.probe.asking import Asker
from disintegrate.probe.baseline import solve
from disintegrate.probe.closing_in import close_in
from disintegrate.probe.design import telling_scales
from disintegrate.probe.explore import Verdict, _verdict, explore
from disintegrate.probe.first_kink import WITHIN, first_kink
from disintegrate.probe.ray import Bracket, Origin, Ray
from disintegrate.probe.staircase import Pattern, Readings, keeping, patterns, readings
from disintegrate.probe.steer import BEFORE, BEHIND, MIDWAY, PLATEAU, _nearer, steered
from disintegrate.progress import SILENT
from disintegrate.rules import rule_named

SIZE, HIDDEN = 30, 40
NOISE = 1e-3


def _network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(SIZE, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 3))


def _asker(model: nn.Module, baseline: np.ndarray, rule: str = "riemann_right", steps: int = 50) -> Asker:
    service = LocalExplainer(model, Capabilities(rule=rule, default_steps=steps), own_baseline=baseline)
    return Asker(service, (SIZE,), np.dtype(np.float32), 200, SILENT.task("queries", 200))


def _kinks(model: nn.Sequential, baseline: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Where the hidden units cross zero on a ray, ascending: `w.(b + t v) + c = 0`."""
    weight, bias = (part.detach().double().numpy() for part in list(model.parameters())[:2])
    places = -(weight @ baseline + bias) / (weight @ direction)
    return np.sort(places[places > 0])


@pytest.mark.parametrize("seed", range(5))
def test_a_turned_ray_meets_one_kink_where_it_is_expected(seed: int) -> None:
    generator = np.random.default_rng(seed)
    model, baseline = _network(seed), generator.normal(size=SIZE).astype(np.float32)
    asker = _asker(model, baseline)
    asker.learn_wire()
    ray = Ray(asker, Origin(baseline.astype(float), np.zeros(SIZE)), generator.normal(size=SIZE), 0)
    bracket = first_kink(ray)
    assert bracket is not None
    assert bracket.low <= _kinks(model, baseline, ray.direction)[0] <= bracket.high
    turned, near = steered(ray, bracket)
    kinks = _kinks(model, baseline, turned.direction)
    assert turned is not ray
    assert abs(kinks[0] / near - 1) < 0.25
    assert kinks[1] > 1.5 * kinks[0]


@pytest.mark.parametrize(("rule", "steps"), [("riemann_right", 50), ("captum_riemann_left", 4), ("midpoint", 20)])
def test_the_first_crossing_of_a_nearer_kink_is_found_not_the_last(rule: str, steps: int) -> None:
    weight = torch.zeros(2, SIZE)
    weight[0, 0] = weight[1, 1] = 1.0
    quadrature = rule_named(rule)(steps)
    nodes = quadrature.nodes[(quadrature.nodes > 0) & (quadrature.weights != 0)]
    for last in (0.2, 0.4, 0.6):  # where the nearer unit's kink shows last, in units of the other one's place
        kink = last * nodes.min()
        units, output = nn.Linear(SIZE, 2), nn.Linear(2, 1)
        with torch.no_grad():
            units.weight.copy_(weight)
            units.bias.copy_(torch.tensor([-kink, -1.0]))
            output.weight.fill_(1.0)
        asker = _asker(nn.Sequential(units, nn.ReLU(), output), np.zeros(SIZE, np.float32), rule, steps)
        asker.learn_wire()
        ray = Ray(asker, Origin(np.zeros(SIZE), np.zeros(SIZE)), np.eye(SIZE)[:2].sum(0), 0)
        ray.ask([PLATEAU, MIDWAY, BEFORE, BEHIND])
        found = ray.bisected(_nearer(ray, 1.0), WITHIN)
        assert found.low <= kink / nodes.max() <= found.high


def _answers(
    scales: np.ndarray, rule: str, steps: int, jumps: dict[float, np.ndarray], generator: np.random.Generator
) -> np.ndarray:
    """A constant and a jump at each kink, as the rule sees them at each scale: (P.1), term by term."""
    quadrature = rule_named(rule)(steps)
    rows = []
    for scale in scales:
        row = np.ones(SIZE)
        for kink, jump in jumps.items():
            row = row + jump * sum(
                w for t, w in zip(quadrature.nodes, quadrature.weights, strict=True) if scale * t > kink
            )
        rows.append(row + NOISE * generator.normal(size=SIZE))
    return np.array(rows)


def _readings(scales: np.ndarray, answers: np.ndarray) -> Readings:
    return readings(scales, answers, np.full(answers.shape, NOISE), 0)


@pytest.mark.parametrize(
    ("rule", "steps"), [("riemann_right", 37), ("gauss_legendre", 20), ("midpoint", 12), ("trapezoid", 30)]
)
def test_the_staircase_of_the_rule_is_found_beside_another_kink(rule: str, steps: int) -> None:
    generator = np.random.default_rng(3)
    scales = np.exp(generator.uniform(np.log(0.6), np.log(3.0), 26))
    jumps = {1.0: generator.normal(size=SIZE), 1.7: 0.5 * generator.normal(size=SIZE)}
    found = _readings(scales, _answers(scales, rule, steps, jumps, generator))
    best, second = anchored(found, 1.0)[:2]
    assert (rule, steps) in best.pattern.members
    assert best.misfit < 2.5 * best.freedom
    assert second.misfit > best.misfit + 25
    far = rule_named(rule)(steps).nodes.max()
    assert abs(best.kinks[0] * far - 1.0) < 0.02


def test_a_kink_may_lie_anywhere_between_two_scales_that_were_asked() -> None:
    generator = np.random.default_rng(6)
    # nothing was asked between 0.4 and 0.8, so the kink at 0.6 is as likely as any there
    scales = np.concatenate([[0.1, 0.2, 0.4], np.exp(generator.uniform(np.log(0.8), np.log(3.0), 20))])
    answers = _answers(scales, "trapezoid", 4, {0.6: generator.normal(size=SIZE)}, generator)
    best = anchored(_readings(scales, answers), 1.0)[0]
    assert ("trapezoid", 4) in best.pattern.members
    assert 0.4 < best.kinks[0] < 0.8


def _explored(
    model: nn.Sequential,
    seed: int,
    rule: str,
    steps: int,
    *,
    budget: int,
    reserve: int,
    known: tuple[Pattern, ...] | None = None,
    wider: tuple[Pattern, ...] = (),
) -> Verdict:
    """What a random ray says, turned to its first kink, with so many queries from there on."""
    generator = np.random.default_rng(seed)
    baseline = generator.normal(size=SIZE).astype(np.float32)
    asker = _asker(model, baseline, rule, steps)
    asker.learn_wire()
    ray = Ray(asker, Origin(baseline.astype(float), np.zeros(SIZE)), generator.normal(size=SIZE), 0)
    bracket = first_kink(ray)
    assert bracket is not None
    turned, near = steered(ray, bracket)
    asker.budget = asker.spent + budget
    return explore(turned, near, reserve=reserve, generator=generator, known=known, wider=wider)


@pytest.mark.parametrize("known_of", [2, 40], ids=["few are known", "many are known"])
def test_where_no_known_pattern_explains_the_answers_a_wider_choice_is_tried(known_of: int) -> None:
    # ties at the baseline may leave all patterns but the one that it is
    others = keeping(patterns(), lambda rule, steps: rule == "trapezoid" and 30 < steps <= 30 + known_of)
    lost = _explored(_network(1), 1, "midpoint", 40, budget=30, reserve=8, known=others)
    assert not lost.fits
    found = _explored(_network(1), 1, "midpoint", 40, budget=30, reserve=8, known=others, wider=patterns())
    assert found.decided
    assert ("midpoint", 40) in found.fits[0].pattern.members


@pytest.mark.parametrize(("rule", "steps", "kink"), [("gauss_legendre", 2, 0.21), ("midpoint", 2, 0.25)])
def test_the_step_of_an_inner_node_is_not_taken_for_that_of_an_only_one(rule: str, steps: int, kink: float) -> None:
    units, output = nn.Linear(SIZE, 1), nn.Linear(1, 1)
    with torch.no_grad():
        units.weight.fill_(1 / SIZE)
        units.bias.fill_(-kink)
        output.weight.fill_(1.0)
    skip = _Beside(nn.Sequential(units, nn.ReLU(), output))
    asker = _asker(skip, np.zeros(SIZE, np.float32), rule, steps)
    asker.learn_wire()
    ray = Ray(asker, Origin(np.zeros(SIZE), np.zeros(SIZE)), np.ones(SIZE), 0)
    # the outer node has met the kink before any of these, the inner one meets it at 1
    ray.ask([0.45, 0.7, 0.9, 1.1, 1.5])
    verdict = explore(ray, 1.0, reserve=8, generator=np.random.default_rng(0))
    assert verdict.decided
    assert (rule, steps) in verdict.fits[0].pattern.members
    only = explore(_with_one_node(skip), 1.0, reserve=8, generator=np.random.default_rng(0))
    assert ("midpoint", 1) in only.fits[0].pattern.members


class _Beside(nn.Module):
    """A kink beside a slope, so that answers before it do not vanish."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.inner(x) + 0.5 * x[:, :1] + 0.3 * x.mean(1, keepdim=True)
        return found


def _with_one_node(model: nn.Module) -> Ray:
    """A ray of the same model under a rule of one node, that meets the kink at 1 as well."""
    asker = _asker(model, np.zeros(SIZE, np.float32), "riemann_right", 1)
    asker.learn_wire()
    ray = Ray(asker, Origin(np.zeros(SIZE), np.zeros(SIZE)), 0.25 * np.ones(SIZE), 0)
    ray.ask([0.45, 0.7, 0.9, 1.1, 1.5])
    return ray


@pytest.mark.parametrize(("rule", "steps"), [("midpoint", 8), ("riemann_right", 7)])
def test_staircases_go_on_where_some_scale_tells_rules_of_few_nodes_apart(rule: str, steps: int) -> None:
    for seed in range(3):
        verdict = _explored(_network(seed), seed, rule, steps, budget=55, reserve=8)
        assert verdict.decided
        assert (rule, steps) in verdict.fits[0].pattern.members


def test_a_nearer_kink_is_not_taken_for_ties_that_rounding_decides() -> None:
    units, output = nn.Linear(SIZE, 2), nn.Linear(2, 1)
    with torch.no_grad():
        # turned towards the second unit, the ray meets the first, which is weaker, half way to it
        units.weight.zero_()
        units.weight[:, :2] = torch.tensor([[0.6, 0.8], [0.98, 0.2]])
        units.bias.copy_(torch.tensor([-0.44, -1.18]))
        output.weight.copy_(torch.tensor([[0.1, 1.0]]))
    asker = _asker(nn.Sequential(units, nn.ReLU(), output), np.zeros(SIZE, np.float32), "midpoint", 40)
    asker.learn_wire()
    direction = np.zeros(SIZE)
    direction[:2] = 1.0
    ray = Ray(asker, Origin(np.zeros(SIZE), np.zeros(SIZE)), direction, 0)
    turned, _ = steered(ray, _around_the_second(ray))
    assert turned.scatter == 0


def _around_the_second(ray: Ray) -> Bracket:
    """One around the second kink of a ray, both ends asked."""
    ray.ask([0.2, 0.95, 1.1])
    return Bracket(0.95, 1.1)


@pytest.mark.parametrize(("steps", "named"), [(37, True), (5, False)])
def test_what_none_explains_to_the_last_digit_is_named_only_if_nothing_else_comes_near(steps: int, named: bool) -> None:
    generator = np.random.default_rng(4)
    scales = np.exp(generator.uniform(np.log(0.6), np.log(3.0), 26))
    jump = generator.normal(size=SIZE)
    # a second kink in the direction of the first cannot be told from it
    answers = _answers(scales, "riemann_right", steps, {1.0: jump, 2.2: 6e-3 * jump}, generator)
    found = _readings(scales, answers)
    fits = anchored(found, 1.0)
    assert ("riemann_right", steps) in fits[0].pattern.members
    assert fits[0].misfit > 3 * fits[0].freedom
    assert fits[1].misfit > 10 * fits[0].misfit
    verdict = _verdict(fits, found, 0, 3.0, 1.0)
    assert verdict.decided is named
    # not where another comes near
    close = dataclasses.replace(fits[1], misfit=9 * fits[0].misfit)
    assert not _verdict((fits[0], close), found, 0, 3.0, 1.0).decided


def test_patterns_whose_rules_differ_are_told_from_those_whose_rules_are_the_same() -> None:
    for pattern in patterns(12)[4:]:
        kinds = {rule.removeprefix("captum_") for rule, _ in pattern.members}
        alike = kinds <= {"midpoint", "riemann_middle"} or kinds <= {"gauss_legendre", "gausslegendre"}
        assert have_siblings([pattern]) is not alike
    (ends,) = [pattern for pattern in patterns(12) if ("riemann_right", 9) in pattern.members]
    assert [len(group) for group in groups_of(ends.members)] == [2, 2, 1]


def test_the_distance_of_a_staircase_is_as_large_as_noise_makes_it() -> None:
    ratios = []
    for seed in range(40):
        generator = np.random.default_rng(seed)
        scales = np.exp(generator.uniform(np.log(0.6), np.log(3.0), 24))
        jumps = {1.0: 0.3 * generator.normal(size=SIZE)}
        found = _readings(scales, _answers(scales, "midpoint", 9, jumps, generator))
        (fit,) = anchored(found, 1.0, [pattern for pattern in patterns(9) if ("midpoint", 9) in pattern.members])
        ratios.append(fit.misfit / fit.freedom)
    # the best of a few places lies a little below what one place would
    assert 0.75 < np.mean(ratios) < 1.25


def test_the_weighting_makes_the_staircase() -> None:
    generator = np.random.default_rng(5)
    scales = np.linspace(0.6, 3.0, 24)
    found = _readings(scales, _answers(scales, "riemann_right", 8, {1.0: generator.normal(size=SIZE)}, generator))
    fit = anchored(found, 1.0)[0]
    made = (found.signal * found.strength) @ weighting(found, fit)
    stairs = fit.pattern.staircase(fit.kinks[0] / scales) * found.certainty
    stairs = stairs - found.drift @ (found.drift.T @ stairs)
    assert np.allclose(made, stairs, atol=5 * np.abs(stairs).max() * NOISE)


def test_scales_that_tell_rivals_apart_do() -> None:
    generator = np.random.default_rng(8)
    jumps = {1.0: 0.2 * generator.normal(size=SIZE)}
    scales = np.linspace(0.7, 1.6, 9)
    few = _readings(scales, _answers(scales, "riemann_right", 60, jumps, generator))
    fits = anchored(few, 1.0)
    assert fits[1].misfit < fits[0].misfit + 25
    asked = telling_scales(few, fits[:8], 0.9, 3.0, 6, generator)
    assert 0 < len(asked) <= 6
    every = np.concatenate([scales, asked])
    spread = np.concatenate([scales, np.linspace(0.95, 1.05, len(asked))])
    margins = []
    for chosen in (every, spread):
        after = anchored(_readings(chosen, _answers(chosen, "riemann_right", 60, jumps, np.random.default_rng(9))), 1.0)
        true = next(fit for fit in after if ("riemann_right", 60) in fit.pattern.members)
        margins.append(min(fit.misfit for fit in after if fit is not true) - true.misfit)
    assert margins[0] > margins[1]


def test_a_baseline_is_found_to_its_last_bit() -> None:
    generator = np.random.default_rng(2)
    baseline = generator.normal(size=SIZE).astype(np.float32)
    asker = _asker(_network(2), baseline)
    asker.learn_wire()
    found = solve(asker, 0, 1.0, False, generator)
    assert found is not None
    exact = found.doubt == 0
    assert exact.mean() > 0.8
    assert (found.point[exact] == baseline.astype(float)[exact]).all()
    assert (np.abs(found.point - baseline) <= found.error).all()


def test_scales_are_those_that_were_reached_after_rounding() -> None:
    weight = torch.linspace(-1, 1, SIZE, dtype=torch.float64).numpy()
    baseline = np.full(SIZE, 100.0)
    asker = _asker(_network(0), baseline.astype(np.float32))
    ray = Ray(asker, Origin(baseline, np.zeros(SIZE)), 1e-3 * np.sign(weight), 0)
    ray.normal = weight
    asked = np.array([0.31, 0.5, 0.77])
    ray.ask(asked)
    points = (baseline + asked[:, None] * ray.direction).astype(np.float32).astype(np.float64)
    moved = (points - baseline) @ weight / (ray.direction @ weight)
    assert np.allclose(ray.reached, moved, rtol=1e-9)
    assert np.abs(moved / asked - 1).max() > 1e-4


@pytest.mark.parametrize(("rule", "steps"), [("riemann_right", 1), ("gauss_legendre", 2), ("midpoint", 2)])
def test_rules_of_few_steps_are_told_apart_far_enough_out(rule: str, steps: int) -> None:
    verdict = _explored(_network(4), 1, rule, steps, budget=45, reserve=0)
    assert verdict.decided
    assert (rule, steps) in verdict.fits[0].pattern.members


def test_a_coordinate_that_meets_the_baseline_early_does_not_hold_up_the_others() -> None:
    generator = np.random.default_rng(6)
    baseline = generator.normal(size=SIZE).astype(np.float16).astype(np.float32)
    asker = _asker(_network(6), baseline)
    asker.learn_wire()
    guess = baseline.astype(float).copy()
    guess[::3] += 0.05
    # two thirds of the coordinates answer 0 from the second question on
    found = close_in(asker, 0, guess, 1.0, generator.choice((-1.0, 1.0), SIZE))
    assert found is not None
    assert (np.abs(found.point - baseline) <= found.doubt).all()
    assert np.isfinite(found.doubt).all()
    assert np.isfinite(found.error).mean() > 0.6  # the slope close by must be that at some distance
    assert (np.abs(found.point - baseline) <= found.error).all()
