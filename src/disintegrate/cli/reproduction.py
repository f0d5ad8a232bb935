"""`disintegrate reproduce`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from disintegrate.cli.root import app, bars
from disintegrate.cli.terminal import new_table, screen

if TYPE_CHECKING:
    from disintegrate.paper.reproduce import Reproduction


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
    with bars() as progress:
        done = run(options, progress)
    page = render_folder(done.folder)
    if as_json:
        print(json.dumps([json.loads(record.model_dump_json()) for record in (done.run, *done.records)]))
        return
    _print_tables(done)
    print(f"The page with all results: {page}")


def _print_tables(done: Reproduction) -> None:
    from disintegrate.paper.records import Cell
    from disintegrate.report.findings import number
    from disintegrate.report.page import TABLE_TITLES

    console = screen()
    cells = [record for record in done.records if isinstance(record, Cell)]
    for name, title in TABLE_TITLES.items():
        ours = name == "one_query"
        columns = ("plan" if ours else "paper", "mean", "median", "90 %", "> 0.1")
        table = new_table("network", *columns, title=title)
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
