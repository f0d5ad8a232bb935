"""The figures of the results page, drawn from records alone: each function takes a drawing and returns SVG."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from typing import Any

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from disintegrate.paper.records import Drawing

COLOURS = ("#3366aa", "#cc6633", "#338855", "#aa3377", "#777777", "#bbaa33", "#44aabb", "#222222")
FLOAT32_EPSILON = 2.0**-24
STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "svg.fonttype": "none",
    "svg.hashsalt": "disintegrate",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=COLOURS),
}


def draw(drawing: Drawing) -> str:
    """Draw one figure as SVG.

    Example:
        >>> from disintegrate.paper.drawings import figure_a1
        >>> draw(figure_a1()).count("<svg") == 1
        True
    """
    with mpl.rc_context(STYLE):
        figure = PAINTERS[drawing.figure](drawing.data)
        text = StringIO()
        # No date and no identifiers of chance: the same record draws the same bytes.
        figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def _three_images(data: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(6, 2.2))
    for axes, (title, image) in zip(figure.subplots(1, 3), data.items(), strict=True):
        _show(axes, image, title)
    return figure


def _rows_of_images(data: dict[str, Any]) -> Figure:
    rows = data["rows"]
    columns = ("vanilla gradient", "Integrated Gradients", "recovered")
    figure = Figure(figsize=(6, 1.75 * len(rows)))
    for axes, row in zip(figure.subplots(len(rows), 3, squeeze=False), rows, strict=True):
        for panel, column in zip(axes, columns, strict=True):
            _show(panel, row[column], column if row is rows[0] else "")
        axes[0].set_ylabel(row["title"].replace(": ", ":\n"), fontsize=8)
    return figure


def _norms(data: dict[str, Any]) -> Figure:
    networks = sorted({name.split(", ")[0] for name in data}, key=lambda name: (name != "ResNet18", name))
    figure = Figure(figsize=(7.5, 2.7 * ((len(networks) + 1) // 2)), layout="constrained")
    panels = figure.subplots((len(networks) + 1) // 2, 2, squeeze=False).ravel()
    for axes, network in zip(panels, networks, strict=False):
        for output in ("logit", "probability"):
            low, middle, high = (np.array(line) for line in data[f"{network}, {output}"])
            steps = np.arange(1, len(middle) + 1)
            (line,) = axes.plot(steps, middle, label=output)
            axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
        axes.set(title=network, yscale="log", xlabel="i (point (i/50) x)", ylabel="norm of the gradient")
    panels[0].legend(frameon=False)
    for axes in panels[len(networks) :]:
        axes.set_axis_off()
    return figure


def _planes(data: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(5, 4.4))
    axes: Any = figure.add_subplot(projection="3d")
    side = np.linspace(-1, 1, 2)
    first, second = np.meshgrid(side, side)
    for index, normal in enumerate(data["normals"]):
        height = -(normal[0] * first + normal[1] * second) / normal[2]
        axes.plot_surface(first, second, np.clip(height, -2, 2), color=COLOURS[index], alpha=0.35, shade=False)
    for region in data["regions"]:
        point = np.array(region["inside"])
        point = point / np.linalg.norm(point) * 1.15
        gradient = ", ".join(f"{value:.1f}" for value in region["gradient"])
        axes.text(*point, f"s = {tuple(region['pattern'])}\ngrad = ({gradient})", ha="center", fontsize=8)
    axes.scatter(0, 0, 0, color="black", s=12)
    axes.set(xlabel="input 1", ylabel="input 2", zlabel="input 3", zlim=(-1.5, 1.5))
    axes.set(xticks=(-1, 0, 1), yticks=(-1, 0, 1), zticks=(-1, 0, 1))
    axes.view_init(elev=18, azim=-58)
    return figure


def _cancellation(data: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(7, 4.4))
    axes = figure.subplots()
    markers = "osD^vPX*"
    largest = 0.0
    for index, (name, (digits, error)) in enumerate(data.items()):
        shown = np.maximum(np.array(error), 1e-9)
        largest = max(largest, *digits)
        marker = markers[index % len(markers)]
        axes.scatter(digits, shown, s=7, marker=marker, alpha=0.5, linewidths=0, label=name, rasterized=True)
    line = np.linspace(0, max(largest, 1.0), 50)
    axes.plot(
        line,
        FLOAT32_EPSILON * 10**line,
        color="black",
        linewidth=1,
        linestyle="--",
        label="rounding: 2^-24 x 10^digits",
    )
    axes.set(
        yscale="log", xlabel="decimal digits that cancel in the plan's sum", ylabel="distance to the vanilla gradient",
        ylim=(3e-9, 3),
    )  # fmt: skip
    axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1, 1), markerscale=2)
    return figure


def _saturation(data: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(9, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    conditions = list(dict.fromkeys(condition for _, condition, _, _ in data["norms"]))
    lengths = sorted({epochs for _, _, epochs, _ in data["norms"]})
    for label, condition, epochs, median in data["norms"]:
        values = np.array(median)
        left.plot(
            np.arange(1, len(values) + 1)[values > 0], values[values > 0], color=COLOURS[conditions.index(condition)],
            linestyle=(":", "-.", "--", "-")[-len(lengths) :][lengths.index(epochs) % 4], linewidth=1.2, label=label,
        )  # fmt: skip
    left.set(yscale="log", xlabel="i (point (i/50) x)", ylabel="norm of the gradient (median)")
    names = list(dict.fromkeys(name for name, *_ in data["points"]))
    for index, name in enumerate(names):
        found = [(doubt, error) for other, _, doubt, error in data["points"] if other == name]
        colour, marker = COLOURS[index % len(COLOURS)], "osD^vPX*<>"[index % 10]
        right.scatter(*zip(*found, strict=True), s=30, color=colour, marker=marker, label=name)
    right.axhline(data["paper"], color="black", linestyle="--", linewidth=1, label="the paper")
    right.set(xscale="log", yscale="log", xlabel="1 - p of the label at the input (median)", ylabel="table 3 (mean)")
    right.invert_xaxis()
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=6.5, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    return figure


def _show(axes: Axes, image: list[list[float]], title: str) -> None:
    axes.imshow(np.array(image), cmap="gray", interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=9)


PAINTERS: dict[str, Callable[[dict[str, Any]], Figure]] = {
    "1": _three_images,
    "4": _rows_of_images,
    "5": _norms,
    "A.1": _planes,
    "digits": _cancellation,
    "saturation": _saturation,
}
