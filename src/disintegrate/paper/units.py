"""Units of work that are computed once: each leaves a file, and a run that was killed goes on behind the last."""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from disintegrate.errors import DamagedFile
from disintegrate.files import append_line, write_atomically

Arrays = Mapping[str, np.ndarray]


class Units:
    """A folder of results, one safetensors file for each unit, and a log of what was computed when.

    Attributes:
        folder: where the files lie.
        seconds: time that the units asked for so far took to compute, now or in an earlier run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds = 0.0

    def once(self, key: str, compute: Callable[[], Arrays]) -> Arrays:
        """The unit's arrays: read where they stand, computed and stored where they do not.

        The key must name everything that the arrays hang on. `seconds` is added to what was computed.

        Raises:
            DamagedFile: the unit's file is not what was stored.
            UnwritableOutput: it cannot be stored.
        """
        path = self.folder / f"{re.sub(r'[^A-Za-z0-9._-]+', '_', key)}.safetensors"
        if path.is_file():
            try:
                stored = load_file(path)
            except SafetensorError as error:
                raise DamagedFile(
                    f"The unit {path} cannot be read.", got=error, instead="Delete it to compute it again."
                ) from None
            self.seconds += float(stored["seconds"])
            return stored
        self._log("started", key)
        started = time.monotonic()
        arrays = {name: np.ascontiguousarray(array) for name, array in compute().items()}
        arrays["seconds"] = np.array(time.monotonic() - started)
        write_atomically(path, save(arrays))
        self._log("finished", key)
        self.seconds += float(arrays["seconds"])
        return arrays

    @property
    def peak_memory(self) -> int:
        """Largest memory of any session that computed a unit here, and of this one, in bytes."""
        log = self.folder / "log.jsonl"
        lines = log.read_text().splitlines() if log.is_file() else []
        logged = [int(json.loads(line).get("peak_memory", 0)) for line in lines]
        return max([_peak_memory(), *logged])

    def _log(self, event: str, key: str) -> None:
        entry = {"event": event, "unit": key, "time": time.time(), "peak_memory": _peak_memory()}
        append_line(self.folder / "log.jsonl", json.dumps(entry))


def _peak_memory() -> int:
    """Bytes; the system counts in kilobytes, but on macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
