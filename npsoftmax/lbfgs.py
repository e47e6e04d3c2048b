r"""L-BFGS: minimisation of a smooth function by its values and gradients.

Each iteration takes a step :math:`t p` along :math:`p = -H g`. H approximates the inverse Hessian:
the preconditioner, corrected by the last steps :math:`s_i` and the changes :math:`y_i` of the
gradient along them, so that :math:`H y = s` for the newest (Nocedal and Wright, "Numerical
Optimization", 2nd ed., 2006, algorithm 7.4, the two-loop recursion). The step length t satisfies
the strong Wolfe conditions (equation 3.7):

.. math:: f(x + t p) \le f(x) + c_1 t \, g^\top p, \qquad
    |\nabla f(x + t p)^\top p| \le c_2 \, |g^\top p| .

The second one ensures that the gradient grows along the step, which a quasi-Newton method needs.
Nothing here depends on the function that is minimised.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npsoftmax._checks import as_count, as_size
from npsoftmax.errors import DivergedError, InputError

__all__ = ["Iteration", "Result", "State", "ValueAndGrad", "begin", "iterate", "minimise"]

Array = NDArray[Any]
# (value, gradient), or more: what follows the gradient is passed on as ``State.aux``.
ValueAndGrad = Callable[[Array], tuple[Any, ...]]

Preconditioner = Callable[[Array], Array]
Reason = Literal["converged", "iterations", "rounding", "separated", "stopped"]

# Pairs, and the numbers in them: 48 MB in float32, unless two pairs have more.
MEMORY, MIN_MEMORY, MAX_NUMBERS = 10, 2, 12 * 1024 * 1024
# After this number of iterations without a lower value or gradient, only rounding errors are left.
PATIENCE = 20


class Iteration(NamedTuple):
    """One entry of the history; iteration 0 is the start."""

    iteration: int
    value: float
    max_gradient: float  # largest entry of the gradient in magnitude
    step: float  # step length t; 1 if the quadratic model was right
    evaluations: int  # so far


VALUE, MAX_GRADIENT = attrgetter("value"), attrgetter("max_gradient")


@dataclass
class State:
    """The state of a minimisation: everything needed to resume it bit for bit."""

    x: Array
    grad: Array
    history: list[Iteration]  # the start and each iteration, including x
    # The last steps, and the changes of the gradient along them, oldest first.
    pairs: list[tuple[Array, Array]] = field(default_factory=list)
    anchor: Array | None = None  # the point that the preconditioner was made for
    aux: tuple[Any, ...] = ()  # further results of the function at x

    @property
    def value(self) -> float:
        """Value of the function at ``x``."""
        return self.history[-1].value

    def copy(self) -> State:
        """Return a copy that further iterations do not change."""
        return replace(self, history=list(self.history))

    def rounding_is_reached(self) -> bool:
        """Whether neither value nor gradient has decreased in the last twenty iterations."""
        before, since = self.history[:-PATIENCE], self.history[-PATIENCE:]
        return bool(before) and all(
            min(map(size, since)) >= min(map(size, before)) for size in (VALUE, MAX_GRADIENT)
        )


class Result(NamedTuple):
    """The result of a minimisation.

    Attributes
    ----------
    x : ndarray
        The point.
    history : list of Iteration
        The start and each iteration.
    reason : str
        "converged": the gradient is within the tolerance. "iterations": the limit is reached.
        "rounding": rounding errors allow no further descent. "stopped": the callback returned
        True.
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
        return more; what follows is passed on as ``State.aux``.
    start : ndarray or State
        The point to begin at, float32 or float64, of any shape; or a state to resume from, which is
        modified.
    preconditioner : callable, optional
        Maps a point to a callable that multiplies an array by an approximate inverse of the
        Hessian there, symmetric and positive definite. It is called once, at the start.
    tol : float
        Stop when the largest entry of the gradient, in magnitude, is at most this.
    max_iterations : int
        Stop after this number of iterations, counted from the very start.
    callback : callable, optional
        Called with the state after each iteration. The minimisation stops if it returns True.

    Returns
    -------
    Result

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
    """Yield the state at the start and after each iteration, until rounding ends the descent.

    Each one is a copy that further iterations do not change. Takes the arguments of
    :func:`minimise`.

    Examples
    --------
    >>> states = iterate(lambda x: (float(x @ x), 2 * x), np.array([4.0]))
    >>> next(states).value, next(states).value
    (16.0, 9.0)
    """
    state = start if isinstance(start, State) else begin(value_and_grad, start)
    yield state.copy()
    solve = None
    if preconditioner is not None and not state.rounding_is_reached():
        state.anchor = state.x if state.anchor is None else state.anchor
        solve = preconditioner(state.anchor)
    while not state.rounding_is_reached() and _advance(state, value_and_grad, solve):
        yield state.copy()


@np.errstate(all="ignore")
def begin(
    value_and_grad: ValueAndGrad,
    start: Array,
    evaluation: tuple[Any, ...] | None = None,
    evaluations: int = 1,
) -> State:
    """Return the state of a minimisation that has not moved yet.

    ``evaluation`` is the function's result at the start, if it is known, and ``evaluations`` the
    number of evaluations so far.
    """
    x = np.array(start, copy=True)
    if x.dtype not in (np.float32, np.float64) or x.size == 0:
        raise InputError(
            f"start: expected an array of float32 or float64, got {x.size} numbers of {x.dtype}"
        )
    value, grad, *aux = value_and_grad(x) if evaluation is None else evaluation
    grad = _match_order(grad, x)
    if not (math.isfinite(value) and np.isfinite(grad).all()):
        raise DivergedError(
            f"start: expected a point with finite value and gradient, got the value {value}; "
            "begin nearer to 0, or scale the features"
        )
    first = Iteration(0, float(value), _largest(grad), 0.0, evaluations)
    return State(x, grad, [first], aux=tuple(aux))


