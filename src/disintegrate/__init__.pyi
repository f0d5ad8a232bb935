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
from .estimate import carry_out, estimate
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
from .gradients import Path, Prepared, Rewriting, integrated_gradients, prepare, vanilla_gradient
from .kriging import krige, predicted_distance
from .measure import Exactness, Measure
from .metrics import DistanceSummary, distance, summarise
from .noise import Noise, noise_of
from .nudge import nudged
from .plan import Cost, Plan, Query, Term
from .planner import Proposal, Way, propose
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
from .regions import (
    Kink,
    PlanErrors,
    Regions,
    Unit,
    exact_integrated_gradients,
    exact_recovery,
    nearest_kinks,
    plan_errors,
    ray_regions,
)
from .rules import PRESETS, RULES, Preset, rule_named
from .softmax import LogitDifference, LogitGradients, recover_logits
from .walk import Walk

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
    "Kink",
    "LocalExplainer",
    "LogitDifference",
    "LogitGradients",
    "Measure",
    "Misuse",
    "Noise",
    "NotPermitted",
    "Output",
    "Path",
    "Plan",
    "PlanErrors",
    "Prepared",
    "Preset",
    "ProbeResult",
    "Proposal",
    "Quadrature",
    "Query",
    "Recording",
    "Recovery",
    "Regions",
    "Remembering",
    "Request",
    "Rewriting",
    "Rule",
    "Term",
    "Unit",
    "UnknownName",
    "UnwritableOutput",
    "Walk",
    "Way",
    "Wire",
    "Wired",
    "baseline_window",
    "bias_free",
    "carry_out",
    "distance",
    "estimate",
    "exact_integrated_gradients",
    "exact_recovery",
    "gauss_legendre",
    "integrated_gradients",
    "krige",
    "midpoint",
    "nearest_kinks",
    "noise_of",
    "nudged",
    "plan_errors",
    "predicted_distance",
    "prepare",
    "probe",
    "propose",
    "ray_regions",
    "recover",
    "recover_logits",
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
