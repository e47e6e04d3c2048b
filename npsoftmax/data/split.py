"""Cut data into pieces, for instance for training and validation, as MLUtils.jl does."""

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npsoftmax._checks import as_count
from npsoftmax.errors import InputError, ShapeError

__all__ = ["splitobs"]

Cuts = tuple[int, ...] | tuple[float, ...]
Places = slice | NDArray[np.int64]


def splitobs(
    data: ArrayLike | tuple[ArrayLike, ...],
    at: float | tuple[float, ...],
    shuffle: bool = False,
    stratified: ArrayLike | None = None,
    rng: np.random.Generator | int | None = None,
) -> tuple[Any, ...]:
    """Cut ``data`` into disjoint pieces along the last axis, which counts the observations.

    Of ``n`` observations a fraction ``f`` takes ``n f``, rounded, a half to the even neighbour;
    the last piece takes the rest.

    Parameters
    ----------
    data : array_like or tuple of array_like
        Observations along the last axis: ``X (d, n)``, ``(X, y)``.
    at : float, int, or tuple of either
        The size of every piece but the last: fractions of ``n``, or counts. ``1.0`` is all
        observations, ``1`` is one.
    shuffle : bool
        Whether to permute the observations first, the same way in all arrays.
    stratified : array_like, optional
        Labels, shape ``(n,)``. The observations of each label, in order, are cut as ``at`` says
        (a count becomes a fraction of ``n``), so every piece has each label's share. A piece
        holds its labels one after the other, so shuffle them again to train.
    rng : Generator or int, optional
        What to shuffle with, or its seed; without it every call shuffles differently.

    Returns
    -------
    tuple
        One piece more than ``at`` has entries; each is an array, or a tuple of arrays, as
        ``data`` is. Runs of neighbours are views; shuffled or stratified pieces are copies,
        Fortran-ordered.

    Raises
    ------
    ShapeError
        Numbers of observations that differ or are zero; not one label per observation.
    InputError
        ``at`` is neither fractions in [0, 1] nor counts, or adds up to more than there is.

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
    arrays = [np.asarray(array) for array in (data if isinstance(data, tuple) else (data,))]
    n = _num_observations(arrays)
    cuts = _as_cuts(at, n)
    order = _permutation(n, rng) if shuffle else None
    places: Sequence[Places]
    if stratified is not None:
        places = _places_by_label(_as_groups(stratified, n), order, cuts)
    else:
        runs = _runs(n, cuts)
        places = runs if order is None else [order[run] for run in runs]
    pieces = [tuple(_observations(array, chosen) for array in arrays) for chosen in places]
    return tuple(piece if isinstance(data, tuple) else piece[0] for piece in pieces)


def _observations(array: NDArray[Any], places: Places) -> NDArray[Any]:
    if isinstance(places, slice):
        return array[..., places]
    # Rows of the transposed view are runs of memory where the array is Fortran-ordered, and their
    # copies always are; array[..., places] takes longer and promises no order.
    columns: NDArray[Any] = np.take(array.T, places, axis=0).T
    return columns


def _num_observations(arrays: list[NDArray[Any]]) -> int:
    shapes = [array.shape for array in arrays]
    if not shapes or () in shapes or len({shape[-1] for shape in shapes}) > 1:
        raise ShapeError(
            f"data: expected arrays with one number of observations, got shapes {shapes}; "
            "observations lie along the last axis, rows of samples are X.T"
        )
    if shapes[0][-1] == 0:
        raise ShapeError(
            f"data: expected at least one observation, got shapes {shapes}; "
            "check the file or the slice that they come from"
        )
    return int(shapes[0][-1])


def _as_cuts(at: object, n: int) -> Cuts:
    """Return ``at`` as a tuple of counts, or one of fractions, that ``n`` observations allow."""
    given = at if isinstance(at, tuple) else (at,)
    cuts: Cuts
    if all(isinstance(cut, int | np.integer) and not isinstance(cut, bool) for cut in given):
        cuts = tuple(map(int, given))
        fits = all(cut >= 0 for cut in cuts) and sum(cuts) <= n
    elif all(isinstance(cut, float | np.floating) for cut in given):
        cuts = tuple(map(float, given))
        # Fractions that add up to 1 in decimals may exceed it by their rounding.
        fits = all(0 <= cut <= 1 for cut in cuts) and math.fsum(cuts) <= 1 + 1e-12
    else:
        raise InputError(
            f"at: expected a fraction like 0.7, a count like 7, or a tuple of one kind, got {at!r}"
        )
    if not fits:
        raise InputError(
            "at: expected fractions from 0 to 1 that add up to at most 1, or counts from 0 that "
            f"add up to at most {n}, got {at!r}; leave out the last piece, it takes the rest"
        )
    return cuts


def _runs(n: int, cuts: Cuts) -> list[slice]:
    ends = accumulate(_lengths(n, cuts), initial=0)
    return [slice(start, stop) for start, stop in pairwise(ends)]


def _lengths(n: int, cuts: Cuts) -> list[int]:
    """Return the lengths of all pieces.

    As in MLUtils.jl, later fractions become fractions of what earlier pieces leave, so that ties
    round the same way. Where those were rounded up and leave too little, a piece takes all of it
    (MLUtils.jl raises an error).
    """
    if all(isinstance(cut, int) for cut in cuts):
        return [*map(int, cuts), n - int(sum(cuts))]
    lengths, fractions = [], list(cuts)
    while fractions:
        length = min(round(n * fractions.pop(0)), n)
        rest = n - length
        fractions = [fraction * n / max(rest, 1) for fraction in fractions]
        lengths.append(length)
        n = rest
    return [*lengths, n]


def _permutation(n: int, rng: np.random.Generator | int | None) -> NDArray[np.int64]:
    if not (rng is None or isinstance(rng, np.random.Generator)):
        rng = as_count(rng, "rng", minimum=0)
    return np.random.default_rng(rng).permutation(n)


def _as_groups(stratified: ArrayLike, n: int) -> NDArray[np.intp]:
    """Return the number of each observation's label among the sorted labels."""
    labels = np.asarray(stratified)
    if labels.shape != (n,):
        raise ShapeError(
            f"stratified: expected one label per observation, shape ({n},), got {labels.shape}"
        )
    try:
        groups: NDArray[np.intp] = np.unique(labels, return_inverse=True)[1]
    except TypeError as error:
        raise InputError(f"stratified: expected labels of one kind, got {error}") from error
    return groups


def _places_by_label(
    groups: NDArray[np.intp], order: NDArray[np.int64] | None, cuts: Cuts
) -> list[NDArray[np.int64]]:
    n = groups.size
    order = np.arange(n) if order is None else order
    # A group has fewer than n observations: a count of n becomes a fraction of the group.
    fractions = tuple(cut / n if isinstance(cut, int) else cut for cut in cuts)
    parts = []
    for group in range(groups.max() + 1):
        members = order[groups[order] == group]
        parts.append([members[run] for run in _runs(members.size, fractions)])
    return [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]
