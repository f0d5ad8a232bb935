"""How often a kink far out tells the rule of a service without a softmax: writes results/far_kink.json.

`python studies/far_kink.py` takes every fifth of the services of two seeds that answer logits, take no baseline of a
caller's and are no LeNet. The baseline is taken for 0, whatever it is: a path so far out hardly knows. A
rule counts as right where it is among those that have the same nodes above 0. No part of the probe yet.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from far_staircase import located, told_far_out
from kink_far_out import FarPoints, far_line
from rich.progress import track
from services import Truth, draw, serve

from disintegrate.files import write_atomically
from disintegrate.probe.asking import Asker, Spent
from disintegrate.progress import SILENT
from disintegrate.versions import versions

RESULTS = Path(__file__).parents[1] / "results"
SEEDS, EVERY = (4001, 4002), 5
# Queries: what a baseline that must be solved for leaves of sixty, and one that is tried.
BUDGET_RANDOM, BUDGET = 30, 45


def main() -> None:
    """Measure and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=EVERY)
    parser.add_argument("--out", type=Path, default=RESULTS / "far_kink.json")
    options = parser.parse_args()
    drawn = [(seed, number, draw(seed, number)) for seed in SEEDS for number in range(300)]
    some = [(seed, number, truth) for seed, number, truth in drawn if _counts(truth)][:: options.every]
    records = [{"seed": seed, "number": number} | _measured(truth) for seed, number, truth in track(some)]
    counts = Counter(record["verdict"] for record in records)
    summary = {
        "services": len(records), "right": counts["right"], "wrong": counts["wrong"], "unknown": counts["unknown"],
        "queries of the right ones": float(np.median([one["queries"] for one in records if one["verdict"] == "right"])),
    }  # fmt: skip
    record = {"versions": versions(), "summary": summary, "services": records}
    write_atomically(options.out, (json.dumps(record, indent=1) + "\n").encode())
    print(json.dumps(summary, indent=1))


def _counts(truth: Truth) -> bool:
    return not truth.softmax and truth.baseline_override != "honoured" and truth.network != "LeNet"


def _measured(truth: Truth) -> dict[str, Any]:
    service = serve(truth)
    inputs = service.inputs.reshape(len(service.inputs), -1).astype(np.float64)
    budget = BUDGET_RANDOM if truth.baseline == "random" else BUDGET
    asker = Asker(service.explainer, service.inputs.shape[1:], np.dtype("float32"), budget, SILENT.task("", budget))
    generator = np.random.default_rng(0)
    verdict = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            asker.ask(inputs[:1], int(service.targets[0]))
            asker.learn_wire()
            seen = FarPoints(asker, int(service.targets[0]), np.zeros(inputs.shape[1]))
            line = far_line(seen, float(service.inputs.std()), generator)
            smooth = located(line, generator, 0) if line is not None else None
            if line is not None and smooth is not None:
                verdict = told_far_out(line, smooth, generator, 0)
        except Spent:
            verdict = None
    members = verdict.fits[0].shape.members if verdict is not None and verdict.decided else ()
    right = (truth.rule, truth.steps) in members
    return {
        "truth": truth.record(), "queries": asker.spent, "rules": [f"{rule}({steps})" for rule, steps in members],
        "verdict": "right" if right else "wrong" if members else "unknown",
    }  # fmt: skip


if __name__ == "__main__":
    main()
