"""Train softmax regression: `python scripts/train.py` trains Fashion-MNIST.

Results go to stdout, progress and complaints to stderr.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import command_line
import run_folder

if TYPE_CHECKING:
    from tqdm import tqdm

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
    flags = command_line.Parser(
        prog="train.py",
        description="Train softmax regression; Fashion-MNIST unless told otherwise.",
    )
    flags.add_argument("--dataset", metavar="NAME", help="fashion-mnist, mnist or garments")
    command_line.add_data_flags(flags)
    training = flags.add_argument_group("training")
    training.add_argument(
        "--epochs",
        type=command_line.positive,
        default=10,
        metavar="N",
        help="in total, those before --resume included; default 10",
    )
    training.add_argument(
        "--batch-size", type=command_line.positive, default=256, metavar="N", help="default 256"
    )
    training.add_argument(
        "--lr", type=float, metavar="ETA", help="default: the optimiser's own, 0.1 for descent"
    )
    training.add_argument(
        "--l2", type=float, default=0.0, help="weight of the penalty on W; default 0"
    )
    training.add_argument(
        "--optimiser", choices=OPTIMISERS, default="descent", help="default descent"
    )
    training.add_argument(
        "--seed",
        type=command_line.natural,
        default=0,
        metavar="N",
        help="of the initial weights and the order of the batches; default 0",
    )
    training.add_argument(
        "--dtype", choices=("float32", "float64"), default="float32", help="default float32"
    )
    training.add_argument(
        "--limit", type=command_line.positive, metavar="N", help="train on the first N images only"
    )
    training.add_argument(
        "--threads",
        type=command_line.threads,
        metavar="N",
        help="of the BLAS; default: the environment's (OPENBLAS_NUM_THREADS and so on), else 1",
    )
    run = flags.add_argument_group("run")
    run.add_argument("--run-dir", metavar="DIR", help="default runs/<data set>-<time>")
    run.add_argument("--force", action="store_true", help="overwrite an existing run")
    run.add_argument("--resume", action="store_true", help="go on with the run in --run-dir")
    run.add_argument(
        "--checkpoint-every",
        type=command_line.positive,
        metavar="STEPS",
        help="write checkpoint.npz so often too; default: after each epoch",
    )
    command_line.add_output_flags(flags)
    return flags


def train(args: argparse.Namespace) -> None:
    """Do the whole job: data, model, epochs, files, report."""
    say = (lambda _: None) if args.quiet or args.json else print
    started = perf_counter()
    command_line.hold_threads(int(os.environ["OPENBLAS_NUM_THREADS"]))
    data = choose_data(args)
    trainer = build_trainer(args, data)
    folder = run_folder.claim(args, data.name)
    trainer.checkpoint = folder / "checkpoint.npz"
    if args.resume:
        run_folder.resume(args, trainer)
    introduce(args, data, trainer, say)
    loaded = perf_counter()
    run_epochs(args, folder, trainer, say)
    seconds = {"load": loaded - started, "train": perf_counter() - loaded}
    files, summary = run_folder.write_results(args, folder, data, trainer, seconds)
    for line in confusions(data, trainer):
        say(line)
    say(f"written   {folder}: {' '.join(files)}")
    say(f"evaluate  python scripts/evaluate.py {folder / 'model.npz'}")
    if args.json:
        history = [asdict(record) for record in trainer.history]
        print(json.dumps({**summary, "run_dir": str(folder), "history": history}))


def choose_data(args: argparse.Namespace) -> "npsoftmax.Dataset":
    """Load the data set; fall back to the drawn one if neither it nor ``--offline`` was named."""
    from npsoftmax.errors import DataUnavailableError

    try:
        return command_line.load(args, "fashion-mnist" if args.dataset is None else args.dataset)
    except DataUnavailableError as error:
        if args.dataset is not None or args.offline:
            raise
        print(
            f"train.py: warning: fashion-mnist cannot be had, training on the embedded data set "
            f"garments instead. {error}",
            file=sys.stderr,
        )
        return command_line.load(args, "garments")


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
        identity={
            "dataset": data.name,
            "sha256": data.sha256,
            "threads": int(os.environ["OPENBLAS_NUM_THREADS"]),
        },
    )


def introduce(
    args: argparse.Namespace,
    data: "npsoftmax.Dataset",
    trainer: "npsoftmax.Trainer",
    say: Callable[[str], None],
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


def run_epochs(
    args: argparse.Namespace,
    folder: Path,
    trainer: "npsoftmax.Trainer",
    say: Callable[[str], None],
) -> None:
    """Train what is left of the epochs, print each, and keep the history on disk up to date."""
    run_folder.write_history(folder, trainer)
    with progress_bar(args, trainer) as bar, stops_between_steps(trainer, folder, bar):
        for record in trainer.run(max(args.epochs - trainer.epoch, 0)):
            run_folder.write_history(folder, trainer)
            bar.clear()
            say(str(record))
            sys.stdout.flush()


def progress_bar(args: argparse.Namespace, trainer: "npsoftmax.Trainer") -> "tqdm[Any]":
    """Return a bar of the steps on stderr, which shows itself on a terminal only."""
    from tqdm import tqdm

    steps = len(trainer.loader)
    return tqdm(
        total=args.epochs * steps,
        initial=trainer.epoch * steps + trainer.step,
        unit="step",
        leave=False,
        disable=True if args.quiet else None,
    )


@contextmanager
def stops_between_steps(
    trainer: "npsoftmax.Trainer", folder: Path, bar: "tqdm[Any]"
) -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM end training between two steps, with a checkpoint."""
    from npsoftmax.errors import InterruptionError

    requests: list[int] = []

    def request(number: int, _: object) -> None:
        if requests:
            raise KeyboardInterrupt
        requests.append(number)

    def on_step(_: "npsoftmax.Trainer") -> None:
        bar.update()
        if requests:
            raise InterruptionError

    trainer.on_step = on_step
    name = trainer.identity["dataset"]
    handlers = {sent: signal.signal(sent, request) for sent in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except InterruptionError as error:
        trainer.save_checkpoint(folder / "checkpoint.npz")
        raise InterruptionError(
            f"interrupted in epoch {trainer.epoch + 1} after step {trainer.step} of "
            f"{len(trainer.loader)}; checkpoint written, go on with the same flags and "
            f"--dataset {name} --resume --run-dir {folder}"
        ) from error
    finally:
        for sent, handler in handlers.items():
            signal.signal(sent, handler)


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
