"""How far to nudge a pixel that equals the baseline: `python studies/nudge.py` writes results/nudge.json.

LeNet behind pixels in [0, 1] with baseline 0, where four fifths of a digit are 0. For each way the answers may be
rounded and each step, the distance between the gradient of those pixels and what one query with one step
recovers of it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from disintegrate import (
    Capabilities,
    LocalExplainer,
    Remembering,
    Wire,
    Wired,
    distance,
    nudged,
    recover,
    single_step,
    vanilla_gradient,
)
from disintegrate.files import write_atomically
from disintegrate.paper import mnist
from disintegrate.paper.mnist import MEAN, STANDARD_DEVIATION
from disintegrate.paper.training import recipe, train
from disintegrate.versions import versions

RESULTS = Path(__file__).parents[1] / "results"
NETWORK, IMAGES = "LeNet", 100
STEPS = tuple(2.0**-power for power in (149, 126, 100, 60, 40, 30, 23, 20, 16, 13, 10, 8, 7, 6, 5, 4, 3, 2, 1))
WIRES = {
    "float32": Wire(),
    "3 significant digits": Wire(significant_digits=3),
    "8 decimals": Wire(decimals=8),
    "6 decimals": Wire(decimals=6),
    "4 decimals": Wire(decimals=4),
    "noise of 1e-4": Wire(noise=1e-4),
}


class OfPixels(nn.Module):
    """A network of the paper that takes pixels in [0, 1]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n classes"]:
        """Normalise as the paper does."""
        outputs: Tensor = self.network((pixels - float(MEAN)) / float(STANDARD_DEVIATION))
        return outputs


def main() -> None:
    """Measure and write the record."""
    test = mnist.load("test")
    trained = train(recipe(NETWORK), mnist.load("train"), test, RESULTS / "reproduction" / "models")
    digits = test.first(IMAGES)
    record = {
        "command": "python studies/nudge.py",
        "network": NETWORK,
        "seed": trained.record.recipe.seed,
        "weights_sha256": trained.record.weights_sha256,
        "data_sha256": digits.sha256,
        "images": IMAGES,
        "versions": versions(),
        **trade_off(trained.model, digits, STEPS),
    }
    write_atomically(RESULTS / "nudge.json", (json.dumps(record, indent=1) + "\n").encode())


def trade_off(network: nn.Module, digits: mnist.Digits, steps: tuple[float, ...]) -> dict[str, object]:
    """Median distance on the dark pixels by wire and step, and at each wire's default step."""
    allowed = Capabilities(rule="riemann_right", smallest_value=0, largest_value=1)
    service = LocalExplainer(OfPixels(network), allowed)
    inputs = digits.images[:, None].astype(np.float32) / np.float32(255)
    targets, dark = digits.labels.astype(np.int64), inputs == 0
    gradient = np.asarray(vanilla_gradient(service.model, torch.from_numpy(inputs), torch.from_numpy(targets)))
    wanted = np.where(dark, gradient, 0)
    remembering = Remembering(service)

    def error(wire: Wire, step: float) -> dict[str, float]:
        asked = replace(single_step(), nudge=step)
        found = recover(Wired(remembering, wire), inputs, targets, asked)
        apart = distance(wanted, np.where(dark, found.gradient, 0))
        return {"step": step, "median": float(np.median(apart)), "largest": float(apart.max())}

    return {
        "dark_share": float(dark.mean()),
        "wires": {
            name: {
                "default": error(wire, nudged(single_step(), replace(service.capabilities, wire=wire), inputs).nudge),
                "steps": [error(wire, step) for step in steps],
            }
            for name, wire in WIRES.items()
        },
    }


if __name__ == "__main__":
    main()
