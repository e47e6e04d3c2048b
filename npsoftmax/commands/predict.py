"""Classify photos, or the rows of a table: `npsoftmax predict MODEL IMAGE...|TABLE`."""

import argparse
import csv
import json
import math
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from npsoftmax.commands import command_line, own_data
from npsoftmax.commands.evaluate import read_summary
from npsoftmax.errors import CorruptFileError, InputError, NpsoftmaxError, ShapeError
from npsoftmax.files import quoted

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    import npsoftmax
    from npsoftmax.ext.photos import Photo

PIXELS = 28 * 28
AS_THEY_ARE = ("whole", "square")  # the framings of any side
GUESSES = 3
MAX_NAME_CHARACTERS = 22  # above a photo
PICTURES = (".png", ".pdf", ".svg")
MAX_DRAWN = 90  # a page of a PDF is at most 200 inches high


def parser() -> command_line.Parser:
    """Declare the flags."""
    flags = command_line.Parser(
        "predict",
        description="Classify photos of single items, or the rows of a file: a table, arrays, "
        "svmlight or IDX; for these, classes and probabilities are printed as CSV.",
    )
    command_line.add_model(flags)
    flags.add_argument(
        "images", metavar="IMAGE", nargs="+", type=command_line.path,
        help="a photo (JPEG, PNG, GIF, WebP, TIFF, ...), a folder of photos, or one file of "
        "rows")  # fmt: skip
    flags.add_argument("--show", metavar="FILE", type=command_line.path,
        help="draw the first 90 photos, the inputs of the model and its guesses into this .png, "
        ".pdf or .svg file; a picture from an earlier call is replaced")  # fmt: skip
    flags.add_argument("--text", metavar="COLUMN",
        help="for a model of texts: the column that has them; default: as in the training, by the "
        "summary.json next to the model")  # fmt: skip
    command_line.add_output_flags(flags)
    return flags


def predict(args: argparse.Namespace) -> None:
    """Print the most likely classes and the warnings of each image; continue after a bad one."""
    import npsoftmax

    if len(args.images) == 1 and own_data.kind_of(args.images[0]) not in ("photographs", ""):
        predict_rows(args)
        return
    command_line.import_extra("npsoftmax.ext.photos")
    if args.show is not None:
        command_line.import_extra("npsoftmax.ext.plots")
        check_picture(args.show)
    model = npsoftmax.SoftmaxRegression.load(args.model)
    check_pixels(model, args.model)
    reports: list[dict[str, Any]] = []
    predictions: list[Prediction] = []
    for file, result in classify_all(model, args.images):
        if isinstance(result, NpsoftmaxError):
            if args.debug:
                traceback.print_exception(result)
            command_line.complain("predict", str(result))
            reports.append({"file": file, "error": str(result)})
            continue
        reports.append(as_json(result))
        if args.show is not None and len(predictions) < MAX_DRAWN:
            predictions.append(result)
        if not (args.json or args.quiet):
            print_guesses(result, model.classes)
    if predictions:
        from npsoftmax.ext import plots

        with plots.defaults():
            draw(predictions, args.show)
        total = sum("error" not in report for report in reports)
        if total > MAX_DRAWN:
            command_line.warn("predict", f"--show: drew the first {MAX_DRAWN} of {total} photos")
    if args.json:
        print(json.dumps({"model": args.model, "images": reports}))
    if any("error" in report for report in reports):
        sys.stdout.flush()  # here, so that run() handles a broken pipe
        raise SystemExit(CorruptFileError.exit_code)


def predict_rows(args: argparse.Namespace) -> None:
    """Print the class of each row of a file, and the probability of every class, as CSV."""
    import npsoftmax

    model, (path,) = npsoftmax.SoftmaxRegression.load(args.model), args.images
    settings = read_summary(args.model).get("settings")
    settings = settings if isinstance(settings, dict) else {}
    X, _ = own_data.read_for(model, path, None, args.text, settings, "predict")
    probabilities = model(X).T
    names = [model.classes[i] for i in probabilities.argmax(axis=1)]
    sets = None if model.set_rule is None else names_of(model, model.predict_sets(X))
    if args.json:
        columns = {"class": names, "probabilities": probabilities.tolist()}
        columns |= {} if sets is None else {"sets": sets}
        print(json.dumps({"model": args.model, "classes": model.classes, **columns}))
    elif not args.quiet:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        heading = [] if sets is None else ["set"]
        writer.writerow(["class", *heading, *(f"p({name})" for name in model.classes)])
        for i, (name, row) in enumerate(zip(names, probabilities.tolist(), strict=True)):
            own = [] if sets is None else ["; ".join(sets[i])]
            writer.writerow([name, *own, *(f"{p:.6g}" for p in row)])


