r"""One temperature that makes probabilities mean what they say.

Probabilities of a classifier that was trained to its end on few samples are too sure, those of
one that stopped early not sure enough. Dividing all logits by one number ``T`` mends most of it
and changes no prediction. With :math:`\beta = 1/T`, the loss on held-out samples and its
derivative are

.. math::

    L(\beta) = \frac1n \sum_j \ell(\beta z_j, y_j), \qquad
    \frac{dL}{d\beta} = \sum_{ij} \frac{\partial L}{\partial (\beta z_{ij})} z_{ij}
        = \frac1n \sum_j \Bigl( \sum_i p_{ij} z_{ij} - z_{y_j j} \Bigr), \qquad
    P = \mathrm{softmax}(\beta Z),

by the chain rule through :func:`npsoftmax.functional.logitcrossentropy`. The second derivative is
the mean variance of a sample's logits under its probabilities, so ``L`` is convex: it has a lowest
point at a finite :math:`\beta > 0` exactly where the derivative is negative at 0 and positive at
infinity,

.. math::

    \frac1n \sum_j \Bigl( \frac1k \sum_i z_{ij} - z_{y_j j} \Bigr) < 0 <
    \frac1n \sum_j \bigl( \max_i z_{ij} - z_{y_j j} \bigr) .

As the derivative only ever grows, halving an interval around its root finds it.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npsoftmax._checks import as_columns, as_float, as_labels, as_size, same_samples
from npsoftmax.errors import InputError
from npsoftmax.functional import logitcrossentropy, logitcrossentropy_grad

__all__ = ["fit_temperature", "temperature_loss", "temperature_loss_grad"]

_PRECISION = 1e-10


def temperature_loss(beta: float, logits: ArrayLike, y: ArrayLike) -> float:
    r"""Compute the mean cross-entropy of logits that are multiplied by :math:`\beta`.

    .. math:: L = \frac1n \sum_j \ell(\beta z_j, y_j)

    Parameters
    ----------
    beta : float
        :math:`\beta = 1/T`, at least 0.
    logits : array_like
        Shape ``(k, n)``.
    y : array_like
        Labels, shape ``(n,)``.

    Returns
    -------
    float
        In nats.

    Raises
    ------
    ShapeError, LabelError, InputError
        The arrays do not fit each other, or ``beta`` is no such number.

    Examples
    --------
    >>> round(temperature_loss(2.0, [[0.5, 0.5], [0.0, 0.0]], [0, 1]), 6)
    0.813262
    """
    return float(logitcrossentropy(_scaled(beta, logits), y))


def temperature_loss_grad(beta: float, logits: ArrayLike, y: ArrayLike) -> float:
    r"""Compute the derivative of :func:`temperature_loss` with respect to :math:`\beta`.

    .. math:: \frac{dL}{d\beta} = \sum_{ij} \frac{\partial L}{\partial (\beta z_{ij})} z_{ij}

    Parameters
    ----------
    beta, logits, y
        As for :func:`temperature_loss`.

    Returns
    -------
    float

    Raises
    ------
    ShapeError, LabelError, InputError
        As for :func:`temperature_loss`.

    Examples
    --------
    >>> round(temperature_loss_grad(2.0, [[0.5, 0.5], [0.0, 0.0]], [0, 1]), 6)
    0.115529
    """
    grad = logitcrossentropy_grad(_scaled(beta, logits), y)
    return float((grad * as_float(logits, "logits")).sum())


def _scaled(beta: float, logits: ArrayLike) -> NDArray[np.float64]:
    scaled: NDArray[np.float64] = as_size(beta, "beta") * as_float(logits, "logits").astype(float)
    return scaled


def fit_temperature(logits: ArrayLike, y: ArrayLike) -> float:
    r"""Find the temperature with which logits fit the labels best.

    .. math:: T = \arg\min_{T > 0} \frac1n \sum_j \ell(z_j / T, y_j)

    Parameters
    ----------
    logits : array_like
        Shape ``(k, n)``, of samples that training has not seen.
    y : array_like
        Their labels, shape ``(n,)``.

    Returns
    -------
    float
        Above 1 where the logits are too sure, below 1 where they are not sure enough.

    Raises
    ------
    ShapeError, LabelError, InputError
        The arrays do not fit each other, or no temperature is the best: every sample is classified
        right, or the logits know no more than chance.

    References
    ----------
    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2.

    Examples
    --------
    Three of four are right, so the probability should be 3/4, a difference of log 3:

    >>> round(fit_temperature([[2.0, 2.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0]], [0, 0, 0, 1]), 6)
    1.820478
    >>> round(float(2 / np.log(3)), 6)
    1.820478
    """
    Z = as_columns(logits, name="logits").astype(np.float64)
    same_samples(Z, np.asarray(y))
    labels = as_labels(y, Z.shape[0])
    size = float(np.abs(Z).max(initial=0)) or 1.0
    Z /= size
    Z -= Z.mean(axis=0)
    _refuse_without_optimum(Z, labels)
    low, high = 0.0, 1.0
    while temperature_loss_grad(high, Z, labels) < 0:
        low, high = high, 2 * high
    while high - low > _PRECISION * high:
        middle = (low + high) / 2
        if temperature_loss_grad(middle, Z, labels) < 0:
            low = middle
        else:
            high = middle
    return size / high


def _refuse_without_optimum(Z: NDArray[np.float64], y: NDArray[Any]) -> None:
    own = Z[y, np.arange(y.size)]
    if (own == Z.max(axis=0)).all() and Z.any():
        raise InputError(
            "calibration: expected some sample that is classified wrong, got none among "
            f"{y.size}, so no probability is too high; give more samples, held out from training"
        )
    if not (Z.mean(axis=0) - own).mean() < 0:
        raise InputError(
            "calibration: expected logits that know more than chance, got logits that are no "
            "higher at the labels than elsewhere; check that samples and labels belong together"
        )
