r"""The objective on one batch: value, gradient, Hessian products, and losses of single samples.

The formulas and the gradient's derivation are in :mod:`npsoftmax.objective`. With
:math:`a_j = (s x_j, 1)` and weights :math:`w_j` that sum to :math:`\bar w`, the Hessian is

.. math::

    H = \sum_j \frac{w_j}{\bar w} \, \bigl(\mathrm{diag}(p_j) - p_j p_j^\top\bigr) \otimes
        a_j a_j^\top + \lambda I_W,

a sum of positive semi-definite terms, so the objective is convex. :math:`I_W` is 1 on weights and
0 on biases.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npsoftmax import _sparse
from npsoftmax._checks import as_array, as_float, as_labels, floating_dtype
from npsoftmax._products import memory_order
from npsoftmax._sparse import as_compressed, is_sparse
from npsoftmax.errors import InputError, ShapeError
from npsoftmax.functional import (
    affine,
    affine_grad,
    logitcrossentropy,
    logitcrossentropy_and_grad,
)
from npsoftmax.functional.losses import as_targets, one_hot_labels
from npsoftmax.objective.hot_loop import Workspace, block_columns
from npsoftmax.objective.penalty import penalty_and_grad

__all__ = [
    "Evaluation",
    "accumulate",
    "accumulate_product",
    "as_direction",
    "as_scale",
    "check_dtype",
    "unchecked_loss_and_grad",
    "hessian_vector_product",
    "loss_and_grad",
    "sample_losses",
    "sum_losses",
]

INTP = np.dtype(np.intp)


class Evaluation(NamedTuple):
    """The objective and its gradient at one point.

    Attributes
    ----------
    loss : float
        The objective ``J``.
    grad : ndarray
        ``dJ/dtheta``, shape ``(k, d+1)``, in the memory order of ``theta``.
    crossentropy : float
        The mean cross-entropy, in nats: ``J`` without the penalty.
    accuracy : float
        The share of samples, by weight, whose most likely class is their label; for soft targets,
        the class with the largest target.
    predicted : ndarray of intp or None
        The most likely class of each sample of a batch, shape ``(n,)``, the first one on a tie.
        None for a full batch, whose samples may be stored elsewhere.
    """

    loss: float
    grad: NDArray[Any]
    crossentropy: float
    accuracy: float
    predicted: NDArray[np.intp] | None


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

    With labels, everything is computed in ``theta``'s dtype, since ``W X`` is rounded to it anyway,
    except sums of losses, which are in float64. Soft targets are computed on all samples at once.

    Parameters
    ----------
    theta : ndarray
        ``[W b]``, shape ``(k, d+1)``, float32 or float64.
    X : ndarray
        The batch, shape ``(d, n)``, of any real dtype, or a sparse array of SciPy. With labels it
        is converted to ``theta``'s dtype in blocks, so it may be a whole data set.
    y : array_like
        Integer labels ``(n,)``, or one-hot or soft targets ``(k, n)``.
    l2, scale : float
        ``lambda``, the weight of the penalty, and ``s``, the factor applied to the samples.
    workspace : Workspace, optional
        Arrays to compute in. The returned arrays are then valid until its next use.

    Examples
    --------
    >>> theta = np.zeros((2, 2), order="F")
    >>> result = loss_and_grad(theta, np.array([[1.0, 3.0]]), np.array([0, 1]))
    >>> round(result.loss, 6), result.grad.tolist()
    (0.693147, [[0.5, 0.0], [-0.5, 0.0]])
    """
    theta, X, targets, labels = _check(theta, X, y, scale)
    if X.shape[1] == 0:
        raise ShapeError(f"X: expected at least one sample, got shape {X.shape}")
    if labels is not None:
        workspace = workspace or Workspace()
        predicted = workspace.take("predicted", labels.shape, INTP)
        return unchecked_loss_and_grad(theta, X, labels, l2, scale, workspace, predicted)
    X = X.astype(theta.dtype, copy=False)
    logits = affine(theta, X, scale)
    loss, dZ = logitcrossentropy_and_grad(logits, targets)
    predicted = logits.argmax(axis=0)
    hits = predicted == targets.argmax(axis=0)
    return _add_penalty(theta, affine_grad(dZ, X, scale), float(loss), l2, predicted, hits)


def unchecked_loss_and_grad(
    theta: NDArray[Any],
    X: NDArray[Any],
    labels: NDArray[Any],
    l2: float,
    scale: float,
    workspace: Workspace,
    predicted: NDArray[np.intp] | None = None,
) -> Evaluation:
    """Do what :func:`loss_and_grad` does for labels, without checks, for the training loop.

    The predictions are written to ``predicted`` if it is an array.
    """
    loss, grad, hits = accumulate(
        theta, X, labels, labels.size, scale, workspace, predicted=predicted
    )
    return _add_penalty(theta, grad, loss, l2, predicted, hits)


