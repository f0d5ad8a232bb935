"""Exact theft of networks with one hidden layer: `python studies/theft.py` writes results/theft.json.

The biased TwoLayerNet of the reproduction, through every kind of plan, within the box of valid images, from
probabilities and with noise on the gradients; then trained networks of 10 to 1,000 units. Each theft is a unit of its
own: stopped at any moment the study goes on behind the last; `--seconds` stops it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kept import each_once
from torch import Tensor, nn

from disintegrate import (
    Capabilities,
    Explainer,
    Explanation,
    LocalExplainer,
    Output,
    Plan,
    Proposal,
    Request,
    Wire,
    Wired,
    baseline_window,
    bias_free,
    propose,
    single_step,
    single_step_beyond,
    step_count,
)
from disintegrate.extraction import extract, one_hidden_layer
from disintegrate.files import write_atomically
from disintegrate.paper import mnist
from disintegrate.paper.training import recipe, train
from disintegrate.versions import versions

ROOT = Path(__file__).parents[1]
CLASSES, SEEDS, EXAMPLES = 10, 5, 5
WIDTHS = (10, 20, 50, 100, 200, 500, 1000)
NOISES = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
DIGITS = (2, 3, 4, 5, 6)
# Explanations after which a theft that goes nowhere is given up.
GIVEN_UP = 20_000
OPEN = Capabilities(rule="riemann_right", dtype="float32")
CAPTUM = Capabilities(rule="captum_gausslegendre", dtype="float32")
# The pixels of normalised digits.
DARKEST, BRIGHTEST = (float((shade - mnist.MEAN) / mnist.STANDARD_DEVIATION) for shade in (0, 1))
BOX = replace(OPEN, smallest_value=DARKEST, largest_value=BRIGHTEST)
FIXED = replace(OPEN, fewest_steps=50, most_steps=50, baseline=False)


class Blurred:
    """A service whose attributions have noise of a given size beside their own, input by input."""

    def __init__(self, explainer: Explainer, relative: float, seed: int) -> None:
        self.explainer = explainer
        self.relative = relative
        self._generator = np.random.default_rng(seed)

    @property
    def capabilities(self) -> Capabilities:
        """Those of the explainer inside."""
        return self.explainer.capabilities

    def explain(self, request: Request) -> Explanation:
        """Answer with noise on every gradient, as large as the given share of its norm."""
        answer = self.explainer.explain(request)
        flat = np.asarray(answer.attribution, np.float64).reshape(len(request.inputs), -1)
        ray = request.inputs.reshape(flat.shape).astype(np.float64)
        gradients = np.divide(flat, ray, out=np.zeros_like(flat), where=ray != 0)
        drawn = self._generator.normal(size=flat.shape)
        drawn *= self.relative * np.linalg.norm(gradients, axis=1, keepdims=True) / np.sqrt(flat.shape[1])
        return Explanation(answer.output, (ray * (gradients + drawn)).reshape(answer.attribution.shape))


class FirstOutputs(nn.Module):
    """The first so many of the outputs."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, outputs: Tensor) -> Tensor:
        """Leave the others out."""
        return outputs[:, : self.count]


@dataclass(frozen=True, eq=False)
class Case:
    """One kind of theft.

    Attributes:
        name: in the record.
        words: what is asked, for the table.
        capabilities: of the service.
        plan: how gradients are asked for.
        around: what stands around the service, for a seed.
        seeds: how often it is repeated.
        far: whether lines run far out.
        classes: that the service explains.
    """

    name: str
    words: str
    capabilities: Capabilities
    plan: Plan | Proposal
    around: Callable[[Explainer, int], Explainer] = lambda explainer, seed: explainer
    seeds: int = 3
    far: bool = False
    classes: int = CLASSES


def _rounded(explainer: Explainer, seed: int, *, digits: int) -> Explainer:
    return Wired(explainer, Wire(significant_digits=digits))


def _blurred(explainer: Explainer, seed: int, *, relative: float) -> Explainer:
    return Blurred(explainer, relative, seed)


