"""Is it depth? ResNet18 at several lengths of training, with a softmax and without: `python studies/saturation.py`.

It writes results/saturation.json, which the page of results/reproduction shows. A training that
results/reproduction/models lacks is trained first. Stopped at any moment it goes on behind the last block of images.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from rich.console import Console
from rich.progress import MofNCompleteColumn, TaskID, TimeRemainingColumn
from rich.progress import Progress as Bars
from torch import Tensor, nn

from disintegrate import (
    LocalExplainer,
    Output,
    Remembering,
    distance,
    recover,
    recover_logits,
    shared_piece,
    single_step,
    step_count,
    summarise,
    vanilla_gradient,
)
from disintegrate.paper import mnist
from disintegrate.paper.conditions import SERVICE, Untied, random_last_digit
from disintegrate.paper.experiments import ALPHA, STEPS, explanation_of, true_gradient
from disintegrate.paper.mnist import CLASSES, Digits
from disintegrate.paper.saturation import NormsAlongRay, Saturation, SaturationRow, load_saturation, store_saturation
from disintegrate.paper.store import ModelRecord, TrainedNetwork
from disintegrate.paper.training import recipe, train
from disintegrate.paper.units import Arrays, Units
from disintegrate.progress import SILENT, Progress, Task
from disintegrate.versions import versions

RESULTS = Path(__file__).parents[1] / "results"
NETWORK, EPOCHS, SCALES, IMAGES, IMAGES_PER_UNIT = "ResNet18", (2, 4, 8, 16), (1, 2, 4), 60, 20

SUMMARISED = ("table_1", "table_3", "table_4", "single_step", "table_3_to_exact", "single_step_to_exact",
              "logit_difference", "own_gradient")  # fmt: skip


class Scaled(nn.Module):
    """The logits times a number: as if the network were more certain."""

    def __init__(self, model: nn.Module, scale: float) -> None:
        super().__init__()
        self.model = model
        self.scale = scale

    def forward(self, inputs: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        """Multiply."""
        outputs: Tensor = self.model(inputs) * self.scale
        return outputs


def as_it_is(model: nn.Module) -> nn.Module:
    """No change."""
    return model


@dataclass(frozen=True)
class Condition:
    """What the service explains: the network's logits changed in one thing, and what stands behind them."""

    last: nn.Module
    scale: float = 1.0
    change: Callable[[nn.Module], nn.Module] = as_it_is
    dtype: torch.dtype = torch.float32
    images: int = IMAGES

    def service(self, model: nn.Module) -> LocalExplainer:
        """The service in its own arithmetic."""
        whole = nn.Sequential(Scaled(self.change(deepcopy(model)), self.scale), self.last).to(self.dtype)
        return LocalExplainer(whole, SERVICE, dtype=self.dtype)

    @property
    def undisturbed(self) -> str:
        """The condition whose float64 logits are the exact ones: nothing is disturbed at random there."""
        return "untied" if self.change is Untied else "logits"


CHANGES: dict[str, Callable[[nn.Module], nn.Module]] = {"logits": as_it_is, "untied": Untied}
LOGITS, PROBABILITIES = nn.Identity(), nn.Softmax(dim=1)
CONDITIONS: dict[str, Condition] = {
    "logits": Condition(LOGITS),
    **{f"probabilities_{scale}": Condition(PROBABILITIES, scale) for scale in SCALES},
    # Arithmetic on numbers that underflow is ten times as slow.
    "probabilities_8": Condition(PROBABILITIES, 8, images=IMAGES_PER_UNIT),
    "log_probabilities": Condition(nn.LogSoftmax(dim=1)),
    "probabilities_untied": Condition(PROBABILITIES, change=Untied),
    "logits_last_digit": Condition(LOGITS, change=random_last_digit),
    "probabilities_last_digit": Condition(PROBABILITIES, change=random_last_digit),
    "probabilities_float64": Condition(PROBABILITIES, dtype=torch.float64),
}


