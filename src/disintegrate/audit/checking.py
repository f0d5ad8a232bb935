"""How far recovered gradients are from the truth: by the model where it is at hand, else by the service's own outputs.

Without the model the gradient `g` must predict what the service answers a small step away. For steps `u_k` of random
signs on the coordinates that were observed,

    d_k = (f(x + h u_k) - f(x - h u_k)) / 2h,    e = sqrt(sum_k (d_k - g.u_k)^2 / sum_k d_k^2),

and e estimates `|grad f - g| / |grad f|`, which is no less than the distance between the directions. A few steps leave
it uncertain, so its upper bound is taken; rounding of the outputs bounds it from below. All inputs together leave less
to chance than one, so that figures over all of them, such as the median, take a smaller bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from disintegrate.audit.telling import Told
from disintegrate.errors import BadAnswer
from disintegrate.explainers.protocol import Capabilities, Explainer, Output
from disintegrate.metrics import NO_DIRECTION, distance
from disintegrate.probe.digits import grain

# A step is so long that the output moves by so many units of its resolution, but no longer than a share of the input;
# where that leaves too few units to tell anything, such as behind three digits, it may be longer.
UNITS, LONGEST = 100.0, 0.02
FEWEST_UNITS, LONGEST_OF_ALL = 50.0, 0.1
# Steps whose differences turn out to be of fewer units, or of more than this, are mended, so often at the most.
MOST_UNITS, MENDED = 8 * UNITS, 3
# One in twenty: how often the true error may exceed the upper estimate.
ONE_SIDED_95 = -1.645
# Steps in each direction from an input.
STEPS = 4
# A float32 network's outputs are right to so many units of roundoff.
ROUNDING_OF_OUTPUTS = 4 * 2.0**-24
# A probability is as exact relative to itself, however small it is, as the logits behind it are in all.
ROUNDING_OF_PROBABILITIES = 64 * 2.0**-24


class Check(Enum):
    """What recovered gradients were held against; the value is the phrase shown."""

    MODEL = "the model's own gradient"
    OUTPUTS = "the service's own outputs at small steps from each input"


@dataclass(frozen=True, eq=False)
class Checked:
    """How far each recovered gradient is from the truth.

    Attributes:
        distance: on the observed coordinates; an upper estimate where the service's outputs were the check.
        check: which of the two was done.
        queries: spent on the check, over all inputs.
    """

    distance: Float64[np.ndarray, " n"]
    check: Check
    queries: int


def against_model(
    truth: Float[np.ndarray, "n *shape"],
    gradient: Float[np.ndarray, "n *shape"],
    observed: Bool[np.ndarray, "n *shape"],
) -> Checked:
    """Compare with true gradients, on the coordinates that were observed; where none was, nothing was recovered."""
    apart = distance(truth * observed, gradient * observed)
    seen = observed.reshape(len(observed), -1).any(1)
    return Checked(np.where(seen, apart, NO_DIRECTION), Check.MODEL, 0)


@dataclass(frozen=True, eq=False)
class Differences:
    """A service's outputs at pairs of points about each input, which a gradient must predict.

    Attributes:
        moved: the difference of the two points of each pair, as they were sent.
        seen: the difference of the outputs.
        bent: their second difference, with the output at the input.
        resolution: how far each input's outputs may be from exact ones.
        queries: spent on them.
    """

    moved: Float64[np.ndarray, "steps n d"]
    seen: Float64[np.ndarray, "steps n"]
    bent: Float64[np.ndarray, "steps n"]
    resolution: Float64[np.ndarray, " n"]
    queries: int

    def length(self, gradient: Float[np.ndarray, "n *shape"]) -> float:
        """What gradients are to be multiplied by, one factor for all, so that they predict the outputs best.

        1 where no positive one does.
        """
        foretold = (self.moved * gradient.reshape(len(gradient), -1)).sum(2)
        weight = 1 / np.maximum((self.seen**2).sum(0), 1e-300)
        both, ours = float((weight * self.seen * foretold).sum()), float((weight * foretold**2).sum())
        return both / ours if both > 0 and ours > 0 else 1.0

    def distance(self, gradient: Float[np.ndarray, "n *shape"]) -> Float64[np.ndarray, " n"]:
        """An upper estimate of each gradient's distance to the true one, on the coordinates that were moved."""
        slope = gradient.reshape(len(gradient), -1)
        foretold = (self.moved * slope).sum(2)
        error = np.sqrt(((self.seen - foretold) ** 2).sum(0) / _low_quantile(len(self.seen)))
        size = np.sqrt(np.maximum((self.seen**2).mean(0), 1e-300))
        told = (slope * self.moved.any(0)).any(1)
        return np.where(told, np.minimum(error / size, NO_DIRECTION), NO_DIRECTION)


