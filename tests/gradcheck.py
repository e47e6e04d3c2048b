"""Checks of gradients against directional derivatives in float64.

For a scalar ``f`` and a random direction ``v``, ``<gradient(x), v>`` must be the derivative of
``f(x + h v)`` at ``h = 0``. :func:`check_gradient` approximates it by differences of the package's
functions; :func:`check_gradient_complex` computes nearly all its digits from textbook formulas.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The error of a central difference is of order h**2 and eps / h: about 1e-10.
STEP = 1e-5
TOLERANCE = 1e-7

# The imaginary part involves no subtraction, so h may be so small that h**2 vanishes.
COMPLEX_STEP = 1e-30
COMPLEX_TOLERANCE = 1e-13

Gradient = Callable[[NDArray[Any]], NDArray[Any]]


def check_gradient(
    f: Callable[[NDArray[Any]], float], gradient: Gradient, x: NDArray[Any], directions: int = 5
) -> None:
    """Raise AssertionError unless ``gradient`` is the central difference of ``f`` at ``x``."""

    def slope(v: NDArray[Any]) -> float:
        return (f(x + STEP * v) - f(x - STEP * v)) / (2 * STEP)

    _compare(slope, gradient, x, TOLERANCE, directions)


def check_gradient_complex(
    f: Callable[[NDArray[Any]], complex], gradient: Gradient, x: NDArray[Any], directions: int = 5
) -> None:
    """Raise AssertionError unless ``gradient`` is ``Im f(x + i h v) / h`` at ``x``.

    ``f`` must be analytic: no absolute values, and maxima only of real parts.
    """

    def slope(v: NDArray[Any]) -> float:
        return f(x + 1j * COMPLEX_STEP * v).imag / COMPLEX_STEP

    _compare(slope, gradient, x, COMPLEX_TOLERANCE, directions)


def _compare(
    slope: Callable[[NDArray[Any]], float],
    gradient: Gradient,
    x: NDArray[Any],
    tolerance: float,
    directions: int,
) -> None:
    analytic = gradient(x.copy(order="K"))
    assert analytic.shape == x.shape, f"gradient has shape {analytic.shape}, x has {x.shape}"
    rng = np.random.default_rng(7)
    for _ in range(directions):
        v = rng.standard_normal(x.shape)
        expected, got = slope(v), float(np.vdot(analytic, v))
        # Relative to the size of the gradient: a direction may be almost orthogonal to it.
        size = max(abs(expected), float(np.linalg.norm(analytic)), 1e-8)
        assert abs(got - expected) <= tolerance * size, (
            f"along a random direction: derivative of f {expected:.16g}, gradient {got:.16g}"
        )
