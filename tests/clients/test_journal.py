"""Nothing paid for is lost, nothing is paid twice."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from disintegrate import BadAnswer, BudgetSpent, InDoubt, NotPermitted, Request, TargetChanged, Unreachable
from disintegrate.clients import Budget, Concurrent, Doubt, Journal, Journaled, Retrying, Watched
from disintegrate.clients.dialect import chunks
from disintegrate.clients.journal import query_keys
from disintegrate.errors import DamagedFile, InvalidValue
from tests.clients.services import Scripted, rows


def by_row(request: Request) -> object:
    return chunks(len(request.inputs), 1)


OPENED: list[Journal] = []


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()


def journaled(service: Scripted, path: Path, **options: object) -> Journaled:
    OPENED.append(Journal(path, durable=False))
    return Journaled(service, OPENED[-1], "t", parts=by_row, **options)  # type: ignore[arg-type]


def test_an_answer_comes_from_the_journal_the_second_time_bit_for_bit(tmp_path: Path) -> None:
    service = Scripted()
    for run in range(3):
        explainer = journaled(service, tmp_path / "j")
        answer = explainer.explain(rows(5, first=run))
        expected = Scripted().explain(rows(5, first=run))
        np.testing.assert_array_equal(answer.attribution, expected.attribution)
        np.testing.assert_array_equal(answer.output, expected.output)
        explainer.journal.close()
    assert set(service.asked.values()) == {1}
    assert sum(service.asked.values()) == 7


def test_the_key_is_the_target_and_all_that_a_row_asks() -> None:
    x = rows(1).inputs
    asked = [
        ("t", Request(x, None, np.array([0]), None)),
        ("u", Request(x, None, np.array([0]), None)),
        ("t", Request(x + 1, None, np.array([0]), None)),
        ("t", Request(x, 0 * x, np.array([0]), None)),
        ("t", Request(x, None, np.array([1]), None)),
        ("t", Request(x, None, np.array([0]), 5)),
        ("t", Request(x.astype(np.float64), None, np.array([0]), None)),
    ]
    assert len({query_keys(target, request)[0] for target, request in asked}) == len(asked)
    two = query_keys("t", Request(np.concatenate([x, x + 1]), None, np.array([0, 0]), None))
    assert two == [query_keys(*asked[0])[0], query_keys(*asked[2])[0]]


def test_the_same_row_twice_in_a_request_is_asked_once(tmp_path: Path) -> None:
    service, request = Scripted(), rows(2)
    twice = Request(request.inputs[[0, 1, 0, 0]], None, request.targets[[0, 1, 0, 0]], None)
    with Journal(tmp_path / "j") as journal:
        answer = Journaled(service, journal, "t").explain(twice)
    assert sum(service.asked.values()) == 2
    np.testing.assert_array_equal(answer.output[[0, 2, 3]], answer.output[[0, 0, 0]])


def test_what_surely_was_not_answered_costs_nothing_and_is_asked_another_time(tmp_path: Path) -> None:
    for number, failure in enumerate((Unreachable("gone"), NotPermitted("refused"))):
        service, budget = Scripted(None, failure), Budget(10)
        explainer = journaled(service, tmp_path / str(number), budget=budget)
        with pytest.raises(type(failure)):
            explainer.explain(rows(4))
        assert budget.spent == 1
        assert explainer.journal.counts().in_doubt == 0
        explainer.explain(rows(4))
        assert (budget.spent, set(service.asked.values())) == (4, {1})


def test_a_query_in_doubt_is_counted_and_not_asked_again_unless_told_to(tmp_path: Path) -> None:
    for failure in (InDoubt("torn"), BadAnswer("HTML")):
        path = tmp_path / type(failure).__name__
        service = Scripted(None, failure)
        explainer = journaled(service, path)
        with pytest.raises(type(failure)):
            explainer.explain(rows(4))
        explainer.journal.close()
        left = journaled(service, path, budget=(budget := Budget(10)))
        assert (left.outcome.counts.in_doubt, budget.spent) == (1, left.outcome.counts.answered + 1)
        with pytest.raises(InDoubt, match=r"1 in doubt\. Ask them again with --in-doubt ask"):
            left.explain(rows(4))
        assert left.outcome.counts.answered == 3
        left.journal.close()
        again = journaled(service, path, in_doubt=Doubt.ASK, budget=(budget := Budget(10)))
        np.testing.assert_array_equal(again.explain(rows(4)).output, Scripted().explain(rows(4)).output)
        counts = again.outcome.counts
        assert (counts.answered, counts.in_doubt, counts.paid, budget.spent) == (4, 0, 5, 5)
        assert again.asked == 1
        again.journal.close()


def test_a_doubt_that_could_not_be_asked_again_stays_one(tmp_path: Path) -> None:
    service = Scripted(InDoubt("torn"), Unreachable("down"))
    explainer = journaled(service, tmp_path / "j")
    with pytest.raises(InDoubt):
        explainer.explain(rows(1))
    explainer.journal.close()
    again = journaled(service, tmp_path / "j", in_doubt=Doubt.ASK)
    with pytest.raises(Unreachable):
        again.explain(rows(1))
    assert (again.outcome.counts.in_doubt, again.outcome.counts.paid) == (1, 1)
    assert again.explain(rows(1)).output.shape == (1,)


def test_the_budget_is_never_exceeded_by_concurrency_and_holds_over_runs(tmp_path: Path) -> None:
    service, budget = Scripted(), Budget(30)
    explainer = journaled(service, tmp_path / "j", budget=budget)
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(explainer.explain, rows(10, first=10 * i)) for i in range(8)]
    failures = [future.exception() for future in futures]
    assert any(isinstance(failure, BudgetSpent) for failure in failures)
    assert (sum(service.asked.values()), budget.spent, budget.left) == (30, 30, 0)
    explainer.journal.close()
    later = journaled(service, tmp_path / "j", budget=Budget(31))
    with pytest.raises(BudgetSpent, match="Raise it to go on"):
        later.explain(rows(80))
    assert sum(service.asked.values()) == 31


def test_what_ends_a_run_is_told_rather_than_a_doubt_before_it(tmp_path: Path) -> None:
    with pytest.raises(BudgetSpent):
        journaled(Scripted(None, InDoubt("torn")), tmp_path / "j", budget=Budget(3)).explain(rows(5))


def test_threads_that_ask_the_same_ask_it_once(tmp_path: Path) -> None:
    service = Scripted()
    explainer = Concurrent(journaled(service, tmp_path / "j"), under_way=8, rows=3)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: explainer.explain(rows(40)), range(4)))
    assert set(service.asked.values()) == {1}
    for answer in answers:
        np.testing.assert_array_equal(answer.attribution, Scripted().explain(rows(40)).attribution)


def test_retries_wait_as_told_and_only_where_nothing_was_answered() -> None:
    pauses: list[float] = []
    service = Scripted(Unreachable("busy", retry_after=3), Unreachable("busy"), Unreachable("busy"))
    retrying = Retrying(service, pause=pauses.append, seed=0)
    retrying.explain(rows(1))
    assert pauses[0] >= 3
    assert all(0 <= pause <= limit for pause, limit in zip(pauses[1:], (0.2, 0.4), strict=True))
    for failure in (InDoubt("torn"), BadAnswer("HTML"), NotPermitted("no"), Unreachable("TLS", lasting=True)):
        service = Scripted(failure)
        with pytest.raises(type(failure)):
            Retrying(service, pause=pauses.append).explain(rows(1))
        assert service.calls == 1
    patient = Scripted(*[Unreachable("busy", retry_after=100)] * 9)
    with pytest.raises(Unreachable):
        Retrying(patient, pause=lambda _: None).explain(rows(1))
    assert patient.calls == 2
    lost = Scripted(*[Unreachable("busy")] * 9)
    with pytest.raises(Unreachable):
        Retrying(lost, attempts=5, pause=lambda _: None).explain(rows(1))
    assert lost.calls == 5


def test_the_canary_sees_a_change_within_a_run_and_between_runs(tmp_path: Path) -> None:
    service, canary = Scripted(), rows(1, first=90)
    explainer = journaled(service, tmp_path / "j", budget=(budget := Budget(100)))
    watched = Watched(explainer, canary, every=10)
    watched.explain(rows(10))
    assert budget.spent == 11
    watched.explain(rows(5, first=10))
    assert budget.spent == 17
    service.scale = 1.001
    watched.explain(rows(5, first=15))
    with pytest.raises(TargetChanged, match="in a new way"):
        watched.explain(rows(1, first=20))
    assert explainer.outcome.counts.paid == budget.spent
    explainer.journal.close()
    later = Watched(journaled(service, tmp_path / "j"), canary)
    with pytest.raises(TargetChanged):
        later.explain(rows(1, first=30))
    service.scale = 1
    later.journaled.journal.close()
    Watched(journaled(service, tmp_path / "j"), canary).explain(rows(1, first=30))


def test_a_journal_has_one_writer_and_is_no_other_file(tmp_path: Path) -> None:
    with Journal(tmp_path / "j"), pytest.raises(InvalidValue, match="one writer"):
        Journal(tmp_path / "j")
    (tmp_path / "text").write_text("not a journal " * 100)
    with pytest.raises(DamagedFile, match="not a journal"):
        Journal(tmp_path / "text")
    other = sqlite3.connect(tmp_path / "other")
    other.execute("CREATE TABLE things (a)")
    other.close()
    with pytest.raises(DamagedFile, match="another application"):
        Journal(tmp_path / "other")


def test_shards_are_gathered_and_an_answer_wins_over_a_doubt(tmp_path: Path) -> None:
    first, second = Scripted(None, InDoubt("torn")), Scripted()
    for service, name, request in ((first, "a", rows(2)), (second, "b", rows(3))):
        shard = journaled(service, tmp_path / name)
        if service is first:
            with pytest.raises(InDoubt):
                shard.explain(request)
        else:
            shard.explain(request)
        shard.journal.close()
    with Journal(tmp_path / "whole") as whole:
        whole.gather([tmp_path / "a", tmp_path / "b"])
        counts = whole.counts()
    assert (counts.answered, counts.in_doubt, counts.paid) == (3, 0, 5)


KILLED = """
import os, signal, sys
from pathlib import Path
from disintegrate.clients import Journal, Journaled
from disintegrate.clients.dialect import chunks
from tests.clients.services import Scripted, rows

class Deadly(Scripted):
    def explain(self, request):
        answer = super().explain(request)
        if self.calls == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

journal = Journal(Path(sys.argv[1]))
Journaled(Deadly(), journal, "t", parts=lambda r: chunks(len(r.inputs), 1)).explain(rows(20))
"""


@pytest.mark.parametrize("calls", [1, 13])
def test_a_kill_leaves_one_query_in_doubt_and_all_others_answered(tmp_path: Path, calls: int) -> None:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", KILLED, str(tmp_path / "j"), str(calls)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    explainer = journaled(Scripted(), tmp_path / "j", in_doubt=Doubt.ASK)
    counts = explainer.outcome.counts
    assert (counts.answered, counts.in_doubt) == (calls - 1, 1)
    explainer.explain(rows(20))
    assert explainer.asked == 20 - (calls - 1)
