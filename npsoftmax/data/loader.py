"""Shuffled minibatches of columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npsoftmax._checks import as_columns, as_count, as_labels, same_samples
from npsoftmax._sparse import is_sparse

__all__ = ["DataLoader"]

# Bytes of samples gathered at once. Small batches share a chunk: one long copy costs less than
# many short ones, and the chunk still fits into a cache.
CHUNK_BYTES = 1024 * 1024


class DataLoader:
    """Iterate over ``(X, y)`` in batches of columns.

    Each epoch visits every sample once. With ``shuffle`` the order is a permutation that depends
    on ``(seed, epoch)`` alone: epoch 7 can be replayed without the previous six, and a run can
    resume in the middle of an epoch.

    Parameters
    ----------
    X : array_like
        Samples, shape ``(d, n)``. The dtype is kept, so ``uint8`` images stay ``uint8``.
        Fortran order, which the images of an IDX file have, is used as it is: each sample is then
        contiguous in memory. Other orders are copied into it once. Sparse arrays of SciPy give
        sparse batches, in the format CSC.
    y : array_like
        Integer labels, shape ``(n,)``; copied.
    batch_size : int
        Columns per batch.
    shuffle, seed : bool, int
        Whether to permute the samples in each epoch, and the seed of the permutations. Shuffle
        for training, above all if the samples are sorted by class.
    drop_last : bool
        Whether to leave out a last batch of fewer than ``batch_size`` samples.

    Notes
    -----
    The arrays of a batch are copies: they can be kept, and changed in place. Small batches that
    follow each other are parts of one copy of about 1 MB, which stays in memory as long as one of
    them is kept.

    Each iteration over the loader is one epoch: epoch 0 the first time, then epoch 1, and so on.
    ``batches(epoch)`` iterates over a given epoch.

    Examples
    --------
    >>> X = np.array([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]])
    >>> loader = DataLoader(X, [0, 1, 0, 1, 0], batch_size=2)
    >>> loader
    DataLoader(5 samples of 2 int64, 3 batches of 2)
    >>> for X_batch, y_batch in loader:
    ...     print(X_batch.tolist(), y_batch.tolist())
    [[1, 2], [6, 7]] [0, 1]
    [[3, 4], [8, 9]] [0, 1]
    [[5], [10]] [0]
    >>> DataLoader(X, [0, 1, 0, 1, 0], batch_size=2, drop_last=True)
    DataLoader(5 samples of 2 int64, 2 batches of 2, shorter ones dropped)
    """

    def __init__(
        self,
        X: ArrayLike,
        y: ArrayLike,
        batch_size: int = 256,
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int = 0,
    ) -> None:
        self.X = as_columns(X, sparse=True)
        if not is_sparse(self.X):
            # np.take copies the whole of an array that is not aligned, each time.
            self.X = np.require(self.X, requirements=["F", "A"])
        self.y = as_labels(y, None).copy()
        self.y.flags.writeable = False  # trainers check the labels once
        same_samples(self.X, self.y)
        self.batch_size = as_count(batch_size, "batch_size")
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.seed = as_count(seed, "seed", minimum=0)
        self.epoch = 0

    def __repr__(self) -> str:
        d, n = self.X.shape
        dropped = ", shorter ones dropped" if self.drop_last else ""
        order = f", shuffled, seed {self.seed}" if self.shuffle else ""
        return (
            f"{type(self).__name__}({n} samples of {d} {self.X.dtype}, "
            f"{len(self)} batches of {self.batch_size}{dropped}{order})"
        )

    @property
    def num_samples(self) -> int:
        """Number of samples in the data."""
        return int(self.X.shape[1])

    def __len__(self) -> int:
        """Batches per epoch."""
        full, rest = divmod(self.num_samples, self.batch_size)
        return full + (1 if rest and not self.drop_last else 0)

    def __iter__(self) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Iterate over the next epoch."""
        self.epoch += 1
        return self.batches(self.epoch - 1)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Iterate over one epoch, starting with its batch ``start``; both count from 0.

        Each batch is ``X``, shape ``(d, b)`` and Fortran-ordered, and ``y``, shape ``(b,)``.

        Examples
        --------
        >>> loader = DataLoader(np.eye(3), [0, 1, 2], batch_size=2)
        >>> [y.tolist() for _, y in loader.batches(epoch=0, start=1)]
        [[2]]
        """
        start = as_count(start, "start", minimum=0)
        order = self.permutation(as_count(epoch, "epoch", minimum=0))
        stop = min(len(self) * self.batch_size, self.num_samples)
        # Of sparse samples, `size` counts the numbers that are stored.
        sample_bytes = max(1, self.X.size * self.X.dtype.itemsize // self.num_samples)
        size = max(1, CHUNK_BYTES // (sample_bytes * self.batch_size)) * self.batch_size
        for first in range(start * self.batch_size, stop, size):
            chunk = order[first : min(first + size, stop)]
            X, y = self._take(chunk), self.y[chunk]
            for column in range(0, y.size, self.batch_size):
                batch = slice(column, column + self.batch_size)
                yield X[:, batch], y[batch]

    def _take(self, chunk: NDArray[np.int64]) -> Any:
        if is_sparse(self.X):
            return self.X.T[chunk].T
        # Samples are contiguous rows of the transposed view; to take columns of X itself, NumPy
        # would copy the whole array first. mode="clip" saves a check of the indices, which are in
        # range already.
        return np.take(self.X.T, chunk, axis=0, mode="clip").T

    def permutation(self, epoch: int) -> NDArray[np.int64]:
        """Return the order of the samples in an epoch, ``0, 1, 2, ...`` without ``shuffle``.

        Examples
        --------
        >>> DataLoader(np.eye(3), [0, 1, 2]).permutation(0)
        array([0, 1, 2])
        """
        if not self.shuffle:
            return np.arange(self.num_samples)
        return np.random.default_rng([self.seed, epoch]).permutation(self.num_samples)
