r"""The second derivatives of the objective: what the Hessian does to a direction.

With :math:`a_j = (s x_j, 1)` and weights :math:`w_j` that sum to :math:`\bar w`, the Hessian is

.. math::

    H = \sum_j \frac{w_j}{\bar w} \, \bigl(\mathrm{diag}(p_j) - p_j p_j^\top\bigr) \otimes
        a_j a_j^\top + \lambda I_W,

a sum of positive semi-definite terms: the objective is convex. :math:`I_W` is 1 on weights and 0
on biases.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from npsoftmax._checks import as_float
from npsoftmax.errors import ShapeError
from npsoftmax.functional import affine, affine_grad, softmax, softmax_grad
from npsoftmax.objective.batch import as_arguments
from npsoftmax.objective.hot_loop import Workspace, samples_per_block

__all__ = ["accumulate_product", "as_direction", "hessian_vector_product"]


@np.errstate(all="ignore")
def hessian_vector_product(
    theta: NDArray[Any],
    V: NDArray[Any],
    X: NDArray[Any],
    l2: float = 0.0,
    scale: float = 1.0,
) -> NDArray[Any]:
    r"""Multiply the Hessian of the objective by a direction, without forming the Hessian.

    .. math:: H V = \Bigl[\; s \, R X^\top + \lambda V_W \;\Bigm|\; R \mathbf 1 \;\Bigr], \qquad
        R = \frac1n \, P \circ \bigl(D - \mathbf 1 \mathbf 1^\top (P \circ D)\bigr)

    with :math:`P = \mathrm{softmax}(s W X + b \mathbf 1^\top)`, the change of the logits
    :math:`D = s V_W X + v_b \mathbf 1^\top`, and :math:`V = [V_W \; v_b]`.

    Derivation: along ``V`` the logits change by ``D``, so the gradient ``(P - Y) / n`` on them
    changes by softmax's derivative along ``D``, over ``n``; its Jacobian is symmetric, so that is
    ``softmax_grad(D, P) / n``. The rest is the linear map from there to the gradient on ``theta``.

    Parameters
    ----------
    theta : ndarray
        ``[W b]``, shape ``(k, d+1)``, float32 or float64.
    V : ndarray
        The direction, ``theta``'s shape.
    X : ndarray
        The samples, shape ``(d, n)``, of any real dtype; converted in blocks.
    l2, scale : float
        As for :func:`npsoftmax.objective.loss_and_grad`. There is no ``y``: targets that sum to
        one for each sample shift the gradient by a constant.

    Returns
    -------
    ndarray
        ``H V``, shape ``(k, d+1)``, Fortran-ordered, of ``theta``'s dtype.

    Raises
    ------
    ShapeError, InputError
        Shapes do not fit, there is no sample, or a dtype cannot be computed with.

    References
    ----------
    Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation 6(1), 1994.

    Examples
    --------
    >>> theta, V = np.zeros((2, 2)), np.array([[1.0, 0.0], [0.0, 0.0]])
    >>> hessian_vector_product(theta, V, np.array([[1.0, 3.0]]))  # R = [1 3; -1 -3] / 8
    array([[ 1.25,  0.5 ],
           [-1.25, -0.5 ]])
    """
    theta, X = as_arguments(theta, X)
    if X.shape[1] == 0:
        raise ShapeError(f"X: expected at least one sample, got shape {X.shape}")
    V = as_direction(V, theta)
    product = accumulate_product(theta, V, X, X.shape[1], scale, Workspace())
    product[:, :-1] += theta.dtype.type(l2) * V[:, :-1]
    return product


def as_direction(V: NDArray[Any], theta: NDArray[Any]) -> NDArray[Any]:
    """Return ``V`` in ``theta``'s dtype, once its shape has been checked."""
    if np.shape(V) != theta.shape:
        raise ShapeError(
            f"V: expected a direction of theta's shape {theta.shape}, got {np.shape(V)}; "
            "its last column belongs to the bias"
        )
    return as_float(V, "V").astype(theta.dtype, copy=False)


def accumulate_product(
    theta: NDArray[Any],
    V: NDArray[Any],
    X: NDArray[Any],
    total: float,
    scale: float,
    workspace: Workspace,
    weights: NDArray[np.float64] | None = None,
) -> NDArray[Any]:
    """Return ``H V`` without the penalty, for weights over ``total``. Nothing is checked."""
    product = np.zeros(theta.shape, theta.dtype, order="F")
    step = samples_per_block(theta)
    for start in range(0, X.shape[1], step):
        columns = slice(start, start + step)
        X_block = workspace.floats(X[:, columns], theta.dtype)
        P = softmax(affine(theta, X_block, scale))
        R = softmax_grad(affine(V, X_block, scale), P)
        R *= (1.0 if weights is None else weights[columns]) / np.float64(total)
        product += affine_grad(R, X_block, scale)
    return product
