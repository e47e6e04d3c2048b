r"""L-BFGS: a smooth function's minimum from values and gradients alone.

Each iteration takes a step along :math:`p = -H g`, where H stands for the inverse Hessian: the
preconditioner's, corrected by the last steps :math:`s_i` and the changes :math:`y_i` of the
gradient that they brought, so that :math:`H y = s` for the newest (Nocedal and Wright, "Numerical
Optimization", 2nd ed., 2006, algorithm 7.4, the two-loop recursion). The step length satisfies the
strong Wolfe conditions. Nothing here knows what is minimised.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npsoftmax._checks import as_count, as_size
from npsoftmax.errors import DivergedError, InputError

__all__ = [
    "Array",
    "Iteration",
    "Line",
    "Point",
    "Reason",
    "Result",
    "State",
    "ValueAndGrad",
    "as_dtype_of",
    "begin",
    "dot",
    "is_usable",
    "iterate",
    "laid_out_as",
    "minimise",
    "strong_wolfe_point",
]


# How far to go along a direction of descent.
#
# A step length t satisfies the strong Wolfe conditions (Nocedal and Wright, "Numerical Optimization",
# 2nd ed., 2006, equation 3.7) if
#
# .. math:: f(x + t p) \le f(x) + c_1 t \, g^\top p, \qquad
#     |\nabla f(x + t p)^\top p| \le c_2 \, |g^\top p| .
#
# With the second one the change of the gradient along the step has a positive slope, which a
# quasi-Newton method needs.

Array = NDArray[Any]
# (value, gradient), or more: what follows the gradient is handed through as ``State.aux``.
ValueAndGrad = Callable[[Array], tuple[Any, ...]]

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
    aux: tuple[Any, ...] = ()


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
        value, grad, *aux = self._value_and_grad(x)
        grad = laid_out_as(x, grad)
        self.evaluations += 1
        return Point(t, x, float(value), grad, dot(grad, self._direction), tuple(aux))


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


Preconditioner = Callable[[Array], Array]
Reason = Literal["converged", "iterations", "rounding", "stopped"]

MEMORY = 10
# So many iterations without a lower value or gradient, and rounding errors are what is left.
PATIENCE = 20


class Iteration(NamedTuple):
    """One line of the history; iteration 0 is the start.

    Attributes
    ----------
    iteration : int
        Counted from the start.
    value : float
        Of the function.
    max_gradient : float
        The largest entry of the gradient in magnitude.
    step : float
        The step length ``t``; 1 where the model of the function was right.
    evaluations : int
        Of value and gradient so far.
    """

    iteration: int
    value: float
    max_gradient: float
    step: float
    evaluations: int


@dataclass
class State:
    """Where a minimisation stands, and all that it needs to go on bit for bit.

    Attributes
    ----------
    x, grad : ndarray
        The point and the gradient there.
    history : list of Iteration
        Up to and with this point.
    pairs : list of (ndarray, ndarray)
        The last steps, and the changes of the gradient along them; the oldest first.
    anchor : ndarray or None
        The point that the preconditioner was made for.
    aux : tuple
        What the function returned at ``x`` after value and gradient.
    """

    x: Array
    grad: Array
    history: list[Iteration]
    pairs: list[tuple[Array, Array]] = field(default_factory=list)
    anchor: Array | None = None
    aux: tuple[Any, ...] = ()

    @property
    def value(self) -> float:
        """Of the function at ``x``."""
        return self.history[-1].value

    def copy(self) -> State:
        """Return a state that does not change as the minimisation goes on."""
        return replace(self, history=list(self.history))

    def rounding_is_reached(self) -> bool:
        """Say whether neither value nor gradient has become smaller for twenty iterations."""
        before, since = self.history[:-PATIENCE], self.history[-PATIENCE:]
        return bool(before) and all(
            min(getattr(line, name) for line in since)
            >= min(getattr(line, name) for line in before)
            for name in ("value", "max_gradient")
        )


class Result(NamedTuple):
    """What a minimisation found.

    Attributes
    ----------
    x : ndarray
        The point.
    history : list of Iteration
        The start, and one record an iteration.
    reason : str
        "converged": the gradient is within the tolerance. "iterations": the limit is reached.
        "rounding": the floating-point numbers allow no further descent. "stopped": the callback
        said so.
    """

    x: Array
    history: list[Iteration]
    reason: Reason


def minimise(
    value_and_grad: ValueAndGrad,
    start: Array | State,
    *,
    preconditioner: Callable[[Array], Preconditioner] | None = None,
    tol: float = 1e-5,
    max_iterations: int = 1000,
    callback: Callable[[State], bool | None] | None = None,
) -> Result:
    r"""Minimise a smooth function, until :math:`\max_i |g_i| \le` ``tol``.

    Parameters
    ----------
    value_and_grad : callable
        Maps ``x`` to the function's value and its gradient, a new array of ``x``'s shape. It may
        return more; what follows is handed through as ``State.aux``.
    start : ndarray or State
        Where to begin, float32 or float64, of any shape; or the state to go on from, which changes.
    preconditioner : callable, optional
        Maps a point to a callable that multiplies an array by an approximate inverse of the
        Hessian there, symmetric and positive definite. It is called once, at the start.
    tol : float
        The largest entry of the gradient, in magnitude, to stop at.
    max_iterations : int
        Stop after so many, counted from the very start.
    callback : callable, optional
        Called with the state after each iteration; minimisation stops if it returns True.

    Returns
    -------
    Result

    Raises
    ------
    DivergedError
        Value or gradient are not finite at the start.
    InputError
        An argument makes no sense.

    Examples
    --------
    >>> import numpy as np
    >>> def value_and_grad(x):
    ...     return float(((x - 3) ** 4).sum()), 4 * (x - 3) ** 3
    >>> x, history, reason = minimise(value_and_grad, np.zeros(2), tol=1e-9)
    >>> x.round(2), reason, history[0].value
    (array([3., 3.]), 'converged', 162.0)
    """
    as_count(max_iterations, "max_iterations", minimum=0)
    tol = as_size(tol, "tol")
    for number, state in enumerate(iterate(value_and_grad, start, preconditioner=preconditioner)):
        last = state.history[-1]
        stop = number > 0 and callback is not None and callback(state)
        if last.max_gradient <= tol:
            return Result(state.x, state.history, "converged")
        if last.iteration >= max_iterations:
            return Result(state.x, state.history, "iterations")
        if stop:
            return Result(state.x, state.history, "stopped")
    return Result(state.x, state.history, "rounding")


def iterate(
    value_and_grad: ValueAndGrad,
    start: Array | State,
    *,
    preconditioner: Callable[[Array], Preconditioner] | None = None,
) -> Iterator[State]:
    """Yield the start, and the state after each iteration, until rounding ends the descent.

    The state is one object, which changes; its arrays are replaced, never written to.

    Parameters
    ----------
    value_and_grad, start, preconditioner
        As for :func:`minimise`.

    Yields
    ------
    State

    Raises
    ------
    DivergedError, InputError
        As for :func:`minimise`.

    Examples
    --------
    >>> states = iterate(lambda x: (float(x @ x), 2 * x), np.array([4.0]))
    >>> next(states).value, next(states).value
    (16.0, 9.0)
    """
    state = start if isinstance(start, State) else begin(value_and_grad, start)
    yield state
    solve = None
    if preconditioner is not None:
        state.anchor = state.x if state.anchor is None else state.anchor
        solve = preconditioner(state.anchor)
    while not state.rounding_is_reached() and _advance(state, value_and_grad, solve):
        yield state


@np.errstate(all="ignore")
def begin(
    value_and_grad: ValueAndGrad,
    start: Array,
    evaluation: tuple[Any, ...] | None = None,
    evaluations: int = 1,
) -> State:
    """Return the state of a minimisation that has not moved yet.

    Parameters
    ----------
    value_and_grad, start
        The function and the point, as in :func:`minimise`.
    evaluation : tuple, optional
        The function's result at the point, if it is known.
    evaluations : int
        Number of evaluations so far.

    Returns
    -------
    State

    Examples
    --------
    >>> begin(lambda x: (float(x @ x), 2 * x), np.array([4.0])).history[0].max_gradient
    8.0
    """
    x = np.array(start, copy=True)
    if x.dtype not in (np.float32, np.float64) or x.size == 0:
        raise InputError(
            f"start: expected an array of float32 or float64, got {x.size} numbers of {x.dtype}"
        )
    value, grad, *aux = value_and_grad(x) if evaluation is None else evaluation
    grad = laid_out_as(x, grad)
    if not (math.isfinite(value) and np.isfinite(grad).all()):
        raise DivergedError(
            f"start: expected a point with finite value and gradient, got the value {value}; "
            "begin nearer to 0, or scale the features"
        )
    first = Iteration(0, float(value), _largest(grad), 0.0, evaluations)
    return State(x, grad, [first], aux=tuple(aux))


# A step that is too long may overflow; the line search sees that and comes back.
@np.errstate(all="ignore")
def _advance(state: State, value_and_grad: ValueAndGrad, solve: Preconditioner | None) -> bool:
    """Make one iteration, or return False where rounding leaves no descent."""
    line = Line(value_and_grad, state.x, state.value, state.grad, _direction(state, solve))
    found, evaluations = strong_wolfe_point(line), line.evaluations
    if found is None and state.pairs:
        state.pairs = []
        line = Line(value_and_grad, state.x, state.value, state.grad, _direction(state, solve))
        found, evaluations = strong_wolfe_point(line), evaluations + line.evaluations
    if found is None:
        return False
    pair = found.x - state.x, found.grad - state.grad
    if is_usable(*pair):
        state.pairs = [*state.pairs, pair][-MEMORY:]
    state.x, state.grad, state.aux = found.x, found.grad, found.aux
    number, evaluations = (
        state.history[-1].iteration + 1,
        state.history[-1].evaluations + evaluations,
    )
    state.history.append(Iteration(number, found.value, _largest(found.grad), found.t, evaluations))
    return True


def is_usable(step: Array, change: Array) -> bool:
    """Say whether the gradient grew along the step, in numbers that can be divided by."""
    return 0 < dot(step, change) < math.inf and 0 < dot(change, change) < math.inf


def _direction(state: State, solve: Preconditioner | None) -> Array:
    """Return ``-H g`` by the two-loop recursion."""
    if solve is None and not state.pairs:
        unit: Array = state.grad / -math.sqrt(dot(state.grad, state.grad))
        return unit
    direction = -state.grad
    weights = []
    for step, change in reversed(state.pairs):
        weights.append(dot(step, direction) / dot(step, change))
        direction -= as_dtype_of(direction, weights[-1]) * change
    if solve is not None:
        direction = laid_out_as(direction, solve(direction))
    else:
        step, change = state.pairs[-1]
        direction *= as_dtype_of(direction, dot(step, change) / dot(change, change))
    for (step, change), weight in zip(state.pairs, reversed(weights), strict=True):
        correction = weight - dot(change, direction) / dot(step, change)
        direction = direction + as_dtype_of(direction, correction) * step
    return direction


def _largest(grad: Array) -> float:
    return float(np.abs(grad).max())
