"""The convolution behind the first ReLU, along a ray: only what the ReLU switches between two nodes is computed anew.

The first ReLU's input is affine in t on a ray, so each unit switches at most once, and the convolution's output is
`c_i + t_i s_i` with maps c and s that change from node to node only by the units that switched. In the same way the
weighted sum of what comes back needs each unit's kernel only where the unit switched: of a unit that is active at the
nodes before the k-th, the sum is its kernel times `sum_{i<k} w_i G_i`, G the gradient at the convolution's output.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

from disintegrate.gradients.layout import named, stored

# Fewer nodes than this are computed one by one: for them the dense convolution costs less than the scattered one.
FEWEST_NODES = 16
# Maps at the convolution's output are held for so many bytes of nodes together: about what a cache holds.
TOGETHER = 8 * 2**20


@dataclass(frozen=True, eq=False)
class SecondLayer:
    """A ReLU and the convolution behind it.

    Attributes:
        convolution: with kernels of any stride, padding and dilation, in one group.
        reached: the output pixel that each pixel reaches by each place of the kernel; -1 for none.
        kernel: what a unit's channel adds to the output's channels by each place of the kernel.
        pixels: of an output map.
    """

    convolution: nn.Conv2d
    reached: Int[Tensor, "pixels places"]
    kernel: Float[Tensor, "columns channels2"]
    pixels: int

    def mean_gradient(
        self,
        start: Float[Tensor, "h w channels"],
        slope: Float[Tensor, "h w channels"],
        nodes: Float[Tensor, " steps"],
        weights: Float[Tensor, " steps"],
        behind: Callable[[Float[Tensor, "rows channels2 h2 w2"]], Float[Tensor, "rows channels2 h2 w2"]],
        rows: int,
    ) -> Float[Tensor, "h w channels"]:
        """`sum_i w_i M_i K' G(K max(0, start + t_i slope))`, where M_i are the units active at the ascending node t_i.

        Args:
            start: the ReLU's input at t = 0, the channels last.
            slope: its change with t.
            nodes: in ascending order.
            weights: one for each node.
            behind: the gradient G at some of the convolution's outputs.
            rows: so many nodes at most are computed together.
        """
        active, later = start + nodes[0] * slope > 0, start + nodes[-1] * slope > 0
        with torch.enable_grad():
            leaf = named((slope * active)[None]).requires_grad_()
            maps = self.convolution(leaf)
        constant, linear = self.convolution(named((start * active)[None])), maps.detach()
        if self.convolution.bias is not None:
            linear = linear - self.convolution.bias.view(-1, 1, 1)
        state = [stored(one).flatten() for one in (constant, linear)]
        switches = _Switches.between(self, start.flatten(), slope.flatten(), active, later, nodes)
        total, spare = torch.zeros_like(state[0]), torch.empty_like(state[0])
        gains = torch.zeros_like(switches.signs)
        rows = max(1, min(rows, TOGETHER // total.nbytes))
        for first in range(0, len(nodes), rows):
            here, heavy = nodes[first : first + rows], weights[first : first + rows].tolist()
            switched = switches.within(first, first + len(here))
            factors = switched.parts[0].detach().requires_grad_()
            with torch.enable_grad():
                changed = switched.changes(factors)
            constants = changed.detach().view(len(here), -1)
            slopes = switched.changes(switched.parts[1]).view(len(here), -1)
            for change, before in zip((constants, slopes), state, strict=True):
                change[0] += before
                for earlier, following in itertools.pairwise(change):
                    following.add_(earlier)
            state = [constants[-1].clone(), slopes[-1]]
            points = torch.addcmul(constants, here[:, None], slopes, out=constants)
            gradient = stored(behind(named(points.view(-1, *maps.shape[2:], maps.shape[1])))).flatten(1)
            for row, weight in zip(gradient, heavy, strict=True):
                torch.add(total, row, alpha=weight, out=spare)
                row.copy_(total)
                total, spare = spare, total
            # A row is now the sum before its node. The gradient by an entry's factor is its kernel times that.
            (products,) = torch.autograd.grad(changed, factors, gradient.view_as(changed))
            gains.index_add_(0, switched.which, products)
        (whole,) = torch.autograd.grad(maps, leaf, named(total.view(1, *maps.shape[2:], maps.shape[1])))
        mean = stored(whole)[0] * later
        # A unit gains what came before it where it was active then, and loses it where it is active from there on.
        return mean.flatten().index_add_(0, switches.switching, -switches.signs * gains).view_as(start)


@dataclass(frozen=True, eq=False)
class _Switches:
    """Units that switch on a ray, with an entry for each output pixel that one changes, by nodes and by pixels.

    Attributes:
        switching: the units, and `signs`: 1 where one becomes active, -1 where it ceases to be.
        which: of the units an entry is about.
        columns: of the kernel, one for each entry.
        parts: what an entry's unit gains in its constant and in its slope.
        ends: where the entries of each node and output pixel end.
    """

    layer: SecondLayer
    switching: Int[Tensor, " units"]
    signs: Float[Tensor, " units"]
    which: Int[Tensor, " entries"]
    columns: Int[Tensor, " entries"]
    parts: Float[Tensor, "2 entries"]
    ends: Int[Tensor, " bags"]

    @classmethod
    def between(
        cls, layer: SecondLayer, start: Tensor, slope: Tensor, active: Tensor, later: Tensor, nodes: Tensor
    ) -> _Switches:
        """Every unit that switches between the first node and the last."""
        on = later.flatten()
        (switching,) = torch.nonzero(active.flatten() != on, as_tuple=True)
        constant, linear = start[switching], slope[switching]
        # The first node at which the unit is as it is at the last.
        turn = torch.bucketize(-constant / linear, nodes).clamp_(1, len(nodes) - 1)
        signs = on[switching].to(start.dtype) * 2 - 1
        places, channels = layer.reached.shape[1], active.shape[-1]
        reached = layer.reached[switching // channels]
        (inside,) = torch.nonzero(reached.flatten() >= 0, as_tuple=True)
        bags, order = torch.sort(reached.add_(turn[:, None] * layer.pixels).flatten()[inside])
        entries = inside[order]
        which = entries // places
        column = (switching % channels * places)[:, None] + torch.arange(places, device=start.device)
        ends = torch.bincount(bags, minlength=len(nodes) * layer.pixels).cumsum(0)
        parts = torch.stack([signs * constant, signs * linear])[:, which]
        return cls(layer, switching, signs, which, column.flatten()[entries], parts, ends)

    def within(self, first: int, last: int) -> _Switches:
        """The entries of the nodes from one up to another."""
        pixels = self.layer.pixels
        begin = int(self.ends[first * pixels - 1]) if first else 0
        part = slice(begin, int(self.ends[last * pixels - 1]))
        ends = self.ends[first * pixels : last * pixels] - begin
        return replace(
            self, which=self.which[part], columns=self.columns[part], parts=self.parts[:, part], ends=ends
        )  # fmt: skip

    def changes(self, factors: Float[Tensor, " entries"]) -> Float[Tensor, "bags channels2"]:
        """What each node adds to the convolution's output where every unit switches by a factor."""
        bags = torch.cat([self.ends.new_zeros(1), self.ends[:-1]])
        return embedding_bag(self.columns, self.layer.kernel, bags, mode="sum", per_sample_weights=factors)


