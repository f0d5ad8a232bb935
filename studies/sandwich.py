"""What can be got out of a service at all, without the audited code: a plan that exists, and a bound on every plan.

Answers are computed slowly in float64 from equation (1), with the nodes of textbooks, numpy and Captum, and rounded as
a float32 service rounds them at least. Between two plans lies the truth:

- *an attacker that exists*: a few queries, chosen and weighed by least squares on other inputs of the same network;
- *one that cannot exist*: for each input the best weights of all queries together, found with the true gradient. No
  linear estimate from these queries comes nearer, whatever shapes its weights.

Where both say the same of an endpoint, that is its verdict; where they do not, nothing is decided.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from captum.attr._utils.approximation_methods import approximation_parameters
from jaxtyping import Float, Float64
from subjects import CAPTUM_METHODS, Setting, Subject, served_model
from torch import nn

# Scales on the ray up to where nothing changes any more.
WITHIN = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.6, 0.7, 0.8, 0.84, 0.88, 0.92, 0.95, 0.98, 1.0)
BEYOND = (1.02, 1.04, 1.06, 1.1, 1.15, 1.2, 1.3, 1.5, 1.75, 2.0, 3.0, 5.0, 10.0, 30.0, 1e2, 1e3, 1e5)
FEW = (0.6, 0.84, 0.92, 1.0, 1.04, 1.1, 1.2, 2.0)
RECOVERED, TELLING = 0.1, 0.5
# What must be left to either side, so that another good plan cannot fall on the other one.
CLEARLY_MOST, FEWER_THAN_MOST, SOME, FEWER_THAN_SOME = 0.7, 0.45, 0.08, 0.04


@dataclass(frozen=True)
class Sandwich:
    """Distances of the attacker that exists and of the one that cannot, and what follows."""

    queries: int
    achieved: tuple[float, ...]
    bound: tuple[float, ...]

    @property
    def verdict(self) -> str | None:
        """By the rule of the audit's own verdict; None where the two leave it open."""
        (share, middle), (most, least) = (_summary(found) for found in (self.achieved, self.bound))
        if share >= CLEARLY_MOST:
            return "leaks"
        if most < FEWER_THAN_MOST and (share >= SOME or middle <= 0.9 * TELLING):
            return "partly"
        if most < FEWER_THAN_SOME and least > 1.05 * TELLING:
            return "not shown"
        return None

    def record(self) -> dict[str, Any]:
        """As JSON."""
        (share, middle), (most, least) = (_summary(found) for found in (self.achieved, self.bound))
        return {
            "an_attacker_that_exists": {"queries": self.queries, "share_recovered": share, "median_distance": middle},
            "no_linear_estimate_beats": {"share_recovered": most, "median_distance": least},
            "verdict": self.verdict,
        }


