"""Is "what stops it" right? `python studies/stops.py` writes results/stops.json.

For services of many kinds, every change that `what_stops` tries is made: a service is started with changed settings,
most of them on loopback over KServe, and audited as any other. Its verdict is compared with the row of the table: where
the model is at hand with the row that was measured, where it is not with the one that was foretold. What is tuned is
tuned on the first half of the grid (`--grid tuning`); what is reported is the other half, other networks and rules.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from subjects import Setting, Subject, in_process, over_http, served_model, subject

from disintegrate import Capabilities, DisintegrateError, Explainer, Output, audit
from disintegrate.audit import Judgement, Stop, changes, what_stops
from disintegrate.audit.changes import Change
from disintegrate.files import write_atomically
from disintegrate.versions import versions

RESULTS = Path(__file__).parents[1] / "results"
SEED = 0
FREE, FLOOR = (1, 100), (20, 100)
COUNTS = {"LeNet": 6, "TwoLayerNet": 8}
# Every third endpoint is one of which nothing is told.
PROBED_EACH = 3
GRIDS = {
    "tuning": (
        Setting("TwoLayerNet", "gauss_legendre", 50, FREE, baseline=True),
        Setting("GELU and tanh", "riemann_right", 20, FREE),
        Setting("residual, tabular", "captum_gausslegendre", 50, FREE, baseline=True),
        Setting("rough", "midpoint", 20, FLOOR),
        Setting("rough", "gauss_legendre", 50, baseline=True),
        Setting("TwoLayerNet", "riemann_right", 25, softmax=True),
    ),
    "held out": (
        Setting("LeNet", "riemann_right", 20, FREE, baseline=True),
        Setting("TwoLayerNet", "captum_gausslegendre", 50, FREE),
        Setting("TwoLayerNet_nobias", "saliency", 25, baseline=True),
        Setting("GELU and tanh", "trapezoid", 30, (2, 60), baseline=True),
        Setting("GELU and tanh", "gauss_legendre", 50, FREE, softmax=True),
        Setting("residual, tabular", "riemann_left", 50, FLOOR, digits=5),
        Setting("rough", "riemann_right", 50, FREE),
        Setting("TwoLayerNet", "midpoint", 10, answers="float16"),
    ),
}


@dataclass(frozen=True, eq=False)
class Restarted:
    """A service with a change made."""

    setting: Setting
    access: str

    def reached(self, about: Subject) -> AbstractContextManager[Explainer]:
        """The service, running."""
        if self.access == "in process":
            return in_process(self.setting, about)
        return over_http(self.setting, about, "kserve", told=self.access == "KServe, told")


def restarted(setting: Setting, changed: Capabilities, number: int) -> Restarted:
    """The settings after a change; a fence around the inputs is no setting of our server, so that is in process."""
    fixed = changed.fewest_steps == changed.most_steps
    now = replace(
        setting,
        steps=changed.own_steps,
        free=None if fixed else (changed.fewest_steps, changed.most_steps),
        baseline=changed.baseline,
        softmax=changed.output is Output.PROBABILITIES,
        digits=changed.wire.significant_digits,
        answers=changed.wire.dtype,
        furthest=changed.furthest,
    )
    if math.isfinite(now.furthest):
        return Restarted(now, "in process")
    return Restarted(now, "KServe, probed" if number % PROBED_EACH == 0 else "KServe, told")


def run(setting: Setting) -> list[dict[str, Any]]:
    """Every change of one service: the two rows of the table, and what an audit says."""
    about = subject(setting.network, COUNTS.get(setting.network, 12))
    allowed, served = setting.capabilities(), served_model(setting, about.model)
    measured = what_stops(allowed, about.inputs, about.targets, model=served, seed=SEED)
    with restarted(setting, allowed, 1).reached(about) as running:
        predicted = what_stops(allowed, about.inputs, about.targets, service=running, seed=SEED)
    tried = (Change("as it is", allowed), *changes(allowed))
    found = []
    for number, (change, here, foretold) in enumerate(zip(tried, measured, predicted, strict=True)):
        started, service = time.monotonic(), restarted(setting, change.changed, number)
        found.append(_compared(service, about, here, foretold) | {"seconds": round(time.monotonic() - started, 1)})
    return found


def _compared(service: Restarted, about: Subject, measured: Stop, predicted: Stop) -> dict[str, Any]:
    with_model, without, plan = _audited(service, about)
    rows = {
        "measured": _figures(measured.judgement),
        "audited_with_the_model": with_model,
        "predicted": _figures(predicted.judgement),
        "audited_without": without,
    }
    setting = {name: value for name, value in asdict(service.setting).items() if value not in (None, math.inf)}
    return {
        "change": measured.words,
        "access": service.access,
        "setting": setting,
        **rows,
        "tried_on_the_service": predicted.measured,
        "queries_for_the_row": predicted.queries,
        "paper_formula": {
            name: {"equation": stop.paper.equation, "verdict": stop.paper.judgement.verdict.value}
            for name, stop in (("measured", measured), ("predicted", predicted))
        },
        "plan": plan,
    }


def _audited(service: Restarted, about: Subject) -> tuple[dict[str, Any], dict[str, Any], str | None]:
    """An audit that has the model and one that has not, and the latter's kind of plan."""
    model = served_model(service.setting, about.model)
    try:
        with service.reached(about) as explainer:
            without = audit(explainer, about.inputs, about.targets, seed=SEED)
        with service.reached(about) as explainer:
            with_model = audit(explainer, about.inputs, about.targets, model=model, seed=SEED)
    except DisintegrateError as error:
        none = {"verdict": f"none: {error}", "median_distance": None, "share": None}
        return none, none, None
    plan = without.proposal.way.value if without.proposal else None
    return _figures(with_model.judgement), _figures(without.judgement), plan


