"""Where on the ray to ask when rule, steps and baseline are all fixed: scales chosen by the error they predict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from disintegrate.kriging import noise_variances
from disintegrate.noise import Noise
from disintegrate.plan import Query
from disintegrate.quadrature import Rule
from disintegrate.walk import Prior, covariance

GRID = 96
# Beyond this many queries a second look at each costs more than it brings.
MOST_EXCHANGED = 20


def candidate_scales(rule: Rule, steps: int, highest: float) -> Float64[np.ndarray, " candidates"]:
    """Scales worth a look: a grid, dense around the input; those that put a node on the input; and far ones.

    Example:
        >>> from disintegrate.quadrature import riemann_right
        >>> scales = candidate_scales(riemann_right, 50, 1.0)
        >>> bool(scales.max() == 1.0 and 0 < scales.min() < 0.1)
        True
    """
    nodes = rule(steps).nodes
    nodes = nodes[nodes > 0]
    top = min(highest, 2.0)
    grid = np.concatenate([np.linspace(0.6, min(top, 1.3), GRID // 2), np.geomspace(0.02, top, GRID // 2)])
    lattice = np.concatenate([1 / nodes[-8:], 1 / nodes[:3], np.arange(2, 6) / nodes[0], [1.0, min(highest, 1e6)]])
    together = np.concatenate([grid, lattice])
    return np.unique(np.round(together[together <= highest], 12))


@dataclass(frozen=True, eq=False)
class Pool:
    """Queries to choose from, with how their answers hang together, each scaled to a variance of 1."""

    queries: tuple[Query, ...]
    joint: Float64[np.ndarray, "n n"]
    wanted: Float64[np.ndarray, " n"]


def pool_of(rule: Rule, steps: int, highest: float, prior: Prior, noise: Noise) -> Pool:
    """All candidate queries from the baseline, under a prior and with noise.

    Example:
        >>> from disintegrate.quadrature import riemann_right
        >>> from disintegrate.walk import Walk
        >>> pool = pool_of(riemann_right, 50, 2.0, Walk(), Noise())
        >>> len(choose_queries(pool, 3)) == 3
        True
    """
    queries = tuple(Query(0, float(scale), steps) for scale in candidate_scales(rule, steps, highest))
    found = covariance(queries, rule, prior)
    # Scaled so that far queries weigh no more than near ones.
    size = np.sqrt(np.diag(found.answers) + noise_variances(queries, found, noise))
    joint = found.answers / np.outer(size, size)
    joint[np.diag_indices_from(joint)] = 1.0
    return Pool(queries, joint, found.wanted / size)


def choose_queries(pool: Pool, count: int) -> list[Query]:
    """So many queries of a pool, whose kriging predicts the least error.

    The best pair of all, then one after the other the query that adds most, then each in turn exchanged for a
    better one.

    Example:
        >>> from disintegrate.quadrature import riemann_right
        >>> from disintegrate.walk import Walk
        >>> pool = pool_of(riemann_right, 1, 2.0, Walk(), Noise())
        >>> [query.stop for query in choose_queries(pool, 1)] == [1.0]
        True
    """
    joint, wanted = pool.joint, pool.wanted
    count = min(count, len(pool.queries))
    chosen = [int(np.argmax(wanted**2))] if count == 1 else _best_pair(joint, wanted)
    while len(chosen) < count:
        chosen.append(_best_addition(joint, wanted, chosen))
    if 2 < count <= MOST_EXCHANGED:
        for place in range(count):
            others = chosen[:place] + chosen[place + 1 :]
            chosen = [*chosen[:place], _best_addition(joint, wanted, others), *chosen[place + 1 :]]
    return sorted((pool.queries[index] for index in chosen), key=lambda query: query.stop)


def _best_pair(joint: Float64[np.ndarray, "n n"], wanted: Float64[np.ndarray, " n"]) -> list[int]:
    """The two whose prediction explains most: `k_pair^T K_pair^-1 k_pair`, in closed form."""
    first, second = wanted[:, None], wanted[None, :]
    rest = 1 - joint**2
    explained = np.where(
        rest > 1e-12, (first**2 - 2 * first * second * joint + second**2) / np.maximum(rest, 1e-300), 0
    )
    pair = np.unravel_index(np.argmax(explained), explained.shape)
    return [int(pair[0]), int(pair[1])]


def _best_addition(joint: Float64[np.ndarray, "n n"], wanted: Float64[np.ndarray, " n"], chosen: Sequence[int]) -> int:
    """The one that explains most of what the chosen leave open."""
    known = joint[np.ix_(chosen, chosen)] + 1e-14 * np.eye(len(chosen))
    across = np.linalg.solve(known, np.column_stack([joint[chosen], wanted[chosen]]))
    left = wanted - joint[:, chosen] @ across[:, -1]
    variance = 1 - np.einsum("cn,cn->n", joint[chosen], across[:, :-1])
    gain = np.where(variance > 1e-10, left**2 / np.maximum(variance, 1e-300), 0)
    gain[list(chosen)] = -1
    return int(np.argmax(gain))
