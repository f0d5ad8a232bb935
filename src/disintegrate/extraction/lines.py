"""Where to look for hidden units: lines without end, or chords of the box of valid inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from disintegrate.errors import BadAnswer
from disintegrate.extraction.bends import Line
from disintegrate.extraction.tangents import Oracle, Tangents

# How far a line reaches where nothing bounds it, in multiples of the inputs' length. Further out float32 rounds the
# point itself across hyperplanes; one unit in about 1600 bends beyond, and further lines find it.
FURTHEST = 1e3
# The share of the box that is used, so that a plan that asks a little further out stays inside.
INSIDE = 0.98
# A line that cannot be answered at its ends is shortened so often.
SHORTENED = 40


@dataclass(frozen=True, eq=False)
class Domain:
    """What may be asked: everything around the inputs, or a box.

    Attributes:
        inputs: query inputs, flat.
        lowest: the least value of a coordinate.
        highest: the largest.
        furthest: how far a line without bounds reaches, in multiples of the inputs' length.

    Example:
        >>> images = Domain(np.full((2, 3), 0.5), 0.0, 1.0)
        >>> chord = images.line(np.random.default_rng(0))
        >>> ends = chord.at(np.array([-chord.reach, chord.reach]))
        >>> bool((ends > 0).all() and (ends < 1).all())
        True
    """

    inputs: Float64[np.ndarray, "n d"]
    lowest: float = -math.inf
    highest: float = math.inf
    furthest: float = FURTHEST

    @property
    def bounded(self) -> bool:
        """Whether there is a box."""
        return math.isfinite(self.lowest) and math.isfinite(self.highest)

    def scaled(self, factor: float) -> Domain:
        """The same directions, further out."""
        return replace(self, inputs=factor * self.inputs)

    @property
    def length(self) -> float:
        """Of a typical input, or of half the box's diagonal."""
        width = self.inputs.shape[1]
        if self.bounded:
            return math.sqrt(width) * (self.highest - self.lowest) / 2
        return float(np.linalg.norm(self.inputs, axis=1).mean()) or math.sqrt(width)

    @property
    def spacing(self) -> float:
        """How far random points lie from a hyperplane through the middle, root mean square."""
        return self.length / math.sqrt(self.inputs.shape[1])

    def points(self, generator: np.random.Generator, count: int) -> Float64[np.ndarray, "count d"]:
        """Points of the inputs' size: in all directions, or in the box, some dark and some bright."""
        width = self.inputs.shape[1]
        if not self.bounded:
            drawn = generator.normal(size=(count, width))
            return np.asarray(drawn * (self.length / np.linalg.norm(drawn, axis=1, keepdims=True)))
        bright = generator.random((count, width)) < generator.random((count, 1))
        return self._within(np.where(bright, self.highest, self.lowest))

    def line(self, generator: np.random.Generator) -> Line:
        """A line to look along: through two random points, or a chord between corners and inputs of the box."""
        first, second = self.points(generator, 2)
        if not self.bounded:
            return Line(first, second, math.atan(self.furthest))
        if generator.random() < 0.5:
            first = self._within(self.inputs[generator.integers(len(self.inputs))])
        return Line((first + second) / 2, (second - first) / 2, math.atan(1.0))

    def _within(self, points: Float64[np.ndarray, "*n d"]) -> Float64[np.ndarray, "*n d"]:
        middle = (self.lowest + self.highest) / 2
        return np.asarray(middle + INSIDE * (points - middle))


def reachable(oracle: Oracle, line: Line) -> tuple[Line, Tangents]:
    """The line as far as its ends are answered, and the answers: probabilities underflow far out."""
    for _ in range(SHORTENED):
        try:
            return line, oracle.at(line.at(np.array([-line.reach, line.reach])))
        except BadAnswer:
            line = replace(line, reach=math.atan(math.tan(line.reach) / 2))
    return line, oracle.at(line.at(np.array([-line.reach, line.reach])))
