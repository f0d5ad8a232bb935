"""How much of table 3 are ties in max pooling, as sentences whose every figure comes from a record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from disintegrate.paper.records import Evidence, Record, claim
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
    sentences: tuple[str, ...]


def ties(records: Sequence[Record]) -> list[Ties]:
    """Gather the evidence on ties for every network with pooling that table 3 has."""
    found = []
    evidence = [record for record in records if isinstance(record, Evidence) and record.table == "table_3"]
    for network in dict.fromkeys(record.provenance.network for record in evidence):
        known = {record.condition: record for record in evidence if record.provenance.network == network}
        if not {"as_served", "float64", "random_last_digit"} <= set(known):
            continue
        claimed = claim("table_3", network)
        found.append(
            Ties(
                network=network,
                claimed=claimed.mean if claimed else None,
                rows=tuple((words, known[name]) for name, words in WORDS.items() if name in known),
                sentences=tuple(_sentences(known)),
            )
        )
    return found


def _sentences(known: dict[str, Evidence]) -> list[str]:
    mean = {name: record.measured.mean for name, record in known.items()}
    median = {name: record.measured.median for name, record in known.items()}
    told = [
        "In float32 on one machine equal patches give equal outputs and every tie is settled alike: mean "
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
