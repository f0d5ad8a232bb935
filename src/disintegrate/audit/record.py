"""The record of an audit, read back and checked: all that a page, or another tool, needs of it."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from disintegrate.audit.examples import Example
from disintegrate.audit.result import FORMAT
from disintegrate.audit.verdict import Verdict
from disintegrate.errors import DamagedFile, InvalidValue, UnknownName
from disintegrate.measure import Measure

# What a list of numbers looks like after `json.dumps(..., indent=1)`.
FLAT = re.compile(r"\[\n\s*([^\[\]{}\"]*?)\n\s*\]")


class _Part(BaseModel):
    # a figure must be a number; what a later version adds is left aside
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class Weakness(_Part):
    """The name that others have for what is tested."""

    framework: str
    id: str


class Spent(_Part):
    """Queries, over all inputs."""

    probe: int
    plan: int
    check: int
    all: int
    choice: int = 0
    examples: int = 0


class WireShown(_Part):
    """What happens to the numbers of an answer."""

    dtype: str | None
    significant_digits: int | None
    decimals: int | None
    noise: float
    deterministic: bool

    @property
    def words(self) -> str:
        """In words."""
        told = self.dtype or "all digits"
        if self.significant_digits is not None:
            told = f"{self.significant_digits} significant digits"
        elif self.decimals is not None:
            told = f"{self.decimals} decimals"
        noise = f", noise of {self.noise:.3g}" if self.noise else ""
        return f"{told}{noise}{'' if self.deterministic else ', not the same each time'}"


class ServiceShown(_Part):
    """What the service lets its callers do."""

    rule: str
    steps: int
    steps_of_the_caller: tuple[int, int] | None
    baseline_of_the_caller: bool
    output: str
    wire: WireShown

    @property
    def bounds(self) -> str:
        """Which steps a caller may set, in words."""
        return "not taken" if self.steps_of_the_caller is None else "{} to {}".format(*self.steps_of_the_caller)


class FindingShown(_Part):
    """One finding of the probe: None for unknown."""

    value: str | bool | float | list[str | float] | None
    evidence: str


class ProbeShown(_Part):
    """All that the probe found."""

    findings: dict[str, FindingShown]
    queries: int


class TriedShown(_Part):
    """A rule that was tried where none is known."""

    rule: str
    steps: int | None
    distance: float


class ChoiceShown(_Part):
    """How a rule was chosen where none is known; the best comes first."""

    tried: tuple[TriedShown, ...]
    queries: int
    length: float = 1.0


class TermShown(_Part):
    """One query of the plan."""

    coefficient: float
    start: float
    stop: float
    steps: int


class PlanShown(_Part):
    """The plan that was executed."""

    terms: tuple[TermShown, ...] = Field(min_length=1)
    nudge: float = 0.0
    way: str
    exactness: str
    amplification: float
    predicted_error: float
    atoms: tuple[tuple[float, float], ...] = Field(min_length=1)

    def measure(self) -> Measure:
        """What the plan measures on the ray."""
        return Measure(*np.array(self.atoms).T)


class InputShown(_Part):
    """What became of one input."""

    target: int
    distance: float
    queries: int
    observed: int


class ExampleShown(_Part):
    """One input with its arrays, flat; a coordinate of the recovered gradient is None where it was not observed."""

    index: int
    target: int
    distance: float
    shape: tuple[int, ...]
    shape_of_the_input: tuple[int, ...]
    input: tuple[float, ...]
    explanation: tuple[float, ...]
    recovered: tuple[float | None, ...]
    true: tuple[float, ...] | None

    @model_validator(mode="after")
    def _sizes(self) -> ExampleShown:
        arrays = (self.input, self.explanation, self.recovered, self.input if self.true is None else self.true)
        if any(len(array) != math.prod(self.shape) for array in arrays):
            raise ValueError("the arrays are not of the shape that is told")
        return self

    def example(self) -> Example:
        """With arrays in their shape, as `plots.grid` wants them."""
        recovered = np.array(self.recovered, np.float64).reshape(self.shape)
        return Example(
            index=self.index,
            target=self.target,
            distance=self.distance,
            point=np.array(self.input).reshape(self.shape),
            explanation=np.array(self.explanation).reshape(self.shape),
            recovered=np.nan_to_num(recovered),
            observed=~np.isnan(recovered),
            truth=None if self.true is None else np.array(self.true).reshape(self.shape),
        )


class FaithfulnessShown(_Part):
    """How good a changed service's explanations are."""

    rank_correlation: float
    top_overlap: float
    deletion: float
    insertion: float


