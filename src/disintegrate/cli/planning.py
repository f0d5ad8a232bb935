"""`disintegrate plan`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from disintegrate.cli.root import app
from disintegrate.cli.terminal import new_table, screen
from disintegrate.errors import InvalidValue, UnknownName

if TYPE_CHECKING:
    from disintegrate.explainers import Capabilities, Wire
    from disintegrate.planner import Proposal

DTYPES = ("float16", "float32", "float64")


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
    allowed = capabilities_of(rule, steps, baseline=baseline, furthest=furthest, dtype=dtype, wire=wire)
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


def capabilities_of(
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
    fewest, most = steps_of(steps)
    if dtype not in DTYPES or (wire.dtype or dtype) not in DTYPES:
        raise UnknownName(
            "There is no such type.", got=wire.dtype or dtype, instead=f"Choose from {', '.join(DTYPES)}."
        )
    return Capabilities(name, fewest, most, baseline=baseline, dtype=dtype, furthest=furthest, wire=wire)


def steps_of(text: str) -> tuple[int, int]:
    """The fewest and the most steps that an option names, such as 50 or 20-100."""
    fewest, _, most = text.partition("-")
    most = most or fewest
    if not fewest.isdigit() or not most.isdigit():
        raise InvalidValue("Steps are a number, or two.", got=repr(text), instead="Use --steps 50, or --steps 20-100.")
    return int(fewest), int(most)


def _print_proposal(found: Proposal) -> None:
    from disintegrate.report.findings import number
    from disintegrate.report.ray import measure_text

    table = new_table("coefficient", "from", "to", "steps")
    for term in found.plan:
        ends = (f"{term.query.start:.9g}", f"{term.query.stop:.9g}")
        table.add_row(f"{term.coefficient:.9g}", *ends, str(term.query.steps))
    console = screen()
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
