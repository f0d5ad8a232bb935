"""In which digits a service answers, read off the numbers themselves."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from disintegrate.explainers.wire import Wire

ENOUGH = 12
FEWEST_FULL = 0.75


def wire_of(values: Float64[np.ndarray, " n"]) -> Wire | None:
    """The coarsest rounding that changes none of the numbers; None where too few came to say.

    Example:
        >>> generator = np.random.default_rng(0)
        >>> numbers = Wire(significant_digits=4).round(generator.normal(size=200))
        >>> wire_of(numbers) == Wire(significant_digits=4)
        True
    """
    values = values[np.isfinite(values) & (values != 0)]
    if len(values) < ENOUGH:
        return None
    if (_as(values, "float16") == values).all():
        return Wire(dtype="float16")
    if (_as(values, "float32") == values).all():
        return Wire()
    texts = [f"{abs(value):.16e}" for value in values]
    shortest = [np.format_float_scientific(value, unique=True, trim="-") for value in np.abs(values)]
    digits = np.array([len(text.split("e")[0].replace(".", "")) for text in shortest])
    exponents = np.array([int(text.split("e")[1]) for text in texts])
    decimals = np.maximum(digits - 1 - exponents, 0)
    significant, behind = int(digits.max()), int(decimals.max())
    if significant > 12:
        return Wire()
    # nine numbers in ten use the last digit that they have
    if (digits == significant).mean() > FEWEST_FULL:
        return Wire(significant_digits=significant)
    return Wire(decimals=behind) if (decimals == behind).mean() > FEWEST_FULL else None


def grain(values: Float64[np.ndarray, "*shape"], wire: Wire) -> Float64[np.ndarray, "*shape"]:
    """The distance of each number to the next one that the wire can carry.

    Example:
        >>> grain(np.array([1.23, 456.0]), Wire(significant_digits=3)).round(6).tolist() == [0.01, 1.0]
        True
    """
    size = np.abs(values)
    if wire.dtype == "float16":
        return np.asarray(np.spacing(np.minimum(size, 6e4).astype(np.float16)), np.float64)
    if wire.significant_digits is not None:
        known = np.where(size > 0, size, 1.0)
        unit = 10.0 ** (np.floor(np.log10(known) + 1e-12) - wire.significant_digits + 1)
        return np.where(size > 0, unit, 0.0)
    if wire.decimals is not None:
        return np.full(size.shape, 10.0**-wire.decimals)
    return np.asarray(np.spacing(size.astype(np.float32)), np.float64)


def _as(values: Float64[np.ndarray, " n"], dtype: str) -> Float64[np.ndarray, " n"]:
    with np.errstate(over="ignore"):
        return values.astype(dtype).astype(np.float64)
