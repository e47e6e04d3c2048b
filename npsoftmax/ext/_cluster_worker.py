"""The workers' half of :mod:`npsoftmax.ext.cluster`: read, check and hold samples, run functions.

Functions and answers travel as bytes. Dask unpacks arrays as views of its network buffers, often at
addresses for which NumPy uses other kernels: the last bits would change from round to round.
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
from functools import lru_cache, reduce
from typing import Any, NamedTuple

import numpy as np
from distributed import get_worker
from numpy.typing import NDArray

import npsoftmax
from npsoftmax._checks import as_columns, as_labels, as_weights
from npsoftmax._threads import blas_threads
from npsoftmax.data import idx
from npsoftmax.errors import CorruptFileError, DataUnavailableError, InputError, ShapeError
from npsoftmax.files import readable
from npsoftmax.objective import Workspace
from npsoftmax.objective.samples import Samples, draws_in

NUMPY_MAGIC = b"\x93NUMPY"
GZIP_MAGIC = b"\x1f\x8b"
# Third byte of an IDX file of single bytes, which can be mapped into memory.
IDX_BYTE_CODES = (b"\x08", b"\x09")
MAX_IDX_HEADER_BYTES = 260


class Layout(NamedTuple):
    """Number, width and dtype of rows."""

    num_rows: int
    width: int
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Size of the rows, at least one number each: samples without features are work too."""
        return self.num_rows * max(1, self.width) * self.dtype.itemsize


@contextmanager
def errors_name_worker() -> Iterator[None]:
    """Name the worker in an error about a file."""
    try:
        yield
    except (CorruptFileError, DataUnavailableError, InputError) as error:
        kinds = (CorruptFileError, DataUnavailableError, InputError)
        kind = next(kind for kind in kinds if isinstance(error, kind))
        raise kind(f"on worker {get_worker().address}: {error}") from error


@errors_name_worker()
def read_layout(path: str) -> Layout:
    """Return the layout of a file without reading its numbers."""
    with readable(path) as file:
        head = file.read(MAX_IDX_HEADER_BYTES)
    if head.startswith(NUMPY_MAGIC):
        mapped = _map_numpy(path)
        shape, dtype = mapped.shape, mapped.dtype
    else:
        head = _unzip_head(path) if head.startswith(GZIP_MAGIC) else head
        dtype, shape, *_ = idx.parse_header(head, path)
    if len(shape) == 0:
        raise CorruptFileError(f"{path}: expected rows, got a single number")
    return Layout(shape[0], math.prod(shape[1:]), dtype)


@errors_name_worker()
def read_rows(path: str, first: int, stop: int) -> NDArray[Any]:
    """Copy the rows ``first`` to ``stop - 1`` of a file into memory, in C order."""
    with readable(path) as file:
        head = file.read(len(NUMPY_MAGIC))
    if head == NUMPY_MAGIC:
        array = _map_numpy(path)
    elif head[2:3] in IDX_BYTE_CODES and not head.startswith(GZIP_MAGIC):
        array = idx.memory_map(path)
    else:
        array = idx.read(path, max_bytes=sys.maxsize)  # the worker's memory is the limit
    if len(array) < stop:
        raise CorruptFileError(
            f"{path}: expected at least {stop} rows, as at the start, got {len(array)}; leave the "
            "file as it is while it is read"
        )
    return np.array(array[first:stop], order="C")


def read_images(path: str, first: int, stop: int) -> NDArray[Any]:
    """Read rows, flattened."""
    return read_rows(path, first, stop).reshape(stop - first, -1)


def _unzip_head(path: str) -> bytes:
    try:
        with gzip.open(path) as file:
            return file.read(MAX_IDX_HEADER_BYTES)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CorruptFileError(
            f"{path}: expected gzip data, got: {error}; fetch it again"
        ) from error


