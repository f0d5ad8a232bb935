"""Inputs to audit, out of files: arrays, tensors, tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float32
from safetensors import SafetensorError
from safetensors.numpy import load_file

from disintegrate.errors import DamagedFile, InvalidValue, UnknownName

KINDS = (".npy", ".npz", ".safetensors", ".csv")


def read_inputs(path: Path, shape: tuple[int, ...] | None = None) -> Float32[np.ndarray, "n *shape"]:
    """Read inputs from a `.npy`, `.npz` or `.safetensors` file of one array, or a `.csv` table of one input a row.

    Args:
        path: the file; a table may begin with a line of names.
        shape: of one input, to which each row is brought; None leaves it as it is.

    Raises:
        UnknownName: there is no such file, or of no such kind.
        DamagedFile: the file is not what its name says.
        InvalidValue: rows of another size than an input, or NaN.
    """
    if not path.is_file() or path.suffix not in KINDS:
        raise UnknownName("There are no such inputs.", got=path, instead=f"Give a file: {', '.join(KINDS)}.")
    try:
        found = _table(path) if path.suffix == ".csv" else _array(path)
    except (ValueError, EOFError, OSError, SafetensorError) as error:
        raise DamagedFile(f"{path} is not a {path.suffix} file of numbers.", got=str(error)[:100]) from None
    inputs = np.asarray(found, np.float32)
    if shape is not None and inputs.ndim >= 1 and inputs.shape[1:] != shape:
        if inputs.size % max(len(inputs), 1) or inputs.size // max(len(inputs), 1) != np.prod(shape):
            raise InvalidValue(
                "The rows are no inputs of this model.", got=f"shape {inputs.shape}", instead=f"Give [n, {shape}]."
            )
        inputs = inputs.reshape(len(inputs), *shape)
    if inputs.ndim < 2 or len(inputs) == 0 or not np.isfinite(inputs).all():
        raise InvalidValue(
            "Inputs are an array of several rows without NaN.", got=f"shape {inputs.shape}", instead="Give [n, ...]."
        )
    return inputs


def _array(path: Path) -> np.ndarray:
    if path.suffix == ".npy":
        return np.asarray(np.load(path, allow_pickle=False))
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    else:
        arrays = load_file(path)
    if len(arrays) != 1:
        raise ValueError(f"{len(arrays)} arrays instead of one")
    return next(iter(arrays.values()))


def _table(path: Path) -> np.ndarray:
    first = path.read_text().partition("\n")[0].split(",")
    named = any(not _is_number(cell) for cell in first)
    return np.loadtxt(path, delimiter=",", skiprows=int(named), ndmin=2)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
