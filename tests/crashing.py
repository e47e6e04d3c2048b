"""Runs of the training command that are killed or interrupted, or whose system calls fail."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from time import monotonic, sleep
from typing import Any, NamedTuple

from running import SCRIPT, told

from npsoftmax import storage
from npsoftmax.checkpoint import Checkpoint, SolverCheckpoint, verify_files
from npsoftmax.commands.run_folder import FILES

# The real command with a small data set and no picture. The data set is not cached: a second start
# must make the same system calls as the first one.
DRIVER = """
import os, runpy, sys
from pathlib import Path
from npsoftmax.data import datasets
datasets._GARMENTS = {"train": (512, 0), "test": (50, 1)}
datasets.cache_folder = lambda: Path(os.devnull)
sys.modules["matplotlib"] = None
sys.argv = sys.argv[1:]
sys.path[0] = str(Path(sys.argv[0]).parent)
import contextlib
from npsoftmax.commands import command_line
command_line.left_as_found = contextlib.nullcontext  # nothing comes after the command here either
runpy.run_path(sys.argv[0], run_name="__main__")
"""
# The system calls must come in the same order in each run, because they are counted.
REPEATABLE = {"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1"}
TIMEOUT = 120

SGD = ["--batch-size", "32", "--epochs", "5", "--l2", "1e-4", "--checkpoint-every", "1"]
WAYS = {
    "descent": SGD,
    "momentum": [*SGD, "--optimiser", "momentum"],
    "nesterov": [*SGD, "--optimiser", "nesterov"],
    "adam": [*SGD, "--optimiser", "adam"],
    "adamw": [*SGD, "--optimiser", "adamw", "--dtype", "float64"],
    "lbfgs": ["--solver", "lbfgs", "--l2", "1e-4", "--tol", "1e-4", "--checkpoint-every", "1",
              "--threads", "1"],
    "unsaved": ["--batch-size", "2", "--epochs", "4"],
    "unsaved lbfgs": ["--solver", "lbfgs", "--l2", "1e-4", "--tol", "1e-4", "--threads", "1"],
    # Five checkpoints: at the start, in the middle and at the end of both epochs.
    "short": ["--batch-size", "256", "--epochs", "2", "--checkpoint-every", "1", "--optimiser",
              "momentum"],
    "short lbfgs": ["--solver", "lbfgs", "--l2", "1e-2", "--tol", "3e-3", "--checkpoint-every", "1",
                    "--threads", "1"],
}  # fmt: skip


class Ended(NamedTuple):
    """How a process ended; ``code`` is negative for a signal."""

    code: int
    out: str
    err: str


@dataclass
class Run:
    """A run of the training command in ``parent/run``, in one or several processes."""

    parent: Path
    way: str  # a key of WAYS
    place: tuple[int, ...] = ()  # of the newest checkpoint at the last check

    @property
    def folder(self) -> Path:
        return self.parent / "run"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.npz"

    def start(self, *prefix: str, flags: Sequence[str] | None = None) -> subprocess.Popen[str]:
        """Start the command, by default with ``--resume`` if there is a checkpoint."""
        if flags is None:
            flags = ["--resume"] if self.checkpoint.exists() else []
        self.parent.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, "-c", DRIVER, str(SCRIPT), "--dataset", "garments"]
        return subprocess.Popen(
            [*prefix, *words, *WAYS[self.way], "--run-dir", str(self.folder), *flags],
            cwd=self.parent,
            env={**os.environ, **REPEATABLE},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def live(self, *prefix: str, flags: Sequence[str] | None = None) -> Ended:
        """Start the command and wait until it ends."""
        return ended(self.start(*prefix, flags=flags))

    def die(self, seconds: float, training: bool) -> bool:
        """Kill the command some time after its start or first checkpoint; say if it was alive."""
        before = self.stamp()
        process = self.start()
        if training:
            wait_for(lambda: self.stamp() != before or process.poll() is not None)
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            self.check_files()
            return True
        assert (process.returncode, err) == (0, ""), (out, err)
        return False

    def stamp(self) -> int | None:
        """Return the time of the newest checkpoint."""
        return self.checkpoint.stat().st_mtime_ns if self.checkpoint.exists() else None

    def check_files(self) -> None:
        """Check the guarantees for the run folder, which hold after every kind of end."""
        names = set(os.listdir(self.folder)) if self.folder.exists() else set()
        lasting = {name for name in names if not name.endswith(".part")}
        assert lasting <= set(FILES)
        assert "checkpoint.npz" in lasting or not lasting
        # An unfinished publication has two temporary files, the new one and the previous one.
        assert len(names - lasting) <= 2
        sealed = sorted(name for name in lasting if name.endswith(".npz"))
        assert not sealed or verify_files([str(self.folder / name) for name in sealed]) == 0
        places = [place_in(self.folder / name) for name in sealed if name.startswith("check")]
        assert places == sorted(places, reverse=True)
        newest = places[0] if places else ()
        assert newest >= self.place
        self.place = newest

    def finish(self, expected: dict[str, Any]) -> int:
        """Resume until the end, compare with a whole run, and return the lost bytes."""
        end = self.live()
        assert (end.code, end.err) == (0, ""), end
        self.check_files()
        assert self.leftovers() == []
        found = outcome(self.folder)
        pairs = zip_longest(found["model"], expected["model"])
        lost = sum(one != other for one, other in pairs)
        assert (lost, found) == (0, expected)
        return lost

    def leftovers(self) -> list[str]:
        """Return the temporary files."""
        return [path.name for path in self.folder.glob(".*")] if self.folder.exists() else []


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until a condition holds, for a limited time."""
    end = monotonic() + TIMEOUT
    while not condition():
        assert monotonic() < end
        sleep(0.002)


