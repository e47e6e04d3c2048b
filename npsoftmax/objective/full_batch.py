r"""The full-batch objective, on one machine or a cluster.

.. math::

    J(\theta) = \frac{1}{\bar w} \sum_{j=1}^n w_j \, \ell(s W x_j + b, y_j)
        + \frac{\lambda}{2} \sum_i f_i \|W_i\|^2, \qquad \bar w = \sum_j w_j

with the column :math:`W_i` of feature i and its penalty factor :math:`f_i`, usually 1. Everything
but the penalty is a sum over the samples.
"""

from __future__ import annotations

import math
import operator
from copy import copy
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npsoftmax._checks import (
    as_columns,
    as_labels,
    as_size,
    as_weights,
    same_samples,
    unusable_weights,
)
from npsoftmax._products import memory_order
from npsoftmax._sparse import is_sparse
from npsoftmax.errors import InputError, ShapeError
from npsoftmax.objective.batch import (
    Evaluation,
    accumulate,
    accumulate_product,
    as_direction,
    as_scale,
    check_dtype,
    sum_losses,
)
from npsoftmax.objective.coordinates import MAX_COLUMNS, Span, Units, smallest_weights
from npsoftmax.objective.duality import cost_of_absent, duality_gap, present_rows
from npsoftmax.objective.hot_loop import Workspace
from npsoftmax.objective.newton import Newton, estimate_decrement, suits, suits_span
from npsoftmax.objective.penalty import (
    Penalty,
    as_penalty,
    divided_squares,
    penalty_and_grad,
    penalty_at,
    smallest,
    unpenalised,
)
from npsoftmax.objective.preconditioner import (
    MAX_PRECONDITIONED_CLASSES,
    Choice,
    Solve,
    choose,
    mean_square_length,
    preconditioner_at,
)
from npsoftmax.objective.reach import Reach, reach_of
from npsoftmax.objective.samples import LocalSamples, Samples, SampleStore, add
from npsoftmax.objective.separation import Separation, separating_features

__all__ = ["FullBatch"]