def against_outputs(
    explainer: Explainer,
    inputs: Float[np.ndarray, "n *shape"],
    targets: Int[np.ndarray, " n"],
    gradient: Float[np.ndarray, "n *shape"],
    observed: Bool[np.ndarray, "n *shape"],
    generators: Sequence[np.random.Generator],
    *,
    steps: int = STEPS,
) -> Checked:
    """Compare with the service's outputs at `2 * steps` points about each input: an upper estimate of the distance.

    Each input's directions come out of a generator of its own, so that they do not hang on what is checked with it.

    Raises:
        BadAnswer: the service tells no outputs.
    """
    found = differences(explainer, inputs, targets, gradient, observed, generators, steps=steps)
    return Checked(found.distance(gradient), Check.OUTPUTS, found.queries)


def differences(
    explainer: Explainer,
    inputs: Float[np.ndarray, "n *shape"],
    targets: Int[np.ndarray, " n"],
    gradient: Float[np.ndarray, "n *shape"],
    observed: Bool[np.ndarray, "n *shape"],
    generators: Sequence[np.random.Generator],
    *,
    steps: int = STEPS,
) -> Differences:
    """Ask the outputs at `2 * steps` points about each input, as far from it as a gradient of that size calls for."""
    flat, known = (array.reshape(len(inputs), -1).astype(np.float64) for array in (inputs, observed))
    slope = gradient.reshape(len(inputs), -1) * known
    drawn = [generator.choice((-1.0, 1.0), (steps, flat.shape[1])) for generator in generators]
    signs = np.stack(drawn, axis=1) * known
    told = Told(explainer, inputs, targets)
    if not np.isfinite(told.outputs).all():
        raise BadAnswer(
            "The service tells no outputs, so no recovered gradient can be held against them.",
            got=f"{int((~np.isfinite(told.outputs)).sum())} outputs that are no numbers",
            instead="Give the model, or an explainer that answers outputs too.",
        )
    return about(told, inputs, steps_about(inputs, told.outputs, slope, explainer.capabilities), signs)


def about(
    told: Told,
    inputs: Float[np.ndarray, "n *shape"],
    step: Float64[np.ndarray, " n"],
    signs: Float64[np.ndarray, "steps n d"],
    *,
    symmetric: bool = False,
) -> Differences:
    """Ask at pairs of points, first at the given length of step, then, where that was far off, at a better one.

    A gradient of the wrong size calls for steps whose differences are rounding alone, or that reach beyond kinks. A
    coordinate at a bound is moved one way only, or not at all where pairs must be symmetric.
    """
    found = _asked(told, inputs, step, signs, symmetric)
    for _ in range(MENDED):
        size = np.sqrt((found.seen**2).mean(0)) / found.resolution
        better = np.minimum(2 * step * UNITS / np.maximum(size, 1), LONGEST * _typical(inputs))
        off = ((size < FEWEST_UNITS) & (better > step)) | (size > MOST_UNITS)
        if not off.any():
            break
        step = np.where(off, better, step)
        found = _asked(told, inputs, step, signs, symmetric)
    return found


