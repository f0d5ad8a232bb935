"""Does the audit say what it must? `python studies/matrix.py` writes results/matrix.json.

Each row is a service whose verdict is known before it is audited: by an identity of its rule, by arithmetic of its
noise, or, where the service fixes steps and baseline, between a plan that exists and a bound on all plans
(`sandwich.py`). It is then audited as a user would: in process, or as a live endpoint on loopback of which nothing is
told. A row that is done stands in a file of its own; the command goes on with those that are not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sandwich import FEW, distances, gradients, sandwich
from subjects import OWN, Setting, Subject, by_captum, in_process, like_torchserve, over_http, served_model, subject
from torch import nn

from disintegrate import AuditResult, DisintegrateError, Explainer, audit
from disintegrate.files import write_atomically
from disintegrate.versions import versions

RESULTS = Path(__file__).parents[1] / "results"
SEED = 0
# A query's coefficients times the rounding of an answer must stay well below the distance that counts as recovered.
FAR_BELOW = 0.02
# Where callers set the baseline or the steps.
FREE, FLOOR = (1, 100), (20, 100)


@dataclass(frozen=True)
class Row:
    """A service, the way to it, and what is known of it before.

    Attributes:
        name: of the row.
        setting: what the service does.
        access: in process, a protocol, Captum, or TorchServe with one of its shapes of answers.
        model: whether the auditor has the model; otherwise the outputs are the check.
        count: inputs.
        budget: the most queries for one gradient.
        scales: of the slow bound; None for all.
    """

    name: str
    setting: Setting
    access: str
    model: bool = False
    count: int = 12
    budget: int = 10
    scales: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Expected:
    """The verdict that a row must get, why, and the figures that say so."""

    verdict: str | None
    reason: str
    evidence: dict[str, Any]


RIGHT, GAUSS, CAPTUM = "riemann_right", "gauss_legendre", "captum_gausslegendre"


def rows() -> Iterator[Row]:
    """All rows."""
    yield from one_step()
    yield from windows()
    yield from telescopes()
    yield from bias_free()
    yield from fixed()
    yield from noisy()


def one_step() -> Iterator[Row]:
    """One step is one node."""
    yield Row("one-step right, TwoLayerNet", Setting("TwoLayerNet", RIGHT, 50, FREE), "local", model=True, count=8)
    yield Row("one-step right, TwoLayerNet, endpoint", Setting("TwoLayerNet", RIGHT, 50, FREE), "kserve", count=8)
    yield Row("one-step Gauss, LeNet, endpoint", Setting("LeNet", CAPTUM, 20, FREE), "kserve", count=4)
    yield Row("one-step Gauss, ResNet18, Vertex", Setting("ResNet18", GAUSS, 5, FREE), "vertex", count=3)
    yield Row("one-step right, ResNet18", Setting("ResNet18", RIGHT, 10, FREE), "local", model=True, count=3)
    yield Row("one-step midpoint, smooth, no model", Setting("GELU and tanh", "midpoint", 16, FREE), "local")
    yield Row("one-step Gauss, tabular, Captum", Setting("residual, tabular", CAPTUM, 50, FREE), "captum", model=True)
    yield Row("one-step Gauss, probabilities", Setting("LeNet", GAUSS, 20, FREE, softmax=True), "oip", count=4)
    yield Row("one-step right, 3 digits", Setting("TwoLayerNet", RIGHT, 50, FREE, digits=3), "local", True, 8)
    yield Row("one-step right, 4 digits, Vertex", Setting("GELU and tanh", RIGHT, 30, FREE, digits=4), "vertex")
    yield Row("one-step Gauss, float16", Setting("rough", GAUSS, 12, FREE, answers="float16"), "kserve")
    yield Row(
        "one-step right, probabilities, 3 digits",
        Setting("rough", RIGHT, 9, FREE, softmax=True, digits=3),
        "local",
        model=True,
    )


def windows() -> Iterator[Row]:
    """A baseline of the caller's own."""
    yield Row("window, LeNet, endpoint", Setting("LeNet", CAPTUM, 20, baseline=True), "kserve", count=4)
    yield Row("window, saliency, ResNet18", Setting("ResNet18", "saliency", 5, baseline=True), "local", True, 3)
    yield Row("window, trapezoid, smooth", Setting("GELU and tanh", "trapezoid", 8, baseline=True), "oip")
    yield Row(
        "window, left, 4 digits", Setting("residual, tabular", "riemann_left", 5, baseline=True, digits=4), "kserve"
    )
    yield Row("window, probabilities", Setting("LeNet", GAUSS, 20, baseline=True, softmax=True), "local", True, 4)
    yield Row(
        "window, Captum left", Setting("TwoLayerNet", "captum_riemann_left", 50, baseline=True), "captum", count=8
    )
    yield Row("window, rough, Vertex", Setting("rough", "midpoint", 7, baseline=True), "vertex")


