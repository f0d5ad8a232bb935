"""Piecewise linear networks on a ray: kinks, the gradient between them, and the integral without quadrature."""

from disintegrate.regions.ray import Kink, Regions, Unit, exact_integrated_gradients, nearest_kinks, ray_regions
from disintegrate.regions.shares import PlanErrors, exact_recovery, plan_errors

__all__ = [
    "Kink",
    "PlanErrors",
    "Regions",
    "Unit",
    "exact_integrated_gradients",
    "exact_recovery",
    "nearest_kinks",
    "plan_errors",
    "ray_regions",
]
