"""Check a gradient by hand against directional derivatives in float64.

For a scalar ``f`` and a random direction ``v``, ``<gradient(x), v>`` must be
``(f(x + h v) - f(x - h v)) / 2h`` up to the error of the difference, of order ``h**2`` and
``eps/h``: about 1e-10 for ``h = 1e-5``.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

STEP = 1e-5
TOLERANCE = 1e-7


def check_gradient(
    f: Callable[[NDArray[Any]], float],
    gradient: Callable[[NDArray[Any]], NDArray[Any]],
    x: NDArray[Any],
    directions: int = 5,
) -> None:
    """Raise AssertionError unless ``gradient`` is the derivative of ``f`` at ``x``."""
    analytic = gradient(x.copy(order="K"))
    assert analytic.shape == x.shape, f"gradient has shape {analytic.shape}, x has {x.shape}"
    rng = np.random.default_rng(7)
    for _ in range(directions):
        v = rng.standard_normal(x.shape)
        expected = (f(x + STEP * v) - f(x - STEP * v)) / (2 * STEP)
        got = float(np.vdot(analytic, v))
        # Relative to the size of the gradient: a direction may be almost orthogonal to it.
        size = max(abs(expected), float(np.linalg.norm(analytic)), 1e-8)
        assert abs(got - expected) <= TOLERANCE * size, (
            f"along a random direction: difference quotient {expected:.12g}, gradient {got:.12g}"
        )
