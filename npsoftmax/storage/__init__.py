"""Arrays and JSON metadata in one ``.npz`` file: models and checkpoints.

The file is an ordinary NumPy archive (``numpy.load`` opens it). It holds no pickle, its last
64 bytes are the SHA-256 of all bytes before them (as the comment of the zip archive), and it
is published whole or not at all. ``python -m npsoftmax.storage FILE...`` verifies such files.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npsoftmax.errors import CorruptFileError, FormatVersionError, InputError, OutputError
from npsoftmax.files import publish, read_bytes
from npsoftmax.storage._archive import Arrays, has_right_seal, is_name, is_plain, sealed, unsealed

__all__ = ["FORMAT_VERSION", "MAX_BYTES", "is_whole", "kind_of", "previous", "read", "write"]

FORMAT_VERSION = 1
MAX_BYTES = 2**30
_MAX_METADATA_BYTES = 2**23
# An empty list takes three bytes of JSON and thirty times as many in memory.
_MAX_METADATA_MARKS = 2**20

_METADATA = "metadata"


def write(
    path: str | os.PathLike[str],
    kind: str,
    arrays: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, Any],
    keep_previous: bool = False,
) -> None:
    """Write arrays and metadata to ``path``, atomically.

    The new file takes its name once it is on the disk and has been read back.

    Parameters
    ----------
    path : path
        The file; what stood there before is replaced in one step.
    kind : str
        What the file is, for instance ``"model"``; :func:`read` asks for it.
    arrays : mapping of str to ndarray
        Numeric arrays under names of letters, digits, dots and underscores; values, dtype, shape
        and memory order are kept.
    metadata : mapping
        Anything JSON can hold, up to 8 MiB of it.
    keep_previous : bool
        Let the file that stood at ``path`` live on as :func:`previous` of it, if it is whole.

    Raises
    ------
    InputError
        An array that only pickle could hold, metadata that JSON cannot, or more than 1 GiB.
    OutputError
        The file cannot be written, or reads back as another one.

    Examples
    --------
    >>> path = "a.npz"
    >>> write(path, "example", {"x": np.arange(3)}, {"note": "hello"})
    >>> read(path, "example")
    ({'x': array([0, 1, 2])}, {'note': 'hello'})
    """
    for name, array in arrays.items():
        if not is_plain(array.dtype) or not is_name(name) or name == _METADATA:
            raise InputError(
                f"{name!r}: expected a numeric array under a name of letters, digits, dots and "
                f"underscores that is not reserved, got dtype {array.dtype}; put text into the "
                "metadata"
            )
    document = {"kind": kind, "format_version": FORMAT_VERSION, "content": dict(metadata)}
    try:
        text = json.dumps(document)
    except (TypeError, ValueError) as error:
        raise InputError(f"metadata: expected what JSON can hold, got {error}") from error
    try:
        _refuse_too_much(text)
    except ValueError as error:
        raise InputError(f"metadata: {error}; keep less in it") from error
    content = sealed({**arrays, _METADATA: np.frombuffer(text.encode(), dtype=np.uint8)})
    if len(content) > MAX_BYTES:
        raise InputError(f"{path}: expected at most {MAX_BYTES} bytes, got {len(content)}")
    kept = previous(path) if keep_previous and is_whole(path) else None
    with publish(path, kept) as file:
        file.write(content)
        file.seek(0)
        if file.read() != content:
            raise OutputError(f"cannot write {path}: what was written reads back as something else")


def previous(path: str | os.PathLike[str]) -> Path:
    """Return where the file before the one at ``path`` is kept.

    Examples
    --------
    >>> previous("run/checkpoint.npz").name
    'checkpoint.previous.npz'
    """
    path = Path(path)
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def read(
    path: str | os.PathLike[str], kind: str, max_bytes: int = MAX_BYTES
) -> tuple[Arrays, dict[str, Any]]:
    """Read what :func:`write` wrote, and nothing else.

    Parameters
    ----------
    path : path
        The file.
    kind : str
        What the file must be.
    max_bytes : int
        The largest file to accept. About twice the size of the file is taken in memory.

    Returns
    -------
    arrays : dict of str to ndarray
    metadata : dict

    Raises
    ------
    InputError
        The file does not exist or cannot be read.
    CorruptFileError
        Not such a file, damaged, of another kind, or larger than ``max_bytes``.
    FormatVersionError
        Written in a newer or older format.
    """
    arrays, found, metadata = _read(path, max_bytes)
    if found != kind:
        raise CorruptFileError(f"{path}: expected a {kind}, got a {found:.80}; name another file")
    return arrays, metadata


def kind_of(path: str | os.PathLike[str]) -> str:
    """Return what a file is, for instance ``"model"``.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    str

    Raises
    ------
    InputError, CorruptFileError, FormatVersionError
        As for :func:`read`.
    """
    return _read(path, MAX_BYTES)[1]


def is_whole(path: str | os.PathLike[str]) -> bool:
    """Say whether there is a file at ``path`` whose seal is right.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    bool
        False for a file that is damaged, missing or unreadable.

    Examples
    --------
    >>> is_whole("no/such/file.npz")
    False
    """
    try:
        return has_right_seal(read_bytes(path, MAX_BYTES))
    except (InputError, CorruptFileError):
        return False


def _read(path: str | os.PathLike[str], max_bytes: int) -> tuple[Arrays, str, dict[str, Any]]:
    arrays = unsealed(read_bytes(path, max_bytes), path)
    try:
        # JSON as it is written here has no other characters, which would take four times the room.
        text = str(arrays.pop(_METADATA).tobytes(), "ascii")
        _refuse_too_much(text)
        document = json.loads(text)
        version, kind, metadata = (document[k] for k in ("format_version", "kind", "content"))
        if type(version) is not int or not isinstance(kind, str) or not isinstance(metadata, dict):
            types = (type(value).__name__ for value in (version, kind, metadata))
            raise TypeError(f"format_version, kind and content of type {', '.join(types)}")
        if not kind.isprintable():
            raise ValueError("a kind that cannot be printed")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"[:200]
        raise CorruptFileError(f"{path}: expected metadata as JSON, got {reason}") from error
    if version != FORMAT_VERSION:
        raise FormatVersionError(
            f"{path}: expected format version {FORMAT_VERSION}, got {str(version)[:80]}; "
            "read it with the npsoftmax that wrote it"
        )
    return arrays, kind, metadata


def _refuse_too_much(text: str) -> None:
    marks = sum(map(text.count, ",:[{"))
    if len(text) > _MAX_METADATA_BYTES or marks > _MAX_METADATA_MARKS:
        raise ValueError(
            f"expected at most {_MAX_METADATA_BYTES} bytes and {_MAX_METADATA_MARKS} commas, "
            f"colons and brackets, got {len(text)} and {marks}"
        )
