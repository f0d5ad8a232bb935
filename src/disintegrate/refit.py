"""What the answers themselves say of the walk: the roughness, and where kinks begin and end, by likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from jaxtyping import Float64

from disintegrate.kriging import noise_variances
from disintegrate.noise import Noise
from disintegrate.plan import Query
from disintegrate.quadrature import Rule
from disintegrate.walk import Walk, covariance

ROUGHNESSES = tuple(0.15 * 2.0**power for power in range(-6, 4))
ONSETS = (0.002, 0.006, 0.02, 0.1)
ENDINGS = (0.1, 0.5, 3.0, 20.0)
# Another shape of the clock must make each coordinate likelier by exp(1/2): a few answers tell little of it.
SHAPE_PENALTY = 1.0


def fit_walk(
    products: Float64[np.ndarray, "n queries queries"], queries: Sequence[Query], rule: Rule, noise: Noise, walk: Walk
) -> Walk:
    """Find the walk that makes the answers likeliest, over all inputs together.

    Every coordinate of the answers is one draw of a normal vector of covariance `s^2 (K + N)`, with one unknown
    size `s` for each input, whose likeliest value is put in: minus twice the logarithm of the likelihood is, per
    coordinate and up to a constant, `log det(K + N) + q log tr((K + N)^-1 P)` for `q` answers with products `P`.

    Args:
        products: for each input, the inner products of its answers with each other.
        queries: what was asked.
        rule: the service's.
        noise: on the answers.
        walk: what is assumed; kept where one query cannot tell.

    Example:
        >>> from disintegrate.quadrature import riemann_right
        >>> same = np.ones((1, 2, 2))  # a gradient that does not change along the ray: as smooth as can be
        >>> queries = [Query(0, 1, 50), Query(0, 0.5, 50)]
        >>> same[0] *= np.outer((1, 0.5), (1, 0.5))
        >>> fit_walk(same, queries, riemann_right, Noise(relative=1e-6), Walk()).roughness == ROUGHNESSES[0]
        True
    """
    if len(queries) < 2 or not np.isfinite(products).all():
        return walk
    seen = products[np.einsum("nqq->nq", products).min(axis=1) > 0]
    if len(seen) == 0:
        return walk

    def cost(tried: Walk) -> float:
        found = covariance(queries, rule, tried)
        total = found.answers + np.diag(noise_variances(queries, found, noise))
        size = np.sqrt(np.diag(total))
        scaled = total / np.outer(size, size) + 1e-13 * np.eye(len(size))
        try:
            factor = np.linalg.cholesky(scaled)
        except np.linalg.LinAlgError:
            return np.inf
        whitened = np.linalg.inv(factor) / size
        traces = np.einsum("ij,njk,ik->n", whitened, seen, whitened)
        determinant = 2 * float(np.log(np.diag(factor)).sum() + np.log(size).sum())
        return determinant + len(size) * float(np.log(np.maximum(traces, 1e-300)).mean())

    shapes = {_shape(walk), *product(ONSETS, ENDINGS)}
    tried = [walk, *(Walk(roughness, *shape) for roughness in ROUGHNESSES for shape in sorted(shapes))]
    return min(tried, key=lambda one: cost(one) + SHAPE_PENALTY * (_shape(one) != _shape(walk)))


def _shape(walk: Walk) -> tuple[float, float]:
    return walk.onset, walk.ending
