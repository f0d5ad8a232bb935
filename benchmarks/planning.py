"""How long planning takes: `python benchmarks/planning.py` writes results/planning.json.

For every rule, what a caller may set, and budgets up to 50 queries: the median of five rounds of `propose`, the
settings interleaved so that whatever else the machine does hits all alike.
"""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections import defaultdict
from pathlib import Path

import torch

from disintegrate import RULES, Capabilities, propose
from disintegrate.files import write_atomically
from disintegrate.versions import versions

OUT = Path(__file__).parents[1] / "results" / "planning.json"
BUDGETS, ROUNDS = (1, 2, 10, 20, 50), 5
FREEDOMS = {
    "nothing": {"fewest_steps": 50, "most_steps": 50, "baseline": False},
    "steps 20 to 100": {"fewest_steps": 20, "most_steps": 100, "baseline": False},
    "baseline": {"fewest_steps": 50, "most_steps": 50, "baseline": True},
}


def main() -> None:
    """Time and write the record."""
    seconds: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    for _, setting in itertools.product(range(ROUNDS), itertools.product(RULES, FREEDOMS, BUDGETS)):
        rule, freedom, budget = setting
        capabilities = Capabilities(rule, **FREEDOMS[freedom])  # type: ignore[arg-type]
        started = time.perf_counter()
        propose(capabilities, budget=budget)
        seconds[setting].append(time.perf_counter() - started)
    medians = {setting: statistics.median(times) for setting, times in seconds.items()}
    record = {
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "rounds": ROUNDS,
        "slowest_median_milliseconds": 1000 * max(medians.values()),
        "median_milliseconds": {
            freedom: {str(budget): 1000 * max(medians[rule, freedom, budget] for rule in RULES) for budget in BUDGETS}
            for freedom in FREEDOMS
        },
    }
    write_atomically(OUT, (json.dumps(record, indent=1) + "\n").encode())
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
