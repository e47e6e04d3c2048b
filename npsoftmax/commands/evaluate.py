"""Evaluate a model on test data: `npsoftmax evaluate MODEL`."""

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npsoftmax.commands import command_line, own_data
from npsoftmax.errors import InputError
from npsoftmax.files import quoted

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from npsoftmax import Dataset, SoftmaxRegression

MAX_SUMMARY_BYTES = 2**20
PIXELS = 28 * 28  # of an image, in every data set
MAX_CONFUSIONS = 20  # classes whose confusions are printed
ROWS, COLUMNS = 3, 6  # of images in one picture


def parser() -> command_line.Parser:
    """Declare the flags."""
    flags = command_line.Parser("evaluate", description="Evaluate a model on test data.")
    command_line.add_model(flags)
    flags.add_argument("--dataset", metavar="NAME",
        help="fashion-mnist, mnist or garments; default: the one in summary.json next to the "
        "model, else fashion-mnist")  # fmt: skip
    flags.add_argument("--calibrate-sets", metavar="COVERAGE",
        type=partial(command_line.positive_float, name="coverage such as 0.9"),
        help="let one half of the test data choose which classes are in the set of a prediction, "
        "so that this share of the sets has the right class; write this into the model; the "
        "coverage that is printed is measured on the other half")  # fmt: skip
    own = flags.add_argument_group("data of your own")
    own_data.add_data_flag(own)
    command_line.add_data_flags(flags)
    pictures = flags.add_argument_group("pictures").add_mutually_exclusive_group()
    pictures.add_argument("--pictures", metavar="DIR", type=command_line.path,
        help=f"where to write {', '.join(PICTURES)}; default: next to the model, if matplotlib "
        "is installed")  # fmt: skip
    pictures.add_argument("--no-pictures", action="store_true", help="write no pictures")
    command_line.add_output_flags(flags)
    return flags


def evaluate(args: argparse.Namespace) -> None:
    """Print the metrics of the model, and write the pictures."""
    import npsoftmax

    model = npsoftmax.SoftmaxRegression.load(args.model)
    summary = read_summary(args.model)
    named = summary.get("dataset") if args.dataset is None else args.dataset
    data = load(args, model, summary)
    if args.calibrate_sets is not None:
        (X, y), _ = halves(data)
        model.calibrate_sets(X, y, args.calibrate_sets)
        model.save(args.model)
    report = measure(model, data)
    if not args.quiet and not args.json:
        if named is None and args.data is None:
            print("assumed            the data set: no summary.json next to the model names it")
        show(report)
        sys.stdout.flush()  # drawing takes longer than everything else
    pictures = [] if args.no_pictures else write_pictures(args, model, data)
    if args.json:
        print(json.dumps({**report, "pictures": list(map(str, pictures))}))
    elif not args.quiet and pictures:
        print(
            f"\nwritten  {quoted(pictures[0].parent)}: {' '.join(path.name for path in pictures)}"
        )


def load(
    args: argparse.Namespace, model: "SoftmaxRegression", summary: dict[str, Any]
) -> "Dataset":
    """Load the data to evaluate on: those that were named, or else those of the summary."""
    if args.data is not None and args.dataset is not None:
        raise InputError("--data: expected it without --dataset, got both; leave one out")
    settings = summary.get("settings")
    settings = settings if isinstance(settings, dict) else {}
    if args.data is not None:
        if own_data.kind_of(args.data) == "photographs":
            return photographs(args, model, settings)
        return own_data.load_like(args, model, settings)
    if args.dataset is None and settings.get("data"):
        return held_out(model, settings, summary)
    name = str(args.dataset or summary.get("dataset", "fashion-mnist"))[:80]
    check_fit(model, name, args.model)
    return command_line.load(args, name)


