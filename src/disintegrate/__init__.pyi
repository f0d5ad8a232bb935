from .clients import connect
from .closed_form import baseline_window, bias_free, shared_piece, single_step, single_step_beyond, step_count
from .errors import (
    BadAnswer,
    BudgetSpent,
    DamagedFile,
    DisintegrateError,
    InDoubt,
    InvalidValue,
    KeyRefused,
    Misuse,
    NotPermitted,
    TargetChanged,
    UnknownName,
    Unreachable,
    Untrusted,
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
from .gradients import integrated_gradients, vanilla_gradient
from .kriging import krige, predicted_distance
from .measure import Exactness, Measure
from .metrics import DistanceSummary, distance, summarise
from .models import load_model
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
from .rules import PRESETS, RULES, Preset, rule_named
from .softmax import LogitDifference, LogitGradients, recover_logits
from .walk import Walk

__all__ = [
    "PRESETS",
    "RULES",
    "BadAnswer",
    "BudgetSpent",
    "Capabilities",
    "Cost",
    "DamagedFile",
    "Deaf",
    "DisintegrateError",
    "DistanceSummary",
    "Exactness",
    "Explainer",
    "Explanation",
    "InDoubt",
    "InvalidValue",
    "KeyRefused",
    "LocalExplainer",
    "LogitDifference",
    "LogitGradients",
    "Measure",
    "Misuse",
    "Noise",
    "NotPermitted",
    "Output",
    "Plan",
    "Preset",
    "ProbeResult",
    "Proposal",
    "Quadrature",
    "Query",
    "Recording",
    "Recovery",
    "Remembering",
    "Request",
    "Rule",
    "TargetChanged",
    "Term",
    "UnknownName",
    "Unreachable",
    "Untrusted",
    "UnwritableOutput",
    "Walk",
    "Way",
    "Wire",
    "Wired",
    "baseline_window",
    "bias_free",
    "carry_out",
    "connect",
    "distance",
    "estimate",
    "gauss_legendre",
    "integrated_gradients",
    "krige",
    "load_model",
    "midpoint",
    "noise_of",
    "nudged",
    "predicted_distance",
    "probe",
    "propose",
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
