"""What a record holds already, so that a study that was stopped goes on behind it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from disintegrate.versions import versions


def kept_rows(path: Path, **same: object) -> list[dict[str, Any]]:
    """The rows of a record whose fields are these and that these versions made; none of another or where there is none.

    Args:
        path: of the record.
        same: fields that must be equal, such as the victim.
    """
    if not path.is_file():
        return []
    record = json.loads(path.read_text())
    rows: list[dict[str, Any]] = record["rows"]
    wanted = {**same, "versions": versions()}
    return rows if all(record.get(name) == value for name, value in wanted.items()) else []
