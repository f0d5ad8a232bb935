"""Copies without data, with and without explanations: `python studies/data_free.py` writes results/data_free.json.

MEGEX against DFME on the paper's LeNet for MNIST at equal budgets: the student's accuracy on the test images against
queries, three seeds each. An explanation of one class is a query, and so is a prediction of all outputs. Killed and
started again, it goes on behind the last finished game; games in the record already are not played again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kept import kept_rows
from torch import nn

from disintegrate import Capabilities, LocalExplainer, single_step
from disintegrate.extraction import Game, Seeking, data_free, extract, image_generator, likeness
from disintegrate.files import write_atomically
from disintegrate.paper import mnist
from disintegrate.paper.networks import build
from disintegrate.paper.training import recipe, train
from disintegrate.versions import versions

ROOT = Path(__file__).parents[1]
CLASSES, REACHED = 10, 0.9
OPEN = Capabilities(rule="riemann_right", fewest_steps=1, most_steps=50)


def play(
    seeking: Seeking, victim: nn.Module, digits: mnist.Digits, budget: int, points: int, seed: int
) -> dict[str, Any]:
    """One game, its curve scored on the test images."""
    inputs, labels = digits.normalised(), digits.labels.astype(np.int64)
    curve: list[dict[str, float]] = []
    due = list(np.geomspace(budget / 100, budget, points))

    def watching(student: nn.Module, queries: int) -> None:
        if due and queries >= due[0]:
            while due and queries >= due[0]:
                due.pop(0)
            like = likeness(student, victim, inputs, labels)
            curve.append({"queries": queries, "accuracy": like.accuracy or 0.0, "agreement": like.agreement})
            print(f"  {seeking.name} seed {seed}: {queries} queries, accuracy {like.accuracy:.3f}", flush=True)

    method = partial(
        data_free, classes=CLASSES, network=partial(build, "LeNet", seed + 1), seeking=seeking, plan=single_step(),
        generator=partial(image_generator, float(inputs.min()), float(inputs.max())), game=Game(), seed=seed,
        watching=watching,
    )  # fmt: skip
    made = extract(
        method,
        LocalExplainer(victim, OPEN),
        inputs[:0],
        inputs,
        victim,
        name=seeking.name,
        labels=labels,
        budget=budget,
    )
    return {**made.record(), "seed": seed, "seeking": seeking.value, "curve": curve}


def main(arguments: Sequence[str] | None = None) -> None:
    """Play what has not been played yet, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=int, default=100_000)
    parser.add_argument("--points", type=int, default=12, help="of each curve")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=ROOT / "results" / "studies" / "units")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "data_free.json")
    options = parser.parse_args(arguments)
    trained = train(
        recipe("LeNet"), mnist.load("train"), mnist.load("test"), ROOT / "results" / "reproduction" / "models"
    )
    digits, rows = mnist.load("test"), []
    victim = {"network": "LeNet", "accuracy": trained.record.accuracy, "weights_sha256": trained.record.weights_sha256}
    made = kept_rows(options.out, victim=victim, budget=options.budget)
    kept = {(row["seeking"], row["seed"]): row for row in made}
    for seed in options.seeds:
        for seeking in Seeking:
            done = options.folder / f"data_free-{seeking.name}-{options.budget}-{seed}.json"
            row = kept.get((seeking.value, seed))
            if row is None and not done.is_file():
                row = play(seeking, trained.model, digits, options.budget, options.points, seed)
                write_atomically(done, json.dumps(row).encode())
            row = row or json.loads(done.read_text())
            rows.append(row)
            ends = [point["queries"] for point in row["curve"] if point["accuracy"] >= REACHED]
            row["queries_to_90_percent"] = min(ends, default=None)
            like = row["likeness"]
            print(f"{seeking.name} seed {seed}: accuracy {like['accuracy']:.4f} by {row['queries']} queries; "
                  f"0.90 at {row['queries_to_90_percent']}", flush=True)  # fmt: skip
    record = {
        "command": f"python studies/data_free.py {' '.join(sys.argv[1:])}".strip(),
        "victim": victim,
        "budget": options.budget, "test_images": len(digits.labels), "threads": torch.get_num_threads(),
        "versions": versions(), "rows": rows,
    }  # fmt: skip
    write_atomically(options.out, (json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
