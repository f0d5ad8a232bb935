"""What a probe has found so far."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from disintegrate.probe.result import Finding, Override, ProbeResult

# Why something was not found.
NOT_ASKED = "the budget did not reach so far"


class Findings:
    """Each is unknown until a step of the probe is through.

    Attributes:
        result: all of them.
    """

    def __init__(self) -> None:
        unknown: Finding[Any] = Finding(None, NOT_ASKED)
        self.result = ProbeResult(
            rules=unknown, baseline=unknown, output=unknown, wire=unknown, deterministic=unknown,
            steps_override=unknown, baseline_override=unknown, values=unknown, queries=0,
        )  # fmt: skip

    def add(self, **findings: object) -> None:
        """Take findings in, by the names that the result has for them."""
        self.result = replace(self.result, **findings)  # type: ignore[arg-type]

    @property
    def baseline_honoured(self) -> bool:
        """Whether the service takes a caller's baseline."""
        return self.result.baseline_override.value is Override.HONOURED

    @property
    def steps_honoured(self) -> bool:
        """Whether the service takes a caller's number of steps."""
        return self.result.steps_override.value is Override.HONOURED
