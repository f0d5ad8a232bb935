"""The data of the paper's figures, and of one that it lacks, as records."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from torch import nn

from disintegrate.closed_form import bias_free, shared_piece, step_count
from disintegrate.explainers import LocalExplainer
from disintegrate.gradients import vanilla_gradient
from disintegrate.paper.conditions import as_served
from disintegrate.paper.experiments import ALPHA, METHODS, STEPS, TABLES, explanation_of, true_gradient
from disintegrate.paper.mnist import Digits
from disintegrate.paper.records import Drawing
from disintegrate.paper.store import TrainedNetwork
from disintegrate.paper.units import Arrays, Units
from disintegrate.recover import recover

POINTS_PER_CELL = 400
# The rows of the paper's figure 4: experiment, network, plan.
ROWS = (
    ("A", "TwoLayerNet_nobias", bias_free(STEPS)),
    ("A", "LeNet_nobias", bias_free(STEPS)),
    ("B", "TwoLayerNet", step_count(STEPS)),
    ("B", "LeNet", step_count(STEPS)),
    ("B", "ResNet18", step_count(STEPS)),
    ("C", "TwoLayerNet", shared_piece(ALPHA, STEPS)),
    ("C", "LeNet", shared_piece(ALPHA, STEPS)),
    ("C", "ResNet18", shared_piece(ALPHA, STEPS)),
)
# Example A.2.1: f(x) = w1 max(A1 x, 0) + w2 max(A2 x, 0) on three inputs.
HIDDEN_WEIGHTS, OUTPUT_WEIGHTS = ((1.0, 0.4, 0.8), (-0.7, 1.0, 0.6)), (1.0, -0.5)


def figure_1(trained: TrainedNetwork, digits: Digits, device: str) -> Drawing:
    """A digit, its vanilla gradient and its Integrated Gradients."""
    explainer, one = as_served(trained.model, device), digits.first(1)
    return Drawing(
        figure="1",
        caption=f"A digit, its vanilla gradient and its Integrated Gradients ({trained.record.recipe.network}); "
        "small values black, large white.",
        data={
            "digit": one.images[0].tolist(),
            "vanilla gradient": _image(true_gradient(explainer, one)),
            "Integrated Gradients": _image(explanation_of(explainer, one)),
        },
    )


def figure_4(trained: Mapping[str, TrainedNetwork], digits: Digits, device: str) -> Drawing:
    """One example a row for every experiment and network: vanilla, integrated, recovered."""
    one = digits.first(1)
    rows = []
    for experiment, network, plan in ROWS:
        if network not in trained:
            continue
        explainer = as_served(trained[network].model, device)
        recovery = recover(explainer, one.normalised(), one.labels.astype(np.int64), plan)
        rows.append(
            {
                "title": f"{experiment}: {network}",
                "vanilla gradient": _image(true_gradient(explainer, one)),
                "Integrated Gradients": _image(explanation_of(explainer, one)),
                "recovered": _image(recovery.gradient),
            }
        )
    return Drawing(
        figure="4",
        caption="Experiments A, B and C on the first test image, one row each.",
        data={"rows": rows},
    )


def figure_5(
    trained: Mapping[str, TrainedNetwork], digits: Digits, units: Units, device: str, images: int = 100
) -> Drawing:
    """Norm of the gradient at (i/m) x for i = 1..m, of the logit and of the probability: quantiles over images."""
    some = digits.first(images)
    data = {}
    for network, one in trained.items():
        for output, model in (("logit", one.model), ("probability", nn.Sequential(one.model, nn.Softmax(dim=1)))):
            explainer = as_served(model, device)
            key = f"norms-{network}-{output}-{one.record.weights_sha256[:16]}-{some.sha256[:16]}-{device}"
            norms = units.once(key, partial(_norms_along_ray, explainer, some))["norms"]
            quantiles = np.percentile(norms, (10, 50, 90), axis=1)
            data[f"{network}, {output}"] = [[float(f"{v:.4g}") for v in row] for row in quantiles]
    return Drawing(
        figure="5",
        caption=f"Norm of the gradient at (i/50) x over {len(some)} images: median, 10th and 90th percentile. The "
        "paper shows ResNet18's falling by 1e-10 from near i = 10 to i = 50.",
        data=data,
    )


def figure_a1() -> Drawing:
    """Example A.2.1: two planes through the origin cut the inputs of a bias-free network into four regions."""
    first = torch.tensor(HIDDEN_WEIGHTS, dtype=torch.float64)
    last = torch.tensor([OUTPUT_WEIGHTS], dtype=torch.float64)
    net = nn.Sequential(nn.Linear(3, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False)).double()
    net.load_state_dict({"0.weight": first, "2.weight": last})
    regions = []
    for pattern in ((1, 1), (1, 0), (0, 1), (0, 0)):
        signs = torch.tensor(pattern, dtype=torch.float64) * 2 - 1
        inside = torch.linalg.pinv(first) @ signs
        gradient = vanilla_gradient(net, inside[None], torch.tensor([0]))[0]
        regions.append({"pattern": list(pattern), "inside": inside.tolist(), "gradient": gradient.tolist()})
    return Drawing(
        figure="A.1",
        caption="Example A.2.1: f = w1 max(A1 x, 0) + w2 max(A2 x, 0) without biases. Two planes through the origin, "
        "four linear regions, each with its constant gradient.",
        data={"normals": [list(row) for row in HIDDEN_WEIGHTS], "regions": regions},
    )


def figure_digits(measured: Mapping[str, Arrays]) -> Drawing:
    """Error against the decimal digits that the subtraction cost, image by image: the figure the paper lacks."""
    data = {}
    for network, arrays in measured.items():
        for method, networks in TABLES.values():
            if network in networks and f"{method}.cancelled_digits" in arrays:
                digits, error = arrays[f"{method}.cancelled_digits"], arrays[f"{method}.distance"]
                # Where nothing was left of the sum, infinitely many digits cancelled, and JSON has no such number.
                pairs = (digits[np.isfinite(digits)], error[np.isfinite(digits)])
                data[f"{METHODS[method].title}, {network}"] = [
                    [float(f"{value:.4g}") for value in column[:POINTS_PER_CELL]] for column in pairs
                ]
    return Drawing(
        figure="digits",
        caption=f"Distance against the decimal digits that cancel in the plan's sum (first {POINTS_PER_CELL} images of "
        "each cell). Rounding lies on the line 2^-24 x 10^digits; what lies far above it is no cancellation but "
        "a kink, a tie or quadrature.",
        data=data,
    )


def _norms_along_ray(explainer: LocalExplainer, digits: Digits) -> Arrays:
    inputs = torch.tensor(digits.normalised(), device=explainer.device)
    targets = torch.tensor(digits.labels, dtype=torch.long, device=explainer.device)
    scaled = [vanilla_gradient(explainer.model, inputs * (i / STEPS), targets) for i in range(1, STEPS + 1)]
    return {"norms": np.stack([np.asarray(gradient.double().flatten(1).norm(dim=1).cpu()) for gradient in scaled])}


def _image(batch: np.ndarray) -> list[list[float]]:
    return [[float(f"{value:.4g}") for value in row] for row in batch[0, 0]]
