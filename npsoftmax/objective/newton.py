r"""Newton's method with the whole Hessian, for problems that are small enough for it.

In the coordinates :math:`\eta` of :mod:`npsoftmax.objective.coordinates`, with :math:`u_j` the
coordinates of sample j and a 1, :math:`v_j` its share of the weight, :math:`p_j` its probabilities
and G the metric of the penalty, :math:`\mathrm{diag}(\lambda_i) / \lambda` in the coordinates,

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

A Hessian costs as much as many gradients, so it serves for further steps as long as each leaves
little of the decrement (Shamanskii, Ukrainian Mathematical Journal 19(1), 1967).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from npsoftmax import lbfgs
from npsoftmax._threads import blas_threads
from npsoftmax.objective.coordinates import Coordinates, blocks_of
from npsoftmax.objective.hot_loop import Workspace
from npsoftmax.objective.penalty import Penalty, unpenalised
from npsoftmax.objective.preconditioner import factor_inverse
from npsoftmax.objective.samples import Samples, SampleStore, add
from npsoftmax.objective.separation import Separation, separating_features, separation_along

__all__ = ["Newton", "estimate_decrement", "suits", "suits_span"]

Floats = NDArray[np.float64]
Result = TypeVar("Result")

# The largest number of rows of the Hessian, and of multiplications for it: milliseconds where this
# is the whole method, half a second where it finishes what another one has begun.
MAX_ROWS, MAX_WORK, MAX_WORK_TO_FINISH = 2000, 100_000_000, 5_000_000_000
# Above this number the eigenvectors of the products of the samples cost more than they save.
MAX_SPAN_SAMPLES = 600
# The end: no logit changes by more than this, or than the bound on rounding errors, which exceeds
# the errors of the probabilities by a factor of 30 or so.
MAX_CHANGE, MAX_DECREMENT = 1e-8, 1e-9
MAX_ROUNDING = {np.dtype(np.float64): 3e-5, np.dtype(np.float32): 1e-3}
# If the logits still change this much at such a decrement, they are those of certain samples, and
# the step may be a direction of separation. Its curvature is tiny, so its margins have errors of
# this size; where an optimum exists, some margins are negative by far more.
SEPARATED_CHANGE, SEPARATED_DECREMENT, ERRORS = 0.1, 1e-10, (3e-7, 1e-6)
# Where logits differ by more, the curvature along a separation may be lost among rounding errors.
MAX_SPREAD, MAX_LOOKS = 20.0, 100
SUFFICIENT_DECREASE, MAX_TRIALS = 1e-4, 40
# The same Hessian serves for another step if no more than this is left of the decrement.
# As a rule no logit changes by more than MAX_CHANGE at the smallest one.
MAX_REMAINDER, MIN_DECREMENT = 0.01, 1e-18
# Rows of Hessians for which inverting a triangle as any other matrix takes no longer.
MAX_SMALL = 64
# Numbers of samples in coordinates: 32 MB.
MAX_KEPT = 4_000_000
# Of an estimate of the decrement.
MAX_PRODUCTS, MAX_ERROR_OF_STEP = 30, 1e-2


def suits(k: int, store: SampleStore, penalty: Penalty, to_finish: bool) -> bool:
    """Whether Newton's method is the quickest way for ``k`` classes, or can at least finish."""
    n, d = store.summary.num_samples, store.summary.num_inputs
    return (n > d or not _has_span(penalty)) and _is_quick(k, n, d + 1, to_finish)


def suits_span(k: int, store: SampleStore, penalty: Penalty, to_finish: bool) -> bool:
    """Whether the span of the samples saves more than it costs, or Newton's method can finish."""
    n, d = store.summary.num_samples, store.summary.num_inputs
    saves = 2 * n <= d and n <= MAX_SPAN_SAMPLES
    if store.summary.is_sparse and n * d > MAX_KEPT:  # the span is dense
        return False
    return _has_span(penalty) and n <= d and (saves or _is_quick(k, n, n, to_finish))


def _has_span(penalty: Penalty) -> bool:
    """Whether the penalty keeps the weights in the span of the samples."""
    return not isinstance(penalty, np.ndarray) and penalty > 0


def _is_quick(k: int, n: int, rows: int, to_finish: bool) -> bool:
    work = n * k * (k - 1) // 2 * rows**2
    most = MAX_WORK_TO_FINISH if to_finish else MAX_WORK
    return k > 1 and (k - 1) * rows <= MAX_ROWS and work <= most


class Point(NamedTuple):
    """The objective at a point, and Newton's step from there."""

    theta: NDArray[Any]
    eta: Floats  # its coordinates
    loss: float
    grad: Floats  # in coordinates
    accuracy: float
    factor: Floats  # F, with F'F the inverse of the Hessian
    step: Floats  # in coordinates
    decrement: float
    # Largest changes of a logit and of a probability by the step, inf where the decrement is large.
    change: float
    shift: float
    # If there may be no optimum, the smallest change of a margin, at most 0, and the largest one.
    lowest: float
    spread: float


