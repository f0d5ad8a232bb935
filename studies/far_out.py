"""A service that fixes rule, steps and baseline: logits against probabilities. `python studies/far_out.py`.

Writes results/far_out.json: for each network and rule the distances of the best plan's gradients to the true ones, in
float32, when logits are explained and when probabilities are, and for the latter when points beyond the input are
refused. Steps are 50, and 10 for ResNet18.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from subjects import Setting, served_model, subject

from disintegrate import LocalExplainer, distance, propose
from disintegrate.audit.truth import true_gradients
from disintegrate.estimate import carry_out
from disintegrate.files import write_atomically
from disintegrate.versions import versions

OUT = Path(__file__).parents[1] / "results" / "far_out.json"
IMAGES = {"TwoLayerNet": 200, "LeNet": 100, "ResNet18": 20}
STEPS = {"TwoLayerNet": 50, "LeNet": 50, "ResNet18": 10}
RULES = ("captum_gausslegendre", "gauss_legendre", "riemann_right", "midpoint", "riemann_left", "trapezoid", "saliency")
BUDGET = 10


def measured(setting: Setting, images: int) -> dict[str, Any]:
    """The best plan for one service, executed."""
    about = subject(setting.network, images)
    model = served_model(setting, about.model)
    service = LocalExplainer(model, setting.capabilities())
    proposal = propose(service.capabilities, budget=BUDGET, highest=setting.furthest)
    found = carry_out(service, about.inputs, about.targets, proposal)
    truth = true_gradients(model, about.inputs, about.targets)
    apart = distance(truth * found.observed, found.gradient)
    return {
        "queries": len(proposal.plan),
        "scales": [term.query.stop for term in proposal.plan],
        "median_distance": float(np.median(apart)),
        "mean_distance": float(apart.mean()),
        "share_within_0.1": float((apart <= 0.1).mean()),
    }


def main() -> None:
    """Measure every cell and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    out: Path = parser.parse_args().out
    rows = []
    cells = [(network, rule) for network in IMAGES for rule in RULES]
    for network, rule in track(cells, "services"):
        logits = Setting(network, rule, STEPS[network])
        soft = replace(logits, softmax=True)
        services = {
            "logits": logits,
            "probabilities": soft,
            "probabilities_within_the_input": replace(soft, furthest=1),
        }
        found = {name: measured(each, IMAGES[network]) for name, each in services.items()}
        rows.append({"network": network, "rule": rule, "steps": STEPS[network], "images": IMAGES[network], **found})
        print(network, rule, {name: f"{each['median_distance']:.2g}" for name, each in found.items()}, flush=True)
    record = {
        "command": "python studies/far_out.py", "budget": BUDGET, "threads": torch.get_num_threads(),
        "versions": versions(), "rows": rows,
    }  # fmt: skip
    write_atomically(out, (json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
