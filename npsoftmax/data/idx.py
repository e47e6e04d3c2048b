"""The IDX format of MNIST and its descendants, read behind a wall of checks.

===========  ==========================================================================
bytes        meaning (all numbers big-endian)
===========  ==========================================================================
0, 1         zero
2            type: 08 uint8, 09 int8, 0B int16, 0C int32, 0D float32, 0E float64
3            number of axes ``a``
4 to 3+4a    length of each axis, 4 bytes each
4+4a ...     the numbers in C order
===========  ==========================================================================

The header of a file is compared with the bytes that are really there before memory is taken
for what it claims.
"""

import errno
import math
import os
import struct
import zlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npsoftmax.errors import CorruptFileError, InputError
from npsoftmax.files import publish, read_bytes, readable

__all__ = ["Header", "memory_map", "parse", "parse_header", "read", "unpack", "write"]

MAX_BYTES = 2**30
# NumPy 1 stops at 32 axes.
_MAX_AXES = 32
_TYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype(np.uint8),
    0x09: np.dtype(np.int8),
    0x0B: np.dtype(np.int16),
    0x0C: np.dtype(np.int32),
    0x0D: np.dtype(np.float32),
    0x0E: np.dtype(np.float64),
}
_CODES = {dtype: code for code, dtype in _TYPES.items()}


