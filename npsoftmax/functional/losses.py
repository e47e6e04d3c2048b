r"""Cross-entropy on logits, with its gradient: what training minimises.

Targets ``y`` are integer labels, shape ``(n,)``, or one-hot or soft columns, shape ``(k, n)``.
Integer labels *are* the one-hot: they index, nothing is multiplied by a matrix of zeros.
"""

from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npsoftmax._checks import as_float, as_labels, as_out, as_single_axis
from npsoftmax.errors import InputError, LabelError, ShapeError
from npsoftmax.functional._compensated import (
    FLOAT64,
    add_up,
    as_matrix,
    by_blocks,
    divided,
    fast_two_sum,
    offsets,
    other_total,
    quotient,
    shift,
    times,
    two_sum,
    with_subnormal_terms,
)

__all__ = [
    "Aggregate",
    "aggregate",
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
    "refuse_unknown",
    "without",
]


# What the losses share: targets in either form, samples as columns, and their mean or sum.

Aggregate = Literal["mean", "sum", "none"]


def without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """Return ``shape`` without its entry ``axis``: one loss per sample."""
    return shape[:axis] + shape[axis + 1 :]


def as_targets(y: ArrayLike, shape: tuple[int, ...], axis: int) -> NDArray[Any]:
    """Return validated labels, or targets of the full shape."""
    targets = np.asarray(y)
    if targets.ndim == len(shape):
        if targets.shape != shape:
            raise ShapeError(
                f"y: expected targets of the predictions' shape {shape}, got {targets.shape}; "
                "or pass integer labels, one per sample"
            )
        return as_float(targets, "y")
    return as_labels(targets, shape[axis], without(shape, axis))


def one_hot_labels(targets: NDArray[Any], ndim: int, axis: int) -> NDArray[Any] | None:
    """Return the labels behind integer or exactly one-hot targets, None for soft ones."""
    if targets.ndim < ndim:
        return targets
    hot = targets == 1
    if (hot | (targets == 0)).all() and (hot.sum(axis=axis) == 1).all():
        labels: NDArray[Any] = hot.argmax(axis=axis)
        return labels
    return None


def refuse_unknown(agg: str, samples: int) -> None:
    """Raise unless ``agg`` is known and there is something to aggregate."""
    if agg not in ("mean", "sum", "none"):
        raise InputError(f"agg: expected 'mean', 'sum' or 'none', got {agg!r}")
    if agg == "mean" and samples == 0:
        raise ShapeError("agg='mean': expected at least one sample, got none; use agg='sum'")


