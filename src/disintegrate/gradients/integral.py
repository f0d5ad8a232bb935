"""Vanilla and Integrated Gradients of a model, or of one that was made ready before."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor, nn

from disintegrate.gradients.checks import check
from disintegrate.gradients.prepared import Path, Prepared
from disintegrate.gradients.tiles import DEFAULT_MEMORY, rows_within
from disintegrate.quadrature import Quadrature


def vanilla_gradient(
    model: nn.Module | Prepared,
    inputs: Float[Tensor, "n *shape"],
    targets: Int[Tensor, " n"],
    *,
    memory: int = DEFAULT_MEMORY,
) -> Float[Tensor, "n *shape"]:
    """Gradient of the target output at each input: definition 2.3 of the paper.

    Args:
        model: answers `[n, classes]` for inputs `[n, *shape]`, each row by itself (eval mode); or one prepared.
        inputs: where to differentiate, of the model's dtype and on its device.
        targets: the output to differentiate, one for each input.
        memory: bytes that a tile's activations may take, roughly; a prepared model has its own.

    Raises:
        InvalidValue: shapes that do not match, NaN in an input, a target that the model does not have.

    Example:
        >>> import torch
        >>> linear = nn.Linear(3, 2)
        >>> gradient = vanilla_gradient(linear, torch.ones(1, 3), torch.tensor([1]))
        >>> bool((gradient[0] == linear.weight[1]).all())
        True
    """
    return _ready(model, inputs, targets, memory).gradient(inputs, targets)


def integrated_gradients(
    model: nn.Module | Prepared,
    inputs: Float[Tensor, "n *shape"],
    baselines: Float[Tensor, "n *shape"],
    targets: Int[Tensor, " n"],
    quadrature: Quadrature,
    *,
    memory: int = DEFAULT_MEMORY,
) -> Float[Tensor, "n *shape"]:
    """Integrated Gradients by a quadrature rule: equation (1) of the paper, `(x - b) sum_i w_i g(b + t_i (x - b))`.

    All arithmetic is in the dtype of the inputs, nodes and weights rounded to it, as a service would do it. A model is
    computed as it is; `prepare` it once for many inputs, and most networks become faster (`benchmarks/gradients.py`).

    Args:
        model: answers `[n, classes]` for inputs `[n, *shape]`, each row by itself (eval mode); or one prepared.
        inputs: the ends of the rays.
        baselines: their beginnings.
        targets: the output to explain, one for each input.
        quadrature: nodes and weights on [0, 1].
        memory: bytes that a tile's activations may take, roughly; the number of images and steps does not matter.

    Raises:
        InvalidValue: shapes that do not match, NaN in an input or a baseline, a target that the model lacks.

    Example:
        >>> import torch
        >>> from disintegrate.quadrature import riemann_right
        >>> linear, x, b = nn.Linear(3, 1).double(), torch.ones(1, 3).double(), torch.zeros(1, 3).double()
        >>> attribution = integrated_gradients(linear, x, b, torch.tensor([0]), riemann_right(5))
        >>> torch.allclose(attribution.sum(), (linear(x) - linear(b)).sum())
        True
    """
    return _ready(model, inputs, targets, memory, baselines).attributions(inputs, baselines, targets, quadrature)


def _ready(
    model: nn.Module | Prepared, inputs: Tensor, targets: Tensor, memory: int, baselines: Tensor | None = None
) -> Prepared:
    if isinstance(model, Prepared):
        check(model.model, inputs, targets, baselines, known=model.signature)
        return model
    signature = check(model, inputs, targets, baselines)
    return Prepared(model, Path.ASKED, None, rows_within(model, inputs, memory), signature)
