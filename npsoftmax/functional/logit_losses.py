r"""Cross-entropy on logits, with its gradient: what training minimises.

Targets ``y`` are integer labels, shape ``(n,)``, or one-hot or soft columns, shape ``(k, n)``.
Integer labels *are* the one-hot: they index, nothing is multiplied by a matrix of zeros.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npsoftmax._checks import as_float, as_out, as_single_axis
from npsoftmax.functional._targets import (
    Aggregate,
    aggregate,
    as_targets,
    columns,
    one_hot_labels,
    without,
)
from npsoftmax.functional.softmax_family import log_total, shifted

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
    return _loss_and_grad(logits, y, axis, agg, want_grad=False, out=None)[0]


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
    return _loss_and_grad(logits, y, axis, agg, want_grad=True, out=out)


@np.errstate(all="ignore")
def _loss_and_grad(
    logits: ArrayLike,
    y: ArrayLike,
    axis: int,
    agg: Aggregate,
    want_grad: bool,
    out: NDArray[Any] | None,
) -> tuple[Any, NDArray[Any]]:
    z = as_float(logits, "logits")
    axis = as_single_axis(axis, z)
    targets = as_targets(y, z.shape, axis)
    # Every case becomes one matrix with the classes along axis 0; for a batch that is a view.
    d = shifted(columns(z, axis), (0,))
    labels = one_hot_labels(targets, z.ndim, axis)
    if labels is not None:
        losses, gradient = _from_labels(d, labels.ravel())
    else:
        losses, gradient = _from_targets(d, columns(targets, axis))
    loss = aggregate(losses, agg, z.dtype, without(z.shape, axis))
    if not want_grad:
        return loss, z
    if agg == "mean":
        gradient /= losses.size
    out = as_out(out, z.shape, like=z)
    out[...] = np.moveaxis(gradient.reshape(z.shape[axis], *without(z.shape, axis)), 0, axis)
    return loss, out


def _from_labels(d: NDArray[Any], labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return losses (n,) and gradients (k, n) of shifted logits ``d`` (k, n), overwriting ``d``."""
    picked = (labels, np.arange(labels.size))
    d_y = d[picked]
    exponentials = np.exp(d, out=d)
    e_y = exponentials[picked]
    exponentials[picked] = 0
    others = exponentials.sum(axis=0)
    total = others + e_y
    # Both forms are log(total) - d_y; where the label leads, log1p keeps a tiny loss from 0.
    losses = np.where(d_y == 0, np.log1p(others), np.log(total) - d_y)
    exponentials /= total
    exponentials[picked] = -others / total
    return losses, exponentials


def _from_targets(d: NDArray[Any], targets: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """As :func:`_from_labels` for soft targets (k, n)."""
    exponentials = np.exp(d)
    total = exponentials.sum(axis=0)
    # A target of 0 silences its logit, even one of -Inf.
    losses = np.where(targets == 0, 0.0, targets * (log_total(d, (0,)) - d)).sum(axis=0)
    exponentials *= targets.sum(axis=0) / total
    exponentials -= targets
    return losses, exponentials
