"""An audit's record as SARIF 2.1.0, for code-scanning pages."""

from __future__ import annotations

from typing import Any

from disintegrate import __version__
from disintegrate.audit.verdict import Verdict

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
RULE = "gradient-leak"
LEVELS = {Verdict.LEAKS: "error", Verdict.PARTLY: "warning", Verdict.NOT_SHOWN: "note"}


def sarif(record: dict[str, Any], target: str) -> dict[str, Any]:
    """One run with one result: what the audit of a target found.

    Example:
        >>> record = {"verdict": "leaks", "sentence": "Leaks.", "weakness": {"id": "AML.T0024.002"}}
        >>> sarif(record, "model.safetensors")["runs"][0]["results"][0]["level"] == "error"
        True
    """
    verdict = Verdict(record["verdict"])
    rule = {
        "id": RULE,
        "name": "ExplanationsLeakGradients",
        "shortDescription": {"text": "Explanations give away the model's gradient"},
        "properties": {"tags": ["security", record["weakness"]["id"]]},
    }
    result = {
        "ruleId": RULE,
        "level": LEVELS[verdict],
        "kind": "fail" if verdict is not Verdict.NOT_SHOWN else "informational",
        "message": {"text": record["sentence"]},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": target}}}],
    }
    driver = {"name": "disintegrate", "version": __version__, "rules": [rule]}
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": [result]}]}
