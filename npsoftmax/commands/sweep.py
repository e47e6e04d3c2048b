"""Compare learning rates, batch sizes or penalties: `npsoftmax sweep lr|batch-size|l2`.

The values are compared on a sixth of the training images, which is held out, or penalties on folds.
The test images are not used, so that they can judge the model that is trained with the best value.
"""

import argparse
import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from npsoftmax.commands import command_line, run_folder, training_data
from npsoftmax.errors import DivergedError, InputError
from npsoftmax.files import quoted

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    import npsoftmax

Say = Callable[[str], None]


class Setting(NamedTuple):
    """A setting: its name, its value while the other one is compared, and the compared values."""

    title: str
    usual: float
    compared: tuple[float, ...]


SETTINGS = {
    "lr": Setting("learning rate", 0.1, (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)),
    "batch_size": Setting("batch size", 256, (32, 64, 256, 1024, 4096, 16384)),
    "l2": Setting("l2", 0, (1e-7, 3e-7, 1e-6, 3e-6, 1e-5, 3e-5, 1e-4)),
}
AROUND = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)


def parser() -> command_line.Parser:
    """Declare the flags."""
    flags = command_line.Parser(
        "sweep",
        usage="%(prog)s lr|batch-size|l2 [flags]",
        description="Compare values of the learning rate, of the batch size, or of the penalty of "
        "the exact optimum, on a sixth of the training images, which is held out.",
    )
    flags.add_argument("setting", nargs="?", choices=("lr", "batch-size", "l2"),
        help="what to compare")  # fmt: skip
    flags.add_argument("--dataset", metavar="NAME",
        help="fashion-mnist (the default), mnist or garments")  # fmt: skip
    command_line.add_data_flags(flags)
    training_data.add_flags(flags)
    training = flags.add_argument_group("training")
    rate = partial(command_line.positive_float, name="learning rate")
    for flag, kind in (("lr", rate), ("batch_size", command_line.positive)):
        _, usual, compared = SETTINGS[flag]
        listed = " ".join(f"{value:g}" for value in compared)
        training.add_argument(f"--{flag.replace('_', '-')}", type=kind, nargs="+", metavar="VALUE",
            help=f"to compare, default {listed}; or a single one, default {usual}")  # fmt: skip
    penalties = " ".join(f"{value:g}" for value in SETTINGS["l2"].compared)
    training.add_argument("--l2", type=partial(command_line.positive_float, name="l2"), nargs="+",
        metavar="VALUE", help=f"to compare, default {penalties}; with --data "
        f"0.01 to 30 times the l2 of {command_line.program('train')}")  # fmt: skip
    for flag, whole, default, text in (
        ("epochs", command_line.positive, 10, "default 10"),
        ("repeats", command_line.positive, None,
         "training runs with each value, each with its own seed; default 3"),
        ("seed", command_line.natural, 0,
         "of the split and the first repeat; the next repeats have N+1, N+2, ...; default 0"),
        ("threads", command_line.threads, None,
         "of the BLAS; default: the environment's (OPENBLAS_NUM_THREADS and so on), else 1"),
    ):  # fmt: skip
        training.add_argument(f"--{flag}", type=whole, default=default, metavar="N", help=text)
    training.add_argument("--folds", type=command_line.positive, metavar="N",
        help="with l2: hold out each of N parts in turn, in place of a sixth")  # fmt: skip
    run = flags.add_argument_group("run")
    run.add_argument("--run-dir", metavar="DIR", type=command_line.path,
        help="default runs/sweep-<setting>-<time>")  # fmt: skip
    command_line.add_output_flags(flags)
    return flags


