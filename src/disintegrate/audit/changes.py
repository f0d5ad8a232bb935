"""What an owner can change about a service, one thing at a time, as capabilities."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from disintegrate.explainers.protocol import Capabilities, Output
from disintegrate.explainers.wire import Wire

# The least steps that a floor leaves, and the digits that are tried.
FLOOR, DIGITS = 20, (5, 4, 3)


@dataclass(frozen=True)
class Change:
    """A change of a service's settings.

    Attributes:
        words: what the owner does.
        changed: the capabilities afterwards.
    """

    words: str
    changed: Capabilities


def changes(allowed: Capabilities) -> tuple[Change, ...]:
    """All single changes that take something away, and the strictest settings together.

    Example:
        >>> [change.words for change in changes(Capabilities("midpoint", 50, 50, baseline=False, furthest=1))][0]
        'explain probabilities'
    """
    return tuple(_changes(allowed))


def _changes(allowed: Capabilities) -> Iterator[Change]:
    own, frozen, strict = allowed.own_steps, allowed.fewest_steps == allowed.most_steps, allowed
    if not frozen:
        strict = replace(strict, fewest_steps=own, most_steps=own, default_steps=own)
        yield Change(f"freeze the steps at {own}", strict)
        if allowed.fewest_steps < FLOOR < allowed.most_steps:
            floor = replace(allowed, fewest_steps=FLOOR, default_steps=max(own, FLOOR))
            yield Change(f"refuse fewer than {FLOOR} steps", floor)
    if allowed.baseline:
        strict = replace(strict, baseline=False)
        yield Change("pin the baseline", replace(allowed, baseline=False))
        if not frozen:
            yield Change("freeze the steps and pin the baseline", strict)
    if allowed.furthest > 1:
        strict = replace(strict, furthest=1.0)
        yield Change("refuse points beyond a true input", replace(allowed, furthest=1.0))
    if allowed.output is Output.LOGITS:
        yield Change("explain probabilities", replace(allowed, output=Output.PROBABILITIES))
    for wire, words in _coarser(allowed.wire):
        yield Change(words, replace(allowed, wire=wire))
    coarsest = replace(allowed.wire, dtype=None, significant_digits=DIGITS[-1])
    if strict != allowed:
        yield Change("all of it but digits", strict)
        yield Change(f"all of it, and round to {DIGITS[-1]} digits", replace(strict, wire=coarsest))


def _coarser(wire: Wire) -> Iterator[tuple[Wire, str]]:
    for digits in DIGITS:
        if wire.significant_digits is None or wire.significant_digits > digits:
            yield replace(wire, dtype=None, significant_digits=digits), f"round answers to {digits} significant digits"
    if wire.dtype != "float16" and wire.significant_digits is None:
        yield replace(wire, dtype="float16"), "answer in float16"