def _map_numpy(path: str) -> NDArray[Any]:
    """Map a ``.npy`` file; without pickles, nothing in it can run."""
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise CorruptFileError(f"{path}: expected an array of numbers, got: {error}") from error
    return array


def read_dataset(
    name: str, folder: str | None, offline: bool | None, first: int, stop: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Load a data set by name, and return some rows of its training images and labels."""
    with errors_name_worker():
        data = _load_once(name, folder, offline)
    # Views of the mapped file: workers on one machine share its memory.
    return data.X_train.T[first:stop], np.array(data.y_train[first:stop])


@lru_cache(maxsize=1)
def _load_once(name: str, folder: str | None, offline: bool | None) -> npsoftmax.Dataset:
    return npsoftmax.load(name, folder, offline=offline)


@contextmanager
def errors_name_chunk(name: str) -> Iterator[None]:
    """Name the chunk in an error about it."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"{name}: {error}") from error


def check_chunk(
    name: str, layout: Layout, start: int, rows: Any, labels: Any, weights: Any
) -> Samples:
    """Check a chunk as :class:`npsoftmax.objective.FullBatch` checks a whole data set."""
    with errors_name_chunk(name):
        if np.ma.isMaskedArray(rows):
            raise InputError("expected plain numbers, got a masked array; fill it, or drop rows")
        if hasattr(rows, "tocsc"):
            raise InputError(
                "expected dense rows, got a sparse array; fit it on one machine with "
                "npsoftmax.objective.FullBatch, or pass X.map_blocks(lambda rows: rows.toarray())"
            )
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


class Shard:
    """Consecutive chunks of samples, none of them empty, as one object on one worker."""

    def __init__(self, chunks: Sequence[Samples]) -> None:
        self.chunks = [Samples(chunk.start, *map(_align, chunk[1:])) for chunk in chunks]

    def __reduce__(self) -> tuple[type[Shard], tuple[list[Samples]]]:
        """Align the arrays again when the shard arrives on another worker."""
        return Shard, (self.chunks,)

    def __sizeof__(self) -> int:
        """Return the size that Dask should assume."""
        return sum(part.nbytes for chunk in self.chunks for part in chunk[1:] if part is not None)


def _align(array: Any) -> Any:
    return array if array is None or array.flags.aligned else array.copy(order="K")


class _ThreadLocal(threading.local):
    """A workspace for each thread of a worker."""

    def __init__(self) -> None:
        self.workspace = Workspace()


_LOCAL = _ThreadLocal()


def run_on_shard(shard: Shard, question: bytes) -> bytes:
    """Call a function on each chunk of a shard, and combine the results.

    The question is ``(function, combine, draws)``, pickled. The function gets a workspace; with
    draws, the number of its threads and the draws of the chunk's samples.
    """
    function, combine, draws = pickle.loads(question)

    def call(chunk: Samples) -> Any:
        if draws is None:
            return function(chunk, _LOCAL.workspace)
        return function(chunk, 1, [draws_in(draw, chunk.start, chunk.stop) for draw in draws])

    with blas_threads(1), np.errstate(all="ignore"):
        return pickle.dumps(reduce(combine, map(call, shard.chunks)), pickle.HIGHEST_PROTOCOL)


def reduce_answers(answers: Sequence[bytes], combine: Callable[[Any, Any], Any]) -> bytes:
    """Combine answers in order; no more than two are unpickled at a time."""
    with np.errstate(all="ignore"):
        result = reduce(combine, map(pickle.loads, answers))
    return pickle.dumps(result, pickle.HIGHEST_PROTOCOL)


def subset_of_shard(shard: Shard, indices: NDArray[np.intp], start: int) -> Shard:
    """Copy the samples at these global indices, and number the copies from ``start``."""
    copies = []
    for chunk in shard.chunks:
        copy = chunk.take(indices, start)
        if copy.y.size:
            copies.append(copy)
        start += copy.y.size
    return Shard(copies)
