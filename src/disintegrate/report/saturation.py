"""What the saturation record says of the paper's ResNet18, as sentences, rows and a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from disintegrate.metrics import DistanceSummary
from disintegrate.paper.records import Drawing, claim
from disintegrate.paper.saturation import Saturation, SaturationRow
from disintegrate.report.findings import number

# Powers of ten by which the gradient's norm falls from near i = 10 to i = 50 in the paper's figure 5.
PAPERS_FALL = 10.0
TABLES = ("table_1", "table_3", "table_4")
WORDS = {
    "logits": "logits",
    "probabilities_1": "probabilities",
    "probabilities_2": "probabilities, logits x 2",
    "probabilities_4": "probabilities, logits x 4",
    "probabilities_8": "probabilities, logits x 8",
    "log_probabilities": "logarithms of probabilities",
    "probabilities_untied": "probabilities, no ties",
    "logits_last_digit": "logits, last digit of convolutions at random",
    "probabilities_last_digit": "probabilities, last digit of convolutions at random",
    "probabilities_float64": "probabilities, float64",
}


@dataclass(frozen=True)
class SaturationSection:
    """One section of the page."""

    sentences: tuple[str, ...]
    rows: tuple[tuple[str, SaturationRow], ...]
    drawing: Drawing
    record: Saturation


def saturation_section(record: Saturation) -> SaturationSection:
    """Draw up the section from the record alone."""
    return SaturationSection(
        sentences=tuple(
            sentence
            for part in (
                _verdict,
                _with_and_without,
                _more_saturated,
                _norms,
                _nearest,
                _ties_alone,
                _own_gradient,
                _one_step,
            )
            for sentence in part(record)
        ),
        rows=tuple((_words(row), row) for row in record.rows),
        drawing=_drawing(record),
        record=record,
    )


def _at(record: Saturation, condition: str) -> list[SaturationRow]:
    return [row for row in record.rows if row.condition == condition]


def _listed(values: Sequence[float | None]) -> str:
    return ", ".join(number(value) for value in values)


def _means(rows: Sequence[SaturationRow], table: str) -> str:
    return _listed([summary.mean if (summary := getattr(row, table)) else None for row in rows])


def _verdict(record: Saturation) -> list[str]:
    off = _at(record, "logits")
    on = [row for row in record.rows if row.condition in ("probabilities_1", "probabilities_2", "probabilities_4")]
    if not (off and on):
        return []
    largest = max(row.table_3.mean for row in off)
    smallest = min(row.table_3.mean for row in on)
    text = f"With logits equation (4) fails at no length of training: table 3 is at most {number(largest)}. "
    text += (
        f"With a softmax it is {number(smallest)} to {number(max(row.table_3.mean for row in on))} on the same weights"
    )
    return [
        f"{'It is not depth. ' if largest < smallest else ''}{text}, growing with the certainty of the answer. "
        "Whether a softmax stood behind the paper's own figures cannot be known from here."
    ]


def _with_and_without(record: Saturation) -> list[str]:
    off, on, wide = (_at(record, name) for name in ("logits", "probabilities_1", "probabilities_float64"))
    if not (off and on):
        return []
    lengths = _listed([row.epochs for row in off])
    found = {table: (_means(off, table), _means(on, table), number(_claimed(record, table))) for table in TABLES}
    told = [
        "Trained for {} epochs, {} has table 3 at {} with logits and at {} with the softmax left on; the paper has "
        "{}.".format(lengths, record.network, *found["table_3"]),
        "Table 4: {} and {}, the paper {}. Table 1: {} and {}, the paper {}.".format(
            *found["table_4"], *found["table_1"]
        ),
    ]
    if wide:
        medians = _listed([row.table_3.median for row in wide])
        told.append(
            f"In float64 the softmax leaves table 3 at medians of {medians} (means {_means(wide, 'table_3')}): "
            "the failure is cancellation of rounded sums."
        )
    return told


def _more_saturated(record: Saturation) -> list[str]:
    scaled = [row for row in record.rows if row.condition.startswith("probabilities_") and row.dtype == "float32"]
    scaled = [row for row in scaled if row.condition.removeprefix("probabilities_").isdigit()]
    if len({row.scale for row in scaled}) < 2:
        return []
    parts = [
        f"{epochs} epochs: "
        + ", ".join(f"x {row.scale:g} {number(row.table_3.mean)}" for row in scaled if row.epochs == epochs)
        for epochs in sorted({row.epochs for row in scaled})
    ]
    return ["Multiplying the logits, as if the network were more certain, drives table 3 on: " + "; ".join(parts) + "."]


def _norms(record: Saturation) -> list[str]:
    told = []
    for condition in ("logits", "probabilities_1", "probabilities_2"):
        rows = [row for row in _at(record, condition) if row.norms and row.norms.orders_median is not None]
        if rows:
            peaks = _listed([row.norms.peak for row in rows if row.norms])
            falls = _listed([row.norms.orders_median for row in rows if row.norms])
            worst = _listed([row.norms.orders_largest for row in rows if row.norms])
            told.append(
                f"{WORDS[condition].capitalize()}: the norm peaks at i = {peaks} and falls by {falls} powers of ten to "
                f"i = 50 (medians; the largest {worst})"
            )
    if not told:
        return []
    return ["Figure 5: the paper's ResNet18 falls by ten powers of ten from near i = 10. " + ". ".join(told) + "."]


def _own_gradient(record: Saturation) -> list[str]:
    rows = [row for row in record.rows if row.dtype == "float32" and row.one_rounds_to_zero > 0]
    if not rows:
        return []
    worst = max(rows, key=lambda row: row.own_gradient.mean)
    plain = max((row.own_gradient.mean for row in _at(record, "logits")), default=0.0)
    lost = "; ".join(
        f"{WORDS[condition]}: " + ", ".join(f"{row.one_rounds_to_zero:.0%}" for row in _at(record, condition))
        for condition in ("probabilities_1", "probabilities_2")
    )
    return [
        "The distance is taken, as the paper takes it, to the gradient in the service's own arithmetic, and "
        "saturation spoils that as well: grad p = p ((1 - p) grad z - the others' share), and its first term is gone "
        f"where 1 - p rounds to 0. That happens for so many images, at each length: {lost}. At its worst "
        f"({worst.epochs} epochs, {_words(worst)}) the service's own gradient is {number(worst.own_gradient.mean)} "
        f"from the exact one (with logits at most {number(plain)}), underflows for "
        f"{worst.own_gradient_underflows:.0%} of the images and is all zero for {worst.own_gradient_zero:.0%}."
    ]


def _one_step(record: Saturation) -> list[str]:
    narrow = [row for row in record.rows if row.dtype == "float32"]
    rows = [row for row in narrow if row.own_gradient_underflows == 0]
    lost = [row for row in narrow if row.own_gradient_underflows > 0]
    undone = [row for row in rows if row.logit_difference and row.condition in ("probabilities_1", "probabilities_2")]
    if not rows:
        return []
    largest = number(max(row.single_step.mean for row in rows))
    told = [
        f"One query with one step, on the same models: a mean of at most {largest} wherever no gradient underflows, "
        "softmax on or off"
        + (f" (and {number(max(row.single_step.mean for row in lost))} where some do)" if lost else "")
        + ". It is the plan that fails, not the leak."
    ]
    if undone:
        apart = max(row.logit_difference.mean for row in undone if row.logit_difference)
        told.append(
            "And the softmax hides nothing: one step for each class gives the gradient of the label's logit less the "
            f"runner-up's, undone by recover_logits, {number(apart)} from the exact one at most (mean)."
        )
    return told


def _ties_alone(record: Saturation) -> list[str]:
    rows, paper = _at(record, "logits_last_digit"), claim("table_3", record.network)
    if not (rows and paper):
        return []
    spreads = _listed([row.table_3.standard_deviation for row in rows])
    falls = _listed([row.norms.orders_median for row in rows if row.norms])
    means = {table: _means(rows, table) for table in ("table_3", "table_4")}
    return [
        f"Ties settled at random bring table 3 up without any softmax, to {means['table_3']}, but with a spread of "
        f"{spreads} where the paper prints {number(paper.printed_variance)}, with table 4 at {means['table_4']}, and "
        f"with a norm that falls by {falls} powers of ten."
    ]


def _nearest(record: Saturation) -> list[str]:
    complete = [row for row in record.rows if row.table_1 and row.table_4 and row.norms and row.norms.orders_median]
    claims = [found for table in TABLES if (found := claim(table, record.network))]
    if not complete or len(claims) < len(TABLES):
        return []

    def fall(row: SaturationRow) -> float:
        return (row.norms.orders_median or 0.0) if row.norms else 0.0

    def apart(row: SaturationRow) -> float:
        pairs = [(fall(row), PAPERS_FALL)]
        for table, paper in zip(TABLES, claims, strict=True):
            found = getattr(row, table)
            pairs += [(found.mean, paper.mean), (found.standard_deviation, paper.printed_variance)]
        return sum(abs(math.log(max(ours, 1e-30) / theirs)) for ours, theirs in pairs)

    best = min(complete, key=apart)
    figures = ", ".join(
        f"{table.replace('_', ' ')} {_with_spread(getattr(best, table))} (paper {number(paper.mean)} ± "
        f"{number(paper.printed_variance)})"
        for table, paper in zip(TABLES, claims, strict=True)
    )
    return [
        "Nearest to the paper's means, spreads and fall of the norm together: "
        f"{best.epochs} epochs, {_words(best)}: {figures}; the norm falls by {number(fall(best))} powers of ten (paper "
        f"{PAPERS_FALL:g})."
    ]


def _with_spread(found: DistanceSummary) -> str:
    return f"{number(found.mean)} ± {number(found.standard_deviation)}"


def _words(row: SaturationRow) -> str:
    return WORDS.get(row.condition, row.condition)


def _claimed(record: Saturation, table: str) -> float | None:
    found = claim(table, record.network)
    return found.mean if found else None


def _drawing(record: Saturation) -> Drawing:
    shown = [name for name in ("logits", "probabilities_1", "probabilities_2", "probabilities_4") if _at(record, name)]
    return Drawing(
        figure="saturation",
        caption=f"Left: median norm of the gradient at (i/50) x over {record.images} images, by length of training. "
        "Right: table 3 against the median of 1 - p at the input; the dashed line is the paper's figure.",
        data={
            "norms": [
                [f"{WORDS[name]}, {row.epochs} epochs", name, row.epochs, list(row.norms.median)]
                for name in shown[:3]
                for row in _at(record, name)
                if row.norms
            ],
            "points": [
                [_words(row), row.epochs, row.one_minus_p, row.table_3.mean]
                for row in record.rows
                if row.dtype == "float32"
            ],
            "paper": _claimed(record, "table_3"),
        },
    )
