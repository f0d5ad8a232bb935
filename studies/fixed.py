"""Services that fix rule, steps and baseline: `python studies/fixed.py` writes results/fixed.json.

For each network, rule and number of queries, the distance of kriging at scales that the planner chose by predicted
error alone, against equation (3) at alpha = 0.98 on the same images; with the walk that the planner assumes, with
the walk fitted to the answers, and with the outputs used as well. Then the same at scales spread evenly up to 1.3,
between which the outputs tell more of where kinks lie.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from disintegrate import (
    Capabilities,
    LocalExplainer,
    Query,
    distance,
    recover,
    rule_named,
    shared_piece,
    summarise,
)
from disintegrate.estimate import estimate
from disintegrate.explainers import Remembering
from disintegrate.files import write_atomically
from disintegrate.kriging import krige, predicted_distance
from disintegrate.noise import noise_of
from disintegrate.paper import mnist
from disintegrate.paper.experiments import true_gradient
from disintegrate.paper.training import recipe, train
from disintegrate.paper.units import Arrays, Units
from disintegrate.scales import choose_queries, pool_of
from disintegrate.versions import versions
from disintegrate.walk import Walk

ROOT = Path(__file__).parents[1]
MODELS = ROOT / "results" / "reproduction" / "models"
SERVICES = (("riemann_right", 50), ("gauss_legendre", 50), ("gauss_legendre", 15), ("saliency", 25))
COUNTS, SPREAD_COUNTS = (1, 2, 3, 10, 20), (10, 20)
HIGHEST = (1.0, 2.0)
# The first service is measured on all images asked for; gradients of ResNet18 take longest.
BLOCK, OTHER_IMAGES, RESNET_IMAGES = 50, 100, 40
WEIGHING = 2


def queries_for(rule: str, steps: int, count: int, highest: float, *, spread: bool = False) -> list[Query]:
    """The scales that predict the least error under the default walk; or the input and others spread evenly."""
    if spread:
        scales = sorted({1.0, *np.linspace(0.05, min(1.3, highest), count - 1).tolist()})
        return [Query(0, scale, steps) for scale in scales]
    noise = noise_of(Capabilities(rule=rule))
    return choose_queries(pool_of(rule_named(rule), steps, highest, Walk(), noise), count)


def measure(service: LocalExplainer, digits: mnist.Digits, rule: str, steps: int, highest: float) -> Arrays:
    """All distances of one service on a block of images."""
    truth, asked = true_gradient(service, digits), Remembering(service)
    inputs, targets = digits.normalised(), digits.labels.astype(np.int64)
    noise, found = noise_of(service.capabilities), {}
    equation = recover(asked, inputs, targets, shared_piece(0.98, steps))
    found["equation_3"] = distance(truth, equation.gradient)
    for count, spread in designs(highest):
        queries = queries_for(rule, steps, count, highest, spread=spread)
        assumed = recover(asked, inputs, targets, krige(queries, rule_named(rule), Walk(), noise))
        found[f"{count}.{spread}.assumed"] = distance(truth, assumed.gradient)
        for name, outputs in (("fitted", False), ("outputs", True)):
            estimated = estimate(asked, inputs, targets, queries, outputs=outputs)
            found[f"{count}.{spread}.{name}"] = distance(truth, estimated.gradient)
    return found


def designs(highest: float) -> list[tuple[int, bool]]:
    """Numbers of queries, each with chosen scales; some with scales spread evenly as well."""
    spread = [(count, True) for count in SPREAD_COUNTS] if highest == HIGHEST[-1] else []
    return [*((count, False) for count in COUNTS), *spread]


def table(network: str, rule: str, steps: int, highest: float, images: int, units: Units) -> dict[str, Any]:
    """One row of the record: a network behind one fixed service, scales up to a bound."""
    training, test = mnist.load("train"), mnist.load("test")
    trained = train(recipe(network), training, test, MODELS)
    service = LocalExplainer(trained.model, Capabilities(rule=rule))
    parts = []
    for start in range(0, images, BLOCK):
        block = test.slice(start, min(start + BLOCK, images))
        asked = [queries_for(rule, steps, count, highest, spread=spread) for count, spread in designs(highest)]
        key = f"fixed-{network}-{rule}-{steps}-{highest:g}-{start}-{len(block)}-{_digest(asked)}"
        parts.append(units.once(key, partial(measure, service, block, rule, steps, highest)))
    joined = {name: np.concatenate([np.atleast_1d(part[name]) for part in parts]) for name in parts[0]}
    equation = summarise(joined["equation_3"])
    noise = noise_of(service.capabilities)
    rows = []
    for count, spread in designs(highest):
        queries = queries_for(rule, steps, count, highest, spread=spread)
        plan = krige(queries, rule_named(rule), Walk(), noise)
        row: dict[str, Any] = {
            "queries": count,
            "scales_chosen_by": "spread evenly" if spread else "predicted error",
            "scales": [round(query.stop, 6) for query in queries],
            "predicted": predicted_distance(plan, rule_named(rule), Walk(), noise),
        }
        for name in ("assumed", "fitted", "outputs"):
            summary = summarise(joined[f"{count}.{spread}.{name}"])
            row[name] = {**asdict(summary), "ratio": summary.mean / equation.mean}
        rows.append(row)
    return {
        "network": network, "rule": rule, "steps": steps, "highest_scale": highest, "images": images,
        "weights_sha256": trained.record.weights_sha256, "equation_3": asdict(equation), "rows": rows,
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--networks", default="LeNet,TwoLayerNet,ResNet18")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "fixed.json")
    options = parser.parse_args(arguments)
    units = Units(ROOT / "results" / "studies" / "units")
    tables = []
    for network in options.networks.split(","):
        for rule, steps in SERVICES:
            main_service = (rule, steps) == SERVICES[0]
            images = options.images if main_service else min(options.images, OTHER_IMAGES)
            images = min(images, RESNET_IMAGES) if network == "ResNet18" else images
            for highest in HIGHEST if main_service and network == "LeNet" else HIGHEST[-1:]:
                tables.append(table(network, rule, steps, highest, images, units))
                row = tables[-1]
                print(network, rule, steps, highest, f"eq. (3) {row['equation_3']['mean']:.4f}")
                for one in row["rows"]:
                    ratios = [f"{name} {one[name]['ratio']:.3f}" for name in ("assumed", "fitted", "outputs")]
                    print(f"  {one['queries']:2d} queries, {one['scales_chosen_by']}: {', '.join(ratios)}", flush=True)
    record = {"seed": 0, "versions": versions(), "tables": tables}
    write_atomically(options.out, (json.dumps(record, indent=1) + "\n").encode())


def _digest(asked: list[list[Query]]) -> str:
    """Of the queries, and of the way their answers are weighed, whose number goes up whenever it changes."""
    return hashlib.sha256(f"{WEIGHING} {asked}".encode()).hexdigest()[:12]


if __name__ == "__main__":
    main()
