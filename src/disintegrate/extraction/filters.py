"""The filters of a first convolution, from bends along short lines: those of its units have few coordinates.

Where a ReLU stands behind a convolution of the input, each of its units bends along the hyperplane `k * x + b = 0` of
one filter at one place: a normal that is zero outside of a patch, and the same at every place. A unit of a later layer
has the patches of all units before it. What does not come out: the sign of a filter and its scale, which layers behind
it could undo.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

from disintegrate.extraction.bends import Line, bends
from disintegrate.extraction.hidden_units import HiddenUnits
from disintegrate.extraction.one_hidden_layer import measured_precision
from disintegrate.extraction.tangents import Oracle

# The share of a normal's square that may lie outside of its patch.
OUTSIDE = 1e-3
# Filters that are more alike than this are one.
ALIKE = 0.995
# A line reaches so far about an input at first, as a share of its length; lines are made longer or shorter until they
# have about so many bends.
REACH, BENDS = 1e-3, 24
# How far a line passes by an input, in units of the inputs' spread.
ASIDE = 0.3
# Two points this far apart, as a share of a line, tell the noise of a gradient.
PAIR = 1e-3


@dataclass(frozen=True, eq=False)
class Filters:
    """Filters as far as bends showed them.

    Attributes:
        kernels: of length 1, their sign open.
        offsets: of each, in units of the kernel's length, with the kernel's sign.
        seen: how many bends showed each.
        bends: that were looked at, those of later layers included.
        lines: that were looked along.
    """

    kernels: Float64[np.ndarray, "k c s s"]
    offsets: Float64[np.ndarray, " k"]
    seen: np.ndarray
    bends: int
    lines: int


def first_filters(
    oracle: Oracle,
    inputs: Float[np.ndarray, "n c h w"],
    *,
    lines: int = 40,
    seed: int = 0,
    size: int = 3,
) -> Filters:
    """The filters of a first convolution with a ReLU behind it, up to sign and scale: all normals of their size.

    Args:
        oracle: tangents of the model.
        inputs: images to look around.
        lines: how many.
        seed: for directions.
        size: of the filters.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from disintegrate import Capabilities, LocalExplainer, single_step
        >>> _ = torch.manual_seed(0)
        >>> net = nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
        >>> oracle = Oracle(LocalExplainer(net, Capabilities(rule="riemann_right")), (1, 6, 6), (0, 1), single_step())
        >>> x = np.random.default_rng(0).normal(size=(2, 1, 6, 6)).astype(np.float32)
        >>> found = first_filters(oracle, x, lines=4)
        >>> weight = net[0].weight.detach().numpy()
        >>> bool(abs((found.kernels[0] * weight).sum()) > 0.99999 * np.linalg.norm(weight))
        True
    """
    generator = np.random.default_rng(seed)
    flat = inputs.reshape(len(inputs), -1).astype(np.float64)
    shape = inputs.shape[1:]
    length = float(np.linalg.norm(flat, axis=1).mean())
    reach, count = REACH, 0
    patches: list[Float64[np.ndarray, "c s s"]] = []
    offsets: list[float] = []
    for number in range(lines):
        aside, direction = generator.normal(size=(2, flat.shape[1]))
        # on an even background many units bend at once
        centre = flat[number % len(flat)] + ASIDE * flat.std() * aside
        line = Line(centre, length * direction / np.linalg.norm(direction), math.atan(reach))
        ends = oracle.at(line.at(np.array([-line.reach, line.reach])))
        beside = oracle.at(line.at(np.array([-line.reach, line.reach]) * (1 - PAIR)))
        precision = measured_precision(oracle, ends, beside)
        nothing = HiddenUnits.none(flat.shape[1], ends.outputs.shape[1])
        found = bends(oracle.at, nothing, line, precision, ends, confirm=True, tolerable=math.inf).units
        count += len(found)
        reach *= min(8.0, max(0.25, BENDS / max(len(found), 1)))
        for normal, offset in zip(found.normals, found.offsets, strict=True):
            patch = _patch(normal.reshape(shape), size)
            if patch is not None:
                patches.append(patch)
                offsets.append(float(offset))
    return _grouped(np.array(patches).reshape(len(patches), shape[0], size, size), np.array(offsets), count, lines)


def _patch(normal: Float64[np.ndarray, "c h w"], size: int) -> Float64[np.ndarray, "c s s"] | None:
    """The patch that holds all of a normal, if there is one."""
    squares = (normal**2).sum(0)
    windows = np.lib.stride_tricks.sliding_window_view(squares, (size, size)).sum((2, 3))
    top, left = np.unravel_index(int(windows.argmax()), windows.shape)
    if windows[top, left] < (1 - OUTSIDE) * squares.sum():
        return None
    patch = normal[:, top : top + size, left : left + size]
    return np.asarray(patch / np.linalg.norm(patch))


def _grouped(
    patches: Float64[np.ndarray, "n c s s"], offsets: Float64[np.ndarray, " n"], count: int, lines: int
) -> Filters:
    """One kernel for all patches that are alike but for their sign, the most often seen first."""
    left = np.arange(len(patches))
    flat = patches.reshape(len(patches), math.prod(patches.shape[1:]))
    groups = []
    while len(left):
        cosines = flat[left] @ flat[left[0]]
        same = np.abs(cosines) > ALIKE
        signs = np.sign(cosines[same])
        kernel = (signs[:, None] * flat[left[same]]).mean(0)
        groups.append((int(same.sum()), kernel / np.linalg.norm(kernel), float(np.median(signs * offsets[left[same]]))))
        left = left[~same]
    groups.sort(key=lambda group: -group[0])
    kernels = np.array([kernel for _, kernel, _ in groups]).reshape(len(groups), *patches.shape[1:])
    return Filters(
        kernels, np.array([offset for _, _, offset in groups]), np.array([seen for seen, _, _ in groups]), count, lines
    )