class FullBatch:
    r"""The objective on all samples of a data set, which may have weights.

    It is convex, and twice differentiable. The gradient is derived in :mod:`npsoftmax.objective`
    (each column of dZ times :math:`n w_j / \bar w`), the Hessian in
    :mod:`npsoftmax.objective.batch`. Samples are converted in blocks, and shared by threads.

    Parameters
    ----------
    X : array_like
        Samples, shape ``(d, n)``, of any real dtype. Fortran order, as in ``rows.T``, is used in
        place: bytes stay bytes, and memory-mapped files stay on disk. Another order is copied.
        Sparse arrays of SciPy stay sparse; CSC is used in place, and the transpose of CSR is one.
    y : array_like
        Integer labels, shape ``(n,)``.
    l2 : float
        ``lambda``, the weight of the penalty.
    sample_weight : array_like, optional
        Shape ``(n,)``, numbers of at least 0; all 1 by default. A weight of 2 counts a sample
        twice.
    scale : float
        ``s``, the factor applied to the samples.
    threads : int, optional
        The largest number of threads, each with one BLAS thread. By default one for each core that
        this process may use, by its affinity and by the quota of its container, but not more than
        the BLAS has: ``OMP_NUM_THREADS`` and the like, threadpoolctl and joblib limit both. Small
        problems use one thread, and the BLAS as it is. The last digits of the result depend on it,
        and on the BLAS.
    penalty_factor : array_like, optional
        Shape ``(d,)``, numbers of at least 0; all 1 by default. The penalty of feature i is
        ``l2`` times its factor. A feature of factor 0 has none; if there are such features, there
        may be no optimum, and :meth:`suboptimality` is the objective itself.

    Attributes
    ----------
    summary : npsoftmax.objective.samples.Summary
        Sizes, dtype and class weights of the data set.
    threads, place : int, str
        As in :class:`npsoftmax.objective.samples.SampleStore`.

    Examples
    --------
    >>> problem = FullBatch(np.array([[1.0, 3.0]]), [0, 1], l2=0.1)
    >>> theta = np.zeros((2, 2), order="F")
    >>> value, grad, *_ = problem.loss_and_grad(theta)
    >>> round(value, 6), grad.tolist()
    (0.693147, [[0.5, 0.0], [-0.5, 0.0]])
    """

    def __init__(
        self,
        X: ArrayLike,
        y: ArrayLike,
        l2: float = 0.0,
        sample_weight: ArrayLike | None = None,
        *,
        scale: float = 1.0,
        threads: int | None = None,
        penalty_factor: ArrayLike | None = None,
    ) -> None:
        columns = as_columns(X, sparse=True)
        if not is_sparse(columns):
            # Fortran order, or the products would take twice as long.
            columns = np.require(columns, requirements=["F", "A"])
        labels = as_labels(y, None)
        same_samples(columns, labels)
        weights = None if sample_weight is None else as_weights(sample_weight, labels.size)
        store = LocalSamples(Samples(0, columns, labels, weights), threads)
        self._set_samples(store, l2, scale, penalty_factor)
        if not 0 < self.summary.total < np.inf:
            raise unusable_weights(f"numbers that sum to {self.summary.total:g}")

    def _set_samples(
        self,
        store: SampleStore,
        l2: float,
        scale: float,
        penalty_factor: ArrayLike | None = None,
    ) -> None:
        """Set the samples and the settings; constructors of all kinds end here."""
        self.l2, self.scale = as_size(l2, "l2"), as_scale(scale)
        self.penalty: Penalty = as_penalty(self.l2, penalty_factor, store.summary.num_inputs)
        self.summary, self.threads, self.place = store.summary, store.threads, store.place
        self._store, self._penalty_factor = store, penalty_factor

    def subset(self, indices: NDArray[np.intp]) -> FullBatch:
        """Return the objective on copies of some samples, stored where the originals are.

        There must be at least one index, and they must be in ascending order.
        """
        if indices.size == 0:
            raise InputError("indices: expected at least one sample, got none")
        part = FullBatch.__new__(type(self))
        store = self._store.subset(indices)
        part._set_samples(store, self.l2, self.scale, self._penalty_factor)
        return part

    def with_l2(self, l2: float) -> FullBatch:
        """Return the objective with another weight of the penalty, on the same stored samples.

        Examples
        --------
        >>> problem = FullBatch(np.array([[1.0, 3.0]]), [0, 1], l2=0.1)
        >>> problem.with_l2(0.2).penalty
        0.2
        """
        other = copy(self)
        other.l2 = as_size(l2, "l2")
        other.penalty = as_penalty(other.l2, self._penalty_factor, self.summary.num_inputs)
        other.__dict__.pop("_span", None)  # its factors are more precise for a tiny penalty
        return other

    @np.errstate(all="ignore")
    def loss_and_grad(self, theta: NDArray[Any]) -> Evaluation:
        """Evaluate the objective and its gradient.

        Parameters
        ----------
        theta : ndarray
            ``[W b]``, shape ``(k, d+1)``, float32 or float64, with more classes than the largest
            label. Everything is computed in its dtype, the sum of the losses in float64.

        Returns
        -------
        Evaluation
            Its gradient is a new array, Fortran-ordered.
        """
        theta = self._check(theta)
        total = self.summary.total
        part = partial(_loss_and_grad, theta=theta, total=total, scale=self.scale)
        crossentropy, grad, missed = self._store.map_reduce(part, add)
        grad = np.asfortranarray(grad)
        penalty = penalty_and_grad(theta, self.penalty, grad)
        accuracy = (total - missed) / total  # 1 if none is missed, however the weights round
        return Evaluation(crossentropy + penalty, grad, crossentropy, accuracy, None)

    @np.errstate(all="ignore")
    def hessian_vector_product(self, theta: NDArray[Any], V: NDArray[Any]) -> NDArray[Any]:
        """Multiply the Hessian at ``theta`` by a direction ``V`` of its shape.

        Formula and derivation: :func:`npsoftmax.objective.hessian_vector_product`.

        Examples
        --------
        >>> problem = FullBatch(np.array([[1.0, 3.0]]), [0, 1])
        >>> problem.hessian_vector_product(np.zeros((2, 2)), np.array([[1.0, 0.0], [0.0, 0.0]]))
        array([[ 1.25,  0.5 ],
               [-1.25, -0.5 ]])
        """
        theta = self._check(theta)
        V = as_direction(V, theta)
        part = partial(_product, theta=theta, V=V, total=self.summary.total, scale=self.scale)
        product = np.asfortranarray(self._store.map_reduce(part, np.add))
        product[:, :-1] += np.asarray(self.penalty, theta.dtype) * V[:, :-1]
        return product

    @np.errstate(all="ignore")
    def preconditioner(self, theta: NDArray[Any]) -> Solve:
        """Return an approximate inverse of the Hessian at ``theta``.

        It inverts the diagonal blocks of the Hessian, one for each class, and is exact on what all
        classes have in common. Large data sets estimate the blocks from a few thousand samples. The
        classes share one if there are two, or if blocks would cost too much or need more than 64
        million numbers. Above 2,047 features they share one at zeros, a bound for every ``theta``.
        Above 8,192 features, or the number of samples, it inverts the diagonals. Above 2,047, of
        sparse samples and where that saves more than a block, it inverts a few directions
        (:mod:`npsoftmax.objective.low_rank`). Above 4,096 classes it is the identity.
        Squares of features must not overflow. Derivation:
        :mod:`npsoftmax.objective.preconditioner`.

        Parameters
        ----------
        theta : ndarray
            ``[W b]``, shape ``(k, d+1)``, finite.

        Returns
        -------
        callable
            Maps a gradient, of ``theta``'s shape, to another array; linear, symmetric, and
            positive on gradients that are not 0.

        Examples
        --------
        >>> problem = FullBatch(np.array([[1.0, 3.0]]), [0, 1], l2=0.1)
        >>> theta, V = np.zeros((2, 2)), np.array([[1.0, 0.0], [-1.0, 0.0]])
        >>> M = problem.preconditioner(theta)
        >>> M(problem.hessian_vector_product(theta, V)).round(2) + 0.0  # two classes: the inverse
        array([[ 1.,  0.],
               [-1.,  0.]])
        """
        theta = self._check(theta)
        _check_finite(theta)
        choice = self.choose_preconditioner(len(theta))
        if choice.is_at_zeros:
            theta = np.zeros_like(theta)
        return preconditioner_at(theta, self._store, self.penalty, self.scale, choice)

    def choose_preconditioner(self, k: int) -> Choice:
        """Return which :meth:`preconditioner` costs least for ``k`` classes, and when it does."""
        n, d = self.summary.num_samples, self.summary.num_inputs
        mean_square = self._mean_square if self.l2 > 0 else 0.0
        return choose(n, d, k, self.least_penalty, mean_square, self.summary.is_sparse)

    @property
    def samples(self) -> Samples:
        """The samples, which must be in memory."""
        samples: Samples = self._store.samples  # type: ignore[attr-defined]
        return samples

    @property
    def least_penalty(self) -> float:
        """The smallest weight of the penalty of a feature; above 0 an optimum exists."""
        return smallest(self.penalty)

    @cached_property
    def _mean_square(self) -> float:
        with np.errstate(all="ignore"):
            return mean_square_length(self._store, self.scale)

    def suits_newton(self, k: int, to_finish: bool = False) -> bool:
        """Whether :meth:`newton` is quick for ``k`` classes, or can at least finish."""
        return isinstance(self._store, LocalSamples) and suits(
            k, self._store, self.penalty, to_finish
        )

    def suits_span(self, k: int, to_finish: bool = False) -> bool:
        """Whether :meth:`in_span` is quick for ``k`` classes, or can at least finish."""
        return isinstance(self._store, LocalSamples) and suits_span(
            k, self._store, self.penalty, to_finish
        )

    @np.errstate(all="ignore")
    def in_span(self) -> tuple[Span, FullBatch]:
        """Return coordinates in the span of the samples, and the objective in these coordinates.

        See :class:`npsoftmax.objective.coordinates.Span`. It takes samples in memory, and the same
        penalty for all features.
        """
        _, _, labels, weights = self.samples
        if weights is not None:
            labels, weights = labels[weights > 0], weights[weights > 0]
        span = self._span
        problem = FullBatch(span.samples, labels, self.least_penalty, weights, threads=self.threads)
        return span, problem

    @cached_property
    def _span(self) -> Span:
        return Span.of(self._store, self.scale, self.least_penalty)

    @np.errstate(all="ignore")
    def newton(self, theta: NDArray[Any]) -> Newton:
        """Return Newton's method for parameters like ``theta``.

        See :mod:`npsoftmax.objective.newton`. It takes samples in memory.
        """
        return Newton(self._check(theta), self._store, self.penalty, self.scale)

    @np.errstate(all="ignore")
    def decrement(
        self,
        theta: NDArray[Any],
        grad: NDArray[Any],
        enough: float = math.inf,
        solve: Solve | None = None,
    ) -> float:
        r"""Estimate the distance of the objective at ``theta`` from its smallest value.

        It is :math:`g^\top H^{-1} g / 2`, estimated from below from at most 30 products with the
        Hessian, or a number greater than ``enough``. ``solve`` is a preconditioner that was made
        already, at any point.
        """
        solve = self.preconditioner(theta) if solve is None else solve
        product = partial(self.hessian_vector_product, theta)
        units = Units.of(self._store, self.scale)
        return estimate_decrement(grad, product, solve, units.rounding_of_logits, enough)

    @np.errstate(all="ignore")
    def separating_features(self, k: int) -> Separation | None:
        """Return features that separate some of ``k`` classes, each by itself, if there are any.

        Only features without a penalty count. See :mod:`npsoftmax.objective.separation`.
        """
        return separating_features(self._store, k, self._unpenalised)

    @property
    def _unpenalised(self) -> NDArray[np.bool_]:
        return unpenalised(self.penalty, self.summary.num_inputs)

    def separates(self, theta: NDArray[Any]) -> bool:
        """Whether weights without a penalty classify all samples correctly.

        There is no optimum then: the loss falls for ever as they grow.
        """
        rows = self._check(theta).copy(order="K")
        rows[:, :-1][:, ~self._unpenalised] = 0
        return self.loss_and_grad(rows).accuracy == 1

    def has_small_gap(self, grad: NDArray[Any], gap: float) -> bool:
        """Whether gradient and penalty prove that the objective is so close to its smallest value.

        The gradient with respect to the bias must be small.
        """
        weights = grad[:, :-1].astype(np.float64)
        if isinstance(self.penalty, np.ndarray):
            return divided_squares(weights, self.penalty) <= gap
        return float(np.vdot(weights, weights)) <= 2 * self.penalty * gap

    @np.errstate(all="ignore")
    def smallest_weights(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the smallest weights with the same logits on all samples, and biases for them.

        If features are collinear, or outnumber the samples, many weights have the same logits. For
        the rows of an optimum these are the limit of a vanishing penalty. Weights of more than
        1,024 sparse features stay as they are.

        Examples
        --------
        >>> problem = FullBatch(np.array([[1.0, 3.0], [2.0, 6.0]]), [0, 1])
        >>> theta = np.array([[5.0, 0.0, 0.0], [-5.0, 0.0, 0.0]])
        >>> problem.smallest_weights(theta).round(2) + 0.0  # in proportion 1 to 2
        array([[ 1.,  2.,  0.],
               [-1., -2.,  0.]])
        """
        theta, summary = self._check(theta), self.summary
        if summary.is_sparse and summary.num_inputs > MAX_COLUMNS:
            return theta  # the others would be dense
        if summary.num_samples <= summary.num_inputs > MAX_COLUMNS:
            return self._span.project(theta, self._store, self.scale)
        return smallest_weights(theta, self._store, self.scale)

    @np.errstate(all="ignore")
    def suboptimality(self, theta: NDArray[Any]) -> float:
        r"""Bound the distance of the objective at ``theta`` from its smallest value.

        .. math:: J(\theta) - \min J \;\le\; J(\theta) - D(Q)

        D is the value of the dual problem at probabilities Q close to those at ``theta``. Where the
        gradient with respect to the bias is 0, the bound is
        :math:`\|\partial J / \partial W\|_F^2 / (2 \lambda)`. If a feature has no penalty, far from
        the optimum, and above 4,096 classes it is the objective itself, which is never negative.
        It is computed in float64, and proven up to its rounding errors. ``theta`` must be finite.
        Derivation: :mod:`npsoftmax.objective.duality`.

        Examples
        --------
        >>> problem = FullBatch(np.array([[1.0, 3.0]]), [0, 1], l2=0.1)
        >>> round(problem.suboptimality(np.zeros((2, 2))), 6)  # |[0.5; -0.5]|^2 / 0.2 is larger
        0.693147
        """
        theta = self._check(theta).astype(np.float64)
        _check_finite(theta)
        # The dual value solves a system of one equation for each class.
        if self.least_penalty == 0 or theta.shape[0] > MAX_PRECONDITIONED_CLASSES:
            return self._objective(theta)
        gap = duality_gap(theta, self._store, self.penalty, self.scale)
        value = gap.value + self.cost_of_absent(theta)
        _, rows = present_rows(theta, self.summary)
        # The objective is at least that without the classes that have no samples.
        if value < gap.loss + penalty_at(rows, self.penalty):
            return value
        return min(value, self._objective(theta))

    @np.errstate(all="ignore")
    def cost_of_absent(self, theta: NDArray[np.float64]) -> float:
        """Return how much larger the objective is with the classes that have no samples."""
        return cost_of_absent(self._check(theta), self._store, self.penalty, self.scale)

    def _objective(self, theta: NDArray[np.float64]) -> float:
        part = partial(_loss, theta=theta, scale=self.scale)
        losses: float = self._store.map_reduce(part, operator.add)
        return losses / self.summary.total + penalty_at(theta, self.penalty)

    @np.errstate(all="ignore")
    def reach(self, theta: NDArray[Any]) -> tuple[NDArray[np.intp], Reach]:
        """Return the classes that have samples, and how far their logits are from the optimum's.

        See :mod:`npsoftmax.objective.reach`. It takes samples in memory, and each feature must have
        a penalty.
        """
        theta = self._check(theta).astype(np.float64)
        present, rows = present_rows(theta, self.summary)
        gap = duality_gap(theta, self._store, self.penalty, self.scale)
        samples = self.samples
        if samples.weights is not None:
            samples = samples.take(np.flatnonzero(samples.weights), 0)
        samples = samples._replace(y=np.searchsorted(present, samples.y))
        return present, reach_of(rows, samples, self.penalty, self.scale, gap)

    def _check(self, theta: NDArray[Any]) -> NDArray[Any]:
        theta = np.asarray(theta)
        check_dtype(theta)
        columns, fewest = self.summary.num_inputs + 1, self.summary.class_totals.size
        if theta.ndim != 2 or theta.shape[1] != columns or theta.shape[0] < fewest:
            raise ShapeError(
                f"theta: expected shape (k, {columns}) with k of at least {fewest}, one more than "
                f"the largest label, got {theta.shape}"
            )
        return np.asarray(theta, order=memory_order())


def _loss_and_grad(
    samples: Samples, workspace: Workspace, theta: NDArray[Any], total: float, scale: float
) -> tuple[float, NDArray[Any], float]:
    """Return the loss and gradient of some samples, and the weight of the misclassified ones."""
    _, X, y, weights = samples
    grad = np.empty_like(theta)
    loss, _, hits = accumulate(theta, X, y, total, scale, workspace, weights, grad=grad)
    missed = y.size - np.count_nonzero(hits) if weights is None else weights[~hits].sum()
    return loss, grad, float(missed)


def _loss(samples: Samples, workspace: Workspace, theta: NDArray[Any], scale: float) -> float:
    """Return the sum of the losses of some samples."""
    _, X, y, weights = samples
    return sum_losses(theta, X, y, scale, workspace, weights)


def _product(
    samples: Samples,
    workspace: Workspace,
    theta: NDArray[Any],
    V: NDArray[Any],
    total: float,
    scale: float,
) -> NDArray[Any]:
    """Return the contribution of some samples to the product with the Hessian."""
    return accumulate_product(theta, V, samples.X, total, scale, workspace, samples.weights)


def _check_finite(theta: NDArray[Any]) -> None:
    if not np.isfinite(theta).all():
        raise InputError("theta: expected finite parameters, got NaN or infinities; begin at 0")
