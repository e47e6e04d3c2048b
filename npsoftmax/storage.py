r"""Sealed ``.npz`` files of arrays and JSON metadata, for models and checkpoints.

A file is an ordinary NumPy archive, and ``numpy.load`` opens it. It contains no pickle. Its last 64
bytes are the SHA-256 of all bytes before them, as the comment of the zip archive, and it is written
atomically. ``python -m npsoftmax.storage FILE...`` verifies such files.

The seal detects damage, not malice: anyone who can write a file can also seal it. :func:`read`
therefore accepts only the subset of the format that :func:`write` produces: uncompressed members
without gaps, each name once, plain numbers. Sizes are checked before memory is allocated for them.
"""

import hashlib
import io
import json
import math
import os
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from npsoftmax.errors import CorruptFileError, InputError, OutputError
from npsoftmax.files import publish, quoted, read_bytes

__all__ = ["FORMAT_VERSION", "MAX_BYTES", "is_whole", "kind_of", "previous", "read", "write"]

FORMAT_VERSION = 1
MAX_BYTES = 2**30

_METADATA = "metadata"

Arrays = dict[str, NDArray[Any]]


def write(
    path: str | os.PathLike[str],
    kind: str,
    arrays: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, Any],
    keep_previous: bool = False,
) -> None:
    """Write arrays and metadata to ``path``, atomically.

    The new file, of at most 1 GiB, is read back and synced to the disk before it replaces an
    existing one.

    Parameters
    ----------
    path : path
        The file.
    kind : str
        The kind of file, for instance ``"model"``; :func:`read` expects it.
    arrays : mapping of str to ndarray
        Numeric arrays under names of letters, digits, dots and underscores. Values, dtype, shape
        and memory order are kept.
    metadata : mapping
        Up to 8 MiB of JSON.
    keep_previous : bool
        Keep the existing file as :func:`previous`, if it is intact.

    Examples
    --------
    >>> path = "a.npz"
    >>> write(path, "example", {"x": np.arange(3)}, {"note": "hello"})
    >>> read(path, "example")
    ({'x': array([0, 1, 2])}, {'note': 'hello'})
    """
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf" or not _is_name(name) or name == _METADATA:
            raise InputError(
                f"{name!r}: expected a numeric array under a name of letters, digits, dots and "
                f"underscores that is not reserved, got dtype {array.dtype}; put text into the "
                "metadata"
            )
    document = {"kind": kind, "format_version": FORMAT_VERSION, "content": dict(metadata)}
    try:
        text = json.dumps(document)
    except (TypeError, ValueError) as error:
        raise InputError(f"metadata: expected JSON values, got {error}") from error
    try:
        _check_size(text)
    except ValueError as error:
        raise InputError(f"metadata: {error}; keep less in it") from error
    content = _seal({**arrays, _METADATA: np.frombuffer(text.encode(), dtype=np.uint8)})
    if len(content) > MAX_BYTES:
        raise InputError(f"{quoted(path)}: expected at most {MAX_BYTES} bytes, got {len(content)}")
    kept = previous(path) if keep_previous and is_whole(path) else None
    with publish(path, kept) as file:
        file.write(content)
        file.seek(0)
        if file.read() != content:
            raise OutputError(
                f"cannot write {quoted(path)}: the file does not read back identically"
            )


def read(
    path: str | os.PathLike[str], kind: str, max_bytes: int = MAX_BYTES
) -> tuple[Arrays, dict[str, Any]]:
    """Return the arrays and metadata of a file of this kind that :func:`write` wrote.

    A file that is damaged, of another kind, program or format version, or larger than ``max_bytes``
    raises CorruptFileError. Reading takes about twice the size of the file in memory.
    """
    arrays, found, metadata = _read(path, max_bytes)
    if found != kind:
        raise CorruptFileError(
            f"{quoted(path)}: expected a {kind}, got a {found:.80}; name another file"
        )
    return arrays, metadata


def kind_of(path: str | os.PathLike[str]) -> str:
    """Return the kind of a file, for instance ``"model"``; raise the errors of :func:`read`."""
    return _read(path, MAX_BYTES)[1]


def is_whole(path: str | os.PathLike[str]) -> bool:
    """Return whether a file exists and its seal is right.

    Examples
    --------
    >>> is_whole("no/such/file.npz")
    False
    """
    try:
        return _has_right_seal(read_bytes(path, MAX_BYTES))
    except (InputError, CorruptFileError):
        return False


def previous(path: str | os.PathLike[str]) -> Path:
    """Return the path where :func:`write` keeps the previous file.

    Examples
    --------
    >>> previous("run/checkpoint.npz").name
    'checkpoint.previous.npz'
    """
    path = Path(path)
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def _read(path: str | os.PathLike[str], max_bytes: int) -> tuple[Arrays, str, dict[str, Any]]:
    arrays = _unseal(read_bytes(path, max_bytes), quoted(path))
    try:
        # json.dumps writes ASCII; other characters would take four times the memory.
        text = str(arrays.pop(_METADATA).tobytes(), "ascii")
        _check_size(text)
        document = json.loads(text)
        version, kind, metadata = (document[k] for k in ("format_version", "kind", "content"))
        if type(version) is not int or not isinstance(kind, str) or not isinstance(metadata, dict):
            types = (type(value).__name__ for value in (version, kind, metadata))
            raise TypeError(f"format_version, kind and content of type {', '.join(types)}")
        if not kind.isprintable():
            raise ValueError("a kind that cannot be printed")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"[:200]
        raise CorruptFileError(
            f"{quoted(path)}: expected metadata as JSON, got {reason}"
        ) from error
    if version != FORMAT_VERSION:
        raise CorruptFileError(
            f"{quoted(path)}: expected format version {FORMAT_VERSION}, got {str(version)[:80]}; "
            "read it with the npsoftmax that wrote it"
        )
    return arrays, kind, metadata


