"""What a reproduction leaves behind: validated JSON records, from which tables, figures and the page are drawn."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from disintegrate.errors import DamagedFile, UnknownName
from disintegrate.files import write_atomically
from disintegrate.metrics import DistanceSummary

AGREEMENT_FACTOR = 3.0


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Claim(_Record):
    """What the paper prints for a cell."""

    mean: float
    printed_variance: float


class Provenance(_Record):
    """Whence a measured figure comes."""

    network: str
    seed: int
    epochs: int
    accuracy: float
    weights_sha256: str
    data_sha256: str
    dtype: str
    device: str
    versions: dict[str, str]


class Cell(_Record):
    """One cell of one table: claimed by the paper, measured by us.

    The seconds are those of all cells of the network together, since their plans share answers.
    """

    kind: str = "cell"
    table: str
    method: str
    title: str
    plan: str | None
    exactness: str
    claimed: Claim | None
    measured: DistanceSummary
    provenance: Provenance
    seconds: float

    @property
    def name(self) -> str:
        """The record's file name, without its ending."""
        return f"{self.table}-{self.provenance.network}-{self.method}-seed{self.provenance.seed}"

    @property
    def ratio(self) -> float | None:
        """Our mean over the paper's."""
        return self.measured.mean / self.claimed.mean if self.claimed else None

    @property
    def agrees(self) -> bool | None:
        """Whether the two means lie within a factor of 3; None where the paper claims nothing."""
        return None if self.ratio is None else 1 / AGREEMENT_FACTOR <= self.ratio <= AGREEMENT_FACTOR


class Evidence(_Record):
    """One cell measured again under one changed condition, to find what its error comes from."""

    kind: str = "evidence"
    table: str
    method: str
    condition: str
    explanation: str
    measured: DistanceSummary
    provenance: Provenance
    seconds: float

    @property
    def name(self) -> str:
        """The record's file name, without its ending."""
        where = f"{self.table}-{self.provenance.network}-{self.method}-seed{self.provenance.seed}"
        return f"evidence-{where}-{self.condition}"


class Drawing(_Record):
    """The data of one figure."""

    kind: str = "drawing"
    figure: str
    caption: str
    data: dict[str, Any]

    @property
    def name(self) -> str:
        """The record's file name, without its ending."""
        return f"figure-{self.figure}"


class Run(_Record):
    """One reproduction: what was asked for, and which records answer it.

    The seconds of computing are those of all units, whichever session computed them; those of training are of
    the networks in the tables; the peak of memory is the largest of all sessions.
    """

    kind: str = "run"
    quick: bool
    command: str
    networks: tuple[str, ...]
    images: int
    seeds: int
    records: tuple[str, ...]
    computing_seconds: float
    training_seconds: float
    peak_memory_bytes: int
    processors: int
    threads: int
    versions: dict[str, str]


Record = Cell | Evidence | Drawing
RecordType = TypeVar("RecordType", bound=BaseModel)
KINDS: dict[str, type[Cell] | type[Evidence] | type[Drawing]] = {
    "cell": Cell,
    "evidence": Evidence,
    "drawing": Drawing,
}


def store(folder: Path, record: Record | Run) -> None:
    """Write one record as JSON."""
    name = "run" if isinstance(record, Run) else f"records/{record.name}"
    write_atomically(folder / f"{name}.json", (record.model_dump_json(indent=1) + "\n").encode())


def load_run(folder: Path) -> tuple[Run, list[Record]]:
    """Read a run and the records it names.

    Raises:
        UnknownName: the folder holds no run, or a record is missing.
        DamagedFile: a record cannot be read.
    """
    run = _read(folder / "run.json", Run)
    return run, [_read_record(folder / "records" / f"{name}.json") for name in run.records]


def claims() -> dict[str, Any]:
    """The paper's own numbers, as printed."""
    loaded: dict[str, Any] = json.loads((files("disintegrate.paper") / "claims.json").read_text())
    return loaded


def claim(table: str, network: str) -> Claim | None:
    """What the paper prints in a table for a network; None where it prints nothing."""
    found = claims().get(table, {}).get(network)
    return Claim(**found) if found else None


def _read_record(path: Path) -> Record:
    kind = _parsed(path).get("kind")
    if kind not in KINDS:
        raise DamagedFile(f"{path} is not a record.", got=f"kind {kind!r}", instead="Run reproduce again.")
    return _read(path, KINDS[kind])


def _read(path: Path, model: type[RecordType]) -> RecordType:
    try:
        return model.model_validate(_parsed(path))
    except ValidationError as error:
        raise DamagedFile(
            f"{path} cannot be read.", got=f"{error.error_count()} errors", instead="Run reproduce again."
        ) from None


def _parsed(path: Path) -> dict[str, Any]:
    try:
        parsed = json.loads(path.read_text())
    except FileNotFoundError:
        raise UnknownName("There is no such record.", got=path, instead="Run `disintegrate reproduce` first.") from None
    except json.JSONDecodeError as error:
        raise DamagedFile(f"{path} is not JSON.", got=str(error), instead="Run reproduce again.") from None
    return parsed if isinstance(parsed, dict) else {}
