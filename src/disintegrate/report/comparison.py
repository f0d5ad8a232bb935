"""Two audits side by side: what is told, and its page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from disintegrate.audit.record import AuditRecord, StopShown
from disintegrate.metrics import summarise
from disintegrate.report.audit_page import errors_drawing, measure_drawing
from disintegrate.report.findings import number
from disintegrate.report.templating import template


@dataclass(frozen=True)
class Row:
    """One thing of both audits, as it is shown; "" where one of them does not tell it."""

    name: str
    first: str
    second: str

    @property
    def changed(self) -> bool:
        """Whether the two differ."""
        return self.first != self.second


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two audits side by side.

    Attributes:
        first: one audit.
        second: the other.
        sentence: what changed of the verdict.
        cautions: what makes the two hard to compare, as sentences.
        rows: their figures and settings.
        stops: what stops the leak, each change with its verdict and median distance in both.
    """

    first: AuditRecord
    second: AuditRecord
    sentence: str
    cautions: tuple[str, ...]
    rows: tuple[Row, ...]
    stops: tuple[Row, ...]

    def record(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {
            "kind": "comparison",
            "sentence": self.sentence,
            "cautions": list(self.cautions),
            "rows": [asdict(row) | {"changed": row.changed} for row in self.rows],
            "what_stops_it": [asdict(row) | {"changed": row.changed} for row in self.stops],
        }


def compare(first: AuditRecord, second: AuditRecord) -> Comparison:
    """Set two audits side by side.

    Example:
        >>> from torch import nn
        >>> import numpy as np
        >>> from disintegrate import Capabilities, LocalExplainer, audit
        >>> from disintegrate.audit import record_of
        >>> service = LocalExplainer(nn.Linear(5, 2), Capabilities(rule="riemann_right"))
        >>> found = audit(service, np.ones((3, 5), np.float32), np.array([0, 1, 0]))
        >>> same = record_of(found.record())
        >>> any(row.changed for row in compare(same, same).rows)
        False
    """
    told = [dict(_told(record)) for record in (first, second)]
    names = list(dict.fromkeys((*told[0], *told[1])))
    stops = [{stop.change: _stop(stop) for stop in record.what_stops_it} for record in (first, second)]
    changes = list(dict.fromkeys((*stops[0], *stops[1])))
    return Comparison(
        first,
        second,
        _sentence(first, second),
        tuple(_cautions(first, second)),
        tuple(Row(name, told[0].get(name, ""), told[1].get(name, "")) for name in names),
        tuple(Row(change, stops[0].get(change, ""), stops[1].get(change, "")) for change in changes),
    )


def render_comparison(found: Comparison) -> str:
    """Draw the page of a comparison."""
    sides = [
        (name, record, measure_drawing(record.plan) if record.plan else None, errors_drawing(record))
        for name, record in (("A", found.first), ("B", found.second))
    ]
    return template("comparison").render(found=found, sides=sides)


def _told(record: AuditRecord) -> Iterator[tuple[str, str]]:
    """Figures, plan, service and provenance of an audit, by name."""
    summary = summarise(record.distances)
    yield "verdict", record.verdict.value
    yield "gradients recovered", f"{record.share_recovered:.0%}"
    for name, value in (
        ("median distance", record.median_distance),
        ("mean distance", summary.mean),
        ("90th percentile", summary.percentile_90),
        ("largest distance", summary.largest),
    ):
        yield name, number(value)
    yield "effective bits of a coordinate", f"{record.bits:.1f}"
    yield "queries for a gradient", str(record.queries_per_gradient)
    yield "finite differences need", f"{record.queries_by_differences:.0f}"
    yield "queries spent in all", str(record.queries.all)
    yield "inputs", str(len(record.inputs))
    yield "held against", record.check or "nothing"
    if record.plan:
        yield "plan", record.plan.way
        yield "exactness", record.plan.exactness
    if record.service:
        yield "rule", f"{record.service.rule}, {record.service.steps} steps"
        yield "steps of the caller's", record.service.bounds
        yield "baseline of the caller's", "taken" if record.service.baseline_of_the_caller else "not taken"
        yield "explains", record.service.output
        yield "answers", record.service.wire.words
    if record.run:
        yield "date", record.run.date
        yield "model", (record.run.model.weights_sha256 or record.run.model.file_sha256 or "not at hand")[:16]
        yield "inputs' SHA-256", record.run.inputs.sha256[:16]
    yield "seed", str(record.seed)
    yield "versions", ", ".join(f"{name} {version}" for name, version in record.versions.items())


def _stop(stop: StopShown) -> str:
    predicted = "" if stop.measured else ", predicted"
    return f"{stop.verdict.value} ({number(stop.median_distance)}{predicted})"


def _sentence(first: AuditRecord, second: AuditRecord) -> str:
    before, after = first.verdict.value, second.verdict.value
    verdict = f"Both: {before}." if before == after else f"The first: {before}; the second: {after}."
    distances = [number(record.median_distance) for record in (first, second)]
    queries = [f"{record.queries_per_gradient}" for record in (first, second)]
    return (
        f"{verdict} Median distance {distances[0]} and {distances[1]}, by {queries[0]} and {queries[1]} queries for "
        "each gradient."
    )


def _cautions(first: AuditRecord, second: AuditRecord) -> Iterator[str]:
    runs = first.run, second.run
    if first.check != second.check:
        yield "The gradients were not held against the same thing."
    if runs[0] and runs[1] and runs[0].inputs.sha256 != runs[1].inputs.sha256:
        yield "The two asked at different inputs."
    if len(first.inputs) != len(second.inputs):
        yield "The numbers of inputs differ."
    if runs[0] and runs[1] and runs[0].model != runs[1].model:
        yield "The models are not the same."
