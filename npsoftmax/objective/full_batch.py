"""The objective on a whole data set: what a solver for the exact optimum asks of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npsoftmax._checks import as_columns, as_labels, as_size, floating_dtype, same_samples
from npsoftmax.errors import InputError, ShapeError
from npsoftmax.objective._blocks import Workspace
from npsoftmax.objective._parts import Parts
from npsoftmax.objective.batch import (
    Evaluation,
    accumulate,
    as_scale,
    penalised,
    refuse_other_dtypes,
)
from npsoftmax.objective.curvature import accumulate_product, as_direction
from npsoftmax.objective.duality import dual_value
from npsoftmax.objective.preconditioner import MOST_CLASSES, Solve, preconditioner_at

__all__ = ["FullBatch"]


class FullBatch:
    r"""The objective on all samples of a data set, which may weigh differently.

    .. math::

        J(\theta) = \frac{1}{\bar w} \sum_{j=1}^n w_j \, \ell(s W x_j + b, y_j)
            + \frac{\lambda}{2} \|W\|_F^2, \qquad \bar w = \sum_j w_j

    It is convex, and twice differentiable: the gradient is derived in :mod:`npsoftmax.objective`
    (each column of dZ times :math:`n w_j / \bar w`), the Hessian in
    :mod:`npsoftmax.objective.curvature`. Samples are taken and converted in blocks, shared by
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
        self.l2 = as_size(l2, "l2")
        weights = None if sample_weight is None else _as_weights(sample_weight, self.y.size)
        self.sample_weight = weights
        self.scale = as_scale(scale)
        self._total = self.y.size if weights is None else float(weights.sum())
        self._fewest_classes = int(self.y.max()) + 1
        self._parts = Parts(threads, self.X.shape[0] * self._fewest_classes)
        self.threads = self._parts.threads

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
            ``loss``, ``grad`` and what else one pass tells; the arrays are new.

        Raises
        ------
        ShapeError, InputError
            ``theta`` is of another shape or dtype.
        """
        theta = self._checked(theta)

        def part(columns: slice, workspace: Workspace) -> tuple[float, NDArray[Any], NDArray[Any]]:
            weights = None if self.sample_weight is None else self.sample_weight[columns]
            X, y = self.X[:, columns], self.y[columns]
            return accumulate(theta, X, y, self._total, self.scale, workspace, weights)

        losses, grads, predictions = zip(*self._parts.call(part, self.y.size), strict=True)
        grad = sum(grads[1:], start=grads[0].copy(order="F"))
        return penalised(theta, grad, sum(losses), self.l2, np.concatenate(predictions))

    @np.errstate(all="ignore")
    def hessian_vector_product(self, theta: NDArray[Any], V: NDArray[Any]) -> NDArray[Any]:
        """Multiply the Hessian at ``theta`` by a direction.

        Formula and derivation: :func:`npsoftmax.objective.hessian_vector_product`.

        Parameters
        ----------
        theta : ndarray
            As for :meth:`loss_and_grad`.
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
        >>> problem = FullBatch(np.array([[1.0, 3.0]]), [0, 1])
        >>> problem.hessian_vector_product(np.zeros((2, 2)), np.array([[1.0, 0.0], [0.0, 0.0]]))
        array([[ 1.25,  0.5 ],
               [-1.25, -0.5 ]])
        """
        theta = self._checked(theta)
        V = as_direction(V, theta)

        def part(columns: slice, workspace: Workspace) -> NDArray[Any]:
            weights = None if self.sample_weight is None else self.sample_weight[columns]
            X = self.X[:, columns]
            return accumulate_product(theta, V, X, self._total, self.scale, workspace, weights)

        product: NDArray[Any] = np.asfortranarray(sum(self._parts.call(part, self.y.size)))
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
            As for :meth:`loss_and_grad`.

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
        >>> problem = FullBatch(np.array([[1.0, 3.0]]), [0, 1], l2=0.1)
        >>> theta, V = np.zeros((2, 2)), np.array([[1.0, 0.0], [-1.0, 0.0]])
        >>> M = problem.preconditioner(theta)
        >>> M(problem.hessian_vector_product(theta, V)).round(2) + 0.0  # two classes: the inverse
        array([[ 1.,  0.],
               [-1.,  0.]])
        """
        theta = self._checked(theta)
        _refuse_non_finite(theta)
        return preconditioner_at(
            theta, self.X, self.sample_weight, self.l2, self.scale, self._parts
        )

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
            As for :meth:`loss_and_grad`.

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
        >>> problem = FullBatch(np.array([[1.0, 3.0]]), [0, 1], l2=0.1)
        >>> round(problem.suboptimality(np.zeros((2, 2))), 6)  # |[0.5; -0.5]|^2 / 0.2 is larger
        0.693147
        """
        theta = self._checked(theta).astype(np.float64)
        _refuse_non_finite(theta)
        loss = self.loss_and_grad(theta).loss
        if self.l2 == 0 or theta.shape[0] > MOST_CLASSES:
            return loss
        weights = np.ones(self.y.size) if self.sample_weight is None else self.sample_weight
        shares = weights / self._total
        dual = dual_value(theta, self.X, self.y, shares, self.l2, self.scale, self._parts)
        return min(loss, max(0.0, loss - dual))

    def _checked(self, theta: NDArray[Any]) -> NDArray[Any]:
        theta = np.asarray(theta)
        refuse_other_dtypes(theta)
        rows = self.X.shape[0] + 1
        if theta.ndim != 2 or theta.shape[1] != rows or theta.shape[0] < self._fewest_classes:
            raise ShapeError(
                f"theta: expected shape (k, {rows}) with k of at least {self._fewest_classes}, one "
                f"more than the largest label, got {theta.shape}"
            )
        return np.asfortranarray(theta)


def _refuse_non_finite(theta: NDArray[Any]) -> None:
    if not np.isfinite(theta).all():
        raise InputError("theta: expected finite parameters, got NaN or infinities; begin at 0")


def _as_weights(sample_weight: ArrayLike, num_samples: int) -> NDArray[np.float64]:
    given = np.asarray(sample_weight)
    if given.shape != (num_samples,):
        raise ShapeError(
            f"sample_weight: expected one number for each of {num_samples} samples, got shape "
            f"{given.shape}; leave it out for equal weights"
        )
    floating_dtype(given.dtype, "sample_weight")
    weights = given.astype(np.float64)
    with np.errstate(over="ignore"):
        total = weights.sum()
    if not (weights.min() >= 0 and 0 < total < np.inf):
        raise InputError(
            "sample_weight: expected finite numbers of at least 0, not all 0, got numbers from "
            f"{weights.min()} to {weights.max()}; leave it out for equal weights"
        )
    return weights
