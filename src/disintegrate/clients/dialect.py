"""How a protocol words a request and its answer: what every client has of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import orjson
from jaxtyping import Float64, Int

from disintegrate.clients.link import Link
from disintegrate.errors import BadAnswer
from disintegrate.explainers.protocol import Explanation, Request


@runtime_checkable
class Dialect(Protocol):
    """A protocol of explanation services."""

    def parts(self, request: Request, rows: int) -> Iterator[Int[np.ndarray, " r"]]:
        """The rows that one exchange can carry, at most so many."""

    def ask(self, link: Link, request: Request) -> Explanation:
        """Ask one such part."""


def chunks(count: int, rows: int) -> Iterator[Int[np.ndarray, " r"]]:
    """Consecutive rows, so many at a time."""
    for first in range(0, count, rows):
        yield np.arange(first, min(first + rows, count))


def rows_of(request: Request, rows: Int[np.ndarray, " r"]) -> Request:
    """Some rows of a request."""
    baselines = None if request.baselines is None else request.baselines[rows]
    return replace(request, inputs=request.inputs[rows], baselines=baselines, targets=request.targets[rows])


def doubles(array: np.ndarray) -> Float64[np.ndarray, "*shape"]:
    """As JSON carries it: doubles, which hold every float32 exactly."""
    return np.ascontiguousarray(array, np.float64)


def parsed(content: bytes, target: str) -> Any:
    """The JSON of an answer.

    Raises:
        BadAnswer: it is none, such as a page of HTML, or holds NaN.
    """
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        start = " ".join(content[:60].decode("utf-8", "replace").split())
        what = "NaN or infinity" if b"NaN" in content or b"Infinity" in content else f"{error.msg}: {start!r}"
        raise BadAnswer(f"{target} answered what is not JSON.", got=what, instead="Check the address.") from None


def numbers(found: object, shape: tuple[int, ...], what: str, target: str) -> Float64[np.ndarray, "*shape"]:
    """Finite numbers of this shape out of an answer.

    Raises:
        BadAnswer: there are none, another number of them, or NaN among them.
    """
    if found is None:
        raise BadAnswer(f"{target} answered no {what}.", got="none", instead="Check where the answer holds them.")
    try:
        array = np.asarray(found)
        if array.dtype.kind not in "fiu":
            raise ValueError
    except (ValueError, TypeError, OverflowError):
        raise BadAnswer(f"{target} answered {what} that are not numbers of equal length.") from None
    if array.size != int(np.prod(shape)):
        raise BadAnswer(f"{target} answered {what} of another shape.", got=f"{array.shape} for {shape}")
    if not np.isfinite(array).all():
        raise BadAnswer(f"{target} answered NaN or infinity.", got=f"in its {what}")
    return array.astype(np.float64).reshape(shape)
