"""The sentences of the page: each figure comes from a record, each clause only where there is evidence for it."""

import numpy as np
import pytest

from disintegrate import summarise
from disintegrate.paper.records import Cell, Claim, Evidence, Provenance, Record, claim
from disintegrate.report.findings import findings, number
from disintegrate.report.page import rows_of

ORIGIN = Provenance(
    network="LeNet", seed=0, epochs=4, accuracy=0.99, weights_sha256="w", data_sha256="d", dtype="float32",
    device="cpu", versions={},
)  # fmt: skip


def cell(mean: float, claimed: Claim | None, table: str = "table_3") -> Cell:
    return Cell(
        table=table, method="step_count", title="equation (4)", plan=None, exactness="", claimed=claimed,
        measured=summarise(np.full(4, mean)), provenance=ORIGIN, seconds=1.0,
    )  # fmt: skip


def evidence(condition: str, mean: float, epochs: int = 4) -> Evidence:
    return Evidence(
        table="table_3", method="step_count", condition=condition, explanation=f"explained {condition}",
        measured=summarise(np.full(4, mean)), provenance=ORIGIN.model_copy(update={"epochs": epochs}), seconds=1.0,
    )  # fmt: skip


def test_a_cell_that_differs_is_explained_with_the_nearest_condition() -> None:
    records: list[Record] = [
        cell(1e-5, Claim(mean=1e-2, printed_variance=0.03)),
        evidence("as_served", 1e-5),
        evidence("float64_sums", 2e-14),
        evidence("float64", 1.1e-2),
        evidence("untied_float64", 3e-14),
        evidence("random_last_digit", 0.5),
        evidence("epochs_12", 4e-5, epochs=12),
    ]
    (found,) = findings(records)
    text = " ".join(found.sentences)
    assert (found.table, found.network, found.agrees) == ("table_3", "LeNet", False)
    assert "The paper has 0.01, we 1.00e-05 (median 1.00e-05), 0.001 times that." in text
    assert "is 1.00e-05 in float32 and 2.00e-14 with sums in float64" in text
    assert "without rounding or ties: mean 3.00e-14" in text
    assert (
        "1.00e-05 where float32 settles them alike at every point, 0.011 in float64, 3.00e-14 in float64 once" in text
    )
    assert "Training: 12 epochs 4.00e-05; in the table 4 epochs." in text
    assert text.endswith("comes nearest to the paper's figure: explained float64 (0.011).")
    assert "softmax" not in text
    assert "square root of 2" not in text


def test_a_cell_that_agrees_needs_no_nearest_condition() -> None:
    (found,) = findings([cell(2e-2, Claim(mean=1e-2, printed_variance=0.03)), evidence("as_served", 2e-2)])
    assert found.agrees
    assert "nearest" not in " ".join(found.sentences)


def test_the_papers_one_outlier_is_recognised_by_its_spread() -> None:
    """Table 3: TwoLayerNet's printed 1.414e-2 is sqrt(2) / sqrt(10000); no other cell's is."""
    outliers = {}
    for table in ("table_2", "table_3", "table_4"):
        for network in ("TwoLayerNet_nobias", "TwoLayerNet", "LeNet_nobias", "LeNet", "ResNet18"):
            if (claimed := claim(table, network)) is not None:
                (found,) = findings([cell(1e-5, claimed), evidence("as_served", 1e-5)])
                outliers[table, network] = "one image of 10000" in " ".join(found.sentences)
    assert [place for place, is_outlier in outliers.items() if is_outlier] == [("table_3", "TwoLayerNet")]


def test_a_mean_that_ten_images_make_is_told_as_such() -> None:
    distances = np.full(1000, 1e-6)
    distances[:3] = 0.3
    outlying = cell(0.0, Claim(mean=1e-2, printed_variance=0.03)).model_copy(update={"measured": summarise(distances)})
    (found,) = findings([outlying, evidence("as_served", 1e-5)])
    sentence = "Ten of 1000 images make most of our mean: without them it is 1.00e-06; the largest distance is 0.3."
    assert sentence in found.sentences


def test_what_has_no_claim_or_no_evidence_is_passed_over() -> None:
    assert findings([cell(1e-5, None), evidence("as_served", 1e-5)]) == []
    assert findings([cell(1e-5, Claim(mean=1e-2, printed_variance=0.03))]) == []


def test_numbers_are_shown_with_three_digits() -> None:
    shown = [number(value) for value in (None, 0.0, 1.2345, 0.0012345, 0.00012345, 3.5e-8)]
    assert shown == ["", "0", "1.23", "0.00123", "1.23e-04", "3.50e-08"]


def test_trainings_of_one_network_make_one_row_with_their_spread() -> None:
    means = (0.1, 0.2, 0.6)
    trainings = [
        cell(mean, None).model_copy(update={"provenance": ORIGIN.model_copy(update={"seed": seed})})
        for seed, mean in enumerate(means)
    ]
    (row,) = rows_of([*trainings, cell(9.0, None, table="table_4")], "table_3")
    assert len(row.cells) == 3
    assert row.mean_of_means == pytest.approx(0.3)
    assert row.spread == pytest.approx(np.sqrt(0.14 / 3))
