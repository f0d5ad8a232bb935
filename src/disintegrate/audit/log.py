"""What an observer of recorded explanations could recover, with no service to ask: row by row, from what is there."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int
from torch import nn

from disintegrate.audit.checking import Check, against_model
from disintegrate.audit.log_file import Log
from disintegrate.audit.rays import Place, same_rays
from disintegrate.audit.result import WEAKNESS
from disintegrate.audit.truth import true_gradients
from disintegrate.audit.verdict import RECOVERED, Judgement, Verdict, judge
from disintegrate.estimate import ROUNDING_OF_OUTPUTS
from disintegrate.exact import solve
from disintegrate.explainers.protocol import Capabilities
from disintegrate.explainers.wire import Wire
from disintegrate.kriging import krige, predicted_distance
from disintegrate.measure import Exactness
from disintegrate.metrics import NO_DIRECTION
from disintegrate.noise import Noise, noise_of
from disintegrate.plan import Plan, Query
from disintegrate.planner import AS_GOOD_AS
from disintegrate.probe.digits import wire_of
from disintegrate.progress import SILENT, Progress
from disintegrate.quadrature import Rule
from disintegrate.rules import rule_named
from disintegrate.versions import versions
from disintegrate.walk import Stopped, Walk, affine_stretches

# The most rows of one ray that are weighed for one gradient: those that lie nearest to its input.
MOST_ROWS = 32
# Numbers of the log by which its digits are learnt.
NUMBERS = 1500

Stretches = tuple[tuple[float, float], ...]


@dataclass(frozen=True, eq=False)
class Row:
    """What the log gives away about one of its rows.

    Attributes:
        rows: the rows that lie on its ray and were used, itself first.
        plan: the queries that those rows answer, and their coefficients.
        exactness: which models that is exact for.
        predicted: distance to expect between the recovered and the true gradient.
    """

    rows: tuple[int, ...]
    plan: Plan
    exactness: Exactness
    predicted: float


@dataclass(frozen=True, eq=False)
class LogAudit:
    """What an observer of a log could recover.

    Attributes:
        judgement: the verdict with its figures.
        rows: what the log gives away about each of its rows.
        gradient: the recovered gradients; 0 where not observed.
        observed: coordinates in which a row that was used differs from its baseline.
        distance: predicted, or to the model's own gradients where the model is at hand.
        check: the model, or None where errors are predicted.
        capabilities: the service that is assumed behind the log.
        targets: the outputs explained.
    """

    judgement: Judgement
    rows: tuple[Row, ...]
    gradient: Float64[np.ndarray, "n *shape"]
    observed: Bool[np.ndarray, "n *shape"]
    distance: Float64[np.ndarray, " n"]
    check: Check | None
    capabilities: Capabilities
    targets: Int[np.ndarray, " n"]

    def record(self) -> dict[str, Any]:
        """As plain values for JSON."""
        judgement = asdict(self.judgement)
        del judgement["verdict"]
        seen = self.observed.reshape(len(self.observed), -1).sum(1).tolist()
        entries = zip(self.rows, self.targets.tolist(), self.distance.tolist(), seen, strict=True)
        return {
            "kind": "audit of a log",
            "verdict": self.judgement.verdict.value,
            **judgement,
            "weakness": {"framework": "MITRE ATLAS", "id": WEAKNESS},
            "recovered_within": RECOVERED,
            "check": self.check.value if self.check else None,
            "coordinates": int(np.prod(self.observed.shape[1:])),
            "service": {"rule": self.capabilities.rule, "wire": asdict(self.capabilities.wire)},
            "inputs": [
                {
                    "target": target, "distance": apart, "predicted": row.predicted, "observed": count,
                    "rows": list(row.rows), "exactness": row.exactness.value,
                }
                for row, target, apart, count in entries
            ],
            "versions": versions(),
        }  # fmt: skip


def audit_log(
    log: Log,
    rule: str,
    *,
    model: nn.Module | None = None,
    progress: Progress = SILENT,
) -> LogAudit:
    """Say what an observer of a log could recover: each row's gradient from all rows on its ray.

    Rows are on one ray where inputs and baselines are collinear and the target is the same: an input that was scaled,
    or asked again with other steps or from a closer baseline. Their answers measure the gradient with atoms on the ray,
    and the best linear weights for that of the row's input are kriging's, which are exact where that can be.

    Args:
        log: what was recorded.
        rule: the service's quadrature rule.
        model: the model behind it, where it is at hand; otherwise the error is predicted.
        progress: where to show the rows.

    Raises:
        UnknownName: there is no such rule.

    Example:
        >>> from disintegrate import LocalExplainer, Request
        >>> explainer = LocalExplainer(nn.Sequential(nn.Linear(8, 9), nn.ReLU(), nn.Linear(9, 3)).double(),
        ...                            Capabilities("riemann_right"))
        >>> x, targets = np.random.default_rng(0).normal(size=(2, 8)), np.array([0, 1])
        >>> answer = explainer.explain(Request(x, None, targets, 1))
        >>> log = Log(x, answer.attribution, np.array([1, 1]), targets, 0 * x, answer.output)
        >>> audit_log(log, "riemann_right").judgement.verdict is Verdict.LEAKS
        True
    """
    quadrature = rule_named(rule)
    numbers = log.attribution.ravel()
    wire = wire_of(numbers[:: max(1, numbers.size // NUMBERS)].astype(np.float64)) or Wire()
    allowed = Capabilities(rule, baseline=True, dtype="float32", wire=wire)
    noise = noise_of(allowed)
    weighed: dict[tuple[tuple[Query, ...], Stretches], tuple[Plan, Exactness, float]] = {}
    gradient, observed = np.zeros(log.inputs.shape), np.zeros(log.inputs.shape, bool)
    rows: list[Row] = []
    bar = progress.task("log: rows", len(log.inputs))
    for number, places in enumerate(same_rays(log)):
        used = _used(number, places, log.steps)
        queries = tuple(query for _, query in used)
        still = _stretches(used, log.output, noise)
        if (queries, still) not in weighed:
            weighed[queries, still] = _weighed(queries, still, quadrature, noise)
        plan, exactness, expected = weighed[queries, still]
        for (row, query), term in zip(used, plan, strict=True):
            moved = log.inputs[row].astype(np.float64) - log.baselines[row]
            seen = moved != 0
            part = np.divide(log.attribution[row], moved, out=np.zeros(moved.shape), where=seen)
            gradient[number] += term.coefficient * query.length * part
            observed[number] |= seen
        rows.append(Row(tuple(row for row, _ in used), plan, exactness, expected))
        bar.advance()
    apart = np.array([min(row.predicted, float(NO_DIRECTION)) for row in rows])
    apart = np.where(observed.reshape(len(rows), -1).any(1), apart, NO_DIRECTION)
    check = None
    if model is not None:
        checked = against_model(true_gradients(model, log.inputs, log.targets), gradient, observed)
        apart, check = checked.distance, checked.check
    return LogAudit(_judged(apart, rows, observed), tuple(rows), gradient, observed, apart, check, allowed, log.targets)


def _used(number: int, places: list[Place], steps: Int[np.ndarray, " n"]) -> list[tuple[int, Query]]:
    """The rows nearest to the input, each as the query that it answers, the same query once."""
    nearest = sorted(places, key=lambda place: (place.row != number, abs(place.stop - 1) + abs(place.start) * 1e-3))
    found: dict[Query, int] = {}
    for place in nearest:
        query = Query(place.start, place.stop, int(steps[place.row]))
        if place.stop != place.start and query not in found and len(found) < MOST_ROWS:
            found[query] = place.row
    return [(row, query) for query, row in found.items()]


def _stretches(used: list[tuple[int, Query]], output: Float64[np.ndarray, " n"], noise: Noise) -> Stretches:
    """Where the recorded outputs show that the ray has no kink."""
    told = {query.stop: float(output[row]) for row, query in used if np.isfinite(output[row])}
    at, values = np.array(list(told)), np.array(list(told.values()))
    return affine_stretches(at, values, ROUNDING_OF_OUTPUTS + 3 * noise.relative)


def _weighed(queries: tuple[Query, ...], still: Stretches, rule: Rule, noise: Noise) -> tuple[Plan, Exactness, float]:
    prior = Stopped(Walk(), still) if still else Walk()
    plan = krige(queries, rule, prior, noise)
    expected = predicted_distance(plan, rule, prior, noise)
    # kriging allows for rounding, and so is a little off where answers cancel
    exact = solve(queries, rule)
    if exact is not None and predicted_distance(exact, rule, prior, noise) <= AS_GOOD_AS * expected:
        plan = exact
    return plan, plan.measure(rule).exactness, expected


def _judged(apart: Float64[np.ndarray, " n"], rows: list[Row], observed: Bool[np.ndarray, "n *shape"]) -> Judgement:
    seen = observed.reshape(len(observed), -1).sum(1).astype(float)
    count = round(float(np.median([len(row.rows) for row in rows])))
    found = judge(apart, count, seen)
    exact = sum(row.exactness is Exactness.EVERY_MODEL for row in rows)
    several = sum(len(row.rows) > 1 for row in rows)
    told = (
        f"{found.share_recovered:.0%} of the gradients at the {len(rows)} logged inputs can be recovered from the log "
        f"alone, {exact} of them by answers that cancel exactly; {several} rows have others on their ray"
    )
    words = {
        Verdict.LEAKS: f"Leaks: {told}.",
        Verdict.PARTLY: f"Leaks in part: {told}, and the median distance to the truth is {found.median_distance:.2g}.",
        Verdict.NOT_SHOWN: f"Not shown: {told}, and the median distance to the truth is {found.median_distance:.2g}.",
    }
    return replace(found, sentence=words[found.verdict])
