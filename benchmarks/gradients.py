"""Integrated Gradients against Captum, a plain loop and the machine: results/gradients.json and docs/gradients.svg.

`python benchmarks/gradients.py` times every contestant on four networks in one process, in turns, so that whatever else
the machine does hits all alike; medians of five rounds. Captum takes part with the batch size that was its fastest in a
sweep over a few images just before. Peak memory is that of a process of its own for each, less what the process had
before. `--quick` takes few images and rounds, and writes nothing; `--again agreement,linearity,curves` measures these
parts of a record anew.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from captum.attr import IntegratedGradients
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from disintegrate import integrated_gradients, prepare, riemann_right
from disintegrate.files import write_atomically
from disintegrate.paper import mnist
from disintegrate.paper.figures import STYLE
from disintegrate.paper.training import recipe, train
from disintegrate.versions import versions

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "results" / "gradients.json"
STEPS, ROUNDS, CLOSE = 50, 5, 1e-5
# Images for each network, and the batch sizes that Captum may choose from.
NETWORKS = {
    "TwoLayerNet": (512, (1024, 2048, 4096, 8192, 25600)),
    "LeNet": (64, (50, 100, 200, 400)),
    "ResNet18": (64, (50, 100, 200, 400)),
    "VGG-like": (64, (10, 25, 50, 100)),
}
QUICK = {"TwoLayerNet": 128, "LeNet": 8, "ResNet18": 4, "VGG-like": 1}
# Images for the sweep and the first round that does not count; for the loop, timed on a part; and for peak memory,
# where Captum by default would take more than there is.
FEW = {"TwoLayerNet": 512, "LeNet": 16, "ResNet18": 8, "VGG-like": 4}
# Images whose float64 results are computed as well.
EXACTLY = {"TwoLayerNet": 512, "LeNet": 16, "ResNet18": 8, "VGG-like": 2}
LOOP_PART, MEMORY_IMAGES = {"VGG-like": 4}, {"VGG-like": 8}
# Gradients of one measurement of linearity, at least, so far as the largest size permits.
ONE_MEASUREMENT = 100_000
# Rounds of linearity: its measurements are short, from a fiftieth of a second on.
MANY_ROUNDS = 15
SIZES = {"TwoLayerNet": (1_000, 10_000, 100_000, 1_000_000), "LeNet": (1_000, 3_000, 10_000)}
CURVE_STEPS, CURVE_IMAGES = (1, 3, 10, 30, 100, 400), (1, 4, 16, 64, 256, 1024, 4096)


@dataclass(frozen=True, eq=False)
class Subject:
    """A network with inputs and targets."""

    name: str
    model: nn.Module
    inputs: Tensor
    targets: Tensor

    def first(self, images: int) -> Subject:
        """So many of its inputs, from the beginning again where there are fewer."""
        chosen = torch.arange(images) % len(self.inputs)
        return Subject(self.name, self.model, self.inputs[chosen], self.targets[chosen])


def vgg_like() -> nn.Module:
    """Seven 3x3 convolutions of 64 to 256 channels in three blocks, for inputs of 3x64x64."""
    layers: list[nn.Module] = []
    channels = 3
    for width, depth in ((64, 2), (128, 2), (256, 3)):
        for _ in range(depth):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(256 * 64, 256), nn.ReLU(), nn.Linear(256, 10))


def subject(name: str, images: int) -> Subject:
    """A trained network of the paper with test images, or the VGG-like one with noise."""
    if name == "VGG-like":
        torch.manual_seed(0)
        return Subject(name, vgg_like().eval(), torch.randn(images, 3, 64, 64), torch.arange(images) % 10)
    test = mnist.load("test")
    model = train(recipe(name), mnist.load("train"), test, ROOT / "results" / "reproduction" / "models").model.eval()
    digits = test.first(images)
    return Subject(name, model, torch.tensor(digits.normalised()), torch.tensor(digits.labels).long())


def ours(of: Subject, steps: int = STEPS) -> Callable[[], Tensor]:
    """This package, prepared once."""
    prepared = prepare(of.model, of.inputs, of.targets)
    zero = torch.zeros_like(of.inputs)
    return lambda: integrated_gradients(prepared, of.inputs, zero, of.targets, riemann_right(steps))


def captum(of: Subject, steps: int = STEPS, batch: int | None = None) -> Callable[[], Tensor]:
    """Captum by the same rule; without a batch size, as it is by default, everything at once."""
    explainer, zero = IntegratedGradients(of.model), torch.zeros_like(of.inputs)

    def explain() -> Tensor:
        found: Tensor = explainer.attribute(
            of.inputs, zero, of.targets, n_steps=steps, method="riemann_right", internal_batch_size=batch
        )
        return found.detach()

    return explain


def loop(of: Subject, steps: int = STEPS) -> Callable[[], Tensor]:
    """All images together, one step after the other."""

    def explain() -> Tensor:
        total = torch.zeros_like(of.inputs)
        for step in range(1, steps + 1):
            points = (step / steps * of.inputs).requires_grad_()
            chosen = of.model(points).gather(1, of.targets[:, None]).sum()
            total += torch.autograd.grad(chosen, points)[0]
        return of.inputs * total / steps

    return explain


def seconds(run: Callable[[], object]) -> float:
    """Of one call."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def in_turns(contestants: dict[str, Callable[[], object]], rounds: int, *, warm: bool = True) -> dict[str, list[float]]:
    """Each contestant once a round; if they are to be warm, after one round that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + warm):
        for name, run in contestants.items():
            spent = seconds(run)
            if number >= warm:
                taken[name].append(spent)
    return taken


def repeated(run: Callable[[], object], times: int) -> None:
    """Run it so many times, one after the other."""
    for _ in range(times):
        run()


def machine() -> dict[str, Callable[[], object]]:
    """What the machine can do: a large matrix product, a large convolution; 2 and 2.4 GFLOP."""
    square, maps = torch.randn(1000, 1000), torch.randn(16, 64, 32, 32).contiguous(memory_format=torch.channels_last)
    kernel = torch.randn(128, 64, 3, 3).contiguous(memory_format=torch.channels_last)
    return {"matrix product": lambda: square @ square, "convolution": lambda: torch.conv2d(maps, kernel, padding=1)}


MACHINE_FLOP = {"matrix product": 2e9, "convolution": 2.0 * 16 * 32 * 32 * 128 * 64 * 9}


def flop_per_gradient(of: Subject) -> float:
    """Of the network as it is, forward and backward to the input."""
    frozen, point = deepcopy(of.model).requires_grad_(False), of.inputs[:1].clone().requires_grad_()
    with FlopCounterMode(display=False) as counter:
        frozen(point)[0, 0].backward()
    return float(counter.get_total_flops())


def agreement(of: Subject, batch: int) -> dict[str, Any]:
    """How far from Captum's results, and how far both are from float64: where a kink lies within rounding, both are."""

    def apart(first: Tensor, second: Tensor) -> np.ndarray:
        first, second = first.double(), second.double()
        found: np.ndarray = ((first - second).flatten(1).norm(dim=1) / second.flatten(1).norm(dim=1)).numpy()
        return found

    def exact(of: Subject) -> Tensor:
        model, wide = deepcopy(of.model).double(), of.inputs.double()
        return integrated_gradients(model, wide, torch.zeros_like(wide), of.targets, riemann_right(STEPS))

    # Noise, on which nothing ties, and the model as it is; Captum's own nodes pass through float32.
    noise = Subject(of.name, deepcopy(of.model).double(), torch.randn_like(of.inputs[:2]).double(), of.targets[:2])
    few = of.first(min(EXACTLY[of.name], len(of.inputs)))
    own, its = ours(of)(), captum(of, batch=batch)()
    reference = exact(few)
    rows = {"from_captum": apart(own, its), "from_float64": apart(own[: len(few.inputs)], reference),
            "captum_from_float64": apart(its[: len(few.inputs)], reference)}  # fmt: skip
    found: dict[str, Any] = {"float64_largest": float(apart(ours(noise)(), exact(noise)).max())}
    for name, row in rows.items():
        found[name] = {"images": len(row), "largest": float(row.max()), "median": float(np.median(row)),
                       "share_within_1e-5": float((row <= CLOSE).mean())}  # fmt: skip
    return found


