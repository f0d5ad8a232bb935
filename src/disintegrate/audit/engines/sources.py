"""Where workers take the service from: it is sent to them, or they connect to it themselves."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from disintegrate.audit.engines.protocol import Seat
from disintegrate.clients.budget import Allowance, Budget
from disintegrate.clients.careful import kept
from disintegrate.clients.connect import connect
from disintegrate.clients.credentials import read_credentials
from disintegrate.clients.journal import Journal
from disintegrate.clients.journaled import Doubt, Journaled
from disintegrate.clients.pace import Pace, Turns
from disintegrate.clients.shards import Shards, gather_shards
from disintegrate.errors import InvalidValue
from disintegrate.explainers.protocol import Explainer


@dataclass(frozen=True, eq=False)
class Carried:
    """An explainer that is sent to the workers as it is.

    Attributes:
        explainer: what pickle can send.
        journal: what has been answered before, and takes up what the workers are answered; None for none.
        name: the service's name in the journal.
        in_doubt: what becomes of queries that may have been paid for without an answer.
        budget: what covers the queries of all workers together.
        turns: which of them may ask when.
    """

    explainer: Explainer
    journal: Journal | None = None
    name: str = ""
    in_doubt: Doubt = Doubt.LEAVE
    budget: Budget = field(default_factory=lambda: Budget(None))
    turns: Pace = field(default_factory=Pace)

    grace: ClassVar[float] = 0.5

    @contextmanager
    def lent(self) -> Iterator[Seat]:
        """The explainer, pickled.

        Raises:
            InvalidValue: it cannot be pickled.
        """
        try:
            sent = pickle.dumps(self.explainer)
        except Exception as error:  # a class of the user's may raise anything
            raise InvalidValue(
                "This explainer cannot be sent to other processes.",
                got=f"{type(error).__name__}: {error}"[:200],
                instead="Use the local engine, or an endpoint, to which each worker connects by itself.",
            ) from None
        if self.journal is None:
            yield _CarriedSeat(sent, None, self.name, self.in_doubt)
            return
        with _shared(self.journal) as shards:
            yield _CarriedSeat(sent, shards, self.name, self.in_doubt)


@dataclass(frozen=True)
class _CarriedSeat:
    sent: bytes
    shards: Shards | None
    name: str
    in_doubt: Doubt

    @contextmanager
    def opened(self, worker: int, budget: Allowance, turns: Turns) -> Iterator[Explainer]:
        explainer = pickle.loads(self.sent)  # noqa: S301  from our own parent
        if self.shards is None:
            yield explainer
            return
        with self.shards.open(worker) as shard:
            yield by_request(explainer, shard, self.name, budget=budget, in_doubt=self.in_doubt)


def by_request(
    explainer: Explainer,
    journal: Journal,
    name: str,
    *,
    budget: Allowance | None = None,
    in_doubt: Doubt = Doubt.LEAVE,
) -> Journaled:
    """An explainer of this process behind a journal.

    Each request is one exchange, since the last digits of its answers may hang on what is computed together.
    """
    return Journaled(
        explainer, journal, name, budget=budget, in_doubt=in_doubt,
        parts=lambda request: (np.arange(len(request.inputs)),),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Endpoint:
    """A live endpoint, to which each worker connects by itself; secrets are not sent, each worker reads its own.

    Attributes:
        target: the protocol and the URL, as for `connect`.
        journal: what has been answered before, and takes up what the workers are answered.
        key_file: a file with the key, which every worker can read; None for the environment's.
        in_doubt: what becomes of queries that may have been paid for without an answer.
        budget: what covers the queries of all workers together.
        turns: which of them may ask when.
    """

    target: str
    journal: Journal
    key_file: Path | None = None
    in_doubt: Doubt = Doubt.LEAVE
    budget: Budget = field(default_factory=lambda: Budget(None))
    turns: Pace = field(default_factory=Pace)

    grace: ClassVar[float] = 15.0

    @contextmanager
    def lent(self) -> Iterator[Seat]:
        """Where to connect, and where to keep answers."""
        with _shared(self.journal) as shards:
            yield _EndpointSeat(self.target, shards, self.key_file, self.in_doubt)


@dataclass(frozen=True)
class _EndpointSeat:
    target: str
    shards: Shards
    key_file: Path | None
    in_doubt: Doubt

    @contextmanager
    def opened(self, worker: int, budget: Allowance, turns: Turns) -> Iterator[Explainer]:
        with (
            connect(self.target, credentials=read_credentials(self.key_file)) as remote,
            self.shards.open(worker) as shard,
        ):
            yield kept(remote, shard, self.target, budget=budget, turns=turns, in_doubt=self.in_doubt)


@contextmanager
def _shared(journal: Journal) -> Iterator[Shards]:
    """A journal that workers read, and that takes up their answers when they have ended."""
    journal.settle()
    try:
        yield Shards(journal.path.absolute())
    finally:
        gather_shards(journal)
