"""The best estimate from answers to fixed queries: what they and their outputs tell of the ray shapes the weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64, Int

from disintegrate.explainers.protocol import Explainer, Output
from disintegrate.extrapolation import extrapolation, foretold_by_polynomial, is_smooth
from disintegrate.kriging import krige, predicted_distance
from disintegrate.noise import Noise, noise_of
from disintegrate.plan import Plan, Query
from disintegrate.planner import Proposal, Way
from disintegrate.recover import Answer, Recovery, ask, check_question, recover
from disintegrate.refit import fit_walk
from disintegrate.rules import rule_named
from disintegrate.saturating import Saturating, saturating
from disintegrate.walk import Prior, Stopped, Walk, affine_stretches

# Three values of float32 arithmetic lie on a line where they do within so many units of roundoff.
ROUNDING_OF_OUTPUTS = 6 * 2.0**-24
# Behind a softmax answers are extrapolated from queries that end no further out.
FARTHEST_SMOOTH = 3.0


def estimate(
    explainer: Explainer,
    inputs: Float[np.ndarray, "n *shape"],
    targets: Int[np.ndarray, " n"],
    queries: Sequence[Query],
    *,
    baselines: Float[np.ndarray, "n *shape"] | None = None,
    walk: Walk | None = None,
    noise: Noise | None = None,
    outputs: bool = True,
) -> Recovery:
    """Ask some queries and weigh the answers by kriging, with a prior that the answers themselves have shaped.

    The walk is fitted to the answers of all inputs together. The outputs at the queries' ends, which come with
    every explanation, show for each input on which stretches of the ray no kink lies; there its clock stands still.
    Where the answers are rather those of a model without kinks, they are extrapolated instead. Probabilities show
    where on the ray the softmax is saturated.

    Args:
        explainer: the service; its rule must be known.
        inputs: points whose gradients are wanted.
        targets: the outputs to explain.
        queries: what to ask of each input, such as those of a proposed plan.
        baselines: as for `recover`.
        walk: what to assume where the answers say nothing; None for a typical network.
        noise: on the answers; None for what the capabilities tell.
        outputs: whether to use the outputs; where they are logits, those of piecewise linear models only.

    Returns:
        The recovery; its plan is the kriging under the fitted walk, before the outputs of each input are heard.

    Raises:
        NotPermitted: a query that the service does not allow; nothing was asked then.
        InvalidValue: shapes that do not match, NaN, or what is no numpy array.
        UnknownName: the service's rule is none of this package's.
        BadAnswer: the service answered NaN, or another shape than it was asked.

    Example:
        >>> from torch import nn
        >>> from disintegrate.explainers import Capabilities, LocalExplainer
        >>> fixed = Capabilities(rule="gauss_legendre", fewest_steps=8, most_steps=8, baseline=False)
        >>> explainer = LocalExplainer(nn.Linear(3, 1).double(), fixed)
        >>> found = estimate(explainer, np.ones((1, 3)), np.array([0]), [Query(0, 1, 8), Query(0, 0.8, 8)])
        >>> weight = explainer.model.weight.numpy()
        >>> bool(np.allclose(found.gradient / np.linalg.norm(found.gradient), weight / np.linalg.norm(weight)))
        True
    """
    capabilities = explainer.capabilities
    rule, noise = rule_named(capabilities.rule), noise or noise_of(capabilities)
    asked = Plan((1.0, query) for query in queries)
    check_question(capabilities, asked, inputs, targets, baselines)
    answers = list(ask(explainer, inputs, targets, asked, baselines=baselines))
    integrals = np.stack([answer.integral.reshape(len(inputs), -1) for answer in answers], axis=1)
    products = np.einsum("nqd,nrd->nqr", integrals, integrals)
    soft = capabilities.output is Output.PROBABILITIES
    fitted = (walk or Walk()) if soft else fit_walk(products, queries, rule, noise, walk or Walk())
    common = krige(queries, rule, Saturating(fitted) if soft else fitted, noise)
    priors: list[Prior] = [fitted] * len(inputs)
    if outputs and soft:
        told = np.stack([answer.output for answer in answers], axis=1).astype(np.float64)
        positions = np.array([query.stop for query in queries])
        priors = [saturating(fitted, positions, row) for row in told]
    elif outputs:
        priors = [_stopped(fitted, queries, answers, row, noise) for row in range(len(inputs))]
    gradient, magnitude, expected = np.zeros(integrals.shape[::2]), np.zeros(len(inputs)), np.zeros(len(inputs))
    known: dict[Prior, tuple[Plan, float]] = {}
    for row, prior in enumerate(priors):
        if prior not in known:
            plan = krige(queries, rule, prior, noise)
            known[prior] = plan, predicted_distance(plan, rule, prior, noise)
        plan, expected[row] = known[prior]
        gradient[row], magnitude[row] = _weighed(plan, integrals[row])
    # far out no polynomial holds behind a softmax
    near = [place for place, query in enumerate(queries) if not soft or query.stop <= FARTHEST_SMOOTH]
    some, part = [queries[place] for place in near], integrals[:, near]
    smooth = extrapolation(some, rule) if is_smooth(part, some, rule, fitted, noise) else None
    if smooth is not None:
        # one answer foretold from the others, by a polynomial of one degree less
        foretold = foretold_by_polynomial(part, some, rule)
        if not soft or np.median(foretold) < np.median(expected):
            common, expected = smooth, np.minimum(foretold, expected)
            for row in range(len(inputs)):
                gradient[row], magnitude[row] = _weighed(smooth, part[row])
    observed = np.any([answer.observed for answer in answers], axis=0)
    return Recovery(
        gradient=gradient.reshape(inputs.shape),
        observed=observed,
        plan=common,
        queries=len(asked) * len(inputs),
        magnitude=magnitude,
        outputs=np.stack([answer.output for answer in answers], axis=1),
        nudged=np.zeros(inputs.shape, bool),
        predicted_error=expected,
    )


def carry_out(
    explainer: Explainer,
    inputs: Float[np.ndarray, "n *shape"],
    targets: Int[np.ndarray, " n"],
    proposal: Proposal,
    *,
    baselines: Float[np.ndarray, "n *shape"] | None = None,
) -> Recovery:
    """Execute a proposed plan as it is, or, where it is an estimate, with weights shaped by the answers.

    Raises:
        NotPermitted: a query that the service does not allow; nothing was asked then.
        InvalidValue: shapes that do not match, NaN, or what is no numpy array.
        BadAnswer: the service answered NaN, or another shape than it was asked.

    Example:
        >>> from torch import nn
        >>> from disintegrate.explainers import Capabilities, LocalExplainer
        >>> from disintegrate.planner import propose
        >>> explainer = LocalExplainer(nn.Linear(3, 1).double(), Capabilities(rule="gauss_legendre"))
        >>> found = carry_out(explainer, np.ones((1, 3)), np.array([0]), propose(explainer.capabilities))
        >>> bool(np.allclose(found.gradient, explainer.model.weight.numpy()))
        True
    """
    if proposal.way is Way.KRIGING:
        queries = [term.query for term in proposal.plan]
        return estimate(explainer, inputs, targets, queries, baselines=baselines)
    return recover(explainer, inputs, targets, proposal.plan, baselines=baselines)


def _weighed(plan: Plan, integrals: Float64[np.ndarray, "queries size"]) -> tuple[Float64[np.ndarray, " size"], float]:
    """The gradient, and the norms of all that was summed."""
    parts = np.array([term.coefficient for term in plan])[:, None] * integrals
    return parts.sum(axis=0), float(np.linalg.norm(parts, axis=1).sum())


def _stopped(fitted: Walk, queries: Sequence[Query], answers: Sequence[Answer], row: int, noise: Noise) -> Prior:
    positions: Float64[np.ndarray, " q"] = np.array([query.stop for query in queries])
    outputs = np.array([answer.output[row] for answer in answers])
    stretches = affine_stretches(positions, outputs, ROUNDING_OF_OUTPUTS + 3 * noise.relative)
    return Stopped(fitted, stretches) if stretches else fitted
