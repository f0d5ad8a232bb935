"""The adversarial-robustness-toolbox's own extraction attacks on the paper's LeNet: writes results/toolbox.json.

`make peers` makes the environment and runs this. The setting is that of the toolbox's notebook `model-stealing-demo`:
MNIST, the victim behind a softmax, a thief of the victim's architecture, its four attacks. Here the thief trains on
some of the first 5,000 test images and is scored on the other 5,000. `--epochs` are the notebook's 5; more may be
given, since 5 epochs of few images are few steps. With one seed the toolbox's KnockoffNets draws and learns what its
CopycatCNN does, so rows come in equal pairs. A run that is stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from art.attacks.extraction import CopycatCNN, KnockoffNets
from art.estimators.classification import PyTorchClassifier
from torch import nn

from disintegrate.files import write_atomically
from disintegrate.paper import mnist
from disintegrate.paper.networks import lenet
from disintegrate.paper.training import recipe, train
from disintegrate.versions import versions

ROOT = Path(__file__).parents[1]
OUT = ROOT / "results" / "toolbox.json"
ATTACKS = {
    "probabilistic CopycatCNN": (CopycatCNN, True), "argmax CopycatCNN": (CopycatCNN, False),
    "probabilistic KnockoffNets": (KnockoffNets, True), "argmax KnockoffNets": (KnockoffNets, False),
}  # fmt: skip
BUDGETS = (250, 500, 1000, 2000, 4000, 5000)
STOLEN_FROM, BATCH = 5000, 64
# As in studies/students.py, so that the victim is the same and names about as many images as the notebook's, 98.7 %.
VICTIM_EPOCHS = 2


def classifier(model: nn.Module) -> PyTorchClassifier:
    """A model with logits, as the toolbox takes one."""
    adam = torch.optim.Adam(model.parameters())
    return PyTorchClassifier(
        model, loss=nn.CrossEntropyLoss(), input_shape=(1, 28, 28), nb_classes=10, optimizer=adam, device_type="cpu"
    )


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    """The share of inputs on which both choose the same class."""
    return float((one.argmax(1) == other.argmax(1)).mean())


def stolen(victim: nn.Module, attack: str, queries: int, epochs: int, seed: int) -> dict[str, Any]:
    """One attack with one budget, scored on the images that it never saw."""
    np.random.seed(seed)
    torch.manual_seed(seed)
    test = mnist.load("test")
    images, labels = test.normalised(), test.labels
    chosen = np.random.default_rng(seed).permutation(STOLEN_FROM)[:queries]
    method, probabilities = ATTACKS[attack]
    settings = {"batch_size_fit": BATCH, "batch_size_query": BATCH, "nb_epochs": epochs, "nb_stolen": queries,
                "use_probability": probabilities}  # fmt: skip
    if method is KnockoffNets:
        settings["verbose"] = False
    served = classifier(nn.Sequential(victim, nn.Softmax(1)).eval())
    thief = classifier(lenet(bias=True))
    started = time.perf_counter()
    copy = method(classifier=served, **settings).extract(images[chosen], thieved_classifier=thief)
    seconds = time.perf_counter() - started
    answers, truth = (one.predict(images[STOLEN_FROM:], batch_size=500) for one in (copy, served))
    return {"attack": attack, "queries": queries, "epochs": epochs, "seed": seed, "seconds": seconds,
            "accuracy": float((answers.argmax(1) == labels[STOLEN_FROM:]).mean()),
            "agreement": agreement(answers, truth)}  # fmt: skip


def main() -> None:
    """Every attack, budget and seed that the record lacks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, nargs="+", default=[5])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    logging.getLogger("art").setLevel(logging.ERROR)
    wanted_victim = recipe("LeNet").model_copy(update={"epochs": VICTIM_EPOCHS})
    trained = train(wanted_victim, mnist.load("train"), mnist.load("test"), ROOT / "results" / "studies" / "models")
    wanted = [(attack, queries, epochs, seed) for epochs in asked.epochs for seed in range(asked.seeds)
              for queries in BUDGETS for attack in ATTACKS]  # fmt: skip
    made = json.loads(asked.out.read_text())["rows"] if asked.out.exists() else []
    done = {(row["attack"], row["queries"], row["epochs"], row["seed"]): row for row in made}
    toolbox = {"adversarial-robustness-toolbox": version("adversarial-robustness-toolbox")}
    for one in wanted:
        if one not in done:
            found = done[one] = stolen(trained.model, *one)
            print(f"{found['attack']:28} {found['epochs']:3} epochs {found['queries']:5} queries, seed "
                  f"{found['seed']}: accuracy {found['accuracy']:.3f}, agreement {found['agreement']:.3f}",
                  flush=True)  # fmt: skip
        rows = [done[each] for each in wanted if each in done]
        record = {
            "command": "make peers", "versions": versions() | toolbox,
            "victim": {"network": "LeNet", "epochs": VICTIM_EPOCHS, "accuracy": trained.record.accuracy,
                       "weights_sha256": trained.record.weights_sha256},
            "images_to_steal_with": STOLEN_FROM, "images_scored": 5000, "complete": len(rows) == len(wanted),
            "rows": rows,
        }  # fmt: skip
        write_atomically(asked.out, (json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