MAX_METADATA_BYTES = 2**23
# An empty list takes three bytes as JSON and thirty times as many in memory.
MAX_METADATA_MARKS = 2**20


def _check_size(text: str) -> None:
    marks = sum(map(text.count, ",:[{"))
    if len(text) > MAX_METADATA_BYTES or marks > MAX_METADATA_MARKS:
        raise ValueError(
            f"expected at most {MAX_METADATA_BYTES} bytes and {MAX_METADATA_MARKS} commas, "
            f"colons and brackets, got {len(text)} and {marks}"
        )


_COMMENT = b"npsoftmax sha256 "
_DIGEST_SIZE = 64


def _seal(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the archive of these arrays with its seal."""
    buffer = io.BytesIO()
    # NumPy 2.0 and 2.1 would take allow_pickle for an array; numeric arrays are never pickled.
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = _COMMENT + b"0" * _DIGEST_SIZE
    body = buffer.getvalue()[:-_DIGEST_SIZE]
    return body + _digest(body)


def _has_right_seal(content: bytes) -> bool:
    body = content[:-_DIGEST_SIZE]
    return body.endswith(_COMMENT) and _digest(body) == content[-_DIGEST_SIZE:]


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()


def _unseal(content: bytes, source: object) -> Arrays:
    """Return the arrays of an archive, or raise CorruptFileError."""
    if not content[:-_DIGEST_SIZE].endswith(_COMMENT):
        raise CorruptFileError(
            f"{source}: expected a file written by npsoftmax, got {content[:8]!r}... of "
            f"{len(content)} bytes; it is cut off, or another program wrote it"
        )
    if not _has_right_seal(content):
        raise CorruptFileError(
            f"{source}: expected SHA-256 {repr(content[-_DIGEST_SIZE:])[2:-1]}, got "
            f"{_digest(content[:-_DIGEST_SIZE]).decode()}; the file is damaged, copy or train it "
            "again"
        )
    arrays: Arrays = {}
    try:
        for name, member in _members(memoryview(content)):
            if name in arrays:
                raise ValueError(f"two members {name}")
            arrays[name] = _parse_npy(member, name)
    except (ValueError, TypeError, struct.error) as error:
        raise CorruptFileError(f"{source}: expected numeric arrays, got {error}") from error
    return arrays


# The parts of a zip archive that locate its members; x skips fields that are not needed.
_LOCAL = struct.Struct("<4s22x2H")
_ENTRY = struct.Struct("<4s4x2H8x2L3H8xL")
_END = struct.Struct("<4s6xH2L2x")
_UTF8 = 0x800


def _members(content: memoryview) -> Iterator[tuple[str, memoryview]]:
    """Yield the name and the bytes of each member, and check that nothing else is in the file."""
    end = len(content) - _DIGEST_SIZE - len(_COMMENT) - _END.size
    mark, count, size, directory = _END.unpack_from(content, end)
    entry, place = directory, 0
    if mark != b"PK\5\6" or directory + size != end:
        raise ValueError("no directory of members before the seal")
    for _ in range(count):
        mark, flags, method, stored, size, *lengths, start = _ENTRY.unpack_from(content, entry)
        name = bytes(content[entry + _ENTRY.size :][: lengths[0]])
        entry += _ENTRY.size + sum(lengths)
        if not name.endswith(b".npy") or not _is_name(name[:-4].decode()):
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


def _is_name(name: str) -> bool:
    return re.fullmatch(r"\w[\w.]{0,99}", name) is not None and name not in ("file", "allow_pickle")


# The header that NumPy writes. It is matched, not evaluated, so it cannot run, nest or warn.
_MAGIC = b"\x93NUMPY\1\0"
_NPY = struct.Struct("<8sH")
_HEADER = re.compile(
    rb"\{'descr': '([<>|][biuf]\d{1,2})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,18},(?: \d{1,18},?){0,63})?)\), \} *\n"
)


def _parse_npy(content: memoryview, name: str) -> NDArray[Any]:
    start = _NPY.size + _NPY.unpack_from(content)[1] if content[:8] == _MAGIC else 0
    header = _HEADER.fullmatch(content[_NPY.size : start])
    if header is None:
        raise ValueError(f"{name} as something other than plain numbers; no pickle is ever read")
    dtype = np.dtype(header[1].decode())
    shape = tuple(map(int, re.findall(rb"\d+", header[3])))
    available = len(content) - start
    if math.prod(shape) * dtype.itemsize != available:
        raise ValueError(f"{name} of {dtype}{shape} in {available} bytes")
    flat = np.frombuffer(content, dtype, offset=start)
    order: Literal["F", "C"] = "F" if header[2] == b"True" else "C"
    array: NDArray[Any] = flat.reshape(shape, order=order).copy(order="K")
    return array


if __name__ == "__main__":
    import signal
    import sys

    from npsoftmax.checkpoint import verify_files

    if hasattr(signal, "SIGPIPE"):
        # End silently if the output is closed; a session that ran this goes on as before.
        before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        code = verify_files()
        if sys.stdout:
            sys.stdout.flush()
    finally:
        if hasattr(signal, "SIGPIPE"):
            signal.signal(signal.SIGPIPE, before)
    sys.exit(code)
