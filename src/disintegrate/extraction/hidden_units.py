"""The hidden layer of a network with one: units that bend, and the linear rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch import nn

from disintegrate.extraction.tangents import Tangents

# Normals and relative sizes this close are the same.
SAME, MANY = 1e-4, 10.0


@dataclass(frozen=True, eq=False)
class HiddenUnits:
    """`sum_i v_i relu(w_i x + b_i)`, a unit for each row, with normals `w_i` of length 1.

    Attributes:
        normals: `w_i`.
        offsets: `b_i`.
        weights: `v_i`.
        doubts: how far off each offset may be, as its own arithmetic says.
    """

    normals: Float64[np.ndarray, "h d"]
    offsets: Float64[np.ndarray, " h"]
    weights: Float64[np.ndarray, "h classes"]
    doubts: Float64[np.ndarray, " h"]

    def __len__(self) -> int:
        return len(self.offsets)

    @classmethod
    def none(cls, width: int, classes: int) -> HiddenUnits:
        """No units."""
        return cls(np.zeros((0, width)), np.zeros(0), np.zeros((0, classes)), np.zeros(0))

    def joined(self, other: HiddenUnits) -> HiddenUnits:
        """These and others behind them."""
        return HiddenUnits(*(np.concatenate(both) for both in zip(self.parts, other.parts, strict=True)))

    def chosen(self, rows: np.ndarray) -> HiddenUnits:
        """Some of them."""
        return HiddenUnits(*(part[rows] for part in self.parts))

    @property
    def parts(self) -> tuple[np.ndarray, ...]:
        """Normals, offsets, weights and doubts."""
        return self.normals, self.offsets, self.weights, self.doubts

    def active(self, points: Float64[np.ndarray, "n d"]) -> Bool[np.ndarray, "n h"]:
        """Where each unit is on."""
        return np.asarray(points @ self.normals.T + self.offsets > 0)

    def sure(self, points: Float64[np.ndarray, "n d"]) -> Bool[np.ndarray, " n"]:
        """Where it is sure which units are on: no hyperplane passes within the doubt about its offset."""
        distances = np.abs(points @ self.normals.T + self.offsets)
        return np.asarray((distances > MANY * self.doubts).all(1))

    def less(self, asked: Tangents) -> Tangents:
        """Tangents less those of these units."""
        if not len(self):
            return asked
        before = asked.points @ self.normals.T + self.offsets
        on = before > 0
        outputs = asked.outputs - np.where(on, before, 0) @ self.weights
        gradients = np.stack([
            gradient - (self.weights[active].T @ self.normals[active])
            for gradient, active in zip(asked.gradients, on, strict=True)
        ])  # fmt: skip
        return Tangents(asked.points, outputs, gradients)


def merged(units: HiddenUnits) -> HiddenUnits:
    """Units on one hyperplane made one, and those without output weights left out.

    A unit that is on where another is off is the same but for a linear part, `v relu(-z) = v relu(z) - v z`, which
    is left to the linear rest.

    Example:
        >>> once = HiddenUnits(np.eye(2), np.zeros(2), np.ones((2, 3)), np.full(2, 1e-6))
        >>> twice = merged(once.joined(once))
        >>> len(twice) == 2 and bool((twice.weights == 2).all())
        True
    """
    left = list(np.argsort(-np.linalg.norm(units.weights, axis=1), kind="stable"))
    kept = []
    while left:
        first = left.pop(0)
        turned = units.normals[left] @ units.normals[first]
        signs = np.where(turned < 0, -1.0, 1.0)
        apart = np.linalg.norm(signs[:, None] * units.normals[left] - units.normals[first], axis=1)
        shifted = np.abs(signs * units.offsets[left] - units.offsets[first])
        size = np.linalg.norm(units.weights[first])
        sizes = np.linalg.norm(units.weights[left], axis=1)
        blur = SAME * size / np.maximum(sizes, 1e-300)
        same = (apart < blur) & (shifted < blur + MANY * (units.doubts[left] + units.doubts[first]))
        together = [first, *np.array(left, int)[same]]
        left = [row for row, gone in zip(left, same, strict=True) if not gone]
        whole = units.weights[together].sum(0)
        if np.linalg.norm(whole) > SAME * size:
            kept.append(HiddenUnits(units.normals[[first]], units.offsets[[first]], whole[None], units.doubts[[first]]))
    found = HiddenUnits.none(units.normals.shape[1], units.weights.shape[1])
    for unit in kept:
        found = found.joined(unit)
    return found


def network(
    units: HiddenUnits,
    bias: Float64[np.ndarray, " classes"],
    *,
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
) -> nn.Sequential:
    """Units as a torch module: flatten, first layer, ReLU, second layer; each unit's two layers weigh the same.

    Example:
        >>> units = HiddenUnits(np.eye(2), np.zeros(2), np.ones((2, 3)), np.zeros(2))
        >>> net = network(units, np.zeros(3), shape=(2,), dtype=torch.float64)
        >>> bool(torch.allclose(net(torch.tensor([[1.0, -1.0]]).double()), torch.ones(1, 3).double()))
        True
    """
    width, classes = units.normals.shape[1], units.weights.shape[1]
    if not len(units):  # a layer has at least one unit
        units = HiddenUnits(np.zeros((1, width)), np.zeros(1), np.zeros((1, classes)), np.zeros(1))
    made = nn.Sequential(nn.Flatten(), nn.Linear(width, len(units)), nn.ReLU(), nn.Linear(len(units), classes))
    scale = np.sqrt(np.linalg.norm(units.weights, axis=1))
    tensors = {
        "1.weight": units.normals * scale[:, None],
        "1.bias": units.offsets * scale,
        "3.weight": (units.weights / np.where(scale > 0, scale, 1)[:, None]).T,
        "3.bias": bias,
    }
    made.to(dtype).load_state_dict({name: torch.tensor(value).to(dtype) for name, value in tensors.items()})
    return made.eval()
