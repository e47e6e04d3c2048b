"""Faults of servers, networks and folders that a download must survive.

Each one ends in one of two ways: with the right file, or with an error and nothing changed.
"""

from __future__ import annotations

import gzip
import os
import random
import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from email.utils import formatdate
from functools import cache
from pathlib import Path
from time import time
from typing import Any, Literal

from faulty_server import Answer, Request, Step

__all__ = ["FAULTS", "INTERRUPTIONS", "NAME", "STAMPEDE", "Fault", "disk_of"]

# A file name that Fashion-MNIST and MNIST share.
NAME = "t10k-images-idx3-ubyte.gz"
# The name of a temporary file that an interrupted download leaves.
PART = f".{NAME}.0123456789abcdef.part"
DRIP_SECONDS = 0.5
MEGABYTE = 1_000_000

Answers = Callable[[bytes], Sequence[Answer]]
# A context manager around the download, called with the data folder and the right bytes.
Surroundings = Callable[[Path, bytes], AbstractContextManager[None]]


@contextmanager
def empty(folder: Path, right: bytes) -> Iterator[None]:
    """Create an empty folder."""
    folder.mkdir()
    yield


@dataclass(frozen=True)
class Fault:
    """One fault, the outcome that is expected, and the limits of its cost.

    Attributes
    ----------
    id, fault : str
        A name and a description.
    expected : "file", "error" or "either"
        The expected outcome.
    answers : callable, optional
        Returns the answers to successive requests from the right bytes; the last one is repeated.
        None if nothing listens.
    says : str
        A pattern that the error must match.
    surroundings : callable, optional
        The content of the folder before the download, and other conditions. Default: empty.
    obeys_modes : bool
        Whether the download must run as a user for whom the mode of a folder matters, unlike root.
    max_requests, max_sent, max_seconds : int, int, float
        Limits of the requests, of the bytes of bodies that the server sends, and of the seconds
        with default settings.
    min_seconds : float
        The least time that the client must wait.
    """

    id: str
    fault: str
    expected: Literal["file", "error", "either"]
    answers: Answers | None = None
    says: str = ""
    surroundings: Surroundings = empty
    obeys_modes: bool = False
    max_requests: int = 10
    max_sent: int = 60 * MEGABYTE
    max_seconds: float = 120
    min_seconds: float = 0


# Answers


def whole(right: bytes) -> list[Answer]:
    """Answer correctly."""
    return [Step(right)]


def always(*answers: Answer) -> Answers:
    """Give these answers, and repeat the last one."""
    return lambda right: answers


def once(*answers: Answer) -> Answers:
    """Give these answers, then the right one."""
    return lambda right: [*answers, Step(right)]


