"""Checks of shapes, dtypes, labels and weights, with their error messages.

Each check returns the accepted argument as an array, an int or a float. Otherwise it raises
:class:`npsoftmax.errors.InputError`, with a message of the form "expected X, got Y; do Z".
"""

import math
import operator
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple
from numpy.typing import ArrayLike, NDArray

from npsoftmax.errors import InputError, LabelError, ShapeError


def floating_dtype(dtype: np.dtype[Any], name: str) -> np.dtype[Any]:
    """Return the dtype to compute in: floats stay, integers and booleans become float64."""
    if dtype.kind == "f":
        if dtype.itemsize > 8:
            raise InputError(
                f"{name}: expected float64 or narrower, got {dtype}, which would lose its extra "
                "digits; convert it with .astype(np.float64)"
            )
        return dtype if dtype.isnative else dtype.newbyteorder("=")
    if dtype.kind in "biu":
        return np.dtype(np.float64)
    raise InputError(f"{name}: expected real numbers, got dtype {dtype}; convert it to float first")


def as_float(x: ArrayLike, name: str) -> NDArray[Any]:
    """Return ``x`` as an array of floating dtype, without a copy if it already is one."""
    array = np.asarray(x)
    dtype = floating_dtype(array.dtype, name)
    if array.ndim == 0:
        raise ShapeError(
            f"{name}: expected an array, got the number {array!s}; pass a whole column at once"
        )
    return array.astype(dtype, copy=False)


def as_axis(axis: int | tuple[int, ...] | None, x: NDArray[Any]) -> tuple[int, ...]:
    """Return ``axis`` as non-negative axes of ``x``, none of them empty; ``None`` means all."""
    try:
        if isinstance(axis, int) and -x.ndim <= axis < x.ndim:
            axes: tuple[int, ...] = (axis % x.ndim,)
        else:
            axes = normalize_axis_tuple(range(x.ndim) if axis is None else axis, x.ndim)
    except (ValueError, TypeError) as error:
        raise ShapeError(
            f"axis: expected axes of an array of shape {x.shape}, got {axis!r} ({error})"
        ) from error
    if 0 in x.shape and any(x.shape[a] == 0 for a in axes):
        raise ShapeError(
            f"axis: expected at least one class along axis {axis!r}, got shape {x.shape}"
        )
    return axes


def as_single_axis(axis: object, x: NDArray[Any]) -> int:
    """Return ``axis`` as one non-negative axis of ``x`` that is not empty."""
    if not isinstance(axis, int | np.integer):
        raise ShapeError(f"axis: expected one axis of shape {x.shape}, got {axis!r}")
    return as_axis(int(axis), x)[0]


def as_out(out: NDArray[Any] | None, shape: tuple[int, ...], like: NDArray[Any]) -> NDArray[Any]:
    """Return the array to write into: ``out``, or a new one in the memory order of ``like``."""
    if out is None:
        return np.empty_like(like, shape=shape)
    if not isinstance(out, np.ndarray) or out.shape != shape or out.dtype.kind != "f":
        got = f"{out.dtype} of shape {out.shape}" if isinstance(out, np.ndarray) else repr(out)
        raise ShapeError(
            f"out: expected a floating array of shape {shape}, got {got}; "
            f"allocate it as np.empty({shape}, dtype={like.dtype}, order='F')"
        )
    if not out.flags.writeable:
        raise InputError("out: expected an array to write into, got a read-only one; copy it")
    return out


def as_columns(
    X: ArrayLike, num_inputs: int | None = None, name: str = "X", finite: bool = True
) -> NDArray[Any]:
    """Return ``X`` as a ``(d, n)`` array whose columns are the samples, checked to be finite."""
    array = np.asarray(X)
    if array.ndim != 2:
        raise ShapeError(
            f"{name}: expected shape (features, samples), got {array.shape}; "
            "a single sample is X[:, None], images are images.reshape(n, -1).T"
        )
    if num_inputs is not None and array.shape[0] != num_inputs:
        hint = "pass X.T" if array.shape[1] == num_inputs else "samples are columns"
        raise ShapeError(
            f"X: expected {num_inputs} features along axis 0, got shape {array.shape}; {hint}"
        )
    floating_dtype(array.dtype, name)
    if finite and array.dtype.kind == "f":
        _check_finite(array, name)
    return array


def _check_finite(X: NDArray[Any], name: str) -> None:
    """Raise InputError at the first sample that holds a NaN or an infinity."""
    # Column blocks keep the Boolean mask small next to a large X.
    for start in range(0, X.shape[1] if X.size else 0, 4096):
        finite = np.isfinite(X[:, start : start + 4096])
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            raise InputError(
                f"{name}: expected finite numbers, got {X[row, start + column]} in feature {row} "
                f"of sample {start + column}; drop or repair such samples first"
            )


