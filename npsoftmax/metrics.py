r"""How good predictions are: accuracy, confusions, likelihood, calibration.

``scores`` are anything whose largest entry along ``axis=0`` is the prediction: logits or
probabilities, shape ``(k, n)``. Labels ``y`` are integers, shape ``(n,)``.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npsoftmax._checks import as_columns, as_count, as_labels, same_samples
from npsoftmax.errors import InputError
from npsoftmax.functional import logitcrossentropy

__all__ = [
    "ClassReport",
    "ConfidenceBins",
    "accuracy",
    "as_probabilities",
    "as_scores",
    "brier",
    "confidence_bins",
    "confusion_matrix",
    "expected_calibration_error",
    "negative_log_likelihood",
    "per_class",
    "top_k_accuracy",
]


# Scores and probabilities beside labels, checked as the metrics need them.


def as_scores(scores: ArrayLike, y: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return finite scores ``(k, n)``, and a label for each sample."""
    columns = as_columns(scores, name="scores")
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


def accuracy(scores: ArrayLike, y: ArrayLike) -> float:
    r"""Compute the share of samples whose largest score is at their label.

    .. math:: \frac1n \sum_j [\arg\max_i s_{ij} = y_j]

    Parameters
    ----------
    scores : array_like
        Shape ``(k, n)``; on a tie the first class counts.
    y : array_like
        Labels, shape ``(n,)``.

    Returns
    -------
    float

    Raises
    ------
    ShapeError, LabelError, InputError
        Shapes do not fit, no samples, labels outside ``0..k-1``, NaN scores.

    Examples
    --------
    >>> accuracy([[0.9, 0.2], [0.1, 0.8]], [0, 0])
    0.5
    """
    scores, y = as_scores(scores, y)
    return float((scores.argmax(axis=0) == y).mean())


def top_k_accuracy(scores: ArrayLike, y: ArrayLike, k: int = 3) -> float:
    """Compute the share of samples whose label is among the ``k`` largest scores.

    A class that ties with the label counts as larger only if it comes before it, so ``k=1``
    is :func:`accuracy`.

    Parameters
    ----------
    scores, y
        As for :func:`accuracy`.
    k : int
        How many guesses count.

    Returns
    -------
    float

    Raises
    ------
    ShapeError, LabelError, InputError
        As for :func:`accuracy`, or ``k`` below one.

    Examples
    --------
    >>> top_k_accuracy([[0.6, 0.5], [0.3, 0.3], [0.1, 0.2]], [1, 2], k=2)
    0.5
    """
    scores, y = as_scores(scores, y)
    k = as_count(k, "k")
    own = np.take_along_axis(scores, y[None, :], axis=0)
    before = np.arange(scores.shape[0])[:, None] < y
    better = np.count_nonzero((scores > own) | ((scores == own) & before), axis=0)
    return float((better < k).mean())


def confusion_matrix(predicted: ArrayLike, y: ArrayLike, num_outputs: int) -> NDArray[np.int64]:
    """Count how often each true class was predicted as each class.

    Parameters
    ----------
    predicted, y : array_like
        Predicted and true labels, shape ``(n,)``.
    num_outputs : int
        The number of classes ``k``.

    Returns
    -------
    ndarray of int64
        Shape ``(k, k)``; entry ``[i, j]`` counts samples of class ``i`` predicted as ``j``.

    Raises
    ------
    ShapeError, LabelError
        Shapes differ, no samples, or a label is outside ``0..k-1``.

    Examples
    --------
    >>> confusion_matrix([0, 1, 1], [0, 0, 1], 2)
    array([[1, 1],
           [0, 1]])
    """
    k = as_count(num_outputs, "num_outputs")
    guesses, truth = as_labels(predicted, k), as_labels(y, k)
    same_samples(guesses, truth)
    cells = truth.astype(np.int64) * k + guesses.astype(np.int64)
    return np.bincount(cells, minlength=k * k).reshape(k, k)


