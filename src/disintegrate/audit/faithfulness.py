"""What an explanation is worth: against the exact integral, and by what removing its top coordinates does."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import nn

from disintegrate.gradients import integrated_gradients
from disintegrate.quadrature import gauss_legendre

# So many nodes stand for the exact integral; the share of coordinates that counts as the top; parts of a deletion.
EXACT_STEPS, TOP, PARTS = 300, 0.1, 10


@dataclass(frozen=True)
class Faithfulness:
    """Means over inputs of how good explanations are.

    Attributes:
        rank_correlation: Spearman's, with the exact Integrated Gradients.
        top_overlap: the share of the top tenth of coordinates, by size, that is the exact one's as well.
        deletion: mean output, as a share of the way from baseline to input, while the top coordinates go; low is good.
        insertion: the same while they come; high is good.
    """

    rank_correlation: float
    top_overlap: float
    deletion: float
    insertion: float


def exact_attributions(
    model: nn.Module,
    inputs: Float[np.ndarray, "n *shape"],
    baselines: Float[np.ndarray, "n *shape"],
    targets: Int[np.ndarray, " n"],
) -> Float64[np.ndarray, "n *shape"]:
    """Integrated Gradients by Gauss-Legendre quadrature with 300 nodes, in float64."""
    wide = _double(model)
    x, b = (torch.tensor(array, dtype=torch.float64) for array in (inputs, baselines))
    found = integrated_gradients(wide, x, b, torch.tensor(targets, dtype=torch.long), gauss_legendre(EXACT_STEPS))
    exact: Float64[np.ndarray, "n *shape"] = found.numpy()
    return exact


def faithfulness(
    model: nn.Module,
    inputs: Float[np.ndarray, "n *shape"],
    baselines: Float[np.ndarray, "n *shape"],
    targets: Int[np.ndarray, " n"],
    attribution: Float[np.ndarray, "n *shape"],
    exact: Float[np.ndarray, "n *shape"],
) -> Faithfulness:
    """Score attributions.

    Example:
        >>> model, x = nn.Linear(8, 1), np.random.default_rng(0).normal(size=(2, 8))
        >>> exact = exact_attributions(model, x, 0 * x, np.array([0, 0]))
        >>> found = faithfulness(model, x, 0 * x, np.array([0, 0]), exact, exact)
        >>> found.rank_correlation > 1 - 1e-12 and found.top_overlap == 1
        True
    """
    found, truth = (array.reshape(len(inputs), -1).astype(np.float64) for array in (attribution, exact))
    first, second = (ranks - ranks.mean(1, keepdims=True) for ranks in (_ranks(found), _ranks(truth)))
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    correlation = (first * second).sum(1) / np.where(norms > 0, norms, 1)
    count = max(1, round(TOP * found.shape[1]))
    tops = [np.argsort(-np.abs(array), axis=1, kind="stable")[:, :count] for array in (found, truth)]
    overlap = [len(set(one) & set(other)) / count for one, other in zip(*map(np.ndarray.tolist, tops), strict=True)]
    deletion, insertion = _curves(model, inputs, baselines, targets, found)
    return Faithfulness(float(correlation.mean()), float(np.mean(overlap)), deletion, insertion)


def _curves(
    model: nn.Module,
    inputs: Float[np.ndarray, "n *shape"],
    baselines: Float[np.ndarray, "n *shape"],
    targets: Int[np.ndarray, " n"],
    attribution: Float64[np.ndarray, "n d"],
) -> tuple[float, float]:
    """The mean of the output while the coordinates that speak most for it go, and while they come."""
    wide, size = _double(model), attribution.shape[1]
    order = np.argsort(np.argsort(-attribution, axis=1, kind="stable"), axis=1, kind="stable").reshape(inputs.shape)

    def output(points: Float64[np.ndarray, "n *shape"]) -> Float64[np.ndarray, " n"]:
        with torch.no_grad():
            outputs = wide(torch.tensor(points)).gather(1, torch.tensor(targets, dtype=torch.long)[:, None])
        values: Float64[np.ndarray, " n"] = outputs[:, 0].numpy()
        return values

    x, b = inputs.astype(np.float64), baselines.astype(np.float64)
    low, high = output(b), output(x)
    span = np.where(np.abs(high - low) > 0, high - low, 1.0)
    shares = []
    for part in range(1, PARTS):
        top = order < part / PARTS * size
        shares.append([((output(np.where(top, *ends)) - low) / span) for ends in ((b, x), (x, b))])
    deletion, insertion = np.median(np.array(shares), axis=2).mean(0)
    return float(deletion), float(insertion)


def _ranks(values: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, "n d"]:
    """Ranks of each row; equal values share their mean rank."""
    found = np.empty(values.shape)
    for row, out in zip(values, found, strict=True):
        _, inverse, counts = np.unique(row, return_inverse=True, return_counts=True)
        ends = np.cumsum(counts)
        out[:] = (ends - (counts - 1) / 2)[inverse]
    return found


def _double(model: nn.Module) -> nn.Module:
    return deepcopy(model).double().eval()
