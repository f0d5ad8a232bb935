"""The paper's five networks, layer by layer as its tables A.1 to A.4 give them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from disintegrate.errors import UnknownName


def two_layer_net(*, bias: bool) -> nn.Module:
    """Table A.1: 784 - fc1 100 - ReLU - fc2 10."""
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            fc1=nn.Linear(784, 100, bias=bias),
            relu1=nn.ReLU(),
            fc2=nn.Linear(100, 10, bias=bias),
        )
    )


def lenet(*, bias: bool) -> nn.Module:
    """Table A.2: two 3x3 convolutions (32, 64 channels), 2x2 max pooling, fc1 128, fc2 10."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 32, 3, bias=bias),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(32, 64, 3, bias=bias),
            relu2=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(12 * 12 * 64, 128, bias=bias),
            relu3=nn.ReLU(),
            fc2=nn.Linear(128, 10, bias=bias),
        )
    )


class BasicBlock(nn.Module):
    """Table A.4 and definition A.1.4: two 3x3 convolutions, each normalised, and the shortcut around them.

    The last ReLU stands behind the addition, as in the network's own source (He et al. 2016), which the
    paper cites. Where the block changes the size, the shortcut is a 1x1 convolution with batch
    normalisation (option B there).
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            projection = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(channels_out))

    def forward(self, inputs: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c2 h2 w2"]:
        """Add the block's answer to its input."""
        hidden = self.relu(self.bn1(self.conv1(inputs)))
        out: Tensor = self.relu(self.bn2(self.conv2(hidden)) + self.shortcut(inputs))
        return out


def resnet18() -> nn.Module:
    """Table A.3: a 7x7 stem with stride 2 on 28x28 images, eight basic blocks, one fully connected layer.

    The maps behind bb7 and bb8 have one pixel, so no average pooling is needed before the last layer.
    """
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False),
            bn1=nn.BatchNorm2d(64),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(3, stride=2, padding=1),
            bb1=BasicBlock(64, 64, 1),
            bb2=BasicBlock(64, 64, 1),
            bb3=BasicBlock(64, 128, 2),
            bb4=BasicBlock(128, 128, 1),
            bb5=BasicBlock(128, 256, 2),
            bb6=BasicBlock(256, 256, 1),
            bb7=BasicBlock(256, 512, 2),
            bb8=BasicBlock(512, 512, 1),
            flatten=nn.Flatten(),
            fc=nn.Linear(512, 10),
        )
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "TwoLayerNet_nobias": lambda: two_layer_net(bias=False),
    "TwoLayerNet": lambda: two_layer_net(bias=True),
    "LeNet_nobias": lambda: lenet(bias=False),
    "LeNet": lambda: lenet(bias=True),
    "ResNet18": resnet18,
}


def build(name: str, seed: int = 0) -> nn.Module:
    """Make one of the paper's networks with fresh weights drawn from a seed.

    Raises:
        UnknownName: for a name that the paper does not have.

    Example:
        >>> net = build("TwoLayerNet_nobias")
        >>> sum(p.numel() for p in net.parameters()) == 784 * 100 + 100 * 10
        True
    """
    if name not in NETWORKS:
        raise UnknownName("There is no such network.", got=repr(name), instead=f"Choose from {', '.join(NETWORKS)}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NETWORKS[name]()
