"""`disintegrate audit`."""

from __future__ import annotations

import json
import math
from contextlib import ExitStack
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from disintegrate.cli.planning import capabilities_of
from disintegrate.cli.root import Bars, app, bars, errors, names_endpoint

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from disintegrate import AuditResult, Explainer, Output, ProbeResult
    from disintegrate.audit import Stop

LEAK, EXAMPLES = 3, 4
# Inputs at which each change is tried.
REMEDIED = 32
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


@dataclass(frozen=True, eq=False)
class _Subject:
    """What is audited."""

    explainer: Explainer
    inputs: np.ndarray
    targets: np.ndarray
    model: nn.Module | None = None
    probed: ProbeResult | None = None


@app.command()
def audit(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="An endpoint, such as kserve+http://127.0.0.1:8080/v1/models/lenet, a model file, or a network.",
        ),
    ],
    inputs: Annotated[
        Path | None, typer.Option(help="Inputs: .npy, .npz, .safetensors or .csv. [default: digits of MNIST]")
    ] = None,
    images: Annotated[int, typer.Option(help="So many of the inputs.", min=1)] = 100,
    output: Annotated[int, typer.Option(help="The output that an endpoint explains.", min=0)] = 0,
    budget: Annotated[int, typer.Option(help="The most queries for one gradient.", min=1)] = 10,
    key_file: Annotated[
        Path | None, typer.Option(help="A file with the endpoint's API key. [default: $DISINTEGRATE_KEY]")
    ] = None,
    journal: Annotated[
        Path | None, typer.Option(help="Keep paid answers here, and ask none of them again; a probe is made anew.")
    ] = None,
    in_doubt: Annotated[
        InDoubt, typer.Option(help="Queries that may have been paid for without an answer: leave them, or ask again.")
    ] = InDoubt.LEAVE,
    architecture: Annotated[str | None, typer.Option(help="Model: what weights are for.")] = None,
    trust_model: Annotated[bool, typer.Option("--trust-model", help="Model: load a file that could run code.")] = False,
    rule: Annotated[str, typer.Option(help="Model: the rule of its service, or the library.")] = "captum",
    steps: Annotated[str | None, typer.Option(help="Model: steps that callers may set, such as 50 or 20-100.")] = None,
    baseline: Annotated[bool, typer.Option(help="Model: whether callers may set a baseline.")] = False,
    probabilities: Annotated[bool, typer.Option(help="Model: explain probabilities, behind a softmax.")] = False,
    digits: Annotated[int | None, typer.Option(help="Model: significant digits of answers. [default: all]")] = None,
    fail_on: Annotated[FailOn, typer.Option(help="Exit with 3 from this verdict on.")] = FailOn.PARTLY,
    remedies: Annotated[bool, typer.Option(help="Try what stops it, at a few of the inputs.")] = True,
    out: Annotated[Path | None, typer.Option(help="Write the record here.")] = None,
    sarif: Annotated[Path | None, typer.Option(help="Write the verdict as SARIF here.")] = None,
    seed: Annotated[int, typer.Option(help="For the directions that are asked.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record instead of sentences.")] = False,
) -> None:
    """Say whether an endpoint that you own gives its model's gradients away, by which queries.

    A model is audited behind a service of its own with the settings given. Exit code 3 where it leaks.
    """
    from disintegrate import audit as run
    from disintegrate.audit import sarif as as_sarif
    from disintegrate.files import write_atomically

    with ExitStack() as held, bars() as progress:
        if names_endpoint(target):
            subject = _endpoint(target, inputs, images, output, key_file, journal, in_doubt, seed, held, progress)
        else:
            served = (rule, steps, baseline, probabilities, digits)
            subject = _model(target, inputs, images, architecture, trust_model, served)
        found = run(
            subject.explainer, subject.inputs, subject.targets, model=subject.model, probed=subject.probed,
            budget=budget, seed=seed, progress=progress,
        )  # fmt: skip
        stops = () if not remedies else _remedies(subject, found, budget, seed, progress)
    record = {"target": target, **found.record(), "what_stops_it": [stop.record() for stop in stops]}
    if out is not None:
        write_atomically(out, (json.dumps(record, indent=1) + "\n").encode())
    if sarif is not None:
        write_atomically(sarif, (json.dumps(as_sarif(record, target), indent=1) + "\n").encode())
    if as_json:
        print(json.dumps(record))
    else:
        _print(found)
        _print_remedies(stops)
    if found.judgement.verdict.value in FAILING[fail_on.value]:
        raise typer.Exit(LEAK)


