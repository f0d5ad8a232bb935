"""The studies' own arithmetic, on small digits and untrained networks."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from disintegrate import distance
from disintegrate.paper import mnist
from disintegrate.paper.networks import build
from tests import oracles

ROOT = Path(__file__).parents[1]


def study(name: str, folder: str = "studies") -> ModuleType:
    found = importlib.util.spec_from_file_location(f"{folder}_{name}", ROOT / folder / f"{name}.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    # A dataclass looks its module up by name.
    sys.modules[found.name] = module
    found.loader.exec_module(module)
    return module


@pytest.fixture
def digits(small_data: Path) -> mnist.Digits:
    return mnist.load("test", small_data).first(3)


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_the_exact_direction_is_that_of_the_probabilitys_gradient(digits: mnist.Digits, scale: float) -> None:
    saturation, model = study("saturation"), build("LeNet").double().eval()
    exact = saturation.exact_logits(model, digits)
    labels = digits.labels.astype(np.int64)
    found = saturation.exact_direction(exact, labels, scale, softmax=True)
    softmaxed = nn.Sequential(saturation.Scaled(model, scale), nn.Softmax(dim=1))
    inputs = torch.from_numpy(digits.normalised()).double()
    slow = [oracles.gradient(softmaxed, x, int(label)).numpy() for x, label in zip(inputs, labels, strict=True)]
    assert distance(np.stack(slow), found).max() < 1e-10
    plain = saturation.exact_direction(exact, labels, scale, softmax=False)
    first = oracles.gradient(model, inputs[0], int(labels[0])).numpy()
    assert distance(first[None], plain[:1]).max() < 1e-10


def test_every_condition_is_measured_with_all_that_its_row_holds(digits: mnist.Digits) -> None:
    saturation, model = study("saturation"), build("TwoLayerNet").eval()
    exact = saturation.exact_logits(build("TwoLayerNet").double().eval(), digits)
    for name, condition in saturation.CONDITIONS.items():
        found = saturation.measure(condition, model, digits, exact)
        assert found["single_step"].max() < 1e-6
        assert ("norms" in found) is (condition.dtype == torch.float32)
        # An untrained network is unsure: softmax on or off, nothing is lost.
        assert found["own_gradient"].max() < (1e-5 if condition.change is not saturation.Untied else 0.1)
        assert ("logit_difference" in found) is (name in {f"probabilities_{scale}" for scale in (1, 2, 4, 8)})
        if "norms" in found:
            np.testing.assert_allclose(found["norms"][:, -1], found["norm"], rtol=1e-5)
        others = found["one_minus_p"]
        tolerance = 1e-5 if "last_digit" not in name and condition.change is not saturation.Untied else 1e-3
        np.testing.assert_allclose(found["one_minus_p_served"], others, atol=tolerance)


def test_norms_fall_from_where_they_peak() -> None:
    norms = np.array([[1.0, 10.0, 0.1], [1.0, 100.0, 1e-5], [1.0, 2.0, 0.0]])
    found = study("saturation").norms_of(norms)
    assert found.peak == 2
    assert found.orders_median == pytest.approx(4.5)
    assert found.orders_largest == pytest.approx(7)
    assert found.zero == pytest.approx(1 / 3)
    assert study("saturation").norms_of(np.array([[1.0, 0.0]])).orders_median is None


def test_the_trade_off_has_a_default_near_its_best_for_every_wire(digits: mnist.Digits) -> None:
    nudge = study("nudge")
    dark = mnist.Digits(digits.images * (digits.images > 100), digits.labels)
    found = nudge.trade_off(build("TwoLayerNet").eval(), dark, (2.0**-23, 1e-4, 1e-2, 0.5))
    assert 0.5 < found["dark_share"] < 1
    for name, wire in found["wires"].items():
        best = min(step["median"] for step in wire["steps"])
        assert wire["default"]["median"] < 3 * best + 1e-6, name


def test_the_recorded_defaults_are_near_the_best_steps() -> None:
    record = json.loads((ROOT / "results" / "nudge.json").read_text())
    for name, wire in record["wires"].items():
        best = min(step["median"] for step in wire["steps"])
        assert wire["default"]["median"] < 3 * best + 1e-6, name


def test_a_tie_is_settled_by_the_library_and_not_where_no_patches_are_equal(digits: mnist.Digits) -> None:
    """A constant background, so that max pooling ties; in float64 both plans are exact but for ties."""
    ties, model = study("ties"), build("LeNet").eval()
    dark = mnist.Digits(np.where(digits.images > 100, digits.images, 0).astype(np.uint8), digits.labels).first(2)
    before = torch.backends.mkldnn.enabled
    for name, backend in ties.BACKENDS.items():
        found = ties.measure(backend, model, dark)
        assert found["single_step"].max() < 1e-7, name
        if backend.dtype == torch.float64:
            assert found["untied"].max() < 1e-10, name
            assert found["noisy"].max() < 1e-10, name
    assert torch.backends.mkldnn.enabled == before


@pytest.mark.parametrize("network", ["TwoLayerNet", "LeNet"])
def test_the_exact_equation_3_is_theorem_3_3_and_the_parts_are_the_whole_error(
    digits: mnist.Digits, network: str
) -> None:
    """Noise on the inputs, so that nothing ties."""
    kinks, trained = study("kinks"), SimpleNamespace(model=build(network).eval())
    found = kinks.measure(trained, digits.first(1).with_noise(0.1), (0.98, 1 - 1e-9))
    assert found["exact"][1] < 1e-12 if found["without_kink"][1] else found["exact"][1] < 0.1
    assert found["kinks"] == 0 or not found["without_kink"][0]
    if found["without_kink"][0]:
        assert found["exact_distance"] < 1e-12
        assert found["nearest"][0] > 0.02
    assert found["exact"][0] == pytest.approx(found["exact_distance"])
    # Kinks, quadrature and rounding are parts of one difference, so none exceeds the others' sum with the whole.
    kink, quadrature, rounding = found["parts"]
    assert rounding < 0.02
    assert found["distance"][0] <= 2 * (kink + quadrature + rounding) + 1e-6


def test_rank_correlation_shares_ranks_among_equals() -> None:
    correlation = study("kinks").rank_correlation
    assert correlation(np.array([1.0, 2, 3]), np.array([10.0, 20, 30])) == pytest.approx(1)
    assert correlation(np.array([1.0, 2, 3]), np.array([9.0, 4, 1])) == pytest.approx(-1)
    assert correlation(np.array([1.0, 1, 2]), np.array([1.0, 2, 3])) == pytest.approx(np.sqrt(3) / 2)
    assert correlation(np.array([1.0, 1, 1]), np.array([1.0, 2, 3])) is None


def test_the_benchmarks_contestants_compute_the_same() -> None:
    benchmark = study("gradients", "benchmarks")
    torch.manual_seed(0)
    inputs, targets = torch.randn(3, 1, 28, 28), torch.tensor([1, 2, 3])
    subject = benchmark.Subject("TwoLayerNet", build("TwoLayerNet").eval(), inputs, targets)
    expected = benchmark.loop(subject, 10)()
    for contestant in (benchmark.ours(subject, 10), benchmark.captum(subject, 10), benchmark.captum(subject, 10, 7)):
        torch.testing.assert_close(contestant(), expected, rtol=1e-4, atol=1e-6)
    # Each weight is multiplied once forward and once backward.
    assert benchmark.flop_per_gradient(subject) == 2 * 2 * (784 * 100 + 100 * 10)
    assert benchmark.agreement(subject, 64)["float64_largest"] < 1e-12


def test_a_study_that_was_stopped_goes_on_behind_the_last_row(tmp_path: Path) -> None:
    kept, made = study("kept"), []

    def row(number: int) -> dict[str, int]:
        made.append(number)
        return {"number": number}

    work = [(f"row-{number}", lambda number=number: row(number)) for number in range(3)]
    assert kept.each_once(work[:1], tmp_path, 1e9, str) == [{"number": 0}]
    # out of time: what is there is read, and nothing is begun
    assert kept.each_once(work, tmp_path, -1.0, str) is None
    assert made == [0]
    assert kept.each_once(work, tmp_path, 1e9, str) == [{"number": number} for number in range(3)]
    assert made == [0, 1, 2]