def telescopes() -> Iterator[Row]:
    """Neighbouring step counts telescope."""
    yield Row("telescope right, TwoLayerNet", Setting("TwoLayerNet", RIGHT, 50, FLOOR), "local", True, 8)
    yield Row("telescope right, LeNet, endpoint", Setting("LeNet", RIGHT, 20, FLOOR), "kserve", count=4)
    yield Row("telescope right, ResNet18", Setting("ResNet18", RIGHT, 5, (5, 20)), "local", True, 3)
    yield Row("telescope left, beyond the input", Setting("LeNet", "riemann_left", 20, FLOOR), "local", True, 4)
    yield Row("telescope midpoint, smooth", Setting("GELU and tanh", "midpoint", 20, FLOOR), "local")
    yield Row("telescope trapezoid, tabular", Setting("residual, tabular", "trapezoid", 10, (10, 60)), "kserve")
    yield Row(
        "telescope right, pixels only", Setting("TwoLayerNet", RIGHT, 20, FLOOR, values=(-0.5, 3.0)), "kserve", count=8
    )


def bias_free() -> Iterator[Row]:
    """No biases: the gradient does not change on the ray."""
    bare = "TwoLayerNet_nobias"
    yield Row("bias-free, all fixed", Setting(bare, GAUSS, 50), "local", True, 8)
    yield Row("bias-free LeNet, all fixed, endpoint", Setting("LeNet_nobias", CAPTUM, 20), "kserve", count=4)
    yield Row("bias-free, all fixed, 3 digits, Vertex", Setting(bare, RIGHT, 50, digits=3), "vertex", count=8)
    yield Row("bias-free LeNet, TorchServe", Setting("LeNet_nobias", CAPTUM, 15), "torchserve explanations", count=10)
    yield Row("bias-free, Captum trapezoid", Setting(bare, "captum_riemann_trapezoid", 20), "captum", True, 8)


def fixed() -> Iterator[Row]:
    """All fixed: between a plan that exists and a bound on all."""
    yield Row("fixed Gauss, TwoLayerNet", Setting("TwoLayerNet", GAUSS, 50), "local", True, 8)
    yield Row("fixed right, TwoLayerNet, endpoint", Setting("TwoLayerNet", RIGHT, 50), "kserve", count=8)
    yield Row("fixed right, LeNet", Setting("LeNet", RIGHT, 50), "local", True, 4, scales=FEW)
    yield Row("fixed, LeNet, TorchServe", Setting("LeNet", CAPTUM, 15), "torchserve predictions", count=10, scales=FEW)
    yield Row("fixed, smooth, TorchServe", Setting("GELU and tanh", CAPTUM, 15), "torchserve bare")
    yield Row("fixed, probabilities, LeNet", Setting("LeNet", CAPTUM, 8, softmax=True), "local", True, 4)
    yield Row("fixed, probabilities, LeNet, endpoint", Setting("LeNet", GAUSS, 8, softmax=True), "kserve", count=4)
    yield Row("fixed Gauss, smooth, Vertex", Setting("GELU and tanh", GAUSS, 50), "vertex")
    yield Row("fixed midpoint, within the input", Setting("GELU and tanh", "midpoint", 3, furthest=1.0), "local", True)
    yield Row("fixed right, tabular", Setting("residual, tabular", RIGHT, 50), "local", model=True)
    yield Row(
        "fixed left, 4 steps, tabular", Setting("residual, tabular", "riemann_left", 4, furthest=1.0), "local", True
    )
    yield Row("fixed midpoint, 1 step, rough", Setting("rough", "midpoint", 1, furthest=1.0), "local", True)
    yield Row("fixed left, 2 steps, rough", Setting("rough", "riemann_left", 2, furthest=1.0), "local", True)
    yield Row("fixed saliency, 3 steps, ResNet18", Setting("ResNet18", "saliency", 3), "local", True, 3)
    yield Row("fixed Gauss, 2 steps, LeNet", Setting("LeNet", GAUSS, 2, furthest=1.0), "local", True, 4)
    yield Row("fixed, two decimals", Setting("TwoLayerNet", GAUSS, 50, decimals=1), "local", True, 8)
    yield Row("fixed, noise over all", Setting("LeNet", GAUSS, 8, noise=30.0), "local", True, 4)
    yield Row("fixed, noise over all, endpoint", Setting("rough", GAUSS, 8, noise=3e3), "kserve")


