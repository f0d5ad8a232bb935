"""The README's figures are those of the records; versions agree everywhere."""

import importlib.util
import json
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import disintegrate
from disintegrate.paper.records import Cell, load_run

ROOT = Path(__file__).parents[1]


def script(name: str) -> ModuleType:
    found = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_the_readmes_figures_are_those_of_the_committed_records() -> None:
    readme = (ROOT / "README.md").read_text()
    writer = script("readme")
    run, records = load_run(ROOT / "results" / "reproduction")
    block = writer.figures(run, [record for record in records if isinstance(record, Cell)])
    assert block in readme, "run `python docs/readme.py`"
    assert writer.speed() in readme, "run `python docs/readme.py`"


def test_the_version_is_one() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == version == disintegrate.__version__
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_tables_of_the_documents_are_those_of_the_committed_records() -> None:
    writer = script("plans")
    for name, (document, record, _) in writer.BLOCKS.items():
        assert (ROOT / "results" / record).is_file()
        assert writer.block(name) in (ROOT / "docs" / document).read_text(), "run `python docs/plans.py`"


def test_the_cost_of_a_copy_is_that_of_the_committed_record() -> None:
    document = (ROOT / "docs" / "what-a-copy-costs.md").read_text()
    writer = script("extraction")
    for name in writer.TABLES:
        assert writer.block(name) in document, "run `python docs/extraction.py`"


def test_every_student_of_the_committed_record_has_its_line_with_its_own_mean() -> None:
    writer = script("copies")
    record = json.loads((ROOT / "results" / "students.json").read_text())
    table = writer.students(record)
    assert table.count("\n| ") == 1 + len({row["row"] for row in record["rows"]})
    scores = [row["likeness"]["accuracy"] for row in record["rows"] if row["row"] == "gradients-50-all-open-4000x10"]
    line = next(line for line in table.splitlines() if " | as it computes | 50 | 10 | 500 | " in line)
    assert f"**{sum(scores) / len(scores):.4f}** ({min(scores):.4f} to {max(scores):.4f})" in line
    assert writer.finished("students.json") == (record if record["complete"] else None)


def test_the_blocks_of_copies_have_their_places() -> None:
    writer = script("copies")
    for name, (document, record, _) in writer.BLOCKS.items():
        text = document.read_text()
        assert text.count(f"<!-- {name}: docs/copies.py -->") == text.count(f"<!-- end of {name} -->") == 1
        assert writer.finished(record) is None or writer.block(name) in text, "run `python docs/copies.py`"


def _student(name: str, images: int, queries: int, agreement: float, seed: int) -> dict[str, object]:
    return {"row": f"{name}-{images}", "method": name, "images": images, "classes_each": 1, "service": "open",
            "seed": seed, "queries": queries, "likeness": {"accuracy": agreement, "agreement": agreement}}  # fmt: skip


@pytest.mark.parametrize(
    ("outputs", "told"),
    [
        ({100: 0.90, 1000: 0.98}, "not by 1,000 predictions: more than 4 times as many"),
        ({500: 0.98, 750: 0.991, 1000: 0.995}, "by 750 predictions, not by 500: up to 3 times as many"),
    ],
)
def test_the_headline_tells_the_fewest_queries_with_explanations_and_without(
    outputs: dict[int, float], told: str
) -> None:
    writer = script("copies")
    rows = [_student(writer.GRADIENTS, 250, 250, agreement, seed) for seed, agreement in enumerate((0.991, 0.993))]
    rows += [_student(writer.GRADIENTS, 50, 200, agreement, seed) for seed, agreement in enumerate((0.991, 0.983))]
    rows += [_student("logits", images, images, agreement, 0) for images, agreement in outputs.items()]
    headline = writer.headline({"command": "python studies/students.py", "rows": rows})
    assert "after 250 queries** (250 images, one class each; mean agreement 99.20%)" in headline
    assert f"without them {told}." in headline
    rows = [_student(writer.GRADIENTS, 250, 250, 0.989, 0)]
    assert writer.headline({"command": "", "rows": [*rows, _student("logits", 9, 9, 0.5, 0)]}).startswith("No student")
