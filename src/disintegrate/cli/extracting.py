"""`disintegrate extract`."""

from __future__ import annotations

import json
from contextlib import ExitStack
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from disintegrate.cli.copy_targets import Reached, Settings, copied, points, untrained
from disintegrate.cli.root import Bars, app, bars
from disintegrate.errors import InvalidValue

if TYPE_CHECKING:
    from disintegrate import Capabilities
    from disintegrate.extraction import Extraction, Method


class Means(StrEnum):
    """How the copy is made."""

    UNITS = "units"
    LAYERS = "layers"
    EXPLANATIONS = "explanations"
    OUTPUTS = "outputs"


@app.command()
def extract(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="A model file, a network, or an endpoint such as kserve+http://127.0.0.1:8080/v1/models/lenet.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Write the copy here, .safetensors, and its record beside it, .json.")],
    own: Annotated[
        bool, typer.Option("--i-own-this-model", help="Say that an endpoint's model is yours to copy.")
    ] = False,
    by: Annotated[
        Means,
        typer.Option(
            help="Exactly, units of one hidden layer or both of two layers; or a student, from explanations or outputs."
        ),
    ] = Means.UNITS,
    student: Annotated[
        str | None, typer.Option(help="What a student is: a network's name, or python:package.module:function.")
    ] = None,
    classes: Annotated[int, typer.Option(help="Outputs of the model.", min=1)] = 10,
    inputs: Annotated[
        Path | None, typer.Option(help="Inputs: .npy, .npz, .safetensors or .csv. [default: digits of MNIST]")
    ] = None,
    images: Annotated[int, typer.Option(help="Inputs that may be asked about.", min=1)] = 50,
    held_out: Annotated[int, typer.Option(help="Inputs behind them that the copy is scored on.", min=1)] = 100,
    budget: Annotated[int | None, typer.Option(help="The most explanations. [default: any number]", min=1)] = None,
    steps_trained: Annotated[int, typer.Option(help="Steps of a student's training.", min=1)] = 3000,
    key_file: Annotated[
        Path | None, typer.Option(help="A file with the endpoint's API key. [default: $DISINTEGRATE_KEY]")
    ] = None,
    journal: Annotated[
        Path | None, typer.Option(help="Keep an endpoint's paid answers here, and ask none of them again.")
    ] = None,
    architecture: Annotated[str | None, typer.Option(help="Model: what weights are for.")] = None,
    trust_model: Annotated[bool, typer.Option("--trust-model", help="Model: load a file that could run code.")] = False,
    rule: Annotated[str, typer.Option(help="The service's quadrature rule, or the library that it runs.")] = "captum",
    steps: Annotated[str | None, typer.Option(help="Steps that callers may set, such as 50 or 20-100.")] = None,
    baseline: Annotated[bool, typer.Option(help="Whether callers may set a baseline.")] = False,
    probabilities: Annotated[bool, typer.Option(help="Whether probabilities are explained.")] = False,
    seed: Annotated[int, typer.Option(help="For what is asked, and a student's weights.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record instead of a sentence.")] = False,
) -> None:
    """Copy a model that you own from what its service answers, to learn what a copy costs.

    A model file is served in this process with the settings given. Of an endpoint, say with --i-own-this-model that it
    is yours; nothing is asked otherwise.
    """
    from disintegrate.extraction import extract as run

    settings = Settings(rule, steps, baseline, probabilities)
    reached = Reached(own, key_file, journal, architecture, trust_model)
    with ExitStack() as held, bars() as progress:
        service = copied(target, settings, reached, held)
        given = points(inputs, images, held_out, service.shape)
        method = _method(by, student, classes, settings.capabilities(), steps_trained, seed, out, progress)
        found = run(
            method, service.explainer, given.asked, given.held_out, service.model, name=by.value,
            labels=given.labels, budget=budget,
        )  # fmt: skip
    _write(found, target, out)
    if as_json:
        print(json.dumps(found.record()))
    else:
        _print(found, out)


def _method(
    by: Means, student: str | None, classes: int, allowed: Capabilities, steps: int, seed: int, out: Path,
    progress: Bars,
) -> Method:  # fmt: skip
    from disintegrate import propose
    from disintegrate.extraction import Learnt, Pause, Training, one_hidden_layer, two_hidden_layers
    from disintegrate.extraction import student as train

    if by in (Means.UNITS, Means.LAYERS):
        exact = one_hidden_layer if by is Means.UNITS else two_hidden_layers
        return partial(exact, classes=classes, plan=propose(allowed), seed=seed)
    if student is None:
        raise InvalidValue("A student needs an architecture.", got="none", instead="Give --student LeNet.")
    learnt = Learnt.GRADIENTS if by is Means.EXPLANATIONS else Learnt.LOGITS
    pause = Pause(out.with_suffix(".unfinished.safetensors"))
    return partial(
        train, classes=classes, network=partial(untrained, student, seed), plan=propose(allowed), learnt=learnt,
        training=Training(steps=steps), seed=seed, pause=pause, progress=progress,
    )  # fmt: skip


def _write(found: Extraction, target: str, out: Path) -> None:
    from safetensors.torch import save

    from disintegrate.files import write_atomically

    record = {"target": target, **found.record()}
    weights = {name: value.detach().contiguous() for name, value in found.copy.state_dict().items()}
    write_atomically(out, save(weights))
    write_atomically(out.with_suffix(".json"), (json.dumps(record, indent=1) + "\n").encode())
    out.with_suffix(".unfinished.safetensors").unlink(missing_ok=True)


def _print(found: Extraction, out: Path) -> None:
    like = found.likeness
    end = "" if found.complete else " The budget ended before the method did."
    print(
        f"{found.queries} explanations of {found.points} points made a copy that agrees with the model on "
        f"{like.agreement:.2%} of {like.inputs} other inputs; largest error of a logit {like.largest_error:.2g}, "
        f"mean {like.mean_error:.2g}.{end} {out} holds it."
    )
