"""`disintegrate probe`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from disintegrate.cli.root import app, bars, names_endpoint
from disintegrate.cli.terminal import new_table, screen

if TYPE_CHECKING:
    import numpy as np

    from disintegrate import Explainer, ProbeResult


@app.command()
def probe(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="An endpoint, such as kserve+http://127.0.0.1:8080/v1/models/lenet, or a network to practise on.",
        ),
    ],
    inputs: Annotated[
        Path | None, typer.Option(help="Typical inputs of an endpoint, an .npy file [n, ...]. [default: digits]")
    ] = None,
    output: Annotated[int, typer.Option(help="An output that an endpoint is known to have.", min=0)] = 0,
    key_file: Annotated[
        Path | None, typer.Option(help="A file with the endpoint's API key. [default: $DISINTEGRATE_KEY]")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Practice: the network's weights, a .safetensors file. [default: fresh ones]")
    ] = None,
    rule: Annotated[str, typer.Option(help="Practice: the hidden rule.")] = "captum_gausslegendre",
    steps: Annotated[int, typer.Option(help="Practice: the hidden steps.", min=1)] = 50,
    baseline: Annotated[str, typer.Option(help="Practice: the hidden baseline: zero, mean or random.")] = "zero",
    digits: Annotated[int | None, typer.Option(help="Practice: significant digits. [default: all]")] = None,
    softmax: Annotated[bool, typer.Option("--softmax", help="Practice: explain probabilities.")] = False,
    deaf: Annotated[bool, typer.Option("--deaf", help="Practice: ignore what callers set.")] = False,
    budget: Annotated[int, typer.Option(help="The most queries to spend.")] = 60,
    seed: Annotated[int, typer.Option(help="For the directions asked, and a random baseline.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON instead of a table.")] = False,
) -> None:
    """Find out what stands behind an endpoint that you may test: rule, steps, baseline, outputs, digits, overrides.

    With the name of a network, practise: a service with hidden settings runs in this process, on digits of MNIST.
    """
    if names_endpoint(target):
        _probe_endpoint(target, inputs, output, key_file, budget, seed, as_json)
        return
    from disintegrate.paper.practice import practice_service

    service, digits_asked, labels = practice_service(
        target, weights, rule=rule, steps=steps, baseline=baseline, digits=digits, softmax=softmax, deaf=deaf,
        seed=seed,
    )  # fmt: skip
    _probe(service, digits_asked, labels, budget, seed, as_json)


def _probe_endpoint(
    target: str, inputs: Path | None, output: int, key_file: Path | None, budget: int, seed: int, as_json: bool
) -> None:
    import numpy as np

    from disintegrate.clients import Retrying, connect, read_credentials
    from disintegrate.models import read_point

    credentials = read_credentials(key_file)
    if inputs is None:
        from disintegrate.paper import mnist

        asked = mnist.load("test").first(4).normalised()
    else:
        asked = read_point(inputs, None).astype(np.float32)
    with connect(target, credentials=credentials) as remote:
        _probe(Retrying(remote), asked, np.full(len(asked), output), budget, seed, as_json)


def _probe(service: Explainer, inputs: np.ndarray, targets: np.ndarray, budget: int, seed: int, as_json: bool) -> None:
    from disintegrate import probe as run

    with bars() as progress:
        found = run(service, inputs, targets, budget=budget, seed=seed, progress=progress)
    if as_json:
        print(json.dumps(found.record()))
        return
    _print_findings(found)


def _print_findings(found: ProbeResult) -> None:
    table = new_table("finding", "value", "evidence")
    for name, entry in found.record()["findings"].items():
        value = "unknown" if entry["value"] is None else str(entry["value"])
        table.add_row(name, value, entry["evidence"])
    screen().print(table)
    print(f"{found.queries} queries.")
