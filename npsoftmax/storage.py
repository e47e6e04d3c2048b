"""Arrays and JSON metadata in one ``.npz`` file: models and checkpoints.

The file is an ordinary NumPy archive (``numpy.load`` opens it). It holds no pickle, its last
64 bytes are the SHA-256 of all bytes before them (as the comment of the zip archive), and it
is published whole or not at all.
"""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npsoftmax.errors import CorruptFileError, FormatVersionError, InputError
from npsoftmax.files import publish, read_bytes

__all__ = ["FORMAT_VERSION", "read", "write"]

FORMAT_VERSION = 1
MAX_BYTES = 2**30

_METADATA = "metadata"
_RESERVED = (_METADATA, "file", "allow_pickle")  # the last two are arguments of numpy.savez
_COMMENT = b"npsoftmax sha256 "
_DIGEST_SIZE = 64

Arrays = dict[str, NDArray[Any]]


def write(
    path: str | os.PathLike[str],
    kind: str,
    arrays: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, Any],
) -> None:
    """Write arrays and metadata to ``path``, atomically.

    Parameters
    ----------
    path : path
        The file; what stood there before is replaced in one step.
    kind : str
        What the file is, for instance ``"model"``; :func:`read` asks for it.
    arrays : mapping of str to ndarray
        Numeric arrays; values, dtype, shape and memory order are kept.
    metadata : mapping
        Anything JSON can hold.

    Raises
    ------
    InputError
        An array that only pickle could hold, or metadata that JSON cannot.
    OutputError
        The file cannot be written.

    Examples
    --------
    >>> path = "a.npz"
    >>> write(path, "example", {"x": np.arange(3)}, {"note": "hello"})
    >>> read(path, "example")
    ({'x': array([0, 1, 2])}, {'note': 'hello'})
    """
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf" or name in _RESERVED or "\0" in name:
            raise InputError(
                f"{name!r}: expected a numeric array under a name other than "
                f"{', '.join(_RESERVED)}, got dtype {array.dtype}; put text into the metadata"
            )
    document = {"kind": kind, "format_version": FORMAT_VERSION, "content": dict(metadata)}
    try:
        text = json.dumps(document)
    except (TypeError, ValueError) as error:
        raise InputError(f"metadata: expected what JSON can hold, got {error}") from error
    content = _sealed({**arrays, _METADATA: np.frombuffer(text.encode(), dtype=np.uint8)})
    with publish(path) as file:
        file.write(content)


def read(path: str | os.PathLike[str], kind: str) -> tuple[Arrays, dict[str, Any]]:
    """Read what :func:`write` wrote, and nothing else.

    Parameters
    ----------
    path : path
        The file.
    kind : str
        What the file must be.

    Returns
    -------
    arrays : dict of str to ndarray
    metadata : dict

    Raises
    ------
    InputError
        The file does not exist or cannot be read.
    CorruptFileError
        Not such a file, damaged, of another kind, or larger than 1 GiB.
    FormatVersionError
        Written in a newer or older format.
    """
    path = Path(path)
    content = read_bytes(path, MAX_BYTES)
    arrays = _unsealed(content, path)
    try:
        document = json.loads(arrays.pop(_METADATA).tobytes())
        version, found, metadata = (document[k] for k in ("format_version", "kind", "content"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptFileError(f"{path}: expected metadata as JSON, got {error!r}") from error
    if version != FORMAT_VERSION:
        raise FormatVersionError(
            f"{path}: expected format version {FORMAT_VERSION}, got {version}; "
            "read it with the npsoftmax that wrote it"
        )
    if found != kind:
        raise CorruptFileError(f"{path}: expected a {kind}, got a {found}; name another file")
    return arrays, metadata


def _sealed(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    # NumPy 2.0 and 2.1 would take allow_pickle for an array; numeric arrays are never pickled.
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = _COMMENT + b"0" * _DIGEST_SIZE
    body = buffer.getvalue()[:-_DIGEST_SIZE]
    return body + hashlib.sha256(body).hexdigest().encode()


def _unsealed(content: bytes, path: Path) -> Arrays:
    body, digest = content[:-_DIGEST_SIZE], content[-_DIGEST_SIZE:]
    if not body.endswith(_COMMENT):
        raise CorruptFileError(
            f"{path}: expected a file written by npsoftmax, got {content[:8]!r}... of "
            f"{len(content)} bytes; it is cut off, or another program wrote it"
        )
    computed = hashlib.sha256(body).hexdigest().encode()
    if computed != digest:
        raise CorruptFileError(
            f"{path}: expected SHA-256 {digest.decode(errors='replace')}, got "
            f"{computed.decode()}; the file is damaged, copy or train it again"
        )
    # From here on the bytes are those that some writer sealed; they may still be hostile.
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            claimed = sum(member.file_size for member in archive.infolist())
            if claimed > MAX_BYTES:
                raise ValueError(f"its arrays claim {claimed} bytes")
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # a dozen kinds come out of the zip and npy readers
        raise CorruptFileError(f"{path}: expected numeric arrays, got {error}") from error
