from pathlib import Path

import pytest
import torch

from disintegrate import DamagedFile, UnknownName
from disintegrate.models.weights import read_tensors
from disintegrate.paper import mnist, training
from disintegrate.paper.store import Recipe, digest, load_trained, load_weights
from disintegrate.progress import Task

RECIPE = Recipe(network="TwoLayerNet", epochs=3, learning_rate=1e-2, batch_size=64)


class Stop(Exception):
    pass


class Counting:
    """A progress that counts batches, and stops the training at one of them."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.batches, self.stop_at = 0, stop_at

    def task(self, description: str, total: int) -> Task:
        return self

    def advance(self, amount: int = 1, note: str = "") -> None:
        if note:
            self.batches += 1
            if self.batches == self.stop_at:
                raise Stop


@pytest.fixture
def digits(small_data: Path) -> tuple[mnist.Digits, mnist.Digits]:
    return mnist.load("train", small_data), mnist.load("test", small_data)


def test_a_training_learns_and_leaves_a_record(digits: tuple[mnist.Digits, mnist.Digits], tmp_path: Path) -> None:
    trained = training.train(RECIPE, *digits, tmp_path)
    record = trained.record
    assert record.accuracy > 0.9
    assert record.losses[-1] < record.losses[0]
    assert record.data_sha256 == digits[0].sha256
    assert not trained.model.training
    correct = 0
    for image, label in zip(digits[1].normalised(), digits[1].labels, strict=True):
        correct += int(trained.model(torch.from_numpy(image[None])).argmax()) == label
    assert record.accuracy == correct / len(digits[1])
    assert sorted(path.suffix for path in tmp_path.glob("TwoLayerNet*")) == [".json", ".safetensors"]


def test_no_model_is_trained_twice(digits: tuple[mnist.Digits, mnist.Digits], tmp_path: Path) -> None:
    first = training.train(RECIPE, *digits, tmp_path)
    counting = Counting()
    again = training.train(RECIPE, *digits, tmp_path, progress=counting)
    assert counting.batches == 0
    assert again.record == first.record
    other = training.train(RECIPE.model_copy(update={"seed": 1}), *digits, tmp_path, progress=counting)
    assert counting.batches == 30
    assert other.record.weights_sha256 != first.record.weights_sha256


@pytest.mark.parametrize(("stop_at", "left"), [(3, 30), (14, 20), (29, 10)])
def test_an_interrupted_training_loses_at_most_one_epoch_and_ends_in_the_same_weights(
    digits: tuple[mnist.Digits, mnist.Digits], tmp_path: Path, stop_at: int, left: int
) -> None:
    undisturbed = training.train(RECIPE, *digits, tmp_path / "undisturbed")
    with pytest.raises(Stop):
        training.train(RECIPE, *digits, tmp_path / "stopped", progress=Counting(stop_at))
    counting = Counting()
    resumed = training.train(RECIPE, *digits, tmp_path / "stopped", progress=counting)
    assert counting.batches == left
    assert resumed.record.weights_sha256 == undisturbed.record.weights_sha256
    assert resumed.record.losses == undisturbed.record.losses
    assert not list((tmp_path / "stopped").glob("*unfinished*"))


def test_batch_normalisation_survives_an_interruption(
    digits: tuple[mnist.Digits, mnist.Digits], tmp_path: Path
) -> None:
    recipe = Recipe(network="ResNet18", epochs=2, learning_rate=1e-3, batch_size=32, training_images=64)
    undisturbed = training.train(recipe, *digits, tmp_path / "undisturbed")
    with pytest.raises(Stop):
        training.train(recipe, *digits, tmp_path / "stopped", progress=Counting(3))
    resumed = training.train(recipe, *digits, tmp_path / "stopped")
    assert resumed.record.weights_sha256 == undisturbed.record.weights_sha256


def test_a_recipe_and_its_data_make_the_name(digits: tuple[mnist.Digits, mnist.Digits]) -> None:
    names = {
        digest(recipe, data) for recipe in (RECIPE, RECIPE.model_copy(update={"epochs": 4})) for data in ("a", "b")
    }
    assert len(names) == 4


def test_weights_that_were_changed_are_noticed(digits: tuple[mnist.Digits, mnist.Digits], tmp_path: Path) -> None:
    training.train(RECIPE, *digits, tmp_path)
    other = training.train(RECIPE.model_copy(update={"seed": 1}), *digits, tmp_path / "other")
    key, other_key = digest(RECIPE, digits[0].sha256), digest(other.record.recipe, digits[0].sha256)
    (tmp_path / f"{key}.safetensors").write_bytes((tmp_path / "other" / f"{other_key}.safetensors").read_bytes())
    with pytest.raises(DamagedFile, match="not those of their record"):
        load_trained(tmp_path, key)


def test_weights_that_do_not_fit_or_are_no_safetensors_get_a_sentence(
    digits: tuple[mnist.Digits, mnist.Digits], tmp_path: Path
) -> None:
    training.train(RECIPE, *digits, tmp_path)
    path = tmp_path / f"{digest(RECIPE, digits[0].sha256)}.safetensors"
    with pytest.raises(DamagedFile, match="do not fit TwoLayerNet_nobias.*fc1.bias"):
        load_weights(path, "TwoLayerNet_nobias")
    pickled = tmp_path / "model.pt"
    torch.save({"weight": torch.ones(3)}, pickled)
    with pytest.raises(DamagedFile, match="not a safetensors file"):
        load_weights(pickled, "TwoLayerNet")
    with pytest.raises(UnknownName, match="no such file"):
        read_tensors(tmp_path / "nowhere.safetensors")


def test_a_damaged_record_and_a_damaged_epoch_get_a_sentence(
    digits: tuple[mnist.Digits, mnist.Digits], tmp_path: Path
) -> None:
    training.train(RECIPE, *digits, tmp_path)
    key = digest(RECIPE, digits[0].sha256)
    (tmp_path / f"{key}.json").write_text('{"recipe": 3}')
    with pytest.raises(DamagedFile, match="Delete it to train again"):
        load_trained(tmp_path, key)
    (tmp_path / f"{key}.json").unlink()
    (tmp_path / f"{key}.unfinished.safetensors").write_bytes((tmp_path / f"{key}.safetensors").read_bytes())
    with pytest.raises(DamagedFile, match="Delete it to start over"):
        training.train(RECIPE, *digits, tmp_path)


@pytest.mark.parametrize("quick", [True, False])
def test_every_network_has_a_recipe(quick: bool) -> None:
    for network in ("TwoLayerNet_nobias", "TwoLayerNet", "LeNet_nobias", "LeNet", "ResNet18"):
        found = training.recipe(network, seed=3, quick=quick)
        assert (found.network, found.seed) == (network, 3)
        assert (found.epochs == 1) == quick
