"""What the workers of a cluster do: hold shards, and add up what these contribute.

Functions and answers travel as bytes. Dask hands out arrays as views of what it received, often at
odd addresses, for which NumPy takes other ways: the last bits would differ from round to round.
"""

from __future__ import annotations

import gzip
import math
import pickle
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from itertools import pairwise
from time import perf_counter
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
from dask import delayed
from distributed import get_worker
from numpy.typing import NDArray

from npsoftmax._checks import as_columns, as_labels, as_weights
from npsoftmax.data import idx
from npsoftmax.errors import CorruptFileError, DataUnavailableError, InputError, ShapeError
from npsoftmax.files import readable
from npsoftmax.objective import Workspace
from npsoftmax.objective.samples import Samples, draws_in, one_blas_thread

__all__ = [
    "Answer",
    "Block",
    "Files",
    "Layout",
    "Shard",
    "Turn",
    "added_up",
    "asked",
    "blocks_of_array",
    "blocks_of_files",
    "delayed_blocks",
    "layout_of",
    "of_block",
    "on_this_worker",
    "packed",
    "picked",
    "read_rows",
    "rows_of",
    "values_of",
]


# Rows of files, read where a worker is: IDX, also in gzip, and ``.npy``.

NUMPY_MAGIC = b"\x93NUMPY"
GZIP_MAGIC = b"\x1f\x8b"
# Third byte of an IDX file whose numbers are single bytes: these can be mapped.
BYTES = (b"\x08", b"\x09")
LONGEST_IDX_HEADER = 260


class Layout(NamedTuple):
    """What rows are: how many, of which width and dtype."""

    num_rows: int
    width: int
    dtype: np.dtype[Any]


@contextmanager
def on_this_worker() -> Iterator[None]:
    """Say in an error about a file on which machine it is missing or damaged."""
    try:
        yield
    except (CorruptFileError, DataUnavailableError, InputError) as error:
        kinds = (CorruptFileError, DataUnavailableError, InputError)
        kind = next(kind for kind in kinds if isinstance(error, kind))
        raise kind(f"on worker {get_worker().address}: {error}") from error


@on_this_worker()
def layout_of(path: str) -> Layout:
    """Say what a file holds along its first axis, without reading its numbers."""
    with readable(path) as file:
        head = file.read(LONGEST_IDX_HEADER)
    if head.startswith(NUMPY_MAGIC):
        mapped = _mapped(path)
        shape, dtype = mapped.shape, mapped.dtype
    else:
        head = _unpacked_head(path) if head.startswith(GZIP_MAGIC) else head
        dtype, shape, *_ = idx.parse_header(head, path)
    if len(shape) == 0:
        raise CorruptFileError(f"{path}: expected rows, got a single number")
    return Layout(shape[0], math.prod(shape[1:]), dtype)


@on_this_worker()
def read_rows(path: str, first: int, stop: int) -> NDArray[Any]:
    """Read some entries along the first axis into memory of their own, in C order."""
    with readable(path) as file:
        head = file.read(len(NUMPY_MAGIC))
    if head == NUMPY_MAGIC:
        array = _mapped(path)
    elif head[2:3] in BYTES and not head.startswith(GZIP_MAGIC):
        array = idx.memory_map(path)
    else:
        array = idx.read(path, max_bytes=sys.maxsize)  # the worker's memory is the limit
    if len(array) < stop:
        raise CorruptFileError(
            f"{path}: expected at least {stop} rows, as at the start, got {len(array)}; leave the "
            "file as it is while it is read"
        )
    return np.array(array[first:stop], order="C")


def _unpacked_head(path: str) -> bytes:
    try:
        with gzip.open(path) as file:
            return file.read(LONGEST_IDX_HEADER)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CorruptFileError(
            f"{path}: expected gzip data, got: {error}; fetch it again"
        ) from error


def _mapped(path: str) -> NDArray[Any]:
    """Map a ``.npy`` file; nothing in it can run."""
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise CorruptFileError(f"{path}: expected an array of numbers, got: {error}") from error
    return array


# Data in blocks of rows: what a driver plans, and what a worker checks where the block lies.

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


def values_of(X: Any, values: Any, name: str) -> Any:
    """Return one value for each row, cut as the rows are."""
    is_lazy = isinstance(values, da.Array)
    values = values if is_lazy else np.asarray(values)
    if values.shape != X.shape[:1]:
        raise ShapeError(
            f"{name}: expected one for each of {X.shape[0]} rows of X, got shape {values.shape}"
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


Combine = Callable[[Any, Any], Any]


class Shard:
    """Blocks that lie together: one object on one worker.

    Parameters
    ----------
    blocks : sequence of Samples
        In their order, none of them empty.
    """

    def __init__(self, blocks: Sequence[Samples]) -> None:
        self.blocks = [Samples(block.start, *map(_aligned, block[1:])) for block in blocks]

    def __reduce__(self) -> tuple[type[Shard], tuple[list[Samples]]]:
        """Travel from worker to worker, and arrive at addresses that can be computed with."""
        return Shard, (self.blocks,)

    def __sizeof__(self) -> int:
        """Tell Dask how much memory it takes."""
        return sum(part.nbytes for block in self.blocks for part in block[1:] if part is not None)


def _aligned(array: Any) -> Any:
    return array if array is None or array.flags.aligned else array.copy(order="K")


class Turn(NamedTuple):
    """How long a worker took for a shard."""

    worker: str
    seconds: float
    num_samples: int


class Answer(NamedTuple):
    """What comes back from a shard, or from several that were added up."""

    result: Any
    turns: list[Turn]


def packed(value: Any) -> bytes:
    """Return something as bytes."""
    return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)


def asked(shard: Shard, question: bytes) -> bytes:
    """Return the answer of a shard to a question: a function of a block, and how to combine.

    The function gets a workspace or, for draws, one thread and those of the block's samples.
    """
    started = perf_counter()
    function, combine, draws = pickle.loads(question)

    def of(block: Samples) -> Any:
        if draws is None:
            return function(block, _OF_THREAD.workspace)
        return function(block, 1, [draws_in(draw, block.start, block.stop) for draw in draws])

    with one_blas_thread(), np.errstate(all="ignore"):
        result = reduce(combine, map(of, shard.blocks))
    num_samples = shard.blocks[-1].stop - shard.blocks[0].start
    turn = Turn(get_worker().address, perf_counter() - started, num_samples)
    return packed(Answer(result, [turn]))


def added_up(answers: Sequence[bytes], combine: Combine) -> bytes:
    """Combine answers in their order, of which no more than two are unpacked at a time."""
    turns: list[Turn] = []

    def results() -> Iterator[Any]:
        for answer in answers:
            unpacked = pickle.loads(answer)
            turns.extend(unpacked.turns)
            yield unpacked.result

    with np.errstate(all="ignore"):
        result = reduce(combine, results())
    return packed(Answer(result, turns))


def picked(shard: Shard, kept: NDArray[np.intp], start: int) -> Shard:
    """Return copies of samples of a shard, at these places among all, numbered from ``start``."""
    some = []
    for block in shard.blocks:
        chosen = block.take(kept, start)
        if chosen.y.size:
            some.append(chosen)
        start += chosen.y.size
    return Shard(some)


class _OfThread(threading.local):
    """The arrays in which a thread of a worker computes."""

    def __init__(self) -> None:
        self.workspace = Workspace()


_OF_THREAD = _OfThread()
