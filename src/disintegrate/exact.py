"""Exact plans for any rule: sets of queries that may cancel to the gradient at the input, and the cancelling itself.

Nothing here is labelled exact. A set of queries is solved for coefficients, and what comes out is kept where
its measure is delta_1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from disintegrate.errors import InvalidValue
from disintegrate.explainers.protocol import Capabilities
from disintegrate.measure import ATOM_TOLERANCE, Exactness
from disintegrate.plan import Plan, Query
from disintegrate.quadrature import Quadrature, Rule

# Two nodes closer than this, relative to the ray, are one.
SAME_NODE = 1e-12
# Lengths of a ray through the input that outweigh noise; float32 still places its node to a ten-thousandth.
FAR = (4.0, 16.0, 64.0, 256.0)
# Those that float32 rounding has set apart.
ALMOST_ONE_NODE = 1e-6


@dataclass(frozen=True)
class Reach:
    """The positions on the ray that may be asked, and the steps.

    Attributes:
        lowest: the least position; a ray that must begin at the baseline has none below 0.
        highest: the largest position.
        fewest_steps: the smallest step count.
        most_steps: the largest step count.
        baseline: whether a query may start elsewhere than at 0.
    """

    lowest: float
    highest: float
    fewest_steps: int
    most_steps: int
    baseline: bool

    def permits(self, query: Query) -> bool:
        """Whether a query may be asked."""
        ends = (query.start, query.stop)
        slack = 1e-12
        return (
            self.fewest_steps <= query.steps <= self.most_steps
            and all(self.lowest - slack <= end <= self.highest * (1 + slack) for end in ends)
            and (self.baseline or query.start == 0)
        )


def reach_of(capabilities: Capabilities, *, lowest: float = -np.inf, highest: float = np.inf) -> Reach:
    """What a service permits, on a ray whose positions between two bounds lie within its values."""
    return Reach(
        lowest=max(lowest, -capabilities.furthest),
        highest=min(highest, capabilities.furthest),
        fewest_steps=capabilities.fewest_steps,
        most_steps=capabilities.most_steps,
        baseline=capabilities.baseline,
    )


def exact_plans(rule: Rule, reach: Reach) -> list[Plan]:
    """Plans that measure delta_1 under a rule, fewest queries first, then least amplification.

    Example:
        >>> from disintegrate.quadrature import riemann_right
        >>> plans = exact_plans(riemann_right, Reach(0, 1, 20, 100, baseline=False))
        >>> plans[0].terms[0].query == Query(0, 1, 21)
        True
    """
    found = [
        plan
        for queries in _promising_sets(rule, reach)
        if all(reach.permits(query) and asked_of(rule, query.steps) is not None for query in queries)
        and (plan := solve(queries, rule)) is not None
    ]
    return sorted(found, key=lambda plan: (len(plan), plan.amplification))


def nearly_exact_plans(rule: Rule, reach: Reach) -> list[Plan]:
    """Plans that would measure delta_1 if the rule did not round its nodes and weights, as Captum's do to float32.

    Example:
        >>> from disintegrate.field_rules import captum_riemann_right
        >>> plans = nearly_exact_plans(captum_riemann_right, Reach(0, 1, 20, 100, baseline=False))
        >>> plans[0].terms[0].query == Query(0, 1, 21)
        True
    """
    found = []
    for queries in _promising_sets(rule, reach):
        if all(reach.permits(query) and asked_of(rule, query.steps) is not None for query in queries):
            plan, missed = _least_squares(queries, rule, ALMOST_ONE_NODE)
            if missed < ALMOST_ONE_NODE * plan.amplification and solve(queries, rule) is None:
                found.append(plan)
    return sorted(found, key=lambda plan: (len(plan), plan.amplification))


def solve(queries: Sequence[Query], rule: Rule) -> Plan | None:
    """The coefficients with which some queries measure delta_1; None where there are none.

    Example:
        >>> from disintegrate.quadrature import riemann_left
        >>> solve([Query(0, 1.25, 5), Query(0, 1, 4)], riemann_left).measure(riemann_left).exactness.name
        'EVERY_MODEL'
    """
    plan, _ = _least_squares(queries, rule, SAME_NODE)
    return plan if plan.measure(rule).exactness is Exactness.EVERY_MODEL else None


def _least_squares(queries: Sequence[Query], rule: Rule, same_node: float) -> tuple[Plan, float]:
    """Coefficients that come nearest to delta_1 where nodes this close count as one, and by how much they miss it."""
    quadratures = [rule(query.steps) for query in queries]
    positions = np.concatenate(
        [query.start + found.nodes * query.length for query, found in zip(queries, quadratures, strict=True)] + [[1.0]]
    )
    order = np.argsort(positions)
    group = np.empty(len(positions), int)
    group[order] = np.cumsum(np.diff(positions[order], prepend=positions[order[0]]) > same_node)
    matrix = np.zeros((group.max() + 1, len(queries)))
    row = 0
    for column, (query, found) in enumerate(zip(queries, quadratures, strict=True)):
        np.add.at(matrix[:, column], group[row : row + found.steps], query.length * found.weights)
        row += found.steps
    wanted = np.zeros(len(matrix))
    wanted[group[-1]] = 1
    coefficients = np.linalg.lstsq(matrix, wanted, rcond=ATOM_TOLERANCE)[0]
    missed = float(np.linalg.norm(matrix @ coefficients - wanted))
    return Plan(zip(coefficients.tolist(), queries, strict=True)), missed


def cascade(rule: Rule, steps: int, queries: int, *, outwards: bool) -> Plan | None:
    """A plan that pushes what it does not want along the ray, query by query, until the gradient no longer changes.

    Outwards, the first query has its first node at the input and the rest beyond; every further query begins
    at the nearest atom that is left and cancels it. Inwards the same with last nodes, towards the baseline,
    where the coefficients grow. The last query restores the mass 1, so the plan is exact where the gradient is
    constant over what is left; None where the rule has no node to begin with, or too few queries are given.

    Example:
        >>> from disintegrate.quadrature import gauss_legendre
        >>> plan = cascade(gauss_legendre, 2, 6, outwards=True)
        >>> plan.measure(gauss_legendre).piece[0] > 100
        True
    """
    quadrature = _positive(rule(steps))
    if quadrature is None or queries < 2:
        return None
    pivot = 0 if outwards else -1
    atoms: dict[float, float] = {1.0: -1.0}
    terms: list[tuple[float, Query]] = []
    for _ in range(queries - 1):
        nearest = (min if outwards else max)(atoms)
        stop = float(nearest / quadrature.nodes[pivot])
        coefficient = -atoms[nearest] / (stop * float(quadrature.weights[pivot]))
        terms.append((coefficient, Query(0, stop, steps)))
        _add(atoms, stop * quadrature.nodes, coefficient * stop * quadrature.weights)
        atoms.pop(_same(atoms, nearest), None)
        if not atoms:
            break
    missing = 1 - Plan(terms).measure(rule).mass
    if atoms and abs(missing) > ATOM_TOLERANCE:
        edge = float((min if outwards else max)(atoms) / quadrature.nodes[pivot])
        terms.append((missing / (edge * rule(steps).mass), Query(0, edge, steps)))
    return Plan(terms)


def window_plans(rule: Rule, reach: Reach, narrowest: float) -> list[Plan]:
    """One query from a baseline of the caller's own, of several widths; centred where the rule is symmetric."""
    if not reach.baseline:
        return []
    plans = []
    steps = max(reach.fewest_steps, 2) if reach.most_steps >= 2 else 1
    quadrature = asked_of(rule, steps)
    if quadrature is None:
        return []
    symmetric = np.allclose(quadrature.nodes + quadrature.nodes[::-1], 1) and np.allclose(
        quadrature.weights, quadrature.weights[::-1]
    )
    for width in narrowest * 4.0 ** np.arange(30):
        if width > 0.5:
            break
        half = width / 2
        ends = (1 - half, 1 + half) if symmetric and reach.highest >= 1 + half else (1 - width, 1.0)
        query = Query(float(ends[0]), float(ends[1]), steps)
        if reach.permits(query):
            plans.append(Plan([(1 / (query.length * quadrature.mass), query)]))
    return plans


