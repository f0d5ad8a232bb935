"""Drawings inside a page: lines as SVG in the page's own colours, images as PNG, nothing fetched from elsewhere."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from io import BytesIO, StringIO

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from disintegrate import plots

Draw = Callable[[Axes], Axes]
# In inches: for a page's full width, and for a phone's.
WIDE, NARROW = (7.4, 2.3), (3.7, 2.2)
# The colours of the drawings, by the page's names for them, so that they follow light and dark.
COLOURS = {
    plots.INK: "var(--ink)",
    plots.SOFT: "var(--soft)",
    plots.BLUE: "var(--blue)",
    plots.ORANGE: "var(--orange)",
    plots.UNSEEN: "var(--unseen)",
}
# An image is blown up to about so many pixels a side.
PIXELS = 112


def drawing(draw: Draw, label: str) -> Markup:
    """A drawing in two widths, of which the page shows the one that fits.

    Args:
        draw: draws on axes.
        label: what is to be seen, for those who cannot see it.

    Example:
        >>> found = drawing(lambda ax: ax, "nothing")
        >>> found.count("<svg") == 2 and "http" not in found
        True
    """
    return svg(draw, label, WIDE, "wide-drawing") + svg(draw, label, NARROW, "narrow-drawing")


def svg(draw: Draw, label: str, size: tuple[float, float], name: str) -> Markup:
    """A drawing as inline SVG of a class."""
    # names of parts must differ between the drawings of one page, and be the same each time
    with mpl.rc_context({**plots.STYLE, "svg.hashsalt": f"{label} {name}"}):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots())
        text = StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    found = text.getvalue()
    found = re.sub(r"<metadata>.*?</metadata>", "", found[found.index("<svg") :], flags=re.DOTALL)
    found = re.sub(r' (?:id="[A-Za-z0-9.]+_\d+"|xmlns(?::xlink)?="[^"]*")', "", found)
    found = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", found)
    for colour, variable in COLOURS.items():
        found = found.replace(colour, variable)
    opened = f'<svg class="{escape(name)}" role="img" aria-label="{escape(label)}"'
    # what matplotlib writes is markup; the label is escaped
    return Markup(found.replace("<svg", opened, 1))  # noqa: S704


def png(draw: Draw, width: int, height: int, label: str) -> Markup:
    """An image of so many pixels, blown up, as an element of the page."""
    scale = max(1, round(PIXELS / max(width, height)))
    with mpl.rc_context(plots.STYLE):
        figure = Figure(figsize=(width * scale / 100, height * scale / 100), dpi=100)
        draw(figure.add_axes((0, 0, 1, 1)))
        content = BytesIO()
        figure.savefig(content, format="png", dpi=100, metadata={"Software": None})
    data = base64.b64encode(content.getvalue()).decode()
    return Markup('<img alt="{}" width="{}" height="{}" src="data:image/png;base64,{}">').format(
        label, width * scale, height * scale, data
    )