class ClassReport(NamedTuple):
    """Precision, recall, F1 and number of samples of every class, each of shape ``(k,)``."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    support: NDArray[np.int64]


def per_class(confusion: ArrayLike) -> ClassReport:
    r"""Compute precision, recall and F1 of every class.

    .. math::

        \text{precision}_i = \frac{C_{ii}}{\sum_j C_{ji}}, \qquad
        \text{recall}_i = \frac{C_{ii}}{\sum_j C_{ij}}, \qquad
        F_1 = \frac{2 C_{ii}}{\sum_j C_{ji} + \sum_j C_{ij}}

    Parameters
    ----------
    confusion : array_like
        ``C``, from :func:`confusion_matrix`.

    Returns
    -------
    ClassReport
        0 where the denominator is 0.

    Raises
    ------
    InputError
        ``confusion`` is not a square matrix of counts.

    Examples
    --------
    >>> per_class([[1, 1], [0, 1]]).recall
    array([0.5, 1. ])
    """
    counts = np.asarray(confusion)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or counts.dtype.kind not in "iu":
        raise InputError(
            f"confusion: expected a square matrix of counts, got {counts.dtype} of shape "
            f"{counts.shape}; make it with confusion_matrix"
        )
    hits, predicted, true = np.diag(counts), counts.sum(axis=0), counts.sum(axis=1)
    return ClassReport(
        precision=_ratio(hits, predicted),
        recall=_ratio(hits, true),
        f1=_ratio(2 * hits, predicted + true),
        support=true,
    )


def negative_log_likelihood(logits: ArrayLike, y: ArrayLike) -> float:
    r"""Compute the mean negative log-likelihood of the labels, from logits.

    .. math:: -\frac1n \sum_j \mathrm{logsoftmax}(z_j)_{y_j}

    The logarithm of a rounded probability would lose the confident samples.

    Parameters
    ----------
    logits : array_like
        Shape ``(k, n)``.
    y : array_like
        Labels, shape ``(n,)``.

    Returns
    -------
    float
        In nats.

    Raises
    ------
    ShapeError, LabelError, InputError
        As for :func:`accuracy`.

    Examples
    --------
    >>> round(negative_log_likelihood([[0.0], [0.0]], [1]), 6)
    0.693147
    """
    logits, y = as_scores(logits, y)
    return float(logitcrossentropy(logits, y))


def brier(probabilities: ArrayLike, y: ArrayLike) -> float:
    r"""Compute the mean squared distance between probabilities and one-hot labels.

    .. math:: \frac1n \sum_j \sum_i (p_{ij} - [i = y_j])^2 \in [0, 2]

    Parameters
    ----------
    probabilities : array_like
        Shape ``(k, n)``.
    y : array_like
        Labels, shape ``(n,)``.

    Returns
    -------
    float

    Raises
    ------
    ShapeError, LabelError, InputError
        As for :func:`accuracy`.

    References
    ----------
    Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather
    Review 78(1), 1950.

    Examples
    --------
    >>> brier([[0.5], [0.5]], [0])
    0.5
    """
    p, y = as_probabilities(probabilities, y)
    distance = p.astype(np.float64)
    distance[y, np.arange(y.size)] -= 1
    return float(np.square(distance).sum(axis=0).mean())


def expected_calibration_error(probabilities: ArrayLike, y: ArrayLike, num_bins: int = 15) -> float:
    r"""Compute how far confidence and accuracy lie apart, over bins of equal width.

    .. math:: \sum_m \frac{|B_m|}{n} \, |\mathrm{acc}(B_m) - \mathrm{conf}(B_m)|

    A sample's confidence is its largest probability; bin ``m`` of ``M`` holds the confidences
    in ``((m-1)/M, m/M]``.

    Parameters
    ----------
    probabilities : array_like
        Shape ``(k, n)``.
    y : array_like
        Labels, shape ``(n,)``.
    num_bins : int
        ``M``.

    Returns
    -------
    float
        0 is perfect.

    Raises
    ------
    ShapeError, LabelError, InputError
        As for :func:`accuracy`, or ``num_bins`` below one.

    References
    ----------
    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 2.

    Examples
    --------
    >>> expected_calibration_error([[0.75, 0.75], [0.25, 0.25]], [0, 1])
    0.25
    """
    bins = confidence_bins(probabilities, y, num_bins)
    return float(np.abs(bins.hits - bins.confidence).sum() / bins.sizes.sum())


class ConfidenceBins(NamedTuple):
    """Samples by their confidence: how many, how many right, and the sum of the confidences.

    Each of shape ``(num_bins,)``; those of two sets of samples add up to those of both.
    """

    sizes: NDArray[np.int64]
    hits: NDArray[np.int64]
    confidence: NDArray[np.float64]


def confidence_bins(probabilities: ArrayLike, y: ArrayLike, num_bins: int = 15) -> ConfidenceBins:
    """Sort samples into the bins of :func:`expected_calibration_error`.

    Parameters
    ----------
    probabilities, y, num_bins
        As there.

    Returns
    -------
    ConfidenceBins

    Raises
    ------
    ShapeError, LabelError, InputError
        As there.

    Examples
    --------
    >>> confidence_bins([[0.75, 0.75], [0.25, 0.25]], [0, 1], num_bins=2)
    ConfidenceBins(sizes=array([0, 2]), hits=array([0, 1]), confidence=array([0. , 1.5]))
    """
    p, y = as_probabilities(probabilities, y)
    num_bins = as_count(num_bins, "num_bins")
    confidence = p.max(axis=0).astype(np.float64)
    bins = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    right = p.argmax(axis=0) == y
    sizes, hits = (np.bincount(b, minlength=num_bins) for b in (bins, bins[right]))
    sums = np.bincount(bins, confidence, num_bins).astype(np.float64)
    return ConfidenceBins(sizes, hits, sums)


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    ratio = np.zeros(part.shape)
    np.divide(part, whole, out=ratio, where=whole != 0)
    return ratio
