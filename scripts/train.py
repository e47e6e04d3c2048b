"""Train softmax regression: `python scripts/train.py` trains Fashion-MNIST.

Results go to stdout, progress and complaints to stderr.
"""

import argparse
import json
import os
import platform
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import command_line

if TYPE_CHECKING:
    import npsoftmax

OPTIMISERS = {
    "descent": "Descent",
    "momentum": "Momentum",
    "nesterov": "Nesterov",
    "adam": "Adam",
    "adamw": "AdamW",
}


def parser() -> argparse.ArgumentParser:
    """Declare the flags."""
    flags = argparse.ArgumentParser(
        prog="train.py",
        description="Train softmax regression; Fashion-MNIST unless told otherwise.",
    )
    flags.add_argument("--dataset", metavar="NAME", help="fashion-mnist, mnist or garments")
    command_line.add_data_flags(flags)
    training = flags.add_argument_group("training")
    training.add_argument("--epochs", type=command_line.positive, default=10, metavar="N")
    training.add_argument("--batch-size", type=command_line.positive, default=256, metavar="N")
    training.add_argument(
        "--lr", type=float, metavar="ETA", help="default: the optimiser's own, 0.1 for descent"
    )
    training.add_argument("--l2", type=float, default=0.0, help="weight of the penalty on W")
    training.add_argument("--optimiser", choices=OPTIMISERS, default="descent")
    training.add_argument("--seed", type=command_line.natural, default=0, metavar="N")
    training.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    training.add_argument(
        "--limit", type=command_line.positive, metavar="N", help="train on the first N images only"
    )
    training.add_argument(
        "--threads", type=command_line.positive, metavar="N", help="of the BLAS; default 1"
    )
    run = flags.add_argument_group("run")
    run.add_argument("--run-dir", metavar="DIR", help="default runs/<data set>-<time>")
    run.add_argument("--force", action="store_true", help="overwrite an existing run")
    run.add_argument("--resume", action="store_true", help="go on with the run in --run-dir")
    run.add_argument("--checkpoint-every", type=command_line.positive, metavar="STEPS")
    command_line.add_output_flags(flags)
    return flags


def train(args: argparse.Namespace) -> None:
    """Do the whole job: data, model, epochs, report, files."""
    started = perf_counter()
    command_line.set_threads(args.threads)
    say = (lambda *words: None) if args.quiet or args.json else print
    data = choose_data(args)
    trainer = build_trainer(args, data)
    run_dir = open_run(args, data.name)
    trainer.checkpoint = run_dir / "checkpoint.npz"
    if args.resume:
        trainer.resume(trainer.checkpoint)
    loaded = perf_counter()
    introduce(args, data, trainer, say)
    write_history(run_dir, trainer)
    with progress_bar(args, trainer) as write_line, stops_between_steps(trainer):
        for record in trainer.run(max(args.epochs - trainer.epoch, 0)):
            write_history(run_dir, trainer)
            if not args.quiet and not args.json:
                write_line(str(record))
                sys.stdout.flush()
    trained = perf_counter()
    files = write_results(args, run_dir, data, trainer)
    summary = summarise(args, data, trainer)
    summary["seconds"] = {
        "load": loaded - started,
        "train": trained - loaded,
        "total": perf_counter() - started,
    }
    write_json(run_dir / "summary.json", summary)
    for line in confusions(data, trainer):
        say(line)
    say(f"written   {run_dir}: {' '.join([*files, 'summary.json'])}")
    say(f"evaluate  python scripts/evaluate.py {run_dir / 'model.npz'} --dataset {data.name}")
    if args.json:
        history = [asdict(record) for record in trainer.history]
        print(json.dumps({**summary, "run_dir": str(run_dir), "history": history}))


def choose_data(args: argparse.Namespace) -> "npsoftmax.Dataset":
    """Load the data set; fall back to the drawn one if neither it nor ``--offline`` was named."""
    import npsoftmax
    from npsoftmax.errors import DataUnavailableError

    try:
        return npsoftmax.load(
            args.dataset or "fashion-mnist",
            args.data_dir,
            args.mirror,
            args.offline,
            progress=sys.stderr.isatty() and not args.quiet,
        )
    except DataUnavailableError as error:
        if args.dataset is not None or args.offline:
            raise
        print(
            f"train.py: warning: fashion-mnist cannot be had, training on the embedded data set "
            f"garments instead. {error}",
            file=sys.stderr,
        )
        return npsoftmax.load("garments")


def build_trainer(args: argparse.Namespace, data: "npsoftmax.Dataset") -> "npsoftmax.Trainer":
    """Put model, optimiser, loader and trainer together."""
    import npsoftmax

    rule = getattr(npsoftmax.optimisers, OPTIMISERS[args.optimiser])
    X, y = data.X_train[:, : args.limit], data.y_train[: args.limit]
    model = npsoftmax.SoftmaxRegression(
        X.shape[0], len(data.classes), seed=args.seed, dtype=args.dtype, classes=data.classes
    )
    return npsoftmax.Trainer(
        model,
        rule() if args.lr is None else rule(args.lr),
        npsoftmax.DataLoader(X, y, args.batch_size, shuffle=True, seed=args.seed),
        test=(data.X_test, data.y_test),
        l2=args.l2,
        checkpoint_every=args.checkpoint_every,
        identity={"dataset": data.name, "sha256": data.sha256},
    )


