"""Verified downloads of single files whose size and SHA-256 are known in advance.

``verify`` decides from the disk and ``fetch`` acts on the network. The SHA-256 alone judges the
content. Status, headers and lengths only decide whether to ask again, and from which byte:
servers, caches and captive portals are wrong about all of them.

The libraries of the network are imported inside functions: they are slow to load, and most runs
download nothing.
"""

from __future__ import annotations

import hashlib
import math
import os
import stat
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep, time
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urljoin, urlsplit

from npsoftmax.errors import DataUnavailableError, InputError, OutputError
from npsoftmax.files import publish, quoted, remove_stale

if TYPE_CHECKING:
    import socket

    import requests
    from tqdm import tqdm
    from urllib3.connectionpool import HTTPConnectionPool

__all__ = ["TIMEOUT_SECONDS", "RemoteFile", "fetch", "verify"]

TIMEOUT_SECONDS = 300.0

_HASHED_BYTES = 1 << 20


@dataclass(frozen=True)
class RemoteFile:
    """A file with a name without folders, a size in bytes, and a SHA-256 in lower-case hexadecimal.

    Examples
    --------
    >>> RemoteFile("hello.txt", 5, hashlib.sha256(b"hello").hexdigest()).size
    5
    """

    name: str
    size: int
    sha256: str

    def __post_init__(self) -> None:
        """Refuse a name that would leave the data folder."""
        if Path(self.name).name != self.name or self.name in {"", ".."}:
            raise InputError(f"name: expected a bare file name, got {self.name!r}")

    def __str__(self) -> str:
        """Return everything that is needed to find the file elsewhere."""
        return f"{self.name} ({self.size:,} bytes, SHA-256 {self.sha256})"

    def mismatch(self, stream: BinaryIO) -> str | None:
        """Return how the content of ``stream`` differs from this file, None if it does not."""
        size = stream.seek(0, os.SEEK_END)
        if size != self.size:
            return f"expected {self.size:,} bytes, got {size:,}"
        stream.seek(0)
        digest = hashlib.sha256()
        while chunk := stream.read(_HASHED_BYTES):
            digest.update(chunk)
        sha256 = digest.hexdigest()
        return None if sha256 == self.sha256 else f"expected SHA-256 {self.sha256}, got {sha256}"


def verify(path: Path, file: RemoteFile) -> str | None:
    """Return None if ``path`` holds ``file``, else a sentence that says what is wrong.

    Examples
    --------
    >>> verify(Path("no/hello.txt"), RemoteFile("hello.txt", 5, 64 * "0"))
    'no/hello.txt is missing'
    """
    name = quoted(path)
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            return f"{name} is a {'folder' if stat.S_ISDIR(mode) else 'device'}, expected a file"
        with path.open("rb") as stream:
            mismatch = file.mismatch(stream)
    except FileNotFoundError:
        return f"{name} is missing"
    except (OSError, ValueError) as error:  # ValueError: the name contains a NUL
        return f"{name} cannot be read: {getattr(error, 'strerror', None) or error}"
    return mismatch and f"{name}: {mismatch}"


