"""Exact theft of a fully connected ReLU network with one hidden layer, of unknown width, from explanations."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float64

from disintegrate.errors import BadAnswer, BudgetSpent, InvalidValue
from disintegrate.explainers.protocol import Explainer
from disintegrate.extraction.bends import SIGNAL, Bends, Precision, bends
from disintegrate.extraction.harness import Copy
from disintegrate.extraction.hidden_units import HiddenUnits, merged, network
from disintegrate.extraction.lines import Domain, reachable
from disintegrate.extraction.orientation import oriented
from disintegrate.extraction.settling import settled
from disintegrate.extraction.tangents import Oracle, Tangents
from disintegrate.plan import Plan
from disintegrate.planner import Proposal, propose

# Two points this far apart, relative to their size, tell the noise of a gradient: nothing bends between them.
APART = 1.01
# Below this share of the largest, a norm says nothing of the noise.
SMALL = 1e-6
# Points lie so many times the doubts' size times their number from hyperplanes, so that most are sure of all of them.
CROWDED, STAGES = 20.0, 8
# How much further out than its first node demands.
FAR = 1000.0
# The largest doubt about an offset, in multiples of how far a random point lies from a hyperplane through the middle.
TOLERABLE = 0.01


def one_hidden_layer(
    explainer: Explainer,
    inputs: Float[np.ndarray, "n *shape"],
    budget: int | None = None,
    *,
    classes: int,
    plan: Plan | Proposal | None = None,
    far: bool = False,
    quiet: int | None = None,
    most_lines: int = 200,
    seed: int = 0,
) -> Copy:
    """Copy a network `V relu(W x + b) + c` up to order and positive scale of its units, and prove it on the way.

    Along a random line every bend is a unit: see `bends`. Further lines look for what the first one missed, until some
    in a row show nothing new; where inputs are confined to a box the lines are its chords, and what bends nowhere in
    the box is linear there. Then offsets are settled near the data, and the linear rest turns each unit to its side.

    Units on one hyperplane are one function of the input and come back as one: no answer of the service tells them
    apart. Neither does any tell of a unit without output weights.

    Args:
        explainer: the service; its baseline is zero.
        inputs: some valid inputs; their size alone matters where nothing bounds the inputs.
        budget: the most explanations; where it is spent the copy holds what was found until then.
        classes: the model's outputs.
        plan: how gradients are asked for; None for the planner's.
        far: whether the lines run so far out that every node of the service's rule lies behind all bends of its ray:
            plain answers are exact gradients there, `bias_free(m)`, whatever the service freezes.
        quiet: lines without a new unit after which to stop; None for 2, and for 12 in a box.
        most_lines: in all.
        seed: for the lines.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from disintegrate import Capabilities, LocalExplainer, single_step
        >>> victim = nn.Sequential(nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3))
        >>> service = LocalExplainer(victim, Capabilities(rule="riemann_right"))
        >>> x = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
        >>> copy = one_hidden_layer(service, x, classes=3, plan=single_step())
        >>> bool(torch.allclose(copy.model(torch.tensor(x)), victim(torch.tensor(x)), atol=1e-4))
        True
    """
    oracle = Oracle(explainer, inputs.shape[1:], range(classes), plan or propose(explainer.capabilities))
    flat = inputs.reshape(len(inputs), -1).astype(np.float64)
    capabilities = explainer.capabilities
    domain = Domain(flat, capabilities.smallest_value, capabilities.largest_value)
    if domain.bounded and far:
        raise InvalidValue("In a box there is nothing far out.", got="far=True", instead="Leave it out.")
    nothing = HiddenUnits.none(flat.shape[1], classes)
    stretch = oracle.stretch if far else 1.0
    theft = _Theft(oracle, domain, stretch, np.random.default_rng(seed), confirm=classes == 1, known=nothing)
    complete = True
    try:
        theft.search(quiet or (12 if domain.bounded else 2), most_lines)
        theft.settle()
    except BudgetSpent:
        complete = False
    return theft.copy(complete=complete)


@dataclass(frozen=True)
class Notes:
    """What the method says of its copy.

    Attributes:
        lines: that were looked along.
        unparted: places of a line where several units lay too close together to tell apart.
        units: that were found; those on one hyperplane count as one.
        carried: units that carry a linear rest which turning the others does not explain.
        largest_miss: of an output near the data, in standard deviations of its noise; far above 6 nothing is exact.
        noise: of a gradient, relative to its norm, as measured.
    """

    lines: int
    unparted: int
    units: int = 0
    carried: int = 0
    largest_miss: float | None = None
    noise: float | None = None


@dataclass(eq=False)
class _Theft:
    """What is known so far."""

    oracle: Oracle
    domain: Domain
    stretch: float
    generator: np.random.Generator
    confirm: bool
    known: HiddenUnits
    asked: Tangents | None = None
    precision: Precision | None = None
    miss: float | None = None
    rest: _Rest | None = None
    lines: int = 0
    unparted: int = 0

    def search(self, quiet: int, most_lines: int) -> None:
        """Look along lines until some in a row show nothing new."""
        silent = 0
        while silent < quiet and self.lines < most_lines:
            found = self._line()
            if found is not None:
                silent = 0 if len(found.units) else silent + 1

    def _line(self) -> Bends | None:
        """Look along one line; None where the service is too sure somewhere on it to be asked there."""
        far = self.domain.scaled(self.stretch * (FAR if self.stretch > 1 else 1))
        line, ends = reachable(self.oracle, far.line(self.generator))
        if self.precision is None:
            self.precision = measured_precision(self.oracle, ends, self.oracle.at(ends.points / APART))
        self.lines += 1
        try:
            found = bends(
                self.oracle.at, self.known, line, self.precision, ends,
                confirm=self.confirm, tolerable=TOLERABLE * far.spacing,
            )  # fmt: skip
        except BadAnswer:
            return None
        self.asked = found.asked if self.asked is None else self.asked.joined(found.asked)
        self.known = merged(self.known.joined(found.units)) if len(self.known) else found.units
        self.unparted += found.unparted
        return found

    def settle(self) -> None:
        """Ask near the data, for as many outputs as there are offsets in doubt, and half as many again.

        Where the doubts are large the points lie further out first, so that most of them lie surely on one side or the
        other of every hyperplane.
        """
        classes, spacing = self.known.weights.shape[1], self.domain.spacing
        if self.asked is None or self.precision is None:
            return
        if self.stretch > 1:
            # The node closest to the baseline is the last to cross a hyperplane, so far out offsets are hardly seen.
            doubts = np.maximum(self.known.doubts, self.stretch * spacing)
            self.known = replace(self.known, doubts=doubts)
        self.rest = _linear_rest(self.known, self.asked, self.precision)
        count = max(2, math.ceil(1.5 * (len(self.known) + classes) / classes))
        for stage in range(STAGES):
            crowded = CROWDED * len(self.known) * float(np.quantile(self.known.doubts, 0.9)) if len(self.known) else 0.0
            last = stage == STAGES - 1 or self.domain.bounded or crowded <= spacing
            scale = 1.0 if last else crowded / spacing
            near = self.oracle.at(scale * self.domain.points(self.generator, count))
            self.known, level, self.miss = settled(self.known, self.rest.slope, self.rest.level, near, self.precision)
            self.rest = replace(self.rest, level=level)
            if last:
                break

    def copy(self, *, complete: bool) -> Copy:
        """The network that is known."""
        units, notes = self.known, Notes(self.lines, self.unparted)
        if self.asked is None or self.precision is None:
            level = np.zeros(units.weights.shape[1])
            return Copy(network(units, level, shape=self.oracle.shape), vars(notes), complete)
        rest = self.rest or _linear_rest(units, self.asked, self.precision)
        whole = oriented(units, rest.slope, rest.level, rest.noise)
        notes = Notes(self.lines, self.unparted, len(units), whole.carried, self.miss, self.precision.gradients)
        return Copy(network(whole.units, whole.bias, shape=self.oracle.shape), vars(notes), complete)


def measured_precision(oracle: Oracle, first: Tangents, second: Tangents) -> Precision:
    """From pairs of points that one linear piece should hold, and no better than the arithmetic."""
    differences = np.linalg.norm((second.gradients - first.gradients).reshape(len(first), -1), axis=1)
    sizes = np.linalg.norm(first.gradients.reshape(len(first), -1), axis=1)
    # A bend between the two of a pair is not noise.
    measured = float((differences / np.maximum(sizes, 1e-300)).min()) / math.sqrt(2)
    epsilon = float(np.finfo(oracle.dtype).eps)
    wire = oracle.explainer.capabilities.wire.relative
    return Precision(max(measured, oracle.rounding), math.hypot(epsilon, wire), epsilon)


@dataclass(frozen=True, eq=False)
class _Rest:
    """The linear rest `A x + e`, and the noise that `A` may have."""

    slope: Float64[np.ndarray, "classes d"]
    level: Float64[np.ndarray, " classes"]
    noise: float


def _linear_rest(units: HiddenUnits, asked: Tangents, precision: Precision) -> _Rest:
    """What the units leave: the mean of what every tangent says of it, and the noise that its slope may have.

    A point that lies on a hyperplane within the doubt about it may be taken to its wrong side; it says nothing.
    """
    sure = units.sure(asked.points)
    asked = asked.chosen(np.flatnonzero(sure)) if sure.any() else asked
    rest = units.less(asked)
    sizes = np.linalg.norm(asked.gradients.reshape(len(asked), -1), axis=1)
    sizes = np.maximum(sizes, max(SMALL * float(sizes.max()), 1e-30))
    slope = np.einsum("n,ncd->cd", sizes**-2 / (sizes**-2).sum(), rest.gradients)
    levels = rest.outputs - rest.points @ slope.T
    spread = np.abs(asked.outputs).max(1) + np.linalg.norm(asked.points, axis=1) * np.linalg.norm(slope)
    trust = np.maximum(spread, max(SMALL * float(spread.max()), 1e-30)) ** -2
    noise = SIGNAL * precision.gradients * float(sizes.mean()) * math.sqrt(1 + len(units))
    return _Rest(slope, trust @ levels / trust.sum(), noise)
