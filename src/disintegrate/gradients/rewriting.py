"""A model rewritten into one that computes the same faster, in three parts: affine beginning, body, linear end.

The gradient of output c at the end's input is row c of its weights, so the end is never computed. The beginning is
affine in the input and so, on a ray, in t: `A(b + t d) = A(b) + t A'd`; it is computed once for each ray, and its
transpose once for the weighted sum of the gradients behind it.
"""

from __future__ import annotations

import copy
import operator
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from disintegrate.gradients.dense import DenseConvolution, FlatLinear, pays
from disintegrate.gradients.second_layer import FEWEST_NODES, SecondLayer, second_layer

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
POOLINGS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d)
WEIGHTED = (nn.Linear, *CONVOLUTIONS, DenseConvolution, FlatLinear)
AFFINE = (
    *WEIGHTED, *NORMALISATIONS, nn.Flatten, nn.Unflatten, nn.Identity, nn.Dropout, nn.Dropout2d,
    nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d,
)  # fmt: skip
RELU_FUNCTIONS = (torch.relu, nn.functional.relu)
ADDITIONS = (operator.add, operator.iadd, torch.add)


@dataclass(frozen=True, eq=False)
class Rewritten:
    """The three parts of a rewritten model.

    Attributes:
        beginning: affine; None where the model does not begin with a weighted layer.
        slope: the beginning without its constant; None where there is no beginning.
        body: from the beginning's output, or the input, to the end's input, or the output.
        end: a linear layer; None where the model ends otherwise.
        last: whether maps lie in memory with the channels last.
        second: the body's first two layers, where they are a ReLU and a convolution of maps with the channels last.
        rest: the body behind them; None where there is no such second layer.
    """

    beginning: nn.Module | None
    slope: nn.Module | None
    body: nn.Module
    end: nn.Linear | None
    last: bool
    second: SecondLayer | None = None
    rest: nn.Module | None = None

    def second_for(self, steps: int) -> SecondLayer | None:
        """The second layer, where so many nodes make it worth going from ray to ray."""
        return self.second if steps >= FEWEST_NODES else None

    def outputs(self, inputs: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        """What the model answers, by all three parts."""
        hidden = self.laid_out(inputs)
        for part in (self.beginning, self.body, self.end):
            hidden = part(hidden) if part is not None else hidden
        return hidden

    def laid_out(self, inputs: Float[Tensor, "n *shape"]) -> Float[Tensor, "n *shape"]:
        """The same numbers, where the rewritten model wants them in memory."""
        return inputs.contiguous(memory_format=torch.channels_last) if self.last and inputs.ndim == 4 else inputs


def rewrite(
    model: nn.Module, example: Float[Tensor, "n *shape"], *, last: bool, keep_pooling: bool = False
) -> Rewritten:
    """Rewrite a copy of a model in eval mode for inputs like the example's rows.

    Batch normalisation is folded into the layer before it, convolutions of small maps become matrices, ReLU works in
    place where nothing else reads its input. With `keep_pooling` all that max pooling looks at stays as it is, so that
    equal values in a window stay equal, or unequal, to the last digit.

    Raises:
        Exception: whatever torch.fx or the model's own code raises where it cannot be traced.
    """
    traced = fx.symbolic_trace(copy.deepcopy(model).requires_grad_(False))
    placeholders = [node for node in traced.graph.nodes if node.op == "placeholder"]
    if len(placeholders) != 1 or any(_is_random(node) for node in traced.graph.nodes):
        raise ValueError("a model of several inputs, or of random numbers")
    _views_to_flatten(traced)
    kept = _before_pooling(traced) if keep_pooling else set()
    _fold(traced, kept)
    _pool_first(traced, kept)
    if last:
        traced.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    _measure_shapes(traced, example)
    _replace(traced, kept, last=last)
    traced.graph.eliminate_dead_code()
    _measure_shapes(traced, example)
    return _split(traced, kept, rows=2, last=last)


def _is_random(node: fx.Node) -> bool:
    """Traced, a generator goes on from where it was, instead of anew at each call."""
    return "generator" in node.kwargs or "rand" in str(getattr(node.target, "__name__", node.target))


def _measure_shapes(traced: fx.GraphModule, example: Tensor) -> None:
    two = example[:1].expand(2, *example.shape[1:]).contiguous()
    with torch.no_grad():
        ShapeProp(traced).propagate(two)


def _shape(node: fx.Node) -> torch.Size:
    meta = node.meta.get("tensor_meta")
    return meta.shape if meta is not None and hasattr(meta, "shape") else torch.Size()


def _module(traced: fx.GraphModule, node: object) -> nn.Module | None:
    if not isinstance(node, fx.Node) or node.op != "call_module":
        return None
    return traced.get_submodule(str(node.target))


def _calls(traced: fx.GraphModule) -> Iterator[tuple[fx.Node, nn.Module]]:
    """Every node that calls a module which nothing else calls, with the module."""
    times = Counter(str(node.target) for node in traced.graph.nodes if node.op == "call_module")
    for node in list(traced.graph.nodes):
        if node.op == "call_module" and times[str(node.target)] == 1:
            yield node, traced.get_submodule(str(node.target))


def _before_pooling(traced: fx.GraphModule) -> set[fx.Node]:
    """All that the outputs of max pooling are computed from."""
    found: set[fx.Node] = set()
    for node in reversed(traced.graph.nodes):
        module = _module(traced, node)
        by_function = node.op == "call_function" and "max_pool" in str(getattr(node.target, "__name__", ""))
        if node in found or isinstance(module, POOLINGS) or by_function:
            found |= {node, *node.all_input_nodes}
    return found


def _views_to_flatten(traced: fx.GraphModule) -> None:
    """`x.view(x.size(0), -1)` is `torch.flatten(x, 1)`."""
    for node in list(traced.graph.nodes):
        if node.op != "call_method" or node.target not in ("view", "reshape") or len(node.args) != 3:
            continue
        source, rows, rest = node.args
        if rest == -1 and isinstance(rows, fx.Node) and _is_rows_of(rows, source):
            with traced.graph.inserting_after(node):
                flat = traced.graph.call_function(torch.flatten, (source, 1))
            node.replace_all_uses_with(flat)
    traced.graph.eliminate_dead_code()


def _is_rows_of(node: fx.Node, source: object) -> bool:
    if node.op == "call_method" and node.target == "size":
        return node.args == (source, 0)
    if node.op != "call_function" or node.target is not operator.getitem or node.args[1] != 0:
        return False
    shape = node.args[0]
    if not isinstance(shape, fx.Node):
        return False
    by_name = shape.op == "call_function" and shape.target is getattr and shape.args == (source, "shape")
    return by_name or (shape.op == "call_method" and shape.target == "size" and shape.args == (source,))


def _fold(traced: fx.GraphModule, kept: set[fx.Node]) -> None:
    for node, module in _calls(traced):
        before = node.args[0]
        weighted = _module(traced, before)
        if (
            type(module) not in NORMALISATIONS
            or not module.track_running_stats
            or weighted is None
            or not isinstance(before, fx.Node)
        ):
            continue
        if node in kept or len(before.users) != 1 or before not in [call for call, _ in _calls(traced)]:
            continue
        (dtype,) = {parameter.dtype for parameter in weighted.parameters()}
        # Folded in float64 and rounded once.
        wide: tuple[Any, Any] = (copy.deepcopy(weighted).double(), copy.deepcopy(module).double())
        if type(weighted) in CONVOLUTIONS:
            folded: nn.Module = fuse_conv_bn_eval(*wide)
        elif type(weighted) is nn.Linear:
            folded = fuse_linear_bn_eval(*wide)
        else:
            continue
        _set(traced, before, folded.to(dtype))
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)


