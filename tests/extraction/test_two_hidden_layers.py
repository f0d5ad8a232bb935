"""Two hidden layers: random networks come back exactly, or it is said that they do not."""

from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from disintegrate import (
    BadAnswer,
    BudgetSpent,
    Capabilities,
    Explainer,
    InvalidValue,
    LocalExplainer,
    Output,
    Recording,
    Wire,
    Wired,
    baseline_window,
    single_step,
)
from disintegrate.extraction import Extraction, extract, two_hidden_layers

RIGHT = Capabilities(rule="riemann_right")


def network(*widths: int, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).eval()


def stolen(net: nn.Sequential, service: Explainer, budget: int | None = None) -> Extraction:
    first, last = net[0], [layer for layer in net if isinstance(layer, nn.Linear)][-1]
    assert isinstance(first, nn.Linear)
    x = np.random.default_rng(0).normal(size=(200, first.in_features)).astype(np.float32)
    method = partial(two_hidden_layers, classes=last.out_features, plan=single_step())
    return extract(method, service, x[:20], x, net, name="theft", budget=budget)


@settings(max_examples=8)
@given(st.integers(8, 16), st.integers(5, 8), st.integers(2, 9), st.integers(2, 4), st.integers(0, 1000))
def test_a_random_network_is_copied_exactly_or_it_is_said_that_it_is_not(
    width: int, first: int, second: int, classes: int, seed: int
) -> None:
    """With a narrow second layer most of the input space may have no gradient at all, and hides units."""
    net = network(width, first, second, classes, seed=seed)
    try:
        found = stolen(net, LocalExplainer(net, RIGHT))
    except BadAnswer:
        return
    assert found.complete
    assert found.likeness.largest_error < 1e-4 or found.notes["missed"] > 0  # type: ignore[operator]
    assert found.notes["units"][0] == first  # type: ignore[index]
    assert found.notes["units"][1] <= second  # type: ignore[index]


def test_nearly_all_random_networks_are_copied_exactly() -> None:
    """What the test above lets pass must be rare."""
    nets = [network(12, 7, 5, 3, seed=seed) for seed in range(6)]
    errors = [stolen(net, LocalExplainer(net, RIGHT)).likeness.largest_error for net in nets]
    assert sum(error < 1e-5 for error in errors) >= 5


def test_the_victims_own_first_layer_comes_back_turned_to_the_side_where_its_units_are_on() -> None:
    net = network(30, 16, 8, 4)
    copy = stolen(net, LocalExplainer(net, RIGHT)).copy
    ours, theirs = (next(m for m in model.modules() if isinstance(m, nn.Linear)) for model in (copy, net))
    rows = [torch.cat([layer.weight, layer.bias[:, None]], 1).detach().double() for layer in (ours, theirs)]
    rows = [row / row[:, :-1].norm(dim=1, keepdim=True) for row in rows]
    nearest = torch.cdist(rows[0], rows[1]).argmin(1)
    assert sorted(nearest.tolist()) == list(range(16))
    torch.testing.assert_close(rows[0], rows[1][nearest], atol=1e-5, rtol=0)


def test_the_harness_counts_what_a_recording_explainer_saw() -> None:
    net = network(12, 7, 5, 3)
    recording = Recording(LocalExplainer(net, RIGHT))
    found = stolen(net, recording)
    sent = np.concatenate([request.inputs for request in recording.requests])
    assert found.queries == len(sent)
    assert found.points == len(np.unique(sent, axis=0))
    assert found.queries == 3 * len(sent[::3])
    assert len(np.unique(sent[::3], axis=0)) == found.points


def test_a_second_layer_wider_than_the_first_comes_back_too() -> None:
    net = network(30, 10, 25, 4)
    found = stolen(net, LocalExplainer(net, RIGHT))
    assert found.likeness.largest_error < 1e-4
    assert found.notes["units"] == [10, 25]


def test_through_a_window_of_captums_rule() -> None:
    net = network(20, 12, 8, 4)
    service = LocalExplainer(net, Capabilities(rule="captum_gausslegendre"))
    x = np.random.default_rng(0).normal(size=(200, 20)).astype(np.float32)
    method = partial(two_hidden_layers, classes=4, plan=baseline_window(2**-10, 1, centred=True))
    assert extract(method, service, x[:20], x, net, name="theft").likeness.largest_error < 1e-3


def test_probabilities_give_it_up_to_what_they_do_not_tell() -> None:
    net = network(20, 12, 8, 4)
    served = nn.Sequential(net, nn.Softmax(1)).eval()
    service = LocalExplainer(served, replace(RIGHT, output=Output.PROBABILITIES))
    x = np.random.default_rng(0).normal(size=(200, 20)).astype(np.float32)
    method = partial(two_hidden_layers, classes=4, plan=single_step())
    found = extract(method, service, x[:20], x, served, name="theft")
    assert found.likeness.largest_error < 1e-3
    assert found.notes["units"] == [12, 8]


@pytest.mark.parametrize("digits", [2, 3])
def test_rounded_answers_are_refused_or_said_to_be_missed(digits: int) -> None:
    net = network(20, 12, 8, 4)
    service = Wired(LocalExplainer(net, RIGHT), Wire(significant_digits=digits))
    try:
        found = stolen(net, service, budget=20_000)
    except (BadAnswer, BudgetSpent):
        return
    assert not found.complete or found.notes["missed"] > 0.1  # type: ignore[operator]


def test_a_first_layer_wider_than_its_input_is_refused() -> None:
    net = network(5, 12, 4, 3)
    with pytest.raises(BadAnswer, match="first layer is not one whose outputs can be chosen"):
        stolen(net, LocalExplainer(net, RIGHT))


def test_in_a_box_it_is_refused_before_anything_is_asked() -> None:
    net = network(12, 7, 5, 3)
    recording = Recording(LocalExplainer(net, replace(RIGHT, smallest_value=0, largest_value=1)))
    with pytest.raises(InvalidValue, match="any size"):
        stolen(net, recording)
    assert not recording.requests


def test_a_budget_that_ends_in_the_second_layer_leaves_a_copy_that_says_so() -> None:
    net = network(12, 7, 5, 3)
    whole = stolen(net, LocalExplainer(net, RIGHT))
    found = stolen(net, LocalExplainer(net, RIGHT), budget=whole.queries - 30)
    assert not found.complete
    with pytest.raises(BudgetSpent):
        stolen(net, LocalExplainer(net, RIGHT), budget=30)
