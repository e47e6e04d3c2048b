r"""What training minimises, and its gradient on ``theta``, by hand.

With samples as the columns :math:`x_j` of ``X`` (d x n), labels :math:`y_j` in 0..k-1, an input
scale :math:`s` (1/255 for pixels), a penalty weight :math:`\lambda`, and the parameters
``theta = [W b]`` (k x (d+1)), the objective is

.. math::

    J(\theta) = \frac1n \sum_{j=1}^n \ell(z_j, y_j) + \frac{\lambda}{2} \|W\|_F^2, \qquad
    z_j = s W x_j + b, \qquad \ell(z, y) = \log \sum_i e^{z_i} - z_y .

Its gradient follows by the chain rule, in the shapes of the code:

.. math::

    Z &= s W X + b \mathbf 1^\top                && (k \times n) \quad \text{affine} \\
    P &= \mathrm{softmax}(Z)                     && (k \times n) \\
    dZ &= \frac{\partial J}{\partial Z} = \frac1n (P - Y)   && (k \times n) \quad
        \text{logitcrossentropy\_grad; } Y \text{ one-hot} \\
    dW &= s \, dZ \, X^\top + \lambda W           && (k \times d) \quad \text{affine\_grad} \\
    db &= dZ \, \mathbf 1                         && (k \times 1) \quad \text{no penalty}

:math:`\partial\ell/\partial z_i = e^{z_i} / \sum_m e^{z_m} - [i = y]` gives the third line;
:math:`\partial Z_{ij}/\partial W_{il} = s X_{lj}`, :math:`\partial Z_{ij}/\partial b_i = 1` and
:math:`\partial \|W\|_F^2 / \partial W = 2 W` give the last two. For soft targets
:math:`\ell(z, y) = -\sum_i y_i \, \mathrm{logsoftmax}(z)_i`, and each column of ``P`` is
multiplied by the sum of its targets.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npsoftmax.errors import ShapeError
from npsoftmax.functional import (
    affine,
    affine_grad,
    logitcrossentropy,
    logitcrossentropy_and_grad,
    softmax,
    softmax_grad,
)
from npsoftmax.functional._shifted import FLOAT64
from npsoftmax.functional.logit_losses import label_crossentropy_and_grad

__all__ = ["Evaluation", "Scratch", "hessian_vector_product", "loss_and_grad", "sample_losses"]


class Evaluation(NamedTuple):
    """What one evaluation of the objective leaves behind.

    Attributes
    ----------
    loss : float
        The objective ``J``, penalty included.
    grad : ndarray
        ``dJ/dtheta``, shape ``(k, d+1)``, Fortran-ordered.
    crossentropy : float
        The mean cross-entropy, in nats, without the penalty.
    logits : ndarray
        ``Z``, shape ``(k, n)``.
    """

    loss: float
    grad: NDArray[Any]
    crossentropy: float
    logits: NDArray[Any]


class Scratch:
    """Arrays that are made once for each name and shape, and then reused.

    Examples
    --------
    >>> scratch = Scratch()
    >>> first = scratch.take("logits", (10, 256), np.dtype(np.float32))
    >>> first is scratch.take("logits", (10, 256), np.dtype(np.float32))
    True
    """

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, tuple[int, ...], np.dtype[Any]], NDArray[Any]] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return a Fortran-ordered array of this shape, with whatever it held before."""
        key = (name, shape, dtype)
        held = self._arrays.get(key)
        if held is None:
            held = self._arrays[key] = np.empty(shape, dtype=dtype, order="F")
        return held


