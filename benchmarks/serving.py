"""The service under load: `python benchmarks/serving.py` writes results/serving.json.

64 callers on loopback ask for explanations of 50 steps; the bare engine does the same requests in its own process, one
after the other, and in batches of 16 rows. The two take turns, so that whatever else the machine does hits both. Then
twice the load that the service bears.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import torch
from callers import Caller, Traffic, closed_loop, open_loop
from rich.progress import Progress

from disintegrate.explainers import Capabilities, LocalExplainer, Request
from disintegrate.files import write_atomically
from disintegrate.models import load_model
from disintegrate.versions import versions

OUT = Path(__file__).parents[1] / "results" / "serving.json"
CALLERS, VARIETY, STEPS, MERGED = 64, 128, 50, 16
ADMITTED = 32
NETWORKS = ("TwoLayerNet", "LeNet")
ROWS = (1,)
PATH = {"kserve": "/v1/models/model:explain", "oip": "/v2/models/model/infer"}


def main() -> None:
    """Measure and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    settings = [(network, protocol, rows) for network in NETWORKS for protocol in PATH for rows in ROWS]
    with Progress() as progress:
        lines = progress.track(settings, description="settings")
        table = [measured(*setting, options.seconds, options.rounds) for setting in lines]
        overload = [
            overloaded(network, options.seconds) for network in progress.track(NETWORKS, description="overload")
        ]
    record = {
        "versions": versions(),
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", "one for each core"),
        "callers": CALLERS,
        "steps": STEPS,
        "seconds": options.seconds,
        "rounds": options.rounds,
        "table": table,
        "overload": overload,
    }
    write_atomically(options.out, (json.dumps(record, indent=1) + "\n").encode())
    print(json.dumps(record, indent=1))


def measured(network: str, protocol: str, rows: int, seconds: float, rounds: int) -> dict[str, Any]:
    """One line of the table: medians over rounds in which the engine and the service take turns."""
    requests = [message(protocol, rows, number) for number in range(VARIETY)]
    alone, merged, served, traffic = [], [], [], Traffic()
    with service(network) as (port, process), multiprocessing.get_context("spawn").Pool(1) as engine:
        asyncio.run(closed_loop(port, requests, 1, min(1.0, seconds)))
        for _ in range(rounds):
            alone.append(engine.apply(bare, (network, rows, seconds)))
            merged.append(engine.apply(bare, (network, MERGED, seconds)))
            one = asyncio.run(closed_loop(port, requests, CALLERS, seconds))
            served.append(one.statuses[200] * rows / one.wall)
            traffic.statuses += one.statuses
            traffic.seconds += one.seconds
        peak = peak_memory(process)
    ratios = [of_service / of_engine for of_service, of_engine in zip(served, alone, strict=True)]
    of_merged = [of_service / of_engine for of_service, of_engine in zip(served, merged, strict=True)]
    milliseconds = 1000 * np.array(traffic.seconds)
    return {
        "network": network,
        "protocol": protocol,
        "rows_of_a_request": rows,
        "engine_rows_a_second": float(np.median(alone)),
        "engine_rows_a_second_in_batches_of_16": float(np.median(merged)),
        "service_rows_a_second": float(np.median(served)),
        "ratio_to_engine": float(np.median(ratios)),
        "ratio_to_engine_in_batches_of_16": float(np.median(of_merged)),
        "p50_milliseconds": float(np.percentile(milliseconds, 50)),
        "p99_milliseconds": float(np.percentile(milliseconds, 99)),
        "requests": sum(traffic.statuses.values()),
        "failed": sum(count for status, count in traffic.statuses.items() if status != 200),
        "peak_memory_mebibytes": peak,
    }


