"""The command line: the only module that prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

from disintegrate import __version__
from disintegrate.errors import DisintegrateError

if TYPE_CHECKING:
    import numpy as np

    from disintegrate import Explainer, ProbeResult
    from disintegrate.paper.reproduce import Reproduction

app = typer.Typer(
    help="Does an explanation endpoint give away the model's gradient, and so the model?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
errors = Console(stderr=True)


def _print_version(wanted: bool) -> bool:
    if wanted:
        print(f"disintegrate {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Does an explanation endpoint give away the model's gradient, and so the model?"""


@app.command()
def reproduce(
    quick: Annotated[
        bool, typer.Option("--quick", help="Three networks, short trainings, few images: under 3 minutes.")
    ] = False,
    images: Annotated[int | None, typer.Option(help="Test images per cell. [default: 10000; quick: 200]")] = None,
    models: Annotated[
        str | None,
        typer.Option(help="Networks, separated by commas, such as TwoLayerNet,ResNet18. [default: all; quick: three]"),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Trainings of each network, so that a cell has a spread.")] = 1,
    data: Annotated[
        Path | None, typer.Option(help="Folder with the four IDX files of MNIST. [default: the shipped ones]")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for models, records and the page.")] = Path("reproduction"),
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, ...")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print the records as JSON instead of tables.")] = False,
) -> None:
    """Reproduce the paper: train its networks, run experiments A, B and C, write records and a page.

    Killed at any moment and started again, it goes on where it was.
    """
    from disintegrate.paper.reproduce import Options
    from disintegrate.paper.reproduce import reproduce as run
    from disintegrate.report import render_folder

    networks = tuple(name.strip() for name in models.split(",")) if models is not None else None
    options = Options(out=out, quick=quick, data=data, networks=networks, images=images, seeds=seeds, device=device)
    with _bars() as progress:
        done = run(options, progress)
    page = render_folder(done.folder)
    if as_json:
        print(json.dumps([json.loads(record.model_dump_json()) for record in (done.run, *done.records)]))
        return
    _print_tables(done)
    print(f"The page with all results: {page}")


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

    with _bars() as progress:
        found = run(service, inputs, targets, budget=budget, seed=seed, progress=progress)
    if as_json:
        print(json.dumps(found.record()))
        return
    _print_findings(found)


def main() -> None:
    """Run the command line; one sentence instead of a traceback."""
    try:
        app()
    except DisintegrateError as error:
        errors.print(Text.assemble(("Error: ", "bold red"), str(error)), soft_wrap=True)
        sys.exit(error.exit_code)


class _Bar:
    def __init__(self, progress: RichProgress, description: str, total: int) -> None:
        self.progress = progress
        self.bar = progress.add_task(description, total=total, note="")

    def advance(self, amount: int = 1, note: str = "") -> None:
        self.progress.update(self.bar, advance=amount, note=note)


class _Bars:
    def __init__(self, progress: RichProgress) -> None:
        self.progress = progress

    def task(self, description: str, total: int) -> _Bar:
        return _Bar(self.progress, description, total)


@contextmanager
def _bars() -> Iterator[_Bars]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    try:
        with RichProgress(*columns, console=errors) as progress:
            yield _Bars(progress)
    except KeyboardInterrupt:
        errors.print("Stopped. Finished epochs and units are kept; the same command goes on behind them.")
        raise typer.Exit(130) from None


def _print_findings(found: ProbeResult) -> None:
    table = Table("finding", "value", "evidence", box=SIMPLE_HEAD, pad_edge=False)
    for name, entry in found.record()["findings"].items():
        value = "unknown" if entry["value"] is None else str(entry["value"])
        table.add_row(name, value, entry["evidence"])
    Console().print(table)
    print(f"{found.queries} queries.")


def _print_tables(done: Reproduction) -> None:
    from disintegrate.paper.records import Cell
    from disintegrate.report.findings import number
    from disintegrate.report.page import TABLE_TITLES

    console = Console()
    cells = [record for record in done.records if isinstance(record, Cell)]
    for name, title in TABLE_TITLES.items():
        ours = name == "one_query"
        columns = ("plan" if ours else "paper", "mean", "median", "90 %", "> 0.1")
        table = Table("network", *columns, title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        for column in table.columns:
            column.no_wrap = column.header != "plan"
        for cell in (cell for cell in cells if cell.table == name):
            found = cell.measured
            told = cell.title if ours else number(cell.claimed.mean if cell.claimed else None)
            figures = [number(figure) for figure in (found.mean, found.median, found.percentile_90)]
            seed = f" #{cell.provenance.seed}" if done.run.seeds > 1 else ""
            table.add_row(cell.provenance.network + seed, told, *figures, f"{found.share_above_0_1:.1%}")
        if table.row_count:
            console.print(table)
    print(f"Distances between true and recovered gradients; {done.run.images} test images.")
    if done.run.quick:
        print("This is the quick run: short trainings and few images. Quote the full run's figures.")


if __name__ == "__main__":
    main()
