"""`disintegrate probe`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from disintegrate.cli.root import app, bars

if TYPE_CHECKING:
    import numpy as np

    from disintegrate import Explainer, ProbeResult


@app.command()
def probe(
    network: Annotated[str, typer.Argument(help="A network of the paper, such as LeNet.", metavar="MODEL")],
    weights: Annotated[
        Path | None, typer.Option(help="Its weights, a .safetensors file. [default: fresh ones]")
    ] = None,
    rule: Annotated[str, typer.Option(help="The hidden rule.")] = "captum_gausslegendre",
    steps: Annotated[int, typer.Option(help="Its hidden steps.", min=1)] = 50,
    baseline: Annotated[str, typer.Option(help="The hidden baseline: zero, mean or random.")] = "zero",
    digits: Annotated[int | None, typer.Option(help="Significant digits of the answers. [default: all]")] = None,
    softmax: Annotated[bool, typer.Option("--softmax", help="Explain probabilities.")] = False,
    deaf: Annotated[bool, typer.Option("--deaf", help="Ignore the steps and baselines that callers set.")] = False,
    budget: Annotated[int, typer.Option(help="The most queries to spend.")] = 60,
    seed: Annotated[int, typer.Option(help="For the directions asked, and a random baseline.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON instead of a table.")] = False,
) -> None:
    """Practise: hide a service's settings, and see what a caller finds out of them with few queries.

    The service runs in this process, on digits of MNIST.
    """
    from disintegrate.paper.practice import practice_service

    service, inputs, targets = practice_service(
        network, weights, rule=rule, steps=steps, baseline=baseline, digits=digits, softmax=softmax, deaf=deaf,
        seed=seed,
    )  # fmt: skip
    _probe(service, inputs, targets, budget, seed, as_json)


def _probe(service: Explainer, inputs: np.ndarray, targets: np.ndarray, budget: int, seed: int, as_json: bool) -> None:
    from disintegrate import probe as run

    with bars() as progress:
        found = run(service, inputs, targets, budget=budget, seed=seed, progress=progress)
    if as_json:
        print(json.dumps(found.record()))
        return
    _print_findings(found)


def _print_findings(found: ProbeResult) -> None:
    table = Table("finding", "value", "evidence", box=SIMPLE_HEAD, pad_edge=False)
    for name, entry in found.record()["findings"].items():
        value = "unknown" if entry["value"] is None else str(entry["value"])
        table.add_row(name, value, entry["evidence"])
    Console().print(table)
    print(f"{found.queries} queries.")
