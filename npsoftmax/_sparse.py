"""Sparse samples: SciPy's compressed columns, and the products with them.

A column of ``X (d, n)`` holds the numbers of one sample that are not 0. The transpose of compressed
rows is such an array, and shares their memory. SciPy is imported where a sparse array arrives.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from npsoftmax.errors import InputError, ShapeError

__all__ = [
    "as_compressed",
    "columns",
    "ends_of_features",
    "is_sparse",
    "multiply",
    "multiply_back",
    "square",
    "to_dense",
]


def is_sparse(X: object) -> bool:
    """Whether this is a sparse array or matrix of SciPy, or one that it can take over."""
    return hasattr(X, "tocsc")


def as_compressed(X: Any, name: str) -> Any:
    """Return a ``scipy.sparse.csc_array`` with sorted indices, in which no place occurs twice.

    Numbers in the same place are added, as SciPy does. What has this form is not copied.
    """
    from scipy.sparse import csc_array

    if X.ndim != 2:
        raise ShapeError(
            f"{name}: expected shape (features, samples), got {X.shape}; a single sample is "
            f"{name}.reshape(-1, 1)"
        )
    try:
        if getattr(X, "format", "") in ("csc", "csr"):
            X.check_format(full_check=True)  # compiled code would run over the end of its arrays
        compressed = csc_array(X.tocsc())
        compressed.check_format()
    except ValueError as error:
        raise InputError(
            f"{name}: expected a sparse array whose indices fit its shape {X.shape}, got one that "
            f"is damaged ({error}); make it again from its rows, columns and numbers"
        ) from error
    if not compressed.has_canonical_format:
        compressed = compressed.copy()
        compressed.sum_duplicates()
    return compressed


def columns(X: Any, part: slice) -> Any:
    """Return a run of columns of dense or sparse samples; only a short one of these is a copy."""
    if not is_sparse(X):
        return X[:, part]
    start, stop, _ = part.indices(X.shape[1])
    if (start, stop) == (0, X.shape[1]):
        return X
    ends = X.indptr[start : stop + 1]
    numbers = slice(int(ends[0]), int(ends[-1]))
    parts = X.data[numbers], X.indices[numbers], ends - ends[0]
    return type(X)(parts, shape=(X.shape[0], stop - start))


def multiply(W: NDArray[Any], X: Any) -> NDArray[Any]:
    """Return ``W X``, Fortran-ordered: SciPy multiplies compressed rows by rows of numbers."""
    product: NDArray[Any] = (X.T @ W.T).T
    return product


def multiply_back(dZ: NDArray[Any], X: Any) -> NDArray[Any]:
    """Return ``dZ X'`` of dense or sparse samples."""
    if not is_sparse(X):
        product: NDArray[Any] = dZ @ X.T
    else:
        product = (X @ dZ.T).T
    return product


def square(X: Any) -> Any:
    """Return the squares of all numbers, dense or sparse."""
    return X.power(2) if is_sparse(X) else np.square(X)


def ends_of_features(X: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the smallest and the largest number of each feature of sparse samples."""
    lowest, highest = (end.toarray().ravel() for end in (X.min(axis=1), X.max(axis=1)))
    return lowest, highest


def to_dense(X: Any) -> NDArray[Any]:
    """Return a few samples as a Fortran-ordered array."""
    dense: NDArray[Any] = X.toarray(order="F") if is_sparse(X) else X
    return dense
