"""Write what students, the toolbox's attacks and copies without data came to: `python docs/copies.py`.

The tables and the picture of what-a-copy-costs.md and the README's headline, from results/students.json, toolbox.json
and data_free.json.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from pathlib import Path
from statistics import mean
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from disintegrate.paper.figures import STYLE

ROOT = Path(__file__).parents[1]
RESULTS, DOCS = ROOT / "results", ROOT / "docs"
PICTURE = "copies.svg"
GRADIENTS, OUTPUTS = "logits and recovered gradients", ("logits", "probabilities", "labels")
LIKE = 0.99
SERVICES = {
    "open": "as it computes",
    "3 digits": "rounded to 3 significant digits",
    "2 digits": "rounded to 2 significant digits",
    "fixed": "rule, steps and baseline fixed at 50 steps",
    "within": "the same, and points beyond a true input refused",
    "ten steps": "ten steps, raw answers without recovery",
}
Record = Mapping[str, Any]


def students(record: Record) -> str:
    """Every student: what it learnt, what that took, how like its victim it came out."""
    victim = record["victim"]
    lines = [
        f"The paper's LeNet after {victim['epochs']} epochs behind a softmax ({victim['accuracy']:.2%} of the test "
        "images); inputs are the first of the first 5,000 test images, scores are on the other 5,000; means over "
        "seeds, lowest to highest in brackets.",
        "",
        "| the student learns | the service | images | classes of each | queries | accuracy | agreement | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for rows in _students(record):
        first = rows[0]
        service = SERVICES[first["service"]] if first["method"] not in OUTPUTS else "predicts"
        classes = first["classes_each"] if first["method"] not in OUTPUTS else "all"
        scores = [_spread([row["likeness"][score] for row in rows]) for score in ("accuracy", "agreement")]
        lines.append(
            f"| {first['method']} | {service} | {first['images']} | {classes} | {first['queries']} | "
            f"{' | '.join(scores)} | {len(rows)} |"
        )
    return "\n".join([*lines, "", _source(record, "students.json")])


def toolbox(record: Record) -> str:
    """The toolbox's own attacks: accuracy of each clone by its queries, and the best of all attacks and epochs."""
    rows = sorted(record["rows"], key=_attack)
    budgets = sorted({row["queries"] for row in rows})
    lines = [
        f"The same victim and split ({record['images_to_steal_with']} images to steal with, {record['images_scored']} "
        f"to score by); mean accuracy over {len({row['seed'] for row in rows})} seeds.",
        "",
        "| attack | epochs | " + " | ".join(f"{budget} queries" for budget in budgets) + " |",
        "|---|---|" + "---|" * len(budgets),
    ]
    best: dict[int, float] = {}
    for (attack, epochs), grouped in groupby(rows, key=_attack):
        found = list(grouped)
        cells = []
        for budget in budgets:
            scores = [row["accuracy"] for row in found if row["queries"] == budget]
            if scores:
                best[budget] = max(best.get(budget, 0.0), mean(scores))
            cells.append(f"{mean(scores):.3f}" if scores else "")
        lines.append(f"| {attack} | {epochs} | " + " | ".join(cells) + " |")
    lines.append("| **best of them** | | " + " | ".join(f"**{best[budget]:.3f}**" for budget in budgets) + " |")
    return "\n".join([*lines, "", _source(record, "toolbox.json")])


def without_data(record: Record) -> str:
    """The games without data: how far each came, and where it reached 0.90."""
    lines = [
        f"The paper's LeNet ({record['victim']['accuracy']:.2%}), {record['budget']:,} queries for each game, scored "
        f"on {record['test_images']:,} test images.",
        "",
        "| attack | seed | accuracy at the end | agreement | 0.90 reached by |",
        "|---|---|---|---|---|",
    ]
    for row in sorted(record["rows"], key=lambda row: (row["seeking"], row["seed"])):
        reached = row["queries_to_90_percent"]
        told = "not reached" if reached is None else f"{reached:,} queries"
        like = row["likeness"]
        lines.append(
            f"| {row['seeking']} | {row['seed']} | {like['accuracy']:.3f} | {like['agreement']:.3f} | {told} |"
        )
    return "\n".join([*lines, "", _source(record, "data_free.json")])


def headline(record: Record) -> str:
    """The README's: queries until the copy agrees with its model at 99 % of inputs, with explanations and without."""
    lead, without = _fewest(record, (GRADIENTS,)), _fewest(record, OUTPUTS)
    most = max(row["queries"] for row in record["rows"] if row["method"] in OUTPUTS)
    if lead is None:
        return f"No student reached {LIKE:.0%} agreement."
    images, queries = lead[0]["images"], lead[0]["queries"]
    if without is None:
        ratio, other = f"more than {most / queries:.0f} times", f"not by {most:,} predictions"
    else:
        enough = without[0]["queries"]
        fewer = {row["queries"] for row in record["rows"] if row["method"] in OUTPUTS and row["queries"] < enough}
        ratio = f"up to {enough / queries:.0f} times"
        other = f"by {enough:,} predictions, not by {max(fewer):,}" if fewer else f"by {enough:,} predictions"
    each = "one class each" if lead[0]["classes_each"] == 1 else f"all {lead[0]['classes_each']} classes of each"
    return (
        f"**With explanations a copy of LeNet agrees with its model on {LIKE:.0%} of the test images after {queries} "
        f"queries** ({images} images, {each}; mean agreement {_mean(lead, 'agreement'):.2%}); without them {other}: "
        f"{ratio} as many. `{record['command']}`, {len(lead)} seeds "
        "([all students](docs/what-a-copy-costs.md#students))."
    )