class Header(NamedTuple):
    """What the first bytes of an IDX file claim.

    Attributes
    ----------
    dtype : dtype
        In native byte order.
    shape : tuple of int
    start : int
        Where the numbers begin.
    stop : int
        Where the file must end.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    stop: int


def parse_header(content: bytes, source: object) -> Header:
    """Read the header at the beginning of ``content``.

    Parameters
    ----------
    content : bytes
        At least the header; 132 bytes always suffice.
    source : object
        What to call the file in an error.

    Returns
    -------
    Header

    Raises
    ------
    CorruptFileError
        Not the header of an IDX file with 1 to 32 axes.

    Examples
    --------
    >>> parse_header(bytes([0, 0, 8, 1, 0, 0, 0, 3]), "labels")
    Header(dtype=dtype('uint8'), shape=(3,), start=8, stop=11)
    """
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _TYPES:
        raise CorruptFileError(
            f"{source}: expected an IDX file, which begins 00 00 and a type 08 to 0E, "
            f"got {content[:4].hex(' ') or 'an empty file'}"
        )
    axes = content[3]
    start = 4 + 4 * axes
    if not 1 <= axes <= _MAX_AXES or len(content) < start:
        raise CorruptFileError(
            f"{source}: expected 1 to {_MAX_AXES} axes and their lengths in the header, "
            f"got {axes} axes and {len(content)} bytes"
        )
    shape = struct.unpack(f">{axes}I", content[4:start])
    dtype = _TYPES[content[2]]
    if math.prod(max(length, 1) for length in shape) * dtype.itemsize >= 2**63:
        raise CorruptFileError(f"{source}: expected an array that NumPy can hold, got {shape}")
    return Header(dtype, shape, start, start + math.prod(shape) * dtype.itemsize)


def parse(content: bytes, source: object = "IDX data") -> NDArray[Any]:
    """Turn the bytes of an IDX file into an array.

    Parameters
    ----------
    content : bytes
        The whole file, not compressed.
    source : object
        What to call the file in an error.

    Returns
    -------
    ndarray
        In native byte order and C order. ``uint8`` and ``int8`` are a read-only view of
        ``content``, wider types a copy.

    Raises
    ------
    CorruptFileError
        Not an IDX file, or longer or shorter than its header says.

    Examples
    --------
    >>> parse(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
    array([7, 8, 9], dtype=uint8)
    """
    import idx2numpy

    header = parse_header(content, source)
    _check_length(len(content), header, source)
    if 0 in header.shape:
        return np.empty(header.shape, header.dtype)
    array: NDArray[Any] = idx2numpy.convert_from_string(content)
    return array.astype(header.dtype, copy=False)


def unpack(content: bytes, source: object, max_bytes: int = MAX_BYTES) -> bytes:
    """Decompress a gzip file that holds one IDX file, never more than its header announces.

    Parameters
    ----------
    content : bytes
        The compressed file.
    source : object
        What to call the file in an error.
    max_bytes : int
        The largest IDX file to accept.

    Returns
    -------
    bytes

    Raises
    ------
    CorruptFileError
        Damaged, cut off, followed by other bytes, larger than ``max_bytes``, or not an IDX file.

    Examples
    --------
    >>> import gzip
    >>> unpack(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 1, 5])), "labels").hex(" ")
    '00 00 08 01 00 00 00 01 05'
    """
    inflater = zlib.decompressobj(wbits=31)
    try:
        head = inflater.decompress(content, 4 + 4 * _MAX_AXES)
        header = parse_header(head, source)
        if header.stop > max_bytes:
            raise CorruptFileError(
                f"{source}: expected at most {max_bytes} bytes, got a header that claims "
                f"{header.stop} ({header.dtype} of shape {header.shape})"
            )
        # One byte more than announced shows whether the content goes on; 0 would mean no limit.
        wanted = max(header.stop + 1 - len(head), 1)
        body = inflater.decompress(inflater.unconsumed_tail, wanted)
    except zlib.error as error:
        raise CorruptFileError(
            f"{source}: expected gzip data, got {error}; fetch the file again"
        ) from error
    unpacked = head + body
    _check_length(len(unpacked), header, source)
    if not inflater.eof or inflater.unused_data:
        raise CorruptFileError(
            f"{source}: expected one gzip stream up to the end of the file, got "
            f"{'more bytes behind it' if inflater.eof else 'a file cut off before its checksum'}"
        )
    return unpacked


def read(path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> NDArray[Any]:
    """Read an IDX file, compressed with gzip or not.

    Parameters
    ----------
    path : path
        The file; gzip is recognised by its first two bytes.
    max_bytes : int
        The largest IDX file to accept.

    Returns
    -------
    ndarray
        As :func:`parse` returns it.

    Raises
    ------
    InputError
        The file does not exist or cannot be read.
    CorruptFileError
        As for :func:`parse` and :func:`unpack`.

    Examples
    --------
    >>> path = "labels-idx1-ubyte"
    >>> write(path, np.array([3, 1], dtype=np.uint8))
    >>> read(path)
    array([3, 1], dtype=uint8)
    """
    content = read_bytes(path, max_bytes)
    if content[:2] == b"\x1f\x8b":
        content = unpack(content, path, max_bytes)
    return parse(content, path)


def memory_map(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Map an uncompressed IDX file of bytes into memory without reading it.

    Parameters
    ----------
    path : path
        The file, of type ``uint8`` or ``int8``: wider types are big-endian on disk and must be
        converted by :func:`read`.

    Returns
    -------
    ndarray
        Read-only, C order.

    Raises
    ------
    InputError
        The file does not exist or cannot be read, holds a wider type, or is larger than the
        address space that the process may take.
    CorruptFileError
        Not an IDX file, or longer or shorter than its header says.

    Notes
    -----
    A file larger than memory can be trained on: what is read comes into the system's cache, page
    by page, and goes again when memory is short.

    Examples
    --------
    >>> path = "labels-idx1-ubyte"
    >>> write(path, np.array([3, 1], dtype=np.uint8))
    >>> memory_map(path).sum()
    np.uint64(4)
    """
    with readable(path) as file:
        header = parse_header(file.read(4 + 4 * _MAX_AXES), path)
        _check_length(os.fstat(file.fileno()).st_size, header, path)
        if header.dtype.itemsize > 1:
            raise InputError(f"{path}: expected bytes, got {header.dtype}; use read")
        try:
            return np.asarray(np.memmap(file, header.dtype, "r", header.start, header.shape))
        except OSError as error:
            if error.errno != errno.ENOMEM:
                raise
            raise InputError(
                f"cannot map {path}: expected room for its {os.fstat(file.fileno()).st_size:,} "
                "bytes in the address space, which is limited; raise the limit (ulimit -v): a map "
                "takes addresses, not memory"
            ) from error


def write(path: str | os.PathLike[str], array: NDArray[Any]) -> None:
    """Write an array as an uncompressed IDX file, atomically.

    Parameters
    ----------
    path : path
        The file; it is replaced if it exists.
    array : ndarray
        One of the six types of the format, 1 to 32 axes.

    Raises
    ------
    InputError
        An array that the format cannot hold; a file that stood at ``path`` stays as it was.
    OutputError
        The file cannot be written.

    Examples
    --------
    >>> path = "images"
    >>> write(path, np.zeros((2, 2), dtype=np.float32))
    >>> read(path).shape
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
    """Return what stands before the numbers of an array in its file."""
    code = _CODES[array.dtype.newbyteorder("=")]
    return bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)


def _check_length(size: int, header: Header, source: object) -> None:
    if size != header.stop:
        raise CorruptFileError(
            f"{source}: expected {header.stop} bytes ({header.dtype} of shape {header.shape}), "
            f"got {'more' if size > header.stop else size}; the file is damaged or not IDX"
        )
