"""Models that a Python function of the user's own makes."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from torch import nn

from disintegrate.errors import InvalidValue, UnknownName

PREFIX = "python:"


def made_by(name: str) -> nn.Module:
    """Call `python:package.module:function`, which runs the user's own code.

    Modules are looked for where Python looks, and in the current folder.

    Raises:
        UnknownName: there is no such module or function.
        InvalidValue: it does not make a torch module.
    """
    module_name, found, function_name = name.removeprefix(PREFIX).partition(":")
    if not found or not module_name or not function_name:
        raise InvalidValue(
            "A factory is a module and a function.", got=repr(name), instead=f"Use {PREFIX}package.module:function."
        )
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        make = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UnknownName(
            "There is no such function.", got=f"{name!r} ({error})", instead="Check the name and the current folder."
        ) from None
    made = make()
    if not isinstance(made, nn.Module):
        raise InvalidValue(
            f"{name} must make a torch module.", got=type(made).__name__, instead="Return an nn.Module from it."
        )
    return made.eval()