def photographs(
    args: argparse.Namespace, model: "SoftmaxRegression", settings: dict[str, Any]
) -> "Dataset":
    """Read all photographs in the class folders of ``--data``, or those of its test part."""
    from npsoftmax import Dataset

    folders, side = folders_for(model, args.model)
    training, testing = folders.find_parts(args.data)
    used = testing or training
    seen = settings.get("data")
    is_known = isinstance(seen, str) and os.path.isdir(seen)
    if is_known and os.path.samefile(used, folders.find_parts(seen)[0]):
        own_data.warn_of_training(
            args,
            f"the model was trained on photographs in {quoted(used)}, so the figures say little "
            "about others; name photographs that it has not seen",
        )
    _, X, y = folders.read_folder(used, side, model.classes)
    name = Path(args.data).resolve().name
    return Dataset(name, model.classes, X[:, :0], y[:0], X, y, framing=model.framing)


def held_out(
    model: "SoftmaxRegression", settings: dict[str, Any], summary: dict[str, Any]
) -> "Dataset":
    """Read the test data of the training."""
    given = str(settings["data"])
    if summary.get("trained_on_held_out"):
        raise InputError(
            f"{quoted(given)}: expected photographs that the model has not seen, got all those of "
            "its training: summary.json has the accuracy on the held-out ones, on which it was "
            "trained in the end; name others with --data"
        )
    if own_data.kind_of(given) == "photographs":
        folders, side = folders_for(model, given)
        data: Dataset = folders.load_folder(
            given, side, settings["test_part"], settings["seed"], test=settings.get("test")
        )
    else:
        data = own_data.load(argparse.Namespace(**settings))
    if data.sha256 != summary.get("sha256"):
        raise InputError(
            f"{quoted(given)}: expected the data of the training, got others, so nobody knows "
            "which were held out; name data that the model has not seen with --data"
        )
    return data


def folders_for(model: "SoftmaxRegression", path: str) -> tuple[Any, int]:
    """Return the module that reads class folders, and the side of the model's images."""
    side = math.isqrt(model.num_inputs)
    if model.framing != "square" or side * side != model.num_inputs:
        raise InputError(
            f"{quoted(path)}: expected a model of photographs, which "
            f"{command_line.program('train')} --data writes, got one with the framing "
            f"{model.framing}; evaluate it on its data set"
        )
    return command_line.import_extra("npsoftmax.ext.folders", "--data: "), side


def check_fit(model: "SoftmaxRegression", name: str, path: str) -> None:
    """Raise InputError, before any data are looked for, if the model is not one for a data set."""
    from npsoftmax.data.datasets import class_names

    classes = class_names(name)
    if model.classes != classes or model.num_inputs != PIXELS:
        raise InputError(
            f"{quoted(path)}: expected a model of {PIXELS} inputs for the classes of {name}, "
            f"{', '.join(classes)}, got one of {model.num_inputs} for "
            f"{', '.join(model.classes):.200}; name its data set with --dataset, or measure a "
            "model of your own data with npsoftmax.metrics"
        )


def read_summary(model: str) -> dict[str, Any]:
    """Return the summary next to the model, empty if there is none."""
    from npsoftmax.files import read_bytes

    try:
        # Bounded: the file may come from someone else, as the model may.
        summary = json.loads(read_bytes(Path(model).with_name("summary.json"), MAX_SUMMARY_BYTES))
    except (ValueError, RecursionError):
        return {}
    return summary if isinstance(summary, dict) else {}


def measure(model: "SoftmaxRegression", data: "Dataset") -> dict[str, Any]:
    """Compute every metric on the test data."""
    from npsoftmax import metrics, softmax

    logits, y = model.logits(data.X_test), data.y_test
    probabilities = softmax(logits)
    confusion = metrics.confusion_matrix(logits.argmax(axis=0), y, model.num_outputs)
    classes = metrics.per_class(confusion)
    return {
        "dataset": data.name,
        "unit": "rows" if data.pixel_scale is None and model.pixel_scale is None else "images",
        "samples": int(y.size),
        "temperature": model.temperature,
        **measure_doubt(model, logits, y),
        **measure_sets(model, data),
        "accuracy": metrics.accuracy(logits, y),
        "top_3_accuracy": metrics.top_k_accuracy(logits, y, min(3, model.num_outputs)),
        "negative_log_likelihood": metrics.negative_log_likelihood(logits, y),
        "brier": metrics.brier(probabilities, y),
        "expected_calibration_error": metrics.expected_calibration_error(probabilities, y),
        "classes": list(data.classes),
        "precision": classes.precision.tolist(),
        "recall": classes.recall.tolist(),
        "f1": classes.f1.tolist(),
        "confusion": confusion.tolist(),
    }


