"""A newcomer's path, followed to the letter."""

import json
import os
import sys
from pathlib import Path

import pytest

from tests.newcomer import DOCUMENT, follow, steps


@pytest.mark.skipif(os.name != "posix", reason="the document's commands are for a POSIX shell")
def test_the_documents_commands_do_what_it_says_in_an_empty_folder(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    assert follow(tmp_path, {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}) == 7
    assert json.loads((tmp_path / "audit.json").read_text())["verdict"] == "leaks"
    assert json.loads((tmp_path / "audit.sarif").read_text())["runs"][0]["results"][0]["level"] == "error"


def test_every_command_in_the_document_is_run_and_checked() -> None:
    found = steps(DOCUMENT.read_text())
    assert len(found) == DOCUMENT.read_text().count("```sh\n") == 7
    for step in found:
        serves = step.script.startswith("disintegrate serve")
        assert bool(step.says) is not serves
