"""The best linear plan for given queries, and the error to expect of any plan: one formula for both.

With `K` the covariance of the answers, `N` that of their noise and `k` their covariance with the gradient at
the input, the coefficients are `(K + N)^-1 k` (kriging, or the best linear prediction of geostatistics).
Equations (2), (3) and (4) and the plans of one query are its special cases.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from disintegrate.measure import Measure
from disintegrate.noise import Noise
from disintegrate.plan import Plan, Query
from disintegrate.quadrature import Rule
from disintegrate.walk import Covariance, Prior, covariance, from_input, sizes

# The diagonal's share that keeps the matrix invertible where answers tell the same.
JITTER = 1e-15


def krige(queries: Sequence[Query], rule: Rule, prior: Prior, noise: Noise) -> Plan:
    """Weigh the answers to some queries so that the squared error to expect is least.

    Example:
        >>> from disintegrate.closed_form import step_count
        >>> from disintegrate.quadrature import riemann_right
        >>> from disintegrate.walk import Walk
        >>> paper = step_count(4)
        >>> plan = krige([term.query for term in paper], riemann_right, Walk(), Noise())
        >>> all(math.isclose(a.coefficient, b.coefficient, rel_tol=1e-6) for a, b in zip(plan, paper))
        True
    """
    found = covariance(queries, rule, prior)
    return Plan(zip(coefficients(found, noise_variances(queries, found, noise)), queries, strict=True))


def coefficients(found: Covariance, noise: Float64[np.ndarray, " queries"]) -> list[float]:
    """`(K + N)^-1 k`, from the matrix scaled to a diagonal of ones so that far queries weigh no more than near ones."""
    total = found.answers + np.diag(noise)
    size = np.sqrt(np.diag(total))
    scaled = total / np.outer(size, size) + JITTER * np.eye(len(size))
    try:
        solved = np.linalg.solve(scaled, found.wanted / size)
    except np.linalg.LinAlgError:
        solved = np.linalg.lstsq(scaled, found.wanted / size, rcond=1e-12)[0]
    solution: list[float] = (solved / size).tolist()
    return solution


def noise_variances(queries: Sequence[Query], found: Covariance, noise: Noise) -> Float64[np.ndarray, " queries"]:
    """Variances of the noise on each answer."""
    sizes = np.diag(found.answers)
    return np.array([noise.variance(query.steps, size) for query, size in zip(queries, sizes, strict=True)])


def predicted_distance(plan: Plan, rule: Rule, prior: Prior, noise: Noise) -> float:
    """Distance to expect between the recovered and the true gradient: of what the walk does, and of the noise.

    The walk's part is computed from the merged atoms of `mu - delta_1`, so it is 0 where the plan is exact. The
    distance has no sense of length, so the error is taken at the length that makes it least.

    Example:
        >>> from disintegrate.closed_form import step_count
        >>> from disintegrate.quadrature import riemann_right
        >>> from disintegrate.walk import Walk
        >>> predicted_distance(step_count(50), riemann_right, Walk(), Noise()) == 0
        True
    """
    measure = plan.measure(rule)
    alike = prior.size(measure.positions) * np.exp(-np.abs(from_input(prior, measure.positions)))
    shared = float(measure.weights @ alike)
    if shared <= 0:
        return math.sqrt(2)
    # At the length where the plan's covariance with the gradient is 1, its error and the gradient are uncorrelated.
    scaled = Plan((term.coefficient / shared, term.query) for term in plan)
    variance = _walk_variance(scaled.measure(rule), prior) + _noise_variance(scaled, rule, prior, noise)
    least = variance / (1 + variance)
    return math.sqrt(2 * least / (1 + math.sqrt(1 - least)))


def _walk_variance(measure: Measure, prior: Prior) -> float:
    """Mean square of `integral g d(mu - delta_1)`, in units of the gradient's squared norm."""
    rest = measure.difference
    if rest.positions.size == 0:
        return 0.0
    times = from_input(prior, rest.positions)
    tails = np.cumsum((rest.weights * prior.size(rest.positions) * np.exp(-times))[::-1])[::-1]
    return float(tails**2 @ np.diff(np.exp(2 * times), prepend=0.0))


def _noise_variance(plan: Plan, rule: Rule, prior: Prior, noise: Noise) -> float:
    squares = sizes([term.query for term in plan], rule, prior)
    variances = [noise.variance(term.query.steps, size) for term, size in zip(plan, squares, strict=True)]
    return float(np.array([term.coefficient for term in plan]) ** 2 @ np.array(variances))
