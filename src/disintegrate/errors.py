"""Every exception this package raises on purpose.

    DisintegrateError            exit code 1
    ├── Misuse                   exit code 2: what the caller gave cannot be used
    │   ├── InvalidValue         a number, shape or array that is out of range (also a ValueError)
    │   ├── UnknownName          no network, rule or file of that name (also a LookupError)
    │   ├── NotPermitted         a query that the explainer's capabilities do not allow
    │   ├── Untrusted            a file that could run code when it is loaded
    │   └── KeyRefused           a service wants a key, or does not take the one that was sent
    ├── DamagedFile              a file exists and is not what it should be
    ├── BadAnswer                a service answered what cannot be an explanation
    ├── Unreachable              a request surely was not answered: refused, turned away, overloaded
    ├── InDoubt                  a request went out and no whole answer came: it may have been paid for
    ├── BudgetSpent              the budget does not cover the next query
    ├── TargetChanged            a service answers an old question in a new way
    ├── WorkerLost               several workers of an engine died at the same inputs
    └── UnwritableOutput         a result could not be stored

Each carries one sentence on what was wrong, what was given, and what to write instead.
"""

from __future__ import annotations

from typing import ClassVar


class DisintegrateError(Exception):
    """The root of all exceptions of this package.

    Example:
        >>> error = DisintegrateError("The steps must be at least 1.", got=0, instead="Use steps=1.")
        >>> str(error) == "The steps must be at least 1. Got 0. Use steps=1."
        True
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, problem: str, *, got: object = None, instead: str = "") -> None:
        self.problem = problem
        self.got = got
        self.instead = instead
        given = "" if got is None else f"Got {got}."
        super().__init__(" ".join(part for part in (problem, given, instead) if part))


class Misuse(DisintegrateError):
    """What the caller gave cannot be used."""

    exit_code = 2


class InvalidValue(Misuse, ValueError):
    """A number, shape or array is out of its range."""


class UnknownName(Misuse, LookupError):
    """Nothing of that name exists."""


class NotPermitted(Misuse):
    """The explainer's capabilities do not allow the query."""


class Untrusted(Misuse):
    """A file could run code when it is loaded."""


class KeyRefused(Misuse):
    """A service wants a key, or does not take the one that was sent."""


class DamagedFile(DisintegrateError):
    """A file exists and is not what it should be."""


class BadAnswer(DisintegrateError):
    """A service answered what cannot be an explanation."""


class Unreachable(DisintegrateError):
    """A request surely was not answered.

    Attributes:
        retry_after: seconds that the service asked to wait; None where it named none.
        lasting: whether trying again is of no use.
    """

    def __init__(
        self,
        problem: str,
        *,
        got: object = None,
        instead: str = "",
        retry_after: float | None = None,
        lasting: bool = False,
    ) -> None:
        super().__init__(problem, got=got, instead=instead)
        self.retry_after = retry_after
        self.lasting = lasting


class InDoubt(DisintegrateError):
    """A request went out and no whole answer came back: it may have been paid for."""


class BudgetSpent(DisintegrateError):
    """The budget does not cover the next query."""


class TargetChanged(DisintegrateError):
    """A service answers an old question in a new way."""


class WorkerLost(DisintegrateError):
    """Several workers of an engine died at the same inputs."""


class UnwritableOutput(DisintegrateError):
    """A result could not be stored."""
