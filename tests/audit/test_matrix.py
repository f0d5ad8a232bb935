"""The studies of verdicts, a few services each: the audit says what it must, and what stops it is what audits find."""

import sys
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest

from disintegrate import RULES
from tests.test_studies import ROOT, study

QUICK = (
    "one-step midpoint, smooth, no model",
    "one-step Gauss, tabular, Captum",
    "window, left, 4 digits",
    "fixed, smooth, TorchServe",
    "fixed midpoint, 1 step, rough",
    "fixed left, 4 steps, tabular",
    "noise drawn anew, many queries",
    "noise outweighed by far baselines",
)


@pytest.fixture(scope="module")
def matrix() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(ROOT / "studies"), *sys.path])
        yield study("matrix")


def test_the_matrix_holds_forty_services_of_every_kind(matrix: ModuleType) -> None:
    rows = list(matrix.rows())
    assert len({row.name for row in rows}) == len(rows) >= 40
    assert {row.access.split()[0] for row in rows} >= {"local", "kserve", "vertex", "captum", "torchserve"}
    networks = {row.setting.network for row in rows}
    assert networks >= {"TwoLayerNet", "LeNet", "ResNet18", "GELU and tanh", "residual, tabular"}
    assert len({row.setting.rule for row in rows}) >= 8


@pytest.mark.parametrize("name", QUICK)
def test_the_audit_says_what_it_must(matrix: ModuleType, name: str) -> None:
    found = matrix.run(next(row for row in matrix.rows() if row.name == name))
    assert found["must_be"] is not None
    assert found["verdict"] == found["must_be"], found
    assert found["queries_per_gradient"] < found["queries_by_differences"]


def test_the_slow_bounds_know_the_rules_from_elsewhere(matrix: ModuleType) -> None:
    for name in ("riemann_right", "riemann_left", "midpoint", "trapezoid", "gauss_legendre", "saliency"):
        nodes, weights = matrix.sandwich.__globals__["nodes_and_weights"](name, 7)
        rule = RULES[name](7)
        np.testing.assert_allclose(nodes, rule.nodes, atol=1e-15)
        np.testing.assert_allclose(weights, rule.weights, atol=1e-15)


def test_no_plan_that_exists_beats_the_bound_on_all(matrix: ModuleType) -> None:
    subject, setting = matrix.subject, matrix.Setting
    rough = matrix.sandwich(setting("rough", "midpoint", 3, furthest=1.0), subject("rough", 6), 10)
    assert (np.array(rough.bound) <= np.array(rough.achieved) + 1e-6).all()
    # a gradient that is the same everywhere is found by one query; noise a thousand times as large hides it from ten
    linear = subject("linear", 6)
    assert matrix.sandwich(setting("linear", "saliency", 4), linear, 3).verdict == "leaks"
    assert matrix.sandwich(setting("rough", "saliency", 4, noise=1e6), subject("rough", 6), 10).verdict == "not shown"


def test_what_stops_it_is_what_an_audit_of_the_changed_service_finds(matrix: ModuleType) -> None:
    stops = study("stops")
    found = stops.run(matrix.Setting("residual, tabular", "captum_gausslegendre", 50, baseline=True, digits=4))
    summary = stops.summary(found)
    assert summary["changes"] >= 6
    assert set(summary["by_access"]) == {"KServe, probed", "KServe, told", "in process"}
    for name in ("measured", "predicted"):
        assert summary[name]["disagreements"] == []
    verdicts = {row["change"]: row["measured"]["verdict"] for row in found}
    assert verdicts["as it is"] == "leaks"
    middles = {row["change"]: row["measured"]["median_distance"] for row in found}
    assert middles["all of it but digits"] > 100 * middles["as it is"]
