"""The paper's tables 1 to 4 and experiments A, B, C: each cell is a plan, executed by `recover`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from disintegrate.closed_form import baseline_window, bias_free, shared_piece, single_step, step_count
from disintegrate.explainers import Explainer, LocalExplainer, Remembering, Request
from disintegrate.gradients import vanilla_gradient
from disintegrate.metrics import distance, summarise
from disintegrate.paper.mnist import Digits
from disintegrate.paper.records import Cell, Provenance, claim
from disintegrate.paper.store import TrainedNetwork
from disintegrate.paper.units import Arrays, Units
from disintegrate.plan import Plan
from disintegrate.progress import SILENT, Progress
from disintegrate.quadrature import riemann_right
from disintegrate.recover import recover
from disintegrate.versions import versions

STEPS, FINE_STEPS, FEW_STEPS = 50, 500, 10
ALPHA, WINDOW, NARROW_WINDOW = 0.98, 1e-4, 1e-6
IMAGES_PER_UNIT = 200
AS_SERVED = "as_served"


@dataclass(frozen=True)
class Method:
    """A way to get at the gradient: a plan with a title, or None for the explanation as it is."""

    title: str
    plan: Plan | None

    def __str__(self) -> str:
        return self.plan.to_json() if self.plan else "none"


METHODS: dict[str, Method] = {
    "explanation": Method("no recovery: the explanation itself", None),
    "bias_free": Method("equation (2)", bias_free(STEPS)),
    "step_count": Method("equation (4)", step_count(STEPS)),
    "shared_piece": Method("equation (3), alpha = 0.98", shared_piece(ALPHA, STEPS)),
    "shared_piece_fine": Method("equation (3), alpha = 0.98, 500 steps", shared_piece(ALPHA, FINE_STEPS)),
    "single_step": Method("one query, steps = 1", single_step()),
    "baseline_window": Method("one query, baseline 0.9999 x, 50 steps", baseline_window(WINDOW, STEPS)),
    "narrow_window": Method("one query, baseline 0.999999 x, 10 steps", baseline_window(NARROW_WINDOW, FEW_STEPS)),
}
BIAS_FREE = ("TwoLayerNet_nobias", "LeNet_nobias")
BIASED = ("TwoLayerNet", "LeNet", "ResNet18")
# Which networks a table of the paper has, and which method it measures there.
TABLES: dict[str, tuple[str, tuple[str, ...]]] = {
    "table_1": ("explanation", BIAS_FREE + BIASED),
    "table_2": ("bias_free", BIAS_FREE),
    "table_3": ("step_count", BIASED),
    "table_4": ("shared_piece", BIASED),
}
ONE_QUERY = ("single_step", "baseline_window", "narrow_window")


def methods_for(network: str) -> dict[str, str]:
    """Method -> table, for one network: the paper's own, and our one-query plans."""
    own = {method: table for table, (method, networks) in TABLES.items() if network in networks}
    return own | dict.fromkeys(ONE_QUERY, "one_query")


def measure_cells(
    explainer: LocalExplainer, trained: TrainedNetwork, digits: Digits, units: Units, *, progress: Progress = SILENT
) -> Arrays:
    """All methods of a network's cells.

    The narrow window shares no answer with the others and makes units of its own, so that theirs, which were
    computed before there was one, still stand.
    """
    methods = methods_for(trained.record.recipe.network)
    together = tuple(name for name in methods if name != "narrow_window")
    shared = measure(explainer, trained, digits, together, units, progress=progress)
    alone = measure(explainer, trained, digits, ("narrow_window",), units, progress=progress)
    return {**shared, **alone, "seconds": np.concatenate([shared["seconds"], alone["seconds"]])}


