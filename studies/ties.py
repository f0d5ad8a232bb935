"""What settles a tie in max pooling? `python studies/ties.py` writes results/ties.json, which the results page shows.

Table 3 on the same images and weights, with nothing changed but the library and the instruction set that computes:
each sums in an order of its own, so equal patches of a constant background may or may not get equal outputs. Then with
no two patches equal, by a pattern inside the model or by noise on the inputs. Each backend runs in a process of its
own, for MKL reads its settings once; stopped at any moment the study goes on behind the last block of images.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from disintegrate import LocalExplainer, distance, recover, single_step, step_count, summarise
from disintegrate.files import write_atomically
from disintegrate.paper import mnist
from disintegrate.paper.conditions import SERVICE, Untied
from disintegrate.paper.experiments import STEPS, true_gradient
from disintegrate.paper.mnist import Digits
from disintegrate.paper.store import TrainedNetwork
from disintegrate.paper.ties import TiesRow, TiesStudy
from disintegrate.paper.training import recipe, train
from disintegrate.paper.units import Arrays, Units
from disintegrate.progress import SILENT, Progress
from disintegrate.versions import versions

RESULTS = Path(__file__).parents[1] / "results"
IMAGES = {"LeNet": 100, "ResNet18": 40}
IMAGES_PER_UNIT, NOISE = 20, 1e-3


@dataclass(frozen=True)
class Backend:
    """What computes."""

    words: str
    dtype: torch.dtype
    onednn: bool = True
    environment: Mapping[str, str] = field(default_factory=dict)


BACKENDS = {
    "onednn": Backend("float32, convolutions by oneDNN, as in the tables", torch.float32),
    "without_onednn": Backend("float32, convolutions by matrix products of MKL", torch.float32, onednn=False),
    "avx2": Backend("float64, MKL with AVX2", torch.float64, environment={"MKL_CBWR": "AVX2"}),
    "avx512": Backend("float64, MKL with AVX-512", torch.float64, environment={"MKL_CBWR": "AVX512"}),
    "compatible": Backend("float64, MKL's oldest code path", torch.float64, environment={"MKL_CBWR": "COMPATIBLE"}),
}


def main() -> None:
    """Measure each backend in its own process, then write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=BACKENDS)
    asked = parser.parse_args()
    if asked.backend:
        measure_all(asked.backend)
        return
    rows = []
    for name, backend in BACKENDS.items():
        command = [sys.executable, __file__, "--backend", name]
        subprocess.run(command, check=True, env=os.environ | backend.environment)  # noqa: S603
        rows += measure_all(name)
    record = TiesStudy(
        command="python studies/ties.py",
        seed=0,
        data_sha256=mnist.load("test").first(max(IMAGES.values())).sha256,
        instruction_set=torch.backends.cpu.get_cpu_capability(),
        versions=versions(),
        rows=tuple(sorted(rows, key=lambda row: list(IMAGES).index(row.network))),
    )
    write_atomically(RESULTS / "ties.json", (record.model_dump_json(indent=1) + "\n").encode())


def measure_all(name: str) -> list[TiesRow]:
    """All networks by one backend; what was measured before, in whichever process, is read."""
    training, test, rows = mnist.load("train"), mnist.load("test"), []
    for network, images in IMAGES.items():
        trained = train(recipe(network), training, test, RESULTS / "reproduction" / "models")
        rows.append(row_of(name, trained, test.first(images), Units(RESULTS / "reproduction" / "units")))
    return rows


def row_of(name: str, trained: TrainedNetwork, digits: Digits, units: Units, *, progress: Progress = SILENT) -> TiesRow:
    """One network by one backend, from units of 20 images."""
    record, starts = trained.record, range(0, len(digits), IMAGES_PER_UNIT)
    bar, parts = progress.task(f"{record.recipe.network}, {name}", len(starts)), []
    for start in starts:
        block = digits.slice(start, start + IMAGES_PER_UNIT)
        content = f"{record.weights_sha256}|{block.sha256}|{BACKENDS[name].words}|{STEPS}|{NOISE}"
        key = f"ties-{record.recipe.network}-{name}-{start}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
        parts.append(units.once(key, partial(measure, BACKENDS[name], trained.model, block)))
        bar.advance()
    found = {key: np.concatenate([np.atleast_1d(part[key]) for part in parts]) for key in parts[0]}
    return TiesRow(
        network=record.recipe.network,
        weights_sha256=record.weights_sha256,
        backend=BACKENDS[name].words,
        dtype=str(BACKENDS[name].dtype).removeprefix("torch."),
        plain=summarise(found["plain"]),
        untied=summarise(found["untied"]),
        noisy=summarise(found["noisy"]),
        single_step=summarise(found["single_step"]),
    )


@contextmanager
def onednn(*, enabled: bool) -> Iterator[None]:
    """With oneDNN or without; torch's own context manager warns of graphics cards."""
    before = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = enabled  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before


def measure(backend: Backend, model: nn.Module, block: Digits) -> Arrays:
    """Table 3 of a block of images: as it is, and twice with no two patches equal."""

    def service(changed: nn.Module) -> LocalExplainer:
        return LocalExplainer(changed.to(backend.dtype), SERVICE, dtype=backend.dtype)

    plain, untied = service(deepcopy(model)), service(Untied(deepcopy(model)))
    asked = {"plain": (plain, block), "untied": (untied, block), "noisy": (plain, block.with_noise(NOISE))}
    found = {}
    with onednn(enabled=backend.onednn):
        for name, (explainer, digits) in asked.items():
            truth, targets = true_gradient(explainer, digits), digits.labels.astype(np.int64)
            inputs = digits.normalised()
            found[name] = distance(truth, recover(explainer, inputs, targets, step_count(STEPS)).gradient)
            if name == "plain":
                found["single_step"] = distance(truth, recover(explainer, inputs, targets, single_step()).gradient)
    return found


if __name__ == "__main__":
    main()
