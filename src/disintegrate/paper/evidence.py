"""Why a cell is what it is: the same plans on the same images with one thing changed at a time."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

from disintegrate.metrics import summarise
from disintegrate.paper.conditions import CONDITIONS, Condition, as_served, conditions_for
from disintegrate.paper.experiments import TABLES, measure, methods_for, provenance
from disintegrate.paper.mnist import Digits
from disintegrate.paper.records import Evidence
from disintegrate.paper.store import TrainedNetwork
from disintegrate.paper.training import train
from disintegrate.paper.units import Units
from disintegrate.progress import SILENT, Progress

OTHER_EPOCHS = {"TwoLayerNet": (1, 16), "LeNet_nobias": (1,), "LeNet": (1, 12), "ResNet18": (2,)}


def gather(
    trained: TrainedNetwork, digits: Digits, units: Units, *, device: str = "cpu", progress: Progress = SILENT
) -> list[Evidence]:
    """Measure the paper's own methods on one network under every condition, and equation (3) with finer steps.

    Raises:
        DamagedFile: a stored unit cannot be read.
    """
    network = trained.record.recipe.network
    own = _own_methods(network)
    found = [
        evidence
        for name in conditions_for(network)
        for evidence in gather_one(name, trained, digits, units, device=device, progress=progress)
    ]
    if "shared_piece" in own:
        finer = Condition(
            "float32 as served, but 500 steps in both queries: nearer to the integral of theorem 3.3", as_served
        )
        fine = {"shared_piece_fine": own["shared_piece"]}
        found += _under("steps_500", finer, fine, trained, digits.first(100), units, device, progress)
    return found


def gather_trainings(
    trained: TrainedNetwork,
    training: Digits,
    test: Digits,
    digits: Digits,
    units: Units,
    models: Path,
    *,
    device: str = "cpu",
    progress: Progress = SILENT,
) -> list[Evidence]:
    """Measure the same methods on the same network trained for fewer and for more epochs."""
    found = []
    recipe = trained.record.recipe
    for epochs in OTHER_EPOCHS.get(recipe.network, ()):
        other = recipe.model_copy(update={"epochs": epochs})
        again = train(other, training, test, models, device=device, progress=progress)
        condition = Condition(
            f"float32 as served, but trained for {epochs} epochs (test accuracy {again.record.accuracy:.2%})",
            as_served,
        )
        found += _under(
            f"epochs_{epochs}",
            condition,
            _own_methods(recipe.network),
            again,
            digits,
            units,
            device,
            progress,
        )
    return found


def gather_one(
    name: str,
    trained: TrainedNetwork,
    digits: Digits,
    units: Units,
    *,
    device: str = "cpu",
    progress: Progress = SILENT,
) -> list[Evidence]:
    """Measure the paper's own methods on one network under one condition.

    Raises:
        DamagedFile: a stored unit cannot be read.
    """
    own = _own_methods(trained.record.recipe.network)
    return _under(name, CONDITIONS[name], own, trained, digits, units, device, progress)


def _own_methods(network: str) -> dict[str, str]:
    return {method: table for method, table in methods_for(network).items() if table in TABLES}


def _under(
    name: str,
    condition: Condition,
    methods: dict[str, str],
    trained: TrainedNetwork,
    digits: Digits,
    units: Units,
    device: str,
    progress: Progress,
) -> list[Evidence]:
    # A condition changes the model it is given, so it gets a copy.
    explainer = condition.service(deepcopy(trained.model), device)
    digits = digits.with_noise(condition.noise) if condition.noise else digits
    measured = measure(explainer, trained, digits, tuple(methods), units, condition=name, progress=progress)
    return [
        Evidence(
            table=table,
            method=method,
            condition=name,
            explanation=condition.explanation,
            measured=summarise(measured[f"{method}.distance"]),
            provenance=provenance(trained, digits, device=device, dtype=str(explainer.dtype).removeprefix("torch.")),
            seconds=float(measured["seconds"].sum()),
        )
        for method, table in methods.items()
    ]
