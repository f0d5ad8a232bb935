"""Pictures on axes that are given: each function draws there and nowhere else."""

import sys
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from disintegrate import InvalidValue, Measure, plots
from disintegrate.audit import Example


def axes() -> Axes:
    return Figure().subplots()


def test_every_function_returns_the_axes_it_was_given_and_leaves_no_state() -> None:
    before = dict(mpl.rcParams)
    one = axes()
    assert plots.measure(one, Measure(np.array([0.5, 1.0]), np.array([-1.0, 2.0]))) is one
    two = axes()
    assert plots.errors(two, np.array([0.01, 0.5])) is two
    three = axes()
    assert plots.picture(three, np.eye(5), signed=True) is three
    assert dict(mpl.rcParams) == before
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_a_measure_has_a_stem_of_its_height_at_each_atom() -> None:
    positions, weights = np.array([0.25, 0.5, 1.0]), np.array([-1.0, 0.5, 2.0])
    ax = plots.measure(axes(), Measure(positions, weights))
    found = {}
    for line in ax.lines:
        if line.get_linestyle() != "-":
            continue
        data = np.column_stack(line.get_data()).astype(float)
        for (start, low), (end, high) in pairwise(data):
            if start == end and low == 0:
                found[float(start)] = float(high)
    assert found == dict(zip(positions.tolist(), weights.tolist(), strict=True))
    low, high = ax.get_xlim()
    assert low <= 0
    assert high > 1


def test_a_window_is_shown_from_near() -> None:
    low, high = plots.shown_of(Measure(np.array([0.998, 1.002]), np.array([0.5, 0.5])))
    assert 0.9 < low < 0.998
    assert 1.002 < high < 1.1
    assert plots.shown_of(Measure(np.array([0.1, 40.0]), np.array([0.5, 0.5])))[1] == 5


def test_a_plan_that_asks_far_out_is_shown_to_its_end_and_beside_the_input() -> None:
    far = Measure(np.array([0.9, 1.0, 2000.0]), np.array([-0.5, 1.5, 20.0]))
    ax = plots.measure(axes(), far)
    places = ax.transAxes.inverted().transform(ax.transData.transform([[0.9, -0.5], [1.0, 1.5], [2000.0, 20.0]]))
    assert (places > 0).all()
    assert (places < 1).all()
    assert places[1, 0] - places[0, 0] > 0.01  # to scale, 0.1 of 2000 were 0.00005
    assert plots.asks_far_out(far)
    assert not plots.asks_far_out(Measure(np.array([0.9, 1.0, 4.0]), np.array([-0.5, 1.5, 0.1])))


def test_what_counts_as_recovered_stands_left_of_the_line_in_another_colour() -> None:
    distances = np.array([0.0, 1e-12, 3e-8, 0.05, 0.1, 0.101, 0.4, 1.41, 2.0])
    ax = plots.errors(axes(), distances)
    bars = [(bar.get_x(), bar.get_height(), bar.get_facecolor()) for bar in ax.patches]  # type: ignore[attr-defined]
    assert sum(height for _, height, _ in bars) == len(distances)
    blue = [entry for entry in bars if entry[2] == to_rgba(plots.BLUE)]
    assert sum(height for _, height, _ in blue) == 5
    assert all(x < 0.1 for x, _, _ in blue)


def test_pictures_of_images_bars_and_strips() -> None:
    for shape in ((1, 6, 5), (6, 5), (6, 5, 1)):
        image = plots.picture(axes(), np.arange(30.0).reshape(shape), signed=False).images[0]
        assert image.get_array().shape == (6, 5)  # type: ignore[union-attr]
    colours = np.random.default_rng(0).normal(size=(3, 6, 5))
    shown = plots.picture(axes(), colours, signed=False).images[0].get_array()
    assert shown is not None
    assert (shown.min(), shown.max(), shown.shape) == (0, 1, (6, 5, 3))
    gradient = plots.picture(axes(), colours, signed=True).images[0]
    np.testing.assert_allclose(np.asarray(gradient.get_array()), colours.sum(0))
    low, high = gradient.get_clim()
    assert low == -high
    few, many = plots.picture(axes(), np.ones(7), signed=True), plots.picture(axes(), np.ones(1000), signed=True)
    assert (len(few.images), len(few.patches) > 0) == (0, True)
    assert np.asarray(many.images[0].get_array()).shape == (1, 1000)


def test_what_was_not_observed_is_not_drawn_as_zero() -> None:
    values, observed = np.ones((4, 4)), np.eye(4) > 0
    drawn = plots.picture(axes(), values, signed=True, observed=observed).images[0].get_array()
    assert (np.isnan(np.ma.filled(np.ma.asarray(drawn), np.nan)) == ~observed).all()


def test_a_grid_has_a_row_for_each_example_and_leaves_out_an_unknown_truth() -> None:
    one = np.random.default_rng(0).normal(size=(1, 4, 4))
    examples = [
        Example(0, 3, 0.1, one, 2 * one, 3 * one, one > 0, 4 * one),
        Example(1, 2, 0.2, one, one, one, one > -9, None),
    ]
    panels = Figure().subplots(2, 4, squeeze=False)
    assert plots.grid(panels, examples) is panels
    assert [ax.get_title() for ax in panels[0]] == list(plots.COLUMNS)
    np.testing.assert_allclose(np.asarray(panels[0, 3].images[0].get_array()), 4 * one[0])
    assert not panels[1, 3].images
    with pytest.raises(InvalidValue, match="row of three or four axes"):
        plots.grid(panels[:1], examples)


@pytest.mark.usefixtures("unchecked")
def test_no_distances_are_no_distribution() -> None:
    with pytest.raises(InvalidValue, match="needs distances"):
        plots.errors(axes(), np.zeros(0))
    with pytest.raises(InvalidValue, match="needs distances"):
        plots.errors(axes(), np.array([np.nan]))


def test_the_queries_of_a_cost_are_labelled_where_labels_do_not_meet() -> None:
    drawn = plots.cost(axes(), {"one": [(50, 0.6), (75, 0.7), (1000, 0.9)], "other": [(100, 0.8)]})
    assert [label.get_text() for label in drawn.get_xticklabels()] == ["50", "100", "1,000"]
    assert not len(drawn.xaxis.get_minorticklocs())
