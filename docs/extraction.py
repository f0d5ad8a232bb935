"""Write what-a-copy-costs.md's tables and picture of exact theft: `python docs/extraction.py`.

From results/theft.json and results/deeper.json.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from disintegrate.paper.figures import STYLE
from disintegrate.report.findings import number

ROOT = Path(__file__).parents[1]
RESULTS, DOCS = ROOT / "results", ROOT / "docs"
DOCUMENT, PICTURE = DOCS / "what-a-copy-costs.md", "theft.svg"
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
    return "\n".join([*lines, "", _source(record, "theft.json")])


def deeper(record: Record) -> str:
    """What theft of two hidden layers cost and gave, and of the filters of a first convolution."""
    lines = [
        f"Networks 784-h1-h2-10, trained for one pass over 20,000 digits, scored on {record['test_images']} test "
        f"images; given up at {record['budget']} explanations. Ten classes at each point; the worst of all seeds.",
        "",
        "| the service, the plan | h1, h2 | seeds | points | explanations | units found | largest error | agreement |",
        "|---|---|---|---|---|---|---|---|",
    ]
    layered = [row for row in record["rows"] if "widths" in row]
    for (words, widths), grouped in groupby(layered, key=lambda row: (row["words"], row["widths"])):
        rows = list(grouped)
        made = [row for row in rows if not row["refused"]]
        without = len(rows) - len(made)
        told = f"{words}; no copy {without} of {len(rows)} times" if without else words
        cells = [_range([row["points"] for row in rows]), _range([row["queries"] for row in rows])]
        if made:
            likely = [row["likeness"] for row in made]
            cells += [
                ", ".join(_range([row["notes"]["units"][layer] for row in made]) for layer in (0, 1)),
                number(max(like["largest_error"] for like in likely)),
                f"{min(like['agreement'] for like in likely):.2%}",
            ]
        else:
            cells += ["", "", ""]
        lines.append(f"| {told} | {widths[0]}, {widths[1]} | {len(rows)} | {' | '.join(cells)} |")
    shown = [row for row in record["rows"] if "filters" in row]
    first = shown[0]
    found, others = (_range(counts) for counts in (
        [row["found"] for row in shown], [row["named"] - row["found"] for row in shown]
    ))  # fmt: skip
    points, queries = (_range([row[name] for row in shown]) for name in ("points", "queries"))
    angle, offset = (number(max(row[name] for row in shown)) for name in ("largest_angle", "largest_offset_error"))
    lines += [
        "",
        f"The first convolution of the paper's LeNet ({record['lenet']['accuracy']:.2%}), {first['filters']} filters, "
        f"from {first['lines']} lines and two classes: {found} of them, and {others} that were none, from {points} "
        f"points and {queries} explanations; the worst of all angles between a filter and its own {angle} rad, of all "
        f"biases {offset} of the filter's length off ({len(shown)} seeds).",
        "",
        _source(record, "deeper.json"),
    ]
    return "\n".join(lines)


def _source(record: Record, name: str) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return f"`{record['command']}`, [record](../results/{name}) ({versions})."


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


TABLES: Mapping[str, Callable[[Record], str]] = {"theft": theft, "deeper": deeper}


def block(name: str) -> str:
    """A table between its marks."""
    told = TABLES[name](json.loads((RESULTS / f"{name}.json").read_text()))
    return f"<!-- {name}: docs/extraction.py -->\n{told}\n<!-- end of {name} -->"


def main() -> None:
    """Write all."""
    text = DOCUMENT.read_text()
    for name in TABLES:
        before, rest = text.split(f"<!-- {name}: docs/extraction.py -->")
        text = before + block(name) + rest.split(f"<!-- end of {name} -->")[1]
    DOCUMENT.write_text(text)
    with mpl.rc_context({**STYLE, "figure.facecolor": "white"}):
        widths_figure(json.loads((RESULTS / "theft.json").read_text())).savefig(DOCS / PICTURE, metadata={"Date": None})


if __name__ == "__main__":
    main()
