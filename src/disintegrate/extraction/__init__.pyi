from .costing import Offer, costs, offers, suggested
from .curve import Access, Cost, CostRecord, read_cost
from .data_free import Game, Seeking, data_free, image_generator
from .filters import Filters, first_filters
from .harness import Copy, Counted, Extraction, Likeness, Method, extract, likeness
from .lessons import Learnt, Lessons
from .one_hidden_layer import one_hidden_layer
from .students import Pause, Training, student
from .tangents import Oracle, Tangents
from .two_hidden_layers import two_hidden_layers

__all__ = [
    "Access",
    "Copy",
    "Cost",
    "CostRecord",
    "Counted",
    "Extraction",
    "Filters",
    "Game",
    "Learnt",
    "Lessons",
    "Likeness",
    "Method",
    "Offer",
    "Oracle",
    "Pause",
    "Seeking",
    "Tangents",
    "Training",
    "costs",
    "data_free",
    "extract",
    "first_filters",
    "image_generator",
    "likeness",
    "offers",
    "one_hidden_layer",
    "read_cost",
    "student",
    "suggested",
    "two_hidden_layers",
]
