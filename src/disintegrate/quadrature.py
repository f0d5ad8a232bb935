"""Quadrature rules on [0, 1] as nodes and weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float64
from numpy.polynomial.legendre import leggauss

from disintegrate.errors import InvalidValue


@dataclass(frozen=True, eq=False)
class Quadrature:
    """Nodes `t_i` on [0, 1] and weights `w_i` that stand for an integral over [0, 1].

    Raises:
        InvalidValue: nodes and weights that are empty, of different lengths, or not finite.
    """

    nodes: Float64[np.ndarray, " steps"]
    weights: Float64[np.ndarray, " steps"]

    def __post_init__(self) -> None:
        nodes, weights = (np.array(values, dtype=np.float64) for values in (self.nodes, self.weights))
        if nodes.ndim != 1 or nodes.shape != weights.shape or nodes.size == 0:
            raise InvalidValue(
                "A quadrature needs as many weights as nodes, at least one of each.",
                got=f"nodes of shape {nodes.shape} and weights of shape {weights.shape}",
                instead="Give two lists of one length.",
            )
        if not (np.isfinite(nodes).all() and np.isfinite(weights).all()):
            raise InvalidValue("Nodes and weights must be finite.", got="NaN or infinity", instead="Give numbers.")
        for name, values in (("nodes", nodes), ("weights", weights)):
            values.setflags(write=False)
            object.__setattr__(self, name, values)

    @property
    def steps(self) -> int:
        """Number of nodes: gradients of the model that one answer costs."""
        return len(self.nodes)

    @property
    def mass(self) -> float:
        """Sum of the weights, measured; a rule of the field may miss 1.

        Example:
            >>> abs(gauss_legendre(50).mass - 1) < 1e-14
            True
        """
        return float(self.weights.sum())


Rule = Callable[[int], Quadrature]


def riemann_right(steps: int) -> Quadrature:
    """Right Riemann sum, `t_i = i / m` for `i = 1..m`: equation (1) of the paper.

    Example:
        >>> bool(riemann_right(4).nodes[-1] == 1)
        True
    """
    steps = checked_steps(steps, "riemann_right", "Use steps=1 for a single gradient at the input.")
    return Quadrature(np.arange(1, steps + 1) / steps, np.full(steps, 1 / steps))


def riemann_left(steps: int) -> Quadrature:
    """Left Riemann sum, `t_i = i / m` for `i = 0..m-1`.

    Example:
        >>> bool(riemann_left(4).nodes[0] == 0)
        True
    """
    steps = checked_steps(steps, "riemann_left", "Use steps=1 for a single gradient at the baseline.")
    return Quadrature(np.arange(steps) / steps, np.full(steps, 1 / steps))


def midpoint(steps: int) -> Quadrature:
    """Midpoint rule, `t_i = (i - 1/2) / m` for `i = 1..m`.

    Example:
        >>> bool(midpoint(1).nodes[0] == gauss_legendre(1).nodes[0] == 0.5)
        True
    """
    steps = checked_steps(steps, "midpoint", "Use steps=1 for a single gradient half-way.")
    return Quadrature((np.arange(steps) + 0.5) / steps, np.full(steps, 1 / steps))


def trapezoid(steps: int) -> Quadrature:
    """Trapezoid rule with `m` nodes from 0 to 1, the two ends weighing half.

    Example:
        >>> abs(trapezoid(9).mass - 1) < 1e-15
        True
    """
    if steps == 1:
        raise InvalidValue(
            "The trapezoid rule needs both ends of the ray.",
            got="steps=1",
            instead="Use steps=2, or riemann_right.",
        )
    steps = checked_steps(steps, "trapezoid", "Use steps=2 for the two ends of the ray.")
    weights = np.full(steps, 1 / (steps - 1))
    weights[[0, -1]] /= 2
    return Quadrature(np.linspace(0, 1, steps), weights)


@lru_cache(maxsize=256, typed=True)
def gauss_legendre(steps: int) -> Quadrature:
    """Gauss-Legendre rule: exact for polynomials up to degree `2 m - 1`; all nodes lie inside (0, 1).

    Example:
        >>> rule = gauss_legendre(3)
        >>> bool(abs(rule.weights @ rule.nodes**5 - 1 / 6) < 1e-15)
        True
    """
    steps = checked_steps(steps, "gauss_legendre", "Use steps=1 for a single gradient half-way.")
    nodes, weights = leggauss(steps)
    return Quadrature((nodes + 1) / 2, weights / 2)


def checked_steps(steps: int, rule: str, instead: str) -> int:
    """The steps as a whole number of at least 1.

    Raises:
        InvalidValue: they are not.
    """
    if isinstance(steps, bool) or steps != int(steps) or steps < 1:
        raise InvalidValue(f"The `steps` of {rule} must be a whole number of at least 1.", got=steps, instead=instead)
    return int(steps)
