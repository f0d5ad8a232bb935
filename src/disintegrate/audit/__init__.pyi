from .changes import Change, changes
from .checking import Check, Checked, against_model, against_outputs
from .choosing import Choice, Tried, choose
from .examples import Example
from .faithfulness import Faithfulness, exact_attributions, faithfulness
from .knowing import first_look
from .log import LogAudit, audit_log
from .log_file import Log, read_log
from .provenance import provenance
from .record import AuditRecord, read_record, record_of, written
from .result import AuditResult
from .run import audit
from .sarif import sarif
from .stopping import Stop, what_stops
from .verdict import RECOVERED, Judgement, Verdict, judge
from .word import Said

__all__ = [
    "RECOVERED",
    "AuditRecord",
    "AuditResult",
    "Change",
    "Check",
    "Checked",
    "Choice",
    "Example",
    "Faithfulness",
    "Judgement",
    "Log",
    "LogAudit",
    "Said",
    "Stop",
    "Tried",
    "Verdict",
    "against_model",
    "against_outputs",
    "audit",
    "audit_log",
    "changes",
    "choose",
    "exact_attributions",
    "faithfulness",
    "first_look",
    "judge",
    "provenance",
    "read_log",
    "read_record",
    "record_of",
    "sarif",
    "what_stops",
    "written",
]
