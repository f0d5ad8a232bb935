"""Any JSON route: a template of the body, and JMESPath expressions for where the answer holds what.

The template is JSON in which a string stands for a value: "$inputs", "$baselines" and "$targets" for those of all rows,
"$input", "$baseline" and "$target" where a request carries one row, "$steps". What a request does not set is left out.
`{"$each": {...}}` stands for a list with one such object for each row, in which the singular places are that row's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jmespath
import numpy as np
import orjson
from jaxtyping import Float64, Int
from jmespath.exceptions import JMESPathError

from disintegrate.clients.dialect import chunks, doubles, numbers, parsed
from disintegrate.clients.link import Link, Message, shown
from disintegrate.errors import InvalidValue
from disintegrate.explainers.protocol import Explanation, Request

SINGLE = ("$input", "$baseline", "$target")
PLACES = (*SINGLE, "$inputs", "$baselines", "$targets", "$steps")
EACH = "$each"
LEFT_OUT = object()


@dataclass(frozen=True)
class Route:
    """A URL, the template of its body, and where its answer holds what is wanted.

    Raises:
        InvalidValue: the expression is no JMESPath, or the template has a place that is not known.
    """

    url: str
    body: Any
    found: str

    def __post_init__(self) -> None:
        compiled(self.found)
        unknown = [place for place in self.places if place not in PLACES]
        if unknown:
            raise InvalidValue(
                "The template has a place that is not known.", got=unknown[0], instead=f"Use {', '.join(PLACES)}."
            )

    @cached_property
    def places(self) -> frozenset[str]:
        """The placeholders of the template."""
        return frozenset(_places(self.body))

    @cached_property
    def single(self) -> bool:
        """Whether a request carries one row."""
        return any(place in SINGLE for place in _places(self.body, within_each=False))

    def message(self, request: Request) -> Message:
        """The template filled with a request."""
        values: dict[str, Any] = {
            "$inputs": doubles(request.inputs),
            "$targets": request.targets.astype(np.int64),
            "$baselines": LEFT_OUT if request.baselines is None else doubles(request.baselines),
            "$steps": LEFT_OUT if request.steps is None else request.steps,
        }
        for name in SINGLE:
            several = values[f"{name}s"]
            values[name] = several if several is LEFT_OUT else several[0]
        return Message(self.url, orjson.dumps(_filled(self.body, values), option=orjson.OPT_SERIALIZE_NUMPY))


@dataclass(frozen=True)
class JsonDialect:
    """A JSON protocol as data.

    Attributes:
        explain: the route to the attributions.
        outputs: where the same answer holds the explained output of each row; None where it does not.
        predict: a route to all outputs of each row, for services whose explanations do not tell the output.
        one_target: whether a request explains one output for all its rows.
    """

    explain: Route
    outputs: str | None = None
    predict: Route | None = None
    one_target: bool = False

    def parts(self, request: Request, rows: int) -> Iterator[Int[np.ndarray, " r"]]:
        """One row at a time where the template has room for one only."""
        routes = [self.explain, *([self.predict] if self.predict else [])]
        most = 1 if any(route.single for route in routes) else rows
        if not self.one_target:
            yield from chunks(len(request.inputs), most)
            return
        for target in np.unique(request.targets):
            own = np.flatnonzero(request.targets == target)
            for part in chunks(len(own), most):
                yield own[part]

    def ask(self, link: Link, request: Request) -> Explanation:
        """Ask for the explanations, and for the outputs where they stand elsewhere.

        Raises:
            BadAnswer: the answer does not hold them.
        """
        target = shown(self.explain.url)
        answer = parsed(link.post(self.explain.message(request)).content, target)
        found = searched(self.explain.found, answer)
        attribution = numbers(found, request.inputs.shape, "attributions", target)
        if self.predict is not None:
            return Explanation(self._predicted(link, request), attribution)
        if self.outputs is None:
            return Explanation(np.full(len(request.inputs), np.nan), attribution)
        output = numbers(searched(self.outputs, answer), request.targets.shape, "outputs", target)
        return Explanation(output, attribution)

    def _predicted(self, link: Link, request: Request) -> Float64[np.ndarray, " n"]:
        assert self.predict is not None  # noqa: S101  the caller has looked
        target = shown(self.predict.url)
        found = searched(self.predict.found, parsed(link.post(self.predict.message(request)).content, target))
        count = len(request.inputs)
        classes = max(1, np.size(found) // count) if isinstance(found, list) else 1
        outputs = numbers(found, (count, classes), "outputs", target)
        chosen: Float64[np.ndarray, " n"] = outputs[np.arange(count), np.minimum(request.targets, classes - 1)]
        return chosen


def compiled(expression: str) -> Any:
    """A JMESPath expression.

    Raises:
        InvalidValue: it is none.
    """
    try:
        return jmespath.compile(expression)
    except JMESPathError as error:
        first = str(error).splitlines()[0]
        raise InvalidValue("This is no JMESPath expression.", got=f"{expression!r} ({first})") from None


def searched(expression: str, answer: Any) -> Any:
    """What the expression finds; None where it finds nothing or does not fit."""
    try:
        return compiled(expression).search(answer)
    except JMESPathError:
        return None


def _places(template: Any, *, within_each: bool = True) -> Iterator[str]:
    if isinstance(template, str) and template.startswith("$"):
        yield template
    if isinstance(template, dict) and set(template) == {EACH}:
        if within_each:
            yield from _places(template[EACH])
        return
    for part in template.values() if isinstance(template, dict) else template if isinstance(template, list) else ():
        yield from _places(part, within_each=within_each)


def _filled(template: Any, values: dict[str, Any]) -> Any:
    if isinstance(template, str):
        return values.get(template, template)
    if isinstance(template, dict) and set(template) == {EACH}:
        return [_filled(template[EACH], _row(values, row)) for row in range(len(values["$inputs"]))]
    if isinstance(template, dict):
        filled = {name: _filled(part, values) for name, part in template.items()}
        return {name: part for name, part in filled.items() if part is not LEFT_OUT}
    if isinstance(template, list):
        return [part for part in (_filled(part, values) for part in template) if part is not LEFT_OUT]
    return template


def _row(values: dict[str, Any], row: int) -> dict[str, Any]:
    several = {name: values[f"{name}s"] for name in SINGLE}
    return values | {name: all_rows if all_rows is LEFT_OUT else all_rows[row] for name, all_rows in several.items()}