def measure_doubt(
    model: "SoftmaxRegression", logits: "NDArray[Any]", y: "NDArray[Any]"
) -> dict[str, float | None]:
    """Return the share that is predicted without a doubt, and the share of these that is right."""
    from npsoftmax.doubt import are_doubtful

    if model.evidence_limit is None:
        return {}
    said = ~are_doubtful(logits, model.evidence_limit / model.temperature)
    right = (logits.argmax(axis=0) == y)[said]
    return {
        "without_doubt": float(said.mean()),
        "right_without_doubt": float(right.mean()) if right.size else None,
    }


def halves(data: "Dataset") -> Any:
    """Return the test samples, with labels, that may calibrate sets, and those that measure them.

    The halves are the same in each call, so no set is ever measured on what chose its rule.
    """
    from npsoftmax import splitobs

    return splitobs((data.X_test, data.y_test), at=0.5, shuffle=True, rng=0)


def measure_sets(model: "SoftmaxRegression", data: "Dataset") -> dict[str, Any]:
    """Return how often sets have the right class, and how large they are, if the model has some."""
    import numpy as np

    if model.set_rule is None:
        return {}
    _, (X, y) = halves(data)
    sets = model.predict_sets(X)
    covered = sets[y, np.arange(y.size)]
    totals, hits = (np.bincount(labels, minlength=sets.shape[0]) for labels in (y, y[covered]))
    shares = [float(h / n) if n else None for h, n in zip(hits, totals, strict=True)]
    return {
        "sets": {
            "method": model.set_rule.method,
            "asked": model.set_rule.coverage,
            "samples": int(y.size),
            "coverage": float(covered.mean()),
            "coverage_of_classes": shares,
            "mean_size": float(sets.sum(axis=0).mean()),
        }
    }


def show(report: dict[str, Any]) -> None:
    """Print a report as tables."""
    print(f"data set           {report['dataset']}, {report['samples']} test {report['unit']}")
    if report["temperature"] != 1:
        print(f"{'temperature':27}{report['temperature']:.4f}")
    for key in (
        "accuracy", "top_3_accuracy", "negative_log_likelihood", "brier",
        "expected_calibration_error",
    ):  # fmt: skip
        print(f"{key.replace('_', ' '):27}{report[key]:.4f}")
    if report.get("right_without_doubt") is not None:
        share, right = report["without_doubt"], report["right_without_doubt"]
        print(f"{'without a doubt':27}{share:.4f}, of these {right:.4f} right")
    if "sets" in report:
        show_sets(report["sets"], report["classes"], report["unit"])
    width = max(len(name) for name in report["classes"])
    few = len(report["classes"]) <= MAX_CONFUSIONS
    heading = "   predicted as class 0, 1, ..." if few else ""
    print(f"\n{'class':{width}}  precision  recall      f1{heading}")
    for i, name in enumerate(report["classes"]):
        row = " ".join(f"{count:4d}" for count in report["confusion"][i]) if few else ""
        print(
            f"{name:{width}}  {report['precision'][i]:9.4f}  {report['recall'][i]:.4f}"
            f"  {report['f1'][i]:.4f}   {row}".rstrip()
        )


def show_sets(sets: dict[str, Any], classes: list[str], unit: str) -> None:
    """Print how often sets have the right class, also of the class for which this is rarest."""
    low, name = min(
        (share, name)
        for share, name in zip(sets["coverage_of_classes"], classes, strict=True)
        if share is not None
    )
    print(
        f"{'coverage of sets':27}{sets['coverage']:.4f} of {sets['samples']} {unit}, asked "
        f"{sets['asked']:g}; lowest {low:.4f}, {name}\n{'mean size of sets':27}"
        f"{sets['mean_size']:.4f}"
    )


