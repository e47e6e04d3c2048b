"""What a model makes of Dask arrays, block by block, and how good that is."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import dask
import dask.array as da
import numpy as np
from dask import delayed
from numpy.typing import NDArray

from npsoftmax import SoftmaxRegression, metrics, softmax
from npsoftmax.errors import ShapeError
from npsoftmax.ext._cluster_store import FAN_IN
from npsoftmax.ext._cluster_worker import delayed_blocks, of_block, rows_of, values_of
from npsoftmax.objective.samples import added

__all__ = ["Quality", "evaluate", "predict", "probabilities"]


def probabilities(model: SoftmaxRegression, X: da.Array) -> da.Array:
    """Compute the probability of each class, block by block, when Dask is asked for them.

    Parameters
    ----------
    model : SoftmaxRegression
        A trained model.
    X : dask.array.Array
        Rows of samples, shape ``(n, d)``, as ``model(X.T)`` takes them.

    Returns
    -------
    dask.array.Array
        Shape ``(n, k)``, not computed yet; its blocks raise what ``model`` raises.

    Raises
    ------
    ShapeError
        ``X`` is not of that shape, or its size is not known.

    Examples
    --------
    >>> model = SoftmaxRegression(1, 2)
    >>> model.theta[:] = 0
    >>> probabilities(model, da.zeros((3, 1), chunks=2)).compute()
    array([[0.5, 0.5],
           [0.5, 0.5],
           [0.5, 0.5]], dtype=float32)
    """
    rows = _as_rows(model, X)
    chunks = (rows.chunks[0], (model.num_outputs,))
    meta = np.empty((0, 0), model.theta.dtype)
    return rows.map_blocks(_probabilities, _shipped(model), chunks=chunks, meta=meta)


def predict(model: SoftmaxRegression, X: da.Array) -> da.Array:
    """Return the most likely class of each sample, block by block, when Dask is asked for them.

    Parameters
    ----------
    model, X
        As for :func:`probabilities`.

    Returns
    -------
    dask.array.Array
        Of intp, shape ``(n,)``, not computed yet; its blocks raise what ``model`` raises.

    Raises
    ------
    ShapeError
        As for :func:`probabilities`.

    Examples
    --------
    >>> model = SoftmaxRegression(1, 2)
    >>> model.theta[:] = [[1, 0], [-1, 0]]
    >>> predict(model, da.from_array(np.array([[3.0], [-3.0]]), chunks=1)).compute()
    array([0, 1])
    """
    rows = _as_rows(model, X)
    meta = np.empty(0, np.intp)
    return rows.map_blocks(_predict, _shipped(model), drop_axis=1, meta=meta)


class Quality(NamedTuple):
    """How good a model is on some samples, as :mod:`npsoftmax.metrics` defines it.

    Attributes
    ----------
    num_samples : int
        How many there are.
    accuracy, top_3_accuracy, negative_log_likelihood, brier, expected_calibration_error : float
        Over all of them.
    confusion : ndarray of int64
        Shape ``(k, k)``; :func:`npsoftmax.metrics.per_class` takes it.
    """

    num_samples: int
    accuracy: float
    top_3_accuracy: float
    negative_log_likelihood: float
    brier: float
    expected_calibration_error: float
    confusion: NDArray[np.int64]


def evaluate(model: SoftmaxRegression, X: da.Array, y: Any) -> Quality:
    """Compute every metric, block by block; numbers come back, not predictions.

    Parameters
    ----------
    model, X
        As for :func:`probabilities`.
    y : dask.array.Array or array_like
        Labels, shape ``(n,)``.

    Returns
    -------
    Quality

    Raises
    ------
    ShapeError, LabelError, InputError
        As for the model and the metrics.

    Examples
    --------
    >>> model = SoftmaxRegression(1, 2)
    >>> model.theta[:] = [[1, 0], [-1, 0]]
    >>> X = da.from_array(np.array([[3.0], [-3.0], [1.0]]), chunks=2)
    >>> quality = evaluate(model, X, [0, 1, 1])
    >>> round(quality.accuracy, 3), quality.confusion.tolist()
    (0.667, [[1, 0], [1, 1]])
    """
    rows = _as_rows(model, X)
    if rows.shape[0] == 0:
        raise ShapeError(f"X: expected at least one sample, got shape {rows.shape}")
    labels, sizes = values_of(rows, y, "y"), rows.chunks[0]
    shipped = _shipped(model)
    parts = [
        delayed(_sums)(part, of_labels, shipped, number)
        for number, (part, of_labels, size) in enumerate(
            zip(delayed_blocks(rows), labels, sizes, strict=True)
        )
        if size > 0
    ]
    while len(parts) > 1:
        parts = [delayed(_total)(parts[i : i + FAN_IN]) for i in range(0, len(parts), FAN_IN)]
    (sums,) = dask.compute(parts[0])
    n, hits, near, loss, squares, bins, confusion = sums
    error = float(np.abs(bins[1] - bins[2]).sum() / n)
    return Quality(n, hits / n, near / n, loss / n, squares / n, error, confusion)


def _shipped(model: SoftmaxRegression) -> Any:
    """Return the model as it is now: what is lazy must not follow its later training."""
    return delayed(copy.deepcopy(model), pure=False)


def _as_rows(model: SoftmaxRegression, X: da.Array) -> da.Array:
    rows = rows_of(X)
    if rows.shape[1] != model.num_inputs:
        raise ShapeError(
            f"X: expected rows of {model.num_inputs} features, got shape {rows.shape}; samples are "
            "rows in Dask arrays"
        )
    return rows


def _probabilities(
    rows: NDArray[Any], model: SoftmaxRegression, block_id: tuple[int, ...]
) -> NDArray[Any]:
    with of_block(f"block {block_id[0]}"):
        P: NDArray[Any] = model.probabilities(rows.T).T
    return P


def _predict(
    rows: NDArray[Any], model: SoftmaxRegression, block_id: tuple[int, ...]
) -> NDArray[np.intp]:
    with of_block(f"block {block_id[0]}"):
        return model.predict(rows.T)


def _sums(
    rows: NDArray[Any], y: NDArray[Any], model: SoftmaxRegression, number: int
) -> tuple[Any, ...]:
    """Return what a block contributes to each metric."""
    with of_block(f"block {number}"):
        Z, n = model.logits(rows.T), len(rows)
        P, k = softmax(Z), model.num_outputs
        return (
            n,
            n * metrics.accuracy(Z, y),
            n * metrics.top_k_accuracy(Z, y, min(3, k)),
            n * metrics.negative_log_likelihood(Z, y),
            n * metrics.brier(P, y),
            np.array(metrics.confidence_bins(P, y)),
            metrics.confusion_matrix(Z.argmax(axis=0), y, k),
        )


def _total(parts: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    total = parts[0]
    for part in parts[1:]:
        total = added(total, part)
    return total
