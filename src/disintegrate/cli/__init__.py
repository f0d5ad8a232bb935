"""The command line: the only package that prints."""

from __future__ import annotations

import sys
from importlib import import_module

from disintegrate.cli.root import app
from disintegrate.cli.terminal import errors
from disintegrate.errors import DisintegrateError

# Where each command is defined, in the order of `--help`. Only that of the command at hand is imported.
MODULES = {
    "audit": "auditing",
    "cost": "costing",
    "extract": "extracting",
    "plan": "planning",
    "probe": "probing",
    "report": "reporting",
    "compare": "reporting",
    "reproduce": "reproduction",
    "serve": "serving",
    "new-key": "serving",
}


def main() -> None:
    """Run the command line; one sentence instead of a traceback."""
    named = [MODULES[word] for word in sys.argv[1:2] if word in MODULES]
    for module in dict.fromkeys(named or MODULES.values()):
        import_module(f"disintegrate.cli.{module}")
    try:
        app()
    except DisintegrateError as error:
        from rich.text import Text

        errors().print(Text.assemble(("Error: ", "bold red"), str(error)), soft_wrap=True)
        sys.exit(error.exit_code)
