"""The seam between the attack and the service: what is asked, what is answered, what may be asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from disintegrate.errors import NotPermitted


@dataclass(frozen=True)
class Capabilities:
    """What a caller of a service may set, and within which bounds.

    Attributes:
        rule: name of the service's quadrature rule.
        fewest_steps: the smallest step count that a caller may ask for.
        most_steps: the largest; the two are equal where the service fixes the steps.
        baseline: whether the caller may give a baseline; otherwise the service's own, zero, holds.
        dtype: the floating-point type in which inputs are sent; None leaves it to the service's own arithmetic.
    """

    rule: str
    fewest_steps: int = 1
    most_steps: int = 10_000
    baseline: bool = True
    dtype: str | None = None

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
        if not self.baseline and baselines.any():
            raise NotPermitted(
                "The service does not allow a baseline of the caller's.",
                got=f"{np.count_nonzero(baselines)} coordinates that are not zero",
                instead="Use the zero baseline, and a plan whose queries all start at 0.",
            )


@dataclass(frozen=True, eq=False)
class Request:
    """A batch of questions with one step count: explain each input's target from its baseline."""

    inputs: Float[np.ndarray, "n *shape"]
    baselines: Float[np.ndarray, "n *shape"]
    targets: Int[np.ndarray, " n"]
    steps: int


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
