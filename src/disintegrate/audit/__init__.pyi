from .changes import Change, changes
from .checking import Check, Checked, against_model, against_outputs
from .faithfulness import Faithfulness, exact_attributions, faithfulness
from .result import AuditResult
from .run import audit
from .sarif import sarif
from .stopping import Stop, what_stops
from .verdict import RECOVERED, Judgement, Verdict, judge

__all__ = [
    "RECOVERED",
    "AuditResult",
    "Change",
    "Check",
    "Checked",
    "Faithfulness",
    "Judgement",
    "Stop",
    "Verdict",
    "against_model",
    "against_outputs",
    "audit",
    "changes",
    "exact_attributions",
    "faithfulness",
    "judge",
    "sarif",
    "what_stops",
]
