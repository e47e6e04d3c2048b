"""Files appear under their name whole, or not at all."""

import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import time
from typing import BinaryIO

from npsoftmax.errors import CorruptFileError, InputError, OutputError

__all__ = ["publish", "read_bytes", "readable", "remove_stale"]

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.part")
_DAY_SECONDS = 24 * 60 * 60


@contextmanager
def publish(
    path: str | os.PathLike[str], kept: str | os.PathLike[str] | None = None
) -> Iterator[BinaryIO]:
    """Open a temporary file that takes the name ``path`` when the block ends well.

    The bytes go to a file of another name in the same folder, are forced to the disk,
    and take the final name in one step, so a reader, a crash or a full disk never meets
    half a file. If the block raises, the temporary file is removed and whatever stood
    under ``path`` before stays.

    Parameters
    ----------
    path : path
        The final name. Its folder is created if it is missing.
    kept : path, optional
        What the file that stands there before is called afterwards, in the same folder. There is
        no moment without a file at ``path``, nor one without the file that was kept before.

    Yields
    ------
    BinaryIO
        The temporary file, open for writing and reading.

    Raises
    ------
    OutputError
        The folder or the file cannot be written, or a folder, a device or a pipe stands there.

    Examples
    --------
    >>> with publish("greeting.txt") as file:
    ...     _ = file.write(b"hello")
    >>> Path("greeting.txt").read_bytes()
    b'hello'
    """
    path = Path(path)
    temporary, former = _temporary_name(path), _temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _refuse_what_is_no_file(path)
        try:
            with _create(temporary) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if kept is not None and path.exists():
                _name_again(path, former)
            os.replace(temporary, path)
            _sync_folder(path.parent)
            if kept is not None and former.exists():
                os.replace(former, kept)
        finally:
            for left in (temporary, former):
                with suppress(
                    OSError
                ):  # remove_stale takes what stays; this error must hide no other
                    left.unlink()
    except OSError as error:
        if error.errno is None:
            raise  # not the disk's: our own errors and those of requests are OSErrors too
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; "
            "free space there, change its permissions, or name another folder"
        ) from error


def remove_stale(folder: str | os.PathLike[str], older_than: float = _DAY_SECONDS) -> None:
    """Remove the temporary files that killed processes left in a folder.

    What cannot be removed stays.

    Parameters
    ----------
    folder : path
        The folder, which need not exist.
    older_than : float
        How many seconds ago they were last written to; a younger one may belong to a process at
        work.

    Examples
    --------
    >>> remove_stale("no such folder")
    """
    with suppress(OSError, ValueError):  # a folder that is not there, or not for us
        for path in Path(folder).glob(".*.part"):
            with suppress(OSError):
                if _TEMPORARY.fullmatch(path.name) and time() - path.lstat().st_mtime > older_than:
                    path.unlink()


def read_bytes(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    """Return the content of a regular file of at most ``max_bytes``.

    Parameters
    ----------
    path : path
        The file.
    max_bytes : int
        What is refused beyond, before it is read.

    Returns
    -------
    bytes

    Raises
    ------
    InputError
        There is no such file, it cannot be read, or it is a folder, a device or a pipe.
    CorruptFileError
        It is larger than ``max_bytes``.

    Examples
    --------
    >>> with publish("greeting.txt") as file:
    ...     _ = file.write(b"hello")
    >>> read_bytes("greeting.txt", 10)
    b'hello'
    """
    with readable(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise CorruptFileError(f"{path}: expected at most {max_bytes} bytes, got {size}")
        return file.read(size)  # and no more, should it grow meanwhile


@contextmanager
def readable(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a regular file for reading.

    Parameters
    ----------
    path : path
        The file.

    Yields
    ------
    binary file

    Raises
    ------
    InputError
        There is no such file, it cannot be read, or it is a folder, a device or a pipe.

    Examples
    --------
    >>> with publish("greeting.txt") as file:
    ...     _ = file.write(b"hello")
    >>> with readable("greeting.txt") as file:
    ...     file.read(4)
    b'hell'
    """
    path = os.fspath(path)  # or a number would be taken for an open file, and closed
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:  # a ValueError where a NUL is in the name
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {path}: {reason}; check the name") from error
    # Before it is opened: opening a pipe waits for somebody to write.
    if not stat.S_ISREG(mode):
        raise InputError(f"cannot read {path}: expected a regular file; check the name")
    try:
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror or error}; check the name"
        ) from error


def _temporary_name(path: Path) -> Path:
    return path.parent / f".{path.name}.{secrets.token_hex(8)}.part"


def _name_again(path: Path, name: Path) -> None:
    try:
        os.link(path, name)
    except OSError:  # a file system that knows one name for a file only
        with path.open("rb") as source, _create(name) as copy:
            shutil.copyfileobj(source, copy)
            copy.flush()
            os.fsync(copy.fileno())


def _create(path: Path) -> BinaryIO:
    # Mode 0666 lets the umask decide; tempfile's 0600 would hide a shared cache from others.
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, 0o666)
    return os.fdopen(descriptor, "w+b")


def _refuse_what_is_no_file(path: Path) -> None:
    # Root may replace a device, and /dev/stdout is a symbolic link to one.
    if path.exists() and not path.is_file():
        found = "a folder" if path.is_dir() else "a device or a pipe"
        raise OutputError(f"cannot write {path}: expected a file or nothing there, got {found}")


def _sync_folder(folder: Path) -> None:
    # A rename survives a power cut only once its folder is on the disk; Windows has no such call.
    if os.name != "posix":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        # Some file systems cannot force a folder, some folders may be written but not opened.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES):
            raise
