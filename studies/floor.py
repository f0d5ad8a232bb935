"""What sets the floor where everything is fixed, and what breaks it: writes results/floor.json.

The gradient along the ray is measured on a fine grid: how it drifts away from that at the input, and how many of
the grid's cells hold a kink. Then kriging of the same answers under clocks that know ever more of the ray: the one
that is assumed, the one fitted to the answers, the mean clock of all images, each image's own clock (more than any
outputs could tell). Then queries off the ray, and queries far out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from disintegrate import (
    Capabilities,
    LocalExplainer,
    Plan,
    Query,
    Walk,
    distance,
    estimate,
    krige,
    noise_of,
    recover,
    rule_named,
    shared_piece,
    vanilla_gradient,
)
from disintegrate.exact import cascade
from disintegrate.explainers import Remembering
from disintegrate.files import write_atomically
from disintegrate.kriging import predicted_distance
from disintegrate.paper import mnist
from disintegrate.paper.experiments import true_gradient
from disintegrate.paper.training import recipe, train
from disintegrate.versions import versions
from disintegrate.walk import Prior

ROOT = Path(__file__).parents[1]
NETWORKS, RULE, STEPS, IMAGES = ("TwoLayerNet", "LeNet"), "riemann_right", 50, 16
PLACES = (0.0, 0.01, 0.03, 0.1, 0.3, 0.5, 0.8, 0.9, 0.98, 0.99, 1.01, 1.02, 1.1, 1.2, 1.5, 2.0, 5.0, 20.0, 100.0)
FINE = np.concatenate([np.linspace(0, 1.3, 1301), np.geomspace(1.302, 60, 100)])
DESIGNS = {
    "2 queries": (0.84, 1.04),
    "20 queries": tuple(np.linspace(0.6, 1.25, 20)),
    "60 queries": tuple(np.linspace(0.3, 1.28, 60)),
}
OFF_THE_RAY, NEIGHBOURS = (0.01, 0.05), 8
# A change of the gradient by less than this, relative to its norm, is rounding.
NO_KINK = 1e-5


@dataclass(frozen=True, eq=False)
class MeasuredClock:
    """A clock read off gradients on a grid."""

    positions: np.ndarray
    times: np.ndarray

    def clock(self, positions: np.ndarray) -> np.ndarray:
        """Between the grid's points the clock runs evenly."""
        times: np.ndarray = np.interp(positions, self.positions, self.times) + 1e-9 * positions
        return times

    def size(self, positions: np.ndarray) -> np.ndarray:
        """The same everywhere."""
        return np.ones(len(positions))


def gradients_along(service: LocalExplainer, inputs: np.ndarray, targets: np.ndarray, places: Sequence[float]) -> Any:
    """Gradients at places on each ray, `[places, images, coordinates]`."""
    rows = [
        vanilla_gradient(service.model, torch.tensor((place * inputs).astype(np.float32)), torch.tensor(targets))
        for place in places
    ]
    return np.stack([row.numpy().reshape(len(inputs), -1) for row in rows])


