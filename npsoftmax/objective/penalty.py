r"""The weight of the penalty of each feature: one number for all of them, or one for each.

.. math:: \frac{\lambda}{2} \sum_i f_i \|W_i\|^2 = \frac12 \sum_i \lambda_i \|W_i\|^2

with the column :math:`W_i` of feature i and its factor :math:`f_i \ge 0`. Where all
:math:`\lambda_i` are equal they are one float, and everything is computed as without factors.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npsoftmax._checks import as_array, floating_dtype
from npsoftmax.errors import InputError, ShapeError

__all__ = [
    "Penalty",
    "as_penalty",
    "digest",
    "divided_squares",
    "penalty_and_grad",
    "penalty_at",
    "smallest",
    "unpenalised",
]

Penalty = float | NDArray[np.float64]


def as_penalty(l2: float, penalty_factor: ArrayLike | None, num_features: int) -> Penalty:
    """Return ``l2`` times the factors of all features, as one float if they are equal."""
    if penalty_factor is None:
        return l2
    factors = as_array(penalty_factor, "penalty_factor")
    if factors.shape != (num_features,):
        raise ShapeError(
            f"penalty_factor: expected one number for each of {num_features} features, got shape "
            f"{factors.shape}; leave it out for equal penalties"
        )
    floating_dtype(factors.dtype, "penalty_factor")
    factors = factors.astype(np.float64)
    with np.errstate(over="ignore"):
        wrong = ~((factors >= 0) & (l2 * factors < np.inf))
    if wrong.any():
        raise InputError(
            f"penalty_factor: expected finite numbers of at least 0, got {factors[wrong][0]} for "
            f"feature {wrong.argmax()}; 0 leaves a feature without a penalty"
        )
    penalties: NDArray[np.float64] = l2 * factors
    return float(penalties[0]) if (penalties == penalties[0]).all() else penalties


def smallest(penalty: Penalty) -> float:
    """Return the weight of the feature with the smallest one."""
    return float(np.min(penalty))


def unpenalised(penalty: Penalty, num_features: int) -> NDArray[np.bool_]:
    """Return which features have no penalty."""
    return np.broadcast_to(np.equal(penalty, 0), num_features)


def penalty_and_grad(theta: NDArray[Any], penalty: Penalty, grad: NDArray[Any]) -> float:
    """Return the penalty, and add its gradient to ``grad``."""
    W = theta[:, :-1]
    if isinstance(penalty, np.ndarray):
        grad[:, :-1] += penalty.astype(theta.dtype) * W
    elif penalty:
        grad[:, :-1] += theta.dtype.type(penalty) * W
    return penalty_at(theta, penalty)


def penalty_at(theta: NDArray[Any], penalty: Penalty) -> float:
    """Return the penalty."""
    W = theta[:, :-1]
    if isinstance(penalty, np.ndarray):
        return float(np.einsum("ij,ij->j", W, W) @ penalty) / 2
    if not penalty:
        return 0.0
    flat = W.ravel(order="K")  # a view, if theta is Fortran-ordered
    return penalty / 2 * float(np.vdot(flat, flat))


def divided_squares(G: NDArray[np.float64], penalty: Penalty) -> float:
    r"""Return :math:`\sum_i \|G_i\|^2 / (2 \lambda_i)`, for a gradient with respect to ``W``.

    By at most this the objective is above its smallest value. It is infinite, or NaN where the
    gradient is 0, if a feature has no penalty.

    Examples
    --------
    >>> divided_squares(np.array([[2.0, 3.0]]), np.array([1.0, 0.5]))
    11.0
    """
    if isinstance(penalty, np.ndarray):
        with np.errstate(all="ignore"):
            return float((np.einsum("ij,ij->j", G, G) / (2 * penalty)).sum())
    flat = G.ravel(order="K")  # a view
    return float(np.vdot(flat, flat)) / (2 * penalty)


def digest(penalty: NDArray[np.float64]) -> str:
    """Return a hash of different weights, for the settings of a checkpoint."""
    return hashlib.sha256(penalty.astype("<f8").tobytes()).hexdigest()
