"""Records to one self-contained HTML page."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from disintegrate.files import write_atomically
from disintegrate.paper.figures import draw
from disintegrate.paper.kinks import KinksStudy, load_kinks
from disintegrate.paper.records import Cell, Drawing, Evidence, Record, Run, claims, load_run
from disintegrate.paper.saturation import Saturation, load_saturation
from disintegrate.paper.ties import TiesStudy, load_ties
from disintegrate.report.estimates import CalibrationStudy, FixedStudy, calibration_svg, load_calibration, load_fixed
from disintegrate.report.findings import Finding, findings
from disintegrate.report.kinks import kinks_sections
from disintegrate.report.saturation import saturation_section
from disintegrate.report.templating import template
from disintegrate.report.ties import ties

TABLE_TITLES = {
    "table_1": "Table 1: how far the explanation itself is from the gradient",
    "table_2": "Table 2, experiment A: equation (2), networks without biases",
    "table_3": "Table 3, experiment B: equation (4)",
    "table_4": "Table 4, experiment C: equation (3)",
    "one_query": "Beyond the paper: one query is enough",
}


@dataclass(frozen=True)
class Studies:
    """Studies of a run's networks that the page shows beside its tables, as far as there are any."""

    saturation: Saturation | None = None
    ties: TiesStudy | None = None
    fixed: FixedStudy | None = None
    calibration: CalibrationStudy | None = None
    kinks: KinksStudy | None = None


def render(run: Run, records: Sequence[Record], studies: Studies | None = None) -> str:
    """Draw the page of a reproduction from its records alone, and from studies of its networks."""
    found = [record for record in records if isinstance(record, Cell)]
    explained = findings(records)
    studies = studies or Studies()
    section = saturation_section(studies.saturation) if studies.saturation else None
    calibration = studies.calibration
    return template("reproduction").render(
        run=run,
        tables={table: rows_of(found, table) for table in TABLE_TITLES},
        titles=TABLE_TITLES,
        networks={cell.provenance.network + str(cell.provenance.seed): cell.provenance for cell in found}.values(),
        claimed_accuracy=claims()["test_accuracy"],
        findings=explained,
        evidence={(finding.table, finding.network): evidence_for(finding, records) for finding in explained},
        ties=ties(records, studies.ties),
        ties_study=studies.ties,
        fixed=studies.fixed,
        calibration=calibration,
        calibration_drawing=Markup(calibration_svg(calibration)) if calibration else None,  # noqa: S704
        kinks=kinks_sections(studies.kinks) if studies.kinks else None,
        kinks_study=studies.kinks,
        saturation=section,
        saturation_drawing=Markup(draw(section.drawing)) if section else None,  # noqa: S704
        drawings=[(record, Markup(draw(record))) for record in records if isinstance(record, Drawing)],  # noqa: S704
    )


def render_folder(folder: Path) -> Path:
    """Write the page of a finished run beside its records, and say where.

    The studies beside the folder, such as `../saturation.json`, are shown where they are about networks of this run.

    Raises:
        UnknownName: the folder holds no finished run.
        DamagedFile: a record cannot be read.
        UnwritableOutput: the page cannot be written.
    """
    run, records = load_run(folder)
    path = folder / "index.html"
    weights = {record.provenance.weights_sha256 for record in records if isinstance(record, Cell)}
    write_atomically(path, render(run, records, _studies(folder.resolve().parent, weights)).encode())
    return path


def _studies(folder: Path, weights: set[str]) -> Studies:
    """The studies in a folder that are about networks with these weights; calibration goes with fixed services."""
    saturation, study = load_saturation(folder / "saturation.json"), load_ties(folder / "ties.json")
    fixed, kinks = load_fixed(folder / "fixed.json"), load_kinks(folder / "kinks.json")
    if fixed and not {table.weights_sha256 for table in fixed.tables} <= weights:
        fixed = None
    return Studies(
        saturation=saturation if saturation and weights & {row.weights_sha256 for row in saturation.rows} else None,
        ties=study if study and weights & {row.weights_sha256 for row in study.rows} else None,
        fixed=fixed,
        kinks=kinks if kinks and weights & {row.weights_sha256 for row in kinks.networks} else None,
        calibration=load_calibration(folder / "calibration.json") if fixed else None,
    )


@dataclass(frozen=True)
class Row:
    """One network and plan of a table: a cell for each training, and the spread of their means."""

    cells: tuple[Cell, ...]

    @property
    def mean_of_means(self) -> float:
        """Mean over the trainings."""
        return statistics.fmean(cell.measured.mean for cell in self.cells)

    @property
    def spread(self) -> float:
        """Standard deviation over the trainings."""
        return statistics.pstdev(cell.measured.mean for cell in self.cells)


def rows_of(cells: Sequence[Cell], table: str) -> list[Row]:
    """The rows of one table, the trainings of one network together."""
    grouped: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        if cell.table == table:
            grouped.setdefault((cell.provenance.network, cell.method), []).append(cell)
    return [Row(tuple(same)) for same in grouped.values()]


def evidence_for(finding: Finding, records: Sequence[Record]) -> list[Evidence]:
    """The measurements that a finding speaks of."""
    cell = (finding.table, finding.network)
    evidence = (record for record in records if isinstance(record, Evidence))
    return [record for record in evidence if (record.table, record.provenance.network) == cell]
