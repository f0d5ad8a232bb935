"""Whether predicted errors are honest: `python studies/calibration.py` writes results/calibration.json.

Services of every rule, with what they let a caller set and with what their wire does to the answers; the plan that
the planner proposes within a budget; its predicted error against the one it has, on networks that no number of the
walk was chosen on: LeNet and TwoLayerNet of another seed and shorter training, and ResNet18.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from disintegrate import Capabilities, LocalExplainer, Wire, Wired, distance
from disintegrate.estimate import carry_out
from disintegrate.explainers import Remembering
from disintegrate.files import write_atomically
from disintegrate.paper import mnist
from disintegrate.paper.experiments import true_gradient
from disintegrate.paper.training import recipe, train
from disintegrate.paper.units import Arrays, Units
from disintegrate.planner import propose
from disintegrate.versions import versions

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "disintegrate"
RULES = ("riemann_right", "riemann_left", "midpoint", "trapezoid", "gauss_legendre", "saliency")
STEPS = (10, 50)
WIRES = {
    "float32": Wire(),
    "5 digits": Wire(significant_digits=5),
    "3 digits": Wire(significant_digits=3),
    "float16": Wire(dtype="float16"),
}
BUDGETS = (2, 5, 10)
# The planner decides within each what to ask; the last permits nothing.
FREEDOMS = ("steps", "baseline", "nothing")
IMAGES = {"LeNet": 20, "TwoLayerNet": 20, "ResNet18": 10}


def capabilities(rule: str, steps: int, freedom: str, wire: Wire) -> Capabilities:
    """A service whose callers may set one thing, or nothing."""
    fewest, most = (steps, 2 * steps) if freedom == "steps" else (steps, steps)
    return Capabilities(rule, fewest, most, baseline=freedom == "baseline", dtype="float32", wire=wire)


def measure(model: LocalExplainer, digits: mnist.Digits, rule: str, steps: int) -> Arrays:
    """Median predicted and actual distances, and the root mean squares, for every freedom, wire and budget."""
    truth = true_gradient(model, digits)
    inputs, targets = digits.normalised(), digits.labels.astype(np.int64)
    found: dict[str, np.ndarray] = {}
    for freedom in FREEDOMS:
        open_service = Remembering(LocalExplainer(model.model, capabilities(rule, steps, freedom, Wire())))
        for (name, wire), budget in itertools.product(WIRES.items(), BUDGETS):
            service = Wired(open_service, wire)
            proposal = propose(service.capabilities, budget=budget, highest=2.0)
            recovery = carry_out(service, inputs, targets, proposal)
            actual = distance(truth, recovery.gradient)
            found[f"{freedom}|{name}|{budget}|{proposal.way.name}"] = np.stack([recovery.predicted_error, actual])
    return found


def cases(network: str, units: Units) -> list[dict[str, Any]]:
    """All cases of one network."""
    training, test = mnist.load("train"), mnist.load("test")
    if network == "ResNet18":
        folder, chosen = ROOT / "results" / "reproduction" / "models", recipe(network)
    else:
        folder, chosen = ROOT / "results" / "studies" / "models", recipe(network, seed=1, quick=True)
    trained = train(chosen, training, test, folder)
    digits = test.slice(1000, 1000 + IMAGES[network])
    code = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(SOURCE.glob("*.py")))).hexdigest()[:12]
    model = LocalExplainer(trained.model, Capabilities(rule=RULES[0]))
    found = []
    for rule, steps in itertools.product(RULES, STEPS):
        key = f"calibration-{network}-{rule}-{steps}-{len(digits)}-{code}"
        for name, (predicted, actual) in _pairs(units.once(key, partial(measure, model, digits, rule, steps))):
            freedom, wire, budget, way = name.split("|")
            found.append({
                "network": network, "rule": rule, "steps": steps, "caller_sets": freedom, "wire": wire,
                "budget": int(budget), "way": way, "images": len(digits),
                "predicted": float(np.median(predicted)), "actual": float(np.median(actual)),
                "ratio": float(np.median(actual / predicted)),
                "ratio_of_root_mean_squares": float(np.sqrt((actual**2).mean() / (predicted**2).mean())),
            })  # fmt: skip
        print(network, rule, steps, f"{np.median([case['ratio'] for case in found]):.2f} so far")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", default="TwoLayerNet,LeNet,ResNet18")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "calibration.json")
    options = parser.parse_args(arguments)
    units = Units(ROOT / "results" / "studies" / "units")
    found = [case for network in options.networks.split(",") for case in cases(network, units)]
    groups = {"all": found}
    for name in ("network", "caller_sets", "wire", "way", "budget"):
        for value in sorted({str(case[name]) for case in found}):
            groups[f"{name}: {value}"] = [case for case in found if str(case[name]) == value]
    record: dict[str, Any] = {
        "versions": versions(),
        "median_ratio": {name: float(np.median([case["ratio"] for case in some])) for name, some in groups.items()},
        "median_ratio_of_root_mean_squares": {
            name: float(np.median([case["ratio_of_root_mean_squares"] for case in some]))
            for name, some in groups.items()
        },
        "share_within_half_and_double": {
            name: float(np.mean([0.5 <= case["ratio"] <= 2 for case in some])) for name, some in groups.items()
        },
        "cases": found,
    }
    write_atomically(options.out, (json.dumps(record, indent=1) + "\n").encode())
    for name, some in groups.items():
        print(f"{name}: {len(some)} cases, median ratio {record['median_ratio'][name]:.2f}, within "
              f"[0.5, 2] {record['share_within_half_and_double'][name]:.0%}")  # fmt: skip


def _pairs(arrays: Arrays) -> list[tuple[str, np.ndarray]]:
    return [(name, value) for name, value in arrays.items() if "|" in name]


if __name__ == "__main__":
    main()