def far_plans(rule: Rule, reach: Reach) -> list[Plan]:
    """One step from far baselines, its node at the input: attributions grow with the distance, and noise does not.

    Example:
        >>> from disintegrate.quadrature import riemann_right
        >>> plans = far_plans(riemann_right, Reach(-np.inf, np.inf, 1, 100, baseline=True))
        >>> all(plan.measure(riemann_right).exactness is Exactness.EVERY_MODEL for plan in plans)
        True
    """
    single = asked_of(rule, 1) if reach.baseline and reach.fewest_steps == 1 else None
    if single is None or single.steps != 1:
        return []
    node = float(single.nodes[0])
    sets = [[Query(1 - node * length, 1 + (1 - node) * length, 1)] for length in FAR]
    plans = [solve(queries, rule) for queries in sets if reach.permits(queries[0])]
    return [plan for plan in plans if plan is not None]


def _promising_sets(rule: Rule, reach: Reach) -> Iterator[list[Query]]:
    """Sets of queries whose atoms may cancel: one node, neighbouring step counts, and nested trapezoids."""
    if (single := asked_of(rule, 1)) is not None and single.steps == 1 and reach.fewest_steps == 1:
        node = float(single.nodes[0])
        if node > 0:
            yield [Query(0, 1 / node, 1)]
        yield [Query(1, 0, 1)] if node == 0 else [Query(1 - node, 2 - node, 1)]
    for count in range(reach.fewest_steps + 1, min(reach.fewest_steps + 4, reach.most_steps + 1)):
        larger, smaller = _positive(asked_of(rule, count)), _positive(asked_of(rule, count - 1))
        if larger is not None and smaller is not None:
            last = float(larger.nodes[-1])
            scale = float(larger.nodes[0] / smaller.nodes[0]) / last
            yield [Query(0, 1 / last, count), Query(0, scale, count - 1)]
        elif larger is not None:
            stop = 1 / float(larger.nodes[-1])
            yield [Query(0, stop, count), Query(0, stop, count - 1)]
    yield from _nested_trapezoids(rule, reach)


