"""Gradients by a rewritten model, at points and along rays."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from disintegrate.gradients.layout import named, stored
from disintegrate.gradients.rewriting import Rewritten
from disintegrate.gradients.second_layer import SecondLayer


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
    second = rewritten.second_for(sum(len(nodes) for nodes, _ in parts))
    if second is not None:
        total = _by_second_layer(rewritten, second, start, slope, targets, parts)
    else:
        total = _one_by_one(rewritten, start, slope, targets, parts)
    if rewritten.beginning is None:
        return _named(rewritten, total)
    return torch.autograd.grad(slopes, leaf, _named(rewritten, total))[0]


def _one_by_one(
    rewritten: Rewritten, start: Tensor, slope: Tensor, targets: Tensor, parts: Sequence[tuple[Tensor, Tensor]]
) -> Tensor:
    """The weighted sum behind the beginning, every node on its own."""
    total = torch.zeros_like(slope)
    wide = (1, -1, *[1] * (slope.ndim - 1))
    for nodes, weights in parts:
        points = torch.addcmul(start[:, None], nodes.view(wide), slope[:, None]).flatten(0, 1)
        gradient = _stored(rewritten, _behind(rewritten, _named(rewritten, points), targets, len(nodes)))
        rows = gradient.view(len(total), len(nodes), -1)
        total += torch.bmm(weights.view(1, 1, -1).expand(len(total), 1, -1), rows).view_as(total)
    return total


def _by_second_layer(
    rewritten: Rewritten,
    second: SecondLayer,
    start: Tensor,
    slope: Tensor,
    targets: Tensor,
    parts: Sequence[tuple[Tensor, Tensor]],
) -> Tensor:
    """The same, ray by ray and of the first ReLU and the convolution behind it only what changes."""
    nodes, order = torch.sort(torch.cat([nodes for nodes, _ in parts]))
    weights = torch.cat([weights for _, weights in parts])[order]
    together = max(len(part) for part, _ in parts)
    answers = []
    for one, other, target in zip(start.expand_as(slope), slope, targets.split(1), strict=True):
        behind = partial(_behind_second, rewritten, target)
        answers.append(second.mean_gradient(one, other, nodes, weights, behind, together))
    return torch.stack(answers)


def _behind_second(rewritten: Rewritten, target: Tensor, maps: Tensor) -> Tensor:
    return _behind(rewritten, maps, target, len(maps), rewritten.rest)


def _behind(
    rewritten: Rewritten, hidden: Tensor, targets: Tensor, repeated: int, body: nn.Module | None = None
) -> Tensor:
    """Gradient of the target output where the body begins, each target for so many rows."""
    with torch.enable_grad():
        leaf = hidden.detach().requires_grad_()
        answers = (body or rewritten.body)(leaf)
        if rewritten.end is not None:
            start = rewritten.end.weight[targets].repeat_interleave(repeated, 0)
            return torch.autograd.grad(answers, leaf, start.view_as(answers))[0]
        chosen = answers.gather(1, targets.repeat_interleave(repeated)[:, None])
        return torch.autograd.grad(chosen.sum(), leaf)[0]


def _stored(rewritten: Rewritten, maps: Tensor) -> Tensor:
    """Maps in the order of their memory: `[n, h, w, c]` where the channels come last."""
    return stored(maps) if rewritten.last and maps.ndim == 4 else maps.contiguous()


def _named(rewritten: Rewritten, maps: Tensor) -> Tensor:
    return named(maps) if rewritten.last and maps.ndim == 4 else maps