def cells(trained: TrainedNetwork, digits: Digits, measured: Arrays, *, device: str = "cpu") -> list[Cell]:
    """The cells of one trained network, summarised from what `measure` found."""
    network = trained.record.recipe.network
    return [
        Cell(
            table=table,
            method=method,
            title=METHODS[method].title,
            plan=plan.to_json() if (plan := METHODS[method].plan) else None,
            exactness=plan.measure(riemann_right).exactness.value if plan else "not a recovery",
            claimed=claim(table, network),
            measured=summarise(measured[f"{method}.distance"]),
            provenance=provenance(trained, digits, device=device),
            seconds=float(measured["seconds"].sum()),
        )
        for method, table in methods_for(network).items()
    ]


def measure(
    explainer: LocalExplainer,
    trained: TrainedNetwork,
    digits: Digits,
    methods: tuple[str, ...],
    units: Units,
    *,
    condition: str = AS_SERVED,
    progress: Progress = SILENT,
) -> Arrays:
    """Distances and cancelled digits of several methods for all digits, from units of 200 images.

    The key of a unit holds the weights, the pixels, the plans, the dtype, the rewriting and the condition that changed
    them.
    """
    network = trained.record.recipe.network
    starts = range(0, len(digits), IMAGES_PER_UNIT)
    title = f"{network}, {condition.replace('_', ' ')}: {len(methods)} plans, {len(digits)} images"
    bar = progress.task(title, len(starts))
    parts = []
    for start in starts:
        block = digits.slice(start, start + IMAGES_PER_UNIT)
        content = (trained.record.weights_sha256, block.sha256, condition, str(explainer.dtype), str(explainer.device),
                   explainer.rewriting.value,
                   *(f"{name}: {METHODS[name]}" for name in methods))  # fmt: skip
        key = f"{network}-{condition}-{start}-{hashlib.sha256('|'.join(content).encode()).hexdigest()[:16]}"
        parts.append(units.once(key, partial(_measure_block, explainer, block, methods)))
        bar.advance()
    return {name: np.concatenate([np.atleast_1d(part[name]) for part in parts]) for name in parts[0]}


def provenance(trained: TrainedNetwork, digits: Digits, *, device: str = "cpu", dtype: str = "float32") -> Provenance:
    """Whence the figures of a trained network on some digits come."""
    record = trained.record
    return Provenance(
        network=record.recipe.network,
        seed=record.recipe.seed,
        epochs=record.recipe.epochs,
        accuracy=record.accuracy,
        weights_sha256=record.weights_sha256,
        data_sha256=digits.sha256,
        dtype=dtype,
        device=device,
        versions=versions(),
    )


def true_gradient(explainer: LocalExplainer, digits: Digits) -> np.ndarray:
    """Vanilla gradient of the label's output at each digit, in the explainer's own arithmetic."""
    inputs = torch.tensor(digits.normalised(), dtype=explainer.dtype, device=explainer.device)
    targets = torch.tensor(digits.labels, dtype=torch.long, device=explainer.device)
    return np.asarray(vanilla_gradient(explainer.prepared(inputs, targets), inputs, targets).cpu())


def explanation_of(explainer: Explainer, digits: Digits) -> np.ndarray:
    """The plain answer of the service, m = 50 from baseline 0."""
    inputs = digits.normalised()
    return explainer.explain(Request(inputs, np.zeros_like(inputs), digits.labels.astype(np.int64), STEPS)).attribution


def _measure_block(explainer: LocalExplainer, block: Digits, methods: tuple[str, ...]) -> Mapping[str, np.ndarray]:
    truth = true_gradient(explainer, block)
    # Plans that share a query get the one answer; the queries of a plan stay apart, each with its own input.
    service = Remembering(explainer)
    inputs, targets = block.normalised(), block.labels.astype(np.int64)
    arrays = {}
    for name in methods:
        plan = METHODS[name].plan
        if plan is None:
            arrays[f"{name}.distance"] = distance(truth, explanation_of(service, block))
            continue
        recovery = recover(service, inputs, targets, plan)
        arrays[f"{name}.distance"] = distance(truth, recovery.gradient)
        arrays[f"{name}.cancelled_digits"] = recovery.cancelled_digits
    return arrays
