"""The paper's own formulas, as they are printed, against the settings of a service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from disintegrate.audit.verdict import Judgement
from disintegrate.closed_form import bias_free, shared_piece, step_count
from disintegrate.exact import asked_of
from disintegrate.explainers.protocol import Capabilities
from disintegrate.plan import Plan
from disintegrate.rules import rule_named

# The alpha of the paper's experiments.
ALPHA = 0.98


@dataclass(frozen=True)
class PaperFormula:
    """One of the paper's formulas, and what it gets out of a service.

    Attributes:
        equation: its number in the paper.
        judgement: of the gradients that it recovers.
    """

    equation: str
    judgement: Judgement

    def record(self) -> dict[str, Any]:
        """As plain values for JSON."""
        found = self.judgement
        return {
            "equation": self.equation, "verdict": found.verdict.value, "share_recovered": found.share_recovered,
            "median_distance": found.median_distance, "queries_per_gradient": found.queries_per_gradient,
        }  # fmt: skip


def formulas(allowed: Capabilities) -> dict[str, Plan]:
    """Equations (2), (3) and, where two neighbouring step counts may be asked for, (4); whatever the service's rule.

    Example:
        >>> list(formulas(Capabilities("riemann_right"))) == ["(2)", "(3)", "(4)"]
        True
        >>> list(formulas(Capabilities("riemann_right", 50, 50))) == ["(2)", "(3)"]
        True
    """
    steps = min(max(allowed.own_steps, allowed.fewest_steps), allowed.most_steps)
    found = {"(2)": bias_free(steps), "(3)": shared_piece(ALPHA, steps)}
    larger, rule = max(steps, allowed.fewest_steps + 1), rule_named(allowed.rule)
    if larger <= allowed.most_steps and asked_of(rule, larger - 1) is not None:
        found["(4)"] = step_count(larger)
    return found


def best_formula(tried: Sequence[PaperFormula]) -> PaperFormula:
    """The one of the worst verdict for the service; of equal ones, the nearest to the truth."""
    return max(tried, key=lambda one: (one.judgement.verdict.rank, -one.judgement.median_distance))
