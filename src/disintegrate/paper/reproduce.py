"""The whole reproduction: train, measure, find causes, draw, record; each step once, resumable anywhere."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from disintegrate.errors import InvalidValue, UnknownName, UnwritableOutput
from disintegrate.explainers import usable_device
from disintegrate.files import write_atomically
from disintegrate.paper import drawings, evidence, mnist
from disintegrate.paper.conditions import as_served
from disintegrate.paper.experiments import cells, measure_cells
from disintegrate.paper.networks import NETWORKS
from disintegrate.paper.records import Record, Run, store
from disintegrate.paper.store import TrainedNetwork
from disintegrate.paper.training import recipe, train
from disintegrate.paper.units import Arrays, Units
from disintegrate.progress import SILENT, Progress
from disintegrate.versions import versions

QUICK_NETWORKS = ("TwoLayerNet_nobias", "TwoLayerNet", "LeNet")
QUICK_IMAGES, FULL_IMAGES = 200, 10_000


@dataclass(frozen=True)
class Options:
    """What to reproduce, and where to.

    Attributes:
        out: folder for models, units, records and the page.
        quick: shorter trainings, fewer images and networks.
        data: folder of IDX files; None for the package's MNIST.
        networks: which of the paper's networks; None for all, or the three of the quick run.
        images: test images per cell; None for all 10,000, or 200 in the quick run.
        seeds: trainings of each network.
        device: where to compute.
    """

    out: Path
    quick: bool = False
    data: Path | None = None
    networks: tuple[str, ...] | None = None
    images: int | None = None
    seeds: int = 1
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name, value in (("images", self.images), ("seeds", self.seeds)):
            if value is not None and value < 1:
                raise InvalidValue(
                    f"The number of {name} must be at least 1.", got=value, instead=f"Use --{name} 1 or more."
                )
        for network in self.networks or ():
            if network not in NETWORKS:
                raise UnknownName(
                    "There is no such network.",
                    got=repr(network),
                    instead=f"Choose from {', '.join(NETWORKS)}.",
                )

    @property
    def chosen_networks(self) -> tuple[str, ...]:
        """The networks to reproduce, in the paper's order."""
        wanted = self.networks or (QUICK_NETWORKS if self.quick else tuple(NETWORKS))
        return tuple(name for name in NETWORKS if name in wanted)

    @property
    def chosen_images(self) -> int:
        """Test images per cell."""
        return self.images or (QUICK_IMAGES if self.quick else FULL_IMAGES)


@dataclass(frozen=True)
class Reproduction:
    """A finished run: its record, and the records it made."""

    run: Run
    records: tuple[Record, ...]
    folder: Path


def reproduce(options: Options, progress: Progress = SILENT) -> Reproduction:
    """Reproduce the paper, as far as the options ask, and leave records in the output folder.

    Whatever was finished before, by a run that was killed or by an earlier one, is read and not done again.

    Raises:
        Misuse: a data folder that is missing, a device that does not work.
        DamagedFile: damaged data, or a stored result that cannot be read.
        UnwritableOutput: the output folder cannot be written.
    """
    if options.out.exists() and not options.out.is_dir():
        raise UnwritableOutput(
            "The output is not a folder.", got=options.out, instead="Give --out a folder, new or old."
        )
    write_atomically(options.out / ".writable", b"")
    (options.out / ".writable").unlink()
    usable_device(options.device)
    training, test = mnist.load("train", options.data), mnist.load("test", options.data)
    if options.images is not None and options.images > len(test):
        raise InvalidValue(
            "There are not so many test images.", got=options.images, instead=f"Use --images {len(test)} or fewer."
        )
    digits = test.first(options.chosen_images)
    units, models = Units(options.out / "units"), options.out / "models"

    trained = {
        (network, seed): train(recipe(network, seed=seed, quick=options.quick), training, test, models,
                               device=options.device, progress=progress)
        for seed in range(options.seeds)
        for network in options.chosen_networks
    }  # fmt: skip
    records: list[Record] = []
    first_seed: dict[str, Arrays] = {}
    for (network, seed), one in trained.items():
        service = as_served(one.model, options.device)
        measured = measure_cells(service, one, digits, units, progress=progress)
        records += cells(one, digits, measured, device=options.device)
        if seed == 0:
            first_seed[network] = measured
    first = {network: one for (network, seed), one in trained.items() if seed == 0}
    for network, one in first.items():
        some = digits.first(evidence_images(network, quick=options.quick))
        records += evidence.gather(one, some, units, device=options.device, progress=progress)
        if not options.quick:
            lengths = digits.first(500)
            records += evidence.gather_trainings(
                one, training, test, lengths, units, models, device=options.device, progress=progress
            )
    records += _drawings(first, first_seed, digits, units, options.device, progress)
    for record in records:
        store(options.out, record)
    run = Run(
        quick=options.quick,
        command=_command(options),
        networks=options.chosen_networks,
        images=len(digits),
        seeds=options.seeds,
        records=tuple(record.name for record in records),
        computing_seconds=units.seconds,
        training_seconds=sum(one.record.seconds for one in trained.values()),
        peak_memory_bytes=units.peak_memory,
        processors=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        versions=versions(),
    )
    store(options.out, run)
    return Reproduction(run, tuple(records), options.out)


def _drawings(
    trained: dict[str, TrainedNetwork],
    measured: dict[str, Arrays],
    digits: mnist.Digits,
    units: Units,
    device: str,
    progress: Progress,
) -> list[Record]:
    shown = trained.get("LeNet") or next(iter(trained.values()))
    painters: list[Callable[[], Record]] = [
        lambda: drawings.figure_1(shown, digits, device),
        lambda: drawings.figure_4(trained, digits, device),
        lambda: drawings.figure_5(trained, digits, units, device),
        drawings.figure_a1,
        lambda: drawings.figure_digits(measured),
    ]
    bar, drawn = progress.task("data of the figures", len(painters)), []
    for painter in painters:
        drawn.append(painter())
        bar.advance()
    return drawn


def evidence_images(network: str, *, quick: bool) -> int:
    """As many as is worth the time: of the small networks all, so that the few which make a mean are among them."""
    if quick:
        return 20
    return {"LeNet_nobias": 200, "LeNet": 200, "ResNet18": 100}.get(network, FULL_IMAGES)


def _command(options: Options) -> str:
    parts = ["disintegrate reproduce"]
    parts += ["--quick"] if options.quick else []
    parts += [f"--models {','.join(options.networks)}"] if options.networks else []
    parts += [f"--images {options.images}"] if options.images else []
    parts += [f"--seeds {options.seeds}"] if options.seeds != 1 else []
    parts += [f"--device {options.device}"] if options.device != "cpu" else []
    parts += ["--data DIR"] if options.data else []
    return " ".join(parts)
