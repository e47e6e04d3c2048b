"""Rows with labels and weights as a classifier of scikit-learn is given them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array

from npsoftmax.errors import InputError, LabelError, ShapeError

__all__ = [
    "Samples",
    "agreed_classes",
    "is_class_weight",
    "places_of",
    "weighted",
    "without_absent_classes",
]

SMALLEST = np.finfo(np.float64).smallest_subnormal


class Samples(NamedTuple):
    """Rows that weigh something.

    Attributes
    ----------
    X : ndarray
        The rows, shape ``(n, d)``, in C order.
    labels : ndarray of int
        Their places in ``classes``.
    weights : ndarray of float64
        Positive, and 1 on average.
    classes : ndarray
        The labels' names.
    """

    X: NDArray[Any]
    labels: NDArray[np.intp]
    weights: NDArray[np.float64]
    classes: NDArray[Any]


def is_class_weight(value: object) -> bool:
    """Say whether a value is a dict, "balanced" or None; arrays cannot be asked by ``in``."""
    return value is None or isinstance(value, Mapping) or str(value) == "balanced"


@np.errstate(all="ignore")
def weighted(
    X: NDArray[Any],
    labels: NDArray[np.intp],
    classes: NDArray[Any],
    sample_weight: ArrayLike | None,
    class_weight: Mapping[Any, float] | str | None,
) -> Samples:
    """Return the rows that weigh something, or raise InputError if there are none."""
    weights = _as_weights(sample_weight, labels.size)
    if str(class_weight) == "balanced":
        weights /= np.maximum(np.bincount(labels, weights), SMALLEST)[labels]
    elif isinstance(class_weight, Mapping):
        weights *= _as_factors(class_weight, classes)[labels]
    weights /= weights.max()
    kept = weights > 0
    if not kept.any():
        raise InputError(
            "class_weight: expected weights other than zero for some of the rows, got zero for all "
            "that have a sample_weight"
        )
    rows = X if kept.all() else X[kept]
    return Samples(rows, labels[kept], weights[kept] / weights[kept].mean(), classes)


def _as_weights(sample_weight: ArrayLike | None, num_samples: int) -> NDArray[np.float64]:
    """Return weights of which the largest is 1, in a new array."""
    if sample_weight is None:
        return np.ones(num_samples)
    weights = check_array(
        sample_weight, dtype=np.float64, ensure_2d=False, input_name="sample_weight"
    )
    if weights.shape != (num_samples,):
        raise ShapeError(
            f"sample_weight: expected one number for each of {num_samples} rows, got shape "
            f"{weights.shape}"
        )
    if weights.min() < 0 or weights.max() == 0:
        raise InputError(
            "sample_weight: expected numbers of at least zero, and not zero for all, got numbers "
            f"from {weights.min()} to {weights.max()}"
        )
    return np.asarray(weights / weights.max())


def _as_factors(class_weight: Mapping[Any, float], classes: NDArray[Any]) -> NDArray[np.float64]:
    """Return what the weights of each class are multiplied by."""
    names = classes.tolist()
    # Rows may lack a class that the dict names, but one that it does not name may be misspelt.
    if set(class_weight) - set(names) and set(names) - set(class_weight):
        raise InputError(
            f"class_weight: expected keys among the labels {names}, got {list(class_weight)}"
        )
    factors = np.array([class_weight.get(name, 1.0) for name in names], np.float64)
    if not (factors.min() >= 0 and factors.max() < np.inf):
        raise InputError(
            f"class_weight: expected finite numbers of at least 0, got {dict(class_weight)}"
        )
    return factors


def without_absent_classes(samples: Samples) -> Samples:
    """Return the samples with the classes that they have, two at least."""
    present, labels = np.unique(samples.labels, return_inverse=True)
    _refuse_one_class(samples.classes[present])
    return samples._replace(labels=labels, classes=samples.classes[present])


def agreed_classes(given: ArrayLike | None, known: NDArray[Any] | None) -> NDArray[Any]:
    """Return the classes of every call of partial_fit: those of the calls before, if there were."""
    classes = known if given is None else np.unique(given)
    if classes is None:
        raise InputError("classes: expected all labels at the first call of partial_fit, got None")
    if known is not None and not np.array_equal(known, classes):
        raise InputError(
            f"classes: expected {known.tolist()} as before, got {classes.tolist()}; leave them "
            "out, or begin anew with a clone"
        )
    _refuse_one_class(classes)
    return classes


def places_of(y: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.intp]:
    """Return where labels stand among the classes, or raise LabelError if they do not."""
    unknown = np.setdiff1d(y, classes)
    if unknown.size:
        raise LabelError(
            f"y: expected labels among {classes.tolist()}, got {unknown.tolist()}; name all that "
            "will come at the first call of partial_fit, or begin anew with fit"
        )
    return np.searchsorted(classes, y)


def _refuse_one_class(classes: NDArray[Any]) -> None:
    if classes.size < 2:
        raise InputError(
            f"y: expected labels of at least two classes, got only one class, {classes.tolist()}; "
            "rows of weight 0 do not count"
        )
