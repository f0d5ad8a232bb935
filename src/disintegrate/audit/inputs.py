"""Inputs to audit, out of files: arrays, tensors, tables, and folders of images."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from safetensors import SafetensorError
from safetensors.numpy import load_file

from disintegrate.audit.images import IMAGES, read_images
from disintegrate.errors import DamagedFile, InvalidValue, UnknownName

KINDS = (".npy", ".npz", ".safetensors", ".csv", ".parquet")
TABLES = (".csv", ".parquet")


def read_inputs(
    path: Path,
    shape: tuple[int, ...] | None = None,
    *,
    columns: tuple[str, ...] | None = None,
    normalise: tuple[float, float] | None = None,
    most: int | None = None,
) -> Float32[np.ndarray, "n *shape"]:
    """Read inputs from a file of one array, a table of one input a row, or a folder of images.

    Args:
        path: a `.npy`, `.npz` or `.safetensors` file of one array, a `.csv` or `.parquet` table, or a folder.
        shape: of one input, to which each row is brought; None leaves it as it is.
        columns: of a table, by the names in its first line; None for all.
        normalise: the mean and the deviation by which pixels in [0, 1] are normalised; None leaves them there.
        most: so many of the inputs; None for all.

    Raises:
        UnknownName: there is no such file or column, or a file of no such kind.
        DamagedFile: the file is not what its name says.
        InvalidValue: rows of another size than an input, or NaN.
    """
    if columns is not None and path.suffix not in TABLES:
        raise InvalidValue("Only tables have columns.", got=path, instead=f"Give {' or '.join(TABLES)} inputs.")
    if normalise is not None and not path.is_dir():
        raise InvalidValue("Only images are normalised here.", got=path, instead="Give a folder of images.")
    if path.is_dir():
        return read_images(path, shape, normalise=normalise, most=most)
    if not path.is_file() or path.suffix not in KINDS:
        raise UnknownName(
            "There are no such inputs.",
            got=path,
            instead=f"Give a file ({', '.join(KINDS)}) or a folder of images ({', '.join(IMAGES)}).",
        )
    try:
        found = _table(path, columns) if path.suffix in TABLES else _array(path)
    except (ValueError, TypeError, EOFError, OSError, SafetensorError) as error:
        if isinstance(error, InvalidValue):
            raise
        raise DamagedFile(f"{path} is not a {path.suffix} file of numbers.", got=str(error)[:100]) from None
    inputs = np.asarray(found, np.float32)[:most]
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


def _table(path: Path, columns: tuple[str, ...] | None) -> np.ndarray:
    if path.suffix == ".parquet":
        return _parquet(path, columns)
    with path.open(newline="") as lines:
        first = next(csv.reader(lines), [])
    names = [cell.strip() for cell in first]
    named = any(not _is_number(cell) for cell in names)
    if columns is not None and not named:
        raise InvalidValue(
            "Columns are chosen by names, and this table has none.", got=path, instead="Begin it with a line of names."
        )
    chosen = None if columns is None else [names.index(name) for name in _present(columns, names)]
    return np.loadtxt(path, delimiter=",", skiprows=int(named), ndmin=2, quotechar='"', usecols=chosen)


def _parquet(path: Path, columns: tuple[str, ...] | None) -> np.ndarray:
    table = parquet(path)
    if columns is not None:
        table = table.select(list(_present(columns, table.column_names)))
    values = [np.asarray(column.to_pylist(), np.float64) for column in table.columns]
    # one column of lists is a row of numbers already
    return values[0] if len(values) == 1 and values[0].ndim > 1 else np.stack(values, axis=1)


def parquet(path: Path) -> Any:
    """A parquet file's table.

    Raises:
        InvalidValue: pyarrow is not installed.
        ValueError: it is no such file.
    """
    try:
        from pyarrow.parquet import read_table  # noqa: PLC0415  an extra
    except ImportError:
        raise InvalidValue(
            "Parquet needs a package that is not installed.", got="no pyarrow", instead="Install disintegrate[parquet]."
        ) from None
    return read_table(path)


def _present(columns: tuple[str, ...], names: list[str]) -> tuple[str, ...]:
    missing = [column for column in columns if column not in names]
    if missing:
        raise UnknownName("There is no such column.", got=missing[0], instead=f"Choose from {', '.join(names[:20])}.")
    return columns


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
