"""How far a recovered gradient is from the true one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

from disintegrate.errors import InvalidValue

NO_DIRECTION = float(np.sqrt(2))


def distance(a: Float[np.ndarray, "n *shape"], b: Float[np.ndarray, "n *shape"]) -> Float64[np.ndarray, " n"]:
    """The paper's distance (its section 4.2.4): Euclidean norm of the difference of the unit-normalised vectors.

    0 is the same direction, sqrt(2) orthogonal, 2 opposite. A zero vector has no direction: against any other
    it counts as sqrt(2), as an unrelated one would, against a second zero vector as 0.

    Raises:
        InvalidValue: shapes that differ.

    Example:
        >>> vectors = np.array([[3.0, 4.0], [1.0, 0.0]])
        >>> distance(vectors, -2 * vectors).tolist() == [2.0, 2.0]
        True
    """
    if a.shape != b.shape:
        raise InvalidValue(
            "Only vectors of one shape have a distance.",
            got=f"{a.shape} and {b.shape}",
            instead="Give equal shapes.",
        )
    first, second = (vectors.reshape(len(vectors), -1).astype(np.float64) for vectors in (a, b))
    norms = [np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (first, second)]
    safe = [np.where(norm > 0, norm, 1) for norm in norms]
    apart = np.linalg.norm(first / safe[0] - second / safe[1], axis=1)
    zeros = [norm[:, 0] == 0 for norm in norms]
    return np.where(zeros[0] & zeros[1], 0.0, np.where(zeros[0] | zeros[1], NO_DIRECTION, apart))


@dataclass(frozen=True)
class DistanceSummary:
    """What is always told of a set of distances.

    One outlier alone can make a mean, so the largest distance and the mean without the ten largest are told too.
    """

    mean: float
    standard_deviation: float
    median: float
    percentile_90: float
    share_above_0_1: float
    largest: float
    mean_without_ten_largest: float
    images: int


def summarise(distances: Float[np.ndarray, " n"]) -> DistanceSummary:
    """Summarise distances; the standard deviation is that of the population.

    Raises:
        InvalidValue: no distances, or NaN among them.

    Example:
        >>> summary = summarise(np.array([0.0, 0.2]))
        >>> (summary.mean, summary.standard_deviation, summary.share_above_0_1) == (0.1, 0.1, 0.5)
        True
    """
    if distances.size == 0 or np.isnan(distances).any():
        raise InvalidValue(
            "A summary needs distances that are numbers.",
            got=f"{distances.size} with NaN",
            instead="Give some.",
        )
    return DistanceSummary(
        mean=float(distances.mean()),
        standard_deviation=float(distances.std()),
        median=float(np.median(distances)),
        percentile_90=float(np.percentile(distances, 90)),
        share_above_0_1=float((distances > 0.1).mean()),
        largest=float(distances.max()),
        mean_without_ten_largest=float(np.sort(distances)[: max(1, len(distances) - 10)].mean()),
        images=len(distances),
    )
