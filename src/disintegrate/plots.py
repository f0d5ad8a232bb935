"""Pictures of plans and of what they recover, each drawn on matplotlib axes that are given and returned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Float64
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator, PercentFormatter

from disintegrate.audit.examples import Example, sides_of
from disintegrate.audit.verdict import RECOVERED
from disintegrate.errors import InvalidValue
from disintegrate.measure import Measure
from disintegrate.metrics import NO_DIRECTION

INK, SOFT, LINE = "#1d2430", "#5b6675", "#d9dee6"
BLUE, ORANGE, UNSEEN = "#2f62a8", "#b8521f", "#9aa3ae"
# Queries whose labels do not run into each other on a logarithmic axis.
READABLY_APART = 1.6
# For figures around these axes: `with matplotlib.rc_context(plots.STYLE)`.
STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "svg.fonttype": "none",
    "svg.hashsalt": "disintegrate",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}
# Blue for negative, orange for positive; the two are told apart by the colour-blind too.
SIGNED = LinearSegmentedColormap.from_list(
    "signed", ["#123a73", "#6f9bd1", "#f7f7f5", "#e3925f", "#8a3208"]
).with_extremes(bad=UNSEEN)
# Few coordinates are drawn as bars, many as a strip of colours.
MOST_BARS = 128
# Of the sizes in a picture, the share that is not cut off.
CONTRAST = 0.995
NEAREST, BINS_OF_A_DECADE = 1e-9, 4
# Where a plan asks beyond `FAR`, the ray is drawn to scale up to `TO_SCALE` and by its logarithm from there on.
TO_SCALE, FAR = 2.0, 5.0
# Of weights below zero there, what is large enough to make room for.
TO_BE_SEEN = 0.02
COLUMNS = ("input", "explanation", "recovered gradient", "true gradient")


def measure(ax: Axes, found: Measure) -> Axes:
    """Draw what a plan measures on the ray: a stem for each atom, positive ones up, the input marked.

    A plan that asks far out (beyond 5) is drawn to its end, on logarithmic axes from 2 on.

    Example:
        >>> from matplotlib.figure import Figure
        >>> ax = Figure().subplots()
        >>> measure(ax, Measure(np.array([0.5, 1.0]), np.array([-1.0, 2.0]))) is ax
        True
    """
    for sign, colour in ((1, ORANGE), (-1, BLUE)):
        chosen = found.weights * sign > 0
        positions, weights = found.positions[chosen], found.weights[chosen]
        # one broken line, so that hundreds of stems are one path
        gaps = np.full_like(positions, np.nan)
        ax.plot(
            np.stack([positions, positions, gaps], 1).ravel(), np.stack([0 * weights, weights, gaps], 1).ravel(),
            color=colour, linewidth=1.4, solid_capstyle="butt",
        )  # fmt: skip
        if len(positions) <= MOST_BARS // 4:
            ax.plot(positions, weights, "o", color=colour, markersize=3.5)
    ax.axhline(0, color=SOFT, linewidth=0.6)
    ax.axvline(1, color=INK, linewidth=0.8, linestyle=":")
    low, high = shown_of(found)
    if asks_far_out(found):
        high = 2 * found.support[1]
        ax.set_xscale("symlog", linthresh=TO_SCALE, linscale=2)
        ax.set_yscale("symlog", linthresh=1, linscale=1)
        largest = float(np.abs(found.weights).max())
        lowest = float(found.weights.min())
        ax.set_ylim(1.5 * lowest if lowest < -TO_BE_SEEN else 0, 2 * max(largest, 1.0))
        decades = 10.0 ** np.arange(np.log10(max(high, largest)))
        ax.set_xticks([0, *decades[decades < high]])
        ax.set_yticks([0, *decades[decades < 2 * largest], *-decades[-decades > lowest]])
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter("{x:g}")
        ax.minorticks_off()
    ax.set(xlabel="position on the ray (0: baseline, 1: input)", ylabel="weight", xlim=(low, high))
    return ax


def errors(ax: Axes, distances: Float[np.ndarray, " n"], *, recovered_within: float = RECOVERED) -> Axes:
    """Draw how far recovered gradients are from the truth: a histogram, what counts as recovered in blue.

    Raises:
        InvalidValue: no distances, or NaN among them.

    Example:
        >>> from matplotlib.figure import Figure
        >>> ax = errors(Figure().subplots(), np.array([1e-7, 0.05, 0.7]))
        >>> sum(int(bar.get_height()) for bar in ax.patches) == 3
        True
    """
    if len(distances) == 0 or np.isnan(distances).any():
        raise InvalidValue("A distribution needs distances.", got=f"{len(distances)} with NaN", instead="Give some.")
    values = np.clip(distances, NEAREST, 2.0)
    lowest = min(np.floor(np.log10(values.min()) * BINS_OF_A_DECADE) / BINS_OF_A_DECADE, -2.0)
    edges = 10.0 ** (np.arange(round(lowest * BINS_OF_A_DECADE), 3) / BINS_OF_A_DECADE)
    # a bin holds its upper end, as what lies at the threshold counts as recovered
    counts = np.histogram(-values, -edges[::-1])[0][::-1]
    inside = edges[1:] <= recovered_within * (1 + 1e-9)
    for chosen, colour in ((inside, BLUE), (~inside, ORANGE)):
        kept = chosen & (counts > 0)
        ax.bar(edges[:-1][kept], counts[kept], np.diff(edges)[kept] * 0.94, align="edge", color=colour)
    ax.set_xscale("log")
    for place in (recovered_within, NO_DIRECTION):
        ax.axvline(place, color=SOFT, linewidth=0.8, linestyle=":")
    ax.xaxis.set_major_locator(LogLocator(numticks=8))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    ax.set(xlabel="distance to the truth", ylabel="inputs", xlim=(edges[0], edges[-1]))
    return ax


def cost(ax: Axes, curves: Mapping[str, Sequence[tuple[int, float]]]) -> Axes:
    """Draw how often copies disagree with their model against the queries that they took, one line for each curve.

    Example:
        >>> from matplotlib.figure import Figure
        >>> cost(Figure().subplots(), {"outputs alone": [(10, 0.5), (100, 0.9)]}).get_xscale() == "log"
        True
    """
    for (name, points), colour, mark in zip(curves.items(), (ORANGE, BLUE, SOFT), "os^", strict=False):
        queries, agreement = np.array(points, float).T
        ax.plot(queries, 1 - agreement, color=colour, marker=mark, markersize=4, linewidth=1.2, label=name)
    ax.set_xscale("log")
    apart: list[int] = []
    for count in sorted({count for points in curves.values() for count, _ in points}):
        if not apart or count >= READABLY_APART * apart[-1]:
            apart.append(count)
    ax.set_xticks(apart, [f"{count:,}" for count in apart])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set(xlabel="queries", ylabel="disagreement with the model", ylim=(0, None))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.legend(frameon=False, fontsize=8)
    return ax


def picture(
    ax: Axes, array: Float[np.ndarray, "*shape"], *, signed: bool, observed: Bool[np.ndarray, "*shape"] | None = None
) -> Axes:
    """Draw one array of an input's shape: an image, bars where it has few coordinates, else a strip.

    Args:
        ax: where to draw.
        array: an image of one or three channels, first or last, or any other input. Signed images of three channels
            are summed over them.
        signed: blue below and orange above 0 on one scale, as explanations and gradients are drawn; otherwise the
            input's own colours or shades.
        observed: coordinates that are known; the others are grey. None for all.

    Example:
        >>> from matplotlib.figure import Figure
        >>> ax = Figure().subplots()
        >>> picture(ax, np.eye(8), signed=True) is ax
        True
    """
    values = np.where(observed, array, np.nan) if observed is not None else np.asarray(array, np.float64)
    image = _image(values, signed=signed)
    if image is None and values.size <= MOST_BARS:
        return _bars(ax, values.ravel())
    flat = values.reshape(1, -1) if image is None else image
    aspect: Literal["auto", "equal"] = "auto" if image is None else "equal"
    if signed:
        size = _size(flat)
        ax.imshow(flat, cmap=SIGNED, vmin=-size, vmax=size, interpolation="nearest", aspect=aspect)
    else:
        ax.imshow(_scaled(flat), cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect=aspect)
    return _bare(ax)


def grid(axes: np.ndarray, examples: Sequence[Example]) -> np.ndarray:
    """Draw examples of an audit, one a row: input, explanation, recovered gradient, and the true one where it is known.

    Args:
        axes: of shape [examples, 3 or 4], as `figure.subplots(len(examples), 4, squeeze=False)` makes them.
        examples: as an `AuditResult` holds them.

    Raises:
        InvalidValue: not a row of axes for each example.

    Example:
        >>> from matplotlib.figure import Figure
        >>> one = np.eye(8)
        >>> example = Example(0, 3, 0.1, one, one, one, one > 0, None)
        >>> axes = Figure().subplots(1, 4, squeeze=False)
        >>> grid(axes, [example]) is axes
        True
    """
    if axes.ndim != 2 or len(axes) != len(examples) or axes.shape[1] not in (3, 4):
        raise InvalidValue(
            "Each example needs a row of three or four axes.",
            got=f"axes {axes.shape} for {len(examples)} examples",
            instead="Use figure.subplots(len(examples), 4, squeeze=False).",
        )
    for number, (row, example) in enumerate(zip(axes, examples, strict=True)):
        arrays = (example.point, example.explanation, example.recovered, example.truth)
        for column, (ax, array) in enumerate(zip(row, arrays, strict=False)):
            if array is None:
                ax.set_axis_off()
                continue
            picture(ax, array, signed=column > 0, observed=example.observed if column == 2 else None)
            if number == 0:
                ax.set_title(COLUMNS[column], fontsize=9)
    return axes


def asks_far_out(found: Measure) -> bool:
    """Whether a plan asks where an axis to scale would leave nothing to see near the input."""
    return len(found.positions) > 0 and found.support[1] > FAR


def shown_of(found: Measure) -> tuple[float, float]:
    """The stretch of the ray to show: all of it near the input, a window's own neighbourhood, never the far end."""
    first, last = found.support
    if not np.isfinite(first):
        return 0.0, 1.25
    if last > first > 0.9 and last < 1.1:
        around = 1.5 * (last - first)
        return 1 - around, 1 + around
    return min(0.0, first), float(np.clip(last * 1.02, 1.25, FAR))


