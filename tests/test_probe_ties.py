"""Max pooling that ties at the baseline: what sums close by say of the rule there."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from disintegrate import Capabilities, Deaf, LocalExplainer, probe
from disintegrate.probe.asking import Asker
from disintegrate.probe.far_out import agreeing_saturated
from disintegrate.probe.naming import WEIGHED
from disintegrate.probe.ray import Origin, Ray
from disintegrate.probe.result import Finding, NamedRule
from disintegrate.probe.staircase import Pattern, keeping, patterns
from disintegrate.probe.ties import agreeing_tied, borne_out
from disintegrate.progress import SILENT
from tests.test_probe import SIZE, TARGETS, inputs, rules_of

TIED = [("riemann_left", 30), ("saliency", 7), ("trapezoid", 12), ("captum_riemann_trapezoid", 20)]


@cache
def _network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Unflatten(1, (1, SIZE)), nn.Conv1d(1, 6, 5, padding=2), nn.MaxPool1d(2), nn.ReLU(), nn.Flatten(),
        nn.Linear(3 * SIZE, 4),
    )  # fmt: skip
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2)
    return nn.Sequential(network, nn.Softmax(1))


def _left(rule: str, steps: int, seed: int) -> tuple[tuple[Pattern, ...], tuple[Pattern, ...] | None]:
    """What is left by the gradient far out, and by sums close by."""
    service = LocalExplainer(_network(seed), Capabilities(rule=rule, default_steps=steps))
    asker = Asker(service, (SIZE,), np.dtype(np.float32), 60, SILENT.task("queries", 60))
    direction = np.random.default_rng(seed).choice((-1.0, 1.0), SIZE)
    near, out = (Ray(asker, Origin(np.zeros(SIZE), np.zeros(SIZE)), direction, 1, drifting=True) for _ in range(2))
    near.ask([1e-2, 2e-4])
    among = agreeing_saturated(near, out, patterns())
    asked = asker.spent
    left = agreeing_tied([near], out, among)
    assert asker.spent == asked
    return among, left


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("rule", "steps"), TIED)
def test_where_ties_hide_the_weight_of_the_baseline_sums_close_by_bound_it(rule: str, steps: int, seed: int) -> None:
    among, left = _left(rule, steps, seed)
    assert len(among) > WEIGHED
    assert left is not None
    assert any((rule, steps) in pattern.members for pattern in left)
    assert len(left) < len(among) / 2


@pytest.mark.parametrize("rule", ["riemann_right", "midpoint"])
def test_without_a_node_at_the_baseline_such_sums_say_nothing(rule: str) -> None:
    assert _left(rule, 9, 0)[1] is None


def test_behind_a_softmax_a_rule_is_named_where_max_pooling_ties() -> None:
    service = LocalExplainer(_network(1), Capabilities(rule="riemann_left", default_steps=30))
    found = probe(Deaf(service, steps=True, baseline=True), inputs(), TARGETS)
    assert ("riemann_left", 30) in rules_of(found), found.rules.evidence


@pytest.mark.parametrize(
    ("among", "kept"),
    [(("riemann_left", "saliency"), True), (("riemann_left", "trapezoid"), True), (("saliency",), False)],
)
def test_what_sums_name_is_taken_back_unless_sums_close_by_leave_it(among: tuple[str, ...], kept: bool) -> None:
    left = keeping(patterns(), lambda rule, steps: rule in among and steps == 30)
    named: Finding[tuple[NamedRule, ...]] = Finding((NamedRule("riemann_left", 30),), "sums")
    for coarse in (False, True):
        assert (borne_out(named, left, coarse=coarse).value is not None) == kept
        # where sums close by agree with none, or say nothing, it hangs on the wire
        assert (borne_out(named, None, coarse=coarse).value is None) == coarse
        assert (borne_out(named, (), coarse=coarse).value is None) == coarse