class _Figures(_Part):
    verdict: Verdict = Field(strict=False)
    sentence: str
    share_recovered: float
    median_distance: float
    bits: float
    queries_per_gradient: int
    queries_by_differences: float


class FormulaShown(_Part):
    """The best of the paper's own formulas against changed settings."""

    equation: str
    verdict: Verdict = Field(strict=False)
    share_recovered: float
    median_distance: float
    queries_per_gradient: int
    stopped_alone: bool


class StopShown(_Figures):
    """One change of the settings, and what is left of the leak."""

    change: str
    measured: bool
    explanation: FaithfulnessShown | None
    paper_formula: FormulaShown | None = None
    queries: int = 0


class InputsShown(_Part):
    """The inputs."""

    shape: tuple[int, ...]
    dtype: str
    sha256: str


class ModelShown(_Part):
    """Checksums of the model, as far as it was at hand."""

    weights_sha256: str | None
    file_sha256: str | None


class RunShown(_Part):
    """How to do it again."""

    command: str
    date: str
    inputs: InputsShown
    model: ModelShown


class AuditRecord(_Figures):
    """What `disintegrate audit` wrote, or `AuditResult.record` tells."""

    target: str | None = None
    weakness: Weakness
    recovered_within: float
    notes: tuple[str, ...] = ()
    check: str | None
    moved_by: float = 0.0
    coordinates: int
    queries: Spent
    service: ServiceShown | None
    probe: ProbeShown | None
    choice: ChoiceShown | None = None
    plan: PlanShown | None
    inputs: tuple[InputShown, ...] = Field(min_length=1)
    examples: tuple[ExampleShown, ...] = ()
    what_stops_it: tuple[StopShown, ...] = ()
    run: RunShown | None = None
    seed: int
    versions: dict[str, str]

    @property
    def distances(self) -> Float64[np.ndarray, " n"]:
        """Of every input."""
        return np.array([row.distance for row in self.inputs])


def read_record(path: Path) -> AuditRecord:
    """Read the record of an audit.

    Raises:
        UnknownName: there is no such file.
        DamagedFile: it is no record of an audit, or not a whole one.
        InvalidValue: a later version of this package wrote it.
    """
    if not path.is_file():
        raise UnknownName("There is no such record.", got=path, instead="Write one: disintegrate audit ... --out FILE.")
    try:
        return record_of(json.loads(path.read_bytes()), str(path))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedFile(f"{path} is not JSON.", got=str(error)[:100], instead="Audit again with --out.") from None


def record_of(values: Any, name: str = "The record") -> AuditRecord:
    """Check what was read, or what `AuditResult.record` tells.

    Args:
        values: the record as plain values.
        name: what to call it where it is none.

    Raises:
        DamagedFile: it is no record of an audit, or not a whole one.
        InvalidValue: a later version of this package wrote it.

    Example:
        >>> from torch import nn
        >>> from disintegrate import Capabilities, LocalExplainer, audit
        >>> service = LocalExplainer(nn.Linear(5, 2), Capabilities(rule="riemann_right"))
        >>> found = audit(service, np.ones((3, 5), np.float32), np.array([0, 1, 0]), examples=2)
        >>> record_of(found.record()).distances.tolist() == found.distance.tolist()
        True
    """
    kind = values.get("kind") if isinstance(values, dict) else None
    if kind != "audit":
        given = "no record" if kind is None else f"kind {str(kind)[:40]!r}"
        raise DamagedFile(
            f"{name} is not the record of an audit of a service.", got=given, instead="Give what audit --out wrote."
        )
    written = values.get("format", FORMAT)
    if isinstance(written, int) and written > FORMAT:
        raise InvalidValue(
            f"{name} was written by a later version.",
            got=f"format {written}",
            instead=f"Install a newer disintegrate: this one reads format {FORMAT}.",
        )
    try:
        # through JSON, where a list may stand for a tuple although types are strict
        return AuditRecord.model_validate_json(json.dumps(values))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the top"
        raise DamagedFile(
            f"{name} is damaged.", got=f"{first['msg']} at {where}"[:160], instead="Audit again with --out."
        ) from None


def written(record: dict[str, Any]) -> str:
    """A record as text for a file: indented, lists of numbers on one line.

    Example:
        >>> written({"a": [1, 2], "b": []}).splitlines()[1:3] == [' "a": [1, 2],', ' "b": []']
        True
    """
    return FLAT.sub(lambda found: f"[{' '.join(found[1].split())}]", json.dumps(record, indent=1)) + "\n"
