"""How often the probe is right: `python studies/probe.py --seed 2029` writes results/probe.json.

Draws services whose settings are hidden, probes each with at most 60 queries, and compares what was found with what is
true. Where the rule stays unknown, `identifiable.py` says whether the answers set it apart from its neighbours at all.
Killed and started again, it goes on behind the last service. `--first 100 --services 50` probes a slice, and
`--budget 240 --out results/probe_240.json` says what more queries would find.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from identifiable import differing
from rich.progress import Progress
from services import Hidden, Service, Truth, draw, serve, wire

from disintegrate import Output, ProbeResult, Recording, probe
from disintegrate.files import append_line, write_atomically
from disintegrate.probe import NamedRule
from disintegrate.versions import versions

RESULTS = Path(__file__).parents[1] / "results"
NAMES = {"zero": "zero", "mean": "mean of the inputs", "random": "another"}
BUDGET = 60


def main() -> None:
    """Measure and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=2029)
    parser.add_argument("--services", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="the number of the first service")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--budget", type=int, default=BUDGET, help="the most queries to a service")
    parser.add_argument("--out", type=Path, default=RESULTS / "probe.json")
    options = parser.parse_args()
    slice_ = f".{options.first}" if options.first else ""
    slice_ += f".{options.budget}" if options.budget != BUDGET else ""
    journal = options.out.with_suffix(f".{options.seed}{slice_}.jsonl")
    done = [json.loads(line) for line in journal.read_text().splitlines()] if journal.is_file() else []
    with Progress() as progress, ExitStack() as workers:
        bar = progress.add_task("services", total=options.services, completed=len(done))
        left = [draw(options.seed, options.first + number) for number in range(len(done), options.services)]
        pool = workers.enter_context(ProcessPoolExecutor(options.workers)) if options.workers > 1 else None
        probing = partial(measured, budget=options.budget)
        for record in pool.map(probing, left) if pool else map(probing, left):
            append_line(journal, json.dumps(record))
            done.append(record)
            progress.advance(bar)
    record = {
        "seed": options.seed, "budget": options.budget, "versions": versions(), "summary": summary(done),
        "services": done,
    }  # fmt: skip
    write_atomically(options.out, (json.dumps(record, indent=1) + "\n").encode())
    journal.unlink(missing_ok=True)
    print(json.dumps(record["summary"], indent=1))


def measured(truth: Truth, budget: int = BUDGET) -> dict[str, Any]:
    """Probe one service and compare."""
    service = serve(truth)
    assert isinstance(service.explainer, Hidden)  # noqa: S101
    asked = Recording(service.explainer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = probe(asked, service.inputs, service.targets, budget=budget)
        spent = service.explainer.queries
        apart = differing(truth, asked.requests) if found.rules.value is None else {}
    verdicts = judged(truth, service, found)
    right = [verdict for verdict in verdicts.values() if verdict != "right"]
    whole = "wrong" if "wrong" in right else "unknown" if right else "right"
    return {
        "truth": truth.record(),
        "verdict": whole,
        "findings": verdicts,
        "rules": [f"{named.rule}({named.steps})" for named in found.rules.value or ()],
        "evidence": found.rules.evidence,
        "queries": spent,
        "differing": apart,
    }


def judged(truth: Truth, service: Service, found: ProbeResult) -> dict[str, str]:
    """For each finding: right, unknown, or wrong."""

    def verdict(value: object, right: bool) -> str:
        return "unknown" if value is None else "right" if right else "wrong"

    at = found.baseline.value
    within = at is not None and bool((np.abs(at.point - service.baseline) <= at.error).all())
    named = at is not None and (at.name == NAMES[truth.baseline] or (at.name == "another" and within))
    return {
        "rule and steps": verdict(found.rules.value, NamedRule(truth.rule, truth.steps) in (found.rules.value or ())),
        "baseline": verdict(at, named and within),
        "output": verdict(found.output.value, (found.output.value is Output.PROBABILITIES) == truth.softmax),
        "digits": verdict(found.wire.value, found.wire.value == wire(truth.digits)),
        "determinism": verdict(found.deterministic.value, found.deterministic.value is True),
        "steps override": verdict(
            found.steps_override.value,
            found.steps_override.value is not None and found.steps_override.value.value == truth.steps_override,
        ),
        "baseline override": verdict(
            found.baseline_override.value,
            found.baseline_override.value is not None
            and found.baseline_override.value.value == truth.baseline_override,
        ),
    }


def summary(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares, queries, and where the probe fails."""
    queries = np.array([record["queries"] for record in records])
    counts = Counter(record["verdict"] for record in records)
    by_finding = {
        finding: dict(Counter(record["findings"][finding] for record in records)) for finding in records[0]["findings"]
    }
    tables = {}
    for axis in ("rule", "digits", "softmax", "baseline", "network", "steps_override", "baseline_override"):
        tables[axis] = _table(records, [str(record["truth"][axis]) for record in records])
    sizes = ["2-4", "5-15", "16-60", "61-200"]
    steps = [sizes[int(np.searchsorted([4, 15, 60], record["truth"]["steps"]))] for record in records]
    tables["steps"] = _table(records, steps)
    return {
        "services": len(records),
        "right": counts["right"],
        "unknown": counts["unknown"],
        "wrong": counts["wrong"],
        "rule_unknown": _unknown(records),
        "share_right": counts["right"] / len(records),
        "queries": {"median": float(np.median(queries)), "largest": int(queries.max())},
        "by_finding": by_finding,
        "by_setting": tables,
    }


def _unknown(records: list[dict[str, Any]]) -> dict[str, int]:
    """Services whose rule stayed unknown, by how far the answers differ from those of every neighbouring rule."""
    nearest = [min(record["differing"].values()) for record in records if record["differing"]]
    return {
        "told apart from every neighbour by one number in a hundred or more": sum(share >= 0.01 for share in nearest),
        "told apart from every neighbour by fewer": sum(0 < share < 0.01 for share in nearest),
        "answers the same as a neighbour's": sum(share == 0 for share in nearest),
    }


def _table(records: list[dict[str, Any]], keys: list[str]) -> dict[str, dict[str, int]]:
    return {
        key: dict(Counter(record["verdict"] for record, own in zip(records, keys, strict=True) if own == key))
        for key in sorted(set(keys))
    }


if __name__ == "__main__":
    main()
