"""The IDX file format of MNIST and its successors, with full checks.

===========  ==========================================================================
bytes        meaning (all numbers big-endian)
===========  ==========================================================================
0, 1         zero
2            type: 08 uint8, 09 int8, 0B int16, 0C int32, 0D float32, 0E float64
3            number of axes ``a``
4 to 3+4a    length of each axis, 4 bytes each
4+4a ...     the numbers in C order
===========  ==========================================================================

Memory is allocated for bytes that exist, never for sizes that a header claims: the file itself,
and at most twice its content. A damaged file raises DataCorrupt with the byte offset. A parameter
``source`` is the name of the file in error messages.
"""

import errno
import io
import math
import os
import struct
import zlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npsoftmax.errors import DataCorrupt, InputError
from npsoftmax.files import publish, readable

__all__ = ["header_bytes", "memory_map", "parse", "parse_header", "read", "unpack", "write"]

MAX_BYTES = 2**30

_MAX_AXES = 64  # the limit of NumPy; the format allows 255
_MAX_HEADER_BYTES = 4 + 4 * _MAX_AXES
_TYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype(np.uint8),
    0x09: np.dtype(np.int8),
    0x0B: np.dtype(np.int16),
    0x0C: np.dtype(np.int32),
    0x0D: np.dtype(np.float32),
    0x0E: np.dtype(np.float64),
}
_CODES = {dtype: code for code, dtype in _TYPES.items()}


