"""The page's sections on fixed services and on calibration."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from disintegrate import DamagedFile, summarise
from disintegrate.paper.records import Cell, Provenance, Run, store
from disintegrate.report import render_folder
from disintegrate.report.estimates import calibration_svg, load_calibration, load_fixed

ROOT = Path(__file__).parents[2]


def fixed(weights: str) -> dict[str, Any]:
    def weighed(ratio: float) -> dict[str, float]:
        return {**asdict(summarise(np.full(4, 0.25 * ratio))), "ratio": ratio}

    row = {
        "queries": 20, "scales_chosen_by": "predicted error", "scales": [0.9, 1.09], "predicted": 0.07,
        "assumed": weighed(0.262), "fitted": weighed(0.259), "outputs": weighed(0.257),
    }  # fmt: skip
    table = {
        "network": "LeNet", "rule": "riemann_right", "steps": 50, "highest_scale": 2.0, "images": 4,
        "weights_sha256": weights, "equation_3": asdict(summarise(np.full(4, 0.25))), "rows": [row],
    }  # fmt: skip
    return {"seed": 0, "versions": {}, "tables": [table]}


def calibration() -> dict[str, Any]:
    cases = [{"network": "LeNet", "way": way, "predicted": 0.01, "actual": 0.012} for way in ("EXACT", "WINDOW")]
    ratios = {"all": 1.2345, "way: WINDOW": 0.17}
    return {
        "versions": {}, "median_ratio": ratios, "median_ratio_of_root_mean_squares": ratios,
        "share_within_half_and_double": {"all": 0.73, "way: WINDOW": 0.39}, "cases": cases,
    }  # fmt: skip


def reproduction(folder: Path, weights: str) -> Path:
    origin = Provenance(
        network="LeNet", seed=0, epochs=4, accuracy=0.99, weights_sha256=weights, data_sha256="d", dtype="float32",
        device="cpu", versions={},
    )  # fmt: skip
    cell = Cell(
        table="one_query", method="single_step", title="one query", plan=None, exactness="", claimed=None,
        measured=summarise(np.full(4, 1e-8)), provenance=origin, seconds=1.0,
    )  # fmt: skip
    run = Run(
        quick=True, command="", networks=("LeNet",), images=4, seeds=1, records=(cell.name,), computing_seconds=1.0,
        training_seconds=1.0, peak_memory_bytes=1, processors=1, threads=1, versions={},
    )  # fmt: skip
    store(folder, cell)
    store(folder, run)
    return folder


def test_the_page_shows_the_studies_beside_its_folder(tmp_path: Path) -> None:
    folder = reproduction(tmp_path / "reproduction", "w")
    (tmp_path / "fixed.json").write_text(json.dumps(fixed("w")))
    (tmp_path / "calibration.json").write_text(json.dumps(calibration()))
    page = render_folder(folder).read_text()
    for fragment in ("services that fix everything", "0.262", "0.257", "Are predicted errors honest?", "1.23", "39 %"):
        assert fragment in page
    assert page.count("<svg") == 1


def test_studies_of_other_networks_are_not_shown(tmp_path: Path) -> None:
    folder = reproduction(tmp_path / "reproduction", "w")
    (tmp_path / "fixed.json").write_text(json.dumps(fixed("other weights")))
    (tmp_path / "calibration.json").write_text(json.dumps(calibration()))
    page = render_folder(folder).read_text()
    assert "services that fix everything" not in page
    assert "Are predicted errors honest?" not in page


def test_a_damaged_study_gets_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "fixed.json"
    assert load_fixed(path) is None
    path.write_text("{}")
    with pytest.raises(DamagedFile, match="Run its study again"):
        load_fixed(path)


def test_the_calibration_plot_has_a_point_for_each_way(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(calibration()))
    study = load_calibration(path)
    assert study is not None
    svg = calibration_svg(study)
    assert svg.startswith("<svg")
    for way in ("exact", "window"):
        assert f"LeNet, {way}" in svg
