"""Exact theft beyond one hidden layer: `python studies/deeper.py` writes results/deeper.json.

Networks with two hidden layers, trained on digits, of several widths, through several plans and rounded answers; and
the filters of the first convolution of the paper's LeNet. Each theft is a unit of its own: stopped at any moment the
study goes on behind the last; `--seconds` stops it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from kept import each_once
from theft import CAPTUM, CLASSES, OPEN, of_widths
from torch import nn

from disintegrate import (
    Capabilities,
    DisintegrateError,
    Explainer,
    LocalExplainer,
    Output,
    Plan,
    Wire,
    Wired,
    baseline_window,
    single_step,
    single_step_beyond,
    step_count,
)
from disintegrate.extraction import Counted, Oracle, extract, first_filters, two_hidden_layers
from disintegrate.files import write_atomically
from disintegrate.paper import mnist
from disintegrate.paper.training import recipe, train
from disintegrate.versions import versions

ROOT = Path(__file__).parents[1]
WIDTHS = ((32, 16), (64, 32), (128, 64), (256, 128))
USUAL = (64, 32)
DIGITS = (6, 5, 4, 3)
SEEDS, EXAMPLES, LINES = 3, 20, 40
SINGLE_STEP = single_step()
# Explanations after which a theft that goes nowhere is given up.
GIVEN_UP = 100_000


@dataclass(frozen=True, eq=False)
class Case:
    """One kind of theft of a network with two hidden layers.

    Attributes:
        name: in the record.
        words: what is asked, for the table.
        widths: of the hidden layers.
        capabilities: of the service.
        plan: how gradients are asked for.
        wire: what the answers are rounded to.
        seeds: how often it is repeated.
    """

    name: str
    words: str
    widths: tuple[int, int] = USUAL
    capabilities: Capabilities = OPEN
    plan: Plan = SINGLE_STEP
    wire: Wire | None = None
    seeds: int = SEEDS


def cases() -> Iterator[Case]:
    """All kinds."""
    for widths in WIDTHS:
        yield Case("widths_{}_{}".format(*widths), "right Riemann, one step", widths)
    window = baseline_window(2.0**-10, 1, centred=True)
    yield Case("captum", "Captum's default rule, one step, a window around the input", capabilities=CAPTUM, plan=window)
    fixed = replace(CAPTUM, baseline=False)
    words = "Captum's default rule, one step on [0, 2], and the output"
    yield Case("captum_beyond", words, capabilities=fixed, plan=single_step_beyond())
    plan = step_count(2)
    yield Case("equation_4", "equation (4), 2 steps and 1", capabilities=replace(OPEN, baseline=False), plan=plan)
    yield Case("probabilities", "probabilities, one step", capabilities=replace(OPEN, output=Output.PROBABILITIES))
    for digits in DIGITS:
        words = f"one step, {digits} significant digits"
        yield Case(f"digits_{digits}", words, wire=Wire(significant_digits=digits), seeds=1)


def steal(case: Case, seed: int) -> dict[str, Any]:
    """One theft, scored on the test images; where the method gives up, what it said."""
    test = mnist.load("test")
    inputs, labels = test.normalised(), test.labels.astype(np.int64)
    victim: nn.Module = of_widths(case.widths, seed)
    if case.capabilities.output is Output.PROBABILITIES:
        victim = nn.Sequential(victim, nn.Softmax(1)).eval()
    explainer: Explainer = LocalExplainer(victim, case.capabilities)
    if case.wire is not None:
        explainer = Wired(explainer, case.wire)
    counted = Counted(explainer)
    method = partial(two_hidden_layers, classes=CLASSES, plan=case.plan, seed=seed)
    row = {"case": case.name, "words": case.words, "widths": case.widths, "seed": seed}
    try:
        found = extract(
            method, counted, inputs[:EXAMPLES], inputs, victim,
            name="two_hidden_layers", budget=GIVEN_UP, labels=labels,
        )  # fmt: skip
    except DisintegrateError as error:
        return {**row, "points": counted.points, "queries": sum(counted.explanations.values()), "refused": str(error)}
    return {**row, "refused": None, **found.record()}


def filters(victim: nn.Module, seed: int) -> dict[str, Any]:
    """The filters of LeNet's first convolution, beside its own."""
    test = mnist.load("test")
    images = test.normalised()[seed * EXAMPLES : (seed + 1) * EXAMPLES]
    counted = Counted(LocalExplainer(victim, OPEN))
    started = time.monotonic()
    found = first_filters(Oracle(counted, (1, 28, 28), (0, 1), single_step()), images, lines=LINES, seed=seed)
    seconds = time.monotonic() - started
    weights = victim.get_parameter("conv1.weight").detach().double().numpy().reshape(-1, 9)
    lengths = np.linalg.norm(weights, axis=1)
    cosines = found.kernels.reshape(-1, 9) @ (weights / lengths[:, None]).T
    nearest = np.abs(cosines).argmax(1)
    rows = np.arange(len(nearest))
    own = victim.get_parameter("conv1.bias").detach().double().numpy() / lengths
    return {
        "case": "filters", "words": "the first convolution of LeNet", "seed": seed,
        "points": counted.points, "queries": sum(counted.explanations.values()),
        "bends": found.bends, "lines": found.lines,
        "filters": len(weights), "found": len(set(nearest.tolist())), "named": len(nearest),
        "seen": found.seen.tolist(),
        "largest_angle": float(np.sqrt(2 * np.maximum(1 - np.abs(cosines[rows, nearest]), 0)).max()),
        "largest_offset_error": float(
            np.abs(found.offsets - np.sign(cosines[rows, nearest]) * own[nearest]).max()
        ),
        "seconds": seconds,
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Steal what is not stolen yet, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--folder", type=Path, default=ROOT / "results" / "studies" / "units")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "deeper.json")
    options = parser.parse_args(arguments)
    trained = train(
        recipe("LeNet"), mnist.load("train"), mnist.load("test"), ROOT / "results" / "reproduction" / "models"
    )
    digest = trained.record.weights_sha256
    work: list[tuple[str, Callable[[], dict[str, Any]]]] = [
        (f"deeper-{case.name}-{seed}", partial(steal, case, seed)) for case in cases() for seed in range(case.seeds)
    ]
    work += [(f"deeper-filters-{digest[:12]}-{seed}", partial(filters, trained.model, seed)) for seed in range(SEEDS)]
    found = each_once(work, options.folder, options.seconds, told)
    if found is None:
        return
    record: dict[str, Any] = {
        "command": "python studies/deeper.py",
        "lenet": {"accuracy": trained.record.accuracy, "weights_sha256": digest},
        "test_images": 10_000,
        "budget": GIVEN_UP,
        "versions": versions(),
        "rows": found,
    }
    write_atomically(options.out, (json.dumps(record, indent=1) + "\n").encode())


def told(row: dict[str, Any]) -> str:
    """One row as a line."""
    start = f"{row['words']}, seed {row['seed']}: {row['points']} points, {row['queries']} explanations, "
    if "found" in row:
        return f"{start}{row['found']} of {row['filters']} filters within {row['largest_angle']:.2g} rad"
    if row["refused"]:
        return f"{start}{row['refused']}"
    like = row["likeness"]
    return f"{start}{row['notes']['units']}, error {like['largest_error']:.2g}, agreement {like['agreement']:.4f}"


if __name__ == "__main__":
    main()
