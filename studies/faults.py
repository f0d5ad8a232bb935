"""Nothing paid for is lost or paid twice, whatever happens: `python studies/faults.py` writes results/faults.json.

20,000 queries go to our service through a proxy that refuses, resets, delays, truncates, duplicates and answers 429,
500 and 503 by a seed; the clients are killed at 20 random moments and started again. First under a budget that does not
suffice, then under one that does, then once more with the queries in doubt asked again. What the proxy saw is compared
with what the journals hold, and the answers with those of an undisturbed run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from fault_client import block, blocks
from fault_proxy import FaultProxy
from rich.progress import Progress

from disintegrate.clients import Counts, Journal, connect
from disintegrate.clients.journal import query_keys
from disintegrate.files import write_atomically
from disintegrate.versions import versions

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"
BUDGET_SPENT, IN_DOUBT = 5, 4


def main() -> None:
    """Run it all and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--writers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--out", type=Path, default=RESULTS / "faults.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, Progress() as progress:
        bar, folder = progress.add_task("queries answered", total=options.queries), Path(name)
        with served("TwoLayerNet", SETTINGS, folder) as (port, _):
            record = disturbed(
                port, "/v1/models/model", (1, 28, 28), folder, queries=options.queries, kills=options.kills,
                writers=options.writers, seed=options.seed, show=lambda done: progress.update(bar, completed=done),
            )  # fmt: skip
    record = {"seed": options.seed, "versions": versions(), **record}
    write_atomically(options.out, (json.dumps(record, indent=1) + "\n").encode())
    print(json.dumps(record, indent=1))


# Each request is computed by itself, so that its answer is always the same.
SETTINGS = "together = false\nsteps = 8\nrule = 'midpoint'\n"


