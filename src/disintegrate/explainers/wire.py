"""What the wire does to the numbers of an answer: the type they are sent in, digits, noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

from disintegrate.errors import InvalidValue

# Root mean square of the relative error of rounding, for numbers whose logarithm is uniform: the last digit over
# sqrt(12), times the root mean square of 1 / v over one decade from 1 to 10, or one octave from 1 to 2.
DECIMAL_ROUNDING = math.sqrt((1 - 0.01) / (2 * math.log(10)) / 12)
BINARY_ROUNDING = math.sqrt((1 - 0.25) / (2 * math.log(2)) / 12)


@dataclass(frozen=True)
class Wire:
    """How answers are rounded and disturbed before the caller sees them.

    Attributes:
        dtype: the type of answers, such as "float16"; None for that of the service's arithmetic.
        significant_digits: decimal digits that are left of every number; None for all.
        decimals: digits behind the point; None for all.
        noise: standard deviation of noise added to every attribution, in its units.
        deterministic: whether the same question gets the same answer; otherwise repeats average.

    Raises:
        InvalidValue: digits below 1, negative noise.
    """

    dtype: str | None = None
    significant_digits: int | None = None
    decimals: int | None = None
    noise: float = 0.0
    deterministic: bool = True

    def __post_init__(self) -> None:
        if self.significant_digits is not None and self.significant_digits < 1:
            raise InvalidValue(
                "At least one significant digit must be left.", got=self.significant_digits, instead="Use 1 or more."
            )
        if not (math.isfinite(self.noise) and self.noise >= 0):
            raise InvalidValue("Noise is a standard deviation.", got=self.noise, instead="Use 0 or more.")

    @property
    def relative(self) -> float:
        """Root mean square of the rounding error, relative to the numbers: of digits and of the type.

        Example:
            >>> math.isclose(Wire(significant_digits=3).relative, 10 * Wire(significant_digits=4).relative)
            True
        """
        of_digits = 0.0 if self.significant_digits is None else DECIMAL_ROUNDING * 10.0 ** (1 - self.significant_digits)
        of_type = 0.0 if self.dtype is None else BINARY_ROUNDING * float(np.finfo(self.dtype).eps)
        return math.hypot(of_digits, of_type)

    @property
    def absolute(self) -> float:
        """Root mean square of what is added to an attribution whatever its size: decimals, underflow, and noise."""
        of_decimals = 0.0 if self.decimals is None else 10.0**-self.decimals / math.sqrt(12)
        of_type = 0.0 if self.dtype is None else float(np.finfo(self.dtype).smallest_subnormal) / math.sqrt(12)
        return math.hypot(of_decimals, of_type, self.noise)

    def round(self, values: Float[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape"]:
        """The numbers as the caller sees them, noise apart.

        Example:
            >>> Wire(significant_digits=2).round(np.array([0.1234, -5678.0])).tolist() == [0.12, -5700.0]
            True
        """
        rounded = np.asarray(values, np.float64)
        if self.decimals is not None:
            rounded = np.round(rounded, self.decimals)
        if self.significant_digits is not None:
            rounded = _significant(rounded, self.significant_digits)
        if self.dtype is not None:
            with np.errstate(over="ignore"):
                rounded = rounded.astype(self.dtype).astype(np.float64)
        return rounded


def _significant(values: Float64[np.ndarray, "*shape"], digits: int) -> Float64[np.ndarray, "*shape"]:
    rounded: Float64[np.ndarray, "*shape"] = np.vectorize(
        lambda value: float(f"{value:.{digits - 1}e}"), otypes=[np.float64]
    )(values)
    return rounded
