from .result import Baseline, Finding, NamedRule, Override, ProbeResult
from .service import probe

__all__ = ["Baseline", "Finding", "NamedRule", "Override", "ProbeResult", "probe"]
