"""Held-out samples: folds in which each class has its share, and what is measured on them."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npsoftmax._checks import as_array, as_columns, as_count, as_labels, same_samples
from npsoftmax._sparse import columns, is_sparse
from npsoftmax.data.labelled import digest
from npsoftmax.errors import InputError, LabelError
from npsoftmax.functional import affine
from npsoftmax.metrics import ConfidenceBins, confidence_bins, ranks
from npsoftmax.objective.hot_loop import block_columns, convert

if TYPE_CHECKING:
    from npsoftmax.model import SoftmaxRegression

__all__ = [
    "Fold",
    "Held",
    "Measures",
    "as_folds",
    "as_held_out",
    "check_callers",
    "check_classes",
    "check_number",
    "digest_of",
    "mean_of_folds",
    "measure",
    "weighted",
]

TOP = 5


class Fold(NamedTuple):
    """Ascending indices of samples to train on, and of others to measure on."""

    train: NDArray[np.intp]
    test: NDArray[np.intp]


class Held(NamedTuple):
    """Held-out samples, labels, the factor that the samples are multiplied by, and weights."""

    X: NDArray[Any]
    y: NDArray[Any]
    scale: float
    weights: NDArray[np.float64] | None = None


def as_held_out(model: SoftmaxRegression, held_out: Any, threads: int | None) -> Held:
    """Return what a model multiplies of given samples."""
    if not isinstance(held_out, tuple | list) or len(held_out) != 2:
        raise InputError(
            f"held_out: expected samples and labels, got {type(held_out).__name__}; pass "
            "held_out=(X_val, y_val)"
        )
    with _named_held_out():
        samples = as_columns(held_out[0], model.num_inputs, name="X_val", sparse=True)
        labels = as_labels(held_out[1], model.num_outputs, name="y_val")
        same_samples(samples, labels, "X_val", "y_val")
        samples = model.extract(samples, threads)
    held = Held(samples, labels, model.input_scale(samples.dtype))
    check_number("held_out", [held])
    return held


def check_callers(checkpoint: object, on_value: object) -> None:
    """Raise InputError for what would fail after a fit."""
    if checkpoint is not None and not (isinstance(checkpoint, str | os.PathLike) and checkpoint):
        raise InputError(
            f"checkpoint: expected the path of a file, got {checkpoint!r:.80}; pass for instance "
            "'path.npz'"
        )
    if on_value is not None and not callable(on_value):
        raise InputError(f"on_value: expected a function, got {on_value!r:.80}; pass print")


@contextmanager
def _named_held_out() -> Iterator[None]:
    """Say in an error that it is not about the samples to train on."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"held_out: {error}") from error


def check_number(name: str, held: Sequence[Held]) -> None:
    """Raise InputError unless the mean loss has a standard error."""
    if sum(each.y.size for each in held) < 2:
        raise InputError(
            f"{name}: expected at least 2 samples that are held out, for the error of their mean "
            "loss, got 1; hold out more"
        )


def as_folds(folds: Any, y: NDArray[Any], seed: int) -> list[Fold]:
    """Return a number of folds, each with its share of each class, or given pairs of indices."""
    if hasattr(folds, "split") and not isinstance(folds, str):
        raise InputError(
            f"folds: expected a number, or pairs (train, test) of indices, got "
            f"{type(folds).__name__}; pass list(cv.split(rows, y)), where cv is this object"
        )
    if isinstance(folds, Iterable) and not isinstance(folds, str) and getattr(folds, "ndim", 1) > 0:
        pairs = [_as_fold(pair, y.size) for pair in folds]
        if not pairs:
            raise InputError("folds: expected at least one pair of indices, got none; pass folds=5")
        return pairs
    count = as_count(folds, "folds", minimum=2)
    if count > y.size:
        raise InputError(
            f"folds: expected at most one for each of {y.size} samples, got {count}; pass fewer"
        )
    order = np.random.default_rng(seed).permutation(y.size)
    order = order[np.argsort(y[order], kind="stable")]
    number = np.empty(y.size, np.intp)
    number[order] = np.arange(y.size) % count  # the samples of a class go round
    return [Fold(*map(np.flatnonzero, (number != fold, number == fold))) for fold in range(count)]


def _as_fold(pair: Any, num_samples: int) -> Fold:
    if not isinstance(pair, tuple | list) or len(pair) != 2 or isinstance(pair[0], Integral):
        raise InputError(
            "folds: expected a number, or pairs (train, test) of indices, got "
            f"{type(pair).__name__} in place of a pair; pass folds=5, or for a single pair "
            "[(train, test)]"
        )
    fold = Fold(*(_as_indices(part, num_samples) for part in pair))
    both = np.intersect1d(*fold)
    if both.size:
        raise InputError(
            f"folds: expected to hold out samples that are not trained on, got sample {both[0]} in "
            "both parts of a pair; leave it out of one of them"
        )
    return fold


