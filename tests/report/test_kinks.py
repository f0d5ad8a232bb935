"""The section on kinks: every figure from the record."""

from pathlib import Path

import numpy as np
import pytest

from disintegrate import DamagedFile, summarise
from disintegrate.paper.kinks import AlphaRow, Image, KinksStudy, NetworkRow, load_kinks
from disintegrate.report.kinks import kinks_sections


def image(kinks: int, quadrature: float, before: float | None) -> Image:
    return Image(
        kinks=kinks, units=2 * kinks, before=before, behind=None, tied=5, distance=0.25, exact_distance=0.03 * kinks,
        kink=0.03 * kinks, quadrature=quadrature, rounding=1e-6,
    )  # fmt: skip


def study(*images: Image) -> KinksStudy:
    summary = summarise(np.array([0.5, 0.5]))
    row = NetworkRow(network="LeNet", weights_sha256="w", alpha=0.98, steps=50, images=images, rank_correlation=0.75)
    alphas = tuple(
        AlphaRow(network=name, alpha=0.98, without_kink=0.5, exact=summary, with_steps=summary)
        for name in ("LeNet", "ResNet18")
    )
    return KinksStudy(command="c", seed=0, data_sha256="d", versions={}, networks=(row,), alphas=alphas)


def test_medians_and_what_most_of_the_error_is() -> None:
    images = (image(0, 0.3, 0.1), image(2, 0.3, 0.001), image(4, 0.3, None))
    (section,) = kinks_sections(study(*images))
    assert section.median["kinks"] == 2
    assert section.median["units"] == 4
    assert section.median["before"] == pytest.approx(0.1)
    assert section.median["behind"] == float("inf")
    assert "1 of 3 images have no kink in [0.98, 1], the median image has 2." in section.sentence
    assert "the median distance is 0.06; with 50 steps it is 0.25." in section.sentence
    assert "quadrature is responsible" in section.sentence
    assert "correlate by rank with 0.75" in section.sentence
    assert [row.network for row in section.alphas] == ["LeNet"]
    (other,) = kinks_sections(study(image(9, 0.01, None)))
    assert "kinks are responsible" in other.sentence


def test_a_record_is_read_back_and_a_damaged_one_gets_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "kinks.json"
    assert load_kinks(path) is None
    written = study(image(1, 0.3, 0.5))
    path.write_text(written.model_dump_json())
    assert load_kinks(path) == written
    path.write_text("{}")
    with pytest.raises(DamagedFile, match="studies/kinks.py"):
        load_kinks(path)
