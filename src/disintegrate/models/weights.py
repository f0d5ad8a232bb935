"""Weights without code: safetensors, and state dicts that torch reads as data."""

from __future__ import annotations

import hashlib
import pickle
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from disintegrate.errors import DamagedFile, UnknownName, Untrusted


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        UnknownName: the file does not exist.
        DamagedFile: the file is not safetensors.
    """
    if not path.is_file():
        raise UnknownName("There is no such file of weights.", got=path, instead="Give a .safetensors file.")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise DamagedFile(
            f"{path} is not a safetensors file.",
            got=str(error),
            instead="Give a .safetensors file; pickles are refused.",
        ) from None


def read_state_dict(path: Path, *, trust: bool) -> dict[str, Tensor] | nn.Module:
    """Read what `torch.save` wrote: a state dict as data; a whole module or TorchScript only where it is trusted.

    Raises:
        Untrusted: the file holds more than tensors.
        DamagedFile: torch cannot read it, or it is no state dict.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        if not trust:
            raise _untrusted(path, error) from None
        found = _read_with_code(path)
    except (RuntimeError, EOFError, OSError) as error:
        if "TorchScript" not in str(error) and "torch.jit" not in str(error):
            raise DamagedFile(f"{path} is not a file that torch wrote.", got=_first_line(error)) from None
        if not trust:
            raise _untrusted(path, error) from None
        found = _read_with_code(path)
    if isinstance(found, nn.Module):
        return found
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise DamagedFile(
            f"{path} is not a state dict.", got=type(found).__name__, instead="Save model.state_dict() instead."
        )
    return {str(name): value for name, value in found.items()}


def fitted(module: nn.Module, tensors: dict[str, Tensor], source: Path, name: str) -> nn.Module:
    """The module with these weights in it, in eval mode.

    Raises:
        DamagedFile: the tensors are not those of the module.
    """
    expected = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in tensors.items()}
    if found != expected:
        odd = sorted(set(found.items()) ^ set(expected.items()))[0]
        raise DamagedFile(
            f"The weights in {source} do not fit {name}.",
            got=f"{odd[0]} with shape {odd[1]} on one side only",
            instead=f"Give weights that were saved from {name}.",
        )
    module.load_state_dict(tensors)
    return module.eval()


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """A module's weights and buffers, as they can be stored."""
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in module.state_dict().items()}


def weights_sha256(module: nn.Module) -> str:
    """Checksum of a module's weights and buffers."""
    return hashlib.sha256(save(tensors_of(module))).hexdigest()


def _read_with_code(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        try:
            return torch.jit.load(str(path), map_location="cpu")
        except RuntimeError:
            raise DamagedFile(f"{path} cannot be loaded.", got=_first_line(error)) from None


def _untrusted(path: Path, error: Exception) -> Untrusted:
    return Untrusted(
        f"{path} holds more than weights, and loading it could run code.",
        got=_first_line(error),
        instead="Save model.state_dict() as safetensors, or give --trust-model if you trust whoever made the file.",
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
