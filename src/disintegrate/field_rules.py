"""Rules as libraries have them: their nodes and weights to the last bit they use, oddities included."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from disintegrate.errors import InvalidValue
from disintegrate.quadrature import Quadrature, checked_steps, gauss_legendre, trapezoid


def captum_riemann_left(steps: int) -> Quadrature:
    """Captum's left Riemann sum: nodes from a float32 `torch.linspace`, weights `1 / n` rounded to float32.

    Source, for all four: captum 0.9.0, `captum/attr/_utils/approximation_methods.py`, `riemann_builders`; the
    weights pass through `torch.tensor(step_sizes).float()` in `integrated_gradients.py`.

    Raises:
        InvalidValue: steps below 2, which Captum refuses.

    Example:
        >>> bool(captum_riemann_left(4).nodes[0] == 0)
        True
    """
    return _captum_riemann(steps, 0.0, 1 - 1 / max(steps, 1))


def captum_riemann_right(steps: int) -> Quadrature:
    """Captum's right Riemann sum, as `captum_riemann_left`.

    Example:
        >>> bool(captum_riemann_right(4).nodes[-1] == 1)
        True
    """
    return _captum_riemann(steps, 1 / max(steps, 1), 1.0)


def captum_riemann_middle(steps: int) -> Quadrature:
    """Captum's midpoint rule, as `captum_riemann_left`.

    Example:
        >>> bool(captum_riemann_middle(4).nodes[0] == 1 / 8)
        True
    """
    half = 1 / (2 * max(steps, 1))
    return _captum_riemann(steps, half, 1 - half)


def captum_riemann_trapezoid(steps: int) -> Quadrature:
    """Captum's trapezoid rule, which halves the two outer weights of `1 / n`, not of `1 / (n - 1)`.

    Its mass is `(n - 1) / n`: a fingerprint.

    Example:
        >>> abs(captum_riemann_trapezoid(10).mass - 9 / 10) < 1e-6
        True
    """
    rule = _captum_riemann(steps, 0.0, 1.0)
    weights = rule.weights.copy()
    weights[[0, -1]] = _float32(np.full(2, 1 / steps / 2))
    return Quadrature(rule.nodes, weights)


def captum_gausslegendre(steps: int) -> Quadrature:
    """Captum's default rule: Gauss-Legendre with float64 nodes and weights rounded to float32.

    Source: captum 0.9.0, `approximation_methods.py`, `gauss_legendre_builders`; only the weights pass through
    `.float()`, the nodes meet the input as Python numbers.

    Example:
        >>> bool((captum_gausslegendre(50).nodes == gauss_legendre(50).nodes).all())
        True
    """
    exact = gauss_legendre(steps)
    return Quadrature(exact.nodes, _float32(exact.weights))


def saliency(steps: int) -> Quadrature:
    """PAIR saliency: both ends are nodes and every weight is `1 / n`.

    Source: saliency 0.2.1, `saliency/core/integrated_gradients.py`, `GetMask`.

    Raises:
        InvalidValue: steps below 1.

    Example:
        >>> rule = saliency(25)
        >>> bool(rule.nodes[0] == 0 and rule.nodes[-1] == 1 and (rule.weights == 1 / 25).all())
        True
    """
    steps = checked_steps(steps, "saliency", "Use steps=25, its default.")
    return Quadrature(np.linspace(0, 1, steps), np.full(steps, 1 / steps))


def tensorflow_tutorial(steps: int) -> Quadrature:
    """The TensorFlow tutorial on integrated gradients: trapezoid rule over `linspace(0, 1, m + 1)`.

    Source: tensorflow.org/tutorials/interpretability/integrated_gradients, `integral_approximation`:
    `reduce_mean((gradients[:-1] + gradients[1:]) / 2)` with `alphas = tf.linspace(0.0, 1.0, m_steps + 1)`,
    whose float32 nodes may differ from these in their last bit.

    Example:
        >>> tensorflow_tutorial(50).steps == 51
        True
    """
    return trapezoid(checked_steps(steps, "tensorflow_tutorial", "Use steps=50, its default.") + 1)


def _captum_riemann(steps: int, first: float, last: float) -> Quadrature:
    if steps < 2:
        raise InvalidValue(
            "The `steps` of Captum's Riemann rules must be at least 2.",
            got=steps,
            instead="Use steps=2 or more, or captum_gausslegendre with steps=1.",
        )
    return Quadrature(_torch_linspace(first, last, steps), _float32(np.full(steps, 1 / steps)))


def _torch_linspace(first: float, last: float, count: int) -> Float64[np.ndarray, " count"]:
    """The numbers of a float32 `torch.linspace`: from both ends to the middle, each product and sum rounded once."""
    start, stop = np.float32(first), np.float32(last)
    step = np.float64((stop - start) / np.float32(count - 1))
    index = np.arange(count)
    ascending, descending = start + step * index, stop - step * (count - 1 - index)
    return _float32(np.where(index < count // 2, ascending, descending))


def _float32(values: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    return values.astype(np.float32).astype(np.float64)
