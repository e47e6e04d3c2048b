r"""softmax, logsoftmax and logsumexp, each with its gradient.

All three first subtract the largest entry of a slice, so that no exponential overflows, and
compute in float64, so that a float32 result is rounded only once. Infinities follow NNlib.jl
(softmax, logsoftmax) and LogExpFunctions.jl (logsumexp); a NaN fills its own slice, no other.
A result has the shape, dtype and memory order of ``x``; a gradient the shape of the input.

Shapes, axes and ``out`` arrays that do not fit raise :class:`npsoftmax.errors.ShapeError`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npsoftmax._checks import as_axis, as_float, as_out, floating_dtype
from npsoftmax.errors import ShapeError
from npsoftmax.functional._compensated import (
    add_up,
    apply_in_blocks,
    divide_by_total,
    log_total,
    shift,
)

__all__ = [
    "logsoftmax",
    "logsoftmax_grad",
    "logsumexp",
    "logsumexp_grad",
    "softmax",
    "softmax_grad",
]

Axis = int | tuple[int, ...] | None


@np.errstate(all="ignore")
def softmax(x: ArrayLike, axis: Axis = 0, out: NDArray[Any] | None = None) -> NDArray[Any]:
    r"""Turn each slice of ``x`` along ``axis`` into probabilities that sum to one.

    .. math:: y_i = \exp(x_i) / \sum_j \exp(x_j)

    ``m`` entries of +Inf share 1/m each; -Inf gives exactly 0; a slice of only -Inf gives NaN.

    Parameters
    ----------
    x : array_like
        Logits of any shape; float32 and float64 are kept, integers become float64.
    axis : int, tuple of int or None
        The axes of the classes; ``None`` takes the whole array as one slice.
    out : ndarray, optional
        The array to write the result to; ``out=x`` works in place.

    References
    ----------
    NNlib.jl, ``src/softmax.jl``; Blanchard, Higham, Higham, "Accurately computing the
    log-sum-exp and softmax functions", IMA J. Numer. Anal. 41(4), 2021, section 4.

    Examples
    --------
    >>> softmax([1, 2, 3])
    array([0.09003057, 0.24472847, 0.66524096])
    >>> softmax([1000.0, 1001.0])
    array([0.26894142, 0.73105858])
    """
    logits = as_float(x, "softmax")
    axes = as_axis(axis, logits)
    out = as_out(out, logits.shape, like=logits)
    apply_in_blocks(_softmax_block, logits, axes, out)
    return out


def _softmax_block(block: NDArray[Any], out: NDArray[Any]) -> None:
    _, d, error = shift(block)
    exponentials = np.exp(d, out=d)
    if error is None:
        np.divide(exponentials, np.add.reduce(exponentials, axis=0), out=out, casting="same_kind")
    else:
        divide_by_total(exponentials, error, add_up(exponentials, exponentials * error), out)


@np.errstate(all="ignore")
def softmax_grad(
    dy: ArrayLike, y: ArrayLike, axis: Axis = 0, out: NDArray[Any] | None = None
) -> NDArray[Any]:
    r"""Pull the gradient ``dy`` of :func:`softmax`'s output ``y`` back to its input.

    .. math:: dx_i = y_i \, (dy_i - \sum_j dy_j y_j)

    From :math:`\partial y_j / \partial x_i = y_j (\delta_{ij} - y_i)` and the chain rule
    :math:`dx_i = \sum_j dy_j \, \partial y_j / \partial x_i`. The input ``x`` is not needed.
    A number subtracted from all of ``dy`` changes nothing, since ``y`` sums to one; here it is the
    entry of ``dy`` at the largest probability, so that a confident slice loses no digits.
    (Training does not call this function: it differentiates softmax and loss together, in
    :mod:`npsoftmax.objective.hot_loop`.)

    Parameters
    ----------
    dy, y : array_like
        The upstream gradient and the output of ``softmax(x, axis)``, of one shape.
    axis, out
        As in :func:`softmax`.

    Examples
    --------
    >>> softmax_grad([1.0, 0.0], [0.25, 0.75])
    array([ 0.1875, -0.1875])
    """
    dy, y = _check_same_shape(dy, y, "softmax_grad")
    axes = as_axis(axis, y)
    out = as_out(out, y.shape, like=y)
    leads = y == y.max(axis=axes, keepdims=True)
    leading = np.where(leads, dy, -np.inf).max(axis=axes, keepdims=True)
    difference = np.subtract(dy, leading, dtype=np.float64)
    mean = (difference * y).sum(axis=axes, keepdims=True)
    np.multiply(y, difference - mean, out=out, casting="same_kind")
    return out


@np.errstate(all="ignore")
def logsoftmax(x: ArrayLike, axis: Axis = 0, out: NDArray[Any] | None = None) -> NDArray[Any]:
    r"""Compute the logarithm of :func:`softmax` without losing the digits of small values.

    .. math:: y_i = x_i - \log \sum_j \exp(x_j)

    Takes the arguments of :func:`softmax`. In a slice with ``m`` entries of +Inf these are -log m
    and the others -Inf; a slice of only -Inf gives NaN. Source: NNlib.jl, ``src/softmax.jl``.

    Examples
    --------
    >>> logsoftmax([0.0, 0.0])
    array([-0.69314718, -0.69314718])
    >>> logsoftmax([0.0, -40.0])
    array([-4.24835426e-18, -4.00000000e+01])
    """
    logits = as_float(x, "logsoftmax")
    axes = as_axis(axis, logits)
    out = as_out(out, logits.shape, like=logits)
    apply_in_blocks(_logsoftmax_block, logits, axes, out)
    return out


def _logsoftmax_block(block: NDArray[Any], out: NDArray[Any]) -> None:
    shifted = shift(block)
    total = log_total(shifted)
    correction = total if shifted.error is None else total - shifted.error
    np.subtract(shifted.d, correction, out=out, casting="same_kind")


@np.errstate(all="ignore")
def logsoftmax_grad(
    dy: ArrayLike, y: ArrayLike, axis: Axis = 0, out: NDArray[Any] | None = None
) -> NDArray[Any]:
    r"""Pull the gradient ``dy`` of :func:`logsoftmax`'s output ``y`` back to its input.

    .. math:: dx_i = dy_i - \exp(y_i) \sum_j dy_j

    From :math:`\partial y_j / \partial x_i = \delta_{ij} - \exp(y_i)`. Computed as
    :math:`-dy_i \, \mathrm{expm1}(y_i) - \exp(y_i) \sum_{j \ne i} dy_j`, which keeps its digits
    where :math:`\exp(y_i)` is close to one. Takes the arguments of :func:`softmax_grad`, with
    ``y = logsoftmax(x, axis)``.

    Examples
    --------
    >>> logsoftmax_grad([1.0, 0.0], np.log([0.25, 0.75]))
    array([ 0.75, -0.75])
    """
    dy, y = _check_same_shape(dy, y, "logsoftmax_grad")
    axes = as_axis(axis, y)
    out = as_out(out, y.shape, like=y)
    upstream, logs = dy.astype(np.float64), y.astype(np.float64)
    others = upstream.sum(axis=axes, keepdims=True) - upstream
    np.subtract(-upstream * np.expm1(logs), np.exp(logs) * others, out=out, casting="same_kind")
    return out


@np.errstate(all="ignore")
def logsumexp(x: ArrayLike, axis: Axis = None, keepdims: bool = False) -> Any:
    r"""Compute the logarithm of the sum of exponentials.

    .. math:: \log \sum_j \exp(x_j)

    A slice of only -Inf gives -Inf, one with +Inf gives +Inf (NNlib.jl has NaN for both).

    Parameters
    ----------
    x : array_like
        Numbers of any shape; float32 and float64 are kept, integers become float64.
    axis : int, tuple of int or None
        The axes to sum over; by default all of them, as in Julia.
    keepdims : bool
        Keep the summed axes with length one.

    Examples
    --------
    >>> float(logsumexp([1000.0, 1000.0]))
    1000.6931471805599
    """
    logits = as_float(x, "logsumexp")
    axes = as_axis(axis, logits)
    kept = tuple(1 if a in axes else length for a, length in enumerate(logits.shape))
    result = np.empty(kept, dtype=logits.dtype)
    apply_in_blocks(_logsumexp_block, logits, axes, result)
    return result if keepdims else result.squeeze(axis=axes)[()]


def _logsumexp_block(block: NDArray[Any], out: NDArray[Any]) -> None:
    shifted = shift(block)
    total = shifted.top + log_total(shifted)
    out[0] = np.where(np.isneginf(shifted.top), shifted.top, total)


@np.errstate(all="ignore")
def logsumexp_grad(dy: ArrayLike, x: ArrayLike, axis: Axis = None) -> NDArray[Any]:
    r"""Pull the gradient ``dy`` of :func:`logsumexp`'s output back to its input ``x``.

    .. math:: dx_i = dy \, \mathrm{softmax}(x)_i

    From :math:`\partial \log S / \partial x_i = \exp(x_i) / S` with
    :math:`S = \sum_j \exp(x_j)`.

    Parameters
    ----------
    dy : array_like
        The upstream gradient, of the shape of ``logsumexp(x, axis)`` with or without ``keepdims``.
    x : array_like
        The input.
    axis : int, tuple of int or None
        The axes that were summed over.

    Examples
    --------
    >>> logsumexp_grad(1.0, [1, 2, 3])
    array([0.09003057, 0.24472847, 0.66524096])
    """
    logits = as_float(x, "logsumexp_grad")
    axes = as_axis(axis, logits)
    kept = tuple(1 if a in axes else length for a, length in enumerate(logits.shape))
    upstream = np.asarray(dy)
    upstream = upstream.astype(floating_dtype(upstream.dtype, "logsumexp_grad: dy"), copy=False)
    if upstream.shape not in (kept, tuple(np.delete(logits.shape, axes))):
        raise ShapeError(f"dy: expected shape {kept}, or without the ones, got {upstream.shape}")
    dx = softmax(logits, axis, out=np.empty_like(logits, dtype=np.float64))
    dx *= upstream.reshape(kept)
    return dx.astype(logits.dtype, copy=False)


def _check_same_shape(dy: ArrayLike, y: ArrayLike, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    upstream, output = as_float(dy, f"{name}: dy"), as_float(y, f"{name}: y")
    if upstream.shape != output.shape:
        raise ShapeError(
            f"{name}: expected dy and y of one shape, got {upstream.shape} and {output.shape}"
        )
    return upstream, output
