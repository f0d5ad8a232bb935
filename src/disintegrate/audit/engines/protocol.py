"""Who does the blocks of inputs of an audit: the seam, and what passes through it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from disintegrate.audit.checking import Check
from disintegrate.clients.budget import Allowance, Budget
from disintegrate.clients.pace import Pace, Turns
from disintegrate.explainers.protocol import Explainer

# Inputs that are asked together: so few that several workers have something to do, so many that walks are fitted well.
FEWEST, MOST, PARTS = 25, 200, 8


@dataclass(frozen=True, eq=False)
class Block:
    """Inputs that are asked together, in every engine the same ones.

    Attributes:
        first: the number of the first among all inputs.
        inputs: the points.
        targets: the output to explain for each.
    """

    first: int
    inputs: Float[np.ndarray, "n *shape"]
    targets: Int[np.ndarray, " n"]


@dataclass(frozen=True, eq=False)
class Found:
    """What was found at a block.

    Attributes:
        first: the number of its first input among all.
        gradient: recovered at each input.
        observed: coordinates that some query told of.
        distance: to the truth, or an upper estimate.
        check: what the gradients were held against.
        queries_for_plan: spent on recovering.
        queries_for_check: spent on checking.
    """

    first: int
    gradient: Float64[np.ndarray, "n *shape"]
    observed: Bool[np.ndarray, "n *shape"]
    distance: Float64[np.ndarray, " n"]
    check: Check
    queries_for_plan: int
    queries_for_check: int


@runtime_checkable
class Work(Protocol):
    """What is done at each block; it can be pickled, and hangs on nothing but the block and the service's answers."""

    def __call__(self, explainer: Explainer, block: Block) -> Found:
        """Do one block."""


@runtime_checkable
class Engine(Protocol):
    """Something that does blocks: here, in other processes, on other machines."""

    def run(self, explainer: Explainer, work: Work, blocks: Sequence[Block]) -> Generator[Found, None, None]:
        """Do every block once, and tell of each when it is done, in any order; closed, let nobody work any more.

        A block that falls in doubt does not keep the others from being done.

        Raises:
            InDoubt: at the end, if some blocks have queries in doubt.
            DisintegrateError: what ended the run.
        """


@runtime_checkable
class Seat(Protocol):
    """How a worker comes by the service; it can be pickled."""

    def opened(self, worker: int, budget: Allowance, turns: Turns) -> AbstractContextManager[Explainer]:
        """The service, for the worker of this number, whose queries are covered and paced for all workers together."""


@runtime_checkable
class Source(Protocol):
    """Where workers take the service from."""

    @property
    def budget(self) -> Budget:
        """What covers the queries of all workers together."""

    @property
    def turns(self) -> Pace:
        """Which of them may ask when."""

    @property
    def grace(self) -> float:
        """Seconds that an answer under way is worth waiting for when a run is stopped."""

    def lent(self) -> AbstractContextManager[Seat]:
        """For the time of a run, what workers need."""


def blocks_of(inputs: Float[np.ndarray, "n *shape"], targets: Int[np.ndarray, " n"]) -> list[Block]:
    """All inputs in blocks, which hang on their number alone.

    Example:
        >>> found = blocks_of(np.ones((60, 2)), np.zeros(60, int))
        >>> [block.first for block in found] == [0, 25, 50] and len(found[2].inputs) == 10
        True
    """
    size = min(MOST, max(FEWEST, -(-len(inputs) // PARTS)))
    return [
        Block(first, inputs[first : first + size], targets[first : first + size])
        for first in range(0, len(inputs), size)
    ]