# Counting larger numbers, which are not labels, would exhaust the memory.
MAX_LABELS = 2**24


def as_labels(
    y: ArrayLike, num_outputs: int | None, shape: tuple[int, ...] | None = None
) -> NDArray[Any]:
    """Return ``y`` as integer labels in ``0..num_outputs-1``, shape ``(n,)`` or ``shape``.

    With ``num_outputs=None`` every label below ``MAX_LABELS`` is accepted.
    """
    labels = np.asarray(y)
    if labels.ndim != 1 if shape is None else labels.shape != shape:
        raise ShapeError(
            f"y: expected integer labels of shape {'(samples,)' if shape is None else shape}, "
            f"got shape {labels.shape}; turn one-hot columns into labels with onecold(y)"
        )
    if labels.dtype.kind not in "iu":
        raise LabelError(
            f"y: expected integer labels 0..{_last(num_outputs)}, got dtype {labels.dtype}; "
            "number class names with classes, y = np.unique(names, return_inverse=True), "
            "turn whole floats into integers with y.astype(int)"
        )
    if labels.size:
        low, high = np.minimum.reduce(labels, axis=None), np.maximum.reduce(labels, axis=None)
        if low < 0 or high >= (MAX_LABELS if num_outputs is None else num_outputs):
            limit = f", k at most {MAX_LABELS:,}" if num_outputs is None and low >= 0 else ""
            raise LabelError(
                f"y: expected labels 0..{_last(num_outputs)}{limit}, got labels from {low} to "
                f"{high}; labels count from 0, and num_outputs must be the number of classes"
            )
    # np.take may refuse uint64 labels, which do not cast to an index safely.
    return labels if np.can_cast(labels.dtype, np.intp) else labels.astype(np.intp)


def _last(num_outputs: int | None) -> str:
    return "k-1" if num_outputs is None else str(num_outputs - 1)


def same_samples(X: NDArray[Any], y: NDArray[Any]) -> None:
    """Raise ShapeError unless ``X`` and ``y`` hold the same number of samples, at least one."""
    if X.shape[-1] != y.shape[-1]:
        raise ShapeError(
            f"X and y: expected as many labels as samples, got X {X.shape} and y {y.shape}; "
            "samples are the columns of X"
        )
    if y.shape[-1] == 0:
        raise ShapeError(
            f"X and y: expected at least one sample, got X {X.shape} and y {y.shape}; "
            "check the file or the slice that they come from"
        )


def as_weights(sample_weight: ArrayLike, num_samples: int) -> NDArray[np.float64]:
    """Return finite weights of at least 0 in float64, one for each sample."""
    given = np.asarray(sample_weight)
    if given.shape != (num_samples,):
        raise ShapeError(
            f"sample_weight: expected one number for each of {num_samples} samples, got shape "
            f"{given.shape}; leave it out for equal weights"
        )
    floating_dtype(given.dtype, "sample_weight")
    weights = given.astype(np.float64)
    if not ((weights >= 0) & (weights < np.inf)).all():
        raise unusable_weights(f"numbers from {weights.min()} to {weights.max()}")
    return weights


def unusable_weights(got: str) -> InputError:
    """Return the error for weights that are negative, not finite, or all 0."""
    return InputError(
        f"sample_weight: expected finite numbers of at least 0, not all 0, got {got}; leave it out "
        "for equal weights"
    )


def as_samples(
    X: ArrayLike, y: ArrayLike, num_inputs: int, num_outputs: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return samples and labels that fit a model and each other."""
    columns, labels = as_columns(X, num_inputs), as_labels(y, num_outputs)
    same_samples(columns, labels)
    return columns, labels


def check_not_calibrated(temperature: float) -> None:
    """Raise InputError if a model that is to be trained has a temperature."""
    if temperature != 1:
        raise InputError(
            f"model: expected one that is not calibrated, got temperature {temperature:g}; "
            "set model.temperature = 1, and calibrate again after training"
        )


def as_size(value: object, name: str) -> float:
    """Return ``value`` as a finite float of at least 0."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, str) or not 0 <= number < math.inf:
        raise InputError(f"{name}: expected a number of at least 0, got {value!r}")
    return number


def as_count(value: object, name: str, minimum: int = 1) -> int:
    """Return ``value`` as an int of at least ``minimum``."""
    try:
        count = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        count = None
    if count is None or isinstance(value, bool) or count < minimum:
        raise InputError(f"{name}: expected a whole number of at least {minimum}, got {value!r}")
    return count
