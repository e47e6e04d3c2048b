r"""How far to go along a direction of descent.

A step length t satisfies the strong Wolfe conditions (Nocedal and Wright, "Numerical Optimization",
2nd ed., 2006, equation 3.7) if

.. math:: f(x + t p) \le f(x) + c_1 t \, g^\top p, \qquad
    |\nabla f(x + t p)^\top p| \le c_2 \, |g^\top p| .

With the second one the change of the gradient along the step has a positive slope, which a
quasi-Newton method needs.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Array",
    "Line",
    "Point",
    "ValueAndGrad",
    "as_dtype_of",
    "dot",
    "laid_out_as",
    "strong_wolfe_point",
]

Array = NDArray[Any]
ValueAndGrad = Callable[[Array], tuple[float, Array]]

SUFFICIENT_DECREASE, CURVATURE = 1e-4, 0.9
MOST_TRIALS = 30
# Where the value can no longer fall visibly: slopes have rounding errors, too.
TRIALS_BY_SLOPE = 5


class Point(NamedTuple):
    """A point on a line: its place, and value, gradient and slope of the function there."""

    t: float
    x: Array
    value: float
    grad: Array
    slope: float


class Line:
    """The function along a direction from the point where the minimisation stands."""

    def __init__(
        self, value_and_grad: ValueAndGrad, x: Array, value: float, grad: Array, direction: Array
    ) -> None:
        self._value_and_grad = value_and_grad
        self._direction = direction
        self.start = Point(0.0, x, value, grad, dot(grad, direction))
        self.evaluations = 0

    def at(self, t: float) -> Point:
        """Evaluate the function."""
        x = self.start.x + as_dtype_of(self.start.x, t) * self._direction
        value, grad = self._value_and_grad(x)
        grad = laid_out_as(x, grad)
        self.evaluations += 1
        return Point(t, x, float(value), grad, dot(grad, self._direction))


def strong_wolfe_point(line: Line) -> Point | None:
    """Return a point that satisfies the strong Wolfe conditions.

    Where none is found in thirty trials, return the farthest that descends enough, or None where
    rounding hides all descent.

    Between ``low``, which descends steeply, and ``high``, which does not descend enough or ascends,
    there is one (Nocedal and Wright, section 3.5).
    """
    start = low = line.start
    if not start.slope < 0:
        return None
    high: Point | None = None
    # A decrease below the rounding error of the value cannot be seen (Hager and Zhang, SIAM
    # Journal on Optimization 16(1), 2005, section 4): the slope decides then.
    noise = 10 * float(np.finfo(start.x.dtype).eps) * abs(start.value)
    t = 1.0
    for number in range(MOST_TRIALS):
        trial = line.at(t)
        if np.array_equal(trial.x, low.x):
            break
        limit = start.value + SUFFICIENT_DECREASE * t * start.slope + noise
        if not (math.isfinite(trial.slope) and trial.value <= limit):
            high = trial
        elif trial.slope < CURVATURE * start.slope:
            low = trial
        elif trial.slope > -CURVATURE * start.slope:
            high = trial
        else:
            return trial
        if high is not None and number > TRIALS_BY_SLOPE and (low.t - high.t) * low.slope < noise:
            break
        t = 4 * t if high is None else _between(low, high)
    return low if low.t > 0 else None


def _between(low: Point, high: Point) -> float:
    """Return where the cubic through two points with their slopes is smallest, well inside.

    Nocedal and Wright, equation (3.59).
    """
    width = high.t - low.t
    t = low.t + width / 2
    if math.isfinite(high.value) and math.isfinite(high.slope):
        d1 = low.slope + high.slope - 3 * (high.value - low.value) / width
        root = d1 * d1 - low.slope * high.slope
        if root >= 0:
            d2 = math.sqrt(root)
            bend = high.slope - low.slope + 2 * d2
            if bend > 0:
                t = high.t - width * (high.slope + d2 - d1) / bend
    return min(max(t, low.t + 0.1 * width), high.t - 0.1 * width)


def dot(a: Array, b: Array) -> float:
    """Return the scalar product in float64, whatever the order in memory."""
    return float(np.sum(np.multiply(a, b, dtype=np.float64)))


def laid_out_as(like: Array, array: Array) -> Array:
    """Return an array in the memory order of another one: sums depend on it in the last digits."""
    if array.strides == like.strides:
        return array
    copy = np.empty_like(like)
    copy[...] = array
    return copy


def as_dtype_of(like: Array, number: float) -> Any:
    """Return a number in the dtype of an array, which a float64 one would widen."""
    return like.dtype.type(number)
