"""The one query loop: it executes any plan and sums the answers to the gradient."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from disintegrate.errors import BadAnswer, InvalidValue, NotPermitted
from disintegrate.explainers.protocol import Capabilities, Explainer, Explanation, Request
from disintegrate.kriging import predicted_distance
from disintegrate.noise import noise_of
from disintegrate.nudge import moved_inputs
from disintegrate.plan import Plan, Query
from disintegrate.rules import RULES
from disintegrate.walk import Walk


@dataclass(frozen=True, eq=False)
class Recovery:
    """What a plan got out of a service.

    Attributes:
        gradient: the recovered gradient; 0 where it was not observed.
        observed: coordinates that some query tells of; elsewhere the answer is 0 whatever the gradient is.
        plan: the plan that was executed.
        queries: queries spent, over all inputs.
        outputs: for each input and each query of the plan, the target output where the query stops.
        nudged: coordinates that were moved by the plan's nudge, because the input equals the baseline there.
        magnitude: for each input, the sum over the queries of the norms of what was added up; against the
            norm of the gradient it says how many digits cancelled.
        predicted_error: for each input, the distance to expect between this gradient and the true one; NaN
            where the service's rule is not known.
    """

    gradient: Float64[np.ndarray, "n *shape"]
    observed: Bool[np.ndarray, "n *shape"]
    plan: Plan
    queries: int
    magnitude: Float64[np.ndarray, " n"]
    outputs: Float64[np.ndarray, "n queries"]
    nudged: Bool[np.ndarray, "n *shape"]
    predicted_error: Float64[np.ndarray, " n"]

    @property
    def output(self) -> Float64[np.ndarray, " n"]:
        """The target output at each input; NaN where no query of the plan stops there."""
        at_input = [index for index, term in enumerate(self.plan) if term.query.stop == 1]
        return self.outputs[:, at_input[0]] if at_input else np.full(len(self.outputs), np.nan)

    @property
    def cancelled_digits(self) -> Float64[np.ndarray, " n"]:
        """Decimal digits that the subtraction cost, for each input: log10 of magnitude over norm.

        Infinite where nothing was left.
        """
        norm = np.linalg.norm(self.gradient.reshape(len(self.gradient), -1), axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            digits: Float64[np.ndarray, " n"] = np.log10(self.magnitude / norm)
        return digits


def recover(
    explainer: Explainer,
    inputs: Float[np.ndarray, "n *shape"],
    targets: Int[np.ndarray, " n"],
    plan: Plan,
    *,
    baselines: Float[np.ndarray, "n *shape"] | None = None,
) -> Recovery:
    """Ask a service the queries of a plan and sum its answers: `sum_k c_k (e_k - s_k) IG_k / (x_k - b_k)`.

    Each answer is divided by the very difference that was sent, rounding included, so that equation (1)
    holds for it exactly; sums are float64. Where the input equals the baseline the answer is 0 whatever the gradient
    is: such a coordinate is reported as not observed, or moved by the plan's nudge (see `nudged`).

    Args:
        explainer: the service.
        inputs: points whose gradients are wanted.
        targets: the outputs to explain.
        plan: the queries and their coefficients.
        baselines: where the rays begin; None for zero. Where the service fixes a baseline that is not zero,
            this is it: nothing is sent then, but the answers are divided by the distance from it.

    Raises:
        NotPermitted: the plan needs what the service does not allow; nothing was asked then.
        InvalidValue: shapes that do not match, NaN, or what is no numpy array.
        BadAnswer: the service answered NaN, or another shape than it was asked.

    Example:
        >>> from torch import nn
        >>> from disintegrate.closed_form import step_count
        >>> from disintegrate.explainers import LocalExplainer
        >>> explainer = LocalExplainer(nn.Linear(3, 1), Capabilities(rule="riemann_right"))
        >>> recovery = recover(explainer, np.ones((1, 3)), np.array([0]), step_count(50))
        >>> bool(np.allclose(recovery.gradient, explainer.model.weight.numpy(), atol=1e-4))
        True
    """
    check_question(explainer.capabilities, plan, inputs, targets, baselines)
    gradient = np.zeros(inputs.shape)
    observed = np.zeros(inputs.shape, bool)
    magnitude, outputs = np.zeros(len(inputs)), []
    for term, answer in zip(plan, ask(explainer, inputs, targets, plan, baselines=baselines), strict=True):
        outputs.append(answer.output)
        part = term.coefficient * answer.integral
        gradient += part
        observed |= answer.observed
        magnitude += np.linalg.norm(part.reshape(len(part), -1), axis=1)
    return Recovery(
        gradient=gradient,
        observed=observed,
        plan=plan,
        queries=len(plan) * len(inputs),
        magnitude=magnitude,
        outputs=np.stack(outputs, axis=1),
        nudged=moved_inputs(plan, explainer.capabilities, inputs, _start(inputs, baselines)) != inputs,
        predicted_error=np.full(len(inputs), _expected(explainer.capabilities, plan)),
    )


@dataclass(frozen=True, eq=False)
class Answer:
    """The answers to one query, for all inputs.

    Attributes:
        integral: the measured gradient, `(e - s) IG / (x - b)`: atoms of weight `(e - s) w_i`.
        observed: coordinates that the query moved.
        output: the explained output at the query's far end.
    """

    integral: Float64[np.ndarray, "n *shape"]
    observed: Bool[np.ndarray, "n *shape"]
    output: Float64[np.ndarray, " n"]


def ask(
    explainer: Explainer,
    inputs: Float[np.ndarray, "n *shape"],
    targets: Int[np.ndarray, " n"],
    plan: Plan,
    *,
    baselines: Float[np.ndarray, "n *shape"] | None = None,
) -> Iterator[Answer]:
    """Ask the queries of a plan one after the other, and divide each answer by the difference that was sent.

    The plan's coefficients play no part, and the question must have passed `check_question`.

    Raises:
        BadAnswer: the service answered NaN, or another shape than it was asked.
    """
    dtype = np.dtype(explainer.capabilities.dtype or inputs.dtype)
    start = _start(inputs, baselines)
    asked = moved_inputs(plan, explainer.capabilities, inputs, start)
    bounds = explainer.capabilities.smallest_value, explainer.capabilities.largest_value
    for term in plan:
        # A point on the edge of what is permitted may be rounded across it.
        stop, begin = (np.clip(point, *bounds).astype(dtype) for point in ends_of(term.query, asked, start, dtype))
        named = begin if explainer.capabilities.baseline else None
        answer = explainer.explain(Request(stop, named, targets, term.query.steps))
        _check_answer(answer, stop)
        moved = stop.astype(np.float64) - begin
        seen = moved != 0
        integral = np.divide(answer.attribution, moved, out=np.zeros(inputs.shape), where=seen)
        yield Answer(term.query.length * integral, seen, np.asarray(answer.output, np.float64))


def ends_of(
    query: Query,
    inputs: Float[np.ndarray, "n *shape"],
    baselines: Float[np.ndarray, "n *shape"],
    dtype: np.dtype[np.floating],
) -> tuple[Float[np.ndarray, "n *shape"], Float[np.ndarray, "n *shape"]]:
    """The two ends that go out for a query, the far one first, rounded to the dtype in which they are sent."""

    def point(position: float) -> Float[np.ndarray, "n *shape"]:
        # The two ends are sent as they are: b + (x - b) may differ from x in its last digit.
        if position in (0, 1):
            return (inputs if position else baselines).astype(dtype)
        wide = baselines.astype(np.float64)
        return (wide + position * (inputs - wide)).astype(dtype)

    return point(query.stop), point(query.start)


def check_question(
    capabilities: Capabilities,
    plan: Plan,
    inputs: Float[np.ndarray, "n *shape"],
    targets: Int[np.ndarray, " n"],
    baselines: Float[np.ndarray, "n *shape"] | None,
) -> None:
    """Refuse what the service would refuse, or could not answer, before anything is asked.

    Raises:
        NotPermitted: the plan needs what the service does not allow.
        InvalidValue: shapes that do not match, NaN, or what is no numpy array.
    """
    _check_types(plan, inputs, targets, baselines)
    start = _start(inputs, baselines)
    _check(capabilities, plan, inputs, targets, start)
    _check_reach(capabilities, plan, moved_inputs(plan, capabilities, inputs, start), start)


def _start(
    inputs: Float[np.ndarray, "n *shape"], baselines: Float[np.ndarray, "n *shape"] | None
) -> Float[np.ndarray, "n *shape"]:
    return np.zeros_like(inputs) if baselines is None else baselines


def _expected(capabilities: Capabilities, plan: Plan) -> float:
    """The distance to expect under the default walk; NaN where the rule has another name than ours."""
    if capabilities.rule not in RULES:
        return math.nan
    return predicted_distance(plan, RULES[capabilities.rule], Walk(), noise_of(capabilities))


def _check_types(plan: object, inputs: object, targets: object, baselines: object) -> None:
    if not isinstance(plan, Plan):
        got = type(plan).__name__
        raise InvalidValue("A plan is wanted.", got=got, instead="Use step_count(50), or Plan.from_json(text).")
    for name, given in (("inputs", inputs), ("targets", targets), ("baselines", baselines)):
        if not isinstance(given, np.ndarray) and not (given is None and name == "baselines"):
            got = type(given).__name__
            raise InvalidValue(f"The {name} must be a numpy array.", got=got, instead=f"Use np.asarray({name}).")
    if isinstance(targets, np.ndarray) and not np.issubdtype(targets.dtype, np.integer):
        raise InvalidValue("Targets are indices of outputs.", got=targets.dtype, instead="Use targets.astype(int).")


def _check_answer(answer: Explanation, asked: Float[np.ndarray, "n *shape"]) -> None:
    if answer.attribution.shape != asked.shape:
        raise BadAnswer(
            "The service answered attributions of another shape than its inputs.",
            got=f"{answer.attribution.shape} for {asked.shape}",
            instead="Check that the explainer answers one attribution for each coordinate.",
        )
    if answer.output.shape != asked.shape[:1]:
        raise BadAnswer(
            "The service answered outputs of another shape than one for each input.",
            got=f"{answer.output.shape} for {len(asked)} inputs",
            instead="Check that the explainer answers the target's output at each input, NaN where it tells none.",
        )
    if not np.isfinite(answer.attribution).all():
        raise BadAnswer(
            "The service answered NaN or infinity.",
            got=f"{int((~np.isfinite(answer.attribution)).sum())} such attributions",
            instead="Check the model's weights, and that it is finite at the baseline and beyond the input.",
        )


def _check(
    capabilities: Capabilities,
    plan: Plan,
    inputs: Float[np.ndarray, "..."],
    targets: Int[np.ndarray, "..."],
    baselines: Float[np.ndarray, "..."],
) -> None:
    for term in plan:
        capabilities.check_steps(term.query.steps)
        if term.query.start != 0 and not capabilities.baseline:
            raise NotPermitted(
                "The service does not allow a baseline of the caller's.",
                got=f"a query from {term.query.start}",
                instead="Use a plan whose queries all start at 0.",
            )
    if targets.shape != inputs.shape[:1] or baselines.shape != inputs.shape or inputs.ndim < 2 or len(inputs) == 0:
        raise InvalidValue(
            "Inputs need a batch dimension, one target each and baselines of their shape.",
            got=f"inputs {inputs.shape}, targets {targets.shape}, baselines {baselines.shape}",
            instead="Give inputs of shape [n, ...], n targets, and baselines like the inputs.",
        )
    if not (np.isfinite(inputs).all() and np.isfinite(baselines).all()):
        raise InvalidValue("Inputs and baselines must be finite.", got="NaN or infinity", instead="Give numbers.")
    capabilities.check_baselines(baselines)


def _check_reach(
    capabilities: Capabilities, plan: Plan, inputs: Float[np.ndarray, "..."], baselines: Float[np.ndarray, "..."]
) -> None:
    lowest, highest = capabilities.reach(inputs, baselines)
    ends = [end for term in plan for end in (term.query.start, term.query.stop)]
    slack = 1e-12 * max(1.0, *map(abs, ends))
    if min(ends) < lowest - slack or max(ends) > highest + slack:
        raise NotPermitted(
            "The plan asks for points that the service would refuse.",
            got=f"positions from {min(ends):.6g} to {max(ends):.6g} on the ray",
            instead=f"Use a plan that stays within {lowest:.6g} to {highest:.6g}.",
        )
