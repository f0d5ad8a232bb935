"""Gradients by a rewritten model, at points and along rays."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from disintegrate.gradients.rewriting import Rewritten


def gradient_at(
    rewritten: Rewritten, points: Float[Tensor, "n *shape"], targets: Int[Tensor, " n"]
) -> Float[Tensor, "n *shape"]:
    """Gradient of the target output at each point, all together."""
    if rewritten.beginning is None:
        return _behind(rewritten, rewritten.laid_out(points), targets, 1)
    with torch.enable_grad():
        leaf = rewritten.laid_out(points.detach()).requires_grad_()
        hidden = rewritten.beginning(leaf)
        (gradient,) = torch.autograd.grad(hidden, leaf, _behind(rewritten, hidden, targets, 1))
    return gradient


def mean_gradient(
    rewritten: Rewritten,
    baselines: Float[Tensor, "n *shape"],
    difference: Float[Tensor, "n *shape"],
    targets: Int[Tensor, " n"],
    parts: Sequence[tuple[Tensor, Tensor]],
) -> Float[Tensor, "n *shape"]:
    """`sum_i w_i g(b + t_i d)` on each ray, for nodes and weights that come in parts.

    With a beginning `A h + a` it is `A' sum_i w_i G(A b + a + t_i A d)`, where G is the gradient behind it.
    """
    leaf = rewritten.laid_out(difference.detach())
    starts, slopes = rewritten.laid_out(baselines), leaf
    if rewritten.beginning is not None and rewritten.slope is not None:
        with torch.no_grad():
            # Most often all rays begin at one point.
            alike = len(starts) > 1 and bool((starts == starts[:1]).all())
            starts = rewritten.beginning(starts[:1] if alike else starts)
        with torch.enable_grad():
            leaf = leaf.requires_grad_()
            slopes = rewritten.slope(leaf)
    start, slope = _stored(rewritten, starts), _stored(rewritten, slopes.detach())
    total = torch.zeros_like(slope)
    wide = (1, -1, *[1] * (slope.ndim - 1))
    for nodes, weights in parts:
        points = torch.addcmul(start[:, None], nodes.view(wide), slope[:, None]).flatten(0, 1)
        gradient = _stored(rewritten, _behind(rewritten, _named(rewritten, points), targets, len(nodes)))
        rows = gradient.view(len(total), len(nodes), -1)
        total += torch.bmm(weights.view(1, 1, -1).expand(len(total), 1, -1), rows).view_as(total)
    if rewritten.beginning is None:
        return _named(rewritten, total)
    return torch.autograd.grad(slopes, leaf, _named(rewritten, total))[0]


def _behind(rewritten: Rewritten, hidden: Tensor, targets: Tensor, repeated: int) -> Tensor:
    """Gradient of the target output at the beginning's output, each target for so many rows."""
    with torch.enable_grad():
        leaf = hidden.detach().requires_grad_()
        answers = rewritten.body(leaf)
        if rewritten.end is not None:
            start = rewritten.end.weight[targets].repeat_interleave(repeated, 0)
            return torch.autograd.grad(answers, leaf, start.view_as(answers))[0]
        chosen = answers.gather(1, targets.repeat_interleave(repeated)[:, None])
        return torch.autograd.grad(chosen.sum(), leaf)[0]


def _stored(rewritten: Rewritten, maps: Tensor) -> Tensor:
    """Maps in the order of their memory: `[n, h, w, c]` where the channels come last."""
    return maps.permute(0, 2, 3, 1).contiguous() if rewritten.last and maps.ndim == 4 else maps.contiguous()


def _named(rewritten: Rewritten, maps: Tensor) -> Tensor:
    return maps.permute(0, 3, 1, 2) if rewritten.last and maps.ndim == 4 else maps
