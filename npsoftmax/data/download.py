"""Getting one pinned file: ``plan`` decides from the disk, ``fetch`` acts on the network."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from npsoftmax.data.remote_file import RemoteFile, verify
from npsoftmax.errors import DataUnavailableError, InputError, OutputError
from npsoftmax.files import publish, sweep

__all__ = ["TIMEOUT_SECONDS", "Plan", "fetch", "plan"]

TIMEOUT_SECONDS = 300.0


@dataclass(frozen=True)
class Plan:
    """What to do about a file, and a sentence that says why."""

    action: Literal["use", "download", "refuse"]
    reason: str


def plan(path: Path, file: RemoteFile, offline: bool) -> Plan:
    """Decide from what lies at ``path`` whether to use it, to download it or to give up.

    A whole file is used; a missing or wrong one is downloaded, unless ``offline`` forbids it
    or a folder stands in the way.

    Examples
    --------
    >>> plan(Path("no/hello.txt"), RemoteFile("hello.txt", 5, 64 * "0"), offline=False)
    Plan(action='download', reason='no/hello.txt is missing')
    """
    complaint = verify(path, file)
    if complaint is None:
        return Plan("use", f"{path} has the expected size and SHA-256")
    if os.path.isdir(path):
        return Plan("refuse", f"{complaint}; move it away or name another folder")
    if offline:
        return Plan("refuse", f"{complaint}; go online, or put the right file there by hand")
    return Plan("download", complaint)


def fetch(
    file: RemoteFile,
    folder: Path,
    mirrors: Sequence[str],
    *,
    timeout: float = TIMEOUT_SECONDS,
    progress: bool = False,
    recognise: Callable[[BinaryIO], str] = lambda _: "",
) -> Path:
    """Download ``file`` into ``folder`` from the first mirror that delivers it, and verify it.

    The file takes its name only when its SHA-256 is right; until then whatever stood there
    stays. Never more than ``file.size`` bytes are written.

    Parameters
    ----------
    file, folder : RemoteFile, Path
        What to download, and where to; the folder is created if it is missing.
    mirrors : sequence of str
        Base URLs to which the file name is appended. They take turns, in this order: after a
        failure the next one is asked at once, and the same one again after a pause.
    timeout : float
        Seconds for everything together: all mirrors, attempts and pauses. No single wait is
        longer than a quarter of it, or 20 s; when nothing new comes for 100 s, it is over too.
    progress : bool
        Whether to show a bar on stderr.
    recognise : callable
        Given a wrong file, returns what to add to the complaint about it.

    Raises
    ------
    InputError
        The timeout is not a positive number.
    DataUnavailableError
        No mirror delivered the file, or the folder cannot be written.

    Examples
    --------
    >>> fetch(RemoteFile("hello.txt", 5, 64 * "0"), Path("data"), mirrors=[])
    ... # doctest: +ELLIPSIS
    Traceback (most recent call last):
    npsoftmax.errors.DataUnavailableError: cannot download hello.txt: no mirror was named; ...
    """
    # Here: the modules of HTTP take a while to load, and most runs download nothing.
    from npsoftmax.data._transfer import MirrorError, download

    if not 0 < timeout < math.inf:
        raise InputError(f"timeout: expected a positive number of seconds, got {timeout}")
    path = folder / file.name
    sweep(folder)
    try:
        with publish(path) as part:
            download(file, part, mirrors, timeout, progress, recognise)
    except MirrorError as error:
        raise DataUnavailableError(
            f"cannot download {file.name}: {error}; name another mirror, or put a file of "
            f"{file.size:,} bytes with SHA-256 {file.sha256} into {folder} by hand"
        ) from error
    except OutputError as error:
        raise DataUnavailableError(f"cannot download {file.name} to {folder}: {error}") from error
    return path
