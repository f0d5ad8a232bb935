"""Models without kinks: extrapolated where their answers say so, and only there."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from disintegrate import Capabilities, LocalExplainer, Query, Wire, Wired, distance, rule_named, vanilla_gradient
from disintegrate.estimate import estimate
from disintegrate.extrapolation import extrapolation, is_smooth
from disintegrate.kriging import krige
from disintegrate.noise import Noise, noise_of
from disintegrate.recover import recover
from disintegrate.walk import Walk
from tests.strategies import rule_names

SCALES = (0.55, 0.7, 0.85, 1.0)


def network(activation: nn.Module, bias: float = 1.0) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 60), activation, nn.Linear(60, 60), activation, nn.Linear(60, 3)).eval()
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(2)
                layer.bias.normal_(0, bias)
    return model


@given(name=rule_names, degree=st.integers(0, 3), steps=st.integers(3, 9))
def test_polynomials_of_a_degree_below_the_number_of_queries_are_recovered(name: str, degree: int, steps: int) -> None:
    rule, queries = rule_named(name), [Query(0, scale, steps) for scale in SCALES]
    plan = extrapolation(queries, rule)
    assert plan is not None
    measure = plan.measure(rule)
    assert measure.weights @ (2 - measure.positions) ** degree == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("activation", "smooth"), [(nn.GELU(), True), (nn.Tanh(), True), (nn.ReLU(), False)])
def test_the_answers_say_whether_a_model_has_kinks(activation: nn.Module, smooth: bool) -> None:
    model, generator = network(activation), np.random.default_rng(0)
    x, targets = generator.normal(size=(12, 40)).astype(np.float32), generator.integers(0, 3, 12)
    fixed = Capabilities("midpoint", 5, 5, baseline=False, furthest=1.0, dtype="float32")
    service, queries = LocalExplainer(model, fixed), [Query(0, scale, 5) for scale in SCALES]
    found = estimate(service, x, targets, queries)
    true = vanilla_gradient(model, torch.tensor(x), torch.tensor(targets)).numpy()
    near = np.median(distance(true, found.gradient))
    walk = recover(service, x, targets, krige(queries, service.rule, Walk(), noise_of(fixed)))
    far = np.median(distance(true, walk.gradient))
    assert near < (0.3 * far if smooth else 1.1 * far)
    assert (found.plan == extrapolation(queries, service.rule)) is smooth


def test_digits_that_an_extrapolation_would_blow_up_speak_against_it() -> None:
    model, generator = network(nn.Tanh()), np.random.default_rng(0)
    x, targets = generator.normal(size=(12, 40)).astype(np.float32), generator.integers(0, 3, 12)
    fixed = Capabilities("midpoint", 5, 5, baseline=False, furthest=1.0, dtype="float32")
    queries = [Query(0, scale, 5) for scale in (0.94, 0.96, 0.98, 1.0)]
    coarse = Wired(LocalExplainer(model, fixed), Wire(significant_digits=2))
    found = estimate(coarse, x, targets, queries)
    assert found.plan != extrapolation(queries, rule_named("midpoint"))


def test_too_few_queries_or_far_ones_are_not_extrapolated() -> None:
    rule, noise = rule_named("midpoint"), Noise()
    for queries in ([Query(0, 1, 5), Query(0, 0.8, 5)], [Query(0, scale, 5) for scale in (0.8, 1.0, 100.0)]):
        assert extrapolation(queries, rule) is None
        assert not is_smooth(np.ones((1, len(queries), 2)), queries, rule, Walk(), noise)