def _add_penalty(
    theta: NDArray[Any],
    grad: NDArray[Any],
    crossentropy: float,
    l2: float,
    predicted: NDArray[np.intp] | None,
    hits: NDArray[np.bool_],
) -> Evaluation:
    penalty = penalty_and_grad(theta, l2, grad)
    accuracy = np.count_nonzero(hits) / hits.size
    return Evaluation(crossentropy + penalty, grad, crossentropy, accuracy, predicted)


def accumulate(
    theta: NDArray[Any],
    X: NDArray[Any],
    labels: NDArray[Any],
    total: float,
    scale: float,
    workspace: Workspace,
    weights: NDArray[np.float64] | None = None,
    predicted: NDArray[np.intp] | None = None,
    grad: NDArray[Any] | None = None,
) -> tuple[float, NDArray[Any], NDArray[np.bool_]]:
    """Return the weighted loss divided by ``total``, its gradient, and which labels are predicted.

    There is no penalty, and nothing is checked. The arrays belong to the workspace, except
    ``grad`` if the gradient is to be written there.
    """
    batch = workspace.batch(theta, X)
    grad = batch.grad if grad is None else grad
    loss_sum, part = 0.0, None
    divisor: Any = total
    for columns, block in batch.blocks:
        y = labels[columns]
        block.read(_sparse.columns(X, columns), scale)
        losses = block.losses(theta, y)
        if weights is None:
            loss_sum += float(np.add.reduce(losses, dtype=np.float64))
        else:
            loss_sum += float(np.vdot(losses.astype(np.float64), weights[columns]))
            divisor = total / weights[columns]
        block.compare(y, out=batch.hits[columns])
        if predicted is not None:
            predicted[columns] = block.predict()
        block.gradient(theta, divisor, grad, part)
        part = batch.part
    return loss_sum / total, grad, batch.hits


def sum_losses(
    theta: NDArray[Any],
    X: NDArray[Any],
    labels: NDArray[Any],
    scale: float,
    workspace: Workspace,
    weights: NDArray[np.float64] | None = None,
) -> float:
    """Return the weighted sum of the losses. Nothing is checked."""
    found = 0.0
    for columns in block_columns(theta, X):
        block = workspace.block(theta, columns, is_sparse(X))
        block.read(_sparse.columns(X, columns), scale)
        losses = block.losses(theta, labels[columns]).astype(np.float64)
        found += float(losses.sum() if weights is None else np.vdot(losses, weights[columns]))
    return found


def _check(
    theta: NDArray[Any], X: NDArray[Any], y: ArrayLike, scale: float
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any] | None]:
    """Return valid arguments, and the targets as labels, or None if they are soft."""
    theta, X = _as_arguments(theta, X)
    as_scale(scale)
    targets = as_array(y, "y")
    if targets.ndim < 2:
        labels = as_labels(targets, theta.shape[0], (X.shape[1],))
        return theta, X, labels, labels
    targets = as_targets(targets, (theta.shape[0], X.shape[1]), axis=0)
    return theta, X, targets, one_hot_labels(targets, 2, axis=0)


