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
    text = os.fsdecode(path)
    text = f"./{text}" if text.startswith("-") else text
    if text.isprintable():
        return shlex.quote(text)
    # The quotes of bash and zsh that take escapes.
    plain = {b: chr(b) for b in range(32, 127) if chr(b) not in "'\\"} | {10: "\\n"}
    codes = (plain.get(b, f"\\x{b:02x}") for b in os.fsencode(text))
    return f"$'{''.join(codes)}'"


@contextmanager
def publish(
    path: str | os.PathLike[str],
    backup: str | os.PathLike[str] | None = None,
    *,
    follow_links: bool = True,
) -> Iterator[BinaryIO]:
    """Open a temporary file that is renamed to ``path`` when the block ends without an error.

    The temporary file is in the same folder, open for writing and reading. It is forced to the disk
    and renamed in one step, so neither a reader nor a crash nor a full disk ever leaves half a file
    under ``path``. If the block raises, the temporary file is removed and an existing file at
    ``path`` stays. A ``path`` that is a folder, a device or a pipe, or a file that is read-only,
    raises OutputError.

    The new file has the mode of an existing one and, where the system permits it, its owner and
    group. Other hard links to an existing file keep its old content.

    Parameters
    ----------
    path : path
        The final name. A missing folder is created.
    backup : path, optional
        Another name, to which an existing file at ``path`` is moved. An existing file at either
        name is never missing in between.
    follow_links : bool
        Whether to write where a symbolic link points to; otherwise the link is replaced.

    Examples
    --------
    >>> with publish("greeting.txt") as file:
    ...     _ = file.write(b"hello")
    >>> Path("greeting.txt").read_bytes()
    b'hello'
    """
    unfinished: list[Path] = []
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        target = _behind_links(path) if follow_links else Path(path)
        old = _status_of_replaceable(target, path)
        unfinished.append(temporary := _temporary_name(target))
        try:
            with _create(temporary, old) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            previous = None
            if backup is not None and old and target.exists():
                kept = _behind_links(backup)
                previous = kept.with_name(_temporary_name(target).name)
                unfinished.append(previous)
                _hard_link_or_copy(target, previous, old)
            os.replace(temporary, target)
            _sync_folder(target.parent)
            if previous:
                os.replace(previous, kept)
        finally:
            for left in unfinished:
                # No second error: it would hide the first, and remove_stale removes the rest.
                with suppress(OSError):
                    left.unlink()
    except OSError as error:
        if error.errno is None:
            raise  # not a disk error: our own errors and those of requests are OSErrors too
        raise OutputError(
            f"cannot write {quoted(path)}: {error.strerror or error}; "
            "free space there, change its permissions, or name another folder"
        ) from error


def _behind_links(path: str | os.PathLike[str]) -> Path:
    """Return the file that a chain of symbolic links ends in, which may not exist yet."""
    target = Path(os.path.realpath(path)) if os.path.islink(path) else Path(path)
    if os.path.islink(target):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return target


def _temporary_name(path: Path) -> Path:
    return path.parent / f".{path.name}.{secrets.token_hex(8)}.part"


def _status_of_replaceable(path: Path, name: str | os.PathLike[str]) -> os.stat_result | None:
    """Return the status of a file, None if there is none; raise OutputError for anything else."""
    # Root may replace a device, and /dev/stdout is a symbolic link to one.
    if path.exists() and not path.is_file():
        found = "a folder" if path.is_dir() else "a device or a pipe"
        problem = f"expected a file or nothing there, got {found}"
    elif path.is_symlink() or not path.exists():
        return None
    else:
        status = path.stat()
        # A rename does not ask for permission, nor does root.
        if status.st_mode & 0o222 and os.access(path, os.W_OK):
            return status
        problem = "the file is read-only; permit writing (chmod u+w), or name another file"
    raise OutputError(f"cannot write {quoted(name)}: {problem}")


def _create(path: Path, like: os.stat_result | None) -> BinaryIO:
    """Create a file with the mode and the owner of another one."""
    # With mode 0666 the umask decides; the 0600 of tempfile would hide a shared cache from others.
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, stat.S_IMODE(like.st_mode) if like else 0o666)
    if like and os.name == "posix":
        here = os.fstat(descriptor)
        # Some file systems refuse; only root gives files away.
        with suppress(OSError):
            if here.st_gid != like.st_gid:
                os.fchown(descriptor, -1, like.st_gid)
        with suppress(OSError):
            if here.st_uid != like.st_uid:
                os.fchown(descriptor, like.st_uid, -1)
        with suppress(OSError):
            os.fchmod(descriptor, stat.S_IMODE(like.st_mode))
    return os.fdopen(descriptor, "w+b")


def _hard_link_or_copy(path: Path, name: Path, like: os.stat_result) -> None:
    try:
        os.link(path, name)
    except OSError:  # a file system without hard links, or another one
        with path.open("rb") as source, _create(name, like) as copy:
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
        raise InputError(f"cannot read {quoted(path)}: {reason}; check the name") from error
    # Before opening, which would block on a pipe.
    if not stat.S_ISREG(mode):
        raise InputError(f"cannot read {quoted(path)}: expected a regular file; check the name")
    try:
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise InputError(
            f"cannot read {quoted(path)}: {error.strerror or error}; check the name"
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
            raise CorruptFileError(
                f"{quoted(path)}: expected at most {max_bytes} bytes, got {size}"
            )
        return file.read(size)  # no more, even if the file grows in the meantime
