"""The command line: exit codes, what is printed where, one sentence for bad input."""

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from disintegrate import Plan, __version__, cli, rule_named

SMALL = ("--quick", "--images", "3", "--models", "TwoLayerNet")


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["disintegrate", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    captured = capsys.readouterr()
    assert isinstance(stopped.value.code, int)
    return stopped.value.code, captured.out, captured.err


def test_reproduce_prints_the_tables_and_where_the_page_lies(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, small_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, text, _ = run(capsys, monkeypatch, "reproduce", *SMALL, "--data", str(small_data), "--out", str(out))
    assert code == 0
    for fragment in ("Table 1", "Table 3, experiment B", "one query is enough", "2.03e-04", "This is the quick run"):
        assert fragment in text
    assert "Table 2" not in text
    assert str(out / "index.html") in text
    assert (out / "index.html").is_file()


def test_json_is_the_records_and_nothing_else(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, small_data: Path, tmp_path: Path
) -> None:
    arguments = ("reproduce", *SMALL, "--data", str(small_data), "--out", str(tmp_path / "out"), "--json")
    code, text, _ = run(capsys, monkeypatch, *arguments)
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert code == 0
    assert found[0]["kind"] == "run"
    assert len(found) == 1 + len(found[0]["records"])
    cell = next(r for r in found if r["kind"] == "cell" and r["method"] == "step_count")
    assert cell["claimed"] == {"mean": 2.028e-4, "printed_variance": 1.414e-2}
    assert set(cell["measured"]) == {
        "mean", "standard_deviation", "median", "percentile_90", "share_above_0_1", "largest",
        "mean_without_ten_largest", "images",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--images", "0"), "The number of images must be at least 1. Got 0."),
        (("--seeds", "0"), "The number of seeds must be at least 1. Got 0."),
        (("--models", "VGG"), "There is no such network. Got 'VGG'. Choose from TwoLayerNet_nobias"),
        (("--data", "nowhere"), "There is no such data folder. Got nowhere."),
        (("--device", "cuda:9"), "The device cannot be used here. Got 'cuda:9'"),
        (("--images", "20000"), "There are not so many test images. Got 20000. Use --images 10000 or fewer."),
        (("--images", "many"), "Invalid value for '--images'"),
        (("--flag",), "No such option"),
    ],
)
def test_misuse_is_one_sentence_and_exit_code_2(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: tuple[str, ...],
    sentence: str,
) -> None:
    code, text, errors = run(capsys, monkeypatch, "reproduce", "--quick", "--out", str(tmp_path / "out"), *arguments)
    assert code == 2
    assert text == ""
    assert sentence in " ".join(errors.split())
    assert "Traceback" not in errors


def test_an_output_folder_that_cannot_be_written_is_a_failure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    code, _, errors = run(capsys, monkeypatch, "reproduce", *SMALL, "--out", str(tmp_path / "file" / "out"))
    assert code == 1
    assert "an output folder that you may write to" in " ".join(errors.split())
    code, _, errors = run(capsys, monkeypatch, "reproduce", *SMALL, "--out", str(tmp_path / "file"))
    assert code == 1
    assert "The output is not a folder." in errors


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(capsys, monkeypatch, "--version") == (0, f"disintegrate {__version__}\n", "")


def test_damaged_data_is_a_failure_that_names_the_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, small_data: Path, tmp_path: Path
) -> None:
    path = small_data / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-7]))
    out = str(tmp_path / "out")
    code, _, errors = run(capsys, monkeypatch, "reproduce", *SMALL, "--data", str(small_data), "--out", out)
    assert code == 1
    assert "train-images-idx3-ubyte.gz is damaged" in errors
    assert len(errors.strip().splitlines()) == 1


def test_a_checkpoint_that_does_not_fit_is_a_failure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, small_data: Path, tmp_path: Path
) -> None:
    arguments = ("reproduce", *SMALL, "--data", str(small_data), "--out", str(tmp_path))
    assert run(capsys, monkeypatch, *arguments)[0] == 0
    (weights,) = (tmp_path / "models").glob("*.safetensors")
    weights.write_bytes(b"PK\x03\x04 a pickle")
    code, _, errors = run(capsys, monkeypatch, *arguments)
    assert code == 1
    assert "is not a safetensors file" in errors
    assert "to train again" in errors


@pytest.mark.parametrize("command", ["", *cli.MODULES])
def test_help_imports_nothing_heavy(command: str) -> None:
    arguments = ["disintegrate", *command.split(), "--help"]
    heavy = ("torch", "numpy", "matplotlib", "httpx", "starlette", "rich.console")
    script = f"import sys; sys.argv = {arguments}\nfrom disintegrate import cli\n"
    check = f"try: cli.main()\nexcept SystemExit: sys.exit(str([name for name in {heavy} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", script + check], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"
    assert f"Usage: {' '.join(arguments[:-1])}" in done.stdout


def test_every_command_is_found_alone_and_listed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, text, _ = run(capsys, monkeypatch, "--help")
    assert code == 0
    listed = re.findall(r"^  ([a-z-]+) ", text.split("Commands:")[1], re.MULTILINE)
    assert sorted(listed) == sorted(cli.MODULES)


def test_plan_prints_queries_exactness_and_the_measure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    picture = tmp_path / "measure.svg"
    arguments = ("plan", "--rule", "riemann_right", "--steps", "20-100", "--svg", str(picture))
    code, text, err = run(capsys, monkeypatch, *arguments)
    assert (code, err) == (0, "")
    for fragment in (
        "2 queries for each input",
        "0.952380952",
        "every differentiable model",
        "Amplification 29.7",
        "▲",
    ):
        assert fragment in text
    assert picture.read_text().startswith("<svg")


def test_plan_as_json_is_a_plan_that_can_be_read_back(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, text, _ = run(capsys, monkeypatch, "plan", "--rule", "torchserve", "--budget", "3", "--json")
    found = json.loads(text)
    assert code == 0
    assert found["rule"] == "captum_gausslegendre"
    plan = Plan.from_json(json.dumps(found["plan"]))
    assert {term.query.steps for term in plan} == {15}
    assert found["mass"] == pytest.approx(plan.measure(rule_named(found["rule"])).mass)
    assert 0 < found["predicted_error"] < 0.5


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--rule", "simpson"), "There is no such quadrature rule. Got 'simpson'. Choose from riemann_right"),
        (("--steps", "few"), "Steps are a number, or two. Got 'few'. Use --steps 50, or --steps 20-100."),
        (("--steps", "9-3"), "These bounds on the steps leave nothing to ask. Got 9 to 3."),
        (("--budget", "0"), "A plan needs a query. Got budget=0. Use budget=1 or more."),
        (("--dtype", "int8"), "There is no such type. Got int8. Choose from float16, float32, float64."),
        (("--furthest", "0.5"), "leave nothing to ask"),
        (("--decimals", "3"), "Give --magnitude"),
        (("--digits", "0"), "At least one significant digit must be left. Got 0."),
    ],
)
def test_a_plan_for_what_cannot_be_gets_a_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], sentence: str
) -> None:
    code, text, err = run(capsys, monkeypatch, "plan", *arguments)
    assert (code, text) == (2, "")
    assert sentence in " ".join(err.split())
