"""The folder of a training run: its lock, and the files in it."""

import argparse
import json
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npsoftmax.commands import command_line
from npsoftmax.commands.evaluate import PICTURES
from npsoftmax.errors import InputError, OutputError
from npsoftmax.files import quoted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from npsoftmax.commands.train import Solver
    from npsoftmax.ext import plots

CHECKPOINTS = ("checkpoint.previous.npz", "checkpoint.npz")
CURVES = "curves.png"
RESULTS = ("model.npz", "history.jsonl", "summary.json", *CHECKPOINTS)
# The checkpoint is removed last: as long as any file of a run exists, it can be resumed.
FILES = (CURVES, *RESULTS)
# These flags do not change the results: a resumed run has the summary of an uninterrupted one.
NOT_SETTINGS = (
    "data_dir", "mirror_url", "offline", "scheduler", "workers", "run_dir", "force", "resume",
    "quiet", "json", "debug",
)  # fmt: skip


def check(args: argparse.Namespace) -> None:
    """Raise an error if the run cannot use the folder; create nothing."""
    inside = Path(args.run_dir or "runs").resolve()
    if args.data and inside.is_relative_to(Path(args.data).resolve()):
        raise InputError(
            f"--run-dir: expected a folder outside of {quoted(args.data)}, since its pictures are "
            f"no photographs of a class, got {quoted(inside)}; name another"
        )
    if not args.run_dir:
        if args.resume:
            raise InputError("--resume: expected --run-dir DIR with the run to resume; name it")
        return
    folder = Path(args.run_dir)
    if args.resume == "always" and not os.path.isdir(folder):
        raise InputError(
            f"cannot read {quoted(folder / 'checkpoint.npz')}: no such folder; check the name, or "
            "start with --resume=auto"
        )
    if not args.resume and not args.force:
        with os_errors_as_ours(folder), suppress(FileNotFoundError):
            if not {path.name for path in folder.iterdir()}.isdisjoint(FILES):
                with lock(folder):
                    check_unused(folder)


@contextmanager
def claim(args: argparse.Namespace, dataset: str) -> Iterator[Path]:
    """Create the folder of the run, or open that of a resumed run, and lock it."""
    from npsoftmax.files import remove_stale

    folder = Path(args.run_dir or f"runs/{dataset}-{timestamp()}")
    with os_errors_as_ours(folder):
        # A link may lead to a folder that was cleaned up.
        os.makedirs(os.path.realpath(folder), exist_ok=True)
    with lock(folder):
        with os_errors_as_ours(folder):
            remove_stale(folder, older_than=0)  # the process that wrote them has ended
            if args.resume == "auto":
                args.resume = choose_beginning(folder, args.force)
            elif not args.resume and not args.force:
                check_unused(folder)
            # The pictures, too: they show a model that this run replaces.
            for name in PICTURES if args.resume else (*PICTURES, *FILES):
                # Behind a link, which stays: the new file will be there too.
                if os.path.lexists(path := os.path.realpath(folder / name)):
                    os.unlink(path)
        yield folder


def choose_beginning(folder: Path, force: bool) -> str | None:
    """Return "always" if the folder has a run to resume, None if one may start there.

    Other files may be there already, such as the log of the job.
    """
    names = {path.name for path in folder.iterdir()}
    if not names.isdisjoint(CHECKPOINTS):
        return "always"
    if not force and not names.isdisjoint(FILES):
        check_unused(folder)
    return None


def timestamp() -> str:
    """Return the current time; microseconds distinguish runs that start together."""
    return datetime.now().strftime("%Y%m%d-%H%M%S-%f")


def check_unused(folder: Path) -> None:
    """Raise OutputError if there is a run in the folder."""
    if any(folder.iterdir()):
        raise OutputError(
            f"{quoted(folder)} holds a run already, or other files; name another folder with "
            "--run-dir, resume the run with --resume, or overwrite it with --force"
        )


@contextmanager
def os_errors_as_ours(folder: Path) -> Iterator[None]:
    """Add advice to an error of the operating system about the folder."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise  # the package's own errors are OSErrors too
        raise OutputError(
            f"cannot make the run folder {quoted(folder)}: {error.strerror}; name another with "
            "--run-dir"
        ) from error


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Raise OutputError if another run uses the folder; the lock ends with the process."""
    try:
        import fcntl
    except ImportError:
        yield  # Windows cannot lock a folder
        return
    with os_errors_as_ours(folder):
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise OutputError(
            f"{quoted(folder)}: another run is using it; wait for it to end, or name another "
            "folder with --run-dir"
        ) from error
    except OSError as error:
        reason = f"{quoted(folder)} cannot be locked against other runs: {error.strerror}"
        command_line.warn("train", reason)
    try:
        yield
    finally:
        os.close(descriptor)


def write_history(folder: Path, history: "plots.History") -> None:
    """Write one JSON object for each finished epoch or iteration."""
    write(folder / "history.jsonl", *(json.dumps(asdict(record)) for record in history))


def write_json(path: Path, report: dict[str, Any]) -> None:
    """Write a report for people and programs."""
    write(path, json.dumps(report, indent=2))


def write(path: Path, *lines: str) -> None:
    """Write a text."""
    from npsoftmax.files import publish

    with publish(path) as file:
        file.write("".join(line + "\n" for line in lines).encode())


def write_picture(command: str, path: Path, draw: "Callable[[], Figure]") -> bool:
    """Draw a picture as an extra: if that fails, warn; if matplotlib is missing, do nothing.

    Return whether there is a picture.
    """
    from npsoftmax.files import publish

    try:
        from npsoftmax.ext import plots

        with plots.defaults(), publish(path) as file:
            draw().savefig(file, format="png", dpi=120)
    except ImportError:
        return False
    except Exception as error:  # a broken matplotlib fails in many ways
        command_line.warn(command, f"no {path.name}: {error}")
        return False
    return True


def draw_curves(title: str, history: "plots.History") -> "Figure":
    """Draw loss and accuracy against the epoch or iteration."""
    from matplotlib.figure import Figure

    from npsoftmax.ext import plots

    # Fixed margins: to compute them, matplotlib would draw everything a second time.
    figure = Figure(figsize=(9, 3.6))
    figure.subplots_adjust(left=0.08, right=0.98, bottom=0.14, top=0.9, wspace=0.25)
    left, right = figure.subplots(1, 2)
    plots.loss_curve(history, left)
    plots.accuracy_curve(history, right)
    figure.suptitle(title)
    return figure


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return the flags that change the results."""
    return {name: value for name, value in vars(args).items() if name not in NOT_SETTINGS}


def summarise(solver: "Solver") -> dict[str, Any]:
    """Return the results, and what is needed to repeat the run."""
    import numpy as np
    from threadpoolctl import threadpool_info

    import npsoftmax

    data, last = solver.data, solver.trainer.history[-1]
    names = ("internal_api", "version", "architecture", "num_threads")
    return {
        "settings": {**settings(solver.args), **solver.settings},
        **solver.outcome,
        "dataset": data.name,
        "sha256": data.sha256,
        "test_loss": last.test_loss,
        "test_acc": last.test_acc,
        "trained_on_held_out": solver.uses_held_out,
        "versions": {
            "npsoftmax": npsoftmax.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
        },
        "blas": [
            {name: library.get(name) for name in names}
            for library in threadpool_info()
            if library["user_api"] == "blas"
        ],
        "threads": solver.threads,
        "cores": os.cpu_count(),
    }
