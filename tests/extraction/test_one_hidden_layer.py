"""Exact theft: random networks come back unit by unit, or it is said what of them no answer can tell."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from disintegrate import (
    Capabilities,
    InvalidValue,
    LocalExplainer,
    NotPermitted,
    Output,
    Plan,
    Recording,
    Wire,
    Wired,
    baseline_window,
    bias_free,
    load_model,
    single_step,
    single_step_beyond,
    step_count,
)
from disintegrate.extraction import Extraction, Oracle, extract, one_hidden_layer
from disintegrate.paper import mnist

ROOT = Path(__file__).parents[2]
RIGHT = Capabilities(rule="riemann_right")
KINDS = ("plain", "dead", "parallel", "duplicated", "opposite", "without input weights")


@dataclass(frozen=True)
class Case:
    kind: str
    width: int
    units: int
    classes: int
    seed: int


def network(case: Case) -> nn.Sequential:
    torch.manual_seed(case.seed)
    first, last = nn.Linear(case.width, case.units), nn.Linear(case.units, case.classes)
    with torch.no_grad():
        if case.kind == "dead":
            last.weight[:, 0] = 0
        if case.kind in ("parallel", "duplicated"):
            first.weight[0] = 2 * first.weight[1]
        if case.kind == "duplicated":
            first.bias[0] = 2 * first.bias[1]
        if case.kind == "opposite":
            first.weight[0], first.bias[0] = -2 * first.weight[1], -2 * first.bias[1]
        if case.kind == "without input weights":
            first.weight[0] = 0
    return nn.Sequential(first, nn.ReLU(), last).eval()


def stolen(case: Case, net: nn.Module, *, plan: Plan | None = None, budget: int = 20_000) -> Extraction:
    x = np.random.default_rng(case.seed).normal(size=(100, case.width)).astype(np.float32)
    method = partial(one_hidden_layer, classes=case.classes, plan=plan or single_step(), seed=case.seed)
    return extract(method, LocalExplainer(net, RIGHT), x[:5], x, net, name="theft", budget=budget)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    return Case(
        draw(st.sampled_from(KINDS)),
        draw(st.integers(2, 12)),
        draw(st.integers(2, 12)),
        draw(st.integers(1, 4)),
        draw(st.integers(0, 1000)),
    )


@settings(max_examples=25)
@given(cases())
def test_a_random_network_is_copied_exactly_and_its_distinguishable_units_are_counted(case: Case) -> None:
    """Two units on one hyperplane are one, and a unit without weights is none: no input tells otherwise."""
    found = stolen(case, network(case))
    assert found.complete
    assert found.likeness.largest_error < 1e-4
    hidden = 0 if case.kind in ("plain", "parallel") else 1
    assert found.notes["units"] == case.units - hidden
    if case.kind != "opposite" and case.units <= case.width:
        assert found.notes["carried"] == 0


def test_the_victims_own_weights_come_back_up_to_order_and_scale() -> None:
    case = Case("plain", 20, 12, 4, 3)
    net = network(case)
    copy = stolen(case, net).copy
    ours, theirs = parameters(copy), parameters(net)
    nearest = ((ours[:, None] - theirs) ** 2).sum(-1).argmin(1)
    assert sorted(nearest) == list(range(12))
    np.testing.assert_allclose(ours, theirs[nearest], atol=1e-5)


def parameters(net: nn.Module) -> np.ndarray:
    """A row for each unit: input weights and offset over their length, output weights times it."""
    first, last = (layer for layer in net.modules() if isinstance(layer, nn.Linear))
    inner = torch.cat([first.weight, first.bias[:, None]], 1).detach().double()
    length = first.weight.detach().double().norm(dim=1, keepdim=True)
    return torch.cat([inner / length, last.weight.detach().double().T * length], 1).numpy()


def test_the_papers_network_is_stolen_with_at_most_200_points() -> None:
    stored = ROOT / "results" / "reproduction" / "models" / "TwoLayerNet-1c7dd5c9b74f.safetensors"
    victim = load_model(str(stored), architecture="TwoLayerNet").module
    x = mnist.load("test").first(1000).normalised()
    method = partial(one_hidden_layer, classes=10, plan=single_step())
    found = extract(method, LocalExplainer(victim, RIGHT), x[:5], x, victim, name="theft")
    assert found.points <= 200
    assert found.queries == 10 * found.points
    assert found.likeness.largest_error < 1e-4
    assert found.likeness.agreement == 1
    assert found.notes["units"] == 100


@pytest.mark.parametrize(
    ("capabilities", "plan", "queries"),
    [
        (Capabilities(rule="captum_gausslegendre"), baseline_window(2**-10, 1, centred=True), 1),
        (Capabilities(rule="captum_gausslegendre", baseline=False), single_step_beyond(), 2),
        (replace(RIGHT, baseline=False), step_count(2), 2),
    ],
    ids=["a window of one step", "one step beyond, and the output", "equation (4)"],
)
def test_it_works_through_other_exact_plans(capabilities: Capabilities, plan: Plan, queries: int) -> None:
    case = Case("plain", 10, 8, 3, 1)
    net = network(case)
    x = np.random.default_rng(0).normal(size=(100, 10)).astype(np.float32)
    method = partial(one_hidden_layer, classes=3, plan=plan)
    recording = Recording(LocalExplainer(net, capabilities))
    found = extract(method, recording, x[:5], x, net, name="theft")
    assert found.likeness.largest_error < 1e-4
    assert found.notes["units"] == 8
    # The far ends of the plan's queries are the points that are sent.
    assert found.queries == 3 * found.points
    assert found.points % queries == 0


def test_within_the_box_of_valid_inputs_nothing_outside_is_asked() -> None:
    case = Case("plain", 16, 10, 3, 2)
    net = network(case)
    x = np.random.default_rng(0).random((200, 16)).astype(np.float32)
    capabilities = replace(RIGHT, smallest_value=0.0, largest_value=1.0)
    recording = Recording(LocalExplainer(net, capabilities))
    method = partial(one_hidden_layer, classes=3, plan=single_step(), seed=1)
    found = extract(method, recording, x[:5], x, net, name="theft")
    asked = np.concatenate([request.inputs for request in recording.requests])
    assert asked.min() >= 0
    assert asked.max() <= 1
    assert found.likeness.largest_error < 1e-4


def test_probabilities_give_the_network_up_to_what_they_do_not_tell() -> None:
    case = Case("plain", 16, 10, 4, 5)
    net = nn.Sequential(*network(case), nn.Softmax(1)).eval()
    x = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32)
    service = LocalExplainer(net, replace(RIGHT, output=Output.PROBABILITIES))
    found = extract(partial(one_hidden_layer, classes=4, plan=single_step()), service, x[:5], x, net, name="theft")
    assert found.likeness.largest_error < 1e-4
    assert found.notes["units"] == 10
    with pytest.raises(NotPermitted, match="differences between classes"):
        Oracle(service, (16,), (0,), single_step())


@pytest.mark.parametrize("rule", ["riemann_right", "captum_gausslegendre"])
def test_a_service_that_freezes_everything_is_robbed_far_out(rule: str) -> None:
    case = Case("plain", 16, 10, 3, 4)
    net = network(case)
    x = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32)
    frozen = Capabilities(rule=rule, fewest_steps=20, most_steps=20, baseline=False)
    method = partial(one_hidden_layer, classes=3, plan=bias_free(20), far=True)
    found = extract(method, LocalExplainer(net, frozen), x[:5], x, net, name="theft", budget=6000)
    assert found.likeness.largest_error < 1e-4
    assert found.notes["units"] == 10


def test_in_a_box_there_is_no_far_out() -> None:
    boxed = LocalExplainer(network(Case("plain", 3, 2, 2, 0)), replace(RIGHT, smallest_value=0, largest_value=1))
    with pytest.raises(InvalidValue, match="box"):
        one_hidden_layer(boxed, np.ones((1, 3), np.float32), classes=2, plan=bias_free(20), far=True)


@pytest.mark.parametrize("digits", [2, 5])
def test_rounded_answers_give_a_rough_copy_or_none_and_the_notes_say_so(digits: int) -> None:
    """What the notes call noise is what the wire does, within a factor, so that an owner can read it off."""
    case = Case("plain", 20, 6, 4, 7)
    net = network(case)
    x = np.random.default_rng(0).normal(size=(100, 20)).astype(np.float32)
    wire = Wire(significant_digits=digits)
    service = Wired(LocalExplainer(net, RIGHT), wire)
    method = partial(one_hidden_layer, classes=4, plan=single_step())
    found = extract(method, service, x[:5], x, net, name="theft", budget=4000)
    noise = found.notes["noise"]
    assert isinstance(noise, float)
    assert 0.3 * wire.relative < noise < 3 * wire.relative
    assert found.likeness.largest_error > 0.1 * wire.relative * found.likeness.mean_error
