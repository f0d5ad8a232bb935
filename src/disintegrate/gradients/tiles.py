"""How many rows fit a bound on memory, how images and steps are cut into tiles, and which thread computes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from math import ceil

import torch
from jaxtyping import Float
from torch import Tensor, nn

from disintegrate.gradients.checks import check_memory

DEFAULT_MEMORY = 512 * 2**20
# A backward pass keeps the activations, makes a gradient of each, and needs room to work in.
MEMORY_PER_ACTIVATION = 3


def rows_within(model: nn.Module, inputs: Float[Tensor, "n *shape"], memory: int) -> int:
    """Rows of a batch whose activations fit in so many bytes, measured on one row; at least 1."""
    check_memory(memory)
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


def tiles(images: int, steps: int, rows: int) -> Iterator[tuple[slice, list[slice]]]:
    """Blocks of images, each with the blocks of steps it is computed in: never more than so many rows together.

    Example:
        >>> [(block.stop - block.start, len(parts)) for block, parts in tiles(5, 3, 6)]
        [(2, 1), (2, 1), (1, 1)]
        >>> [part.stop - part.start for _, parts in tiles(1, 50, 40) for part in parts]
        [25, 25]
    """
    together = max(1, rows // steps)
    width = ceil(steps / ceil(steps / rows))
    parts = [slice(first, min(first + width, steps)) for first in range(0, steps, width)]
    for first in range(0, images, together):
        yield slice(first, min(first + together, images)), parts


def each_by_one_thread(
    compute: Callable[[slice, list[slice]], None], blocks: Iterator[tuple[slice, list[slice]]], threads: int
) -> None:
    """Compute all blocks, so many at a time and each by a single thread; one after the other where threads is 1."""
    if threads == 1:
        for block in blocks:
            compute(*block)
        return

    def alone(block: tuple[slice, list[slice]]) -> None:
        with torch.no_grad():
            compute(*block)

    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for _ in pool.map(alone, blocks):
                pass
    finally:
        torch.set_num_threads(before)
