"""The page of an audit, drawn from its record alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Bool, Float64
from markupsafe import Markup

from disintegrate import plots
from disintegrate.audit.examples import Example, sides_of
from disintegrate.audit.record import AuditRecord, ExampleShown, FindingShown, PlanShown, StopShown
from disintegrate.audit.verdict import Verdict
from disintegrate.extraction.curve import CostRecord
from disintegrate.metrics import summarise
from disintegrate.report.findings import number
from disintegrate.report.inline import drawing, png, svg
from disintegrate.report.templating import template

# Rows of the table of inputs, and of the plan's queries; the record holds all.
MOST_ROWS, MOST_TERMS = 200, 30
BARS = (1.7, 0.8)
# What a change does to the leak: words, and the name of their look.
OUTCOMES = {
    Verdict.LEAKS: ("does not stop it", ""),
    Verdict.PARTLY: ("lessens it", "lessens"),
    Verdict.NOT_SHOWN: ("stops every plan known", "stops"),
}
ONLY_PAPERS = ("stops only the paper's formulas", "only-papers")


@dataclass(frozen=True)
class ExampleRow:
    """One example, its arrays as elements of the page."""

    shown: ExampleShown
    cells: tuple[Markup, ...]


@dataclass(frozen=True)
class StopRow:
    """One change, what it does, and what it costs against leaving all as it is."""

    stop: StopShown
    outcome: str
    mark: str
    deletion_change: str
    insertion_change: str


def render_audit(record: AuditRecord, cost: CostRecord | None = None) -> str:
    """Draw the page of an audit, with what a copy costs where that is known.

    Example:
        >>> from torch import nn
        >>> from disintegrate import Capabilities, LocalExplainer, audit
        >>> from disintegrate.audit import record_of
        >>> service = LocalExplainer(nn.Linear(5, 2), Capabilities(rule="riemann_right"))
        >>> found = audit(service, np.ones((3, 5), np.float32), np.array([0, 1, 0]), examples=2)
        >>> "100% of the gradients were recovered" in render_audit(record_of(found.record()))
        True
    """
    stops = stop_rows(record.what_stops_it)
    return template("audit").render(
        record=record,
        summary=summarise(record.distances),
        measured=measure_drawing(record.plan) if record.plan else None,
        far=record.plan is not None and plots.asks_far_out(record.plan.measure()),
        distribution=errors_drawing(record),
        cost=cost,
        curve=None if cost is None else cost_drawing(cost),
        examples=[example_row(shown) for shown in record.examples],
        columns=plots.COLUMNS if any(shown.true for shown in record.examples) else plots.COLUMNS[:3],
        hidden=any(None in shown.recovered for shown in record.examples),
        reduced=next((shown for shown in record.examples if shown.shape != shown.shape_of_the_input), None),
        stops=stops,
        stopping=stopping_sentence(stops),
        explained=any(row.stop.explanation for row in stops),
        findings=[(name, worded(entry), entry.evidence) for name, entry in record.probe.findings.items()]
        if record.probe
        else [],
        terms=record.plan.terms[:MOST_TERMS] if record.plan else (),
        rows=record.inputs[:MOST_ROWS],
    )


def measure_drawing(plan: PlanShown) -> Markup:
    """The plan's measure on the ray."""
    found = plan.measure()
    at, weight = plan.atoms[0]
    count = f"{len(plan.atoms)} atoms" if len(plan.atoms) > 1 else f"one atom, of weight {number(weight)} at {at:.6g}"
    label = f"What the queries measure on the ray from the baseline, at 0, to the input, at 1: {count}."
    return drawing(partial(plots.measure, found=found), label)


def errors_drawing(record: AuditRecord) -> Markup:
    """How far the recovered gradients are from the truth."""
    found = summarise(record.distances)
    label = (
        f"Histogram of {found.images} distances to the truth: median {number(found.median)}, largest "
        f"{number(found.largest)}; {record.share_recovered:.0%} at most {record.recovered_within:g}."
    )
    draw = partial(plots.errors, distances=record.distances, recovered_within=record.recovered_within)
    return drawing(draw, label)


