"""The record of what settles ties in max pooling: the same images by several libraries and instruction sets."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from disintegrate.errors import DamagedFile
from disintegrate.metrics import DistanceSummary


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TiesRow(_Part):
    """Table 3 of one network, by one library.

    Attributes:
        network: which of the paper's.
        weights_sha256: of the trained network.
        backend: what computes, in words.
        dtype: the service's arithmetic.
        plain: the distance of equation (4) as it is.
        untied: with a pattern of 1e-3 added inside the model.
        noisy: with noise of 1e-3 on the inputs.
        single_step: of one query with one step, as it is.
    """

    network: str
    weights_sha256: str
    backend: str
    dtype: str
    plain: DistanceSummary
    untied: DistanceSummary
    noisy: DistanceSummary
    single_step: DistanceSummary


class TiesStudy(_Part):
    """All rows, and whence they come."""

    kind: str = "ties"
    command: str
    seed: int
    data_sha256: str
    instruction_set: str
    versions: dict[str, str]
    rows: tuple[TiesRow, ...]


def load_ties(path: Path) -> TiesStudy | None:
    """Read the record; None where there is none.

    Raises:
        DamagedFile: it is there and cannot be read.
    """
    if not path.is_file():
        return None
    try:
        return TiesStudy.model_validate_json(path.read_text())
    except ValidationError as error:
        raise DamagedFile(
            f"{path} cannot be read.", got=f"{error.error_count()} errors", instead="Run studies/ties.py again."
        ) from None
