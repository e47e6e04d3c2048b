r"""Cross-entropy on logits, with its gradient: what training minimises.

Targets ``y`` are integer labels, shape ``(n,)``, or one-hot or soft columns, shape ``(k, n)``.
Integer labels *are* the one-hot: they index, nothing is multiplied by a matrix of zeros.
"""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npsoftmax._checks import as_float, as_out, as_single_axis
from npsoftmax.functional._compensated import (
    FLOAT64,
    add_up,
    as_matrix,
    by_blocks,
    fast_two_sum,
    offsets,
    other_total,
    quotient,
    shift,
    shift_with_error,
    times,
    two_sum,
    with_subnormal_terms,
)
from npsoftmax.functional._label_losses import LabelLosses
from npsoftmax.functional._targets import (
    Aggregate,
    aggregate,
    as_targets,
    one_hot_labels,
    refuse_unknown,
    without,
)

__all__ = ["logitcrossentropy", "logitcrossentropy_and_grad", "logitcrossentropy_grad"]


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
    if block.dtype == FLOAT64:
        _float64_label_block(count, block, out, labels, losses)
        return
    work = LabelLosses(block.shape[0], block.shape[1], FLOAT64)
    work.logits[...] = block
    losses[...] = work.losses(labels)
    if out is not None:
        work.gradient(count, out)


def _float64_label_block(
    count: int,
    block: NDArray[Any],
    out: NDArray[Any] | None,
    labels: NDArray[Any],
    losses: NDArray[Any],
) -> None:
    """Do what :class:`LabelLosses` does, with the rounding errors of float64 beside the numbers."""
    _, d, error = shift_with_error(block)
    exponentials = np.exp(d)
    of_row, of_column = offsets(d)
    at_y = of_row[labels] + of_column
    flat, flat_error = exponentials.ravel(order="K"), error.ravel(order="K")
    d_y, e_y, error_y = d.ravel(order="K")[at_y], flat[at_y], flat_error[at_y]
    flat[at_y] = 0.0
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
