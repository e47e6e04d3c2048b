"""Getting one pinned file: ``plan`` decides from the disk, ``fetch`` acts on the network."""

from __future__ import annotations

import hashlib
import math
import os
import socket
import stat
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse, responses
from pathlib import Path
from socket import gaierror
from ssl import SSLCertVerificationError
from threading import Event, Thread
from time import monotonic, sleep, time
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Literal
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from npsoftmax.errors import DataUnavailableError, InputError, OutputError
from npsoftmax.files import publish, remove_stale

if TYPE_CHECKING:
    import requests
    from tqdm import tqdm

__all__ = [
    "MirrorError",
    "Plan",
    "RemoteFile",
    "TIMEOUT_SECONDS",
    "Watchdog",
    "complaint",
    "download",
    "fetch",
    "network",
    "opened",
    "plan",
    "verify",
    "without_password",
]


# A file that is known to the byte before it is there, and the check that it is the one.

_HASHED_BYTES = 1 << 20


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
    while chunk := stream.read(_HASHED_BYTES):
        digest.update(chunk)
    sha256 = digest.hexdigest()
    return None if sha256 == file.sha256 else f"expected SHA-256 {file.sha256}, got {sha256}"


# One HTTP request whose every wait is bounded, and whose body stays as it was sent.
#
# What ``requests`` does not do by itself: it bounds each single read, not the time that header
# lines, chunk lines or a handshake take when they drip; and it reads the bodies of redirects into
# memory, however long they are, even when told not to follow them (psf/requests issue 5529).

_MAX_REDIRECTS = 5
_MAX_INTERIM = 10
# No repetition mends a machine that is offline, nor a certificate.
_HOPELESS = (gaierror, SSLCertVerificationError)
# The watchdog looks so often in the time that it allows.
_LOOKS = 4


class MirrorError(Exception):
    """Why a file did not come; asking again is of no use before ``wait`` seconds."""

    def __init__(self, reason: str, wait: float = math.inf) -> None:
        super().__init__(reason)
        self.wait = wait


class Watchdog:
    """Cut the connections of one request when too little comes, or when it takes too long.

    Parameters
    ----------
    least, seconds : int, float
        How many bytes of the body must come in how many seconds, the first ones included.
    left : float
        Seconds for the whole request.

    Attributes
    ----------
    received : int
        Bytes of the body so far; whoever reads it counts them.
    num_asked : int
        Requests so far, those of redirects included.
    reason : str or None
        Why it cut, if it did.
    """

    def __init__(self, least: int, seconds: float, left: float) -> None:
        self.received = self.num_asked = 0
        self.reason: str | None = None
        self._least, self._seconds, self._left = least, seconds, left
        self._connections = ExitStack()
        self._sockets: list[socket.socket] = []
        self._over = Event()
        self._thread = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watchdog:
        """Begin to watch."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Go home."""
        self._over.set()
        self._thread.join()
        self._connections.close()

    def attach(self, connection: socket.socket) -> None:
        """Watch a connection, by a duplicate that outlives the wrapping by TLS."""
        self._sockets.append(self._connections.enter_context(connection.dup()))

    def _watch(self) -> None:
        seen = deque([0], maxlen=1 + _LOOKS)
        end = monotonic() + self._left
        while not self._over.wait(max(0.01, min(self._seconds / _LOOKS, end - monotonic()))):
            seen.append(self.received)
            if monotonic() >= end:
                self.reason = "it took too long"
            elif len(seen) > _LOOKS and seen[-1] - seen[0] < self._least:
                self.reason = f"fewer than {self._least:,} bytes came in {self._seconds:g} s"
            # At each look: a redirect or a second address may have opened another one.
            for connection in list(self._sockets) if self.reason else []:
                with suppress(OSError):  # the other side has closed it already
                    connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def opened(
    url: str, headers: dict[str, str], timeouts: tuple[float, float], watchdog: Watchdog
) -> Iterator[requests.Response]:
    """Yield the answer at the end of at most five redirects, its body unread."""
    with _Session(watchdog) as session:
        session.headers["Accept-Encoding"] = "identity"
        for hop in range(_MAX_REDIRECTS + 1):
            try:
                watchdog.num_asked += 1
                with network():
                    response = session.get(url, headers=headers, stream=True, timeout=timeouts)
                with response:
                    if not response.is_redirect:
                        yield response
                        return
                    with network():
                        url = _redirect_target(url, response.headers["Location"])
            except MirrorError as error:
                if hop:
                    error.args = (f"{error} (redirected to {without_password(url)[:200]!r})",)
                raise
        raise MirrorError(
            f"more than {_MAX_REDIRECTS} redirects, the last to {without_password(url)[:200]!r}"
        )


