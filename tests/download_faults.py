"""Faults of servers, networks and folders that a download must survive.

Each one ends in one of two ways: with the right file, or with an error and nothing changed.
"""

from __future__ import annotations

import gzip
import os
import random
import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from email.utils import formatdate
from functools import cache, partial
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
# Makes the data folder, called with its path and the right bytes.
Prepare = Callable[[Path, bytes], object]


@dataclass(frozen=True)
class Fault:
    """One fault, the outcome that is expected, and the limits of its cost.

    ``answers`` returns the answers to successive requests from the right bytes; the last one is
    repeated. It is None if nothing listens. ``says`` is a pattern that the error must match.

    ``prepare`` makes the folder before the download, by default an empty one. ``disk`` is the
    largest file that can be written, as a share of the right one. With ``obeys_modes`` the
    download runs as a user for whom the mode of a folder matters, unlike root.

    The requests, the bytes of bodies that the server sends, and the seconds with default settings
    are limited; ``min_seconds`` is the least time that the client must wait.
    """

    expected: Literal["file", "error", "either"]
    id: str
    fault: str
    answers: Answers | None = None
    says: str = ""
    prepare: Prepare = lambda folder, right: folder.mkdir()
    umask: int = 0o022
    disk: float = 1.0
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


def existing(content: Callable[[bytes], bytes], name: str = NAME, age: float = 0) -> Prepare:
    """Put a file into the folder, written ``age`` seconds ago."""

    def prepare(folder: Path, right: bytes) -> None:
        folder.mkdir()
        (folder / name).write_bytes(content(right))
        os.utime(folder / name, (time() - age, time() - age))

    return prepare


def read_only(content: Callable[[bytes], bytes] | None) -> Prepare:
    """Put a file, or none, into a read-only folder."""

    def prepare(folder: Path, right: bytes) -> None:
        folder.mkdir()
        if content:
            (folder / NAME).write_bytes(content(right))
        folder.chmod(0o555)

    return prepare


def linked(content: bytes | None) -> Prepare:
    """Put a link where the file should be: to another file, or to nothing."""

    def prepare(folder: Path, right: bytes) -> None:
        folder.mkdir()
        (folder / NAME).symlink_to(folder.parent / "elsewhere")
        if content is not None:
            (folder.parent / "elsewhere").write_bytes(content)

    return prepare


def linked_folder(folder: Path, right: bytes) -> None:
    """Make the folder a link to another one."""
    (folder.parent / "elsewhere").mkdir()
    folder.symlink_to(folder.parent / "elsewhere")


