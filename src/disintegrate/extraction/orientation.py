"""On which side of its hyperplane each unit is on: what the linear rest tells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from disintegrate.extraction.hidden_units import HiddenUnits


@dataclass(frozen=True, eq=False)
class Oriented:
    """Units turned so that they make up the whole function, as far as they do.

    Attributes:
        units: the units; where a linear rest remains, pairs of units that carry it stand behind.
        bias: of the second layer.
        carried: how many of the units carry a linear rest that no turn of the others explains.
    """

    units: HiddenUnits
    bias: Float64[np.ndarray, " classes"]
    carried: int


def oriented(
    units: HiddenUnits,
    slope: Float64[np.ndarray, "classes d"],
    level: Float64[np.ndarray, " classes"],
    noise: float,
) -> Oriented:
    """Turn units until their sum needs no linear rest: `v relu(z) = v relu(-z) + v z`.

    With the units as they are, the function is `sum_i v_i relu(w_i x + b_i) + A x + e`. A unit that is on where it
    seems off takes `-v_i w_i^T` out of `A`, so `A = -sum_i s_i v_i w_i^T` with each `s_i` 0 or 1. What no such choice
    explains is carried by pairs of units: `relu(z) - relu(-z) = z`.

    Args:
        units: as found along lines.
        slope: `A`.
        level: `e`.
        noise: the norm that an error of `A` may have.

    Example:
        >>> unit = HiddenUnits(np.array([[1.0, 0.0]]), np.array([2.0]), np.array([[3.0]]), np.zeros(1))
        >>> found = oriented(unit, np.array([[-3.0, 0.0]]), np.array([-6.0]), 1e-9)
        >>> bool(found.units.offsets[0] == -2 and found.carried == 0 and abs(found.bias[0]) < 1e-12)
        True
    """
    turned = _turns(units, slope, noise)
    signs = np.where(turned, -1.0, 1.0)
    rest = slope + np.einsum("h,hc,hd->cd", turned.astype(float), units.weights, units.normals)
    bias = level + (units.weights * units.offsets[:, None])[turned].sum(0)
    found = HiddenUnits(units.normals * signs[:, None], units.offsets * signs, units.weights, units.doubts)
    left, sizes, right = np.linalg.svd(rest, full_matrices=False)
    kept = sizes > noise
    carriers = right[kept]
    lifted = (left[:, kept] * sizes[kept]).T
    none = np.zeros(len(carriers))
    for sign in (1.0, -1.0):
        found = found.joined(HiddenUnits(sign * carriers, none, sign * lifted, none))
    return Oriented(found, bias, 2 * len(carriers))


def _turns(units: HiddenUnits, slope: Float64[np.ndarray, "classes d"], noise: float) -> np.ndarray:
    """Which units to turn: least squares over all of them, in the span of their normals; then what is left is tried."""
    if not len(units):
        return np.zeros(0, bool)
    jumps = np.einsum("hc,hd->hcd", units.weights, units.normals).reshape(len(units), -1)
    share = np.linalg.lstsq(jumps.T, -slope.reshape(-1), rcond=None)[0]
    turned = share > 0.5
    return _improved(turned, jumps, slope.reshape(-1), noise)


def _improved(turned: np.ndarray, jumps: np.ndarray, slope: np.ndarray, noise: float) -> np.ndarray:
    """Turn single units as long as that makes the rest smaller."""
    rest, turned = slope + turned.astype(float) @ jumps, turned.copy()
    squares = (jumps**2).sum(1)
    while float(np.linalg.norm(rest)) > noise:
        gain = np.where(turned, 2 * jumps @ rest, -2 * jumps @ rest) - squares
        best = int(gain.argmax())
        if gain[best] <= 0:
            break
        rest = rest + (-1.0 if turned[best] else 1.0) * jumps[best]
        turned[best] = not turned[best]
    return turned
