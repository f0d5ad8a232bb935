"""What kinks make of equation (3), as sentences whose every figure comes from a record."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from disintegrate.paper.kinks import AlphaRow, KinksStudy, NetworkRow
from disintegrate.report.findings import number


@dataclass(frozen=True)
class KinksSection:
    """One network: medians over its images, a sentence, and equation (3) at each alpha."""

    row: NetworkRow
    median: dict[str, float]
    sentence: str
    alphas: tuple[AlphaRow, ...]


def kinks_sections(study: KinksStudy) -> list[KinksSection]:
    """Each network of the study, in its order.

    Example:
        >>> kinks_sections(KinksStudy(command="", seed=0, data_sha256="", versions={}, networks=(), alphas=()))
        []
    """
    return [
        KinksSection(
            row=row,
            median=_medians(row),
            sentence=_sentence(row),
            alphas=tuple(alpha for alpha in study.alphas if alpha.network == row.network),
        )
        for row in study.networks
    ]


def _medians(row: NetworkRow) -> dict[str, float]:
    names = ("kinks", "units", "tied", "distance", "exact_distance", "kink", "quadrature", "rounding")
    found = {name: statistics.median(float(getattr(image, name)) for image in row.images) for name in names}
    for name in ("before", "behind"):
        found[name] = _median_distance(getattr(image, name) for image in row.images)
    return found


def _median_distance(distances: Iterable[float | None]) -> float:
    """Where no kink was met within the length of the ray it lies further than any that was."""
    return statistics.median(float("inf") if distance is None else distance for distance in distances)


def _sentence(row: NetworkRow) -> str:
    median, images = _medians(row), len(row.images)
    clear = sum(image.kinks == 0 for image in row.images)
    text = (
        f"{clear} of {images} images have no kink in [{row.alpha:g}, 1], the median image has {median['kinks']:g}. "
        f"With the exact integral, theorem 3.3 as it is stated, the median distance is "
        f"{number(median['exact_distance'])}; with {row.steps} steps it is {number(median['distance'])}."
    )
    largest = max(("kink", "quadrature", "rounding"), key=median.__getitem__)
    words = {"kink": "kinks are", "quadrature": "quadrature is", "rounding": "rounding is"}
    text += f" Most of the error in the median is what {words[largest]} responsible for."
    if row.rank_correlation is not None:
        text += f" Number of kinks and exact error correlate by rank with {row.rank_correlation:.2f}."
    return text
