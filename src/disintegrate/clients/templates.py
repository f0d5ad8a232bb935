"""A home-made JSON service as a TOML file: its URL, the template of a body, and where the answer holds what.

url = "http://127.0.0.1:9000/explain"
body = '{"data": "$inputs", "class": "$targets", "steps": "$steps"}'
attributions = "result.attributions"
outputs = "result.scores"
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import orjson

from disintegrate.clients.json_dialect import JsonDialect, Route
from disintegrate.errors import DamagedFile, UnknownName

FIELDS = ("url", "body", "attributions", "outputs", "predict")
PREDICT_FIELDS = ("url", "body", "outputs")


def read_template(path: Path) -> JsonDialect:
    """The protocol that a TOML file describes.

    Raises:
        UnknownName: there is no such file, or it has a field that is not known.
        DamagedFile: it is not TOML, lacks a field, or its body is no JSON.
        InvalidValue: an expression that is no JMESPath, or a place that is not known.
    """
    if not path.is_file():
        raise UnknownName("There is no such file with a template.", got=path, instead="Give a TOML file.")
    try:
        given = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DamagedFile(f"{path} is not TOML.", got=str(error)) from None
    _check_fields(given, FIELDS, ("url", "body", "attributions"), path)
    predict = given.get("predict")
    if predict is not None:
        _check_fields(predict, PREDICT_FIELDS, PREDICT_FIELDS, path)
        predict = Route(predict["url"], _body(predict["body"], path), predict["outputs"])
    explain = Route(given["url"], _body(given["body"], path), given["attributions"])
    return JsonDialect(explain, given.get("outputs"), predict)


def _check_fields(given: Any, known: tuple[str, ...], needed: tuple[str, ...], path: Path) -> None:
    if not isinstance(given, dict):
        raise DamagedFile(f"{path} does not describe a service.", instead=f"It needs {', '.join(needed)}.")
    for name in given:
        if name not in known:
            raise UnknownName("The template has a field that is not known.", got=repr(name), instead=", ".join(known))
    missing = [name for name in needed if name not in given]
    wrong = [name for name in given if name not in ("body", "predict") and not isinstance(given[name], str)]
    if missing or wrong:
        raise DamagedFile(f"{path} does not describe a service.", got=f"no text for {(missing + wrong)[0]}")


def _body(given: Any, path: Path) -> Any:
    if not isinstance(given, str):
        return given
    try:
        return orjson.loads(given)
    except orjson.JSONDecodeError as error:
        raise DamagedFile(f"The body in {path} is not JSON.", got=str(error)) from None
