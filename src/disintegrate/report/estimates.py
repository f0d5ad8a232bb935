"""Sections of the results page on services that fix everything, and on how honest predicted errors are."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from pydantic import BaseModel, ValidationError

from disintegrate.errors import DamagedFile
from disintegrate.metrics import DistanceSummary
from disintegrate.paper.figures import STYLE

Study = TypeVar("Study", bound=BaseModel)


class RelativeSummary(BaseModel):
    """Distances of one way of weighing, and their mean as a multiple of equation (3)'s."""

    mean: float
    median: float
    ratio: float


class FixedRow(BaseModel):
    """One number of queries: with the walk that is assumed, the fitted one, and the outputs as well."""

    queries: int
    scales_chosen_by: str
    predicted: float
    assumed: RelativeSummary
    fitted: RelativeSummary
    outputs: RelativeSummary


class FixedTable(BaseModel):
    """One network behind one service that fixes rule, steps and baseline."""

    network: str
    rule: str
    steps: int
    highest_scale: float
    images: int
    weights_sha256: str
    equation_3: DistanceSummary
    rows: tuple[FixedRow, ...]


class FixedStudy(BaseModel):
    """What `studies/fixed.py` writes."""

    versions: dict[str, str]
    tables: tuple[FixedTable, ...]


class CalibrationCase(BaseModel):
    """One service and plan: predicted and actual distance, medians over images."""

    network: str
    way: str
    predicted: float
    actual: float


class CalibrationStudy(BaseModel):
    """What `studies/calibration.py` writes."""

    versions: dict[str, str]
    median_ratio: dict[str, float]
    median_ratio_of_root_mean_squares: dict[str, float]
    share_within_half_and_double: dict[str, float]
    cases: tuple[CalibrationCase, ...]


def load_fixed(path: Path) -> FixedStudy | None:
    """Read the study of fixed services; None where there is none.

    Raises:
        DamagedFile: it is there and cannot be read.
    """
    return _load(path, FixedStudy)


def load_calibration(path: Path) -> CalibrationStudy | None:
    """Read the study of predicted errors; None where there is none.

    Raises:
        DamagedFile: it is there and cannot be read.
    """
    return _load(path, CalibrationStudy)


def calibration_svg(study: CalibrationStudy) -> str:
    """Actual against predicted distance, a point for each case, as SVG."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.6, 4.6), layout="constrained")
        axes = figure.subplots()
        ways = sorted({case.way for case in study.cases})
        for marker, network in zip("osD", dict.fromkeys(case.network for case in study.cases), strict=False):
            for index, way in enumerate(ways):
                some = [case for case in study.cases if (case.network, case.way) == (network, way)]
                if some:
                    predicted = [max(case.predicted, 1e-9) for case in some]
                    actual = [max(case.actual, 1e-9) for case in some]
                    label = f"{network}, {way.lower().replace('_', ' ')}"
                    colour = f"C{index}"
                    axes.scatter(
                        predicted, actual, s=9, marker=marker, color=colour, alpha=0.6, linewidths=0, label=label
                    )
        line = np.geomspace(1e-9, 1.5, 50)
        axes.plot(line, line, color="black", linewidth=0.8)
        axes.fill_between(line, line / 2, 2 * line, color="black", alpha=0.08, linewidth=0)
        axes.set(xscale="log", yscale="log", xlabel="predicted distance", ylabel="actual distance (median over images)")
        axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1, 1), markerscale=1.5)
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def _load(path: Path, study: type[Study]) -> Study | None:
    if not path.is_file():
        return None
    try:
        return study.model_validate_json(path.read_text())
    except ValidationError as error:
        first = error.errors()[0]["msg"]
        raise DamagedFile(f"{path} cannot be read.", got=first, instead="Run its study again.") from None