def _as_arguments(theta: NDArray[Any], X: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return ``theta`` and ``X`` as arrays of fitting shapes and usable dtypes."""
    theta = as_float(theta, "theta")
    X = as_compressed(X, "X") if is_sparse(X) else as_array(X, "X")
    fits = X.ndim == theta.ndim == 2 and theta.shape[1] == X.shape[0] + 1 and theta.shape[0] > 0
    if not fits:
        raise ShapeError(
            "theta and X: expected shapes (k, d+1) and (d, n) with at least one class, got "
            f"{theta.shape} and {X.shape}; samples are the columns of X"
        )
    check_dtype(theta)
    floating_dtype(X.dtype, "X")
    return theta, X


def check_dtype(theta: NDArray[Any]) -> None:
    """Raise InputError unless the parameters are float32 or float64."""
    if theta.dtype not in (np.float32, np.float64):
        raise InputError(f"theta: expected float32 or float64, got {theta.dtype}; convert it")


def as_scale(scale: float) -> float:
    """Return the scale, if the gradient can be divided by it in float32 without loss."""
    if not 1e-20 <= abs(scale) <= 1e20:
        raise InputError(f"scale: expected a magnitude of 1e-20 to 1e20, got {scale}; scale X")
    return float(scale)


@np.errstate(all="ignore")
def sample_losses(
    theta: NDArray[Any], X: NDArray[Any], y: ArrayLike, scale: float = 1.0
) -> tuple[NDArray[Any], NDArray[np.intp]]:
    r"""Compute the cross-entropy of each sample, without gradient or penalty.

    .. math:: \ell_j = \log \sum_i e^{z_{ij}} - z_{y_j j}, \qquad Z = s W X + b \mathbf 1^\top

    Takes the arguments of :func:`loss_and_grad`. Returns the losses, shape ``(n,)``, in nats, of
    ``theta``'s dtype, and the most likely class of each sample.

    Examples
    --------
    >>> theta = np.array([[1.0, 0.0], [-1.0, 0.0]])
    >>> losses, predicted = sample_losses(theta, np.array([[0, 3]]), np.array([0, 1]))
    >>> losses.round(6), predicted
    (array([0.693147, 6.002476]), array([0, 0]))
    """
    theta, X, targets, labels = _check(theta, X, y, scale)
    if labels is None:
        logits = affine(theta, X, scale)
        return logitcrossentropy(logits, targets, agg="none"), logits.argmax(axis=0)
    losses, predicted = np.empty(labels.size, theta.dtype), np.empty(labels.size, INTP)
    workspace = Workspace()
    for columns in block_columns(theta, X):
        block = workspace.block(theta, columns, is_sparse(X))
        block.read(_sparse.columns(X, columns), scale)
        losses[columns] = block.losses(theta, labels[columns])
        predicted[columns] = block.predict()
    return losses, predicted


@np.errstate(all="ignore")
def hessian_vector_product(
    theta: NDArray[Any], V: NDArray[Any], X: NDArray[Any], l2: float = 0.0, scale: float = 1.0
) -> NDArray[Any]:
    r"""Multiply the Hessian of the objective by a direction, without forming the Hessian.

    .. math:: H V = \Bigl[\; s \, R X^\top + \lambda V_W \;\Bigm|\; R \mathbf 1 \;\Bigr], \qquad
        R = \frac1n \, P \circ \bigl(D - \mathbf 1 \mathbf 1^\top (P \circ D)\bigr)

    with :math:`P = \mathrm{softmax}(s W X + b \mathbf 1^\top)`, the change of the logits
    :math:`D = s V_W X + v_b \mathbf 1^\top`, and :math:`V = [V_W \; v_b]`.

    Derivation: along ``V`` the logits change by ``D``, so the gradient with respect to them,
    ``(P - Y) / n``, changes by softmax's derivative along ``D``, over ``n``. Softmax's Jacobian is
    symmetric, so that is ``softmax_grad(D, P) / n``. The rest is the linear map from there to the
    gradient with respect to ``theta`` (Pearlmutter, "Fast exact multiplication by the Hessian",
    Neural Computation 6(1), 1994).

    Takes the arguments of :func:`loss_and_grad`, and a direction ``V`` of ``theta``'s shape. There
    is no ``y``: targets that sum to one for each sample shift the gradient by a constant. The
    result has ``theta``'s shape, dtype and memory order.

    Examples
    --------
    >>> theta, V = np.zeros((2, 2)), np.array([[1.0, 0.0], [0.0, 0.0]])
    >>> hessian_vector_product(theta, V, np.array([[1.0, 3.0]]))  # R = [1 3; -1 -3] / 8
    array([[ 1.25,  0.5 ],
           [-1.25, -0.5 ]])
    """
    theta, X = _as_arguments(theta, X)
    if X.shape[1] == 0:
        raise ShapeError(f"X: expected at least one sample, got shape {X.shape}")
    V = as_direction(V, theta)
    product = accumulate_product(theta, V, X, X.shape[1], scale, Workspace())
    product[:, :-1] += theta.dtype.type(l2) * V[:, :-1]
    return product


def as_direction(V: NDArray[Any], theta: NDArray[Any]) -> NDArray[Any]:
    """Return ``V`` in ``theta``'s dtype, checked to have its shape."""
    if np.shape(V) != theta.shape:
        raise ShapeError(f"V: expected theta's shape {theta.shape}, got {np.shape(V)}")
    return as_float(V, "V").astype(theta.dtype, order=memory_order(), copy=False)


def accumulate_product(
    theta: NDArray[Any],
    V: NDArray[Any],
    X: NDArray[Any],
    total: float,
    scale: float,
    workspace: Workspace,
    weights: NDArray[np.float64] | None = None,
) -> NDArray[Any]:
    """Return ``H V`` without the penalty, for weights divided by ``total``. Nothing is checked."""
    product = np.zeros_like(theta)
    divisor: Any = total
    for columns in block_columns(theta, X):
        block = workspace.whole_block(theta, columns, is_sparse(X))
        block.read(_sparse.columns(X, columns), scale)
        if weights is not None:
            divisor = total / weights[columns]
        block.hessian_product(theta, V, divisor, product)
    return product
