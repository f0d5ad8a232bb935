"""Rules by their first nodes, and what these told of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

# How many first nodes tell rules apart, and how many queries are kept where they do not.
FIRST, KEPT = 3, 18
# By what share first weights differ at the most that are the same; and that no answer tells apart whose digits leave
# more open than this.
SAME, ROUGHLY, COARSE = 1e-9, 0.02, 3e-5


@dataclass(frozen=True, eq=False)
class Group:
    """Rules that are the same, with their nodes above 0, ascending, and the weights of these."""

    members: tuple[tuple[str, int], ...]
    nodes: Float64[np.ndarray, " n"]
    weights: Float64[np.ndarray, " n"]


# Logarithms of how likely rules are that lie a little aside of others.
Aside = dict[tuple[tuple[str, int], ...], Float64[np.ndarray, "aside more"]]


@dataclass(frozen=True, eq=False)
class Told:
    """What the first nodes say.

    Attributes:
        members: the rules and steps that are left, the likeliest first.
        decided: whether only one is left, under its several names.
        seen: whether no rule is likelier whose first nodes lie a little aside or weigh a little more or less.
        closed: whether no other closed rule is that weighs the baseline alike.
        answers: how many were weighed.
        scores: how likely each member is, as a logarithm.
    """

    members: tuple[tuple[str, int], ...]
    decided: bool
    seen: bool
    closed: bool
    answers: int
    scores: dict[tuple[str, int], float]


def kept_for(groups: Sequence[Group], score: Float64[np.ndarray, " g"], digits: float) -> int:
    """How many queries are kept, where the likeliest rule has the same first nodes as another."""
    best = groups[int(np.argmax(score))]
    return KEPT if any(alike(best, group, digits) for group in groups if group is not best) else 0


def alike(one: Group, other: Group, digits: float) -> bool:
    """Whether two rules have the same first nodes, as far as answers whose digits leave so much open can tell."""
    few = min(len(one.nodes), len(other.nodes), FIRST)
    share = ROUGHLY if digits > COARSE else SAME
    nodes = np.allclose(one.nodes[:few], other.nodes[:few], rtol=SAME)
    return bool(nodes and np.allclose(one.weights[:few], other.weights[:few], rtol=share))
