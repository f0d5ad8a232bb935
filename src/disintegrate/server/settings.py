"""What a service computes, what its callers may set, and how much it takes; from flags or a TOML file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from disintegrate.errors import DamagedFile, InvalidValue, UnknownName
from disintegrate.explainers.protocol import Capabilities, Output
from disintegrate.explainers.wire import Wire
from disintegrate.rules import PRESETS, rule_named

MEBIBYTE = 2**20
# KServe's, OIP's and Vertex's names of models stand in paths.
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


class Limits(BaseModel):
    """How much the service takes before it refuses or asks to come back later.

    Attributes:
        body_bytes: the largest body of a request.
        bodies_bytes: the largest sum of the bodies under way.
        rows: the most explanations that one request may ask for, an input's outputs and baselines counted each.
        evaluations: the most gradients that one request may cost, rows times steps.
        waiting_rows: explanations that may wait for the engine.
        requests: requests under way at once.
        connections: open connections.
        batch_rows: explanations that are computed together.
        send_seconds: how long a caller may take to send a request.
        answer_seconds: how long a request may wait for the engine before it is turned away.
        stop_seconds: how long a stop waits for what was accepted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    body_bytes: Annotated[int, Field(ge=1)] = 16 * MEBIBYTE
    bodies_bytes: Annotated[int, Field(ge=1)] = 128 * MEBIBYTE
    rows: Annotated[int, Field(ge=1)] = 1024
    evaluations: Annotated[int, Field(ge=1)] = 200_000
    waiting_rows: Annotated[int, Field(ge=1)] = 4096
    requests: Annotated[int, Field(ge=1)] = 256
    connections: Annotated[int, Field(ge=1)] = 1024
    batch_rows: Annotated[int, Field(ge=1)] = 256
    send_seconds: Annotated[float, Field(gt=0)] = 20
    answer_seconds: Annotated[float, Field(gt=0)] = 60
    stop_seconds: Annotated[float, Field(gt=0)] = 60


class Settings(BaseModel):
    """A service's settings.

    Attributes:
        name: the model's name in the paths of the protocols.
        rule: a quadrature rule, or a library that stands for its rule and its steps.
        steps: steps of a request that names none; None for the library's, or 50.
        steps_allowed: the fewest and the most steps that a caller may ask for; None where callers may set none.
        caller_baseline: whether a caller may give a baseline.
        overrides: what becomes of steps or a baseline that a caller may not set: "refuse" or "ignore".
        smallest_value: coordinates below are refused.
        largest_value: coordinates above are refused.
        output: logits or probabilities; probabilities put a softmax behind the model.
        dtype: the type that the service computes in; None for the model's own.
        answers: the type of the numbers on the wire; None for the one that is computed in.
        significant_digits: decimal digits of each number on the wire; None for all.
        decimals: digits behind the point; None for all.
        noise: standard deviation of noise on every attribution.
        top_outputs: how many of the largest outputs of an input may be seen and explained; None for all.
        input_shape: the shape of one input; None where any that the model takes will do.
        together: whether requests that arrive together are computed as one batch.
        limits: how much the service takes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=NAME)] = "model"
    rule: str = "captum"
    steps: Annotated[int, Field(ge=1, le=100_000)] | None = None
    steps_allowed: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1, le=100_000)]] | None = None
    caller_baseline: bool = False
    overrides: Literal["refuse", "ignore"] = "refuse"
    smallest_value: float = float("-inf")
    largest_value: float = float("inf")
    output: Output = Output.LOGITS
    dtype: Literal["float32", "float64"] | None = None
    answers: Literal["float16", "float32", "float64"] | None = None
    significant_digits: Annotated[int, Field(ge=1, le=17)] | None = None
    decimals: Annotated[int, Field(ge=0, le=30)] | None = None
    noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    top_outputs: Annotated[int, Field(ge=1)] | None = None
    input_shape: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    together: bool = True
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _whole(self) -> Settings:
        self.capabilities()
        return self

    def capabilities(self, *, zero_baseline: bool = True) -> Capabilities:
        """What a caller may set, as plans and the engine need it.

        Raises:
            UnknownName: there is no such rule.
            InvalidValue: bounds that leave nothing to ask, or own steps that lie outside of them.
        """
        preset = PRESETS.get(self.rule)
        rule = preset.rule if preset else self.rule
        rule_named(rule)
        fewest, most = self.steps_allowed or (self.own_steps, self.own_steps)
        if not fewest <= self.own_steps <= most:
            raise InvalidValue(
                "The service's own steps lie outside what callers may ask for.",
                got=f"{self.own_steps} outside {fewest} to {most}",
                instead="Give steps within steps_allowed.",
            )
        return Capabilities(
            rule,
            fewest,
            most,
            baseline=self.caller_baseline,
            zero_baseline=zero_baseline,
            dtype=self.dtype,
            default_steps=self.own_steps,
            smallest_value=self.smallest_value,
            largest_value=self.largest_value,
            output=self.output,
            wire=self.wire,
        )

    @property
    def own_steps(self) -> int:
        """The steps of a request that names none."""
        preset = PRESETS.get(self.rule)
        return self.steps or (preset.steps if preset else 50)

    @property
    def wire(self) -> Wire:
        """What is done to the numbers of an answer."""
        return Wire(self.answers, self.significant_digits, self.decimals, self.noise)


def read_settings(path: Path | None, flags: dict[str, Any]) -> Settings:
    """Settings out of a TOML file, with flags that win over it.

    Raises:
        UnknownName: there is no such file, rule or setting.
        DamagedFile: the file is not TOML.
        InvalidValue: a setting of the wrong type or out of its bounds.
    """
    given: dict[str, Any] = {}
    if path is not None:
        if not path.is_file():
            raise UnknownName("There is no such file of settings.", got=path, instead="Give a TOML file.")
        try:
            given = tomllib.loads(path.read_text())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise DamagedFile(f"{path} is not TOML.", got=str(error), instead="Correct the file.") from None
    limits = {**given.get("limits", {}), **flags.pop("limits", {})}
    try:
        return Settings.model_validate({**given, **flags, "limits": limits})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if isinstance(cause := first.get("ctx", {}).get("error"), InvalidValue | UnknownName):
            raise cause from None
        name = ".".join(str(part) for part in first["loc"]) or "settings"
        if first["type"] == "extra_forbidden":
            raise UnknownName(
                "There is no such setting.", got=repr(name), instead=f"Choose from {', '.join(Settings.model_fields)}."
            ) from None
        raise InvalidValue(
            f"The setting {name} cannot be used.",
            got=repr(first["input"])[:80],
            instead=f"{first['msg'].rstrip('.')}.",
        ) from None