def noisy() -> Iterator[Row]:
    """Where finite differences of the outputs do as well, and noise that can be outweighed."""
    anew = Setting("linear", RIGHT, 10, FREE, noise=0.35, fresh=True)
    yield Row("noise drawn anew, few columns", anew, "local", True, 24)
    yield Row("noise drawn anew, many queries", anew, "local", True, 24, budget=60)
    outweighed = Setting("rough", RIGHT, 10, FREE, baseline=True, noise=0.5)
    yield Row("noise outweighed by far baselines", outweighed, "local", True)


def expected(row: Row, about: Subject) -> Expected:
    """What the row's verdict must be."""
    identity = by_identity(row, about)
    if identity is not None:
        return identity
    if row.setting.fresh:
        return by_arithmetic(row, about)
    found = sandwich(row.setting, about, row.budget, row.scales).record()
    reason = "all is fixed: a plan that exists and a bound on all linear estimates, computed slowly with the model"
    if row.model:
        return Expected(found["verdict"], reason, found)
    # outputs confirm nothing at an input where max pooling ties, so a verdict that is known must hold beside it too
    aside = sandwich(row.setting, beside(about), row.budget, row.scales).record()
    verdict = found["verdict"] if found["verdict"] == aside["verdict"] else None
    return Expected(verdict, f"{reason}, at the inputs and beside them", {"at": found, "beside": aside})


def beside(about: Subject) -> Subject:
    """The same questions, each coordinate that is not 0 moved by a hundredth or so of their size."""
    noise = np.random.default_rng(7).normal(size=about.inputs.shape)
    size = 0.01 * np.abs(about.inputs).mean(axis=tuple(range(1, about.inputs.ndim)), keepdims=True)
    moved = about.inputs + size * noise * (about.inputs != 0)
    return replace(about, inputs=moved.astype(about.inputs.dtype))


def by_identity(row: Row, about: Subject) -> Expected | None:
    """Leaks, where an identity gives the gradient by fewer queries than finite differences, whatever the network."""
    setting = row.setting
    fewest, most = setting.free or (setting.steps, setting.steps)
    reach = min(setting.furthest, _room(setting, about.inputs))
    size = about.inputs[0].size
    ways: list[tuple[bool, int, float, str]] = []
    one_node = {"riemann_right": 1.0, "midpoint": 2.0, "gauss_legendre": 2.0, "captum_gausslegendre": 2.0}
    ways.append((fewest == 1 and one_node.get(setting.rule, math.inf) <= reach, 1, 1.0,
                 "one step is one node, and a scale puts it on the input"))  # fmt: skip
    ways.append((setting.baseline, 1, 1.0, "the ray of a baseline close to the input has no kink almost surely"))
    m = max(fewest + 1, 2)
    beyond = {"riemann_right": 1.0, "riemann_left": m / (m - 1), "midpoint": m / (m - 0.5)}
    ways.append((m <= most and beyond.get(setting.rule, math.inf) <= reach, 2, 2.0 * m,
                 "two neighbouring step counts have all nodes in common but the one at the input"))  # fmt: skip
    ways.append((setting.rule == "trapezoid" and 2 * m + 1 <= most and reach > 1.2, 4, 8.0 * m,
                 "a trapezoid less half of the finer one leaves every other node, and those telescope"))  # fmt: skip
    biased = any(name.endswith("bias") for name, _ in about.model.named_parameters())
    ways.append((not biased and setting.network not in OWN and not setting.softmax, 1, 1.0,
                 "without biases the gradient is the same on the whole ray, so the plain answer is it"))  # fmt: skip
    for holds, queries, amplification, reason in ways:
        error = amplification * rounding(setting)
        if holds and queries <= min(row.budget, size) and error < FAR_BELOW and not setting.noise:
            return Expected("leaks", reason, {"queries": queries, "error_by_rounding": error})
    if setting.noise and not setting.fresh and setting.baseline and fewest == 1 and setting.rule == "riemann_right":
        return outweighed(row, about)
    return None


