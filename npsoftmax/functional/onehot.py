"""Labels to one-hot columns and back, as OneHotArrays.jl has them."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npsoftmax.errors import InputError, LabelError, ShapeError

__all__ = ["onecold", "onehotbatch"]


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
