"""Why does equation (3) fail? `python studies/kinks.py` writes results/kinks.json, which the results page shows.

For each image and network: the kinks in [0.98, 1] with the units that cause them, how near the nearest lies to the
input on either side, the error of equation (3) and what it consists of; then equation (3) with the exact integral in
place of m = 50, theorem 3.3 as it is stated, for alpha from 0.5 to 1 - 1e-6. Stopped at any moment it goes on behind
the last image.
"""

from __future__ import annotations

import argparse
import hashlib
from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np
import torch

from disintegrate import distance, nearest_kinks, ray_regions, recover, riemann_right, shared_piece, summarise
from disintegrate.files import write_atomically
from disintegrate.paper import mnist
from disintegrate.paper.conditions import as_served
from disintegrate.paper.experiments import ALPHA, STEPS, true_gradient
from disintegrate.paper.kinks import AlphaRow, Image, KinksStudy, NetworkRow
from disintegrate.paper.mnist import Digits
from disintegrate.paper.store import TrainedNetwork
from disintegrate.paper.training import recipe, train
from disintegrate.paper.units import Arrays, Units
from disintegrate.regions import plan_errors
from disintegrate.versions import versions

RESULTS = Path(__file__).parents[1] / "results"
IMAGES = {"TwoLayerNet": 200, "LeNet": 12, "ResNet18": 3}
ALPHAS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1 - 1e-4, 1 - 1e-5, 1 - 1e-6)
# A walk through ResNet18 meets thousands of kinks: it begins later.
FIRST_ALPHA = {"ResNet18": 0.9}


def main() -> None:
    """Measure every image once, then write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two images of each network; nothing is written")
    asked = parser.parse_args()
    training, test, networks, alphas = mnist.load("train"), mnist.load("test"), [], []
    units = Units(RESULTS / "reproduction" / "units")
    for network, images in IMAGES.items():
        trained = train(recipe(network), training, test, RESULTS / "reproduction" / "models")
        digits = test.first(2 if asked.quick else images)
        found = [unit_of(trained, digits.slice(index, index + 1), units, index) for index in range(len(digits))]
        networks.append(network_row(trained, found))
        alphas += alpha_rows(network, found)
    record = KinksStudy(
        command="python studies/kinks.py",
        seed=0,
        data_sha256=test.first(max(IMAGES.values())).sha256,
        versions=versions(),
        networks=tuple(networks),
        alphas=tuple(alphas),
    )
    if asked.quick:
        print(record.model_dump_json(indent=1))
        return
    write_atomically(RESULTS / "kinks.json", (record.model_dump_json(indent=1) + "\n").encode())


def unit_of(trained: TrainedNetwork, digit: Digits, units: Units, index: int) -> Arrays:
    """One image of one network, computed once."""
    network = trained.record.recipe.network
    alphas = tuple(alpha for alpha in ALPHAS if alpha >= FIRST_ALPHA.get(network, 0.0))
    content = f"{trained.record.weights_sha256}|{digit.sha256}|{alphas}|{ALPHA}|{STEPS}"
    key = f"kinks-{network}-{index}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
    return units.once(key, partial(measure, trained, digit, alphas))


def measure(trained: TrainedNetwork, digit: Digits, alphas: tuple[float, ...]) -> Arrays:
    """Kinks and errors of one image."""
    service, target = as_served(trained.model, "cpu"), int(digit.labels[0])
    inputs, targets = digit.normalised(), digit.labels.astype(np.int64)
    truth = true_gradient(service, digit)
    wide = deepcopy(trained.model).double().eval()
    x = torch.tensor(inputs[0]).double()
    b = torch.zeros_like(x)
    regions = ray_regions(wide, x, b, min(alphas), 1.0, target=target)
    positions = np.array([kink.position for kink in regions.kinks])
    near = [kink for kink in regions.kinks if kink.position >= ALPHA]
    recovered = recover(service, inputs, targets, shared_piece(ALPHA, STEPS)).gradient
    errors = plan_errors(
        wide, x, b, shared_piece(ALPHA, STEPS), riemann_right, torch.tensor(recovered[0]), target=target
    )
    before, behind = nearest_kinks(wide, x, b)
    exact = errors.gradient.numpy()[None]
    return {
        "kinks": np.array(len(near)),
        "units": np.array(sum(len(kink.units) for kink in near)),
        "nearest": np.array([before, behind]),
        "tied": np.array(len(regions.ties)),
        "distance": distance(truth, recovered),
        "exact_distance": distance(exact, regions.mean(ALPHA, 1.0).numpy()[None]),
        "parts": np.array([errors.relative[name] for name in ("kink", "quadrature", "rounding")]),
        "alphas": np.array(alphas),
        "without_kink": np.array([not (positions >= alpha).any() for alpha in alphas]),
        "exact": np.concatenate([distance(exact, regions.mean(alpha, 1.0).numpy()[None]) for alpha in alphas]),
        "with_steps": np.concatenate([
            distance(truth, recover(service, inputs, targets, shared_piece(alpha, STEPS)).gradient) for alpha in alphas
        ]),
    }  # fmt: skip


def network_row(trained: TrainedNetwork, found: list[Arrays]) -> NetworkRow:
    """All images of one network at the alpha of the paper."""
    kinks, distances = (np.array([float(one[name].item()) for one in found]) for name in ("kinks", "exact_distance"))
    return NetworkRow(
        network=trained.record.recipe.network,
        weights_sha256=trained.record.weights_sha256,
        alpha=ALPHA,
        steps=STEPS,
        images=tuple(_image(one) for one in found),
        rank_correlation=rank_correlation(kinks, distances),
    )


def alpha_rows(network: str, found: list[Arrays]) -> list[AlphaRow]:
    """All images of one network at each alpha."""
    exact, steps, without = (np.stack([one[name] for one in found]) for name in ("exact", "with_steps", "without_kink"))
    return [
        AlphaRow(
            network=network,
            alpha=float(alpha),
            without_kink=float(without[:, index].mean()),
            exact=summarise(exact[:, index]),
            with_steps=summarise(steps[:, index]),
        )
        for index, alpha in enumerate(found[0]["alphas"])
    ]


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    """Spearman's, equal numbers sharing their mean rank; None where one of them does not vary."""
    ranks = [(values[:, None] > values).sum(1) + (values[:, None] == values).sum(1) / 2 for values in (first, second)]
    if min(float(rank.std()) for rank in ranks) == 0:
        return None
    return float(np.corrcoef(*ranks)[0, 1])


def _image(one: Arrays) -> Image:
    before, behind = (float(value) if np.isfinite(value) else None for value in one["nearest"])
    kink, quadrature, rounding = (float(value) for value in one["parts"])
    return Image(
        kinks=int(one["kinks"].item()), units=int(one["units"].item()), before=before, behind=behind,
        tied=int(one["tied"].item()), distance=float(one["distance"].item()),
        exact_distance=float(one["exact_distance"].item()), kink=kink, quadrature=quadrature, rounding=rounding,
    )  # fmt: skip


if __name__ == "__main__":
    main()
