"""One HTTP request whose every wait is bounded, and whose body stays as it was sent.

What ``requests`` does not do by itself: it bounds each single read, not the time that header
lines, chunk lines or a handshake take when they drip; and it reads the bodies of redirects into
memory, however long they are, even when told not to follow them (psf/requests issue 5529).
"""

from __future__ import annotations

import math
import socket
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPException, HTTPResponse
from socket import gaierror
from ssl import SSLCertVerificationError
from threading import Event, Thread
from time import monotonic
from types import TracebackType
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

__all__ = ["MirrorError", "Watchdog", "network", "opened", "without_password"]

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
