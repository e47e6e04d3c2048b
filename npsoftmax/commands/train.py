"""Train softmax regression: `npsoftmax train` trains on Fashion-MNIST.

Results go to stdout; progress, warnings and errors go to stderr.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from npsoftmax.commands import command_line, local_cluster, run_folder, training_data
from npsoftmax.errors import (
    ClusterError,
    CorruptFileError,
    DataUnavailableError,
    InputError,
    NpsoftmaxError,
)
from npsoftmax.files import quoted

if TYPE_CHECKING:
    from distributed import Client
    from tqdm import tqdm

    import npsoftmax
    from npsoftmax.history import EpochRecord, IterationRecord
    from npsoftmax.objective import FullBatch

OPTIMISERS = {name.lower(): name for name in ("Descent", "Momentum", "Nesterov", "Adam", "AdamW")}
# Of the flags that belong to one solver.
DEFAULTS: dict[str, dict[str, Any]] = {
    "sgd": {"epochs": 10, "batch_size": 256, "lr": None, "optimiser": "descent"},
    "lbfgs": {"max_iterations": 1000, "tol": 1e-5, "class_weight": None}
    | {"scheduler": None, "workers": None},
}
Say = Callable[[str], None]


def parser() -> command_line.Parser:
    """Declare the flags."""
    flags = command_line.Parser(
        "train", description="Train softmax regression, on Fashion-MNIST by default."
    )
    flags.add_argument("--dataset", metavar="NAME", help="fashion-mnist, mnist or garments")
    command_line.add_data_flags(flags)
    training_data.add_flags(flags)
    training = flags.add_argument_group("training")
    training.add_argument("--solver", choices=DEFAULTS,
        help="minibatches (sgd, default for a data set), or all samples to the exact optimum "
        "(lbfgs, default for features and for --data)")  # fmt: skip
    training.add_argument("--l2", type=float,
        help="weight of the penalty on W; default 0 for a data set, 0.015 / n for features of n "
        "images, 0.03 * s / n for other --data, with the mean square length s of rows")  # fmt: skip
    training.add_argument("--seed", type=command_line.natural, default=0, metavar="N",
        help="seed of the initial weights, of the batch order, of the features and of the part of "
        "--data that is held out; default 0")  # fmt: skip
    training.add_argument("--dtype", choices=("float32", "float64"), default="float32",
        help="default float32")  # fmt: skip
    training.add_argument("--limit", type=command_line.positive, metavar="N",
        help="train on the first N samples only")  # fmt: skip
    training.add_argument("--threads", type=command_line.threads, metavar="N",
        help="BLAS threads; default: the environment's (OPENBLAS_NUM_THREADS and so on), else 1, "
        "with --solver lbfgs one for each core; each worker has one")  # fmt: skip
    add_solver_flags(flags)
    run = flags.add_argument_group("run")
    run.add_argument("--run-dir", metavar="DIR", type=command_line.path,
        help="default runs/<data set>-<time>")  # fmt: skip
    run.add_argument("--force", action="store_true", help="overwrite an existing run")
    run.add_argument("--resume", nargs="?", const="always", type=automatic, metavar="auto",
        help="resume the run in --run-dir; with =auto, start it if there is none yet, so that the "
        "same command serves a job that is started again")  # fmt: skip
    run.add_argument("--checkpoint-every", type=command_line.positive, metavar="STEPS",
        help="also write checkpoint.npz after every STEPS steps; default: after each epoch, every "
        "10 iterations")  # fmt: skip
    command_line.add_output_flags(flags)
    return flags


def add_solver_flags(flags: argparse.ArgumentParser) -> None:
    """Add the flags of a single solver; their defaults are in ``DEFAULTS``."""
    sgd = flags.add_argument_group("training with --solver sgd")
    sgd.add_argument("--epochs", type=command_line.positive, metavar="N",
        help="total epochs, including those before --resume; default 10")  # fmt: skip
    sgd.add_argument("--batch-size", type=command_line.positive, metavar="N", help="default 256")
    sgd.add_argument("--lr", type=float, metavar="ETA",
        help="default: the optimiser's own, 0.1 for descent")  # fmt: skip
    sgd.add_argument("--optimiser", choices=OPTIMISERS, help="default descent")
    lbfgs = flags.add_argument_group("training with --solver lbfgs")
    lbfgs.add_argument("--tol", type=float, metavar="G",
        help="stop when the largest entry of the gradient is at most G; default 1e-5")  # fmt: skip
    lbfgs.add_argument("--max-iterations", type=command_line.natural, metavar="N",
        help="total iterations, including those before --resume; default 1000")  # fmt: skip
    lbfgs.add_argument("--class-weight", choices=("balanced",),
        help="give all classes the same total weight, however many images they have")  # fmt: skip
    lbfgs.add_argument("--workers", type=command_line.threads, metavar="N",
        help="distribute the images over N Dask processes on this machine")  # fmt: skip
    lbfgs.add_argument("--scheduler", metavar="ADDRESS",
        help="the same over the workers of a running cluster, such as tcp://host:8786")  # fmt: skip


def automatic(text: str) -> str:
    """Parse the value of ``--resume``."""
    if text not in ("auto", "always"):  # argparse parses its own constant too
        raise argparse.ArgumentTypeError(
            f"expected auto or nothing, got {text!r}; name the folder with --run-dir {quoted(text)}"
        )
    return text


def train(args: argparse.Namespace) -> None:
    """Do the whole job: data, model, training, files, report."""
    say: Say = (lambda _: None) if args.quiet or args.json else print
    started = perf_counter()
    training_data.complete(args)
    complete(args)
    check_numbers(args)
    local_cluster.check_flags(args)
    run_folder.check(args)
    with command_line.limit_blas(args.threads or 1):
        data = choose_data(args)
        with local_cluster.connect(args, say) as client:
            train_with(SOLVERS[args.solver](args, data, client), say, started)


def complete(args: argparse.Namespace) -> None:
    """Fill in the solver and its defaults, and reject the flags of the other one."""
    if args.solver is None:
        is_data_set = args.data is None and args.features == "pixels"
        args.solver = "sgd" if is_data_set else "lbfgs"
    for name, defaults in DEFAULTS.items():
        for flag, default in defaults.items():
            given = getattr(args, flag)
            if name == args.solver:
                setattr(args, flag, default if given is None else given)
            elif given is not None:
                raise InputError(
                    f"--{flag.replace('_', '-')}: expected with --solver {name}, got it with "
                    f"--solver {args.solver}; leave it out"
                )


def check_numbers(args: argparse.Namespace) -> None:
    """Raise InputError for a number that the trainer would reject after the data are loaded."""
    from npsoftmax._checks import as_size

    if args.l2 is not None:
        as_size(args.l2, "l2")
    if args.solver == "sgd":
        make_optimiser(args)
    else:
        as_size(args.tol, "tol")


def choose_data(args: argparse.Namespace) -> "npsoftmax.Dataset":
    """Load the data; if neither they nor a place were named, fall back to the drawn ones."""
    if args.data is not None:
        return training_data.load(args)
    named = args.data_dir, args.dataset, args.offline, os.environ.get("NPSOFTMAX_DATA") or None
    try:
        return command_line.load(args, "fashion-mnist" if args.dataset is None else args.dataset)
    except DataUnavailableError as error:
        if args.mirror_url or any(place is not None for place in named):
            raise
        missing, ways, _ = str(error).splitlines()
        command_line.warn("train", missing)
        command_line.warn(
            "train",
            "training on garments instead, which are drawn by code; their accuracy is not "
            "comparable with that of Fashion-MNIST",
        )
        command_line.warn(
            "train", f"{ways}; for the causes: {command_line.start('fetch')} fashion-mnist"
        )
        return command_line.load(args, "garments")


def train_with(solver: "Solver", say: Say, started: float) -> None:
    """Train, and write the run folder."""
    args, data, trainer = solver.args, solver.data, solver.trainer
    automatic = args.resume == "auto"
    with run_folder.claim(args, data.name) as folder:
        trainer.checkpoint = folder / "checkpoint.npz"
        if args.resume:
            resume(solver)
        introduce(solver, say)
        say_beginning(solver, folder, automatic, say)
        loaded = perf_counter()
        with advice_to_resume(solver, folder):
            train_and_print(solver, folder, say)
            seconds = {
                "load": loaded - started - solver.features_seconds,
                "features": solver.features_seconds,
                "train": perf_counter() - loaded,
            }
            if isinstance(solver, ExactOptimum):
                assess(solver, say)
        confused = list(confusions(solver))
        if data.pixel_scale is not None:
            trainer.model.fit_class_means(solver.samples, solver.y)
            if data.framing == "square" or trainer.model.features is not None:
                choose_doubt(solver)
        if args.data and solver.uses_held_out:
            train_on_all(solver, say)
        trainer.model.save(folder / "model.npz")
        summary = {**run_folder.summarise(solver), "seconds": seconds}
        run_folder.write_json(folder / "summary.json", summary)
        conclude(solver, folder, confused, say)
        if args.json:
            history = [asdict(record) for record in trainer.history]
            told = {"run_dir": str(folder), "resumed": bool(args.resume), "history": history}
            print(json.dumps({**summary, **told}))
        sys.stdout.flush()  # drawing takes as long as some epochs
        title, curves = f"{data.name}, {solver.title}", folder / run_folder.CURVES
        draw = partial(run_folder.draw_curves, title, trainer.history)
        if run_folder.write_picture("train", curves, draw):
            say(f"drawn     {quoted(curves)}")


class Task:
    """The flags, the data and the model, for either solver."""

    def __init__(self, args: argparse.Namespace, data: "npsoftmax.Dataset") -> None:
        import npsoftmax

        self.args, self.data = args, data
        self.samples, self.y = data.X_train[:, : args.limit], data.y_train[: args.limit]
        started = perf_counter()
        self.model = npsoftmax.SoftmaxRegression(
            data.X_train.shape[0],
            len(data.classes),
            seed=args.seed,
            dtype=args.dtype,
            classes=data.classes,
            pixel_scale=data.pixel_scale,
            framing=data.framing,
            features=training_data.learn(args, data.shape, self.samples),
            feature_names=data.feature_names,
        )
        # What W multiplies.
        self.X = training_data.extract(args, self.model, self.samples)
        self.test = training_data.extract(args, self.model, data.X_test), data.y_test
        self.features_seconds = perf_counter() - started
        scale = self.model.input_scale(self.X.dtype)
        self.l2 = training_data.choose_l2(args, self.X, scale)
        self.identity = {"dataset": data.name, "sha256": data.sha256}
        self.settings: dict[str, Any] = {"l2": self.l2}
        # Once they have judged the model. Others hold nothing out, or train on as much as was said.
        self.uses_held_out = (
            args.solver == "lbfgs" and args.limit is None and training_data.holds_out(args)
        )
        self.unit = "rows" if data.pixel_scale is None else "images"
        self.outcome: dict[str, Any] = {}


class Minibatches(Task):
    """Stochastic gradient descent, epoch after epoch."""

    UNIT = "epochs"
    CHECKPOINT = "checkpoint"

    def __init__(
        self, args: argparse.Namespace, data: "npsoftmax.Dataset", client: None = None
    ) -> None:
        import npsoftmax

        super().__init__(args, data)
        optimiser, batches = make_optimiser(args), f"batches of {args.batch_size}"
        self.trainer = npsoftmax.Trainer(
            self.model,
            optimiser,
            npsoftmax.DataLoader(self.X, self.y, args.batch_size, shuffle=True, seed=args.seed),
            test=self.test,
            l2=self.l2,
            checkpoint_every=args.checkpoint_every,
            identity=self.identity,
            threads=args.threads or 1,
        )
        self.total, self.threads = args.epochs, self.trainer.threads
        self.title = f"{optimiser!r}, {batches}"
        self.introduction = f"{args.epochs} epochs, {batches}, {optimiser!r}, l2={self.l2:g}"
        self.start = f", weights from N(0, 0.01), seed {args.seed}"
        self.settings["optimiser"] = repr(optimiser)

    @property
    def done(self) -> int:
        """Number of finished epochs."""
        return self.trainer.epoch

    def position(self) -> str:
        """Say how far training is."""
        epoch, step = self.trainer.epoch, self.trainer.step
        if step == 0:
            return f"after epoch {epoch}"
        return f"in epoch {epoch + 1} after step {step} of {len(self.trainer.loader)}"

    def records(self) -> Iterator["EpochRecord"]:
        """Train the remaining epochs."""
        return self.trainer.run(self.total - self.done)


class ExactOptimum(Task):
    """L-BFGS on all samples, to the optimum."""

    UNIT = "max-iterations"
    CHECKPOINT = "checkpoint of the lbfgs solver"

    def __init__(
        self, args: argparse.Namespace, data: "npsoftmax.Dataset", client: "Client | None" = None
    ) -> None:
        import npsoftmax

        super().__init__(args, data)
        if args.class_weight is not None:  # other checkpoints stay as they were
            self.identity["class_weight"] = args.class_weight
        problem = self.problem(client)
        self.trainer = npsoftmax.FullBatchTrainer(
            self.model,
            problem,
            test=self.test,
            tol=args.tol,
            checkpoint_every=args.checkpoint_every or 10,
            identity=self.identity,
        )
        self.total, self.threads = args.max_iterations, problem.threads
        self.title = f"L-BFGS, l2={self.l2:g}"
        self.introduction = (
            f"L-BFGS on all samples until max|gradient| <= {args.tol:g}, l2={self.l2:g}, "
            f"{'balanced classes, ' if args.class_weight else ''}threads={problem.threads}"
        )
        self.start = ""  # the optimum does not depend on the initial weights
        self.outcome["cluster"] = client and local_cluster.describe(client)

    def problem(self, client: "Client | None") -> "FullBatch":
        """Return the objective on the training images, here or on the workers of a cluster."""
        args, scale = self.args, self.model.input_scale(self.X.dtype)
        weights = training_data.weights(args, self.y, self.model.classes)
        if client is None:
            from npsoftmax.objective import FullBatch

            threads = training_data.threads(args)
            return FullBatch(self.X, self.y, self.l2, weights, scale=scale, threads=threads)
        from npsoftmax.ext import cluster

        rows, labels = cluster.training_rows(
            self.data, client, limit=args.limit, data_dir=args.data_dir, offline=args.offline
        )
        return cluster.FullBatch(rows, labels, self.l2, client, weights, scale=scale)

    @property
    def done(self) -> int:
        """Number of finished iterations."""
        return max(len(self.trainer.history) - 1, 0)

    def position(self) -> str:
        """Say how far training is."""
        return f"after iteration {self.done}"

    def records(self) -> Iterator["IterationRecord"]:
        """Train until the tolerance or the last iteration is reached."""
        return self.trainer.run(self.total)


Solver = Minibatches | ExactOptimum
SOLVERS: dict[str, type[Solver]] = {"sgd": Minibatches, "lbfgs": ExactOptimum}


def make_optimiser(args: argparse.Namespace) -> "npsoftmax.optimisers.Optimiser":
    """Return the update rule."""
    from npsoftmax import optimisers

    rule: Callable[..., optimisers.Optimiser] = getattr(optimisers, OPTIMISERS[args.optimiser])
    return rule() if args.lr is None else rule(args.lr)


def resume(solver: Solver) -> None:
    """Load the checkpoint of the run, unless it has done more than the flags ask for."""
    folder = solver.args.run_dir
    try:
        solver.trainer.resume(Path(folder) / "checkpoint.npz")
    except CorruptFileError as error:
        (other,) = DEFAULTS.keys() - {solver.args.solver}
        if f"got a {SOLVERS[other].CHECKPOINT};" not in str(error):
            raise
        raise InputError(
            f"{quoted(folder)}: expected a run with --solver {solver.args.solver}, got one with "
            f"--solver {other}; resume it with that"
        ) from error
    if solver.done > solver.total:
        raise InputError(
            f"--{solver.UNIT}: expected at least the {solver.done} that {quoted(folder)} has done, "
            f"got {solver.total}; the number includes those before --resume"
        )


def introduce(solver: Solver, say: Say) -> None:
    """Print the data set, the model and the settings."""
    data = solver.data
    say(
        f"data set  {data.name}: {solver.y.size} training and {data.y_test.size} test "
        f"{solver.unit}, {len(data.classes)} classes\n          {data.origin}"
    )
    if solver.model.features is not None:
        nbytes = sum(getattr(X, "nbytes", 0) for X in (solver.X, solver.test[0]))
        seconds = solver.features_seconds
        say(f"features  {training_data.say(solver.args, solver.model, seconds, nbytes)}")
    say(f"model     {solver.model!r}{solver.start}")
    say(f"training  {solver.introduction}")


def say_beginning(solver: Solver, folder: Path, automatic: bool, say: Say) -> None:
    """Print whether a run was resumed; with --resume=auto also where, or that it starts."""
    where = f" in {quoted(folder)}" if automatic else ""
    if solver.args.resume:
        end = ": nothing is left to train" if solver.done >= solver.total else ""
        say(f"resumed   {solver.position()}{where}{end}")
    elif automatic:
        say(f"started   {quoted(folder)}: there was nothing to resume")


def train_and_print(solver: Solver, folder: Path, say: Say) -> None:
    """Train, print the records, and keep the history in the folder up to date."""
    trainer = solver.trainer
    if solver.args.resume:  # the history may be longer than that of the checkpoint
        run_folder.write_history(folder, trainer.history)
    printed = record = None
    with progress_bar(solver) as bar, signals_stop_between_steps(solver, bar):
        for record in solver.records():
            # Each epoch; of the iterations the first ten and each tenth one.
            number = getattr(record, "iteration", 0)
            if number < 10 or number % 10 == 0:
                run_folder.write_history(folder, trainer.history)
                if bar is not None:
                    bar.clear()
                say(str(record))
                sys.stdout.flush()
                printed = record
    if printed is not record:
        say(str(record))
    run_folder.write_history(folder, trainer.history)


def progress_bar(solver: Solver) -> "AbstractContextManager[tqdm[Any] | None]":
    """Return a bar of the steps on stderr, or None where nobody would see it."""
    # The number of iterations is not known in advance.
    if isinstance(solver, ExactOptimum) or not command_line.wants_bar(solver.args):
        return nullcontext()
    from tqdm import tqdm

    steps = len(solver.trainer.loader)
    initial = solver.done * steps + solver.trainer.step
    return tqdm(total=solver.total * steps, initial=initial, unit="step", leave=False)


class InterruptionError(NpsoftmaxError):
    """Training stopped between two steps because of a signal."""

    exit_code = 130


@contextmanager
def signals_stop_between_steps(solver: Solver, bar: "tqdm[Any] | None") -> Iterator[None]:
    """Let the first signal that asks to stop end training between two steps."""
    received: list[int] = []
    impatient = (signal.SIGINT, signal.SIGTERM)

    def receive(number: int, _: object) -> None:
        command_line.note_signal(number)
        # A terminal that closes, and its shell, send one each; a batch system may warn twice.
        if received and number in impatient:
            raise KeyboardInterrupt
        received.append(number)

    def on_step(_: object) -> None:
        if bar is not None:
            bar.update()
        if received:
            raise InterruptionError

    solver.trainer.on_step = on_step
    handlers = command_line.handle_signals(receive)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            # The checkpoint is written next.
            ignored = received and number not in impatient
            signal.signal(number, signal.SIG_IGN if ignored else handler)


@contextmanager
def advice_to_resume(solver: Solver, folder: Path) -> Iterator[None]:
    """After a signal or the loss of a cluster, keep the progress and say how to resume."""
    trainer = solver.trainer
    named = "" if solver.args.data else f" and --dataset {solver.data.name}"
    how = f"with the same flags{named} --resume --run-dir {quoted(folder)}"
    try:
        yield
    except InterruptionError as error:
        trainer.save_checkpoint(folder / "checkpoint.npz")
        run_folder.write_history(folder, trainer.history)
        raise InterruptionError(
            f"interrupted {solver.position()}; checkpoint written, resume {how}"
        ) from error
    except ClusterError as error:  # the trainer has written a checkpoint
        if not trainer.history:
            raise
        run_folder.write_history(folder, trainer.history)
        raise ClusterError(
            f"{error}; checkpoint written {solver.position()}, resume {how}; leave out --scheduler "
            "and --workers to train on this machine"
        ) from error


def assess(solver: ExactOptimum, say: Say) -> None:
    """Print how good the optimum is, on stderr if it was not reached."""
    optimum = solver.trainer.optimum()  # takes a few passes over the samples
    solver.outcome = {"optimum": asdict(optimum), **solver.outcome}
    if optimum.converged:
        say(f"optimum   {optimum}")
    else:
        command_line.warn("train", str(optimum))


DOUBT_IMAGES = 10_000


def choose_doubt(solver: Solver) -> None:
    """Choose the limit of evidence on photographs that were held out, or on training images.

    Of a data set as large as Fashion-MNIST, training images have about the evidence of others.
    """
    from npsoftmax.doubt import fit_evidence_limit
    from npsoftmax.functional import affine

    X, y = solver.test if solver.args.data else (solver.X, solver.y)
    if y.size:
        scale = solver.model.input_scale(X.dtype)
        logits = affine(solver.model.theta, X[:, :DOUBT_IMAGES], scale)
        solver.model.evidence_limit = fit_evidence_limit(logits, y[:DOUBT_IMAGES])


def train_on_all(solver: Solver, say: Say) -> None:
    """Train on the photographs that were held out too, from the optimum without them."""
    import numpy as np

    from npsoftmax import FullBatchTrainer
    from npsoftmax.objective import FullBatch

    args, model, (X_test, y_test) = solver.args, solver.model, solver.test
    X, y = np.concatenate([solver.X, X_test], axis=1), np.concatenate([solver.y, y_test])
    scale, threads = model.input_scale(X.dtype), training_data.threads(args)
    l2 = training_data.choose_l2(args, X, scale)
    weights = training_data.weights(args, y, model.classes)
    problem = FullBatch(X, y, l2, weights, scale=scale, threads=threads)
    optimum = FullBatchTrainer(model, problem, tol=args.tol).fit(args.max_iterations)
    say(f"all       trained on the {y_test.size} held-out photographs too: {optimum}")


def conclude(solver: Solver, folder: Path, confused: list[str], say: Say) -> None:
    """Print the confusions, the files in the folder, and what can be done with them."""
    for line in confused:
        say(line)
    files = [name for name in run_folder.RESULTS if (folder / name).exists()]
    say(f"written   {quoted(folder)}: {' '.join(files)}")
    place = solver.args.data_dir or os.environ.get("NPSOFTMAX_DATA")
    where = f" --data-dir {quoted(place)}" if place and not solver.args.data else ""
    where = " --data FOLDER" if solver.uses_held_out else where
    say(f"evaluate  {command_line.start('evaluate')} {quoted(folder / 'model.npz')}{where}")


def confusions(solver: Solver) -> Iterator[str]:
    """Yield a line for each of the four most frequent confusions on the test data, if any."""
    import numpy as np

    from npsoftmax.metrics import confusion_matrix
    from npsoftmax.objective import sample_losses

    model, (X, y), classes = solver.model, solver.test, solver.data.classes
    _, predicted = sample_losses(model.theta, X, y, model.input_scale(X.dtype))
    counts = confusion_matrix(predicted, y, len(classes))
    totals = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    most = np.argsort(-counts, axis=None, kind="stable")[:4]
    for cell in most[counts.ravel()[most] > 0]:
        true, taken_for = divmod(int(cell), len(classes))
        yield (
            f"confused  {classes[true]} taken for {classes[taken_for]}: "
            f"{counts[true, taken_for]} of {totals[true]}"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit code."""
    return command_line.run(parser(), train, argv)
