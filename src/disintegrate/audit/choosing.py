"""Which plan to take where several rules are possible: each is tried at a few inputs; the outputs judge."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from disintegrate.audit.checking import Differences, differences
from disintegrate.audit.described import Described
from disintegrate.errors import InvalidValue, NotPermitted
from disintegrate.estimate import carry_out
from disintegrate.explainers.protocol import Capabilities, Explainer, Output
from disintegrate.explainers.wrappers import Recording, Remembering
from disintegrate.plan import Plan
from disintegrate.planner import Proposal, Way, propose
from disintegrate.probe.result import NamedRule
from disintegrate.quadrature import Quadrature
from disintegrate.rules import PRESETS, RULES, rule_named

# The most rules with fixed steps that are tried; where all is fixed, what their plans make of the same answers differs
# little (`studies/floor.py`).
MOST_TRIED = 12
# Where nothing else is known of fixed steps, beside what the libraries have.
USUAL_STEPS = 50
# Right sums of so many steps are tried where a softmax leaves of a far answer only the node nearest to the baseline: it
# lies on the input from scale `1 / t_1`. Then others whose first node is there, or nearly so.
FIRST_NODES = tuple(dict.fromkeys(round(1.5**power) for power in range(22)))
NEARBY = (0.82, 0.88, 0.94, 1.06, 1.13, 1.22)
# Queries of each while it is looked for.
FAR_QUERIES = 2


@dataclass(frozen=True)
class Tried:
    """One possible rule, and how its plan did.

    Attributes:
        rule: its name.
        steps: the service's own, if it has this rule and fixes them; None where callers set them.
        distance: between recovered and true gradients, the root mean square of its upper estimates: unlike a median it
            hears every input, of which there are few.
    """

    rule: str
    steps: int | None
    distance: float


@dataclass(frozen=True, eq=False)
class Choice:
    """The rule whose plan the service's outputs bear out best.

    Attributes:
        capabilities: with that rule.
        tried: all that were tried, the best first.
        queries: spent on it.
        length: what its gradients are to be multiplied by, as the outputs at a few inputs say.
    """

    capabilities: Capabilities
    tried: tuple[Tried, ...]
    queries: int
    length: float = 1.0

    def record(self) -> dict[str, Any]:
        """As plain values for JSON."""
        tried = [{"rule": each.rule, "steps": each.steps, "distance": each.distance} for each in self.tried]
        return {"tried": tried, "queries": self.queries, "length": self.length}

    @property
    def sentence(self) -> str:
        """What was chosen, and that it is not known."""
        best = self.tried[0]
        steps = "" if best.steps is None else f" with {best.steps} steps"
        rules = "1 rule was" if len(self.tried) == 1 else f"{len(self.tried)} rules were"
        return (
            f"The service's rule is not known. {rules} tried at a few inputs, and the plan for {best.rule}{steps} "
            "predicted the service's outputs best; the verdict rests on outputs, not on the rule's name."
        )


def choose(
    explainer: Explainer,
    inputs: Float[np.ndarray, "n *shape"],
    targets: Int[np.ndarray, " n"],
    possible: Iterable[Capabilities],
    *,
    starts: Float[np.ndarray, "n *shape"],
    budget: int,
    seed: int = 0,
    fit_length: bool = False,
) -> Choice:
    """Execute the best plan for each of several possible services at a few inputs, and hold each against the outputs.

    Services whose steps are fixed are asked the same points, each once. A plan that the service refuses is left out.

    Args:
        explainer: the service.
        inputs: a few of those to audit.
        targets: the output to explain for each.
        possible: what the service may be.
        starts: the service's own baseline, for each input.
        budget: the most queries for one gradient.
        seed: for the directions of the small steps.
        fit_length: whether the gradients may be of another length, common to all inputs: nodes that are nearly right
            with weights that are not tell the direction.

    Raises:
        InvalidValue: nothing that is possible has a plan that the service takes.
        BadAnswer: the service tells no outputs.

    Example:
        >>> from torch import nn
        >>> from disintegrate import LocalExplainer
        >>> model = nn.Sequential(nn.Linear(9, 20), nn.ReLU(), nn.Linear(20, 2))
        >>> service = LocalExplainer(model, Capabilities("midpoint"))
        >>> x = np.random.default_rng(0).normal(size=(3, 9)).astype(np.float32)
        >>> rules = [Capabilities(rule, baseline=False) for rule in ("riemann_right", "midpoint", "trapezoid")]
        >>> choose(service, x, np.array([0, 1, 0]), rules, starts=0 * x, budget=4).capabilities.rule == "midpoint"
        True
    """
    asked = Recording(explainer)
    memory = Remembering(asked)
    tried: list[tuple[Tried, Capabilities, float]] = []
    seen: Differences | None = None
    for allowed, proposal in _proposals(possible, inputs, starts, budget):
        service = Described(memory, allowed)
        try:
            found = carry_out(service, inputs, targets, proposal, baselines=starts)
            if seen is None:
                generators = [np.random.default_rng([seed, number]) for number in range(len(inputs))]
                seen = differences(service, inputs, targets, found.gradient, found.observed, generators)
        except (NotPermitted, InvalidValue):
            continue  # refused, or no such steps
        fixed = allowed.fewest_steps == allowed.most_steps
        length = seen.length(found.gradient) if fit_length else 1.0
        apart = float(np.sqrt((seen.distance(length * found.gradient) ** 2).mean()))
        tried.append((Tried(allowed.rule, allowed.own_steps if fixed else None, apart), allowed, length))
    if not tried:
        raise InvalidValue(
            "The service takes no plan for any rule that it may have.",
            got=f"{_rows(asked)} queries that were refused",
            instead="Say what it does (rule, steps, baseline), or audit inputs of the kind that it takes.",
        )
    tried.sort(key=lambda each: each[0].distance)
    _, best, length = tried[0]
    return Choice(best, tuple(each for each, *_ in tried), _rows(asked), length)


def choose_behind_softmax(
    explainer: Explainer,
    inputs: Float[np.ndarray, "n *shape"],
    targets: Int[np.ndarray, " n"],
    possible: Iterable[Capabilities],
    known: Capabilities,
    *,
    starts: Float[np.ndarray, "n *shape"],
    seed: int = 0,
) -> Choice:
    """Choose where a softmax is explained and all is fixed: what counts far out is where the first node lies.

    Right sums of many sizes are tried beside what is possible, then whatever has its first node about where the best of
    them has it. Lengths are fitted, for weights stay unknown.

    Raises:
        InvalidValue: nothing that is possible has a plan that the service takes.
        BadAnswer: the service tells no outputs.
    """
    right = [_with_steps(known, "riemann_right", steps) for steps in FIRST_NODES]
    coarse = choose(
        explainer, inputs, targets, [*possible, *right], starts=starts, budget=FAR_QUERIES, seed=seed, fit_length=True
    )
    nodes = rule_named(coarse.capabilities.rule)(coarse.capabilities.own_steps).nodes
    near = _with_first_node(known, float(1 / nodes[nodes > 0].min()))
    fine = choose(
        explainer, inputs, targets, [coarse.capabilities, *near], starts=starts, budget=FAR_QUERIES, seed=seed,
        fit_length=True,
    )  # fmt: skip
    tried = sorted({*coarse.tried, *fine.tried}, key=lambda each: each.distance)
    return replace(fine, tried=tuple(tried), queries=coarse.queries + fine.queries)


def _with_first_node(known: Capabilities, scale: float) -> Iterator[Capabilities]:
    """Right sums whose first node lies on the input from about this scale, and of each rule the one that is nearest."""
    for steps in dict.fromkeys(round(scale * factor) for factor in NEARBY):
        yield _with_steps(known, "riemann_right", max(steps, 1))
    for rule in RULES:
        away: dict[int, float] = {}
        for steps in range(1, 101):
            try:
                nodes = rule_named(rule)(steps).nodes
            except InvalidValue:
                continue  # no such steps
            if nodes.min() > 0:
                away[steps] = abs(math.log(float(nodes.min()) * scale))
        if away:
            yield _with_steps(known, rule, min(away, key=away.__getitem__))


def _with_steps(known: Capabilities, rule: str, steps: int) -> Capabilities:
    return replace(known, rule=rule, fewest_steps=steps, most_steps=steps, default_steps=steps)


def _rows(asked: Recording) -> int:
    return sum(len(request.inputs) for request in asked.requests)


def rules_left(possible: tuple[NamedRule, ...], known: Capabilities) -> Iterator[Capabilities]:
    """What a service may be whose rule stayed unknown: each rule once with free steps, else rules with their steps.

    Example:
        >>> free = Capabilities("unknown", 1, 100)
        >>> {allowed.rule for allowed in rules_left((), free)} <= set(RULES)
        True
    """
    if known.fewest_steps != known.most_steps:
        yield from (replace(known, rule=rule) for rule in RULES)
        return
    usual = [NamedRule(preset.rule, preset.steps) for preset in PRESETS.values()]
    told = [NamedRule(known.rule, known.own_steps)] if known.rule in RULES else []
    more = [NamedRule(rule, USUAL_STEPS) for rule in RULES]
    heads: list[Quadrature] = []
    for named in (*told, *usual, *possible[:MOST_TRIED], *more):
        found = rule_named(named.rule)(named.steps)
        if len(heads) == MOST_TRIED or any(alike(found, head) for head in heads):
            continue
        heads.append(found)
        yield _with_steps(known, named.rule, named.steps)


def alike(first: Quadrature, second: Quadrature) -> bool:
    """Whether nodes and weights agree to 1e-6, so that one name is as right as the other."""
    return first.steps == second.steps and bool(
        np.allclose(first.nodes, second.nodes, atol=1e-6) and np.allclose(first.weights, second.weights, atol=1e-6)
    )


def _proposals(
    possible: Iterable[Capabilities],
    inputs: Float[np.ndarray, "n *shape"],
    starts: Float[np.ndarray, "n *shape"],
    budget: int,
) -> Iterator[tuple[Capabilities, Proposal]]:
    """A plan for each that may be; the same plan once, and estimates from the points of the first of them."""
    plans: set[str] = set()
    first: Proposal | None = None
    for allowed in possible:
        # behind a softmax each rule goes as far out as its own nodes want it to
        shared = allowed.output is not Output.PROBABILITIES
        if first is not None and shared and allowed.fewest_steps == allowed.most_steps:
            yield allowed, _asked_at(first, allowed)
            continue
        lowest, highest = allowed.reach(inputs, starts)
        try:
            proposal = propose(allowed, budget=budget, lowest=lowest, highest=highest)
        except InvalidValue:
            continue  # the rule has no such steps
        if proposal.way is Way.KRIGING and shared:
            first = first or proposal
            yield allowed, _asked_at(first, allowed)
        elif (text := proposal.plan.to_json()) not in plans:
            plans.add(text)
            yield allowed, proposal


def _asked_at(first: Proposal, allowed: Capabilities) -> Proposal:
    """The estimate for a service from the points that the first one is asked; its weights are made of the answers."""
    queries = [replace(term.query, steps=allowed.own_steps) for term in first.plan]
    return replace(first, plan=Plan((1.0, query) for query in queries))
