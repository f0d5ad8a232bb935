import json
from pathlib import Path

import numpy as np
import pytest

from disintegrate import DamagedFile, UnwritableOutput
from disintegrate.files import write_atomically
from disintegrate.paper.units import Units


def test_a_unit_is_computed_once(tmp_path: Path) -> None:
    calls = []

    def compute() -> dict[str, np.ndarray]:
        calls.append(1)
        return {"value": np.arange(3.0)}

    first = Units(tmp_path).once("a/b c", compute)
    again = Units(tmp_path)
    second = again.once("a/b c", compute)
    assert len(calls) == 1
    assert second["value"].tolist() == first["value"].tolist() == [0, 1, 2]
    assert again.seconds == float(first["seconds"]) > 0
    events = [json.loads(line)["event"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert events == ["started", "finished"]


def test_a_unit_that_failed_leaves_nothing_but_its_start(tmp_path: Path) -> None:
    def fail() -> dict[str, np.ndarray]:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        Units(tmp_path).once("unit", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


def test_a_damaged_unit_gets_a_sentence(tmp_path: Path) -> None:
    Units(tmp_path).once("unit", lambda: {"value": np.zeros(2)})
    (tmp_path / "unit.safetensors").write_bytes(b"nonsense")
    with pytest.raises(DamagedFile, match="Delete it to compute it again"):
        Units(tmp_path).once("unit", lambda: {"value": np.zeros(2)})


def test_a_folder_that_cannot_be_written_gets_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnwritableOutput, match="an output folder that you may write to"):
        Units(tmp_path / "file").once("unit", lambda: {"value": np.zeros(2)})
    with pytest.raises(UnwritableOutput, match="cannot be written"):
        write_atomically(tmp_path / "file" / "inside", b"")
