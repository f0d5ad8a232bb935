"""Piecewise linear networks on a ray: kinks, the gradient between them, and the integral without quadrature."""

from disintegrate.regions.ray import Kink, Regions, Unit, exact_integrated_gradients, nearest_kinks, ray_regions

__all__ = ["Kink", "Regions", "Unit", "exact_integrated_gradients", "nearest_kinks", "ray_regions"]
