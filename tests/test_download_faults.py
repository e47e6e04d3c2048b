"""Under every fault a download ends with the right file, or with an error and nothing changed.

Each fault is injected twice: into the library, with shortened pauses and random bytes; and into
the command, as a user runs it, with the real file and the real pauses.
"""

import gzip
import hashlib
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep, time
from typing import Any

import download_faults
import pytest
from download_faults import FAULTS, INTERRUPTIONS, NAME, STAMPEDE, TOO_LITTLE, Fault, disk_of
from faulty_server import FaultyServer, Request

from npsoftmax.data import download
from npsoftmax.data.datasets import find
from npsoftmax.data.download import RemoteFile, fetch, verify
from npsoftmax.errors import DataUnavailableError

FETCH = Path(__file__).parents[1] / "scripts" / "fetch.py"
SYNTHETIC = gzip.compress(random.Random(0).randbytes(3_000_000), mtime=0)
SYNTHETIC_FILE = RemoteFile(NAME, len(SYNTHETIC), hashlib.sha256(SYNTHETIC).hexdigest())
DATA_SET = find("fashion-mnist")
REAL_FILE = DATA_SET.files["test-images"]

# Seconds for a whole download by the library.
TIMEOUT = 10
MAX_MEMORY_BYTES = 300e6
DAY_SECONDS = 86_400

# Mode bits bind root only without these capabilities.
BOUND_BY_MODES = (
    ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner"]
    if os.geteuid() == 0
    else []
)
# The peak of a child includes the memory of its parent when it was started: this parent is small.
MEASURED = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
open(sys.argv[1], "w").write(str(peak if sys.platform == "darwin" else 1024 * peak))
sys.exit(code)
"""
# The library in another process.
DRIVER = """
import sys
from pathlib import Path
from npsoftmax.data.download import RemoteFile, fetch, verify
from npsoftmax.errors import DataUnavailableError
name, size, sha256, folder, url = sys.argv[1:]
file = RemoteFile(name, int(size), sha256)
if verify(Path(folder) / name, file):
    try:
        fetch(file, Path(folder), [url])
    except DataUnavailableError as error:
        sys.exit(str(error))
"""

by_id = pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.id)


@dataclass
class Trial:
    """A fault and the outcome of the download; ``error`` is empty if there was none."""

    fault: Fault
    file: RemoteFile
    folder: Path
    url: str
    requests: list[Request]
    before: dict[str, str]
    after: dict[str, str]
    seconds: float
    error: str

    def happened(self) -> str:
        """Return the outcome in a few words that are the same in each run."""
        if not self.error:
            return "file"
        place = rf"{re.escape(self.url)}\S*|cannot write \S+"
        reason = re.search(rf"(?:{place}): (.+?)(;|$)", self.error, re.DOTALL)
        others = self.error.removeprefix(f"fetch.py: error: {DATA_SET.name}: ")
        text = reason[1] if reason else others
        text = text.replace(f"{self.folder}/", "").replace(self.url, "URL")
        text = re.sub(r"\bport=\d+", "port", re.sub(r"(127\.0\.0\.1|localhost):\d+", "HOST", text))
        text = re.sub(r"\b([0-9a-f]{8})[0-9a-f]{56}\b", r"\1...", text)
        text = re.sub(r"\b\d{9,} s\b", "for ages", text)  # until a date, so never the same
        return f"error: {text[:80]}"

    def bytes_lost(self) -> int:
        """Return the number of bytes under the final name that are neither old nor right."""
        name = self.final_name()
        found = self.after.get(name, "")
        if found == self.before.get(name, "") or found.endswith(self.right_content()):
            return 0
        return self.file.size

    def judge(self, record_property: Callable[[str, object], None], way: str) -> None:
        """Record the outcome, and check it against what the fault allows."""
        fault = self.fault
        record(record_property, fault, self.happened(), way, self.bytes_lost())
        assert fault.expected in ("either", "error" if self.error else "file"), self.error
        assert self.after == (self.before if self.error else self.with_file())
        assert {request.method for request in self.requests} <= {"GET"}
        assert len(self.requests) <= fault.max_requests
        assert sum(request.sent for request in self.requests) <= fault.max_sent
        assert self.seconds >= fault.min_seconds
        if self.error:
            self.judge_error()

    def judge_error(self) -> None:
        """Check that the error says what its reader needs."""
        # Without the escape sequences that a server may send to a terminal.
        assert self.error.replace("\n", "").isprintable(), ascii(self.error)
        assert "Traceback" not in self.error
        assert re.search(self.fault.says, self.error), self.error
        needed = [NAME, str(self.folder)]
        if self.fault.id[0] != "C":
            needed += [f"{self.url}/{NAME}: ", f"{self.file.size:,} bytes", self.file.sha256]
        for part in needed:
            assert part in self.error

    def with_file(self) -> dict[str, str]:
        """Return the previous content with the right file and without old temporary files."""
        name, content = self.final_name(), self.right_content()
        kept = {path: text for path, text in self.before.items() if "days old" not in text}
        if kept.get(name, "").endswith(content):
            return kept
        return {**kept, name: f"{0o666 & ~self.fault.umask:o} {content}"}

    def final_name(self) -> str:
        """Return the path of the file relative to the folder of all data sets."""
        return f"{self.folder.resolve().relative_to(self.folder.parent.resolve())}/{NAME}"

    def right_content(self) -> str:
        """Return the end of the right file's description."""
        return f"{self.file.size} bytes {self.file.sha256}"


