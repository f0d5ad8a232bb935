"""Who asks in an audit, and what is kept of the answers: the flags of engines, pace and journal made into objects."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from disintegrate.cli.terminal import errors

if TYPE_CHECKING:
    from torch import nn

    from disintegrate import Explainer
    from disintegrate.audit.engines import Engine, Source
    from disintegrate.clients import Journal


class EngineName(StrEnum):
    """Who asks."""

    LOCAL = "local"
    PROCESSES = "processes"
    RAY = "ray"


@dataclass(frozen=True)
class Asking:
    """Who asks, how fast, how much in all, and what keeps the answers; as the flags say.

    Attributes:
        engine: who asks.
        workers: how many of them, where they are not this process.
        ray_address: of a cluster that runs.
        rate: queries in a second, over all workers.
        most_queries: in all, over all runs with a journal.
        journal: where answers are kept; None for a file of its own until an endpoint's audit has ended.
        in_doubt: what becomes of queries that may have been paid for without an answer.
        key_file: a file with the endpoint's key.
    """

    engine: EngineName = EngineName.LOCAL
    workers: int = 2
    ray_address: str | None = None
    rate: float | None = None
    most_queries: int | None = None
    journal: Path | None = None
    in_doubt: str = "leave"
    key_file: Path | None = None

    def by(self, source: Source | None) -> Engine:
        """The engine."""
        from disintegrate.audit.engines import LocalEngine, ProcessEngine, RayEngine

        match self.engine:
            case EngineName.PROCESSES:
                return ProcessEngine(self.workers, source)
            case EngineName.RAY:
                return RayEngine(self.workers, source, self.ray_address)
        return LocalEngine()


@dataclass(frozen=True, eq=False)
class Service:
    """A service to ask.

    Attributes:
        explainer: for this process.
        probing: for questions that are asked twice on purpose.
        source: where workers take it from; None for the explainer itself.
    """

    explainer: Explainer
    probing: Explainer
    source: Source | None


def asked_endpoint(target: str, asking: Asking, held: ExitStack) -> Service:
    """A live endpoint, all answers of which are kept until the audit has ended, or in the journal that is named."""
    from disintegrate.audit.engines import Endpoint
    from disintegrate.clients import Budget, Doubt, Pace, Repeating, connect, kept, read_credentials

    remote = held.enter_context(connect(target, credentials=read_credentials(asking.key_file)))
    journal = held.enter_context(_journal(target, asking.journal))
    budget, pace, doubt = Budget(asking.most_queries), Pace(asking.rate), Doubt(asking.in_doubt)
    journaled = kept(remote, journal, target, budget=budget, turns=pace, in_doubt=doubt)
    source = Endpoint(target, journal, asking.key_file, doubt, budget, pace)
    return Service(journaled, Repeating(journaled), source)


def asked_model(explainer: Explainer, model: nn.Module, asking: Asking, held: ExitStack) -> Service:
    """A model's service in this process; its answers are kept where a journal is named."""
    if asking.journal is None:
        return Service(explainer, explainer, None)
    from disintegrate.audit.engines import Carried, by_request
    from disintegrate.clients import Budget, Doubt, Repeating

    name = _fingerprint(explainer, model)
    journal = held.enter_context(_journal(name, asking.journal))
    # to ask a model again costs nothing
    journaled = by_request(explainer, journal, name, in_doubt=Doubt.ASK)
    source = Carried(explainer, journal, name, Doubt.ASK, Budget(None))
    return Service(journaled, Repeating(journaled), source)


@contextmanager
def _journal(target: str, named: Path | None) -> Iterator[Journal]:
    """The journal, with what earlier runs have left; where none is named it stays only where it saves a later run."""
    from disintegrate.clients import Journal, gather_shards

    path = named or Path(f"audit-{hashlib.sha256(target.encode()).hexdigest()[:8]}.journal")
    useful = True
    try:
        with Journal(path) as journal:
            gather_shards(journal)
            counts = journal.counts()
            if counts.answered or counts.in_doubt:
                note = f"{path} holds {counts.answered} answers; {counts.in_doubt} queries are in doubt."
                errors().print(
                    f"{note} After a change of the service, give another journal.", highlight=False, soft_wrap=True
                )
            try:
                yield journal
                useful = False
            finally:
                counts = journal.counts()
                useful = useful and bool(counts.answered or counts.in_doubt)
    finally:
        if named is None and not useful:
            for ending in ("", "-wal", "-shm", ".lock"):
                path.with_name(path.name + ending).unlink(missing_ok=True)


def _fingerprint(explainer: Explainer, model: nn.Module) -> str:
    """What tells a model and its service from all others."""
    digest = hashlib.sha256(f"{explainer.capabilities}{model}".encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return f"model {digest.hexdigest()}"
