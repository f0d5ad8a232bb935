"""Outputs of a service, with as many digits as it can tell of them.

A probability next to 1 has no digits left for what is missing to 1. There the probabilities of all other classes are
asked for: `f = 1 - sum_j p_j` changes as their sum does, which has all of its digits.
"""

from __future__ import annotations

from typing import final

import numpy as np
from jaxtyping import Float, Float64, Int

from disintegrate.errors import BadAnswer, InDoubt, InvalidValue, NotPermitted, Unreachable
from disintegrate.explainers.protocol import Explainer, Explanation, Output, Request

# A probability so close to 1 is told by those of the other classes, of which at most so many are looked for.
SATURATED, MOST_CLASSES = 0.999, 20
# How far the probabilities of all classes may be from a sum of 1, by their rounding.
SUM_OF_ALL = 0.05


@final
class Told:
    """Outputs that change as the explained ones do, with as many digits as the service can tell of them.

    Attributes:
        outputs: at the inputs; for a saturated probability what is missing to 1, with a minus.
        attribution: of the service at the inputs.
        saturated: the inputs whose probability is next to 1.
        queries: spent so far.
    """

    def __init__(
        self, explainer: Explainer, inputs: Float[np.ndarray, "n *shape"], targets: Int[np.ndarray, " n"]
    ) -> None:
        self.explainer, self.targets = explainer, targets
        answer = _answer(explainer, inputs, targets)
        self.outputs, self.queries = np.array(answer.output, np.float64), len(inputs)
        self.attribution = np.asarray(answer.attribution, np.float64)
        soft = explainer.capabilities.output is Output.PROBABILITIES
        self.saturated = np.flatnonzero(self.outputs > SATURATED) if soft else np.zeros(0, int)
        self.classes: tuple[int, ...] = ()
        if len(self.saturated):
            self.classes = self._all_classes(inputs)
            self.outputs[self.saturated] = self._others(inputs)

    def at(self, points: Float[np.ndarray, "n *shape"]) -> Float64[np.ndarray, " n"]:
        """The same outputs elsewhere."""
        plain = np.setdiff1d(np.arange(len(points)), self.saturated)
        found = np.zeros(len(points))
        if len(plain):
            found[plain] = _outputs(self.explainer, points[plain], self.targets[plain])
            self.queries += len(plain)
        if len(self.saturated):
            found[self.saturated] = self._others(points)
        return found

    def _all_classes(self, inputs: Float[np.ndarray, "n *shape"]) -> tuple[int, ...]:
        """All that the service has; none where they are too many, or do not add up."""
        row, total = self.saturated[:1], 0.0
        for target in range(MOST_CLASSES + 1):
            self.queries += 1
            try:
                total += float(_outputs(self.explainer, inputs[row], np.array([target]))[0])
            except (NotPermitted, InvalidValue, BadAnswer):
                complete = target > 1 and abs(total - 1) < SUM_OF_ALL
                return tuple(range(target)) if complete else ()
            except (Unreachable, InDoubt):
                break  # no refusal, so nobody knows whether this was the last class
        return ()

    def _others(self, points: Float[np.ndarray, "n *shape"]) -> Float64[np.ndarray, " k"]:
        part, own = points[self.saturated], self.targets[self.saturated]
        if not self.classes:
            self.queries += len(part)
            return _outputs(self.explainer, part, own)
        missing = np.zeros(len(part))
        for target in self.classes:
            rows = np.flatnonzero(own != target)
            if len(rows):
                missing[rows] += _outputs(self.explainer, part[rows], np.full(len(rows), target))
                self.queries += len(rows)
        return -missing


def _outputs(
    explainer: Explainer, points: Float[np.ndarray, "n *shape"], targets: Int[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    return np.asarray(_answer(explainer, points, targets).output, np.float64)


def _answer(explainer: Explainer, points: Float[np.ndarray, "n *shape"], targets: Int[np.ndarray, " n"]) -> Explanation:
    """By as few steps as may be, since the outputs do not hang on them."""
    fewest = explainer.capabilities.fewest_steps
    asked = fewest if fewest != explainer.capabilities.most_steps else None
    return explainer.explain(Request(points, None, targets, asked))