def cost_drawing(cost: CostRecord) -> Markup:
    """How often copies disagree with the model against the queries that they took."""
    ends = [f"{name}: {points[-1][1]:.1%} by {points[-1][0]} queries" for name, points in cost.curves().items()]
    return drawing(partial(plots.cost, curves=cost.curves()), f"Agreement of copies. {'; '.join(ends)}.")


def example_row(shown: ExampleShown) -> ExampleRow:
    """Input, explanation, recovered gradient, and the true one where it is known."""
    example = shown.example()
    whose = f"of input {shown.index}"
    labels = (
        f"Input {shown.index}.",
        f"Explanation {whose}, for output {shown.target}.",
        f"Recovered gradient {whose}, at a distance of {number(shown.distance)} from the true one.",
        f"True gradient {whose}.",
    )
    arrays = (example.point, example.explanation, example.recovered, example.truth)
    cells = [
        _element(array, label, signed=column > 0, observed=_known(example, column))
        for column, (label, array) in enumerate(zip(labels, arrays, strict=True))
        if array is not None
    ]
    return ExampleRow(shown, tuple(cells))


def stop_rows(stops: Sequence[StopShown]) -> list[StopRow]:
    """Each change with what it does and costs; the first row is the service as it is."""
    rows = []
    base = stops[0].explanation if stops else None
    for place, stop in enumerate(stops):
        outcome, mark = ONLY_PAPERS if _only_papers(stop, stops[0]) else OUTCOMES[stop.verdict]
        shown = stop.explanation
        changes = ("", "")
        if shown is not None and base is not None:
            changes = _change(shown.deletion - base.deletion), _change(shown.insertion - base.insertion)
        rows.append(StopRow(stop, outcome if place else "", mark, *changes))
    return rows


def stopping_sentence(rows: Sequence[StopRow]) -> str:
    """How many of the changes stop the leak, by name.

    Example:
        >>> stopping_sentence([])
        ''
    """
    tried = rows[1:]
    if not tried:
        return ""
    stopping = [row.stop.change for row in tried if row.stop.verdict is Verdict.NOT_SHOWN]
    lessening = [row.stop.change for row in tried if row.stop.verdict is Verdict.PARTLY]
    stops = "stops" if len(stopping) < 2 else "stop"
    told = f"Of {len(tried)} changes that were tried, {len(stopping) or 'none'} {stops} every plan known"
    told += f": {'; '.join(stopping)}." if stopping else "."
    if lessening:
        told += f" {'These lessen' if len(lessening) > 1 else 'This lessens'} it: {'; '.join(lessening)}."
    return told


def worded(finding: FindingShown) -> str:
    """A finding's value in words."""
    value = finding.value
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(entry if isinstance(entry, str) else number(entry) for entry in value)
    return value if isinstance(value, str) else number(value)


def _only_papers(stop: StopShown, before: StopShown) -> bool:
    """Whether a change stops the paper's formulas, which got the gradients before, and not the best plan."""
    was, now = before.paper_formula, stop.paper_formula
    if was is None or now is None or stop.verdict is not Verdict.LEAKS:
        return False
    return now.stopped_alone and not was.stopped_alone


def _change(value: float) -> str:
    """A change in brackets; nothing where it is smaller than what is shown."""
    return f" ({value:+.3f})" if abs(value) >= 0.0005 else ""


def _known(example: Example, column: int) -> Bool[np.ndarray, "*shape"] | None:
    return example.observed if column == 2 else None


def _element(
    array: Float64[np.ndarray, "*shape"], label: str, *, signed: bool, observed: Bool[np.ndarray, "*shape"] | None
) -> Markup:
    draw = partial(plots.picture, array=array, signed=signed, observed=observed)
    sides = sides_of(array.shape)
    if sides is not None:
        height, width = (array.shape[side] for side in sides)
        return png(draw, width, height, label)
    if array.size <= plots.MOST_BARS:
        return svg(draw, label, BARS, "bars")
    return png(draw, array.size, max(1, array.size // 4), label)
