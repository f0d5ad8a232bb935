"""The README's figures are those of the records; versions agree everywhere."""

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

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
    assert script("extraction").block() in document, "run `python docs/extraction.py`"
