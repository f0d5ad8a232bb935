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
from disintegrate.errors import DisintegrateError, InvalidValue, UnknownName

if TYPE_CHECKING:
    import numpy as np

    from disintegrate import Explainer, ProbeResult
    from disintegrate.explainers import Capabilities, Wire
    from disintegrate.paper.reproduce import Reproduction
    from disintegrate.planner import Proposal

DTYPES = ("float16", "float32", "float64")

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
def plan(
    rule: Annotated[str, typer.Option(help="The service's quadrature rule, or the library that it runs.")] = "captum",
    steps: Annotated[
        str | None, typer.Option(help="Steps that a caller may ask for, such as 50 or 20-100. [default: the library's]")
    ] = None,
    baseline: Annotated[bool, typer.Option(help="Whether a caller may set the baseline.")] = False,
    furthest: Annotated[float, typer.Option(help="How far out on a ray a caller may ask; the input is at 1.")] = 2.0,
    dtype: Annotated[str, typer.Option(help="The type in which inputs are sent and the service computes.")] = "float32",
    digits: Annotated[int | None, typer.Option(help="Significant digits of the answers. [default: all]")] = None,
    decimals: Annotated[int | None, typer.Option(help="Decimals of the answers. [default: all]")] = None,
    answers: Annotated[str | None, typer.Option(help="The type of the answers, such as float16.")] = None,
    budget: Annotated[int, typer.Option(help="The most queries for one input.")] = 10,
    magnitude: Annotated[
        float | None,
        typer.Option(help="Norm of the gradient over that of 1 / (x - b), which decimals are measured against."),
    ] = None,
    svg: Annotated[Path | None, typer.Option(help="Write a picture of the plan's measure here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Print the best plan for what a service permits: its queries, what it is exact for, the error to expect."""
    from disintegrate.explainers import Wire
    from disintegrate.files import write_atomically
    from disintegrate.noise import noise_of
    from disintegrate.planner import propose
    from disintegrate.report.ray import measure_svg

    wire = Wire(dtype=answers, significant_digits=digits, decimals=decimals)
    allowed = _capabilities(rule, steps, baseline=baseline, furthest=furthest, dtype=dtype, wire=wire)
    if decimals is not None and magnitude is None:
        raise InvalidValue(
            "Decimals cost accuracy according to the size of the attributions.",
            got="--decimals without --magnitude",
            instead="Give --magnitude, or --digits for significant digits.",
        )
    noise = noise_of(allowed, gradient_norm=magnitude) if magnitude is not None else noise_of(allowed)
    found = propose(allowed, budget=budget, noise=noise)
    if svg is not None:
        write_atomically(svg, measure_svg(found.measure).encode())
    if as_json:
        print(
            json.dumps(
                {
                    "rule": allowed.rule,
                    "plan": json.loads(found.plan.to_json()),
                    "way": found.way.value,
                    "exactness": found.measure.exactness.value,
                    "amplification": found.plan.amplification,
                    "predicted_error": found.predicted_error,
                    "mass": found.measure.mass,
                }
            )
        )
        return
    _print_proposal(found)


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


def _capabilities(
    rule: str, steps: str | None, *, baseline: bool, furthest: float, dtype: str, wire: Wire
) -> Capabilities:
    """What the options say of a service; a library's name stands for its rule and its steps."""
    from disintegrate.explainers import Capabilities
    from disintegrate.rules import PRESETS, rule_named

    preset = PRESETS.get(rule)
    name = preset.rule if preset else rule
    rule_named(name)
    if steps is None:
        steps = str(preset.steps) if preset else "1-100"
    fewest, _, most = steps.partition("-")
    if not fewest.isdigit() or not (most or fewest).isdigit():
        raise InvalidValue("Steps are a number, or two.", got=repr(steps), instead="Use --steps 50, or --steps 20-100.")
    if dtype not in DTYPES or (wire.dtype or dtype) not in DTYPES:
        raise UnknownName(
            "There is no such type.", got=wire.dtype or dtype, instead=f"Choose from {', '.join(DTYPES)}."
        )
    return Capabilities(
        name, int(fewest), int(most or fewest), baseline=baseline, dtype=dtype, furthest=furthest, wire=wire
    )


def _print_proposal(found: Proposal) -> None:
    from disintegrate.report.findings import number
    from disintegrate.report.ray import measure_text

    table = Table("coefficient", "from", "to", "steps", box=SIMPLE_HEAD, pad_edge=False)
    for term in found.plan:
        ends = (f"{term.query.start:.9g}", f"{term.query.stop:.9g}")
        table.add_row(f"{term.coefficient:.9g}", *ends, str(term.query.steps))
    console = Console()
    count = "1 query" if len(found.plan) == 1 else f"{len(found.plan)} queries"
    console.print(f"[bold]{_sentence(found.way.value)}[/bold] {count} for each input:")
    console.print(table)
    print(_sentence(found.measure.exactness.value))
    print(
        f"Amplification {number(found.plan.amplification)}; distance to expect {number(found.predicted_error)} "
        "(0: the gradient itself; 1.414: unrelated)."
    )
    print(measure_text(found.measure))


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


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
