"""`disintegrate report` and `disintegrate compare`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from disintegrate.cli.root import app
from disintegrate.cli.terminal import new_table, screen
from disintegrate.errors import InvalidValue

if TYPE_CHECKING:
    from rich.table import Table

    from disintegrate.report.comparison import Comparison, Row


@app.command()
def report(
    record: Annotated[Path, typer.Argument(metavar="RECORD", help="The record of an audit, from audit --out FILE.")],
    out: Annotated[
        Path | None, typer.Option(help="Write the page here. [default: beside the record, as .html]")
    ] = None,
    cost: Annotated[
        Path | None, typer.Option(help="Show what a copy costs too: a record from cost --out FILE.")
    ] = None,
) -> None:
    """Draw the page of an audit from its record: one file, nothing fetched from elsewhere."""
    from disintegrate.audit.record import read_record
    from disintegrate.extraction.curve import read_cost
    from disintegrate.report import render_audit

    found = read_record(record)
    costs = None if cost is None else read_cost(cost)
    page = record.with_suffix(".html") if out is None else out
    write_page(page, render_audit(found, costs), beside=(record,) if cost is None else (record, cost))
    print(f"The page: {page}")


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="The record of an audit.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="The record of another.")],
    page: Annotated[Path | None, typer.Option(help="Write a page of the two here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Set two audits side by side, such as before and after a change of the settings."""
    from disintegrate.audit.record import read_record
    from disintegrate.report.comparison import compare as set_side_by_side

    found = set_side_by_side(read_record(first), read_record(second))
    if page is not None:
        from disintegrate.report import render_comparison

        write_page(page, render_comparison(found), beside=(first, second))
    if as_json:
        print(json.dumps(found.record()))
        return
    _print(found)


def write_page(path: Path, text: str, *, beside: tuple[Path, ...] = ()) -> None:
    """Write a page, but never over the records that it is drawn from.

    Raises:
        InvalidValue: the page would replace one of them.
        UnwritableOutput: the file cannot be written.
    """
    from disintegrate.files import write_atomically

    if path.resolve() in [other.resolve() for other in beside]:
        raise InvalidValue("The page would replace its record.", got=path, instead="Give another file.")
    write_atomically(path, text.encode())


def _print(found: Comparison) -> None:
    console = screen()
    console.print(found.sentence, style="bold", highlight=False)
    for caution in found.cautions:
        console.print(caution, style="yellow", highlight=False)
    console.print(_table("", found.rows))
    if found.stops:
        console.print(_table("what the owner does", found.stops))


def _table(heading: str, rows: tuple[Row, ...]) -> Table:
    table = new_table(heading, "A", "B")
    for row in rows:
        table.add_row(row.name, row.first or "-", row.second or "-", style="bold" if row.changed else "")
    return table
