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
import solvers
import workers
from solvers import OPTIMISERS, SOLVERS, ExactOptimum, Solver, complete, training_part

if TYPE_CHECKING:
    from distributed import Client
    from tqdm import tqdm

    import npsoftmax


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
        "--solver",
        choices=SOLVERS,
        default="sgd",
        help="minibatches (sgd, the default), or all samples to the exact optimum (lbfgs)",
    )
    training.add_argument(
        "--l2", type=float, default=0.0, help="weight of the penalty on W; default 0"
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
        help="of the BLAS; default: the environment's (OPENBLAS_NUM_THREADS and so on), else 1, "
        "with --solver lbfgs one for each core; workers have one each",
    )
    add_solver_flags(flags)
    run = flags.add_argument_group("run")
    run.add_argument("--run-dir", metavar="DIR", help="default runs/<data set>-<time>")
    run.add_argument("--force", action="store_true", help="overwrite an existing run")
    run.add_argument("--resume", action="store_true", help="go on with the run in --run-dir")
    run.add_argument(
        "--checkpoint-every",
        type=command_line.positive,
        metavar="STEPS",
        help="write checkpoint.npz so often too; default: after each epoch, every 10 iterations",
    )
    command_line.add_output_flags(flags)
    return flags


def add_solver_flags(flags: argparse.ArgumentParser) -> None:
    """Add what only one of the solvers knows; its defaults are in ``solvers``."""
    sgd = flags.add_argument_group("training with --solver sgd")
    sgd.add_argument(
        "--epochs",
        type=command_line.positive,
        metavar="N",
        help="in total, those before --resume included; default 10",
    )
    sgd.add_argument("--batch-size", type=command_line.positive, metavar="N", help="default 256")
    sgd.add_argument(
        "--lr", type=float, metavar="ETA", help="default: the optimiser's own, 0.1 for descent"
    )
    sgd.add_argument("--optimiser", choices=OPTIMISERS, help="default descent")
    lbfgs = flags.add_argument_group("training with --solver lbfgs")
    lbfgs.add_argument(
        "--tol",
        type=float,
        metavar="G",
        help="the largest entry of the gradient to stop at; default 1e-5",
    )
    lbfgs.add_argument(
        "--max-iterations",
        type=command_line.natural,
        metavar="N",
        help="in total, those before --resume included; default 1000",
    )
    lbfgs.add_argument(
        "--workers",
        type=command_line.threads,
        metavar="N",
        help="share the images among N processes of a Dask cluster on this machine "
        '(pip install ".[distributed]")',
    )
    lbfgs.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="or, instead, among the workers of a running one, such as tcp://host:8786",
    )


def train(args: argparse.Namespace) -> None:
    """Do the whole job: data, model, training, files, report."""
    say = (lambda _: None) if args.quiet or args.json else print
    started = perf_counter()
    complete(args)
    solvers.refuse_unusable(args)
    workers.refuse_contradictions(args)
    run_folder.refuse_unusable(args)
    command_line.hold_threads(int(os.environ["OPENBLAS_NUM_THREADS"]))
    data = choose_data(args)
    with workers.connected(args, say) as client:
        train_on(args, data, client, say, started)


def train_on(
    args: argparse.Namespace,
    data: "npsoftmax.Dataset",
    client: "Client | None",
    say: Callable[[str], None],
    started: float,
) -> None:
    """Train on a data set, here or on a cluster, and leave a run folder."""
    solver = SOLVERS[args.solver](args, data, client)
    with run_folder.claimed(args, data.name) as folder:
        solver.trainer.checkpoint = folder / "checkpoint.npz"
        if args.resume:
            run_folder.resume(args, solver)
        introduce(args, data, solver, say)
        loaded = perf_counter()
        run(args, folder, solver, say)
        seconds = {"load": loaded - started, "train": perf_counter() - loaded}
        with tells_of_checkpoint(solver, folder):
            report(solver, say)
        solver.trainer.model.fit_class_means(*training_part(args, data))
        files, summary = run_folder.write_results(args, folder, data, solver, seconds)
    for line in confusions(data, solver.trainer.model):
        say(line)
    say(f"written   {folder}: {' '.join(files)}")
    where = "" if args.data_dir is None else f" --data-dir {args.data_dir}"
    say(f"evaluate  python scripts/evaluate.py {folder / 'model.npz'}{where}")
    if args.json:
        history = [asdict(record) for record in solver.trainer.history]
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


