"""Which images make the mean of table 2, and why: `python docs/outliers.py` writes results/outliers.json.

An outlier is an image whose distance is above 1e-5. For each: the smallest pre-activation of a hidden unit, in
float64. Where it lies within the float32 rounding of such a sum, the unit's sign differs from step to step.
"""

import json
from pathlib import Path

import numpy as np
import torch

from disintegrate import bias_free, distance, recover
from disintegrate.paper import mnist
from disintegrate.paper.conditions import as_served
from disintegrate.paper.experiments import STEPS, true_gradient
from disintegrate.paper.training import recipe, train
from disintegrate.versions import versions

RESULTS = Path(__file__).parents[1] / "results"
NETWORK, THRESHOLD = "TwoLayerNet_nobias", 1e-5


def main() -> None:
    """Measure all test images and write the record."""
    test = mnist.load("test")
    trained = train(recipe(NETWORK), mnist.load("train"), test, RESULTS / "reproduction" / "models")
    service, inputs = as_served(trained.model, "cpu"), test.normalised()
    recovered = recover(service, inputs, test.labels.astype(np.int64), bias_free(STEPS)).gradient
    apart = distance(true_gradient(service, test), recovered)
    flat, weights = torch.tensor(inputs).flatten(1), service.model.get_parameter("fc1.weight")
    exact = flat.double() @ weights.double().T
    rounding = (flat @ weights.T).double() - exact
    nearest = exact.abs().amin(1).numpy()
    outliers = np.flatnonzero(apart > THRESHOLD)
    record = {
        "network": NETWORK,
        "seed": trained.record.recipe.seed,
        "images": len(test),
        "versions": versions(),
        "mean": apart.mean(),
        "mean_without_outliers": np.delete(apart, outliers).mean(),
        "float32_rounding_of_a_pre_activation": rounding.square().mean().sqrt().item(),
        "outliers": [
            {
                "image": int(image),
                "distance": apart[image],
                "smallest_pre_activation": nearest[image],
            }
            for image in outliers
        ],
        "other_images_with_a_unit_as_close": int((np.delete(nearest, outliers) <= nearest[outliers].max()).sum()),
    }
    (RESULTS / "outliers.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