def second_layer(convolution: nn.Module | None, shape: torch.Size) -> SecondLayer | None:
    """The layer made ready for maps of a shape `[n, channels, h, w]`, if it is a convolution that this can do."""
    if type(convolution) is not nn.Conv2d or len(shape) != 4:
        return None
    if convolution.groups != 1 or convolution.padding_mode != "zeros" or isinstance(convolution.padding, str):
        return None
    channels, height, width = shape[1:]
    tall, wide = convolution.kernel_size
    device, weight = convolution.weight.device, convolution.weight.detach()
    reached = []
    for row in range(tall):
        for column in range(wide):
            down, size_down = _reached(convolution, 0, row, height)
            right, size_right = _reached(convolution, 1, column, width)
            pixel = down[:, None] * size_right + right
            reached.append(torch.where((down[:, None] >= 0) & (right >= 0), pixel, -1).flatten())
    kernel = weight.permute(1, 2, 3, 0).reshape(channels * tall * wide, -1).contiguous()
    return SecondLayer(convolution, torch.stack(reached, 1).to(device), kernel, size_down * size_right)


def _reached(convolution: nn.Conv2d, axis: int, place: int, size: int) -> tuple[Tensor, int]:
    """For each coordinate the output's coordinate that it reaches by a place of the kernel, or -1; and their number."""
    stride, padding, dilation, kernel = (
        int(setting[axis])
        for setting in (convolution.stride, convolution.padding, convolution.dilation, convolution.kernel_size)
    )
    outputs = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    moved = torch.arange(size) + padding - dilation * place
    target = torch.div(moved, stride, rounding_mode="floor")
    fits = (moved % stride == 0) & (target >= 0) & (target < outputs)
    return torch.where(fits, target, -1), outputs
