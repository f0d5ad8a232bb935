"""One writer of the study of faults: asks its share of the queries, to be killed and started again at any moment.

It ends with 0 when all are answered, 4 when some are in doubt, and 5 when the budget is spent.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from disintegrate.clients import Budget, Doubt, Journal, Link, careful, connect
from disintegrate.errors import BudgetSpent, InDoubt, Unreachable
from disintegrate.explainers.protocol import Request

BLOCK = 50


def question(seed: int, number: int, shape: tuple[int, ...]) -> Request:
    """The queries are numbered; each hangs on its number alone."""
    generator = np.random.default_rng([seed, number])
    return Request(generator.normal(size=(1, *shape)).astype(np.float32), None, np.array([number % 4]), None)


def block(seed: int, numbers: list[int], shape: tuple[int, ...]) -> Request:
    """Several of them as one request."""
    several = [question(seed, number, shape) for number in numbers]
    inputs, targets = (np.concatenate([getattr(each, name) for each in several]) for name in ("inputs", "targets"))
    return Request(inputs, None, targets, None)


def blocks(numbers: list[int]) -> Iterator[list[int]]:
    """So many at a time."""
    for first in range(0, len(numbers), BLOCK):
        yield numbers[first : first + BLOCK]


def main() -> None:
    """Ask."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("journal", type=Path)
    parser.add_argument("--shape", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--first", type=int, required=True)
    parser.add_argument("--last", type=int, required=True)
    parser.add_argument("--budget", type=int, required=True)
    parser.add_argument("--in-doubt", default="leave")
    options = parser.parse_args()
    shape = tuple(int(size) for size in options.shape.split(","))
    doubts = False
    with Journal(options.journal) as journal:
        remote = connect(options.target, link=Link(seconds=10), rows=1)
        # The name in the journal is the service's, not the proxy's with its changing port.
        explainer = careful(remote, journal, "service", budget=Budget(options.budget), in_doubt=Doubt(options.in_doubt))
        for numbers in blocks(list(range(options.first, options.last))):
            for attempt in range(20):
                try:
                    explainer.explain(block(options.seed, numbers, shape))
                    break
                except InDoubt:
                    doubts = True
                    break
                except BudgetSpent:
                    sys.exit(5)
                except Unreachable:
                    time.sleep(0.05 * attempt)
    sys.exit(4 if doubts else 0)


if __name__ == "__main__":
    main()
