"""The commands of `docs/audit-your-endpoint.md`, run to the letter in an empty folder; `make newcomer` runs this."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

DOCUMENT = Path(__file__).parents[1] / "docs" / "audit-your-endpoint.md"
PORT = "8080"
LIMIT = 240


@dataclass(frozen=True)
class Step:
    """A block of commands, the code that it exits with, and words that it prints."""

    script: str
    code: int
    says: str


def steps(text: str) -> list[Step]:
    """All blocks of commands of a document, each with what the comment behind it says."""
    pattern = r"```sh\n(.*?)```\n(?:<!-- exits with (\d+); says: (.*?) -->)?"
    return [Step(script, int(code or 0), says) for script, code, says in re.findall(pattern, text, re.DOTALL)]


def follow(folder: Path, environment: dict[str, str]) -> int:
    """Run all blocks in order: a service in the background until the next one, everything else to its end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    service: subprocess.Popen[bytes] | None = None
    done = 0
    try:
        for step in steps(DOCUMENT.read_text()):
            script = step.script.replace(PORT, port)
            if script.startswith("disintegrate serve"):
                stop(service)
                service = subprocess.Popen(
                    ["/bin/sh", "-c", f"exec {script}"], cwd=folder, env=environment, stderr=subprocess.DEVNULL
                )
                wait_for(int(port), service)
            else:
                ran = subprocess.run(
                    ["/bin/sh", "-c", script], cwd=folder, env=environment, capture_output=True, text=True,
                    timeout=LIMIT, check=False,
                )  # fmt: skip
                said = " ".join(ran.stdout.split())
                assert ran.returncode == step.code, f"{script} exits with {ran.returncode}: {said} {ran.stderr}"
                assert step.says in said, f"{script} does not say {step.says!r} but {said}"
            done += 1
    finally:
        stop(service)
    return done


def wait_for(port: int, service: subprocess.Popen[bytes]) -> None:
    """Wait until a service listens."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end and service.poll() is None:
        with socket.socket() as way:
            if way.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError("The service does not listen.")


def stop(service: subprocess.Popen[bytes] | None) -> None:
    """Stop a service as Ctrl-C does."""
    if service is not None and service.poll() is None:
        service.send_signal(signal.SIGINT)
        service.wait(60)


if __name__ == "__main__":
    here = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with TemporaryDirectory() as empty:
        print(follow(Path(empty), here), "steps of the document were followed.")  # noqa: T201