def fetch(
    file: RemoteFile,
    folder: Path,
    mirrors: Sequence[str],
    *,
    timeout: float = TIMEOUT_SECONDS,
    progress: bool = False,
    identify: Callable[[BinaryIO], str] = lambda _: "",
) -> Path:
    """Download ``file`` into ``folder`` from the first mirror that delivers it; return its path.

    The file gets its name only when its SHA-256 is right; an existing file stays until then. No
    more than ``file.size`` bytes are written. Every error, including one from the disk, is a
    DataUnavailableError.

    Parameters
    ----------
    file, folder : RemoteFile, Path
        The file, and where to store it; a missing folder is created.
    mirrors : sequence of str
        Base URLs to which the file name is appended. They take turns in this order: after a
        failure the next mirror is asked at once, and the same one again after a pause.
    timeout : float
        Seconds for all mirrors, attempts and pauses together. No single wait is longer than a
        quarter of it, or than 20 s. The download also ends after 100 s without progress.
    progress : bool
        Whether to show a progress bar on stderr.
    identify : callable
        Called with a wrong file; returns text to append to the error message.

    Examples
    --------
    >>> fetch(RemoteFile("hello.txt", 5, 64 * "0"), Path("data"), mirrors=[])
    ... # doctest: +ELLIPSIS
    Traceback (most recent call last):
    npsoftmax.errors.DataUnavailableError: cannot download hello.txt: no mirror was named; ...
    """
    from tqdm import tqdm

    if not 0 < timeout < math.inf:
        raise InputError(f"timeout: expected a positive number of seconds, got {timeout}")
    path = folder / file.name
    remove_stale(folder)
    places = [_Mirror(f"{mirror.rstrip('/')}/{file.name}") for mirror in mirrors]
    bar = tqdm(total=file.size, desc=file.name, unit="B", unit_scale=True, disable=not progress)
    try:
        # A link that led to another file is replaced: that file is not ours.
        with bar, publish(path, follow_links=False) as part:
            _Transfer(file, part, bar, identify, timeout).run(places)
    except MirrorError as error:
        raise DataUnavailableError(
            f"cannot download {file.name}: {error}; "
            f"name another mirror, or put {file} into {quoted(folder)} by hand"
        ) from error
    except OutputError as error:
        place = quoted(folder)
        raise DataUnavailableError(f"cannot download {file.name} to {place}: {error}") from error
    return path


# From several mirrors to one file: turns, retries, resumed transfers and deadlines.


class MirrorError(Exception):
    """A mirror failed; it may be asked again after ``wait`` seconds (inf: never)."""

    def __init__(self, reason: str, wait: float = math.inf) -> None:
        super().__init__(reason)
        self.wait = wait


class WrongBodyError(MirrorError):
    """A mirror sent a whole body that is not the file."""


