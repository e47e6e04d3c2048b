"""Rows of files, read where a worker is: IDX, also in gzip, and ``.npy``."""

from __future__ import annotations

import gzip
import math
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from distributed import get_worker
from numpy.typing import NDArray

from npsoftmax.data import idx
from npsoftmax.errors import CorruptFileError, DataUnavailableError, InputError
from npsoftmax.files import readable

__all__ = ["Layout", "layout_of", "on_this_worker", "read_rows"]

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
