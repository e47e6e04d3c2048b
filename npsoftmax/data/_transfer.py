"""How the bytes of a file come from its mirrors: turns, attempts, pauses, Range, deadlines.

The SHA-256 alone judges the content. Status, headers and lengths only decide whether to ask
again, and from which byte: servers, caches and captive portals lie about all of them.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http.client import responses
from time import monotonic, sleep, time
from typing import TYPE_CHECKING, Any, BinaryIO

from npsoftmax.data._http import MirrorError, Watchdog, network, opened, without_password
from npsoftmax.data.remote_file import RemoteFile, complaint

if TYPE_CHECKING:
    import requests
    from tqdm import tqdm

__all__ = ["MirrorError", "download"]

# A mirror is asked so often in vain, and all of them together, once each has been asked.
_ATTEMPTS = 4
_REQUESTS = 10
# A whole body that is not the file is asked for once more, in case the way to here spoilt it.
_WRONG_BODIES = 2
_CONNECT_SECONDS = 10.0
_READ_SECONDS = 20.0
_PATIENCE_SECONDS = 100.0
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 30.0
# Fewer bytes in _READ_SECONDS are taken for silence.
_LEAST_BYTES = 16 * 1024
# A mirror that came so much further than ever before is asked for the rest at once.
_NEW_GROUND_BYTES = 64 * 1024
_CHUNK_BYTES = 64 * 1024


class WrongBodyError(MirrorError):
    """A whole body came, and it is not the file."""


@dataclass
class Mirror:
    """A place to ask, what became of it, and from when on it may be asked again."""

    url: str
    ready: float = 0.0
    attempts: int = 0
    num_asked: int = 1
    furthest: int = 0
    wrong_bodies: int = 0
    undo_gzip: bool = False
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Say where and why."""
        return f"{without_password(self.url)}: {'; then '.join(dict.fromkeys(self.failures))}"


def download(
    file: RemoteFile,
    part: BinaryIO,
    mirrors: Sequence[str],
    timeout: float,
    progress: bool,
    recognise: Callable[[BinaryIO], str],
) -> None:
    """Write ``file`` to ``part`` from the first mirror that delivers it, or raise MirrorError."""
    from tqdm import tqdm

    places = [Mirror(f"{mirror.rstrip('/')}/{file.name}") for mirror in mirrors]
    bar = tqdm(total=file.size, desc=file.name, unit="B", unit_scale=True, disable=not progress)
    with bar:
        transfer = Transfer(file, part, bar, recognise, timeout)
        while mirror := transfer.next_of(places):
            if transfer.succeeds(mirror):
                return
    reasons = [str(mirror) for mirror in places if mirror.failures]
    if transfer.seconds_left() <= 0:
        reasons.append(f"gave up when {transfer.limit}")
    raise MirrorError("; ".join(reasons) or "no mirror was named")


