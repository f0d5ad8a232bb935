"""`disintegrate audit --page`, `disintegrate report`, `disintegrate compare`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from disintegrate.audit import record_of
from disintegrate.report import render_audit
from tests.test_cli import run

AUDIT = ("audit", "TwoLayerNet", "--images", "3", "--steps", "1-100", "--no-remedies", "--fail-on", "never")


def test_from_an_audit_to_pages_and_a_comparison(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    record, page, other = (str(tmp_path / name) for name in ("a.json", "at-once.html", "b.json"))
    code, _, _ = run(capsys, monkeypatch, *AUDIT, "--out", record, "--page", page)
    assert code == 0
    written = json.loads(Path(record).read_text())
    assert written["run"]["command"].startswith("disintegrate audit TwoLayerNet --images 3 --steps 1-100")
    assert written["run"]["inputs"]["shape"] == [3, 1, 28, 28]
    assert len(written["run"]["model"]["weights_sha256"]) == 64
    assert [len(example["true"]) for example in written["examples"]] == [784] * 3

    code, text, _ = run(capsys, monkeypatch, "report", record)
    assert (code, text.strip()) == (0, f"The page: {tmp_path / 'a.html'}")
    # From the record alone, the same as at once.
    assert (tmp_path / "a.html").read_text() == Path(page).read_text() == render_audit(record_of(written))

    assert run(capsys, monkeypatch, *AUDIT, "--rule", "midpoint", "--out", other)[0] == 0
    both = str(tmp_path / "both.html")
    code, text, _ = run(capsys, monkeypatch, "compare", record, other, "--page", both)
    assert code == 0
    assert text.startswith("Both: leaks.")
    assert "midpoint, 50 steps" in text
    assert "midpoint, 50 steps" in Path(both).read_text()
    code, text, _ = run(capsys, monkeypatch, "compare", record, other, "--json")
    rows = {row["name"]: row for row in json.loads(text)["rows"]}
    assert (code, rows["rule"]["changed"], rows["inputs"]["changed"]) == (0, True, False)


@pytest.mark.parametrize("command", [("report", "RECORD"), ("compare", "RECORD", "RECORD")])
def test_what_is_no_record_gets_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: tuple[str, ...]
) -> None:
    path = tmp_path / "record.json"
    for content, code, sentence in (
        (None, 2, "There is no such record."),
        ("{", 1, "is not JSON."),
        ('{"kind": "run"}', 1, "is not the record of an audit of a service. Got kind 'run'."),
        ('{"kind": "audit", "format": 99}', 2, "was written by a later version."),
        ('{"kind": "audit"}', 1, "is damaged. Got Field required at verdict."),
    ):
        if content is not None:
            path.write_text(content)
        arguments = (str(path) if word == "RECORD" else word for word in command)
        found, text, err = run(capsys, monkeypatch, *arguments)
        assert (found, text) == (code, "")
        assert sentence in " ".join(err.split())
        assert len(err.strip().splitlines()) == 1


def test_a_page_never_replaces_its_record(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    record = tmp_path / "a.json"
    assert run(capsys, monkeypatch, *AUDIT, "--out", str(record))[0] == 0
    before = record.read_text()
    for arguments in (("report", str(record), "--out"), ("compare", str(record), str(record), "--page")):
        code, _, err = run(capsys, monkeypatch, *arguments, str(record))
        assert code == 2
        assert "The page would replace its record." in " ".join(err.split())
    assert record.read_text() == before


def test_a_page_is_drawn_without_torch(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    record = tmp_path / "a.json"
    assert run(capsys, monkeypatch, *AUDIT, "--out", str(record))[0] == 0
    script = f"import sys; sys.argv = ['disintegrate', 'report', {str(record)!r}]\nfrom disintegrate import cli\n"
    check = "try: cli.main()\nexcept SystemExit as stop: sys.exit(stop.code or ('torch' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script + check], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