def by_arithmetic(row: Row, about: Subject) -> Expected:
    """A linear model with weights and inputs of size 1: the error of k answers is normal, of sd noise / sqrt(k)."""
    size = about.inputs[0].size
    assert row.setting.network == "linear", row  # noqa: S101  what the reason says
    queries = min(row.budget, size)
    scale = row.setting.noise / math.sqrt(queries) / math.sqrt(size)
    drawn = np.random.default_rng(5).normal(size=(200_000, size - 1))
    share = float((scale * np.linalg.norm(drawn, axis=1) <= 0.1).mean())
    middle = float(np.median(scale * np.linalg.norm(drawn, axis=1)))
    verdict = "leaks" if share >= 0.65 else "partly" if 0.05 < share < 0.35 or middle < 0.4 else None
    reason = f"a linear model: {queries} answers leave a chi distance; {size + 1} cost as much as differences"
    evidence = {"queries": queries, "share_recovered": share, "median_distance": middle}
    return Expected(verdict, reason, evidence)


def outweighed(row: Row, about: Subject) -> Expected:
    """One step of the right Riemann sum from a far baseline still asks at the input: the noise over |b - x|."""
    drawn, model = np.random.default_rng(5), deepcopy(about.model).double()
    near: list[float] = []
    far: list[float] = []
    for x, target in zip(about.inputs.astype(np.float64), about.targets.tolist(), strict=True):
        true = gradients(model, x, target, np.ones(1))[0]
        error = row.setting.noise * drawn.normal(size=true.size) / np.abs(x.ravel())
        for found, length in ((near, 1), (far, 256)):
            found.append(float(distances((true + error / length)[None], true[None])[0]))
    share = float(np.mean(np.array(far) <= 0.1))
    evidence = {"queries": 1, "share_recovered": share, "median_distance_without": float(np.median(near))}
    reason = (
        "a baseline 256 times as far makes attributions large beside the noise, and one step still asks at the input"
    )
    return Expected("leaks" if share >= 0.7 else None, reason, evidence)


def rounding(setting: Setting) -> float:
    """Of an answer, relative: half a unit of the last digit at most, and of float32 with its sums."""
    digits = 0.5 * 10.0 ** (1 - setting.digits) if setting.digits else 0.0
    return max(digits, 2.0**-11 if setting.answers == "float16" else 0.0, 1e-6, math.inf if setting.decimals else 0.0)


def _room(setting: Setting, inputs: np.ndarray) -> float:
    if setting.values is None:
        return math.inf
    low, high = setting.values
    with np.errstate(divide="ignore"):
        return float(
            min((high / inputs[inputs > 0]).min(initial=math.inf), (low / inputs[inputs < 0]).min(initial=math.inf))
        )


def reached(row: Row, about: Subject) -> AbstractContextManager[Explainer]:
    """The service, running."""
    if row.access == "local":
        return in_process(row.setting, about)
    if row.access == "captum":
        return by_captum(row.setting, about)
    if row.access.startswith("torchserve"):
        return like_torchserve(row.setting, about, shape=row.access.split()[1])
    return over_http(row.setting, about, row.access)


def run(row: Row) -> dict[str, Any]:
    """Audit one row."""
    about = subject(row.setting.network, row.count)
    started = time.monotonic()
    must = expected(row, about)
    between = time.monotonic()
    served = served_model(row.setting, about.model)
    found, failure = None, None
    try:
        with reached(row, about) as service:
            found = audit(
                service, about.inputs, about.targets, model=served if row.model else None, budget=row.budget, seed=SEED
            )
    except DisintegrateError as error:
        failure = str(error)
    seconds = {"expected": round(between - started, 1), "audit": round(time.monotonic() - between, 1)}
    known = {
        "row": row.name, "access": row.access, "model_at_hand": row.model, "inputs": row.count, "budget": row.budget,
        "setting": {name: value for name, value in asdict(row.setting).items() if value not in (None, math.inf)},
        "must_be": must.verdict, "because": must.reason, "evidence": must.evidence, "seconds": seconds,
    }  # fmt: skip
    if found is None:
        return known | {"verdict": "none", "right": False, "failure": failure}
    return known | _figures(found, must.verdict, _true_distances(served, about, found))


