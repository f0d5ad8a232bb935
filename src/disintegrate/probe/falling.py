"""The first nodes of a rule, alone where the output of a softmax falls.

Where an output falls to 0 along a ray, logits are straight far out and `log p` is nearly a line in the scale. There the
derivative `h = p (log p)'` is seen in the outputs alone, over many orders of magnitude, and an answer whose first nodes
lie there sums to

    S(s) / s - w_0 h(0) = sum over t_i > 0 of w_i h(s t_i)  ->  w_1 h(s t_1),                               (P.8)

so its slope in `s` is `t_1` and its size `w_1`, whatever kinks lie closer to the baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

# Places at which the slope of `log p` may change, and how far inside and beyond what was asked they lie.
PLACES, INSIDE, BEYOND = 160, 0.3, 1.5
# How much it changes there, in units of the slope: less and less with the distance, as the kinks of a ray do.
CHANGES, FADING = np.geomspace(1e-2, 1e2, 7), (1.5, 2.5)
# How far `log p` at the baseline, and its slope in units of what it is on average, may lie from 0.
SIZE, STEEP = 30.0, 10.0
# The least slope that is granted, in the same units; and the largest logarithm by which a rule may miss an answer that
# is weighed any further.
FLAT, FAR_OFF = 1e-3, 3.0
# The least share of an answer by which a node counts for its noise.
FAINT = 1e-6
# How much less likely than the best a rule is weighed no further.
HOPELESS = 60.0
# How much more than the least that is heard a rule must answer to be left out by silence.
LOUD = 5.0


@dataclass(frozen=True, eq=False)
class Falling:
    """Outputs that fall along a ray: scales, ascending, `log p`, and how exact it is."""

    scales: Float64[np.ndarray, " k"]
    log: Float64[np.ndarray, " k"]
    deviation: Float64[np.ndarray, " k"]

    @property
    def slope(self) -> float:
        """How fast `log p` falls on average."""
        return float((self.log[0] - self.log[-1]) / (self.scales[-1] - self.scales[0]))

    def where(self, log: float) -> float:
        """The scale at which `log p` falls to some value, beyond all that were asked along their last slope."""
        top = int(np.argmax(self.log))
        far, values = self.scales[top:], self.log[top:]
        if log < values[-1]:
            return float(far[-1] + (values[-1] - log) / self.slope)
        return float(np.interp(-log, -values, far))


@dataclass(frozen=True, eq=False)
class Answered:
    """What answers on the ray say: scales, `S(s) / s` without the node at 0, negated, and how exact each is.

    Attributes:
        scales: those that were asked.
        falls: what the nodes above 0 answer.
        deviation: of each alone.
        common: of all alike, as the node at 0 is subtracted from all.
        silent: scales at which the answer was no more than noise, and `least`: what would have been.
        level: how far off the logarithm of all alike may be, as the baseline is not known better.
    """

    scales: Float64[np.ndarray, " q"]
    falls: Float64[np.ndarray, " q"]
    deviation: Float64[np.ndarray, " q"]
    common: float
    level: float
    silent: Float64[np.ndarray, " z"]
    least: Float64[np.ndarray, " z"]


@dataclass(frozen=True, eq=False)
class Predicted:
    """What a rule answers, how the logarithms of that move with the line, and what changes between two places add."""

    total: Float64[np.ndarray, " q"]
    moved: Float64[np.ndarray, "q p"]
    between: Float64[np.ndarray, " q"]

    def covariance(
        self, deviation: Float64[np.ndarray, " q"], common: float, level: float
    ) -> Float64[np.ndarray, "q q"]:
        """That of the logarithms of answers so exact, as `Answered` has it."""
        alone = np.diag((deviation / self.total) ** 2 + self.between)
        alike = np.outer(common / self.total, common / self.total) + level**2
        found: Float64[np.ndarray, "q q"] = self.moved @ self.moved.T + alone + alike
        return found


class Line:
    """`log p` as a line whose slope changes at some places, less and less with the distance."""

    def __init__(self, falling: Falling, fading: float) -> None:
        self.falling = falling
        first = falling.scales[falling.scales > 0].min()
        begin, end = INSIDE * min(float(first), 1 / falling.slope), BEYOND * float(falling.scales.max())
        self.places = np.geomspace(begin, end, PLACES)
        typical = falling.slope * begin ** (fading - 0.5)
        self.changes = typical * np.sqrt(np.gradient(self.places)) * self.places**-fading

    def rows(
        self, scales: Float64[np.ndarray, "*shape"]
    ) -> tuple[Float64[np.ndarray, "*shape p"], Float64[np.ndarray, "*shape p"]]:
        """What `log p` and its derivative are of the parameters: a constant, a slope, and each change of it."""
        beyond = self.places - scales[..., None]
        ones, zeros = np.ones((*scales.shape, 1)), np.zeros((*scales.shape, 1))
        value = np.concatenate([ones, scales[..., None], -np.maximum(beyond, 0)], -1)
        return value, np.concatenate([zeros, ones, (beyond > 0).astype(float)], -1)


class Given:
    """The Gaussian of such lines, given the outputs and how much the slope changes."""

    def __init__(self, line: Line, change: float) -> None:
        self.line = line
        self.change = change
        falling = line.falling
        size = np.concatenate([[SIZE, STEEP * falling.slope], change * line.changes])
        # outputs of all digits beside changes of any size: the root keeps the digits that a covariance would lose
        rows = np.concatenate([line.rows(falling.scales)[0] * size / falling.deviation[:, None], np.eye(len(size))])
        values = np.concatenate([falling.log / falling.deviation, np.zeros(len(size))])
        orthogonal, triangle = np.linalg.qr(rows)
        seen = orthogonal.T @ values
        left = values - orthogonal @ seen
        self.outputs = -float(left @ left) / 2 - float(np.log(np.abs(np.diag(triangle))).sum())
        inverse = np.linalg.inv(triangle)
        self.root = size[:, None] * inverse
        self.mean = size * (inverse @ seen)
        self.at_knots = line.rows(line.places)[0] @ self.root
        self.beyond_knots = line.rows(np.append(line.places[0] / 2, line.places))[1] @ self.root
        # sums of the changes beyond each place, and of the changes times their places
        changes = np.append(self.mean[2:], 0.0)
        self.beyond = np.cumsum(changes[::-1])[::-1]
        self.moments = np.cumsum((changes * np.append(line.places, 0.0))[::-1])[::-1]

    def near(
        self, answered: Answered, rules: Sequence[tuple[Float64[np.ndarray, " _"], Float64[np.ndarray, " _"]]]
    ) -> list[int]:
        """The rules that come anywhere near the answers, and keep silent where there was nothing but noise."""
        begins = np.cumsum([0, *(len(nodes) for nodes, _ in rules[:-1])])
        nodes, weights = (np.concatenate(values) for values in zip(*rules, strict=True))
        left = np.ones(len(rules), bool)
        for scale, falls in zip(answered.scales, answered.falls, strict=True):
            total = np.add.reduceat(self._parts(scale * nodes, weights)[1], begins)
            left &= np.abs(np.log(falls / total)) <= FAR_OFF + 3 * answered.level
        for scale, least in zip(answered.silent, answered.least, strict=True):
            left &= np.add.reduceat(self._parts(scale * nodes, weights)[1], begins) <= LOUD * least
        return np.flatnonzero(left).tolist()

    def likely(
        self, answered: Answered, nodes: Float64[np.ndarray, " n"], weights: Float64[np.ndarray, " n"]
    ) -> tuple[float, float]:
        """How likely a rule makes the outputs and the answers, as a logarithm, and the squares by which it misses."""
        predicted = self.predicted(answered.scales, nodes, weights)
        off = np.log(answered.falls) - np.log(predicted.total)
        inside = predicted.covariance(answered.deviation, answered.common, answered.level)
        misfit = float(off @ np.linalg.solve(inside, off))
        return self.outputs - (misfit + float(np.linalg.slogdet(inside)[1])) / 2, misfit

    def predicted(
        self, scales: Float64[np.ndarray, " q"], nodes: Float64[np.ndarray, " n"], weights: Float64[np.ndarray, " n"]
    ) -> Predicted:
        """What a rule answers at these scales."""
        places = scales[:, None] * nodes
        steep, parts = self._parts(places, weights)
        total = parts.sum(1)
        shares = parts / total[:, None]
        heard = (shares > FAINT).any(0)
        places, steep, shares = places[:, heard], steep[:, heard], shares[:, heard]
        moved = self._moved(places, shares, steep)
        # a change between two answers of the same stretch
        between = shares * np.interp(places, self.line.places, self.line.changes) * self.change / steep
        return Predicted(total, moved, (between**2).sum(1))

    def _moved(
        self,
        places: Float64[np.ndarray, "q n"],
        shares: Float64[np.ndarray, "q n"],
        steep: Float64[np.ndarray, "q n"],
    ) -> Float64[np.ndarray, "q p"]:
        """How the logarithm of each answer moves with the line: the mean of `log p` and of that of its slope."""
        knots = self.line.places
        stretch = np.searchsorted(knots, places, side="right")
        knot = np.maximum(stretch - 1, 0)
        rows = np.arange(len(places))[:, None]
        values, slopes = np.zeros((len(places), len(knots))), np.zeros((len(places), len(knots) + 1))
        # between two places the line is straight, so that each node is a share of what is at a place and beyond it
        np.add.at(values, (rows, knot), shares)
        np.add.at(slopes, (rows, stretch), shares * (places - knots[knot] - 1 / steep))
        found: Float64[np.ndarray, "q p"] = values @ self.at_knots + slopes @ self.beyond_knots
        return found

    def _parts(
        self, places: Float64[np.ndarray, "*q n"], weights: Float64[np.ndarray, " n"]
    ) -> tuple[Float64[np.ndarray, "*q n"], Float64[np.ndarray, "*q n"]]:
        """How steeply `log p` falls at each node, and what each adds to the answer."""
        index = np.searchsorted(self.line.places, places, side="right")
        slope = self.mean[1] + self.beyond[index]
        value = self.mean[0] + places * slope - self.moments[index]
        steep = np.maximum(-slope, FLAT * self.line.falling.slope)
        return steep, np.maximum(weights * steep * np.exp(np.minimum(value, 0.0)), 1e-300)


def log_likelihoods(
    falling: Falling, answered: Answered, rules: Sequence[tuple[Float64[np.ndarray, " _"], Float64[np.ndarray, " _"]]]
) -> Float64[np.ndarray, "2 rules"]:
    """How likely each rule makes the answers, as a logarithm, and how far from them it lies, in squares of the noise.

    Args:
        falling: the outputs of the ray.
        answered: its answers.
        rules: nodes above 0, and weights.
    """
    found = np.full((2, len(rules)), -np.inf)
    found[1] = np.inf
    # a rule that is far off where the slope may change most is so everywhere
    left = Given(Line(falling, FADING[0]), float(CHANGES[-1])).near(answered, rules)
    # the less the slope may change, the further apart rules lie: what is hopeless by then stays so
    for change in CHANGES[::-1]:
        for fading in FADING:
            given = Given(Line(falling, fading), float(change))
            for index in left:
                likely, misfit = given.likely(answered, *rules[index])
                if likely > found[0, index]:
                    found[:, index] = likely, misfit
        left = [index for index in left if found[0, index] > found[0].max() - HOPELESS]
    return found
