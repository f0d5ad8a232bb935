"""Checks that hold for all tests: shapes of every annotated function, and the examples in the documents."""

import pytest
import tests.typechecker  # noqa: F401  the hook below looks it up by name
import torch
from jaxtyping import install_import_hook
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

install_import_hook("disintegrate", "tests.typechecker.check")

pytest_collect_file = Sybil(parsers=[PythonCodeBlockParser()], patterns=["README.md", "docs/*.md"]).pytest()


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Tests and docstrings' examples draw the same weights, whatever ran before them."""
    torch.manual_seed(0)
