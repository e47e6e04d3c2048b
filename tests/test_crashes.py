"""Training survives kills, failing system calls, interruptions, concurrent runs and damaged files.

Each test records a row of the table that ``benchmarks/faults.py`` writes. The slow variants inject
the fault everywhere, the quick ones in a few places.
"""

import os
import pickle
import random
import re
import signal
import warnings
from collections import Counter
from contextlib import contextmanager
from functools import cache
from itertools import groupby
from pathlib import Path
from time import monotonic, sleep

import numpy as np
import pytest
from crashing import KINDS, Run, calls_in, can_trace, ended, outcome, strace, wait_for
from test_hostile_files import seal

from npsoftmax import DataLoader, FullBatchTrainer, SoftmaxRegression, Trainer, storage
from npsoftmax.errors import NpsoftmaxError, ResumeWarning
from npsoftmax.objective import FullBatch
from npsoftmax.optimisers import Adam

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends signals")
needs_strace = pytest.mark.skipif(not can_trace(), reason="needs strace and permission to trace")
quick_and_slow = pytest.mark.parametrize(
    "quick",
    [pytest.param(True, id="quick"), pytest.param(False, id="slow", marks=pytest.mark.slow)],
)


def each_kind(*quick):
    """Parametrise over all kinds of calls; those not named are exhaustive."""
    others = [kind for kind in KINDS if kind not in quick]
    return pytest.mark.parametrize(
        "kind", [*quick, *(pytest.param(kind, marks=pytest.mark.exhaustive) for kind in others)]
    )


LONG_WAYS = ["descent", "momentum", "nesterov", "lbfgs", "adam", "adamw"]
ERRORS = {"EIO": "Input/output error", "ENOSPC": "No space left on device"}
SURVIVES = "the files left verify, and the resumed run ends as an undisturbed one does"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the outcome of the uninterrupted run of a way, and its seconds."""

    @cache
    def whole_run(way):
        run = Run(tmp_path_factory.mktemp("whole"), way)
        start = monotonic()
        end = run.live()
        assert (end.code, end.err) == (0, "")
        return outcome(run.folder), monotonic() - start

    return whole_run


@pytest.fixture(scope="module")
def calls(whole, tmp_path_factory):
    """Return the system calls of the uninterrupted run of a way that concern its folder."""

    @cache
    def calls_of(way):
        whole(way)  # compiles the modules first, which takes calls too
        run = Run(tmp_path_factory.mktemp("calls"), way)
        log = run.parent / "calls"
        assert run.live(*strace(log)).code == 0
        return calls_in(log, run.folder)

    return calls_of


@pytest.fixture
def record(record_property):
    """Return a function that records a row of the table of faults."""

    def record(**row):
        for name, value in row.items():
            record_property(name, value)

    return record


# Kills


@pytest.mark.exhaustive
@quick_and_slow
def test_a_run_survives_kills_at_random_moments(quick, whole, tmp_path, record):
    number, seen = 4 if quick else 100, Counter()
    for story in range(number):
        rng, way = random.Random(story), LONG_WAYS[story % len(LONG_WAYS)]
        expected, seconds = whole(way)
        run = Run(tmp_path / str(story), way)
        training = quick or rng.random() < 0.6  # otherwise many die before the first checkpoint
        delay = seconds * (story * 0.618034 % 1) * (0.4 if training else 1)
        while not run.die(delay, training):
            run, delay = Run(tmp_path / f"{story} {delay}", way), 0.8 * delay
        seen["first"] += 1
        seen["before the first checkpoint"] += run.place == ()
        for _ in range(rng.randint(1, 3) if rng.random() < 1 / 3 else 0):
            seen["again"] += run.die(0.4 * seconds * rng.random(), training)
        seen["lost"] += run.finish(expected)
    kills = seen["first"] + seen["again"]
    record(
        id="K01",
        fault="kill -9 at a random moment; a third of the runs up to three times more",
        expected=SURVIVES,
        happened=f"{number} of {number} runs equal to the last bit after {kills} kills, "
        f"{seen['before the first checkpoint']} of them before the first checkpoint",
        kills=kills,
        bytes_lost=seen["lost"],
    )
    assert seen["first"] == number and seen["before the first checkpoint"] < number


def choose(calls, kind, quick):
    """Return all calls of a kind, or the one in the middle."""
    chosen = [call for call in calls if call.kind == kind]
    return [chosen[len(chosen) // 2]] if quick else chosen


@needs_strace
@quick_and_slow
@each_kind("write", "rename")
def test_a_run_survives_a_kill_at_each_call(kind, quick, whole, calls, tmp_path, record):
    seen, log = Counter(), tmp_path / "calls"
    for place, call in enumerate(choose(calls("short"), kind, quick)):
        run = Run(tmp_path / str(place), "short")
        end = run.live(*strace(log, f"{call.name}:signal=SIGKILL:when={call.number}"))
        assert end.code == -signal.SIGKILL
        run.check_files()
        seen["kills"] += 1
        seen["aimed"] += [call.label] == [found.label for found in calls_in(log, run.folder)[-1:]]
        seen["lost"] += run.finish(whole("short")[0])
    record(
        id=f"S-{kind}",
        fault=f"kill -9 at {'one' if quick else 'each'} {kind} in the run folder",
        expected=SURVIVES,
        happened=f"{seen['kills']} of {seen['kills']} runs equal to the last bit; "
        f"{seen['aimed']} died at exactly this call",
        kills=seen["kills"],
        bytes_lost=seen["lost"],
    )
    assert seen["aimed"] > 0


# Failing system calls


def is_harmless(call):
    """Say whether a run ends well without this call; None if it depends on Python's version."""
    if "O_DIRECTORY" in call.text:
        return None  # Path.glob of Python 3.13 skips folders that it cannot read
    if call.label == "openat checkpoint.npz":
        return True  # a file that cannot be read is not kept as the previous one
    if call.kind in ("mkdir", "unlink"):
        return "= -1" in call.text  # the folder existed already, the temporary file no longer
    return call.kind == "link"  # it is copied instead


