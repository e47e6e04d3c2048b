"""Checkpoints survive: kills, failing calls of the system, interruptions, rivals, damage.

Each proof leaves a record, of which ``docs/reliability.md`` makes its table. The slow ones go
everywhere where the quick ones go to a few places.
"""

import gzip
import io
import json
import os
import pickle
import random
import re
import signal
import subprocess
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from itertools import groupby
from pathlib import Path
from time import monotonic, sleep
from typing import Any, NamedTuple

import numpy as np
import pytest
from crashing import KINDS, Call, Ended, Run, calls_in, can_trace, ended, outcome, strace, wait_for
from test_hostile_files import seal

from npsoftmax import DataLoader, FullBatchTrainer, SoftmaxRegression, Trainer, storage
from npsoftmax.checkpoint import Checkpoint
from npsoftmax.errors import CorruptFileError, InputError, NpsoftmaxError, ResumeWarning
from npsoftmax.objective import FullBatch
from npsoftmax.optimisers import Adam, Momentum

Record = Callable[[str, object], None]

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends signals")
needs_strace = pytest.mark.skipif(not can_trace(), reason="needs strace, and leave to trace")
quick_and_slow = pytest.mark.parametrize(
    "quick",
    [pytest.param(True, id="quick"), pytest.param(False, id="slow", marks=pytest.mark.slow)],
)


def each_kind(*quick: str) -> pytest.MarkDecorator:
    """Try all kinds of calls; the usual run tries these ones only."""
    others = [kind for kind in KINDS if kind not in quick]
    return pytest.mark.parametrize(
        "kind", [*quick, *(pytest.param(kind, marks=pytest.mark.exhaustive) for kind in others)]
    )


LONG_WAYS = ["descent", "momentum", "nesterov", "lbfgs", "adam", "adamw"]
ERRORS = {"EIO": "Input/output error", "ENOSPC": "No space left on device"}
SAVED = re.compile(r"written|saved")


class Whole(NamedTuple):
    """What an uninterrupted run left, and how long it took."""

    outcome: dict[str, Any]
    seconds: float


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Whole]:
    """Return what makes the uninterrupted run of a way, once."""

    @cache
    def whole_run(way: str) -> Whole:
        run = Run(tmp_path_factory.mktemp("whole"), way)
        start = monotonic()
        end = run.live()
        seconds = monotonic() - start
        assert (end.code, end.err) == (0, "")
        return Whole(outcome(run.folder), seconds)

    return whole_run


@pytest.fixture(scope="module")
def calls(
    whole: Callable[[str], Whole], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], list[Call]]:
    """Return what lists the calls of the uninterrupted run of a way that concern its folder."""

    @cache
    def calls_of(way: str) -> list[Call]:
        whole(way)  # compiles what was not, and nothing is left to do so that would be counted
        run = Run(tmp_path_factory.mktemp("calls"), way)
        log = run.parent / "calls"
        assert run.live(*strace(log)).code == 0
        return calls_in(log, run.folder)

    return calls_of


def leave(record_property: Record, **properties: object) -> None:
    """Leave a row for the table of faults."""
    for name, value in properties.items():
        record_property(name, value)


# Kills


@pytest.mark.exhaustive
@quick_and_slow
def test_a_run_survives_kills_at_random_moments(
    quick: bool, whole: Callable[[str], Whole], tmp_path: Path, record_property: Record
) -> None:
    number, seen = 4 if quick else 100, Counter[str]()
    for story in range(number):
        rng, way = random.Random(story), LONG_WAYS[story % len(LONG_WAYS)]
        run, seconds = Run(tmp_path / str(story), way), whole(way).seconds
        training = quick or rng.random() < 0.6  # else many die before there is anything to lose
        delay = seconds * (story * 0.618034 % 1) * (0.4 if training else 1)
        while not run.die(delay, training):
            run, delay = Run(tmp_path / f"{story} {delay}", way), 0.8 * delay
        seen["first"] += 1
        seen["before the first checkpoint"] += run.place == ()
        for _ in range(rng.randint(1, 3) if rng.random() < 1 / 3 else 0):
            seen["again"] += run.die(0.4 * seconds * rng.random(), training)
        seen["lost"] += run.finish(whole(way).outcome)
    kills = seen["first"] + seen["again"]
    leave(
        record_property,
        id="K01",
        fault="kill -9 at a random moment; a third of the runs up to three times more",
        expected="what is there verifies, and the run ends as if nothing had happened",
        happened=f"{number} of {number} runs equal to the last bit after {kills} kills, "
        f"{seen['before the first checkpoint']} of them before the first checkpoint",
        kills=kills,
        bytes_lost=seen["lost"],
    )
    assert seen["first"] == number and seen["before the first checkpoint"] < number


