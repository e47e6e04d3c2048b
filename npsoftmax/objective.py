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

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npsoftmax._checks import as_float, floating_dtype
from npsoftmax._objective_blocks import AnyBlock, Workspace, samples_per_block
from npsoftmax.errors import InputError, ShapeError
from npsoftmax.functional import (
    affine,
    affine_grad,
    logitcrossentropy,
    logitcrossentropy_and_grad,
    softmax,
    softmax_grad,
)
from npsoftmax.functional._targets import as_targets, one_hot_labels

__all__ = ["Evaluation", "Workspace", "hessian_vector_product", "loss_and_grad", "sample_losses"]

INTP = np.dtype(np.intp)
# The gradient is computed times the scale and divided by it again, in float32 without a loss.
SMALLEST_SCALE = 1e-20


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
    predicted : ndarray of intp
        The most likely class of each sample, shape ``(n,)``; the first one of several.
    """

    loss: float
    grad: NDArray[Any]
    crossentropy: float
    predicted: NDArray[np.intp]


@np.errstate(all="ignore")
def loss_and_grad(
    theta: NDArray[Any],
    X: NDArray[Any],
    y: ArrayLike,
    l2: float = 0.0,
    scale: float = 1.0,
    workspace: Workspace | None = None,
) -> Evaluation:
    r"""Evaluate the objective and its gradient on one batch.

    .. math:: J(\theta) = \frac1n \sum_j \ell(s W x_j + b, y_j) + \frac{\lambda}{2} \|W\|_F^2

    Parameters
    ----------
    theta : ndarray
        ``[W b]``, shape ``(k, d+1)``, Fortran-ordered, float32 or float64.
    X : ndarray
        The batch, shape ``(d, n)``, of any real dtype. With labels it is taken, and converted to
        ``theta``'s dtype, in blocks, so that it may be a whole data set.
    y : array_like
        Integer labels ``(n,)``, or one-hot or soft targets ``(k, n)``.
    l2 : float
        ``lambda``, the weight of the penalty.
    scale : float
        ``s``, what a sample is multiplied by.
    workspace : Workspace, optional
        Arrays to compute in; the returned ones are then valid until its next use.

    Returns
    -------
    Evaluation

    Raises
    ------
    ShapeError, LabelError, InputError
        Shapes do not fit, a label is not in ``0..k-1``, ``theta`` is of another dtype, ``X`` does
        not hold real numbers, or ``scale`` is (next to) 0 or infinity.

    Notes
    -----
    With labels everything is computed in ``theta``'s dtype, which the rounding of ``W X`` has
    limited already, and sums of losses in float64. Soft targets go through
    :func:`npsoftmax.functional.logitcrossentropy_and_grad`, on all samples at once.

    Examples
    --------
    >>> theta = np.zeros((2, 2), order="F")
    >>> result = loss_and_grad(theta, np.array([[1.0, 3.0]]), np.array([0, 1]))
    >>> round(result.loss, 6), result.grad.tolist()
    (0.693147, [[0.5, 0.0], [-0.5, 0.0]])
    """
    theta, X, targets, labels = _checked(theta, X, y, scale)
    if X.shape[1] == 0:
        raise ShapeError(f"X: expected at least one sample, got shape {X.shape}")
    if labels is not None:
        return evaluate(theta, X, labels, l2, scale, workspace or Workspace())
    X = X.astype(theta.dtype, copy=False)
    logits = affine(theta, X, scale)
    loss, dZ = logitcrossentropy_and_grad(logits, targets)
    return _penalised(theta, affine_grad(dZ, X, scale), float(loss), l2, logits.argmax(axis=0))


def evaluate(
    theta: NDArray[Any],
    X: NDArray[Any],
    labels: NDArray[Any],
    l2: float,
    scale: float,
    workspace: Workspace,
) -> Evaluation:
    """Do what :func:`loss_and_grad` does for labels: the hot loop's way in, nothing is checked."""
    samples = labels.size
    grad = workspace.take("grad", theta.shape, theta.dtype)
    predicted = workspace.take("predicted", labels.shape, INTP)
    loss_sum = 0.0
    for columns, X_block, block, losses in _in_blocks(theta, X, labels, scale, workspace):
        loss_sum += float(np.add.reduce(losses, dtype=np.float64))
        block.predict(out=predicted[columns])
        part = None
        if columns.start > 0:
            part = workspace.take("part", (block.classes, theta.shape[1]), theta.dtype)
        block.gradient(theta, X_block, scale, samples, grad, part)
    return _penalised(theta, grad, loss_sum / samples, l2, predicted)


