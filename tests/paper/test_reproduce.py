"""The whole run on small digits: resumable at any moment, the same records in the end."""

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from disintegrate import DamagedFile, InvalidValue, UnknownName
from disintegrate.paper import records
from disintegrate.paper.reproduce import Options, reproduce
from disintegrate.report import render_folder
from tests.conftest import write_digits

KILLS = 6


def command(data: Path, out: Path) -> list[str]:
    options = ["--quick", "--images", "250", "--models", "TwoLayerNet_nobias,TwoLayerNet"]
    return [sys.executable, "-m", "disintegrate.cli", "reproduce", *options, "--data", str(data), "--out", str(out)]


def comparable(folder: Path) -> dict[str, object]:
    """All records without what times and memory they took."""
    found = {}
    for path in sorted((folder / "records").glob("*.json")):
        record = json.loads(path.read_text())
        record.pop("seconds", None)
        found[path.name] = record
    run = json.loads((folder / "run.json").read_text())
    for timing in ("computing_seconds", "training_seconds", "peak_memory_bytes"):
        run.pop(timing)
    return found | {"run.json": run}


def events(folder: Path) -> int:
    """What a run has left so far: files, and lines of its log."""
    log = folder / "units" / "log.jsonl"
    lines = log.read_text().count("\n") if log.is_file() else 0
    return lines + sum(1 for _ in folder.rglob("*.safetensors"))


def killed_in_the_middle(arguments: list[str], folder: Path, moments: random.Random) -> bool:
    """Run until one to three more events have happened, wait up to 20 ms, and send SIGKILL."""
    enough, process = events(folder) + moments.randint(1, 3), subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
    while events(folder) < enough and process.poll() is None:
        time.sleep(0.002)
    time.sleep(moments.uniform(0, 0.02))
    process.kill()
    return process.wait() == -signal.SIGKILL


def test_a_run_killed_again_and_again_ends_in_the_same_records(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    write_digits(data, training=3000, test=250)
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    subprocess.run(command(data, undisturbed), check=True, capture_output=True)

    moments = random.Random(0)
    kills = sum(killed_in_the_middle(command(data, killed), killed, moments) for _ in range(KILLS))
    assert kills == KILLS
    assert not (killed / "run.json").exists()
    subprocess.run(command(data, killed), check=True, capture_output=True)

    assert comparable(killed) == comparable(undisturbed)
    log = [json.loads(line) for line in (killed / "units" / "log.jsonl").read_text().splitlines()]
    finished = Counter(entry["unit"] for entry in log if entry["event"] == "finished")
    begun = Counter(entry["unit"] for entry in log if entry["event"] == "started")
    assert set(finished.values()) == {1}
    # killed between its file and its line in the log, a unit is finished and not said to be
    assert set(finished) <= set(begun)
    assert begun.total() - finished.total() <= kills
    assert not list((killed / "models").glob("*unfinished*"))


def test_the_page_is_drawn_from_the_records_alone(small_data: Path, tmp_path: Path) -> None:
    options = Options(tmp_path / "out", quick=True, data=small_data, networks=("TwoLayerNet",), images=5)
    done = reproduce(options)
    page = render_folder(options.out).read_text()
    assert page.count("<svg") == 5
    assert "This is the quick run" in page
    for fragment in ("http://www.w3.org", "https://www.w3.org"):
        page = page.replace(fragment, "")
    assert "src=" not in page
    assert "@import" not in page

    cell = next(record for record in done.records if isinstance(record, records.Cell))
    changed = cell.model_copy(update={"measured": type(cell.measured)(**vars(cell.measured) | {"mean": 0.98765})})
    assert "0.988" not in page
    records.store(options.out, changed)
    assert "0.988" in render_folder(options.out).read_text()


def test_records_survive_their_json(small_data: Path, tmp_path: Path) -> None:
    options = Options(tmp_path, quick=True, data=small_data, networks=("TwoLayerNet_nobias",), images=4)
    done = reproduce(options)
    run, found = records.load_run(tmp_path)
    assert run == done.run
    assert tuple(found) == done.records
    assert (run.images, run.networks, run.seeds) == (4, ("TwoLayerNet_nobias",), 1)


def test_a_missing_and_a_damaged_record_get_a_sentence(small_data: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="Run `disintegrate reproduce` first"):
        render_folder(tmp_path)
    options = Options(tmp_path, quick=True, data=small_data, networks=("TwoLayerNet_nobias",), images=2)
    name = reproduce(options).run.records[0]
    for text, sentence in (("{", "is not JSON"), ('{"kind": "cell"}', "cannot be read"), ("[]", "is not a record")):
        (tmp_path / "records" / f"{name}.json").write_text(text)
        with pytest.raises(DamagedFile, match=sentence):
            render_folder(tmp_path)


@pytest.mark.parametrize(("field", "value"), [("images", 0), ("seeds", 0), ("images", -3)])
def test_numbers_below_one_are_refused(tmp_path: Path, field: str, value: int) -> None:
    with pytest.raises(InvalidValue, match=f"The number of {field} must be at least 1. Got {value}"):
        Options(tmp_path, **{field: value})  # type: ignore[arg-type]


def test_defaults_are_the_papers_setting_and_the_quick_run_is_smaller(tmp_path: Path) -> None:
    full, quick = Options(tmp_path), Options(tmp_path, quick=True)
    assert (len(full.chosen_networks), full.chosen_images) == (5, 10_000)
    assert (len(quick.chosen_networks), quick.chosen_images) == (3, 200)
