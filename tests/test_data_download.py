"""One pinned file by HTTP: decisions, requests and pauses.

Faults of servers and disks are injected in ``test_download_faults``; here are the details that it
does not see.
"""

import gzip
import hashlib
import math
import random
import socket
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from threading import current_thread, main_thread
from time import monotonic
from typing import Any

import pytest
from faulty_server import FaultyServer, Step
from hypothesis import example, given
from hypothesis import strategies as st

from npsoftmax.data import download
from npsoftmax.data.download import RemoteFile, fetch, verify
from npsoftmax.errors import DataUnavailableError, InputError

NAME = "images.gz"
CONTENT = gzip.compress(random.Random(0).randbytes(9_000), mtime=0)
SIZE = len(CONTENT)
CUT = 4_000
FLIPPED = CONTENT[:100] + bytes([CONTENT[100] ^ 1]) + CONTENT[101:]
FILE = RemoteFile(NAME, SIZE, hashlib.sha256(CONTENT).hexdigest())

WHOLE = Step(CONTENT)
NO_LENGTH = {"Content-Length": None}
ETAG = {"ETag": '"v1"'}
# More than the sockets buffer, so that the server notices a client that hangs up.
ENDLESS = Step(bytes(65_536), headers=NO_LENGTH, repeat=512)
ENDLESS_BYTES = 512 * 65_536


