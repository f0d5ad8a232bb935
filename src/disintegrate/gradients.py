"""Gradients of a torch model: vanilla, and integrated along the ray by any quadrature rule.

Images and steps are computed together in tiles, as many rows at a time as fit a bound on memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from disintegrate.errors import InvalidValue
from disintegrate.quadrature import Quadrature

DEFAULT_MEMORY = 128 * 2**20
# A backward pass keeps the activations, makes a gradient of each, and needs room to work in.
MEMORY_PER_ACTIVATION = 3


def vanilla_gradient(
    model: nn.Module,
    inputs: Float[Tensor, "n *shape"],
    targets: Int[Tensor, " n"],
    *,
    memory: int = DEFAULT_MEMORY,
) -> Float[Tensor, "n *shape"]:
    """Gradient of the target output at each input: definition 2.3 of the paper.

    Args:
        model: answers `[n, classes]` for inputs `[n, *shape]`, each row by itself (eval mode).
        inputs: where to differentiate, of the model's dtype and on its device.
        targets: the output to differentiate, one for each input.
        memory: bytes that a tile's activations may take, roughly.

    Raises:
        InvalidValue: shapes that do not match, NaN in an input, a target that the model does not have.

    Example:
        >>> linear = nn.Linear(3, 2)
        >>> gradient = vanilla_gradient(linear, torch.ones(1, 3), torch.tensor([1]))
        >>> bool((gradient[0] == linear.weight[1]).all())
        True
    """
    _check(model, inputs, targets)
    rows = rows_within(model, inputs, memory)
    return torch.cat([_gradient(model, *part) for part in zip(inputs.split(rows), targets.split(rows), strict=True)])


def integrated_gradients(
    model: nn.Module,
    inputs: Float[Tensor, "n *shape"],
    baselines: Float[Tensor, "n *shape"],
    targets: Int[Tensor, " n"],
    quadrature: Quadrature,
    *,
    memory: int = DEFAULT_MEMORY,
) -> Float[Tensor, "n *shape"]:
    """Integrated Gradients by a quadrature rule: equation (1) of the paper, `(x - b) sum_i w_i g(b + t_i (x - b))`.

    All arithmetic is in the dtype of the inputs, nodes and weights rounded to it, as a service would do it.

    Args:
        model: answers `[n, classes]` for inputs `[n, *shape]`, each row by itself (eval mode).
        inputs: the ends of the rays.
        baselines: their beginnings.
        targets: the output to explain, one for each input.
        quadrature: nodes and weights on [0, 1].
        memory: bytes that a tile's activations may take, roughly; the number of images and steps does not matter.

    Raises:
        InvalidValue: shapes that do not match, NaN in an input or a baseline, a target that the model lacks.

    Example:
        >>> from disintegrate.quadrature import riemann_right
        >>> linear, x, b = nn.Linear(3, 1).double(), torch.ones(1, 3).double(), torch.zeros(1, 3).double()
        >>> attribution = integrated_gradients(linear, x, b, torch.tensor([0]), riemann_right(5))
        >>> torch.allclose(attribution.sum(), (linear(x) - linear(b)).sum())
        True
    """
    _check(model, inputs, targets)
    if baselines.shape != inputs.shape or not baselines.isfinite().all():
        raise InvalidValue(
            "A baseline must have the shape of its input, and no NaN.",
            got=f"baselines of shape {tuple(baselines.shape)} for inputs of shape {tuple(inputs.shape)}",
            instead="Use torch.zeros_like(inputs) for the zero baseline.",
        )
    difference = inputs - baselines
    nodes = torch.tensor(quadrature.nodes, dtype=inputs.dtype, device=inputs.device)
    weights = torch.tensor(quadrature.weights, dtype=inputs.dtype, device=inputs.device)
    total = torch.zeros_like(inputs)
    wide = (-1, *[1] * (inputs.ndim - 1))
    for image, step in _tiles(len(inputs), quadrature.steps, rows_within(model, inputs, memory), inputs.device):
        points = baselines[image] + nodes[step].view(wide) * difference[image]
        gradient = _gradient(model, points, targets[image])
        total.index_add_(0, image, weights[step].view(wide) * gradient)
    return difference * total


def rows_within(model: nn.Module, inputs: Float[Tensor, "n *shape"], memory: int) -> int:
    """Rows of a batch whose activations fit in so many bytes, measured on one row; at least 1."""
    if memory < 1:
        raise InvalidValue("The bound on memory must be at least one byte.", got=memory, instead="Use 128 * 2**20.")
    sizes = [inputs[0].nbytes]

    def note(module: nn.Module, arguments: object, output: object) -> None:
        if isinstance(output, Tensor):
            sizes.append(output.nbytes)

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    try:
        with torch.no_grad():
            model(inputs[:1])
    finally:
        for hook in hooks:
            hook.remove()
    return max(1, memory // (MEMORY_PER_ACTIVATION * sum(sizes)))


def _gradient(
    model: nn.Module, inputs: Float[Tensor, "n *shape"], targets: Int[Tensor, " n"]
) -> Float[Tensor, "n *shape"]:
    with torch.enable_grad():
        leaf = inputs.detach().requires_grad_()
        chosen = model(leaf).gather(1, targets[:, None])
        (gradient,) = torch.autograd.grad(chosen.sum(), leaf)
    return gradient


def _tiles(
    images: int, steps: int, rows: int, device: torch.device
) -> Iterator[tuple[Int[Tensor, " r"], Int[Tensor, " r"]]]:
    """Pairs (image, step) in order, so many at a time."""
    for first in range(0, images * steps, rows):
        flat = torch.arange(first, min(first + rows, images * steps), device=device)
        yield flat // steps, flat % steps


def _check(model: nn.Module, inputs: Float[Tensor, "n *shape"], targets: Int[Tensor, " n"]) -> None:
    _check_tensors(inputs=inputs, targets=targets)
    if targets.is_floating_point():
        raise InvalidValue("Targets are indices of outputs.", got=targets.dtype, instead="Use targets.long().")
    if inputs.ndim < 2 or len(inputs) == 0 or targets.shape != inputs.shape[:1]:
        raise InvalidValue(
            "Inputs must be a batch with one target for each.",
            got=f"inputs of shape {tuple(inputs.shape)} and targets of shape {tuple(targets.shape)}",
            instead="Give inputs of shape [n, ...] and n targets.",
        )
    if not inputs.isfinite().all():
        row = int((~inputs.isfinite()).flatten(1).any(1).nonzero()[0])
        raise InvalidValue("An input holds NaN or infinity.", got=f"row {row}", instead="Give finite inputs.")
    try:
        with torch.no_grad():
            outputs = model(inputs[:1])
    except RuntimeError as error:
        raise InvalidValue(
            "The model does not take inputs of this shape or dtype.",
            got=f"{inputs.dtype} of shape {tuple(inputs.shape)}: {str(error).splitlines()[0][:120]}",
            instead="Give inputs as the model was trained on.",
        ) from None
    if outputs.ndim != 2:
        raise InvalidValue(
            "The model must answer one row of outputs for each input.",
            got=f"shape {tuple(outputs.shape)} for one input",
            instead="Wrap it so that it answers [n, classes].",
        )
    if targets.min() < 0 or targets.max() >= outputs.shape[1]:
        raise InvalidValue(
            "A target is not an output of the model.",
            got=f"targets from {int(targets.min())} to {int(targets.max())}",
            instead=f"Use 0 to {outputs.shape[1] - 1}.",
        )


def _check_tensors(**given: object) -> None:
    for name, value in given.items():
        if not isinstance(value, Tensor):
            got = type(value).__name__
            raise InvalidValue(f"The {name} must be a torch tensor.", got=got, instead=f"Use torch.tensor({name}).")
