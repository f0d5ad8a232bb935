"""What two answers close to the baseline say: where rays begin, and where their first kink lies beyond them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from disintegrate import Capabilities, Deaf, LocalExplainer, Recording, Wire, Wired, probe
from disintegrate.probe import Finding, Override
from disintegrate.probe.asking import Asker
from disintegrate.probe.close_by import put_right, righted, stray
from disintegrate.probe.closing_in import close_in
from disintegrate.probe.findings import Findings
from disintegrate.probe.first_kink import WITHIN, kink_beyond
from disintegrate.probe.naming import Naming
from disintegrate.probe.own_number import OwnNumber
from disintegrate.probe.patch import PATCH, PATCH_SOFTMAX
from disintegrate.probe.ray import Origin, Ray
from disintegrate.probe.result import Baseline
from disintegrate.probe.weighing import sums_of
from disintegrate.progress import SILENT

SIZE, HIDDEN = 30, 40


def _network(seed: int, hidden: int = HIDDEN) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(SIZE, hidden), nn.ReLU(), nn.Linear(hidden, 3))


def _asker(model: nn.Module, baseline: np.ndarray, wire: Wire | None = None, budget: int = 200) -> Asker:
    service = LocalExplainer(model, Capabilities(rule="midpoint", default_steps=40), own_baseline=baseline)
    explainer = service if wire is None else Wired(service, wire)
    return Asker(explainer, baseline.shape, np.dtype(np.float32), budget, SILENT.task("queries", budget))


def _ray(seed: int, off: dict[int, float], hidden: int = HIDDEN) -> tuple[Ray, np.ndarray]:
    """A ray from a point that lies off the baseline in some coordinates, and the baseline."""
    generator = np.random.default_rng(seed)
    baseline = generator.normal(size=SIZE).astype(np.float32)
    asker = _asker(_network(seed, hidden), baseline)
    begin = baseline.astype(float)
    for coordinate, by in off.items():
        begin[coordinate] += by
    return Ray(asker, Origin(begin, np.full(SIZE, 1e-7)), generator.normal(size=SIZE), 0), baseline


@pytest.mark.parametrize("off", [{3: 0.03}, {3: 0.03, 7: -0.1, 20: 0.02}])
def test_a_few_coordinates_in_which_the_origin_is_off_are_put_right(off: dict[int, float]) -> None:
    ray, baseline = _ray(1, off)
    ray.ask([1e-3, 4e-3])
    found = righted(ray)
    assert (np.abs(found.point - baseline)[list(off)] <= found.error[list(off)] + 1e-5).all()
    rest = np.setdiff1d(np.arange(SIZE), list(off))
    assert (found.point[rest] == ray.origin.point[rest]).all()
    gradients = np.array(ray.raw) / (np.array(ray.moved))
    ray.begins_at(found)
    assert not np.allclose(gradients[0, list(off)], gradients[1, list(off)], rtol=1e-2)
    gradients = np.array(ray.raw) / np.array(ray.moved)
    assert np.allclose(gradients[0], gradients[1], rtol=1e-2)


def test_the_baseline_that_is_reported_is_put_right_too() -> None:
    off = {3: 0.03, 7: -0.1}
    ray, baseline = _ray(1, off)
    findings = Findings()
    put_right(ray, findings)
    assert findings.result.baseline.value is None
    claimed = Baseline("another", ray.origin.point.reshape(5, 6), np.full((5, 6), 0.01))
    findings.add(baseline=Finding(claimed, "solved for"))
    ray.ask([1e-3, 4e-3])
    put_right(ray, findings)
    found = findings.result.baseline
    assert found.value is not None
    assert found.value.point.shape == (5, 6)
    gap = np.abs(found.value.point.ravel() - baseline)
    assert (gap <= found.value.error.ravel()).all()
    assert (found.value.error >= 0.01).all()
    assert "put right in 2" in found.evidence
    assert (found.value.point.ravel() == ray.origin.point).all()


def test_the_gradient_close_by_is_not_asked_for_twice() -> None:
    ray, _ = _ray(1, {})
    first = stray(ray, 1.0)
    spent = ray.asker.spent
    assert stray(ray, 1.0) == first
    assert ray.asker.spent == spent == 2


def test_where_the_gradient_itself_changes_the_origin_stays() -> None:
    # so many coordinates off look like a kink between the two answers
    ray, _ = _ray(2, dict.fromkeys(range(12), 0.03))
    ray.ask([1e-3, 4e-3])
    assert righted(ray) is ray.origin
    lonely, _ = _ray(2, {3: 0.03})
    lonely.ask([1e-3])
    assert righted(lonely) is lonely.origin


def _staggered(kinks: dict[float, float]) -> nn.Sequential:
    """A model whose gradient along the first coordinate jumps by so much at each place, seen in a coordinate each."""
    units, output = nn.Linear(SIZE, len(kinks)), nn.Linear(len(kinks) + SIZE, 1, bias=False)
    with torch.no_grad():
        units.weight.zero_()
        for row, (place, jump) in enumerate(kinks.items()):
            units.weight[row, 0], units.weight[row, row + 1], units.bias[row] = 1.0, 0.5, -place
            output.weight[0, row] = jump
        output.weight[0, len(kinks) :] = 1.0

    class Beside(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = output(torch.cat([torch.relu(units(x)), x], 1))
            return made

    return nn.Sequential(Beside())


@pytest.mark.parametrize("place", [1e-4, 2e-3, 6e-3, 0.05, 0.3, 2.0])
def test_the_first_kink_beyond_two_answers_is_found_by_halving(place: float) -> None:
    baseline = np.zeros(SIZE, np.float32)
    asker = _asker(_staggered({place: 1.0, 3 * place: 1.0}), baseline)
    asker.learn_wire()
    ray = Ray(asker, Origin(np.zeros(SIZE), np.zeros(SIZE)), np.eye(SIZE)[0] + 1e-3, 0)
    ray.ask([2e-4, 1e-2])
    bracket = kink_beyond(ray)
    assert bracket is not None
    # the last node of midpoint(40) lies at 79 / 80
    assert bracket.low <= place / (79 / 80) * (1 + 1e-2)
    assert bracket.high >= place
    assert bracket.high <= 1.5 * place
    assert bracket.high <= WITHIN * bracket.low
    # two close by, one or two further out or nearer, and as many halvings as the stretch between asks for
    assert asker.spent <= (9 if place > 1e-3 else 14)


def test_a_kink_that_is_faint_beside_those_further_out_is_passed_over() -> None:
    baseline = np.zeros(SIZE, np.float32)
    asker = _asker(_staggered({1e-3: 1e-4, 4e-3: 1.0}), baseline)
    asker.learn_wire()
    ray = Ray(asker, Origin(np.zeros(SIZE), np.zeros(SIZE)), np.eye(SIZE)[0] + 1e-3, 0)
    ray.ask([2e-4, 1e-2])
    bracket = kink_beyond(ray)
    assert bracket is not None
    assert bracket.low < 4e-3 * 1.1 < 1.5 * bracket.high
    assert bracket.low > 2e-3


def test_under_few_digits_a_kink_must_stand_out_of_their_noise() -> None:
    model = _staggered({3e-3: 0.15, 0.1: 1.0})
    found = {}
    for wire in (Wire(significant_digits=3), Wire()):
        asker = _asker(model, np.zeros(SIZE, np.float32), wire)
        asker.wire = wire
        ray = Ray(asker, Origin(np.zeros(SIZE), np.zeros(SIZE)), np.eye(SIZE)[0] + 1e-3, 0)
        ray.ask([2e-4, 1e-2])
        bracket = kink_beyond(ray)
        assert bracket is not None
        found[wire.significant_digits] = bracket.middle
    assert found[3] > 0.08
    assert found[None] < 4e-3


def test_where_all_units_are_silent_at_the_baseline_the_rule_is_found_by_the_first_that_is_not() -> None:
    torch.manual_seed(8)
    units, output = nn.Linear(SIZE, HIDDEN), nn.Linear(HIDDEN, 3)
    with torch.no_grad():
        units.bias.copy_(-1 - torch.rand(HIDDEN))
        output.bias.copy_(torch.tensor([-3.0, 2.0, 4.0]))
    network = nn.Sequential(units, nn.ReLU(), output)
    service = LocalExplainer(network, Capabilities(rule="midpoint", default_steps=6))
    x = 3 * np.random.default_rng(8).normal(size=(3, SIZE)).astype(np.float32)
    wired = Wired(service, Wire(significant_digits=6))
    found = probe(Deaf(wired, steps=True, baseline=True), x, np.array([0, 1, 2]))
    assert found.rules.value is not None, found.rules.evidence
    assert ("midpoint", 6) in {(named.rule, named.steps) for named in found.rules.value}


def test_what_a_coordinate_answers_that_is_not_moved_is_no_part_of_a_sum() -> None:
    ray, _ = _ray(4, {5: 0.05}, hidden=4)
    ray.direction = np.where(np.arange(SIZE) < 4, 1.0, 0.0)
    ray.ask([1e-3, 2e-3])
    sums = sums_of(ray, 0.0)
    raw = np.array(ray.raw)
    assert abs(raw[0, 5]) > abs(raw[0, :4].sum())
    assert np.allclose(sums.total, raw[:, :4].sum(1), atol=1e-4 * np.abs(raw[:, 5]).max())
    # and it is not claimed to be so exact then
    ray.raw = [np.where(np.arange(SIZE) == 5, 0.0, row) for row in ray.raw]
    assert (sums.total_deviation > sums_of(ray, 0.0).total_deviation).all()


def test_under_a_coarse_wire_small_gradients_are_asked_further_from_where_they_vanish() -> None:
    generator = np.random.default_rng(5)
    baseline = generator.normal(size=SIZE).astype(np.float32)
    model = nn.Linear(SIZE, 1, bias=False)
    with torch.no_grad():
        # half of the gradients are so small that float16 carries none of their answers close by
        model.weight.copy_(torch.tensor(np.where(np.arange(SIZE) % 2, 1.0, 2e-4))[None])
    service = LocalExplainer(model, Capabilities(rule="midpoint", default_steps=4), own_baseline=baseline)
    recording = Recording(Wired(service, Wire(dtype="float16")))
    asker = Asker(recording, (SIZE,), np.dtype(np.float32), 40, SILENT.task("queries", 40))
    asker.ask(generator.normal(size=(1, SIZE)), 0)
    asker.learn_wire()
    guess = baseline + 1e-4 * generator.normal(size=SIZE)
    found = close_in(asker, 0, guess, 1.0, generator.choice((-1.0, 1.0), SIZE))
    assert found is not None
    assert (np.abs(found.point - baseline) <= found.error).all()
    widths = np.ptp(
        np.array([np.asarray(request.inputs).reshape(-1, SIZE) for request in recording.requests[2:3]])[0], 0
    )
    assert widths[::2].min() > 4 * widths[1::2].max()
    assert np.median(found.error[1::2]) < 1e-3


def test_a_ray_that_begins_elsewhere_than_was_thought_still_asks_the_points_that_it_asked() -> None:
    generator = np.random.default_rng(6)
    baseline = generator.normal(size=SIZE).astype(np.float32)
    service = LocalExplainer(_network(6), Capabilities(rule="midpoint", default_steps=40), own_baseline=baseline)
    asker = Asker(
        Deaf(service, steps=True, baseline=True), (SIZE,), np.dtype(np.float32), 40, SILENT.task("queries", 40)
    )
    ray = Ray(asker, Origin(baseline.astype(float) + 0.3, np.full(SIZE, 1e-7)), 0.3 * generator.normal(size=SIZE), 0)
    ray.ask([0.5, 2.0])
    ray.begins_at(Origin(baseline.astype(float), np.full(SIZE, 1e-7)))
    findings = Findings()
    findings.add(steps_override=Finding(None, "steps [3, 7] got the answer without a number"))
    own = OwnNumber(asker, baseline[None].astype(float), 0, lambda answer: False, honoured=False)
    naming = Naming(
        asker, baseline[None].astype(float), np.zeros(1, int), 0, 1.0, generator, findings, own, few_steps=False
    )
    naming._steps_ignored(ray)
    assert asker.spent == 3
    assert findings.result.steps_override.value is Override.IGNORED


def test_an_image_is_asked_in_a_small_patch_unless_a_softmax_hides_its_kinks() -> None:
    generator = np.random.default_rng(7)
    torch.manual_seed(7)
    last = nn.Linear(30, 10)
    logits = nn.Sequential(nn.Flatten(), nn.Linear(784, 30), nn.ReLU(), last)
    with torch.no_grad():
        last.bias.copy_(torch.arange(10) - 4.5)
    images = generator.normal(size=(2, 1, 28, 28)).astype(np.float32)
    for model, side in ((logits, PATCH), (nn.Sequential(logits, nn.Softmax(1)), PATCH_SOFTMAX)):
        recording = Recording(LocalExplainer(model, Capabilities(rule="midpoint", default_steps=9)))
        probe(Deaf(recording, steps=True, baseline=True), images, np.array([0, 1]), budget=14)
        moved = np.argwhere(np.asarray(recording.requests[-1].inputs)[-1, 0] != 0)
        assert (np.ptp(moved, 0) + 1).tolist() == [side, side]