class FakeTime:
    """A clock that advances by sleeping, and by ``tick`` seconds at each look."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        self.tick = 0.0
        self.waits: list[float] = []

    def look(self) -> float:
        if current_thread() is not main_thread():
            return monotonic()  # the watchdog, which runs in real time
        self.now += self.tick
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    clock = FakeTime()
    monkeypatch.setattr(download, "sleep", clock.sleep)
    monkeypatch.setattr(download, "monotonic", clock.look)
    monkeypatch.setattr(download, "time", clock.look)
    return clock


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("no_proxy", "*")


def cut(**options: Any) -> Step:
    """Answer with the first ``CUT`` bytes of a body declared whole, then the given ending."""
    headers = {"Content-Length": str(SIZE), **options.pop("headers", ETAG)}
    return Step(CONTENT[:CUT], headers=headers, **options)


def rest(content_range: str | None = f"bytes {CUT}-{SIZE - 1}/{SIZE}", **options: Any) -> Step:
    """Answer with the bytes from ``CUT`` on."""
    headers = {**ETAG, "Content-Range": content_range, **options.pop("headers", {})}
    return Step(options.pop("body", CONTENT[CUT:]), status=206, headers=headers, **options)


def refused(folder: Path, *mirrors: str, **options: Any) -> str:
    """Return the message of a fetch that must fail and must leave the folder as it was."""
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(DataUnavailableError) as caught:
        fetch(FILE, folder, mirrors, **options)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    message = str(caught.value)
    assert "\n" not in message
    return message


def assert_delivered(folder: Path, *mirrors: str) -> None:
    """Fetch the file and find it, and nothing else, in the folder."""
    assert fetch(FILE, folder, mirrors) == folder / NAME
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {NAME: CONTENT}


# Decisions from the disk


def test_importing_loads_neither_requests_nor_tqdm():
    code = "import sys, npsoftmax.data.download as d; print({'requests', 'tqdm'} & {*sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd", "a/"])
def test_a_name_that_leaves_the_folder_is_refused(name):
    with pytest.raises(InputError, match="bare file name"):
        RemoteFile(name, SIZE, FILE.sha256)


def mismatch(content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    return f"{NAME}: expected SHA-256 {FILE.sha256}, got {digest}"


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (CONTENT, None),
        (b"", f"{NAME}: expected {SIZE:,} bytes, got 0"),
        (CONTENT[:-1], f"{NAME}: expected {SIZE:,} bytes, got {SIZE - 1:,}"),
        (FLIPPED, mismatch(FLIPPED)),
        (None, f"{NAME} is missing"),
    ],
    ids=["right", "empty", "short", "flipped", "missing"],
)
def test_verify_reports_expected_and_actual_content(tmp_path, content, wrong):
    if content is not None:
        (tmp_path / NAME).write_bytes(content)
    assert verify(tmp_path / NAME, FILE) == (wrong and f"{tmp_path}/{wrong}")


def test_verify_refuses_anything_that_is_not_a_file(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    assert verify(tmp_path, FILE) == f"{tmp_path} is a folder, expected a file"
    below_a_file = verify(tmp_path / "plain" / NAME, FILE)
    assert below_a_file is not None and "cannot be read: Not a directory" in below_a_file


def test_verify_does_not_hash_a_file_of_the_wrong_size(tmp_path, monkeypatch):
    (tmp_path / NAME).write_bytes(CONTENT + b"!")
    monkeypatch.delattr(hashlib, "sha256")
    assert f"got {SIZE + 1:,}" in str(verify(tmp_path / NAME, FILE))


# Without faults


@pytest.mark.parametrize("slash", ["", "/"])
def test_one_request_is_enough(tmp_path, slash):
    with FaultyServer(WHOLE) as server:
        assert_delivered(tmp_path / "new" / "folder", f"{server.url}/fashion{slash}")
    assert [request.path for request in server.requests] == [f"/fashion/{NAME}"]
    assert server.requests[0].headers["Accept-Encoding"] == "identity"
    assert "Range" not in server.requests[0].headers


def test_an_empty_file_can_be_fetched(tmp_path):
    empty = RemoteFile("empty", 0, hashlib.sha256(b"").hexdigest())
    with FaultyServer(Step()) as server:
        assert fetch(empty, tmp_path, [server.url]).read_bytes() == b""


@pytest.mark.parametrize(
    "headers",
    [{"Content-Length": "abc"}, {"Content-Length": str(SIZE + 9)}, {"Content-Type": "text/html"}],
)
def test_right_bytes_under_wrong_headers_are_right(tmp_path, headers):
    with FaultyServer(Step(CONTENT, headers=headers)) as server:
        assert_delivered(tmp_path, server.url)
    assert len(server.requests) == 1


def test_the_bar_goes_to_stderr_and_only_on_request(tmp_path, capsys):
    with FaultyServer(WHOLE, WHOLE) as server:
        fetch(FILE, tmp_path, [server.url])
        assert capsys.readouterr() == ("", "")
        fetch(FILE, tmp_path, [server.url], progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert NAME in err
    assert "100%" in err


# Retries


@pytest.mark.parametrize("mirrors", [1, 2, 3, 9])
def test_mirrors_take_turns_until_ten_requests_have_failed(tmp_path, mirrors):
    broken = [FaultyServer(*[Step(status=500)] * 4) for _ in range(mirrors)]
    with ExitStack() as stack:
        servers = [stack.enter_context(server) for server in broken]
        refused(tmp_path, *(server.url for server in servers))
    counts = [len(server.requests) for server in servers]
    assert sum(counts) == min(4 * mirrors, 10)
    assert max(counts) - min(counts) <= 1


def test_every_mirror_is_asked_once_however_the_others_fail(tmp_path):
    loops = [FaultyServer(redirect("x"), forever=True) for _ in range(2)]
    servers = [*loops, *[FaultyServer(Step(status=500)) for _ in range(11)], FaultyServer(WHOLE)]
    with ExitStack() as stack:
        assert_delivered(tmp_path, *(stack.enter_context(server).url for server in servers))
    assert [len(server.requests) for server in servers] == [6, 6] + [1] * 12


def test_a_password_in_an_address_is_not_shown(tmp_path):
    with FaultyServer(Step(status=404)) as server:
        message = refused(tmp_path, server.url.replace("//", "//me:secret@"))
    assert f"{server.url}/{NAME}: HTTP 404" in message
    assert "secret" not in message


def test_after_progress_the_rest_is_requested_at_once(tmp_path, clock):
    content = random.Random(1).randbytes(20 * 65_536)
    file = RemoteFile(NAME, len(content), hashlib.sha256(content).hexdigest())
    steps = [Step(content[:65_536], headers={**ETAG, "Content-Length": str(len(content))})]
    for start in range(65_536, len(content), 65_536):
        place = f"bytes {start}-{len(content) - 1}/{len(content)}"
        headers = {**ETAG, "Content-Range": place, "Content-Length": str(len(content) - start)}
        steps.append(Step(content[start : start + 65_536], 206, headers, ending="reset"))
    with FaultyServer(*steps) as server, FaultyServer() as other:
        fetch(file, tmp_path, [server.url, other.url])
    assert (tmp_path / NAME).read_bytes() == content
    ranges = [request.headers.get("Range") for request in server.requests]
    assert ranges == [None, *(f"bytes={start}-" for start in range(65_536, len(content), 65_536))]
    assert clock.waits == [] and other.requests == []


def test_patience_ends_before_the_timeout(tmp_path, clock):
    clock.tick = 30
    with FaultyServer(*[Step(status=500)] * 4) as server:
        message = refused(tmp_path, server.url)
    assert "gave up when nothing new had come for 100 s" in message
    assert len(server.requests) < 4


@pytest.mark.parametrize("timeout", [0, -1, math.nan, math.inf])
def test_a_timeout_must_be_positive_and_finite(tmp_path, timeout):
    with pytest.raises(InputError, match="timeout: expected a positive number"):
        fetch(FILE, tmp_path, [], timeout=timeout)


def test_silence_is_cut_by_the_read_timeout(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_READ_SECONDS", 0.05)
    before, amid = Step(status=None, ending="silence"), cut(ending="silence")
    with FaultyServer(before, amid, rest()) as server:
        assert_delivered(tmp_path, server.url)
    assert all(request.hung_up for request in server.requests[:2])
    assert server.requests[2].headers["Range"] == f"bytes={CUT}-"


def test_a_refused_connection_is_tried_four_times(tmp_path, clock):
    with FaultyServer() as gone:
        pass
    with FaultyServer(WHOLE) as good:
        assert_delivered(tmp_path, gone.url, good.url)
    assert clock.waits == []
    (tmp_path / NAME).unlink()
    assert "Connection refused" in refused(tmp_path, gone.url)
    assert clock.waits == [1, 2, 4]


def test_a_name_that_does_not_resolve_is_asked_for_once(tmp_path, clock, monkeypatch):
    asked = []

    def unknown(host: str, *_: Any, **__: Any) -> None:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "not known" in refused(tmp_path, "http://one.invalid", "http://two.invalid")
    assert asked == ["one.invalid", "two.invalid"]
    assert clock.waits == []


@pytest.mark.parametrize("mirror", ["ftp://127.0.0.1/", "file:///etc/", "nonsense", "http://"])
def test_a_mirror_that_is_no_web_address_is_passed_over(tmp_path, clock, mirror):
    with FaultyServer(WHOLE) as good:
        assert_delivered(tmp_path, mirror, good.url)
    assert clock.waits == []


# Resuming


DATE = {"Last-Modified": "Thu, 01 Jan 1970 00:00:00 GMT"}


@pytest.mark.parametrize("headers", [ETAG, {**ETAG, **DATE}, DATE])
def test_a_cut_transfer_is_resumed(tmp_path, headers):
    with FaultyServer(cut(ending="reset", headers=headers), rest()) as server:
        assert_delivered(tmp_path, server.url)
    assert server.requests[1].headers["Range"] == f"bytes={CUT}-"
    assert server.requests[1].headers["If-Range"] == next(iter(headers.values()))
    assert len(server.requests) == 2


def test_a_short_body_is_resumed_after_a_wrong_one(tmp_path):
    short = Step(CONTENT[:CUT], headers={**ETAG, **NO_LENGTH})
    with FaultyServer(Step(FLIPPED), short, rest()) as server:
        assert_delivered(tmp_path, server.url)
    assert server.requests[2].headers["Range"] == f"bytes={CUT}-"


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"v1"', **DATE}])
def test_without_a_strong_validator_it_starts_over(tmp_path, headers):
    with FaultyServer(cut(headers=headers), WHOLE) as server:
        assert_delivered(tmp_path, server.url)
    assert "Range" not in server.requests[1].headers


def test_the_rest_is_only_requested_from_the_same_mirror(tmp_path):
    hang_up = Step(status=None)
    with FaultyServer(cut(), *[hang_up] * 3) as first, FaultyServer(WHOLE) as second:
        assert_delivered(tmp_path, first.url, second.url)
    assert all("Range" in request.headers for request in first.requests[1:])
    assert "Range" not in second.requests[0].headers


# Wrong content


@pytest.mark.parametrize(
    ("body", "wrong", "requests"),
    [
        (FLIPPED, mismatch(FLIPPED), 2),
        (gzip.compress(b"digits", mtime=0), f"expected {SIZE:,} bytes, got 26", 4),
        (CONTENT + b"sixteen bytes...", f"expected {SIZE:,} bytes, got more", 2),
    ],
    ids=["flipped", "short", "long"],
)
def test_a_wrong_body_of_full_length_is_requested_twice(tmp_path, body, wrong, requests):
    with FaultyServer(*[Step(body)] * 4) as server:
        message = refused(tmp_path, server.url)
    assert wrong in message
    assert len(server.requests) == requests


def test_a_wrong_file_can_be_identified(tmp_path):
    with FaultyServer(Step(b"digits")) as server:
        message = refused(
            tmp_path, server.url, identify=lambda part: f" ({part.seek(0)}, {part.read()!r})"
        )
    assert "got 6 (0, b'digits')" in message


def test_a_content_encoding_of_empty_blocks_without_end_is_refused(tmp_path):
    body = gzip.compress(b"", mtime=0)[:10] + b"\0\0\0\xff\xff" * 20_000
    with FaultyServer(*[Step(body, headers={"Content-Encoding": "gzip"})] * 4) as server:
        refused(tmp_path, server.url)
    assert len(server.requests) == 2


def test_every_mirror_is_named_with_its_reasons_and_the_next_step(tmp_path):
    with FaultyServer(Step(FLIPPED), Step(status=403)) as a, FaultyServer(Step(status=404)) as b:
        message = refused(tmp_path, a.url, b.url)
    assert f"{a.url}/{NAME}: expected SHA-256" in message
    assert "; then HTTP 403 Forbidden" in message
    assert f"{b.url}/{NAME}: HTTP 404 Not Found" in message
    for detail in (NAME, f"{SIZE:,} bytes", FILE.sha256, str(tmp_path)):
        assert detail in message


# Redirects


def redirect(location: str) -> Step:
    """Redirect with an endless body, which must not be read."""
    return replace(ENDLESS, status=302, headers={"Location": location, **NO_LENGTH})


def test_a_redirect_to_another_host_is_followed_without_reading_its_body(tmp_path):
    with (
        FaultyServer(WHOLE) as there,
        FaultyServer(redirect(f"{there.url}/cdn/{NAME}?v=1")) as here,
    ):
        assert_delivered(tmp_path, here.url)
    assert here.requests[0].sent < ENDLESS_BYTES
    assert there.requests[0].path == f"/cdn/{NAME}?v=1"


def test_an_error_after_a_redirect_names_the_target(tmp_path):
    with FaultyServer(Step(status=404)) as there, FaultyServer(redirect(f"{there.url}/x")) as here:
        assert f"Not Found (redirected to '{there.url}/x')" in refused(tmp_path, here.url)


@pytest.mark.parametrize(("redirects", "delivered"), [(5, True), (6, False)])
def test_five_redirects_are_followed_and_no_more(tmp_path, redirects, delivered):
    with FaultyServer(*[redirect("again")] * redirects, WHOLE) as server:
        if delivered:
            assert_delivered(tmp_path, server.url)
        else:
            message = refused(tmp_path, server.url)
            assert f"more than 5 redirects, the last to '{server.url}/again'" in message
    assert len(server.requests) == 6


# Time


def test_the_timeout_ends_a_body_and_everything_after_it(tmp_path, clock):
    content = bytes(10_000_000)
    file = RemoteFile(NAME, len(content), hashlib.sha256(content).hexdigest())
    clock.tick = 4
    with (
        FaultyServer(Step(content)) as slow,
        FaultyServer(Step(content)) as late,
        pytest.raises(DataUnavailableError, match="gave up when the timeout of 300 s for"),
    ):
        fetch(file, tmp_path, [slow.url, late.url], timeout=300)
    assert (len(slow.requests), len(late.requests)) == (1, 0)
    assert list(tmp_path.iterdir()) == []


def test_a_pause_beyond_the_timeout_is_not_started(tmp_path, clock):
    with FaultyServer(Step(status=503, headers={"Retry-After": "20"})) as server:
        refused(tmp_path, server.url, timeout=10)
    assert clock.waits == []
    assert len(server.requests) == 1


# The disk


def test_a_keyboard_interrupt_passes_and_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(seconds: float) -> None:
        assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "sleep", interrupt)
    with FaultyServer(cut()) as server, pytest.raises(KeyboardInterrupt):
        fetch(FILE, tmp_path, [server.url])
    assert list(tmp_path.iterdir()) == []


# The pure decisions


_small = st.integers(0, 3)


@given(_small, _small, _small, _small, _small)
def test_only_the_exact_rest_is_appended(start, end, total, received, size):
    headers = {"Content-Range": f"bytes {start}-{end}/{total}"}
    try:
        resumed = download._resumes(206, headers, received, size)
    except download.MirrorError:
        resumed = False
    assert resumed == ((start, end, total) == (received, size - 1, size))


@pytest.mark.parametrize(
    ("status", "wait"),
    [(status, 5) for status in (206, 408, 416, 429, 500, 503, 599)]
    + [(status, math.inf) for status in (204, 300, 302, 304, 400, 401, 403, 404, 410, 451)],
)
def test_which_status_is_retried(status, wait):
    with pytest.raises(download.MirrorError) as caught:
        download._resumes(status, {"Retry-After": "5"}, received=0, size=SIZE)
    assert caught.value.wait == wait


@pytest.mark.parametrize(
    ("attempts", "wait", "pause"),
    [
        *((1, 0, 1), (2, 0, 2), (3, 0, 4), (4, 0, math.inf)),
        *((1, 30, 30), (1, 31, math.inf), (1, math.inf, math.inf)),
    ],
)
def test_how_long_to_wait(attempts, wait, pause):
    assert download._pause(attempts, wait) == pause


@given(st.integers(0, 10**9))
def test_retry_after_reads_seconds(seconds):
    assert download._retry_after(str(seconds), now=0) == seconds


@given(st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1)), st.integers(0, 10**10))
def test_retry_after_reads_dates(date, now):
    date = date.replace(microsecond=0, tzinfo=UTC)
    asked = download._retry_after(format_datetime(date, usegmt=True), now)
    assert asked == max(0, date.timestamp() - now)


@given(st.text(st.characters(max_codepoint=255)))
@example("-1")
@example("Thu, 01 Jan 99999999999999999999 00:00:00 GMT")
def test_retry_after_accepts_any_text(text):
    assert download._retry_after(text, now=0) >= 0


@pytest.mark.parametrize(
    ("url", "location", "target"),
    [
        ("http://a/x/y", "z", "http://a/x/z"),
        ("http://a/x", "//b/z", "http://b/z"),
        ("http://a/x", "https://b/z", "https://b/z"),
        ("https://a/x", "https://b/z", "https://b/z"),
        ("https://a/x", "http://b/z", None),
        ("HTTPS://a/x", "http://b/z", None),
        ("http://a/x", "file:///z", None),
    ],
)
def test_where_a_redirect_may_lead(url, location, target):
    if target is None:
        with pytest.raises(download.MirrorError, match="refused a redirect"):
            download._redirect_target(url, location)
    else:
        assert download._redirect_target(url, location) == target
