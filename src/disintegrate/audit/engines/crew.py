"""Several workers and the blocks they do: who is idle gets the next, who dies is replaced and the block done again."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from disintegrate.audit.engines.doubts import Doubts
from disintegrate.audit.engines.protocol import Block, Found
from disintegrate.errors import InDoubt, WorkerLost

# Workers that may die at one block before it is taken for the cause.
DEATHS = 3


@dataclass(frozen=True, eq=False)
class Event:
    """What a worker has come to.

    Attributes:
        worker: its number.
        outcome: the block done, what was raised, or None where the worker is gone.
    """

    worker: int
    outcome: Found | Exception | None


@runtime_checkable
class Crew(Protocol):
    """Workers, by number."""

    def give(self, worker: int, block: Block) -> None:
        """Let an idle worker do a block."""

    def next(self) -> Event:
        """Wait until a worker that has a block comes to something."""

    def replace(self, worker: int) -> None:
        """Put another in the place of one that is gone."""


def dispatched(crew: Crew, workers: int, blocks: Sequence[Block]) -> Iterator[Found]:
    """Have every block done once; after a failure what is under way ends, and nothing more is begun.

    Raises:
        WorkerLost: several workers died at the same block.
        InDoubt: at the end, if some blocks have queries in doubt.
        Exception: what the first worker that failed raised.
    """
    waiting, idle = deque(blocks), list(range(workers))
    busy: dict[int, Block] = {}
    deaths: Counter[int] = Counter()
    doubts = Doubts()
    failure: Exception | None = None
    while busy or (waiting and failure is None):
        while idle and waiting and failure is None:
            worker = idle.pop(0)
            busy[worker] = waiting.popleft()
            crew.give(worker, busy[worker])
        event = crew.next()
        block = busy.pop(event.worker)
        idle.append(event.worker)
        match event.outcome:
            case Found():
                yield event.outcome
            case None:
                crew.replace(event.worker)
                waiting.appendleft(block)
                deaths[block.first] += 1
                if deaths[block.first] == DEATHS:
                    failure = failure or _lost(block)
            case InDoubt():
                doubts.add(event.outcome)
            case _:
                failure = failure or event.outcome
    if failure is not None:
        raise failure
    doubts.raise_any()


def _lost(block: Block) -> WorkerLost:
    return WorkerLost(
        f"{DEATHS} workers in a row died at the same inputs.",
        got=f"inputs {block.first} to {block.first + len(block.inputs) - 1}",
        instead="Check the memory that the model needs, or use the local engine.",
    )
