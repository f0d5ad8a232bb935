import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from disintegrate import DamagedFile, InvalidValue, UnknownName
from disintegrate.paper import mnist
from tests.conftest import write_idx

IMAGES, LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"


def test_the_shipped_digits_are_mnist() -> None:
    training, test = mnist.load("train"), mnist.load("test")
    assert (len(training), len(test)) == (60_000, 10_000)
    assert training.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_pixels_are_normalised_as_the_paper_does() -> None:
    """Subtract 0.1307 and divide by 0.3081: the training set's own mean and standard deviation."""
    training = mnist.load("train")
    pixels = training.images.astype(np.float64) / 255
    assert pixels.mean() == pytest.approx(0.1307, abs=5e-5)
    assert pixels.std() == pytest.approx(0.3081, abs=5e-5)
    normalised = training.first(10).normalised()
    assert normalised.dtype == np.float32
    assert normalised.shape == (10, 1, 28, 28)
    np.testing.assert_allclose(normalised[:, 0], (pixels[:10] - 0.1307) / 0.3081, rtol=1e-5, atol=1e-6)
    assert (normalised != 0).all()


def test_files_need_not_be_gzipped(small_data: Path) -> None:
    expected = mnist.load("test", small_data)
    for name in (IMAGES, LABELS):
        (small_data / name.removesuffix(".gz")).write_bytes(gzip.decompress((small_data / name).read_bytes()))
        (small_data / name).unlink()
    assert mnist.load("test", small_data).sha256 == expected.sha256


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def short_content(path: Path) -> None:
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1]))


def long_content(path: Path) -> None:
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + b"x"))


def wrong_magic(path: Path) -> None:
    path.write_bytes(gzip.compress(b"\x00\x00\x0d\x03" + gzip.decompress(path.read_bytes())[4:]))


def no_header(path: Path) -> None:
    path.write_bytes(b"\x00\x00\x08\x03\x00")


def flipped_bit(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(bytes(raw))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def no_items(path: Path) -> None:
    write_idx(path, np.zeros((0, 28, 28)))


def a_picture(path: Path) -> None:
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))


@pytest.mark.parametrize(
    "damage",
    [truncated, short_content, long_content, wrong_magic, no_header, flipped_bit, empty, no_items, a_picture],
)
def test_a_damaged_file_is_named(small_data: Path, damage: Callable[[Path], None]) -> None:
    damage(small_data / IMAGES)
    with pytest.raises(DamagedFile, match=rf"{IMAGES} is damaged.*Got .*Fetch the file again"):
        mnist.load("test", small_data)


@pytest.mark.parametrize(
    ("images", "labels", "sentence"),
    [
        (np.zeros((5, 28, 28)), np.zeros(4), "do not belong together. Got 5 images and 4 labels"),
        (np.zeros((5, 32, 32)), np.zeros(5), "28 x 28"),
        (np.zeros((5, 28, 28)), np.full(5, 10), "Got a label of 10"),
    ],
)
def test_files_that_are_no_digits_are_refused(
    small_data: Path, images: np.ndarray, labels: np.ndarray, sentence: str
) -> None:
    write_idx(small_data / IMAGES, images)
    write_idx(small_data / LABELS, labels)
    with pytest.raises(DamagedFile, match=sentence):
        mnist.load("test", small_data)


def test_a_shipped_file_that_was_changed_fails_its_checksum(small_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist, "_shipped_folder", lambda: small_data)
    with pytest.raises(DamagedFile, match="checksum is wrong"):
        mnist.load("test")


def test_a_missing_folder_and_a_missing_file_get_a_sentence(small_data: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="There is no such data folder. Got .*nowhere"):
        mnist.load("test", tmp_path / "nowhere")
    (small_data / LABELS).unlink()
    with pytest.raises(UnknownName, match="has no t10k-labels-idx1-ubyte.gz"):
        mnist.load("test", small_data)
    shutil.rmtree(small_data)


def test_no_images_are_refused() -> None:
    with pytest.raises(InvalidValue, match="at least 1. Got 0"):
        mnist.load("test").first(0)


def test_noise_hangs_on_the_image_alone_and_has_the_size_it_says() -> None:
    clean = mnist.load("test").first(40)
    noisy = clean.with_noise(1e-3)
    added = noisy.normalised() - clean.normalised()
    assert added.dtype == np.float32
    assert abs(added.std() / 1e-3 - 1) < 0.02
    assert abs(added.mean()) < 2e-5
    assert (noisy.slice(7, 9).normalised() == noisy.normalised()[7:9]).all()
    assert noisy.sha256 != clean.sha256
    assert noisy.slice(0, 40).sha256 == noisy.sha256
    assert clean.with_noise(0.0).sha256 == clean.sha256