# A step that is too long may overflow; the line search notices and turns back.
@np.errstate(all="ignore")
def _advance(state: State, value_and_grad: ValueAndGrad, solve: Preconditioner | None) -> bool:
    """Make one iteration; return False if rounding errors allow no descent."""
    line = _Line(value_and_grad, state.x, state.value, state.grad, _direction(state, solve))
    found, evaluations = _search(line), line.evaluations
    if found is None and state.pairs:
        state.pairs = []
        line = _Line(value_and_grad, state.x, state.value, state.grad, _direction(state, solve))
        found, evaluations = _search(line), evaluations + line.evaluations
    if found is None:
        return False
    pair = found.x - state.x, found.grad - state.grad
    if is_usable(*pair):
        state.pairs = [*state.pairs, pair][-_memory(state.x.size) :]
    state.x, state.grad, state.aux = found.x, found.grad, found.aux
    last = state.history[-1]
    number, evaluations = last.iteration + 1, last.evaluations + evaluations
    state.history.append(Iteration(number, found.value, _largest(found.grad), found.t, evaluations))
    return True


def _memory(size: int) -> int:
    return max(MIN_MEMORY, min(MEMORY, MAX_NUMBERS // (2 * size)))


def is_usable(step: Array, change: Array) -> bool:
    """Whether the gradient grew along the step, and the products can be divided by."""
    return 0 < _dot(step, change) < math.inf and 0 < _dot(change, change) < math.inf


def _direction(state: State, solve: Preconditioner | None) -> Array:
    """Return ``-H g`` by the two-loop recursion."""
    if solve is None and not state.pairs:
        unit: Array = state.grad / -math.sqrt(_dot(state.grad, state.grad))
        return unit
    direction = -state.grad
    kind, weights = direction.dtype.type, []
    for step, change in reversed(state.pairs):
        curvature = _dot(step, change)
        weights.append((_dot(step, direction) / curvature, curvature))
        direction -= kind(weights[-1][0]) * change
    if solve is not None:
        direction = _match_order(solve(direction), direction)
    else:
        step, change = state.pairs[-1]
        direction *= kind(weights[0][1] / _dot(change, change))
    for (step, change), (weight, curvature) in zip(state.pairs, reversed(weights), strict=True):
        direction += kind(weight - _dot(change, direction) / curvature) * step
    return direction


def _largest(grad: Array) -> float:
    return float(np.abs(grad).max())


SUFFICIENT_DECREASE, CURVATURE = 1e-4, 0.9
MAX_TRIALS = 30
# Trials before the search may end because no visible descent is left: slopes have rounding errors.
MIN_TRIALS_BY_SLOPE = 5


class _Point(NamedTuple):
    """A point on a line, with value, gradient and slope of the function there."""

    t: float
    x: Array
    value: float
    grad: Array
    slope: float
    aux: tuple[Any, ...] = ()


class _Line:
    """The function along a direction from the current point."""

    def __init__(
        self, value_and_grad: ValueAndGrad, x: Array, value: float, grad: Array, direction: Array
    ) -> None:
        self._value_and_grad = value_and_grad
        self._direction = direction
        self.start = _Point(0.0, x, value, grad, _dot(grad, direction))
        self.evaluations = 0

    def at(self, t: float) -> _Point:
        """Evaluate the function."""
        x = self.start.x + self.start.x.dtype.type(t) * self._direction
        value, grad, *aux = self._value_and_grad(x)
        grad = _match_order(grad, x)
        self.evaluations += 1
        return _Point(t, x, float(value), grad, _dot(grad, self._direction), tuple(aux))


def _search(line: _Line) -> _Point | None:
    """Return a point that satisfies the strong Wolfe conditions.

    There is one between ``low``, which descends steeply, and ``high``, which does not descend
    enough or ascends (Nocedal and Wright, section 3.5). If thirty trials do not find it, return the
    farthest point that descends enough, or None if rounding hides all descent.
    """
    start = low = line.start
    if not start.slope < 0:
        return None
    high: _Point | None = None
    # A decrease below the rounding error of the value cannot be seen; then the slope decides (Hager
    # and Zhang, SIAM Journal on Optimization 16(1), 2005, section 4).
    noise = 10 * float(np.finfo(start.x.dtype).eps) * abs(start.value)
    t = 1.0
    for number in range(MAX_TRIALS):
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
        if high is None:
            t *= 4
        elif number > MIN_TRIALS_BY_SLOPE and (low.t - high.t) * low.slope < noise:
            break
        else:
            t = _between(low, high)
    return low if low.t > 0 else None


def _between(low: _Point, high: _Point) -> float:
    """Return the minimum of the cubic through two points and slopes, kept away from both.

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


# Numbers to convert to float64 at a time, so that they stay in a cache.
MAX_AT_ONCE = 64 * 1024


def _dot(a: Array, b: Array) -> float:
    """Return the scalar product in float64, in any memory order."""
    order: Any = "F" if a.flags.f_contiguous else "C"
    a, b = a.ravel(order), b.ravel(order)  # views, as a rule
    total = 0.0
    for start in range(0, a.size, MAX_AT_ONCE):
        left, right = (part[start : start + MAX_AT_ONCE] for part in (a, b))
        total += float(
            np.dot(left.astype(np.float64, copy=False), right.astype(np.float64, copy=False))
        )
    return total


def _match_order(array: Array, like: Array) -> Array:
    """Return an array in the memory order of another: the last digits of sums depend on it."""
    if array.strides == like.strides:
        return array
    copy = np.empty_like(like)
    copy[...] = array
    return copy
