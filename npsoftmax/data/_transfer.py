"""How the bytes of a file come over HTTP: mirrors, attempts, redirects, Range, deadlines.

The SHA-256 alone judges the content. Status, headers and lengths only decide whether to ask
again, and from which byte: servers, caches and captive portals lie about all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import responses
from socket import gaierror
from time import monotonic, sleep, time
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urljoin, urlsplit

from npsoftmax.data.remote_file import RemoteFile, complaint

if TYPE_CHECKING:
    import requests
    from tqdm import tqdm

__all__ = ["MirrorError", "download"]

_ATTEMPTS = 4
_MAX_REDIRECTS = 5
_CONNECT_SECONDS = 10.0
_READ_SECONDS = 20.0
_LONGEST_PAUSE = 30.0
_CHUNK_BYTES = 65536


class MirrorError(Exception):
    """Why a file did not come; asking again is of no use before ``wait`` seconds."""

    def __init__(self, reason: str, wait: float = math.inf) -> None:
        super().__init__(reason)
        self.wait = wait


def download(
    file: RemoteFile, part: BinaryIO, mirrors: Sequence[str], timeout: float, progress: bool
) -> None:
    """Write ``file`` to ``part`` from the first mirror that delivers it, or raise MirrorError."""
    import requests
    from tqdm import tqdm

    class Session(requests.Session):
        # Even when told not to follow redirects, requests reads their bodies, however long.
        def get_redirect_target(self, resp: requests.Response) -> None:
            return None

    bar = tqdm(total=file.size, desc=file.name, unit="B", unit_scale=True, disable=not progress)
    with Session() as session, bar:
        session.headers["Accept-Encoding"] = "identity"
        Transfer(file, part, session, bar, monotonic() + timeout).run(mirrors)


@dataclass
class Transfer:
    """The bytes that have arrived in ``part``, and the time left for the others."""

    file: RemoteFile
    part: BinaryIO
    session: requests.Session
    bar: tqdm[Any]
    deadline: float
    validator: str | None = None

    def run(self, mirrors: Sequence[str]) -> None:
        """Ask one mirror after the other, each until another attempt makes no sense."""
        failures = []
        for mirror in mirrors:
            url = f"{mirror.rstrip('/')}/{self.file.name}"
            self.validator = None
            for attempt in range(_ATTEMPTS):
                try:
                    return self._attempt(url)
                except MirrorError as error:
                    failures.append(f"{url}: {error}")
                    pause = _pause(attempt, error.wait, self.deadline - monotonic())
                if pause is None:
                    break
                sleep(pause)
        raise MirrorError("; ".join(dict.fromkeys(failures)) or "no mirror was named")

    def _attempt(self, url: str) -> None:
        """Ask once and take in what comes; return only when it is the right file."""
        size = self.file.size
        with self._open(url) as response:
            self.validator = None
            if not _resumes(response.status_code, response.headers, self.part.tell(), size):
                self.part.seek(0)
                self.part.truncate()
                self.bar.reset()
            self.validator = _validator(response.headers)
            for chunk in self._body(response):
                if self.part.tell() + len(chunk) > size:
                    raise MirrorError(f"expected {size:,} bytes, got more", wait=0)
                self.part.write(chunk)
                self.bar.update(len(chunk))
        wrong = complaint(self.part, self.file)
        if wrong:
            raise MirrorError(wrong, wait=0)

    def _open(self, url: str) -> requests.Response:
        """Return the answer at the end of at most five redirects, its body unread."""
        headers, received = {}, self.part.tell()
        if self.validator and 0 < received < self.file.size:
            headers = {"Range": f"bytes={received}-", "If-Range": self.validator}
        for _ in range(_MAX_REDIRECTS + 1):
            left = self._seconds_left()
            timeouts = min(_CONNECT_SECONDS, left), min(_READ_SECONDS, left)
            with _network():
                response = self.session.get(url, headers=headers, stream=True, timeout=timeouts)
                if not response.is_redirect:
                    return response
                response.close()
                url = _redirect_target(url, response.headers["Location"])
        raise MirrorError(f"more than {_MAX_REDIRECTS} redirects")

    def _body(self, response: requests.Response) -> Iterator[bytes]:
        """Yield the bytes as they were sent, until the end, a fault or the deadline."""
        try:
            with _network():
                # read1 gives what has come, so that a dripping server meets the deadline too.
                while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=False):
                    self._seconds_left()
                    yield chunk
        except MirrorError:
            # A Content-Length that lies must not cost a file of which every byte has come.
            if self.part.tell() < self.file.size:
                raise

    def _seconds_left(self) -> float:
        left = self.deadline - monotonic()
        if left <= 0:
            raise MirrorError("the timeout for the whole download is over")
        return left


def _resumes(status: int, headers: Mapping[str, str], received: int, size: int) -> bool:
    """Return whether the body goes on at byte ``received``, not at 0; raise if it is neither."""
    if status == 200:
        return False
    if status == 206 and headers.get("Content-Range") == f"bytes {received}-{size - 1}/{size}":
        return True
    again = status >= 500 or status in (206, 408, 416, 429)
    wait = _retry_after(headers.get("Retry-After", "0"), time()) if again else math.inf
    raise MirrorError(f"HTTP {status} {responses.get(status, '')}", wait)


def _pause(attempt: int, wait: float, left: float) -> float | None:
    """Return the seconds to wait after ``attempt``, None when there shall be no other."""
    pause = max(2.0**attempt, wait)
    return None if attempt == _ATTEMPTS - 1 or pause > min(_LONGEST_PAUSE, left) else pause


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


def _redirect_target(url: str, location: str) -> str:
    target = urljoin(url, location)
    allowed = ("https",) if urlsplit(url).scheme == "https" else ("http", "https")
    if urlsplit(target).scheme not in allowed:
        raise MirrorError(f"refused a redirect to {target[:200]!r}")
    return target


@contextmanager
def _network() -> Iterator[None]:
    """Turn network errors into a MirrorError; ``publish`` would take an OSError for the disk's."""
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (OSError, HTTPError, ValueError) as error:
        cause = _root_cause(error)
        # No repetition mends a wrong address or header, nor a machine that is offline.
        hopeless = isinstance(error, ValueError) or isinstance(cause, gaierror)
        reason = f"{type(cause).__name__}: {str(cause)[:200]}"
        raise MirrorError(reason, math.inf if hopeless else 0) from error


def _root_cause(error: BaseException) -> BaseException:
    """Return the innermost error; each layer hands its cause over as __cause__ or argument."""
    inner = next((e for e in (error.__cause__, *error.args) if isinstance(e, BaseException)), None)
    return _root_cause(inner) if inner else error
