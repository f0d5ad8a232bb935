"""The seam between the attack and the service: what is asked, what is answered, what may be asked."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from disintegrate.errors import InvalidValue, NotPermitted
from disintegrate.explainers.wire import Wire


class Output(Enum):
    """What the explained outputs are; the value is the word shown."""

    LOGITS = "logits"
    PROBABILITIES = "probabilities"


@dataclass(frozen=True)
class Capabilities:
    """What a caller of a service may set, within which bounds, and what the wire does to the answers.

    Attributes:
        rule: name of the service's quadrature rule.
        fewest_steps: the smallest step count that a caller may ask for.
        most_steps: the largest; the two are equal where the service fixes the steps.
        baseline: whether the caller may give a baseline; otherwise the service's own holds.
        zero_baseline: whether the service's own baseline is zero; otherwise whoever recovers must say what it is.
        dtype: the floating-point type in which inputs are sent; None leaves it to the service's own arithmetic.
        default_steps: the steps of a request that names none; None for the most permitted, at most 50.
        smallest_value: coordinates of an input or a baseline below this are refused.
        largest_value: coordinates above this are refused.
        furthest: how far out on a ray the caller may ask, in multiples of the input's distance from the baseline.
        output: logits or probabilities.
        wire: rounding and noise of the answers.

    Raises:
        InvalidValue: bounds that leave nothing to ask.
    """

    rule: str
    fewest_steps: int = 1
    most_steps: int = 10_000
    baseline: bool = True
    zero_baseline: bool = True
    dtype: str | None = None
    default_steps: int | None = None
    smallest_value: float = -math.inf
    largest_value: float = math.inf
    furthest: float = math.inf
    output: Output = Output.LOGITS
    wire: Wire = field(default_factory=Wire)

    def __post_init__(self) -> None:
        for low, high, name in (
            (self.fewest_steps, self.most_steps, "steps"),
            (self.smallest_value, self.largest_value, "values"),
            (1, self.furthest, "distance on the ray"),
        ):
            if not low <= high:
                raise InvalidValue(
                    f"These bounds on the {name} leave nothing to ask.", got=f"{low} to {high}", instead="Swap them."
                )

    @property
    def own_steps(self) -> int:
        """The steps of a request that names none."""
        return self.default_steps or max(self.fewest_steps, min(self.most_steps, 50))

    def check_steps(self, steps: int) -> None:
        """Refuse a step count that the service would refuse.

        Raises:
            NotPermitted: the steps lie outside the bounds.
        """
        if not self.fewest_steps <= steps <= self.most_steps:
            allowed = f"{self.fewest_steps} to {self.most_steps}"
            raise NotPermitted(
                "The service does not allow this number of steps.",
                got=steps,
                instead=f"Use a plan with steps in {allowed}.",
            )

    def check_baselines(self, baselines: Float[np.ndarray, "n *shape"]) -> None:
        """Refuse a baseline of the caller's where the service has its own, which is zero.

        Raises:
            NotPermitted: a baseline is not zero.
        """
        if not self.baseline and self.zero_baseline and baselines.any():
            raise NotPermitted(
                "The service does not allow a baseline of the caller's.",
                got=f"{np.count_nonzero(baselines)} coordinates that are not zero",
                instead="Use the zero baseline, and a plan whose queries all start at 0.",
            )

    def check_values(self, points: Float[np.ndarray, "n *shape"]) -> None:
        """Refuse points that the service would refuse.

        Raises:
            NotPermitted: a coordinate lies outside the bounds.
        """
        outside = (points < self.smallest_value) | (points > self.largest_value)
        if outside.any():
            raise NotPermitted(
                "The service does not take such values.",
                got=f"{float(points[outside][0]):.6g} and {np.count_nonzero(outside) - 1} more",
                instead=f"Stay within {self.smallest_value:g} to {self.largest_value:g}.",
            )

    def reach(
        self, inputs: Float[np.ndarray, "n *shape"], baselines: Float[np.ndarray, "n *shape"]
    ) -> tuple[float, float]:
        """The smallest and the largest position on the rays of all these inputs that may be asked.

        Example:
            >>> images = Capabilities(rule="midpoint", smallest_value=0, largest_value=1)
            >>> images.reach(np.array([[0.5, 0.25]]), np.zeros((1, 2))) == (0.0, 2.0)
            True
        """
        difference = np.asarray(inputs, np.float64) - baselines
        moved = difference != 0
        with np.errstate(divide="ignore", invalid="ignore"):
            first = np.where(moved, (self.smallest_value - baselines) / difference, -np.inf)
            second = np.where(moved, (self.largest_value - baselines) / difference, np.inf)
        # A coordinate that grows meets the largest value ahead; one that falls, the smallest.
        ahead = np.where(difference > 0, second, first)[moved]
        behind = np.where(difference > 0, first, second)[moved]
        lowest = float(behind.max(initial=-self.furthest))
        # The input itself is permitted, whatever the division's last digit says.
        return min(lowest, 0.0) + 0.0, max(float(ahead.min(initial=self.furthest)), 1.0)


@dataclass(frozen=True, eq=False)
class Request:
    """A batch of questions with one step count: explain each input's target from its baseline.

    Attributes:
        inputs: the points to explain.
        baselines: where the rays begin; None for the service's own.
        targets: the outputs to explain.
        steps: nodes of the quadrature; None for the service's own number.
    """

    inputs: Float[np.ndarray, "n *shape"]
    baselines: Float[np.ndarray, "n *shape"] | None
    targets: Int[np.ndarray, " n"]
    steps: int | None


@dataclass(frozen=True, eq=False)
class Explanation:
    """The answers to a request: the target output at each input, and the attribution of its coordinates."""

    output: Float[np.ndarray, " n"]
    attribution: Float[np.ndarray, "n *shape"]


@runtime_checkable
class Explainer(Protocol):
    """A service that explains: local or remote, or another one with something around it."""

    @property
    def capabilities(self) -> Capabilities:
        """What a caller may set."""

    def explain(self, request: Request) -> Explanation:
        """Answer a batch; each row from its own input alone."""


@runtime_checkable
class Predictor(Protocol):
    """A service that predicts too: one query tells all outputs of an input, without an explanation."""

    def predict(self, inputs: Float[np.ndarray, "n *shape"]) -> Float[np.ndarray, "n classes"]:
        """All outputs of a batch."""
