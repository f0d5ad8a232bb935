"""The linear system behind a softmax: its entries, its inverse, and what rounding does to it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64


def diagonal_inverse(probabilities: Float64[np.ndarray, "n classes"]) -> Float64[np.ndarray, "n classes classes"]:
    """`diag(1 / p)`, a generalised inverse of `diag(p) - p p^T`."""
    inverse = np.zeros((*probabilities.shape, probabilities.shape[1]))
    with np.errstate(divide="ignore"):
        inverse[:, np.eye(probabilities.shape[1], dtype=bool)] = 1 / probabilities
    return inverse


def applied(
    inverse: Float64[np.ndarray, "n classes classes"], answers: Float64[np.ndarray, "n classes d"]
) -> Float64[np.ndarray, "n classes d"]:
    """The inverse times the answers; what underflowed is divided by nowhere, and its gradient is left at 0."""
    gradients: Float64[np.ndarray, "n classes d"] = np.where(np.isfinite(inverse), inverse, 0) @ answers
    return gradients


def affine_logs(
    stops: Float64[np.ndarray, " queries"], outputs: Float64[np.ndarray, "n classes queries"]
) -> tuple[Float64[np.ndarray, "n classes"], Float64[np.ndarray, "n classes"], tuple[float, float]]:
    """Logs of the probabilities at the first of the outputs' points, their slopes, and the first and last point."""
    first, last = int(stops.argmin()), int(stops.argmax())
    low, high = float(stops[first]), float(stops[last])
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(outputs)
        slopes = (logs[:, :, last] - logs[:, :, first]) / (high - low)
    gone = ~np.isfinite(slopes)
    return np.where(gone, -np.inf, logs[:, :, first]), np.where(gone, 0.0, slopes), (low, high)


def softmax_at(
    positions: Float64[np.ndarray, " atoms"],
    logs: Float64[np.ndarray, "n classes"],
    slopes: Float64[np.ndarray, "n classes"],
    origin: float,
) -> Float64[np.ndarray, "n atoms classes"]:
    """Probabilities on the ray, whose logarithms are affine but for a common constant."""
    logits = logs[:, None] + (positions - origin)[:, None] * slopes[:, None]
    powers = np.exp(logits - logits.max(2, keepdims=True))
    probabilities: Float64[np.ndarray, "n atoms classes"] = powers / powers.sum(2, keepdims=True)
    return probabilities


def softmax_jacobian(
    probabilities: Float64[np.ndarray, "n atoms classes"], weights: Float64[np.ndarray, " atoms"]
) -> Float64[np.ndarray, "n classes classes"]:
    """Equation (J); the diagonal is minus the sum of its row, so that 1 - p is never formed."""
    between = -np.einsum("nac,naj,a->ncj", probabilities, probabilities, weights)
    between[:, np.eye(between.shape[1], dtype=bool)] = 0
    jacobian: Float64[np.ndarray, "n classes classes"] = between - np.eye(between.shape[1]) * between.sum(2)[:, None]
    return jacobian


def grounded_inverse(
    jacobian: Float64[np.ndarray, "n classes classes"],
) -> Float64[np.ndarray, "n classes classes"]:
    """A generalised inverse of J: that of its block without the class of the largest entry, whose gradient is set to 0.

    The pseudo-inverse differs from it by a vector common to all classes. Rows of unlike size, as those of
    unlikely classes are, keep their digits here: the block is scaled to a diagonal of ones first.
    """
    inverse = np.zeros_like(jacobian)
    for matrix, filled in zip(jacobian, inverse, strict=True):
        sizes = np.sqrt(np.abs(np.diag(matrix)))
        gone = sizes == 0
        kept = np.flatnonzero(~gone & (np.arange(len(sizes)) != sizes.argmax()))
        scales = np.outer(sizes[kept], sizes[kept])
        filled[np.ix_(kept, kept)] = np.linalg.pinv(matrix[np.ix_(kept, kept)] / scales) / scales
        filled[gone, gone] = np.inf
    return inverse


def condition_number(jacobian: Float64[np.ndarray, "n classes classes"]) -> Float64[np.ndarray, " n"]:
    """Condition number on the vectors of sum zero."""
    count = jacobian.shape[1]
    across = np.linalg.svd(np.eye(count) - 1 / count)[0][:, : count - 1]
    sizes = np.linalg.svd(across.T @ jacobian @ across, compute_uv=False)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(sizes[:, 0] / sizes[:, -1], nan=np.inf, posinf=np.inf)


def extrapolation(positions: Float64[np.ndarray, " atoms"], ends: tuple[float, float]) -> float:
    """How much an error of the outputs' logarithms grows towards the farthest atom."""
    low, high = ends
    return float(max(1.0, ((np.abs(positions - low) + np.abs(high - positions)) / (high - low)).max(initial=1.0)))


def magnitudes_of(
    summed: Float64[np.ndarray, "n classes"],
    jacobian: Float64[np.ndarray, "n classes classes"],
    gradients: Float64[np.ndarray, "n classes d"],
    doubt: Float64[np.ndarray, "n classes"],
) -> Float64[np.ndarray, "n classes"]:
    """What rounding is relative to: the norms that each class's answers had, and those that J's entries multiply.

    The doubt is the relative error of each probability in J, in units of the rounding.
    """
    apart = np.stack([np.linalg.norm(gradients - one[:, None], axis=2) for one in gradients.swapaxes(0, 1)], axis=1)
    doubts = 1 + doubt[:, :, None] + doubt[:, None]
    magnitudes: Float64[np.ndarray, "n classes"] = summed + (np.abs(jacobian) * doubts * apart).sum(2)
    return magnitudes


def doubt_of(
    outputs: Float64[np.ndarray, "n classes"], positions: Float64[np.ndarray, " atoms"], ends: tuple[float, float]
) -> Float64[np.ndarray, "n classes"]:
    """How inexact a probability at the farthest atom is, in units of the rounding.

    A logit z rounds by as much relative to itself, so p by |z| times that: about |log p| for an unlikely class.
    """
    with np.errstate(divide="ignore"):
        sizes = np.minimum(-np.log(np.minimum(outputs, 1)), 1e3)
    doubt: Float64[np.ndarray, "n classes"] = extrapolation(positions, ends) * (1 + sizes)
    return doubt


def disagreement_with(
    slopes: Float64[np.ndarray, "n classes"],
    gradients: Float64[np.ndarray, "n classes d"],
    ray: Float[np.ndarray, "n d"],
    probabilities: Float64[np.ndarray, "n classes"],
) -> Float64[np.ndarray, " n"]:
    """`|G_c (x - b) - d log p_c / dt|` over the latter, both as vectors over the classes c, less that of the likeliest.

    Classes are weighed by their probabilities, so that those whose outputs have lost their digits do not count.
    """
    rows, likeliest = np.arange(len(slopes)), probabilities.argmax(1)
    along = np.einsum("ncd,nd->nc", gradients, ray.astype(np.float64))
    weighed = np.sqrt(probabilities)
    predicted, seen = (weighed * (values - values[rows, likeliest][:, None]) for values in (along, slopes))
    with np.errstate(divide="ignore", invalid="ignore"):
        missed: Float64[np.ndarray, " n"] = np.linalg.norm(predicted - seen, axis=1) / np.linalg.norm(seen, axis=1)
    return missed