@needs_strace
@pytest.mark.parametrize(
    ("error", "quick"),
    [
        pytest.param("EIO", True, id="quick"),
        *(pytest.param(e, False, id=f"{e}-slow", marks=pytest.mark.slow) for e in ERRORS),
    ],
)
@each_kind("write", "fsync")
def test_a_failing_call_ends_a_run_in_one_line(error, kind, quick, whole, calls, tmp_path, record):
    seen, lost, log = Counter(), 0, tmp_path / "calls"
    error = "ENOSPC" if quick and KINDS.index(kind) % 2 else error  # the quick ones alternate
    for place, call in enumerate(choose(calls("short"), kind, quick)):
        run = Run(tmp_path / str(place), "short")
        end = run.live(*strace(log, f"{call.name}:error={error}:when={call.number}"))
        injected = [found for found in calls_in(log, run.folder) if "(INJECTED)" in found.text]
        assert [found.label for found in injected] == [call.label]
        run.check_files()
        assert run.leftovers() == []
        if end.code == 0:
            seen["harmless"] += 1
            assert is_harmless(call) in (True, None), call
            assert end.err == "" and outcome(run.folder) == whole("short")[0]
        else:
            seen["refused"] += 1
            assert is_harmless(call) in (False, None), (call, end)
            check_complaint(end, run, ERRORS[error])
        lost += run.finish(whole("short")[0])
    record(
        id=f"E-{error}-{kind}",
        fault=f"{error} at {'one' if quick else 'each'} {kind} in the run folder",
        expected="exit 2 with path and reason, the checkpoints verify, no .part left; "
        "or exit 0 if it is harmless",
        happened=f"{seen['refused']} refused, {seen['harmless']} harmless, "
        f"{seen.total()} of {seen.total()} then ended equal to the last bit",
        inputs=seen.total(),
        bytes_lost=lost,
    )