def copies_figure(known: Record, games: Record, peers: Record | None) -> Figure:
    """Left, copies from images by their queries; right, copies without data."""
    figure = Figure(figsize=(8.4, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for label, names, mark in (("with explanations", (GRADIENTS,), "o"), ("outputs alone", OUTPUTS, "s")):
        groups = [rows for rows in _students(known) if rows[0]["method"] in names and rows[0]["service"] == "open"]
        best: dict[int, float] = {}
        for rows in groups:
            best[rows[0]["queries"]] = max(best.get(rows[0]["queries"], 0), _mean(rows, "accuracy"))
        left.plot(*zip(*sorted(best.items()), strict=True), marker=mark, markersize=4, linewidth=1.2, label=label)
    if peers is not None:
        best = {}
        for (_, _, queries), trials in groupby(sorted(peers["rows"], key=_trial), key=_trial):
            best[queries] = max(best.get(queries, 0), mean(row["accuracy"] for row in trials))
        left.plot(*zip(*sorted(best.items()), strict=True), marker="^", markersize=4, linewidth=1.2, label="toolbox")
    left.axhline(known["victim"]["accuracy"], linewidth=0.8, linestyle=":", color="0.4")
    _dressed(left, "from images of its kind", "lower right")
    for name, colour in zip(sorted({row["seeking"] for row in games["rows"]}), ("C0", "C1"), strict=True):
        for number, row in enumerate(row for row in games["rows"] if row["seeking"] == name):
            points = [(point["queries"], point["accuracy"]) for point in row["curve"]]
            points.append((row["queries"], row["likeness"]["accuracy"]))
            right.plot(
                *zip(*points, strict=True),
                color=colour,
                linewidth=1.2,
                label=None if number else name.split("(")[1][:-1],
            )
    right.axhline(0.9, linewidth=0.8, linestyle=":", color="0.4")
    _dressed(right, "without data", "center left")
    return figure


def _dressed(axes: Axes, title: str, place: Literal["lower right", "center left"]) -> None:
    axes.set_xscale("log")
    axes.set(title=title, xlabel="queries", ylabel="accuracy of the copy")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.legend(fontsize=8, frameon=False, loc=place)


def _students(record: Record) -> Iterable[list[Record]]:
    """The rows of each student, over its seeds."""
    found: dict[str, list[Record]] = {}
    for row in record["rows"]:
        found.setdefault(row["row"], []).append(row)
    return found.values()


def _fewest(record: Record, names: tuple[str, ...]) -> list[Record] | None:
    """The cheapest student of a service as it computes that agrees well enough; None where there is none."""
    able = [rows for rows in _students(record) if rows[0]["method"] in names and rows[0]["service"] == "open"
            and _mean(rows, "agreement") >= LIKE]  # fmt: skip
    return min(able, key=lambda rows: int(rows[0]["queries"]), default=None)


def _mean(rows: list[Record], score: str) -> float:
    return float(mean(row["likeness"][score] for row in rows))


def _attack(row: Record) -> tuple[str, int]:
    return row["attack"], row["epochs"]


def _trial(row: Record) -> tuple[str, int, int]:
    return *_attack(row), row["queries"]


def _spread(scores: list[float]) -> str:
    return f"**{mean(scores):.4f}** ({min(scores):.4f} to {max(scores):.4f})"


def _source(record: Record, name: str) -> str:
    versions = ", ".join(f"{package} {version}" for package, version in record["versions"].items())
    return f"`{record['command']}`, [record](../results/{name}) ({versions})."


BLOCKS: dict[str, tuple[Path, str, Callable[[Record], str]]] = {
    "students": (DOCS / "what-a-copy-costs.md", "students.json", students),
    "toolbox": (DOCS / "what-a-copy-costs.md", "toolbox.json", toolbox),
    "without data": (DOCS / "what-a-copy-costs.md", "data_free.json", without_data),
    "headline": (ROOT / "README.md", "students.json", headline),
}


def block(name: str) -> str:
    """What stands between the marks of this name, marks included."""
    _, record, write = BLOCKS[name]
    body = write(json.loads((RESULTS / record).read_text()))
    return f"<!-- {name}: docs/copies.py -->\n{body}\n<!-- end of {name} -->"


def finished(record: str) -> Record | None:
    """A record of `results/`; None where its study has not come to its end."""
    path = RESULTS / record
    found: Record = json.loads(path.read_text()) if path.is_file() else {"complete": False}
    return found if found.get("complete", True) else None


def main() -> None:
    """Write all blocks whose study has come to its end, and the picture."""
    for name, (document, record, _) in BLOCKS.items():
        if finished(record) is not None:
            begin, end = block(name).splitlines()[0], f"<!-- end of {name} -->"
            before, rest = document.read_text().split(begin)
            document.write_text(before + block(name) + rest.split(end)[1])
    known, games = finished("students.json"), finished("data_free.json")
    if known is not None and games is not None:
        with mpl.rc_context({**STYLE, "figure.facecolor": "white"}):
            figure = copies_figure(known, games, finished("toolbox.json"))
            figure.savefig(DOCS / PICTURE, metadata={"Date": None})


if __name__ == "__main__":
    main()
