"""Splits of data into disjoint pieces, for instance for training and validation."""

# Evaluated annotations would load numpy.random.
from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npsoftmax._checks import as_array, as_count
from npsoftmax._sparse import as_compressed, is_sparse
from npsoftmax.errors import InputError, ShapeError

__all__ = ["splitobs"]

Sizes = tuple[int, ...] | tuple[float, ...]


def splitobs(
    data: ArrayLike | tuple[ArrayLike, ...],
    at: float | tuple[float, ...],
    shuffle: bool = False,
    stratified: ArrayLike | None = None,
    rng: np.random.Generator | int | None = None,
) -> tuple[Any, ...]:
    """Split ``data`` into disjoint pieces along the last axis, which counts the observations.

    A fraction ``f`` of ``n`` observations takes ``n f``, rounded half to even. The last piece
    takes the rest.

    Parameters
    ----------
    data : array_like or tuple of array_like
        For instance ``X (d, n)``, or ``(X, y)``. Sparse arrays of SciPy stay sparse.
    at : float, int, or tuple of either
        The sizes of all pieces except the last: fractions of ``n``, or counts. ``1.0`` is all
        observations, ``1`` is one.
    shuffle : bool
        Whether to permute the observations first, in the same way for all arrays.
    stratified : array_like, optional
        Labels, shape ``(n,)``. The observations of each label, in order, are split according to
        ``at`` (a count becomes a fraction of ``n``), so every piece has its share of each label.
        The labels of a piece are sorted, so shuffle again for training.
    rng : Generator or int, optional
        The generator for shuffling, or its seed. Default: a different order in every call.

    Returns
    -------
    tuple
        One piece more than ``at`` has entries, each an array or a tuple of arrays as ``data`` is:
        views without ``shuffle`` and ``stratified``, Fortran-ordered copies with either.

    References
    ----------
    MLUtils.jl, ``src/splitobs.jl``.

    Examples
    --------
    >>> X, y = np.array([[1, 2, 3, 4, 5]]), np.array([0, 1, 0, 1, 0])
    >>> train, validation = splitobs((X, y), at=0.6)
    >>> validation
    (array([[4, 5]]), array([1, 0]))
    >>> splitobs(y, at=(1, 2))
    (array([0]), array([1, 0]), array([1, 0]))
    """
    given = data if isinstance(data, tuple) else (data,)
    arrays = [
        as_compressed(array, "data") if is_sparse(array) else as_array(array, "data")
        for array in given
    ]
    n = _num_observations(arrays)
    sizes = _as_sizes(at, n)
    order = np.arange(n)
    if shuffle:
        if not (rng is None or isinstance(rng, np.random.Generator)):
            rng = as_count(rng, "rng", minimum=0)
        order = np.random.default_rng(rng).permutation(n)
    places: Sequence[slice | NDArray[np.int64]] = _runs(n, sizes)
    if stratified is not None:
        places = _stratify(order, _label_numbers(stratified, n), sizes)
    elif shuffle:
        places = [order[run] for run in places]
    pieces = [tuple(_take(array, chosen) for array in arrays) for chosen in places]
    return tuple(piece if isinstance(data, tuple) else piece[0] for piece in pieces)


def _num_observations(arrays: list[NDArray[Any]]) -> int:
    shapes = [array.shape for array in arrays]
    if not shapes or () in shapes or len({shape[-1] for shape in shapes}) > 1:
        raise ShapeError(
            f"data: expected arrays with the same number of observations, got shapes {shapes}; "
            "observations are along the last axis, so pass np.asarray(X).T if rows are samples"
        )
    if shapes[0][-1] == 0:
        raise ShapeError(f"data: expected at least one observation, got shapes {shapes}")
    return int(shapes[0][-1])


def _as_sizes(at: object, n: int) -> Sizes:
    """Return ``at`` as a tuple of counts or of fractions, checked against ``n`` observations."""
    given = at if isinstance(at, tuple) else (at,)
    sizes: Sizes
    if all(isinstance(size, int | np.integer) and not isinstance(size, bool) for size in given):
        sizes = tuple(map(int, given))
        fits = all(size >= 0 for size in sizes) and sum(sizes) <= n
    elif all(isinstance(size, float | np.floating) for size in given):
        sizes = tuple(map(float, given))
        # Fractions that add up to 1 in decimals may exceed it by their rounding.
        fits = all(0 <= size <= 1 for size in sizes) and math.fsum(sizes) <= 1 + 1e-12
    else:
        raise InputError(
            "at: expected a fraction like 0.7, a count like 7, or a tuple of one kind, got "
            f"{at!r:.80}; several arrays are a tuple, (X, y)"
        )
    if not fits:
        raise InputError(
            "at: expected fractions from 0 to 1 that add up to at most 1, or counts from 0 that "
            f"add up to at most {n}, got {at!r}; leave out the last piece, it takes the rest"
        )
    return sizes


def _label_numbers(stratified: ArrayLike, n: int) -> NDArray[np.intp]:
    """Return the position of each observation's label among the sorted labels."""
    labels = np.asarray(stratified)
    if labels.shape != (n,):
        raise ShapeError(f"stratified: expected one label each, shape ({n},), got {labels.shape}")
    try:
        return np.unique(labels, return_inverse=True)[1]
    except TypeError as error:
        raise InputError(f"stratified: expected labels of one kind, got {error}") from error


def _stratify(
    order: NDArray[np.int64], labels: NDArray[np.intp], sizes: Sizes
) -> list[NDArray[np.int64]]:
    fractions = tuple(size / order.size if isinstance(size, int) else size for size in sizes)
    labels = labels[order]
    groups = [order[labels == label] for label in range(labels.max() + 1)]
    parts = [[group[run] for run in _runs(group.size, fractions)] for group in groups]
    return [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]


def _runs(n: int, sizes: Sizes) -> list[slice]:
    """Return the slices of all pieces.

    As in MLUtils.jl, later fractions become fractions of what earlier pieces leave, so that ties
    are rounded in the same way. If earlier pieces were rounded up and leave too little, a piece
    takes all of it (MLUtils.jl raises an error).
    """
    lengths: list[int] = []
    left = list(sizes)
    while left:
        size = left.pop(0)
        if isinstance(size, float):
            size = min(round(n * size), n)
            left = [later * n / max(n - size, 1) for later in left]
        lengths.append(size)
        n -= size
    return [slice(*ends) for ends in pairwise(accumulate([*lengths, n], initial=0))]


def _take(array: Any, places: slice | NDArray[np.int64]) -> Any:
    if is_sparse(array):
        return array.T[places].T
    if isinstance(places, slice):
        return array[..., places]
    # Rows of the transposed view are contiguous if the array is Fortran-ordered, and their copies
    # always are; array[..., places] is slower and promises no order.
    columns: NDArray[Any] = np.take(array.T, places, axis=0).T
    return columns
