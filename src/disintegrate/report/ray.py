"""A plan's measure, drawn on the ray: as lines of text for the terminal, and as SVG."""

from __future__ import annotations

from io import StringIO

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from disintegrate import plots
from disintegrate.measure import Measure

BLOCKS = " ▁▂▃▄▅▆▇█"
ROWS = 3
# Below this share of the largest atom a column is left empty rather than shown as the smallest block.
INVISIBLE = 1e-3


def measure_text(measure: Measure, width: int = 72) -> str:
    """The measure as a bar chart of characters: positive weights above the axis, negative below, the input marked.

    Example:
        >>> "▲" in measure_text(Measure(np.array([0.5, 1.0]), np.array([-1.0, 2.0])))
        True
    """
    low, high = plots.shown_of(measure)
    columns = np.zeros(width)
    inside = (measure.positions >= low) & (measure.positions <= high)
    place = np.round((measure.positions[inside] - low) / (high - low) * (width - 1)).astype(int)
    np.add.at(columns, place, measure.weights[inside])
    largest = float(np.abs(columns).max(initial=0)) or 1.0
    above = [_bars(np.maximum(columns, 0) / largest, row) for row in reversed(range(ROWS))]
    below = [_bars(np.maximum(-columns, 0) / largest, row) for row in range(ROWS)]
    axis = list("─" * width)
    marks = list(" " * width)
    for position, mark in ((0.0, "0"), (1.0, "▲")):
        if low <= position <= high:
            marks[round((position - low) / (high - low) * (width - 1))] = mark
    lines = [*above, "".join(axis), "".join(marks)]
    lines += below if (columns < 0).any() else []
    shown = f"1 ± {high - 1:.2g}" if low > 0.5 else f"{low:.4g} to {high:.4g}"
    ends = f"ray from {shown}; ▲ the input, at 1; tallest bar {largest:.4g}".replace("from 1 ±", "around 1 ±")
    hidden = int((~inside).sum())
    return "\n".join([*(line.rstrip() for line in lines), ends + (f"; {hidden} atoms farther out" if hidden else "")])


def measure_svg(measure: Measure) -> str:
    """The measure as an SVG picture: a stem for each atom.

    Example:
        >>> measure_svg(Measure(np.array([1.0]), np.array([1.0]))).startswith("<svg")
        True
    """
    with mpl.rc_context(plots.STYLE):
        figure = Figure(figsize=(7, 2.2), layout="constrained")
        plots.measure(figure.subplots(), measure)
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def _bars(shares: np.ndarray, row: int) -> str:
    """One row of characters of bars that are `ROWS` rows tall."""
    filled = np.clip(shares * ROWS - row, 0, 1)
    levels = np.ceil(filled * (len(BLOCKS) - 1)).astype(int)
    levels[shares < INVISIBLE] = 0
    return "".join(BLOCKS[level] for level in levels)
