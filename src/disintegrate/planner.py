"""The best plan for what a service permits: exact where one exists, else the estimate of least predicted error."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import numpy as np

from disintegrate.errors import InvalidValue
from disintegrate.exact import (
    Reach,
    asked_of,
    cascade,
    exact_plans,
    far_plans,
    nearly_exact_plans,
    reach_of,
    window_plans,
)
from disintegrate.explainers.protocol import Capabilities, Output
from disintegrate.kriging import krige, predicted_distance
from disintegrate.measure import Measure
from disintegrate.noise import Noise, noise_of
from disintegrate.plan import Plan, Query, Term
from disintegrate.quadrature import Rule
from disintegrate.rules import rule_named
from disintegrate.saturating import Saturating
from disintegrate.scales import choose_queries, pool_of
from disintegrate.walk import Prior, Walk

# Errors this close count as equal, and then fewer queries and less amplification win.
AS_GOOD_AS = 1.1
# Where an exact plan errs by less, estimates are not looked at.
NEEDS_NO_ESTIMATE = 1e-4
# A cascade whose rule has many nodes leaves too many atoms to push along.
MOST_NODES_OF_A_CASCADE, LONGEST_CASCADE = 6, 24
# Behind a softmax so many queries go far out, and at least so many are asked in all: outputs then tell which to hear.
FAR_OUT, FEWEST_BEHIND_SOFTMAX = 2, 5


class Way(Enum):
    """How a plan was made; the value is the sentence shown."""

    EXACT = "queries that cancel to the gradient at the input"
    NEARLY_EXACT = "queries that would cancel if the library did not round its nodes"
    WINDOW = "a window from a baseline close to the input"
    CASCADE = "a cascade that pushes what is not wanted along the ray"
    KRIGING = "the best linear estimate from fixed queries"


@dataclass(frozen=True, eq=False)
class Proposal:
    """A plan for a service, with what to expect of it.

    Attributes:
        plan: the queries and coefficients.
        measure: what it measures under the service's rule.
        predicted_error: distance to expect between the recovered and the true gradient.
        way: how the plan was made.
    """

    plan: Plan
    measure: Measure
    predicted_error: float
    way: Way


def propose(
    capabilities: Capabilities,
    *,
    budget: int = 10,
    lowest: float = -math.inf,
    highest: float = math.inf,
    walk: Prior | None = None,
    noise: Noise | None = None,
) -> Proposal:
    """Find the plan of least predicted error within a budget of queries for each input.

    All that may be asked is tried: plans that measure delta_1, windows from a baseline of the caller's own, cascades,
    and kriging. Of those within a tenth of the least error, the one with fewest queries wins, then the one with least
    amplification.

    Args:
        capabilities: of the service.
        budget: the most queries for one input.
        lowest: the least position on the ray that may be asked; `capabilities.reach` tells it for given inputs.
        highest: the largest.
        walk: what is known of the gradient along the ray; None for the walk of a typical network, behind a softmax
            where probabilities are explained.
        noise: on the answers; None for what the capabilities tell.

    Raises:
        InvalidValue: a budget below 1, bounds that shut out the input, steps that the rule does not have.
        UnknownName: the capabilities name no rule of this package.

    Example:
        >>> from disintegrate.measure import Exactness
        >>> found = propose(Capabilities(rule="riemann_right", fewest_steps=20, most_steps=100, baseline=False))
        >>> found.measure.exactness is Exactness.EVERY_MODEL and len(found.plan) == 2
        True
    """
    if budget < 1:
        raise InvalidValue("A plan needs a query.", got=f"budget={budget}", instead="Use budget=1 or more.")
    if lowest > 0 or highest < 1:
        raise InvalidValue(
            "The positions that may be asked must hold the baseline, 0, and the input, 1.",
            got=f"{lowest:g} to {highest:g}",
            instead="Use capabilities.reach(inputs, baselines).",
        )
    rule = rule_named(capabilities.rule)
    walk = walk or (Saturating(Walk()) if capabilities.output is Output.PROBABILITIES else Walk())
    noise = noise or noise_of(capabilities)
    reach = reach_of(capabilities, lowest=lowest, highest=highest)
    found = [
        Proposal(plan, plan.measure(rule), predicted_distance(plan, rule, walk, noise), way)
        for plan, way in _candidates(rule, capabilities, reach, budget, walk, noise)
        if len(plan) <= budget
    ]
    if not found:
        raise InvalidValue(
            "The rule has no such steps, so there is nothing to ask.",
            got=f"{capabilities.rule} with {reach.fewest_steps} to {reach.most_steps} steps",
            instead="Check rule and steps, or probe the service.",
        )
    least = min(proposal.predicted_error for proposal in found)
    good = [proposal for proposal in found if proposal.predicted_error <= AS_GOOD_AS * least]
    # Amplifications equal but for rounding leave the choice to the order above.
    return min(good, key=lambda proposal: (len(proposal.plan), round(proposal.plan.amplification, 9)))


Ways = Iterator[tuple[Plan, Way]]


def _candidates(rule: Rule, capabilities: Capabilities, reach: Reach, budget: int, walk: Prior, noise: Noise) -> Ways:
    plans = [plan for plan in exact_plans(rule, reach) if len(plan) <= budget]
    yield from _with_repeats(((plan, Way.EXACT) for plan in plans), budget, noise)
    if noise.absolute:
        yield from _with_repeats(((plan, Way.EXACT) for plan in far_plans(rule, reach)), budget, noise)
    for plan in nearly_exact_plans(rule, reach):
        yield plan, Way.NEARLY_EXACT
    # The wire must carry a difference: a window spans at least some units in the last place of the input.
    narrowest = max(64 * float(np.finfo(capabilities.dtype or "float32").eps), 1e-9)
    windows = ((plan, Way.WINDOW) for plan in window_plans(rule, reach, narrowest))
    yield from _with_repeats(windows, budget, noise)
    if any(len(plan) == 1 for plan in plans) or reach.baseline:
        return
    if plans and predicted_distance(plans[0], rule, walk, noise) < NEEDS_NO_ESTIMATE:
        return
    few = asked_of(rule, reach.fewest_steps)
    # no output of a cascade tells whether a softmax is as saturated as is usual
    if few is not None and few.steps <= MOST_NODES_OF_A_CASCADE and not isinstance(walk, Saturating):
        yield from _cascades(rule, reach.fewest_steps, reach, budget)
    # More steps leave less to guess between the nodes.
    steps = min(reach.most_steps, max(capabilities.own_steps, reach.fewest_steps))
    if asked_of(rule, steps) is not None:
        for queries in _estimates(rule, steps, reach.highest, budget, walk, noise):
            yield krige(queries, rule, walk, noise), Way.KRIGING


def _estimates(rule: Rule, steps: int, highest: float, budget: int, walk: Prior, noise: Noise) -> Iterator[list[Query]]:
    """Queries of several sizes, chosen by the error that they predict.

    Behind a softmax some go where it is saturated, others where it may not be if its logits stay small.
    """
    before = walk.prior if isinstance(walk, Saturating) else walk
    near = pool_of(rule, steps, highest, before, noise)
    far = pool_of(rule, steps, highest, walk, noise) if isinstance(walk, Saturating) else None
    for count in sorted({1, 2, 3, 5, 10, 20, budget}):
        if count > budget or (far is not None and count < min(budget, FEWEST_BEHIND_SOFTMAX)):
            continue
        chosen = [] if far is None else choose_queries(far, min(FAR_OUT, count))
        if count > len(chosen):
            chosen = list(dict.fromkeys([*chosen, *choose_queries(near, count - len(chosen))]))
        yield sorted(chosen, key=lambda query: query.stop)


def _cascades(rule: Rule, steps: int, reach: Reach, budget: int) -> Ways:
    for outwards in (True, False):
        for count in range(2, min(budget, LONGEST_CASCADE) + 1):
            plan = cascade(rule, steps, count, outwards=outwards)
            if plan is not None and all(reach.permits(term.query) for term in plan):
                yield plan, Way.CASCADE


def _with_repeats(ways: Ways, budget: int, noise: Noise) -> Ways:
    for plan, way in ways:
        yield plan, way
        if noise.repeats_average and 2 * len(plan) <= budget:
            yield repeated(plan, budget // len(plan)), way


def repeated(plan: Plan, times: int) -> Plan:
    """The same queries several times over, to average noise that is drawn anew.

    Example:
        >>> from disintegrate.closed_form import step_count
        >>> math.isclose(repeated(step_count(50), 4).amplification, step_count(50).amplification / 2)
        True
    """
    return Plan(Term(term.coefficient / times, term.query) for _ in range(times) for term in plan)
