from .checking import Check, Checked, against_model, against_outputs
from .result import AuditResult
from .run import audit
from .sarif import sarif
from .verdict import RECOVERED, Judgement, Verdict, judge

__all__ = [
    "RECOVERED",
    "AuditResult",
    "Check",
    "Checked",
    "Judgement",
    "Verdict",
    "against_model",
    "against_outputs",
    "audit",
    "judge",
    "sarif",
]
