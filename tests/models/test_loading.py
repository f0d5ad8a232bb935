"""Every format is read, and what could run code is not."""

import json
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from torch import nn
from torch.export import Dim

from disintegrate.errors import DamagedFile, InvalidValue, UnknownName, Untrusted
from disintegrate.models import load_model, read_point
from disintegrate.paper.networks import build

X = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def same(found: nn.Module, model: nn.Module) -> bool:
    with torch.no_grad():
        return bool(torch.allclose(found(X), model(X), atol=1e-6))


def exported(path: Path) -> nn.Module:
    model = build("TwoLayerNet").eval()
    torch.export.save(torch.export.export(model, (X,), dynamic_shapes=({0: Dim.AUTO},)), path)
    return model


def altered(source: Path, target: Path, change: Callable[[str, bytes], tuple[str, bytes]]) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(*change(name, old.read(name)))
    return target


def test_safetensors_and_state_dicts_need_their_architecture(tmp_path: Path) -> None:
    model = build("LeNet", seed=3).eval()
    save_file(model.state_dict(), tmp_path / "net.safetensors")
    torch.save(model.state_dict(), tmp_path / "net.pt")
    torch.save({"state_dict": model.state_dict()}, tmp_path / "lightning.pth")
    for name in ("net.safetensors", "net.pt", "lightning.pth"):
        loaded = load_model(str(tmp_path / name), architecture="LeNet")
        assert same(loaded.module, model)
        assert not loaded.module.training
        assert loaded.input_shape == (1, 28, 28)
        with pytest.raises(InvalidValue, match="Give --architecture"):
            load_model(str(tmp_path / name))
        with pytest.raises(DamagedFile, match="do not fit TwoLayerNet"):
            load_model(str(tmp_path / name), architecture="TwoLayerNet")


def test_a_whole_module_and_a_pickle_that_calls_are_refused_unless_trusted(tmp_path: Path) -> None:
    model = build("TwoLayerNet").eval()
    torch.save(model, tmp_path / "module.pt")
    with pytest.raises(Untrusted, match="--trust-model"):
        load_model(str(tmp_path / "module.pt"))
    assert same(load_model(str(tmp_path / "module.pt"), trust=True).module, model)

    class Caller:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"weight": Caller()}))
    with pytest.raises((Untrusted, DamagedFile)):
        load_model(str(tmp_path / "evil.pth"), architecture="LeNet")
    torch.save({"weight": Caller()}, tmp_path / "zipped.pt")
    with pytest.raises(Untrusted):
        load_model(str(tmp_path / "zipped.pt"), architecture="LeNet")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04 torn", b"\x80\x02}"])
