"""The objective on a data set in this process."""

from __future__ import annotations

from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npsoftmax._checks import as_columns, as_labels, as_size, floating_dtype, same_samples
from npsoftmax.errors import InputError, ShapeError
from npsoftmax.objective.batch import (
    Evaluation,
    accumulate,
    accumulate_product,
    as_direction,
    as_scale,
    penalty_and_grad,
    refuse_other_dtypes,
)
from npsoftmax.objective.duality import dual_value
from npsoftmax.objective.hot_loop import Workspace
from npsoftmax.objective.preconditioner import MOST_CLASSES, Solve, preconditioner_at
from npsoftmax.objective.samples import Contents, LocalStore, Samples, Store, added, digest_of

__all__ = ["FullBatch", "SummedEvaluation", "SummedObjective", "as_weights", "unusable_weights"]


# The objective on a whole data set, wherever its samples lie: what a solver asks of it.


class SummedEvaluation(NamedTuple):
    """What one pass over all samples leaves behind, whatever their number.

    Attributes
    ----------
    loss : float
        The objective ``J``, penalty included.
    grad : ndarray
        ``dJ/dtheta``, shape ``(k, d+1)``, Fortran-ordered.
    crossentropy : float
        The mean cross-entropy, in nats, without the penalty.
    accuracy : float
        The share of samples, by their weights, whose most likely class is their label.
    """

    loss: float
    grad: NDArray[Any]
    crossentropy: float
    accuracy: float