def overloaded(network: str, seconds: float) -> dict[str, Any]:
    """Twice the requests that the service bears, then one request a moment later."""
    requests = [message("kserve", 1, number) for number in range(VARIETY)]
    with service(network, f"[limits]\nrequests = {ADMITTED}\n") as (port, process):
        bears = asyncio.run(closed_loop(port, requests, ADMITTED, seconds))
        rate = 2 * bears.statuses[200] / bears.wall
        # Long enough to fill what is admitted several times over.
        traffic = asyncio.run(open_loop(port, requests, rate, max(seconds, 6 * ADMITTED / rate)))
        recovery = asyncio.run(_recovery(port, requests[0]))
        peak = peak_memory(process)
    failed = {str(status): count for status, count in traffic.statuses.items() if status not in (200, 429)}
    return {
        "network": network,
        "bears_requests_a_second": rate / 2,
        "sent_requests_a_second": rate,
        "answered": traffic.statuses[200],
        "turned_away_with_429": traffic.statuses[429],
        "failed": failed,
        "answered_requests_a_second": traffic.statuses[200] / traffic.wall,
        "p99_milliseconds_of_answered": 1000 * float(np.percentile(traffic.seconds, 99)),
        "seconds_until_answered_afterwards": recovery,
        "peak_memory_mebibytes": peak,
    }


async def _recovery(port: int, request: bytes) -> float:
    """How long until a lone request is answered again."""
    started, caller, traffic = time.perf_counter(), Caller(port), Traffic()
    while await caller.ask(request, traffic) != 200:
        await asyncio.sleep(0.01)
    caller.close()
    return time.perf_counter() - started


def question(rows: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Some inputs with their targets."""
    generator = np.random.default_rng(number)
    return generator.normal(size=(rows, 1, 28, 28)).astype(np.float32), generator.integers(0, 10, rows)


def message(protocol: str, rows: int, number: int) -> bytes:
    """A whole HTTP request."""
    inputs, targets = question(rows, number)
    headers = ""
    if protocol == "kserve":
        wide = inputs.astype(np.float64)
        content = {"instances": wide, "parameters": {"targets": targets}}
        body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    else:
        parts = [inputs.tobytes(), targets.astype("<i8").tobytes()]
        tensors = [
            {"name": name, "shape": shape, "datatype": kind, "parameters": {"binary_data_size": len(part)}}
            for name, shape, kind, part in zip(
                ("input", "targets"), (list(inputs.shape), [rows]), ("FP32", "INT64"), parts, strict=True
            )
        ]
        outputs = [{"name": "attributions"}, {"name": "output"}]
        head = orjson.dumps({"inputs": tensors, "outputs": outputs, "parameters": {"binary_data_output": True}})
        headers = f"Inference-Header-Content-Length: {len(head)}\r\n"
        body = b"".join([head, *parts])
    start = f"POST {PATH[protocol]} HTTP/1.1\r\nHost: h\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return start.encode() + body


def bare(network: str, rows: int, seconds: float) -> float:
    """Explanations a second of the engine alone; runs in a process of its own."""
    allowed = Capabilities("captum_gausslegendre", STEPS, STEPS, baseline=False, dtype="float32")
    explainer = LocalExplainer(load_model(network).module, allowed)
    requests = [Request(inputs, None, targets, None) for inputs, targets in (question(rows, n) for n in range(16))]
    explainer.explain(requests[0])
    done, started = 0, time.perf_counter()
    while (wall := time.perf_counter() - started) < seconds:
        explainer.explain(requests[done % len(requests)])
        done += 1
    return done * rows / wall


@contextmanager
def service(network: str, settings: str = "") -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """The service in a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    file = OUT.with_name(f".serving-{port}.toml")
    file.write_text(settings)
    command = [sys.executable, "-m", "disintegrate.cli", "serve", network, "--port", str(port), "--quiet"]
    process = subprocess.Popen([*command, "--settings", str(file)])  # noqa: S603  our own command
    try:
        for _ in range(600):
            try:
                if httpx.get(f"http://127.0.0.1:{port}/", trust_env=False).status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.1)
        yield port, process
    finally:
        file.unlink()
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def peak_memory(process: subprocess.Popen[bytes]) -> float:
    """The most memory that the process has had, in MiB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    torch.set_num_threads(1)  # of this process; the engine and the service choose for themselves
    main()
