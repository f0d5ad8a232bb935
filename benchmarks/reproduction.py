"""What rewriting saves in `disintegrate reproduce`, and that the records stay: writes results/reproduction_speed.json.

Every cell and every condition of the full run on a few images, by the model as it is and as the run computes it, in
turns in one process; seconds scaled by the images of the full run. `--images` sets how many of each network.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch

from disintegrate.explainers import LocalExplainer
from disintegrate.files import write_atomically
from disintegrate.gradients import Rewriting
from disintegrate.paper import mnist
from disintegrate.paper.conditions import CONDITIONS, conditions_for
from disintegrate.paper.experiments import AS_SERVED, TABLES, measure, methods_for
from disintegrate.paper.mnist import Digits
from disintegrate.paper.networks import NETWORKS
from disintegrate.paper.reproduce import FULL_IMAGES, evidence_images
from disintegrate.paper.store import TrainedNetwork
from disintegrate.paper.training import recipe, train
from disintegrate.paper.units import Units
from disintegrate.versions import versions

ROOT = Path(__file__).parents[1]
ROUNDS = 3


def row(name: str, trained: TrainedNetwork, digits: Digits, *, cells: bool, folder: Path) -> dict[str, Any]:
    """One condition, or the cells of the tables, as it is and rewritten."""
    network, condition = trained.record.recipe.network, CONDITIONS[name]
    services: dict[str, LocalExplainer] = {}
    for way in ("as it is", "rewritten"):
        services[way] = condition.service(deepcopy(trained.model), "cpu")
    services["as it is"].rewriting = Rewriting.NONE
    methods = tuple(method for method, table in methods_for(network).items() if cells or table in TABLES)
    shown = digits.with_noise(condition.noise) if condition.noise else digits
    for service in services.values():  # what is done once is not counted
        inputs = torch.tensor(shown.normalised(), dtype=service.dtype)
        service.prepared(inputs, torch.tensor(shown.labels, dtype=torch.long))
    seconds, found = defaultdict(list), {}
    for number in range(ROUNDS):
        for way, service in services.items():
            units = Units(folder / f"{name}-{number}-{way}")
            started = time.perf_counter()
            found[way] = measure(service, trained, shown, methods, units, condition=name)
            seconds[way].append(time.perf_counter() - started)
    images = FULL_IMAGES if cells else evidence_images(network, quick=False)
    each = {way: float(np.median(taken)) / len(digits) for way, taken in seconds.items()}
    medians = {
        method: {way: float(np.median(arrays[f"{method}.distance"])) for way, arrays in found.items()}
        for method in methods
    }
    return {"network": network, "condition": "cells" if cells else name, "images": len(digits),
            "images_of_the_full_run": images, "seconds_per_image": each,
            "seconds_of_the_full_run": {way: value * images for way, value in each.items()},
            "ratio": each["as it is"] / each["rewritten"], "median_distance": medians}  # fmt: skip


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4, help="of LeNet and ResNet18; ten times as many of TwoLayerNet")
    parser.add_argument("--models", default=",".join(NETWORKS))
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "reproduction_speed.json")
    parser.add_argument("--work", type=Path, required=True, help="an empty folder for units, which can go afterwards")
    asked = parser.parse_args()
    training, test, rows = mnist.load("train"), mnist.load("test"), []
    for network in asked.models.split(","):
        trained = train(recipe(network), training, test, ROOT / "results" / "reproduction" / "models")
        digits = test.first(asked.images * (10 if network.startswith("TwoLayerNet") else 1))
        for name in conditions_for(network):
            for cells in (True, False) if name == AS_SERVED else (False,):
                folder = asked.work / network / f"{name}-{cells}"
                rows.append(row(name, trained, digits, cells=cells, folder=folder))
                print(f"{network:18} {rows[-1]['condition']:22} {rows[-1]['ratio']:6.2f}", flush=True)
    total = {way: sum(one["seconds_of_the_full_run"][way] for one in rows) for way in ("as it is", "rewritten")}
    record = {"command": "python benchmarks/reproduction.py --work DIR", "versions": versions(), "rounds": ROUNDS,
              "threads": torch.get_num_threads(), "seconds_of_the_full_run": total,
              "ratio": total["as it is"] / total["rewritten"], "rows": rows}  # fmt: skip
    print(json.dumps({name: record[name] for name in ("seconds_of_the_full_run", "ratio")}, indent=1))
    write_atomically(asked.out, (json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
