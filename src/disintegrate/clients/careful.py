"""A live endpoint with all that keeps paid answers safe around it."""

from __future__ import annotations

from disintegrate.clients.budget import Allowance, Budget
from disintegrate.clients.journal import Journal
from disintegrate.clients.journaled import Doubt, Journaled
from disintegrate.clients.pace import Pace, Paced, Turns
from disintegrate.clients.remote import RemoteExplainer
from disintegrate.clients.retrying import Retrying
from disintegrate.clients.under_way import Concurrent
from disintegrate.clients.watched import Watched
from disintegrate.explainers.protocol import Explainer, Request


def kept(
    remote: RemoteExplainer,
    journal: Journal,
    target: str,
    *,
    budget: Allowance | None = None,
    turns: Turns | None = None,
    in_doubt: Doubt = Doubt.LEAVE,
) -> Journaled:
    """The endpoint behind retries, a pace, a journal and a budget; arguments as for `careful`."""
    paced = Paced(budget or Budget(None), turns or Pace())
    retrying = Retrying(remote, pause=paced.back_off)
    return Journaled(retrying, journal, target, budget=paced, in_doubt=in_doubt, parts=remote.parts)


def careful(
    remote: RemoteExplainer,
    journal: Journal,
    target: str,
    *,
    budget: Allowance | None = None,
    turns: Turns | None = None,
    in_doubt: Doubt = Doubt.LEAVE,
    canary: Request | None = None,
    every: int = 200,
    under_way: int = 1,
) -> Explainer:
    """The endpoint behind retries, a pace, a journal, a budget, a canary, and a bound on requests under way.

    Args:
        remote: the endpoint.
        journal: where queries and answers are written down.
        target: the endpoint's name in the journal; its URL does.
        budget: the most queries, over all runs with this journal.
        turns: who may ask when, over all that ask this endpoint; None for whoever asks.
        in_doubt: what becomes of queries that may have been paid for without an answer.
        canary: a query to see by whether the target changes; None for none.
        every: queries between two looks at the canary.
        under_way: exchanges under way at once; a kill leaves at most so many in doubt.
    """
    journaled = kept(remote, journal, target, budget=budget, turns=turns, in_doubt=in_doubt)
    watched = journaled if canary is None else Watched(journaled, canary, every=every)
    return watched if under_way == 1 else Concurrent(watched, under_way=under_way, rows=remote.rows)
