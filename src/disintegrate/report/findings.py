"""What the evidence says of each cell, as sentences whose every figure comes from a record."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from disintegrate.paper.records import Cell, Claim, Evidence, Record

PAPER_IMAGES = 10_000


@dataclass(frozen=True)
class Finding:
    """One cell of the paper, with what its error comes from."""

    table: str
    network: str
    ratio: float
    agrees: bool
    sentences: tuple[str, ...]


def findings(records: Sequence[Record]) -> list[Finding]:
    """Explain every cell of tables 2 to 4 that has evidence, and those of table 1 that differ."""
    found = []
    for cell in (record for record in records if isinstance(record, Cell)):
        evidence = _evidence_for(cell, records)
        if cell.claimed is None or cell.ratio is None or "as_served" not in evidence:
            continue
        agrees = bool(cell.agrees)
        if cell.table == "table_1" and agrees:
            continue
        sentences = [
            *_comparison(cell, cell.claimed),
            *_outlier(cell, cell.claimed),
            *_rounding(evidence),
            *_plan(evidence),
            *_ties(evidence),
            *_softmax(evidence),
            *_training(evidence),
            *([] if agrees else _nearest(cell.claimed, evidence)),
        ]
        found.append(Finding(cell.table, cell.provenance.network, cell.ratio, agrees, tuple(sentences)))
    return found


def number(value: float | None) -> str:
    """A figure as the page shows it: three significant digits, small ones with an exponent.

    Example:
        >>> number(0.0) == "0"
        True
    """
    if value is None:
        return ""
    if value == 0:
        return "0"
    return f"{value:.3g}" if 1e-3 <= abs(value) < 1e5 else f"{value:.2e}"


def _evidence_for(cell: Cell, records: Sequence[Record]) -> dict[str, Evidence]:
    return {
        record.condition: record
        for record in records
        if isinstance(record, Evidence)
        and (record.table, record.provenance.network, record.provenance.seed)
        == (cell.table, cell.provenance.network, cell.provenance.seed)
    }


def _comparison(cell: Cell, claim: Claim) -> list[str]:
    found = cell.measured
    mean, median = number(found.mean), number(found.median)
    told = [f"The paper has {number(claim.mean)}, we {mean} (median {median}), {number(cell.ratio)} times that."]
    if found.mean_without_ten_largest < found.mean / 2:
        told.append(
            f"Ten of {found.images} images make most of our mean: without them it is "
            f"{number(found.mean_without_ten_largest)}; the largest distance is {number(found.largest)}."
        )
    return told


def _outlier(cell: Cell, claim: Claim) -> list[str]:
    """One image at sqrt(2) among all gives a standard deviation of sqrt(2) / sqrt(images)."""
    alone = math.sqrt(2 / PAPER_IMAGES)
    if abs(claim.printed_variance / alone - 1) > 0.001:
        return []
    rest = claim.mean - math.sqrt(2) / PAPER_IMAGES
    return [
        f"The paper's printed spread, {number(claim.printed_variance)}, is that of one image of {PAPER_IMAGES} "
        f"at the square root of 2; without that image its mean would be {number(rest)}, and ours "
        f"{number(cell.measured.mean / rest)} times that."
    ]


def _rounding(evidence: dict[str, Evidence]) -> list[str]:
    if "float64_sums" not in evidence:
        return []
    served, sums = evidence["as_served"].measured, evidence["float64_sums"].measured
    return [
        f"Cancellation: the median over {served.images} images is {number(served.median)} in float32 and "
        f"{number(sums.median)} with sums in float64 (means {number(served.mean)} and {number(sums.mean)})."
    ]


def _plan(evidence: dict[str, Evidence]) -> list[str]:
    """The plan's own error bounds every condition from below; the float64 ones come down to it but for ties."""
    names = ("untied_float64", "float64", "float64_sums")
    means = [evidence[name].measured.mean for name in names if name in evidence]
    if not means:
        return []
    own = means[0] if "untied_float64" in evidence else min(means)
    text = f"The plan's own error, kinks and quadrature without rounding or ties: mean {number(own)}."
    if "steps_500" in evidence:
        text += f" With 500 steps in place of 50 the mean is {number(evidence['steps_500'].measured.mean)}: "
        text += "so much is quadrature."
    return [text]


def _ties(evidence: dict[str, Evidence]) -> list[str]:
    if not {"float64", "random_last_digit"} <= set(evidence):
        return []
    alike, wide, chance = (number(evidence[n].measured.mean) for n in ("as_served", "float64", "random_last_digit"))
    text = f"Ties in max pooling over a constant background: the mean is {alike} where float32 settles them alike at "
    text += f"every point, {wide} in float64"
    if "untied_float64" in evidence:
        text += f", {number(evidence['untied_float64'].measured.mean)} in float64 once no patches are equal"
    return [f"{text}, and {chance} in float32 with the last digit at random."]


def _softmax(evidence: dict[str, Evidence]) -> list[str]:
    if "softmax" not in evidence:
        return []
    on, off = evidence["softmax"].measured, evidence["as_served"].measured
    return [
        f"A softmax left on: mean {number(on.mean)}, share above 0.1 {on.share_above_0_1:.0%}; off: "
        f"{number(off.mean)}, {off.share_above_0_1:.0%}."
    ]


def _training(evidence: dict[str, Evidence]) -> list[str]:
    trained = [record for name, record in evidence.items() if name.startswith("epochs_")]
    if not trained:
        return []
    trained.sort(key=lambda record: record.provenance.epochs)
    told = ", ".join(f"{record.provenance.epochs} epochs {number(record.measured.mean)}" for record in trained)
    return [f"Training: {told}; in the table {evidence['as_served'].provenance.epochs} epochs."]


def _nearest(claim: Claim, evidence: dict[str, Evidence]) -> list[str]:
    best = min(evidence.values(), key=lambda record: abs(math.log(max(record.measured.mean, 1e-30) / claim.mean)))
    nearest = f"{best.explanation} ({number(best.measured.mean)})"
    return [f"Of all that was tried, this comes nearest to the paper's figure: {nearest}."]