class SummedObjective:
    r"""The objective as a sum over samples that are held by a store.

    .. math::

        J(\theta) = \frac{1}{\bar w} \sum_{j=1}^n w_j \, \ell(s W x_j + b, y_j)
            + \frac{\lambda}{2} \|W\|_F^2, \qquad \bar w = \sum_j w_j

    Value, gradient, Hessian products, the preconditioner and the bound on the distance to the
    optimum are sums over the samples: the store computes them part by part, where the samples lie,
    and the penalty is added once. :class:`npsoftmax.objective.FullBatch` is this objective with
    all samples in this process; for samples on the workers of a cluster there is an extension.

    Parameters
    ----------
    store : Store
        Who holds the samples, checked before.
    l2 : float
        ``lambda``, the weight of the penalty.
    scale : float
        ``s``, what a sample is multiplied by.

    Attributes
    ----------
    contents : Contents
        What is known of all samples.
    threads : int
        How many evaluate at the same time.
    place : str
        Where samples lie and how they are cut, as far as the last bits of sums depend on it.

    Raises
    ------
    InputError
        ``l2`` is negative, or ``scale`` (next to) 0 or infinity.
    """

    def __init__(self, store: Store, l2: float, scale: float) -> None:
        self.l2 = as_size(l2, "l2")
        self.scale = as_scale(scale)
        self._store = store

    @property
    def contents(self) -> Contents:
        """What is known of all samples."""
        return self._store.contents

    @property
    def threads(self) -> int:
        """How many evaluate at the same time."""
        return self._store.threads

    @property
    def place(self) -> str:
        """Where samples lie and how they are cut, as far as the last bits of sums depend on it."""
        return self._store.place

    @cached_property
    def digests(self) -> tuple[str, str | None]:
        """Tell labels and weights from others, whoever holds them: 64 bits each, as text."""
        labels, weights = self._store.shared(digest_of, added)
        return f"{labels % 2**64:016x}", f"{weights % 2**64:016x}" if weights else None

    def subset(self, kept: NDArray[np.intp]) -> SummedObjective:
        """Return the objective on copies of some of the samples, held where they lie.

        Parameters
        ----------
        kept : ndarray of int
            Their places among all samples, ascending.

        Returns
        -------
        SummedObjective

        Raises
        ------
        InputError
            There is none.
        """
        if kept.size == 0:
            raise InputError("kept: expected the place of at least one sample, got none")
        return SummedObjective(self._store.select(kept), self.l2, self.scale)

    @np.errstate(all="ignore")
    def evaluate(self, theta: NDArray[Any]) -> SummedEvaluation:
        """Evaluate the objective and its gradient.

        Parameters
        ----------
        theta : ndarray
            ``[W b]``, shape ``(k, d+1)``, float32 or float64, with more classes than the largest
            label. Everything is computed in its dtype, the sum of the losses in float64.

        Returns
        -------
        SummedEvaluation
            The arrays are new.

        Raises
        ------
        ShapeError, InputError
            ``theta`` is of another shape or dtype.
        """
        return self._evaluated(self._checked(theta), None)

    def _evaluated(
        self, theta: NDArray[Any], predicted: NDArray[np.intp] | None
    ) -> SummedEvaluation:
        """Evaluate at valid parameters; write predictions to an array if samples lie here."""
        total = self.contents.total
        part = partial(
            _loss_and_grad, theta=theta, total=total, scale=self.scale, predicted=predicted
        )
        crossentropy, grad, missed = self._store.shared(part, added)
        penalty = penalty_and_grad(theta, self.l2, grad)
        accuracy = (total - missed) / total  # 1 where none is missed, however weights round
        return SummedEvaluation(crossentropy + penalty, grad, crossentropy, accuracy)

    @np.errstate(all="ignore")
    def hessian_vector_product(self, theta: NDArray[Any], V: NDArray[Any]) -> NDArray[Any]:
        """Multiply the Hessian at ``theta`` by a direction.

        Formula and derivation: :func:`npsoftmax.objective.hessian_vector_product`.

        Parameters
        ----------
        theta : ndarray
            As for :meth:`evaluate`.
        V : ndarray
            The direction, ``theta``'s shape.

        Returns
        -------
        ndarray
            Of ``theta``'s shape and dtype, Fortran-ordered.

        Raises
        ------
        ShapeError, InputError
            ``theta`` or ``V`` is of another shape or dtype.

        Examples
        --------
        >>> from npsoftmax.objective import FullBatch
        >>> problem = FullBatch(np.array([[1.0, 3.0]]), [0, 1])
        >>> problem.hessian_vector_product(np.zeros((2, 2)), np.array([[1.0, 0.0], [0.0, 0.0]]))
        array([[ 1.25,  0.5 ],
               [-1.25, -0.5 ]])
        """
        theta = self._checked(theta)
        V = as_direction(V, theta)
        part = partial(_product, theta=theta, V=V, total=self.contents.total, scale=self.scale)
        product = np.asfortranarray(self._store.shared(part, np.add))
        product[:, :-1] += theta.dtype.type(self.l2) * V[:, :-1]
        return product

    @np.errstate(all="ignore")
    def preconditioner(self, theta: NDArray[Any]) -> Solve:
        """Return an approximate inverse of the Hessian at ``theta``.

        The inverse of the Hessian's diagonal blocks, one for each class, estimated from a few
        thousand samples where there are many, and exact on what all classes have in common; formula
        and derivation: :mod:`npsoftmax.objective.preconditioner`. Where blocks would take more
        than 64 million numbers, the classes share one; beyond 2,047 features it is the inverse of
        their diagonals, beyond 4,096 classes the identity.

        Parameters
        ----------
        theta : ndarray
            As for :meth:`evaluate`.

        Returns
        -------
        callable
            Maps a gradient, of ``theta``'s shape, to another array; linear, symmetric, and
            positive on gradients that are not 0.

        Raises
        ------
        ShapeError, InputError
            ``theta`` is of another shape or dtype, or not finite; squares of features overflow.

        Examples
        --------
        >>> from npsoftmax.objective import FullBatch
        >>> problem = FullBatch(np.array([[1.0, 3.0]]), [0, 1], l2=0.1)
        >>> theta, V = np.zeros((2, 2)), np.array([[1.0, 0.0], [-1.0, 0.0]])
        >>> M = problem.preconditioner(theta)
        >>> M(problem.hessian_vector_product(theta, V)).round(2) + 0.0  # two classes: the inverse
        array([[ 1.,  0.],
               [-1.,  0.]])
        """
        theta = self._checked(theta)
        _refuse_non_finite(theta)
        return preconditioner_at(theta, self._store, self.l2, self.scale)

    @np.errstate(all="ignore")
    def suboptimality(self, theta: NDArray[Any]) -> float:
        r"""Bound how far the objective at ``theta`` is above its smallest value.

        .. math:: J(\theta) - \min J \;\le\; J(\theta) - D(Q)

        with the value of the dual problem at probabilities close to those at ``theta``; where the
        gradient on the bias is 0 it is :math:`\|\partial J / \partial W\|_F^2 / (2 \lambda)`.
        Derivation: :mod:`npsoftmax.objective.duality`. Without a penalty, far from the optimum, and
        with more than 4,096 classes it is the objective itself, which is never negative.

        Parameters
        ----------
        theta : ndarray
            As for :meth:`evaluate`.

        Returns
        -------
        float
            The bound, in nats, computed in float64: proved but for its rounding errors.

        Raises
        ------
        ShapeError, InputError
            ``theta`` is of another shape or dtype.

        Examples
        --------
        >>> from npsoftmax.objective import FullBatch
        >>> problem = FullBatch(np.array([[1.0, 3.0]]), [0, 1], l2=0.1)
        >>> round(problem.suboptimality(np.zeros((2, 2))), 6)  # |[0.5; -0.5]|^2 / 0.2 is larger
        0.693147
        """
        theta = self._checked(theta).astype(np.float64)
        _refuse_non_finite(theta)
        loss = self.evaluate(theta).loss
        if self.l2 == 0 or theta.shape[0] > MOST_CLASSES:
            return loss
        return min(loss, max(0.0, loss - dual_value(theta, self._store, self.l2, self.scale)))

    def _checked(self, theta: NDArray[Any]) -> NDArray[Any]:
        theta = np.asarray(theta)
        refuse_other_dtypes(theta)
        columns, fewest = self.contents.num_inputs + 1, self.contents.class_totals.size
        if theta.ndim != 2 or theta.shape[1] != columns or theta.shape[0] < fewest:
            raise ShapeError(
                f"theta: expected shape (k, {columns}) with k of at least {fewest}, one "
                f"more than the largest label, got {theta.shape}"
            )
        return np.asfortranarray(theta)


