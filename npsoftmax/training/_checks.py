"""The checks that both trainers share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike, NDArray

from npsoftmax._checks import as_columns, as_count, as_labels, same_samples
from npsoftmax.errors import InputError, LabelError, ShapeError

if TYPE_CHECKING:
    from npsoftmax.model import SoftmaxRegression
    from npsoftmax.objective import SummedObjective

__all__ = ["as_limit", "checked_data", "refuse_other_problem"]


def checked_data(
    model: SoftmaxRegression, X: ArrayLike, y: ArrayLike
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return samples and labels that fit the model and each other; refuse a calibrated model."""
    _refuse_calibrated(model)
    columns, labels = as_columns(X, model.num_inputs), as_labels(y, model.num_outputs)
    same_samples(columns, labels)
    return columns, labels


def refuse_other_problem(model: SoftmaxRegression, problem: SummedObjective) -> None:
    """Raise unless the model's parameters are those of the problem."""
    _refuse_calibrated(model)
    contents = problem.contents
    if contents.num_inputs != model.num_inputs:
        raise ShapeError(
            f"problem: expected samples of {model.num_inputs} features, as the model takes, got "
            f"{contents.num_inputs}"
        )
    if contents.class_totals.size > model.num_outputs:
        raise LabelError(
            f"problem: expected labels 0..{model.num_outputs - 1}, one for each class of the "
            f"model, got labels up to {contents.class_totals.size - 1}"
        )
    scale = model.input_scale(contents.dtype)
    if problem.scale != scale:
        raise InputError(
            f"problem: expected scale {scale:g}, what the model multiplies {contents.dtype} by, "
            f"got {problem.scale:g}; pass scale=model.input_scale(X.dtype)"
        )


def as_limit(model: SoftmaxRegression, value: object, what: str) -> int:
    """Return how long to train as an int of at least 0; refuse a calibrated model."""
    _refuse_calibrated(model)
    return as_count(value, what, minimum=0)


def _refuse_calibrated(model: SoftmaxRegression) -> None:
    if model.temperature != 1:
        raise InputError(
            f"model: expected one that is not calibrated, got temperature {model.temperature:g}, "
            "which was fitted to the weights that training would change; set model.temperature = 1 "
            "and calibrate again after training"
        )
