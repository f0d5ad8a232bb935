"""What an audit does at each block of inputs: execute the plan, and hold what it recovered against the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import nn

from disintegrate.audit.checking import against_model, against_outputs
from disintegrate.audit.described import Described
from disintegrate.audit.engines.protocol import Block, Found
from disintegrate.audit.truth import true_gradients
from disintegrate.estimate import carry_out
from disintegrate.explainers.protocol import Capabilities, Explainer
from disintegrate.planner import Proposal


@dataclass(frozen=True, eq=False)
class Recovering:
    """The work of an audit at any block.

    Attributes:
        capabilities: what the service lets its callers do.
        proposal: the plan.
        baseline: the service's own where it is not zero.
        model: what the gradients are held against; None for the service's own outputs.
        seed: of the directions of the check, with the number of each input.
        length: what each gradient is multiplied by, where weights of the rule are not known.
    """

    capabilities: Capabilities
    proposal: Proposal
    baseline: Float[np.ndarray, "*shape"] | None
    model: nn.Module | None
    seed: int
    length: float = 1.0

    def __call__(self, explainer: Explainer, block: Block) -> Found:
        """Do a block."""
        service, asked = Described(explainer, self.capabilities), (block.inputs, block.targets)
        got = carry_out(service, *asked, self.proposal, baselines=starts_of(block.inputs, self.baseline))
        gradient = self.length * got.gradient
        if self.model is not None:
            checked = against_model(true_gradients(self.model, *asked), gradient, got.observed)
        else:
            numbers = range(block.first, block.first + len(block.inputs))
            generators = [np.random.default_rng([self.seed, number]) for number in numbers]
            checked = against_outputs(service, *asked, gradient, got.observed, generators)
        return Found(
            first=block.first,
            gradient=gradient,
            observed=got.observed,
            distance=checked.distance,
            check=checked.check,
            queries_for_plan=got.queries,
            queries_for_check=checked.queries,
        )


def starts_of(
    inputs: Float[np.ndarray, "n *shape"], baseline: Float[np.ndarray, "*shape"] | None
) -> Float[np.ndarray, "n *shape"]:
    """Where the rays begin."""
    if baseline is None:
        return np.zeros_like(inputs)
    return np.broadcast_to(baseline.astype(inputs.dtype), inputs.shape).copy()
