"""Files appear under their name whole, or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from npsoftmax.errors import OutputError

__all__ = ["publish"]


@contextmanager
def publish(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a temporary file that takes the name ``path`` when the block ends well.

    The bytes go to a file of another name in the same folder, are forced to the disk,
    and take the final name in one step, so a reader, a crash or a full disk never meets
    half a file. If the block raises, the temporary file is removed and whatever stood
    under ``path`` before stays.

    Parameters
    ----------
    path : path
        The final name. Its folder is created if it is missing.

    Yields
    ------
    BinaryIO
        The temporary file, open for writing and reading.

    Raises
    ------
    OutputError
        The folder or the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with publish(folder / "greeting.txt") as file:
    ...     _ = file.write(b"hello")
    >>> (folder / "greeting.txt").read_bytes()
    b'hello'
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with _create(temporary) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        if error.errno is None:
            raise  # not the disk's: our own errors and those of requests are OSErrors too
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; "
            "free space there, change its permissions, or name another folder"
        ) from error


def _create(path: Path) -> BinaryIO:
    # Mode 0666 lets the umask decide; tempfile's 0600 would hide a shared cache from others.
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, 0o666)
    return os.fdopen(descriptor, "w+b")


def _sync_folder(folder: Path) -> None:
    # A rename survives a power cut only once its folder is on the disk; Windows has no such call.
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
