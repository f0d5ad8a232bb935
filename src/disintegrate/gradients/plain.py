"""Gradients of a model exactly as it is: nothing rewritten, every point computed by the model itself.

What is said about single float32 roundings, as about ties in max pooling, is said about this arithmetic.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from disintegrate.quadrature import Quadrature


def gradient_at(
    model: nn.Module, points: Float[Tensor, "n *shape"], targets: Int[Tensor, " n"]
) -> Float[Tensor, "n *shape"]:
    """Gradient of the target output at each point, all together."""
    with torch.enable_grad():
        leaf = points.detach().requires_grad_()
        chosen = model(leaf).gather(1, targets[:, None])
        (gradient,) = torch.autograd.grad(chosen.sum(), leaf)
    return gradient


def mean_gradient(
    model: nn.Module,
    baselines: Float[Tensor, "n *shape"],
    difference: Float[Tensor, "n *shape"],
    targets: Int[Tensor, " n"],
    quadrature: Quadrature,
    rows: int,
) -> Float[Tensor, "n *shape"]:
    """`sum_i w_i g(b + t_i (x - b))`, so many pairs of image and step at a time."""
    nodes, weights = (
        torch.tensor(array, dtype=difference.dtype, device=difference.device)
        for array in (quadrature.nodes, quadrature.weights)
    )
    total = torch.zeros_like(difference)
    wide = (-1, *[1] * (difference.ndim - 1))
    count = len(difference) * quadrature.steps
    for first in range(0, count, rows):
        flat = torch.arange(first, min(first + rows, count), device=difference.device)
        image, step = flat // quadrature.steps, flat % quadrature.steps
        points = baselines[image] + nodes[step].view(wide) * difference[image]
        gradient = gradient_at(model, points, targets[image])
        total.index_add_(0, image, weights[step].view(wide) * gradient)
    return total
