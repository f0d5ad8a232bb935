"""How an audit can be done again: its command, and what it was done on."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from disintegrate.clients.link import shown


def provenance(
    arguments: Sequence[str], target: str, inputs: Float[np.ndarray, "n *shape"], weights_sha256: str | None
) -> dict[str, Any]:
    """The command, the day, and checksums of inputs and model, as plain values for JSON.

    Args:
        arguments: of the command line, behind the name of the program.
        target: what is audited.
        inputs: as they are asked; their checksum is that of the numbers, row by row, in little-endian order.
        weights_sha256: checksum of the model's weights; None where the model is not at hand.

    Example:
        >>> found = provenance(["audit", "LeNet"], "LeNet", np.zeros((2, 3), np.float32), None)
        >>> found["command"] == "disintegrate audit LeNet" and found["inputs"]["shape"] == [2, 3]
        True
    """
    plain = np.ascontiguousarray(inputs, inputs.dtype.newbyteorder("<"))
    file = Path(target)
    return {
        "command": shlex.join(["disintegrate", *map(without_secrets, arguments)]),
        "date": datetime.now(UTC).date().isoformat(),
        "inputs": {
            "shape": list(inputs.shape),
            "dtype": inputs.dtype.name,
            "sha256": hashlib.sha256(plain.tobytes()).hexdigest(),
        },
        "model": {
            "weights_sha256": weights_sha256,
            "file_sha256": _file_sha256(file) if file.is_file() else None,
        },
    }


def without_secrets(argument: str) -> str:
    """An argument without what may be secret in a URL: user, password, query and fragment.

    Example:
        >>> without_secrets("kserve+http://host/v1/models/m?key=abc") == "kserve+http://host/v1/models/m"
        True
    """
    protocol, plus, url = argument.partition("+")
    return f"{protocol}{plus}{shown(url)}" if plus and "://" in url else argument


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
