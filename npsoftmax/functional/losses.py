"""Cross-entropy on probabilities, with its gradient, and label smoothing."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npsoftmax._checks import as_float, as_single_axis
from npsoftmax.errors import InputError
from npsoftmax.functional._compensated import add_up, as_matrix
from npsoftmax.functional._targets import (
    Aggregate,
    aggregate,
    as_targets,
    refuse_unknown,
    without,
)

__all__ = ["crossentropy", "crossentropy_grad", "label_smoothing"]


@np.errstate(all="ignore")
def crossentropy(
    yhat: ArrayLike,
    y: ArrayLike,
    axis: int = 0,
    agg: Aggregate = "mean",
    eps: float | None = None,
) -> Any:
    r"""Compute the cross-entropy between targets and given probabilities.

    .. math:: \ell = -\sum_i y_i \log(\hat y_i + \varepsilon)

    Train on :func:`logitcrossentropy` instead: it needs no epsilon.

    Parameters
    ----------
    yhat : array_like
        Probabilities, classes along ``axis``; they need not sum to one.
    y, axis, agg
        As for :func:`logitcrossentropy`.
    eps : float, optional
        Added inside the logarithm; the machine epsilon of ``yhat``'s dtype unless given.

    Returns
    -------
    scalar or ndarray
        As for :func:`logitcrossentropy`.

    Raises
    ------
    ShapeError, LabelError, InputError
        As for :func:`logitcrossentropy`.

    References
    ----------
    Flux.jl, ``src/losses/functions.jl``.

    Examples
    --------
    >>> float(crossentropy([[0.1, 0.3], [0.3, 0.2], [0.6, 0.5]], [0, 2], eps=0))
    1.4978661367769954
    """
    probabilities, targets, axis, eps = _as_probabilities(yhat, y, axis, eps)
    p = as_matrix(probabilities, (axis,)).astype(np.float64)
    # Next to 1 the sum p + eps would round away what the logarithm consists of.
    logs = np.where(p + eps > 0.5, np.log1p((p - 1.0) + eps), np.log(p + eps))
    if targets.ndim < probabilities.ndim:
        losses = -logs[targets.ravel(), np.arange(targets.size)]
    else:
        weights = as_matrix(targets, (axis,))
        terms = np.where(weights == 0, 0.0, -weights * logs)
        losses = add_up(terms, 0.0).high
    refuse_unknown(agg, losses.size)
    return aggregate(losses, agg, probabilities.dtype, without(probabilities.shape, axis))


@np.errstate(all="ignore")
def crossentropy_grad(
    yhat: ArrayLike,
    y: ArrayLike,
    axis: int = 0,
    agg: Aggregate = "mean",
    eps: float | None = None,
) -> NDArray[Any]:
    r"""Compute the gradient of :func:`crossentropy` with respect to ``yhat``.

    .. math:: \partial\ell / \partial\hat y_i = -y_i / (\hat y_i + \varepsilon)

    divided by the number of samples for ``agg="mean"``; 0 wherever the target is 0.

    Parameters
    ----------
    yhat, y, axis, agg, eps
        As for :func:`crossentropy`.

    Returns
    -------
    ndarray
        The shape of ``yhat``.

    Raises
    ------
    ShapeError, LabelError, InputError
        As for :func:`crossentropy`.

    Examples
    --------
    >>> crossentropy_grad([[0.25], [0.75]], [0], eps=0)
    array([[-4.],
           [ 0.]])
    """
    probabilities, targets, axis, eps = _as_probabilities(yhat, y, axis, eps)
    if targets.ndim < probabilities.ndim:
        one_hot = np.zeros_like(probabilities)
        np.put_along_axis(one_hot, np.expand_dims(targets, axis), 1, axis)
        targets = one_hot
    samples = probabilities.size // probabilities.shape[axis] if agg == "mean" else 1
    refuse_unknown(agg, samples)
    denominator = (probabilities.astype(np.float64) + eps) * samples
    gradient = np.where(targets == 0, 0.0, -targets / denominator)
    return gradient.astype(probabilities.dtype)


@np.errstate(all="ignore")
def label_smoothing(y: ArrayLike, alpha: float, axis: int = 0) -> NDArray[Any]:
    r"""Mix one-hot or soft targets with the uniform distribution.

    .. math:: y_i (1 - \alpha) + \alpha / k

    Parameters
    ----------
    y : array_like
        One-hot or soft targets, ``k`` classes along ``axis``, for instance ``(k, n)``.
    alpha : float
        How much of the uniform distribution, strictly between 0 and 1.
    axis : int
        Where the classes lie.

    Returns
    -------
    ndarray
        The shape of ``y``.

    Raises
    ------
    InputError
        ``alpha`` is not strictly between 0 and 1, or ``y`` holds other numbers than 0 to 1.
    ShapeError
        ``y`` is a number or has no axis ``axis``.

    References
    ----------
    Flux.jl, ``src/losses/functions.jl``.

    Examples
    --------
    >>> label_smoothing([[1, 0], [0, 1]], 0.25)
    array([[0.875, 0.125],
           [0.125, 0.875]])
    """
    targets = as_float(y, "label_smoothing")
    axis = as_single_axis(axis, targets)
    if targets.size and (targets.min() < 0 or targets.max() > 1):
        raise InputError(
            f"y: expected targets from 0 to 1, got {targets.min():g} to {targets.max():g}; "
            "make integer labels one-hot with onehotbatch"
        )
    if not 0 < alpha < 1:
        raise InputError(f"alpha: expected 0 < alpha < 1, got {alpha}; leave y as it is for none")
    smoothed: NDArray[Any] = targets * (1 - alpha) + alpha / targets.shape[axis]
    return smoothed


def _as_probabilities(
    yhat: ArrayLike, y: ArrayLike, axis: int, eps: float | None
) -> tuple[NDArray[Any], NDArray[Any], int, float]:
    probabilities = as_float(yhat, "yhat")
    axis = as_single_axis(axis, probabilities)
    targets = as_targets(y, probabilities.shape, axis)
    if eps is None:
        eps = float(np.finfo(probabilities.dtype).eps)
    elif not isinstance(eps, int | float) or not 0 <= eps < np.inf:
        raise InputError(f"eps: expected a finite number of at least 0, got {eps!r}")
    return probabilities, targets, axis, eps
