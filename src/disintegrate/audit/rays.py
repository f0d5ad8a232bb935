"""Which rows of a log lie on one ray, and where."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from disintegrate.audit.log_file import Log

# Points in float32 lie on a line within this share of their size; directions are sought within a wider one.
ON_A_LINE, LIKE_DIRECTION = 1e-6, 1e-4
# Positions closer than this are one: what float32 leaves of a scale.
ONE_PLACE = 1e-6


@dataclass(frozen=True)
class Place:
    """Where a row lies on the ray of another: its baseline and its input, as positions; that row's input is at 1."""

    row: int
    start: float
    stop: float


def same_rays(log: Log) -> Iterator[list[Place]]:
    """For each row the places of all rows that lie on its ray, itself among them.

    Positions are counted from the log's most frequent baseline: a row that begins closer to its input spans less.
    """
    count = len(log.inputs)
    x, b = (array.reshape(count, -1).astype(np.float64) for array in (log.inputs, log.baselines))
    common = _most_frequent(b)
    moved = x - b
    length = np.linalg.norm(moved, axis=1)
    unit = np.divide(moved, length[:, None], out=np.zeros(moved.shape), where=length[:, None] > 0)
    reach = np.linalg.norm(x - common, axis=1)
    reach = np.where(reach > 0, reach, 1.0)
    probe = np.random.default_rng(0).normal(size=unit.shape[1])
    shade = np.abs(unit @ probe)  # the same for both ways along a line
    order = np.argsort(shade)
    sorted_shade = shade[order]
    width = LIKE_DIRECTION * np.linalg.norm(probe)
    for row in range(count):
        first, last = np.searchsorted(sorted_shade, (shade[row] - width, shade[row] + width))
        near = order[first:last]
        near = near[(log.targets[near] == log.targets[row]) & (length[near] > 0)]
        if length[row] == 0 or not len(near):
            yield [Place(row, 0.0, 1.0)]
            continue
        ends = np.stack([b[near], x[near]])
        from_input = ends - x[row]
        along = from_input @ unit[row]
        beside = np.linalg.norm(from_input - along[..., None] * unit[row], axis=2)
        size = np.maximum(np.linalg.norm(ends, axis=2), np.linalg.norm(x[row]))
        kept = (beside <= ON_A_LINE * size).all(0)
        position = _tidy(1 + along / reach[row])
        yield [
            Place(int(other), float(start), float(stop))
            for other, start, stop in zip(near[kept], *position[:, kept], strict=True)
        ]


def _tidy(positions: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    """Positions that are 0 or 1 but for rounding made so."""
    whole = np.round(positions)
    return np.where((np.abs(positions - whole) < ONE_PLACE) & (np.abs(whole - 0.5) == 0.5), whole, positions)


def _most_frequent(rows: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, " d"]:
    counts: dict[bytes, int] = {}
    for row in rows:
        key = (row + 0.0).tobytes()
        counts[key] = counts.get(key, 0) + 1
    return np.frombuffer(max(counts, key=counts.__getitem__))
