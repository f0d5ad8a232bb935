"""Asking under a budget: each row of a request is a query, and none goes out that the budget does not cover."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from disintegrate.errors import BadAnswer, DisintegrateError
from disintegrate.explainers.protocol import Explainer, Request
from disintegrate.explainers.wire import Wire
from disintegrate.probe.digits import grain, wire_of
from disintegrate.progress import Task


class Spent(DisintegrateError):
    """The budget does not cover the next question; caught within the probe."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What came back: the outputs, and the attributions with each row made flat."""

    output: Float64[np.ndarray, " n"]
    attribution: Float64[np.ndarray, "n d"]


class Asker:
    """Asks, counts, and keeps the numbers that were answered.

    Attributes:
        spent: queries that went out, refused ones included.
        taken: the smallest and the largest coordinate of inputs that were answered.
    """

    def __init__(
        self, explainer: Explainer, shape: tuple[int, ...], dtype: np.dtype[np.floating], budget: int, bar: Task
    ) -> None:
        self.explainer = explainer
        self.shape = shape
        self.dtype = dtype
        self.budget = budget
        self.bar = bar
        self.spent = 0
        self.outputs: list[float] = []
        self.numbers: list[Float64[np.ndarray, " d"]] = []
        self.wire: Wire | None = None
        self.noise = 0.0
        self.taken = (np.inf, -np.inf)
        self.refused = False

    @property
    def left(self) -> int:
        """Queries that the budget still covers."""
        return self.budget - self.spent

    @property
    def coarse(self) -> bool:
        """Whether small numbers are lost, as in float16 and under a fixed number of decimals."""
        return self.wire is not None and (self.wire.dtype == "float16" or self.wire.decimals is not None)

    @property
    def in_unit_range(self) -> bool:
        """Whether all outputs that came so far may be probabilities."""
        outputs = np.array(self.outputs)
        return bool(((outputs >= -1e-6) & (outputs <= 1 + 1e-3)).all())

    def sent(self, points: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, "n d"]:
        """The points as they go out, rounded to the type in which they are sent."""
        return points.astype(self.dtype).astype(np.float64)

    def ask(
        self,
        points: Float64[np.ndarray, "n d"],
        target: int,
        *,
        steps: int | None = None,
        origin: Float64[np.ndarray, " d"] | None = None,
    ) -> Answers:
        """Explain points, flat, from the service's own baseline or from one that is sent.

        Raises:
            Spent: there are more points than queries left.
            BadAnswer: what comes back are no explanations.
        """
        count = len(points)
        if count > self.left:
            raise Spent("The budget is spent.", got=f"{self.left} queries left for {count}")
        inputs = points.astype(self.dtype).reshape(count, *self.shape)
        begin = None
        if origin is not None:
            begin = np.broadcast_to(origin.astype(self.dtype), points.shape).reshape(count, *self.shape).copy()
        self.spent += count
        self.bar.advance(count)
        answer = self.explainer.explain(Request(inputs, begin, np.full(count, target), steps))
        if answer.attribution.shape != inputs.shape or answer.output.shape != (count,):
            raise BadAnswer(
                "The service answered arrays of other shapes than it was asked.",
                got=f"{answer.attribution.shape} and {answer.output.shape} for {inputs.shape}",
                instead="Check that the explainer answers one output and one attribution for each coordinate.",
            )
        self.taken = (min(self.taken[0], float(inputs.min())), max(self.taken[1], float(inputs.max())))
        flat = np.asarray(answer.attribution, np.float64).reshape(count, -1)
        output = np.asarray(answer.output, np.float64)
        self.numbers.extend(flat)
        self.outputs.extend(output.tolist())
        return Answers(output, flat)

    def learn_wire(self) -> None:
        """Say in which digits numbers come, from all that came so far."""
        self.wire = wire_of(self.sample())

    def sample(self) -> Float64[np.ndarray, " n"]:
        """Numbers that were answered, at most so many."""
        values = np.concatenate([*self.numbers, np.array(self.outputs)])
        values = values[np.isfinite(values) & (values != 0)]
        some: Float64[np.ndarray, " n"] = values[:: max(1, len(values) // 1500)]
        return some

    def deviation(self, values: Float64[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape"]:
        """The standard deviation of answered numbers about what the service computed in exact arithmetic."""
        rounding = grain(values, self.wire or Wire()) / np.sqrt(12)
        return np.asarray(np.sqrt(rounding**2 + (1e-7 * np.abs(values)) ** 2 + self.noise**2))