class Block(NamedTuple):
    """Some samples in coordinates."""

    u: Floats  # those that are used, and ones
    label: tuple[NDArray[Any], NDArray[np.intp]]  # the indices of the labels
    shares: Floats


class Newton:
    """Newton's method on samples in memory.

    ``end`` is the reason to stop at the newest point, or None.
    """

    def __init__(
        self, theta: NDArray[Any], store: SampleStore, penalty: Penalty, scale: float
    ) -> None:
        self.k, self.dtype = len(theta), theta.dtype
        self.store, self.coordinates = store, Coordinates.of(store, scale)
        self.unpenalised = unpenalised(penalty, store.summary.num_inputs)
        self.has_optimum = not self.unpenalised.any()  # whatever the samples are
        metric = None if self.unpenalised.all() else self.coordinates.metric(penalty)
        # Without a penalty nothing depends on the others.
        bound = False if metric is None else metric.diagonal() > 0
        self.used = np.append(~self.coordinates.depends | bound, True)
        self.present = np.flatnonzero(store.summary.class_totals)
        self.missing = np.delete(np.arange(self.k), self.present)
        self.end: lbfgs.Reason | None = None
        self.separation: Separation | None = None
        self._penalty: Floats | None = None
        if metric is not None:
            size = np.count_nonzero(self.used)
            self._penalty = np.zeros((size, size))
            self._penalty[:-1, :-1] = metric[self.used[:-1]][:, self.used[:-1]]
            self._curvature = np.kron(np.eye(self.k - 1) - 1 / self.k, self._penalty)
        self._kept: dict[int, list[Block]] = {}
        self._whole: list[Block] | None = None  # all of these, if they are one part

    def iterate(self, state: lbfgs.State) -> Iterator[lbfgs.State]:
        """Yield the state at the start and after each iteration, as :func:`lbfgs.iterate` does.

        An iteration depends on ``state.x`` alone.
        """
        state = replace(state, pairs=[], anchor=None)
        point = self.at(state.x)
        while True:
            self.end = self.assess(point)
            if self.end == "converged":
                self.end = self._confirm(point)
            yield state
            found = None if state.rounding_is_reached() else self._advance(point)
            if found is None:
                break
            point, t, passes = found
            grad = self.coordinates.pull_back(self._all(point.grad)).astype(self.dtype)
            number, _, _, _, evaluations = state.history[-1]
            largest = float(np.abs(grad).max())
            line = lbfgs.Iteration(number + 1, point.loss, largest, t, evaluations + passes)
            crossentropy = point.loss - self._penalise(point.eta)[0]
            aux = crossentropy, point.accuracy, None
            state = lbfgs.State(point.theta, grad, [*state.history, line], aux=aux)
        # Logits of tiny probabilities may change by more, but not as those of separated samples.
        is_bounded = point.change < SEPARATED_CHANGE
        if point.change < 2:  # a larger one is a rounding error
            is_bounded |= -point.lowest > point.change / 2
        is_known = is_bounded and point.shift <= MAX_ROUNDING[self.dtype] / 10
        self.end = self._confirm(point) if is_known else "rounding"

    @np.errstate(all="ignore")
    @blas_threads(1)  # its products are small
    def at(self, theta: NDArray[Any]) -> Point:
        """Evaluate the objective and the step at parameters."""
        eta = self.coordinates.enter(theta)[:, self.used]
        eta -= np.add.reduce(eta, axis=0) / self.k
        loss, grad, hessian, hits = self._sum(eta, with_hessian=True)
        factor = _factor(hessian)
        step = _solve(factor, grad)
        decrement = -float(np.vdot(step, grad)) / 2
        changes = [np.inf] * 4
        if decrement < MAX_ROUNDING[self.dtype]:
            changes = self._changes(eta, step)
        return Point(theta, eta, loss, grad, hits, factor, step, decrement, *changes)

    def _sum(self, eta: Floats, with_hessian: bool = False) -> tuple[float, Floats, Floats, float]:
        """Return the objective, its gradient, and the Hessian and the accuracy or zeros."""
        k, rows = eta.shape

        def part(blocks: Iterable[Block]) -> tuple[float, Floats, Floats, float]:
            size = (k - 1) * rows if with_hessian else 0
            grad, hessian = np.zeros((k, rows)), np.zeros((size, size))
            loss, missed = 0.0, 0.0
            for block in blocks:
                sums = _add_block(block, eta, grad, hessian)
                loss, missed = loss + sums[0], missed + sums[1]
            return loss, grad, hessian, missed

        loss, grad, hessian, missed = self._reduce(part, add)
        penalty, pull = self._penalise(eta)
        if self._penalty is not None and with_hessian:
            hessian += self._curvature
        return loss + penalty, grad + pull, hessian, 1.0 - missed

    def _penalise(self, eta: Floats) -> tuple[float, Floats | float]:
        """Return the penalty, and its gradient."""
        if self._penalty is None:
            return 0.0, 0.0
        pull = eta @ self._penalty
        return float(np.vdot(eta, pull)) / 2, pull

    def _reduce(
        self, part: Callable[[Iterable[Block]], Result], combine: Callable[[Result, Result], Result]
    ) -> Result:
        """Call a function on parts of the samples, which are kept if they are not too many."""
        number = self.store.summary.num_samples
        is_small = number * self.used.size <= MAX_KEPT

        def call(samples: Samples, workspace: Workspace) -> Result:
            blocks: Iterable[Block] = map(self._enter, blocks_of(samples, workspace))
            if is_small:
                if samples.start not in self._kept:
                    self._kept[samples.start] = list(blocks)
                blocks = self._kept[samples.start]
            if samples.y.size == number and is_small:
                self._whole = self._kept[0]
            return part(blocks)

        return self.store.map_reduce(call, combine) if self._whole is None else part(self._whole)

    def _enter(self, samples: Samples) -> Block:
        u = self.coordinates.apply(samples.X)
        u = np.concatenate([u, np.ones((1, u.shape[1]))])[self.used]
        label = samples.y, np.arange(samples.y.size)
        return Block(u, label, samples.shares(self.store.summary.total))

    def _changes(self, eta: Floats, step: Floats) -> list[float]:
        """Return the last four fields of a point.

        What all classes have in common is no change. The logits of classes without samples fall
        for ever; there their probabilities count.
        """

        def part(blocks: Iterable[Block]) -> Floats:
            largest = np.zeros(4)
            for block in blocks:
                change, z = step @ block.u, eta @ block.u
                P = np.exp(z - np.maximum.reduce(z, axis=0))
                P /= np.add.reduce(P, axis=0)
                shift = P * (change - np.add.reduce(P * change, axis=0))
                change -= change[self.present].sum(axis=0) / self.present.size
                change[self.missing] = shift[self.missing]
                found = [np.abs(change), np.abs(shift)]
                if not self.has_optimum:
                    fall = change[block.label] - change
                    found += [-fall[self.present], np.ptp(z[self.present], axis=0)]
                here = [float(values.max()) for values in found]
                largest[: len(here)] = np.maximum(largest[: len(here)], here)
            return largest

        change, shift, fall, spread = self._reduce(part, np.maximum).tolist()
        return [change, shift, -fall, spread]

    @np.errstate(all="ignore")
    def _confirm(self, point: Point) -> lbfgs.Reason:
        """Look again from 0, if a separation would not show where probabilities are 0."""
        if self.has_optimum or not point.spread > MAX_SPREAD:
            return "converged"
        self.separation = separating_features(self.store, self.k, self.unpenalised)
        found = (self.at(np.zeros_like(point.theta)), 0.0, 0)
        for _ in range(MAX_LOOKS if self.separation is None else 0):
            if self.assess(found[0]) is not None:
                break
            after = self._advance(found[0])
            if after is None:
                break
            found = after
        return "converged" if self.separation is None else "separated"

    def assess(self, point: Point) -> lbfgs.Reason | None:
        """Return the reason to stop at a point, if there is one."""
        rounding = self.coordinates.units.rounding_of_logits(point.theta)
        # Penalised weights may also move without changing a logit.
        at_rest = self._penalty is None or point.decrement <= MAX_DECREMENT * point.loss
        if at_rest and point.change <= max(MAX_CHANGE, rounding):
            return "converged" if rounding <= MAX_ROUNDING[self.dtype] else "rounding"
        moving = point.change >= SEPARATED_CHANGE and point.decrement <= SEPARATED_DECREMENT
        if moving and not self.has_optimum:
            for direction in (point.eta, point.step):
                self.separation = separation_along(
                    self._without_penalty(self._all(direction)),
                    self.store,
                    self.coordinates,
                    np.clip(rounding, *ERRORS),
                )
                if self.separation is not None:
                    return "separated"
        return None

    def _without_penalty(self, direction: Floats) -> Floats:
        """Return the part of a direction along which the penalty stays the same."""
        if self._penalty is None:
            return direction
        weights = self.coordinates.leave(direction)
        weights[:, :-1][:, ~self.unpenalised] = 0.0
        return self.coordinates.enter(weights)

    @np.errstate(all="ignore")
    @blas_threads(1)
    def _advance(self, point: Point) -> tuple[Point, float, int] | None:
        """Return a point with a lower objective, the step length and the passes over the samples.

        The Hessian serves for more than one step as long as each leaves a small part of the
        decrement: gradients cost much less.
        """
        noise = 10 * float(np.finfo(self.dtype).eps) * point.loss + self._rounding(point)
        eta, loss, step, decrement = point.eta, point.loss, point.step, point.decrement
        first, passes = 0.0, 1
        while True:
            t, trials, found = self._search(eta, step, loss + noise, decrement)
            passes += trials
            if found is None:
                break
            first = first or t
            eta = eta + t * step
            loss, grad, *_ = found
            step = _solve(point.factor, grad)
            before, decrement = decrement, -float(np.vdot(step, grad)) / 2
            if t < 1 or not MIN_DECREMENT * loss < decrement < MAX_REMAINDER * before:
                break
        theta = self.coordinates.leave(self._all(eta)).astype(self.dtype)
        if np.array_equal(theta, point.theta):
            return None
        after = self.at(theta)
        is_lower = after.loss <= point.loss + noise
        if point.decrement < self._rounding(point):  # too little to see
            is_lower = after.decrement < point.decrement
        return (after, first, passes) if is_lower else None

    def _rounding(self, point: Point) -> float:
        """Return the size of rounding errors of the objective in coordinates.

        Errors of logits are multiplied by 1 - p, which is at most the loss.
        """
        return float(np.finfo(np.float64).eps) * point.loss * (1 + float(np.abs(point.eta).max()))

    def _search(
        self, eta: Floats, step: Floats, limit: float, decrement: float
    ) -> tuple[float, int, tuple[float, Floats, Floats, float] | None]:
        """Return the step length, the trials, and a sufficiently lower objective or None."""
        t = 1.0
        for trial in range(1, MAX_TRIALS):
            found = self._sum(eta + t * step)
            if found[0] <= limit - 2 * SUFFICIENT_DECREASE * t * decrement:
                return t, trial, found
            t /= 2
        return t, trial, None

    def _all(self, part: Floats) -> Floats:
        """Return all coordinates from those that are used; the others are 0."""
        eta = np.zeros((self.k, self.used.size))
        eta[:, self.used] = part
        return eta


