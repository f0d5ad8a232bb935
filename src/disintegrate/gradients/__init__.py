"""Gradients of a torch model: vanilla, and integrated along the ray by any quadrature rule.

Images and steps are computed together in tiles, as many rows at a time as fit a bound on memory. `prepare` makes a
model ready for many of them.
"""

from disintegrate.gradients.integral import integrated_gradients, vanilla_gradient
from disintegrate.gradients.prepared import Path, Prepared, Rewriting, prepare
from disintegrate.gradients.tiles import DEFAULT_MEMORY, rows_within

__all__ = [
    "DEFAULT_MEMORY",
    "Path",
    "Prepared",
    "Rewriting",
    "integrated_gradients",
    "prepare",
    "rows_within",
    "vanilla_gradient",
]
