"""Inputs at which the outputs have a kink, and inputs beside them where there is a gradient to recover.

Max pooling over equal neighbours, as in the constant background of an image, ties: the output has a kink at the input
itself, whichever way one goes. A service then answers one of several gradients, and no small step tells which. With
steps `u`, the second difference shows it, which vanishes with the step's length where there is a gradient:

    |f(x + h u) - 2 f(x) + f(x - h u)| / |f(x + h u) - f(x - h u)|.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from disintegrate.audit.checking import about, steps_about
from disintegrate.audit.telling import Told
from disintegrate.explainers.protocol import Capabilities, Explainer

# Inputs and steps by which kinks are looked for; the median share of the second difference where they are there.
FEW, STEPS, KINKED = 4, 4, 0.1
# So many variances of an output's rounding are no kink: (1 + 4 + 1) of the second difference, with a margin of 4.
ROUNDED = 24.0
# How far inputs are moved, as a share of the mean size of their coordinates.
MOVED = 0.01


@dataclass(frozen=True, eq=False)
class Beside:
    """Inputs where there is a gradient.

    Attributes:
        inputs: the given ones, or others close by.
        moved_by: root mean square change of a coordinate that was moved; 0 where none was.
        queries: spent on looking for kinks.
    """

    inputs: Float[np.ndarray, "n *shape"]
    moved_by: float
    queries: int

    @property
    def note(self) -> str:
        """What was done, as a sentence."""
        return (
            "The outputs have a kink at the inputs themselves, as max pooling over equal neighbours makes one, so "
            "there is no gradient there that outputs could confirm; each coordinate was moved by "
            f"{self.moved_by:.2g} or so."
        )


def beside_kinks(
    explainer: Explainer,
    inputs: Float[np.ndarray, "n *shape"],
    targets: Int[np.ndarray, " n"],
    starts: Float[np.ndarray, "n *shape"],
    *,
    seed: int = 0,
) -> Beside:
    """The inputs as they are, or moved a little where a few of them have a kink at the very point.

    Coordinates that equal the baseline stay: no answer tells of them. A service that tells no outputs gets its inputs
    back.

    Example:
        >>> from torch import nn
        >>> from disintegrate import LocalExplainer
        >>> model = nn.Sequential(nn.Linear(5, 9), nn.Tanh(), nn.Linear(9, 2))
        >>> smooth = LocalExplainer(model, Capabilities("midpoint"))
        >>> x = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
        >>> beside_kinks(smooth, x, np.array([0, 1, 0, 1]), 0 * x).moved_by == 0
        True
    """
    few, generator, allowed = slice(0, FEW), np.random.default_rng(seed), explainer.capabilities
    x, b = inputs[few], starts[few]
    told = Told(explainer, x, targets[few])
    middle = told.outputs
    if not np.isfinite(middle).all():
        return Beside(inputs, 0.0, told.queries)
    moved = x.astype(np.float64) - b
    # whatever the rule, an answer divided by what was moved has about the gradient's size
    slope = np.divide(told.attribution, moved, out=np.zeros(moved.shape), where=moved != 0)
    signs = generator.choice((-1.0, 1.0), (STEPS, *x.shape)) * (moved != 0)
    step = steps_about(x, middle, slope, allowed)
    found = about(told, x, step, signs.reshape(STEPS, len(x), -1), symmetric=True)
    # three outputs of which each is rounded, and which a float32 network or a wire may round far
    rounding = ROUNDED * found.resolution**2
    kinked = (found.bent**2).mean(0) > KINKED**2 * (found.seen**2).mean(0) + rounding
    if np.median(kinked) < 1:
        return Beside(inputs, 0.0, told.queries)
    beside = _moved(allowed, inputs, starts, generator)
    change = (beside.astype(np.float64) - inputs)[inputs != starts]
    return Beside(beside, float(np.sqrt((change**2).mean())) if change.size else 0.0, told.queries)


def _moved(
    allowed: Capabilities,
    inputs: Float[np.ndarray, "n *shape"],
    starts: Float[np.ndarray, "n *shape"],
    generator: np.random.Generator,
) -> Float[np.ndarray, "n *shape"]:
    wide = inputs.astype(np.float64)
    size = MOVED * np.abs(wide).reshape(len(wide), -1).mean(1).reshape(-1, *[1] * (wide.ndim - 1))
    noise = size * generator.normal(size=wide.shape) * (inputs != starts)
    moved: Float[np.ndarray, "n *shape"] = np.clip(wide + noise, allowed.smallest_value, allowed.largest_value)
    return moved.astype(inputs.dtype)
