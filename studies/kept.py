"""What a record or a folder holds already, so that a study that was stopped goes on behind it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from disintegrate.files import write_atomically
from disintegrate.versions import versions

Row = dict[str, Any]


def kept_rows(path: Path, **same: object) -> list[Row]:
    """The rows of a record whose fields are these and that these versions made; none of another or where there is none.

    Args:
        path: of the record.
        same: fields that must be equal, such as the victim.
    """
    if not path.is_file():
        return []
    record = json.loads(path.read_text())
    rows: list[Row] = record["rows"]
    wanted = {**same, "versions": versions()}
    return rows if all(record.get(name) == value for name, value in wanted.items()) else []


def each_once(
    work: Sequence[tuple[str, Callable[[], Row]]], folder: Path, seconds: float, told: Callable[[Row], str]
) -> list[Row] | None:
    """Compute what a folder does not hold yet, and print every row; None where time ran out before the last.

    Args:
        work: a name for each row, which its file in the folder bears, and what makes it.
        folder: of the files.
        seconds: after which nothing is begun any more.
        told: a row as a line.
    """
    started, found = time.monotonic(), []
    for name, compute in work:
        path = folder / f"{name}.json"
        if not path.is_file():
            if time.monotonic() - started > seconds:
                continue
            write_atomically(path, json.dumps(compute()).encode())
        found.append(json.loads(path.read_text()))
        print(told(found[-1]), flush=True)
    if len(found) < len(work):
        print(f"{len(work) - len(found)} of {len(work)} are left; the same command goes on.")
        return None
    return found
