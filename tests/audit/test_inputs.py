"""Inputs out of folders of images, tables with chosen columns, and parquet."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from disintegrate.audit.inputs import read_inputs
from disintegrate.errors import DamagedFile, InvalidValue, UnknownName
from tests.test_cli import run


def grey(count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 5, 4)).astype(np.uint8)


def folder(tmp_path: Path, pictures: np.ndarray) -> Path:
    # names whose order is not the one in which they are written
    for number, picture in reversed(list(enumerate(pictures))):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_grey_images_are_one_channel_within_0_and_1_in_the_order_of_their_names(tmp_path: Path) -> None:
    pictures = grey()
    found = read_inputs(folder(tmp_path, pictures))
    assert found.shape == (3, 1, 5, 4)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, 0], pictures / 255, atol=1e-7)
    normalised = read_inputs(tmp_path, (1, 5, 4), normalise=(0.25, 0.5), most=2)
    np.testing.assert_allclose(normalised[:, 0], (pictures[:2] / 255 - 0.25) / 0.5, atol=1e-6)


def test_colour_images_are_three_channels_and_a_model_of_one_gets_grey(tmp_path: Path) -> None:
    pictures = np.random.default_rng(1).integers(0, 256, (2, 5, 4, 3)).astype(np.uint8)
    found = read_inputs(folder(tmp_path, pictures))
    np.testing.assert_allclose(found, pictures.transpose(0, 3, 1, 2) / 255, atol=1e-7)
    weights = np.array([0.299, 0.587, 0.114])  # of ITU-R 601-2, as Pillow documents
    np.testing.assert_allclose(read_inputs(tmp_path, (1, 5, 4))[:, 0], pictures @ weights / 255, atol=1 / 255)


def test_grey_images_for_a_model_of_three_channels_are_repeated(tmp_path: Path) -> None:
    found = read_inputs(folder(tmp_path, grey()), (3, 5, 4))
    assert found.shape == (3, 3, 5, 4)
    assert (found[:, 0] == found[:, 2]).all()


def test_columns_of_a_table_are_chosen_by_name_in_the_order_asked(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(4, 3))
    np.savetxt(tmp_path / "x.csv", values, delimiter=",", header="a, b,label", comments="", fmt="%.17g")
    pq.write_table(pa.table({name: values[:, i] for i, name in enumerate(("a", "b", "label"))}), tmp_path / "x.parquet")
    pq.write_table(pa.table({"pixels": values.tolist()}), tmp_path / "lists.parquet")
    for kind in ("csv", "parquet"):
        chosen = read_inputs(tmp_path / f"x.{kind}", columns=("b", "a"))
        np.testing.assert_array_equal(chosen, values[:, [1, 0]].astype(np.float32))
        assert read_inputs(tmp_path / f"x.{kind}", most=2).shape == (2, 3)
    np.testing.assert_array_equal(read_inputs(tmp_path / "lists.parquet"), values.astype(np.float32))


def test_bad_inputs_get_a_sentence(tmp_path: Path) -> None:
    table = tmp_path / "x.csv"
    table.write_text("a,b\n1,2\n3,4\n")
    (tmp_path / "bare.csv").write_text("1,2\n3,4\n")
    (tmp_path / "x.parquet").write_bytes(b"no parquet")
    pq.write_table(pa.table({"name": ["one", "two"]}), tmp_path / "words.parquet")
    empty, sizes, broken = (tmp_path / name for name in ("empty", "sizes", "broken"))
    for made in (empty, sizes, broken):
        made.mkdir()
    Image.fromarray(grey(1)[0]).save(sizes / "a.png")
    Image.fromarray(grey(1)[0][:4]).save(sizes / "b.png")
    (broken / "a.png").write_bytes(b"no image")
    with pytest.raises(UnknownName, match="no such column. Got c. Choose from a, b"):
        read_inputs(table, columns=("a", "c"))
    with pytest.raises(InvalidValue, match="this table has none"):
        read_inputs(tmp_path / "bare.csv", columns=("a",))
    with pytest.raises(InvalidValue, match="Only tables have columns"):
        read_inputs(sizes, columns=("a",))
    with pytest.raises(InvalidValue, match="Only images are normalised"):
        read_inputs(table, normalise=(0.0, 1.0))
    for name in ("x.parquet", "words.parquet"):
        with pytest.raises(DamagedFile, match=f"{name} is not a .parquet file of numbers"):
            read_inputs(tmp_path / name)
    with pytest.raises(UnknownName, match="no images in this folder"):
        read_inputs(empty)
    with pytest.raises(InvalidValue, match="b.png has another size than an input. Got 4 x 4 pixels"):
        read_inputs(sizes)
    with pytest.raises(DamagedFile, match="a.png is not an image"):
        read_inputs(broken)
    with pytest.raises(InvalidValue, match="one channel or three"):
        read_inputs(sizes, (2, 5, 4))


def test_settings_stand_in_a_file_and_flags_win(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chosen = tmp_path / "audit.toml"
    chosen.write_text(
        'target = "TwoLayerNet"\nimages = 2\nsteps = [1, 100]\nremedies = false\njson = true\nfail_on = "never"\n'
    )
    code, text, _ = run(capsys, monkeypatch, "audit", "--settings", str(chosen))
    assert code == 0
    assert text.count('"target": ') == 1 + 2 + 2  # the record's own, two inputs, and both as examples
    assert '"what_stops_it": []' in text
    code, text, _ = run(capsys, monkeypatch, "audit", "--settings", str(chosen), "--images", "1", "--fail-on", "leaks")
    assert code == 3
    assert text.count('"target": ') == 1 + 1 + 1


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("stepz = 3", "There is no such setting. Got 'stepz'. Choose from target,"),
        ("remedies = 3", "The setting remedies cannot be used. Got 3. Give true or false."),
        ("images = true", "The setting images cannot be used. Got True. Give a number or a text."),
        ("inputs = { a = 1 }", "The setting inputs cannot be used."),
        ("images =", "is not TOML."),
    ],
)
def test_settings_that_are_none_get_a_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str, sentence: str
) -> None:
    (tmp_path / "audit.toml").write_text(line + "\n")
    code, _, told = run(capsys, monkeypatch, "audit", "TwoLayerNet", "--settings", str(tmp_path / "audit.toml"))
    assert code in {1, 2}
    assert sentence in told.replace("\n", "")
