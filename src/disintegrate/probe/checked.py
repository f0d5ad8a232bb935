"""What a caller gives the probe, looked at before anything is asked."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from disintegrate.errors import InvalidValue

FEWEST_QUERIES = 8


def checked(
    inputs: Float[np.ndarray, "n *shape"],
    targets: Int[np.ndarray, " n"],
    budget: int,
    candidates: Mapping[str, Float[np.ndarray, "*shape"]] | None,
) -> None:
    """Raise InvalidValue for inputs, targets, candidates or a budget that make no probe."""
    named: tuple[tuple[str, object], ...] = (("inputs", inputs), ("targets", targets))
    for name, given in named:
        if not isinstance(given, np.ndarray):
            got = type(given).__name__
            raise InvalidValue(f"The {name} must be a numpy array.", got=got, instead=f"Use np.asarray({name}).")
    if inputs.ndim < 2 or len(inputs) == 0 or targets.shape != inputs.shape[:1]:
        raise InvalidValue(
            "Inputs need a batch dimension, and one target each.",
            got=f"inputs {inputs.shape}, targets {targets.shape}",
            instead="Give inputs of shape [n, ...] and n targets.",
        )
    if not np.issubdtype(inputs.dtype, np.floating) or not np.isfinite(inputs).all():
        raise InvalidValue("Inputs must be finite numbers.", got=inputs.dtype, instead="Use float32 without NaN.")
    if not np.issubdtype(targets.dtype, np.integer):
        raise InvalidValue("Targets are indices of outputs.", got=targets.dtype, instead="Use targets.astype(int).")
    if isinstance(budget, bool) or budget != int(budget) or budget < FEWEST_QUERIES:
        raise InvalidValue(
            f"The budget must be a whole number of at least {FEWEST_QUERIES}.", got=budget, instead="Use 60."
        )
    for name, point in (candidates or {}).items():
        if np.shape(point) != inputs.shape[1:]:
            raise InvalidValue(
                f"The baseline {name} must have the shape of one input.",
                got=np.shape(point),
                instead=f"Give an array of shape {inputs.shape[1:]}.",
            )
