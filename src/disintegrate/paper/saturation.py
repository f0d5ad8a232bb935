"""The record of one question: does the paper's ResNet18 fail by depth, or because a softmax was left on?"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from disintegrate.errors import DamagedFile
from disintegrate.files import write_atomically
from disintegrate.metrics import DistanceSummary


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NormsAlongRay(_Part):
    """Norm of the gradient at (i/50) x, for i = 1..50: figure 5 of the paper.

    Attributes:
        median: over the images, at each i.
        peak: the median of the i at which an image's norm is largest.
        orders_median: by how many powers of ten the norm falls from its peak to i = 50, median over the images.
        orders_largest: the same, the largest.
        zero: share of images whose norm at i = 50 is exactly 0; they do not count in the orders,
            which are None where nothing does.
    """

    median: tuple[float, ...]
    peak: float
    orders_median: float | None
    orders_largest: float | None
    zero: float


class SaturationRow(_Part):
    """One training under one condition.

    Attributes:
        epochs: length of the training.
        accuracy: on all test images.
        weights_sha256: of the trained network.
        condition: what the service explains, by name.
        dtype: the service's arithmetic.
        scale: what the logits are multiplied by.
        table_1: distance of the explanation itself; None where it was not measured, as all that follow.
        table_3: distance of equation (4).
        table_4: distance of equation (3).
        single_step: distance of one query with one step.
        table_3_to_exact: distance of equation (4) to the exact direction in place of the service's own gradient: from
            float64 gradients of all logits, with nothing subtracted from 1.
        single_step_to_exact: the same of one query with one step.
        logit_difference: distance of the label's logit less the runner-up's, from one step for each class, to the
            exact one.
        own_gradient: distance of the service's gradient at the input to the exact one: what its arithmetic loses.
        own_gradient_zero: share of images where the service's gradient is exactly 0.
        own_gradient_underflows: share where its norm is below the smallest normal number, 0 included.
        one_minus_p: median of 1 - p of the label, in float64.
        one_minus_p_mean: its mean.
        one_rounds_to_zero: share of images where 1 - p is 0 in the service's arithmetic.
        norms: figure 5.
    """

    epochs: int
    accuracy: float
    weights_sha256: str
    condition: str
    dtype: str
    scale: float
    table_1: DistanceSummary | None
    table_3: DistanceSummary
    table_4: DistanceSummary | None
    single_step: DistanceSummary
    table_3_to_exact: DistanceSummary
    single_step_to_exact: DistanceSummary
    logit_difference: DistanceSummary | None
    own_gradient: DistanceSummary
    own_gradient_zero: float
    own_gradient_underflows: float
    one_minus_p: float
    one_minus_p_mean: float
    one_rounds_to_zero: float
    norms: NormsAlongRay | None


class Saturation(_Part):
    """All rows, and whence they come."""

    kind: str = "saturation"
    network: str
    command: str
    seed: int
    images: int
    data_sha256: str
    device: str
    versions: dict[str, str]
    seconds: float
    rows: tuple[SaturationRow, ...]

    def row(self, epochs: int, condition: str) -> SaturationRow | None:
        """The row of one training and condition; None where there is none."""
        return next((row for row in self.rows if (row.epochs, row.condition) == (epochs, condition)), None)


def store_saturation(path: Path, record: Saturation) -> None:
    """Write the record as JSON."""
    write_atomically(path, (record.model_dump_json(indent=1) + "\n").encode())


def load_saturation(path: Path) -> Saturation | None:
    """Read the record; None where there is none.

    Raises:
        DamagedFile: it is there and cannot be read.
    """
    if not path.is_file():
        return None
    try:
        return Saturation.model_validate_json(path.read_text())
    except ValidationError as error:
        raise DamagedFile(
            f"{path} cannot be read.", got=f"{error.error_count()} errors", instead="Run studies/saturation.py again."
        ) from None