def sandwich(setting: Setting, about: Subject, budget: int, scales: tuple[float, ...] | None = None) -> Sandwich:
    """Both attackers against a service that fixes steps and baseline.

    The bound is one for each input where an input has many more coordinates than there are queries, else one for all
    inputs together.
    """
    model = deepcopy(served_model(setting, about.model)).double()
    nodes, weights = nodes_and_weights(setting.rule, setting.steps)
    # behind a softmax the first node is the only one left where it lies on the input and the others far out
    first = (float(1 / nodes[nodes > 0].min()),) if setting.softmax else ()
    known = [s for s in (*(scales or (*WITHIN, *BEYOND)), *first) if s <= setting.furthest]
    noise = np.random.default_rng(3)

    def answers(inputs: Float[np.ndarray, "n *shape"], targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found, truth = [], []
        for x, target in zip(inputs.astype(np.float64), targets.tolist(), strict=True):
            true = gradients(model, x, target, np.ones(1))[0]
            size = np.linalg.norm(true)
            rows = []
            for scale in known:
                integral = weights @ gradients(model, x, target, scale * nodes)
                attribution = scale * x.ravel() * integral + setting.noise * noise.normal(size=x.size)
                attribution = rounded(attribution, setting)
                rows.append(np.divide(attribution, scale * x.ravel(), out=np.zeros(x.size), where=x.ravel() != 0))
            found.append(np.array(rows) / size)
            truth.append(true * (x.ravel() != 0) / size)
        return np.array(found), np.array(truth)

    asked, truth = answers(about.inputs, about.targets)
    training, training_truth = answers(about.others, about.other_targets)
    count = max(1, min(budget, asked.shape[2]))
    chosen, coefficients = trained(training, training_truth, count)
    achieved = distances(np.einsum("q,nqd->nd", coefficients, asked[:, chosen]), truth)
    if asked.shape[2] >= 2 * len(known):
        bound = np.array([nearest(rows, true) for rows, true in zip(asked, truth, strict=True)])
    else:
        chosen_all, best = trained(asked, truth, count)
        bound = distances(np.einsum("q,nqd->nd", best, asked[:, chosen_all]), truth)
    return Sandwich(len(chosen), tuple(achieved.tolist()), tuple(bound.tolist()))


def gradients(
    model: nn.Module, x: Float64[np.ndarray, "..."], target: int, at: Float64[np.ndarray, " p"]
) -> np.ndarray:
    """Of one output at positions on the ray from zero to x, one row each."""
    rows = []
    for part in np.array_split(at, -(-len(at) // 50)):
        points = torch.tensor(part.reshape(-1, *[1] * x.ndim) * x).requires_grad_()
        (found,) = torch.autograd.grad(model(points)[:, target].sum(), points)
        rows.append(found.numpy().reshape(len(part), -1))
    return np.concatenate(rows)


def trained(asked: np.ndarray, truth: np.ndarray, count: int) -> tuple[list[int], np.ndarray]:
    """At most so many queries, one after the other the one that helps most, and their least squares weights."""
    joint = np.einsum("nqd,nrd->qr", asked, asked)
    wanted = np.einsum("nqd,nd->q", asked, truth)
    joint = joint + 1e-12 * np.diag(np.diag(joint) + 1e-300)
    chosen: list[int] = []
    best, best_weights = -np.inf, np.zeros(0)
    for _ in range(count):
        gains = []
        for query in range(len(wanted)):
            tried = [*chosen, query]
            weights = np.linalg.lstsq(joint[np.ix_(tried, tried)], wanted[tried], rcond=None)[0]
            gains.append((float(wanted[tried] @ weights) if query not in chosen else -np.inf, query, weights))
        gain, query, weights = max(gains, key=lambda one: one[0])
        if gain <= best * (1 + 1e-6):
            break
        chosen, best, best_weights = [*chosen, query], gain, weights
    return chosen, best_weights


def nearest(rows: Float64[np.ndarray, "q d"], truth: Float64[np.ndarray, " d"]) -> float:
    """The distance of the truth to the nearest direction in the span of some answers."""
    if not truth.any() or not rows.any():
        return float(np.sqrt(2))
    _, sizes, basis = np.linalg.svd(rows, full_matrices=False)
    basis = basis[sizes > 1e-12 * sizes[0]]
    share = min(1.0, float(np.linalg.norm(basis @ truth) / np.linalg.norm(truth)))
    return float(np.sqrt(2 - 2 * share))


def distances(found: Float64[np.ndarray, "n d"], truth: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, " n"]:
    """The paper's distance; unrelated where there is nothing."""
    apart = []
    for one, other in zip(found, truth, strict=True):
        sizes = np.linalg.norm(one), np.linalg.norm(other)
        apart.append(np.linalg.norm(one / sizes[0] - other / sizes[1]) if min(sizes) > 0 else np.sqrt(2))
    return np.array(apart)


def rounded(values: Float64[np.ndarray, " d"], setting: Setting) -> Float64[np.ndarray, " d"]:
    """As the service's float32 and the wire round."""
    values = values.astype(np.float32).astype(np.float64)
    if setting.decimals is not None:
        values = np.round(values, setting.decimals)
    if setting.digits is not None:
        values = np.array([float(f"{value:.{setting.digits - 1}e}") for value in values])
    if setting.answers is not None:
        values = values.astype(setting.answers).astype(np.float64)
    return values


def nodes_and_weights(rule: str, steps: int) -> tuple[Float64[np.ndarray, " m"], Float64[np.ndarray, " m"]]:
    """A rule as textbooks, numpy and Captum have it."""
    even = np.full(steps, 1 / steps)
    if rule in CAPTUM_METHODS:
        sizes, places = approximation_parameters(CAPTUM_METHODS[rule])
        return np.array(places(steps), np.float64), np.array(sizes(steps), np.float64)
    if rule == "gauss_legendre":
        places, sizes = np.polynomial.legendre.leggauss(steps)
        return (places + 1) / 2, sizes / 2
    if rule == "trapezoid":
        weights = np.full(steps, 1 / (steps - 1))
        weights[[0, -1]] /= 2
        return np.linspace(0, 1, steps), weights
    first = {"riemann_right": 1.0, "riemann_left": 0.0, "midpoint": 0.5}
    if rule in first:
        return (np.arange(steps) + first[rule]) / steps, even
    assert rule == "saliency", rule  # noqa: S101  the studies' own names
    return np.linspace(0, 1, steps), even


def _summary(found: tuple[float, ...]) -> tuple[float, float]:
    return float(np.mean(np.array(found) <= RECOVERED)), float(np.median(found))
