from .harness import Copy, Counted, Extraction, Likeness, Method, extract, likeness
from .lessons import Learnt, Lessons
from .one_hidden_layer import one_hidden_layer
from .students import Pause, Training, student
from .tangents import Oracle, Tangents

__all__ = [
    "Copy",
    "Counted",
    "Extraction",
    "Learnt",
    "Lessons",
    "Likeness",
    "Method",
    "Oracle",
    "Pause",
    "Tangents",
    "Training",
    "extract",
    "likeness",
    "one_hidden_layer",
    "student",
]
