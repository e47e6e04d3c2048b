"""Compare learning rates: `python scripts/sweep.py lr`; or batch sizes: `... sweep.py batch-size`.

A sixth of the training images is held out to judge by. The test images are left alone: they are
for the model that one ends up with.
"""

import argparse
import json
import math
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import command_line
import run_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    import npsoftmax


class Setting(NamedTuple):
    """What is compared: its name, its value where it is not compared, the values where it is."""

    title: str
    usual: float
    compared: tuple[float, ...]


SETTINGS = {
    "lr": Setting("learning rate", 0.1, (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)),
    "batch_size": Setting("batch size", 256, (32, 64, 256, 1024, 4096, 16384)),
}
Say = Callable[[str], None]
HEADER = "train loss  validation loss  lowest to highest  accuracy  s/epoch"


def parser() -> argparse.ArgumentParser:
    """Declare the flags."""
    flags = command_line.Parser(
        prog="sweep.py",
        usage="sweep.py lr|batch-size [flags]",
        description="Compare values of the learning rate, or of the batch size, on a sixth of the "
        "training images that is held out.",
    )
    flags.add_argument("setting", choices=("lr", "batch-size"), help="what to compare")
    flags.add_argument("--dataset", metavar="NAME", default="fashion-mnist",
        help="fashion-mnist (the default), mnist or garments")  # fmt: skip
    command_line.add_data_flags(flags)
    training = flags.add_argument_group("training")
    for flag, kind in (("lr", rate), ("batch_size", command_line.positive)):
        _, usual, compared = SETTINGS[flag]
        listed = " ".join(f"{value:g}" for value in compared)
        training.add_argument(f"--{flag.replace('_', '-')}", type=kind, nargs="+", metavar="VALUE",
            help=f"to compare, default {listed}; else one, default {usual}")  # fmt: skip
    for flag, whole, default, text in (
        ("epochs", command_line.positive, 10, "default 10"),
        ("repeats", command_line.positive, 3,
         "trainings with each value, from other weights and in another order; default 3"),
        ("seed", command_line.natural, 0,
         "of the split and the first repeat, the next have N+1, N+2, ...; default 0"),
        ("threads", command_line.threads, None,
         "of the BLAS; default: the environment's (OPENBLAS_NUM_THREADS and so on), else 1"),
    ):  # fmt: skip
        training.add_argument(f"--{flag}", type=whole, default=default, metavar="N", help=text)
    run = flags.add_argument_group("run")
    run.add_argument("--run-dir", metavar="DIR", help="default runs/sweep-<setting>-<time>")
    command_line.add_output_flags(flags)
    return flags


def rate(text: str) -> float:
    """Parse a learning rate."""
    with suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"expected a positive learning rate, got {text!r}")


class Repeat(NamedTuple):
    """What one training came to; ``losses`` are those of the held-out images, one by one."""

    train_loss: float
    losses: "NDArray[np.float64]"
    accuracy: float
    seconds_per_epoch: float


class Outcome:
    """What a value came to: means over its repeats, and how far their validation losses spread."""

    def __init__(self, value: float, repeats: Sequence[Repeat]) -> None:
        import numpy as np

        means = [float(repeat.losses.mean()) for repeat in repeats]
        self.value, self.lowest, self.highest = value, min(means), max(means)
        self.train_loss = statistics.fmean(repeat.train_loss for repeat in repeats)
        self.validation_loss = statistics.fmean(means)
        self.validation_acc = statistics.fmean(repeat.accuracy for repeat in repeats)
        self.seconds_per_epoch = statistics.median(r.seconds_per_epoch for r in repeats)
        self.losses = np.mean([repeat.losses for repeat in repeats], axis=0)
        self.standard_error = standard_error(self.losses)

    def __str__(self) -> str:
        """Write a line to go below ``HEADER``."""
        losses = (self.train_loss, self.validation_loss, self.lowest, self.highest)
        train, mean, lowest, highest = (f"{x:.4f}" if x < 1000 else f"{x:.3g}" for x in losses)
        return (
            f"{self.value:>10g}  {train:>10}  {mean:>15}  {lowest:>8} to {highest:<8}"
            f"  {self.validation_acc:>7.4f}  {self.seconds_per_epoch:>7.3f}"
        )

    def beats(self, other: "Outcome") -> bool:
        """Say whether neither the luck of the repeats nor that of the images could explain it.

        The worst repeat is better than the other's best, and the mean difference, image by image,
        is more than two of its standard errors.
        """
        gaps = other.losses - self.losses
        return self.highest < other.lowest and float(gaps.mean()) > 2 * standard_error(gaps)


