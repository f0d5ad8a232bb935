"""The gradient of a probability along the ray: a softmax makes it small wherever it is saturated.

    grad p_c = p_c sum_j p_j (grad z_c - grad z_j)

is about as large as `p_c (1 - p_c)`, whatever the logits' gradients do. Where the log odds `l = log(p_c / (1 - p_c))`
are known at some positions, `a(t) = 1 / (2 + exp(l) + exp(-l))` is known between them, and far out, where logits are
straight, `l` is as well. So far out a quadrature hears only its nodes nearest to the baseline: a query of scale
`s = 1 / t_1` puts the first node on the input, and all others where the softmax is saturated (`a(t_2 / t_1)` is next to
nothing beside `a(1)`), so that its answer is the gradient at the input, although the service fixes everything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from disintegrate.walk import Prior

# Log odds at the input where nothing is known, and at the baseline.
USUAL_ODDS = 6.0
# Outputs whose distance to 1 has fewer digits than this much of float32 tell no odds.
LEAST_LEFT = 3e-6
# Odds beyond this change nothing more, and would underflow.
LARGEST_ODDS = 200.0


@dataclass(frozen=True)
class Saturating:
    """A prior behind a softmax, whose log odds are straight between positions where they are known.

    Attributes:
        prior: of the logits' gradients.
        positions: where the log odds are known, in rising order; the first is the baseline.
        odds: the log odds there. Beyond the last they go on as between the last two.

    Example:
        >>> from disintegrate.walk import Walk
        >>> found = Saturating(Walk()).size(np.array([0.0, 1.0, 2.0]))
        >>> bool(found[0] > found[1] == 1 > found[2])
        True
    """

    prior: Prior
    positions: tuple[float, ...] = (0.0, 1.0)
    odds: tuple[float, ...] = (0.0, USUAL_ODDS)

    def clock(self, positions: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """The prior's."""
        return self.prior.clock(positions)

    def size(self, positions: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """`a` at positions, in units of `a(1)`."""
        here, input_ = self._logarithm(positions), self._logarithm(np.array([1.0]))
        found: Float64[np.ndarray, " n"] = np.exp(here - input_)
        return found

    def _logarithm(self, positions: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        known, odds = np.array(self.positions), np.array(self.odds)
        beyond = (odds[-1] - odds[-2]) / (known[-1] - known[-2])
        found = np.interp(positions, known, odds) + beyond * np.maximum(positions - known[-1], 0)
        away = np.minimum(np.abs(found), LARGEST_ODDS)
        logarithm: Float64[np.ndarray, " n"] = -away - 2 * np.log1p(np.exp(-away))
        return logarithm


def saturating(prior: Prior, positions: Float64[np.ndarray, " q"], outputs: Float64[np.ndarray, " q"]) -> Saturating:
    """The prior behind a softmax whose outputs at some positions have come with the answers.

    Outputs next to 1 tell no odds. Where fewer than two positions are left, the usual odds stand in.

    Example:
        >>> from disintegrate.walk import Walk
        >>> outputs = 1 / (1 + np.exp(-4 * np.array([0.5, 1.0])))
        >>> found = saturating(Walk(), np.array([0.5, 1.0]), outputs)
        >>> bool(np.allclose(found.size(np.array([2.0])), np.exp(-4) * (1 + np.exp(-4)) ** 2 / (1 + np.exp(-8)) ** 2))
        True
    """
    told = (outputs > 0) & (1 - outputs > LEAST_LEFT) & (positions > 0)
    order = np.argsort(positions[told])
    places, values = positions[told][order], outputs[told][order]
    places, first = np.unique(places, return_index=True)
    odds = np.log(values[first]) - np.log1p(-values[first])
    if len(places) == 0:
        return Saturating(prior)
    # no answer tells the odds at the baseline; those of two classes that are alike stand in
    places, odds = np.insert(places, 0, 0.0), np.insert(odds, 0, 0.0)
    return Saturating(prior, tuple(places.tolist()), tuple(odds.tolist()))
