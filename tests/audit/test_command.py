"""`disintegrate audit`: a model file and a live endpoint, verdicts and exit codes, resuming."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from disintegrate.audit.inputs import read_inputs
from disintegrate.errors import DamagedFile, InvalidValue, UnknownName
from disintegrate.server import Service
from tests.server.running import SHAPE, serving, settings, small_model
from tests.test_cli import run


def digits_of(path: Path, count: int = 5) -> Path:
    np.save(path, np.random.default_rng(3).normal(size=(count, *SHAPE)).astype(np.float32))
    return path


def test_a_model_that_leaks_exits_with_3_and_says_by_what(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    record, page = tmp_path / "audit.json", tmp_path / "audit.sarif"
    arguments = ("audit", "TwoLayerNet", "--images", "3", "--steps", "1-100", "--out", str(record))
    code, text, _ = run(capsys, monkeypatch, *arguments, "--sarif", str(page))
    assert code == 3
    assert text.startswith("Leaks: 100% of the gradients were recovered, by 1 query for each")
    assert json.loads(record.read_text())["verdict"] == "leaks"
    assert json.loads(page.read_text())["runs"][0]["results"][0]["level"] == "error"
    code, text, _ = run(capsys, monkeypatch, *arguments, "--fail-on", "never", "--json")
    assert code == 0
    assert json.loads(text) == json.loads(record.read_text())


def test_a_live_endpoint_is_probed_audited_and_nothing_is_paid_twice(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    inputs, journal = digits_of(tmp_path / "inputs.npy"), tmp_path / "journal"
    chosen = settings(rule="riemann_right", steps=12, steps_allowed=(1, 1000), caller_baseline=True)
    with serving(Service(small_model(), chosen)) as running:
        target = f"kserve+{running.url}/v1/models/net"
        arguments = ("audit", target, "--inputs", str(inputs), "--json", "--journal", str(journal))
        code, text, _ = run(capsys, monkeypatch, *arguments)
        first = running.service.engine.load.rows
        again, same, told = run(capsys, monkeypatch, *arguments, "--in-doubt", "ask")
        second = running.service.engine.load.rows - first
    found = json.loads(text)
    assert (code, again) == (3, 3)
    assert found["check"] == "the service's own outputs at small steps from each input"
    assert found["verdict"] == "leaks"
    # The second run asked nothing, the probe's questions neither: all answers stand in the journal.
    assert second == 0
    held = re.search(r"holds (\d+) answers; 0 queries are in doubt", told)
    assert held is not None
    # of four random steps on six coordinates two may be the same question, and a probe's may be a plan's
    assert int(held[1]) == first
    tried = sum(row["queries"] for row in found["what_stops_it"])
    assert 0.8 * found["queries"]["all"] <= first <= found["queries"]["all"] + tried
    # `run` tells the command and the day
    assert {**json.loads(same), "run": None} == {**found, "run": None}


def test_inputs_of_every_kind_are_the_same(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(3, *SHAPE)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", x=x)
    save_file({"x": x}, tmp_path / "x.safetensors")
    header = ",".join("abcdef")
    np.savetxt(tmp_path / "x.csv", x.reshape(3, -1), delimiter=",", header=header, comments="", fmt="%.9g")
    for kind in ("npy", "npz", "safetensors", "csv"):
        assert (read_inputs(tmp_path / f"x.{kind}", SHAPE) == x).all(), kind


def test_inputs_that_are_none_get_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(b"no array")
    np.savez(tmp_path / "two.npz", a=np.ones((2, 2)), b=np.ones((2, 2)))
    np.save(tmp_path / "nan.npy", np.array([[np.nan, 1.0]]))
    np.save(tmp_path / "five.npy", np.ones((2, 5)))
    for name, kind in (("x.npy", DamagedFile), ("two.npz", DamagedFile), ("nan.npy", InvalidValue)):
        with pytest.raises(kind):
            read_inputs(tmp_path / name)
    with pytest.raises(InvalidValue, match="no inputs of this model"):
        read_inputs(tmp_path / "five.npy", SHAPE)
    with pytest.raises(UnknownName, match="There are no such inputs"):
        read_inputs(tmp_path / "x.jpeg")
