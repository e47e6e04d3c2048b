"""Training to the exact optimum in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from npsoftmax.training.full_batch import FullBatchTrainer
from npsoftmax.training.optimum import Optimum

if TYPE_CHECKING:
    from npsoftmax.model import SoftmaxRegression

__all__ = ["fit"]


def fit(
    model: SoftmaxRegression,
    X: ArrayLike,
    y: ArrayLike,
    *,
    l2: float = 0.0,
    sample_weight: ArrayLike | None = None,
    tol: float = 1e-5,
    max_iterations: int = 1000,
    threads: int | None = None,
) -> Optimum:
    r"""Train a model on all samples, to the optimum of its convex objective.

    .. math:: J(\theta) = \frac{1}{\bar w} \sum_j w_j \, \ell(s W x_j + b, y_j)
        + \frac{\lambda}{2} \|W\|_F^2

    It needs no learning rate, no seed and no number of epochs: the result is the same, within
    the tolerance, from wherever ``model.theta`` starts.

    Parameters
    ----------
    model : SoftmaxRegression
        Its ``theta`` is changed in place; everything is computed in its dtype.
    X, y, l2, sample_weight, threads
        As for :class:`npsoftmax.objective.FullBatch`.
    tol : float
        The largest entry of the gradient, in magnitude, to stop at.
    max_iterations : int
        Stop after so many in any case.

    Returns
    -------
    Optimum
        What was reached, a bound on the distance to the optimum, and what would help.

    Raises
    ------
    ShapeError, LabelError, InputError
        The data do not fit the model, or a setting makes no sense.
    DivergedError
        The objective is not finite at the start.

    Examples
    --------
    >>> import numpy as np
    >>> from npsoftmax import SoftmaxRegression
    >>> X, y = np.array([[-2.0, -1.0, 1.0, 2.0]]), [0, 1, 0, 1]
    >>> model = SoftmaxRegression(1, 2, dtype=np.float64)
    >>> optimum = fit(model, X, y, l2=0.1, tol=1e-9)
    >>> optimum.converged, round(optimum.objective, 6), optimum.suboptimality < 1e-12
    (True, 0.645986, True)
    >>> model.W.round(4)  # the classes differ in sign alone
    array([[-0.1922],
           [ 0.1922]])
    """
    return FullBatchTrainer(
        model, X, y, l2=l2, sample_weight=sample_weight, tol=tol, threads=threads
    ).fit(max_iterations)