def _endpoint(
    target: str,
    inputs: Path | None,
    images: int,
    output: int,
    key_file: Path | None,
    journal: Path | None,
    in_doubt: InDoubt,
    seed: int,
    held: ExitStack,
    progress: Bars,
) -> _Subject:
    import numpy as np

    from disintegrate import probe
    from disintegrate.clients import Doubt, Journal, Retrying, careful, connect, read_credentials

    remote = held.enter_context(connect(target, credentials=read_credentials(key_file)))
    asked = _asked(inputs, images, None)
    targets = np.full(len(asked), output)
    # a probe asks questions twice on purpose, which a journal would not let out
    found = probe(Retrying(remote), asked[:EXAMPLES], targets[:EXAMPLES], seed=seed, progress=progress)
    service: Explainer = Retrying(remote)
    if journal is not None:
        kept = held.enter_context(Journal(journal))
        service = careful(remote, kept, target, in_doubt=Doubt(in_doubt.value))
        counts = kept.counts()
        if counts.answered or counts.in_doubt:
            note = f"The journal holds {counts.answered} answers; {counts.in_doubt} queries are in doubt."
            errors.print(note)
    return _Subject(service, asked, targets, probed=found)


def _model(
    target: str,
    inputs: Path | None,
    images: int,
    architecture: str | None,
    trust: bool,
    served: tuple[str, str | None, bool, bool, int | None],
) -> _Subject:
    import torch
    from torch import nn

    from disintegrate import LocalExplainer, Wire, Wired, load_model

    rule, steps, baseline, probabilities, digits = served
    loaded = load_model(target, architecture=architecture, trust=trust)
    model = nn.Sequential(loaded.module, nn.Softmax(1)).eval() if probabilities else loaded.module
    wire = Wire(significant_digits=digits)
    allowed = capabilities_of(rule, steps, baseline=baseline, furthest=math.inf, dtype="float32", wire=Wire())
    asked = _asked(inputs, images, loaded.input_shape)
    with torch.no_grad():
        targets = model(torch.tensor(asked)).argmax(1).numpy()
    local = LocalExplainer(model, replace(allowed, output=_output(probabilities)))
    return _Subject(Wired(local, wire) if digits is not None else local, asked, targets, model)


def _output(probabilities: bool) -> Output:
    from disintegrate import Output

    return Output.PROBABILITIES if probabilities else Output.LOGITS


def _asked(inputs: Path | None, images: int, shape: tuple[int, ...] | None) -> np.ndarray:
    from disintegrate.audit.inputs import read_inputs

    if inputs is not None:
        return read_inputs(inputs, shape)[:images]
    from disintegrate.paper import mnist

    return mnist.load("test").first(images).normalised()


def _remedies(subject: _Subject, found: AuditResult, budget: int, seed: int, progress: Bars) -> tuple[Stop, ...]:
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
    table = Table("what the owner does", "verdict", "median distance", "queries", "the paper's formula",
                  "rank correlation", "top tenth kept", box=SIMPLE_HEAD, pad_edge=False)  # fmt: skip
    for stop in stops:
        judgement, shown = stop.judgement, stop.explanation
        worth = (f"{shown.rank_correlation:.3f}", f"{shown.top_overlap:.0%}") if shown else ("", "")
        verdict = judgement.verdict.value if stop.measured else f"{judgement.verdict.value} (predicted)"
        formula = f"{stop.paper.judgement.verdict.value} {stop.paper.equation}"
        queries = str(judgement.queries_per_gradient)
        table.add_row(stop.words, verdict, f"{judgement.median_distance:.2g}", queries, formula, *worth)
    Console().print(table)
    if asked := sum(stop.queries for stop in stops):
        Console().print(f"What hangs on the model was tried on the endpoint itself, by {asked} queries.")


def _print(found: AuditResult) -> None:
    console = Console()
    style = {"leaks": "bold red", "partly": "bold yellow", "not shown": "bold"}[found.judgement.verdict.value]
    console.print(found.judgement.sentence, style=style, highlight=False)
    table = Table(show_header=False, box=SIMPLE_HEAD, pad_edge=False)
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
