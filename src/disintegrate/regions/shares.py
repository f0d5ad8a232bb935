"""What the error of a plan consists of: kinks, quadrature, rounding."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from disintegrate.gradients import vanilla_gradient
from disintegrate.plan import Plan
from disintegrate.quadrature import Rule
from disintegrate.regions.ray import ray_regions


@dataclass(frozen=True, eq=False)
class PlanErrors:
    """The error of a recovered gradient in three parts that sum to it.

    Attributes:
        gradient: the gradient at the input.
        kink: what the plan would miss if every answer were the integral itself: its measure reaches over kinks.
        quadrature: what the rule's nodes add, which are not the integral.
        rounding: the rest, which the service's arithmetic adds.
    """

    gradient: Float[Tensor, "*shape"]
    kink: Float[Tensor, "*shape"]
    quadrature: Float[Tensor, "*shape"]
    rounding: Float[Tensor, "*shape"]

    @property
    def relative(self) -> dict[str, float]:
        """The norm of each part over that of the gradient."""
        whole = self.gradient.norm()
        parts = {"kink": self.kink, "quadrature": self.quadrature, "rounding": self.rounding}
        return {name: float(part.norm() / whole) for name, part in parts.items()}


def exact_recovery(
    model: nn.Module, x: Float[Tensor, "*shape"], b: Float[Tensor, "*shape"], plan: Plan, *, target: int = 0
) -> Float[Tensor, "*shape"]:
    """What a plan recovers when every answer is the integral itself: `sum_k c_k` times the integral of g over query k.

    Regions are asked for only where the queries do not cancel.

    Raises:
        InvalidValue: as for `ray_regions`.

    Example:
        >>> from disintegrate import shared_piece
        >>> model = nn.Sequential(nn.Linear(3, 9), nn.ReLU(), nn.Linear(9, 1)).double().eval()
        >>> x = torch.ones(3).double()
        >>> found = exact_recovery(model, x, 0 * x, shared_piece(1 - 1e-9, 50))
        >>> bool(torch.allclose(found, vanilla_gradient(model, x[None], torch.tensor([0]))[0]))
        True
    """
    places = sorted({place for term in plan for place in (term.query.start, term.query.stop)})
    largest = max(abs(term.coefficient) for term in plan)
    total = torch.zeros_like(x)
    for begin, stop in pairwise(places):
        density = sum(term.coefficient for term in plan if term.query.start <= begin and stop <= term.query.stop)
        if abs(density) > 1e-12 * largest:
            regions = ray_regions(model, x, b, begin, stop, target=target)
            total += density * (stop - begin) * regions.mean(begin, stop)
    return total


def plan_errors(
    model: nn.Module,
    x: Float[Tensor, "*shape"],
    b: Float[Tensor, "*shape"],
    plan: Plan,
    rule: Rule,
    recovered: Float[Tensor, "*shape"],
    *,
    target: int = 0,
) -> PlanErrors:
    """Take the error of what a plan recovered from a service apart.

    Args:
        model: the service's, in float64.
        x: the input.
        b: the beginning of the ray.
        plan: what was asked.
        rule: the service's.
        recovered: what the service's answers came to.
        target: the output explained.

    Raises:
        InvalidValue: as for `ray_regions`.

    Example:
        >>> from disintegrate import riemann_right, step_count
        >>> model = nn.Sequential(nn.Linear(3, 9), nn.ReLU(), nn.Linear(9, 1)).double().eval()
        >>> x = torch.ones(3).double()
        >>> truth = vanilla_gradient(model, x[None], torch.tensor([0]))[0]
        >>> errors = plan_errors(model, x, 0 * x, step_count(5), riemann_right, truth)
        >>> torch.allclose(errors.kink + errors.quadrature + errors.rounding, 0 * x)
        True
    """
    measure = plan.measure(rule)
    positions = torch.tensor(measure.positions, dtype=x.dtype, device=x.device).view(-1, *[1] * x.ndim)
    weights = torch.tensor(measure.weights, dtype=x.dtype, device=x.device)
    chosen = torch.full((len(weights) + 1,), target, device=x.device)
    gradients = vanilla_gradient(model, torch.cat([x[None], b + positions * (x - b)]), chosen)
    measured: Tensor = torch.tensordot(weights, gradients[1:], dims=1)
    integral = exact_recovery(model, x, b, plan, target=target)
    return PlanErrors(
        gradient=gradients[0],
        kink=integral - gradients[0],
        quadrature=measured - integral,
        rounding=recovered.to(x.dtype) - measured,
    )
