from .closed_form import baseline_window, bias_free, shared_piece, single_step, single_step_beyond, step_count
from .errors import (
    BadAnswer,
    DamagedFile,
    DisintegrateError,
    InvalidValue,
    Misuse,
    NotPermitted,
    UnknownName,
    UnwritableOutput,
)
from .explainers import (
    Capabilities,
    Deaf,
    Explainer,
    Explanation,
    LocalExplainer,
    Output,
    Recording,
    Remembering,
    Request,
    Wire,
    Wired,
)
from .gradients import integrated_gradients, vanilla_gradient
from .measure import Exactness, Measure
from .metrics import DistanceSummary, distance, summarise
from .plan import Cost, Plan, Query, Term
from .probe import ProbeResult, probe
from .quadrature import (
    Quadrature,
    Rule,
    gauss_legendre,
    midpoint,
    riemann_left,
    riemann_right,
    trapezoid,
)
from .recover import Recovery, recover
from .rules import PRESETS, RULES, Preset, rule_named

__all__ = [
    "PRESETS",
    "RULES",
    "BadAnswer",
    "Capabilities",
    "Cost",
    "DamagedFile",
    "Deaf",
    "DisintegrateError",
    "DistanceSummary",
    "Exactness",
    "Explainer",
    "Explanation",
    "InvalidValue",
    "LocalExplainer",
    "Measure",
    "Misuse",
    "NotPermitted",
    "Output",
    "Plan",
    "Preset",
    "ProbeResult",
    "Quadrature",
    "Query",
    "Recording",
    "Recovery",
    "Remembering",
    "Request",
    "Rule",
    "Term",
    "UnknownName",
    "UnwritableOutput",
    "Wire",
    "Wired",
    "baseline_window",
    "bias_free",
    "distance",
    "gauss_legendre",
    "integrated_gradients",
    "midpoint",
    "probe",
    "recover",
    "riemann_left",
    "riemann_right",
    "rule_named",
    "shared_piece",
    "single_step",
    "single_step_beyond",
    "step_count",
    "summarise",
    "trapezoid",
    "vanilla_gradient",
]

__version__: str
