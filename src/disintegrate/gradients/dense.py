"""Small convolutions as matrices, and flattening in the order in which memory holds the numbers.

A 3x3 kernel with padding on a map of 2x2 multiplies mostly padding: as a matrix it needs 4/9 of the multiplications, on
1x1 a ninth. The entries are the kernel's own, so nothing is rounded.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

# What a convolution of small maps loses against a matrix product, in multiplications: float64 has no kernels of oneDNN.
WORTH = {torch.float64: 2.0}


def pays(convolution: nn.Conv2d, shape: torch.Size) -> bool:
    """Whether the matrix multiplies less than the convolution of a map of this shape, padding included."""
    height, width = convolution.kernel_size
    plain = convolution.groups == 1 and convolution.padding_mode == "zeros"
    return plain and shape[-2] * shape[-1] < WORTH.get(convolution.weight.dtype, 1.0) * height * width


class DenseConvolution(nn.Module):
    """A convolution of small maps, which are `[n, h, w, c]` in memory where `last` and `[n, c, h, w]` where not."""

    def __init__(self, convolution: nn.Conv2d, shape: torch.Size, *, last: bool) -> None:
        super().__init__()
        self.last = last
        channels, height, width = shape[-3:]
        one = torch.eye(channels * height * width, dtype=convolution.weight.dtype, device=convolution.weight.device)
        maps = one.view(-1, height, width, channels).permute(0, 3, 1, 2) if last else one.view(-1, *shape[-3:])
        answers = nn.functional.conv2d(
            maps, convolution.weight, None, convolution.stride, convolution.padding, convolution.dilation
        )
        self.shape = tuple(answers.shape[1:])
        matrix = _flat(answers, last=last).T.contiguous()
        self.linear = nn.Linear(len(one), len(matrix), bias=convolution.bias is not None, dtype=one.dtype)
        self.linear.weight = nn.Parameter(matrix, requires_grad=False)
        if convolution.bias is not None:
            wide = convolution.bias.detach()[None, :, None, None].expand(1, *self.shape)
            self.linear.bias = nn.Parameter(_flat(wide, last=last)[0].clone(), requires_grad=False)

    def forward(self, inputs: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c2 h2 w2"]:
        """Multiply by the matrix."""
        answers: Tensor = self.linear(_flat(inputs, last=self.last))
        channels, height, width = self.shape
        if not self.last:
            return answers.view(-1, channels, height, width)
        return answers.view(-1, height, width, channels).permute(0, 3, 1, 2)


class FlatLinear(nn.Module):
    """Flatten and a linear layer, for maps that lie in memory as `[n, h, w, c]`: the weights are reordered instead."""

    def __init__(self, linear: nn.Linear, shape: torch.Size) -> None:
        super().__init__()
        order = torch.arange(linear.in_features).view(1, *shape[-3:])
        self.linear = nn.Linear(linear.in_features, linear.out_features, dtype=linear.weight.dtype)
        self.linear.weight = nn.Parameter(linear.weight.detach()[:, _flat(order, last=True)[0]], requires_grad=False)
        self.linear.bias = linear.bias

    def forward(self, inputs: Float[Tensor, "n c h w"]) -> Float[Tensor, "n out"]:
        """Multiply what lies in memory by the reordered weights."""
        answers: Tensor = self.linear(_flat(inputs, last=True))
        return answers


def _flat(maps: Tensor, *, last: bool) -> Tensor:
    return (maps.permute(0, 2, 3, 1) if last else maps).flatten(1)
