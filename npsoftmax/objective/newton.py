r"""Newton's method with the whole Hessian, for problems that are small enough for it.

In the coordinates :math:`\eta` of :mod:`npsoftmax.objective.coordinates`, with :math:`u_j` the
coordinates of sample j and a 1, :math:`v_j` its share of the weight, :math:`p_j` its probabilities
and G the metric of the penalty,

.. math:: g = \sum_j v_j (p_j - y_j) u_j^\top + \lambda \, \eta_W G, \qquad
    H = \sum_j v_j \bigl(\mathrm{diag}(p_j) - p_j p_j^\top\bigr) \otimes u_j u_j^\top
        + \lambda \, I \otimes G.

Adding the same to all classes changes no probability, so the parameters sum to 0 over the classes,
and the equations for one class follow from the others. The diagonal of H is scaled to 1, and a
ridge of the size of the rounding errors is added where they have made H indefinite.

The step :math:`\sigma = -H^{-1} g` measures the distance from the optimum in a way that does not
depend on units or the penalty: :math:`g^\top H^{-1} g / 2`, the decrement, estimates the distance
of the objective from its smallest value, and :math:`\sigma u_j` the distance of the logits of
sample j from theirs. The method ends when no logit changes any more (Boyd and Vandenberghe,
"Convex Optimization", 2004, section 9.5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npsoftmax import lbfgs
from npsoftmax._threads import blas_threads
from npsoftmax.functional import logsoftmax, softmax
from npsoftmax.objective.coordinates import Coordinates, RowSpace, Units, blocks_of
from npsoftmax.objective.hot_loop import Workspace
from npsoftmax.objective.preconditioner import factor_inverse
from npsoftmax.objective.samples import Samples, SampleStore, add
from npsoftmax.objective.separation import Separation, separation_along

__all__ = ["Newton", "estimate_decrement", "suits"]

Floats = NDArray[np.float64]

# The largest number of rows of the Hessian, and of multiplications for it: milliseconds where this
# is the whole method, half a second where it finishes what another one has begun.
MAX_ROWS, MAX_WORK, MAX_WORK_TO_FINISH = 2000, 100_000_000, 5_000_000_000
# The end: no logit changes by more than this, or than the bound on rounding errors, which exceeds
# the errors of the probabilities by a factor of 30 or so.
MAX_CHANGE, MAX_DECREMENT = 1e-8, 1e-9
MAX_ROUNDING = {np.dtype(np.float64): 3e-5, np.dtype(np.float32): 1e-3}
# If the logits still change this much at such a decrement, they are those of certain samples, and
# the step may be a direction of separation. Its curvature is tiny, so its margins have errors of
# this size; where an optimum exists, some margins are negative by far more.
SEPARATED_CHANGE, SEPARATED_DECREMENT, ERRORS = 0.1, 1e-10, (3e-7, 1e-6)
SUFFICIENT_DECREASE, MAX_TRIALS = 1e-4, 40
# Of an estimate of the decrement.
MAX_PRODUCTS, MAX_ERROR_OF_STEP = 30, 1e-2


def suits(k: int, store: SampleStore, l2: float, to_finish: bool) -> bool:
    """Whether Newton's method is the quickest way for ``k`` classes, or can at least finish."""
    n, d = store.summary.num_samples, store.summary.num_inputs
    rows = (min(n, d) if l2 > 0 else d) + 1
    work = n * max(k * (k - 1) // 2 * rows**2, rows * d)
    is_quick = work <= MAX_WORK and n > d
    return (
        k > 1
        and (k - 1) * rows <= MAX_ROWS
        and (work <= MAX_WORK_TO_FINISH if to_finish else is_quick)
    )


class Point(NamedTuple):
    """The objective at a point, and Newton's step from there."""

    theta: NDArray[Any]
    eta: Floats  # its coordinates
    loss: float
    step: Floats  # in coordinates
    decrement: float
    # Largest changes of a logit and of a probability by the step, inf where the decrement is large.
    change: float
    shift: float


class Newton:
    """Newton's method on samples in memory.

    ``end`` is the reason to stop at the newest point, or None.
    """

    def __init__(self, theta: NDArray[Any], store: SampleStore, l2: float, scale: float) -> None:
        self.k, self.dtype = len(theta), theta.dtype
        self.store, self.l2 = store, l2
        self.coordinates = _coordinates(store, l2, scale)
        # Without a penalty nothing depends on these.
        self.used = np.append(~self.coordinates.depends | (l2 > 0), True)
        self.present = np.flatnonzero(store.summary.class_totals)
        self.end: lbfgs.Reason | None = None
        self.separation: Separation | None = None
        self._penalty = np.zeros((self.used.size, self.used.size))
        if l2 > 0:
            self._penalty[:-1, :-1] = l2 * self.coordinates.metric()

    def iterate(self, evaluate: lbfgs.ValueAndGrad, state: lbfgs.State) -> Iterator[lbfgs.State]:
        """Yield the state at the start and after each iteration, as :func:`lbfgs.iterate` does.

        An iteration depends on ``state.x`` alone.
        """
        state = replace(state, pairs=[], anchor=None)
        point = self.at(state.x)
        while True:
            self.end = self.assess(point)
            yield state
            found = None if state.rounding_is_reached() else self._search(point)
            if found is None:
                break
            point, t, trials = found
            value, grad, *aux = evaluate(point.theta)
            number, _, _, _, evaluations = state.history[-1]
            largest = float(np.abs(grad).max())
            line = lbfgs.Iteration(number + 1, value, largest, t, evaluations + trials + 1)
            state = lbfgs.State(point.theta, grad, [*state.history, line], aux=tuple(aux))
        # Logits of tiny probabilities may change by more, but not as those of separated samples.
        is_known = point.change < SEPARATED_CHANGE and point.shift <= MAX_ROUNDING[self.dtype] / 10
        self.end = "converged" if is_known else "rounding"

    @np.errstate(all="ignore")
    def at(self, theta: NDArray[Any]) -> Point:
        """Evaluate the objective and the step at parameters."""
        with blas_threads(1):  # its products are small
            return self._at(theta)

    def _at(self, theta: NDArray[Any]) -> Point:
        eta = self.coordinates.enter(theta)
        eta -= eta.mean(axis=0)
        part = partial(
            _sums,
            eta=eta,
            coordinates=self.coordinates,
            used=self.used,
            total=self.store.summary.total,
        )
        loss, grad, hessian = self.store.map_reduce(part, add)
        pull = eta @ self._penalty
        loss += float(np.vdot(eta, pull)) / 2
        grad += pull[:, self.used]
        step = np.zeros_like(eta)
        step[:, self.used] = self._solve(grad, hessian)
        decrement = -float(np.vdot(step[:, self.used], grad)) / 2
        changes = np.inf, np.inf
        if decrement < MAX_ROUNDING[self.dtype]:
            changes = self._changes(eta, step)
        return Point(theta, eta, loss, step, decrement, *changes)

    def _solve(self, grad: Floats, hessian: Floats) -> Floats:
        """Return the step, which sums to 0 over the classes like the gradient."""
        k, rows = grad.shape
        shares = np.eye(k - 1) - 1 / k
        penalty = self._penalty[np.ix_(self.used, self.used)]
        hessian += shares[:, None, :, None] * penalty[None, :, None, :]
        factor = factor_inverse(hessian.reshape(((k - 1) * rows,) * 2))
        step: Floats = np.zeros_like(grad)
        step[:-1] = -(factor.T @ (factor @ grad[:-1].ravel())).reshape(k - 1, rows)
        step -= step.mean(axis=0)
        return step

    def _changes(self, eta: Floats, step: Floats) -> tuple[float, float]:
        """Return the largest changes of a logit and of a probability.

        What all classes have in common is no change. The logits of classes without samples fall
        for ever; there their probabilities count.
        """
        part = partial(
            _largest_changes, eta=eta, step=step, present=self.present, coordinates=self.coordinates
        )
        change, shift = self.store.map_reduce(part, np.maximum)
        return float(change), float(shift)

    def assess(self, point: Point) -> lbfgs.Reason | None:
        """Return the reason to stop at a point, if there is one."""
        rounding = self.coordinates.units.rounding_of_logits(point.theta)
        # Penalised weights may also move without changing a logit.
        at_rest = self.l2 == 0 or point.decrement <= MAX_DECREMENT * point.loss
        if at_rest and point.change <= max(MAX_CHANGE, rounding):
            return "converged" if rounding <= MAX_ROUNDING[self.dtype] else "rounding"
        moving = point.change >= SEPARATED_CHANGE and point.decrement <= SEPARATED_DECREMENT
        if self.l2 == 0 and moving:
            for direction in (point.eta, point.step):
                self.separation = separation_along(
                    direction, self.store, self.coordinates, np.clip(rounding, *ERRORS)
                )
                if self.separation is not None:
                    return "separated"
        return None

    def _search(self, point: Point) -> tuple[Point, float, int] | None:
        """Return a point with a sufficiently lower objective, the step length and the trials."""
        noise = 10 * float(np.finfo(self.dtype).eps) * abs(point.loss)
        t = 1.0
        for trial in range(1, MAX_TRIALS):
            theta = self.coordinates.leave(point.eta + t * point.step).astype(self.dtype)
            if np.array_equal(theta, point.theta):
                return None
            found = self.at(theta)
            if found.loss <= point.loss - 2 * SUFFICIENT_DECREASE * t * point.decrement + noise:
                return found, t, trial
            t /= 2
        return None


def _coordinates(store: SampleStore, l2: float, scale: float) -> Coordinates | RowSpace:
    """Return the coordinates of which there are fewest."""
    if l2 > 0 and store.summary.num_samples <= store.summary.num_inputs:
        return RowSpace.of(store, Units.of(store, scale))
    return Coordinates.of(store, scale)


def _with_ones(u: Floats) -> Floats:
    return np.concatenate([u, np.ones((1, u.shape[1]))])


def _sums(
    samples: Samples,
    workspace: Workspace,
    eta: Floats,
    coordinates: Coordinates | RowSpace,
    used: NDArray[np.bool_],
    total: float,
) -> tuple[float, Floats, Floats]:
    """Return the contributions of some samples to loss, gradient and Hessian."""
    k, rows = len(eta), int(used.sum())
    loss, grad, hessian = 0.0, np.zeros((k, rows)), np.zeros((k - 1, rows, k - 1, rows))
    for block in blocks_of(samples, workspace):
        u, shares = _with_ones(coordinates.apply(block.X))[used], block.shares(total)
        log_p = logsoftmax(eta[:, used] @ u)
        p, label = np.exp(log_p), (block.y, np.arange(block.y.size))
        loss -= float(log_p[label] @ shares)
        _add_curvatures(p, u * np.sqrt(shares), hessian)
        p[label] = np.expm1(log_p[label])  # p - 1, with all digits
        grad += (p * shares) @ u.T
    return loss, grad, hessian


def _add_curvatures(p: Floats, u: Floats, hessian: Floats) -> None:
    """Add ``diag(p) - p p'`` times ``u u'`` to the blocks of all classes but the last.

    Since p sums to 1, a block on the diagonal is minus the sum of the others in its row.
    """
    k = len(p)
    for first in range(k - 1):
        for second in range(first + 1, k):
            weighted = u * np.sqrt(p[first] * p[second])
            products = weighted @ weighted.T
            hessian[first, :, first] += products
            if second < k - 1:
                hessian[second, :, second] += products
                hessian[first, :, second] -= products
                hessian[second, :, first] -= products


def _largest_changes(
    samples: Samples,
    workspace: Workspace,
    eta: Floats,
    step: Floats,
    present: NDArray[np.intp],
    coordinates: Coordinates | RowSpace,
) -> Floats:
    largest = np.zeros(2)
    missing = np.delete(np.arange(len(eta)), present)
    for block in blocks_of(samples, workspace):
        u = _with_ones(coordinates.apply(block.X))
        change, P = step @ u, softmax(eta @ u)
        shift = P * (change - (P * change).sum(axis=0))
        change -= change[present].mean(axis=0)
        change[missing] = shift[missing]
        largest = np.maximum(largest, [np.abs(change).max(), np.abs(shift).max()])
    return largest


def estimate_decrement(
    grad: NDArray[Any],
    product: Callable[[NDArray[Any]], NDArray[Any]],
    solve: Callable[[NDArray[Any]], NDArray[Any]],
    rounding: Callable[[NDArray[Any]], float],
    enough: float,
) -> float:
    """Return an estimate of the decrement from below, by preconditioned conjugate gradients.

    It grows from product to product (Nocedal and Wright, "Numerical Optimization", 2nd ed., 2006,
    section 5.1), and is returned once it exceeds ``enough``, or once the next step would consist of
    ``rounding`` errors of the logits.
    """
    residual = grad.astype(np.float64)
    decrement, squared, direction = 0.0, 0.0, np.zeros_like(residual)
    for _ in range(MAX_PRODUCTS):
        preconditioned = solve(residual.astype(grad.dtype)).astype(np.float64)
        before, squared = squared, float(np.vdot(residual, preconditioned))
        direction = preconditioned + (squared / before if before else 0.0) * direction
        change = product(direction.astype(grad.dtype)).astype(np.float64)
        curvature = float(np.vdot(direction, change))
        if not (squared > 0 and curvature > 0):
            break
        if squared / curvature * rounding(direction.astype(grad.dtype)) > MAX_ERROR_OF_STEP:
            break
        gain = squared**2 / curvature / 2
        decrement += gain
        if decrement > enough or gain < decrement / 100:
            break
        residual -= squared / curvature * change
    return decrement
