"""Named arrays as the bytes of a sealed ``.npz`` archive, and back, whoever wrote the bytes.

The seal, 64 hexadecimal digits of SHA-256 at the end, tells damage. It does not tell malice: who
can write a file can seal it. So what is inside is held to what :func:`sealed` writes, before
memory is taken for what it claims: members that are stored, side by side, each name once, plain
numbers, sizes that add up to the file.
"""

import hashlib
import io
import math
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from npsoftmax.errors import CorruptFileError

__all__ = ["has_right_seal", "is_name", "is_plain", "sealed", "unsealed"]

_COMMENT = b"npsoftmax sha256 "
_DIGEST_SIZE = 64

# The parts of a zip archive that say where its members are; x skips what nothing here depends on.
_LOCAL = struct.Struct("<4s22x2H")
_ENTRY = struct.Struct("<4s4x2H8x2L3H8xL")
_END = struct.Struct("<4s6xH2L2x")
_UTF8 = 0x800
# The header that NumPy writes. What is matched, not evaluated, cannot run, nest or warn.
_MAGIC = b"\x93NUMPY\1\0"
_NPY = struct.Struct("<8sH")
_HEADER = re.compile(
    rb"\{'descr': '([<>|][biuf]\d{1,2})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,18},(?: \d{1,18},?){0,63})?)\), \} *\n"
)

Arrays = dict[str, NDArray[Any]]


def is_name(name: str) -> bool:
    """Say whether an array may be stored under this name: letters, digits, dots, underscores."""
    return re.fullmatch(r"\w[\w.]{0,99}", name) is not None and name not in ("file", "allow_pickle")


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
            f"{source}: expected SHA-256 {content[-_DIGEST_SIZE:]!r}, got "
            f"{_digest(content[:-_DIGEST_SIZE]).decode()}; the file is damaged, copy or train it "
            "again"
        )
    arrays: Arrays = {}
    try:
        for name, member in _members(memoryview(content)):
            if name in arrays:
                raise ValueError(f"two members {name}")
            arrays[name] = _array(member, name)
    except (ValueError, TypeError, struct.error) as error:
        raise CorruptFileError(f"{source}: expected numeric arrays, got {error}") from error
    return arrays


def _members(content: memoryview) -> Iterator[tuple[str, memoryview]]:
    """Yield the name and the bytes of each member; nothing but members lies in the file."""
    end = len(content) - _DIGEST_SIZE - len(_COMMENT) - _END.size
    mark, count, size, directory = _END.unpack_from(content, end)
    entry, place = directory, 0
    if mark != b"PK\5\6" or directory + size != end:
        raise ValueError("no directory of members before the seal")
    for _ in range(count):
        mark, flags, method, stored, size, *lengths, start = _ENTRY.unpack_from(content, entry)
        name = bytes(content[entry + _ENTRY.size :][: lengths[0]])
        entry += _ENTRY.size + sum(lengths)
        if not name.endswith(b".npy") or not is_name(name[:-4].decode()):
            raise ValueError(f"a member {name[:80]!r}")
        if mark != b"PK\1\2" or flags & ~_UTF8 or method or stored != size or start != place:
            raise ValueError(f"a compressed, encrypted or overlapping member {name!r}, or a gap")
        mark, *lengths = _LOCAL.unpack_from(content, place)
        place += _LOCAL.size
        if mark != b"PK\3\4" or content[place : place + lengths[0]] != name:
            raise ValueError(f"no member {name!r} where the directory says")
        place += sum(lengths)
        yield name[:-4].decode(), content[place : min(place + size, directory)]
        place += size
    if (place, entry) != (directory, end):
        raise ValueError("bytes that belong to no member")


def _array(content: memoryview, name: str) -> NDArray[Any]:
    start = _NPY.size + _NPY.unpack_from(content)[1] if content[:8] == _MAGIC else 0
    header = _HEADER.fullmatch(content[_NPY.size : start])
    if header is None:
        raise ValueError(f"{name} as something other than plain numbers; no pickle is ever read")
    dtype = np.dtype(header[1].decode())
    shape = tuple(map(int, re.findall(rb"\d+", header[3])))
    there = len(content) - start
    if math.prod(shape) * dtype.itemsize != there:
        raise ValueError(f"{name} of {dtype}{shape} in {there} bytes")
    flat = np.frombuffer(content, dtype, offset=start)
    order: Literal["F", "C"] = "F" if header[2] == b"True" else "C"
    array: NDArray[Any] = flat.reshape(shape, order=order).copy(order="K")
    return array


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()
