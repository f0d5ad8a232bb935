"""Offsets settled where the data lie: what was measured far out is measured again, for all units together."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from disintegrate.extraction.bends import Precision
from disintegrate.extraction.hidden_units import HiddenUnits
from disintegrate.extraction.tangents import Tangents

ROUNDS = 6


def settled(
    units: HiddenUnits,
    slope: Float64[np.ndarray, "classes d"],
    level: Float64[np.ndarray, " classes"],
    asked: Tangents,
    precision: Precision,
) -> tuple[HiddenUnits, Float64[np.ndarray, " classes"], float]:
    """Move offsets and level, each within its doubt, so that the outputs at points near the data come out right.

    With signs, normals and weights known, outputs are linear in the offsets: `z(x) = sum_(i on) v_i (w_i x + b_i) +
    A x + e`. Each offset keeps what it was measured to be, with a standard deviation of its doubt, beside the
    outputs with theirs: least squares. A point that an offset's doubt could put on the other side of a hyperplane is
    left out until the doubt has shrunk.

    Returns:
        The units, the level, and the largest miss of an output that is left, in standard deviations of its noise.
    """
    count, classes = len(units), len(level)
    sizes = np.linalg.norm(asked.gradients.reshape(len(asked), -1), axis=1)
    # Every unit that is on brings the error of its own jump; it lies across the point in no particular direction.
    across = np.linalg.norm(asked.points, axis=1) * np.sqrt((1 + count) / slope.size)
    noise = np.hypot(precision.outputs * np.abs(asked.outputs).max(1), precision.gradients * sizes * across)
    noise = np.maximum(noise, 1e-30)
    misses = np.array([np.inf])
    for _ in range(ROUNDS):
        before = asked.points @ units.normals.T + units.offsets
        sure = units.sure(asked.points)
        left = units.less(asked).outputs - asked.points @ slope.T - level
        weights = (before > 0)[:, :, None] * units.weights
        design = np.concatenate(
            [weights.transpose(0, 2, 1), np.broadcast_to(np.eye(classes), (len(asked), classes, classes))], axis=2
        )
        rows = (design / noise[:, None, None])[sure].reshape(-1, count + classes)
        wanted = (left / noise[:, None])[sure].reshape(-1)
        spread = np.append(np.maximum(units.doubts, 1e-300), np.full(classes, np.abs(asked.outputs).max()))
        normal = np.eye(count + classes) + (rows * spread).T @ (rows * spread)
        moved = np.linalg.solve(normal, (rows * spread).T @ wanted) * spread
        doubts = np.sqrt(np.maximum(np.diag(np.linalg.inv(normal)), 0)) * spread
        units = HiddenUnits(units.normals, units.offsets + moved[:count], units.weights, doubts[:count])
        level = level + moved[count:]
        misses = np.abs(units.less(asked).outputs - asked.points @ slope.T - level) / noise[:, None]
        if sure.all():
            break
    return units, level, float(misses.max())
