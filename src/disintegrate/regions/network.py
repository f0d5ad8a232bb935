"""A network of piecewise linear operations, evaluated along a line under a given pattern of its units.

Each number of the network is carried as a value and a slope along the line. A pattern says which units are on and which
entry each window of max pooling passes on; under a fixed pattern the network is affine, and each unit tells how far the
line may go until it would leave its pattern.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn

from disintegrate.errors import InvalidValue

# Numbers of one layer that differ by less than so many roundings of its largest are equal.
ROUNDINGS = 256
Pattern = Mapping[str, Tensor]

LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d)
HOMOGENEOUS = (nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Unflatten,
               nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d)  # fmt: skip
RESHAPING = ("flatten", "view", "reshape", "contiguous", "size", "unflatten")
POOLINGS = (nn.MaxPool1d, nn.MaxPool2d)
RELUS = (torch.relu, torch.relu_, nn.functional.relu, nn.functional.relu_)
ADDITIONS = (operator.add, operator.iadd, torch.add)


@dataclass(frozen=True, eq=False)
class Line:
    """Numbers on a line, `value + dt slope`."""

    value: Tensor
    slope: Tensor


@dataclass(frozen=True, eq=False)
class Passage:
    """What one evaluation found.

    Attributes:
        output: of the network.
        pattern: of each node with units.
        room: how far each unit stays in its pattern, infinity where for ever.
        other: where the pattern goes when a unit leaves it.
        ties: windows of max pooling that hold their largest value twice, and units that are zero all along.
    """

    output: Line
    pattern: dict[str, Tensor] = field(default_factory=dict)
    room: dict[str, Tensor] = field(default_factory=dict)
    other: dict[str, Tensor] = field(default_factory=dict)
    ties: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Network:
    """A traced network, all of whose operations are piecewise linear.

    Raises:
        InvalidValue: the model cannot be traced, is in training mode, or holds another operation; the first is named.
    """

    traced: fx.GraphModule

    @classmethod
    def of(cls, model: nn.Module) -> Network:
        """Trace a model and look at every operation."""
        if any(module.training for module in model.modules()):
            raise InvalidValue(
                "Regions are those of a model in eval mode.",
                got="a model in training mode",
                instead="Use model.eval().",
            )
        try:
            traced = fx.symbolic_trace(model)
        except Exception as error:  # a model's own code may raise anything when it is traced
            raise InvalidValue(
                "The model cannot be traced by torch.fx.",
                got=f"{type(error).__name__}: {str(error).splitlines()[0][:100]}",
                instead="Use a model whose forward does not depend on the numbers it sees.",
            ) from None
        for node in traced.graph.nodes:
            if not _is_piecewise_linear(traced, node):
                raise InvalidValue(
                    "An operation of the model is not piecewise linear, or not one that is known here.",
                    got=_name(traced, node),
                    instead="Regions are known of linear layers, convolutions, ReLU, LeakyReLU, max and average "
                    "pooling, batch normalisation, addition and flattening.",
                )
        return cls(traced)

    def follow(self, value: Float[Tensor, "n *shape"], slope: Float[Tensor, "n *shape"],
               pattern: Pattern | None = None) -> Passage:  # fmt: skip
        """Evaluate on lines that begin at a value; without a pattern units take the one that holds right behind."""
        found = Passage(Line(value, slope))
        known: dict[fx.Node, Any] = {}
        for node in self.traced.graph.nodes:
            if node.op == "placeholder":
                known[node] = found.output
            elif node.op == "get_attr":
                known[node] = operator.attrgetter(str(node.target))(self.traced)
            elif node.op == "output":
                return Passage(known[node.args[0]], found.pattern, found.room, found.other, found.ties)
            else:
                known[node] = self._answer(node, known, found, pattern)
        raise InvalidValue("The model answers nothing.")

    def _answer(self, node: fx.Node, known: Mapping[fx.Node, Any], found: Passage, pattern: Pattern | None) -> Any:
        module = self.traced.get_submodule(str(node.target)) if node.op == "call_module" else None
        arguments: Any = fx.map_arg(node.args, known.__getitem__)
        options: Any = fx.map_arg(node.kwargs, known.__getitem__)
        target: Any = node.target
        line: Any = arguments[0]
        kept = None if pattern is None else pattern.get(node.name)
        negative = _negative_slope(node, module)
        if negative is not None:
            return _rectified(node.name, line, negative, found, kept)
        if isinstance(module, POOLINGS):
            return _largest(node.name, line, Windows.of(module), found, kept)
        if isinstance(module, LINEAR):
            return _affine(module, line)
        if module is None and (target in ADDITIONS or target in ("add", "add_")):
            return _sum(*arguments)
        function: Any = module or target
        if node.op == "call_method":
            function = getattr(Tensor, str(target))
        # What is read off a shape is a number, and the same for values and slopes.
        if not isinstance(line, Line) or target in ("size", getattr):
            first = line.value if isinstance(line, Line) else line
            return function(first, *arguments[1:], **options)
        return Line(*(function(part, *arguments[1:], **options) for part in (line.value, line.slope)))


@dataclass(frozen=True)
class Windows:
    """The windows of a max pooling."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]

    @classmethod
    def of(cls, module: nn.MaxPool1d | nn.MaxPool2d) -> Windows:
        """Those of a layer."""
        dimensions = 1 if isinstance(module, nn.MaxPool1d) else 2
        given: list[Any] = [module.kernel_size, module.stride, module.padding]
        return cls(*(one if isinstance(one, tuple) else (one,) * dimensions for one in given))

    def cut(self, maps: Float[Tensor, "n c *shape"], filling: float) -> Float[Tensor, "n c windows entries"]:
        """The entries of each window, with what stands outside the map."""
        edges = [edge for one in reversed(self.padding) for edge in (one, one)]
        padded = nn.functional.pad(maps, edges, value=filling)
        for dimension, (size, stride) in enumerate(zip(self.size, self.stride, strict=True)):
            padded = padded.unfold(2 + dimension, size, stride)
        return padded.flatten(2 + len(self.size)).flatten(2, 1 + len(self.size))

    def extent(self, maps: Tensor) -> list[int]:
        """The shape of the map of windows."""
        each = zip(maps.shape[2:], self.size, self.stride, self.padding, strict=True)
        return [(length + 2 * padding - size) // stride + 1 for length, size, stride, padding in each]


def _is_piecewise_linear(traced: fx.GraphModule, node: fx.Node) -> bool:
    if node.op in ("placeholder", "get_attr", "output"):
        return True
    if node.op == "call_module":
        module = traced.get_submodule(str(node.target))
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            return module.track_running_stats
        if isinstance(module, POOLINGS):
            return module.dilation in (1, (1, 1)) and not module.ceil_mode and not module.return_indices
        return type(module) in (*LINEAR, *HOMOGENEOUS, nn.ReLU, nn.LeakyReLU)
    if node.op == "call_method":
        return node.target in (*RESHAPING, "relu", "relu_", "add", "add_")
    known = (*RELUS, *ADDITIONS, torch.flatten, torch.reshape, nn.functional.leaky_relu, operator.getitem)
    return node.target in known or (node.target is getattr and node.args[1] == "shape")


def _name(traced: fx.GraphModule, node: fx.Node) -> str:
    if node.op == "call_module":
        return f"{type(traced.get_submodule(str(node.target))).__name__} ({node.target})"
    return str(getattr(node.target, "__name__", node.target))


def _negative_slope(node: fx.Node, module: nn.Module | None) -> float | None:
    """What a unit multiplies by when it is off; None for a node without ReLUs."""
    if isinstance(module, nn.LeakyReLU):
        return float(module.negative_slope)
    if node.target is nn.functional.leaky_relu:
        given: Any = node.kwargs.get("negative_slope", node.args[1] if len(node.args) > 1 else 0.01)
        return float(given)
    is_relu = isinstance(module, nn.ReLU) or node.target in RELUS
    return 0.0 if is_relu or (node.op == "call_method" and node.target in ("relu", "relu_")) else None


def _affine(module: nn.Module, line: Line) -> Line:
    """A layer's constant is what it answers to zero; the slope does not see it."""
    with torch.no_grad():
        constant = module(torch.zeros_like(line.slope[:1]))
    return Line(module(line.value), module(line.slope) - constant)


def _sum(first: Any, second: Any) -> Line:
    if isinstance(first, Line) and isinstance(second, Line):
        return Line(first.value + second.value, first.slope + second.slope)
    line, constant = (first, second) if isinstance(first, Line) else (second, first)
    return Line(line.value + constant, line.slope)


def _nothing(values: Tensor) -> Tensor:
    """What is rounding among the numbers of each row."""
    largest = values.detach().flatten(1).abs().amax(1)
    return (ROUNDINGS * torch.finfo(values.dtype).eps * largest).view(-1, *[1] * (values.ndim - 1))


def _room(height: Tensor, fall: Tensor) -> Tensor:
    """How far until a height that changes at a rate is zero, where it falls."""
    room = torch.where(fall < 0, height / -fall, torch.inf)
    return room.clamp_min(0.0)


def _rectified(name: str, line: Line, negative: float, found: Passage, kept: Tensor | None) -> Line:
    value, slope = line.value.detach(), line.slope
    small, flat = value.abs() <= _nothing(value), slope.abs() <= _nothing(slope)
    on = torch.where(small, (slope > 0) & ~flat, value > 0) if kept is None else kept
    sign = torch.where(on, 1.0, -1.0).to(value.dtype)
    found.pattern[name], found.other[name] = on, ~on
    found.ties[name] = small & flat & (value != 0)
    found.room[name] = torch.where(small & flat, torch.inf, _room(sign * value, sign * slope))
    factor = negative + (1 - negative) * on.to(value.dtype)
    return Line(line.value * factor, line.slope * factor)


def _largest(name: str, line: Line, windows: Windows, found: Passage, kept: Tensor | None) -> Line:
    values, slopes = windows.cut(line.value, -torch.inf), windows.cut(line.slope, 0.0)
    value, slope = values.detach(), slopes
    equal, level = (_nothing(part).view(-1, 1, 1, 1) for part in (line.value, line.slope))
    if kept is None:
        best = value >= value.amax(-1, keepdim=True) - equal
        steepest = torch.where(best, slope, -torch.inf)
        best &= steepest >= steepest.amax(-1, keepdim=True) - level
        # The first, as the model itself would have it.
        kept = (best * torch.arange(best.shape[-1], 0, -1, device=best.device)).argmax(-1)
    chosen = kept.unsqueeze(-1)
    ahead, rise = value.gather(-1, chosen) - value, slope.gather(-1, chosen) - slope
    same = (ahead.abs() <= equal) & (rise.abs() <= level)
    room = torch.where(same, torch.inf, _room(ahead, rise))
    nearest, challenger = room.min(-1)
    dead = (value == 0) & (slope == 0)
    others = same & ~torch.zeros_like(same).scatter_(-1, chosen, value=True)
    found.pattern[name], found.other[name], found.room[name] = kept, challenger, nearest
    found.ties[name] = others.any(-1) & ~dead.gather(-1, chosen).squeeze(-1)
    shape = (*line.value.shape[:2], *windows.extent(line.value))
    return Line(*(part.gather(-1, chosen).view(shape) for part in (values, slopes)))