def introduce(
    args: argparse.Namespace, data: "npsoftmax.Dataset", solver: Solver, say: Callable[[str], None]
) -> None:
    """Print what is about to happen."""
    samples = training_part(args, data)[1].size
    say(
        f"data set  {data.name}: {samples} training and {data.y_test.size} test "
        f"images, {len(data.classes)} classes\n          {data.origin}"
    )
    say(f"model     {solver.trainer.model!r}{solver.weights}")
    say(f"training  {solver.introduction()}")
    if args.resume:
        say(f"resumed   {solver.place()}")


def run(args: argparse.Namespace, folder: Path, solver: Solver, say: Callable[[str], None]) -> None:
    """Train, print the records, and keep the history on disk up to date."""
    if args.resume:  # it may have gone beyond its last checkpoint
        run_folder.write_history(folder, solver.trainer)
    shown = record = None
    with (
        solver.bar(args.quiet) as bar,
        tells_of_checkpoint(solver, folder),
        stops_between_steps(solver, folder, bar),
    ):
        for record in solver.records():
            if solver.is_shown(record):
                run_folder.write_history(folder, solver.trainer)
                bar.clear()
                say(str(record))
                sys.stdout.flush()
                shown = record
    if shown is not record:
        say(str(record))
    run_folder.write_history(folder, solver.trainer)


def report(solver: Solver, say: Callable[[str], None]) -> None:
    """Say how good the optimum is, on stderr if it was not reached."""
    if isinstance(solver, ExactOptimum):
        optimum = solver.optimum
        if optimum.converged:
            say(f"optimum   {optimum}")
        else:
            print(f"train.py: warning: {optimum}", file=sys.stderr)


@contextmanager
def stops_between_steps(solver: Solver, folder: Path, bar: "tqdm[Any]") -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM end training between two steps, with a checkpoint."""
    from npsoftmax.errors import InterruptionError

    requests: list[int] = []

    def request(number: int, _: object) -> None:
        if requests:
            raise KeyboardInterrupt
        requests.append(number)

    def on_step(_: object) -> None:
        bar.update()
        if requests:
            raise InterruptionError

    trainer = solver.trainer
    trainer.on_step = on_step
    # What is ignored stays ignored: a shell protects what it runs in the background like this.
    heard = [s for s in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) != signal.SIG_IGN]
    handlers = {sent: signal.signal(sent, request) for sent in heard}
    try:
        yield
    except InterruptionError as error:
        trainer.save_checkpoint(folder / "checkpoint.npz")
        run_folder.write_history(folder, trainer)
        raise InterruptionError(
            f"interrupted {solver.place()}; checkpoint written, go on {again(solver, folder)}"
        ) from error
    finally:
        for sent, handler in handlers.items():
            signal.signal(sent, handler)


@contextmanager
def tells_of_checkpoint(solver: Solver, folder: Path) -> Iterator[None]:
    """Say how to go on where a cluster is lost; the trainer has written a checkpoint."""
    from npsoftmax.errors import ClusterError

    try:
        yield
    except ClusterError as error:
        if not solver.trainer.history:
            raise
        run_folder.write_history(folder, solver.trainer)
        raise ClusterError(
            f"{error}; checkpoint written {solver.place()}, go on {again(solver, folder)}, here "
            "without --scheduler and --workers if need be"
        ) from error


def again(solver: Solver, folder: Path) -> str:
    """Say with which flags a run goes on."""
    name = solver.trainer.identity["dataset"]
    return f"with the same flags and --dataset {name} --resume --run-dir {folder}"


def confusions(data: "npsoftmax.Dataset", model: "npsoftmax.SoftmaxRegression") -> Iterator[str]:
    """Yield a line for each of the most frequent confusions on the test data."""
    import numpy as np

    from npsoftmax.metrics import confusion_matrix

    counts = confusion_matrix(model.predict(data.X_test), data.y_test, len(data.classes))
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