def main() -> None:
    """Measure what is missing, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, nargs="+", default=EPOCHS)
    asked = parser.parse_args()
    with Bars(*Bars.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn(),
              console=Console(stderr=True)) as bars:  # fmt: skip
        record = study(tuple(asked.epochs), IMAGES, RESULTS, progress=Shown(bars))
    known = load_saturation(RESULTS / "saturation.json") if set(asked.epochs) != set(EPOCHS) else None
    kept = [row for row in known.rows if row.epochs not in asked.epochs] if known and known.images == IMAGES else []
    rows = tuple(sorted((*kept, *record.rows), key=lambda row: (row.epochs, list(CONDITIONS).index(row.condition))))
    lengths = " ".join(str(length) for length in sorted({row.epochs for row in rows}))
    command = f"python studies/saturation.py --epochs {lengths}"
    store_saturation(RESULTS / "saturation.json", record.model_copy(update={"rows": rows, "command": command}))


def study(epochs: tuple[int, ...], images: int, results: Path, *, progress: Progress = SILENT) -> Saturation:
    """Measure the first test images on the network trained for so many epochs, under every condition."""
    training, test = mnist.load("train"), mnist.load("test")
    digits, units = test.first(images), Units(results / "reproduction" / "units")
    rows = []
    for length in epochs:
        wanted = recipe(NETWORK).model_copy(update={"epochs": length})
        trained = train(wanted, training, test, results / "reproduction" / "models", progress=progress)
        rows += [row_of(trained, name, digits, units, progress=progress) for name in CONDITIONS]
    return Saturation(
        network=NETWORK,
        command="python studies/saturation.py",
        seed=0,
        images=len(digits),
        data_sha256=digits.sha256,
        device="cpu",
        versions=versions(),
        seconds=units.seconds,
        rows=tuple(rows),
    )


def row_of(
    trained: TrainedNetwork, name: str, digits: Digits, units: Units, *, progress: Progress = SILENT
) -> SaturationRow:
    """One training under one condition, from units of 20 images."""
    condition, record = CONDITIONS[name], trained.record
    digits = digits.first(condition.images)
    starts = range(0, len(digits), IMAGES_PER_UNIT)
    bar, parts = progress.task(f"{record.recipe.epochs} epochs, {name.replace('_', ' ')}", len(starts)), []
    for start in starts:
        block = digits.slice(start, start + IMAGES_PER_UNIT)
        key = partial(_key, record, block, start)
        # The exact gradients hang on no softmax: they are computed once for all conditions.
        wide = CHANGES[condition.undisturbed](deepcopy(trained.model)).double()
        exact = units.once(key(f"{condition.undisturbed}-exact"), partial(exact_logits, wide, block))
        parts.append(units.once(key(name), partial(measure, condition, trained.model, block, exact)))
        bar.advance()
    found = {key: np.concatenate([np.atleast_1d(part[key]) for part in parts]) for key in parts[0]}
    summaries = {field: summarise(found[field]) if field in found else None for field in SUMMARISED}
    at_input = found["norms"][:, -1] if "norms" in found else found["norm"]
    plain = {
        "epochs": record.recipe.epochs,
        "accuracy": record.accuracy,
        "weights_sha256": record.weights_sha256,
        "condition": name,
        "dtype": str(condition.dtype).removeprefix("torch."),
        "scale": condition.scale,
        "own_gradient_zero": float((at_input == 0).mean()),
        "own_gradient_underflows": float((at_input < torch.finfo(condition.dtype).smallest_normal).mean()),
        "one_minus_p": float(np.median(found["one_minus_p"])),
        "one_minus_p_mean": float(found["one_minus_p"].mean()),
        "one_rounds_to_zero": float((found["one_minus_p_served"] == 0).mean()),
        "norms": norms_of(found["norms"]) if "norms" in found else None,
    }
    return SaturationRow.model_validate(plain | summaries)


def _key(record: ModelRecord, block: Digits, start: int, name: str) -> str:
    content = f"{record.weights_sha256}|{block.sha256}|{name}|{STEPS}"
    return f"saturation-{record.recipe.network}-{name}-{start}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"


def norms_of(norms: Float[np.ndarray, "n steps"]) -> NormsAlongRay:
    """Where the norms of the gradients peak, and how far they fall from there."""
    last = norms[:, -1]
    orders = np.log10(norms.max(1)[last > 0] / last[last > 0])
    return NormsAlongRay(
        median=tuple(float(f"{value:.4g}") for value in np.median(norms, axis=0)),
        peak=float(np.median(norms.argmax(1) + 1)),
        orders_median=float(np.median(orders)) if orders.size else None,
        orders_largest=float(orders.max()) if orders.size else None,
        zero=float((last == 0).mean()),
    )


def exact_logits(model: nn.Module, block: Digits) -> Arrays:
    """Logits of a float64 network, and the gradient of each."""
    inputs = torch.from_numpy(block.normalised()).double()
    with torch.no_grad():
        logits = model(inputs)
    every = (vanilla_gradient(model, inputs, torch.full((len(block),), c)) for c in range(logits.shape[1]))
    return {"logits": logits.numpy(), "gradients": np.stack([gradient.numpy() for gradient in every], axis=1)}


def exact_direction(exact: Arrays, labels: np.ndarray, scale: float, *, softmax: bool) -> Float[np.ndarray, "n *shape"]:
    """Direction of the label's gradient, however saturated: `grad p_c = p_c sum_j p_j (grad z_c - grad z_j)`.

    The weights `p_j` of the others are divided by their sum, so that nothing underflows.
    """
    rows, gradients = np.arange(len(labels)), exact["gradients"]
    own: np.ndarray = gradients[rows, labels]
    if not softmax:
        return own
    others = scale * exact["logits"]
    others[rows, labels] = -np.inf
    powers = np.exp(others - others.max(1, keepdims=True))
    weights = powers / powers.sum(1, keepdims=True)
    direction: np.ndarray = own - np.einsum("nc,nc...->n...", weights, gradients)
    return direction


def measure(condition: Condition, model: nn.Module, block: Digits, exact: Arrays) -> Arrays:
    """All distances of one block of images; in float64 only those that cost little."""
    explainer = condition.service(model)
    inputs, targets = block.normalised(), block.labels.astype(np.int64)
    service, wide = Remembering(explainer), condition.dtype == torch.float64
    own = true_gradient(explainer, block)
    direction = exact_direction(exact, targets, condition.scale, softmax=condition.last is not LOGITS)
    plans = {"table_3": step_count(STEPS), "single_step": single_step()}
    plans |= {} if wide else {"table_4": shared_piece(ALPHA, STEPS)}
    found = {"own_gradient": distance(direction, own), "norm": norm_of(own)}
    for table, plan in plans.items():
        gradient = recover(service, inputs, targets, plan).gradient
        found |= {table: distance(own, gradient), f"{table}_to_exact": distance(direction, gradient)}
    found |= certainty(condition, model, block, exact)
    if not wide:
        found["table_1"] = distance(own, explanation_of(service, block))
        found["norms"] = norms_along_ray(explainer, block)
    if condition.last is PROBABILITIES and condition.change is as_it_is and not wide:
        found["logit_difference"] = logit_differences(explainer, block, exact)
    return found


def norm_of(gradient: Float[np.ndarray, "n *shape"]) -> Float[np.ndarray, " n"]:
    """Norms in float64: the squares of what float32 just holds underflow in it."""
    return np.asarray(np.linalg.norm(gradient.reshape(len(gradient), -1).astype(np.float64), axis=1))


def certainty(condition: Condition, model: nn.Module, block: Digits, exact: Arrays) -> Arrays:
    """1 - p of the label: from float64 logits as the sum of all others, and as the service's arithmetic has it."""
    labels, rows = block.labels.astype(np.int64), np.arange(len(block))
    logits = condition.scale * exact["logits"]
    powers = np.exp(logits - logits.max(1, keepdims=True))
    others = 1 - np.eye(logits.shape[1])[labels]
    with torch.no_grad():
        answered = (
            replace(condition, last=LOGITS)
            .service(model)
            .model(torch.tensor(block.normalised(), dtype=condition.dtype))
        )
    served = answered.softmax(1).numpy()[rows, labels]
    return {"one_minus_p": (others * powers).sum(1) / powers.sum(1), "one_minus_p_served": (1 - served).astype(float)}


