"""What the owner of a service says of it, held against what the service does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from disintegrate.errors import InvalidValue
from disintegrate.explainers.protocol import Capabilities, Output
from disintegrate.explainers.wire import Wire
from disintegrate.probe.result import Override, ProbeResult
from disintegrate.rules import rule_named


@dataclass(frozen=True)
class Said:
    """What somebody says a service does; None for what they leave to the probe.

    Attributes:
        rule: the quadrature rule.
        steps: the fewest and the most that a caller may set; equal where the service fixes them.
        own_steps: the service's own, where a caller names none.
        baseline: whether a caller may set one.
        output: logits or probabilities.
        significant_digits: of the answers.

    Raises:
        UnknownName: there is no such rule.
        InvalidValue: bounds on the steps that leave nothing to ask.

    Example:
        >>> Said(rule="midpoint", steps=(1, 100)).free_steps
        True
    """

    rule: str | None = None
    steps: tuple[int, int] | None = None
    own_steps: int | None = None
    baseline: bool | None = None
    output: Output | None = None
    significant_digits: int | None = None

    def __post_init__(self) -> None:
        if self.rule is not None:
            rule_named(self.rule)
        if self.steps is not None and not 1 <= self.steps[0] <= self.steps[1]:
            raise InvalidValue(
                "These bounds on the steps leave nothing to ask.",
                got=f"{self.steps[0]} to {self.steps[1]}",
                instead="Give the fewest first, at least 1.",
            )

    @property
    def free_steps(self) -> bool | None:
        """Whether a caller may set the steps."""
        return None if self.steps is None else self.steps[0] != self.steps[1]

    def tried_steps(self) -> tuple[int, ...] | None:
        """Steps that a service which does as is said takes; None where nothing is said of them."""
        if self.steps is None or not self.free_steps:
            return None
        fewest, most = self.steps
        return (fewest, most) if most - fewest == 1 else (fewest, fewest + 1, most)


def settings(said: Said, found: ProbeResult, allowed: Capabilities, rule: str) -> Capabilities:
    """What a service lets its callers do: as it was found to do, else as is said, else the least.

    Args:
        said: the owner's word.
        found: what the probe saw.
        allowed: what the protocol permits.
        rule: the rule to assume.
    """
    steps = found.steps_override.value
    free = steps is Override.HONOURED if steps is not None else bool(said.free_steps)
    own = found.rules.value[0].steps if found.rules.value else said.own_steps
    if said.steps is not None and not said.free_steps:
        own = said.steps[0]
    if free:
        fewest, most = said.steps if said.steps and said.free_steps else (1, 10_000)
        most = min(most, allowed.most_steps)
        own = own if own is not None and fewest <= own <= most else None
    else:
        fewest = most = own = own or allowed.own_steps
    at, baseline = found.baseline.value, found.baseline_override.value
    wire = found.wire.value or (Wire(significant_digits=said.significant_digits) if said.significant_digits else None)
    return Capabilities(
        rule, min(fewest, most), most,
        baseline=baseline is Override.HONOURED if baseline is not None else bool(said.baseline),
        zero_baseline=at is None or at.name == "zero",
        dtype=allowed.dtype,
        default_steps=own,
        output=found.output.value or said.output or Output.LOGITS,
        wire=wire or Wire(deterministic=found.deterministic.value is not False),
    )  # fmt: skip


def contradictions(said: Said, found: ProbeResult) -> tuple[str, ...]:
    """Where a service does not do what is said of it, each as a sentence."""
    return tuple(_contradictions(said, found))


def _contradictions(said: Said, found: ProbeResult) -> Iterator[str]:
    named = [(rule.rule, rule.steps) for rule in found.rules.value or ()]
    if said.rule is not None and named and said.rule not in [rule for rule, _ in named]:
        yield f"It was said that the rule is {said.rule}, but it is {named[0][0]}: {found.rules.evidence}."
    for free, override, what in (
        (said.free_steps, found.steps_override, "steps"),
        (said.baseline, found.baseline_override, "a baseline"),
    ):
        if free is not None and override.value is not None and free is not (override.value is Override.HONOURED):
            word = "may" if free else "may not"
            done = f"{'they are' if what == 'steps' else 'it is'} {override.value.value}"
            yield f"It was said that callers {word} set {what}, but {done}: {override.evidence}."
    output, wire = found.output.value, found.wire.value
    if said.output is not None and output is not None and output is not said.output:
        evidence = found.output.evidence
        yield f"It was said that {said.output.value} are explained, but these are {output.value}: {evidence}."
    if said.significant_digits is not None and wire is not None and wire.significant_digits != said.significant_digits:
        yield (
            f"It was said that answers have {said.significant_digits} significant digits, but {found.wire.evidence}."
        )
