"""Inputs at a kink of the outputs, and those beside them."""

import numpy as np
import pytest
import torch
from torch import nn

from disintegrate import Capabilities, LocalExplainer, Verdict, Wire, Wired, audit
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
    service = Wired(LocalExplainer(pooling(), FREE), wire)
    for flat in (True, False):
        x = pictures(flat=flat)
        found = beside_kinks(service, x, TARGETS, 0 * x)
        # three digits may hide a kink, but rounding alone is not taken for one
        if not flat or wire != Wire(significant_digits=3):
            assert (found.moved_by > 0) is flat
        assert found.queries == 4 * 9
        if not found.moved_by:
            assert found.inputs is x
        else:
            size = MOVED * np.abs(x).reshape(6, -1).mean(1)
            change = (found.inputs - x).reshape(6, -1)
            np.testing.assert_allclose(change.std(1), size, rtol=0.2)
            np.testing.assert_allclose(found.moved_by, np.sqrt((size**2).mean()), rtol=0.1)


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
