"""The same record whoever asks, whoever is killed meanwhile, and nothing paid twice."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from disintegrate import AuditResult, Capabilities, InDoubt, LocalExplainer, Request, WorkerLost, audit
from disintegrate.audit import Check
from disintegrate.audit.engines import Block, Endpoint, Engine, Found, LocalEngine, ProcessEngine, RayEngine, blocks_of
from disintegrate.audit.engines.crew import DEATHS, Event, dispatched
from disintegrate.clients import Budget, Doubt, Journal, Journaled, Pace, Repeating, connect, kept
from disintegrate.errors import BudgetSpent, InvalidValue, UnknownName
from disintegrate.explainers.protocol import Explainer, Explanation
from disintegrate.server import Service
from tests.clients.services import Scripted
from tests.server.running import Running, inputs, serving, settings, small_model
from tests.test_cli import run

# one query for each gradient: nothing here hangs on the plan
ALLOWED = Capabilities("riemann_right", dtype="float32")
ROOT = Path(__file__).parents[2]


def local() -> tuple[LocalExplainer, np.ndarray, np.ndarray]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 50), nn.ReLU(), nn.Linear(50, 4))
    generator = np.random.default_rng(0)
    points, targets = generator.normal(size=(110, 20)).astype(np.float32), generator.integers(0, 4, 110)
    return LocalExplainer(model, ALLOWED), points, targets


def same(one: AuditResult, other: AuditResult) -> bool:
    texts = [json.dumps(each.record()) for each in (one, other)]
    return texts[0] == texts[1] and np.array_equal(one.gradient, other.gradient)


def test_a_model_that_is_sent_to_processes_is_audited_alike() -> None:
    explainer, points, targets = local()
    assert len(blocks_of(points, targets)) == 5
    assert same(audit(explainer, points, targets), audit(explainer, points, targets, engine=ProcessEngine(2)))


def test_directions_hang_on_the_input_and_not_on_what_is_asked_with_it() -> None:
    explainer, points, targets = local()
    whole = audit(explainer, points, targets, seed=4)
    # the first block alone
    alone = audit(explainer, points[:25], targets[:25], seed=4)
    assert np.array_equal(whole.distance[:25], alone.distance)
    other = audit(explainer, points[:25], targets[:25], seed=5)
    assert not np.array_equal(other.distance, alone.distance)


# The command line where Ctrl-C is heard: a shell's background jobs, as CI may be one, start with it ignored.
HEARING = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from disintegrate import cli; cli.main()"
)


@dataclass
class Live:
    """An endpoint, its questions counted, and what to ask it."""

    running: Running
    folder: Path
    points: np.ndarray

    @property
    def target(self) -> str:
        return f"kserve+{self.running.url}/v1/models/net"

    @property
    def rows(self) -> int:
        return self.running.service.engine.load.rows

    def audited(
        self,
        name: str,
        engine: Callable[[Endpoint], Engine] = lambda _: LocalEngine(),
        *,
        in_doubt: Doubt = Doubt.ASK,
        limit: int | None = None,
        rate: float | None = None,
    ) -> AuditResult:
        budget, pace = Budget(limit), Pace(rate)
        with connect(self.target, capabilities=ALLOWED) as remote, Journal(self.folder / name) as journal:
            explainer = kept(remote, journal, self.target, budget=budget, turns=pace, in_doubt=in_doubt)
            source = Endpoint(self.target, journal, None, in_doubt, budget, pace)
            targets = np.zeros(len(self.points), int)
            return audit(explainer, self.points, targets, engine=engine(source))

    def paid(self, name: str) -> int:
        with Journal(self.folder / name) as journal:
            return journal.counts().paid


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    # each request computed by itself, so that its answer is always the same
    chosen = settings(rule="riemann_right", steps=8, steps_allowed=(1, 100), caller_baseline=True, together=False)
    with serving(Service(small_model(), chosen)) as running:
        yield Live(running, tmp_path, inputs(110))


def pids(folder: Path, name: str) -> list[int]:
    """The processes that write the shards of a journal."""
    found = [path.read_text().strip() for path in sorted(folder.glob(f"{name}.*.shard.lock"))]
    return [int(each) for each in found if each]


@contextmanager
def killing(folder: Path, name: str, ready: Callable[[], bool]) -> Iterator[list[int]]:
    """Kill the first worker as soon as it is ready for that."""
    killed: list[int] = []
    ended = threading.Event()

    def kill() -> None:
        while not ended.wait(0.01):
            if ready() and (found := pids(folder, name)):
                os.kill(found[0], signal.SIGKILL)
                killed.append(found[0])
                return

    thread = threading.Thread(target=kill)
    thread.start()
    yield killed
    ended.set()
    thread.join()


@pytest.mark.parametrize("kind", ["processes", "ray"])
def test_a_killed_worker_is_replaced_and_nothing_is_paid_twice(live: Live, kind: str) -> None:
    if kind == "ray":
        pytest.importorskip("ray")

    def engine(source: Endpoint) -> Engine:
        return ProcessEngine(2, source) if kind == "processes" else RayEngine(2, source)

    undisturbed = live.audited("a")
    alone = live.rows
    # so slow that the kill comes in the middle
    with killing(live.folder, "b", lambda: live.rows > alone + alone // 3) as killed:
        found = live.audited("b", engine, rate=alone / 4)
    assert len(killed) == 1
    assert same(undisturbed, found)
    # at most the exchange under way was in doubt, and asked again
    assert alone <= live.rows - alone <= alone + 32
    assert live.rows - alone <= live.paid("b") <= alone + 32
    assert list(live.folder.glob("*.shard*")) == []
    # a journal with all answers, whoever asked for them
    before = live.rows
    assert same(undisturbed, live.audited("b"))
    assert live.rows == before


def test_the_budget_and_the_pace_hold_over_all_workers_and_runs(live: Live) -> None:
    limit, rate = 300, 200
    live.points, whole = live.points[:10], live.points
    live.audited("a")
    spent, live.points = live.rows, whole
    started = time.monotonic()
    with pytest.raises(BudgetSpent, match="does not cover"):
        live.audited("a", lambda source: ProcessEngine(2, source), limit=limit, rate=rate)
    assert limit - 2 * 25 < live.rows <= limit
    # the first exchange goes out at once
    assert time.monotonic() - started >= (live.rows - spent - 32) / rate


def test_the_driver_killed_leaves_no_process_and_the_same_command_goes_on(
    live: Live, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(live.folder / "x.npy", live.points)
    monkeypatch.chdir(live.folder)
    plain = [
        "audit",
        live.target,
        "--inputs",
        "x.npy",
        "--images",
        "110",
        "--no-remedies",
        "--json",
        "--fail-on",
        "never",
    ]
    slowly = [*plain, "--engine", "processes", "--rate", "100"]
    workers: list[int] = []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])}
    for how in (signal.SIGKILL, signal.SIGINT):
        driver = subprocess.Popen(
            [sys.executable, "-c", HEARING, *slowly],
            env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        before, earlier = live.rows, set(workers)
        while driver.poll() is None and not (
            live.rows > before + 100 and len(set(pids(live.folder, "*")) - earlier) == 2
        ):
            time.sleep(0.02)
        workers += sorted(set(pids(live.folder, "*")) - earlier)
        driver.send_signal(how)
        text = "".join(driver.communicate(timeout=60))
        assert driver.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 130), text
        for _ in range(1000):
            if not any(Path(f"/proc/{pid}").exists() for pid in workers):
                break
            time.sleep(0.02)
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert len(workers) == 4
    code, text, told = run(capsys, monkeypatch, *plain)
    assert code == 0, told
    record, paid = json.loads(text), live.rows
    # an exchange under way was allowed to end, so that nothing was in doubt: all as if nobody had been killed
    _, undisturbed, _ = run(capsys, monkeypatch, *plain)
    assert json.loads(undisturbed) == record, "the same command, the same record"
    assert live.rows - paid == paid
    assert list(live.folder.glob("audit-*")) == []


class Dying:
    """A crew each of whose workers dies at one block."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.given: dict[int, Block] = {}
        self.replaced = 0

    def give(self, worker: int, block: Block) -> None:
        self.given[worker] = block

    def next(self) -> Event:
        worker, block = self.given.popitem()
        if block.first == self.at:
            return Event(worker, None)
        count = len(block.inputs)
        shape = block.inputs.shape
        found = Found(block.first, np.zeros(shape), np.ones(shape, bool), np.zeros(count), Check.OUTPUTS, count, 0)
        return Event(worker, found)

    def replace(self, worker: int) -> None:
        self.replaced += 1


