"""Maps by name `[n, c, h, w]` and as memory holds them with the channels last, `[n, h, w, c]`."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def stored(maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n h w c"]:
    """In the order of memory."""
    return maps.permute(0, 2, 3, 1).contiguous()


def named(maps: Float[Tensor, "n h w c"]) -> Float[Tensor, "n c h w"]:
    """In the order of names, nothing moved."""
    return maps.permute(0, 3, 1, 2)
