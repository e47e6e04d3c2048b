"""The folder of a training run: its name, and the files that go into it."""

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import command_line
from solvers import Solver

if TYPE_CHECKING:
    import npsoftmax
    from npsoftmax.ext import plots

# The checkpoint goes last: while anything of a run is there, so is what it goes on from.
FILES = (
    "model.npz",
    "history.jsonl",
    "summary.json",
    "curves.png",
    "checkpoint.previous.npz",
    "checkpoint.npz",
)
# What evaluate.py draws of a model; a run that writes another model must not leave them beside it.
PICTURES = (
    "weights.png", "confusion.png", "predictions.png", "misclassified.png", "reliability.png",
)  # fmt: skip
# How the command was called, not what it computed: a resumed run has the summary of a whole one.
NOT_SETTINGS = (
    "data_dir", "mirror", "offline", "scheduler", "workers", "run_dir", "force", "resume", "quiet",
    "json", "debug",
)  # fmt: skip


def refuse_unusable(args: argparse.Namespace) -> None:
    """Refuse a folder that cannot be that of this run; nothing is made yet."""
    from npsoftmax.errors import InputError

    if not args.run_dir:
        if args.resume:
            raise InputError("--resume: expected --run-dir DIR with the run to go on with; name it")
        return
    folder = Path(args.run_dir)
    if args.resume and not os.path.isdir(folder):
        raise InputError(f"cannot read {folder}/checkpoint.npz: no such folder; check the name")
    if not args.resume and not args.force:
        with usable(folder), suppress(FileNotFoundError):
            if not {path.name for path in folder.iterdir()}.isdisjoint(FILES):
                with alone_in(folder):
                    refuse_used(folder)


@contextmanager
def claimed(args: argparse.Namespace, dataset: str) -> Iterator[Path]:
    """Yield the folder of this run, made now unless the run is resumed, for this run alone."""
    from npsoftmax.files import remove_stale

    # Microseconds keep runs apart that were started together.
    time = datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    folder = Path(args.run_dir or f"runs/{dataset}-{time}")
    with usable(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with alone_in(folder):
        with usable(folder):
            remove_stale(folder, older_than=0)  # whoever made them is gone
            if not args.resume:
                empty(folder, args.force)
            for name in PICTURES:
                if (folder / name).exists():
                    (folder / name).unlink()
        yield folder


@contextmanager
def usable(folder: Path) -> Iterator[None]:
    """Turn what the system says of the folder into an error that says what to do."""
    from npsoftmax.errors import OutputError

    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise  # our own errors are OSErrors too
        raise OutputError(
            f"cannot make the run folder {folder}: {error.strerror}; name another with --run-dir"
        ) from error


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Refuse a folder in which another run is at work; the lock ends with the process."""
    from npsoftmax.errors import OutputError

    try:
        import fcntl
    except ImportError:
        yield  # Windows has no lock on a folder
        return
    with usable(folder):
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise OutputError(
            f"{folder}: another run is at work there; wait for it, or name another folder with "
            "--run-dir"
        ) from error
    except OSError as error:
        reason = f"{folder} cannot be locked against other runs: {error.strerror}"
        print(f"train.py: warning: {reason}", file=sys.stderr)
    try:
        yield
    finally:
        os.close(descriptor)


def empty(folder: Path, force: bool) -> None:
    """Refuse a folder with a run in it, or remove that run's files if forced to."""
    if force:
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
    else:
        refuse_used(folder)


def refuse_used(folder: Path) -> None:
    """Refuse a folder with a run in it."""
    from npsoftmax.errors import OutputError

    if any(folder.iterdir()):
        raise OutputError(
            f"{folder} holds a run already; name another folder with --run-dir, go on with it by "
            "--resume, or overwrite it by --force"
        )


def resume(args: argparse.Namespace, solver: Solver) -> None:
    """Take over the checkpoint of the run, unless it is further than asked for."""
    from npsoftmax.errors import InputError

    solver.trainer.resume(Path(args.run_dir) / "checkpoint.npz")
    if solver.done > solver.asked:
        raise InputError(
            f"--{solver.UNIT}: expected at least the {solver.done} that {args.run_dir} has done, "
            f"got {solver.asked}; it counts those of the whole run"
        )


def write_history(folder: Path, trainer: "npsoftmax.Trainer | npsoftmax.FullBatchTrainer") -> None:
    """Write one JSON object per finished epoch or iteration."""
    from npsoftmax.files import publish

    lines = [json.dumps(asdict(record)) + "\n" for record in trainer.history]
    with publish(folder / "history.jsonl") as file:
        file.write("".join(lines).encode())


def write_results(
    args: argparse.Namespace,
    folder: Path,
    data: "npsoftmax.Dataset",
    solver: Solver,
    seconds: dict[str, float],
) -> tuple[list[str], dict[str, Any]]:
    """Write what a finished run leaves; return the names of all its files, and the summary."""
    from npsoftmax.files import publish

    solver.trainer.model.save(folder / "model.npz")
    summary = {**summarise(args, data, solver), "seconds": seconds}
    with publish(folder / "summary.json") as file:
        file.write((json.dumps(summary, indent=2) + "\n").encode())
    try:
        title = f"{data.name}, {solver.method}"
        draw_curves(folder / "curves.png", title, solver.trainer.history)
    except Exception as error:  # the picture is an extra; a broken matplotlib fails in many ways
        print(f"train.py: warning: no curves.png: {error}", file=sys.stderr)
    return [name for name in FILES if (folder / name).exists()], summary


def draw_curves(path: Path, title: str, history: "plots.History") -> None:
    """Draw loss and accuracy against the epoch or iteration, where matplotlib is present."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    from npsoftmax.ext import plots
    from npsoftmax.files import publish

    # Fixed margins: finding them would draw everything a second time.
    figure = Figure(figsize=(9, 3.6))
    figure.subplots_adjust(left=0.08, right=0.98, bottom=0.14, top=0.9, wspace=0.25)
    left, right = figure.subplots(1, 2)
    plots.loss_curve(history, left)
    plots.accuracy_curve(history, right)
    figure.suptitle(title)
    with publish(path) as file:
        figure.savefig(file, format="png", dpi=120)


def summarise(
    args: argparse.Namespace, data: "npsoftmax.Dataset", solver: Solver
) -> dict[str, Any]:
    """Collect what is needed to repeat the run and to trust its numbers."""
    import numpy as np

    import npsoftmax

    last, outcome = solver.trainer.history[-1], solver.outcome()
    return {
        "settings": {
            **{name: value for name, value in vars(args).items() if name not in NOT_SETTINGS},
            **outcome.pop("settings", {}),
        },
        **outcome,
        "dataset": data.name,
        "sha256": data.sha256,
        "test_loss": last.test_loss,
        "test_acc": last.test_acc,
        "versions": {
            "npsoftmax": npsoftmax.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
        },
        "blas": command_line.blas_in_use(),
        "threads": solver.threads,
        "cores": os.cpu_count(),
    }