def record(record_property: Callable[[str, object], None], fault: Fault, *outcome: object) -> None:
    """Record a row of the table of faults."""
    names = ("id", "fault", "expected", "happened", "way", "bytes_lost")
    for row in zip(names, (fault.id, fault.fault, fault.expected, *outcome), strict=True):
        record_property(*row)


def attempt(
    fault: Fault, right: bytes, file: RemoteFile, folder: Path, get: Callable[[str], str]
) -> Trial:
    """Inject the fault into ``get``, which takes the URL of the mirror and returns the error."""
    folder.parent.mkdir()
    fault.prepare(folder, right)
    before = contents(folder.parent)
    umask = os.umask(fault.umask)
    try:
        # No byte may be written beyond the size of the file.
        with disk_of(int(fault.disk * len(right))), serving(fault, right) as server:
            begin = monotonic()
            error = get(server.url)
            seconds = monotonic() - begin
    finally:
        os.umask(umask)
    after = contents(folder.parent)
    return Trial(fault, file, folder, server.url, server.requests, before, after, seconds, error)


@contextmanager
def serving(fault: Fault, right: bytes) -> Iterator[FaultyServer]:
    """Yield the server of a fault, already stopped if nothing is to listen."""
    with FaultyServer(*fault.answers(right) if fault.answers else (), forever=True) as server:
        if fault.answers:
            yield server
    if not fault.answers:
        yield server


def contents(folder: Path) -> dict[str, str]:
    """Return a description of everything in a folder, by relative path."""
    return {str(path.relative_to(folder)): description(path) for path in folder.rglob("*")}


def description(path: Path) -> str:
    """Describe a path without following links."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return f"link to {path.readlink()}"
    if not stat.S_ISREG(status.st_mode):
        return "folder" if stat.S_ISDIR(status.st_mode) else "pipe"
    age = " days old" if time() - status.st_mtime > DAY_SECONDS else ""
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return f"{stat.S_IMODE(status.st_mode):o}{age} {len(content)} bytes {digest}"


# The library


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("no_proxy", "*")


def hurry(monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    """Shorten all pauses, except those that the server asks for.

    Where an answer decides, there is time for it: a busy machine must not be taken for a slow
    server.
    """
    monkeypatch.setattr(download_faults, "DRIP_SECONDS", 0.05)
    if fault.max_requests == 1:
        return  # nothing is waited for
    monkeypatch.setattr(download, "_FIRST_PAUSE_SECONDS", 0.02)
    waits = fault.expected == "file" or fault.says not in ("", TOO_LITTLE)
    monkeypatch.setattr(download, "_CONNECT_SECONDS", 2 if waits else 0.5)
    monkeypatch.setattr(download, "_READ_SECONDS", 2 if waits else 0.5)
    if fault.expected != "file":
        monkeypatch.setattr(download, "_PATIENCE_SECONDS", 6 if waits else 1.2)


@by_id
def test_the_library_ends_in_one_of_two_ways(fault, tmp_path, monkeypatch, record_property):
    hurry(monkeypatch, fault)
    folder = tmp_path / "data" / "fashion-mnist"

    def here(url: str) -> str:
        try:
            if verify(folder / NAME, SYNTHETIC_FILE):
                fetch(SYNTHETIC_FILE, folder, [url], timeout=TIMEOUT)
        except DataUnavailableError as error:
            return str(error)
        return ""

    def elsewhere(url: str) -> str:
        child = start_driver(folder, url, bound_by_modes())
        out, err = child.communicate(timeout=60)
        assert (out, child.returncode) == ("", 1 if err else 0), err
        return err.rstrip("\n")

    get = elsewhere if fault.obeys_modes else here
    trial = attempt(fault, SYNTHETIC, SYNTHETIC_FILE, folder, get)
    trial.judge(record_property, "library")
    assert trial.seconds <= 3 * TIMEOUT


def test_eight_processes_at_once_get_the_file(tmp_path, record_property):
    folder = tmp_path / "data" / "fashion-mnist"

    def stampede(url: str) -> str:
        return wait_for([start_driver(folder, url) for _ in range(8)])

    trial = attempt(STAMPEDE, SYNTHETIC, SYNTHETIC_FILE, folder, stampede)
    trial.judge(record_property, "library")


def start_driver(folder: Path, url: str, prefix: list[str] | None = None) -> subprocess.Popen[str]:
    """Start a process that gets the synthetic file."""
    file = SYNTHETIC_FILE
    words = [file.name, str(file.size), file.sha256, str(folder), url]
    return start([*(prefix or []), sys.executable, "-c", DRIVER, *words])


def bound_by_modes() -> list[str]:
    """Return a command prefix under which mode bits bind root too."""
    if BOUND_BY_MODES and shutil.which("setpriv") is None:
        pytest.skip("needs setpriv, or to be run by another user than root")
    return BOUND_BY_MODES


def start(words: list[str], **options: Any) -> subprocess.Popen[str]:
    """Start a process in a group of its own, so that it can be stopped with its children."""
    return subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


def wait_for(children: list[subprocess.Popen[str]]) -> str:
    """Wait for processes that must all succeed; return their error output."""
    errors = [child.communicate(timeout=120)[1] for child in children]
    assert [child.returncode for child in children] == [0] * len(children), errors
    return "".join(errors)


# The command


@pytest.fixture
def real(fashion_mnist_folder):
    """Return the bytes of the real file."""
    return Path(fashion_mnist_folder, DATA_SET.name, NAME).read_bytes()


def command(folder: Path, url: str) -> list[str]:
    """Return the command line of a user."""
    place = ["--data-dir", str(folder.parent), "--mirror", url]
    return [sys.executable, str(FETCH), DATA_SET.name, NAME, *place, "--timeout", "40"]


def private_environment(home: Path) -> dict[str, Any]:
    """Return a folder and variables that keep out this user's files and the network."""
    home.mkdir()
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "nowhere://127.0.0.1:9")
    proxies["no_proxy"] = "127.0.0.1,localhost"
    environment = {
        **os.environ,
        **proxies,
        **{name.upper(): value for name, value in proxies.items()},
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "NPSOFTMAX_OFFLINE": "0",
    }
    environment.pop("NPSOFTMAX_DATA", None)
    return {"cwd": home, "env": environment}


