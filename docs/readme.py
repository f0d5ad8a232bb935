"""Write the README's picture and figures anew from the records of the full run: `python docs/readme.py`."""

import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from disintegrate.paper.records import Cell, Drawing, Run, load_run
from disintegrate.report.findings import number

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "reproduction"
BEGIN, END = "<!-- figures: docs/readme.py -->", "<!-- end of figures -->"
FAR_BEGIN, FAR_END = "<!-- far out: docs/readme.py -->", "<!-- end of far out -->"
SPEED_BEGIN, SPEED_END = "<!-- speed: docs/readme.py -->", "<!-- end of speed -->"
FAR_RULES = ("captum_gausslegendre", "riemann_right", "trapezoid")
PAPERS_OWN = ("bias_free", "step_count", "shared_piece")


def figures(run: Run, cells: list[Cell]) -> str:
    """The table of the README: for each network, the paper's own recovery and one query with one step."""
    by_name = {(cell.provenance.network, cell.method): cell for cell in cells if cell.provenance.seed == 0}
    lines = [
        "| network | accuracy | plan | queries | the paper | measured | median |",
        "|---|---|---|---|---|---|---|",
    ]
    for network in run.networks:
        for method in (*PAPERS_OWN, "single_step"):
            if (cell := by_name.get((network, method))) is None:
                continue
            claimed = number(cell.claimed.mean) if cell.claimed else "-"
            queries = 1 if method in ("bias_free", "single_step") else 2
            lines.append(
                f"| {network} | {cell.provenance.accuracy:.2%} | {cell.title} | {queries} | {claimed} | "
                f"**{number(cell.measured.mean)}** | {number(cell.measured.median)} |"
            )
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    setting = f"Mean distance over {run.images} test images, float32, m = 50, seed 0; `{run.command}` ({versions})."
    return "\n".join([BEGIN, setting, "", *lines, END])


def speed() -> str:
    """How fast gradients are beside Captum's, from the benchmark's record."""
    record = json.loads((ROOT / "results" / "gradients.json").read_text())
    rows = record["networks"]
    lines = [
        "| network | images | speed, of Captum's | peak memory, of Captum's default | of the machine's peak |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        cells = (row["ratio_to_captum"], row["memory_against_captum_default"], row["share_of_peak"]["ours"])
        lines.append(f"| {row['network']} | {row['images']} | {cells[0]:.1f} | {cells[1]:.2f} | {cells[2]:.2f} |")
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    setting = (
        f"Gradients a second against Captum's with its best batch size, m = {rows[0]['steps']}, medians of "
        f"{rows[0]['rounds']} rounds in turns in one process, {record['threads']} threads; `{record['command']}` "
        f"({versions}). More than the machine's peak has a network of which not all is computed at every step."
    )
    return "\n".join([SPEED_BEGIN, setting, "", *lines, SPEED_END])


def far_out() -> str:
    """What a service that fixes everything gives away when it explains logits, and when it explains probabilities."""
    record = json.loads((ROOT / "results" / "far_out.json").read_text())
    lines = [
        "| network | the service's rule | images | queries | logits | probabilities | these, within the input |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        if row["rule"] not in FAR_RULES:
            continue
        three = (row[name]["median_distance"] for name in ("logits", "probabilities", "probabilities_within_the_input"))
        logits, soft, within = (number(each) for each in three)
        lines.append(
            f"| {row['network']} | {row['rule']}, {row['steps']} steps | {row['images']} | "
            f"{row['probabilities']['queries']} | {logits} | **{soft}** | {within} |"
        )
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    setting = (
        f"Median distance, float32, a budget of {record['budget']} queries; rule, steps and baseline fixed by the "
        f"service; `{record['command']}` ({versions})."
    )
    return "\n".join([FAR_BEGIN, setting, "", *lines, FAR_END])


def with_figures(readme: str, block: str) -> str:
    """The README with a block in place of the one between the same marks."""
    begin, end = block.splitlines()[0], block.splitlines()[-1]
    before, rest = readme.split(begin)
    return before + block + rest.split(end)[1]


def picture(drawing: Drawing) -> Figure:
    """What the service answers, what is recovered from it, and the true gradient."""
    row = next(row for row in drawing.data["rows"] if row["title"] == "B: LeNet")
    titles = {
        "Integrated Gradients": "what the service answers",
        "recovered": "what two answers give away",
        "vanilla gradient": "the model's gradient",
    }
    figure = Figure(figsize=(7.2, 2.6), layout="constrained", facecolor="white")
    for axes, (key, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
        axes.imshow(np.array(row[key]), cmap="gray", interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.set_title(title, fontsize=11)
    return figure


def main() -> None:
    """Write both."""
    run, records = load_run(RESULTS)
    readme = ROOT / "README.md"
    block = figures(run, [record for record in records if isinstance(record, Cell)])
    text = readme.read_text()
    for each in (block, speed(), far_out()):
        text = with_figures(text, each)
    readme.write_text(text)
    drawing = next(record for record in records if isinstance(record, Drawing) and record.figure == "4")
    picture(drawing).savefig(ROOT / "docs" / "leak.png", dpi=110)


if __name__ == "__main__":
    main()
