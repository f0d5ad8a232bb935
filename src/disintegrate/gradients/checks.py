"""What a caller gives is looked at before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from disintegrate.errors import InvalidValue


@dataclass(frozen=True)
class Signature:
    """What a model takes and answers.

    Attributes:
        shape: of one input.
        dtype: of the inputs.
        outputs: their number.
    """

    shape: torch.Size
    dtype: torch.dtype
    outputs: int


def check(
    model: nn.Module,
    inputs: Float[Tensor, "n *shape"],
    targets: Int[Tensor, " n"],
    baselines: Float[Tensor, "n *shape"] | None = None,
    *,
    known: Signature | None = None,
) -> Signature:
    """Refuse what cannot be differentiated.

    Args:
        model: is asked for its outputs at the first input, unless inputs of this kind are known.
        inputs: where to differentiate.
        targets: the output to differentiate for each.
        baselines: where rays begin.
        known: what the model was found to take before.

    Raises:
        InvalidValue: shapes that do not match, NaN in an input or a baseline, a target that the model lacks.
    """
    _check_tensors(inputs=inputs, targets=targets)
    if targets.is_floating_point():
        raise InvalidValue("Targets are indices of outputs.", got=targets.dtype, instead="Use targets.long().")
    if inputs.ndim < 2 or len(inputs) == 0 or targets.shape != inputs.shape[:1]:
        raise InvalidValue(
            "Inputs must be a batch with one target for each.",
            got=f"inputs of shape {tuple(inputs.shape)} and targets of shape {tuple(targets.shape)}",
            instead="Give inputs of shape [n, ...] and n targets.",
        )
    if not _finite(inputs):
        row = int((~inputs.isfinite()).flatten(1).any(1).nonzero()[0])
        raise InvalidValue("An input holds NaN or infinity.", got=f"row {row}", instead="Give finite inputs.")
    seen = known if known and (known.shape, known.dtype) == (inputs.shape[1:], inputs.dtype) else _ask(model, inputs)
    least, most = (int(end) for end in targets.aminmax())
    if least < 0 or most >= seen.outputs:
        raise InvalidValue(
            "A target is not an output of the model.",
            got=f"targets from {least} to {most}",
            instead=f"Use 0 to {seen.outputs - 1}.",
        )
    if baselines is not None and (baselines.shape != inputs.shape or not _finite(baselines)):
        raise InvalidValue(
            "A baseline must have the shape of its input, and no NaN.",
            got=f"baselines of shape {tuple(baselines.shape)} for inputs of shape {tuple(inputs.shape)}",
            instead="Use torch.zeros_like(inputs) for the zero baseline.",
        )
    return seen


def _ask(model: nn.Module, inputs: Float[Tensor, "n *shape"]) -> Signature:
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
    return Signature(inputs.shape[1:], inputs.dtype, outputs.shape[1])


def check_memory(memory: int) -> None:
    """Refuse a bound that holds nothing.

    Raises:
        InvalidValue: it is not at least one byte.
    """
    if memory < 1:
        raise InvalidValue("The bound on memory must be at least one byte.", got=memory, instead="Use 512 * 2**20.")


def _finite(points: Tensor) -> bool:
    """Whether no number is NaN or infinite; the sum, which is read once, nearly always tells."""
    return bool(points.sum().isfinite()) or bool(points.isfinite().all())


def _check_tensors(**given: object) -> None:
    for name, value in given.items():
        if not isinstance(value, Tensor):
            got = type(value).__name__
            raise InvalidValue(f"The {name} must be a torch tensor.", got=got, instead=f"Use torch.tensor({name}).")
