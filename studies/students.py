"""What explanations add to a student's lessons: `python studies/students.py` writes results/students.json.

The setting of the adversarial-robustness-toolbox notebook `model-stealing-demo`: MNIST, the paper's LeNet with a
softmax as victim, the thief asks about the first images of the first 5,000 test images, and its copy is scored on the
other 5,000. Each row is a student of the victim's architecture, from some images, by some of what the service answers.
Stopped at any moment the study goes on behind the last step that was kept; `--seconds` stops it. Rows that the record
holds already of this victim, by these versions, are not made again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kept import kept_rows
from torch import nn

from disintegrate import Capabilities, Explainer, LocalExplainer, Output, Wire, Wired, propose, single_step
from disintegrate.extraction import Extraction, Learnt, Pause, Training, extract, student
from disintegrate.files import write_atomically
from disintegrate.paper import mnist
from disintegrate.paper.networks import build
from disintegrate.paper.store import TrainedNetwork
from disintegrate.paper.training import recipe, train
from disintegrate.plan import Plan, Query
from disintegrate.planner import Proposal
from disintegrate.versions import versions

ROOT = Path(__file__).parents[1]
CLASSES, TRAINED_FROM = 10, 5000
# The victim of the notebook names 98.7 % of the test images.
EPOCHS = 2
OPEN = Capabilities(rule="riemann_right", output=Output.PROBABILITIES, dtype="float32")
FIXED = replace(OPEN, fewest_steps=50, most_steps=50, baseline=False)


@dataclass(frozen=True)
class Row:
    """One student.

    Attributes:
        learnt: what of the answers it learns.
        images: that are asked about.
        asked: classes explained at each; None for all.
        service: `open`, `3 digits`, `2 digits`, `fixed` for one whose callers set nothing but the input, `within` for
            one that besides refuses points beyond a true input, `ten steps` for raw answers.
        steps: of the training.
        batch: inputs in each.
    """

    learnt: Learnt
    images: int
    asked: int | None = None
    service: str = "open"
    steps: int = 3000
    batch: int = 10

    @property
    def name(self) -> str:
        """Of the row, in its files."""
        asked = "all" if self.asked is None else str(self.asked)
        kind = f"{self.learnt.name.lower()}-{self.images}-{asked}-{self.service.replace(' ', '_')}"
        return f"{kind}-{self.steps}x{self.batch}"


ROWS = (
    Row(Learnt.GRADIENTS, 10),
    Row(Learnt.LOGITS, 10),
    Row(Learnt.GRADIENTS, 50, steps=4000),
    Row(Learnt.LOGITS, 50, steps=4000),
    Row(Learnt.GRADIENTS, 250, asked=1, steps=6000),
    *(Row(learnt, 50, steps=4000) for learnt in (Learnt.LABELS, Learnt.PROBABILITIES)),
    *(Row(Learnt.GRADIENTS, images, service=service) for service in ("3 digits", "2 digits", "fixed")
      for images in (10, 50)),
    Row(Learnt.GRADIENTS, 50, service="within"),
    *(Row(Learnt.LOGITS, images, batch=50) for images in (250, 1000, 2500, 5000)),
    *(Row(learnt, images, batch=50) for learnt in (Learnt.PROBABILITIES, Learnt.LABELS) for images in (250, 5000)),
    Row(Learnt.ANSWERS, 50, service="ten steps", steps=2000),
)  # fmt: skip


def service_of(name: str, model: nn.Module) -> tuple[Explainer, Plan | Proposal]:
    """A service and the plan that it is asked by."""
    if name in ("fixed", "within"):
        allowed = replace(FIXED, furthest=1.0) if name == "within" else FIXED
        return LocalExplainer(model, allowed), propose(allowed)
    if name == "ten steps":
        return LocalExplainer(model, OPEN), Plan([(1.0, Query(0, 1, 10))])
    local = LocalExplainer(model, OPEN)
    if name == "open":
        return local, single_step()
    return Wired(local, Wire(significant_digits=int(name.split(maxsplit=1)[0]))), single_step()


def measure(row: Row, victim: nn.Module, seed: int, pause: Pause) -> Extraction:
    """One student of one seed."""
    test = mnist.load("test")
    inputs, labels = test.normalised(), test.labels.astype(np.int64)
    explainer, plan = service_of(row.service, victim)
    method = partial(
        student, classes=CLASSES, network=partial(build, "LeNet", seed + 1), plan=plan, learnt=row.learnt,
        asked=row.asked, training=Training(steps=row.steps, batch=row.batch), seed=seed, pause=pause,
    )  # fmt: skip
    return extract(
        method, explainer, inputs[:TRAINED_FROM][: row.images], inputs[TRAINED_FROM:], victim,
        name=row.learnt.value, labels=labels[TRAINED_FROM:],
    )  # fmt: skip


def victim_of(epochs: int) -> TrainedNetwork:
    """The paper's LeNet after so many epochs; that of the reproduction is committed."""
    wanted = recipe("LeNet").model_copy(update={"epochs": epochs})
    folder = "reproduction" if wanted == recipe("LeNet") else "studies"
    return train(wanted, mnist.load("train"), mnist.load("test"), ROOT / "results" / folder / "models")


def finished(row: Row, victim: nn.Module, seed: int, stem: Path, seconds: float) -> dict[str, Any] | None:
    """A student's record, made or read; None where time ran out before its end."""
    done, unfinished = stem.with_suffix(".json"), stem.with_suffix(".unfinished.safetensors")
    if not done.is_file():
        if seconds <= 0:
            return None
        result = measure(row, victim, seed, Pause(unfinished, seconds))
        if not result.complete:
            return None
        write_atomically(done, json.dumps(result.record()).encode())
        unfinished.unlink(missing_ok=True)
    made: dict[str, Any] = json.loads(done.read_text())
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is not trained yet, and write the record of all that is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=len(ROWS), help="so many of the rows, the first ones")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of the victim; 4 is the reproduction's")
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--folder", type=Path, default=ROOT / "results" / "studies" / "units")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "students.json")
    options = parser.parse_args(arguments)
    started = time.monotonic()
    trained = victim_of(options.epochs)
    victim = nn.Sequential(trained.model, nn.Softmax(1)).eval()
    found: list[dict[str, Any]] = []
    told = {"network": "LeNet", "epochs": options.epochs, "accuracy": trained.record.accuracy,
            "weights_sha256": trained.record.weights_sha256}  # fmt: skip
    kept = {(row["row"], row["seed"]): row for row in kept_rows(options.out, victim=told)}
    for row in ROWS[: options.rows]:
        for seed in options.seeds:
            made = kept.get((row.name, seed))
            if made is None:
                stem = f"student-{trained.record.weights_sha256[:12]}-{row.name}-{seed}"
                made = finished(row, victim, seed, options.folder / stem, options.seconds + started - time.monotonic())
            if made is None:
                continue
            found.append({"row": row.name, "images": row.images, "classes_each": row.asked or CLASSES,
                          "service": row.service, "seed": seed, **made})  # fmt: skip
            like = made["likeness"]
            print(f"{row.name} seed {seed}: accuracy {like['accuracy']:.4f}, agreement {like['agreement']:.4f}, "
                  f"{made['queries']} explanations", flush=True)  # fmt: skip
    report: dict[str, Any] = {
        "command": "python studies/students.py",
        "victim": told,
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "complete": len(found) == len(ROWS) * len(options.seeds),
        "rows": found,
    }  # fmt: skip
    write_atomically(options.out, (json.dumps(report, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
