"""Records to one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from disintegrate.paper.figures import draw
from disintegrate.paper.records import Cell, Drawing, Evidence, Record, Run, claims, load_run
from disintegrate.paper.store import write_atomically

TABLE_TITLES = {
    "table_1": "Table 1: how far the explanation itself is from the gradient",
    "table_2": "Table 2, experiment A: equation (2), networks without biases",
    "table_3": "Table 3, experiment B: equation (4)",
    "table_4": "Table 4, experiment C: equation (3)",
    "one_query": "Beyond the paper: one query is enough",
}


def render(run: Run, records: Sequence[Record]) -> str:
    """Draw the page of a reproduction from its records alone."""
    environment = Environment(
        loader=PackageLoader("disintegrate.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = number
    found = [record for record in records if isinstance(record, Cell)]
    return environment.get_template("reproduction.html.j2").render(
        run=run,
        tables={table: [cell for cell in found if cell.table == table] for table in TABLE_TITLES},
        titles=TABLE_TITLES,
        networks={cell.provenance.network + str(cell.provenance.seed): cell.provenance for cell in found}.values(),
        claimed_accuracy=claims()["test_accuracy"],
        evidence=evidence_tables(records),
        drawings=[(record, Markup(draw(record))) for record in records if isinstance(record, Drawing)],  # noqa: S704
    )


def render_folder(folder: Path) -> Path:
    """Write the page of a finished run beside its records, and say where.

    Raises:
        UnknownName: the folder holds no finished run.
        DamagedFile: a record cannot be read.
        UnwritableOutput: the page cannot be written.
    """
    run, records = load_run(folder)
    path = folder / "index.html"
    write_atomically(path, render(run, records).encode())
    return path


def evidence_tables(records: Sequence[Record]) -> dict[tuple[str, str], list[Evidence]]:
    """Evidence grouped by the table and the network that it explains."""
    grouped: dict[tuple[str, str], list[Evidence]] = {}
    for record in records:
        if isinstance(record, Evidence):
            grouped.setdefault((record.table, record.provenance.network), []).append(record)
    return grouped


def number(value: float | None) -> str:
    """A figure as the page shows it: three significant digits, small ones with an exponent.

    Example:
        >>> number(0.0) == "0"
        True
    """
    if value is None:
        return ""
    if value == 0:
        return "0"
    return f"{value:.3g}" if 1e-3 <= abs(value) < 1e5 else f"{value:.2e}"