def sweep(args: argparse.Namespace) -> None:
    """Do the whole job: data, a table that grows, the best value, files."""
    values = complete(args)
    say: Say = (lambda _: None) if args.quiet or args.json else partial(print, flush=True)
    data = split(args, load(args))
    unit = "rows" if data.pixel_scale is None else "images"
    data = extract(args, data)
    if args.setting == "l2" and args.data is not None and not args.l2:
        scale = 1.0 if data.pixel_scale is None else data.pixel_scale
        usual = training_data.choose_l2(args, data.X_train, scale)
        values = [float(f"{factor * usual:.1g}") for factor in AROUND]
    setting = args.setting.replace("_", "-")
    folder = Path(args.run_dir or f"runs/sweep-{setting}-{run_folder.timestamp()}")
    with run_folder.os_errors_as_ours(folder):
        folder.mkdir(parents=True)  # before any time is spent
    held_out = f"{data.y_test.size} more held out for validation"
    if args.folds:
        held_out = f"each of {args.folds} parts held out in turn"
    say(
        f"data set   {data.name}: {data.y_train.size} training {unit}, and {held_out}\n"
        f"           {data.origin}\n"
        f"training   {describe(args)}, repeats={args.repeats}\n\n"
        f"{setting.replace('-', ' '):>10}  {HEADER}{'s/fit' if setting == 'l2' else 's/epoch'}"
    )
    try:
        with command_line.limit_blas(args.threads or 1):
            found = (compare_penalties if setting == "l2" else compare)(args, values, data, say)
    except BaseException:
        folder.rmdir()  # so that the same command can run again
        raise
    say(f"\nbest       {found.summary(SETTINGS[args.setting].title)}")
    report = report_of(args, data, found)
    run_folder.write_json(folder / "sweep.json", report)
    picture = partial(draw, data.name, args, found.outcomes, found.diverged)
    run_folder.write_picture("sweep", folder / "sweep.png", picture)
    say(f"written    {quoted(folder)}: {' '.join(sorted(path.name for path in folder.iterdir()))}")
    if args.json:
        print(json.dumps({**report, "run_dir": str(folder)}))


def report_of(
    args: argparse.Namespace, data: "npsoftmax.Dataset", found: "Comparison"
) -> dict[str, Any]:
    """Return the content of ``sweep.json``."""
    return {
        "settings": run_folder.settings(args),
        "dataset": data.name,
        "sha256": data.sha256,
        "outcomes": [asdict(outcome) for outcome in found.outcomes],
        "diverged": found.diverged,
        "best": found.best.value,
        **found.further,
    }


def complete(args: argparse.Namespace) -> list[float]:
    """Return the values to compare, and set the other setting to one value."""
    if args.setting is None:
        raise InputError(
            "expected what to compare, lr, batch-size or l2, got none; for example: "
            f"{command_line.start('sweep')} lr"
        )
    training_data.complete(args)
    args.setting = args.setting.replace("-", "_")
    if args.setting == "l2":
        if args.repeats is not None:
            raise InputError(
                "--repeats: expected it with lr or batch-size, got l2, whose optimum has no seed; "
                "leave it out"
            )
        args.repeats = 1
        return sorted(set(args.l2 or SETTINGS["l2"].compared))
    args.repeats = args.repeats or 3
    for flag in ("l2", "folds"):
        if getattr(args, flag):
            raise InputError(f"--{flag}: expected it with l2, got {args.setting}; leave it out")
    (other,) = {"lr", "batch_size"} - {args.setting}
    fixed = getattr(args, other) or [SETTINGS[other].usual]
    if len(fixed) > 1:
        raise InputError(
            f"--{other.replace('_', '-')}: expected one value while those of the "
            f"{SETTINGS[args.setting].title} are compared, got {len(fixed)}; run a sweep for each"
        )
    setattr(args, other, fixed[0])
    values = sorted(set(getattr(args, args.setting) or SETTINGS[args.setting].compared))
    setattr(args, args.setting, values)
    return values


def load(args: argparse.Namespace) -> "npsoftmax.Dataset":
    """Load the photographs or the data set that the flags name."""
    if args.data is not None:
        return training_data.load(args)
    return command_line.load(args, args.dataset or "fashion-mnist")


def split(args: argparse.Namespace, data: "npsoftmax.Dataset") -> "npsoftmax.Dataset":
    """Replace the test samples by what is held out: a part of the others, or none for folds."""
    if args.folds is None:
        return hold_out(data, args.seed)
    if not 2 <= args.folds <= data.y_train.size:
        raise InputError(
            f"--folds: expected from 2 parts to one for each of {data.y_train.size} training "
            f"samples, got {args.folds}; choose for instance 5"
        )
    return without_test(data)


def hold_out(data: "npsoftmax.Dataset", seed: int) -> "npsoftmax.Dataset":
    """Replace the test samples by a sixth of the training samples."""
    import numpy as np

    from npsoftmax import splitobs
    from npsoftmax.data.labelled import take

    X, y = data.X_train, data.y_train
    rest, held = splitobs(np.arange(y.size), at=5 / 6, shuffle=True, rng=seed)
    parts = {"X_train": take(X, rest), "X_test": take(X, held)}
    return replace(data, y_train=y[rest], y_test=y[held], **parts)