def study(network: str) -> dict[str, Any]:
    """All that is measured of one network."""
    training, test = mnist.load("train"), mnist.load("test")
    trained = train(recipe(network), training, test, ROOT / "results" / "reproduction" / "models")
    digits = test.first(IMAGES)
    inputs, targets = digits.normalised(), digits.labels.astype(np.int64)
    service = LocalExplainer(trained.model, Capabilities(RULE))
    truth = true_gradient(service, digits)
    norm = np.linalg.norm(truth.reshape(IMAGES, -1), axis=1)
    drift = gradients_along(service, inputs, targets, PLACES) - truth.reshape(1, IMAGES, -1)
    steps = np.linalg.norm(np.diff(gradients_along(service, inputs, targets, FINE.tolist()), axis=0), axis=2) / norm
    # Two gradients of one norm correlate as 1 - |difference|^2 / 2 |g|^2, so a jump adds half its square to the clock.
    times = np.concatenate([np.zeros((1, IMAGES)), np.cumsum(steps**2, axis=0) / 2])
    mean = MeasuredClock(FINE, times.mean(axis=1))
    own = [MeasuredClock(FINE, times[:, image]) for image in range(IMAGES)]
    near = (FINE[1:] > 0.3) & (FINE[1:] < 1.3)
    asked = Remembering(service)
    equation = distance(truth, recover(asked, inputs, targets, shared_piece(0.98, STEPS)).gradient)

    def error(plans: list[Plan]) -> float:
        """Of one plan for all images, or of one for each."""
        rows = [recover(asked, inputs, targets, plan).gradient for plan in plans]
        picked = rows[0] if len(rows) == 1 else np.stack([row[image] for image, row in enumerate(rows)])
        return float(distance(truth, picked).mean())

    found: dict[str, Any] = {
        "network": network, "images": IMAGES, "rule": RULE, "steps": STEPS, "equation_3": float(equation.mean()),
        "norm_over_that_of_1/(x-b)": float(np.median(norm / np.linalg.norm(1 / inputs.reshape(IMAGES, -1), axis=1))),
        "drift": {str(place): float(np.median(np.linalg.norm(row, axis=1) / norm))
                  for place, row in zip(PLACES, drift, strict=True)},
        "cells_with_a_kink_from_0.3_to_1.3": float((steps[near] > NO_KINK).sum(axis=0).mean()),
        "cells_from_0.3_to_1.3": int(near.sum()),
        "clocks": {},
        "share_of_the_error_along_the_ray": {},
    }  # fmt: skip
    noise = noise_of(service.capabilities)
    for name, scales in DESIGNS.items():
        queries = [Query(0, float(scale), STEPS) for scale in scales]

        def kriged(prior: Prior, queries: list[Query] = queries) -> Plan:
            return krige(queries, rule_named(RULE), prior, noise)

        common = {"assumed": kriged(Walk()), "mean of all images": kriged(mean)}
        rows = {label: error([plan]) for label, plan in common.items()}
        rows["each image's own"] = error([kriged(clock) for clock in own])
        rows["predicted by the mean clock"] = predicted_distance(
            common["mean of all images"], rule_named(RULE), mean, noise
        )
        for label, outputs in (("fitted", False), ("fitted, with outputs", True)):
            estimated = estimate(asked, inputs, targets, queries, outputs=outputs)
            rows[label] = float(distance(truth, estimated.gradient).mean())
        # Outputs close to the input tell <g(1), x - b>: at best they correct this share of the squared error.
        missed = (estimated.gradient - truth).reshape(IMAGES, -1)
        along = (missed * inputs.reshape(IMAGES, -1)).sum(axis=1) / np.linalg.norm(inputs.reshape(IMAGES, -1), axis=1)
        found["share_of_the_error_along_the_ray"][name] = float(np.mean(along**2 / (missed**2).sum(axis=1)))
        found["clocks"][name] = rows
    found["off_the_ray"] = _off_the_ray(service, inputs, targets, truth)
    found["far_out"] = _far_out(asked, inputs, targets, truth)
    return found


def _off_the_ray(
    service: LocalExplainer, inputs: np.ndarray, targets: np.ndarray, truth: np.ndarray
) -> dict[str, float]:
    """Two queries for the input and for neighbours that lie off its ray, averaged."""
    noise, generator = noise_of(service.capabilities), np.random.default_rng(0)
    queries = [Query(0, scale, STEPS) for scale in DESIGNS["2 queries"]]
    plan = krige(queries, rule_named(RULE), Walk(), noise)
    found = {"0": float(distance(truth, recover(service, inputs, targets, plan).gradient).mean())}
    for size in OFF_THE_RAY:
        total = np.zeros(inputs.shape)
        for _ in range(NEIGHBOURS):
            step = generator.normal(size=inputs.shape)
            flat = np.linalg.norm(inputs.reshape(IMAGES, -1), axis=1) / np.linalg.norm(step.reshape(IMAGES, -1), axis=1)
            step *= size * flat.reshape(-1, *[1] * (inputs.ndim - 1))
            total += recover(service, (inputs + step).astype(np.float32), targets, plan).gradient
        found[str(size)] = float(distance(truth, total).mean())
    return found


def _far_out(asked: Remembering, inputs: np.ndarray, targets: np.ndarray, truth: np.ndarray) -> list[dict[str, Any]]:
    """Cascades outwards: the first node of the first query on the input, everything else beyond."""
    rows = []
    for rule, steps in ((RULE, STEPS), ("gauss_legendre", STEPS), ("gauss_legendre", 2), ("gauss_legendre", 5)):
        service = Remembering(LocalExplainer(asked.explainer.model, Capabilities(rule)))  # type: ignore[attr-defined]
        for count in (2, 6, 12):
            plan = cascade(rule_named(rule), steps, count, outwards=True)
            if plan is None:
                continue
            apart = distance(truth, recover(service, inputs, targets, plan).gradient)
            rows.append({
                "rule": rule, "steps": steps, "queries": len(plan),
                "farthest_scale": max(term.query.stop for term in plan),
                "constant_beyond": plan.measure(rule_named(rule)).piece[0],
                "mean": float(apart.mean()), "median": float(np.median(apart)),
            })  # fmt: skip
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "floor.json")
    options = parser.parse_args(arguments)
    record = {"seed": 0, "versions": versions(), "networks": [study(name) for name in options.networks.split(",")]}
    write_atomically(options.out, (json.dumps(record, indent=1) + "\n").encode())
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