def _pool_first(traced: fx.GraphModule, kept: set[fx.Node]) -> None:
    """ReLU after max pooling instead of before: the same numbers and gradients, on maps a fraction of the size.

    Where the largest of a window is positive it stays the largest, and the first of equals stays the first; where it is
    not, ReLU lets nothing through either way.
    """
    for pool, module in _calls(traced):
        if type(module) not in POOLINGS or getattr(module, "return_indices", False) or pool in kept:
            continue
        relu = pool.args[0]
        if not isinstance(relu, fx.Node) or not _is_relu(traced, relu) or len(relu.users) != 1:
            continue
        source = relu.args[0]
        pool.replace_all_uses_with(relu)
        pool.update_arg(0, source)
        relu.update_arg(0, pool)
        pool.append(relu)


def _is_relu(traced: fx.GraphModule, node: fx.Node) -> bool:
    is_function = node.op == "call_function" and node.target in RELU_FUNCTIONS
    return is_function or type(_module(traced, node)) is nn.ReLU


def _replace(traced: fx.GraphModule, kept: set[fx.Node], *, last: bool) -> None:
    for node, module in _calls(traced):
        source = node.args[0]
        if not isinstance(source, fx.Node) or node in kept:
            continue
        shape = _shape(source)
        if type(module) is nn.Conv2d and len(shape) == 4 and pays(module, shape):
            _set(traced, node, DenseConvolution(module, shape, last=last))
        if type(module) is nn.Linear and last and _is_flatten(traced, source) and len(source.users) == 1:
            maps = source.args[0]
            if isinstance(maps, fx.Node) and len(_shape(maps)) == 4 and _shape(maps)[2:].numel() > 1:
                _set(traced, node, FlatLinear(module, _shape(maps)))
                node.args = (maps,)


