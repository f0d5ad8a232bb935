"""Training of the paper's networks: from a seed, resumable after every epoch, never twice."""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors.torch import save
from torch import Tensor, nn

from disintegrate.errors import DamagedFile
from disintegrate.files import write_atomically
from disintegrate.models.weights import read_tensors, weights_sha256
from disintegrate.paper.mnist import Digits
from disintegrate.paper.networks import build
from disintegrate.paper.store import (
    ModelRecord,
    Recipe,
    TrainedNetwork,
    digest,
    load_trained,
    store_trained,
)
from disintegrate.progress import SILENT, Progress
from disintegrate.versions import versions

ADAM_FIELDS = ("step", "exp_avg", "exp_avg_sq")


def recipe(network: str, *, seed: int = 0, quick: bool = False) -> Recipe:
    """The training that the reproduction uses for one network.

    Adam on the cross-entropy of the softmax, its rate falling from 1e-3 to 0 along a cosine. The paper does
    not say how it trained; these reach at least its accuracies.
    """
    if quick:
        images = {"LeNet": 20_000, "LeNet_nobias": 20_000, "ResNet18": 10_000}.get(network)
        return Recipe(network=network, epochs=1, learning_rate=1e-3, training_images=images, seed=seed)
    epochs = {"ResNet18": 8}.get(network, 4)
    return Recipe(network=network, epochs=epochs, learning_rate=1e-3, seed=seed)


def train(
    recipe: Recipe,
    training: Digits,
    test: Digits,
    folder: Path,
    *,
    device: str = "cpu",
    progress: Progress = SILENT,
) -> TrainedNetwork:
    """Train a network, or find it again where this recipe was trained on this data before.

    After every epoch all that the next one needs is stored; an epoch's order of images hangs on the seed and
    its number alone. A training that is killed and started again ends in the same weights.

    Args:
        recipe: what to train.
        training: the digits to train on; the recipe may take only the first of them.
        test: the digits to measure the accuracy on, once, at the end.
        folder: where trained networks are kept.
        device: where to compute, "cpu" or "cuda".
        progress: where to show bars.

    Raises:
        DamagedFile: a stored network, or a stored epoch, cannot be read.
    """
    digits = training if recipe.training_images is None else training.first(recipe.training_images)
    key = digest(recipe, digits.sha256)
    if (known := load_trained(folder, key)) is not None:
        return known
    images = torch.from_numpy(digits.normalised()).to(device)
    labels = torch.tensor(digits.labels, dtype=torch.long, device=device)
    model = build(recipe.network, recipe.seed).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate)
    unfinished = folder / f"{key}.unfinished.safetensors"
    losses, seconds = _restore(unfinished, model, optimizer)
    batches = math.ceil(len(digits) / recipe.batch_size)
    bar = progress.task(f"train {recipe.network} (seed {recipe.seed})", recipe.epochs * batches)
    bar.advance(len(losses) * batches)
    for epoch in range(len(losses), recipe.epochs):
        started = time.monotonic()
        order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(1_000_003 * recipe.seed + epoch))
        model.train()
        total = 0.0
        for batch, chosen in enumerate(order.split(recipe.batch_size)):
            done = (epoch * batches + batch) / (recipe.epochs * batches)
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
            loss = nn.functional.cross_entropy(model(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(chosen)
            bar.advance(1, f"loss {loss.item():.4f}")
        losses.append(total / len(digits))
        seconds += time.monotonic() - started
        _keep(unfinished, model, optimizer, losses, seconds)
    model = model.cpu().eval()
    record = ModelRecord(
        recipe=recipe,
        accuracy=accuracy(model, torch.from_numpy(test.normalised()), torch.tensor(test.labels, dtype=torch.long)),
        test_images=len(test),
        losses=tuple(losses),
        data_sha256=digits.sha256,
        weights_sha256=weights_sha256(model),
        versions=versions(),
        seconds=seconds,
    )
    trained = TrainedNetwork(model, record)
    store_trained(folder, key, trained)
    unfinished.unlink(missing_ok=True)
    return trained


@torch.no_grad()
def accuracy(model: nn.Module, images: Float[Tensor, "n 1 28 28"], labels: Int[Tensor, " n"]) -> float:
    """Share of images whose largest logit is that of the label."""
    predicted = torch.cat([model(part).argmax(1) for part in images.split(500)])
    return (predicted == labels).double().mean().item()


def _keep(path: Path, model: nn.Module, optimizer: torch.optim.Adam, losses: list[float], seconds: float) -> None:
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for index, parameter in enumerate(model.parameters()):
        state = optimizer.state[parameter]
        tensors |= {f"adam.{index}.{field}": state[field] for field in ADAM_FIELDS}
    content = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    content["losses"] = torch.tensor(losses, dtype=torch.float64)
    content["seconds"] = torch.tensor(seconds, dtype=torch.float64)
    write_atomically(path, save(content))


def _restore(path: Path, model: nn.Module, optimizer: torch.optim.Adam) -> tuple[list[float], float]:
    if not path.is_file():
        return [], 0.0
    tensors = read_tensors(path)
    try:
        model.load_state_dict({name: tensors[f"model.{name}"] for name in model.state_dict()})
        for index, parameter in enumerate(model.parameters()):
            state = {field: tensors[f"adam.{index}.{field}"] for field in ADAM_FIELDS}
            moved = {field: value.to(parameter.device) for field, value in state.items() if field != "step"}
            optimizer.state[parameter] = {"step": state["step"], **moved}
        return tensors["losses"].tolist(), tensors["seconds"].item()
    except (KeyError, RuntimeError) as error:
        raise DamagedFile(
            f"{path} is not an unfinished training of this network.",
            got=str(error)[:80],
            instead="Delete it to start over.",
        ) from None
