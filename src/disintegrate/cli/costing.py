"""`disintegrate cost`."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from disintegrate.cli.copy_targets import Copied, Points, Reached, Settings, copied, points, untrained
from disintegrate.cli.root import Bars, app, bars
from disintegrate.cli.terminal import new_table, screen
from disintegrate.errors import InvalidValue

if TYPE_CHECKING:
    from disintegrate.audit.changes import Change
    from disintegrate.extraction.curve import CostRecord

# Inputs at which each change of the settings is tried.
TRIED = 16
# Inputs in each step of a copy's training.
BATCH = 20
KEPT = "Stopped. Finished copies are kept in the record; the same command goes on behind them."


@app.command()
def cost(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="A model file, a network, or an endpoint such as kserve+http://127.0.0.1:8080/v1/models/lenet.",
        ),
    ],
    student: Annotated[str, typer.Option(help="What a copy is: a network's name, or python:package.module:function.")],
    out: Annotated[Path, typer.Option(help="Write the record here after every copy; a later run goes on behind it.")],
    queries: Annotated[str, typer.Option(help="How many queries a copy may take, ascending.")] = "10,50,250,1000",
    price: Annotated[float | None, typer.Option(help="Of a thousand queries, in your currency.", min=0)] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw the curve here, .svg, .pdf or .png.")] = None,
    own: Annotated[
        bool, typer.Option("--i-own-this-model", help="Say that an endpoint's model is yours to copy.")
    ] = False,
    classes: Annotated[int, typer.Option(help="Outputs of the model.", min=1)] = 10,
    inputs: Annotated[
        Path | None, typer.Option(help="Inputs: .npy, .npz, .safetensors or .csv. [default: digits of MNIST]")
    ] = None,
    held_out: Annotated[int, typer.Option(help="Inputs that copies are scored on.", min=1)] = 1000,
    steps_trained: Annotated[int, typer.Option(help="Steps of a copy's training.", min=1)] = 3000,
    suggested: Annotated[
        bool, typer.Option(help="Model: find the settings that stop the leak best, and copy under these too.")
    ] = True,
    key_file: Annotated[
        Path | None, typer.Option(help="A file with the endpoint's API key. [default: $DISINTEGRATE_KEY]")
    ] = None,
    journal: Annotated[
        Path | None, typer.Option(help="Keep an endpoint's paid answers here, and ask none of them again.")
    ] = None,
    architecture: Annotated[str | None, typer.Option(help="Model: what weights are for.")] = None,
    trust_model: Annotated[bool, typer.Option("--trust-model", help="Model: load a file that could run code.")] = False,
    rule: Annotated[str, typer.Option(help="The service's quadrature rule, or the library that it runs.")] = "captum",
    steps: Annotated[str | None, typer.Option(help="Steps that callers may set, such as 50 or 20-100.")] = None,
    baseline: Annotated[bool, typer.Option(help="Whether callers may set a baseline.")] = False,
    probabilities: Annotated[bool, typer.Option(help="Whether probabilities are explained.")] = False,
    seed: Annotated[int, typer.Option(help="For what is asked, and the copies' weights.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record instead of a table.")] = False,
) -> None:
    """What a copy of your model costs: agreement against queries, with explanations and with outputs alone.

    A model file is served in this process with the settings given, then with those that stop the leak best. Of an
    endpoint, say with --i-own-this-model that it is yours; its settings are not changed.
    """
    from disintegrate.extraction import Training, costs, offers
    from disintegrate.files import write_atomically

    counts = _counts(queries)
    settings = Settings(rule, steps, baseline, probabilities)
    reached = Reached(own, key_file, journal, architecture, trust_model)
    with ExitStack() as held, bars(KEPT) as progress:
        service = copied(target, settings, reached, held)
        given = points(inputs, counts[-1], held_out, service.shape)
        found = _begun(out, target, student, price, steps_trained, seed, service, given)
        stricter = _stricter(service, given, progress, seed) if suggested else None
        asked_for = offers(service.explainer, classes=classes, model=service.model, stricter=stricter)
        rows = costs(
            asked_for, given.asked, given.held_out, counts,
            classes=classes, network=partial(untrained, student, seed), labels=given.labels,
            training=Training(steps=steps_trained, batch=BATCH), seed=seed, known=found.rows,
            progress=progress,
        )  # fmt: skip
        for row in rows:
            if row not in found.rows:
                found = found.model_copy(update={"rows": (*found.rows, row)})
                write_atomically(out, (found.model_dump_json(indent=1) + "\n").encode())
    if picture is not None:
        _draw(found, picture)
    if as_json:
        print(found.model_dump_json())
    else:
        _print(found)


def _counts(text: str) -> list[int]:
    try:
        found = sorted({int(part) for part in text.split(",")})
    except ValueError:
        found = []
    if not found or found[0] < 1:
        raise InvalidValue("Queries are whole numbers above 0.", got=text, instead="Give them as 10,50,250.")
    return found


def _begun(
    out: Path, target: str, student: str, price: float | None, steps: int, seed: int, service: Copied, given: Points
) -> CostRecord:
    """The record with what an earlier run found of it."""
    from disintegrate.audit import provenance
    from disintegrate.audit.record import RunShown
    from disintegrate.extraction.curve import CostRecord, read_cost
    from disintegrate.versions import versions

    run = provenance(sys.argv[1:], target, given.held_out, service.weights_sha256)
    fresh = CostRecord(
        target=target, student=student, price=price, training_steps=steps, seed=seed, rows=(),
        run=RunShown.model_validate_json(json.dumps(run)), versions=versions(),
    )  # fmt: skip
    if not out.is_file():
        return fresh
    before = read_cost(out)
    if not before.same_as(fresh):
        raise InvalidValue(
            "The record holds copies of another model, or others of this one.",
            got=out,
            instead="Give the same target, inputs, student, steps and seed, or another --out.",
        )
    return fresh.model_copy(update={"rows": before.rows})


def _stricter(service: Copied, given: Points, progress: Bars, seed: int) -> Change | None:
    """The change that stops the leak best, found where the model is at hand."""
    if service.model is None:
        return None
    import torch

    from disintegrate.audit import what_stops
    from disintegrate.extraction.costing import suggested

    tried, allowed = given.asked[:TRIED], service.explainer.capabilities
    with torch.no_grad():
        targets = service.model(torch.tensor(tried)).argmax(1).numpy()
    stops = what_stops(allowed, tried, targets, model=service.model, seed=seed, progress=progress)
    return suggested(allowed, stops)


def _draw(found: CostRecord, picture: Path) -> None:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from disintegrate import plots

    with mpl.rc_context(plots.STYLE):
        figure = Figure(figsize=(6, 3.6), layout="constrained")
        plots.cost(figure.subplots(), found.curves())
        figure.savefig(picture)


def _print(found: CostRecord) -> None:
    console = screen()
    table = new_table(title=f"What a copy of {found.target} costs, as {found.student}")
    for name in ("asked for", "queries", "inputs", "agreement", "accuracy", *(["price"] if found.price else [])):
        table.add_column(name, justify="left" if name == "asked for" else "right")
    for row in found.rows:
        accuracy = "" if row.accuracy is None else f"{row.accuracy:.1%}"
        cells = [
            _words(row.access.value, row.settings),
            str(row.queries),
            str(row.inputs),
            f"{row.agreement:.1%}",
            accuracy,
        ]
        table.add_row(*cells, *([f"{found.price_of(row.queries):.2f}"] if found.price else []))
    console.print(table)
    for sentence in found.sentences():
        print(sentence)


def _words(access: str, settings: str) -> str:
    return access if settings == "as it is" else f"{access}: {settings}"