def check_complaint(end, run, reason):
    """Check that a run that could not write said where and why, and claimed nothing else."""
    assert end.code == 2, end
    (line,) = end.err.splitlines()
    assert str(run.folder) in line and reason in line
    assert not re.search("written|saved", end.out + end.err), end


@needs_strace
def test_a_file_that_cannot_be_removed_hides_no_error(whole, calls, tmp_path, record):
    fsyncs = [call for call in calls("short") if call.label == "fsync .checkpoint.npz.part"]
    unlink = next(call.name for call in calls("short") if call.kind == "unlink")
    faults = (f"fsync:error=ENOSPC:when={fsyncs[2].number}", f"{unlink}:error=EIO:when=1+")
    run = Run(tmp_path, "short")
    end = run.live(*strace(tmp_path / "calls", *faults))
    run.check_files()
    check_complaint(end, run, ERRORS["ENOSPC"])
    assert len(run.leftovers()) == 1
    run.finish(whole("short")[0])
    record(
        id="E-unlink",
        fault="ENOSPC at an fsync, then EIO at each unlink",
        expected="exit 2 that names the full disk; the next run removes the temporary file",
        happened="exit 2: No space left on device; 1 .part left, removed by the next run; equal",
        inputs=1,
    )


def test_a_disk_that_fills_up_within_a_file_keeps_the_checkpoint(whole, tmp_path, record):
    from download_faults import disk_of  # not available everywhere

    run = Run(tmp_path, "short")
    with disk_of(50_000):  # the first checkpoint has no momentum, and half the size of the others
        end = run.live()
    run.check_files()
    check_complaint(end, run, "File too large")
    assert run.place == (0, 0) and run.leftovers() == []
    run.finish(whole("short")[0])
    record(
        id="E-full",
        fault="space for only half of the second checkpoint",
        expected="exit 2 with path and reason, the first checkpoint verifies, no .part left",
        happened="exit 2: File too large; the first checkpoint verifies; then equal",
        inputs=1,
    )


# Order


FIRST = ["write NEW", "fsync NEW", "rename NEW NAME", "fsync folder"]
LATER = ["write NEW", "fsync NEW", "link NAME NEW", "rename NEW NAME", "fsync folder",
         "rename NEW PREVIOUS"]  # fmt: skip


@needs_strace
def test_files_are_synced_before_they_are_renamed_and_their_folder_before_training_continues(
    calls, record
):
    count = 0
    for way, checkpoints in (("short", 5), ("short lbfgs", 11)):
        found = publications(calls(way))
        assert found["checkpoint.npz"] == [FIRST, *[LATER] * (checkpoints - 1)]
        others = [events for name in found if name != "checkpoint.npz" for events in found[name]]
        assert len(others) >= 4 and all(events == FIRST for events in others)
        count += checkpoints
        for call in calls(way):
            changes = call.kind == "unlink" or re.search("O_WRONLY|O_RDWR|O_CREAT", call.text)
            assert ".part" in call.label or not changes
    record(
        id="G15",
        fault="order of the calls, as strace shows them",
        expected="write, fsync of the file, rename, fsync of the folder; then the previous name",
        happened=f"so in each of {count} checkpoints",
        inputs=count,
    )


def publications(calls):
    """Return the events of each publication of each file."""
    found = {}
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
def test_ctrl_c_writes_a_checkpoint(quick, whole, tmp_path, record):
    seen = Counter()
    for story in range(3 if quick else 20):
        rng, way = random.Random(story), ("unsaved", "adam", "unsaved lbfgs")[story % 3]
        run = Run(tmp_path / str(story), way)
        process = run.start()
        wait_for(run.checkpoint.exists)
        sleep(0.1 * rng.random())
        process.send_signal(rng.choice([signal.SIGINT, signal.SIGTERM]))
        end = ended(process)
        run.check_files()
        assert run.leftovers() == []
        if end.code == 0:
            seen["had ended"] += 1
            assert outcome(run.folder) == whole(way)[0]
            continue
        assert end.code == 130, end
        (line,) = end.err.splitlines()
        if "checkpoint written" in line:
            seen["between two steps"] += 1
            assert run.place == parse_place(line)
        else:
            seen["after the last step"] += 1
            assert line == "train.py: interrupted"
        run.finish(whole(way)[0])
    record(
        id="C01",
        fault="Ctrl-C or SIGTERM at a random step",
        expected="exit 130, a checkpoint of this step, and the run resumes bit for bit",
        happened=f"{seen['between two steps']} checkpoints between two steps, "
        f"{seen['after the last step']} stops after the last step, "
        f"{seen['had ended']} runs had ended; all equal to the last bit",
        kills=seen.total(),
    )
    assert seen["between two steps"] > 0


