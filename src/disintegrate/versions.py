"""Versions that a number may hang on."""

from __future__ import annotations

import platform
from importlib.metadata import version


def versions() -> dict[str, str]:
    """Python's, and those of the packages that compute."""
    return {"python": platform.python_version()} | {name: version(name) for name in ("disintegrate", "numpy", "torch")}