def _nested_trapezoids(rule: Rule, reach: Reach) -> Iterator[list[Query]]:
    """A trapezoid rule less half of that with twice the spacing leaves every other node, and those telescope.

    With `n` such nodes of spacing `2 h`: nodes `h, 3 h, .., (2 n - 1) h`, from queries with `2 n + 1` and `n + 1`
    nodes on `[0, 2 n h]`; the next smaller pair takes all but the last away.
    """
    extra = _extra_nodes(rule, reach)
    if extra is None:
        return
    smallest = max(1, reach.fewest_steps + extra - 1)
    for n in (smallest, smallest + 1):
        h = 1 / (2 * n - 1)
        larger = [Query(0, 1 + h, 2 * n + 1 - extra), Query(0, 1 + h, n + 1 - extra)]
        yield larger if n == 1 else [*larger, Query(0, 1 - h, 2 * n - 1 - extra), Query(0, 1 - h, n - extra)]
        # Where nothing beyond the input may be asked: the last two nodes together, less the last but one alone.
        m = 2 * n
        step = 1 / m
        pair = [Query(0, 1, m + 1 - extra), Query(0, 1 - step, m - extra), Query(0, 1, n + 1 - extra)]
        yield pair if n == 1 else [*pair, Query(0, 1 - 2 * step, m - 1 - extra), Query(0, 1 - 2 * step, n - extra)]


def _extra_nodes(rule: Rule, reach: Reach) -> int | None:
    """Nodes of a trapezoid rule beyond its steps; None for another rule."""
    for steps in (3, 2):
        found = asked_of(rule, steps)
        if found is not None and found.nodes[0] == 0 and np.isclose(2 * found.weights[0], found.weights[1]):
            return found.steps - steps
    return None


def asked_of(rule: Rule, steps: int) -> Quadrature | None:
    """The rule with so many steps; None where it has none such."""
    try:
        return rule(steps)
    except InvalidValue:
        return None


def _positive(quadrature: Quadrature | None) -> Quadrature | None:
    """The rule without its node at the baseline; None where nothing is left."""
    if quadrature is None or not (quadrature.nodes > 0).any():
        return None
    kept = quadrature.nodes > 0
    return Quadrature(quadrature.nodes[kept], quadrature.weights[kept])


def _add(atoms: dict[float, float], positions: np.ndarray, weights: np.ndarray) -> None:
    for position, weight in zip(positions.tolist(), weights.tolist(), strict=True):
        place = _same(atoms, position)
        atoms[place] = atoms.get(place, 0.0) + weight
        if abs(atoms[place]) <= ATOM_TOLERANCE * abs(weight):
            del atoms[place]


def _same(atoms: dict[float, float], position: float) -> float:
    return next((known for known in atoms if abs(known - position) <= SAME_NODE * abs(position)), position)
