"""The cells of the tables, on small digits and an untrained network: which plans, which units, which figures."""

from pathlib import Path

import numpy as np
import pytest
import torch

from disintegrate import Capabilities, LocalExplainer, distance, summarise
from disintegrate.models.weights import weights_sha256
from disintegrate.paper import drawings, evidence, mnist
from disintegrate.paper.conditions import CONDITIONS, as_served, conditions_for
from disintegrate.paper.experiments import (
    ALPHA,
    ONE_QUERY,
    STEPS,
    TABLES,
    cells,
    measure,
    measure_cells,
    methods_for,
)
from disintegrate.paper.networks import build
from disintegrate.paper.records import claims
from disintegrate.paper.store import ModelRecord, Recipe, TrainedNetwork
from disintegrate.paper.units import Units
from tests import oracles


def untrained(network: str) -> TrainedNetwork:
    model = build(network).eval()
    recipe = Recipe(network=network, epochs=1, learning_rate=1e-3)
    record = ModelRecord(
        recipe=recipe,
        accuracy=0.1,
        test_images=60,
        losses=(2.3,),
        data_sha256="0",
        weights_sha256=weights_sha256(model),
        versions={},
        seconds=1.0,
    )
    return TrainedNetwork(model, record)


@pytest.fixture
def digits(small_data: Path) -> mnist.Digits:
    return mnist.load("test", small_data).first(3)


def test_the_tables_have_the_networks_and_settings_of_the_paper() -> None:
    printed = claims()
    for table, (_, networks) in TABLES.items():
        assert set(networks) == set(printed[table]) - {"what"}
    assert printed["settings"] == printed["settings"] | {"steps": STEPS, "alpha": ALPHA, "rule": "riemann_right"}
    assert methods_for("ResNet18") == {
        "explanation": "table_1", "step_count": "table_3", "shared_piece": "table_4",
        "single_step": "one_query", "baseline_window": "one_query", "narrow_window": "one_query",
    }  # fmt: skip
    assert set(methods_for("LeNet_nobias")) == {"explanation", "bias_free", *ONE_QUERY}


def test_a_cell_is_the_papers_distance_of_the_papers_formula(digits: mnist.Digits, tmp_path: Path) -> None:
    """Against the slow oracles, in float64, image by image."""
    one = untrained("TwoLayerNet")
    model = build("TwoLayerNet").double().eval()
    explainer = LocalExplainer(model, Capabilities(rule="riemann_right"))
    measured = measure(explainer, one, digits, ("explanation", "step_count", "shared_piece"), Units(tmp_path))
    for row, (image, label) in enumerate(zip(digits.normalised(), digits.labels, strict=True)):
        x, target = torch.from_numpy(image).double(), int(label)
        truth = oracles.gradient(model, x, target)
        slow = {
            "explanation": oracles.integrated(model, x, torch.zeros_like(x), target, 50),
            "step_count": oracles.equation_4(model, x, target, 50),
            "shared_piece": oracles.equation_3(model, x, target, 50, 0.98),
        }
        for method, value in slow.items():
            expected = distance(truth.numpy()[None], value.numpy()[None])[0]
            assert measured[f"{method}.distance"][row] == pytest.approx(expected, abs=1e-7)


def test_a_cell_carries_claim_measurement_and_provenance(digits: mnist.Digits, tmp_path: Path) -> None:
    one = untrained("LeNet")
    explainer = LocalExplainer(one.model, Capabilities(rule="riemann_right"))
    measured = measure_cells(explainer, one, digits, Units(tmp_path))
    found = {cell.method: cell for cell in cells(one, digits, measured)}
    cell = found["step_count"]
    assert cell.claimed is not None
    assert (cell.claimed.mean, cell.table) == (1.175e-2, "table_3")
    assert cell.measured == summarise(measured["step_count.distance"])
    assert cell.ratio == cell.measured.mean / 1.175e-2
    assert cell.agrees is False
    assert cell.provenance.data_sha256 == digits.sha256
    assert (cell.provenance.dtype, cell.measured.images) == ("float32", 3)
    assert found["single_step"].claimed is None
    assert found["single_step"].agrees is None
    assert found["single_step"].measured.mean < 1e-6
    assert found["narrow_window"].measured.mean < 1e-6


def test_a_unit_hangs_on_weights_digits_methods_and_condition(digits: mnist.Digits, tmp_path: Path) -> None:
    units = Units(tmp_path)
    one, other = untrained("TwoLayerNet"), untrained("TwoLayerNet_nobias")

    def run(trained: TrainedNetwork, some: mnist.Digits, method: str, condition: str = "as_served") -> int:
        measure(as_served(trained.model, "cpu"), trained, some, (method,), units, condition=condition)
        return len(list(tmp_path.glob("*.safetensors")))

    assert run(one, digits, "single_step") == 1
    assert run(one, digits, "single_step") == 1
    assert run(other, digits, "single_step") == 2
    assert run(one, digits.first(2), "single_step") == 3
    assert run(one, digits, "explanation") == 4
    assert run(one, digits, "single_step", "softmax") == 5
    wide = CONDITIONS["float64"].service(build("TwoLayerNet").eval(), "cpu")
    measure(wide, one, digits, ("single_step",), units)
    assert len(list(tmp_path.glob("*.safetensors"))) == 6


