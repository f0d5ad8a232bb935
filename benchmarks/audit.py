"""Time and memory of an audit of many inputs: `python benchmarks/audit.py` writes results/audit.json.

The command line audits TwoLayerNet with all of MNIST's test digits, as a user would call it, by every engine; the
system tells the peak memory of the process that was called.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from disintegrate.files import write_atomically
from disintegrate.versions import versions

RESULTS = Path(__file__).parents[1] / "results"
SECONDS, BYTES = 60.0, 1e9
# What the callers of the first four may set.
FREE = ("--steps", "1-100")


def main() -> None:
    """Measure, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--model", default="TwoLayerNet")
    parser.add_argument("--out", type=Path, default=RESULTS / "audit.json")
    options = parser.parse_args()
    record: dict[str, Any] = {"images": options.images, "model": options.model, "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as name:
        # the first one fills the caches of the file system
        _timed(options.model, 10, "local", (), Path(name))
        ways: tuple[tuple[str, str, tuple[str, ...]], ...] = (
            ("free steps, local", "local", FREE),
            ("free steps, local, journaled", "local", (*FREE, "--journal", "local.journal")),
            ("free steps, processes", "processes", FREE),
            ("free steps, ray", "ray", FREE),
            ("fixed steps, local", "local", ("--steps", "50")),
        )
        for words, engine, flags in ways:
            record[words] = _timed(options.model, options.images, engine, flags, Path(name))
    record["targets"] = {"seconds": SECONDS, "bytes": BYTES}
    first = record["free steps, local"]
    record["met"] = first["seconds"] < SECONDS and first["peak_bytes"] < BYTES
    record["ray_over_processes"] = record["free steps, ray"]["seconds"] / record["free steps, processes"]["seconds"]
    record["versions"] = versions()
    write_atomically(options.out, (json.dumps(record, indent=1) + "\n").encode())
    print(json.dumps(record, indent=1))


def _timed(model: str, images: int, engine: str, flags: tuple[str, ...], folder: Path) -> dict[str, Any]:
    """Seconds of the whole command, what it is like to start Python included, and the most memory of its driver."""
    out = folder / "record.json"
    command = [
        sys.executable, "-m", "disintegrate.cli", "audit", model, "--images", str(images), "--engine", engine,
        "--fail-on", "never", "--out", str(out), *flags,
    ]  # fmt: skip
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise SystemExit(f"{command} ended with {status}")
    found = json.loads(out.read_text())
    return {
        "seconds": seconds,
        "peak_bytes": usage.ru_maxrss * 1024,
        "record_bytes": out.stat().st_size,
        "verdict": found["verdict"],
        "median_distance": found["median_distance"],
        "queries": found["queries"]["all"],
    }


if __name__ == "__main__":
    main()
