"""Named arrays as the bytes of a sealed ``.npz`` archive, and back, whoever wrote the bytes.

The seal, 64 hexadecimal digits of SHA-256 at the end, tells damage. It does not tell malice: who
can write a file can seal it. So what is inside is held to what :func:`sealed` writes, before
memory is taken for what it claims: members that are stored, each name once, plain numbers, sizes
that add up.
"""

import hashlib
import io
import math
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from npsoftmax.errors import CorruptFileError

__all__ = ["has_right_seal", "is_name", "is_plain", "sealed", "unsealed"]

_COMMENT = b"npsoftmax sha256 "
_DIGEST_SIZE = 64

Arrays = dict[str, NDArray[Any]]


def is_name(name: str) -> bool:
    """Say whether an array may be stored under this name: letters, digits, dots, underscores."""
    return re.fullmatch(r"\w[\w.]*", name) is not None and name not in ("file", "allow_pickle")


def is_plain(dtype: np.dtype[Any]) -> bool:
    """Say whether a dtype is booleans, integers or floats, which no pickle is needed for."""
    return dtype.kind in "biuf"


def sealed(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the archive of these arrays with its seal."""
    buffer = io.BytesIO()
    # NumPy 2.0 and 2.1 would take allow_pickle for an array; numeric arrays are never pickled.
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = _COMMENT + b"0" * _DIGEST_SIZE
    body = buffer.getvalue()[:-_DIGEST_SIZE]
    return body + _digest(body)


def has_right_seal(content: bytes) -> bool:
    """Say whether the seal is right."""
    body = content[:-_DIGEST_SIZE]
    return body.endswith(_COMMENT) and _digest(body) == content[-_DIGEST_SIZE:]


def unsealed(content: bytes, source: object) -> Arrays:
    """Return the arrays of an archive, or raise CorruptFileError."""
    if not content[:-_DIGEST_SIZE].endswith(_COMMENT):
        raise CorruptFileError(
            f"{source}: expected a file written by npsoftmax, got {content[:8]!r}... of "
            f"{len(content)} bytes; it is cut off, or another program wrote it"
        )
    if not has_right_seal(content):
        raise CorruptFileError(
            f"{source}: expected SHA-256 {content[-_DIGEST_SIZE:].decode(errors='replace')}, got "
            f"{_digest(content[:-_DIGEST_SIZE]).decode()}; the file is damaged, copy or train it "
            "again"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return _arrays(archive, len(content))
    except Exception as error:  # a dozen kinds come out of the zip and npy readers
        raise CorruptFileError(f"{source}: expected numeric arrays, got {error}") from error


def _arrays(archive: zipfile.ZipFile, size: int) -> Arrays:
    members = archive.infolist()
    claimed = sum(member.file_size for member in members)
    if claimed > size:  # compressed, or several members in the same place
        raise ValueError(f"members that claim {claimed} bytes in a file of {size}")
    arrays: Arrays = {}
    for member in members:
        name = member.filename.removesuffix(".npy")
        if not is_name(name) or name in arrays or not member.filename.endswith(".npy"):
            raise ValueError(f"a member {member.filename[:80]!r}, or two of that name")
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"a compressed member {name}")
        arrays[name] = _array(archive.read(member), name)
    return arrays


def _array(content: bytes, name: str) -> NDArray[Any]:
    stream = io.BytesIO(content)
    if npy.read_magic(stream) != (1, 0):
        raise ValueError(f"{name} in another version of the npy format than 1.0")
    shape, fortran, dtype = npy.read_array_header_1_0(stream)
    if not is_plain(dtype):
        raise ValueError(f"{name} of dtype {dtype}; no pickle is ever read")
    start = stream.tell()
    there = len(content) - start
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != there:
        raise ValueError(f"{name} of {dtype}{shape} in {there} bytes")
    flat = np.frombuffer(content, dtype, offset=start)
    array: NDArray[Any] = flat.reshape(shape, order="F" if fortran else "C").copy(order="K")
    return array


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()
