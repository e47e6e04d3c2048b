"""What the losses share: targets in either form, samples as columns, and their mean or sum."""

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npsoftmax._checks import as_float, as_labels
from npsoftmax.errors import InputError, ShapeError
from npsoftmax.functional._compensated import FLOAT64, add_up, divided

__all__ = [
    "Aggregate",
    "aggregate",
    "as_targets",
    "one_hot_labels",
    "refuse_unknown",
    "without",
]

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