class Transfer:
    """The bytes that have arrived in ``part``, where they came from, and the time that is left."""

    def __init__(
        self,
        file: RemoteFile,
        part: BinaryIO,
        bar: tqdm[Any],
        recognise: Callable[[BinaryIO], str],
        timeout: float,
    ) -> None:
        self.file, self.part, self.bar, self.recognise = file, part, bar, recognise
        self.timeout = timeout
        self._deadline = monotonic() + timeout
        self._patience = monotonic() + _PATIENCE_SECONDS
        # For a second attempt to have a chance in a short time.
        self._longest_wait = min(_READ_SECONDS, timeout / 4)
        self._in_vain = 0
        # Whom the part is from, and by what its rest can be asked for.
        self._origin: tuple[Mirror, str] | None = None

    @property
    def limit(self) -> str:
        """What ends it all first, in words."""
        if self._patience < self._deadline:
            return f"nothing new had come for {_PATIENCE_SECONDS:g} s"
        return f"the timeout of {self.timeout:g} s for the whole file was over"

    def seconds_left(self) -> float:
        """Return the time left for everything."""
        return min(self._deadline, self._patience) - monotonic()

    def next_of(self, mirrors: Sequence[Mirror]) -> Mirror | None:
        """Wait for the mirror whose turn it is; None if no further attempt makes sense."""
        # Each is asked once; again only if that stays within what is asked in vain of all of them,
        # should it redirect as often as the last time.
        left = [m for m in mirrors if not m.attempts or self._in_vain + m.num_asked <= _REQUESTS]
        mirror = min(left, key=lambda mirror: mirror.ready, default=None)
        if mirror is None:
            return None
        pause = max(0.0, mirror.ready - monotonic())
        if pause >= self.seconds_left():
            return None
        if pause:
            sleep(pause)
        return mirror

    def succeeds(self, mirror: Mirror) -> bool:
        """Ask once; return whether the right file has come, else note when to ask again."""
        before = mirror.furthest
        try:
            self._ask(mirror)
        except MirrorError as error:
            mirror.failures.append(str(error))
            if error.wait == 0 and mirror.furthest > before:
                mirror.ready = 0.0  # it brings the file, if only in pieces
            else:
                self._in_vain += mirror.num_asked
                mirror.attempts += 1
                mirror.ready = monotonic() + _pause(mirror.attempts, error.wait)
            return False
        return True

    def _ask(self, mirror: Mirror) -> None:
        left = self._deadline - monotonic()
        with Watchdog(_LEAST_BYTES, self._longest_wait, left) as watchdog:
            try:
                self._receive(mirror, watchdog)
            except WrongBodyError as error:
                mirror.wrong_bodies += 1
                error.wait = 0 if mirror.wrong_bodies < _WRONG_BODIES else math.inf
                raise
            except MirrorError as error:
                raise (MirrorError(watchdog.reason, 0) if watchdog.reason else error) from error
            finally:
                mirror.num_asked = max(1, watchdog.num_asked)

    def _receive(self, mirror: Mirror, watchdog: Watchdog) -> None:
        """Take in what one request brings; return only when it is the right file."""
        wait = min(self._longest_wait, self.seconds_left())
        if wait <= 0:
            raise MirrorError(self.limit)
        timeouts = min(_CONNECT_SECONDS, wait), wait
        with opened(mirror.url, self._range(mirror), timeouts, watchdog) as response:
            self._origin = None
            if not _resumes(
                response.status_code, response.headers, self.part.tell(), self.file.size
            ):
                self.part.seek(0)
                self.part.truncate()
                self.bar.reset()
            labelled = response.headers.get("Content-Encoding", "").lower() in ("gzip", "x-gzip")
            inflater = zlib.decompressobj(31) if labelled and mirror.undo_gzip else None
            mirror.undo_gzip = labelled  # should what comes now be wrong
            validator = _validator(response.headers)
            if validator and not inflater:
                self._origin = mirror, validator
            for chunk in self._body(response, inflater, watchdog):
                self._take(chunk)
                if self.part.tell() >= mirror.furthest + _NEW_GROUND_BYTES:
                    mirror.furthest = self.part.tell()
                    self._patience = monotonic() + _PATIENCE_SECONDS
        wrong = complaint(self.part, self.file)
        if wrong:
            short = self.part.seek(0, os.SEEK_END) < self.file.size
            wrong += self.recognise(self.part)
            self.part.seek(0, os.SEEK_END)
            if watchdog.reason or short:
                raise MirrorError(wrong, 0)
            raise WrongBodyError(wrong)

    def _take(self, chunk: bytes) -> None:
        size = self.file.size
        if self.part.tell() + len(chunk) > size:
            raise WrongBodyError(f"expected {size:,} bytes, got more")
        self.part.write(chunk)
        self.bar.update(len(chunk))

    def _range(self, mirror: Mirror) -> dict[str, str]:
        """Return the headers that ask for the rest of the part, if it is of this mirror."""
        received = self.part.tell()
        if self._origin and self._origin[0] is mirror and 0 < received < self.file.size:
            return {"Range": f"bytes={received}-", "If-Range": self._origin[1]}
        return {}

    def _body(
        self, response: requests.Response, inflater: Any, watchdog: Watchdog
    ) -> Iterator[bytes]:
        """Yield the bytes as they were sent, or unpacked, until the end, a fault or a limit."""
        size = self.file.size
        try:
            with network():
                # read1 gives what has come, so that a dripping server meets the deadline too.
                while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=False):
                    watchdog.received += len(chunk)
                    if self.seconds_left() <= 0:
                        raise MirrorError(self.limit)
                    if watchdog.received > size + _CHUNK_BYTES:
                        raise WrongBodyError(f"expected {size:,} bytes, got more")
                    if inflater:
                        chunk = inflater.decompress(chunk, size + 1 - self.part.tell())
                    yield chunk
        except zlib.error as error:
            raise WrongBodyError(f"its Content-Encoding is not what it says: {error}") from error
        except MirrorError:
            # A Content-Length that lies must not cost a file of which every byte has come.
            if self.part.tell() < size:
                raise


def _resumes(status: int, headers: Mapping[str, str], received: int, size: int) -> bool:
    """Return whether the body goes on at byte ``received``, not at 0; raise if it is neither."""
    if status == 200:
        return False
    if status == 206 and headers.get("Content-Range") == f"bytes {received}-{size - 1}/{size}":
        return True
    again = status >= 500 or status in (206, 408, 416, 429)
    wait = _retry_after(headers.get("Retry-After", "0"), time()) if again else math.inf
    asks = f", asks to wait {wait:.0f} s" if 0 < wait < math.inf else ""
    raise MirrorError(f"HTTP {status} {responses.get(status, '')}{asks}", wait)


def _pause(attempts: int, wait: float) -> float:
    """Return the seconds to wait after so many attempts in vain, infinity to ask no more."""
    pause = max(_FIRST_PAUSE * 2.0 ** (attempts - 1), wait)
    return math.inf if attempts >= _ATTEMPTS or pause > _LONGEST_PAUSE else pause


def _retry_after(value: str, now: float) -> float:
    """Return the seconds that a Retry-After header asks for, 0 when it makes no sense."""
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return 0.0


def _validator(headers: Mapping[str, str]) -> str | None:
    """Return what If-Range may carry: a strong ETag, or the date where there is no ETag."""
    validator = headers.get("ETag", headers.get("Last-Modified", "W/"))
    return None if validator.startswith("W/") else validator
