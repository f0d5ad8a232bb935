"""Blocks in other processes of this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

import torch

from disintegrate.audit.engines.crew import Event, dispatched
from disintegrate.audit.engines.protocol import Block, Found, Source, Work
from disintegrate.audit.engines.shared import Wish, granted
from disintegrate.audit.engines.sources import Carried
from disintegrate.audit.engines.worker import Setup, serve
from disintegrate.errors import DisintegrateError, InvalidValue
from disintegrate.explainers.protocol import Explainer

# Seconds for an idle process to end.
IDLE = 20.0


@dataclass(frozen=True)
class ProcessEngine:
    """Workers are processes of their own; one that is killed is replaced, and its block done again from its journal.

    Attributes:
        workers: how many.
        source: where they take the service from; None for the audited explainer itself, sent by pickle.

    Raises:
        InvalidValue: fewer than one worker.
    """

    workers: int = 2
    source: Source | None = None

    def __post_init__(self) -> None:
        checked(self.workers)

    def run(self, explainer: Explainer, work: Work, blocks: Sequence[Block]) -> Generator[Found, None, None]:
        """Do every block once.

        Raises:
            WorkerLost: several workers died at the same block.
            InvalidValue: the explainer cannot be sent.
            DisintegrateError: what a worker raised.
        """
        source = self.source or Carried(explainer)
        workers = min(self.workers, len(blocks))
        with source.lent() as seat:
            setup = Setup(seat, work, torch.get_num_threads(), source.grace)
            crew = _Processes(source, sent(setup), workers)
            with contextlib.closing(crew):
                yield from dispatched(crew, workers, blocks)


def sent(setup: Setup) -> bytes:
    """A setup, pickled.

    Raises:
        InvalidValue: the model cannot be.
    """
    try:
        return pickle.dumps(setup)
    except Exception as error:  # a class of the user's may raise anything
        raise InvalidValue(
            "This model cannot be sent to other processes.",
            got=f"{type(error).__name__}: {error}"[:200],
            instead="Use the local engine.",
        ) from None


def checked(workers: int) -> None:
    """Refuse a number of workers that is none.

    Raises:
        InvalidValue: fewer than one.
    """
    if workers < 1:
        raise InvalidValue("Somebody has to do the work.", got=f"{workers} workers", instead="Use 1 or more.")


@dataclass(frozen=True, eq=False)
class _Worker:
    process: SpawnProcess
    channel: Connection
    life: Connection


class _Processes:
    """The crew."""

    def __init__(self, source: Source, setup: bytes, workers: int) -> None:
        self._source = source
        self._setup = setup
        self._busy: set[int] = set()
        self._workers: dict[int, _Worker] = {}
        try:
            for number in range(workers):
                self._workers[number] = self._started(number)
        except BaseException:
            self.close()
            raise

    def _started(self, number: int) -> _Worker:
        context = multiprocessing.get_context("spawn")
        (ours, theirs), (listens, life) = context.Pipe(), context.Pipe(duplex=False)
        process = context.Process(
            target=serve, args=(number, theirs, listens, self._setup), name=f"audit-{number}", daemon=True
        )
        try:
            process.start()
        finally:
            # with the child as their only owner, the pipes break when it dies
            theirs.close()
            listens.close()
        return _Worker(process, ours, life)

    def give(self, worker: int, block: Block) -> None:
        """Send a block."""
        self._busy.add(worker)
        with contextlib.suppress(OSError):  # where it is dead, `next` will find it
            self._workers[worker].channel.send(block)

    def next(self) -> Event:
        """Fulfil wishes until a worker is done or dead."""
        while True:
            channels: dict[object, int] = {self._workers[number].channel: number for number in self._busy}
            for ready in wait([self._workers[number].channel for number in self._busy]):
                number = channels[ready]
                outcome = self._heard(self._workers[number])
                if not isinstance(outcome, tuple):
                    self._busy.discard(number)
                    return Event(number, outcome)
                self._fulfil(self._workers[number], *outcome)

    def _heard(self, worker: _Worker) -> Found | Exception | tuple[Wish, float] | None:
        try:
            heard: Found | Exception | tuple[Wish, float] = worker.channel.recv()
        except (EOFError, OSError, pickle.UnpicklingError):
            return None  # killed, perhaps in the middle of a message
        return heard

    def _fulfil(self, worker: _Worker, wish: Wish, amount: float) -> None:
        answer: float | DisintegrateError
        try:
            answer = granted(self._source.budget, self._source.turns, wish, amount)
        except DisintegrateError as error:
            answer = error
        with contextlib.suppress(OSError):  # it may be dead meanwhile
            worker.channel.send(answer)

    def replace(self, worker: int) -> None:
        """Start another in the place of one that is dead."""
        self._end(self._workers[worker], seconds=0)
        self._workers[worker] = self._started(worker)

    def close(self) -> None:
        """Let all workers end: at once where they are idle, else behind what is under way."""
        for worker in self._workers.values():
            worker.channel.close()
            worker.life.close()
        for number, worker in self._workers.items():
            self._end(worker, seconds=self._source.grace if number in self._busy else IDLE)

    def _end(self, worker: _Worker, seconds: float) -> None:
        worker.channel.close()
        worker.life.close()
        worker.process.join(seconds)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.process.close()
