"""Logs of explanations, out of JSON lines, `.npz` or parquet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from jaxtyping import Float, Int

from disintegrate.audit.inputs import parquet
from disintegrate.errors import DamagedFile, InvalidValue, UnknownName

KINDS = (".jsonl", ".ndjson", ".npz", ".parquet")
NEEDED, OPTIONAL = ("input", "attribution"), ("output", "steps", "target", "baseline")


@dataclass(frozen=True, eq=False)
class Log:
    """Recorded explanations.

    Attributes:
        inputs: the points that were explained.
        attribution: what was answered.
        steps: of each answer.
        targets: the outputs explained.
        baselines: where each ray began.
        output: the explained output at each input; NaN where it is not recorded.
    """

    inputs: Float[np.ndarray, "n *shape"]
    attribution: Float[np.ndarray, "n *shape"]
    steps: Int[np.ndarray, " n"]
    targets: Int[np.ndarray, " n"]
    baselines: Float[np.ndarray, "n *shape"]
    output: Float[np.ndarray, " n"]


def read_log(path: Path, *, own_steps: int) -> Log:
    """Read a log: rows of `input` and `attribution`; `output`, `steps`, `target` and `baseline` where recorded.

    Args:
        path: JSON lines with an object each, or a `.npz` or `.parquet` file with arrays of these names.
        own_steps: the service's own steps, for rows that name none.

    Raises:
        UnknownName: there is no such file, or of no such kind.
        DamagedFile: the file is not what its name says.
        InvalidValue: columns that are missing or do not match.
    """
    if not path.is_file() or path.suffix not in KINDS:
        raise UnknownName("There is no such log.", got=path, instead=f"Give a file: {', '.join(KINDS)}.")
    try:
        columns = _columns(path)
    except (ValueError, TypeError, AttributeError, EOFError, OSError) as error:
        if isinstance(error, InvalidValue):
            raise
        raise DamagedFile(f"{path} is not a {path.suffix} log.", got=str(error)[:100]) from None
    for name in NEEDED:
        if columns.get(name) is None:
            raise InvalidValue(
                "A log needs inputs and attributions.",
                got=f"columns {', '.join(columns) or 'none'}",
                instead=f"Give {', '.join(NEEDED)}, and {', '.join(OPTIONAL)} where they are recorded.",
            )
    return _checked(path, columns, own_steps)


def _columns(path: Path) -> dict[str, list[Any] | np.ndarray]:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    if path.suffix == ".parquet":
        table = parquet(path)
        return {name: table[name].to_pylist() for name in table.column_names}
    rows = [orjson.loads(line) for line in path.read_bytes().splitlines() if line.strip()]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _checked(path: Path, columns: dict[str, list[Any] | np.ndarray], own_steps: int) -> Log:
    try:
        inputs, attribution = (np.asarray(columns[name], np.float64) for name in NEEDED)
        steps, targets = (
            _whole(columns.get(name), len(inputs), own) for name, own in (("steps", own_steps), ("target", 0))
        )
        baselines = _baselines(columns.get("baseline"), inputs)
        told = columns.get("output")
        output = np.full(len(inputs), np.nan) if told is None else np.array(told, np.float64)
        if output.shape != (len(inputs),):
            raise ValueError(f"outputs of shape {output.shape}")
    except (ValueError, TypeError) as error:
        raise InvalidValue(
            f"The rows of {path} do not match.", got=str(error)[:100], instead="Give each row as many numbers."
        ) from None
    if inputs.ndim < 2 or len(inputs) == 0 or not inputs.shape == attribution.shape == baselines.shape:
        raise InvalidValue(
            "Each row needs an input, and an attribution for each of its coordinates.",
            got=f"inputs {inputs.shape}, attributions {attribution.shape}, baselines {baselines.shape}",
            instead="Give arrays of one shape.",
        )
    if not (np.isfinite(inputs).all() and np.isfinite(attribution).all() and np.isfinite(baselines).all()):
        raise InvalidValue("A log holds finite numbers.", got="NaN or infinity", instead="Leave such rows out.")
    if (steps < 1).any() or (targets < 0).any():
        raise InvalidValue("Steps are at least 1, targets at least 0.", got=f"{steps.min()}, {targets.min()}")
    return Log(inputs, attribution, steps, targets, baselines, output)


def _whole(given: list[Any] | np.ndarray | None, count: int, own: int) -> Int[np.ndarray, " n"]:
    if given is None:
        return np.full(count, own)
    values = [own if value is None else int(value) for value in (given if isinstance(given, list) else given.tolist())]
    if len(values) != count:
        raise ValueError(f"{len(values)} values for {count} rows")
    return np.array(values)


def _baselines(given: list[Any] | np.ndarray | None, inputs: Float[np.ndarray, "n *shape"]) -> np.ndarray:
    if given is None:
        return np.zeros_like(inputs)
    zero = np.zeros(inputs.shape[1:])
    return np.stack([zero if row is None else np.asarray(row, np.float64) for row in given])
