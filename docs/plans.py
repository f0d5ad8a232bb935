"""Write tables and pictures of theory.md and how-to-choose-a-plan.md from the records: `python docs/plans.py`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from disintegrate import Noise, Walk, baseline_window, bias_free, krige, rule_named, shared_piece, step_count
from disintegrate.exact import cascade
from disintegrate.paper.figures import STYLE
from disintegrate.quadrature import gauss_legendre, riemann_right
from disintegrate.report.estimates import calibration_svg, load_calibration
from disintegrate.report.findings import number
from disintegrate.scales import choose_queries, pool_of

ROOT = Path(__file__).parents[1]
RESULTS, DOCS = ROOT / "results", ROOT / "docs"
Record = Mapping[str, Any]
COLUMNS = (*((count, "predicted error") for count in (2, 3, 10, 20)), *((count, "spread evenly") for count in (10, 20)))


def floor(record: Record) -> str:
    """What sets the floor of fixed services, and what was tried against it."""
    lines = []
    for found in record["networks"]:
        drift = {place: number(value) for place, value in found["drift"].items()}
        lines += [
            f"**{found['network']}**, {found['images']} images, right Riemann sum of {found['steps']} steps; equation "
            f"(3) at 0.98: {number(found['equation_3'])}. The gradient is rough along the ray: relative to its norm it "
            f"differs from `g(1)` by {drift['0.99']} at 0.99, {drift['1.01']} at 1.01, {drift['0.9']} at 0.9, "
            f"{drift['0.5']} at 0.5 and {drift['100.0']} at 100 (medians); of {found['cells_from_0.3_to_1.3']} cells "
            f"of a grid from 0.3 to 1.3, {found['cells_with_a_kink_from_0.3_to_1.3']:.0f} hold a kink. Mean distance "
            "under clocks that know ever more:",
            "",
            "| clock | " + " | ".join(found["clocks"]) + " |",
            "|---" * (1 + len(found["clocks"])) + "|",
        ]
        labels = next(iter(found["clocks"].values()))
        lines += [
            f"| {label} | " + " | ".join(number(rows[label]) for rows in found["clocks"].values()) + " |"
            for label in labels
        ]
        along = ", ".join(f"{share:.2%} ({name})" for name, share in found["share_of_the_error_along_the_ray"].items())
        lines += ["", f"Of the squared error, this share lies along `x - b`, where outputs could correct it: {along}."]
        off = ", ".join(
            f"{number(value)} at {size} of the input's norm" for size, value in found["off_the_ray"].items()
        )
        lines += ["", f"Off the ray (two queries each for 8 neighbours, averaged; 0 is the input alone): {off}.", ""]
        lines += ["| far out | queries | exact if constant beyond | mean | median |", "|---|---|---|---|---|"]
        lines += [
            f"| {row['rule']} {row['steps']} | {row['queries']} | {row['constant_beyond']:.3g} | "
            f"{number(row['mean'])} | {number(row['median'])} |"
            for row in found["far_out"]
        ]
        lines += [""]
    return "\n".join([*lines, "`python studies/floor.py`, [record](../results/floor.json)."])


def calibration(record: Record) -> str:
    """Whether predicted errors are honest."""
    ratios, within = record["median_ratio"], record["share_within_half_and_double"]
    lines = [
        "Actual over predicted distance, medians over images, on networks that had no part in choosing the walk:",
        "",
        "| cases | number | median ratio | of root mean squares | within [0.5, 2] |",
        "|---|---|---|---|---|",
    ]
    for name, ratio in ratios.items():
        key, _, value = name.partition(": ")
        count = len(record["cases"]) if not value else sum(str(case[key]) == value for case in record["cases"])
        squares = record["median_ratio_of_root_mean_squares"][name]
        lines.append(f"| {name.replace('_', ' ')} | {count} | {ratio:.2f} | {squares:.2f} | {within[name]:.0%} |")
    lines += [
        "",
        "![Actual against predicted error, one point for each service and plan](calibration.svg)",
        "",
        "`python studies/calibration.py`, [record](../results/calibration.json).",
    ]
    return "\n".join(lines)


def fixed(record: Record) -> str:
    """The table of fixed services: distance as a multiple of equation (3)'s."""
    lines = [
        "Everything fixed: mean distance as a multiple of equation (3)'s at alpha = 0.98 on the same images, float32. "
        "Scales chosen by predicted error, weights from the assumed walk / from the fitted walk / with the outputs as "
        "well; the last columns with scales spread evenly up to 1.3.",
        "",
        "| network (images) | service | scales up to | equation (3) | 2 queries | 3 | 10 | 20 | 10 spread | "
        "20 spread |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for table in record["tables"]:
        found = {(row["queries"], row["scales_chosen_by"]): row for row in table["rows"]}
        cells = []
        for count, chosen in COLUMNS:
            row = found.get((count, chosen))
            cells.append(
                " / ".join(f"{row[name]['ratio']:.3f}" for name in ("assumed", "fitted", "outputs")) if row else "-"
            )
        lines.append(
            f"| {table['network']} ({table['images']}) | {table['rule']} {table['steps']} | "
            f"{table['highest_scale']:g} | {number(table['equation_3']['mean'])} | {' | '.join(cells)} |"
        )
    return "\n".join([*lines, "", "`python studies/fixed.py`, [record](../results/fixed.json)."])


def planning(record: Record) -> str:
    """How long planning takes."""
    lines = [
        "| the caller may set | " + " | ".join(f"budget {b}" for b in record["median_milliseconds"]["nothing"]) + " |"
    ]
    lines += ["|---" * (1 + len(record["median_milliseconds"]["nothing"])) + "|"]
    lines += [
        f"| {freedom} | " + " | ".join(f"{value:.0f} ms" for value in times.values()) + " |"
        for freedom, times in record["median_milliseconds"].items()
    ]
    lines += ["", f"The slowest of all rules, median of {record['rounds']} rounds; `python benchmarks/planning.py`, "
              "[record](../results/planning.json)."]  # fmt: skip
    return "\n".join(lines)


def probe(record: Record) -> str:
    """How often the probe is right, and where it is not."""
    found = record["summary"]
    queries = found["queries"]
    lines = [
        f"{found['services']} services drawn with a seed that nothing was tuned on, networks with ReLU and biases "
        f"only: {found['right']} found out wholly "
        f"({found['share_right']:.1%}), {found['unknown']} with something unknown, {found['wrong']} with something "
        f"wrong; {queries['median']:g} queries in the median, {queries['largest']} at most.",
        "",
        "| finding | right | unknown | wrong |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {counts.get('right', 0)} | {counts.get('unknown', 0)} | {counts.get('wrong', 0)} |"
        for name, counts in found["by_finding"].items()
    ]
    lines += ["", "| wholly right, by setting | share |", "|---|---|"]
    for axis in ("baseline_override", "steps_override", "baseline", "rule", "steps", "digits", "softmax", "network"):
        shares = (
            f"{key} {counts.get('right', 0)}/{sum(counts.values())}"
            for key, counts in found["by_setting"][axis].items()
        )
        lines.append(f"| {axis.replace('_', ' ')} | {', '.join(shares)} |")
    command = f"python studies/probe.py --seed {record['seed']}"
    lines += ["", f"`{command}`, [record](../results/probe.json). The same services with more queries:", ""]
    lines += ["| queries at most | right | unknown | wrong | in the median | record |", "|---|---|---|---|---|---|"]
    for path in sorted(RESULTS.glob("probe_*.json"), key=lambda path: int(path.stem.partition("_")[2])):
        more = json.loads(path.read_text())
        if more["seed"] != record["seed"]:
            raise ValueError(f"{path.name} is of other services: run `{command} --budget {more['budget']}`.")
        total = more["summary"]
        counts = f"{total['right']} ({total['share_right']:.1%}) | {total['unknown']} | {total['wrong']}"
        lines.append(
            f"| {more['budget']} | {counts} | {total['queries']['median']:g} | "
            f"[{path.name}](../results/{path.name}), `--budget {more['budget']} --out results/{path.name}` |"
        )
    return "\n".join(lines)


def measures_figure() -> Figure:
    """The measures of the paper's plans and of ours."""
    walk, noise = Walk(), Noise(arithmetic=3e-8)
    queries = choose_queries(pool_of(riemann_right, 10, 2.0, walk, noise), 5)
    outwards = cascade(gauss_legendre, 2, 3, outwards=True)
    shown = {
        "equation (2), 10 steps": bias_free(10).measure(riemann_right),
        "equation (3), alpha = 0.9, 10 steps": shared_piece(0.9, 10).measure(riemann_right),
        "equation (4), 10 steps": step_count(10).measure(riemann_right),
        "window, trapezoid, 10 steps": baseline_window(0.125, 10).measure(rule_named("trapezoid")),
        "kriging, 5 queries, right Riemann, 10 steps": krige(queries, riemann_right, walk, noise).measure(
            riemann_right
        ),
    }
    if outwards is not None:
        shown["cascade outwards, 3 queries, Gauss-Legendre, 2 steps"] = outwards.measure(gauss_legendre)
    figure = Figure(figsize=(8, 6), layout="constrained")
    for axes, (title, measure) in zip(figure.subplots(3, 2).ravel(), shown.items(), strict=True):
        axes.vlines(measure.positions, 0, measure.weights, linewidth=1.4)
        axes.plot(measure.positions, measure.weights, "o", markersize=2.5)
        axes.axhline(0, color="#777777", linewidth=0.6)
        axes.axvline(1, color="#cc6633", linewidth=0.8, linestyle=":")
        axes.set_title(title, fontsize=9)
        axes.set_xlim(0, max(1.3, measure.support[1] * 1.05))
        axes.set_xlabel("position on the ray", fontsize=8)
    return figure


BLOCKS: dict[str, tuple[str, str, Callable[[Record], str]]] = {
    "floor": ("theory.md", "floor.json", floor),
    "calibration": ("theory.md", "calibration.json", calibration),
    "fixed": ("how-to-choose-a-plan.md", "fixed.json", fixed),
    "probe": ("how-to-choose-a-plan.md", "probe.json", probe),
    "planning": ("how-to-choose-a-plan.md", "planning.json", planning),
}


def block(name: str) -> str:
    """The block of that name, drawn from its record."""
    _, record, write = BLOCKS[name]
    return write(json.loads((RESULTS / record).read_text()))


def save(figure: Figure, name: str) -> None:
    """Write a picture without date and identifiers of chance."""
    figure.savefig(DOCS / name, metadata={"Date": None})


def main() -> None:
    """Write all."""
    for name, (document, _, _) in BLOCKS.items():
        path = DOCS / document
        begin, end = f"<!-- {name}: docs/plans.py -->", f"<!-- end of {name} -->"
        before, rest = path.read_text().split(begin)
        path.write_text(f"{before}{begin}\n{block(name)}\n{end}{rest.split(end)[1]}")
    with mpl.rc_context({**STYLE, "figure.facecolor": "white"}):
        save(measures_figure(), "measures.svg")
    study = load_calibration(RESULTS / "calibration.json")
    if study is not None:
        (DOCS / "calibration.svg").write_text(calibration_svg(study))


if __name__ == "__main__":
    main()