def names_of(model: "npsoftmax.SoftmaxRegression", sets: "NDArray[np.bool_]") -> list[list[str]]:
    """Return the names of the classes in each set, in their order."""
    return [[model.classes[i] for i in column.nonzero()[0]] for column in sets.T]


def check_pixels(model: "npsoftmax.SoftmaxRegression", path: str) -> None:
    """Raise an error if a model is not one of images that photos can become."""
    side = math.isqrt(model.num_inputs)
    if side * side != model.num_inputs or (side != 28 and model.framing not in AS_THEY_ARE):
        raise ShapeError(
            f"{quoted(path)}: expected a model of {PIXELS} inputs, 28x28 pixels, or one of square "
            f'images with the framing "whole" or "square", got one of {model.num_inputs} inputs '
            f"with the framing {model.framing}; name one that was trained on such images"
        )
    if model.pixel_scale is None:
        raise InputError(
            f"{quoted(path)}: expected a model with a pixel scale, got one of other features; if "
            "they are pixels / 255, set model.pixel_scale = 1/255 and save it again"
        )


def check_picture(path: str) -> None:
    """Raise InputError if matplotlib should not write this file.

    A pattern after ``--show`` names the first photo as the file to write.
    """
    from npsoftmax.files import readable

    if not path.lower().endswith(PICTURES):
        raise InputError(
            f"--show: expected a name that ends in {', '.join(PICTURES)}, got "
            f"{quoted(path)}; name it {quoted(os.path.splitext(path)[0] + '.png')}"
        )
    if os.path.exists(path):
        with readable(path) as file:
            content = file.read()
        if content and b"Matplotlib" not in content:
            raise InputError(
                f"--show: expected a new file or a picture from an earlier call, got "
                f"{quoted(path)}; name another"
            )


class Prediction(NamedTuple):
    """A photo with its guesses, novelty and warnings, and its set if the model has sets."""

    file: str
    photo: "Photo"
    guesses: list[tuple[str, float]]
    novelty: float | None
    warnings: list[str]
    set: list[str] | None = None


def classify_all(
    model: "npsoftmax.SoftmaxRegression", paths: Sequence[str]
) -> "Iterator[tuple[str, Prediction | NpsoftmaxError]]":
    """Yield each image, of files and folders, with its prediction or with its error."""
    from npsoftmax.ext import photos

    for path in paths:
        try:
            files = photos.find(path)
        except NpsoftmaxError as error:
            yield path, error
            continue
        for file in files:
            try:
                result: Prediction | NpsoftmaxError = classify(model, file)
            except NpsoftmaxError as error:
                result = error
            yield file, result


def classify(model: "npsoftmax.SoftmaxRegression", file: str) -> Prediction:
    """Read an image and predict its classes, unless it is blank."""
    from npsoftmax.ext import photos

    photo = photos.read(file, model.framing, math.isqrt(model.num_inputs))
    found = list(photo.warnings)
    if photo.is_blank:
        return Prediction(file, photo, [], None, found)
    guesses = most_likely(model, photo)
    novelty = None
    if model.class_means is not None:
        novelty = model.novelty(photo.pixels).min().item()
        if novelty > 1:
            found.append(
                f"unlike the training data: {novelty:.2f} times as far from every class as 99 % of "
                "its own training images"
            )
    if model.evidence_limit is not None:
        evidence = float(model.evidence(photo.pixels).mean())
        found += little_evidence(evidence, model.evidence_limit, guesses)
    inside = None
    if model.set_rule is not None:
        # The right class is in the set of a good framing, whichever that is.
        sets = names_of(model, model.predict_sets(photo.pixels))
        inside = [name for name in model.classes if any(name in names for names in sets)]
    return Prediction(file, photo, guesses, novelty, found, inside)


