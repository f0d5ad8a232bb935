"""Weights for models without kinks: exact where the gradient is a polynomial along the ray.

Query `j` has moments `M_jk = sum_i a_i (p_i - 1)^k` about the input, over its atoms. Weights `c` of `q` queries with
`sum_j c_j M_jk = [k = 0]` for `k < q` give `g(1)` for every polynomial of degree `q - 1`: Richardson's extrapolation.
Whether a gradient is better taken for a polynomial or for a walk the answers say themselves: one of them is
foretold from the others in both ways.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from disintegrate.kriging import noise_variances
from disintegrate.noise import Noise
from disintegrate.plan import Plan, Query
from disintegrate.quadrature import Rule
from disintegrate.walk import Prior, covariance

FEWEST, FURTHEST = 3, 2.0
# A polynomial must foretell an answer by so much better than the walk, which fits more models.
CLEARLY_BETTER = 0.5


def extrapolation(queries: Sequence[Query], rule: Rule) -> Plan | None:
    """The plan that is exact for polynomials; None for fewer than three queries, or some far away.

    Example:
        >>> from disintegrate.quadrature import midpoint
        >>> queries = [Query(0, scale, 3) for scale in (0.6, 0.8, 1.0)]
        >>> measure = extrapolation(queries, midpoint).measure(midpoint)
        >>> all(abs(measure.weights @ (measure.positions - 1) ** k - (k == 0)) < 1e-9 for k in range(3))
        True
    """
    if len(queries) < FEWEST or max(abs(query.stop) for query in queries) > FURTHEST:
        return None
    wanted = np.zeros(len(queries))
    wanted[0] = 1
    weights = np.linalg.lstsq(_moments(queries, rule, len(queries)).T, wanted, rcond=1e-12)[0]
    return Plan(zip(weights.tolist(), queries, strict=True))


def foretold_by_polynomial(
    integrals: Float64[np.ndarray, "n q d"], queries: Sequence[Query], rule: Rule
) -> Float64[np.ndarray, " n"]:
    """How far the answer nearest to the input is from what the others say of a polynomial, relative to it."""
    null = np.linalg.svd(_moments(queries, rule, len(queries) - 1).T)[2][-1]
    return _relative(integrals, null, _nearest(queries))


def foretold_by_walk(
    integrals: Float64[np.ndarray, "n q d"], queries: Sequence[Query], rule: Rule, prior: Prior, noise: Noise
) -> Float64[np.ndarray, " n"]:
    """The same if all are of a walk."""
    found = covariance(queries, rule, prior)
    total = found.answers + np.diag(noise_variances(queries, found, noise))
    size = np.sqrt(np.diag(total))
    inverse = np.linalg.pinv(total / np.outer(size, size) + 1e-14 * np.eye(len(size)), rcond=1e-15) / np.outer(
        size, size
    )
    chosen = _nearest(queries)
    return _relative(integrals, inverse[chosen], chosen)


def is_smooth(
    integrals: Float64[np.ndarray, "n q d"], queries: Sequence[Query], rule: Rule, prior: Prior, noise: Noise
) -> bool:
    """Whether the answers are a polynomial's rather than a walk's.

    Example:
        >>> from disintegrate.quadrature import midpoint
        >>> from disintegrate.walk import Walk
        >>> queries = [Query(0, scale, 3) for scale in (0.6, 0.8, 1.0)]
        >>> line = np.array([query.stop**2 * midpoint(3).weights @ midpoint(3).nodes for query in queries])
        >>> is_smooth(line[None, :, None], queries, midpoint, Walk(), Noise())
        True
    """
    if extrapolation(queries, rule) is None:
        return False
    polynomial = foretold_by_polynomial(integrals, queries, rule)
    walk = foretold_by_walk(integrals, queries, rule, prior, noise)
    return bool(np.median(polynomial) < CLEARLY_BETTER * np.median(walk))


def _moments(queries: Sequence[Query], rule: Rule, count: int) -> Float64[np.ndarray, "q count"]:
    rows = []
    for query in queries:
        quadrature = rule(query.steps)
        away = query.start + quadrature.nodes * query.length - 1
        rows.append(query.length * quadrature.weights @ away[:, None] ** np.arange(count))
    return np.array(rows)


def _nearest(queries: Sequence[Query]) -> int:
    return int(np.argmin([abs(query.stop - 1) for query in queries]))


def _relative(
    integrals: Float64[np.ndarray, "n q d"], row: Float64[np.ndarray, " q"], chosen: int
) -> Float64[np.ndarray, " n"]:
    with np.errstate(divide="ignore", invalid="ignore"):
        missed = np.linalg.norm(np.einsum("q,nqd->nd", row, integrals), axis=1) / abs(row[chosen])
        relative: Float64[np.ndarray, " n"] = missed / np.linalg.norm(integrals[:, chosen], axis=1)
    return np.where(np.isfinite(relative), relative, np.inf)