def without_test(data: "npsoftmax.Dataset") -> "npsoftmax.Dataset":
    """Leave out the test samples."""
    return replace(data, X_test=data.X_train[:, :0], y_test=data.y_train[:0])


def extract(args: argparse.Namespace, data: "npsoftmax.Dataset") -> "npsoftmax.Dataset":
    """Replace the samples by their features, which are learned from the training samples."""
    import npsoftmax

    features = training_data.learn(args, data.shape, data.X_train)
    if features is None:
        return data
    model = npsoftmax.SoftmaxRegression(
        data.X_train.shape[0],
        len(data.classes),
        sigma=0,
        pixel_scale=data.pixel_scale,
        features=features,
    )
    X = training_data.extract(args, model, data.X_train)
    held_out = X[:, :0]
    if data.y_test.size:
        held_out = training_data.extract(args, model, data.X_test)
    return replace(data, X_train=X, X_test=held_out, pixel_scale=None)


def describe(args: argparse.Namespace) -> str:
    """Return the settings that all values share."""
    if args.setting == "l2":
        return f"L-BFGS to the optimum, {training_data.describe(args)}"
    other = f"batches of {args.batch_size}" if args.setting == "lr" else f"Descent({args.lr:g})"
    return f"{args.epochs} epochs, {other}"


HEADER = "train loss  validation loss  lowest to highest  accuracy  "


@dataclass(frozen=True)
class Outcome:
    """The result of a value: means over its repeats, and the range of the validation losses."""

    value: float
    lowest: float
    highest: float
    train_loss: float
    validation_loss: float
    validation_acc: float
    seconds_per_epoch: float

    def __str__(self) -> str:
        """Return a line below ``HEADER``."""
        losses = (self.train_loss, self.validation_loss, self.lowest, self.highest)
        train, mean, lowest, highest = (f"{x:.4f}" if x < 1000 else f"{x:.3g}" for x in losses)
        ends = f"{lowest:>8} to {highest:<8}" if lowest != highest else ""
        return (
            f"{self.value:>10g}  {train:>10}  {mean:>15}  {ends:20}"
            f"  {self.validation_acc:>7.4f}  {self.seconds_per_epoch:>7.3f}"
        )


@dataclass(frozen=True)
class Comparison:
    """The outcomes, the values with which training diverged, and what a path says of itself."""

    outcomes: Sequence[Outcome]
    diverged: Sequence[float] = ()
    further: dict[str, Any] = field(default_factory=dict)

    @property
    def best(self) -> Outcome:
        """The outcome with the smallest loss."""
        return min(self.outcomes, key=lambda outcome: outcome.validation_loss)

    def summary(self, title: str) -> str:
        """Return the lines that name the best value of a setting."""
        best, further = self.best, self.further
        text = f"{title} {best.value:g}: validation loss {best.validation_loss:.4f}"
        if best.lowest < best.highest:
            text += f" ({best.lowest:.4f} to {best.highest:.4f})"
        if further:
            simple = f"{further['one_standard_error']:g}"
            text += f"\n           largest penalty within a standard error of it: {simple}"
        return f"{text}\nadvice     {further['advice']}" if further.get("advice") else text


def compare(
    args: argparse.Namespace, values: Sequence[float], data: "npsoftmax.Dataset", say: Say
) -> Comparison:
    """Train with each value, and print a line for each."""
    outcomes: list[Outcome] = []
    diverged: list[float] = []
    seeds = range(args.seed, args.seed + args.repeats)
    for value in values:
        settings = {**vars(args), args.setting: value}
        try:
            outcomes.append(summarise(value, [train(settings, seed, data) for seed in seeds]))
            say(str(outcomes[-1]))
        except DivergedError:
            diverged.append(value)
            say(f"{value:>10g}  diverged: a loss or a parameter is not finite")
    if not outcomes:
        raise DivergedError("training diverged with every value; try smaller learning rates")
    return Comparison(outcomes, diverged)


Repeat = tuple[float, float, float, float]  # losses, accuracy and seconds as in an Outcome


def summarise(value: float, repeats: Sequence[Repeat]) -> Outcome:
    """Return the outcome of a value; its time is the median of the repeats."""
    train_losses, losses, accuracies, seconds = zip(*repeats, strict=True)
    return Outcome(
        value,
        lowest=min(losses),
        highest=max(losses),
        train_loss=statistics.fmean(train_losses),
        validation_loss=statistics.fmean(losses),
        validation_acc=statistics.fmean(accuracies),
        seconds_per_epoch=statistics.median(seconds),
    )


