"""True gradients of a model that is at hand."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import nn

from disintegrate.gradients import vanilla_gradient


def true_gradients(
    model: nn.Module, inputs: Float[np.ndarray, "n *shape"], targets: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "n *shape"]:
    """The gradients of the target outputs at the inputs, in the model's own arithmetic."""
    parameter = next(model.parameters(), None)
    dtype, device = (torch.float32, "cpu") if parameter is None else (parameter.dtype, parameter.device)
    points = torch.tensor(inputs, dtype=dtype, device=device)
    found = vanilla_gradient(model, points, torch.tensor(targets, dtype=torch.long, device=device))
    return np.asarray(found.cpu())
