"""One door for models: what a file is decides who reads it, and nothing that could run code is read without trust."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from disintegrate.errors import InvalidValue, UnknownName
from disintegrate.models import weights
from disintegrate.models.factory import PREFIX, made_by
from disintegrate.paper.networks import NETWORKS, build

IMAGE = (1, 28, 28)


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model in eval mode, and the shape of one input where it is known."""

    module: nn.Module
    input_shape: tuple[int, ...] | None


def load_model(source: str, *, architecture: str | None = None, trust: bool = False) -> LoadedModel:
    """Load a model of any format that the package knows.

    Args:
        source: a `.safetensors`, `.pt`, `.pth`, `.pt2` or `.onnx` file, a Hugging Face directory, a factory as
            `python:package.module:function`, or the name of one of the paper's networks, with fresh weights.
        architecture: what weights without one of their own are for: the name of a network, or a factory.
        trust: whether a file may be loaded that could run code on this machine.

    Raises:
        UnknownName: there is no such file, network or function.
        Untrusted: the file could run code.
        DamagedFile: the file is not what it should be, or does not fit its architecture.
        InvalidValue: weights without an architecture.

    Example:
        >>> load_model("LeNet").input_shape == (1, 28, 28)
        True
    """
    path = Path(source)
    if source.startswith(PREFIX):
        return LoadedModel(made_by(source), None)
    if path.is_dir():
        return _directory(path, trust)
    if path.is_file():
        return READERS.get(path.suffix, _torch_file)(path, architecture, trust)
    if source in NETWORKS:
        return LoadedModel(build(source).eval(), IMAGE)
    raise UnknownName(
        "There is no such model.",
        got=repr(source),
        instead=f"Give a file, a directory, {PREFIX}package.module:function, or one of {', '.join(NETWORKS)}.",
    )


def _directory(path: Path, trust: bool) -> LoadedModel:
    from disintegrate.models.huggingface import load_directory  # noqa: PLC0415  transformers takes seconds

    return LoadedModel(*load_directory(path, trust=trust))


def _onnx(path: Path, architecture: str | None, trust: bool) -> LoadedModel:
    from disintegrate.models.onnx_file import load_onnx  # noqa: PLC0415  onnx is an extra

    return LoadedModel(*load_onnx(path))


def _exported(path: Path, architecture: str | None, trust: bool) -> LoadedModel:
    from disintegrate.models.exported import load_exported  # noqa: PLC0415  torch.export takes seconds

    return LoadedModel(*load_exported(path, trust=trust))


def _safetensors(path: Path, architecture: str | None, trust: bool) -> LoadedModel:
    return _with_architecture(weights.read_tensors(path), architecture, path)


def _torch_file(path: Path, architecture: str | None, trust: bool) -> LoadedModel:
    read = weights.read_state_dict(path, trust=trust)
    if isinstance(read, nn.Module):
        return LoadedModel(read.eval(), None)
    return _with_architecture(read, architecture, path)


def _with_architecture(tensors: dict[str, Tensor], name: str | None, path: Path) -> LoadedModel:
    if name is None:
        raise InvalidValue(
            "Weights need an architecture to put them in.",
            got=str(path),
            instead=f"Give --architecture with {PREFIX}package.module:function, or one of {', '.join(NETWORKS)}.",
        )
    made = name.startswith(PREFIX)
    module = made_by(name) if made else build(name)
    return LoadedModel(weights.fitted(module, tensors, path, name), None if made else IMAGE)


READERS: dict[str, Callable[[Path, str | None, bool], LoadedModel]] = {
    ".onnx": _onnx,
    ".pt2": _exported,
    ".safetensors": _safetensors,
}
