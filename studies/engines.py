"""The same record whoever asks, and nothing paid twice: `python studies/engines.py` writes results/engines.json.

Our service is audited through a proxy that counts every question: by one process, by two processes, and by two actors
of Ray, each from nothing. Then by two actors of Ray once more, with a worker killed at a third of the questions, the
driver at two thirds, and the same command started again. All records must be equal but for the command and the day
that they name, and no question may have come twice but for those whose answer was under way when something was killed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fault_proxy import FaultProxy
from faults import served

from disintegrate.clients import Journal
from disintegrate.files import write_atomically
from disintegrate.versions import versions

RESULTS = Path(__file__).parents[1] / "results"
# Each request is computed by itself, so that its answer is always the same.
SETTINGS = "together = false\nsteps = 20\nsteps_allowed = [1, 100]\ncaller_baseline = true\nrule = 'riemann_right'\n"
# Queries that one exchange carries.
EXCHANGE = 32


def main() -> None:
    """Run it all and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--out", type=Path, default=RESULTS / "engines.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with served("TwoLayerNet", SETTINGS, folder) as (port, _), FaultProxy(port, options.seed, share=0) as proxy:
            study = Study(proxy, folder, options.images, options.workers, options.seed)
            record = study.run()
    record = {"seed": options.seed, "images": options.images, "workers": options.workers, **record}
    record["versions"] = versions()
    write_atomically(options.out, (json.dumps(record, indent=1) + "\n").encode())
    print(json.dumps(record, indent=1))


class Violated(Exception):
    """Something that must hold does not."""


def _must(holds: bool, sentence: str) -> None:
    if not holds:
        raise Violated(sentence)


@dataclass
class Study:
    """The endpoint, and how it is audited."""

    proxy: FaultProxy
    folder: Path
    images: int
    workers: int
    seed: int

    def run(self) -> dict[str, Any]:
        """All audits; the findings."""
        whole: dict[str, Any] = {}
        records, asked = {}, {}
        for engine in ("local", "processes", "ray"):
            before, started = self._asked(), time.perf_counter()
            process = self._start(engine, engine)
            _must(process.wait() == 0, f"the audit by {engine} failed")
            whole[engine] = {"seconds": time.perf_counter() - started, "exchanges": self._asked() - before}
            records[engine], asked[engine] = self._record(engine), whole[engine]["exchanges"]
            _must(records[engine] == records["local"], f"the record of {engine} is another")
        disturbed = self._disturbed(asked["ray"])
        _must(self._record("disturbed") == records["local"], "the disturbed record is another")
        seconds = {name: found["seconds"] for name, found in whole.items()}
        return {
            "undisturbed": whole,
            "ray_over_processes": seconds["ray"] / seconds["processes"],
            "disturbed": disturbed,
            "records_equal": True,
            "verdict": records["local"]["verdict"],
            "queries": records["local"]["queries"],
        }

    def _disturbed(self, exchanges: int) -> dict[str, Any]:
        """By Ray, killed twice."""
        began, started = self._asked(), time.perf_counter()
        driver = self._start("ray", "disturbed")
        self._wait_for(began + exchanges // 3, driver)
        worker = random.Random(self.seed).choice(self._writers())
        os.kill(worker, signal.SIGKILL)
        self._wait_for(began + 2 * exchanges // 3, driver)
        others = set(self._writers()) - {worker}
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        orphans = self._ended(others)
        _must(self._start("ray", "disturbed").wait() == 0, "the audit that went on failed")
        with Journal(self.folder / "disturbed.journal") as journal:
            counts = journal.counts()
        twice = counts.paid - counts.answered
        # the worker's exchange, and one of each worker when the driver was killed
        most = EXCHANGE * (1 + self.workers)
        _must(0 <= twice <= most, f"{twice} queries went out twice, where {most} could be in doubt")
        _must(counts.in_doubt == 0, f"{counts.in_doubt} queries stayed in doubt")
        return {
            "seconds": time.perf_counter() - started,
            "exchanges": self._asked() - began,
            "queries_answered": counts.answered,
            "queries_that_went_out_twice": twice,
            "queries_that_could_be_in_doubt": most,
            "seconds_until_no_worker_was_left_after_the_drivers_death": orphans,
        }

    def _start(self, engine: str, name: str) -> subprocess.Popen[bytes]:
        target = f"kserve+http://127.0.0.1:{self.proxy.port}/v1/models/model"
        command = [
            sys.executable, "-m", "disintegrate.cli", "audit", target, "--images", str(self.images), "--no-remedies",
            "--engine", engine, "--workers", str(self.workers), "--journal", f"{name}.journal", "--in-doubt", "ask",
            "--seed", str(self.seed), "--fail-on", "never", "--out", f"{name}.json",
        ]  # fmt: skip
        return subprocess.Popen(command, cwd=self.folder, stdout=subprocess.DEVNULL)  # noqa: S603  our own command

    def _record(self, name: str) -> dict[str, Any]:
        """A record without what may differ."""
        found: dict[str, Any] = json.loads((self.folder / f"{name}.json").read_text())
        del found["run"]["command"], found["run"]["date"]
        return found

    def _asked(self) -> int:
        return self.proxy.seen.requests

    def _wait_for(self, exchanges: int, driver: subprocess.Popen[bytes]) -> None:
        while self._asked() < exchanges:
            _must(driver.poll() is None, "the audit ended before it was killed")
            time.sleep(0.005)

    def _writers(self) -> list[int]:
        """The processes that write the shards now."""
        found = [path.read_text().strip() for path in sorted(self.folder.glob("disturbed.journal.*.shard.lock"))]
        return [int(each) for each in found if each]

    def _ended(self, processes: set[int]) -> float:
        started = time.perf_counter()
        while any(Path(f"/proc/{each}").exists() for each in processes):
            _must(time.perf_counter() < started + 30, "workers outlive their driver")
            time.sleep(0.02)
        return time.perf_counter() - started


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
