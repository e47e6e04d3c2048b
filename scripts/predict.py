"""Say what is in photos, each of one item: `python scripts/predict.py MODEL IMAGE...`."""

import argparse
import json
import math
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import command_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    import npsoftmax
    from npsoftmax.ext.photos import Photo

PIXELS = 28 * 28
GUESSES = 3
MOST_CHARACTERS = 40
MOST_SHOWN = 100
ROW_INCHES = 2.2
MOST_NAME_SHOWN = 22


class Prediction(NamedTuple):
    """A photo and what there is to say of it."""

    file: str
    photo: "Photo"
    guesses: list[tuple[str, float]]
    novelty: float | None
    warnings: list[str]


def parser() -> argparse.ArgumentParser:
    """Declare the flags."""
    flags = command_line.Parser(
        prog="predict.py", description="Say what is in photos, each of one item."
    )
    flags.add_argument("model", metavar="MODEL", help="a model.npz that train.py wrote")
    flags.add_argument(
        "images", metavar="IMAGE", nargs="+", help="a photo: JPEG, PNG, GIF, WebP, TIFF, ..."
    )
    flags.add_argument(
        "--show",
        metavar="FILE",
        help="draw each photo, what the model sees of it, and its guesses into this PNG file; a "
        "picture of an earlier call is replaced",
    )
    command_line.add_output_flags(flags)
    return flags


def predict(args: argparse.Namespace) -> None:
    """Print the likeliest classes of each image and what is doubtful; go on after a bad one."""
    import npsoftmax
    from npsoftmax.errors import CorruptFileError, NpsoftmaxError

    needed("npsoftmax.ext.photos", "image")
    if args.show is not None:
        check_show(args)
    model = npsoftmax.SoftmaxRegression.load(args.model)
    refuse_other_inputs(args.model, model)
    reports: list[dict[str, Any]] = []
    shown: list[Prediction] = []
    for file in args.images:
        try:
            prediction = look_at(model, file)
        except NpsoftmaxError as error:
            complain(error, args)
            reports.append({"file": file, "error": str(error)})
            continue
        reports.append(as_json(prediction))
        if args.show is not None:
            shown.append(prediction)
        if not (args.json or args.quiet):
            print_out(prediction, model.classes)
    if shown:
        draw(shown, args.show)
    if args.json:
        print(json.dumps({"model": args.model, "images": reports}))
    if any("error" in report for report in reports):
        sys.stdout.flush()  # here, for run() to hear of a reader that went away
        raise SystemExit(CorruptFileError.exit_code)


def needed(module: str, extra: str) -> Any:
    """Return a module that needs what an extra installs."""
    from npsoftmax.errors import InputError

    try:
        return import_module(module)
    except ImportError as error:
        raise InputError(
            f'{error}; install what it needs: python -m pip install ".[{extra}]"'
        ) from error


def check_show(args: argparse.Namespace) -> None:
    """Refuse, before any work, what would end in no picture or in a lost photo."""
    from npsoftmax.errors import InputError
    from npsoftmax.files import readable

    needed("npsoftmax.ext.plots", "plot")
    if len(args.images) > MOST_SHOWN:
        raise InputError(
            f"--show: expected at most {MOST_SHOWN} images, got {len(args.images)}; "
            "show them in several pictures"
        )
    if os.path.exists(args.show):
        # A pattern after --show names the first photo as the file to write.
        with readable(args.show) as file:
            head = file.read(200)
        inputs = filter(os.path.exists, (args.model, *args.images))
        is_input = any(os.path.samefile(path, args.show) for path in inputs)
        if is_input or (head and b"Matplotlib" not in head):
            raise InputError(
                f"--show: expected a new file or a picture of an earlier call, got {args.show}; "
                "name another"
            )


def refuse_other_inputs(path: str, model: "npsoftmax.SoftmaxRegression") -> None:
    """Refuse a model of anything but 28x28 pixels."""
    from npsoftmax.errors import ShapeError

    if model.num_inputs != PIXELS:
        raise ShapeError(
            f"{path}: expected a model of {PIXELS} inputs, 28x28 pixels, got one of "
            f"{model.num_inputs}; name one that was trained on images"
        )


