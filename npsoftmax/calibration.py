r"""Temperature scaling: one number that calibrates the probabilities of a classifier.

A classifier trained to convergence on few samples is overconfident; one stopped early is
underconfident. Dividing all logits by a temperature ``T`` corrects most of this and changes no
prediction. With :math:`\beta = 1/T`, the loss on held-out samples and its derivative are

.. math::

    L(\beta) = \frac1n \sum_j \ell(\beta z_j, y_j), \qquad
    \frac{dL}{d\beta} = \sum_{ij} \frac{\partial L}{\partial (\beta z_{ij})} z_{ij}
        = \frac1n \sum_j \Bigl( \sum_i p_{ij} z_{ij} - z_{y_j j} \Bigr), \qquad
    P = \mathrm{softmax}(\beta Z),

by the chain rule through :func:`npsoftmax.functional.logitcrossentropy`. The second derivative is
the mean variance of a sample's logits under its probabilities, so ``L`` is convex. It has a
minimum at a finite :math:`\beta > 0` if and only if the derivative is negative at 0 and positive
at infinity,

.. math::

    \frac1n \sum_j \Bigl( \frac1k \sum_i z_{ij} - z_{y_j j} \Bigr) < 0 <
    \frac1n \sum_j \bigl( \max_i z_{ij} - z_{y_j j} \bigr) .

The derivative is increasing, so bisection finds its root.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npsoftmax._checks import as_scores
from npsoftmax.errors import InputError
from npsoftmax.functional import logitcrossentropy_grad

__all__ = ["fit_temperature"]

RELATIVE_PRECISION = 1e-10


def fit_temperature(logits: ArrayLike, y: ArrayLike) -> float:
    r"""Find the temperature that minimises the cross-entropy.

    .. math:: T = \arg\min_{T > 0} \frac1n \sum_j \ell(z_j / T, y_j)

    Parameters
    ----------
    logits : array_like
        Shape ``(k, n)``, for samples held out from training.
    y : array_like
        Labels, shape ``(n,)``.

    Returns
    -------
    float
        Above 1 if the logits are overconfident, below 1 if they are underconfident.

    Raises
    ------
    InputError
        There is no minimum: every sample is classified correctly, or the logits are no better
        than chance.

    References
    ----------
    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2.

    Examples
    --------
    Three of four are correct, so the probability should be 3/4, a difference of log 3:

    >>> round(fit_temperature([[2.0, 2.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0]], [0, 0, 0, 1]), 6)
    1.820478
    >>> round(float(2 / np.log(3)), 6)
    1.820478
    """
    columns, labels = as_scores(logits, y, "logits")
    Z = columns.astype(np.float64)
    size = float(np.abs(Z).max(initial=0)) or 1.0
    Z /= size
    Z -= Z.mean(axis=0)
    _check_minimum_exists(Z, labels)
    low, high = 0.0, 1.0
    while _loss_grad(high, Z, labels) < 0:
        low, high = high, 2 * high
    while high - low > RELATIVE_PRECISION * high:
        middle = (low + high) / 2
        if _loss_grad(middle, Z, labels) < 0:
            low = middle
        else:
            high = middle
    return size / high


def _check_minimum_exists(Z: NDArray[np.float64], y: NDArray[Any]) -> None:
    own = Z[y, np.arange(y.size)]
    if (own == Z.max(axis=0)).all() and Z.any():
        raise InputError(
            "calibration: expected at least one misclassified sample, got none among "
            f"{y.size}, so no probability is too high; give more samples, held out from training"
        )
    if not (Z.mean(axis=0) - own).mean() < 0:
        raise InputError(
            "calibration: expected logits that are better than chance, got logits that are no "
            "higher at the labels than elsewhere; check that samples and labels belong together"
        )


def _loss_grad(beta: float, Z: NDArray[np.float64], y: NDArray[Any]) -> float:
    r"""Return :math:`dL/d\beta`, as derived above."""
    return float((logitcrossentropy_grad(beta * Z, y) * Z).sum())