def test_the_conditions_do_what_they_say(digits: mnist.Digits) -> None:
    """Logits of each changed service against the plain model's."""
    plain = build("LeNet").double().eval()
    image = torch.from_numpy(digits.normalised()[:1])
    logits = plain(image.double())[0]

    def outputs(condition: str) -> torch.Tensor:
        service = CONDITIONS[condition].service(build("LeNet").eval(), "cpu")
        out: torch.Tensor = service.model(image.to(service.dtype))[0]
        return out.double()

    assert (outputs("float64") - logits).abs().max() < 1e-12
    assert 1e-9 < (outputs("as_served") - logits).abs().max() < 1e-5
    assert 1e-10 < (outputs("float64_model") - logits).abs().max() < 1e-6
    assert (outputs("float64_sums") - logits).abs().max() < 1e-12
    assert 1e-6 < (outputs("untied_float64") - logits).abs().max() < 1e-2
    assert 1e-9 < (outputs("random_last_digit") - logits).abs().max() < 1e-4
    assert (outputs("softmax_float64") - torch.softmax(logits, 0)).abs().max() < 1e-12
    assert (outputs("random_last_digit") == outputs("random_last_digit")).all()


def test_ties_and_softmax_are_looked_at_where_they_can_be() -> None:
    assert "random_last_digit" not in conditions_for("TwoLayerNet")
    assert "untied_float64" in conditions_for("LeNet")
    assert "untied_float64" not in conditions_for("LeNet_nobias")
    assert "softmax" in conditions_for("ResNet18")
    assert {"noisy_inputs", "noisy_inputs_float64"} <= set(conditions_for("LeNet_nobias"))
    for network in ("TwoLayerNet", "LeNet", "ResNet18"):
        assert set(conditions_for(network)) <= set(CONDITIONS)


def test_evidence_measures_the_papers_own_methods_under_each_condition(digits: mnist.Digits, tmp_path: Path) -> None:
    found = evidence.gather(untrained("TwoLayerNet"), digits.first(2), Units(tmp_path))
    pairs = {(record.condition, record.method) for record in found}
    own = {"explanation", "step_count", "shared_piece"}
    expected = {(condition, method) for condition in conditions_for("TwoLayerNet") for method in own}
    assert pairs == expected | {("steps_500", "shared_piece_fine")}
    dtypes = {record.condition: record.provenance.dtype for record in found}
    assert dtypes["float64"] == "float64"
    assert dtypes["float64_model"] == "float32"


def test_noisy_inputs_are_another_set_of_digits(digits: mnist.Digits, tmp_path: Path) -> None:
    one, units = untrained("LeNet"), Units(tmp_path)
    (noisy, *_), (plain, *_) = (
        evidence.gather_one(name, one, digits.first(1), units) for name in ("noisy_inputs", "as_served")
    )
    assert noisy.provenance.data_sha256 == digits.first(1).with_noise(1e-3).sha256
    assert plain.provenance.data_sha256 == digits.first(1).sha256
    assert noisy.measured != plain.measured


def test_other_lengths_of_training_are_measured_too(small_data: Path, tmp_path: Path) -> None:
    training, test = mnist.load("train", small_data), mnist.load("test", small_data)
    one = untrained("TwoLayerNet")
    found = evidence.gather_trainings(
        one, training, test, test.first(2), Units(tmp_path / "units"), tmp_path / "models"
    )
    assert {record.condition for record in found} == {"epochs_1", "epochs_16"}
    assert {record.provenance.epochs for record in found} == {1, 16}


def test_the_regions_of_figure_a1_are_the_papers_example() -> None:
    data = drawings.figure_a1().data
    first, second = (np.array(row) for row in drawings.HIDDEN_WEIGHTS)
    w1, w2 = drawings.OUTPUT_WEIGHTS
    expected = {(1, 1): w1 * first + w2 * second, (1, 0): w1 * first, (0, 1): w2 * second, (0, 0): 0 * first}
    for region in data["regions"]:
        np.testing.assert_allclose(region["gradient"], expected[tuple(region["pattern"])], atol=1e-12)


def test_figure_5_is_the_norm_of_the_gradient_along_the_ray(digits: mnist.Digits, tmp_path: Path) -> None:
    one = untrained("TwoLayerNet")
    data = drawings.figure_5({"TwoLayerNet": one}, digits.first(1), Units(tmp_path), "cpu").data
    low, middle, high = data["TwoLayerNet, logit"]
    x, target = torch.from_numpy(digits.normalised()[0]), int(digits.labels[0])
    for i in (1, 17, 50):
        expected = oracles.gradient(one.model, x * (i / 50), target).norm().item()
        assert middle[i - 1] == pytest.approx(expected, rel=1e-3)
        assert low[i - 1] == middle[i - 1] == high[i - 1]