def _is_flatten(traced: fx.GraphModule, node: fx.Node) -> bool:
    module = _module(traced, node)
    if module is not None:
        return type(module) is nn.Flatten and module.start_dim == 1 and module.end_dim == -1
    named = node.target is torch.flatten or (node.op == "call_method" and node.target == "flatten")
    return named and node.args[1:] == (1,) and not node.kwargs


def _set(traced: fx.GraphModule, node: fx.Node, module: nn.Module) -> None:
    name = f"rewritten_{str(node.target).replace('.', '_')}"
    traced.add_submodule(name, module.requires_grad_(False).eval())
    node.target = name


def _in_place(traced: fx.GraphModule, leaves: set[fx.Node]) -> None:
    """A ReLU may overwrite what a layer or an addition made for it alone: their gradients do not need it.

    What gradients are asked for, the leaves, nothing may overwrite.
    """
    for node in list(traced.graph.nodes):
        if not _is_relu(traced, node):
            continue
        source = node.args[0]
        made_by = type(_module(traced, source))
        added = source.op == "call_function" and source.target in ADDITIONS
        if (
            source not in leaves
            and len(source.users) == 1
            and (added or made_by in (nn.Linear, *CONVOLUTIONS, *POOLINGS, FlatLinear))
        ):
            node.op, node.target = "call_function", nn.functional.relu
            node.args, node.kwargs = (source,), {"inplace": True}


def _split(traced: fx.GraphModule, kept: set[fx.Node], *, rows: int, last: bool) -> Rewritten:
    nodes = list(traced.graph.nodes)
    (output,) = (node for node in nodes if node.op == "output")
    stop, end = output.args[0], _module(traced, output.args[0])
    if not isinstance(stop, fx.Node):
        raise TypeError("a model that answers other than one tensor")
    linear: nn.Linear | None = None
    if isinstance(end, nn.Linear) and type(end) is nn.Linear and len(stop.users) == 1 and len(_shape(stop)) == 2:
        linear, (stop,) = end, stop.all_input_nodes
    start = next(node for node in nodes if node.op == "placeholder")
    first, weighted = start, False
    while first is not stop and len(first.users) == 1:
        (after,) = first.users
        module = _module(traced, after)
        affine = type(module) in AFFINE or _is_flatten(traced, after)
        if (
            not affine
            or after in kept
            or after is output
            or _shape(after)[:1] != (rows,)
            or not isinstance(stop, fx.Node)
        ):
            break
        first, weighted = after, weighted or type(module) in WEIGHTED
    if not weighted:
        first = start
    behind = _behind_second(traced, first, kept) if weighted and last else None
    _in_place(traced, {first, behind or first})
    beginning = _between(traced, start, first) if weighted else None
    second = second_layer(_module(traced, behind), _shape(first)) if behind is not None else None
    return Rewritten(
        beginning=beginning,
        slope=_without_constant(beginning) if beginning is not None else None,
        body=_between(traced, first, stop),
        end=linear,
        last=last,
        second=second,
        rest=_between(traced, behind, stop) if second is not None and behind is not None else None,
    )


def _behind_second(traced: fx.GraphModule, first: fx.Node, kept: set[fx.Node]) -> fx.Node | None:
    """The one layer behind a ReLU that is alone behind the beginning."""
    if len(first.users) != 1:
        return None
    (relu,) = first.users
    if not _is_relu(traced, relu) or len(relu.users) != 1 or relu in kept:
        return None
    (layer,) = relu.users
    return layer if type(_module(traced, layer)) is nn.Conv2d and layer not in kept else None


def _between(traced: fx.GraphModule, start: fx.Node, stop: fx.Node) -> fx.GraphModule:
    """What is computed from one node to another, as a model of its own."""
    graph, known = fx.Graph(), {}
    known[start] = graph.placeholder("hidden")
    needed, pending = {stop}, [stop] if stop is not start else []
    while pending:
        for source in pending.pop().all_input_nodes:
            if source not in needed and source is not start:
                needed.add(source)
                pending.append(source)
    for node in traced.graph.nodes:
        if node in needed and node is not start:
            known[node] = graph.node_copy(node, known.__getitem__)
    graph.output(known[stop])
    return fx.GraphModule(traced, graph).eval()


def _without_constant(affine: nn.Module) -> nn.Module:
    linear = copy.deepcopy(affine)
    for module in linear.modules():
        if type(module) in (nn.Linear, *CONVOLUTIONS):
            module.register_parameter("bias", None)
        if type(module) in NORMALISATIONS:
            for constant in (module.running_mean, module.bias):
                if isinstance(constant, Tensor):
                    constant.zero_()
    return linear
