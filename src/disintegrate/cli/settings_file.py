"""A command's flags out of a TOML file; flags on the command line win."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from disintegrate.errors import DamagedFile, InvalidValue, UnknownName

NEVER = ("settings", "help")


def read_flags(context: Any, path: Path | None) -> Path | None:
    """Take a file's lines as the defaults of a command's flags and arguments, by their names with `_` for `-`.

    Raises:
        UnknownName: there is no such file, or the command has no such flag.
        DamagedFile: the file is not TOML.
        InvalidValue: a line that is no text, number, truth value or list of these.
    """
    if path is None:
        return None
    if not path.is_file():
        raise UnknownName("There is no such file of settings.", got=path, instead="Give a TOML file.")
    try:
        given = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DamagedFile(f"{path} is not TOML.", got=str(error), instead="Correct the file.") from None
    known = {parameter.name: parameter for parameter in context.command.params if parameter.name not in NEVER}
    named = {_shown(name): name for name in known if name}
    defaults = {}
    for name, value in given.items():
        if name not in named:
            raise UnknownName("There is no such setting.", got=repr(name), instead=f"Choose from {', '.join(named)}.")
        switch = getattr(known[named[name]], "is_flag", False)
        if switch is not isinstance(value, bool):
            wanted = "true or false" if switch else "a number or a text"
            raise InvalidValue(f"The setting {name} cannot be used.", got=repr(value)[:80], instead=f"Give {wanted}.")
        defaults[named[name]] = value if switch else _text(name, value)
    context.default_map = {**(context.default_map or {}), **defaults}
    return path


def _shown(name: str) -> str:
    return "json" if name == "as_json" else name


def _text(name: str, value: object) -> str:
    """As it would stand on the command line: steps as 20-100, other lists with commas."""
    if isinstance(value, list) and value and all(isinstance(item, int | float | str) for item in value):
        return ("-" if name == "steps" else ",").join(map(str, value))
    if isinstance(value, int | float | str):
        return str(value)
    raise InvalidValue(
        f"The setting {name} cannot be used.", got=repr(value)[:80], instead="Give a number, a text or a list."
    )
