"""Scores and probabilities beside labels, checked as the metrics need them."""

from typing import Any

from numpy.typing import ArrayLike, NDArray

from npsoftmax._checks import as_columns, as_labels, same_samples
from npsoftmax.errors import InputError

__all__ = ["as_probabilities", "as_scores"]


def as_scores(scores: ArrayLike, y: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return finite scores ``(k, n)``, and a label for each sample."""
    columns = as_columns(scores, what="scores")
    labels = as_labels(y, columns.shape[0])
    same_samples(columns, labels)
    return columns, labels


def as_probabilities(p: ArrayLike, y: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return scores from 0 to 1, and a label for each sample."""
    columns, labels = as_scores(p, y)
    if columns.min() < 0 or columns.max() > 1:
        raise InputError(
            f"probabilities: expected numbers from 0 to 1, got {columns.min()} to "
            f"{columns.max()}; pass softmax(logits)"
        )
    return columns, labels