def write_pictures(
    args: argparse.Namespace, model: "SoftmaxRegression", data: "Dataset"
) -> list[Path]:
    """Write the pictures; a failure is an error only if ``--pictures`` asks for them."""
    from npsoftmax.ext import extra
    from npsoftmax.files import publish

    folder = Path(args.model).parent if args.pictures is None else Path(args.pictures)
    square = data.pixel_scale is not None and math.isqrt(model.num_inputs) ** 2 == model.num_inputs
    has_weights = square and model.features is None
    written: list[Path] = []
    try:
        with extra("plot"):
            from matplotlib.figure import Figure

        from npsoftmax.ext import plots

        for name, draw in PICTURES.items():
            if has_weights if name == "weights.png" else square or name in WITHOUT_IMAGES:
                with plots.defaults(), publish(folder / name) as file:
                    draw(figure := Figure(), model, data)
                    figure.savefig(file, format="png", dpi=100)
                written.append(folder / name)
    except ModuleNotFoundError as error:
        if args.pictures is not None:
            raise InputError(f"--pictures: {error}") from error
        if not (args.quiet or args.json):
            print(f"\nno pictures: {error}")
    except Exception as error:  # a broken matplotlib fails in many ways
        if args.pictures is not None:
            raise
        command_line.warn("evaluate", f"not all pictures: {error}")
    return written


def image_grid(figure: "Figure", rows: int, columns: int, title: str) -> "NDArray[Any]":
    """Return Axes for images, each below two lines of text."""
    height = 0.75 + 1.75 * rows  # inches
    figure.set_size_inches(9, height)
    # Fixed margins: to compute them, matplotlib would draw everything a second time.
    top = 1 - 0.8 / height
    figure.subplots_adjust(left=0.02, right=0.98, bottom=0.1 / height, top=top, hspace=0.33)
    figure.suptitle(title, y=1 - 0.12 / height, verticalalignment="top")
    axes: NDArray[Any] = figure.subplots(rows, columns)
    return axes


def weights(figure: "Figure", model: "SoftmaxRegression", data: "Dataset") -> None:
    """Draw the weights of each class as an image."""
    from npsoftmax.ext import plots

    title = "Weights of each class: red speaks for it, blue against it"
    plots.weights(model, image_grid(figure, math.ceil(model.num_outputs / 5), 5, title))


def confusion(figure: "Figure", model: "SoftmaxRegression", data: "Dataset") -> None:
    """Draw the confusion matrix."""
    from npsoftmax.ext import plots
    from npsoftmax.metrics import confusion_matrix

    counts = confusion_matrix(model.predict(data.X_test), data.y_test, model.num_outputs)
    figure.set_size_inches(7, 6.2)
    ax = plots.confusion(counts, data.classes, figure.subplots())
    ax.set_title(f"{data.name}: {data.y_test.size} test samples", pad=10)
    for _ in range(2):  # the length of slanted names depends on the size that the first call finds
        figure.tight_layout()


def images(
    figure: "Figure", model: "SoftmaxRegression", data: "Dataset", plot: str, title: str
) -> None:
    """Draw some test images with their predictions."""
    from npsoftmax.ext import plots

    axes = image_grid(figure, ROWS, COLUMNS, f"{data.name}: {title}")
    getattr(plots, plot)(model, data.X_test, data.y_test, axes)


def reliability(figure: "Figure", model: "SoftmaxRegression", data: "Dataset") -> None:
    """Draw the reliability diagram."""
    from npsoftmax.ext import plots

    figure.set_size_inches(6, 5.6)
    ax = plots.reliability(model.probabilities(data.X_test), data.y_test, figure.subplots())
    if model.temperature != 1:
        ax.set_title(f"temperature {model.temperature:.4f}: {ax.get_title()}")


PICTURES: dict[str, Callable[..., None]] = {
    "weights.png": weights,
    "confusion.png": confusion,
    "predictions.png": partial(images, plot="prediction_grid", title="the first test images"),
    "misclassified.png": partial(images, plot="misclassified", title="the most confident errors"),
    "reliability.png": reliability,
}
WITHOUT_IMAGES = ("confusion.png", "reliability.png")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit code."""
    return command_line.run(parser(), evaluate, argv)