def points(calls: list[Call], kind: str, quick: bool) -> list[Call]:
    """Return all calls of a kind, or the one in the middle."""
    chosen = [call for call in calls if call.kind == kind]
    return [chosen[len(chosen) // 2]] if quick else chosen


@needs_strace
@quick_and_slow
@each_kind("write", "rename")
def test_a_run_survives_a_kill_at_each_call(
    kind: str,
    quick: bool,
    whole: Callable[[str], Whole],
    calls: Callable[[str], list[Call]],
    tmp_path: Path,
    record_property: Record,
) -> None:
    seen = Counter[str]()
    for place, call in enumerate(points(calls("short"), kind, quick)):
        run = Run(tmp_path / str(place), "short")
        log = tmp_path / "calls"
        end = run.live(*strace(log, f"{call.name}:signal=SIGKILL:when={call.number}"))
        assert end.code == -signal.SIGKILL
        run.look()
        seen["kills"] += 1
        seen["aimed"] += [call.label] == [found.label for found in calls_in(log, run.folder)[-1:]]
        seen["lost"] += run.finish(whole("short").outcome)
    leave(
        record_property,
        id=f"S-{kind}",
        fault=f"kill -9 at {'one' if quick else 'each'} {kind} in the run folder",
        expected="what is there verifies, and the run ends as if nothing had happened",
        happened=f"{seen['kills']} of {seen['kills']} runs equal to the last bit; "
        f"{seen['aimed']} died at the very call",
        kills=seen["kills"],
        bytes_lost=seen["lost"],
    )
    assert seen["aimed"] > 0


# Errors of the system


def is_harmless(call: Call) -> bool | None:
    """Say whether a run ends well without this call; None where it depends on Python's version."""
    if "O_DIRECTORY" in call.text:
        return None  # Path.glob of Python 3.13 passes over what cannot be read
    if call.label == "openat checkpoint.npz":
        return True  # the file that cannot be read is not worth being kept as the previous one
    if call.kind in ("mkdir", "unlink"):
        return "= -1" in call.text  # the folder was there, the temporary file no longer
    return call.kind == "link"  # a copy does as well


@needs_strace
@pytest.mark.parametrize(
    ("error", "quick"),
    [
        pytest.param("EIO", True, id="quick"),
        *(pytest.param(e, False, id=f"{e}-slow", marks=pytest.mark.slow) for e in ERRORS),
    ],
)
@each_kind("write", "fsync")
def test_a_failing_call_ends_a_run_in_one_line(
    error: str,
    kind: str,
    quick: bool,
    whole: Callable[[str], Whole],
    calls: Callable[[str], list[Call]],
    tmp_path: Path,
    record_property: Record,
) -> None:
    seen, lost = Counter[str](), 0
    # The quick ones take the errors in turn.
    error = "ENOSPC" if quick and KINDS.index(kind) % 2 else error
    for place, call in enumerate(points(calls("short"), kind, quick)):
        run = Run(tmp_path / str(place), "short")
        log = tmp_path / "calls"
        end = run.live(*strace(log, f"{call.name}:error={error}:when={call.number}"))
        injected = [found for found in calls_in(log, run.folder) if "(INJECTED)" in found.text]
        assert [found.label for found in injected] == [call.label]
        run.look()
        assert run.leftovers() == []
        if end.code == 0:
            seen["harmless"] += 1
            assert is_harmless(call) in (True, None), call
            assert end.err == "" and outcome(run.folder) == whole("short").outcome
        else:
            seen["refused"] += 1
            assert is_harmless(call) in (False, None), (call, end)
            complains(end, run, ERRORS[error])
        lost += run.finish(whole("short").outcome)
    leave(
        record_property,
        id=f"E-{error}-{kind}",
        fault=f"{error} at {'one' if quick else 'each'} {kind} in the run folder",
        expected="exit 2 with path and reason, the checkpoints verify, no .part left; "
        "or exit 0 where it does no harm",
        happened=f"{seen['refused']} refused, {seen['harmless']} harmless, "
        f"{seen.total()} of {seen.total()} then ended equal to the last bit",
        inputs=seen.total(),
        bytes_lost=lost,
    )


def complains(end: Ended, run: Run, reason: str) -> None:
    """Hold the end of a run that could not write to what a person needs who reads it."""
    assert end.code == 2, end
    (line,) = end.err.splitlines()
    assert str(run.folder) in line and reason in line
    assert not SAVED.search(end.out + end.err), end


@needs_strace
def test_what_cannot_be_removed_hides_no_error(
    whole: Callable[[str], Whole],
    calls: Callable[[str], list[Call]],
    tmp_path: Path,
    record_property: Record,
) -> None:
    fsyncs = [call for call in calls("short") if call.label == "fsync .checkpoint.npz.part"]
    unlink = next(call.name for call in calls("short") if call.kind == "unlink")
    faults = (f"fsync:error=ENOSPC:when={fsyncs[2].number}", f"{unlink}:error=EIO:when=1+")
    run = Run(tmp_path, "short")
    end = run.live(*strace(tmp_path / "calls", *faults))
    run.look()
    complains(end, run, ERRORS["ENOSPC"])
    assert len(run.leftovers()) == 1
    run.finish(whole("short").outcome)
    leave(
        record_property,
        id="E-unlink",
        fault="ENOSPC at an fsync, then EIO at each unlink",
        expected="exit 2 that tells of the full disk; the next run removes the temporary file",
        happened="exit 2: No space left on device; 1 .part left, removed by the next run; equal",
        inputs=1,
    )


def test_a_disk_that_is_full_in_mid_file_keeps_the_checkpoint(
    whole: Callable[[str], Whole], tmp_path: Path, record_property: Record
) -> None:
    from download_faults import disk_of  # not everywhere

    run = Run(tmp_path, "short")
    with disk_of(50_000):  # the first checkpoint has no momentum, and half the size of the others
        end = run.live()
    run.look()
    complains(end, run, "File too large")
    assert run.place == (0, 0) and run.leftovers() == []
    run.finish(whole("short").outcome)
    leave(
        record_property,
        id="E-full",
        fault="no place for more than half of the second checkpoint",
        expected="exit 2 with path and reason, the first checkpoint verifies, no .part left",
        happened="exit 2: File too large; the first checkpoint verifies; then equal",
        inputs=1,
    )


# Order


FIRST = ["write NEW", "fsync NEW", "rename NEW NAME", "fsync folder"]
LATER = ["write NEW", "fsync NEW", "link NAME NEW", "rename NEW NAME", "fsync folder",
         "rename NEW PREVIOUS"]  # fmt: skip


@needs_strace
def test_files_are_on_the_disk_before_they_have_their_name_and_the_name_before_the_run_goes_on(
    calls: Callable[[str], list[Call]], record_property: Record
) -> None:
    count = 0
    for way, checkpoints in (("short", 5), ("short lbfgs", 6)):
        found = publications(calls(way))
        assert found["checkpoint.npz"] == [FIRST, *[LATER] * (checkpoints - 1)]
        others = [events for name in found if name != "checkpoint.npz" for events in found[name]]
        assert len(others) >= 4 and all(events == FIRST for events in others)
        count += checkpoints
        for call in calls(way):
            changes = call.kind == "unlink" or re.search("O_WRONLY|O_RDWR|O_CREAT", call.text)
            assert ".part" in call.label or not changes
    leave(
        record_property,
        id="G15",
        fault="order of the calls, as strace shows them",
        expected="write, fsync of the file, rename, fsync of the folder; then the previous name",
        happened=f"so in each of {count} checkpoints",
        inputs=count,
    )


def publications(calls: list[Call]) -> dict[str, list[list[str]]]:
    """Return what was done for each file that was published, for each time that it was."""
    found: dict[str, list[list[str]]] = {}
    for call in calls:
        if call.kind == "openat" and "O_CREAT" in call.text:
            name = call.label.removeprefix("openat .").removesuffix(".part")
            found.setdefault(name, []).append([])
        elif call.kind in ("write", "fsync", "link", "rename"):
            event = call.label.replace(f".{name}.part", "NEW").replace(name, "NAME")
            event = event.replace("checkpoint.previous.npz", "PREVIOUS")
            found[name][-1].append(event)
    # A long file may take more than one write.
    return {
        name: [[event for event, _ in groupby(events)] for events in times]
        for name, times in found.items()
    }


# Interruptions


@quick_and_slow
def test_ctrl_c_writes_a_checkpoint(
    quick: bool, whole: Callable[[str], Whole], tmp_path: Path, record_property: Record
) -> None:
    seen = Counter[str]()
    for story in range(3 if quick else 20):
        rng, way = random.Random(story), ("unsaved", "adam", "unsaved lbfgs")[story % 3]
        run = Run(tmp_path / str(story), way)
        process = run.start()
        wait_for(run.checkpoint.exists)
        sleep(0.1 * rng.random())
        process.send_signal(rng.choice([signal.SIGINT, signal.SIGTERM]))
        end = ended(process)
        run.look()
        assert run.leftovers() == []
        if end.code == 0:
            seen["had ended"] += 1
            assert outcome(run.folder) == whole(way).outcome
            continue
        assert end.code == 130, end
        (line,) = end.err.splitlines()
        if "checkpoint written" in line:
            seen["between two steps"] += 1
            assert run.place == place_told(line)
        else:
            seen["after the last step"] += 1
            assert line == "train.py: interrupted"
        run.finish(whole(way).outcome)
    leave(
        record_property,
        id="C01",
        fault="Ctrl-C or SIGTERM at a random step",
        expected="exit 130, a checkpoint of that very step, and the run goes on bit for bit",
        happened=f"{seen['between two steps']} checkpoints between two steps, "
        f"{seen['after the last step']} stops after the last step, "
        f"{seen['had ended']} runs had ended; all equal to the last bit",
        kills=seen.total(),
    )
    assert seen["between two steps"] > 0


def place_told(line: str) -> tuple[int, ...]:
    """Return the place that the line of an interrupted run names, as ``place_in`` does."""
    iteration = re.search(r"after iteration (\d+)", line)
    if iteration:
        return (int(iteration[1]) + 1,)
    finished = re.search(r"after epoch (\d+)", line)
    if finished:
        return int(finished[1]), 0
    begun = re.search(r"in epoch (\d+) after step (\d+)", line)
    assert begun
    return int(begun[1]) - 1, int(begun[2])


@pytest.mark.exhaustive
@quick_and_slow
def test_ctrl_c_at_the_very_end_is_no_traceback(
    quick: bool, whole: Callable[[str], Whole], tmp_path: Path, record_property: Record
) -> None:
    seen = Counter[int]()
    for story in range(3 if quick else 20):
        rng, run = random.Random(story), Run(tmp_path / str(story), "short")
        process = run.start()
        wait_for((run.folder / "summary.json").exists)
        sleep(0.03 * rng.random())
        process.send_signal(rng.choice([signal.SIGINT, signal.SIGTERM]))
        end = ended(process)
        assert (end.code, end.err) in [(0, ""), (130, "train.py: interrupted\n")], end
        assert outcome(run.folder) == whole("short").outcome
        seen[end.code] += 1
    leave(
        record_property,
        id="C04",
        fault="Ctrl-C or SIGTERM after the last file, while the process ends",
        expected="exit 0, or 130 in one line; all is there",
        happened=f"{seen[0]} x exit 0, {seen[130]} x exit 130; all equal to the last bit",
        kills=seen.total(),
    )


@needs_strace
@pytest.mark.parametrize("signals", [(signal.SIGINT,), (signal.SIGINT, signal.SIGTERM)], ids=len)
def test_ctrl_c_while_a_checkpoint_is_written(
    signals: tuple[signal.Signals, ...],
    whole: Callable[[str], Whole],
    calls: Callable[[str], list[Call]],
    tmp_path: Path,
    record_property: Record,
) -> None:
    third = [call for call in calls("short") if call.label == "fsync .checkpoint.npz.part"][2]
    run = Run(tmp_path, "short")
    log = tmp_path / "calls"
    # With -D the process is the command itself, and strace its child.
    words = strace(log, f"fsync:delay_enter=1000000:when={third.number}")
    process = run.start(words[0], "-D", *words[1:])
    wait_for(lambda: log.exists() and len(fsyncs(log)) == third.number)
    assert len(run.leftovers()) == 1
    for number in signals:
        process.send_signal(number)
    end = ended(process)
    run.look()
    assert end.code == 130, end
    (line,) = end.err.splitlines()
    # The first lets the next step end; the second ends the run at once, with the checkpoint before.
    assert ("checkpoint written" in line) == (len(signals) == 1)
    assert run.place == ((1, 1) if len(signals) == 1 else (0, 1))
    assert run.leftovers() == []
    run.finish(whole("short").outcome)
    leave(
        record_property,
        id="C02" if len(signals) == 1 else "C03",
        fault=f"{len(signals)} x Ctrl-C while a checkpoint is written",
        expected="exit 130 in one line; the checkpoint is whole, the new one or the one before",
        happened="exit 130; the checkpoint verifies; then equal to the last bit",
        kills=1,
    )


def fsyncs(log: Path) -> list[str]:
    """Return the calls of fsync that have begun."""
    return re.findall(r"^\d+ +fsync\(", log.read_text(), re.MULTILINE)


# Rivals


@contextmanager
def stopped(run: Run) -> Iterator[subprocess.Popen[str]]:
    """Yield a run that stands still in the middle, with the folder as its own."""
    process = run.start()
    try:
        wait_for(run.checkpoint.exists)
        process.send_signal(signal.SIGSTOP)
        assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
        yield process
    finally:
        process.kill()


def refuses_rivals(run: Run) -> int:
    """Let three more runs try; return how many were refused without touching a thing."""
    before = contents(run.folder)
    for flags in ([], ["--force"], ["--resume"]):
        end = run.live(flags=flags)
        assert (end.code, end.out) == (2, "")
        (line,) = end.err.splitlines()
        assert f"{run.folder}: another run is using it" in line
        assert contents(run.folder) == before
    return 3


def contents(folder: Path) -> dict[str, bytes]:
    """Return what lies in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_of_two_runs_in_one_folder_the_second_is_refused(
    whole: Callable[[str], Whole], tmp_path: Path, record_property: Record
) -> None:
    run = Run(tmp_path / "ends", "adam")
    with stopped(run) as process:
        refused = refuses_rivals(run)
        process.send_signal(signal.SIGCONT)
        end = ended(process)
        assert (end.code, end.err) == (0, "")
    assert outcome(run.folder) == whole("adam").outcome
    run = Run(tmp_path / "killed", "adam")
    with stopped(run) as process:
        refused += refuses_rivals(run)
    process.communicate()
    run.look()
    run.finish(whole("adam").outcome)
    leave(
        record_property,
        id="R01",
        fault="a second run into the folder of one at work: new, --force, --resume",
        expected="exit 2 with the folder, the first one undisturbed; after kill -9 it is free",
        happened=f"{refused} of {refused} refused; both first runs equal to the last bit",
        inputs=refused,
    )


# Damage


D, K, N = 5, 3, 40


def samples() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.standard_normal((N, D), np.float32).T, rng.integers(0, K, N)


def new_model() -> SoftmaxRegression:
    return SoftmaxRegression(D, K, seed=1)


def minibatches(**options: Any) -> Trainer:
    X, y = samples()
    return Trainer(
        new_model(), Adam(0.05), DataLoader(X, y, 8, shuffle=True, seed=2), test=(X, y), **options
    )


def all_samples(**options: Any) -> FullBatchTrainer:
    problem = FullBatch(*samples(), l2=1e-4, threads=1)
    return FullBatchTrainer(new_model(), problem, tol=1e-9, **options)


def fit(trainer: Trainer | FullBatchTrainer, number: int) -> bytes:
    """Train up to so many epochs or iterations from the very start; return the parameters."""
    trainer.fit(number - trainer.epoch if isinstance(trainer, Trainer) else number)
    return trainer.model.theta.tobytes()


TRAINERS = {"minibatches": minibatches, "all samples": all_samples}
Damage = bytes | Callable[[Path], object]


class Bomb:
    """Fails the test if it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was run",))


def archive(compressed: bool = False, **arrays: Any) -> bytes:
    """Return a sealed archive of arrays, pickled ones included."""
    buffer = io.BytesIO()
    compress = np.savez_compressed if compressed else np.savez
    compress(buffer, **arrays)
    with zipfile.ZipFile(buffer, "a") as file:
        file.comment = b"npsoftmax sha256 " + b"0" * 64
    return seal(buffer.getvalue()[: -64 - len(b"npsoftmax sha256 ")])


def broken(good: bytes, earlier: bytes) -> Iterator[tuple[str, Damage]]:
    """Yield what happens to files: their seal is broken, or they cannot be read at all."""
    rng, size = random.Random(0), len(good)
    for place in [*range(0, size, size // 40), *range(size - 100, size, 10)]:
        yield f"bit flipped in byte {place}", flipped(good, place, rng.randrange(8))
    for length in (0, 1, 4, 22, size - 1, size - 2, size - 64, size - 65, size - 81, size - 103):
        yield f"cut to {length} bytes", good[:length]
    for part in range(1, 10):
        place = size * part // 10
        yield f"cut to {place} bytes", good[:place]
        yield f"zeros from byte {place}", good[:place] + bytes(size - place)
        yield f"zeros in a block at {place}", good[:place] + bytes(99) + good[place + 99 :]
        yield f"noise in a block at {place}", good[:place] + rng.randbytes(99) + good[place + 99 :]
        yield f"a byte lost at {place}", good[:place] + good[place + 1 :]
        yield f"the old file from byte {place}", good[:place] + earlier[place:]
    yield "beginning lost", good[64:]
    yield "one byte more", good + b"\0"
    yield "a sector of zeros more", good + bytes(512)
    yield "twice", good + good
    yield "two files in one", earlier + good[: size // 2]
    yield "all zeros", bytes(size)
    yield "all ones", b"\xff" * size
    yield "noise", rng.randbytes(size)
    yield "bytes in pairs swapped", bytes(good[place ^ 1] for place in range(size // 2 * 2))
    yield "newlines for Windows", good.replace(b"\n", b"\r\n")
    yield "read as UTF-8", good.decode(errors="replace").encode()
    yield "seal in capitals", good[:-64] + good[-64:].upper()
    yield "seal of the file before", good[:-64] + earlier[-64:]
    yield "seal of nothing", good[:-64] + seal(b"")[-64:]
    yield "compressed", gzip.compress(good)
    yield "text", b"epoch 1\n"
    yield "a pickle", pickle.dumps(Bomb())
    yield "a pickle and the file", pickle.dumps(Bomb()) + good
    yield "an archive of NumPy", saved(x=np.zeros(3))
    yield "an archive with a pickle", saved(x=np.array([Bomb()], dtype=object))
    yield "missing", Path.unlink
    yield "a folder", replaced_by(Path.mkdir)
    yield "a pipe", replaced_by(os.mkfifo)
    yield "a link to itself", replaced_by(lambda path: path.symlink_to(path))
    yield "a link to nothing", replaced_by(lambda path: path.symlink_to("nothing"))
    yield "a link to an endless file", replaced_by(lambda path: path.symlink_to("/dev/zero"))


def flipped(content: bytes, place: int, bit: int) -> bytes:
    """Return the bytes with another bit."""
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


def saved(**arrays: Any) -> bytes:
    """Return an archive of NumPy, with pickles if need be."""
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=True, **arrays)
    return stream.getvalue()


def replaced_by(make: Callable[[Path], object]) -> Callable[[Path], object]:
    """Return what puts something else in the place of a file."""

    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace


def misleading(path: Path) -> Iterator[tuple[str, Damage]]:
    """Yield whole files, sealed as they should be, that this run must not go on from."""
    kind = storage.kind_of(path)
    arrays, metadata = storage.read(path, kind)
    theta, last = arrays["theta"], metadata["history"][-1]

    def with_arrays(**changed: Any) -> Damage:
        kept = {name: value for name, value in (arrays | changed).items() if value is not None}
        return lambda path: storage.write(path, kind, kept, metadata)

    def with_metadata(kind: str = kind, **changed: Any) -> Damage:
        kept = {name: value for name, value in (metadata | changed).items() if value is not None}
        return lambda path: storage.write(path, kind, arrays, kept)

    yield "a pickle with a seal", seal(pickle.dumps(Bomb()))
    yield "a pickle in an archive with a seal", archive(theta=np.array([Bomb()], dtype=object))
    yield "a compressed archive with a seal", archive(compressed=True, **arrays)
    yield "an archive without metadata", archive(**arrays)
    yield "metadata that are no JSON", archive(**arrays, metadata=np.frombuffer(b"{", np.uint8))
    yield "an empty archive", archive()
    yield "a model", new_model().save
    yield "another kind", with_metadata(kind="notes")
    yield "a checkpoint of the other trainer", of_the_other_trainer(kind)
    yield "a later version", of_a_later_version(kind, arrays, metadata)
    for name in metadata:
        yield f"without {name}", with_metadata(**{name: None})
    yield "another setting", with_metadata(settings=metadata["settings"] | {"pixel_scale": 0.5})
    yield "one setting less", with_metadata(settings={"pixel_scale": 1 / 255})
    yield "no finished epoch", with_metadata(history=[])
    yield "the last epoch twice", with_metadata(history=[*metadata["history"], last])
    yield "an epoch with a word", with_metadata(history=[*metadata["history"][:-1], "last"])
    for name in ("train_loss", "train_acc", "train_seconds"):
        for value in (None, "0", -1.0, True, [0.0]):
            record = {**last, name: value}
            history = [*metadata["history"][:-1], record]
            yield f"{name} {value!r} in the last epoch", with_metadata(history=history)
    yield "theta missing", with_arrays(theta=None)
    yield "theta not a number", with_arrays(theta=np.full_like(theta, np.nan))
    infinite = np.where(theta == theta.max(), np.float32(np.inf), theta)
    yield "theta infinite in one place", with_arrays(theta=infinite)
    yield "theta in float64", with_arrays(theta=theta.astype(np.float64))
    yield "theta in float16", with_arrays(theta=theta.astype(np.float16))
    yield "theta of integers", with_arrays(theta=theta.astype(np.int32))
    yield "theta on its side", with_arrays(theta=theta.T)
    yield "theta in one row", with_arrays(theta=theta.ravel())
    yield "theta without its last column", with_arrays(theta=theta[:, :-1])
    yield "no theta in it", with_arrays(theta=theta[:0])
    yield "one array more", with_arrays(more=theta)
    for name, value in arrays.items():
        if name not in ("theta", "anchor"):
            yield f"{name} missing", with_arrays(**{name: None})
            yield f"{name} not a number", with_arrays(**{name: np.full_like(value, np.nan)})
            yield f"{name} of another shape", with_arrays(**{name: value[..., :0]})
    if "progress" in metadata:
        for name, value in (("epoch", 1), ("epoch", 3), ("step", 6), ("step", -1), ("step", 1.5)):
            progress = {**metadata["progress"], name: value}
            yield f"{name} {value} in its place", with_metadata(progress=progress)


def of_the_other_trainer(kind: str) -> Callable[[Path], object]:
    other = all_samples() if kind == "checkpoint" else minibatches()
    other.fit(2)
    return other.save_checkpoint


def of_a_later_version(
    kind: str, arrays: Mapping[str, Any], metadata: Mapping[str, Any]
) -> Callable[[Path], object]:
    document = {"kind": kind, "format_version": 2, "content": metadata}
    text = np.frombuffer(json.dumps(document).encode(), np.uint8)
    return lambda path: path.write_bytes(archive(**arrays, metadata=text))


@pytest.mark.parametrize("kind", TRAINERS)
def test_a_damaged_checkpoint_is_passed_over_or_refused(
    kind: str, tmp_path: Path, record_property: Record
) -> None:
    path, number = tmp_path / "c.npz", 6
    expected = fit(TRAINERS[kind](), number)
    fit(TRAINERS[kind](checkpoint=path, checkpoint_every=3), 4)
    good, earlier = path.read_bytes(), storage.previous(path).read_bytes()
    assert good != earlier
    cases = [(name, damage, True) for name, damage in broken(good, earlier)]
    cases += [(name, damage, False) for name, damage in misleading(path)]
    for name, damage, passed_over in cases:
        lay(damage, path, good, earlier)
        trainer = TRAINERS[kind]()
        before = trainer.model.theta.tobytes()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            error = resumed(trainer, path)
        if passed_over:
            assert error == "", name
            (warning,) = caught
            assert warning.category is ResumeWarning, name
            assert str(path) in str(warning.message), name
            assert str(storage.previous(path)) in str(warning.message), name
            if isinstance(damage, bytes):  # the next one takes its place, and not the good one's
                trainer.save_checkpoint(path)
                assert storage.previous(path).read_bytes() == earlier, name
            assert fit(trainer, number) == expected, name
        else:
            assert str(path) in error and caught == [], name
            assert trainer.model.theta.tobytes() == before and trainer.history == [], name
    both = sum(passed_over for *_, passed_over in cases)
    leave(
        record_property,
        id=f"G17-{kind.replace(' ', '-')}",
        fault=f"damage of the newest checkpoint of a run on {kind}",
        expected="a warning that names the file and the one before is taken, or refused by name",
        happened=f"{both} passed over and equal to the last bit, {len(cases) - both} refused, "
        "no pickle run",
        inputs=len(cases),
    )
    assert len(cases) > 100


def lay(damage: Damage, path: Path, good: bytes, earlier: bytes) -> None:
    """Put the damaged file in its place, beside the one before."""
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    if isinstance(damage, bytes):
        path.write_bytes(damage)
    else:
        path.write_bytes(good)
        damage(path)
    storage.previous(path).write_bytes(earlier)


def resumed(trainer: Trainer | FullBatchTrainer, path: Path) -> str:
    """Resume, and return the error."""
    try:
        trainer.resume(path)
    except NpsoftmaxError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", TRAINERS)
def test_two_damaged_checkpoints_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    fit(TRAINERS[kind](checkpoint=path, checkpoint_every=3), 4)
    for file in (path, storage.previous(path)):
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(
        CorruptFileError, match=r"c\.npz.*the previous one is unusable too: .*c\.previous\.npz"
    ):
        TRAINERS[kind]().resume(path)


@quick_and_slow
def test_every_flipped_bit_is_noticed(quick: bool, tmp_path: Path, record_property: Record) -> None:
    rng, path = random.Random(0), tmp_path / "c.npz"
    images = np.zeros((784, 20), np.uint8)
    model = SoftmaxRegression(784, 10, dtype=np.float64)
    Trainer(model, Momentum(), DataLoader(images, np.arange(20) % 10, 10), checkpoint=path).fit(1)
    good, number = path.read_bytes(), 300 if quick else 3000
    Checkpoint.read(path)
    noticed = 0
    for count in range(number):
        # Half of them where zip and npy keep what numbers mean.
        ends = [*range(300), *range(len(good) - 1500, len(good))]
        place = rng.choice(ends) if count % 2 else rng.randrange(len(good))
        path.write_bytes(flipped(good, place, rng.randrange(8)))
        with pytest.raises(CorruptFileError, match=re.escape(str(path))):
            Checkpoint.read(path)
        noticed += 1
    leave(
        record_property,
        id="G18",
        fault=f"one bit flipped in a checkpoint of {len(good) // 1000} kB",
        expected="noticed",
        happened=f"{noticed} of {number} noticed",
        inputs=number,
    )


# Other settings


@pytest.mark.parametrize(
    ("way", "others"),
    [
        pytest.param(
            "short",
            {
                "--lr 0.02": "optimiser 'Momentum(eta=0.01, rho=0.9)' there, 'Momentum(eta=0.02,",
                "--batch-size 128": "batch_size 256 there, 128 here",
                "--seed 7": "seed 0 there, 7 here",
                "--dtype float64": "theta 'float32 (10, 785)' there, 'float64 (10, 785)' here",
                "--limit 300": "samples 'uint8 (784, 512)' there, 'uint8 (784, 300)' here",
                "--l2 0.5": "l2 0.0 there, 0.5 here",
                "--optimiser nesterov": "'Nesterov(",
            },
            marks=pytest.mark.exhaustive,
        ),
        (
            "short lbfgs",
            {
                "--dtype float64": "theta 'float32 (10, 785)' there, 'float64 (10, 785)' here",
                "--limit 300": "samples 'uint8 (784, 512)' there, 'uint8 (784, 300)' here",
                "--l2 0.5": "l2 0.01 there, 0.5 here",
            },
        ),
    ],
    ids=["minibatches", "all samples"],
)
def test_a_run_goes_on_with_its_own_settings_only(
    way: str, others: dict[str, str], tmp_path: Path, record_property: Record
) -> None:
    run = Run(tmp_path, way)
    assert run.live().code == 0
    before = contents(run.folder)
    for flags, message in others.items():
        end = run.live(flags=["--resume", *flags.split()])
        assert (end.code, end.out) == (2, "")
        (line,) = end.err.splitlines()
        assert f"{run.checkpoint}: expected the settings of this run" in line and message in line
        assert contents(run.folder) == before
    end = run.live(flags=["--resume", "--threads", "2"])
    assert end.code == 0
    (line,) = end.err.splitlines()
    assert "another environment (threads 1 there, 2 here); the run resumes, but not bit" in line
    leave(
        record_property,
        id="G19" if way == "short" else "G19-lbfgs",
        fault=f"--resume with another {', '.join(flags.split()[0][2:] for flags in others)}",
        expected="exit 2, the setting named, nothing touched; another --threads warns only",
        happened=f"{len(others)} of {len(others)} refused by name; --threads 2 went on with a line",
        inputs=len(others) + 1,
    )


@pytest.mark.parametrize("kind", TRAINERS)
def test_a_run_goes_on_with_its_own_data_only(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    fit(TRAINERS[kind](checkpoint=path, identity={"sha256": "aa"}), 2)
    with pytest.raises(InputError, match=r"c\.npz: .* sha256 'aa' there, 'bb' here"):
        TRAINERS[kind](identity={"sha256": "bb"}).resume(path)