def _add_block(block: Block, eta: Floats, grad: Floats, hessian: Floats) -> tuple[float, float]:
    """Add the contributions of some samples to gradient and Hessian.

    Return their loss, and with a Hessian the share of those whose label is not the likeliest class.
    """
    u, label, shares = block
    d = eta @ u
    missed = float(shares[d.argmax(axis=0) != label[0]].sum()) if hessian.size else 0.0
    d -= np.maximum.reduce(d, axis=0)
    d_y = d[label]
    p = np.exp(d)
    e_y, p[label] = p[label], 0.0
    other = np.add.reduce(p, axis=0)
    total = other + e_y
    p /= total
    if hessian.size:
        p[label] = e_y / total
        _add_curvatures(p, u * np.sqrt(shares), hessian)
    p[label] = -other / total  # p - 1, with all digits
    grad += (p * shares) @ u.T
    return float((np.log1p(other + (e_y - 1.0)) - d_y) @ shares), missed


def _add_curvatures(p: Floats, u: Floats, hessian: Floats) -> None:
    """Add ``diag(p) - p p'`` times ``u u'`` to the blocks of all classes but the last."""
    k, rows = len(p), len(u)
    blocks = hessian.reshape(k - 1, rows, k - 1, rows)
    others = (1.0 - np.eye(k)) @ p  # 1 - p, with all digits
    kept = [blocks[c, :, c].copy() for c in range(k - 1)]
    if k > 2:
        products = (p[:-1, None] * u).reshape((k - 1) * rows, -1)
        hessian -= products @ products.T
    for c in range(k - 1):
        weighted = u * np.sqrt(p[c] * others[c])
        blocks[c, :, c] = kept[c] + weighted @ weighted.T


def _factor(hessian: Floats) -> Floats:
    """Return F with ``F' F`` the inverse of the Hessian, or nearly so where that is indefinite."""
    if len(hessian) > MAX_SMALL:
        return factor_inverse(hessian)
    diagonal = hessian.diagonal()
    units = 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    try:
        L = np.linalg.cholesky(units[:, None] * hessian * units)
    except np.linalg.LinAlgError:
        return factor_inverse(hessian)
    factor: Floats = np.linalg.inv(L) * units
    return factor


def _solve(factor: Floats, grad: Floats) -> Floats:
    """Return the step, which sums to 0 over the classes like the gradient."""
    step = np.zeros_like(grad)
    step[:-1] = -(factor.T @ (factor @ grad[:-1].ravel())).reshape(len(grad) - 1, -1)
    step -= np.add.reduce(step, axis=0) / len(step)
    return step


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
