"""MNIST from IDX files: the four that ship with the package, or any folder of the same kind."""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32, UInt8

from disintegrate.errors import DamagedFile, InvalidValue, UnknownName

Split = Literal["train", "test"]

MEAN, STANDARD_DEVIATION = np.float32(0.1307), np.float32(0.3081)
SIDE, CLASSES = 28, 10
PREFIX: dict[Split, str] = {"train": "train", "test": "t10k"}
SHIPPED_SHA256 = {
    "train-images-idx3-ubyte.gz": "0b367032e93c5d0cea0925647cfdb18614af8ee15f83e6f2fc2ad904a6835971",
    "train-labels-idx1-ubyte.gz": "1787548bbe0bff1ec2ecdc0ef292b02df999e2d1a6002d27500982c652b17203",
    "t10k-images-idx3-ubyte.gz": "1a1a05eab793c14bb050b398624a11b0ffd1a2953baed553b1b9bd079e2a20be",
    "t10k-labels-idx1-ubyte.gz": "b91679a0acfe4ba0e50a2437a903084cba1f5f92592b016a25a7dfd00455798b",
}


@dataclass(frozen=True, eq=False)
class Digits:
    """Images of handwritten digits with their labels.

    Attributes:
        images: the pixels as they are stored.
        labels: which digit each shows.
        noise: standard deviation of what is added to the normalised pixels, drawn anew for each image from its content.
    """

    images: UInt8[np.ndarray, "n 28 28"]
    labels: UInt8[np.ndarray, " n"]
    noise: float = 0.0

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def sha256(self) -> str:
        """Checksum of the pixels, the labels and the noise themselves, whatever files they came from."""
        noise = str(self.noise).encode() if self.noise else b""
        return hashlib.sha256(self.images.tobytes() + self.labels.tobytes() + noise).hexdigest()

    def normalised(self) -> Float32[np.ndarray, "n 1 28 28"]:
        """Pixels as the paper feeds them to its networks: scaled to [0, 1], minus 0.1307, over 0.3081."""
        scaled = self.images[:, None].astype(np.float32) / np.float32(255)
        clean = (scaled - MEAN) / STANDARD_DEVIATION
        if self.noise == 0:
            return clean
        drawn = [np.random.default_rng(zlib.crc32(image.tobytes())).normal(size=image.shape) for image in self.images]
        return clean + np.float32(self.noise) * np.stack(drawn)[:, None].astype(np.float32)

    def with_noise(self, standard_deviation: float) -> Digits:
        """The same digits with noise on their normalised pixels, so that no two of them are equal."""
        return Digits(self.images, self.labels, standard_deviation)

    def first(self, count: int) -> Digits:
        """The first `count` digits, or all where there are fewer.

        Raises:
            InvalidValue: for a count below 1.
        """
        if count < 1:
            raise InvalidValue(
                "The number of images must be at least 1.", got=count, instead="Use 1 to 10000, for example."
            )
        return self.slice(0, count)

    def slice(self, start: int, stop: int) -> Digits:
        """The digits from one index up to another."""
        return Digits(self.images[start:stop], self.labels[start:stop], self.noise)


def load(split: Split, folder: Path | None = None) -> Digits:
    """Read one split from the package's own MNIST, or from a folder of IDX files.

    Args:
        split: "train" or "test".
        folder: a folder with the four files of MNIST's names, gzipped or not; None for the package's.

    Raises:
        UnknownName: the folder, or a file in it, is missing.
        DamagedFile: a file is not IDX, is short or long, fails its checksum, or does not hold such digits.

    Example:
        >>> digits = load("test")
        >>> digits.images.shape == (10_000, 28, 28) and set(digits.labels) == set(range(10))
        True
    """
    if folder is not None and not folder.is_dir():
        raise UnknownName(
            "There is no such data folder.",
            got=folder,
            instead="Give a folder with the four IDX files of MNIST, or leave the option out to use the shipped ones.",
        )
    images_path = _find(f"{PREFIX[split]}-images-idx3-ubyte", folder)
    labels_path = _find(f"{PREFIX[split]}-labels-idx1-ubyte", folder)
    images, labels = read_idx(images_path, dimensions=3), read_idx(labels_path, dimensions=1)
    if images.shape[1:] != (SIDE, SIDE):
        raise DamagedFile(
            f"{images_path.name} does not hold images of 28 x 28 pixels.", got=f"shape {images.shape}",
            instead="Give images of MNIST's size; the paper's networks take no other.",
        )  # fmt: skip
    if len(images) != len(labels):
        raise DamagedFile(
            f"{images_path.name} and {labels_path.name} do not belong together.",
            got=f"{len(images)} images and {len(labels)} labels",
            instead="Give both files of one split.",
        )
    if labels.max() >= CLASSES:
        raise DamagedFile(
            f"{labels_path.name} holds labels that are not digits.", got=f"a label of {labels.max()}",
            instead="Give labels from 0 to 9.",
        )  # fmt: skip
    return Digits(images, labels)


def read_idx(path: Path, *, dimensions: int) -> UInt8[np.ndarray, "..."]:
    """Read one IDX file of unsigned bytes, gzipped or not, and check all that can be checked.

    Raises:
        DamagedFile: wrong magic number, sizes that do not match the content, bad gzip, wrong checksum.
    """
    raw = path.read_bytes()
    expected = SHIPPED_SHA256.get(path.name) if path.is_relative_to(_shipped_folder()) else None
    if expected and hashlib.sha256(raw).hexdigest() != expected:
        raise _damaged(path, "its checksum is wrong", hashlib.sha256(raw).hexdigest()[:16])
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise _damaged(path, "its gzip stream is broken", str(error)) from None
    magic = bytes((0, 0, 8, dimensions))
    if raw[:4] != magic:
        raise _damaged(
            path,
            f"an IDX file of bytes in {dimensions} dimensions starts with {magic.hex()}",
            raw[:4].hex() or "an empty file",
        )
    header = 4 + 4 * dimensions
    if len(raw) < header:
        raise _damaged(path, "its header is short", f"{len(raw)} bytes")
    shape = struct.unpack(f">{dimensions}I", raw[4:header])
    content, announced = len(raw) - header, int(np.prod(shape, dtype=np.uint64))
    if content != announced:
        raise _damaged(path, f"its header announces {announced} bytes of content", f"{content} bytes")
    if content == 0:
        raise _damaged(path, "it must hold at least one item", f"shape {shape}")
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)


def _shipped_folder() -> Path:
    return Path(str(files("disintegrate.paper"))) / "mnist"


def _find(stem: str, folder: Path | None) -> Path:
    where = _shipped_folder() if folder is None else folder
    for name in (f"{stem}.gz", stem):
        if (where / name).is_file():
            return where / name
    raise UnknownName(
        f"The data folder has no {stem}.gz (nor {stem}).",
        got=where,
        instead="Give a folder with all four IDX files of MNIST.",
    )


def _damaged(path: Path, problem: str, got: str) -> DamagedFile:
    return DamagedFile(f"{path} is damaged: {problem}.", got=got, instead="Fetch the file again.")
