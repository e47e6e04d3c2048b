"""The checks that both trainers share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike, NDArray

from npsoftmax._checks import as_columns, as_count, as_labels, same_samples
from npsoftmax.errors import InputError

if TYPE_CHECKING:
    from npsoftmax.model import SoftmaxRegression

__all__ = ["as_limit", "checked_data"]


def checked_data(
    model: SoftmaxRegression, X: ArrayLike, y: ArrayLike
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return samples and labels that fit the model and each other; refuse a calibrated model."""
    _refuse_calibrated(model)
    columns, labels = as_columns(X, model.num_inputs), as_labels(y, model.num_outputs)
    same_samples(columns, labels)
    return columns, labels


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