def most_likely(model: "npsoftmax.SoftmaxRegression", photo: "Photo") -> list[tuple[str, float]]:
    """Return the most likely classes, by the mean over the framings of a photo."""
    probabilities = model(photo.pixels).mean(axis=1)
    best = (-probabilities).argsort(kind="stable")[:GUESSES]
    return [(model.classes[i], float(probabilities[i])) for i in best]


def little_evidence(
    evidence: float, limit: float, guesses: list[tuple[str, float]]
) -> Iterator[str]:
    """Yield why a prediction is doubtful, for a model that knows its evidence limit."""
    if evidence <= limit:
        yield f"no class fits well: the evidence is {evidence:.1f}, doubt begins at {limit:.1f}"
    (name, first), *others = guesses
    if others and others[0][1] > first / 2:
        close, second = others[0]
        yield f"the two best guesses are close: {name} {first:.2f} and {close} {second:.2f}"


def as_json(prediction: Prediction) -> dict[str, Any]:
    """Return the entry of an image in the report for programs."""
    novelty = prediction.novelty
    return {
        "file": prediction.file,
        "guesses": [
            {"class": name, "probability": probability} for name, probability in prediction.guesses
        ],
        "novelty": novelty if novelty is not None and math.isfinite(novelty) else None,
        "doubts": prediction.warnings,
    } | ({} if prediction.set is None else {"set": prediction.set})


def print_guesses(prediction: Prediction, classes: tuple[str, ...]) -> None:
    """Print the most likely classes below each other, as the Colab demo does."""
    one_line = command_line.one_line  # the model may come from someone else
    width = max(len(one_line(name)) for name in classes) + 1
    print(one_line(prediction.file))
    for place, (name, probability) in enumerate(prediction.guesses, start=1):
        print(f"{place}) {one_line(name):{width}}: {probability:.3f}")
    if prediction.set is not None:
        print(f"set       {', '.join(map(one_line, prediction.set)) or 'no class'}")
    for warning in prediction.warnings:
        print(f"doubtful  {warning}")


def draw(predictions: list[Prediction], path: str) -> None:
    """Draw a row for each photo: the photo, the input of the model, and the guesses."""
    from matplotlib.figure import Figure

    from npsoftmax.files import publish

    rows = len(predictions)
    figure = Figure(figsize=(8, 2.2 * rows))
    # The empty column leaves room for the names of the classes.
    grid = figure.subplots(rows, 4, width_ratios=[1.6, 1.6, 0.9, 3], squeeze=False)
    figure.subplots_adjust(
        left=0.02, right=0.96, bottom=0.1 / rows, top=1 - 0.25 / rows, wspace=0.05, hspace=0.35
    )
    for axes, prediction in zip(grid, predictions, strict=True):
        draw_row(prediction, *axes)
    with warnings.catch_warnings(), publish(path) as file:
        warnings.filterwarnings("ignore", "Glyph")  # the font lacks a character
        figure.savefig(file, format=path[-3:].lower(), dpi=100)


def draw_row(
    prediction: Prediction, left: "Axes", middle: "Axes", gap: "Axes", right: "Axes"
) -> None:
    """Draw the row of one photo; there are no guesses for a blank one."""
    from npsoftmax.ext import plots

    left.imshow(prediction.photo.image)
    left.set(xticks=[], yticks=[])
    name = command_line.one_line(os.path.basename(prediction.file))
    left.set_title(name[-MAX_NAME_CHARACTERS:], fontsize=9, parse_math=False)
    plots.image(prediction.photo.pixels[:, :1], middle)
    middle.set_title("what the model sees", fontsize=9)
    gap.set_axis_off()
    if prediction.guesses:
        plots.top_k_bars(prediction.guesses, right)
        right.set(xticks=[], xlabel="")
    else:
        right.set_axis_off()
    # The numbers would not fit.
    title = ", ".join(warning.partition(":")[0] for warning in prediction.warnings)
    right.set_title(title, fontsize=9, color="firebrick", loc="left")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit code."""
    return command_line.run(parser(), predict, argv)