def train(settings: dict[str, Any], seed: int, data: "npsoftmax.Dataset") -> Repeat:
    """Train once, as the command train does, and evaluate the model."""
    import npsoftmax

    X, y = data.X_train, data.y_train
    model = npsoftmax.SoftmaxRegression(
        X.shape[0], len(data.classes), seed=seed, pixel_scale=data.pixel_scale
    )
    loader = npsoftmax.DataLoader(X, y, settings["batch_size"], shuffle=True, seed=seed)
    rule, threads = npsoftmax.Descent(settings["lr"]), settings["threads"] or 1
    trainer = npsoftmax.Trainer(model, rule, loader, threads=threads)
    history = trainer.fit(settings["epochs"])
    train_loss, _ = mean_loss_and_accuracy(model, X, y)
    validation = mean_loss_and_accuracy(model, data.X_test, data.y_test)
    return train_loss, *validation, statistics.median(r.train_seconds for r in history)


def compare_penalties(
    args: argparse.Namespace, values: Sequence[float], data: "npsoftmax.Dataset", say: Say
) -> Comparison:
    """Find the optimum for each penalty, the largest first, and print a line for each."""
    import npsoftmax

    model = npsoftmax.SoftmaxRegression(
        data.X_train.shape[0],
        len(data.classes),
        sigma=0,
        classes=data.classes,
        pixel_scale=data.pixel_scale,
    )
    path = npsoftmax.fit_path(
        model,
        data.X_train,
        data.y_train,
        l2=values,
        held_out=None if args.folds else (data.X_test, data.y_test),
        folds=args.folds,
        seed=args.seed,
        threads=training_data.threads(args),
        on_value=lambda record: say(str(penalty_outcome(record))),
    )
    further = {"one_standard_error": path.one_standard_error.l2, "advice": path.advice}
    return Comparison([penalty_outcome(record) for record in path.records], further=further)


def penalty_outcome(record: "npsoftmax.PathRecord") -> Outcome:
    """Return the outcome of a penalty; its range is that of the folds."""
    loss, accuracy = record.held_out_loss or 0.0, record.accuracy or 0.0
    losses = record.fold_losses or (loss,)
    return Outcome(
        record.l2, min(losses), max(losses), record.train_loss, loss, accuracy, record.seconds
    )


def mean_loss_and_accuracy(
    model: "npsoftmax.SoftmaxRegression", X: "NDArray[np.uint8]", y: "NDArray[np.int64]"
) -> tuple[float, float]:
    """Return the mean loss and the accuracy on some images."""
    import numpy as np

    from npsoftmax.objective import sample_losses

    losses, predicted = sample_losses(model.theta, X, y, model.input_scale(X.dtype))
    if not np.isfinite(losses).all():
        raise DivergedError("a loss is not finite")
    return float(losses.mean(dtype=np.float64)), float((predicted == y).mean())


def draw(
    data: str, args: argparse.Namespace, outcomes: Sequence[Outcome], diverged: Sequence[float]
) -> "Figure":
    """Draw the losses against the values."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    from npsoftmax.ext import plots

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    ax = figure.subplots()
    curve = [(o.value, o.train_loss, o.validation_loss) for o in outcomes]
    curve += [(value, math.nan, math.nan) for value in diverged]
    values, train_losses, losses = zip(*curve, strict=True)
    plots.validation_curve(values, train_losses, losses, ax, SETTINGS[args.setting].title)
    value, lowest, highest = zip(*((o.value, o.lowest, o.highest) for o in outcomes), strict=True)
    ranges = ax.plot([value, value], [lowest, highest], color="0.4")
    unit = "fold" if args.folds else "repeat"
    ranges[0].set_label(f"lowest to highest {unit}")
    ax.set(title=f"{data}, {describe(args)}", yscale="log")
    bottom, top = ax.get_ylim()
    subs = [1, 2, 3, 4, 5, 6, 8] if top < 30 * bottom else [1, 3]  # or labels overlap
    ax.yaxis.set_major_locator(LogLocator(subs=subs))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))  # 0.5, not 5e-1
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.legend()
    return figure


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit code."""
    return command_line.run(parser(), sweep, argv)