def standard_error(values: "NDArray[np.float64]") -> float:
    """Return the standard error of the mean."""
    return float(values.std(ddof=1)) / math.sqrt(values.size)


def sweep(args: argparse.Namespace) -> None:
    """Do the whole job: data, a table that grows, the best value, files."""
    from npsoftmax.files import publish

    values = complete(args)
    say: Say = (lambda _: None) if args.quiet or args.json else partial(print, flush=True)
    command_line.hold_threads(int(os.environ["OPENBLAS_NUM_THREADS"]))
    data = held_out(command_line.load(args, args.dataset), args.seed)
    time = datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    folder = Path(args.run_dir or f"runs/sweep-{args.setting.replace('_', '-')}-{time}")
    with run_folder.usable(folder):
        folder.mkdir(parents=True)  # before any time is spent
    say(introduction(args, data))
    try:
        outcomes, diverged = compare(args, values, data, say)
    except BaseException:
        folder.rmdir()  # for the same command to run again
        raise
    best, unsettled = judged(outcomes)
    say(conclusion(args, outcomes, best, unsettled))
    report = {
        "settings": {n: v for n, v in vars(args).items() if n not in run_folder.NOT_SETTINGS},
        "dataset": data.name,
        "sha256": data.sha256,
        "outcomes": [{n: v for n, v in vars(o).items() if n != "losses"} for o in outcomes],
        "diverged": diverged,
        "best": best.value,
        "unsettled": [outcome.value for outcome in unsettled],
    }
    with publish(folder / "sweep.json") as file:
        file.write((json.dumps(report, indent=2) + "\n").encode())
    try:
        draw(folder / "sweep.png", args, outcomes, diverged)
    except Exception as error:  # the picture is an extra; a broken matplotlib fails in many ways
        print(f"sweep.py: warning: no sweep.png: {error}", file=sys.stderr)
    say(f"written    {folder}: {' '.join(sorted(path.name for path in folder.iterdir()))}")
    if args.json:
        print(json.dumps({**report, "run_dir": str(folder)}))


def compare(
    args: argparse.Namespace, values: Sequence[float], data: "npsoftmax.Dataset", say: Say
) -> tuple[list[Outcome], list[float]]:
    """Return what the values came to, and those with which training diverged."""
    from npsoftmax.errors import DivergedError

    outcomes: list[Outcome] = []
    diverged: list[float] = []
    seeds = range(args.seed, args.seed + args.repeats)
    for value in values:
        settings = {**vars(args), args.setting: value}
        try:
            outcomes.append(Outcome(value, [train(settings, seed, data) for seed in seeds]))
            say(str(outcomes[-1]))
        except DivergedError:
            diverged.append(value)
            say(f"{value:>10g}  diverged: a loss or a parameter is not finite")
    if not outcomes:
        raise DivergedError("training diverged with every value; try smaller learning rates")
    return outcomes, diverged


def complete(args: argparse.Namespace) -> list[float]:
    """Return the values to compare, and leave one value of the other setting."""
    from npsoftmax.errors import InputError

    args.setting = args.setting.replace("-", "_")
    (other,) = set(SETTINGS) - {args.setting}
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


def held_out(data: "npsoftmax.Dataset", seed: int) -> "npsoftmax.Dataset":
    """Put a sixth of the training images in the place of the test images."""
    from npsoftmax import splitobs

    whole = (data.X_train, data.y_train)
    (X, y), (X_held_out, y_held_out) = splitobs(whole, at=5 / 6, shuffle=True, rng=seed)
    return replace(data, X_train=X, y_train=y, X_test=X_held_out, y_test=y_held_out)


def introduction(args: argparse.Namespace, data: "npsoftmax.Dataset") -> str:
    """Say what is about to happen, and head the table."""
    return (
        f"data set   {data.name}: {data.y_train.size} training images, and {data.y_test.size} more "
        f"held out to judge by\n           {data.origin}\n"
        f"training   {described(args)}, repeats={args.repeats}\n\n"
        f"{args.setting.replace('_', ' '):>10}  {HEADER}"
    )