def open_run(args: argparse.Namespace, dataset: str) -> Path:
    """Return the folder of this run, made now unless the run is resumed."""
    from npsoftmax.errors import InputError, OutputError

    if args.resume and args.run_dir is None:
        raise InputError("--resume: expected --run-dir DIR with the run to go on with; name it")
    if args.resume:
        return Path(args.run_dir)
    # Microseconds keep runs apart that were started together.
    time = datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    run_dir = Path(args.run_dir or f"runs/{dataset}-{time}")
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        occupied = any(run_dir.iterdir()) and not args.force
    except OSError as error:
        raise OutputError(
            f"cannot make the run folder {run_dir}: {error.strerror}; name another with --run-dir"
        ) from error
    if occupied:
        raise OutputError(
            f"{run_dir} holds a run already; name another folder with --run-dir, go on with it by "
            "--resume, or overwrite it by --force"
        )
    return run_dir


def introduce(
    args: argparse.Namespace, data: "npsoftmax.Dataset", trainer: "npsoftmax.Trainer", say: Any
) -> None:
    """Print what is about to happen."""
    say(
        f"data set  {data.name}: {trainer.loader.num_samples} training and {data.y_test.size} test "
        f"images, {len(data.classes)} classes\n          {data.origin}"
    )
    say(f"model     {trainer.model!r}, weights from N(0, 0.01), seed {args.seed}")
    say(
        f"training  {args.epochs} epochs, batches of {args.batch_size}, {trainer.optimiser!r}, "
        f"l2={args.l2:g}"
    )
    if args.resume:
        say(f"resumed   after epoch {trainer.epoch}, step {trainer.step} of {len(trainer.loader)}")


@contextmanager
def progress_bar(args: argparse.Namespace, trainer: "npsoftmax.Trainer") -> Iterator[Any]:
    """Show the steps on stderr while they run, on a terminal only; yield a way to print lines."""
    if args.quiet or not sys.stderr.isatty():
        yield print
        return
    from tqdm import tqdm

    steps = len(trainer.loader)
    done = trainer.epoch * steps + trainer.step
    with tqdm(total=args.epochs * steps, initial=done, unit="step", leave=False) as bar:
        trainer.on_step = lambda _: bar.update()
        yield bar.write


@contextmanager
def stops_between_steps(trainer: "npsoftmax.Trainer") -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM end training between two steps, with a checkpoint."""
    from npsoftmax.errors import InterruptionError

    requested: list[int] = []
    show_step = trainer.on_step

    def request(number: int, frame: object) -> None:
        if requested:
            raise KeyboardInterrupt
        requested.append(number)

    def on_step(trainer: "npsoftmax.Trainer") -> None:
        if show_step is not None:
            show_step(trainer)
        if requested:
            raise InterruptionError("asked to stop")

    trainer.on_step = on_step
    handlers = {
        number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    except InterruptionError as error:
        trainer.save_checkpoint(trainer.checkpoint)
        raise InterruptionError(
            f"interrupted in epoch {trainer.epoch + 1} after step {trainer.step} of "
            f"{len(trainer.loader)}; checkpoint written, go on with the same flags and "
            f"--resume --run-dir {Path(trainer.checkpoint).parent}"
        ) from error
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def write_history(run_dir: Path, trainer: "npsoftmax.Trainer") -> None:
    """Write one JSON object per finished epoch."""
    from npsoftmax.files import publish

    lines = "".join(json.dumps(asdict(record)) + "\n" for record in trainer.history)
    with publish(run_dir / "history.jsonl") as file:
        file.write(lines.encode())


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write an indented JSON file."""
    from npsoftmax.files import publish

    with publish(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())


def write_results(
    args: argparse.Namespace,
    run_dir: Path,
    data: "npsoftmax.Dataset",
    trainer: "npsoftmax.Trainer",
) -> list[str]:
    """Write the model, and the curves where matplotlib is present; return the names of files."""
    trainer.model.save(run_dir / "model.npz")
    files = ["model.npz", "history.jsonl", "checkpoint.npz"]
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return files
    from npsoftmax.ext import plots
    from npsoftmax.files import publish

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    plots.loss_curve(trainer.history, left)
    plots.accuracy_curve(trainer.history, right)
    figure.suptitle(f"{data.name}, {trainer.optimiser!r}, batches of {args.batch_size}")
    with publish(run_dir / "curves.png") as file:
        figure.savefig(file, format="png", dpi=120)
    return [*files, "curves.png"]


def summarise(
    args: argparse.Namespace, data: "npsoftmax.Dataset", trainer: "npsoftmax.Trainer"
) -> dict[str, Any]:
    """Collect what is needed to repeat the run and to trust its numbers."""
    import numpy as np

    import npsoftmax

    last = trainer.history[-1] if trainer.history else None
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "settings": {**vars(args), "optimiser": repr(trainer.optimiser)},
        "dataset": data.name,
        "sha256": data.sha256,
        "test_loss": last and last.test_loss,
        "test_acc": last and last.test_acc,
        "versions": {
            "npsoftmax": npsoftmax.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
        },
        "blas": {"name": blas.get("name"), "version": blas.get("version")},
        "threads": {name: os.environ[name] for name in command_line.THREAD_VARIABLES},
        "cores": os.cpu_count(),
    }


def confusions(data: "npsoftmax.Dataset", trainer: "npsoftmax.Trainer") -> Iterator[str]:
    """Yield a line for each of the most frequent confusions on the test data."""
    import numpy as np

    from npsoftmax.metrics import confusion_matrix

    counts = confusion_matrix(trainer.model.predict(data.X_test), data.y_test, len(data.classes))
    totals = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    for cell in np.argsort(-counts, axis=None, kind="stable")[:4]:
        true, predicted = divmod(int(cell), len(data.classes))
        yield (
            f"confused  {data.classes[true]} taken for {data.classes[predicted]}: "
            f"{counts[true, predicted]} of {totals[true]}"
        )


if __name__ == "__main__":
    sys.exit(command_line.run(parser(), train))
