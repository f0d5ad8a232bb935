from .captum import CaptumExplainer, from_captum
from .local import LocalExplainer, usable_device
from .protocol import Capabilities, Explainer, Explanation, Output, Predictor, Request
from .wire import Wire
from .wrappers import Deaf, Recording, Remembering, Wired

__all__ = [
    "Capabilities",
    "CaptumExplainer",
    "Deaf",
    "Explainer",
    "Explanation",
    "LocalExplainer",
    "Output",
    "Predictor",
    "Recording",
    "Remembering",
    "Request",
    "Wire",
    "Wired",
    "from_captum",
    "usable_device",
]
