"""Trained networks on disk: safetensors with the recipe, the accuracy and checksums in JSON beside them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.torch import save
from torch import nn

from disintegrate.errors import DamagedFile
from disintegrate.files import write_atomically
from disintegrate.models.weights import fitted, read_tensors, tensors_of, weights_sha256
from disintegrate.paper.networks import build


class Recipe(BaseModel):
    """All that a training hangs on, but the data: whoever has both gets the same weights."""

    model_config = ConfigDict(frozen=True)

    network: str
    epochs: int
    learning_rate: float
    batch_size: int = 128
    training_images: int | None = None
    seed: int = 0


class ModelRecord(BaseModel):
    """What is known of one trained network; stands beside its weights as JSON."""

    model_config = ConfigDict(frozen=True)

    recipe: Recipe
    accuracy: float
    test_images: int
    losses: tuple[float, ...]
    data_sha256: str
    weights_sha256: str
    versions: dict[str, str]
    seconds: float


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A network in eval mode with the record of its training."""

    model: nn.Module
    record: ModelRecord


def digest(recipe: Recipe, data_sha256: str) -> str:
    """Name under which a recipe on given data is found again."""
    text = recipe.model_dump_json() + data_sha256
    return f"{recipe.network}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def load_weights(path: Path, network: str) -> nn.Module:
    """Read weights into a named network.

    Raises:
        UnknownName: the file does not exist.
        DamagedFile: the file is not safetensors, or its tensors are not those of the network.
    """
    return fitted(build(network), read_tensors(path), path, network)


def load_trained(folder: Path, key: str) -> TrainedNetwork | None:
    """Find a trained network by its key; None where it was never trained to the end.

    Raises:
        DamagedFile: it is there, and its record or its weights are not what was stored.
    """
    record_path, weights_path = folder / f"{key}.json", folder / f"{key}.safetensors"
    if not record_path.is_file():
        return None
    try:
        record = ModelRecord.model_validate_json(record_path.read_text())
    except ValidationError as error:
        raise DamagedFile(
            f"The record {record_path} cannot be read.",
            got=error.errors()[0]["msg"],
            instead="Delete it to train again.",
        ) from None
    try:
        model = load_weights(weights_path, record.recipe.network)
    except DamagedFile as error:
        delete = f"Delete it and {record_path.name} to train again."
        raise DamagedFile(error.problem, got=error.got, instead=delete) from None
    if weights_sha256(model) != record.weights_sha256:
        raise DamagedFile(
            f"The weights {weights_path} are not those of their record.",
            got="another checksum",
            instead="Delete both files to train again.",
        )
    return TrainedNetwork(model, record)


def store_trained(folder: Path, key: str, trained: TrainedNetwork) -> None:
    """Write weights first and the record last, so that a record always has its weights."""
    write_atomically(folder / f"{key}.safetensors", save(tensors_of(trained.model)))
    write_atomically(folder / f"{key}.json", (trained.record.model_dump_json(indent=2) + "\n").encode())
