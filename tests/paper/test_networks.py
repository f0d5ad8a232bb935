"""Layer shapes and parameter counts against the paper's tables A.1 to A.4."""

import pytest
import torch
from torch import Tensor, nn

from disintegrate import UnknownName
from disintegrate.paper.networks import NETWORKS, BasicBlock, build

# Output shapes as the tables print them: width x height x channels.
TABLE_A1 = {"fc1": (1, 1, 100), "fc2": (1, 1, 10)}
TABLE_A2 = {"conv1": (26, 26, 32), "conv2": (24, 24, 64), "pool1": (12, 12, 64), "fc1": (1, 1, 128), "fc2": (1, 1, 10)}
TABLE_A3 = {
    "conv1": (14, 14, 64), "pool1": (7, 7, 64), "bb1": (7, 7, 64), "bb2": (7, 7, 64), "bb3": (4, 4, 128),
    "bb4": (4, 4, 128), "bb5": (2, 2, 256), "bb6": (2, 2, 256), "bb7": (1, 1, 512), "bb8": (1, 1, 512),
    "fc": (1, 1, 10),
}  # fmt: skip
TABLES = {
    "TwoLayerNet_nobias": TABLE_A1,
    "TwoLayerNet": TABLE_A1,
    "LeNet_nobias": TABLE_A2,
    "LeNet": TABLE_A2,
    "ResNet18": TABLE_A3,
}


def convolution(kernel: int, inputs: int, outputs: int) -> int:
    return kernel**2 * inputs * outputs


def block(inputs: int, outputs: int, stride: int) -> int:
    """Two convolutions and two normalisations of two parameters a channel; a projection where the size changes."""
    body = convolution(3, inputs, outputs) + convolution(3, outputs, outputs) + 4 * outputs
    projection = 0 if stride == 1 else convolution(1, inputs, outputs) + 2 * outputs
    return body + projection


PARAMETERS = {
    "TwoLayerNet_nobias": 784 * 100 + 100 * 10,
    "TwoLayerNet": 785 * 100 + 101 * 10,
    "LeNet_nobias": convolution(3, 1, 32) + convolution(3, 32, 64) + 12 * 12 * 64 * 128 + 128 * 10,
    "LeNet": convolution(3, 1, 32) + 32 + convolution(3, 32, 64) + 64 + (12 * 12 * 64 + 1) * 128 + 129 * 10,
    "ResNet18": convolution(7, 1, 64) + 2 * 64 + 2 * block(64, 64, 1)
    + sum(block(c, 2 * c, 2) + block(2 * c, 2 * c, 1) for c in (64, 128, 256)) + 513 * 10,
}  # fmt: skip


@pytest.mark.parametrize("name", list(NETWORKS))
def test_every_layer_has_the_papers_shape(name: str) -> None:
    model, seen = build(name).eval(), {}
    for layer, module in model.named_children():

        def note(module: nn.Module, arguments: object, output: Tensor, layer: str = layer) -> None:
            shape = output.shape[1:] if output.ndim == 4 else (output.shape[1], 1, 1)
            seen[layer] = (shape[2], shape[1], shape[0])

        module.register_forward_hook(note)
    model(torch.randn(1, 1, 28, 28))
    assert {layer: seen[layer] for layer in TABLES[name]} == TABLES[name]


@pytest.mark.parametrize("name", list(NETWORKS))
def test_the_parameters_are_as_many_as_the_tables_make(name: str) -> None:
    assert sum(parameter.numel() for parameter in build(name).parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", ["TwoLayerNet_nobias", "LeNet_nobias"])
def test_a_network_without_biases_is_homogeneous(name: str) -> None:
    model, x = build(name).double().eval(), torch.randn(4, 1, 28, 28, dtype=torch.float64)
    assert not any("bias" in key for key in model.state_dict())
    torch.testing.assert_close(model(3 * x), 3 * model(x))


def test_strides_and_kernels_are_the_papers() -> None:
    convolutions = [m for m in build("ResNet18").modules() if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)]
    assert len(convolutions) + 1 == 18
    assert [m.stride[0] for m in convolutions] == [2, 1, 1, 1, 1, 2, 1, 1, 1, 2, 1, 1, 1, 2, 1, 1, 1]
    assert {m.kernel_size for m in convolutions[1:]} == {(3, 3)}
    assert convolutions[0].kernel_size == (7, 7)


def test_a_block_adds_its_input() -> None:
    block, x = BasicBlock(4, 4, 1).eval(), torch.rand(2, 4, 5, 5)
    nn.init.zeros_(block.conv2.weight)
    torch.testing.assert_close(block(x), x)


def test_a_seed_draws_the_same_weights_and_leaves_the_callers_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.manual_seed(5)
    first, second, other = (build("TwoLayerNet", seed) for seed in (1, 1, 2))
    assert (torch.randn(3) == expected).all()
    same = [(a == b).all() for a, b in zip(first.parameters(), second.parameters(), strict=True)]
    assert all(same)
    assert not (first.state_dict()["fc1.weight"] == other.state_dict()["fc1.weight"]).any()


def test_an_unknown_network_is_told_with_the_known_ones() -> None:
    with pytest.raises(UnknownName, match=r"Got 'VGG'\. Choose from TwoLayerNet_nobias"):
        build("VGG")