def read(path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> NDArray[Any]:
    """Read an IDX file, compressed with gzip or not, to an array as :func:`parse` returns it.

    The first two bytes tell whether the file is compressed. Neither it nor its content may be
    larger than ``max_bytes``.

    Examples
    --------
    >>> write("labels-idx1-ubyte", np.array([3, 1], dtype=np.uint8))
    >>> read("labels-idx1-ubyte")
    array([3, 1], dtype=uint8)
    """
    with readable(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise _corrupt(path, max_bytes, f"at most max_bytes={max_bytes}", f"{size} bytes")
        content = file.read(size)
    if content[:2] == b"\x1f\x8b":
        content = unpack(content, path, max_bytes)
    return parse(content, path)


def memory_map(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Map an uncompressed IDX file of bytes into memory without reading it.

    The array is read-only, in C order, and may be larger than memory: pages are loaded as they are
    used. Types wider than ``uint8`` and ``int8`` are stored big-endian; :func:`read` converts them.

    Examples
    --------
    >>> write("labels-idx1-ubyte", np.array([3, 1], dtype=np.uint8))
    >>> memory_map("labels-idx1-ubyte").sum()
    np.uint64(4)
    """
    with readable(path) as file:
        header = parse_header(file.read(_MAX_HEADER_BYTES), path)
        _check_length(os.fstat(file.fileno()).st_size, header, path)
        if header.dtype.itemsize > 1:
            raise InputError(f"{path}: expected bytes, got {header.dtype}; use read")
        try:
            return np.asarray(np.memmap(file, header.dtype, "r", header.start, header.shape))
        except OSError as error:
            if error.errno != errno.ENOMEM:
                raise
            raise InputError(
                f"cannot map {path}: expected room for its {header.stop:,} bytes of addresses "
                "(not memory), which are limited; raise the limit (ulimit -v)"
            ) from error


def parse(content: bytes, source: object = "IDX data") -> NDArray[Any]:
    """Convert the content of an uncompressed IDX file to an array.

    It is in native byte order and C order. ``uint8`` and ``int8`` arrays are read-only views of
    ``content``; wider types are copied.

    Examples
    --------
    >>> parse(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
    array([7, 8, 9], dtype=uint8)
    """
    import idx2numpy

    header = parse_header(content, source)
    _check_length(len(content), header, source)
    array: NDArray[Any] = idx2numpy.convert_from_file(_Views(content))
    return array.astype(header.dtype, copy=False)


class _Views:
    """A file whose ``read`` returns views instead of copies."""

    def __init__(self, content: bytes) -> None:
        self.rest = memoryview(content)

    def read(self, size: int) -> memoryview:
        """Return a view of the next bytes."""
        part, self.rest = self.rest[:size], self.rest[size:]
        return part


class Header(NamedTuple):
    """The header of an IDX file: a native ``dtype``, and numbers from ``start`` to ``stop``."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    stop: int


_FIRST_BYTES = (
    ("00", b"\0"),
    ("00", b"\0"),
    ("the type 08, 09 or 0b to 0e", bytes(_TYPES)),
    (f"01 to {_MAX_AXES:02x} (hexadecimal) axes", bytes(range(1, _MAX_AXES + 1))),
)


def parse_header(content: bytes, source: object) -> Header:
    """Read the header at the start of ``content``, for which 260 bytes are always enough.

    Examples
    --------
    >>> parse_header(bytes([0, 0, 8, 1, 0, 0, 0, 3]), "labels")
    Header(dtype=dtype('uint8'), shape=(3,), start=8, stop=11)
    """
    for offset, (expected, allowed) in enumerate(_FIRST_BYTES):
        if offset >= len(content) or content[offset] not in allowed:
            raise _corrupt(source, offset, expected, content[offset:4].hex(" ") or "the end")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise _corrupt(source, len(content), f"the lengths of {content[3]} axes", "the end")
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    dtype = _TYPES[content[2]]
    # NumPy has this limit for arrays without elements too.
    if math.prod(max(length, 1) for length in shape) * dtype.itemsize >= 2**63:
        claim = f"{dtype} of shape {shape!s:.200}"
        raise _corrupt(source, 4, "an array that NumPy can hold", claim)
    return Header(dtype, shape, start, start + math.prod(shape) * dtype.itemsize)


def _check_length(size: int, header: Header, source: object) -> None:
    if size != header.stop:
        expected = f"{header.stop} bytes ({header.dtype} of shape {header.shape!s:.200})"
        found = "more" if size > header.stop else str(size)
        raise _corrupt(source, min(size, header.stop), expected, found)


def _corrupt(source: object, offset: int, expected: str, found: str) -> DataCorrupt:
    reason = f"expected {expected}, got {found}; the file is damaged or not IDX, fetch it again"
    return DataCorrupt(source, offset, reason)


def unpack(content: bytes, source: object, max_bytes: int = MAX_BYTES) -> bytes:
    """Decompress a gzip file that contains one IDX file, up to the length in its header.

    ``content`` must be one gzip member and nothing else, and the IDX file at most ``max_bytes``.

    Examples
    --------
    >>> import gzip
    >>> unpack(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 1, 5])), "labels").hex(" ")
    '00 00 08 01 00 00 00 01 05'
    """
    inflater, file = zlib.decompressobj(wbits=31), io.BytesIO(content)
    head = _inflate(inflater, file, _MAX_HEADER_BYTES, source)
    header = parse_header(head, source)
    if header.stop > max_bytes:
        raise _corrupt(source, 4, f"at most max_bytes={max_bytes}", f"a claim of {header.stop}")
    # One byte more than announced shows whether there is more.
    unpacked = head + _inflate(inflater, file, header.stop + 1 - len(head), source)
    _check_length(len(unpacked), header, source)
    end = file.tell() - len(inflater.unused_data)
    if end < len(content):
        raise _corrupt(source, end, "the end of the compressed file", "more bytes after it")
    return unpacked


_CHUNK_BYTES = 2**16  # compressed; they unpack to at most 64 MiB


def _inflate(inflater: "zlib._Decompress", file: io.BytesIO, size: int, source: object) -> bytes:
    """Return the next ``size`` bytes, or all bytes that are left before a correct checksum."""
    pieces, step = [], _CHUNK_BYTES
    while size > 0 and not inflater.eof:
        start, before, chunk = file.tell(), inflater.copy(), file.read(step)
        if not chunk:
            raise _corrupt(source, start, "more of the compressed file", "its end")
        try:
            pieces.append(inflater.decompress(chunk, size))
        except zlib.error as error:
            if step == 1:
                raise _corrupt(source, start, "whole gzip data", str(error)) from error
            # Repeat in smaller steps to find the offset of the damage.
            inflater, step = before, step // 16
            file.seek(start)
            continue
        file.seek(-len(inflater.unconsumed_tail), io.SEEK_CUR)
        size -= len(pieces[-1])
    return b"".join(pieces)


def write(path: str | os.PathLike[str], array: NDArray[Any]) -> None:
    """Write an array as an uncompressed IDX file, atomically; an existing file is replaced.

    The array has one of the six types of the format, and 1 to 64 axes.

    Examples
    --------
    >>> write("images", np.zeros((2, 2), dtype=np.float32))
    >>> read("images").shape
    (2, 2)
    """
    native = array.dtype.newbyteorder("=")
    fits = 1 <= array.ndim <= _MAX_AXES and max(array.shape, default=0) < 2**32
    if native not in _CODES or not fits:
        raise InputError(
            f"IDX: expected uint8, int8, int16, int32, float32 or float64 with 1 to {_MAX_AXES} "
            f"axes, got {array.dtype} of shape {array.shape}; convert it with astype"
        )
    with publish(path) as file:
        file.write(header_bytes(array))
        file.write(np.ascontiguousarray(array.astype(native.newbyteorder(">"), copy=False)).data)


def header_bytes(array: NDArray[Any]) -> bytes:
    """Return the header of the file that :func:`write` makes of an array."""
    code = _CODES[array.dtype.newbyteorder("=")]
    return bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
