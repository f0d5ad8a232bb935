"""A service to practise on: a network of the paper behind settings that a caller must find out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int
from torch import nn

from disintegrate.errors import InvalidValue
from disintegrate.explainers import Capabilities, Deaf, Explainer, LocalExplainer, Wire, Wired
from disintegrate.paper import mnist
from disintegrate.paper.networks import build
from disintegrate.paper.store import load_weights

EXAMPLES = 4


def practice_service(
    network: str,
    weights: Path | None = None,
    *,
    rule: str,
    steps: int,
    baseline: str = "zero",
    digits: int | None = None,
    softmax: bool = False,
    deaf: bool = False,
    seed: int = 0,
) -> tuple[Explainer, Float32[np.ndarray, "n 1 28 28"], Int[np.ndarray, " n"]]:
    """A service with these settings, and a few digits with their labels to ask it about.

    Raises:
        UnknownName: no network or rule of that name, or no such file of weights.
        InvalidValue: a baseline that is none of zero, mean and random.
    """
    model = build(network) if weights is None else load_weights(weights, network)
    test = mnist.load("test").first(EXAMPLES)
    inputs = test.normalised()
    points = {
        "zero": np.zeros_like(inputs[0]),
        "mean": inputs.mean(0, dtype=np.float32),
        "random": np.random.default_rng(seed).normal(size=inputs[0].shape).astype(np.float32),
    }
    if baseline not in points:
        raise InvalidValue("There is no such baseline.", got=repr(baseline), instead="Use zero, mean or random.")
    service: Explainer = LocalExplainer(
        nn.Sequential(model, nn.Softmax(1)) if softmax else model,
        Capabilities(rule=rule, default_steps=steps),
        own_baseline=points[baseline],
    )
    if deaf:
        service = Deaf(service, steps=True, baseline=True)
    if digits is not None:
        service = Wired(service, Wire(significant_digits=digits))
    return service, inputs, test.labels.astype(np.int64)