def logit_differences(explainer: LocalExplainer, block: Digits, exact: Arrays) -> Float[np.ndarray, " n"]:
    """Distance of the label's logit less the runner-up's, undone from one step for each class, to the exact one."""
    speaking = LocalExplainer(explainer.model, replace(SERVICE, output=Output.PROBABILITIES), dtype=explainer.dtype)
    labels, rows = block.labels.astype(np.int64), np.arange(len(block))
    others = exact["logits"].copy()
    others[rows, labels] = -np.inf
    second = others.argmax(1)
    truth = exact["gradients"][rows, labels] - exact["gradients"][rows, second]
    found = recover_logits(speaking, block.normalised(), range(CLASSES), single_step())
    return distance(truth, found.difference(labels, second).gradient)


def norms_along_ray(explainer: LocalExplainer, block: Digits) -> Float[np.ndarray, "n steps"]:
    """Norm of the gradient at (i/50) x, for i = 1..50."""
    inputs = torch.tensor(block.normalised(), dtype=explainer.dtype)
    targets = torch.tensor(block.labels, dtype=torch.long)
    scaled = (vanilla_gradient(explainer.model, inputs * (i / STEPS), targets) for i in range(1, STEPS + 1))
    return np.stack([gradient.double().flatten(1).norm(dim=1).numpy() for gradient in scaled], axis=1)


class Shown:
    """The study's progress on the terminal."""

    def __init__(self, bars: Bars) -> None:
        self.bars = bars

    def task(self, description: str, total: int) -> Task:
        """Open a bar."""
        return ShownTask(self.bars, self.bars.add_task(description, total=total))


class ShownTask:
    """One bar."""

    def __init__(self, bars: Bars, bar: TaskID) -> None:
        self.bars = bars
        self.bar = bar

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Move it."""
        self.bars.update(self.bar, advance=amount)


if __name__ == "__main__":
    main()
