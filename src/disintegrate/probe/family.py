"""Which rule a service has that takes a caller's steps: by identities of its answers with two and three of them.

With `rho_n(s)` the answer with n steps at scale s of a ray, over what was moved, and `G(s)` the gradient there, right
Riemann sums have `2 rho_2(1) = G(1/2) + G(1)` and `3 rho_3(s) - 2 rho_2(2s/3) = G(s)`. So, whatever the network,

    2 rho_2(1) = 3 rho_3(1) - 2 rho_2(2/3) + 3 rho_3(1/2) - 2 rho_2(1/3)                                     (P.6)

and no other rule answers so, unless the gradient hardly changes along the ray. Every rule has an identity of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from disintegrate.errors import DisintegrateError
from disintegrate.probe.asking import Spent
from disintegrate.probe.ray import Ray, seen_by

# What counts as obeyed: a residual so many times its noise, or such a share of the terms; and how many times smaller
# it must be than that of every other rule.
NOISY, EXACT, APART = 3.0, 1e-4, 8.0
# For which share of the coordinates: in a few the baseline may lie elsewhere than was solved for.
MOST = 0.9
TINY = float(np.finfo(np.float64).tiny)
# Where the outer node of a Gauss-Legendre rule of two steps lies, in units of that of one step.
OUTER = 1 + 1 / np.sqrt(3)


# By number of steps and scale.
Answers = dict[tuple[int, float], Float64[np.ndarray, " k"]]


@dataclass(frozen=True)
class Identity:
    """A sum of answers that vanishes for some rules, whatever the network.

    Attributes:
        rules: their names.
        terms: the weight of each answer, by its steps and its scale.
    """

    rules: frozenset[str]
    terms: dict[tuple[int, float], float]


@dataclass(frozen=True)
class Family:
    """The rules whose identities the answers obey, and why.

    Attributes:
        obeyed: their names, by identity, the best obeyed first; several where hardly a kink lies on the ray.
        evidence: how much is left of the best one and of the next, as a sentence.
    """

    obeyed: tuple[frozenset[str], ...]
    evidence: str

    @property
    def rules(self) -> frozenset[str]:
        """Their names."""
        return frozenset().union(*self.obeyed)


RIGHT = Identity(
    frozenset({"riemann_right", "captum_riemann_right"}),
    {(2, 1): -2, (3, 1): 3, (2, 2 / 3): -2, (3, 1 / 2): 3, (2, 1 / 3): -2},
)
LEFT = Identity(
    frozenset({"riemann_left", "captum_riemann_left"}),
    {(3, 1): 3, (2, 4 / 3): -2, (3, 1 / 2): -3, (2, 1 / 3): 2},
)
# Rules with nodes at both ends. What they weigh the baseline's gradient with is taken from two scales, as max pooling
# over equal entries, such as a baseline of zeros, has another gradient there than all around.
TRAPEZOID = Identity(frozenset({"trapezoid"}), {(2, 1): 1, (2, 1 / 2): 1, (3, 1): -2, (2, 1 / 4): -2, (3, 1 / 2): 2})
SHORT_TRAPEZOID = Identity(
    frozenset({"captum_riemann_trapezoid"}), {(2, 1): 2, (2, 1 / 2): 2, (3, 1): -3, (2, 1 / 4): -4, (3, 1 / 2): 3}
)
SALIENCY = Identity(frozenset({"saliency"}), {(2, 1): 2, (3, 1): -3, (2, 1 / 4): -2, (3, 1 / 2): 3})
TUTORIAL = Identity(
    frozenset({"tensorflow_tutorial"}),
    {(2, 1): 2, (2, 2 / 3): 4, (3, 1): -3, (3, 1 / 2): -3, (2, 1 / 2): -2, (2, 1 / 6): -4, (3, 1 / 4): 6},
)
MIDPOINT = Identity(
    frozenset({"midpoint", "captum_riemann_middle"}),
    {(2, 10 / 9): -2, (3, 1 / 3): 3, (2, 2 / 9): -2, (3, 1): 3, (2, 2 / 3): -2},
)
GAUSS = Identity(frozenset({"gauss_legendre", "captum_gausslegendre"}), {(2, 1): -2, (1, OUTER): 1, (1, 2 - OUTER): 1})
IDENTITIES = (RIGHT, LEFT, TRAPEZOID, SHORT_TRAPEZOID, SALIENCY, TUTORIAL, MIDPOINT, GAUSS)


def family(ray: Callable[[int | None], Ray]) -> Family | None:
    """The rules whose identities the answers obey; None where they obey none.

    All identities are tried: where few kinks lie on the ray, answers of a rule may obey another's identity, but its own
    as well.

    Args:
        ray: one for each number of steps; all from the same point in the same direction.
    """
    rays = {steps: ray(steps) for steps in (2, 3, 1)}
    tried = list(IDENTITIES)
    for steps, each in rays.items():
        try:
            wanted = sorted({scale for one in tried for number, scale in one.terms if number == steps})
            # a number that is refused costs one query, not all of them
            each.ask(wanted[:1])
            each.ask(wanted[1:])
        except Spent:
            raise
        except DisintegrateError:
            # Captum's Riemann rules refuse a single step
            tried = [one for one in tried if all(number != steps for number, _ in one.terms)]
    return _obeyed(*seen_by(rays), tried) if len(tried) > 1 else None


def _obeyed(answers: Answers, noise: Answers, tried: list[Identity]) -> Family | None:
    left, doubt = [], []
    for one in tried:
        size = max(np.sqrt(np.mean([(weight * answers[term]) ** 2 for term, weight in one.terms.items()])), TINY)
        rest = np.sort(np.abs(sum(weight * answers[term] for term, weight in one.terms.items())))
        rest = np.sqrt(np.mean(rest[: math.ceil(MOST * len(rest))] ** 2))
        spread = np.sqrt(np.mean(sum((weight * noise[term]) ** 2 for term, weight in one.terms.items())))
        left.append(float(rest / size))
        doubt.append(float(spread / size))
    best, *others = np.argsort(left).tolist()
    if not left[best] < max(NOISY * doubt[best], EXACT):
        return None
    obeyed = [best, *(other for other in others if left[other] < APART * max(left[best], doubt[other]))]
    evidence = f"{len(answers)} answers with few steps obey the identity of {_named(tried[best])} to {left[best]:.1g}"
    evidence += " of its terms" + "".join(
        f", that of {_named(tried[other])} to {left[other]:.1g}" for other in others[:1]
    )
    return Family(tuple(tried[each].rules for each in obeyed), evidence)


def _named(one: Identity) -> str:
    return min(one.rules, key=len)