def cut(right: bytes, at: int | None = None, **options: Any) -> Step:
    """Stop a body in the middle, or at byte ``at``; Range can request the rest."""
    headers = {"Content-Length": str(len(right)), **ETAG}
    return Step(right[: len(right) // 2 if at is None else at], headers=headers, **options)


def resume(right: bytes, request: Request, max_bytes: int, **options: Any) -> Step:
    """Honour Range, but send at most ``max_bytes``."""
    start = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
    step = part_of(start, len(right) - 1, len(right), right[start : start + max_bytes])
    length = {"Content-Length": str(len(right) - start)}
    return replace(
        step, status=206 if start else 200, headers={**step.headers, **length}, **options
    )


def reset_every_megabyte(right: bytes) -> list[Answer]:
    """Honour Range, but never send more than a megabyte."""
    return [lambda request: resume(right, request, MEGABYTE, ending="reset")]


def cut_then(rest: Callable[[bytes, int, int], Step]) -> Answers:
    """Cut the first answer; answer a Range with ``rest(right, received, size)``."""

    def answers(right: bytes) -> list[Answer]:
        received, size = len(right) // 2, len(right)

        def answer(request: Request) -> Step:
            asked_for_rest = request.headers.get("Range") == f"bytes={received}-"
            return rest(right, received, size) if asked_for_rest else Step(right)

        return [cut(right), answer]

    return answers


def part_of(start: int, end: int, total: object, body: bytes, tag: str = '"v1"') -> Step:
    """Send a part of the file."""
    headers = {"ETag": tag, "Content-Range": f"bytes {start}-{end}/{total}"}
    return Step(body, status=206, headers=headers)


def redirect(location: str | None, status: int = 302) -> Step:
    """Redirect, without a body."""
    return Step(status=status, headers={"Location": location})


def to_another_host(request: Request) -> Step:
    """Redirect to the same server by another name."""
    host = request.headers["Host"].replace("127.0.0.1", "localhost")
    return redirect(f"http://{host}/cdn/{NAME}?v=1")


def portal(request: Request) -> Step:
    """Redirect to a login page, as in hotels."""
    return LOGIN if request.path == "/login" else redirect("/login")


def redirect_twice(request: Request) -> Step:
    """Redirect to a server that redirects to a broken one."""
    target = {f"/{NAME}": "/first", "/first": "/second"}.get(request.path)
    return redirect(target) if target else Step(status=500)


def busy(retry_after: str, status: int = 503) -> Step:
    """Refuse for now, with a Retry-After header."""
    return Step(status=status, headers={"Retry-After": retry_after})


def busy_until(request: Request) -> Step:
    """Answer 503 with a Retry-After date in two seconds."""
    return busy(formatdate(time() + 2, usegmt=True))


def raw(reply: bytes, **options: Any) -> Step:
    """Send bytes without adding a status line or headers."""
    return Step(reply, status=None, **options)


def good_reply(right: bytes, length: bytes = b"") -> bytes:
    """Return a whole correct reply, with given header lines for its length."""
    length = length or b"Content-Length: %d\r\n" % len(right)
    return b"HTTP/1.1 200 OK\r\n" + length + b"\r\n" + right


def chunks(*bodies: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    """Return the bodies as chunks."""
    return b"".join(b"%x\r\n%s\r\n" % (len(body), body) for body in bodies) + end


def halves(right: bytes) -> tuple[bytes, bytes]:
    """Return the first and the second half."""
    return right[: len(right) // 2], right[len(right) // 2 :]


def dripping(body: bytes, **options: Any) -> Step:
    """Send single bytes with pauses."""
    return Step(body, drip=DRIP_SECONDS, **options)


def flood(block: bytes, **options: Any) -> Step:
    """Repeat the block up to 256 MiB, which is more than any client may accept."""
    block *= max(1, 65_536 // len(block))
    return Step(block, repeat=(1 << 28) // len(block), **options)


# Wrong bodies


def flipped(right: bytes) -> bytes:
    """Return the bytes with one bit in the middle flipped."""
    middle = len(right) // 2
    return right[:middle] + bytes([right[middle] ^ 1]) + right[middle + 1 :]


def zero_tail(right: bytes) -> bytes:
    """Return the bytes with a second half of zeros."""
    return right[: len(right) // 2].ljust(len(right), b"\0")


@cache
def foreign() -> bytes:
    """Return a valid file of about the size that MNIST has under this name."""
    return gzip.compress(random.Random(1).randbytes(1_648_000), mtime=0)


@cache
def bomb() -> bytes:
    """Return two megabytes that unpack to two gigabytes of zeros."""
    return gzip.compress(bytes(1 << 26), mtime=0) * 32


# Headers and steps that several faults share
NO_LENGTH = {"Content-Length": None}
CHUNKED = {**NO_LENGTH, "Transfer-Encoding": "chunked"}
GZIPPED = {"Content-Encoding": "gzip"}
ETAG = {"ETag": '"v1"'}
LOGIN = Step(b"<!DOCTYPE html><title>Welcome to the airport</title><p>Please log in.")
SILENCE = Step(status=None, ending="silence")
RESET = Step(status=None, ending="reset")
HANG_UP = Step(status=None)
AGAIN = {"Location": "again"}
LINE = b"X-Header: and another\r\n"

# Patterns of errors
WRONG_BODY = r"expected (SHA-256|[\d,]+ bytes).*, got"
TOO_LITTLE = r"(?i)timeout|timed out|fewer|nothing new"


# The folder


def existing(content: Callable[[bytes], bytes], name: str = NAME, age: float = 0) -> Surroundings:
    """Put a file into the folder, written ``age`` seconds ago."""

    @contextmanager
    def surroundings(folder: Path, right: bytes) -> Iterator[None]:
        folder.mkdir()
        (folder / name).write_bytes(content(right))
        os.utime(folder / name, (time() - age, time() - age))
        yield

    return surroundings


@contextmanager
def file_for_folder(folder: Path, right: bytes) -> Iterator[None]:
    """Put a file where the folder should be."""
    folder.write_bytes(b"not a folder")
    yield


@contextmanager
def folder_for_file(folder: Path, right: bytes) -> Iterator[None]:
    """Put a folder where the file should be."""
    (folder / NAME).mkdir(parents=True)
    yield


@contextmanager
def pipe_for_file(folder: Path, right: bytes) -> Iterator[None]:
    """Put a pipe where the file should be; opening it blocks."""
    folder.mkdir()
    os.mkfifo(folder / NAME)
    yield


def linked(content: bytes | None) -> Surroundings:
    """Put a link where the file should be: to another file, or to nothing."""

    @contextmanager
    def surroundings(folder: Path, right: bytes) -> Iterator[None]:
        folder.mkdir()
        (folder / NAME).symlink_to(folder.parent / "elsewhere")
        if content is not None:
            (folder.parent / "elsewhere").write_bytes(content)
        yield

    return surroundings


@contextmanager
def linked_folder(folder: Path, right: bytes) -> Iterator[None]:
    """Make the folder a link to another one."""
    (folder.parent / "elsewhere").mkdir()
    folder.symlink_to(folder.parent / "elsewhere")
    yield


def read_only(content: Callable[[bytes], bytes] | None) -> Surroundings:
    """Put a file, or none, into a read-only folder."""

    @contextmanager
    def surroundings(folder: Path, right: bytes) -> Iterator[None]:
        folder.mkdir()
        if content:
            (folder / NAME).write_bytes(content(right))
        folder.chmod(0o555)
        try:
            yield
        finally:
            folder.chmod(0o755)

    return surroundings


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """Limit the size of the files that this process and its children write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def full_disk(folder: Path, right: bytes) -> Iterator[None]:
    """Make the disk full after half of the file."""
    folder.mkdir()
    with disk_of(len(right) // 2):
        yield


def umask(mask: int) -> Surroundings:
    """Set the umask."""

    @contextmanager
    def surroundings(folder: Path, right: bytes) -> Iterator[None]:
        folder.mkdir()
        before = os.umask(mask)
        try:
            yield
        finally:
            os.umask(before)

    return surroundings


# fmt: off
SERVERS = (
    Fault("H01", "all is well", "file", whole, max_requests=1),
    Fault("H02", "503 with Retry-After: 1, twice", "file",
          once(busy("1"), busy("1")), min_seconds=2),
    Fault("H03", "503 with a date as Retry-After, once", "file", once(busy_until), min_seconds=1),
    Fault("H04", "500, then 502", "file", once(Step(status=500), Step(status=502))),
    Fault("H05", "500 for ever", "error", always(Step(status=500)), "HTTP 500"),
    Fault("H06", "404", "error",
          always(Step(status=404)), "HTTP 404", max_requests=1, max_seconds=15),
    Fault("H07", "403", "error", always(Step(status=403)), "HTTP 403", max_requests=1),
    Fault("H08", "429 with Retry-After: 3600", "error",
          always(busy("3600", 429)), "HTTP 429", max_requests=1, max_seconds=40),
    Fault("H09", "HEAD refused with 405", "file", whole, max_requests=1),
    Fault("H10", "410", "error", always(Step(status=410)), "HTTP 410", max_requests=1),
    Fault("H11", "503 with Retry-After: soon, once", "file", once(busy("soon"))),
    Fault("H12", "503 with Retry-After: -5, once", "file", once(busy("-5"))),
    Fault("H13", "503 with Retry-After in 1970, once", "file",
          once(busy(formatdate(0, usegmt=True)))),
    Fault("H14", "503 with Retry-After in 9999", "error",
          always(busy("Fri, 31 Dec 9999 23:59:59 GMT")), "HTTP 503", max_requests=1),
    Fault("H15", "503 with Retry-After of 5,000 digits", "error",
          always(busy(5000 * "9")), "HTTP 503", max_requests=1),
    Fault("H16", "204 for ever", "error", always(Step(status=204)), "HTTP 204"),
    Fault("H17", "408, then 429 without Retry-After", "file",
          once(Step(status=408), Step(status=429))),
)

TRANSPORT = (
    Fault("T01", "reset in mid-body, once", "file", lambda r: [cut(r, ending="reset"), Step(r)]),
    Fault("T02", "reset in mid-body for ever, Range ignored", "error",
          lambda r: [cut(r, ending="reset")]),
    Fault("T03", "reset every megabyte, Range honoured", "either", reset_every_megabyte),
    Fault("T04", "reset before any reply, once", "file", once(RESET)),
    Fault("T05", "hung up before any reply, once", "file", once(HANG_UP)),
    Fault("T06", "nothing listens", "error", None, "refused", max_seconds=40),
    Fault("T07", "accepted, then silence for ever", "error", always(SILENCE), TOO_LITTLE),
    Fault("T08", "accepted, then silence, once", "file", once(SILENCE)),
    Fault("T09", "silence in mid-body for ever, Range ignored", "error",
          lambda r: [cut(r, ending="silence")], TOO_LITTLE),
    Fault("T10", "one byte every half second", "error", lambda r: [dripping(r)], TOO_LITTLE),
    Fault("T11", "a good reply that drips from its first header on", "either",
          lambda r: [dripping(good_reply(r), status=None)], max_seconds=150),
    Fault("T12", "no HTTP but SSH", "error", always(raw(b"SSH-2.0-OpenSSH_9.6\r\n"))),
    Fault("T13", "a header of 200 kB", "either",
          lambda r: [Step(r, headers={"X-Long": 200_000 * "x"})]),
    Fault("T14", "500 headers", "either",
          lambda r: [Step(r, headers={f"X-{i}": "x" for i in range(500)})]),
    Fault("T15", "reset before any reply for ever", "error", always(RESET)),
    Fault("T16", "hung up before any reply for ever", "error", always(HANG_UP)),
    Fault("T17", "reset between headers and body, once", "file",
          lambda r: [cut(r, at=0, ending="reset"), Step(r)]),
    Fault("T18", "reset after the first byte, once", "file",
          lambda r: [cut(r, at=1, ending="reset"), Step(r)]),
    Fault("T19", "reset after the first byte for ever", "error",
          lambda r: [cut(r, at=1, ending="reset")]),
    Fault("T20", "reset after the last byte, once", "file",
          lambda r: [Step(r, ending="reset"), Step(r)]),
    Fault("T21", "headers that never end", "error",
          always(flood(b"HTTP/1.1 200 OK\r\n" + 9999 * LINE, status=None))),
    Fault("T22", "headers that drip and never end", "error",
          lambda r: [dripping(b"HTTP/1.1 200 OK\r\n" + 9999 * LINE, status=None)], TOO_LITTLE),
    Fault("T23", "a status line that never ends", "error",
          always(flood(b"HTTP/1.1 200 OK ", status=None))),
    Fault("T24", "100 Continue for ever", "error",
          always(flood(b"HTTP/1.1 100 Continue\r\n\r\n", status=None))),
    Fault("T25", "100 Continue, then what is right", "file",
          lambda r: [raw(b"HTTP/1.1 100 Continue\r\n\r\n" + good_reply(r))], max_requests=1),
    Fault("T26", "headers, then silence for ever", "error",
          lambda r: [cut(r, at=0, ending="silence")], TOO_LITTLE),
    Fault("T27", "slow but steady: 128 KiB every tenth of a second", "file",
          lambda r: [Step(r, drip=0.1, piece=1 << 17)], max_requests=1),
    Fault("T28", "the right bytes without any HTTP", "error", lambda r: [raw(r)]),
    Fault("T29", "silence in mid-body every time, Range honoured", "either",
          lambda r: [lambda request: resume(r, request, MEGABYTE, ending="silence")]),
    Fault("T30", "103 Early Hints, then what is right", "either",
          lambda r: [raw(b"HTTP/1.1 103 Early Hints\r\n\r\n" + good_reply(r))]),
)

LENGTHS = (
    Fault("L01", "shorter than its Content-Length, once", "file", lambda r: [cut(r), Step(r)]),
    Fault("L02", "1,000 bytes shorter than its Content-Length for ever, Range ignored", "error",
          lambda r: [cut(r, at=-1000)]),
    Fault("L03", "short without Content-Length, once", "file",
          lambda r: [Step(r[:-1000], headers=NO_LENGTH), Step(r)]),
    Fault("L04", "a chunk missing, once", "file",
          lambda r: [Step(chunks(halves(r)[1]), headers=CHUNKED), Step(r)]),
    Fault("L05", "chunked without its end, once", "file",
          lambda r: [Step(chunks(halves(r)[0], end=b""), headers=CHUNKED), Step(r)]),
    Fault("L06", "Content-Length 1,000 too large", "either",
          lambda r: [Step(r, headers={"Content-Length": str(len(r) + 1000)})]),
    Fault("L07", "Content-Length 1,000 too small", "either",
          lambda r: [Step(r, headers={"Content-Length": str(len(r) - 1000)})]),
    Fault("L08", "Content-Length: abc", "either",
          lambda r: [Step(r, headers={"Content-Length": "abc"})]),
    Fault("L09", "two different lengths", "either",
          lambda r: [raw(good_reply(r, b"Content-Length: %d\r\nContent-Length: 9\r\n" % len(r)))]),
    Fault("L10", "an empty body", "error", always(Step()), WRONG_BODY),
    Fault("L11", "a 206 that nobody asked for", "either",
          lambda r: [part_of(0, len(r) - 1, len(r), r)]),
    Fault("L12", "chunked", "file",
          lambda r: [Step(chunks(*halves(r)), headers=CHUNKED)], max_requests=1),
    Fault("L13", "no Content-Length", "file",
          lambda r: [Step(r, headers=NO_LENGTH)], max_requests=1),
    Fault("L14", "no Content-Length, and silence after the last byte", "either",
          lambda r: [Step(r, headers=NO_LENGTH, ending="silence")]),
    Fault("L15", "the same Content-Length twice", "either",
          lambda r: [raw(good_reply(r, 2 * (b"Content-Length: %d\r\n" % len(r))))]),
    Fault("L16", "Content-Length: -5", "either",
          lambda r: [Step(r, headers={"Content-Length": "-5"})]),
    Fault("L17", "chunked, and a Content-Length", "either",
          lambda r: [Step(chunks(r), headers={**CHUNKED, "Content-Length": "9"})]),
    Fault("L18", "a chunk size that drips", "error",
          lambda r: [dripping(9999 * b"0", headers=CHUNKED)], TOO_LITTLE),
    Fault("L19", "a chunk size that never ends", "error", always(flood(b"0", headers=CHUNKED))),
    Fault("L20", "no number as chunk size", "error", always(Step(b"size\r\n", headers=CHUNKED))),
    Fault("L21", "20 MB of trailers after the last chunk", "either",
          lambda r: [Step(chunks(r, end=b"0\r\n" + MEGABYTE * LINE), headers=CHUNKED)]),
    Fault("L22", "a chunk cut off for ever, Range ignored", "error",
          lambda r: [Step(b"%x\r\n" % len(r) + r[:-1], headers=CHUNKED)]),
    Fault("L23", "chunked without its end for ever", "either",
          lambda r: [Step(chunks(r, end=b""), headers=CHUNKED)]),
)

BODIES = (
    Fault("B01", "one bit flipped, once", "file", lambda r: [Step(flipped(r)), Step(r)]),
    Fault("B02", "one bit flipped for ever", "error", lambda r: [Step(flipped(r))], WRONG_BODY),
    Fault("B03", "zeros in the second half", "error", lambda r: [Step(zero_tail(r))], WRONG_BODY),
    Fault("B04", "16 bytes appended", "error", lambda r: [Step(r + bytes(16))], WRONG_BODY),
    Fault("B05", "another data set's file of the same name", "error",
          lambda r: [Step(foreign())], WRONG_BODY),
    Fault("B06", "a gzip bomb of 2 GiB", "error", lambda r: [Step(bomb())], WRONG_BODY),
    Fault("B07", "a gzip bomb of 2 GiB as Content-Encoding", "error",
          lambda r: [Step(bomb(), headers=GZIPPED)], WRONG_BODY),
    Fault("B08", "a .gz that is labelled Content-Encoding: gzip", "file",
          lambda r: [Step(r, headers=GZIPPED)], max_requests=1),
    Fault("B09", "a .gz that is compressed once more as Content-Encoding", "file",
          lambda r: [Step(gzip.compress(r), headers=GZIPPED)]),
    Fault("B10", "a captive portal's page for ever", "error", always(LOGIN), WRONG_BODY),
    Fault("B11", "a captive portal's page, once", "file", once(LOGIN)),
    Fault("B12", "a redirect to a captive portal's page for ever", "error",
          always(portal), WRONG_BODY),
    Fault("B13", "an endless body without length", "error",
          always(flood(b"x", headers=NO_LENGTH)), WRONG_BODY),
    Fault("B14", "an endless chunked body", "error",
          always(flood(chunks(bytes(65_536), end=b""), headers=CHUNKED)), WRONG_BODY),
    Fault("B15", "an endless body of false length", "error",
          lambda r: [flood(b"x", headers={"Content-Length": str(len(r))})], WRONG_BODY),
    Fault("B16", "a body that claims a petabyte", "error",
          always(flood(b"x", headers={"Content-Length": str(10**15)})), WRONG_BODY),
    Fault("B17", "the right bytes, and then 64 MiB more", "error",
          lambda r: [Step(r + bytes(1 << 26), headers=NO_LENGTH)], WRONG_BODY),
    Fault("B18", "three bytes in front", "error",
          lambda r: [Step(b"\xef\xbb\xbf" + r)], WRONG_BODY),
    Fault("B19", "a .gz that is labelled Content-Encoding: br", "file",
          lambda r: [Step(r, headers={"Content-Encoding": "br"})], max_requests=1),
    Fault("B20", "a .gz that comes unpacked", "error",
          lambda r: [Step(gzip.decompress(r))], WRONG_BODY),
    Fault("B21", "a page that claims Content-Encoding: gzip", "error",
          always(Step(LOGIN.body, headers=GZIPPED))),
    Fault("B22", "other bytes that are compressed as Content-Encoding", "error",
          lambda r: [Step(gzip.compress(flipped(r)), headers=GZIPPED)], WRONG_BODY),
)

REDIRECTS = (
    Fault("R01", "one redirect", "file", once(redirect("again")), max_requests=2),
    Fault("R02", "four redirects", "file", once(*[redirect("again")] * 4), max_requests=5),
    Fault("R03", "a redirect to another host", "file", once(to_another_host), max_requests=2),
    Fault("R04", "redirects for ever", "error", always(redirect("again")), "redirects"),
    Fault("R05", "a redirect to file://", "error",
          always(redirect("file:///etc/hostname")), "file:"),
    Fault("R06", "a redirect to ftp://", "error", always(redirect("ftp://127.0.0.1/file")), "ftp:"),
    Fault("R07", "a redirect without Location", "error", always(redirect(None)), "HTTP 302"),
    Fault("R08", "a redirect with an endless body", "either",
          once(flood(b"x", status=302, headers={**NO_LENGTH, **AGAIN}))),
    Fault("R09", "a redirect with a bomb as Content-Encoding", "either",
          lambda r: [Step(bomb(), 302, {**GZIPPED, **AGAIN}), Step(r)]),
    Fault("R10", "a redirect to a broken address", "error", always(redirect("http://["))),
    Fault("R11", "a redirect of each kind: 301, 302, 303, 307, 308", "file",
          once(*[redirect("again", code) for code in (301, 302, 303, 307, 308)]), max_requests=6),
    Fault("R12", "a redirect with silence as its body", "either",
          once(Step(b"", 302, {"Content-Length": "9", **AGAIN}, ending="silence"))),
    Fault("R13", "two redirects to a 500 for ever", "error", always(redirect_twice), "HTTP 500"),
)

RANGES = (
    Fault("P01", "Range ignored", "file", cut_then(lambda r, cut, size: Step(r))),
    Fault("P02", "a rest that starts elsewhere", "file",
          cut_then(lambda r, cut, size: part_of(cut + 1, size - 1, size, r[cut + 1 :]))),
    Fault("P03", "a rest of wrong bytes", "file",
          cut_then(lambda r, cut, size: part_of(cut, size - 1, size, flipped(r)[cut:]))),
    Fault("P04", "a 206 without Content-Range", "file",
          cut_then(lambda r, cut, size: Step(r[cut:], 206, ETAG))),
    Fault("P05", "a rest of another total", "file",
          cut_then(lambda r, cut, size: part_of(cut, size, size + 1, r[cut:] + b"x"))),
    Fault("P06", "416", "file", cut_then(lambda r, cut, size: Step(status=416))),
    Fault("P07", "a new ETag, and so the whole file", "file",
          cut_then(lambda r, cut, size: Step(r, headers={"ETag": '"v2"'}))),
    Fault("P08", "other bytes behind an If-Range that lies", "error",
          lambda r: [cut(r), lambda request: resume(zero_tail(r), request, len(r))], WRONG_BODY),
    Fault("P09", "a rest of other bytes under a new ETag", "file",
          cut_then(lambda r, cut, size: part_of(cut, size - 1, size, zero_tail(r)[cut:], '"v2"'))),
    Fault("P10", "a rest of unknown total", "file",
          cut_then(lambda r, cut, size: part_of(cut, size - 1, "*", r[cut:]))),
    Fault("P11", "Range honoured", "file",
          lambda r: [cut(r), lambda request: resume(r, request, len(r))], max_requests=2),
    Fault("P12", "a rest with 16 bytes appended", "file",
          cut_then(lambda r, cut, size: part_of(cut, size - 1, size, r[cut:] + bytes(16)))),
    Fault("P13", "416 for ever, to all that follows a cut", "error",
          lambda r: [cut(r), Step(status=416)], "HTTP 416"),
    Fault("P14", "a rest followed by 64 MiB more", "file",
          cut_then(lambda r, cut, size: part_of(cut, size - 1, size, r[cut:] + bytes(1 << 26)))),
)

CACHE = (
    Fault("C01", "a truncated file lies there", "file",
          whole, surroundings=existing(lambda r: r[:-1000])),
    Fault("C02", "a file of the right size, one bit flipped, lies there", "file",
          whole, surroundings=existing(flipped)),
    Fault("C03", "an empty file lies there", "file", whole, surroundings=existing(lambda r: b"")),
    Fault("C04", "the right file lies there, and nothing listens", "file",
          surroundings=existing(bytes)),
    Fault("C05", "a wrong file lies there, and nothing listens", "error",
          None, "refused", existing(flipped)),
    Fault("C06", "a part of another download lies there", "file",
          whole, surroundings=existing(zero_tail, PART)),
    Fault("C07", "a file in place of the folder", "error",
          whole, "[Nn]ot a (directory|folder)|is a file|exists", file_for_folder,
          max_requests=0),
    Fault("C08", "a folder under the file's name", "error",
          whole, "folder|directory|expected a file", folder_for_file, max_requests=0),
    Fault("C09", "a symbolic link to another file under the file's name", "file",
          whole, surroundings=linked(b"precious")),
    Fault("C10", "the folder is read-only and holds the file", "file",
          None, surroundings=read_only(bytes), obeys_modes=True),
    Fault("C11", "the folder is read-only and empty", "error",
          whole, "Permission denied", read_only(None), obeys_modes=True),
    Fault("C12", "the disk is full", "error", whole, "No space|too large", full_disk),
    Fault("C13", "umask 022: everybody may read the file", "file",
          whole, surroundings=umask(0o022)),
    Fault("C14", "a part from two days ago lies there: it is swept away", "file",
          whole, surroundings=existing(zero_tail, PART, age=2 * 86_400)),
    Fault("C15", "a symbolic link to nothing under the file's name", "file",
          whole, surroundings=linked(None)),
    Fault("C16", "umask 007: the group may write the file", "file",
          whole, surroundings=umask(0o007)),
    Fault("C17", "a pipe under the file's name", "either", whole, surroundings=pipe_for_file),
    Fault("C18", "another data set's file of the same name lies there", "file",
          whole, surroundings=existing(lambda r: foreign())),
    Fault("C19", "the folder is a symbolic link", "file", whole, surroundings=linked_folder),
    Fault("C20", "the folder is read-only and holds a wrong file", "error",
          whole, "Permission denied", read_only(flipped), obeys_modes=True),
)

FAULTS = (*SERVERS, *TRANSPORT, *LENGTHS, *BODIES, *REDIRECTS, *RANGES, *CACHE)

# Ctrl-C as soon as the server has the first request
INTERRUPTIONS = (
    Fault("K02", "Ctrl-C in mid-body", "error", lambda r: [cut(r, ending="silence")]),
    Fault("K04", "Ctrl-C before any reply", "error", always(SILENCE)),
    Fault("K05", "Ctrl-C in the pause between two attempts", "error", always(busy("20"))),
)

STAMPEDE = Fault("K03", "eight processes at once", "file", whole, max_requests=8)