def look_at(model: "npsoftmax.SoftmaxRegression", file: str) -> Prediction:
    """Read an image and ask the model; of a blank one there is nothing to guess."""
    from npsoftmax.ext import photos

    with muted():
        photo = photos.read(file)
    doubts = list(photo.warnings)
    if photo.is_blank:
        return Prediction(file, photo, [], None, doubts)
    (guesses,) = model.top_k(photo.pixels, min(GUESSES, model.num_outputs))
    novelty = None
    if model.class_means is not None:
        novelty = model.novelty(photo.pixels).item()
        if novelty > 1:
            doubts.append(
                f"unlike the training data: {novelty:.2f} times as far from the nearest class "
                "mean as 99 % of that class"
            )
    return Prediction(file, photo, guesses, novelty, doubts)


@contextmanager
def muted() -> Iterator[None]:
    """Keep what the decoders write behind Python's back from the stream of our own complaints."""
    sys.stderr.flush()
    try:
        stderr = os.dup(2)
    except OSError:  # closed
        yield
        return
    try:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
            yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def as_json(prediction: Prediction) -> dict[str, Any]:
    """Return what is said of an image, for programs."""
    novelty = prediction.novelty
    return {
        "file": prediction.file,
        "guesses": [
            {"class": name, "probability": probability} for name, probability in prediction.guesses
        ],
        "novelty": novelty if novelty is not None and math.isfinite(novelty) else None,
        "doubts": prediction.warnings,
    }


def complain(error: Exception, args: argparse.Namespace) -> None:
    """Print what is wrong with an image, in one line."""
    if args.debug:
        traceback.print_exc()
    print(f"predict.py: error: {command_line.one_line(str(error))}", file=sys.stderr)


def print_out(prediction: Prediction, classes: tuple[str, ...]) -> None:
    """Print the likeliest classes below each other, as the Colab demo does."""
    width = max(len(legible(name)) for name in classes) + 1
    print(command_line.one_line(prediction.file))
    for place, (name, probability) in enumerate(prediction.guesses, start=1):
        print(f"{place}) {legible(name):{width}}: {probability:.3f}")
    for doubt in prediction.warnings:
        print(f"doubtful  {doubt}")


def legible(name: str) -> str:
    """Return the name of a class as one short line, for a stranger may have made the model."""
    return command_line.one_line(name)[:MOST_CHARACTERS]


def draw(predictions: list[Prediction], path: str) -> None:
    """Draw a row for each photo: the photo, what the model sees, and the guesses."""
    from matplotlib.figure import Figure

    from npsoftmax.files import publish

    rows = len(predictions)
    figure = Figure(figsize=(8, ROW_INCHES * rows))
    # An empty column leaves the names of the classes their room.
    grid = figure.subplots(rows, 4, width_ratios=[1.6, 1.6, 0.9, 3], squeeze=False)
    figure.subplots_adjust(
        left=0.02, right=0.96, bottom=0.1 / rows, top=1 - 0.25 / rows, wspace=0.05, hspace=0.35
    )
    for axes, prediction in zip(grid, predictions, strict=True):
        draw_row(prediction, *axes)
    with warnings.catch_warnings(), publish(path) as file:
        warnings.filterwarnings("ignore", "Glyph")  # what the font lacks is drawn as a box
        figure.savefig(file, format="png", dpi=100)


def draw_row(
    prediction: Prediction, left: "Axes", middle: "Axes", gap: "Axes", right: "Axes"
) -> None:
    """Draw what is known of one photo; of a blank one there are no guesses."""
    from npsoftmax.ext import plots

    left.imshow(prediction.photo.image)
    left.set(xticks=[], yticks=[])
    left.set_title(shortened(prediction.file), fontsize=9, parse_math=False)
    plots.image(prediction.photo.pixels, middle)
    middle.set_title("what the model sees", fontsize=9)
    gap.set_axis_off()
    if prediction.guesses:
        plots.top_k_bars(prediction.guesses, right)
        right.set(xticks=[], xlabel="")
    else:
        right.set_axis_off()
    # Without the numbers, which would not fit.
    doubts = ", ".join(doubt.partition(":")[0] for doubt in prediction.warnings)
    right.set_title(doubts, fontsize=9, color="firebrick", loc="left")


def shortened(file: str) -> str:
    """Return the end of a file's name, which tells more than its folders, to fit above a photo."""
    name = command_line.one_line(file)
    return name if len(name) <= MOST_NAME_SHOWN else "…" + name[1 - MOST_NAME_SHOWN :]


if __name__ == "__main__":
    sys.exit(command_line.run(parser(), predict))
