"""Inputs at a kink of the outputs, and those beside them."""

import numpy as np
import pytest
import torch
from torch import nn

from disintegrate import Capabilities, LocalExplainer, Output, Recording, Verdict, Wire, Wired, audit
from disintegrate.audit.ties import MOVED, beside_kinks

FREE = Capabilities("midpoint", 1, 100, baseline=False, dtype="float32")


def pooling() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 5 * 5, 20),
        nn.ReLU(),
        nn.Linear(20, 3),
    ).eval()


def pictures(*, flat: bool) -> np.ndarray:
    """Pictures with a constant background, where max pooling ties, or without."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(6, 1, 12, 12))
    if flat:
        x[:, :, :, 4:] = 0.7
    return x.astype(np.float32)


TARGETS = np.array([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize("wire", [Wire(), Wire(significant_digits=6), Wire(significant_digits=3)])
def test_inputs_are_moved_off_ties_and_only_off_ties(wire: Wire) -> None:
    service = Recording(Wired(LocalExplainer(pooling(), FREE), wire))
    for flat in (True, False):
        x = pictures(flat=flat)
        found = beside_kinks(service, x, TARGETS, 0 * x)
        # three digits may hide a kink, but rounding alone is not taken for one
        if not flat or wire != Wire(significant_digits=3):
            assert (found.moved_by > 0) is flat
        # the point and four pairs at each of four inputs, the pairs again where the first length was far off
        assert found.queries in (4 * 9, 4 * 17)
        assert found.queries == sum(len(request.inputs) for request in service.requests)
        service.requests.clear()
        if not found.moved_by:
            assert found.inputs is x
        else:
            size = MOVED * np.abs(x).reshape(6, -1).mean(1)
            change = (found.inputs - x).reshape(6, -1)
            np.testing.assert_allclose(change.std(1), size, rtol=0.2)
            np.testing.assert_allclose(found.moved_by, np.sqrt((size**2).mean()), rtol=0.1)


def behind_softmax(steepness: float) -> nn.Module:
    """Pooling behind a softmax, the more saturated the steeper it is."""
    model = pooling()
    last = nn.Linear(3, 3, bias=False)
    with torch.no_grad():
        last.weight.copy_(steepness * torch.eye(3))
    return nn.Sequential(model, last, nn.Softmax(1)).eval().requires_grad_(False)


@pytest.mark.parametrize("steepness", [1.0, 200.0])
def test_ties_are_seen_behind_a_softmax_however_saturated(steepness: float) -> None:
    model = behind_softmax(steepness)
    allowed = Capabilities("midpoint", 1, 100, baseline=False, dtype="float32", output=Output.PROBABILITIES)
    for flat in (True, False):
        x = pictures(flat=flat)
        outputs = model(torch.tensor(x))
        targets = outputs.argmax(1).numpy()
        assert (float(outputs.max(1).values.median()) > 0.9999) is (steepness > 1)
        service = Recording(LocalExplainer(model, allowed))
        found = beside_kinks(service, x, targets, 0 * x)
        assert (found.moved_by > 0) is flat
        assert found.queries == sum(len(request.inputs) for request in service.requests)


def test_plans_are_tried_beside_the_ties_and_kinks_are_looked_for_once() -> None:
    x, service = pictures(flat=True), Recording(LocalExplainer(pooling(), FREE))
    found = audit(service, x, TARGETS, probing=8)
    assert found.choice is not None, "so short a probe leaves the rule open"
    assert found.moved_by > 0
    assert found.choice.tried[0].distance < 0.1
    asked = [request.inputs[:4] for request in service.requests if len(request.inputs) == 4]
    assert sum(np.array_equal(each, x[:4]) for each in asked) == 1


def test_coordinates_at_the_baseline_stay_and_bounds_are_kept() -> None:
    x = pictures(flat=True)
    x[:, :, :2] = 0.25
    starts = np.full_like(x, 0.25)
    allowed = Capabilities("midpoint", 1, 100, baseline=False, zero_baseline=False, dtype="float32",
                           smallest_value=float(x.min()), largest_value=float(x.max()))  # fmt: skip
    service = LocalExplainer(pooling(), allowed, own_baseline=starts[0])
    found = beside_kinks(service, x, TARGETS, starts)
    assert found.moved_by > 0
    assert (found.inputs[x == starts] == 0.25).all()
    assert found.inputs.min() >= x.min()
    assert found.inputs.max() <= x.max()


def test_a_leak_through_ties_is_seen_by_outputs_as_well_as_by_the_model() -> None:
    x, model = pictures(flat=True), pooling()
    by_outputs = audit(LocalExplainer(model, FREE), x, TARGETS)
    assert by_outputs.moved_by > 0
    assert "kink at the inputs themselves" in by_outputs.notes[0]
    assert by_outputs.judgement.verdict is Verdict.LEAKS
    assert by_outputs.judgement.median_distance < 0.05
    assert by_outputs.record()["moved_by"] == by_outputs.moved_by
    with_model = audit(LocalExplainer(model, FREE), x, TARGETS, model=model)
    assert with_model.moved_by == 0
    assert with_model.judgement.verdict is Verdict.LEAKS
