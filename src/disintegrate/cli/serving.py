"""`disintegrate serve` and `disintegrate new-key`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from disintegrate.cli.root import app
from disintegrate.errors import InvalidValue


@app.command()
def serve(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A model file, a Hugging Face directory, python:package.module:function, or a network of the paper.",
        ),
    ],
    architecture: Annotated[
        str | None,
        typer.Option(help="What weights are for: a network of the paper, or python:package.module:function."),
    ] = None,
    trust_model: Annotated[
        bool, typer.Option("--trust-model", help="Load a file that could run code on this machine.")
    ] = False,
    settings: Annotated[Path | None, typer.Option(help="A TOML file of settings; flags win over it.")] = None,
    name: Annotated[str | None, typer.Option(help="The model's name in paths. [default: model]")] = None,
    rule: Annotated[
        str | None, typer.Option(help="Quadrature rule, or the library that it is of. [default: captum]")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="The service's own steps. [default: the library's, or 50]")] = None,
    steps_allowed: Annotated[
        str | None, typer.Option(help="Steps that callers may set, such as 20-100. [default: none]")
    ] = None,
    caller_baseline: Annotated[
        bool | None, typer.Option("--caller-baseline/--own-baseline", help="Whether callers may set a baseline.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="The service's own baseline, an .npy file. [default: zero]")
    ] = None,
    overrides: Annotated[
        str | None, typer.Option(help="What callers may not set: refuse or ignore it. [default: refuse]")
    ] = None,
    values: Annotated[
        str | None, typer.Option(help="Smallest and largest coordinate taken, such as 0:1. [default: any]")
    ] = None,
    probabilities: Annotated[
        bool | None, typer.Option("--probabilities/--logits", help="Explain probabilities, behind a softmax.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="The type to compute in. [default: the model's]")] = None,
    answers: Annotated[str | None, typer.Option(help="The type of the answers, such as float16.")] = None,
    digits: Annotated[int | None, typer.Option(help="Significant digits of the answers. [default: all]")] = None,
    decimals: Annotated[int | None, typer.Option(help="Decimals of the answers. [default: all]")] = None,
    noise: Annotated[float | None, typer.Option(help="Standard deviation of noise on attributions.")] = None,
    top_outputs: Annotated[int | None, typer.Option(help="Show and explain only so many of the largest.")] = None,
    input_shape: Annotated[
        str | None, typer.Option(help="Shape of one input, such as 1,28,28. [default: the model's]")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; beyond loopback only with keys.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for any.", min=0, max=65535)] = 8080,
    keys: Annotated[Path | None, typer.Option(help="A TOML file of API keys, as `new-key` prints them.")] = None,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, ...")] = "cpu",
    quiet: Annotated[bool, typer.Option("--quiet", help="Log warnings only.")] = False,
) -> None:
    """Serve explanations of a model over KServe V1, Open Inference V2 and Vertex, on loopback unless told otherwise."""
    flags: dict[str, Any] = {
        "name": name,
        "rule": rule,
        "steps": steps,
        "steps_allowed": None if steps_allowed is None else _pair(steps_allowed, "-", "--steps-allowed 20-100"),
        "caller_baseline": caller_baseline,
        "overrides": overrides,
        "output": None if probabilities is None else "probabilities" if probabilities else "logits",
        "dtype": dtype,
        "answers": answers,
        "significant_digits": digits,
        "decimals": decimals,
        "noise": noise,
        "top_outputs": top_outputs,
        "input_shape": None if input_shape is None else input_shape.split(","),
    }
    if values is not None:
        flags["smallest_value"], flags["largest_value"] = _pair(values, ":", "--values 0:1")
    given = {name: value for name, value in flags.items() if value is not None}
    _serve(model, architecture, trust_model, settings, given, baseline, host, port, keys, device, quiet)


def _serve(
    model: str,
    architecture: str | None,
    trust: bool,
    settings: Path | None,
    flags: dict[str, Any],
    baseline: Path | None,
    host: str,
    port: int,
    keys: Path | None,
    device: str,
    quiet: bool,
) -> None:
    try:
        from disintegrate.server import Keys, Service, run
        from disintegrate.server.keys import read_keys
        from disintegrate.server.settings import read_settings
    except ImportError as error:
        raise InvalidValue(
            "Serving needs packages that are not installed.",
            got=f"no {error.name}",
            instead="Install disintegrate[serve].",
        ) from None
    from disintegrate.models import load_model, read_point

    chosen = read_settings(settings, flags)
    accepted = read_keys(keys) if keys is not None else Keys()
    loaded = load_model(model, architecture=architecture, trust=trust)
    if chosen.input_shape is None and loaded.input_shape is not None:
        chosen = chosen.model_copy(update={"input_shape": loaded.input_shape})
    point = None if baseline is None else read_point(baseline, chosen.input_shape)
    service = Service(loaded.module, chosen, own_baseline=point, device=device)
    run(service, host=host, port=port, keys=accepted, quiet=quiet)


@app.command()
def new_key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who the key is for.")],
    budget: Annotated[int | None, typer.Option(help="Explanations that it may ask for.", min=0)] = None,
    rate: Annotated[float | None, typer.Option(help="Requests a second in the long run.", min=0.001)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of TOML.")] = False,
) -> None:
    """Make an API key: print it once, and the lines for the service's file of keys, which holds its hash only."""
    from disintegrate.server.keys import new_key as make

    key, sha256 = make()
    fields = {"name": name, "sha256": sha256, "budget": budget, "rate": rate}
    stored = {field: value for field, value in fields.items() if value is not None}
    if as_json:
        print(json.dumps({"key": key, "stored": stored}))
        return
    print(f"# The key, shown this once: {key}")
    print("[[keys]]")
    for field, value in stored.items():
        print(f"{field} = {json.dumps(value)}")


def _pair(text: str, separator: str, instead: str) -> tuple[str, str]:
    first, found, second = text.partition(separator)
    if not found and separator == "-":
        return first, first
    if not found:
        raise InvalidValue("Two numbers are wanted.", got=repr(text), instead=f"Use {instead}.")
    return first, second