def _asked(
    told: Told,
    inputs: Float[np.ndarray, "n *shape"],
    step: Float64[np.ndarray, " n"],
    signs: Float64[np.ndarray, "steps n d"],
    symmetric: bool,
) -> Differences:
    allowed, flat = told.explainer.capabilities, inputs.reshape(len(inputs), -1).astype(np.float64)
    dtype, bounds = np.dtype(allowed.dtype or inputs.dtype), (allowed.smallest_value, allowed.largest_value)
    length = step[:, None]
    if symmetric:
        signs = signs * ((flat - length >= bounds[0]) & (flat + length <= bounds[1]))
    seen, bent, moved = np.zeros(signs.shape[:2]), np.zeros(signs.shape[:2]), np.zeros(signs.shape)
    for number, sign in enumerate(signs):
        ends = [np.clip(flat + way * length * sign, *bounds).astype(dtype) for way in (1, -1)]
        ahead, behind = (told.at(end.reshape(inputs.shape)) for end in ends)
        seen[number], bent[number] = ahead - behind, ahead + behind - 2 * told.outputs
        # what was sent, after rounding
        moved[number] = ends[0].astype(np.float64) - ends[1]
    # the outputs' own differences tell how large the terms are that they are summed from
    size = np.sqrt((seen**2).mean(0)) / np.maximum(2 * step, 1e-300)
    terms = size * np.sqrt((flat**2).mean(1))
    return Differences(moved, seen, bent, resolution_of(told.outputs, allowed, terms), told.queries)


def resolution_of(
    outputs: Float64[np.ndarray, " n"], allowed: Capabilities, terms: Float64[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    """How far outputs may be from exact ones: the wire's rounding, and that of a float32 network.

    Args:
        outputs: of the service.
        allowed: what the service answers, and its wire.
        terms: the root of `sum_j (x_j g_j)^2`, what a logit is summed from.
    """
    size = np.abs(outputs)
    if allowed.output is Output.PROBABILITIES:
        own = ROUNDING_OF_PROBABILITIES * size
    else:
        # a logit that happens to be small is a difference of as large numbers as the others, and as its own terms
        own = ROUNDING_OF_OUTPUTS * np.maximum(np.maximum(size, np.median(size)), terms)
    found: Float64[np.ndarray, " n"] = grain(outputs, allowed.wire) / np.sqrt(12) + own + allowed.wire.noise
    return found


def steps_about(
    inputs: Float[np.ndarray, "n *shape"],
    outputs: Float64[np.ndarray, " n"],
    slope: Float64[np.ndarray, "n *size"],
    allowed: Capabilities,
) -> Float64[np.ndarray, " n"]:
    """How long a step of each coordinate is that moves an output by enough of what the wire can carry."""
    slope = slope.reshape(len(slope), -1)
    terms = np.linalg.norm(slope * inputs.reshape(slope.shape), axis=1)
    resolution, size, typical = resolution_of(outputs, allowed, terms), np.linalg.norm(slope, axis=1), _typical(inputs)
    with np.errstate(divide="ignore", invalid="ignore"):
        unit = resolution / size
        step = np.minimum(UNITS * unit, np.clip(FEWEST_UNITS * unit, LONGEST * typical, LONGEST_OF_ALL * typical))
    found: Float64[np.ndarray, " n"] = np.where(np.isfinite(step) & (step > 0), step, LONGEST * typical)
    return found


def _typical(inputs: Float[np.ndarray, "n *shape"]) -> Float64[np.ndarray, " n"]:
    """The size of an input's coordinates."""
    size = np.abs(inputs.reshape(len(inputs), -1).astype(np.float64)).mean(1)
    found: Float64[np.ndarray, " n"] = np.maximum(size, 1e-12)
    return found


def of_all(distances: Float64[np.ndarray, " n"], check: Check | None) -> Float64[np.ndarray, " n"]:
    """Distances as figures over all inputs take them: upper estimates less what chance adds to one but not to many.

    A bound of one input's error allows for `STEPS` random directions, one of the median for those of all inputs.

    Example:
        >>> of_all(np.array([0.1]), Check.OUTPUTS).tolist() == [0.1]
        True
        >>> bool(of_all(np.full(100, 0.1), Check.OUTPUTS).max() < 0.05)
        True
    """
    if check is not Check.OUTPUTS:
        return distances
    together = STEPS * len(distances)
    share = np.sqrt(_low_quantile(STEPS) / STEPS / (_low_quantile(together) / together))
    return np.where(distances < NO_DIRECTION, share * distances, distances)


def _low_quantile(freedom: int) -> float:
    """The value that a chi-squared variable exceeds in 19 of 20 cases, by Wilson and Hilferty."""
    spread = 2 / (9 * freedom)
    return float(freedom * (1 - spread + ONE_SIDED_95 * np.sqrt(spread)) ** 3)