def described(args: argparse.Namespace) -> str:
    """Return the settings that all values share."""
    other = f"batches of {args.batch_size}" if args.setting == "lr" else f"Descent({args.lr:g})"
    return f"{args.epochs} epochs, {other}"


def train(settings: dict[str, Any], seed: int, data: "npsoftmax.Dataset") -> Repeat:
    """Train once, as train.py does, and measure the model that comes out."""
    import npsoftmax

    X, y = data.X_train, data.y_train
    model = npsoftmax.SoftmaxRegression(X.shape[0], len(data.classes), seed=seed)
    loader = npsoftmax.DataLoader(X, y, settings["batch_size"], shuffle=True, seed=seed)
    trainer = npsoftmax.Trainer(model, npsoftmax.Descent(settings["lr"]), loader)
    history = trainer.fit(settings["epochs"])
    train_losses, _ = measured(model, X, y)
    losses, hits = measured(model, data.X_test, data.y_test)
    seconds = statistics.median(record.train_seconds for record in history)
    return Repeat(float(train_losses.mean()), losses, float(hits.mean()), seconds)


def measured(
    model: "npsoftmax.SoftmaxRegression", X: "NDArray[np.uint8]", y: "NDArray[np.int64]"
) -> "tuple[NDArray[np.float64], NDArray[np.bool_]]":
    """Return the loss of each image, and whether it was classified right."""
    import numpy as np

    from npsoftmax.errors import DivergedError
    from npsoftmax.objective import sample_losses

    losses, predicted = sample_losses(model.theta, X, y, model.input_scale(X.dtype))
    if not np.isfinite(losses).all():
        raise DivergedError("a loss is not finite")
    return losses.astype(np.float64), predicted == y


def judged(outcomes: Sequence[Outcome]) -> tuple[Outcome, list[Outcome]]:
    """Return the best outcome, and the others that it does not clearly beat."""
    best = min(outcomes, key=lambda outcome: outcome.validation_loss)
    return best, [other for other in outcomes if other is not best and not best.beats(other)]


def conclusion(
    args: argparse.Namespace, outcomes: Sequence[Outcome], best: Outcome, unsettled: list[Outcome]
) -> str:
    """Say which value is best, and how sure one can be of it."""
    lines = [
        f"\nbest       {SETTINGS[args.setting].title} {best.value:g}: validation loss "
        f"{best.validation_loss:.4f}, standard error {best.standard_error:.4f}"
    ]
    if unsettled:
        values = ", ".join(f"{outcome.value:g}" for outcome in unsettled)
        lines += [f"unsettled  {values}: perhaps as good; --repeats {4 * args.repeats} tells more"]
    if len(outcomes) > 1 and args.repeats == 1:
        lines += ["unknown    how much of it is luck; --repeats 3 tells"]
    tried = getattr(args, args.setting)
    if len(outcomes) > 1 and best.value in (tried[0], tried[-1]):
        side = "smaller" if best.value == tried[0] else "larger"
        lines += [f"untried    {side} values, on the side where the best one lies"]
    return "\n".join(lines)


def draw(
    path: Path, args: argparse.Namespace, outcomes: Sequence[Outcome], diverged: Sequence[float]
) -> None:
    """Draw the losses against the values, where matplotlib is present."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
    except ImportError:
        return
    from npsoftmax.ext import plots
    from npsoftmax.files import publish

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    ax = figure.subplots()
    curve = [(o.value, o.train_loss, o.validation_loss) for o in outcomes]
    curve += [(value, math.nan, math.nan) for value in diverged]
    values, train_losses, losses = zip(*curve, strict=True)
    plots.validation_curve(values, train_losses, losses, ax, SETTINGS[args.setting].title)
    value, lowest, highest = zip(*((o.value, o.lowest, o.highest) for o in outcomes), strict=True)
    spreads = ax.plot([value, value], [lowest, highest], color="0.4")
    spreads[0].set_label("lowest to highest repeat")
    ax.set(title=f"{args.dataset}, {described(args)}", yscale="log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 4, 5, 6, 8)))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))  # 0.5, not 5e-1
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.legend()
    with publish(path) as file:
        figure.savefig(file, format="png", dpi=120)


if __name__ == "__main__":
    sys.exit(command_line.run(parser(), sweep))
