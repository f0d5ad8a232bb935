"""The record of kinks near the input: how many, how near, and what they make of equation (3)."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from disintegrate.errors import DamagedFile
from disintegrate.metrics import DistanceSummary


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Image(_Part):
    """One image's ray.

    Attributes:
        kinks: points in [alpha, 1] where units change.
        units: units that change there; several at one point count each.
        before: distance from the input to the nearest kink before it, in lengths of the ray; None beyond 1.
        behind: the same behind it.
        tied: windows of max pooling that hold their largest value twice.
        distance: of equation (3) as the float32 service answers it.
        exact_distance: of equation (3) with the exact integral, theorem 3.3 as it is stated.
        kink: norm of that part of the error over that of the gradient.
        quadrature: the same.
        rounding: the same.
    """

    kinks: int
    units: int
    before: float | None
    behind: float | None
    tied: int
    distance: float
    exact_distance: float
    kink: float
    quadrature: float
    rounding: float


class NetworkRow(_Part):
    """Equation (3) at one alpha, image by image."""

    network: str
    weights_sha256: str
    alpha: float
    steps: int
    images: tuple[Image, ...]
    rank_correlation: float | None


class AlphaRow(_Part):
    """Equation (3) at one alpha with the exact integral, and with m steps in float32."""

    network: str
    alpha: float
    without_kink: float
    exact: DistanceSummary
    with_steps: DistanceSummary


class KinksStudy(_Part):
    """All of it, and whence it comes."""

    kind: str = "kinks"
    command: str
    seed: int
    data_sha256: str
    versions: dict[str, str]
    networks: tuple[NetworkRow, ...]
    alphas: tuple[AlphaRow, ...]


def load_kinks(path: Path) -> KinksStudy | None:
    """Read the record; None where there is none.

    Raises:
        DamagedFile: it is there and cannot be read.
    """
    if not path.is_file():
        return None
    try:
        return KinksStudy.model_validate_json(path.read_text())
    except ValidationError as error:
        raise DamagedFile(
            f"{path} cannot be read.", got=f"{error.error_count()} errors", instead="Run studies/kinks.py again."
        ) from None