def cases() -> Iterator[Case]:
    """All kinds of theft of TwoLayerNet."""
    yield Case("single_step", "right Riemann, one step", OPEN, single_step(), seeds=SEEDS)
    yield Case("one_class", "the same, a service that explains one class alone", OPEN, single_step(), classes=1)
    window = baseline_window(2.0**-10, 1, centred=True)
    yield Case("captum", "Captum's default rule, one step, a window around the input", CAPTUM, window)
    beyond = "Captum's default rule, one step on [0, 2], and the output"
    yield Case("captum_fixed_baseline", beyond, replace(CAPTUM, baseline=False), single_step_beyond())
    yield Case("equation_4_50", "equation (4), 50 and 49 steps", replace(OPEN, baseline=False), step_count(50))
    yield Case("equation_4_2", "equation (4), 2 steps and 1", replace(OPEN, baseline=False), step_count(2))
    fifty = replace(OPEN, fewest_steps=50, most_steps=50)
    yield Case("window_50", "50 steps fixed, the planner's window", fifty, propose(fifty))
    yield Case("box", "within the box of valid images, one step", BOX, single_step())
    yield Case("probabilities", "probabilities, one step", replace(OPEN, output=Output.PROBABILITIES), single_step())
    both = replace(BOX, output=Output.PROBABILITIES)
    yield Case("box_probabilities", "probabilities within the box, one step", both, single_step())
    yield Case("fixed", "everything fixed at 50 steps, the planner's estimate", FIXED, propose(FIXED), seeds=1)
    words = "everything fixed at 50 steps, far out"
    yield Case("fixed_far", words, FIXED, bias_free(50), far=True)
    captum = replace(FIXED, rule=CAPTUM.rule)
    yield Case("captum_fixed_far", f"Captum's default rule, {words}", captum, bias_free(50), far=True)
    for digits in DIGITS:
        around = partial(_rounded, digits=digits)
        yield Case(f"digits_{digits}", f"one step, {digits} significant digits", OPEN, single_step(), around, seeds=1)
    for relative in NOISES:
        around = partial(_blurred, relative=relative)
        words = f"one step, noise of {relative:g} of the gradient's norm"
        yield Case(f"noise_{relative:g}", words, OPEN, single_step(), around, seeds=1)


def steal(case: Case, victim: nn.Module, seed: int) -> dict[str, Any]:
    """One theft, scored on the test images."""
    test = mnist.load("test")
    inputs, labels = test.normalised(), test.labels.astype(np.int64)
    served = victim
    if case.capabilities.output is Output.PROBABILITIES:
        served = nn.Sequential(victim, nn.Softmax(1)).eval()
    if case.classes < CLASSES:
        served = nn.Sequential(victim, FirstOutputs(case.classes)).eval()
    method = partial(one_hidden_layer, classes=case.classes, plan=case.plan, far=case.far, seed=seed)
    explainer = case.around(LocalExplainer(served, case.capabilities), seed)
    found = extract(
        method,
        explainer,
        inputs[:EXAMPLES],
        inputs,
        served,
        name="one_hidden_layer",
        budget=GIVEN_UP,
        labels=labels if case.classes == CLASSES else None,
    )
    return {"case": case.name, "words": case.words, "seed": seed, **found.record()}


def of_width(width: int, seed: int) -> nn.Module:
    """A network with one hidden layer of this width, trained."""
    return of_widths((width,), seed)


def of_widths(widths: Sequence[int], seed: int) -> nn.Module:
    """A network with hidden layers of these widths, trained for one pass over 20,000 digits."""
    training = mnist.load("train").first(20_000)
    images, labels = torch.tensor(training.normalised()), torch.tensor(training.labels, dtype=torch.long)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise((784, *widths)):
            layers += [nn.Linear(before, after), nn.ReLU()]
        net = nn.Sequential(*layers, nn.Linear(widths[-1], CLASSES))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    for chosen in order.split(128):
        loss = nn.functional.cross_entropy(net(images[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


def steal_width(width: int, seed: int) -> dict[str, Any]:
    """One theft of a network of this width, ten classes at each point."""
    case = Case(f"width_{width}", f"{width} units", OPEN, single_step())
    return {"width": width, **steal(case, of_width(width, seed), seed)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Steal what is not stolen yet, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--folder", type=Path, default=ROOT / "results" / "studies" / "units")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "theft.json")
    options = parser.parse_args(arguments)
    trained = train(
        recipe("TwoLayerNet"), mnist.load("train"), mnist.load("test"), ROOT / "results" / "reproduction" / "models"
    )
    digest = trained.record.weights_sha256[:12]
    work: list[tuple[str, Callable[[], dict[str, Any]]]] = [
        (f"theft-{digest}-{case.name}-{seed}", partial(steal, case, trained.model, seed))
        for case in cases()
        for seed in range(case.seeds)
    ]
    work += [
        (f"theft-width-{width}-{seed}", partial(steal_width, width, seed)) for width in WIDTHS for seed in range(3)
    ]
    found = each_once(work, options.folder, options.seconds, told)
    if found is None:
        return
    record: dict[str, Any] = {
        "command": "python studies/theft.py",
        "victim": {"network": "TwoLayerNet", "accuracy": trained.record.accuracy,
                   "weights_sha256": trained.record.weights_sha256},
        "test_images": 10_000,
        "budget": GIVEN_UP,
        "versions": versions(),
        "rows": found,
    }  # fmt: skip
    write_atomically(options.out, (json.dumps(record, indent=1) + "\n").encode())


def told(row: dict[str, Any]) -> str:
    """One row as a line."""
    like = row["likeness"]
    start = f"{row['words']}, seed {row['seed']}: {row['points']} points, {row['queries']} explanations"
    return f"{start}, largest error {like['largest_error']:.2g}, agreement {like['agreement']:.4f}"


if __name__ == "__main__":
    main()
