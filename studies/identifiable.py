"""Whether the answers to a probe's own questions set a rule apart from its nearest alternatives at all.

For a service that the probe left unknown, the same questions are put to services that differ from it in the rule alone:
same network, baseline, outputs and wire; each rule of the field with as many steps, and its own with one step more or
less. Questions for many steps are left out: they ask for the service's own number alone. If every number comes out
alike, nobody could have told, whatever is known of the network. If numbers differ, somebody who knew the network could;
the probe does not know it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from services import Truth, serve

from disintegrate import DisintegrateError, Request
from disintegrate.audit.choosing import alike
from disintegrate.quadrature import Quadrature
from disintegrate.rules import RULES, rule_named

# A question for more steps is whether they are the service's own number: all rules but few answer it otherwise.
MOST_STEPS = 16


def differing(truth: Truth, requests: Sequence[Request]) -> dict[str, float]:
    """The share of answered numbers that another rule would have answered otherwise, for each alternative."""
    requests = [request for request in requests if (request.steps or 0) <= MOST_STEPS]
    own = _answers(truth, requests)
    found = {}
    for rule, steps in _alternatives(truth):
        other = _answers(replace(truth, rule=rule, steps=steps), requests)
        same = (own == other) | (np.isnan(own) & np.isnan(other))
        found[f"{rule}({steps})"] = float((~same).mean())
    return found


def _alternatives(truth: Truth) -> list[tuple[str, int]]:
    wanted = [(rule, truth.steps) for rule in sorted(RULES)]
    wanted += [(truth.rule, truth.steps + 1), (truth.rule, truth.steps - 1)]
    own = rule_named(truth.rule)(truth.steps)
    kept: list[tuple[str, int]] = []
    seen: list[Quadrature] = [own]
    for rule, steps in wanted:
        try:
            quadrature = rule_named(rule)(steps)
        except DisintegrateError:
            continue
        if not any(alike(quadrature, other) for other in seen):
            seen.append(quadrature)
            kept.append((rule, steps))
    return kept


def _answers(truth: Truth, requests: Sequence[Request]) -> Float[np.ndarray, " n"]:
    """All numbers that a service answers to some requests, NaN for those of requests that it refuses."""
    explainer = serve(truth).explainer
    numbers: list[Float[np.ndarray, " n"]] = []
    for request in requests:
        try:
            answer = explainer.explain(request)
        except DisintegrateError:
            numbers.append(np.full(len(request.inputs) + request.inputs.size, np.nan))
            continue
        numbers += [answer.output.ravel(), answer.attribution.ravel()]
    return np.concatenate(numbers)
