"""A few inputs of an audit with what was answered, what was recovered and what is true, small enough for a record."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from disintegrate.explainers.protocol import Explainer, Request

# Images are kept with at most so many pixels a side, other inputs with so many coordinates: means over blocks.
LARGEST_SIDE, LONGEST = 56, 1024
# Of each number.
SIGNIFICANT_DIGITS = 4


@dataclass(frozen=True, eq=False)
class Example:
    """One input, and what became of it.

    Attributes:
        index: which of the audited inputs it is.
        target: the output explained.
        distance: of the recovered gradient to the truth, or an upper estimate.
        point: the input.
        explanation: what the service answers to whoever sets nothing.
        recovered: the gradient that its answers gave away.
        observed: coordinates that they told of.
        truth: the model's own gradient; None where the model is not at hand.
    """

    index: int
    target: int
    distance: float
    point: Float[np.ndarray, "*shape"]
    explanation: Float[np.ndarray, "*shape"]
    recovered: Float[np.ndarray, "*shape"]
    observed: Bool[np.ndarray, "*shape"]
    truth: Float[np.ndarray, "*shape"] | None

    def record(self) -> dict[str, Any]:
        """As plain values for JSON: flat lists, large inputs as means over blocks, None where not observed."""
        shape, block = self.point.shape, block_of(self.point.shape)
        seen = means_over_blocks(self.observed.astype(float), block) > 0.5
        recovered = _rounded(means_over_blocks(self.recovered, block))
        hidden = [value if known else None for value, known in zip(recovered, seen.ravel().tolist(), strict=True)]
        return {
            "index": self.index,
            "target": self.target,
            "distance": self.distance,
            "shape": list(means_over_blocks(self.point, block).shape),
            "shape_of_the_input": list(shape),
            "input": _rounded(means_over_blocks(self.point, block)),
            "explanation": _rounded(means_over_blocks(self.explanation, block)),
            "recovered": hidden,
            "true": None if self.truth is None else _rounded(means_over_blocks(self.truth, block)),
        }


def chosen(distances: Float64[np.ndarray, " n"], count: int) -> list[int]:
    """Inputs from the one whose gradient came nearest to the truth to the one that stayed farthest, evenly by rank.

    Example:
        >>> chosen(np.array([0.3, 0.1, 0.2, 0.5, 0.4]), 3) == [1, 0, 3]
        True
    """
    order = np.argsort(distances, kind="stable")
    ranks = np.unique(np.round(np.linspace(0, len(order) - 1, min(count, len(order)))).astype(int))
    return [int(index) for index in order[ranks]]


def examples_of(
    explainer: Explainer,
    inputs: Float[np.ndarray, "n *shape"],
    targets: Int[np.ndarray, " n"],
    *,
    distances: Float64[np.ndarray, " n"],
    gradient: Float[np.ndarray, "n *shape"],
    observed: Bool[np.ndarray, "n *shape"],
    truths: Callable[[Float[np.ndarray, "k *shape"], Int[np.ndarray, " k"]], Float[np.ndarray, "k *shape"]] | None,
    count: int,
) -> tuple[Example, ...]:
    """Ask for the plain explanation of a few inputs, one query each, and set beside it what is known of them."""
    if count == 0:
        return ()
    indices = chosen(distances, count)
    truth = None if truths is None else truths(inputs[indices], targets[indices])
    answered = explainer.explain(Request(inputs[indices], None, targets[indices], None)).attribution
    return tuple(
        Example(
            index=index,
            target=int(targets[index]),
            distance=float(distances[index]),
            point=inputs[index],
            explanation=answered[row],
            recovered=gradient[index],
            observed=observed[index],
            truth=None if truth is None else truth[row],
        )
        for row, index in enumerate(indices)
    )


def sides_of(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Which axes are height and width of an image of one or three channels, first or last; None for other inputs.

    Example:
        >>> sides_of((3, 32, 32)), sides_of((32, 32, 3)), sides_of((28, 28)), sides_of((10,))
        ((1, 2), (0, 1), (0, 1), None)
    """
    if len(shape) == 3 and shape[0] in (1, 3):
        return 1, 2
    if len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3)):
        return 0, 1
    return None


def block_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """How many coordinates along each axis are averaged, so that an array of this shape gets small enough."""
    sides = sides_of(shape)
    if sides is None:
        return (math.ceil(math.prod(shape) / LONGEST),)
    block = math.ceil(max(shape[side] for side in sides) / LARGEST_SIDE)
    return tuple(block if axis in sides else 1 for axis in range(len(shape)))


def means_over_blocks(array: Float[np.ndarray, "..."], block: tuple[int, ...]) -> Float64[np.ndarray, "..."]:
    """Means over blocks; the last along an axis may be smaller. An array of another number of axes is flattened first.

    Example:
        >>> means_over_blocks(np.arange(5.0), (2,)).tolist() == [0.5, 2.5, 4.0]
        True
    """
    found = np.asarray(array, np.float64)
    if len(block) != found.ndim:
        found = found.reshape(-1)
    for axis, size in enumerate(block):
        if size > 1:
            starts = np.arange(0, found.shape[axis], size)
            counts = np.diff(np.append(starts, found.shape[axis]))
            shape = [-1 if other == axis else 1 for other in range(found.ndim)]
            found = np.add.reduceat(found, starts, axis=axis) / counts.reshape(shape)
    return found


def _rounded(array: Float64[np.ndarray, "..."]) -> list[float]:
    return [float(f"{value:.{SIGNIFICANT_DIGITS}g}") for value in array.ravel().tolist()]
