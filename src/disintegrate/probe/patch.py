"""Along which coordinates rays are drawn at random: all of a small input, a patch of a large one."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

# Largest input that is not asked in some neighbouring coordinates only, which meets fewer kinks with digits enough; how
# far these reach behind a softmax, where kinks matter little, and elsewhere.
WIDE, PATCH_SOFTMAX, PATCH = 400, 10, 4


def drawn(shape: tuple[int, ...], generator: np.random.Generator, *, probabilities: bool) -> Float64[np.ndarray, " d"]:
    """A direction of random signs and sizes about 1, in the middle of an image, or in the first of many coordinates.

    Args:
        shape: of an input.
        generator: for signs and sizes.
        probabilities: whether outputs are behind a softmax.

    Example:
        >>> int(np.count_nonzero(drawn((1, 28, 28), np.random.default_rng(0), probabilities=False))) == PATCH**2
        True
    """
    mask = np.ones(shape)
    if mask.size >= WIDE:
        mask[...] = 0
        patch = PATCH_SOFTMAX if probabilities else PATCH
        if len(shape) >= 2 and min(shape[-2:]) > patch:
            top, left = (shape[-2] - patch) // 2, (shape[-1] - patch) // 2
            mask[..., top : top + patch, left : left + patch] = 1
        else:
            mask.ravel()[: PATCH_SOFTMAX**2] = 1
    signs = generator.choice((-1.0, 1.0), mask.size) * generator.uniform(0.5, 1.5, mask.size)
    found: Float64[np.ndarray, " d"] = signs * mask.ravel()
    return found
