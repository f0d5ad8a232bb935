"""The commands that serve, probe and audit: what they print, how they end."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from disintegrate.server import Service
from tests.server.running import serving, settings, small_model
from tests.test_cli import run


def test_probe_finds_out_what_stands_behind_a_live_endpoint(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    np.save(tmp_path / "inputs.npy", np.random.default_rng(3).normal(size=(4, 2, 3)).astype(np.float32))
    chosen = settings(rule="riemann_right", steps=12, steps_allowed=(1, 1000), caller_baseline=True)
    with serving(Service(small_model(), chosen)) as running:
        target = f"kserve+{running.url}/v1/models/net"
        code, text, _ = run(
            capsys, monkeypatch, "probe", target, "--inputs", str(tmp_path / "inputs.npy"), "--json", "--budget", "60"
        )
        asked = running.service.engine.load.rows
    assert code == 0
    found = json.loads(text)
    assert found["findings"]["steps of the caller"]["value"] == "honoured"
    assert found["findings"]["baseline of the caller"]["value"] == "honoured"
    assert found["findings"]["baseline"]["value"] == "zero"
    assert "riemann_right(12)" in (found["findings"]["rule and steps"]["value"] or ["riemann_right(12)"])
    # The service counts what was answered; a target that it does not have was refused.
    assert asked <= found["queries"] <= 60


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (
            ("probe", "kserve+http://127.0.0.1:1/v1/models/net"),
            1,
            "127.0.0.1:1/v1/models/net:explain cannot be reached",
        ),
        (("probe", "soap+http://127.0.0.1:1/"), 2, "There is no such protocol"),
        (("probe", "kserve+http://u:p@127.0.0.1:1/"), 2, "must not hold a user or a password"),
        (("probe", "kserve+http://127.0.0.1:1/", "--key-file", "nowhere"), 2, "no such file with a key"),
        (("probe", "VGG"), 2, "There is no such network"),
        (("serve", "nowhere.onnx"), 2, "There is no such model"),
        (("serve", "LeNet", "--rule", "simpson"), 2, "There is no such quadrature rule"),
        (("serve", "LeNet", "--steps-allowed", "few"), 2, "The setting steps_allowed"),
        (("serve", "LeNet", "--values", "1"), 2, "Use --values 0:1"),
        (("serve", "LeNet", "--host", "0.0.0.0"), 2, "listens on loopback only"),  # noqa: S104
        (("serve", "LeNet", "--input-shape", "3,3"), 2, "does not take inputs of this shape"),
        (("serve", "LeNet", "--keys", "nowhere.toml"), 2, "no such file of keys"),
        (("serve", "LeNet", "--settings", "nowhere.toml"), 2, "no such file of settings"),
        (("serve", "LeNet", "--device", "toaster"), 2, "The device cannot be used here"),
        (("audit", "nowhere.onnx"), 2, "There is no such model"),
        (("audit", "LeNet", "--inputs", "nowhere.npy"), 2, "There are no such inputs"),
        (("audit", "LeNet", "--rule", "simpson"), 2, "There is no such quadrature rule"),
        (("audit", "LeNet", "--budget", "0"), 2, "Invalid value for '--budget'"),
        (("audit", "kserve+http://127.0.0.1:1/v1/models/net"), 1, "cannot be reached"),
        (("audit", "soap+http://127.0.0.1:1/"), 2, "There is no such protocol"),
    ],
)
def test_what_cannot_be_gets_one_sentence(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: tuple[str, ...],
    code: int,
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("disintegrate.clients.retrying.FIRST_PAUSE", 1e-4)
    ended, text, err = run(capsys, monkeypatch, *arguments)
    assert (ended, text) == (code, "")
    assert sentence in " ".join(err.split())
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_a_new_key_is_shown_once_and_stored_as_a_hash(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, text, _ = run(capsys, monkeypatch, "new-key", "alice", "--budget", "10")
    shown = re.search(r"# The key, shown this once: (\S+)", text)
    assert code == 0
    assert shown is not None
    assert text.count(shown[1]) == 1
    assert re.search(r'sha256 = "[0-9a-f]{64}"\nbudget = 10\n', text)
    code, text, _ = run(capsys, monkeypatch, "new-key", "bob", "--json")
    assert set(json.loads(text)["stored"]) == {"name", "sha256"}


def test_serve_runs_says_where_and_stops_on_a_signal(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "disintegrate.cli", "serve", "TwoLayerNet", "--port", "0", "--name", "digits"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stderr=log, env=environment)
    try:
        until = time.monotonic() + 60
        lines: list[str] = []
        while not lines and time.monotonic() < until:
            time.sleep(0.05)
            lines = (tmp_path / "log").read_text().splitlines()
        told = json.loads(lines[0])
        assert (told["event"], told["host"], told["model"]) == ("listening", "127.0.0.1", "digits")
        url = f"http://127.0.0.1:{told['port']}/v1/models/digits"
        for _ in range(100):
            try:
                if httpx.get(url, trust_env=False).status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.05)
        body = {"instances": np.ones((1, 1, 28, 28)).tolist()}
        assert httpx.post(f"{url}:explain", json=body, trust_env=False).status_code == 200
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_clients_need_neither_torch_nor_the_server() -> None:
    code = (
        "import sys\nfrom disintegrate.clients import Journal, careful, connect\n"
        "connect('oip+http://127.0.0.1:1/v2/models/net')\n"
        "print([name for name in ('torch', 'starlette', 'uvicorn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
