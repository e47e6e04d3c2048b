r"""Cross-entropy on logits and on probabilities with gradients, label smoothing, one-hot columns.

Targets ``y`` are integer labels, shape ``(n,)``, or one-hot or soft columns, shape ``(k, n)``.
Integer labels *are* the one-hot columns: they index, and nothing is multiplied by zeros.

Shapes that do not fit raise :class:`npsoftmax.errors.ShapeError`, labels outside ``0..k-1``
:class:`npsoftmax.errors.LabelError`. Losses are in nats.

Sources: Flux.jl, ``src/losses/functions.jl``, and OneHotArrays.jl, ``src/onehot.jl``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npsoftmax._checks import (
    as_array,
    as_float,
    as_labels,
    as_out,
    as_probabilities,
    as_single_axis,
)
from npsoftmax.errors import InputError, LabelError, ShapeError
from npsoftmax.functional._compensated import (
    MAX_SAFE_TERM,
    add_up,
    apply_in_blocks,
    as_matrix,
    divide_by_count,
    divide_by_total,
    fast_two_sum,
    flat_offsets,
    multiply_by_count,
    resum_subnormal_terms,
    shift,
    sum_without_top,
    two_sum,
)

__all__ = [
    "as_targets",
    "crossentropy",
    "crossentropy_grad",
    "label_smoothing",
    "logitcrossentropy",
    "logitcrossentropy_and_grad",
    "logitcrossentropy_grad",
    "one_hot_labels",
    "onecold",
    "onehotbatch",
]

Aggregate = Literal["mean", "sum", "none"]


def logitcrossentropy(
    logits: ArrayLike, y: ArrayLike, axis: int = 0, agg: Aggregate = "mean"
) -> Any:
    r"""Compute the cross-entropy between targets and the softmax of ``logits``.

    .. math:: \ell = -\sum_i y_i \, \mathrm{logsoftmax}(z)_i
              \quad(= \log\textstyle\sum_j e^{z_j} - z_y \text{ for a label } y)

    Parameters
    ----------
    logits : array_like
        ``z``, classes along ``axis``; float32 and float64 are kept.
    y : array_like
        Integer labels, the shape of ``logits`` without ``axis``, or targets of its full shape.
        A target of 0 contributes 0 even where its logit is -Inf.
    axis : int
        The axis of the classes.
    agg : {"mean", "sum", "none"}
        How to aggregate the losses of the samples. With "none" the result has the shape of
        ``logits`` without ``axis``.

    Examples
    --------
    >>> float(logitcrossentropy([[2.0], [0.0]], [0]))
    0.1269280110429725
    """
    return _loss_and_grad(as_float(logits, "logits"), y, axis, agg, gradient=None)


def logitcrossentropy_grad(
    logits: ArrayLike, y: ArrayLike, axis: int = 0, agg: Aggregate = "mean"
) -> NDArray[Any]:
    r"""Compute the gradient of :func:`logitcrossentropy` with respect to the logits.

    .. math:: \partial\ell / \partial z = t\,\mathrm{softmax}(z) - y, \quad t = \textstyle\sum_i y_i

    divided by the number of samples for ``agg="mean"``.

    Derivation: :math:`\ell = -\sum_i y_i (z_i - L)` with :math:`L = \log\sum_j e^{z_j}`, and
    :math:`\partial L / \partial z_j = \mathrm{softmax}(z)_j`, so
    :math:`\partial\ell / \partial z_j = -y_j + t\,\mathrm{softmax}(z)_j`. For a label the entry
    :math:`p_y - 1` is computed as minus the sum of the other probabilities, which keeps its
    digits when :math:`p_y` is close to one.

    Takes the arguments of :func:`logitcrossentropy`. For ``agg="none"`` each column is the gradient
    of its own loss.

    Examples
    --------
    >>> logitcrossentropy_grad([[0.0], [0.0]], [1])
    array([[ 0.5],
           [-0.5]])
    """
    return logitcrossentropy_and_grad(logits, y, axis, agg)[1]


def logitcrossentropy_and_grad(
    logits: ArrayLike,
    y: ArrayLike,
    axis: int = 0,
    agg: Aggregate = "mean",
    out: NDArray[Any] | None = None,
) -> tuple[Any, NDArray[Any]]:
    """Compute :func:`logitcrossentropy` and its gradient from one set of exponentials.

    Takes the arguments of :func:`logitcrossentropy`, and an array ``out`` for the gradient;
    ``out=logits`` works in place. Returns the loss and the gradient.

    Examples
    --------
    >>> loss, gradient = logitcrossentropy_and_grad([[0.0], [0.0]], [1])
    >>> round(float(loss), 6), gradient.ravel().tolist()
    (0.693147, [0.5, -0.5])
    """
    z = as_float(logits, "logits")
    gradient = as_out(out, z.shape, like=z)
    return _loss_and_grad(z, y, axis, agg, gradient), gradient


@np.errstate(all="ignore")
def _loss_and_grad(
    z: NDArray[Any], y: ArrayLike, axis: int, agg: Aggregate, gradient: NDArray[Any] | None
) -> Any:
    """Return the loss; write its gradient to ``gradient`` unless None."""
    axis = as_single_axis(axis, z)
    targets = as_targets(y, z.shape, axis)
    losses = np.empty(z.size // z.shape[axis])
    divisor = _as_divisor(agg, losses.size)
    labels = one_hot_labels(targets, z.ndim, axis)
    kernel: Callable[..., None] = _target_block if labels is None else _label_block
    per_column = as_matrix(targets, (axis,)) if labels is None else labels.ravel()
    apply_in_blocks(partial(kernel, divisor), z, (axis,), gradient, per_column, losses)
    return _aggregate(losses, agg, divisor, z.dtype, _drop_axis(z.shape, axis))


def _label_block(
    divisor: int,
    block: NDArray[Any],
    out: NDArray[Any] | None,
    labels: NDArray[Any],
    losses: NDArray[Any],
) -> None:
    """Compute the losses of some columns; write their gradients over ``divisor`` to ``out``."""
    _, d, error = shift(block)
    exponentials = np.exp(d)
    row_offset, column_offset = flat_offsets(d)
    at_y = row_offset[labels] + column_offset
    flat = exponentials.ravel(order="K")
    d_y, e_y = d.ravel(order="K")[at_y], flat[at_y]
    flat[at_y] = 0.0
    if error is None:
        other = np.add.reduce(exponentials, axis=0)
        np.subtract(np.log1p(other + (e_y - 1.0)), d_y, out=losses)
        if out is not None:
            flat[at_y] = 0.0 - other
            np.divide(exponentials, (other + e_y) * divisor, out=out, casting="same_kind")
        return
    flat_error = error.ravel(order="K")
    error_y = flat_error[at_y]
    others = add_up(exponentials, exponentials * error)
    other = resum_subnormal_terms(others.high, d, error)
    total = two_sum(others, e_y, e_y * error_y)
    excess = fast_two_sum(total.high - 1.0, total.low)
    # log1p of a pair, to first order; error_y is the rounding error of d_y.
    log_total = np.log1p(excess.high) + (excess.low / total.high - error_y)
    np.subtract(log_total, d_y, out=losses)
    if out is not None:
        flat[at_y] = 0.0 - other
        flat_error[at_y] = 0.0
        divide_by_total(exponentials, error, multiply_by_count(total, divisor), out)


def _target_block(
    divisor: int,
    block: NDArray[Any],
    out: NDArray[Any] | None,
    targets: NDArray[Any],
    losses: NDArray[Any],
) -> None:
    """Do the same for soft targets, shape (k, c).

    The gradient t p_i - y_i = ((t - y_i) e_i - y_i O_i) / S, with t the sum of the targets and
    O_i the sum of e without e_i, is as exact for a multiple of a one-hot column as for a label.
    """
    shifted = shift(block)
    d, error = shifted.d, shifted.error
    exponentials = np.exp(d)
    other = sum_without_top(exponentials, shifted)
    log_p = d - np.log1p(other) if error is None else d + (error - np.log1p(other))
    terms = np.where(targets == 0, 0.0, -targets * log_p)
    # A target of 0 silences its logit, but a column with NaN has no loss even if all are 0.
    total_loss = np.add.reduce(terms, axis=0) if error is None else add_up(terms, 0.0).high
    losses[...] = np.where(np.isnan(other), np.nan, total_loss)
    if out is not None:
        if error is not None:
            exponentials += exponentials * error
        total = other + 1.0
        others = np.where(d == 0, other, total - exponentials)
        gradient = (targets.sum(axis=0, dtype=d.dtype) - targets) * exponentials
        gradient -= targets * others
        np.divide(gradient, total * divisor, out=out, casting="same_kind")


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
        As in :func:`logitcrossentropy`.
    eps : float, optional
        Added inside the logarithm; by default the machine epsilon of ``yhat``'s dtype.

    Examples
    --------
    >>> float(crossentropy([[0.1, 0.3], [0.3, 0.2], [0.6, 0.5]], [0, 2], eps=0))
    1.4978661367769954
    """
    probabilities, targets, axis, eps = _as_probabilities(yhat, y, axis, eps)
    p = as_matrix(probabilities, (axis,)).astype(np.float64)
    # Near 1 the rounding of the sum p + eps would be most of the logarithm.
    logs = np.where(p + eps > 0.5, np.log1p((p - 1.0) + eps), np.log(p + eps))
    if targets.ndim < probabilities.ndim:
        losses = -logs[targets.ravel(), np.arange(targets.size)]
    else:
        weights = as_matrix(targets, (axis,))
        losses = add_up(np.where(weights == 0, 0.0, -weights * logs), 0.0).high
    shape = _drop_axis(probabilities.shape, axis)
    return _aggregate(losses, agg, _as_divisor(agg, losses.size), probabilities.dtype, shape)


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

    divided by the number of samples for ``agg="mean"``; 0 wherever the target is 0. Takes the
    arguments of :func:`crossentropy`.

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
    divisor = _as_divisor(agg, probabilities.size // probabilities.shape[axis])
    denominator = (probabilities.astype(np.float64) + eps) * divisor
    gradient = np.where(targets == 0, 0.0, -targets / denominator)
    return gradient.astype(probabilities.dtype)


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


@np.errstate(all="ignore")
def label_smoothing(y: ArrayLike, alpha: float, axis: int = 0) -> NDArray[Any]:
    r"""Mix one-hot or soft targets with the uniform distribution.

    .. math:: y_i (1 - \alpha) + \alpha / k

    Parameters
    ----------
    y : array_like
        One-hot or soft targets, ``k`` classes along ``axis``, for instance ``(k, n)``.
    alpha : float
        The weight of the uniform distribution, strictly between 0 and 1.
    axis : int
        The axis of the classes.

    Examples
    --------
    >>> label_smoothing([[1, 0], [0, 1]], 0.25)
    array([[0.875, 0.125],
           [0.125, 0.875]])
    """
    targets = as_float(y, "y")
    axis = as_single_axis(axis, targets)
    targets = as_probabilities(targets, "y", "make labels one-hot: onehotbatch(y, range(k))")
    if not 0 < alpha < 1:
        raise InputError(f"alpha: expected 0 < alpha < 1, got {alpha}; leave y as it is for none")
    smoothed: NDArray[Any] = targets * (1 - alpha) + alpha / targets.shape[axis]
    return smoothed


def onehotbatch(xs: ArrayLike, labels: ArrayLike, default: Any = None) -> NDArray[np.bool_]:
    """Encode each element of ``xs`` as a column with one True, at its position in ``labels``.

    ``Y[i, j] = (xs[j] == labels[i])``, only for the first such ``i`` if labels repeat. The shape is
    ``(k, *xs.shape)``, Fortran-ordered for one-dimensional ``xs``.

    Parameters
    ----------
    xs : array_like
        Values of any shape: numbers, strings.
    labels : array_like
        The ``k`` known values, in the order of the rows.
    default : optional
        The label to use for unknown elements; without it, they raise
        :class:`npsoftmax.errors.LabelError`. It must itself be in ``labels``.

    Examples
    --------
    >>> onehotbatch([20, 10], [10, 20, 30]).astype(int)
    array([[0, 1],
           [1, 0],
           [0, 0]])
    """
    values, known = np.asarray(xs), np.asarray(labels)
    if known.ndim != 1 or known.size == 0:
        raise ShapeError(
            f"labels: expected at least one label, got shape {known.shape}; k classes are range(k)"
        )
    matches = known[:, None] == values.ravel()
    rows, found = matches.argmax(axis=0), matches.any(axis=0)
    if default is not None:
        fallback = np.flatnonzero(known == default)
        if fallback.size == 0:
            raise LabelError(f"default: expected one of {known.tolist()}, got {default!r}")
        rows[~found], found[:] = fallback[0], True
    if not found.all():
        unknown = values.ravel()[~found][0]
        raise LabelError(
            f"xs: expected labels {known.tolist()}, got {unknown!r}; add it or name a default"
        )
    encoded = np.zeros((known.size, values.size), dtype=bool, order="F")
    encoded[rows, np.arange(values.size)] = True
    return encoded.reshape(known.size, *values.shape)


def onecold(y: ArrayLike, labels: ArrayLike | None = None) -> Any:
    """Return the label of the largest entry along ``axis=0``, the first one on a tie.

    ``labels[argmax_i y[i, ...]]``, by default with ``labels = 0..k-1``. A NaN, which has no order,
    raises :class:`npsoftmax.errors.InputError` (OneHotArrays.jl: only in a vector).

    Parameters
    ----------
    y : array_like
        Scores, probabilities or one-hot columns, shape ``(k, ...)``.
    labels : array_like, optional
        The ``k`` labels.

    Examples
    --------
    >>> int(onecold([0.1, 0.7, 0.2]))
    1
    >>> onecold([[0.1, 0.8], [0.9, 0.2]], ["cat", "dog"])
    array(['dog', 'cat'], dtype='<U3')
    """
    scores = np.asarray(y)
    if scores.ndim == 0 or scores.shape[0] == 0:
        raise ShapeError(f"y: expected at least one class along axis 0, got shape {scores.shape}")
    if scores.dtype.kind == "f" and np.isnan(scores).any():
        raise InputError("y: expected numbers, got NaN; look for the step that produced it")
    rows = scores.argmax(axis=0)
    if labels is None:
        return rows
    known = np.asarray(labels)
    if known.shape != scores.shape[:1]:
        raise ShapeError(f"labels: expected {scores.shape[0]} labels, got shape {known.shape}")
    return known[rows]


def as_targets(y: ArrayLike, shape: tuple[int, ...], axis: int) -> NDArray[Any]:
    """Return valid labels, or targets of the full shape."""
    targets = as_array(y, "y")
    if targets.ndim < len(shape):
        return as_labels(targets, shape[axis], _drop_axis(shape, axis))
    if targets.shape != shape:
        way = "pass np.asarray(y).T" if targets.shape == shape[::-1] else "pass np.ravel(y)"
        raise ShapeError(
            f"y: expected integer labels or targets {shape}, got {targets.shape}; {way}"
        )
    return as_float(targets, "y")


def one_hot_labels(targets: NDArray[Any], ndim: int, axis: int) -> NDArray[Any] | None:
    """Return the labels behind integer or exactly one-hot targets, None for soft ones."""
    if targets.ndim < ndim:
        return targets
    hot = targets == 1
    if (hot | (targets == 0)).all() and (hot.sum(axis=axis) == 1).all():
        labels: NDArray[Any] = hot.argmax(axis=axis)
        return labels
    return None


def _drop_axis(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


def _as_divisor(agg: str, num_samples: int) -> int:
    """Return the divisor of the sum over the samples: their number for the mean, else 1."""
    if agg not in ("mean", "sum", "none"):
        raise InputError(f"agg: expected 'mean', 'sum' or 'none', got {agg!r}")
    if agg == "mean" and num_samples == 0:
        raise ShapeError("agg='mean': expected at least one sample, got none; use agg='sum'")
    return num_samples if agg == "mean" else 1


def _aggregate(
    losses: NDArray[Any], agg: str, divisor: int, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> Any:
    """Return the sum of the losses over ``divisor``, or the losses in ``shape``, in ``dtype``."""
    if agg == "none":
        return (losses + 0.0).reshape(shape).astype(dtype)  # -0.0 becomes 0.0
    if dtype != np.float64:
        return dtype.type(np.add.reduce(losses) / divisor + 0.0)
    # A sum may overflow where the mean does not.
    huge = np.maximum.reduce(np.abs(losses), initial=0.0) > MAX_SAFE_TERM
    scale = 2.0**-64 if huge else 1.0
    return dtype.type(divide_by_count(add_up(losses * scale, 0.0), divisor) / scale + 0.0)
