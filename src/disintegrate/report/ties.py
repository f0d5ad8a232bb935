"""How much of table 3 are ties in max pooling, as sentences whose every figure comes from a record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from disintegrate.paper.records import Evidence, Record, claim
from disintegrate.paper.ties import TiesRow, TiesStudy
from disintegrate.report.findings import number

WORDS = {
    "as_served": "float32",
    "float64": "float64",
    "untied": "float32, a pattern inside the model",
    "untied_float64": "float64, a pattern inside the model",
    "noisy_inputs": "float32, noise on the inputs",
    "noisy_inputs_float64": "float64, noise on the inputs",
    "random_last_digit": "float32, last digit at random",
}


@dataclass(frozen=True)
class Ties:
    """Table 3 of one network under the conditions that have to do with ties, in the order of `WORDS`."""

    network: str
    claimed: float | None
    rows: tuple[tuple[str, Evidence], ...]
    backends: tuple[TiesRow, ...]
    sentences: tuple[str, ...]


def ties(records: Sequence[Record], study: TiesStudy | None = None) -> list[Ties]:
    """Gather the evidence on ties for every network with pooling that table 3 has, and the study of libraries."""
    found = []
    evidence = [record for record in records if isinstance(record, Evidence) and record.table == "table_3"]
    for network in dict.fromkeys(record.provenance.network for record in evidence):
        known = {record.condition: record for record in evidence if record.provenance.network == network}
        if not {"as_served", "float64", "random_last_digit"} <= set(known):
            continue
        claimed = claim("table_3", network)
        weights = known["as_served"].provenance.weights_sha256
        backends = tuple(row for row in study.rows if row.weights_sha256 == weights) if study else ()
        found.append(
            Ties(
                network=network,
                claimed=claimed.mean if claimed else None,
                rows=tuple((words, known[name]) for name, words in WORDS.items() if name in known),
                backends=backends,
                sentences=(*_sentences(known), *_libraries(backends)),
            )
        )
    return found


def _sentences(known: dict[str, Evidence]) -> list[str]:
    mean = {name: record.measured.mean for name, record in known.items()}
    median = {name: record.measured.median for name, record in known.items()}
    told = [
        "In float32, as in the tables, equal patches give equal outputs and every tie is settled alike: mean "
        f"{number(mean['as_served'])}, median {number(median['as_served'])}, which is rounding."
    ]
    for untied in ("untied_float64", "noisy_inputs_float64"):
        if untied in mean:
            share = 1 - min(1.0, mean[untied] / mean["float64"])
            told.append(
                f"In float64 the mean is {number(mean['float64'])}, and {number(mean[untied])} with "
                f"{WORDS[untied].split(', ')[1]}: {share:.2%} of it are ties."
            )
    told += [
        f"In float32 with {WORDS[untied].split(', ')[1]} it is {number(mean[untied])}, "
        f"{number(mean[untied] / mean['as_served'])} times that without."
        for untied in ("untied", "noisy_inputs")
        if untied in mean
    ]
    told.append(
        "With the last digit of every convolution at random, as sums in another order have it, ties are settled anew "
        f"at each point and the mean is {number(mean['random_last_digit'])}."
    )
    return told


def _libraries(rows: Sequence[TiesRow]) -> list[str]:
    """What the library alone makes of table 3, and how much of that goes with the ties."""
    if not rows:
        return []
    told = []
    for dtype in dict.fromkeys(row.dtype for row in rows):
        same = [row for row in rows if row.dtype == dtype]
        worst = max(same, key=lambda row: row.plain.mean)
        best = min(same, key=lambda row: row.plain.mean)
        untied = max(worst.untied.mean, worst.noisy.mean)
        text = f"The library decides in {dtype}: from {number(best.plain.mean)} ({_after_comma(best.backend)}) to "
        text += f"{number(worst.plain.mean)} ({_after_comma(worst.backend)})"
        share = 1 - untied / worst.plain.mean
        if worst.plain.mean > 10 * best.plain.mean and share > 0.5:
            text += f", of which {share:.1%} are ties: without them it is {number(untied)}"
        elif worst.plain.mean > 10 * best.plain.mean:
            text += f", which are not ties: without them it is {number(untied)}"
        told.append(text + ".")
    largest = max(row.single_step.mean for row in rows)
    told.append(
        f"One query with one step asks at one point, so no tie can be settled twice: at most {number(largest)}."
    )
    return told


def _after_comma(backend: str) -> str:
    return backend.split(", ", 1)[-1]