def parse_place(line):
    """Return the place that the line of an interrupted run names, as ``place_in`` does."""
    if iteration := re.search(r"after iteration (\d+)", line):
        return (int(iteration[1]) + 1,)
    if finished := re.search(r"after epoch (\d+)", line):
        return int(finished[1]), 0
    begun = re.search(r"in epoch (\d+) after step (\d+)", line)
    return int(begun[1]) - 1, int(begun[2])


@pytest.mark.exhaustive
@quick_and_slow
def test_ctrl_c_at_the_very_end_is_no_traceback(quick, whole, tmp_path, record):
    seen = Counter()
    for story in range(3 if quick else 20):
        rng, run = random.Random(story), Run(tmp_path / str(story), "short")
        process = run.start()
        wait_for((run.folder / "summary.json").exists)
        sleep(0.03 * rng.random())
        process.send_signal(rng.choice([signal.SIGINT, signal.SIGTERM]))
        end = ended(process)
        assert (end.code, end.err) in [(0, ""), (130, "train.py: interrupted\n")], end
        assert outcome(run.folder) == whole("short")[0]
        seen[end.code] += 1
    record(
        id="C04",
        fault="Ctrl-C or SIGTERM after the last file, while the process ends",
        expected="exit 0, or 130 in one line; all files are there",
        happened=f"{seen[0]} x exit 0, {seen[130]} x exit 130; all equal to the last bit",
        kills=seen.total(),
    )


@needs_strace
@pytest.mark.parametrize("signals", [(signal.SIGINT,), (signal.SIGINT, signal.SIGTERM)], ids=len)
def test_ctrl_c_while_a_checkpoint_is_written(signals, whole, calls, tmp_path, record):
    third = [call for call in calls("short") if call.label == "fsync .checkpoint.npz.part"][2]
    run = Run(tmp_path, "short")
    log = tmp_path / "calls"
    # With -D the process is the command itself, and strace its child.
    words = strace(log, f"fsync:delay_enter=1000000:when={third.number}")
    process = run.start(words[0], "-D", *words[1:])

    def started_fsyncs():
        return re.findall(r"^\d+ +fsync\(", log.read_text(), re.MULTILINE)

    wait_for(lambda: log.exists() and len(started_fsyncs()) == third.number)
    assert len(run.leftovers()) == 1
    for number in signals:
        process.send_signal(number)
    end = ended(process)
    run.check_files()
    assert end.code == 130, end
    (line,) = end.err.splitlines()
    # The first lets the next step end; the second ends the run at once, with the old checkpoint.
    assert ("checkpoint written" in line) == (len(signals) == 1)
    assert run.place == ((1, 1) if len(signals) == 1 else (0, 1))
    assert run.leftovers() == []
    run.finish(whole("short")[0])
    record(
        id="C02" if len(signals) == 1 else "C03",
        fault=f"{len(signals)} x Ctrl-C while a checkpoint is written",
        expected="exit 130 in one line; the new or the previous checkpoint is whole",
        happened="exit 130; the checkpoint verifies; then equal to the last bit",
        kills=1,
    )


# Two runs in one folder


@contextmanager
def stopped(run):
    """Start a run and stop it in the middle; kill it at the end."""
    process = run.start()
    try:
        wait_for(run.checkpoint.exists)
        process.send_signal(signal.SIGSTOP)
        assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
        yield
    finally:
        process.kill()
        process.communicate()


