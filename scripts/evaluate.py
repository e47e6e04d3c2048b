"""Evaluate a model on test data: `python scripts/evaluate.py MODEL`."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import command_line

if TYPE_CHECKING:
    import npsoftmax


MAX_SUMMARY_BYTES = 2**20


def parser() -> argparse.ArgumentParser:
    """Declare the flags."""
    flags = command_line.Parser(
        prog="evaluate.py", description="Evaluate a model on the test images of a data set."
    )
    flags.add_argument("model", metavar="MODEL", help="a model.npz that train.py wrote")
    flags.add_argument(
        "--dataset",
        metavar="NAME",
        help="fashion-mnist, mnist or garments; default: what summary.json beside the model says, "
        "else fashion-mnist",
    )
    command_line.add_data_flags(flags)
    command_line.add_output_flags(flags)
    return flags


def evaluate(args: argparse.Namespace) -> None:
    """Print how good the model is, and where it errs."""
    import npsoftmax
    from npsoftmax.errors import InputError

    model = npsoftmax.SoftmaxRegression.load(args.model)
    data = command_line.load(args, trained_on(args.model) if args.dataset is None else args.dataset)
    if model.classes != data.classes:
        raise InputError(
            f"{args.model}: expected a model for the classes of {data.name}, "
            f"{', '.join(data.classes)}, got one for {', '.join(model.classes):.200}; "
            "name its data set with --dataset"
        )
    report = measure(model, data)
    if args.json:
        print(json.dumps(report))
    elif not args.quiet:
        show(report)


def trained_on(model: str) -> str:
    """Return the data set that the run of this model was trained on, as its summary says."""
    from npsoftmax.files import read_bytes

    try:
        # Bounded: whoever made the model made this file too.
        summary = json.loads(read_bytes(Path(model).with_name("summary.json"), MAX_SUMMARY_BYTES))
        return str(summary["dataset"])[:80]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "fashion-mnist"  # a model on its own; the report names the data set


def measure(model: "npsoftmax.SoftmaxRegression", data: "npsoftmax.Dataset") -> dict[str, Any]:
    """Compute every metric on the test data."""
    from npsoftmax import metrics, softmax

    logits, y = model.logits(data.X_test), data.y_test
    probabilities = softmax(logits)
    confusion = metrics.confusion_matrix(logits.argmax(axis=0), y, model.num_outputs)
    classes = metrics.per_class(confusion)
    return {
        "dataset": data.name,
        "samples": int(y.size),
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


def show(report: dict[str, Any]) -> None:
    """Print a report as tables."""
    print(f"data set           {report['dataset']}, {report['samples']} test images")
    for key in (
        "accuracy",
        "top_3_accuracy",
        "negative_log_likelihood",
        "brier",
        "expected_calibration_error",
    ):
        print(f"{key.replace('_', ' '):27}{report[key]:.4f}")
    width = max(len(name) for name in report["classes"])
    print(f"\n{'class':{width}}  precision  recall      f1   predicted as class 0, 1, ...")
    for i, name in enumerate(report["classes"]):
        row = " ".join(f"{count:4d}" for count in report["confusion"][i])
        print(
            f"{name:{width}}  {report['precision'][i]:9.4f}  {report['recall'][i]:.4f}"
            f"  {report['f1'][i]:.4f}   {row}"
        )


if __name__ == "__main__":
    sys.exit(command_line.run(parser(), evaluate))