@contextmanager
def served(model: str, settings: str, folder: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Our service in a process of its own, started in this folder; its port."""
    (folder / "settings.toml").write_text(settings)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "disintegrate.cli", "serve", model, "--port", str(port), "--quiet"]
    process = subprocess.Popen([*command, "--settings", "settings.toml"], cwd=folder)  # noqa: S603  our own command
    try:
        _wait_until_ready(f"http://127.0.0.1:{port}/")
        yield port, process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _wait_until_ready(url: str) -> None:
    for _ in range(600):
        try:
            if httpx.get(url, trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.1)
    raise TimeoutError(url)


@dataclass
class Clients:
    """The writers, their shares of the queries, and how to run and kill them.

    Attributes:
        proxy: what they ask through.
        path: the model's path.
        shape: of one input.
        seed: of the queries and of what is killed when.
        bounds: the first query of each writer, and behind the last.
        journals: a file for each.
        show: told how many answers were delivered.
    """

    proxy: FaultProxy
    path: str
    shape: tuple[int, ...]
    seed: int
    bounds: list[int]
    journals: list[Path]
    show: Callable[[int], None]

    def __post_init__(self) -> None:
        self.generator = random.Random(self.seed)

    def start(self, writer: int, budget: int, in_doubt: str) -> subprocess.Popen[bytes]:
        """One writer in a process of its own."""
        target = f"kserve+http://127.0.0.1:{self.proxy.port}{self.path}"
        command = [
            sys.executable, str(HERE / "fault_client.py"), target, str(self.journals[writer]),
            "--shape", ",".join(map(str, self.shape)), "--seed", str(self.seed), "--budget", str(budget),
            "--first", str(self.bounds[writer]), "--last", str(self.bounds[writer + 1]), "--in-doubt", in_doubt,
        ]  # fmt: skip
        return subprocess.Popen(command)  # noqa: S603  our own command

    def run(self, budget: int, in_doubt: str, moments: list[int]) -> list[int]:
        """All writers to their end, one of them killed whenever so many requests have come; their exit codes."""
        running = {writer: self.start(writer, budget, in_doubt) for writer in range(len(self.journals))}
        left, ended = list(moments), {}
        while running:
            time.sleep(0.005)
            self.show(len(self.proxy.seen.delivered))
            if left and self.proxy.seen.requests >= left[0]:
                victim = self.generator.choice(sorted(running))
                time.sleep(self.generator.uniform(0, 0.02))
                running[victim].send_signal(signal.SIGKILL)
                if running[victim].wait() == -signal.SIGKILL:
                    left.pop(0)
                running[victim] = self.start(victim, budget, in_doubt)
            for writer, process in list(running.items()):
                if process.poll() is not None:
                    ended[writer] = running.pop(writer).returncode
        _must(not left, f"{len(left)} kills came to nothing")
        return [ended[writer] for writer in sorted(ended)]

    def counts(self) -> Counts:
        """What all journals hold together."""
        each = []
        for path in self.journals:
            with Journal(path) as journal:
                each.append(journal.counts())
        return Counts(*(sum(getattr(one, name) for one in each) for name in ("answered", "in_doubt", "paid")))


def disturbed(
    port: int,
    path: str,
    shape: tuple[int, ...],
    folder: Path,
    *,
    queries: int,
    kills: int,
    writers: int,
    seed: int,
    show: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """All phases against a service that listens already.

    Raises:
        Violated: something that must hold does not.
    """
    started = time.perf_counter()
    bounds = [queries * part // writers for part in range(writers + 1)]
    journals = [folder / f"writer-{number}.sqlite" for number in range(writers)]
    moments = sorted(random.Random(seed).sample(range(1, int(0.95 * queries)), kills))
    early = [moment for moment in moments if moment < 0.5 * queries]
    small, large = queries * 6 // 10 // writers, 2 * queries // writers
    with FaultProxy(port, seed) as proxy:
        clients, seen = Clients(proxy, path, shape, seed, bounds, journals, show), proxy.seen
        codes = clients.run(small, "leave", early)
        poor = clients.counts()
        _must(set(codes) == {BUDGET_SPENT}, f"the small budget did not end the run: {codes}")
        _must(sum(seen.maybe_paid.values()) <= poor.paid <= small * writers, "the small budget was exceeded")
        clients.run(large, "leave", moments[len(early) :])
        rich = clients.counts()
        _must(rich.answered + rich.in_doubt == queries, "a query is neither answered nor in doubt")
        # Each ambiguous fault of the proxy leaves one doubt; those beyond them are the kills'.
        doubts = sum(seen.doubtful.values())
        of_kills = rich.in_doubt - doubts
        _must(0 <= of_kills <= kills, f"{of_kills} in doubt by {kills} kills")
        twice = sum(count > 1 for count in seen.maybe_paid.values())
        _must(twice == 0, f"{twice} were asked twice")
        lost = len(seen.delivered) - rich.answered
        _must(0 <= lost <= of_kills, f"{lost} answers came and are not in the journals, by {of_kills} kills")
        passes = 1
        while IN_DOUBT in clients.run(large, "ask", []):
            passes += 1
            _must(passes < 20, "the doubts do not end")
        end, reached = clients.counts(), sum(seen.maybe_paid.values())
        _must(reached <= end.paid <= large * writers, "the large budget was exceeded")
    same = _same_as_undisturbed(port, path, shape, seed, journals, bounds)
    _must(same == queries, f"{queries - same} answers are not those of the undisturbed run")
    return {
        "queries": queries,
        "writers": writers,
        "kills": kills,
        "kills_under_the_small_budget": len(early),
        "faults": dict(sorted(seen.faults.items())),
        "small_budget": {"limit": small * writers, "spent": poor.paid},
        "in_doubt_by_faults": doubts,
        "in_doubt_by_kills": of_kills,
        "answers_delivered_but_killed_before_they_were_kept": lost,
        "asked_twice_without_being_told_to": twice,
        "asked_again_when_told_to": end.paid - queries,
        "passes_that_asked_again": passes,
        "large_budget": {"limit": large * writers, "spent": end.paid, "reached_the_service_at_most": reached},
        "answers_equal_to_the_undisturbed_runs": same,
        "seconds": time.perf_counter() - started,
    }


class Violated(Exception):
    """Something that must hold does not."""


def _must(holds: bool, sentence: str) -> None:
    if not holds:
        raise Violated(sentence)


def _same_as_undisturbed(
    port: int, path: str, shape: tuple[int, ...], seed: int, journals: list[Path], bounds: list[int]
) -> int:
    """How many answers in the journals are, bit by bit, those of the service asked without a proxy."""
    same = 0
    with connect(f"kserve+http://127.0.0.1:{port}{path}", rows=1) as plain:
        for writer, file in enumerate(journals):
            with Journal(file) as journal:
                for numbers in blocks(list(range(bounds[writer], bounds[writer + 1]))):
                    request = block(seed, numbers, shape)
                    keys = query_keys("service", request)
                    found, answer = journal.look_up(keys), plain.explain(request)
                    for row, key in enumerate(keys):
                        kept = found[key]
                        equal = kept is not None and np.array_equal(kept.attribution, answer.attribution[row].ravel())
                        same += bool(equal and kept is not None and kept.output == answer.output[row])
    return same


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