def _image(values: Float64[np.ndarray, "*shape"], *, signed: bool) -> Float64[np.ndarray, "h w *channels"] | None:
    sides = sides_of(values.shape)
    if sides is None:
        return None
    if values.ndim == 2:
        return values
    last = np.moveaxis(values, 0, -1) if sides == (1, 2) else values
    if last.shape[-1] == 1:
        return last[..., 0]
    return last.sum(-1) if signed else last


def _bars(ax: Axes, values: Float64[np.ndarray, " d"]) -> Axes:
    edges = np.arange(len(values) + 1) - 0.5
    heights = np.clip(np.nan_to_num(values) / _size(values), -1, 1)
    for sign, colour in ((1, ORANGE), (-1, BLUE)):
        ax.stairs(np.where(heights * sign > 0, heights, 0), edges, fill=True, color=colour, linewidth=0)
    if np.isnan(values).any():
        unseen = np.isnan(values).astype(float)
        ax.stairs(unseen, edges, fill=True, baseline=-unseen, color=UNSEEN, alpha=0.4)
    ax.axhline(0, color=SOFT, linewidth=0.6)
    ax.set(xlim=(-0.5, max(len(values) - 0.5, 0.5)), ylim=(-1.05, 1.05))
    return _bare(ax)


def _bare(ax: Axes) -> Axes:
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return ax


def _size(values: Float64[np.ndarray, "..."]) -> float:
    """The size from which on colours no longer change."""
    seen = np.abs(values[np.isfinite(values)])
    return (float(np.quantile(seen, CONTRAST)) or float(seen.max()) or 1.0) if seen.size else 1.0


def _scaled(values: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high > low else np.full_like(values, 0.5)