@np.errstate(all="ignore")
def loss_and_grad(
    theta: NDArray[Any],
    X: NDArray[Any],
    y: NDArray[Any],
    l2: float = 0.0,
    scale: float = 1.0,
    scratch: Scratch | None = None,
) -> Evaluation:
    r"""Evaluate the objective and its gradient on one batch.

    .. math:: J(\theta) = \frac1n \sum_j \ell(s W x_j + b, y_j) + \frac{\lambda}{2} \|W\|_F^2

    Parameters
    ----------
    theta : ndarray
        ``[W b]``, shape ``(k, d+1)``, Fortran-ordered, float32 or float64.
    X : ndarray
        The batch, shape ``(d, n)``, of any real dtype; converted to ``theta``'s once.
    y : ndarray
        Integer labels ``(n,)``, or one-hot or soft targets ``(k, n)``.
    l2 : float
        ``lambda``, the weight of the penalty.
    scale : float
        ``s``, what a sample is multiplied by.
    scratch : Scratch, optional
        Buffers to compute in; the returned arrays are then valid until its next use.

    Returns
    -------
    Evaluation

    Raises
    ------
    ShapeError, LabelError
        Shapes do not fit, or a label is not in ``0..k-1``.

    Examples
    --------
    >>> theta = np.zeros((2, 2), order="F")
    >>> result = loss_and_grad(theta, np.array([[1.0, 3.0]]), np.array([0, 1]))
    >>> round(result.loss, 6), result.grad.tolist()
    (0.693147, [[0.5, 0.0], [-0.5, 0.0]])
    """
    if X.ndim != 2:
        raise ShapeError(f"X: expected shape (features, samples), got {X.shape}")
    y = np.asarray(y)
    scratch = Scratch() if scratch is None else scratch
    dtype, shape = theta.dtype, (theta.shape[0], X.shape[1])
    if X.dtype != dtype:
        floats = scratch.take("X", X.shape, dtype)
        np.copyto(floats, X, casting="unsafe")
        X = floats
    logits = affine(theta, X, scale, out=scratch.take("logits", shape, dtype))
    dZ = scratch.take("dZ", shape, dtype)
    if y.ndim == 1:
        losses = scratch.take("losses", shape[1:], FLOAT64)
        crossentropy = label_crossentropy_and_grad(logits, y, losses, dZ)
    else:
        crossentropy = logitcrossentropy_and_grad(logits, y, out=dZ)[0]
    grad = affine_grad(dZ, X, scale, out=scratch.take("grad", theta.shape, dtype))
    penalty = 0.0
    if l2:
        W = theta[:, :-1]
        penalty = l2 / 2 * float(np.vdot(W, W))
        grad[:, :-1] += theta.dtype.type(l2) * W
    return Evaluation(float(crossentropy) + penalty, grad, float(crossentropy), logits)


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
        As for :func:`loss_and_grad`.
    V : ndarray
        The direction, ``theta``'s shape.
    X, l2, scale
        As for :func:`loss_and_grad`. There is no ``y``: targets that sum to one for each sample
        shift the gradient by a constant.

    Returns
    -------
    ndarray
        ``H V``, shape ``(k, d+1)``, Fortran-ordered, of ``theta``'s dtype.

    Raises
    ------
    ShapeError
        Shapes do not fit, or there is no sample.

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
    if V.shape != theta.shape:
        raise ShapeError(
            f"V: expected a direction of theta's shape {theta.shape}, got {V.shape}; "
            "its last column belongs to the bias"
        )
    if X.ndim != 2 or X.shape[1] == 0:
        raise ShapeError(
            f"X: expected shape (features, samples) with at least one sample, got {X.shape}"
        )
    V, X = V.astype(theta.dtype, copy=False), X.astype(theta.dtype, copy=False)
    R = softmax_grad(affine(V, X, scale), softmax(affine(theta, X, scale)))
    R /= X.shape[1]
    product = affine_grad(R, X, scale)
    product[:, :-1] += theta.dtype.type(l2) * V[:, :-1]
    return product


def sample_losses(
    theta: NDArray[Any], X: NDArray[Any], y: NDArray[Any], scale: float = 1.0
) -> tuple[NDArray[Any], NDArray[Any]]:
    r"""Compute the cross-entropy of each sample, without gradient or penalty.

    .. math:: \ell_j = \log \sum_i e^{z_{ij}} - z_{y_j j}, \qquad Z = s W X + b \mathbf 1^\top

    Parameters
    ----------
    theta, X, y, scale
        As for :func:`loss_and_grad`; ``X`` may hold a whole data set and is read in blocks.

    Returns
    -------
    losses : ndarray
        Shape ``(n,)``, in nats.
    logits : ndarray
        Shape ``(k, n)``.

    Raises
    ------
    ShapeError, LabelError
        As for :func:`loss_and_grad`.

    Examples
    --------
    >>> losses, logits = sample_losses(np.zeros((2, 2)), np.array([[1, 3]]), np.array([0, 1]))
    >>> losses
    array([0.69314718, 0.69314718])
    """
    logits = affine(theta, X, scale)
    return logitcrossentropy(logits, y, agg="none"), logits
