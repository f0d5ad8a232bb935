"""The operators of piecewise-linear networks (and a softmax behind them), as the ONNX standard defines them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as f

from disintegrate.errors import InvalidValue

Attributes = dict[str, Any]
Arguments = Sequence[Tensor | None]
Operator = Callable[[Any, Attributes], Tensor]


def _gemm(given: Any, a: Attributes) -> Tensor:
    left = given[0].mT if a.get("transA", 0) else given[0]
    right = given[1].mT if a.get("transB", 0) else given[1]
    out: Tensor = a.get("alpha", 1.0) * (left @ right) if a.get("alpha", 1.0) != 1 else left @ right
    if len(given) > 2 and given[2] is not None:
        out = out + (given[2] if a.get("beta", 1.0) == 1 else a["beta"] * given[2])
    return out


def _conv(given: Any, a: Attributes) -> Tensor:
    spatial = given[0].ndim - 2
    padded, padding = _padded(given[0], a, list(given[1].shape[2:]), 0.0)
    bias = given[2] if len(given) > 2 else None
    convolve = {1: f.conv1d, 2: f.conv2d, 3: f.conv3d}[spatial]
    ones = [1] * spatial
    return convolve(
        padded, given[1], bias, a.get("strides", ones), padding, a.get("dilations", ones), a.get("group", 1)
    )


def _pool(given: Any, a: Attributes, *, largest: bool) -> Tensor:
    kernel = list(a["kernel_shape"])
    ones = [1] * len(kernel)
    strides, dilations, ceil = list(a.get("strides", ones)), list(a.get("dilations", ones)), bool(a.get("ceil_mode", 0))
    if largest:
        padded, padding = _padded(given[0], a, kernel, -math.inf)
        pool = {1: f.max_pool1d, 2: f.max_pool2d, 3: f.max_pool3d}[len(kernel)]
        out: Tensor = pool(padded, kernel, strides, padding, dilations, ceil)
        return out
    include = bool(a.get("count_include_pad", 0))
    padded, padding = _padded(given[0], a, kernel, 0.0 if include else None)
    average: Any = {1: f.avg_pool1d, 2: f.avg_pool2d, 3: f.avg_pool3d}[len(kernel)]
    averaged: Tensor = average(padded, kernel, strides, padding, ceil, include)
    return averaged


def _padded(x: Tensor, a: Attributes, kernel: list[int], fill: float | None) -> tuple[Tensor, list[int]]:
    """The input and the symmetric padding that the operator itself can do; what is lopsided is padded here."""
    spatial = len(kernel)
    pads = list(a.get("pads", [0] * 2 * spatial))
    automatic = _text(a.get("auto_pad", "NOTSET"))
    if automatic.startswith("SAME"):
        pads = _same(x, a, kernel, upper=automatic == "SAME_UPPER")
    elif automatic not in ("NOTSET", "VALID"):
        raise InvalidValue("This padding is not known here.", got=automatic)
    before, after = pads[:spatial], pads[spatial:]
    if before == after and all(2 * pad <= size for pad, size in zip(before, kernel, strict=True)):
        return x, before
    if fill is None:
        raise InvalidValue("An average over lopsided padding is not known here.", got=pads)
    flat = [pad for pair in zip(reversed(before), reversed(after), strict=True) for pad in pair]
    return f.pad(x, flat, value=fill), [0] * spatial


def _same(x: Tensor, a: Attributes, kernel: list[int], *, upper: bool) -> list[int]:
    before, after = [], []
    for axis, size in enumerate(kernel):
        stride = a.get("strides", [1] * len(kernel))[axis]
        reach = (size - 1) * a.get("dilations", [1] * len(kernel))[axis] + 1
        length = x.shape[2 + axis]
        total = max(0, (math.ceil(length / stride) - 1) * stride + reach - length)
        before.append(total // 2 if upper else total - total // 2)
        after.append(total - before[-1])
    return before + after


def _batch_norm(given: Any, a: Attributes) -> Tensor:
    x, scale, bias, mean, variance = given[:5]
    return f.batch_norm(x, mean, variance, scale, bias, False, 0.0, a.get("epsilon", 1e-5))


def _reshape(given: Any, a: Attributes) -> Tensor:
    x, wanted = given[0], given[1].tolist()
    sizes = [x.shape[i] if size == 0 and not a.get("allowzero", 0) else size for i, size in enumerate(wanted)]
    # A file that was traced with a batch of one must hold for other batches.
    if len(sizes) > 1 and sizes[0] == 1 and (-1 in sizes[1:] or math.prod(sizes) * len(x) == x.numel()):
        sizes[0] = len(x)
    out: Tensor = x.reshape(sizes)
    return out


def _pad(given: Any, a: Attributes) -> Tensor:
    if _text(a.get("mode", "constant")) != "constant":
        raise InvalidValue("Only padding with a constant is known here.", got=_text(a["mode"]))
    x, pads = given[0], given[1].tolist()
    value = float(given[2]) if len(given) > 2 and given[2] is not None else 0.0
    axes = given[3].tolist() if len(given) > 3 and given[3] is not None else list(range(x.ndim))
    before, after = [0] * x.ndim, [0] * x.ndim
    for place, axis in enumerate(axes):
        before[axis], after[axis] = pads[place], pads[place + len(axes)]
    flat = [pad for pair in zip(reversed(before), reversed(after), strict=True) for pad in pair]
    return f.pad(x, flat, value=value)


def _axes(given: Any, a: Attributes) -> list[int] | None:
    if len(given) > 1 and given[1] is not None:
        found: list[int] = given[1].tolist()
        return found
    return list(a["axes"]) if "axes" in a else None


def _reduce(given: Any, a: Attributes, how: Callable[..., Tensor]) -> Tensor:
    axes = _axes(given, a)
    if axes is None:
        axes = list(range(given[0].ndim))
    return how(given[0], dim=axes, keepdim=bool(a.get("keepdims", 1)))


def _squeeze(given: Any, a: Attributes) -> Tensor:
    axes = _axes(given, a)
    out: Tensor = given[0].squeeze() if axes is None else given[0].squeeze(axes)
    return out


def _unsqueeze(given: Any, a: Attributes) -> Tensor:
    out: Tensor = given[0]
    for axis in sorted(_axes(given, a) or []):
        out = out.unsqueeze(axis)
    return out


def _clip(given: Any, a: Attributes) -> Tensor:
    low = given[1] if len(given) > 1 else a.get("min")
    high = given[2] if len(given) > 2 else a.get("max")
    return torch.clamp(given[0], low, high)


def _prelu(given: Any, a: Attributes) -> Tensor:
    out: Tensor = torch.where(given[0] < 0, given[0] * given[1], given[0])
    return out


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


OPERATORS: dict[str, Operator] = {
    "Add": lambda given, a: given[0] + given[1],
    "AveragePool": lambda given, a: _pool(given, a, largest=False),
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Concat": lambda given, a: torch.cat(list(given), a["axis"]),
    "Conv": _conv,
    "Div": lambda given, a: given[0] / given[1],
    "Dropout": lambda given, a: given[0],
    "Flatten": lambda given, a: given[0].flatten(1) if a.get("axis", 1) == 1 else _refused_flatten(a),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda given, a: given[0].mean(tuple(range(2, given[0].ndim)), keepdim=True),
    "GlobalMaxPool": lambda given, a: given[0].amax(tuple(range(2, given[0].ndim)), keepdim=True),
    "HardSigmoid": lambda given, a: (a.get("alpha", 0.2) * given[0] + a.get("beta", 0.5)).clamp(0, 1),
    "Identity": lambda given, a: given[0],
    "LeakyRelu": lambda given, a: f.leaky_relu(given[0], a.get("alpha", 0.01)),
    "MatMul": lambda given, a: given[0] @ given[1],
    "MaxPool": lambda given, a: _pool(given, a, largest=True),
    "Mul": lambda given, a: given[0] * given[1],
    "Neg": lambda given, a: -given[0],
    "PRelu": _prelu,
    "Pad": _pad,
    "ReduceMean": lambda given, a: _reduce(given, a, torch.mean),
    "ReduceSum": lambda given, a: _reduce(given, a, torch.sum),
    "Relu": lambda given, a: f.relu(given[0]),
    "Reshape": _reshape,
    "Softmax": lambda given, a: f.softmax(given[0], a.get("axis", -1)),
    "Squeeze": _squeeze,
    "Sub": lambda given, a: given[0] - given[1],
    "Transpose": lambda given, a: given[0].permute(a["perm"]),
    "Unsqueeze": _unsqueeze,
}


def _refused_flatten(a: Attributes) -> Tensor:
    raise InvalidValue("Only Flatten along the first axis is known here.", got=f"axis {a['axis']}")