def pipe_for_file(folder: Path, right: bytes) -> None:
    """Put a pipe where the file should be; opening it blocks."""
    folder.mkdir()
    os.mkfifo(folder / NAME)


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """Limit the size of the files that this process and its children write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


file, error, either = (partial(Fault, expected) for expected in ("file", "error", "either"))

# fmt: off
SERVERS = (
    file("H01", "all is well", whole, max_requests=1),
    file("H02", "503 with Retry-After: 1, twice", once(busy("1"), busy("1")), min_seconds=2),
    file("H03", "503 with a date as Retry-After, once", once(busy_until), min_seconds=1),
    file("H04", "500, then 502", once(Step(status=500), Step(status=502))),
    error("H05", "500 for ever", always(Step(status=500)), "HTTP 500"),
    error("H06", "404", always(Step(status=404)), "HTTP 404", max_requests=1, max_seconds=15),
    error("H07", "403", always(Step(status=403)), "HTTP 403", max_requests=1),
    error("H08", "429 with Retry-After: 3600",
          always(busy("3600", 429)), "HTTP 429", max_requests=1, max_seconds=40),
    file("H09", "HEAD refused with 405", whole, max_requests=1),
    error("H10", "410", always(Step(status=410)), "HTTP 410", max_requests=1),
    file("H11", "503 with Retry-After: soon, once", once(busy("soon"))),
    file("H12", "503 with Retry-After: -5, once", once(busy("-5"))),
    file("H13", "503 with Retry-After in 1970, once", once(busy(formatdate(0, usegmt=True)))),
    error("H14", "503 with Retry-After in 9999",
          always(busy("Fri, 31 Dec 9999 23:59:59 GMT")), "HTTP 503", max_requests=1),
    error("H15", "503 with Retry-After of 5,000 digits",
          always(busy(5000 * "9")), "HTTP 503", max_requests=1),
    error("H16", "204 for ever", always(Step(status=204)), "HTTP 204"),
    file("H17", "408, then 429 without Retry-After", once(Step(status=408), Step(status=429))),
)

TRANSPORT = (
    file("T01", "reset in mid-body, once", lambda r: [cut(r, ending="reset"), Step(r)]),
    error("T02", "reset in mid-body for ever, Range ignored", lambda r: [cut(r, ending="reset")]),
    either("T03", "reset every megabyte, Range honoured",
           lambda r: [lambda request: resume(r, request, MEGABYTE, ending="reset")]),
    file("T04", "reset before any reply, once", once(RESET)),
    file("T05", "hung up before any reply, once", once(HANG_UP)),
    error("T06", "nothing listens", None, "refused", max_seconds=40),
    error("T07", "accepted, then silence for ever", always(SILENCE), TOO_LITTLE),
    file("T08", "accepted, then silence, once", once(SILENCE)),
    error("T09", "silence in mid-body for ever, Range ignored",
          lambda r: [cut(r, ending="silence")], TOO_LITTLE),
    error("T10", "one byte every half second", lambda r: [dripping(r)], TOO_LITTLE),
    either("T11", "a good reply that drips from its first header on",
           lambda r: [dripping(good_reply(r), status=None)], max_seconds=150),
    error("T12", "no HTTP but SSH", always(raw(b"SSH-2.0-OpenSSH_9.6\r\n"))),
    either("T13", "a header of 200 kB", lambda r: [Step(r, headers={"X-Long": 200_000 * "x"})]),
    either("T14", "500 headers", lambda r: [Step(r, headers={f"X-{i}": "x" for i in range(500)})]),
    error("T15", "reset before any reply for ever", always(RESET)),
    error("T16", "hung up before any reply for ever", always(HANG_UP)),
    file("T17", "reset between headers and body, once",
         lambda r: [cut(r, at=0, ending="reset"), Step(r)]),
    file("T18", "reset after the first byte, once",
         lambda r: [cut(r, at=1, ending="reset"), Step(r)]),
    error("T19", "reset after the first byte for ever", lambda r: [cut(r, at=1, ending="reset")]),
    file("T20", "reset after the last byte, once", lambda r: [Step(r, ending="reset"), Step(r)]),
    error("T21", "headers that never end",
          always(flood(b"HTTP/1.1 200 OK\r\n" + 9999 * LINE, status=None))),
    error("T22", "headers that drip and never end",
          lambda r: [dripping(b"HTTP/1.1 200 OK\r\n" + 9999 * LINE, status=None)], TOO_LITTLE),
    error("T23", "a status line that never ends", always(flood(b"HTTP/1.1 200 OK ", status=None))),
    error("T24", "100 Continue for ever",
          always(flood(b"HTTP/1.1 100 Continue\r\n\r\n", status=None))),
    file("T25", "100 Continue, then what is right",
         lambda r: [raw(b"HTTP/1.1 100 Continue\r\n\r\n" + good_reply(r))], max_requests=1),
    error("T26", "headers, then silence for ever",
          lambda r: [cut(r, at=0, ending="silence")], TOO_LITTLE),
    file("T27", "slow but steady: 128 KiB every tenth of a second",
         lambda r: [Step(r, drip=0.1, piece=1 << 17)], max_requests=1),
    error("T28", "the right bytes without any HTTP", lambda r: [raw(r)]),
    either("T29", "silence in mid-body every time, Range honoured",
           lambda r: [lambda request: resume(r, request, MEGABYTE, ending="silence")]),
    either("T30", "103 Early Hints, then what is right",
           lambda r: [raw(b"HTTP/1.1 103 Early Hints\r\n\r\n" + good_reply(r))]),
)

LENGTHS = (
    file("L01", "shorter than its Content-Length, once", lambda r: [cut(r), Step(r)]),
    error("L02", "1,000 bytes shorter than its Content-Length for ever, Range ignored",
          lambda r: [cut(r, at=-1000)]),
    file("L03", "short without Content-Length, once",
         lambda r: [Step(r[:-1000], headers=NO_LENGTH), Step(r)]),
    file("L04", "a chunk missing, once",
         lambda r: [Step(chunks(halves(r)[1]), headers=CHUNKED), Step(r)]),
    file("L05", "chunked without its end, once",
         lambda r: [Step(chunks(halves(r)[0], end=b""), headers=CHUNKED), Step(r)]),
    either("L06", "Content-Length 1,000 too large",
           lambda r: [Step(r, headers={"Content-Length": str(len(r) + 1000)})]),
    either("L07", "Content-Length 1,000 too small",
           lambda r: [Step(r, headers={"Content-Length": str(len(r) - 1000)})]),
    either("L08", "Content-Length: abc", lambda r: [Step(r, headers={"Content-Length": "abc"})]),
    either("L09", "two different lengths",
           lambda r: [raw(good_reply(r, b"Content-Length: %d\r\nContent-Length: 9\r\n" % len(r)))]),
    error("L10", "an empty body", always(Step()), WRONG_BODY),
    either("L11", "a 206 that nobody asked for", lambda r: [part_of(0, len(r) - 1, len(r), r)]),
    file("L12", "chunked", lambda r: [Step(chunks(*halves(r)), headers=CHUNKED)], max_requests=1),
    file("L13", "no Content-Length", lambda r: [Step(r, headers=NO_LENGTH)], max_requests=1),
    either("L14", "no Content-Length, and silence after the last byte",
           lambda r: [Step(r, headers=NO_LENGTH, ending="silence")]),
    either("L15", "the same Content-Length twice",
           lambda r: [raw(good_reply(r, 2 * (b"Content-Length: %d\r\n" % len(r))))]),
    either("L16", "Content-Length: -5", lambda r: [Step(r, headers={"Content-Length": "-5"})]),
    either("L17", "chunked, and a Content-Length",
           lambda r: [Step(chunks(r), headers={**CHUNKED, "Content-Length": "9"})]),
    error("L18", "a chunk size that drips",
          lambda r: [dripping(9999 * b"0", headers=CHUNKED)], TOO_LITTLE),
    error("L19", "a chunk size that never ends", always(flood(b"0", headers=CHUNKED))),
    error("L20", "no number as chunk size", always(Step(b"size\r\n", headers=CHUNKED))),
    either("L21", "20 MB of trailers after the last chunk",
           lambda r: [Step(chunks(r, end=b"0\r\n" + MEGABYTE * LINE), headers=CHUNKED)]),
    error("L22", "a chunk cut off for ever, Range ignored",
          lambda r: [Step(b"%x\r\n" % len(r) + r[:-1], headers=CHUNKED)]),
    either("L23", "chunked without its end for ever",
           lambda r: [Step(chunks(r, end=b""), headers=CHUNKED)]),
)

BODIES = (
    file("B01", "one bit flipped, once", lambda r: [Step(flipped(r)), Step(r)]),
    error("B02", "one bit flipped for ever", lambda r: [Step(flipped(r))], WRONG_BODY),
    error("B03", "zeros in the second half", lambda r: [Step(zero_tail(r))], WRONG_BODY),
    error("B04", "16 bytes appended", lambda r: [Step(r + bytes(16))], WRONG_BODY),
    error("B05", "another data set's file of the same name",
          lambda r: [Step(foreign())], WRONG_BODY),
    error("B06", "a gzip bomb of 2 GiB", lambda r: [Step(bomb())], WRONG_BODY),
    error("B07", "a gzip bomb of 2 GiB as Content-Encoding",
          lambda r: [Step(bomb(), headers=GZIPPED)], WRONG_BODY),
    file("B08", "a .gz that is labelled Content-Encoding: gzip",
         lambda r: [Step(r, headers=GZIPPED)], max_requests=1),
    file("B09", "a .gz that is compressed once more as Content-Encoding",
         lambda r: [Step(gzip.compress(r), headers=GZIPPED)], max_requests=2),
    error("B10", "a captive portal's page for ever", always(LOGIN), WRONG_BODY),
    file("B11", "a captive portal's page, once", once(LOGIN)),
    error("B12", "a redirect to a captive portal's page for ever", always(portal), WRONG_BODY),
    error("B13", "an endless body without length",
          always(flood(b"x", headers=NO_LENGTH)), WRONG_BODY),
    error("B14", "an endless chunked body",
          always(flood(chunks(bytes(65_536), end=b""), headers=CHUNKED)), WRONG_BODY),
    error("B15", "an endless body of false length",
          lambda r: [flood(b"x", headers={"Content-Length": str(len(r))})], WRONG_BODY),
    error("B16", "a body that claims a petabyte",
          always(flood(b"x", headers={"Content-Length": str(10**15)})), WRONG_BODY),
    error("B17", "the right bytes, and then 64 MiB more",
          lambda r: [Step(r + bytes(1 << 26), headers=NO_LENGTH)], WRONG_BODY),
    error("B18", "three bytes in front", lambda r: [Step(b"\xef\xbb\xbf" + r)], WRONG_BODY),
    file("B19", "a .gz that is labelled Content-Encoding: br",
         lambda r: [Step(r, headers={"Content-Encoding": "br"})], max_requests=1),
    error("B20", "a .gz that comes unpacked", lambda r: [Step(gzip.decompress(r))], WRONG_BODY),
    error("B21", "a page that claims Content-Encoding: gzip",
          always(Step(LOGIN.body, headers=GZIPPED))),
    error("B22", "other bytes that are compressed as Content-Encoding",
          lambda r: [Step(gzip.compress(flipped(r)), headers=GZIPPED)], WRONG_BODY),
)

REDIRECTS = (
    file("R01", "one redirect", once(redirect("again")), max_requests=2),
    file("R02", "four redirects", once(*[redirect("again")] * 4), max_requests=5),
    file("R03", "a redirect to another host", once(to_another_host), max_requests=2),
    error("R04", "redirects for ever", always(redirect("again")), "redirects"),
    error("R05", "a redirect to file://", always(redirect("file:///etc/hostname")), "file:"),
    error("R06", "a redirect to ftp://", always(redirect("ftp://127.0.0.1/file")), "ftp:"),
    error("R07", "a redirect without Location", always(redirect(None)), "HTTP 302"),
    either("R08", "a redirect with an endless body",
           once(flood(b"x", status=302, headers={**NO_LENGTH, **AGAIN}))),
    either("R09", "a redirect with a bomb as Content-Encoding",
           lambda r: [Step(bomb(), 302, {**GZIPPED, **AGAIN}), Step(r)]),
    error("R10", "a redirect to a broken address", always(redirect("http://["))),
    file("R11", "a redirect of each kind: 301, 302, 303, 307, 308",
         once(*[redirect("again", code) for code in (301, 302, 303, 307, 308)]), max_requests=6),
    either("R12", "a redirect with silence as its body",
           once(Step(b"", 302, {"Content-Length": "9", **AGAIN}, ending="silence"))),
    error("R13", "two redirects to a 500 for ever", always(redirect_twice), "HTTP 500"),
)

RANGES = (
    file("P01", "Range ignored", cut_then(lambda r, cut, size: Step(r))),
    file("P02", "a rest that starts elsewhere",
         cut_then(lambda r, cut, size: part_of(cut + 1, size - 1, size, r[cut + 1 :]))),
    file("P03", "a rest of wrong bytes",
         cut_then(lambda r, cut, size: part_of(cut, size - 1, size, flipped(r)[cut:]))),
    file("P04", "a 206 without Content-Range",
         cut_then(lambda r, cut, size: Step(r[cut:], 206, ETAG))),
    file("P05", "a rest of another total",
         cut_then(lambda r, cut, size: part_of(cut, size, size + 1, r[cut:] + b"x"))),
    file("P06", "416", cut_then(lambda r, cut, size: Step(status=416))),
    file("P07", "a new ETag, and so the whole file",
         cut_then(lambda r, cut, size: Step(r, headers={"ETag": '"v2"'}))),
    error("P08", "other bytes behind an If-Range that lies",
          lambda r: [cut(r), lambda request: resume(zero_tail(r), request, len(r))], WRONG_BODY),
    file("P09", "a rest of other bytes under a new ETag",
         cut_then(lambda r, cut, size: part_of(cut, size - 1, size, zero_tail(r)[cut:], '"v2"'))),
    file("P10", "a rest of unknown total",
         cut_then(lambda r, cut, size: part_of(cut, size - 1, "*", r[cut:]))),
    file("P11", "Range honoured",
         lambda r: [cut(r), lambda request: resume(r, request, len(r))], max_requests=2),
    file("P12", "a rest with 16 bytes appended",
         cut_then(lambda r, cut, size: part_of(cut, size - 1, size, r[cut:] + bytes(16)))),
    error("P13", "416 for ever, to all that follows a cut",
          lambda r: [cut(r), Step(status=416)], "HTTP 416"),
    file("P14", "a rest followed by 64 MiB more",
         cut_then(lambda r, cut, size: part_of(cut, size - 1, size, r[cut:] + bytes(1 << 26)))),
)

CACHE = (
    file("C01", "a truncated file lies there", whole, prepare=existing(lambda r: r[:-1000])),
    file("C02", "a file of the right size, one bit flipped, lies there",
         whole, prepare=existing(flipped)),
    file("C03", "an empty file lies there", whole, prepare=existing(lambda r: b"")),
    file("C04", "the right file lies there, and nothing listens", prepare=existing(bytes)),
    error("C05", "a wrong file lies there, and nothing listens",
          None, "refused", existing(flipped)),
    file("C06", "a part of another download lies there", whole, prepare=existing(zero_tail, PART)),
    error("C07", "a file in place of the folder",
          whole, "[Nn]ot a (directory|folder)|is a file|exists",
          lambda folder, r: folder.write_bytes(b"not a folder"), max_requests=0),
    error("C08", "a folder under the file's name",
          whole, "folder|directory|expected a file",
          lambda folder, r: (folder / NAME).mkdir(parents=True), max_requests=0),
    file("C09", "a symbolic link to another file under the file's name",
         whole, prepare=linked(b"precious")),
    file("C10", "the folder is read-only and holds the file",
         None, prepare=read_only(bytes), obeys_modes=True),
    error("C11", "the folder is read-only and empty",
          whole, "Permission denied", read_only(None), obeys_modes=True),
    error("C12", "the disk is full", whole, "No space|too large", disk=0.5, max_requests=1),
    file("C13", "umask 022: everybody may read the file", whole, umask=0o022),
    file("C14", "a part from two days ago lies there: it is swept away",
         whole, prepare=existing(zero_tail, PART, age=2 * 86_400)),
    file("C15", "a symbolic link to nothing under the file's name", whole, prepare=linked(None)),
    file("C16", "umask 007: the group may write the file", whole, umask=0o007),
    either("C17", "a pipe under the file's name", whole, prepare=pipe_for_file),
    file("C18", "another data set's file of the same name lies there",
         whole, prepare=existing(lambda r: foreign())),
    file("C19", "the folder is a symbolic link", whole, prepare=linked_folder),
    error("C20", "the folder is read-only and holds a wrong file",
          whole, "Permission denied", read_only(flipped), obeys_modes=True),
)

FAULTS = (*SERVERS, *TRANSPORT, *LENGTHS, *BODIES, *REDIRECTS, *RANGES, *CACHE)

# Ctrl-C as soon as the server has the first request
INTERRUPTIONS = (
    error("K02", "Ctrl-C in mid-body", lambda r: [cut(r, ending="silence")]),
    error("K04", "Ctrl-C before any reply", always(SILENCE)),
    error("K05", "Ctrl-C in the pause between two attempts", always(busy("20"))),
)

STAMPEDE = file("K03", "eight processes at once", whole, max_requests=8)