def without_password(url: str) -> str:
    """Return an address as it may be shown.

    Examples
    --------
    >>> without_password("https://me:secret@example.org/data")
    'https://example.org/data'
    """
    scheme, mark, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"


@contextmanager
def network() -> Iterator[None]:
    """Turn network errors into a MirrorError; ``publish`` would take an OSError for the disk's."""
    try:
        yield
    except (OSError, HTTPError, HTTPException, ValueError) as error:
        cause = _root_cause(error)
        # No repetition mends a wrong address or header.
        hopeless = isinstance(error, ValueError) or isinstance(cause, _HOPELESS)
        # It may quote the server, whose bytes may be anything.
        text = str(cause)[:200].encode("unicode_escape").decode("ascii")
        reason = f"{type(cause).__name__}: {text}"
        raise MirrorError(reason, math.inf if hopeless else 0) from error


class _Session(requests.Session):
    def __init__(self, watchdog: Watchdog) -> None:
        super().__init__()
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter(watchdog))

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Follow no redirect, and so read no redirect's body."""


class _Adapter(HTTPAdapter):
    """Make connections that a watchdog watches, through a proxy too."""

    def __init__(self, watchdog: Watchdog) -> None:
        self._pools = _watched_pools(watchdog)
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Make the pools of direct connections."""
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        """Return the pools of connections through a proxy."""
        manager = super().proxy_manager_for(*args, **options)
        manager.pool_classes_by_scheme = self._pools
        return manager


class _Answer(HTTPResponse):
    """An answer that may be announced by a few interim ones, not by an endless row of them."""

    num_statuses = 0

    def _read_status(self) -> tuple[str, int, str]:
        self.num_statuses += 1
        if self.num_statuses > _MAX_INTERIM:
            raise HTTPException(f"more than {_MAX_INTERIM} interim answers")
        return super()._read_status()  # type: ignore[misc,no-any-return]


def _watched_pools(watchdog: Watchdog) -> dict[str, type[HTTPConnectionPool]]:
    class Plain(HTTPConnection):
        response_class = _Answer

        # Here and not in connect(), so that a handshake is watched too.
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


def _redirect_target(url: str, location: str) -> str:
    target = urljoin(url, location)
    allowed = ("https",) if urlsplit(url).scheme == "https" else ("http", "https")
    if urlsplit(target).scheme not in allowed:
        raise MirrorError(f"refused a redirect to {target[:200]!r}")
    return target


def _root_cause(error: BaseException) -> BaseException:
    """Return the innermost error; each layer hands its cause over as __cause__ or argument."""
    inner = next((e for e in (error.__cause__, *error.args) if isinstance(e, BaseException)), None)
    return _root_cause(inner) if inner else error


# How the bytes of a file come from its mirrors: turns, attempts, pauses, Range, deadlines.
#
# The SHA-256 alone judges the content. Status, headers and lengths only decide whether to ask
# again, and from which byte: servers, caches and captive portals lie about all of them.

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

    if not 0 < timeout < math.inf:
        raise InputError(f"timeout: expected a positive number of seconds, got {timeout}")
    path = folder / file.name
    remove_stale(folder)
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
