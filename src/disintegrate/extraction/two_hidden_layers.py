"""Exact theft of a fully connected ReLU network with two hidden layers: the first is peeled off, the rest has one.

Where the first layer `h = relu(N x + b)` is known and its normals are independent, every point `h > 0` of its outputs
is reached by the input `x = N^+ (h - b)`, and there

    f(x) = F(h),    grad_x f = grad_h F N:                                                                  (D.2)

a service that explains f in x explains the network F behind the first layer in h, and F has one hidden layer.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from disintegrate.closed_form import single_step
from disintegrate.errors import BadAnswer, InvalidValue
from disintegrate.explainers.protocol import Capabilities, Explainer, Explanation, Request
from disintegrate.extraction.first_layer import STRAY, WORST_CONDITION, FirstLayer, first_layer
from disintegrate.extraction.harness import Copy, answers
from disintegrate.extraction.lines import INSIDE, Domain
from disintegrate.extraction.one_hidden_layer import measured_precision, one_hidden_layer
from disintegrate.extraction.tangents import Oracle, Tangents
from disintegrate.plan import Plan
from disintegrate.planner import Proposal, propose

# The box of the first layer's outputs that is looked through, in multiples of the largest that the inputs make; and how
# close to 0 it comes, where units begin to be off.
BEYOND, CLOSE = 3.0, 1e-3
# Two points this far apart, relative to their size, tell the noise of a gradient: nothing bends between them.
PAIR, PAIRS = 1.0001, 4
# Chords of the box without a new unit after which to stop, and where a unit is missing then, the second time.
QUIET = (40, 300)
# An output of the copy that is further off, as a share of all outputs' norm, says that a unit is missing.
MISSED = 1e-3


def two_hidden_layers(
    explainer: Explainer,
    inputs: Float[np.ndarray, "n *shape"],
    budget: int | None = None,
    *,
    classes: int,
    plan: Plan | Proposal | None = None,
    most_lines: int = 12,
    seed: int = 0,
) -> Copy:
    """Copy a network `W3 relu(W2 relu(W1 x + b1) + b2) + b3` of unknown widths, from explanations.

    Args:
        explainer: the service; its baseline is zero, and it takes inputs of any size.
        inputs: some valid inputs; the second layer is looked for where such lead, and some way beyond.
        budget: the most explanations; where it is spent in the second layer the copy holds what was found until then.
        classes: the model's outputs.
        plan: how gradients are asked for; None for the planner's.
        most_lines: along which the first layer is looked for.
        seed: for the lines.

    Raises:
        InvalidValue: the service takes inputs of a box only, in which the first layer's outputs cannot be chosen.
        BadAnswer: the first layer is not one whose outputs can be chosen: not fully connected, or wider than the input.
        BudgetSpent: before the first layer was known.

    Example:
        >>> from disintegrate import Capabilities, LocalExplainer, single_step
        >>> _ = torch.manual_seed(0)
        >>> layers = nn.Linear(9, 6), nn.ReLU(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)
        >>> victim = nn.Sequential(*layers)
        >>> service = LocalExplainer(victim, Capabilities(rule="riemann_right"))
        >>> x = np.random.default_rng(0).normal(size=(20, 9)).astype(np.float32)
        >>> copy = two_hidden_layers(service, x, classes=3, plan=single_step())
        >>> bool(torch.allclose(copy.model(torch.tensor(x)), victim(torch.tensor(x)), atol=1e-4))
        True
    """
    capabilities = explainer.capabilities
    flat = inputs.reshape(len(inputs), -1).astype(np.float64)
    if Domain(flat, capabilities.smallest_value, capabilities.largest_value).bounded:
        raise InvalidValue(
            "The second layer is reached through inputs of any size.",
            got=f"values within {capabilities.smallest_value:g} to {capabilities.largest_value:g}",
            instead="Use a student where inputs are bounded.",
        )
    oracle = Oracle(explainer, inputs.shape[1:], range(classes), plan or propose(capabilities))
    domain, generator = Domain(flat), np.random.default_rng(seed)
    points = domain.points(generator, PAIRS)
    precision = measured_precision(oracle, oracle.at(points), oracle.at(points / PAIR))
    first = first_layer(oracle, domain, precision, generator, most_lines)
    made = np.maximum(flat @ first.normals.T + first.offsets, 0)
    highest = BEYOND * (float(made.max(initial=0)) or domain.length)
    condition = float(np.linalg.cond(first.normals)) if len(first) else np.inf
    if not first.complete or condition > WORST_CONDITION:
        raise BadAnswer(
            "The first layer is not one whose outputs can be chosen.",
            got=f"{len(first)} units of condition {condition:.3g}; {first.left:.0%} of the gradients are not theirs, "
            f"and up to {first.both:.0%} of a unit's lie where it is off",
            instead="Use a student, unless the first layer is fully connected and narrower than the input: then more "
            "lines.",
        )
    behind = _Behind(oracle, first, highest)
    made = np.maximum(made, CLOSE * highest)
    for quiet in QUIET:
        rest = one_hidden_layer(
            behind, made, budget, classes=classes, plan=single_step(), quiet=quiet, most_lines=2 * quiet, seed=seed
        )
        model = _joined(first, rest.model, oracle.shape)
        missed = _missed(model, first.asked)
        if missed <= STRAY or not rest.complete:
            break
    notes = {
        "units": [len(first), rest.notes["units"]],
        "lines": [first.lines, rest.notes["lines"]],
        "condition": condition,
        "left": first.left,
        "missed": missed,
        **{name: rest.notes[name] for name in ("unparted", "carried", "largest_miss", "noise")},
    }
    return Copy(model, notes, rest.complete)


class _Behind:
    """The network behind the first layer, as a service that explains it by right Riemann sums of one step."""

    def __init__(self, oracle: Oracle, first: FirstLayer, highest: float) -> None:
        self.oracle = oracle
        self.first = first
        self._inverse = np.linalg.pinv(first.normals)
        # the box as far as it is used ends just above 0
        middle, half = (1 + CLOSE) * highest / 2, (1 - CLOSE) * highest / 2 / INSIDE
        self.capabilities = Capabilities(
            rule="riemann_right",
            dtype="float32",
            smallest_value=middle - half,
            largest_value=middle + half,
            wire=oracle.explainer.capabilities.wire,
        )

    def explain(self, request: Request) -> Explanation:
        """Answer about outputs of the first layer by what the service answers about inputs that make them."""
        wanted, rows = np.unique(request.inputs.astype(np.float64), axis=0, return_inverse=True)
        found = self.oracle.at((wanted - self.first.offsets) @ self._inverse.T)
        gradients = found.gradients @ self._inverse
        # what was sent is rounded, and leads a little aside
        reached = found.points @ self.first.normals.T + self.first.offsets
        outputs = found.outputs + np.einsum("nch,nh->nc", gradients, wanted - reached)
        rows = rows.reshape(-1)
        return Explanation(outputs[rows, request.targets], wanted[rows] * gradients[rows, request.targets])


def _missed(model: nn.Module, asked: Tangents) -> float:
    """The share of the points that were asked about the first layer at which the copy answers something else."""
    apart = np.linalg.norm(answers(model, asked.points).numpy() - asked.outputs, axis=1)
    return float((apart > MISSED * np.linalg.norm(asked.outputs, axis=1)).mean())


def _joined(first: FirstLayer, rest: nn.Module, shape: tuple[int, ...]) -> nn.Sequential:
    layer = nn.Linear(int(np.prod(shape)), len(first))
    parts = {"weight": first.normals, "bias": first.offsets}
    layer.load_state_dict({name: torch.tensor(part, dtype=torch.float32) for name, part in parts.items()})
    kept = [module for module in rest.children() if not isinstance(module, nn.Flatten)]
    return nn.Sequential(nn.Flatten(), layer, nn.ReLU(), *kept).eval()