def _figures(found: Judgement) -> dict[str, Any]:
    return {
        "verdict": found.verdict.value,
        "median_distance": found.median_distance,
        "share": found.share_recovered,
        "queries": found.queries_per_gradient,
    }


def summary(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How often the table and the audit say the same."""
    record: dict[str, Any] = {"changes": len(found), "by_access": dict(Counter(row["access"] for row in found))}
    for row_name, audited in (("measured", "audited_with_the_model"), ("predicted", "audited_without")):
        apart = [row for row in found if row[row_name]["verdict"] != row[audited]["verdict"]]
        record[row_name] = {
            "agree": len(found) - len(apart),
            "share": 1 - len(apart) / max(len(found), 1),
            "disagree_by_access": dict(Counter(row["access"] for row in apart)),
            "disagreements": [
                {
                    "network": row["setting"]["network"], "rule": row["setting"]["rule"], "change": row["change"],
                    "access": row["access"], row_name: row[row_name], audited: row[audited],
                }
                for row in apart
            ],
        }  # fmt: skip
    return record


def main(arguments: Sequence[str] | None = None) -> None:
    """Audit what is not done yet and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grid", choices=[*GRIDS, "both"], default="both")
    parser.add_argument("--only", help="services whose network holds this, done anew")
    parser.add_argument("--limit", type=float, default=math.inf, help="start no service after so many seconds")
    parser.add_argument("--out", type=Path, default=RESULTS / "stops.json")
    options = parser.parse_args(arguments)
    folder, started = RESULTS / "studies" / "units", time.monotonic()
    grids: dict[str, list[dict[str, Any]]] = {name: [] for name in GRIDS}
    for grid, services in GRIDS.items():
        for setting in services:
            path = folder / f"stops-{hashlib.sha256(repr(setting).encode()).hexdigest()[:12]}.json"
            wanted = options.grid in (grid, "both")
            again = wanted and options.only is not None and options.only in setting.network
            due = again or (wanted and options.only is None and not path.is_file())
            if due and time.monotonic() - started < options.limit:
                write_atomically(path, json.dumps(run(setting)).encode())
                print(grid, setting, json.dumps(summary(json.loads(path.read_text())), indent=1), flush=True)
            if path.is_file():
                grids[grid] += json.loads(path.read_text())
    record = {
        "seed": SEED, "threads": torch.get_num_threads(), "versions": versions(),
        "summary": {name: summary(found) for name, found in grids.items()},
        "rows": grids,
    }  # fmt: skip
    write_atomically(options.out, (json.dumps(record, indent=1) + "\n").encode())
    for name, found in grids.items():
        both = summary(found)
        print(name, both["changes"], {one: round(both[one]["share"], 3) for one in ("measured", "predicted")})


if __name__ == "__main__":
    main()