def _in_blocks(
    theta: NDArray[Any],
    X: NDArray[Any],
    labels: NDArray[Any],
    scale: float,
    workspace: Workspace,
) -> Iterator[tuple[slice, NDArray[Any], AnyBlock, NDArray[Any]]]:
    """Yield columns, their samples as floats, and their block with the losses computed."""
    step = samples_per_block(theta)
    for start in range(0, labels.size, step):
        columns = slice(start, min(start + step, labels.size))
        block = workspace.block(theta, columns.stop - start)
        X_block = workspace.floats(X[:, columns], theta.dtype)
        yield columns, X_block, block, block.losses(theta, X_block, labels[columns], scale)


def _penalised(
    theta: NDArray[Any],
    grad: NDArray[Any],
    crossentropy: float,
    l2: float,
    predicted: NDArray[np.intp],
) -> Evaluation:
    penalty = 0.0
    if l2:
        W = theta[:, :-1]
        penalty = l2 / 2 * float(np.vdot(W, W))
        grad[:, :-1] += theta.dtype.type(l2) * W
    return Evaluation(crossentropy + penalty, grad, crossentropy, predicted)


def _checked(
    theta: NDArray[Any], X: NDArray[Any], y: ArrayLike, scale: float
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any] | None]:
    """Return valid arguments, and the targets once more as labels unless they are soft."""
    theta, X = as_float(theta, "theta"), np.asarray(X)
    fits = X.ndim == theta.ndim == 2 and theta.shape[1] == X.shape[0] + 1 and theta.shape[0] > 0
    if not fits:
        raise ShapeError(
            "theta and X: expected shapes (k, d+1) and (d, n) with at least one class, got "
            f"{theta.shape} and {X.shape}; samples are the columns of X"
        )
    if theta.dtype not in (np.float32, np.float64):
        raise InputError(f"theta: expected float32 or float64, got {theta.dtype}; convert it")
    floating_dtype(X.dtype, "X")
    if not SMALLEST_SCALE <= abs(scale) <= 1 / SMALLEST_SCALE:
        raise InputError(
            f"scale: expected a magnitude from {SMALLEST_SCALE} to {1 / SMALLEST_SCALE}, "
            f"got {scale}; scale X itself"
        )
    targets = as_targets(y, (theta.shape[0], X.shape[1]), axis=0)
    return theta, X, targets, one_hot_labels(targets, 2, axis=0)


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


@np.errstate(all="ignore")
def sample_losses(
    theta: NDArray[Any], X: NDArray[Any], y: ArrayLike, scale: float = 1.0
) -> tuple[NDArray[Any], NDArray[np.intp]]:
    r"""Compute the cross-entropy of each sample, without gradient or penalty.

    .. math:: \ell_j = \log \sum_i e^{z_{ij}} - z_{y_j j}, \qquad Z = s W X + b \mathbf 1^\top

    Parameters
    ----------
    theta, X, y, scale
        As for :func:`loss_and_grad`.

    Returns
    -------
    losses : ndarray
        Shape ``(n,)``, in nats, of ``theta``'s dtype.
    predicted : ndarray of intp
        The most likely class of each sample, shape ``(n,)``.

    Raises
    ------
    ShapeError, LabelError, InputError
        As for :func:`loss_and_grad`.

    Examples
    --------
    >>> theta = np.array([[1.0, 0.0], [-1.0, 0.0]])
    >>> losses, predicted = sample_losses(theta, np.array([[0, 3]]), np.array([0, 1]))
    >>> losses.round(6), predicted
    (array([0.693147, 6.002476]), array([0, 0]))
    """
    theta, X, targets, labels = _checked(theta, X, y, scale)
    if labels is None:
        logits = affine(theta, X, scale)
        return logitcrossentropy(logits, targets, agg="none"), logits.argmax(axis=0)
    losses, predicted = np.empty(labels.size, theta.dtype), np.empty(labels.size, INTP)
    for columns, _, block, of_block in _in_blocks(theta, X, labels, scale, Workspace()):
        losses[columns] = of_block
        block.predict(out=predicted[columns])
    return losses, predicted
