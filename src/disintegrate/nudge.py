"""Coordinates where the input equals the baseline: moved by a small step, so that the answer tells of them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Float64

from disintegrate.errors import InvalidValue
from disintegrate.explainers.protocol import Capabilities
from disintegrate.plan import Plan


def nudged(
    plan: Plan,
    capabilities: Capabilities,
    inputs: Float[np.ndarray, "n *shape"],
    baselines: Float[np.ndarray, "n *shape"] | None = None,
) -> Plan:
    """The plan with the step that suits a service: `max(eps S, sqrt(a S))`, S the largest coordinate.

    A coordinate with `x_i = b_i` is answered 0. Asked at `b_i + s` it is answered `s` times its gradient, which
    leaves two errors. The wire's absolute error `a` (decimals, noise) is divided by `s`; a floating-point number has
    none. And the gradient is that at the moved input: the same where no kink of the model is crossed, and
    so the more alike the smaller `s`. With gradients of order 1 that change by their own size over a distance of
    order S, the sum `a / s + s / S` is least at `sqrt(a S)`. Without an absolute error the step is the smallest that
    the service's arithmetic can tell beside its inputs, one unit in the last place of S. `studies/nudge.py` measures
    the trade-off on a digit's dark pixels; the figures are in results/nudge.json.

    Raises:
        InvalidValue: inputs that are all zero, or not finite.

    Example:
        >>> from disintegrate.closed_form import single_step
        >>> service = Capabilities(rule="riemann_right", dtype="float32")
        >>> nudged(single_step(), service, np.array([[0.0, 1.0]])).nudge == 2**-23
        True
    """
    scale = float(max(np.abs(inputs).max(initial=0), 0 if baselines is None else np.abs(baselines).max(initial=0)))
    if not (math.isfinite(scale) and scale > 0):
        raise InvalidValue(
            "The scale of the inputs says how small a step is.",
            got=f"a largest coordinate of {scale}",
            instead="Give inputs that are not all zero, or a Plan(terms, nudge=...) of your own.",
        )
    resolution = float(np.finfo(capabilities.dtype or inputs.dtype).eps) * scale
    return replace(plan, nudge=max(resolution, math.sqrt(capabilities.wire.absolute * scale)))


def moved_inputs(
    plan: Plan,
    capabilities: Capabilities,
    inputs: Float[np.ndarray, "n *shape"],
    baselines: Float[np.ndarray, "n *shape"],
) -> Float[np.ndarray, "n *shape"]:
    """The inputs that a plan asks about: where they equal the baseline, its nudge away, inside the service's bounds.

    Upwards where that is permitted, else downwards; where neither is, the coordinate stays.

    Example:
        >>> from disintegrate.closed_form import single_step
        >>> images = Capabilities(rule="riemann_right", smallest_value=0, largest_value=1)
        >>> plan, x = replace(single_step(), nudge=0.25), np.array([[0.0, 1.0, 0.5]])
        >>> moved_inputs(plan, images, x, np.array([[0.0, 1.0, 0.0]])).tolist() == [[0.25, 0.75, 0.5]]
        True
    """
    if plan.nudge == 0:
        return inputs
    steps: Float64[np.ndarray, "n *shape"] = np.where(
        inputs + plan.nudge <= capabilities.largest_value,
        plan.nudge,
        np.where(inputs - plan.nudge >= capabilities.smallest_value, -plan.nudge, 0.0),
    )
    return np.where(inputs == baselines, inputs + steps.astype(inputs.dtype), inputs)
