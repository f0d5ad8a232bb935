"""Files that survive a kill: whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from disintegrate.errors import UnwritableOutput


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that, after a kill at any moment, is either whole or not there.

    Raises:
        UnwritableOutput: the folder or the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)


def append_line(path: Path, line: str) -> None:
    """Add a line to a text file.

    Raises:
        UnwritableOutput: the folder or the file cannot be written.
    """
    with _told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(line + "\n")


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UnwritableOutput(
            f"{path} cannot be written.", got=error.strerror, instead="Give an output folder that you may write to."
        ) from None