def test_inputs_at_which_workers_die_end_the_run_with_a_sentence() -> None:
    _, points, targets = local()
    crew = Dying(25)
    done: list[Found] = []
    with pytest.raises(WorkerLost, match="inputs 25 to 49"):
        done.extend(dispatched(crew, 2, blocks_of(points, targets)))
    assert crew.replaced == DEATHS


class Doubtful:
    """An explainer whose first request falls in doubt."""

    def __init__(self, inside: Explainer) -> None:
        self.inside = inside
        self.capabilities = inside.capabilities
        self.rows = 0

    def explain(self, request: Request) -> Explanation:
        self.rows += len(request.inputs)
        if self.rows == len(request.inputs):
            raise InDoubt("torn", got="1 in doubt")
        return self.inside.explain(request)


def test_a_block_in_doubt_does_not_keep_the_others_from_being_asked() -> None:
    explainer, points, targets = local()
    service = Doubtful(explainer)
    with pytest.raises(InDoubt, match="torn"):
        audit(service, points, targets, model=explainer.model)
    assert service.rows == len(points)


def test_what_cannot_be_sent_gets_a_sentence() -> None:
    explainer, points, targets = local()
    explainer.hook = lambda: None  # type: ignore[attr-defined]
    with pytest.raises(InvalidValue, match="cannot be sent to other processes"):
        audit(explainer, points, targets, engine=ProcessEngine(2))
    with pytest.raises(InvalidValue, match="Somebody has to do the work"):
        ProcessEngine(0)


