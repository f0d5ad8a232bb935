"""Explanation services behind one protocol: `Explainer`."""

from disintegrate.explainers.local import LocalExplainer
from disintegrate.explainers.protocol import Capabilities, Explainer, Explanation, Request
from disintegrate.explainers.wrappers import Recording, Remembering

__all__ = [
    "Capabilities",
    "Explainer",
    "Explanation",
    "LocalExplainer",
    "Recording",
    "Remembering",
    "Request",
]
