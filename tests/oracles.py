"""Slow re-implementations straight from the paper's formulas, one image and one step at a time."""

import torch
from torch import Tensor, nn


def gradient(model: nn.Module, x: Tensor, target: int) -> Tensor:
    """Definition 2.3: VG(x) = grad f(x)."""
    leaf = x.clone().requires_grad_()
    model(leaf[None])[0, target].backward()
    assert leaf.grad is not None
    return leaf.grad


def integrated(model: nn.Module, x: Tensor, b: Tensor, target: int, m: int) -> Tensor:
    """Equation (1): (x - b) (1/m) sum_{i=1}^m grad f(b + (i/m) (x - b))."""
    total = torch.zeros_like(x)
    for i in range(1, m + 1):
        total += gradient(model, b + i / m * (x - b), target)
    return (x - b) * total / m


def equation_2(model: nn.Module, x: Tensor, target: int, m: int) -> Tensor:
    """VG(x) = x^-1 IG_m(x)."""
    return integrated(model, x, torch.zeros_like(x), target, m) / x


def equation_3(model: nn.Module, x: Tensor, target: int, m: int, alpha: float) -> Tensor:
    """VG(x) = (1 / (1 - alpha)) x^-1 (IG_m(x) - IG_m(alpha x))."""
    zero = torch.zeros_like(x)
    whole, part = integrated(model, x, zero, target, m), integrated(model, alpha * x, zero, target, m)
    return (whole - part) / x / (1 - alpha)


def equation_4(model: nn.Module, x: Tensor, target: int, m: int) -> Tensor:
    """VG(x) = m x^-1 (IG_m(x) - IG_{m-1}((m-1)/m x))."""
    zero = torch.zeros_like(x)
    whole = integrated(model, x, zero, target, m)
    part = integrated(model, (m - 1) / m * x, zero, target, m - 1)
    return m * (whole - part) / x


def probability_gradients(model: nn.Module, x: Tensor, b: Tensor, nodes: list[float], weights: list[float]) -> Tensor:
    """For every class c: sum_a w_a (softmax(z)_c)'(b + t_a (x - b)), for a model that answers logits z."""
    softmaxed = nn.Sequential(model, nn.Softmax(dim=1))
    classes = model(x[None]).shape[1]
    rows = []
    for c in range(classes):
        total = torch.zeros_like(x)
        for t, w in zip(nodes, weights, strict=True):
            total += w * gradient(softmaxed, b + t * (x - b), c)
        rows.append(total)
    return torch.stack(rows)


def logit_gradients(model: nn.Module, x: Tensor, b: Tensor, nodes: list[float], weights: list[float]) -> Tensor:
    """Solve sum_j J_cj G_j = A_c coordinate by coordinate with the pseudo-inverse; J from the model itself.

    J_cj = sum_a w_a p_c(t_a) (delta_cj - p_j(t_a)).
    """
    answers = probability_gradients(model, x, b, nodes, weights)
    classes = len(answers)
    j = torch.zeros(classes, classes, dtype=x.dtype)
    for t, w in zip(nodes, weights, strict=True):
        p = torch.softmax(model((b + t * (x - b))[None])[0], 0).detach()
        for row in range(classes):
            for column in range(classes):
                j[row, column] += w * p[row] * (float(row == column) - p[column])
    inverse = torch.linalg.pinv(j)
    return torch.stack([inverse @ answers[:, i] for i in range(len(x))], dim=1)