def refuse(run, *flags):
    """Check that the command exits with 2 without a change in the folder; return its line."""
    before = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    end = run.live(flags=flags)
    assert (end.code, end.out) == (2, "")
    assert {path.name: path.read_bytes() for path in run.folder.iterdir()} == before
    (line,) = end.err.splitlines()
    return line


def test_a_second_run_in_one_folder_is_refused(whole, tmp_path, record):
    run, rivals = Run(tmp_path, "adam"), ([], ["--force"], ["--resume"])
    with stopped(run):
        for flags in rivals:
            assert f"{run.folder}: another run is using it" in refuse(run, *flags)
    run.check_files()
    run.finish(whole("adam")[0])
    record(
        id="R01",
        fault="a second run in the folder of an active one: new, --force, --resume",
        expected="exit 2 with the folder, its files unchanged; after kill -9 it is free",
        happened=f"{len(rivals)} of {len(rivals)} refused; the first run resumed and was equal",
        inputs=len(rivals),
    )


def test_a_run_resumes_with_its_own_settings_only(tmp_path, record):
    run = Run(tmp_path, "short lbfgs")
    assert run.live().code == 0
    others = {
        "--dtype float64": "theta 'float32 (10, 785)' there, 'float64 (10, 785)' here",
        "--limit 300": "samples 'uint8 (784, 512)' there, 'uint8 (784, 300)' here",
        "--l2 0.5": "l2 0.01 there, 0.5 here",
    }
    for flags, message in others.items():
        line = refuse(run, "--resume", *flags.split())
        assert f"{run.checkpoint}: expected the settings of this run" in line and message in line
    end = run.live(flags=["--resume", "--threads", "2"])
    assert end.code == 0
    (line,) = end.err.splitlines()
    assert "another environment (threads 1 there, 2 here); the run resumes, but not bit" in line
    record(
        id="G19",
        fault=f"--resume with another {', '.join(flags.split()[0][2:] for flags in others)}",
        expected="exit 2, the setting named, nothing changed; another --threads only warns",
        happened=f"{len(others)} of {len(others)} refused by name; --threads 2 resumed and warned",
        inputs=len(others) + 1,
    )


# Damage


