"""Records rendered as one self-contained HTML page."""

from disintegrate.report.page import render, render_folder

__all__ = ["render", "render_folder"]