def _figures(found: AuditResult, must: str | None, apart: np.ndarray) -> dict[str, Any]:
    judgement = found.judgement
    return {
        "verdict": judgement.verdict.value,
        "right": judgement.verdict.value == must,
        "share_recovered": judgement.share_recovered,
        "median_distance": judgement.median_distance,
        "true_median_distance": float(np.median(apart)),
        "inputs_moved_by": found.moved_by,
        "queries_per_gradient": judgement.queries_per_gradient,
        "queries_by_differences": judgement.queries_by_differences,
        "queries": found.queries,
        "held_against": found.check.value if found.check else None,
        "plan": found.proposal.way.value if found.proposal else None,
        "rule_used": found.capabilities.rule if found.capabilities else None,
    }


def _true_distances(model: nn.Module, about: Subject, found: AuditResult) -> np.ndarray:
    """At the inputs that were asked about, which lie beside a kink where the given ones are on it."""
    wide = deepcopy(model).double()
    rows = [
        gradients(wide, x, target, np.ones(1))[0]
        for x, target in zip(found.inputs.astype(np.float64), about.targets.tolist(), strict=True)
    ]
    seen = found.observed.reshape(len(rows), -1)
    return distances(found.gradient.reshape(len(rows), -1) * seen, np.array(rows) * seen)


def summary(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of all rows whose verdict is known."""
    known = [row for row in found if row["must_be"] is not None]
    leaks = [row for row in found if row["verdict"] == "leaks"]
    return {
        "rows": len(known),
        "right": sum(row["right"] for row in known),
        "wrong": [row["row"] for row in known if not row["right"]],
        "not_decided_beforehand": [row["row"] for row in found if row["must_be"] is None],
        "must_be": dict(Counter(row["must_be"] for row in known)),
        "by_access": dict(Counter(row["access"].split()[0] for row in known)),
        "by_network": dict(Counter(row["setting"]["network"] for row in known)),
        "leaks_where_finite_differences_do_as_well": [
            row["row"] for row in leaks if row["queries_per_gradient"] >= row["queries_by_differences"]
        ],
        "seconds": round(sum(sum(row["seconds"].values()) for row in found)),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Audit what is not done yet and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="rows whose name holds this, done anew")
    parser.add_argument("--limit", type=float, default=math.inf, help="start no row after so many seconds")
    parser.add_argument("--out", type=Path, default=RESULTS / "matrix.json")
    options = parser.parse_args(arguments)
    folder, started, found = RESULTS / "studies" / "units", time.monotonic(), []
    for row in rows():
        digest = hashlib.sha256(repr(row).encode()).hexdigest()[:8]
        path = folder / f"matrix-{row.name.replace(' ', '_').replace(',', '')}-{digest}.json"
        again = options.only is not None and options.only in row.name
        if (again or not path.is_file()) and time.monotonic() - started < options.limit:
            if options.only is not None and not again:
                continue
            write_atomically(path, json.dumps(run(row)).encode())
            one = json.loads(path.read_text())
            figures = one.get("failure") or f"{one['median_distance']:.2g} (truly {one['true_median_distance']:.2g})"
            mark = "open" if one["must_be"] is None else "right" if one["right"] else "WRONG"
            print(
                f"{mark}: {row.name}: {one['verdict']}, must be {one['must_be']}; {figures}", one["seconds"], flush=True
            )
        if path.is_file():
            found.append(json.loads(path.read_text()))
    record = {
        "seed": SEED, "threads": torch.get_num_threads(), "versions": versions(),
        "summary": summary(found), "rows": found,
    }  # fmt: skip
    write_atomically(options.out, (json.dumps(record, indent=1) + "\n").encode())
    print(json.dumps(record["summary"], indent=1))


if __name__ == "__main__":
    main()
