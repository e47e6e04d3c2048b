"""Atomic writes and bounded reads."""

import errno
import os
import re
import secrets
import shlex
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import time
from typing import BinaryIO

from npsoftmax.errors import CorruptFileError, InputError, OutputError

__all__ = ["publish", "quoted", "read_bytes", "readable", "remove_stale"]


def quoted(path: str | os.PathLike[str]) -> str:
    """Return a path in one line, as a shell takes it.

    Examples
    --------
    >>> quoted("runs/first"), quoted("my runs"), quoted("-x")
    ('runs/first', "'my runs'", './-x')
    """
    text = os.fspath(path)
    text = f"./{text}" if text.startswith("-") else text
    if text.isprintable():
        return shlex.quote(text)
    # The quotes of bash and zsh that take escapes.
    codes = (chr(b) if chr(b).isalnum() and b < 128 else f"\\x{b:02x}" for b in os.fsencode(text))
    return f"$'{''.join(codes)}'"


@contextmanager
def publish(
    path: str | os.PathLike[str], backup: str | os.PathLike[str] | None = None
) -> Iterator[BinaryIO]:
    """Open a temporary file that is renamed to ``path`` when the block ends without an error.

    The temporary file is in the same folder, open for writing and reading. It is forced to the disk
    and renamed in one step, so neither a reader nor a crash nor a full disk ever leaves half a file
    under ``path``. If the block raises, the temporary file is removed and an existing file at
    ``path`` stays. A ``path`` that is a folder, a device or a pipe raises OutputError.

    Parameters
    ----------
    path : path
        The final name. A missing folder is created.
    backup : path, optional
        Another name in the same folder, to which an existing file at ``path`` is moved. An
        existing file at either name is never missing in between.

    Examples
    --------
    >>> with publish("greeting.txt") as file:
    ...     _ = file.write(b"hello")
    >>> Path("greeting.txt").read_bytes()
    b'hello'
    """
    path = Path(path)
    temporary, previous = _temporary_name(path), _temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_replaceable(path)
        try:
            with _create(temporary) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if backup is not None and path.exists():
                _hard_link_or_copy(path, previous)
            os.replace(temporary, path)
            _sync_folder(path.parent)
            if backup is not None and previous.exists():
                os.replace(previous, backup)
        finally:
            for left in (temporary, previous):
                # No second error: it would hide the first, and remove_stale removes the rest.
                with suppress(OSError):
                    left.unlink()
    except OSError as error:
        if error.errno is None:
            raise  # not a disk error: our own errors and those of requests are OSErrors too
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; "
            "free space there, change its permissions, or name another folder"
        ) from error


def _temporary_name(path: Path) -> Path:
    return path.parent / f".{path.name}.{secrets.token_hex(8)}.part"


def _check_replaceable(path: Path) -> None:
    # Root may replace a device, and /dev/stdout is a symbolic link to one.
    if path.exists() and not path.is_file():
        found = "a folder" if path.is_dir() else "a device or a pipe"
        raise OutputError(f"cannot write {path}: expected a file or nothing there, got {found}")


def _create(path: Path) -> BinaryIO:
    # With mode 0666 the umask decides; the 0600 of tempfile would hide a shared cache from others.
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, 0o666)
    return os.fdopen(descriptor, "w+b")


def _hard_link_or_copy(path: Path, name: Path) -> None:
    try:
        os.link(path, name)
    except OSError:  # a file system without hard links
        with path.open("rb") as source, _create(name) as copy:
            shutil.copyfileobj(source, copy)
            copy.flush()
            os.fsync(copy.fileno())


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
        # Some file systems cannot sync a folder; some folders can be written but not opened.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES):
            raise


_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.part")
_DAY_SECONDS = 24 * 60 * 60


def remove_stale(folder: str | os.PathLike[str], older_than: float = _DAY_SECONDS) -> None:
    """Remove the temporary files that killed processes have left in a folder, where possible.

    A file that was written within the last ``older_than`` seconds may belong to a running process.

    Examples
    --------
    >>> remove_stale("no such folder")
    """
    with suppress(OSError, ValueError):  # a folder that is missing or must not be read
        for path in Path(folder).glob(".*.part"):
            with suppress(OSError):
                if _TEMPORARY.fullmatch(path.name) and time() - path.lstat().st_mtime > older_than:
                    path.unlink()


@contextmanager
def readable(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a regular file for reading; raise InputError for anything else.

    A folder, a device or a pipe is refused before it is opened.

    Examples
    --------
    >>> with publish("greeting.txt") as file:
    ...     _ = file.write(b"hello")
    >>> with readable("greeting.txt") as file:
    ...     file.read(4)
    b'hell'
    """
    path = os.fspath(path)  # open() would take a number for a file descriptor, and close it
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:  # ValueError: the name contains a NUL
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {path}: {reason}; check the name") from error
    # Before opening, which would block on a pipe.
    if not stat.S_ISREG(mode):
        raise InputError(f"cannot read {path}: expected a regular file; check the name")
    try:
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror or error}; check the name"
        ) from error


def read_bytes(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    """Return the content of a regular file; one above ``max_bytes`` raises CorruptFileError.

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
        return file.read(size)  # no more, even if the file grows in the meantime