@pytest.mark.parametrize("suffix", [".pt", ".pt2", ".onnx", ".safetensors"])
def test_damaged_files_of_every_kind_are_told(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"net{suffix}"
    path.write_bytes(content)
    with pytest.raises((DamagedFile, Untrusted)):
        load_model(str(path), architecture="LeNet")


def test_an_exported_program_is_read_and_has_exact_gradients(tmp_path: Path) -> None:
    model = exported(tmp_path / "net.pt2")
    loaded = load_model(str(tmp_path / "net.pt2"))
    assert loaded.input_shape == (1, 28, 28)
    x, y = X.clone().requires_grad_(), X.clone().requires_grad_()
    loaded.module(x)[:, 3].sum().backward()
    model(y)[:, 3].sum().backward()
    assert x.grad is not None
    assert y.grad is not None
    assert torch.equal(x.grad, y.grad)


def test_an_exported_program_that_could_run_code_is_refused(tmp_path: Path) -> None:
    exported(tmp_path / "net.pt2")

    class Caller:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    def sample_inputs(name: str, content: bytes) -> tuple[str, bytes]:
        if name.endswith("sample_inputs/model.pt"):
            torch.save(Caller(), tmp_path / "sample.pt")
            return name, (tmp_path / "sample.pt").read_bytes()
        return name, content

    def pickled_weights(name: str, content: bytes) -> tuple[str, bytes]:
        return name, content.replace(b'"use_pickle": false', b'"use_pickle": true')

    def expression(name: str, content: bytes) -> tuple[str, bytes]:
        call = b"__import__('pathlib').Path('ran').touch()"
        return name, content.replace(b"Symbol('s", call + b" or Symbol('s")

    def guards(name: str, content: bytes) -> tuple[str, bytes]:
        return name, content.replace(b'"guards_code": []', b'"guards_code": ["L[\'x\']"]')

    for number, change in enumerate((sample_inputs, pickled_weights, expression, guards)):
        path = altered(tmp_path / "net.pt2", tmp_path / f"{number}.pt2", change)
        assert path.read_bytes() != (tmp_path / "net.pt2").read_bytes()
        with pytest.raises(Untrusted, match="could run code"):
            load_model(str(path))
    assert not (tmp_path / "ran").exists()
    with zipfile.ZipFile(tmp_path / "net.pt2", "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(archive.namelist()[0], b"another")
    with pytest.raises(Untrusted, match="two members of one name"):
        load_model(str(tmp_path / "net.pt2"))


def test_an_exported_program_for_one_batch_size_is_told(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(build("TwoLayerNet").eval(), (X,)), tmp_path / "fixed.pt2")
    with pytest.raises(InvalidValue, match="dynamic first dimension"):
        load_model(str(tmp_path / "fixed.pt2"))


def lenet_as_onnx(model: nn.Module, path: Path) -> None:
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    weights = [numpy_helper.from_array(value, name) for name, value in state.items()]
    weights.append(numpy_helper.from_array(np.array([1, -1]), "flat"))
    nodes = [
        helper.make_node("Conv", ["x", "conv1.weight", "conv1.bias"], ["a"], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "conv2.weight", "conv2.bias"], ["c"], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("MaxPool", ["d"], ["e"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Reshape", ["e", "flat"], ["g"]),
        helper.make_node("Gemm", ["g", "fc1.weight", "fc1.bias"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["i"]),
        helper.make_node("Gemm", ["i", "fc2.weight", "fc2.bias"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "lenet",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 28, 28])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 10])],
        weights,
    )
    # A traced batch of one in the shape of the reshape must hold for three rows as well.
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)


def test_onnx_is_interpreted_with_the_gradients_of_the_model(tmp_path: Path) -> None:
    model = build("LeNet", seed=5).eval()
    lenet_as_onnx(model, tmp_path / "net.onnx")
    loaded = load_model(str(tmp_path / "net.onnx"))
    assert loaded.input_shape == (1, 28, 28)
    assert same(loaded.module, model)
    x, y = X.clone().requires_grad_(), X.clone().requires_grad_()
    loaded.module(x)[:, 3].sum().backward()
    model(y)[:, 3].sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad, y.grad, atol=1e-6)  # type: ignore[arg-type]
    assert loaded.module.double()(X.double()).dtype == torch.float64


def test_a_hugging_face_directory_is_read_and_code_of_its_own_refused(tmp_path: Path) -> None:
    from transformers import ResNetConfig, ResNetForImageClassification  # noqa: PLC0415  takes seconds

    sizes = {"num_channels": 1, "embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1]}
    model = ResNetForImageClassification(ResNetConfig.from_dict({**sizes, "num_labels": 5, "image_size": 28}))
    model.train(False)
    model.save_pretrained(tmp_path / "net")
    loaded = load_model(str(tmp_path / "net"))
    assert loaded.input_shape == (1, 28, 28)
    with torch.no_grad():
        assert torch.equal(loaded.module(X), model.forward(X).logits)
    description = json.loads((tmp_path / "net" / "config.json").read_text())
    description["auto_map"] = {"AutoModelForImageClassification": "own.Net"}
    (tmp_path / "net" / "config.json").write_text(json.dumps(description))
    with pytest.raises(Untrusted, match="code of its own"):
        load_model(str(tmp_path / "net"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DamagedFile, match="no config.json"):
        load_model(str(tmp_path / "empty"))


def test_a_factory_is_the_users_own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_nets.py").write_text(
        "from torch import nn\ndef make():\n    return nn.Linear(3, 2)\ndef wrong():\n    return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert isinstance(load_model("python:own_nets:make").module, nn.Linear)
    with pytest.raises(InvalidValue, match="must make a torch module"):
        load_model("python:own_nets:wrong")
    for name in ("python:own_nets:none", "python:no_such_module:make"):
        with pytest.raises(UnknownName, match="no such function"):
            load_model(name)
    with pytest.raises(InvalidValue, match="a module and a function"):
        load_model("python:own_nets")
    with pytest.raises(UnknownName, match="no such model"):
        load_model("nowhere.onnx")


def test_a_point_is_an_array_of_the_inputs_shape(tmp_path: Path) -> None:
    np.save(tmp_path / "point.npy", np.arange(6).reshape(2, 3))
    assert read_point(tmp_path / "point.npy", (2, 3)).sum() == 15
    with pytest.raises(InvalidValue, match="shape of one input"):
        read_point(tmp_path / "point.npy", (6,))
    (tmp_path / "pickle.npy").write_bytes(pickle.dumps([1]))
    with pytest.raises(DamagedFile):
        read_point(tmp_path / "pickle.npy", None)
    with pytest.raises(UnknownName):
        read_point(tmp_path / "none.npy", None)