def _loss_and_grad(
    samples: Samples,
    workspace: Workspace,
    theta: NDArray[Any],
    total: float,
    scale: float,
    predicted: NDArray[np.intp] | None,
) -> tuple[float, NDArray[Any], float]:
    """Return the loss, the gradient, and the weight of those classified wrong, of some samples."""
    _, X, y, weights = samples
    loss, grad, found = accumulate(theta, X, y, total, scale, workspace, weights)
    if predicted is not None:
        predicted[samples.start : samples.stop] = found
    wrong = found != y
    missed = np.count_nonzero(wrong) if weights is None else weights[wrong].sum()
    return loss, grad.copy(order="F"), float(missed)


def _product(
    samples: Samples,
    workspace: Workspace,
    theta: NDArray[Any],
    V: NDArray[Any],
    total: float,
    scale: float,
) -> NDArray[Any]:
    return accumulate_product(theta, V, samples.X, total, scale, workspace, samples.weights)


def _refuse_non_finite(theta: NDArray[Any]) -> None:
    if not np.isfinite(theta).all():
        raise InputError("theta: expected finite parameters, got NaN or infinities; begin at 0")


class FullBatch(SummedObjective):
    r"""The objective on all samples of a data set, which may weigh differently.

    .. math::

        J(\theta) = \frac{1}{\bar w} \sum_{j=1}^n w_j \, \ell(s W x_j + b, y_j)
            + \frac{\lambda}{2} \|W\|_F^2, \qquad \bar w = \sum_j w_j

    It is convex, and twice differentiable: the gradient is derived in :mod:`npsoftmax.objective`
    (each column of dZ times :math:`n w_j / \bar w`), the Hessian in
    :mod:`npsoftmax.objective.batch`. Samples are taken and converted in blocks, shared by
    threads.

    Parameters
    ----------
    X : array_like
        Samples, shape ``(d, n)``, of any real dtype. In Fortran order, as ``rows.T`` is for
        samples that lie one after another, bytes stay bytes and files stay memory-mapped; in
        another order they are copied.
    y : array_like
        Integer labels, shape ``(n,)``.
    l2 : float
        ``lambda``, the weight of the penalty.
    sample_weight : array_like, optional
        Shape ``(n,)``, numbers of at least 0; all 1 unless given. A weight of 2 counts a sample
        twice.
    scale : float
        ``s``, what a sample is multiplied by.
    threads : int, optional
        How many evaluate at a time at most, each with one BLAS thread; the cores that this process
        may use unless given. Small problems take one, with the BLAS as it is. In its last digits
        the result depends on it, and on the BLAS.

    Raises
    ------
    ShapeError, LabelError, InputError
        Arrays do not fit each other, hold no sample, NaN, infinities or negative labels; ``l2`` or
        a weight is negative; all weights are 0.

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
    ) -> None:
        # Fortran order, or the products would take twice as long.
        self.X = np.require(as_columns(X), requirements=["F", "A"])
        self.y = as_labels(y, None)
        same_samples(self.X, self.y)
        self.sample_weight = None
        if sample_weight is not None:
            self.sample_weight = as_weights(sample_weight, self.y.size)
        samples = Samples(0, self.X, self.y, self.sample_weight)
        super().__init__(LocalStore(samples, threads), l2, scale)
        if self.sample_weight is not None and not 0 < self.contents.total < np.inf:
            low, high = self.sample_weight.min(), self.sample_weight.max()
            raise unusable_weights(f"numbers from {low} to {high}")

    @np.errstate(all="ignore")
    def loss_and_grad(self, theta: NDArray[Any]) -> Evaluation:
        """Evaluate the objective and its gradient, and predict.

        Parameters
        ----------
        theta : ndarray
            As for :meth:`evaluate`.

        Returns
        -------
        Evaluation
            ``loss``, ``grad`` and what else one pass tells; the arrays are new.

        Raises
        ------
        ShapeError, InputError
            ``theta`` is of another shape or dtype.
        """
        predicted = np.empty(self.y.size, np.intp)
        loss, grad, crossentropy, _ = self._evaluated(self._checked(theta), predicted)
        return Evaluation(loss, grad, crossentropy, predicted)


def as_weights(sample_weight: ArrayLike, num_samples: int) -> NDArray[np.float64]:
    """Return weights in float64, if there is one of at least 0 for each sample."""
    given = np.asarray(sample_weight)
    if given.shape != (num_samples,):
        raise ShapeError(
            f"sample_weight: expected one number for each of {num_samples} samples, got shape "
            f"{given.shape}; leave it out for equal weights"
        )
    floating_dtype(given.dtype, "sample_weight")
    weights = given.astype(np.float64)
    if not ((weights >= 0) & (weights < np.inf)).all():
        raise unusable_weights(f"numbers from {weights.min()} to {weights.max()}")
    return weights


def unusable_weights(got: str) -> InputError:
    """Return the error for weights that are negative, not finite, or all 0."""
    return InputError(
        f"sample_weight: expected finite numbers of at least 0, not all 0, got {got}; leave it out "
        "for equal weights"
    )
