"""The objective on a data set in this process."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npsoftmax._checks import as_columns, as_labels, floating_dtype, same_samples
from npsoftmax.errors import InputError, ShapeError
from npsoftmax.objective.batch import Evaluation
from npsoftmax.objective.samples import LocalStore, Samples
from npsoftmax.objective.summed import SummedObjective

__all__ = ["FullBatch", "as_weights", "unusable_weights"]


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
