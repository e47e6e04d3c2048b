"""Data in blocks of rows: what a driver plans, and what a worker checks where the block lies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
from dask import delayed
from numpy.typing import NDArray

from npsoftmax._checks import as_columns, as_labels
from npsoftmax.errors import InputError, ShapeError
from npsoftmax.ext._cluster_files import Layout, read_rows
from npsoftmax.objective import Samples
from npsoftmax.objective.full_batch import as_weights

__all__ = [
    "Block",
    "Files",
    "blocks_of_array",
    "blocks_of_files",
    "delayed_blocks",
    "of_block",
    "rows_of",
    "values_of",
]

Files = Sequence[tuple[str, Layout]]


class Block(NamedTuple):
    """Some rows on their way to a worker.

    Attributes
    ----------
    name : str
        What to call it in an error.
    layout : Layout
        What it is said to hold.
    rows, samples : Delayed
        Read or compute it, and check it, where they run; the second gives Samples.
    """

    name: str
    layout: Layout
    rows: Any
    samples: Any

    @property
    def nbytes(self) -> int:
        """Of the features, as if there were one at least: a sample without any is work too."""
        return self.layout.num_rows * max(1, self.layout.width) * self.layout.dtype.itemsize


def blocks_of_array(X: Any, y: Any, weights: Any) -> list[Block]:
    """Plan the blocks of a Dask array of rows: its own, without the empty ones."""
    X = rows_of(X)
    parts = delayed_blocks(X)
    labels = values_of(X, y, "y")
    of_weights = [None] * len(parts)
    if weights is not None:
        of_weights = values_of(X, weights, "sample_weight")
    blocks, start = [], 0
    for number, size in enumerate(X.chunks[0]):
        layout = Layout(size, X.shape[1], X.dtype)
        block = parts[number], labels[number], of_weights[number]
        blocks.append(_block(f"block {number}", layout, start, *block))
        start += size
    return [block for block in blocks if block.layout.num_rows > 0]


def rows_of(X: Any) -> Any:
    """Return a Dask array of rows whose blocks have all features."""
    if not isinstance(X, da.Array):
        raise InputError(
            f"X: expected a Dask array of rows, got {type(X).__name__}; cut an array by "
            "dask.array.from_array(rows, chunks=(10_000, -1)); only FullBatch takes files"
        )
    if X.ndim != 2:
        raise ShapeError(
            f"X: expected a Dask array of shape (samples, features), got {X.shape}; flatten images "
            "with X.reshape(len(X), -1)"
        )
    if np.isnan(X.shape).any():
        raise ShapeError(
            f"X: expected blocks of known sizes, got shape {X.shape}; call X.compute_chunk_sizes()"
        )
    return X.rechunk({1: -1})


def delayed_blocks(array: Any) -> Any:
    """Return what makes each block, under the names that Dask knows it by.

    Optimised, the same names would stand for other tasks, and those of several calls would clash.
    """
    return array.to_delayed(optimize_graph=False).reshape(-1)


@contextmanager
def of_block(name: str) -> Iterator[None]:
    """Name the block in an error about it."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"{name}: {error}") from error


def values_of(X: Any, values: Any, what: str) -> Any:
    """Return one value for each row, cut as the rows are."""
    is_lazy = isinstance(values, da.Array)
    values = values if is_lazy else np.asarray(values)
    if values.shape != X.shape[:1]:
        raise ShapeError(
            f"{what}: expected one for each of {X.shape[0]} rows of X, got shape {values.shape}"
        )
    if is_lazy:
        return delayed_blocks(values.rechunk((X.chunks[0],)))
    # Cut here, or the whole array would go to every worker.
    return np.split(values, np.cumsum(X.chunks[0])[:-1])


def blocks_of_files(
    files: Files, labels: Files | NDArray[Any], weights: NDArray[Any] | None, block_size: int
) -> list[Block]:
    """Plan blocks of at most so many rows of files, each read by the worker that holds it.

    The labels of all rows are an array, or come from as many files as the rows do.
    """
    _refuse_other_sizes(files, labels, weights)
    blocks: list[Block] = []
    start = 0
    for number, (path, layout) in enumerate(files):
        for first, stop in pairwise([*range(0, layout.num_rows, block_size), layout.num_rows]):
            name = f"block {len(blocks)} ({path}, rows {first} to {stop - 1})"
            _refuse_other_kind(name, layout, *files[0])
            place = slice(start + first, start + stop)
            y = labels[place] if isinstance(labels, np.ndarray) else None
            if not isinstance(labels, np.ndarray):
                y = delayed(read_rows, pure=False)(labels[number][0], first, stop)
            v = None if weights is None else weights[place]
            rows = delayed(_read_images, pure=False)(path, first, stop)
            part = layout._replace(num_rows=stop - first)
            blocks.append(_block(name, part, place.start, rows, y, v))
        start += layout.num_rows
    return blocks


def _refuse_other_sizes(
    files: Files, labels: Files | NDArray[Any], weights: NDArray[Any] | None
) -> None:
    num_rows = sum(layout.num_rows for _, layout in files)
    for what, values in (("y", labels), ("sample_weight", weights)):
        if isinstance(values, np.ndarray) and values.shape != (num_rows,):
            raise ShapeError(
                f"{what}: expected one for each of {num_rows} rows in the files of X, got shape "
                f"{values.shape}"
            )
    if isinstance(labels, np.ndarray):
        return
    if len(labels) != len(files):
        raise ShapeError(
            f"y: expected a file of labels for each of {len(files)} files of X, got {len(labels)}"
        )
    for (path, layout), (label_path, of_labels) in zip(files, labels, strict=True):
        if of_labels[:2] != (layout.num_rows, 1):
            raise ShapeError(
                f"{label_path}: expected {layout.num_rows} labels, one for each row of {path}, got "
                f"{of_labels.num_rows} rows of {of_labels.width}"
            )


def _refuse_other_kind(name: str, layout: Layout, first_path: str, first: Layout) -> None:
    if layout[1:] != first[1:]:
        raise ShapeError(
            f"{name}: expected rows of {first.width} {first.dtype}, as in {first_path}, got "
            f"{layout.width} {layout.dtype}; convert it, or leave it out"
        )


def _block(name: str, layout: Layout, start: int, rows: Any, labels: Any, weights: Any) -> Block:
    checked = delayed(_as_samples, pure=False)(name, layout, start, rows, labels, weights)
    return Block(name, layout, rows, checked)


def _read_images(path: str, first: int, stop: int) -> NDArray[Any]:
    return read_rows(path, first, stop).reshape(stop - first, -1)


def _as_samples(
    name: str, layout: Layout, start: int, rows: Any, labels: Any, weights: Any
) -> Samples:
    """Check a block in the words of :class:`npsoftmax.objective.FullBatch`."""
    with of_block(name):
        if np.ma.isMaskedArray(rows):
            raise InputError("expected plain numbers, got a masked array; fill it, or drop rows")
        X = np.asarray(rows)
        if X.shape != layout[:2] or X.dtype != layout.dtype:
            raise ShapeError(
                f"expected {layout.num_rows} rows of {layout.width} {layout.dtype}, as X says of "
                f"itself, got shape {X.shape} of {X.dtype}; convert it where it is made"
            )
        columns = np.require(as_columns(X.T), requirements=["F", "A"])
        y = as_labels(labels, None, shape=(layout.num_rows,))
        v = None if weights is None else as_weights(weights, layout.num_rows)
    return Samples(start, columns, y, v)
