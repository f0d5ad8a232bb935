"""Checks that hold for all tests: shapes of every annotated function, and the examples in the documents."""

import tests.typechecker  # noqa: F401  the hook below looks it up by name
from jaxtyping import install_import_hook
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

install_import_hook("disintegrate", "tests.typechecker.check")

pytest_collect_file = Sybil(parsers=[PythonCodeBlockParser()], patterns=["README.md", "docs/*.md"]).pytest()
