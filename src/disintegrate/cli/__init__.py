"""The command line: the only package that prints."""

from __future__ import annotations

import sys

from rich.text import Text

from disintegrate.cli import (  # noqa: F401  each joins its commands
    auditing,
    costing,
    extracting,
    planning,
    probing,
    reporting,
    reproduction,
    serving,
)
from disintegrate.cli.root import app, errors
from disintegrate.errors import DisintegrateError


def main() -> None:
    """Run the command line; one sentence instead of a traceback."""
    try:
        app()
    except DisintegrateError as error:
        errors.print(Text.assemble(("Error: ", "bold red"), str(error)), soft_wrap=True)
        sys.exit(error.exit_code)
