"""Inputs out of a folder of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float32
from PIL import Image, UnidentifiedImageError

from disintegrate.errors import DamagedFile, InvalidValue, UnknownName

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
# What Pillow calls images of one channel of bytes, or of bits.
GREY = ("1", "L", "LA")


def read_images(
    folder: Path,
    shape: tuple[int, ...] | None = None,
    *,
    normalise: tuple[float, float] | None = None,
    most: int | None = None,
) -> Float32[np.ndarray, "n c h w"]:
    """Read the images of a folder, in the order of their names, as `[n, channels, height, width]` within [0, 1].

    They are grey where the model's input has one channel, or where all are; else RGB. None is resized.

    Args:
        folder: holds the images; other files in it are left alone.
        shape: of one input; None where any will do.
        normalise: a mean to subtract from all pixels, and a deviation to divide them by; None for neither.
        most: so many of them; None for all.

    Raises:
        UnknownName: there is no image in the folder.
        DamagedFile: a file is not the image that its name says.
        InvalidValue: images of several sizes, or of another size than an input.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGES)[:most]
    if not paths:
        raise UnknownName("There are no images in this folder.", got=folder, instead=f"Give {', '.join(IMAGES)}.")
    channels = None if shape is None or len(shape) != 3 else shape[0]
    if channels not in (None, 1, 3):
        raise InvalidValue("Images have one channel or three.", got=f"a model of {channels}", instead="Give arrays.")
    pictures = [_opened(path) for path in paths]
    grey = channels == 1 or (channels is None and all(picture.mode in GREY for picture in pictures))
    pixels = [np.asarray(picture.convert("L" if grey else "RGB"), np.float32) / 255 for picture in pictures]
    size = pixels[0].shape[:2] if shape is None else tuple(shape[-2:])
    for path, picture in zip(paths, pixels, strict=True):
        if picture.shape[:2] != size:
            raise InvalidValue(
                f"{path.name} has another size than an input.",
                got=f"{picture.shape[0]} x {picture.shape[1]} pixels",
                instead=f"Give images of {size[0]} x {size[1]}." if len(size) == 2 else "Give arrays.",
            )
    found = np.stack(pixels)
    found = found[:, None] if grey else found.transpose(0, 3, 1, 2)
    if normalise is not None:
        found = (found - np.float32(normalise[0])) / np.float32(normalise[1])
    inputs: Float32[np.ndarray, "n c h w"] = np.ascontiguousarray(found, np.float32)
    return inputs


def _opened(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DamagedFile(f"{path} is not an image.", got=str(error)[:100], instead="Remove or replace it.") from None
