"""What the probe found: each finding a value or None, with its evidence as a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Float64

from disintegrate.errors import InvalidValue
from disintegrate.explainers.protocol import Capabilities, Output
from disintegrate.explainers.wire import Wire

T = TypeVar("T")


class Override(Enum):
    """What a service does with a value that its caller sets; the value is the word shown."""

    HONOURED = "honoured"
    IGNORED = "ignored"
    REFUSED = "refused"


@dataclass(frozen=True)
class Finding(Generic[T]):
    """A value, or None for unknown, and why."""

    value: T | None
    evidence: str


@dataclass(frozen=True)
class NamedRule:
    """A rule of `RULES` with its number of steps."""

    rule: str
    steps: int


@dataclass(frozen=True, eq=False)
class Baseline:
    """A service's own baseline.

    Attributes:
        name: "zero", "mean of the inputs", or what the caller called it; "another" where it was solved for.
        point: the baseline, of the shape of one input.
        error: how far each coordinate may be off; infinite where nothing is known of it.
    """

    name: str
    point: Float64[np.ndarray, "*shape"]
    error: Float64[np.ndarray, "*shape"]


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """What stands behind an explainer.

    Attributes:
        rules: the rules and steps that have the nodes and weights found; several names may share them.
        baseline: the service's own baseline.
        output: logits or probabilities.
        wire: in which digits the answers come.
        deterministic: whether the same question got the same answer.
        steps_override: what the service does with steps of the caller's.
        baseline_override: what it does with a baseline of the caller's.
        values: the smallest and the largest coordinate that it took.
        queries: rows that were asked, refused ones included.
        refused_values: whether it refused a coordinate further out.
        possible: rules that the answers leave where they do not settle on one.
    """

    rules: Finding[tuple[NamedRule, ...]]
    baseline: Finding[Baseline]
    output: Finding[Output]
    wire: Finding[Wire]
    deterministic: Finding[bool]
    steps_override: Finding[Override]
    baseline_override: Finding[Override]
    values: Finding[tuple[float, float]]
    queries: int
    refused_values: bool = False
    possible: tuple[NamedRule, ...] = ()

    def capabilities(self) -> Capabilities:
        """What the service lets its callers do, as the plans need it.

        What is unknown is taken as the least: overrides not honoured, logits, nothing rounded.

        Raises:
            InvalidValue: the rule is unknown.
        """
        if not self.rules.value:
            raise InvalidValue(
                "The rule of this service is unknown, so no plan can be exact for it.",
                got=self.rules.evidence,
                instead="Probe with a larger budget, or give Capabilities(rule=...) if you know the rule.",
            )
        first = self.rules.value[0]
        honoured = self.steps_override.value is Override.HONOURED
        return Capabilities(
            rule=first.rule,
            fewest_steps=1 if honoured else first.steps,
            most_steps=10_000 if honoured else first.steps,
            baseline=self.baseline_override.value is Override.HONOURED,
            zero_baseline=self.baseline.value is None or self.baseline.value.name == "zero",
            default_steps=first.steps,
            output=self.output.value or Output.LOGITS,
            wire=self.wire.value or Wire(deterministic=self.deterministic.value is not False),
        )

    def record(self) -> dict[str, Any]:
        """The findings as plain values for JSON: None for unknown, and the evidence beside it."""
        at, output, wire = self.baseline.value, self.output.value, self.wire.value
        values: dict[str, tuple[object, Finding[Any]]] = {
            "rule and steps": (
                [f"{named.rule}({named.steps})" for named in self.rules.value] if self.rules.value else None,
                self.rules,
            ),
            "baseline": (at.name if at else None, self.baseline),
            "output": (output.value if output else None, self.output),
            "digits": (_worded(wire) if wire else None, self.wire),
            "deterministic": (self.deterministic.value, self.deterministic),
            "steps of the caller": (self._word(self.steps_override), self.steps_override),
            "baseline of the caller": (self._word(self.baseline_override), self.baseline_override),
            "values": (self.values.value, self.values),
        }
        findings = {name: {"value": value, "evidence": finding.evidence} for name, (value, finding) in values.items()}
        return {"findings": findings, "queries": self.queries}

    @staticmethod
    def _word(finding: Finding[Override]) -> str | None:
        return finding.value.value if finding.value else None


def _worded(wire: Wire) -> str:
    if wire.significant_digits is not None:
        return f"{wire.significant_digits} significant digits"
    if wire.decimals is not None:
        return f"{wire.decimals} decimals"
    return wire.dtype or "all"
