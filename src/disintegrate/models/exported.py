"""`.pt2` archives of `torch.export`: what in them could run code is looked for before anything is read.

Loading such an archive unpickles sample inputs and custom objects, unpickles weights that are marked so, evaluates
symbolic expressions as Python, and runs guard code; an archive with any of these is refused unless it is trusted.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from disintegrate.errors import DamagedFile, InvalidValue, Untrusted

# What sympy writes for a size: symbols, whole numbers, sums and products; no name that could be called otherwise.
CALLS = "Symbol|Integer|Add|Mul|Pow|Mod|FloorDiv|Max|Min|CleanDiv|CeilDiv|PythonMod"
HARMLESS = re.compile(
    rf"(?:(?:{CALLS})\(|'\w{{1,40}}'|(?:integer|positive|nonnegative|zero)=(?:True|False)|[su]\d+|\d{{1,20}}|[\s(),+*-])*"
)
PROGRAMS = (".pkl", ".pickle", ".so", ".py", ".pyc", ".cpp")


def load_exported(path: Path, *, trust: bool) -> tuple[nn.Module, tuple[int, ...] | None]:
    """Load an exported program as a module, and the shape of one input.

    Raises:
        Untrusted: the archive holds what could run code.
        DamagedFile: it is no such archive.
        InvalidValue: it does not take one batch of inputs.
    """
    if not trust:
        check_archive(path)
    try:
        program = torch.export.load(path)
        module = program.module(check_guards=False)
    except Exception as error:
        raise DamagedFile(f"{path} is not an exported program.", got=str(error).splitlines()[:1]) from None
    names = set(program.graph_signature.user_inputs)
    users = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    if len(users) != 1:
        raise InvalidValue(f"{path} must take one batch of inputs.", got=f"{len(users)} inputs")
    shape = users[0].meta["val"].shape
    if isinstance(shape[0], int):
        raise InvalidValue(
            f"{path} was exported for one size of batch.",
            got=int(shape[0]),
            instead="Export it with a dynamic first dimension: dynamic_shapes=({0: Dim.AUTO},).",
        )
    return module, tuple(int(size) for size in shape[1:])


def check_archive(path: Path) -> None:
    """Refuse an archive whose loading could run code.

    Raises:
        Untrusted: it holds pickles, expressions that are no arithmetic, or guard code.
        DamagedFile: it is no archive, or its description is no JSON.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if len(set(names)) < len(names):
                raise _untrusted(path, "two members of one name")
            for name in names:
                _check_member(path, name, archive)
    except (zipfile.BadZipFile, ValueError, RecursionError, OSError, KeyError) as error:
        raise DamagedFile(f"{path} is not an exported program.", got=str(error)[:100]) from None


def _check_member(path: Path, name: str, archive: zipfile.ZipFile) -> None:
    if name.endswith(PROGRAMS):
        raise _untrusted(path, f"the program {name}")
    if name.endswith(".json"):
        _check_description(path, name, json.loads(archive.read(name)))
    elif name.endswith(".pt"):
        try:
            torch.load(io.BytesIO(archive.read(name)), map_location="cpu", weights_only=True)
        except Exception:
            raise _untrusted(path, f"the pickle {name}") from None


def _check_description(path: Path, name: str, description: object) -> None:
    for field, value in _fields(description):
        if field == "use_pickle" and value:
            raise _untrusted(path, f"pickled weights in {name}")
        if field == "expr_str" and not (isinstance(value, str) and HARMLESS.fullmatch(value)):
            raise _untrusted(path, f"the expression {str(value)[:60]!r} in {name}")
        if field == "guards_code" and value:
            raise _untrusted(path, f"guard code in {name}")


def _fields(found: Any) -> Iterator[tuple[str, Any]]:
    stack = [found]
    while stack:
        part = stack.pop()
        if isinstance(part, dict):
            yield from part.items()
            stack.extend(part.values())
        elif isinstance(part, list):
            stack.extend(part)


def _untrusted(path: Path, what: str) -> Untrusted:
    return Untrusted(
        f"{path} holds what could run code when it is loaded.",
        got=what,
        instead="Save it as safetensors or ONNX, or give --trust-model if you trust whoever made the file.",
    )
