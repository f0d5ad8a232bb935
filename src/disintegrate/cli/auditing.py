"""`disintegrate audit`."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from disintegrate.cli.audit_log import audited_log, print_log
from disintegrate.cli.audit_targets import Asked, Subject, Words, subject_of
from disintegrate.cli.engines import Asking, EngineName
from disintegrate.cli.reporting import write_page
from disintegrate.cli.root import Bars, app, bars
from disintegrate.cli.settings_file import read_flags
from disintegrate.cli.terminal import new_table, screen
from disintegrate.errors import InvalidValue

if TYPE_CHECKING:
    from disintegrate import AuditResult
    from disintegrate.audit import Stop

LEAK = 3
# Inputs at which each change is tried.
REMEDIED = 32
# Inputs that the page shows.
SHOWN = 6
KEPT = "Stopped. What an endpoint has answered is kept; the same command goes on behind it."
# The verdicts that fail, for each choice of `--fail-on`.
FAILING = {"leaks": ("leaks",), "partly": ("leaks", "partly"), "never": ()}


class FailOn(StrEnum):
    """The verdict from which on the command fails."""

    LEAKS = "leaks"
    PARTLY = "partly"
    NEVER = "never"


class InDoubt(StrEnum):
    """What becomes of queries that may have been paid for without an answer: `clients.Doubt`, too slow for `--help`."""

    LEAVE = "leave"
    ASK = "ask"


@app.command()
def audit(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="TARGET",
            help="An endpoint, such as kserve+http://127.0.0.1:8080/v1/models/lenet, a model file, a network, "
            "captum:package.module:function, or with --log the model behind it, if it is at hand.",
        ),
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(
            help="Inputs: .npy, .npz, .safetensors, .parquet, .csv, or a folder of images. [default: digits of MNIST]"
        ),
    ] = None,
    columns: Annotated[str | None, typer.Option(help="Columns of a table, such as a,b,c. [default: all]")] = None,
    normalise: Annotated[
        str | None, typer.Option(help="Images: mean and deviation of pixels in [0, 1], such as 0.1307,0.3081.")
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option(
            help="A TOML file of these options, such as budget = 5; flags win over it.",
            is_eager=True,
            callback=read_flags,
        ),
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(help="Ask nothing: what gives this log away? .jsonl, .npz or .parquet of explanations."),
    ] = None,
    images: Annotated[int, typer.Option(help="So many of the inputs.", min=1)] = 100,
    output: Annotated[int, typer.Option(help="The output that an endpoint explains.", min=0)] = 0,
    budget: Annotated[int, typer.Option(help="The most queries for one gradient.", min=1)] = 10,
    key_file: Annotated[
        Path | None, typer.Option(help="A file with the endpoint's API key. [default: $DISINTEGRATE_KEY]")
    ] = None,
    journal: Annotated[
        Path | None,
        typer.Option(help="Keep answers here, and ask none again. [default: an endpoint's, until the audit has ended]"),
    ] = None,
    in_doubt: Annotated[
        InDoubt, typer.Option(help="Queries that may have been paid for without an answer: leave them, or ask again.")
    ] = InDoubt.LEAVE,
    engine: Annotated[
        EngineName, typer.Option(help="Who asks: this process, others beside it, or actors of Ray.")
    ] = EngineName.LOCAL,
    workers: Annotated[int, typer.Option(help="How many processes or actors.", min=1)] = 2,
    ray_address: Annotated[str | None, typer.Option(help="A Ray cluster that runs. [default: one here]")] = None,
    rate: Annotated[float | None, typer.Option(help="Endpoint: queries a second, over all workers.")] = None,
    most_queries: Annotated[
        int | None, typer.Option(help="Endpoint: queries in all, over all runs with this journal.", min=1)
    ] = None,
    architecture: Annotated[str | None, typer.Option(help="Model: what weights are for.")] = None,
    trust_model: Annotated[bool, typer.Option("--trust-model", help="Model: load a file that could run code.")] = False,
    rule: Annotated[
        str | None, typer.Option(help="The service's rule, or its library. [default: captum, or an endpoint's probe]")
    ] = None,
    steps: Annotated[
        str | None, typer.Option(help="Steps that its callers may set, such as 20-100; 50: they may not.")
    ] = None,
    baseline: Annotated[bool | None, typer.Option(help="Whether its callers may set a baseline.")] = None,
    probabilities: Annotated[
        bool | None, typer.Option("--probabilities/--logits", help="What it explains; a model gets a softmax.")
    ] = None,
    digits: Annotated[int | None, typer.Option(help="Significant digits of its answers. [default: all]")] = None,
    fail_on: Annotated[FailOn, typer.Option(help="Exit with 3 from this verdict on.")] = FailOn.PARTLY,
    remedies: Annotated[bool, typer.Option(help="Try what stops it, at a few of the inputs.")] = True,
    out: Annotated[Path | None, typer.Option(help="Write the record here.")] = None,
    page: Annotated[Path | None, typer.Option(help="Write the page of the record here.")] = None,
    sarif: Annotated[Path | None, typer.Option(help="Write the verdict as SARIF here.")] = None,
    seed: Annotated[int, typer.Option(help="For the directions that are asked.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record instead of sentences.")] = False,
) -> None:
    """Say whether an endpoint that you own gives its model's gradients away, by which queries.

    A model is audited behind a service of its own with the settings given; what they say of an endpoint is confirmed,
    and what they do not say probed. Exit code 3 where it leaks.
    """
    if log is not None and page is not None:
        raise InvalidValue("An audit of a log has no page.", got="--page", instead="Write its record: --out FILE.")
    if log is not None:
        found_there = audited_log(log, target, rule, steps, architecture, trust_model)
        record = {"target": str(log), **found_there.record()}
        _write(record, out, sarif, as_json)
        if not as_json:
            print_log(found_there)
        _end(record, fail_on)
    if target is None:
        raise InvalidValue("There is nothing to audit.", got="no TARGET", instead="Name an endpoint, a model or --log.")
    from disintegrate import audit as run
    from disintegrate.audit import provenance

    asked = Asked(inputs, images, _listed(columns), _pair(normalise))
    words = Words(rule, steps, baseline, probabilities, digits)
    asking = Asking(engine, workers, ray_address, rate, most_queries, journal, in_doubt.value, key_file)
    with ExitStack() as held, bars(KEPT) as progress:
        subject = subject_of(target, asked, words, output, asking, architecture, trust_model, seed, held, progress)
        found = run(
            subject.explainer, subject.inputs, subject.targets, model=subject.model, probed=subject.probed,
            said=subject.said, budget=budget, seed=seed, examples=SHOWN, engine=asking.by(subject.source),
            progress=progress,
        )  # fmt: skip
        stops = () if not remedies else _remedies(subject, found, budget, seed, progress)
    record = {"target": target, **found.record(), "what_stops_it": [stop.record() for stop in stops],
              "run": provenance(sys.argv[1:], target, subject.inputs, subject.weights_sha256)}  # fmt: skip
    _write(record, out, sarif, as_json)
    if page is not None:
        from disintegrate.audit import record_of
        from disintegrate.report import render_audit

        write_page(page, render_audit(record_of(record)))
    if not as_json:
        _print(found)
        _print_remedies(stops)
    _end(record, fail_on)


def _write(record: dict[str, Any], out: Path | None, sarif: Path | None, as_json: bool) -> None:
    from disintegrate.audit import sarif as as_sarif
    from disintegrate.audit import written
    from disintegrate.files import write_atomically

    if out is not None:
        write_atomically(out, written(record).encode())
    if sarif is not None:
        write_atomically(sarif, (json.dumps(as_sarif(record, record["target"]), indent=1) + "\n").encode())
    if as_json:
        print(json.dumps(record))


def _end(record: dict[str, Any], fail_on: FailOn) -> NoReturn:
    """Exit as the verdict says."""
    if record["verdict"] in FAILING[fail_on.value]:
        raise typer.Exit(LEAK)
    raise typer.Exit


def _listed(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(part.strip() for part in text.split(","))


def _pair(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        mean, deviation = (float(part) for part in text.split(","))
    except ValueError:
        mean = deviation = 0.0
    if not deviation > 0:
        raise InvalidValue(
            "Images are normalised by a mean and a deviation.", got=repr(text), instead="Use --normalise 0.1307,0.3081."
        )
    return mean, deviation


def _remedies(subject: Subject, found: AuditResult, budget: int, seed: int, progress: Bars) -> tuple[Stop, ...]:
    from disintegrate.audit import what_stops

    if found.capabilities is None:
        return ()
    return what_stops(
        found.capabilities, subject.inputs[:REMEDIED], subject.targets[:REMEDIED], model=subject.model,
        service=subject.explainer, baseline=found.baseline, budget=budget, seed=seed, progress=progress,
    )  # fmt: skip


def _print_remedies(stops: tuple[Stop, ...]) -> None:
    if not stops:
        return
    table = new_table("what the owner does", "verdict", "median distance", "queries", "the paper's formula",
                  "rank correlation", "top tenth kept")  # fmt: skip
    for stop in stops:
        judgement, shown = stop.judgement, stop.explanation
        worth = (f"{shown.rank_correlation:.3f}", f"{shown.top_overlap:.0%}") if shown else ("", "")
        verdict = judgement.verdict.value if stop.measured else f"{judgement.verdict.value} (predicted)"
        formula = f"{stop.paper.judgement.verdict.value} {stop.paper.equation}"
        queries = str(judgement.queries_per_gradient)
        table.add_row(stop.words, verdict, f"{judgement.median_distance:.2g}", queries, formula, *worth)
    screen().print(table)
    if asked := sum(stop.queries for stop in stops):
        screen().print(f"What hangs on the model was tried on the endpoint itself, by {asked} queries.")


def _print(found: AuditResult) -> None:
    console = screen()
    style = {"leaks": "bold red", "partly": "bold yellow", "not shown": "bold"}[found.judgement.verdict.value]
    console.print(found.judgement.sentence, style=style, highlight=False)
    for note in found.notes:
        console.print(note, highlight=False)
    table = new_table(header=False)
    rows = {"queries spent": str(found.queries)}
    if found.capabilities is not None:
        rows |= {"rule": found.capabilities.rule, "steps": str(found.capabilities.own_steps)}
    if found.check is not None:
        rows |= {"held against": found.check.value, "median distance": f"{found.judgement.median_distance:.2g}",
                 "effective bits of a coordinate": f"{found.judgement.bits:.1f}",
                 "coordinates observed": f"{found.observed.mean():.0%}"}  # fmt: skip
    if found.proposal is not None:
        rows["plan"] = f"{found.proposal.way.value}; {found.proposal.measure.exactness.value}"
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)
