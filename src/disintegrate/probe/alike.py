"""Which rules of one pattern are the same, and which need other questions than those of its kinks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from disintegrate.probe.staircase import Pattern
from disintegrate.quadrature import Quadrature
from disintegrate.rules import rule_named


def have_siblings(among: Iterable[Pattern]) -> bool:
    """Whether some of these patterns of several nodes are shared by rules that are not the same."""
    return any(len(pattern.nodes) > 1 and len(groups_of(pattern.members)) > 1 for pattern in among)


def groups_of(members: Sequence[tuple[str, int]]) -> list[list[tuple[str, int]]]:
    """Rules whose nodes and weights agree to 1e-6, together: no question tells them apart."""
    groups: list[list[tuple[str, int]]] = []
    heads: list[Quadrature] = []
    for rule, steps in members:
        found = rule_named(rule)(steps)
        for group, head in zip(groups, heads, strict=True):
            if head.steps == found.steps and bool(
                np.allclose(head.nodes, found.nodes, atol=1e-6) and np.allclose(head.weights, found.weights, atol=1e-6)
            ):
                group.append((rule, steps))
                break
        else:
            groups.append([(rule, steps)])
            heads.append(found)
    return groups