@dataclass
class _Mirror:
    """A mirror, its failures, and when it may be asked again."""

    url: str
    ready: float = 0.0
    attempts: int = 0
    num_requests: int = 1  # of the last attempt, redirects included
    furthest: int = 0  # the largest number of bytes that it has delivered
    wrong_bodies: int = 0
    undo_gzip: bool = False
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Return the address and the reasons of all failures."""
        return f"{_without_password(self.url)}: {'; then '.join(dict.fromkeys(self.failures))}"


# Failed attempts at one mirror, and failed requests to all of them once each has been asked.
_MAX_ATTEMPTS = 4
_MAX_REQUESTS = 10
# A wrong body of full length is requested again: the network on the way may have changed it.
_MAX_WRONG_BODIES = 2
_CONNECT_SECONDS = 10.0
_READ_SECONDS = 20.0
_PATIENCE_SECONDS = 100.0
_FIRST_PAUSE_SECONDS = 1.0
_MAX_PAUSE_SECONDS = 30.0
# Fewer bytes in _READ_SECONDS count as silence.
_MIN_BYTES = 16 * 1024
# A mirror that delivers this many bytes more than ever before is asked for the rest at once.
_PROGRESS_BYTES = 64 * 1024
_CHUNK_BYTES = 64 * 1024


@dataclass
class _Transfer:
    """The bytes received so far in ``part``, their origin, and the time left."""

    file: RemoteFile
    part: BinaryIO
    bar: tqdm[Any]
    identify: Callable[[BinaryIO], str]
    timeout: float
    _failed_requests: int = 0
    # The mirror that sent ``part``, and the validator for the rest.
    _origin: tuple[_Mirror, str] | None = None

    def __post_init__(self) -> None:
        self._deadline = monotonic() + self.timeout
        self._patience = monotonic() + _PATIENCE_SECONDS
        # A short timeout must leave time for a second attempt.
        self._max_wait = min(_READ_SECONDS, self.timeout / 4)

    def run(self, mirrors: Sequence[_Mirror]) -> None:
        """Ask the mirrors in turn until the file is whole; raise MirrorError if none delivers."""
        while mirror := self._next(mirrors):
            before = mirror.furthest
            try:
                self._ask(mirror)
                return
            except MirrorError as error:
                mirror.failures.append(str(error))
                if error.wait == 0 and mirror.furthest > before:
                    mirror.ready = 0.0  # it delivers the file in pieces
                else:
                    self._failed_requests += mirror.num_requests
                    mirror.attempts += 1
                    mirror.ready = monotonic() + _pause(mirror.attempts, error.wait)
        reasons = [str(mirror) for mirror in mirrors if mirror.failures]
        if self._seconds_left() <= 0:
            reasons.append(f"gave up when {self._limit}")
        raise MirrorError("; ".join(reasons) or "no mirror was named")

    def _next(self, mirrors: Sequence[_Mirror]) -> _Mirror | None:
        """Wait for the next mirror; return None if no further attempt makes sense."""
        # Asking again must stay within the limit if the mirror redirects as often as last time.
        left = [
            mirror
            for mirror in mirrors
            if not mirror.attempts or self._failed_requests + mirror.num_requests <= _MAX_REQUESTS
        ]
        mirror = min(left, key=lambda mirror: mirror.ready, default=None)
        if mirror is None:
            return None
        pause = max(0.0, mirror.ready - monotonic())
        if pause >= self._seconds_left():
            return None
        if pause:
            sleep(pause)
        return mirror

    def _ask(self, mirror: _Mirror) -> None:
        """Make one request; raise MirrorError unless it completes the file."""
        with _Watchdog(self._max_wait, self._deadline - monotonic()) as watchdog:
            try:
                self._receive(mirror, watchdog)
                self._check(watchdog)
            except WrongBodyError as error:
                mirror.wrong_bodies += 1
                error.wait = 0 if mirror.wrong_bodies < _MAX_WRONG_BODIES else math.inf
                raise
            except MirrorError as error:
                raise (MirrorError(watchdog.reason, 0) if watchdog.reason else error) from error
            finally:
                mirror.num_requests = max(1, watchdog.num_requests)

    def _receive(self, mirror: _Mirror, watchdog: _Watchdog) -> None:
        """Append one response to ``part``, or replace ``part`` by it."""
        wait = min(self._max_wait, self._seconds_left())
        if wait <= 0:
            raise MirrorError(self._limit)
        timeouts = min(_CONNECT_SECONDS, wait), wait
        with _open_url(mirror.url, self._range(mirror), timeouts, watchdog) as response:
            status, headers = response.status_code, response.headers
            self._origin = None
            if not _resumes(status, headers, self.part.tell(), self.file.size):
                self.part.seek(0)
                self.part.truncate()
                self.bar.reset()
            labelled = headers.get("Content-Encoding", "").lower() in ("gzip", "x-gzip")
            inflater = zlib.decompressobj(31) if labelled and mirror.undo_gzip else None
            mirror.undo_gzip = labelled  # in case the bytes as sent are not the file
            # For If-Range: a strong ETag, or the date if there is no ETag.
            validator = headers.get("ETag", headers.get("Last-Modified", "W/"))
            if not (inflater or validator.startswith("W/")):
                self._origin = mirror, validator
            for chunk in self._body(response, inflater, watchdog):
                if self.part.tell() + len(chunk) > self.file.size:
                    raise WrongBodyError(f"expected {self.file.size:,} bytes, got more")
                self.part.write(chunk)
                self.bar.update(len(chunk))
                if self.part.tell() >= mirror.furthest + _PROGRESS_BYTES:
                    mirror.furthest = self.part.tell()
                    self._patience = monotonic() + _PATIENCE_SECONDS

    def _range(self, mirror: _Mirror) -> dict[str, str]:
        """Return the headers that request the rest of ``part`` from the mirror that sent it."""
        received = self.part.tell()
        if self._origin and self._origin[0] is mirror and 0 < received < self.file.size:
            return {"Range": f"bytes={received}-", "If-Range": self._origin[1]}
        return {}

    def _body(
        self, response: requests.Response, inflater: Any, watchdog: _Watchdog
    ) -> Iterator[bytes]:
        """Yield the body as it was sent, or inflated, until its end, an error or a limit."""
        size = self.file.size
        try:
            with _network_errors_as_ours():
                # read1 returns what has arrived, so a dripping server meets the deadline too.
                while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=False):
                    watchdog.received += len(chunk)
                    if self._seconds_left() <= 0:
                        raise MirrorError(self._limit)
                    if watchdog.received > size + _CHUNK_BYTES:
                        raise WrongBodyError(f"expected {size:,} bytes, got more")
                    if inflater:
                        chunk = inflater.decompress(chunk, size + 1 - self.part.tell())
                    yield chunk
        except zlib.error as error:
            raise WrongBodyError(f"the body is not what Content-Encoding says: {error}") from error
        except MirrorError:
            # A wrong Content-Length must not cost a file that has arrived completely.
            if self.part.tell() < size:
                raise

    def _check(self, watchdog: _Watchdog) -> None:
        """Raise MirrorError unless ``part`` is the file."""
        mismatch = self.file.mismatch(self.part)
        if mismatch:
            mismatch += self.identify(self.part)
            size = self.part.seek(0, os.SEEK_END)
            if watchdog.reason or size < self.file.size:
                raise MirrorError(mismatch, 0)
            raise WrongBodyError(mismatch)

    @property
    def _limit(self) -> str:
        """The limit that is reached first, in words."""
        if self._patience < self._deadline:
            return f"nothing new had come for {_PATIENCE_SECONDS:g} s"
        return f"the timeout of {self.timeout:g} s for the whole file was over"

    def _seconds_left(self) -> float:
        return min(self._deadline, self._patience) - monotonic()


def _resumes(status: int, headers: Mapping[str, str], received: int, size: int) -> bool:
    """Return whether the body starts at byte ``received`` instead of 0; raise if at neither."""
    from http.client import responses

    if status == 200:
        return False
    if status == 206 and headers.get("Content-Range") == f"bytes {received}-{size - 1}/{size}":
        return True
    again = status >= 500 or status in (206, 408, 416, 429)
    wait = _retry_after(headers.get("Retry-After", "0"), time()) if again else math.inf
    asks = f", asks to wait {wait:.0f} s" if 0 < wait < math.inf else ""
    raise MirrorError(f"HTTP {status} {responses.get(status, '')}{asks}", wait)


def _pause(attempts: int, wait: float) -> float:
    """Return the seconds to wait after ``attempts`` failed attempts, infinity to give up."""
    pause = max(_FIRST_PAUSE_SECONDS * 2.0 ** (attempts - 1), wait)
    return math.inf if attempts >= _MAX_ATTEMPTS or pause > _MAX_PAUSE_SECONDS else pause


def _retry_after(value: str, now: float) -> float:
    """Return the seconds that a Retry-After header asks for, 0 if it makes no sense."""
    from email.utils import parsedate_to_datetime

    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return 0.0


# One HTTP request with bounded waits, and with its body as it was sent. ``requests`` by itself
# bounds each single read, but not header lines, chunk lines or a handshake that drip; and it reads
# the bodies of redirects into memory, even when told not to follow them (psf/requests issue 5529).

_MAX_REDIRECTS = 5
_MAX_INTERIM_ANSWERS = 10


@contextmanager
def _open_url(
    url: str, headers: dict[str, str], timeouts: tuple[float, float], watchdog: _Watchdog
) -> Iterator[requests.Response]:
    """Follow at most five redirects, and yield the last response with its body unread."""
    with _watched_session(watchdog) as session:
        session.headers["Accept-Encoding"] = "identity"
        for hop in range(_MAX_REDIRECTS + 1):
            try:
                watchdog.num_requests += 1
                with _network_errors_as_ours():
                    response = session.get(url, headers=headers, stream=True, timeout=timeouts)
                with response:
                    if not response.is_redirect:
                        yield response
                        return
                    with _network_errors_as_ours():
                        url = _redirect_target(url, response.headers["Location"])
            except MirrorError as error:
                if hop:
                    error.args = (f"{error} (redirected to {_without_password(url)[:200]!r})",)
                raise
        last = _without_password(url)[:200]
        raise MirrorError(f"more than {_MAX_REDIRECTS} redirects, the last to {last!r}")


def _redirect_target(url: str, location: str) -> str:
    target = urljoin(url, location)
    allowed = ("https",) if urlsplit(url).scheme == "https" else ("http", "https")
    if urlsplit(target).scheme not in allowed:
        raise MirrorError(f"refused a redirect to {target[:200]!r}")
    return target


def _without_password(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"


@contextmanager
def _network_errors_as_ours() -> Iterator[None]:
    """Raise network errors as MirrorError; ``publish`` would take an OSError for a disk error."""
    from http.client import HTTPException
    from socket import gaierror
    from ssl import SSLCertVerificationError

    from urllib3.exceptions import HTTPError

    try:
        yield
    except (OSError, HTTPError, HTTPException, ValueError) as error:
        cause = _root_cause(error)
        # Retrying cannot fix DNS or certificate errors, nor an invalid address or header.
        final = isinstance(cause, gaierror | SSLCertVerificationError)
        wait = math.inf if final or isinstance(error, ValueError) else 0
        # The text may quote any bytes from the server.
        text = str(cause)[:200].encode("unicode_escape").decode("ascii")
        raise MirrorError(f"{type(cause).__name__}: {text}", wait) from error


def _root_cause(error: BaseException) -> BaseException:
    """Return the innermost error; each layer passes its cause as __cause__ or as an argument."""
    inner = next((e for e in (error.__cause__, *error.args) if isinstance(e, BaseException)), None)
    return _root_cause(inner) if inner else error


_LOOKS_PER_PERIOD = 4


class _Watchdog:
    """Cut the connections of one request if it gets too few bytes or takes too long.

    At least ``_MIN_BYTES`` of the body must arrive in every ``period`` of seconds, the first one
    included, and the whole request may take ``max_seconds``.
    """

    def __init__(self, period: float, max_seconds: float) -> None:
        self.received = 0  # bytes of the body; the reader counts them
        self.num_requests = 0  # redirects included
        self.reason: str | None = None  # why the connections were cut
        self._period, self._max_seconds = period, max_seconds
        self._connections = ExitStack()
        self._sockets: list[socket.socket] = []
        self._done = Event()
        self._thread = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._connections.close()

    def attach(self, connection: socket.socket) -> None:
        """Watch a connection through a duplicate, which survives the wrapping by TLS."""
        self._sockets.append(self._connections.enter_context(connection.dup()))

    def _watch(self) -> None:
        from socket import SHUT_RDWR

        seen = deque([0], maxlen=1 + _LOOKS_PER_PERIOD)
        end = monotonic() + self._max_seconds
        pause = self._period / _LOOKS_PER_PERIOD
        while not self._done.wait(max(0.01, min(pause, end - monotonic()))):
            seen.append(self.received)
            if monotonic() >= end:
                self.reason = "it took too long"
            elif len(seen) > _LOOKS_PER_PERIOD and seen[-1] - seen[0] < _MIN_BYTES:
                self.reason = f"fewer than {_MIN_BYTES:,} bytes came in {self._period:g} s"
            # At each check: a redirect or a second address may have opened another connection.
            for connection in list(self._sockets) if self.reason else []:
                with suppress(OSError):  # the other side has closed it already
                    connection.shutdown(SHUT_RDWR)


def _watched_session(watchdog: _Watchdog) -> requests.Session:
    """Return a session whose connections are watched, through a proxy too."""
    import requests
    from requests.adapters import HTTPAdapter

    class Session(requests.Session):
        def get_redirect_target(self, resp: requests.Response) -> None:
            """Follow no redirect, so that no body of one is read."""

    class Adapter(HTTPAdapter):
        def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
            manager = super().proxy_manager_for(*args, **options)
            manager.pool_classes_by_scheme = pools
            return manager

    pools = _watched_pools(watchdog)
    session, adapter = Session(), Adapter()
    adapter.poolmanager.pool_classes_by_scheme = pools
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


def _watched_pools(watchdog: _Watchdog) -> dict[str, type[HTTPConnectionPool]]:
    from http.client import HTTPException, HTTPResponse

    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

    class Response(HTTPResponse):
        num_statuses = 0

        def _read_status(self) -> tuple[str, int, str]:
            """Read a status line; a server may send interim answers (1xx) without end."""
            self.num_statuses += 1
            if self.num_statuses > _MAX_INTERIM_ANSWERS:
                raise HTTPException(f"more than {_MAX_INTERIM_ANSWERS} interim answers")
            return super()._read_status()  # type: ignore[misc,no-any-return]

    class Plain(HTTPConnection):
        response_class = Response

        # Not in connect(), so that a TLS handshake is watched too.
        def _new_conn(self) -> socket.socket:
            connection = super()._new_conn()
            watchdog.attach(connection)
            return connection

    class Secure(Plain, HTTPSConnection):
        pass

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}
