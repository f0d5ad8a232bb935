from .local import LocalExplainer, usable_device
from .protocol import Capabilities, Explainer, Explanation, Request
from .wrappers import Recording, Remembering

__all__ = [
    "Capabilities",
    "Explainer",
    "Explanation",
    "LocalExplainer",
    "Recording",
    "Remembering",
    "Request",
    "usable_device",
]
