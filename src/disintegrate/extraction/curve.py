"""The curve of what a copy costs, as it is written after every copy and read back; it needs no torch."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from disintegrate.audit.record import RunShown
from disintegrate.errors import DamagedFile, InvalidValue, UnknownName

FORMAT: Literal[1] = 1
# The agreements to which queries are told.
AGREEMENTS = (0.9, 0.95, 0.99)


class Access(Enum):
    """What the maker of a copy may ask; the value is the word shown."""

    AS_IS = "explanations as they are"
    SUGGESTED = "explanations, with the settings that stop the leak best"
    OUTPUTS = "outputs alone"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Cost(_Part):
    """One point of the curve.

    Attributes:
        access: what was asked.
        settings: what the owner changed, in words.
        queries: explanations, or predictions where outputs alone were asked for; one of these tells all outputs.
        inputs: given ones that were asked about.
        agreement: share of the held-out inputs where copy and model name the same class.
        accuracy: of the copy; None where there are no labels.
        mean_error: of a logit.
        held_out: inputs that it was scored on.
        seconds: that training and service took.
    """

    access: Access
    settings: str
    queries: int = Field(ge=1)
    inputs: int = Field(ge=1)
    agreement: float = Field(ge=0, le=1)
    accuracy: float | None
    mean_error: float
    held_out: int = Field(ge=1)
    seconds: float


class CostRecord(_Part):
    """What `disintegrate cost` found.

    Attributes:
        target: what was copied.
        student: what the copies are.
        price: of a thousand queries; None where none was told.
        training_steps: of each student.
        rows: points of the curve, as far as they are known.
        run: the command, and what it was done on.
    """

    kind: Literal["cost"] = "cost"
    format: Literal[1] = FORMAT
    target: str
    student: str
    price: float | None
    training_steps: int
    seed: int
    rows: tuple[Cost, ...]
    run: RunShown
    versions: dict[str, str]

    def queries_to(self, access: Access, agreement: float) -> int | None:
        """The fewest queries tried that made a copy which agrees so often; None where none did."""
        reached = (row.queries for row in self.rows if row.access is access and row.agreement >= agreement)
        return min(reached, default=None)

    def curves(self) -> dict[str, tuple[tuple[int, float], ...]]:
        """Queries and agreement, ascending, for each way of asking."""
        found: dict[str, tuple[tuple[int, float], ...]] = {}
        for access in Access:
            rows = sorted((row.queries, row.agreement) for row in self.rows if row.access is access)
            if rows:
                found[access.value] = tuple(rows)
        return found

    def sentences(self) -> tuple[str, ...]:
        """What the curve says: for each agreement that some copy reached, the queries with and without explanations."""
        told = []
        for agreement in AGREEMENTS:
            reached = {access: self.queries_to(access, agreement) for access in Access}
            if not any(reached.values()):
                continue
            parts = [
                f"{self._spent(count) if count else 'more than was tried'} ({access.value})"
                for access, count in reached.items()
                if any(row.access is access for row in self.rows)
            ]
            told.append(f"A copy that agrees on {agreement:.0%} of other inputs takes {'; '.join(parts)}.")
        return tuple(told)

    def _spent(self, queries: int) -> str:
        price = self.price_of(queries)
        return f"{queries} queries" if price is None else f"{queries} queries at {price:.2f}"

    def price_of(self, queries: int) -> float | None:
        """What so many queries cost; None where no price was told."""
        return None if self.price is None else self.price * queries / 1000

    def same_as(self, other: CostRecord) -> bool:
        """Whether both were made of the same model by the same students, so that one continues the other."""
        parts = ("target", "student", "training_steps", "seed")
        same = all(getattr(self, part) == getattr(other, part) for part in parts)
        return same and self.run.inputs == other.run.inputs and self.run.model == other.run.model


def read_cost(path: Path) -> CostRecord:
    """Read the record of `disintegrate cost`.

    Raises:
        UnknownName: there is no such file.
        DamagedFile: it is no such record, or not a whole one.
        InvalidValue: a later version of this package wrote it.
    """
    if not path.is_file():
        raise UnknownName("There is no such record.", got=path, instead="Write one: disintegrate cost ... --out FILE.")
    try:
        text = path.read_bytes()
        values = json.loads(text)
        if isinstance(values, dict) and values.get("kind") == "cost" and values.get("format", FORMAT) != FORMAT:
            raise InvalidValue(
                f"{path} was written by another version.",
                got=f"format {values['format']}",
                instead=f"Install a newer disintegrate: this one reads format {FORMAT}.",
            )
        return CostRecord.model_validate_json(text)
    except (ValidationError, ValueError, RecursionError) as error:
        if isinstance(error, InvalidValue):
            raise
        told = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise DamagedFile(
            f"{path} is not the record of what a copy costs.", got=told[:100], instead="Give what cost --out wrote."
        ) from None