def _as_indices(given: Any, num_samples: int) -> NDArray[np.intp]:
    indices = as_array(given, "folds")
    if indices.dtype == np.bool_ and indices.shape == (num_samples,):
        indices = np.flatnonzero(indices)
    got = ""
    if indices.ndim != 1 or indices.size == 0 or indices.dtype.kind not in "iu":
        got = f"{indices.dtype} of shape {indices.shape}"
    elif (outside := (indices < 0) | (indices >= num_samples)).any():
        got = f"{indices[outside][0]}"
    elif (counts := np.bincount(indices.astype(np.intp))).max() > 1:
        got = f"{np.argmax(counts > 1)} twice"
    if got:
        raise InputError(
            f"folds: expected indices 0..{num_samples - 1} of samples, each once, got {got}; pass "
            "for instance list(cv.split(rows, y))"
        )
    return np.sort(indices).astype(np.intp)


def weighted(test: NDArray[np.intp], weights: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the held-out samples that have a weight."""
    kept = test[weights[test] > 0]
    if kept.size == 0:
        raise InputError(
            "folds: expected a positive weight for some sample of each held-out part, got zero for "
            f"all {test.size} of one; leave this part out"
        )
    return kept


def check_classes(
    name: str,
    y: NDArray[Any],
    trained: NDArray[Any],
    weights: NDArray[Any] | None,
    classes: Sequence[str],
) -> None:
    """Raise LabelError if training lacks a class that is held out: its loss would be infinite."""
    totals = np.bincount(trained, weights, minlength=len(classes))
    lacking = np.flatnonzero((totals == 0) & (np.bincount(y, minlength=len(classes)) > 0))
    if lacking.size:
        number = np.count_nonzero(y == lacking[0])
        got, ways = "none to train on", "or give more samples of it"
        if (trained == lacking[0]).any():
            got, ways = "weight 0 for those to train on", "or give these a positive weight"
        elif name == "folds":
            ways = "give more samples of it, or pass held_out=(X_val, y_val) in place of folds"
        raise LabelError(
            f"{name}: expected classes that some sample is trained on, got {number} of class "
            f"{classes[lacking[0]]}, and {got}; leave this class out, {ways}"
        )


def digest_of(parts: Sequence[Held], trained: Sequence[NDArray[np.intp]] = ()) -> str:
    """Return a SHA-256 of samples, labels and weights, and of indices of others."""
    digests = [digest(part.X, part.y) for part in parts]
    digests += [digest(part.weights, part.y) for part in parts if part.weights is not None]
    digests += [digest(train, train) for train in trained]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


class Measures(NamedTuple):
    """Loss, its standard error, accuracies, and confidences on held-out samples."""

    loss: float
    error: float
    accuracy: float
    top5: float
    bins: ConfidenceBins

    @property
    def calibration_error(self) -> float:
        """As in :func:`npsoftmax.metrics.expected_calibration_error`."""
        return float(np.abs(self.bins.hits - self.bins.confidence).sum() / self.bins.sizes.sum())


@np.errstate(all="ignore")
def measure(
    theta: NDArray[Any],
    X: Any,
    y: NDArray[Any],
    scale: float,
    weights: NDArray[np.float64] | None = None,
) -> Measures:
    """Measure parameters on samples, in the dtype of the parameters; weights are positive."""
    losses, is_top = np.empty(y.size), np.empty(y.size, bool)
    bins: list[ConfidenceBins] = []
    for part in block_columns(theta, X):
        labels, Z = y[part], _logits(theta, columns(X, part), scale)
        is_top[part] = ranks(Z, labels) < TOP
        own = Z[labels, np.arange(labels.size)]
        total = np.exp(Z, out=Z).sum(axis=0)
        losses[part] = np.log(total) - own
        counted = None if weights is None else weights[part]
        bins.append(confidence_bins(np.divide(Z, total, out=Z), labels, sample_weight=counted))
    found = ConfidenceBins(*(np.sum(each, axis=0) for each in zip(*bins, strict=True)))
    loss, top5 = (float(np.average(each, weights=weights)) for each in (losses, is_top))
    accuracy = float(found.hits.sum() / found.sizes.sum())
    return Measures(loss, _error(losses - loss, weights), accuracy, top5, found)


def _error(deviations: NDArray[np.float64], weights: NDArray[np.float64] | None) -> float:
    """Return the standard error of a mean from the deviations from it, NaN for one sample."""
    if deviations.size == 1:
        return math.nan
    shares = 1 / deviations.size if weights is None else weights / weights.sum()
    squares = float(np.square(shares * deviations).sum())
    return math.sqrt(squares * deviations.size / (deviations.size - 1))


def _logits(theta: NDArray[Any], X: Any, scale: float) -> NDArray[Any]:
    """Return the logits of some samples, less the largest of each."""
    if is_sparse(X):
        floats = X.astype(theta.dtype)
    else:
        floats = np.empty(X.shape, theta.dtype, order="F")
        convert(X, floats)
    Z: NDArray[Any] = affine(theta, floats, scale)
    Z -= Z.max(axis=0)
    return Z


def mean_of_folds(measures: Sequence[Measures]) -> Measures:
    """Return the means over the folds; of several, the error is that of their mean loss."""
    losses = [each.loss for each in measures]
    error = measures[0].error
    if len(losses) > 1:
        error = float(np.std(losses, ddof=1)) / math.sqrt(len(losses))
    means = (float(np.mean([each[field] for each in measures])) for field in (0, 2, 3))
    loss, accuracy, top5 = means
    together = zip(*(each.bins for each in measures), strict=True)
    bins = ConfidenceBins(*(np.sum(each, axis=0) for each in together))
    return Measures(loss, error, accuracy, top5, bins)
