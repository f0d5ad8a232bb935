"""A plan: which queries to ask, and with which coefficients their answers add up to the gradient."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from disintegrate.errors import InvalidValue
from disintegrate.measure import Measure
from disintegrate.quadrature import Rule


@dataclass(frozen=True)
class Query:
    """One question to the service: explain the ray from `b + start (x - b)` to `b + stop (x - b)` in `steps` steps.

    Raises:
        InvalidValue: an empty or infinite interval, or steps below 1.
    """

    start: float
    stop: float
    steps: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start) and math.isfinite(self.stop)) or self.start == self.stop:
            raise InvalidValue(
                "A query needs two different finite ends on the ray.",
                got=f"[{self.start}, {self.stop}]",
                instead="Use Query(0, 1, steps) for the whole ray.",
            )
        if isinstance(self.steps, bool) or self.steps != int(self.steps) or self.steps < 1:
            raise InvalidValue(
                "The steps of a query must be a whole number of at least 1.",
                got=self.steps,
                instead="Use steps=1 or more.",
            )

    @property
    def length(self) -> float:
        """Signed length of the interval, in units of the ray."""
        return self.stop - self.start


@dataclass(frozen=True)
class Term:
    """A query and the coefficient of its answer in the sum."""

    coefficient: float
    query: Query


@dataclass(frozen=True)
class Cost:
    """What a plan costs: queries to pay for, and gradients of the model that the service computes."""

    queries: int
    gradients: int


@dataclass(frozen=True, init=False)
class Plan:
    """Queries with coefficients; it holds no rule, for what it measures hangs on the service's.

    Attributes:
        terms: the queries and their coefficients.
        nudge: how far a coordinate of the input that equals the baseline's is moved before anything is asked, so
            that the answers tell of it too; 0 for not at all. The gradient is then that at the moved input.

    Raises:
        InvalidValue: no queries, coefficients that are not finite, a nudge that is negative.

    Example:
        >>> from disintegrate.quadrature import riemann_right
        >>> plan = Plan([(50, Query(0, 1, 50)), (-50, Query(0, 49 / 50, 49))])
        >>> plan.measure(riemann_right).positions.tolist() == [1.0]
        True
    """

    terms: tuple[Term, ...]
    nudge: float

    def __init__(self, terms: Iterable[Term | tuple[float, Query]], nudge: float = 0.0) -> None:
        listed = tuple(term if isinstance(term, Term) else Term(float(term[0]), term[1]) for term in terms)
        if not listed:
            raise InvalidValue(
                "A plan needs at least one query.", got="none", instead="Use Plan([(1, Query(0, 1, steps))])."
            )
        if not all(math.isfinite(term.coefficient) for term in listed):
            raise InvalidValue(
                "The coefficients of a plan must be finite.",
                got=[t.coefficient for t in listed],
                instead="Give numbers.",
            )
        if not (math.isfinite(nudge) and nudge >= 0):
            raise InvalidValue("A nudge is a distance.", got=nudge, instead="Use 0 for none, or a small step.")
        object.__setattr__(self, "terms", listed)
        object.__setattr__(self, "nudge", float(nudge))

    def __iter__(self) -> Iterator[Term]:
        return iter(self.terms)

    def __len__(self) -> int:
        return len(self.terms)

    def measure(self, rule: Rule) -> Measure:
        """The measure on the ray whose integral of the gradient the plan's answers sum to.

        A query answers with atoms at `start + t_i (stop - start)` of weight `(stop - start) w_i`, by
        equation (1); the plan adds them up with its coefficients.
        """
        positions, weights = [], []
        for term in self.terms:
            quadrature = rule(term.query.steps)
            positions.append(term.query.start + quadrature.nodes * term.query.length)
            weights.append(term.coefficient * term.query.length * quadrature.weights)
        return Measure(np.concatenate(positions), np.concatenate(weights))

    @property
    def amplification(self) -> float:
        """Euclidean norm of the coefficients: what independent noise on the answers is multiplied by."""
        return math.hypot(*(term.coefficient for term in self.terms))

    @property
    def cost(self) -> Cost:
        """Number of queries and of gradients behind them, for one input."""
        return Cost(len(self.terms), sum(term.query.steps for term in self.terms))

    def to_json(self) -> str:
        """The plan as JSON.

        Example:
            >>> plan = Plan([(2, Query(0.5, 1, 8))])
            >>> Plan.from_json(plan.to_json()) == plan
            True
        """
        terms = tuple(
            _TermJSON(coefficient=t.coefficient, start=t.query.start, stop=t.query.stop, steps=t.query.steps)
            for t in self.terms
        )
        # A plan without a nudge is written as it was before there were any: records are found by this text.
        return _PlanJSON(terms=terms, nudge=self.nudge).model_dump_json(exclude_defaults=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Plan:
        """Read a plan back.

        Raises:
            InvalidValue: the text is not the JSON of a plan.
        """
        try:
            read = _PlanJSON.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            raise InvalidValue(
                "This is not the JSON of a plan.",
                got=f"{first['msg']} at {'.'.join(map(str, first['loc'])) or 'the top'}",
                instead='Write {"terms": [{"coefficient": 1, "start": 0, "stop": 1, "steps": 50}]}.',
            ) from None
        terms = ((term.coefficient, Query(term.start, term.stop, term.steps)) for term in read.terms)
        return cls(terms, nudge=read.nudge)


class _TermJSON(BaseModel):
    model_config = ConfigDict(extra="forbid")

    coefficient: float
    start: float
    stop: float
    steps: int


class _PlanJSON(BaseModel):
    model_config = ConfigDict(extra="forbid")

    terms: tuple[_TermJSON, ...]
    nudge: float = 0.0