def ended(process: subprocess.Popen[str]) -> Ended:
    """Wait until a process ends, for a limited time."""
    try:
        out, err = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return Ended(process.returncode, out, err)


def place_in(path: Path) -> tuple[int, ...]:
    """Return the position of a checkpoint in training; later ones are larger."""
    if storage.kind_of(path) == "checkpoint":
        progress = Checkpoint.read(path).progress
        return progress.epoch, progress.step
    return (len(SolverCheckpoint.read(path).history),)


def outcome(folder: Path) -> dict[str, Any]:
    """Return the results of a finished run, except times."""
    path = folder / "checkpoint.npz"
    arrays, _ = storage.read(path, storage.kind_of(path))
    summary = json.loads((folder / "summary.json").read_text())
    del summary["seconds"]
    return {
        "model": (folder / "model.npz").read_bytes(),
        "history": told(folder),
        "summary": summary,
        "state": {name: (str(a.dtype), a.shape, a.tobytes()) for name, a in arrays.items()},
        "place": place_in(path),
    }


@dataclass(frozen=True)
class Call:
    """A system call that concerns the run folder, as strace shows it."""

    name: str  # differs between machines: rename or renameat2
    number: int  # among the calls of this name, by the thread that writes the files
    label: str  # the call and its paths, without their random parts
    text: str  # arguments and result

    @property
    def kind(self) -> str:
        return kind_of_call(self.name)


KINDS = ("mkdir", "openat", "write", "fsync", "link", "rename", "unlink")
TRACED = "trace=/^(openat|write|fsync|(mkdir|link|rename|unlink)(at|at2)?)$"


def kind_of_call(name: str) -> str:
    """Return the name without the suffix of its newer variants."""
    return name if name == "openat" else re.sub("at2?$", "", name)


def strace(log: Path, *faults: str) -> list[str]:
    """Return the start of a command line that records system calls and lets some of them fail."""
    # With --seccomp-bpf, which is faster, strace loses the signals that it should send.
    words = ["strace", "-f", "-qq", "-y", "-s", "0", "-o", str(log), "-e", TRACED]
    return [*words, *(word for fault in faults for word in ("-e", f"inject={fault}"))]


def can_trace() -> bool:
    """Say whether strace is installed and permitted to trace."""
    words = ["strace", "-f", "-qq", "-o", os.devnull, "-e", TRACED, "true"]
    return (
        bool(shutil.which("strace")) and subprocess.run(words, capture_output=True).returncode == 0
    )


def calls_in(log: Path, folder: Path) -> list[Call]:
    """Return the calls of the first thread that concern a folder, in order."""
    found, counts, first = [], Counter[str](), ""
    for line in log.read_text(errors="replace").splitlines():
        begun = re.match(r"(\d+) +(\w+)\((.*)", line)
        if begun is None or begun[1] != (first := first or begun[1]):
            continue
        name, rest = begun[2], re.sub(r"\.[0-9a-f]{16}\.part", ".part", begun[3])
        counts[name] += 1
        paths = re.findall(rf"{re.escape(str(folder))}(/[\w.]+|)", rest.split(" = ")[0])
        if paths:
            label = " ".join([kind_of_call(name), *(path[1:] or "folder" for path in paths)])
            found.append(Call(name, counts[name], label, rest))
    return found