def test_what_a_worker_raises_is_raised_here() -> None:
    explainer, points, targets = local()
    targets[30] = 99
    with pytest.raises(InvalidValue, match="99"):
        audit(explainer, points, targets, engine=ProcessEngine(1))


def test_repeated_questions_are_answered_from_the_journal_in_their_order(tmp_path: Path) -> None:
    class Changing(Scripted):
        def explain(self, request: Request) -> Explanation:
            self.scale += 1
            return super().explain(request)

    question = Request(np.ones((2, 2), np.float32), None, np.zeros(2, int), None)
    service, seen = Changing(), []
    for _ in range(2):
        with Journal(tmp_path / "j") as journal:
            probing = Repeating(Journaled(service, journal, "t"))
            seen.append([probing.explain(question).output.tolist() for _ in range(3)])
    assert seen[0] == seen[1]
    assert len({tuple(answer) for answer in seen[0]}) == 3
    assert service.asked[1.0] == 6


def test_a_pace_is_kept_and_a_hold_holds_everyone() -> None:
    now = [100.0]
    pace = Pace(10, clock=lambda: now[0])
    assert [pace.turn(5) for _ in range(3)] == [0, 0.5, 1]
    now[0] = 110
    assert pace.turn(1) == 0
    pace.hold(7)
    assert pace.turn(1) == 7
    free = Pace(None, clock=lambda: now[0])
    assert free.turn(1000) == 0
    free.hold(2)
    assert free.turn(1) == 2
    with pytest.raises(InvalidValue, match="queries in a second"):
        Pace(0)


def test_without_ray_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UnknownName, match="Ray is not installed"):
        audit(*local(), engine=RayEngine(2))
