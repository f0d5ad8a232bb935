"""Plans known in closed form: the paper's three equations, and two that need one query.

Each is data. What a plan is exact for hangs on the service's rule: ask `plan.measure(rule).exactness`.
"""

from __future__ import annotations

from disintegrate.errors import InvalidValue
from disintegrate.plan import Plan, Query


def bias_free(steps: int) -> Plan:
    """Equation (2), `x^-1 IG_m(x)`: the plain answer, for models whose gradient is constant on the ray.

    Example:
        >>> from disintegrate.quadrature import riemann_right
        >>> bias_free(50).measure(riemann_right).exact_for_bias_free
        True
    """
    return Plan([(1, Query(0, 1, steps))])


def shared_piece(alpha: float, steps: int) -> Plan:
    """Equation (3), `(1 / (1 - a)) x^-1 (IG_m(x) - IG_m(a x))`, for `x` and `a x` in one linear region.

    The paper proves it for the integral. With `m` steps the two sums do not cancel below `a`: the measure
    keeps atoms on the whole ray, and the plan is exact only where the gradient is constant there.

    Raises:
        InvalidValue: alpha outside (0, 1), or steps below 1.

    Example:
        >>> from disintegrate.quadrature import riemann_right
        >>> abs(shared_piece(0.98, 50).measure(riemann_right).mass - 1) < 1e-12
        True
    """
    if not 0 < alpha < 1:
        raise InvalidValue(
            "The alpha of equation (3) must lie between 0 and 1.",
            got=alpha,
            instead="Use 0.98 as the paper does.",
        )
    coefficient = 1 / (1 - alpha)
    return Plan([(coefficient, Query(0, 1, steps)), (-coefficient, Query(0, alpha, steps))])


def step_count(steps: int) -> Plan:
    """Equation (4), `m x^-1 (IG_m(x) - IG_{m-1}((m-1)/m x))`: all gradients but the last one cancel.

    Raises:
        InvalidValue: steps below 2.

    Example:
        >>> from disintegrate.measure import Exactness
        >>> from disintegrate.quadrature import riemann_right
        >>> step_count(50).measure(riemann_right).exactness is Exactness.EVERY_MODEL
        True
    """
    if steps < 2:
        raise InvalidValue(
            "Equation (4) subtracts a query with one step less, so its steps must be at least 2.",
            got=steps,
            instead="Use single_step(), which needs no second query.",
        )
    return Plan([(steps, Query(0, 1, steps)), (-steps, Query(0, (steps - 1) / steps, steps - 1))])


def single_step() -> Plan:
    """One query with one step: the right Riemann rule then answers the gradient at the input itself.

    Nothing is subtracted, so nothing cancels. A rule with its one node half-way (midpoint, Gauss-Legendre)
    wants `single_step_beyond`.

    Example:
        >>> from disintegrate.measure import Exactness
        >>> from disintegrate.quadrature import riemann_right
        >>> single_step().measure(riemann_right).exactness is Exactness.EVERY_MODEL
        True
    """
    return Plan([(1, Query(0, 1, 1))])


def single_step_beyond() -> Plan:
    """One query with one step on [0, 2], whose node half-way is the input: for midpoint and Gauss-Legendre.

    Example:
        >>> from disintegrate.measure import Exactness
        >>> from disintegrate.quadrature import gauss_legendre
        >>> single_step_beyond().measure(gauss_legendre).exactness is Exactness.EVERY_MODEL
        True
    """
    return Plan([(0.5, Query(0, 2, 1))])


def baseline_window(width: float, steps: int, *, centred: bool = False) -> Plan:
    """One query from a baseline of the caller's own, close to the input: `[1 - h, 1]`, or `[1 - h, 1 + h]`.

    Any rule of mass 1, any steps; exact when no kink of the model lies in the window.

    Raises:
        InvalidValue: a width outside (0, 1], or steps below 1.

    Example:
        >>> from disintegrate.quadrature import trapezoid
        >>> baseline_window(0.125, 50).measure(trapezoid).piece == (0.875, 1.0)
        True
    """
    if not 0 < width <= 1:
        raise InvalidValue(
            "The width of a baseline window must lie above 0 and not above 1.",
            got=width,
            instead="Use 1e-3, for example.",
        )
    stop = 1 + width if centred else 1.0
    query = Query(1 - width, stop, steps)
    return Plan([(1 / query.length, query)])
