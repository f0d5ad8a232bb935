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
    made = called(name, PREFIX)
    if not isinstance(made, nn.Module):
        raise InvalidValue(
            f"{name} must make a torch module.", got=type(made).__name__, instead="Return an nn.Module from it."
        )
    return made.eval()


def called(name: str, prefix: str) -> object:
    """What the user's own function returns whose name stands behind a prefix, as `package.module:function`.

    Raises:
        UnknownName: there is no such module or function.
        InvalidValue: the name is none, or the function does not run.
    """
    module_name, found, function_name = name.removeprefix(prefix).partition(":")
    if not found or not module_name or not function_name:
        raise InvalidValue(
            "A factory is a module and a function.", got=repr(name), instead=f"Use {prefix}package.module:function."
        )
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        make = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UnknownName(
            "There is no such function.", got=f"{name!r} ({error})", instead="Check the name and the current folder."
        ) from None
    try:
        return make()
    except Exception as error:
        raise InvalidValue(
            f"The function of {name} does not run.",
            got=f"{type(error).__name__}: {str(error)[:150]}",
            instead="Call it without arguments in Python to see where it fails.",
        ) from error
