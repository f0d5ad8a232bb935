"""The filters of a first convolution."""

import numpy as np
import torch
from torch import nn

from disintegrate import Capabilities, LocalExplainer, single_step
from disintegrate.extraction import Oracle, first_filters


def test_filters_come_back_up_to_sign_and_scale_and_nothing_else_passes_for_one() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(24, 3)
    ).eval()
    x = np.random.default_rng(0).normal(size=(4, 1, 9, 9)).astype(np.float32)
    oracle = Oracle(LocalExplainer(net, Capabilities(rule="riemann_right")), (1, 9, 9), range(3), single_step())
    found = first_filters(oracle, x, size=3, lines=8)
    filters = net.get_parameter("0.weight").detach().double().numpy().reshape(4, 9)
    lengths = np.linalg.norm(filters, axis=1)
    often = found.seen >= 3
    cosines = found.kernels[often].reshape(-1, 9) @ (filters / lengths[:, None]).T
    nearest = np.abs(cosines).argmax(1)
    rows = np.arange(len(nearest))
    assert sorted(nearest) == [0, 1, 2, 3]
    assert (np.abs(cosines[rows, nearest]) > 1 - 1e-5).all()
    offsets = net.get_parameter("0.bias").detach().double().numpy() / lengths
    np.testing.assert_allclose(found.offsets[often], np.sign(cosines[rows, nearest]) * offsets[nearest], atol=1e-3)
    assert found.bends > found.seen.sum()


def test_a_network_without_a_convolution_has_no_filters() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(49, 20), nn.ReLU(), nn.Linear(20, 3)).eval()
    x = np.random.default_rng(0).normal(size=(3, 1, 7, 7)).astype(np.float32)
    oracle = Oracle(LocalExplainer(net, Capabilities(rule="riemann_right")), (1, 7, 7), range(3), single_step())
    found = first_filters(oracle, x, size=3, lines=12)
    assert len(found.kernels) == 0
    assert found.bends > 0
