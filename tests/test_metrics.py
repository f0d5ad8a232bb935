import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from disintegrate import InvalidValue, distance, summarise

seeds = st.integers(0, 1000)


@given(seed=seeds, first=st.floats(1e-3, 1e3), second=st.floats(1e-3, 1e3))
def test_the_distance_does_not_see_lengths(seed: int, first: float, second: float) -> None:
    a, b = np.random.default_rng(seed).normal(size=(2, 4, 7))
    np.testing.assert_allclose(distance(first * a, second * b), distance(a, b), atol=1e-12)
    np.testing.assert_allclose(distance(a, b), distance(b, a), atol=1e-15)


@given(seed=seeds, angle=st.floats(0, np.pi))
def test_the_distance_is_the_chord_of_the_angle(seed: int, angle: float) -> None:
    a, b = np.linalg.qr(np.random.default_rng(seed).normal(size=(9, 2)))[0].T
    turned = np.cos(angle) * a + np.sin(angle) * b
    assert distance(a[None], turned[None])[0] == pytest.approx(2 * np.sin(angle / 2), abs=1e-12)


def test_the_marks_of_the_scale() -> None:
    a, b = np.array([[3.0, 0]]), np.array([[0.0, 4]])
    assert distance(a, 7 * a)[0] == 0
    assert distance(a, b)[0] == pytest.approx(np.sqrt(2))
    assert distance(a, -a)[0] == 2


def test_a_zero_vector_counts_as_unrelated() -> None:
    zero, some = np.zeros((1, 3)), np.ones((1, 3))
    assert distance(zero, some)[0] == distance(some, zero)[0] == np.sqrt(2)
    assert distance(zero, zero)[0] == 0


def test_images_are_flattened() -> None:
    a = np.random.default_rng(0).normal(size=(2, 1, 4, 4))
    assert distance(a, a).tolist() == [0, 0]


def test_the_summary_of_known_distances() -> None:
    summary = summarise(np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.05, 0.2, 1.75]))
    assert summary.mean == pytest.approx(0.2)
    assert summary.standard_deviation == pytest.approx(np.sqrt((0.0025 + 0.04 + 3.0625) / 10 - 0.04))
    assert (summary.median, summary.share_above_0_1, summary.images) == (0, 0.2, 10)
    assert summary.percentile_90 == pytest.approx(0.2 + 0.1 * 1.55)
    assert (summary.largest, summary.mean_without_ten_largest) == (1.75, 0)


def test_the_mean_without_the_ten_largest_leaves_out_ten() -> None:
    assert summarise(np.arange(21.0)).mean_without_ten_largest == 5


def test_one_image_of_ten_thousand_makes_the_papers_spread() -> None:
    """Table 3, TwoLayerNet: the printed 1.414e-2 is what a single image at sqrt(2) gives."""
    distances = np.zeros(10_000)
    distances[0] = np.sqrt(2)
    summary = summarise(distances)
    assert summary.standard_deviation == pytest.approx(1.414e-2, rel=1e-3)
    assert summary.mean == pytest.approx(1.414e-4, rel=1e-3)
    assert summary.mean_without_ten_largest == 0


@pytest.mark.usefixtures("unchecked")
def test_shapes_that_differ_and_distances_that_are_none_get_a_sentence() -> None:
    with pytest.raises(InvalidValue, match="one shape"):
        distance(np.ones((2, 3)), np.ones((2, 4)))
    for bad in (np.array([]), np.array([np.nan])):
        with pytest.raises(InvalidValue, match="numbers"):
            summarise(bad)
