"""The sections on saturation and on ties: every figure in them is one of the record's."""

from pathlib import Path

import numpy as np
import pytest

from disintegrate import DamagedFile, DistanceSummary, summarise
from disintegrate.paper.figures import draw
from disintegrate.paper.records import Evidence, Provenance
from disintegrate.paper.saturation import (
    NormsAlongRay,
    Saturation,
    SaturationRow,
    load_saturation,
    store_saturation,
)
from disintegrate.paper.ties import TiesRow, TiesStudy
from disintegrate.report.saturation import saturation_section
from disintegrate.report.ties import ties


def around(mean: float) -> DistanceSummary:
    return summarise(np.array([mean - 0.1, mean + 0.1]))


def row(condition: str, table_3: float, epochs: int = 2, **changed: object) -> SaturationRow:
    flat = around(1.3)
    fields: dict[str, object] = {
        "epochs": epochs, "accuracy": 0.99, "weights_sha256": "w", "condition": condition, "dtype": "float32",
        "scale": 1.0,
        "table_1": flat, "table_3": around(table_3), "table_4": flat,
        "single_step": summarise(np.full(3, 2.5e-8)), "table_3_to_exact": flat, "single_step_to_exact": flat,
        "logit_difference": summarise(np.full(3, 1.9e-7)), "own_gradient": summarise(np.full(3, 0.04)),
        "own_gradient_zero": 0.0, "own_gradient_underflows": 0.0,
        "one_minus_p": 1e-5, "one_minus_p_mean": 1e-4, "one_rounds_to_zero": 0.25,
        "norms": NormsAlongRay(median=(1.0, 2.0, 1e-3), peak=11.0, orders_median=5.5, orders_largest=9.1, zero=0.0),
    }  # fmt: skip
    return SaturationRow.model_validate(fields | changed)


def record() -> Saturation:
    return Saturation(
        network="ResNet18", command="python studies/saturation.py", seed=0, images=3, data_sha256="d", device="cpu",
        versions={}, seconds=1.0,
        rows=(
            row("logits", 1.5e-4, one_rounds_to_zero=0.0, own_gradient=summarise(np.full(3, 1.8e-7))),
            row("probabilities_1", 0.33),
            row("probabilities_2", 1.11, scale=2.0, own_gradient=summarise(np.full(3, 0.85))),
            row("probabilities_float64", 0.2, dtype="float64", norms=None, table_1=None, table_4=None),
            row("logits_last_digit", 1.04),
            row("logits", 2.5e-4, epochs=8),
            row("probabilities_1", 0.43, epochs=8, own_gradient_zero=0.5),
        ),
    )  # fmt: skip


def test_the_sentences_tell_the_records_figures() -> None:
    section = saturation_section(record())
    text = " ".join(section.sentences)
    assert "Trained for 2, 8 epochs, ResNet18 has table 3 at 1.50e-04, 2.50e-04 with logits and at 0.33, 0.43" in text
    assert "the paper has 1.2." in text
    assert "2 epochs: x 1 0.33, x 2 1.11; 8 epochs: x 1 0.43." in text
    assert "Probabilities: the norm peaks at i = 11, 11 and falls by 5.5, 5.5 powers" in text
    assert "At its worst (2 epochs, probabilities, logits x 2) the service's own gradient is 0.85" in text
    assert "a mean of at most 2.50e-08 wherever no gradient underflows" in text
    assert (
        "It is not depth. With logits equation (4) fails at no length of training: table 3 is at most 2.50e-04" in text
    )
    assert "together: 2 epochs, probabilities, logits x 2: table 1 1.3 ± 0.1 (paper 1.24 ± 0.0975)" in text
    assert (
        "random bring table 3 up without any softmax, to 1.04, but with a spread of 0.1 where the paper prints 0.4"
        in text
    )
    assert [words for words, _ in section.rows][3] == "probabilities, float64"


def test_the_figure_is_drawn_from_the_record() -> None:
    drawing = saturation_section(record()).drawing
    assert draw(drawing).count("<svg") == 1
    assert len(drawing.data["norms"]) == 5
    assert len(drawing.data["points"]) == 6


def test_a_record_of_one_condition_says_little() -> None:
    alone = record().model_copy(update={"rows": (row("logits", 1e-4, one_rounds_to_zero=0.0),)})
    assert all("softmax left on" not in sentence for sentence in saturation_section(alone).sentences)


def test_the_record_survives_its_json(tmp_path: Path) -> None:
    path = tmp_path / "saturation.json"
    assert load_saturation(path) is None
    store_saturation(path, record())
    assert load_saturation(path) == record()
    assert record().row(8, "logits") == record().rows[5]
    assert record().row(3, "logits") is None
    path.write_text("{}")
    with pytest.raises(DamagedFile, match=r"Run studies/saturation\.py again"):
        load_saturation(path)


def evidence(condition: str, mean: float, table: str = "table_3", network: str = "LeNet") -> Evidence:
    origin = Provenance(
        network=network, seed=0, epochs=4, accuracy=0.99, weights_sha256="w", data_sha256="d", dtype="float32",
        device="cpu", versions={},
    )  # fmt: skip
    return Evidence(
        table=table, method="step_count", condition=condition, explanation="", measured=summarise(np.full(4, mean)),
        provenance=origin, seconds=1.0,
    )  # fmt: skip


def test_ties_are_told_where_there_is_evidence_of_them() -> None:
    conditions = {"as_served": 2e-5, "float64": 0.01, "untied": 4e-5, "untied_float64": 1e-14, "random_last_digit": 0.5}
    records = [evidence(name, mean) for name, mean in conditions.items()]
    records += [evidence("as_served", 1e-5, network="TwoLayerNet"), evidence("float64", 0.7, table="table_4")]
    (found,) = ties(records)
    text = " ".join(found.sentences)
    assert (found.network, found.claimed) == ("LeNet", 1.175e-2)
    assert "In float64 the mean is 0.01, and 1.00e-14 with a pattern inside the model: 100.00% of it are ties." in text
    assert "In float32 with a pattern inside the model it is 4.00e-05, 2 times that without." in text
    assert "the mean is 0.5" in text
    assert [words for words, _ in found.rows][:2] == ["float32", "float64"]


def test_the_library_is_told_where_it_was_studied() -> None:
    def backend(words: str, plain: float, weights: str = "w") -> TiesRow:
        flat = {"untied": summarise(np.full(4, 1e-5)), "noisy": summarise(np.full(4, 2e-5))}
        return TiesRow(
            network="LeNet", weights_sha256=weights, backend=words, dtype="float32", plain=summarise(np.full(4, plain)),
            single_step=summarise(np.full(4, 2.5e-8)), **flat,
        )  # fmt: skip

    study = TiesStudy(
        command="", seed=0, data_sha256="d", instruction_set="AVX512", versions={},
        rows=(
            backend("float32, by one", 1e-5),
            backend("float32, by another", 0.5),
            backend("float32, by a third", 1.0, "other"),
        ),
    )  # fmt: skip
    records = [evidence(name, 1e-5) for name in ("as_served", "float64", "random_last_digit")]
    (found,) = ties(records, study)
    assert len(found.backends) == 2
    text = " ".join(found.sentences)
    assert (
        "The library decides in float32: from 1.00e-05 (by one) to 0.5 (by another), of which 100.0% are ties" in text
    )
    assert "so no tie can be settled twice: at most 2.50e-08." in text
    (alone,) = ties(records)
    assert alone.backends == ()
