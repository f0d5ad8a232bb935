"""Units of work that are computed once: each leaves a file, and a run that was killed goes on behind the last."""

from __future__ import annotations

import json
import re
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

    def _log(self, event: str, key: str) -> None:
        append_line(self.folder / "log.jsonl", json.dumps({"event": event, "unit": key, "time": time.time()}))