def peak_memory(name: str, images: int, steps: int, contestant: str, batch: int) -> float:
    """MiB that one contestant adds to a process of its own."""
    command = [sys.executable, __file__, "--memory", name, str(images), str(steps), contestant, str(batch)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    return float(answer.stdout)


def print_peak_memory(name: str, images: int, steps: int, contestant: str, batch: int) -> None:
    """Run one contestant here and print what it added."""
    of = subject(name, min(images, 10_000)).first(images)
    run = {"ours": partial(ours, of, steps), "loop": partial(loop, of, steps),
           "captum": partial(captum, of, steps, batch or None)}[contestant]()  # fmt: skip
    # Code and libraries that the first call loads are no activations.
    small = of.first(1)
    captum(small, 2)()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before must not hide what is taken now
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
    before = kibibytes("VmRSS")
    run()
    print((kibibytes("VmHWM") - before) / 1024)


def kibibytes(name: str) -> int:
    """Of this process' memory, by the name that Linux has for it."""
    return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0])


def network(name: str, *, quick: bool) -> dict[str, Any]:
    """All contestants on one network."""
    images, batches = (QUICK[name], NETWORKS[name][1][:2]) if quick else NETWORKS[name]
    of, rounds = subject(name, images), 2 if quick else ROUNDS
    few, part = of.first(min(images, FEW[name])), 1 if quick else LOOP_PART.get(name, 1)
    sweep = in_turns({f"captum {batch}": captum(few, batch=batch) for batch in batches}, 2)
    best = min(sweep, key=lambda key: min(sweep[key]))
    contestants: dict[str, Callable[[], object]] = {
        "ours": ours(of), "loop": loop(of.first(images // part)), best: captum(of, batch=int(best.split()[1]))
    }  # fmt: skip
    ours(few)()
    taken = in_turns(contestants | machine(), rounds, warm=quick)
    taken["loop"] = [part * spent for spent in taken["loop"]]
    median = {key: statistics.median(values) for key, values in taken.items()}
    count, flop = images * STEPS, flop_per_gradient(of)
    peak = {key: MACHINE_FLOP[key] / median[key] / 1e9 for key in MACHINE_FLOP}
    found = {
        "network": name, "images": images, "steps": STEPS, "rounds": rounds, "best_captum": best,
        "sweep": {key: len(few.inputs) * STEPS / min(values) for key, values in sweep.items()},
        "gradients_per_second": {key: count / median[key] for key in contestants},
        "ratio_to_captum": median[best] / median["ours"], "ratio_to_loop": median["loop"] / median["ours"],
        "ratios_by_round": [round(one / own, 3) for one, own in zip(taken[best], taken["ours"], strict=True)],
        "machine_gigaflops": peak, "flop_per_gradient": flop,
        "share_of_peak": {key: flop * count / median[key] / 1e9 / max(peak.values()) for key in ("ours", best)},
        "path": prepare(of.model, of.inputs, of.targets, measuring=False).path.value,
        "agreement": agreement(of, int(best.split()[1])),
    }  # fmt: skip
    if not quick:
        size, held = int(best.split()[1]), MEMORY_IMAGES.get(name, images)
        memory = {"ours": peak_memory(name, held, STEPS, "ours", 0),
                  "loop": peak_memory(name, held, STEPS, "loop", 0),
                  "captum default": peak_memory(name, held, STEPS, "captum", 0),
                  best: peak_memory(name, held, STEPS, "captum", size)}  # fmt: skip
        found |= {"peak_mebibytes": memory, "images_for_memory": held,
                  "memory_against_captum_default": memory["ours"] / memory["captum default"]}  # fmt: skip
        print(table([found]), flush=True)
    return found


def linearity(name: str, sizes: tuple[int, ...], *, quick: bool) -> dict[str, Any]:
    """Seconds and memory for ever more images, m = 50, against a straight line."""
    of = subject(name, 64)
    runs: dict[str, Callable[[], object]] = {}
    prepared = prepare(of.model, of.inputs, of.targets)
    calls = {}
    for size in sizes[:2] if quick else sizes:
        many = of.first(size // STEPS)
        zero = torch.zeros_like(many.inputs)
        run = partial(integrated_gradients, prepared, many.inputs, zero, many.targets, riemann_right(STEPS))
        # One call of a millisecond or two tells more of the clock and of what ran before than of the call.
        calls[str(size)] = 1 if quick else max(1, min(ONE_MEASUREMENT, sizes[-1]) // size)
        runs[str(size)] = partial(repeated, run, calls[str(size)])
    taken = in_turns(runs, 2 if quick else MANY_ROUNDS)
    median = {size: statistics.median(values) / calls[size] for size, values in taken.items()}
    each = {size: 1e6 * value / int(size) for size, value in median.items()}
    memory = {} if quick else {size: peak_memory(name, int(size) // STEPS, STEPS, "ours", 0) for size in runs}
    counts = np.array([float(size) for size in median])
    line = np.polynomial.Polynomial.fit(counts, np.array(list(median.values())), 1, w=1 / counts)
    off = np.abs(np.array(list(median.values())) / line(counts) - 1)
    return {"network": name, "calls_of_a_measurement": calls, "microseconds_per_gradient": each,
            "largest_departure_from_a_line": float(off.max()), "peak_mebibytes": memory}  # fmt: skip


def curves(*, quick: bool) -> dict[str, Any]:
    """Milliseconds against steps and against images, of this package and of Captum, on the two-layer network."""
    whole = subject("TwoLayerNet", 4096)
    asked = [("steps", 64, steps) for steps in CURVE_STEPS] + [("images", images, STEPS) for images in CURVE_IMAGES]
    found: dict[str, Any] = {"steps": [], "images": []}
    for kind, images, steps in asked[:3] if quick else asked:
        of = whole.first(images)
        both: dict[str, Callable[[], object]] = {"ours": ours(of, steps)}
        if steps > 1:  # Captum's Riemann rules want two
            both["captum"] = captum(of, steps, 2048)
        taken = in_turns(both, 2 if quick else ROUNDS)
        found[kind].append({"images": images, "steps": steps,
                            **{key: 1000 * statistics.median(values) for key, values in taken.items()}})  # fmt: skip
    return found


def draw(record: dict[str, Any]) -> str:
    """Cost against steps and images, as SVG."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 3.2), layout="constrained")
        for axes, kind in zip(figure.subplots(1, 2), ("steps", "images"), strict=True):
            for name in ("ours", "captum"):
                rows = [row for row in record["curves"][kind] if name in row]
                axes.plot([row[kind] for row in rows], [row[name] for row in rows], marker="o", label=name)
            axes.set(xscale="log", yscale="log", xlabel=kind, ylabel="milliseconds")
            axes.legend(frameon=False)
        path = ROOT / "docs" / "gradients.svg"
        figure.savefig(path, format="svg", metadata={"Date": None})
    return str(path)


def table(rows: list[dict[str, Any]]) -> str:
    """The ratios, as lines of text."""
    lines = [
        f"{'network':12} {'ours/s':>10} {'captum/s':>10} {'ratio':>7} {'loop':>7} {'of peak':>8} {'memory':>7} "
        f"{'difference':>12}"
    ]
    for row in rows:
        rate, memory = row["gradients_per_second"], row.get("memory_against_captum_default")
        shown = f"{memory:7.3f}" if memory is not None else f"{'':7}"
        lines.append(
            f"{row['network']:12} {rate['ours']:10.0f} {rate[row['best_captum']]:10.0f} {row['ratio_to_captum']:7.2f} "
            f"{row['ratio_to_loop']:7.2f} {row['share_of_peak']['ours']:8.2f} {shown} "
            f"{row['agreement']['from_captum']['largest']:12.1e}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few images and rounds; nothing is written")
    parser.add_argument("--models", default=",".join(NETWORKS), help="networks, separated by commas")
    parser.add_argument("--again", help="parts of the record to measure anew: agreement, linearity, curves")
    parser.add_argument("--json", action="store_true", help="print the record instead of the table")
    parser.add_argument("--memory", nargs=5, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    warnings.filterwarnings("ignore", module="captum")
    if asked.memory:
        name, images, steps, contestant, batch = asked.memory
        print_peak_memory(name, int(images), int(steps), contestant, int(batch))
        return
    if asked.again:
        renew(asked.again.split(","))
        return
    rows = [network(name, quick=asked.quick) for name in asked.models.split(",")]
    record = {
        "command": "python benchmarks/gradients.py", "seed": 0, "threads": torch.get_num_threads(),
        "versions": versions(),
        "networks": rows,
        "linearity": [linearity(name, SIZES[name], quick=asked.quick) for name in SIZES if name in asked.models],
        "curves": curves(quick=asked.quick),
    }  # fmt: skip
    print(json.dumps(record, indent=1) if asked.json else table(rows))
    if not asked.quick and asked.models == ",".join(NETWORKS):
        write(record)


def renew(parts: list[str]) -> None:
    """Measure some parts of the committed record anew, and write it."""
    record = json.loads(RECORD.read_text())
    if "agreement" in parts:
        for row in record["networks"]:
            of = subject(row["network"], min(row["images"], FEW[row["network"]]))
            row["agreement"] = agreement(of, int(row["best_captum"].split()[1]))
            print(row["network"], json.dumps(row["agreement"]), flush=True)
    if "linearity" in parts:
        record["linearity"] = [linearity(name, SIZES[name], quick=False) for name in SIZES]
        print(json.dumps(record["linearity"], indent=1))
    if "curves" in parts:
        record["curves"] = curves(quick=False)
    write(record)


def write(record: dict[str, Any]) -> None:
    """The record and its picture."""
    write_atomically(RECORD, (json.dumps(record, indent=1) + "\n").encode())
    draw(record)


if __name__ == "__main__":
    main()
