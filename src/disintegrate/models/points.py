"""A point of the input space out of an .npy file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float

from disintegrate.errors import DamagedFile, InvalidValue, UnknownName


def read_point(path: Path, shape: tuple[int, ...] | None) -> Float[np.ndarray, "*shape"]:
    """Read one input, such as a baseline; pickles are refused.

    Raises:
        UnknownName: there is no such file.
        DamagedFile: the file is no .npy file of numbers.
        InvalidValue: another shape than that of an input, or NaN.
    """
    if not path.is_file():
        raise UnknownName("There is no such file.", got=path, instead="Give an .npy file.")
    try:
        point = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DamagedFile(f"{path} is not an .npy file of numbers.", got=str(error)[:100]) from None
    if not isinstance(point, np.ndarray) or point.dtype.kind not in "fiu":
        raise DamagedFile(f"{path} is not an .npy file of numbers.", instead="Save it with numpy.save.")
    point = point.astype(np.float64) if point.dtype.kind != "f" else point
    if (shape is not None and point.shape != shape) or not np.isfinite(point).all():
        raise InvalidValue(
            "The point must have the shape of one input, and no NaN.",
            got=f"shape {point.shape}",
            instead=f"Give an array of shape {shape}.",
        )
    return point
