"""A file that is known to the byte before it is there, and the check that it is the one."""

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from npsoftmax.errors import InputError

__all__ = ["RemoteFile", "complaint", "verify"]

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class RemoteFile:
    """A file known to the byte: bare ``name``, ``size`` in bytes, ``sha256`` in lower-case hex.

    Examples
    --------
    >>> RemoteFile("hello.txt", 5, hashlib.sha256(b"hello").hexdigest()).size
    5
    """

    name: str
    size: int
    sha256: str

    def __str__(self) -> str:
        """Say all that a person needs to find the file elsewhere."""
        return f"{self.name} ({self.size:,} bytes, SHA-256 {self.sha256})"

    def __post_init__(self) -> None:
        """Refuse a name that would leave the data folder."""
        if Path(self.name).name != self.name or self.name in {"", ".."}:
            raise InputError(f"name: expected a bare file name, got {self.name!r}")


def verify(path: Path, file: RemoteFile) -> str | None:
    """Return None when ``file`` lies at ``path``, else a sentence saying what is wrong.

    Examples
    --------
    >>> verify(Path("no/hello.txt"), RemoteFile("hello.txt", 5, 64 * "0"))
    'no/hello.txt is missing'
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            return f"{path} is a {'folder' if stat.S_ISDIR(mode) else 'device'}, expected a file"
        with path.open("rb") as stream:
            wrong = complaint(stream, file)
    except FileNotFoundError:
        return f"{path} is missing"
    except (OSError, ValueError) as error:  # a ValueError where a NUL is in the name
        return f"{path} cannot be read: {getattr(error, 'strerror', None) or error}"
    return wrong and f"{path}: {wrong}"


def complaint(stream: BinaryIO, file: RemoteFile) -> str | None:
    """Return how the size or the SHA-256 of ``stream`` is wrong, None when both are right."""
    size = stream.seek(0, os.SEEK_END)
    if size != file.size:
        return f"expected {file.size:,} bytes, got {size:,}"
    stream.seek(0)
    digest = hashlib.sha256()
    while chunk := stream.read(_CHUNK_BYTES):
        digest.update(chunk)
    sha256 = digest.hexdigest()
    return None if sha256 == file.sha256 else f"expected SHA-256 {file.sha256}, got {sha256}"
