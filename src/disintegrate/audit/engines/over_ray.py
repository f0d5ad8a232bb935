"""Blocks in actors of Ray, on this machine or on others."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from disintegrate.audit.engines.crew import Event, dispatched
from disintegrate.audit.engines.processes import checked, sent
from disintegrate.audit.engines.protocol import Block, Found, Source, Work
from disintegrate.audit.engines.shared import FarBudget, FarTurns, Wish, granted
from disintegrate.audit.engines.sources import Carried
from disintegrate.audit.engines.worker import Gone, Setup, outcome, sendable
from disintegrate.clients.budget import Budget
from disintegrate.clients.pace import Pace
from disintegrate.errors import DisintegrateError, UnknownName, Unreachable
from disintegrate.explainers.protocol import Explainer

# What passes through it are blocks; Ray's own default is a third of the memory.
STORE = 256 * 2**20


@dataclass(frozen=True)
class RayEngine:
    """Workers are actors of Ray; one that is killed is replaced, and its block done again from its journal.

    Attributes:
        workers: how many.
        source: where they take the service from; None for the audited explainer itself, sent by pickle. On other
            machines a journal's folder must be one that all of them share.
        address: of a cluster that runs; None for one of its own on this machine, for the time of the run.

    Raises:
        InvalidValue: fewer than one worker.
    """

    workers: int = 2
    source: Source | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        checked(self.workers)

    def run(self, explainer: Explainer, work: Work, blocks: Sequence[Block]) -> Generator[Found, None, None]:
        """Do every block once.

        Raises:
            UnknownName: Ray is not installed.
            Unreachable: there is no cluster at the address.
            WorkerLost: several workers died at the same block.
            InvalidValue: the explainer cannot be sent.
            DisintegrateError: what a worker raised.
        """
        source = self.source or Carried(explainer)
        workers = min(self.workers, len(blocks))
        with source.lent() as seat, _connected(self.address, workers) as ray:
            setup = Setup(seat, work, torch.get_num_threads(), source.grace)
            with closing(_Actors(ray, source, sent(setup), workers)) as crew:
                yield from dispatched(crew, workers, blocks)


@contextmanager
def _connected(address: str | None, workers: int) -> Iterator[Any]:
    # no word to Ray's makers about what is run here
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray  # noqa: PLC0415  an extra
    except ImportError:
        raise UnknownName(
            "Ray is not installed.", got="engine ray", instead="Run pip install 'disintegrate[ray]', or use processes."
        ) from None
    if ray.is_initialized():  # by the caller, whose it stays
        yield ray
        return
    try:
        if address is None:
            ray.init(
                "local", num_cpus=workers, include_dashboard=False, object_store_memory=STORE,
                _node_ip_address="127.0.0.1", log_to_driver=False, logging_level=logging.ERROR,
            )  # fmt: skip
        else:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise Unreachable(
            "Ray cannot be reached.",
            got=str(error)[:200],
            instead="Check --ray-address, or leave it out.",
            lasting=True,
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


class _Desk:
    """The actor that keeps budget and pace for all workers."""

    def __init__(self, limit: int | None, spent: int, per_second: float | None) -> None:
        self._budget = Budget(limit, spent)
        self._turns = Pace(per_second)
        self._closed = False

    def ask(self, wish: Wish, amount: float) -> float | DisintegrateError | None:
        """Seconds to wait, what is refused, or None when the run has ended."""
        if self._closed:
            return None
        try:
            return granted(self._budget, self._turns, wish, amount)
        except DisintegrateError as error:
            return error

    def close(self) -> int:
        """Let nobody begin anything more; what was spent."""
        self._closed = True
        return self._budget.spent


class _Actor:
    """A worker; it comes by the service at its first block, so that what is raised then can be told."""

    def __init__(self, number: int, setup: bytes, ray_get: Any, desk: Any) -> None:
        self._number = number
        self._sent = setup
        self._get = ray_get
        self._desk = desk
        self._held = ExitStack()
        self._explainer: Explainer | None = None

    def do(self, block: Block) -> Found | Exception | None:
        """Do a block; None where the run has ended meanwhile."""
        try:
            if self._explainer is None:
                self._setup: Setup = pickle.loads(self._sent)  # noqa: S301  from our own driver
                torch.set_num_threads(self._setup.threads)
                seat = self._setup.seat.opened(self._number, FarBudget(self._ask), FarTurns(self._ask))
                self._explainer = self._held.enter_context(seat)
        except Exception as error:
            return sendable(error)
        try:
            return outcome(self._setup.work, self._explainer, block)
        except Gone:
            return None

    def _ask(self, wish: Wish, amount: float) -> float:
        answer = self._get(self._desk.ask.remote(wish, amount))
        if answer is None:
            raise Gone
        if isinstance(answer, DisintegrateError):
            raise answer
        return float(answer)


class _Actors:
    """The crew."""

    def __init__(self, ray: Any, source: Source, setup: bytes, workers: int) -> None:
        self._ray = ray
        self._source = source
        self._setup = ray.put(setup)
        # an actor that took a CPU would wait for ever where there are fewer than workers
        self._made = ray.remote(num_cpus=0, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD")(_Actor)
        desk = ray.remote(num_cpus=0)(_Desk)
        budget, turns = source.budget, source.turns
        self._desk = desk.remote(budget.limit, budget.spent, turns.per_second)
        self._actors = {number: self._started(number) for number in range(workers)}
        self._busy: dict[Any, int] = {}

    def _started(self, number: int) -> Any:
        return self._made.remote(number, self._setup, self._ray.get, self._desk)

    def give(self, worker: int, block: Block) -> None:
        """Send a block."""
        self._busy[self._actors[worker].do.remote(block)] = worker

    def next(self) -> Event:
        """Wait until a worker is done or dead."""
        (ready, *_), _ = self._ray.wait(list(self._busy), num_returns=1)
        worker = self._busy.pop(ready)
        try:
            return Event(worker, self._ray.get(ready))
        except self._ray.exceptions.RayActorError:
            return Event(worker, None)

    def replace(self, worker: int) -> None:
        """Start another in the place of one that is dead."""
        self._actors[worker] = self._started(worker)

    def close(self) -> None:
        """Let all workers end: at once where they are idle, else behind what is under way."""
        spent = self._ray.get(self._desk.close.remote())
        self._source.budget.reserve_earlier(spent - self._source.budget.spent)
        if self._busy:
            self._ray.wait(list(self._busy), num_returns=len(self._busy), timeout=self._source.grace)
        for actor in self._actors.values():
            self._ray.kill(actor)
