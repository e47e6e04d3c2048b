"""The check that both trainers share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike, NDArray

from npsoftmax._checks import as_columns, as_labels, same_samples

if TYPE_CHECKING:
    from npsoftmax.model import SoftmaxRegression

__all__ = ["checked_data"]


def checked_data(
    model: SoftmaxRegression, X: ArrayLike, y: ArrayLike
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return samples and labels that fit the model and each other."""
    columns, labels = as_columns(X, model.num_inputs), as_labels(y, model.num_outputs)
    same_samples(columns, labels)
    return columns, labels