def aggregate(
    losses: NDArray[Any], agg: Aggregate, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> Any:
    """Return the mean or sum of the losses, or the losses in ``shape``, in ``dtype``."""
    if agg == "none":
        return (losses + 0.0).reshape(shape).astype(dtype)  # -0.0 becomes 0.0
    count = losses.size if agg == "mean" else 1
    if dtype != FLOAT64:
        return dtype.type(np.add.reduce(losses) / count + 0.0)
    # A sum may overflow where the mean does not.
    scale = 2.0**-64 if np.maximum.reduce(np.abs(losses), initial=0.0) > 2.0**900 else 1.0
    return dtype.type(divided(add_up(losses * scale, 0.0), count) / scale + 0.0)


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
    axis : int
        Where the classes lie.
    agg : {"mean", "sum", "none"}
        What to make of the losses of the samples.

    Returns
    -------
    scalar or ndarray
        In nats. With ``agg="none"`` one loss per sample, the shape of ``logits`` without ``axis``.
        A target of 0 counts 0 even where its logit is -Inf.

    Raises
    ------
    ShapeError, LabelError, InputError
        Shapes do not fit, a label is not in ``0..k-1``, ``agg`` is unknown, no samples to average.

    References
    ----------
    Flux.jl, ``src/losses/functions.jl``.

    Examples
    --------
    >>> float(logitcrossentropy([[2.0], [0.0]], [0]))
    0.1269280110429725
    """
    z, axis = _as_logits(logits, axis)
    return _loss_and_grad(z, y, axis, agg, gradient=None)


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

    Parameters
    ----------
    logits, y, axis, agg
        As for :func:`logitcrossentropy`; with ``agg="none"`` each sample's own gradient.

    Returns
    -------
    ndarray
        The shape of ``logits``.

    Raises
    ------
    ShapeError, LabelError, InputError
        As for :func:`logitcrossentropy`.

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

    Parameters
    ----------
    logits, y, axis, agg
        As for :func:`logitcrossentropy`.
    out : ndarray, optional
        Where to write the gradient; ``out=logits`` works in place.

    Returns
    -------
    loss, gradient
        As the two functions return them.

    Raises
    ------
    ShapeError, LabelError, InputError
        As for :func:`logitcrossentropy`.

    Examples
    --------
    >>> loss, gradient = logitcrossentropy_and_grad([[0.0], [0.0]], [1])
    >>> round(float(loss), 6), gradient.ravel().tolist()
    (0.693147, [0.5, -0.5])
    """
    z, axis = _as_logits(logits, axis)
    gradient = as_out(out, z.shape, like=z)
    return _loss_and_grad(z, y, axis, agg, gradient), gradient


def _as_logits(logits: ArrayLike, axis: int) -> tuple[NDArray[Any], int]:
    z = as_float(logits, "logits")
    return z, as_single_axis(axis, z)


@np.errstate(all="ignore")
def _loss_and_grad(
    z: NDArray[Any], y: ArrayLike, axis: int, agg: Aggregate, gradient: NDArray[Any] | None
) -> Any:
    """Return the loss; write its gradient to ``gradient`` unless None."""
    targets = as_targets(y, z.shape, axis)
    losses = np.empty(z.size // z.shape[axis])
    refuse_unknown(agg, losses.size)
    count = losses.size if agg == "mean" else 1
    labels = one_hot_labels(targets, z.ndim, axis)
    if labels is not None:
        kernel = partial(_label_block, count)
        by_blocks(kernel, z, (axis,), gradient, labels.ravel(), losses)
    else:
        kernel = partial(_target_block, count)
        by_blocks(kernel, z, (axis,), gradient, as_matrix(targets, (axis,)), losses)
    return aggregate(losses, agg, z.dtype, without(z.shape, axis))


def _label_block(
    count: int,
    block: NDArray[Any],
    out: NDArray[Any] | None,
    labels: NDArray[Any],
    losses: NDArray[Any],
) -> None:
    """Compute the losses of some columns and, into ``out``, their gradients over ``count``."""
    _, d, error = shift(block)
    exponentials = np.exp(d)
    of_row, of_column = offsets(d)
    at_y = of_row[labels] + of_column
    flat = exponentials.ravel(order="K")
    d_y, e_y = d.ravel(order="K")[at_y], flat[at_y]
    flat[at_y] = 0.0
    if error is None:
        other = np.add.reduce(exponentials, axis=0)
        np.subtract(np.log1p(other + (e_y - 1.0)), d_y, out=losses)
        if out is not None:
            flat[at_y] = 0.0 - other
            np.divide(exponentials, (other + e_y) * count, out=out, casting="same_kind")
        return
    flat_error = error.ravel(order="K")
    error_y = flat_error[at_y]
    others = add_up(exponentials, exponentials * error)
    other = with_subnormal_terms(others.high, d, error)
    total = two_sum(others, e_y, e_y * error_y)
    excess = fast_two_sum(total.high - 1.0, total.low)
    # log1p of a pair, to first order; d_y has its own rounding error.
    log_total = np.log1p(excess.high) + (excess.low / total.high - error_y)
    np.subtract(log_total, d_y, out=losses)
    if out is not None:
        flat[at_y] = 0.0 - other
        flat_error[at_y] = 0.0
        quotient(exponentials, error, times(total, count), out)


def _target_block(
    count: int,
    block: NDArray[Any],
    out: NDArray[Any] | None,
    targets: NDArray[Any],
    losses: NDArray[Any],
) -> None:
    """As :func:`_label_block` for soft targets, shape (k, c).

    The gradient t p_i - y_i = ((t - y_i) e_i - y_i O_i) / S, with t the sum of the targets and
    O_i the sum of e but e_i, is exact for a multiple of a one-hot column too.
    """
    shifted = shift(block)
    d, error = shifted.d, shifted.error
    exponentials = np.exp(d)
    other = other_total(exponentials, shifted)
    log_p = d - np.log1p(other) if error is None else d + (error - np.log1p(other))
    terms = np.where(targets == 0, 0.0, -targets * log_p)
    # A target of 0 silences its logit, but a column of NaN has no loss whatever its targets are.
    total_loss = np.add.reduce(terms, axis=0) if error is None else add_up(terms, 0.0).high
    losses[...] = np.where(np.isnan(other), np.nan, total_loss)
    if out is not None:
        if error is not None:
            exponentials += exponentials * error
        total = other + 1.0
        others = np.where(d == 0, other, total - exponentials)
        gradient = (targets.sum(axis=0, dtype=d.dtype) - targets) * exponentials
        gradient -= targets * others
        np.divide(gradient, total * count, out=out, casting="same_kind")


# Cross-entropy on probabilities, with its gradient, and label smoothing.


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


# Labels to one-hot columns and back, as OneHotArrays.jl has them.


def onehotbatch(xs: ArrayLike, labels: ArrayLike, default: Any = None) -> NDArray[np.bool_]:
    """Encode each element of ``xs`` as a column with one True, at its place in ``labels``.

    ``Y[i, j] = (xs[j] == labels[i])``, the first such ``i`` where labels repeat.

    Parameters
    ----------
    xs : array_like
        Values of any shape: numbers, strings.
    labels : array_like
        The ``k`` known values, in the order of the rows.
    default : optional
        The label to take for an element that is not in ``labels``; must itself be in ``labels``.

    Returns
    -------
    ndarray of bool
        Shape ``(k, *xs.shape)``; Fortran-ordered for one-dimensional ``xs``.

    Raises
    ------
    LabelError
        An element, or ``default``, is not among ``labels``.
    ShapeError
        ``labels`` is empty or not one-dimensional.

    References
    ----------
    OneHotArrays.jl, ``src/onehot.jl``.

    Examples
    --------
    >>> onehotbatch([20, 10], [10, 20, 30]).astype(int)
    array([[0, 1],
           [1, 0],
           [0, 0]])
    """
    values, known = np.asarray(xs), np.asarray(labels)
    if known.ndim != 1 or known.size == 0:
        raise ShapeError(f"labels: expected a list of at least one label, got shape {known.shape}")
    matches = known[:, None] == values.ravel()
    rows, found = matches.argmax(axis=0), matches.any(axis=0)
    if default is not None:
        fallback = np.flatnonzero(known == default)
        if fallback.size == 0:
            raise LabelError(
                f"default: expected one of the labels {known.tolist()}, got {default!r}"
            )
        rows[~found], found[:] = fallback[0], True
    if not found.all():
        unknown = values.ravel()[~found][0]
        raise LabelError(
            f"xs: expected only the labels {known.tolist()}, got {unknown!r}; "
            "add it to labels or name a default"
        )
    encoded = np.zeros((known.size, values.size), dtype=bool, order="F")
    encoded[rows, np.arange(values.size)] = True
    return encoded.reshape(known.size, *values.shape)


def onecold(y: ArrayLike, labels: ArrayLike | None = None) -> Any:
    """Return the label of the largest entry along ``axis=0``, the first one on a tie.

    ``labels[argmax_i y[i, ...]]``, with ``labels = 0..k-1`` unless given.

    Parameters
    ----------
    y : array_like
        Scores, probabilities or one-hot columns, shape ``(k, ...)``.
    labels : array_like, optional
        The ``k`` labels.

    Returns
    -------
    scalar or ndarray
        Shape ``y.shape[1:]``.

    Raises
    ------
    ShapeError
        ``y`` has no classes, or ``labels`` does not have one label per row.
    InputError
        ``y`` holds a NaN, which has no place in an order.

    References
    ----------
    OneHotArrays.jl, ``src/onehot.jl``; there only the vector method refuses NaN.

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
        raise ShapeError(
            f"labels: expected {scores.shape[0]} labels, one per row of y, got shape {known.shape}"
        )
    return known[rows]