@pytest.mark.slow
@by_id
def test_the_command_ends_in_one_of_two_ways(fault, real, tmp_path, record_property):
    folder = tmp_path / "data" / DATA_SET.name
    measured = [sys.executable, "-S", "-c", MEASURED, str(tmp_path / "memory")]
    prefix = bound_by_modes() if fault.obeys_modes else []

    def run(url: str) -> str:
        something_wrong = os.path.lexists(folder / NAME)
        child = start(
            [*measured, *prefix, *command(folder, url)], **private_environment(tmp_path / "home")
        )
        try:
            out, err = child.communicate(timeout=fault.max_seconds)
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.communicate()
        code = (4 if something_wrong else 3) if err else 0
        assert (child.returncode, bool(out)) == (code, not err), err
        return err.rstrip("\n")

    trial = attempt(fault, real, REAL_FILE, folder, run)
    trial.judge(record_property, "command")
    assert int((tmp_path / "memory").read_text()) <= MAX_MEMORY_BYTES


@pytest.mark.slow
@pytest.mark.parametrize("fault", INTERRUPTIONS, ids=lambda fault: fault.id)
def test_ctrl_c_ends_the_command_at_once_and_leaves_nothing(fault, real, tmp_path, record_property):
    folder = tmp_path / "data" / DATA_SET.name

    with serving(fault, real) as server:
        folder.mkdir(parents=True)
        child = start(command(folder, server.url), **private_environment(tmp_path / "home"))
        while not server.requests and child.poll() is None:
            sleep(0.01)
        sleep(0.5)  # for the client to take in the answer, and to wait for more
        parts = len(contents(folder))
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=3)
    lost = 0 if contents(folder) == {} else len(real)
    record(record_property, fault, f"error: {err.strip()}", "command", lost)
    assert parts == 1
    assert contents(folder) == {}
    assert (child.returncode, out, err) == (130, "", "fetch.py: interrupted\n")
    assert len(server.requests) == 1


@pytest.mark.slow
def test_eight_commands_at_once_get_the_file(real, tmp_path, record_property):
    folder = tmp_path / "data" / DATA_SET.name

    def stampede(url: str) -> str:
        options = private_environment(tmp_path / "home")
        return wait_for([start(command(folder, url), **options) for _ in range(8)])

    trial = attempt(STAMPEDE, real, REAL_FILE, folder, stampede)
    trial.judge(record_property, "command")
