"""Write the table and the picture of what-a-copy-costs.md from results/theft.json: `python docs/extraction.py`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from disintegrate.paper.figures import STYLE
from disintegrate.report.findings import number

ROOT = Path(__file__).parents[1]
RECORD, DOCS = ROOT / "results" / "theft.json", ROOT / "docs"
DOCUMENT, PICTURE = DOCS / "what-a-copy-costs.md", "theft.svg"
BEGIN, END = "<!-- theft: docs/extraction.py -->", "<!-- end of theft -->"
Record = Mapping[str, Any]


def theft(record: Record) -> str:
    """What each kind of theft cost and gave: the range over its seeds, the worst of its errors."""
    lines = [
        f"TwoLayerNet (784-100-10, biased, {record['victim']['accuracy']:.2%} of {record['test_images']} test images), "
        f"then networks of other widths; given up at {record['budget']} explanations. Largest error of a logit (of a "
        "log-probability where probabilities are explained) and agreement on the test images, the worst of all seeds.",
        "",
        "| the service, the plan | seeds | points | explanations | units | largest error | agreement |",
        "|---|---|---|---|---|---|---|",
    ]
    for words, grouped in groupby(record["rows"], key=lambda row: row["words"]):
        rows = list(grouped)
        cells = [
            _range([row["points"] for row in rows]),
            _range([row["queries"] for row in rows]),
            _range([row["notes"]["units"] for row in rows]),
            number(max(row["likeness"]["largest_error"] for row in rows)),
            f"{min(row['likeness']['agreement'] for row in rows):.2%}",
        ]
        given_up = sum(not row["complete"] for row in rows)
        told = f"{words}; given up {given_up} of {len(rows)} times" if given_up else words
        lines.append(f"| {told} | {len(rows)} | {' | '.join(cells)} |")
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    lines += ["", f"`{record['command']}`, [record](../results/theft.json) ({versions})."]
    return "\n".join(lines)


def _range(counts: list[int]) -> str:
    return str(counts[0]) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"


def widths_figure(record: Record) -> Figure:
    """Points against width, with the least that a line needs."""
    rows = [row for row in record["rows"] if "width" in row]
    widths = np.array(sorted({row["width"] for row in rows}))
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.loglog([row["width"] for row in rows], [row["points"] for row in rows], "o", markersize=4, label="measured")
    axes.loglog(widths, widths + 1, linewidth=1, linestyle=":", label="h + 1: one point in each piece of a line")
    axes.set_xlabel("units of the hidden layer, h")
    axes.set_ylabel("points asked")
    axes.legend(fontsize=8)
    return figure


def block() -> str:
    """The table between its marks."""
    return f"{BEGIN}\n{theft(json.loads(RECORD.read_text()))}\n{END}"


def main() -> None:
    """Write both."""
    before, rest = DOCUMENT.read_text().split(BEGIN)
    DOCUMENT.write_text(before + block() + rest.split(END)[1])
    with mpl.rc_context({**STYLE, "figure.facecolor": "white"}):
        widths_figure(json.loads(RECORD.read_text())).savefig(DOCS / PICTURE, metadata={"Date": None})


if __name__ == "__main__":
    main()