class Bomb:
    """Fails the test if it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was run",)


def new_trainer(kind, **options):
    """Return a trainer of this kind on 40 samples."""
    rng = np.random.default_rng(3)
    X, y = rng.standard_normal((40, 5), np.float32).T, rng.integers(0, 3, 40)
    model = SoftmaxRegression(5, 3, seed=1)
    if kind == "all samples":
        problem = FullBatch(X, y, l2=1e-4, threads=1)
        return FullBatchTrainer(model, problem, tol=1e-9, **options)
    return Trainer(model, Adam(0.05), DataLoader(X, y, 8, shuffle=True, seed=2), **options)


def fit(trainer, number):
    """Train until this epoch or iteration, and return the parameters."""
    trainer.fit(number - trainer.epoch if isinstance(trainer, Trainer) else number)
    return trainer.model.theta.tobytes()


def spoil(good, earlier):
    """Yield damages that break the seal, or leave nothing that can be read."""
    rng, size = random.Random(0), len(good)
    for place in [*range(0, size, size // 40), *range(size - 100, size, 10)]:
        flipped = bytes([good[place] ^ 1 << rng.randrange(8)])
        yield f"bit flipped in byte {place}", good[:place] + flipped + good[place + 1 :]
    for length in (0, 1, 4, 22, size - 1, size - 2, size - 64, size - 65, size - 81, size - 103):
        yield f"cut to {length} bytes", good[:length]
    for part in range(1, 10):
        place = size * part // 10
        yield f"cut to {place} bytes", good[:place]
        yield f"zeros from byte {place}", good[:place] + bytes(size - place)
        yield f"noise in a block at {place}", good[:place] + rng.randbytes(99) + good[place + 99 :]
        yield f"a byte lost at {place}", good[:place] + good[place + 1 :]
        yield f"the old file from byte {place}", good[:place] + earlier[place:]
    yield "one byte more", good + b"\0"
    yield "two files in one", earlier + good[: size // 2]
    yield "seal in capitals", good[:-64] + good[-64:].upper()
    yield "seal of the previous file", good[:-64] + earlier[-64:]
    yield "a pickle and the file", pickle.dumps(Bomb()) + good
    yield "missing", None
    yield "a folder", Path.mkdir
    yield "a pipe", os.mkfifo
    yield "a link to itself", lambda path: path.symlink_to(path)
    yield "a link to an endless file", lambda path: path.symlink_to("/dev/zero")


def mislead(path):
    """Yield sealed files that do not belong to this run."""
    kind = storage.kind_of(path)
    arrays, metadata = storage.read(path, kind)
    theta, last = arrays["theta"], metadata["history"][-1]

    def write(arrays=arrays, **changed):
        return lambda path: storage.write(path, kind, arrays, metadata | changed)

    yield "a pickle with a seal", seal(pickle.dumps(Bomb()))
    yield "a model", SoftmaxRegression(5, 3).save
    yield "another setting", write(settings=metadata["settings"] | {"pixel_scale": 0.5})
    yield "no settings", write(settings={})
    yield "the last record twice", write(history=[*metadata["history"], last])
    yield "theta not finite", write(arrays=arrays | {"theta": np.full_like(theta, np.nan)})
    yield "theta in float64", write(arrays=arrays | {"theta": theta.astype(np.float64)})
    yield "theta transposed", write(arrays=arrays | {"theta": theta.T})
    yield "another array", write(arrays=arrays | {"more": theta})
    for name in arrays.keys() - {"anchor"}:
        yield f"{name} missing", write(arrays={n: a for n, a in arrays.items() if n != name})
    if "progress" in metadata:
        for name, value in (("epoch", 1), ("epoch", 3), ("step", 6)):
            yield f"{name} {value}", write(progress={**metadata["progress"], name: value})


@pytest.mark.parametrize("kind", ["minibatches", "all samples"])
def test_a_damaged_checkpoint_is_replaced_by_the_previous_one_and_a_misleading_one_refused(
    kind, tmp_path, record
):
    path, number = tmp_path / "c.npz", 6
    expected = fit(new_trainer(kind), number)
    fit(new_trainer(kind, checkpoint=path, checkpoint_every=3), 4)
    good, earlier = path.read_bytes(), storage.previous(path).read_bytes()
    assert good != earlier
    cases = [(name, damage, True) for name, damage in spoil(good, earlier)]
    cases += [(name, damage, False) for name, damage in mislead(path)]
    for name, damage, is_damaged in cases:
        put(damage, path)
        storage.previous(path).write_bytes(earlier)
        trainer = new_trainer(kind)
        before, error = trainer.model.theta.tobytes(), ""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                trainer.resume(path)
            except NpsoftmaxError as refusal:
                error = str(refusal)
        if is_damaged:
            assert error == "", name
            (warning,) = caught
            assert warning.category is ResumeWarning, name
            assert str(path) in str(warning.message), name
            assert str(storage.previous(path)) in str(warning.message), name
            if isinstance(damage, bytes):  # the next one replaces it, not the good one
                trainer.save_checkpoint(path)
                assert storage.previous(path).read_bytes() == earlier, name
            assert fit(trainer, number) == expected, name
        else:
            assert str(path) in error and caught == [], name
            assert trainer.model.theta.tobytes() == before and trainer.history == [], name
    damaged = sum(is_damaged for *_, is_damaged in cases)
    record(
        id=f"G17-{kind.replace(' ', '-')}",
        fault=f"damage of the newest checkpoint of a run on {kind}",
        expected="resumed from the previous one with a warning that names both, or refused by name",
        happened=f"{damaged} resumed and equal to the last bit, {len(cases) - damaged} refused, "
        "no pickle run",
        inputs=len(cases),
    )
    assert len(cases) > 100


def put(damage, path):
    """Replace a file by these bytes, or by whatever a function makes."""
    path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
    if isinstance(damage, bytes):
        path.write_bytes(damage)
    elif damage is not None:
        damage(path)
