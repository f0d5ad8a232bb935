"""The service against nonsense: `python studies/fuzz.py --seconds 600` writes results/fuzz.json.

Valid messages of every protocol are spoiled by a seed: values of their JSON replaced, dropped and repeated, bytes cut,
flipped and inserted, headers that lie, paths and methods that do not exist. Whatever comes, the service answers below
500, in time, without growing. A case is repeated by its number: `--case 1234` prints it and its answer.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
from faults import served
from rich.progress import Progress

from disintegrate.files import write_atomically
from disintegrate.versions import versions

RESULTS = Path(__file__).parents[1] / "results"
PATIENCE = 15.0
POINT = [[0.5, -1.25, 2.0], [0.0, 3.5, -0.75]]
TENSOR = {"name": "input", "shape": [1, 2, 3], "datatype": "FP32", "data": [0.5, -1.25, 2.0, 0.0, 3.5, -0.75]}
TARGETS = {"name": "targets", "shape": [1], "datatype": "INT64", "data": [2]}
BINARY = {**TENSOR, "parameters": {"binary_data_size": 24}}
del BINARY["data"]
VERTEX = "/v1/projects/p/locations/l/endpoints/model"
OVERRIDE = {
    "parameters": {"integratedGradientsAttribution": {"stepCount": 5}, "topK": -1, "outputIndices": [1]},
    "metadata": {"inputs": {"x": {"inputBaselines": [POINT]}}},
}
EXPLAIN, INFER = "/v1/models/model:explain", "/v2/models/model/infer"
MESSAGES: list[tuple[str, Any]] = [
    (EXPLAIN, {"instances": [POINT, POINT]}),
    (
        "/v1/models/model:explain",
        {"instances": [POINT], "parameters": {"n_steps": 4, "baselines": POINT, "targets": 1}},
    ),
    (EXPLAIN, {"instances": [POINT], "parameters": {"targets": [[0, 1]], "baselines": [POINT]}}),
    (EXPLAIN, {"instances": [POINT], "parameters": {"top_outputs": -1}}),
    ("/v1/models/model:predict", {"instances": [POINT]}),
    (INFER, {"inputs": [TENSOR, TARGETS], "parameters": {"n_steps": 3}}),
    (
        "/v2/models/model/infer",
        {"id": "1", "inputs": [TENSOR], "outputs": [{"name": "predictions"}, {"name": "output"}]},
    ),
    (INFER, {"inputs": [BINARY], "parameters": {"binary_data_output": True}}),
    (f"{VERTEX}:explain", {"instances": [{"x": POINT}], "explanationSpecOverride": OVERRIDE, "deployedModelId": "7"}),
    (f"{VERTEX}:explain", {"instances": [POINT], "parameters": {}}),
    (f"{VERTEX}:predict", {"instances": [{"x": POINT}]}),
]
JUNK: list[Any] = [
    None, True, False, 0, -1, 1, 2, 5, 2**31, 2**63, 2**64, -(2**64), 10**400, 0.1, -0.0, 1e-320, 3e38, 1e39, 1e308,
    "", "0", "x", "NaN", "\ud7ff\u0000", "a" * 5000, [], [[]], [[], []], {}, [None], [{}], {"x": []}, {"b64": "AAAA"},
    [1, [2]], POINT, [POINT] * 40, [[[]]], list(range(300)), {"": ""}, -1e39, [True], ["1"],
]  # fmt: skip
MODEL = """
from torch import nn
def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))
"""
# It waits no longer than a second for a request.
SETTINGS = """
steps = 8
steps_allowed = [1, 100]
caller_baseline = true
input_shape = [2, 3]
[limits]
body_bytes = 100000
send_seconds = 1.0
"""


def main() -> None:
    """Fuzz for a while and write the record, or repeat one case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--senders", type=int, default=4)
    parser.add_argument("--case", type=int, default=None)
    parser.add_argument("--out", type=Path, default=RESULTS / "fuzz.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, served(model_in(Path(name)), SETTINGS, Path(name)) as (port, process):
        if options.case is not None:
            print(case(options.seed, options.case), "\n", sent(port, case(options.seed, options.case)))
            return
        with Progress() as progress:
            bar = progress.add_task("seconds", total=options.seconds)
            record = fuzzed(
                port, options.seed, options.seconds, options.senders, memory=lambda: resident(process),
                show=lambda seconds: progress.update(bar, completed=seconds),
            )  # fmt: skip
    record = {"seed": options.seed, "versions": versions(), **record}
    write_atomically(options.out, (json.dumps(record, indent=1) + "\n").encode())
    print(json.dumps(record, indent=1))
    sys.exit(bool(record["bad_cases"]))


def model_in(folder: Path) -> str:
    """A small model as a factory in this folder."""
    (folder / "fuzzed_model.py").write_text(MODEL)
    return "python:fuzzed_model:make"


def fuzzed(
    port: int,
    seed: int,
    seconds: float,
    senders: int,
    *,
    memory: Callable[[], float] = lambda: 0.0,
    show: Callable[[float], None] = lambda seconds: None,
) -> dict[str, Any]:
    """Send cases until the time is up; what came of them, and the cases that must not be."""
    statuses: Counter[str] = Counter()
    bad: list[dict[str, Any]] = []
    lock, started, numbers = threading.Lock(), time.perf_counter(), iter(range(10**12))
    slowest = [0.0]

    def send() -> None:
        while time.perf_counter() - started < seconds:
            with lock:
                number = next(numbers)
            before = time.perf_counter()
            status = sent(port, case(seed, number))
            took = time.perf_counter() - before
            with lock:
                statuses[status] += 1
                slowest[0] = max(slowest[0], took)
                if status.startswith("5") or status == "hang":
                    bad.append({"case": number, "status": status})

    threads = [threading.Thread(target=send) for _ in range(senders)]
    for thread in threads:
        thread.start()
    samples = []
    while any(thread.is_alive() for thread in threads):
        time.sleep(min(1.0, seconds / 20))
        samples.append(memory())
        show(time.perf_counter() - started)
    answered = httpx.post(f"http://127.0.0.1:{port}{MESSAGES[0][0]}", json=MESSAGES[0][1], trust_env=False)
    tenth = max(1, len(samples) // 10)
    return {
        "seconds": time.perf_counter() - started,
        "cases": sum(statuses.values()),
        "statuses": dict(sorted(statuses.items())),
        "bad_cases": bad[:50],
        "slowest_answer_seconds": slowest[0],
        "memory_mebibytes_after_a_tenth": samples[tenth - 1],
        "memory_mebibytes_at_half": samples[len(samples) // 2],
        "memory_mebibytes_at_the_end": samples[-1],
        "memory_mebibytes_largest": max(samples),
        "answers_afterwards": answered.status_code == 200,
    }


def case(seed: int, number: int) -> bytes:
    """The bytes of one request."""
    draw = random.Random(f"{seed}-{number}")
    path, body = copy.deepcopy(draw.choice(MESSAGES))
    for _ in range(draw.choice((0, 1, 1, 1, 2, 3))):
        body = spoiled(draw, body)
    content = json.dumps(body, ensure_ascii=draw.random() < 0.5).encode("utf-8", "surrogatepass")
    method, headers = "POST", {"Host": "h", "Content-Type": "application/json"}
    if path.endswith("/infer") and draw.random() < 0.5:
        headers["Inference-Header-Content-Length"] = draw.choice(
            (str(len(content)), str(len(content)), str(len(content) - 1), "0", "-1", "x", "9" * 30, "1e3", "")
        )
        content += draw.randbytes(draw.choice((24, 24, 24, 23, 0, 100)))
    if draw.random() < 0.15:
        content = bruised(draw, content)
    if draw.random() < 0.05:
        method = draw.choice(("GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "FOO"))
    if draw.random() < 0.05:
        path = draw.choice(
            (f"{path}/", path.upper(), path.replace("model", "%ff%fe"), path.replace("model", "a" * 4000), f"/..{path}",
             path.replace("model", "\u00e9"), f"{path}?x=%", "/%00", "//", "*", path.replace(":", "%3A"), f"http://h{path}")
        )  # fmt: skip
    length = str(len(content))
    if draw.random() < 0.04:
        length = draw.choice(("0", "1", str(len(content) // 2), "-5", "x", "", "99999999999999999999", "0x10"))
    if draw.random() < 0.03:
        headers["Transfer-Encoding"] = draw.choice(("chunked", "gzip", "identity", "chunked, chunked"))
    if draw.random() < 0.03:
        headers[draw.choice(("Authorization", "Expect", "Upgrade", "Connection", "X"))] = draw.choice(
            ("100-continue", "websocket", "Upgrade", "Bearer x", "a" * 9000, "\u00ff")
        )
    head = "".join(f"{name}: {value}\r\n" for name, value in {**headers, "Content-Length": length}.items())
    whole = f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + content
    return bruised(draw, whole) if draw.random() < 0.03 else whole


def spoiled(draw: random.Random, body: Any) -> Any:
    """The JSON with one of its values replaced, dropped or repeated."""
    places = list(_places(body))
    if not places:
        return copy.deepcopy(draw.choice(JUNK))
    parent, name = draw.choice(places)
    what = draw.random()
    if what < 0.7:
        parent[name] = copy.deepcopy(draw.choice(JUNK))
    elif what < 0.85:
        del parent[name]
    elif isinstance(parent, list):
        parent.extend([copy.deepcopy(parent[name])] * draw.choice((1, 2, 50)))
    else:
        parent[draw.choice(("x", "n_steps", "parameters", "inputs", "\u00e9", ""))] = parent[name]
    return body


def bruised(draw: random.Random, content: bytes) -> bytes:
    """The bytes cut, flipped, or with something inserted."""
    at = draw.randrange(len(content) + 1)
    if not content or draw.random() < 0.4:
        return content[:at]
    if draw.random() < 0.5:
        return content[:at] + bytes(byte ^ 1 << draw.randrange(8) for byte in content[at : at + 3]) + content[at + 3 :]
    return content[:at] + draw.choice((b"\0", b"\xff\xfe", b"[" * 2000, b"NaN", b"1e999", b"\r\n", b"{")) + content[at:]


def sent(port: int, request: bytes) -> str:
    """The status of the answer; "closed" where the service hung up without one, "hang" where neither came."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        # What is left unread must not keep the port for a minute.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        try:
            connection.sendall(request)
            answer = connection.recv(65536)
        except TimeoutError:
            return "hang"
        except OSError:
            return "closed"
    return answer[9:12].decode("ascii", "replace") if answer.startswith(b"HTTP/1.1 ") else "closed"


def _places(body: Any) -> Iterator[tuple[Any, Any]]:
    stack = [body]
    while stack:
        part = stack.pop()
        keys = list(part) if isinstance(part, dict) else list(range(len(part))) if isinstance(part, list) else []
        for key in keys:
            yield part, key
            stack.append(part[key])


def resident(process: subprocess.Popen[bytes]) -> float:
    """Memory of the process, in MiB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main()
