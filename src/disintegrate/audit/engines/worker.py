"""What a worker process does: blocks, one after the other, until nobody gives it any more."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch

from disintegrate.audit.engines.protocol import Block, Found, Seat, Work
from disintegrate.audit.engines.shared import FarBudget, FarTurns, Wish
from disintegrate.errors import DisintegrateError
from disintegrate.explainers.protocol import Explainer


@dataclass(frozen=True)
class Setup:
    """What all workers of a run share.

    Attributes:
        seat: how each comes by the service.
        work: what each does.
        threads: for torch, as many as in the parent, since the last digits may hang on it.
        grace: seconds in which an answer under way may still come and be written down when the parent is gone.
    """

    seat: Seat
    work: Work
    threads: int
    grace: float


class Gone(BaseException):
    """The parent is gone; not an Exception, so that nothing takes it for a failure of the service."""


def serve(worker: int, channel: Connection, life: Connection, sent: bytes) -> None:
    """Do what comes through the channel.

    Args:
        worker: its number.
        channel: to the parent, for blocks, what becomes of them, and wishes.
        life: whose other end nobody has but the parent; when it closes, the parent has ended, however it did.
        sent: the setup, pickled.
    """
    # Ctrl-C reaches the whole group; what to do then is the parent's to say
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        try:
            setup: Setup = pickle.loads(sent)  # noqa: S301  from our own parent
            threading.Thread(target=_end_with, args=(life, setup.grace), daemon=True).start()
            _serve(worker, channel, setup)
        except (Gone, EOFError, BrokenPipeError):
            raise
        except Exception as error:  # what a worker cannot begin with is told at its first block
            channel.recv()
            channel.send(sendable(error))
    except (Gone, EOFError, OSError):
        pass  # nobody is there to be told


def _serve(worker: int, channel: Connection, setup: Setup) -> None:
    def ask(wish: Wish, amount: float) -> float:
        try:
            channel.send((wish, amount))
            answer = channel.recv()
        except (EOFError, OSError):
            raise Gone from None
        if isinstance(answer, DisintegrateError):
            raise answer
        return float(answer)

    torch.set_num_threads(setup.threads)
    with setup.seat.opened(worker, FarBudget(ask), FarTurns(ask)) as explainer:
        while True:
            block: Block = channel.recv()
            channel.send(outcome(setup.work, explainer, block))


def outcome(work: Work, explainer: Explainer, block: Block) -> Found | Exception:
    """A block done, or what was raised, as something that can be sent."""
    try:
        return work(explainer, block)
    except Exception as error:
        return sendable(error)


def sendable(error: Exception) -> Exception:
    """The exception if it can be sent, else one that says the same."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  made in the line
    except Exception:  # an exception of the user's may do anything when it is pickled
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _end_with(life: Connection, grace: float) -> None:
    """End when the parent does; an exchange under way may end first."""
    with contextlib.suppress(EOFError, OSError):
        life.recv()
    time.sleep(grace)
    os._exit(1)
