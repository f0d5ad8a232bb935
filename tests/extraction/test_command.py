"""`disintegrate extract`: a model file, a live endpoint that is the caller's own, and one that is not said to be."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from disintegrate.server import Service
from tests.server.running import CLASSES, SHAPE, serving, settings, small_model
from tests.test_cli import run


def points(path: Path) -> tuple[Path, np.ndarray]:
    x = np.random.default_rng(3).normal(size=(30, *SHAPE)).astype(np.float32)
    np.save(path, x)
    return path, x


def test_a_model_file_is_copied_and_the_copy_stands_beside_its_record(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "copy.safetensors"
    arguments = ("extract", "TwoLayerNet", "--rule", "riemann_right", "--steps", "1-100", "--out", str(out))
    code, text, _ = run(capsys, monkeypatch, *arguments, "--images", "5", "--held-out", "20", "--json")
    assert code == 0
    found, record = json.loads(text), json.loads(out.with_suffix(".json").read_text())
    assert record == {"target": "TwoLayerNet", **found}
    assert found["likeness"]["agreement"] == 1
    assert found["likeness"]["largest_error"] < 1e-4
    assert load_file(out)["1.weight"].shape == (found["notes"]["units"], 784) == (100, 784)


def test_a_live_endpoint_is_copied_for_its_owner_and_nothing_is_paid_twice(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out, model = tmp_path / "copy.safetensors", small_model().eval()
    inputs, x = points(tmp_path / "x.npy")
    chosen = settings(rule="riemann_right", steps=12, steps_allowed=(1, 100))
    with serving(Service(model, chosen)) as running:
        arguments = (
            "extract", f"kserve+{running.url}/v1/models/net", "--rule", "riemann_right", "--steps", "1-100",
            "--inputs", str(inputs), "--images", "5", "--classes", str(CLASSES), "--out", str(out),
            "--journal", str(tmp_path / "journal"),
        )  # fmt: skip
        code, _, told = run(capsys, monkeypatch, *arguments)
        assert code == 2
        assert "for its owner alone" in told
        assert running.service.engine.load.rows == 0
        code, text, _ = run(capsys, monkeypatch, *arguments, "--i-own-this-model")
        paid = running.service.engine.load.rows
        again, _, told = run(capsys, monkeypatch, *arguments, "--i-own-this-model")
        assert (code, again) == (0, 0)
        assert running.service.engine.load.rows == paid
    record = json.loads(out.with_suffix(".json").read_text())
    assert paid == record["queries"] + record["scoring"]
    assert f"{record['queries']} explanations of {record['points']} points" in text
    copied = load_file(out)
    hidden = torch.relu(torch.tensor(x).flatten(1) @ copied["1.weight"].T + copied["1.bias"])
    outputs = hidden @ copied["3.weight"].T + copied["3.bias"]
    torch.testing.assert_close(outputs, model(torch.tensor(x)).detach(), rtol=0, atol=1e-4)


def test_two_layers_of_a_live_endpoint_are_copied(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    layers = torch.nn.Linear(int(np.prod(SHAPE)), 5), torch.nn.ReLU(), torch.nn.Linear(5, 4), torch.nn.ReLU()
    model = torch.nn.Sequential(torch.nn.Flatten(), *layers, torch.nn.Linear(4, CLASSES)).eval()
    out = tmp_path / "copy.safetensors"
    inputs, x = points(tmp_path / "x.npy")
    chosen = settings(rule="riemann_right", steps=12, steps_allowed=(1, 100))
    with serving(Service(model, chosen)) as running:
        code, text, told = run(
            capsys, monkeypatch, "extract", f"kserve+{running.url}/v1/models/net", "--by", "layers", "--rule",
            "riemann_right", "--steps", "1-100", "--inputs", str(inputs), "--images", "5", "--classes", str(CLASSES),
            "--out", str(out), "--i-own-this-model", "--json",
        )  # fmt: skip
    assert code == 0, told
    found = json.loads(text)
    assert found["notes"]["units"] == [5, 4]
    truth = model(torch.tensor(x))
    model.load_state_dict(load_file(out))  # the same architecture
    torch.testing.assert_close(model(torch.tensor(x)), truth, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--by", "explanations"), "A student needs an architecture."),
        (("--inputs", "X", "--images", "30"), "No inputs are left to score the copy on."),
        (("--by", "outputs", "--student", "VGG"), "There is no such network."),
    ],
)
def test_what_cannot_be_done_gets_a_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, ...],
    sentence: str,
) -> None:  # fmt: skip
    np.save(tmp_path / "x.npy", np.ones((30, 1, 28, 28), np.float32))
    given = [str(tmp_path / "x.npy") if argument == "X" else argument for argument in arguments]
    out = str(tmp_path / "copy.safetensors")
    code, _, told = run(capsys, monkeypatch, "extract", "TwoLayerNet", "--steps", "1-9", "--out", out, *given)
    assert code == 2
    assert sentence in " ".join(told.split())
