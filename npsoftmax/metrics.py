r"""Quality of predictions: accuracy, confusion matrix, likelihood, calibration.

``scores`` are finite logits or probabilities, shape ``(k, n)``; the prediction is the class of the
largest score, the first on a tie. ``probabilities`` are scores from 0 to 1, up to rounding errors,
which are clipped. Labels ``y`` are integers in ``0..k-1``, shape ``(n,)``, of at least one sample.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npsoftmax._checks import as_count, as_labels, as_probabilities, as_scores, same_samples
from npsoftmax.errors import InputError
from npsoftmax.functional import logitcrossentropy

__all__ = [
    "ClassReport",
    "ConfidenceBins",
    "accuracy",
    "brier",
    "confidence_bins",
    "confusion_matrix",
    "expected_calibration_error",
    "negative_log_likelihood",
    "per_class",
    "top_k_accuracy",
]


def accuracy(scores: ArrayLike, y: ArrayLike) -> float:
    r"""Compute the fraction of samples whose largest score is that of their label.

    .. math:: \frac1n \sum_j [\arg\max_i s_{ij} = y_j]

    Scores ``s`` have shape ``(k, n)``, labels ``y`` shape ``(n,)``.

    Examples
    --------
    >>> accuracy([[0.9, 0.2], [0.1, 0.8]], [0, 0])
    0.5
    """
    scores, y = as_scores(scores, y, "scores")
    return float((scores.argmax(axis=0) == y).mean())


def top_k_accuracy(scores: ArrayLike, y: ArrayLike, k: int = 3) -> float:
    """Compute the fraction of samples whose label has one of the ``k`` largest scores.

    If classes tie, the lower class counts as larger; ``k=1`` is therefore :func:`accuracy`, with
    the same shapes.

    Examples
    --------
    >>> top_k_accuracy([[0.6, 0.5], [0.3, 0.3], [0.1, 0.2]], [1, 2], k=2)
    0.5
    """
    scores, y = as_scores(scores, y, "scores")
    k = as_count(k, "k")
    return float((ranks(scores, y) < k).mean())


def ranks(scores: NDArray[Any], y: NDArray[Any]) -> NDArray[np.intp]:
    """Return how many classes come before the label of each sample, ``(n,)``."""
    own = np.take_along_axis(scores, y[None, :], axis=0)
    lower_class = np.arange(scores.shape[0])[:, None] < y
    before = (scores > own) | ((scores == own) & lower_class)
    counts: NDArray[np.intp] = np.count_nonzero(before, axis=0)
    return counts


def confusion_matrix(predicted: ArrayLike, y: ArrayLike, num_outputs: int) -> NDArray[np.int64]:
    """Count how often each true class was predicted as each of the ``num_outputs`` classes.

    Entry ``[i, j]`` of the result, shape ``(k, k)``, counts samples of class ``i`` predicted as
    ``j``.

    Examples
    --------
    >>> confusion_matrix([0, 1, 1], [0, 0, 1], 2)
    array([[1, 1],
           [0, 1]])
    """
    k = as_count(num_outputs, "num_outputs")
    guesses, truth = as_labels(predicted, k, name="predicted"), as_labels(y, k)
    same_samples(guesses, truth, "predicted")
    cells = truth.astype(np.int64) * k + guesses.astype(np.int64)
    return np.bincount(cells, minlength=k * k).reshape(k, k)


class ClassReport(NamedTuple):
    """Precision, recall, F1 and number of samples of every class, each of shape ``(k,)``."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    support: NDArray[np.int64]


def per_class(confusion: ArrayLike) -> ClassReport:
    r"""Compute precision, recall and F1 of every class; 0 where the denominator is 0.

    .. math::

        \text{precision}_i = \frac{C_{ii}}{\sum_j C_{ji}}, \qquad
        \text{recall}_i = \frac{C_{ii}}{\sum_j C_{ij}}, \qquad
        F_1 = \frac{2 C_{ii}}{\sum_j C_{ji} + \sum_j C_{ij}}

    ``confusion`` is ``C``, from :func:`confusion_matrix`.

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


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    ratio = np.zeros(part.shape)
    np.divide(part, whole, out=ratio, where=whole != 0)
    return ratio


def negative_log_likelihood(logits: ArrayLike, y: ArrayLike) -> float:
    r"""Compute the mean negative log-likelihood of the labels, in nats.

    .. math:: -\frac1n \sum_j \mathrm{logsoftmax}(z_j)_{y_j}

    It takes logits ``z``, shape ``(k, n)``, because a probability that rounds to 1 has lost its
    logarithm.

    Examples
    --------
    >>> round(negative_log_likelihood([[0.0], [0.0]], [1]), 6)
    0.693147
    """
    return float(logitcrossentropy(*as_scores(logits, y, "logits")))


def brier(probabilities: ArrayLike, y: ArrayLike) -> float:
    r"""Compute the mean squared distance between probabilities and one-hot labels.

    .. math:: \frac1n \sum_j \sum_i (p_{ij} - [i = y_j])^2 \in [0, 2]

    Probabilities ``p`` have shape ``(k, n)``, labels ``y`` shape ``(n,)``.

    References
    ----------
    Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather
    Review 78(1), 1950.

    Examples
    --------
    >>> brier([[0.5], [0.5]], [0])
    0.5
    """
    P, y = _as_probabilities(probabilities, y)
    distance = P.astype(np.float64)
    distance[y, np.arange(y.size)] -= 1
    return float(np.square(distance).sum(axis=0).mean())


def expected_calibration_error(probabilities: ArrayLike, y: ArrayLike, num_bins: int = 15) -> float:
    r"""Compute the mean difference between confidence and accuracy over bins of equal width.

    .. math:: \sum_m \frac{|B_m|}{n} \, |\mathrm{acc}(B_m) - \mathrm{conf}(B_m)|

    The confidence of a sample is its largest probability; bin ``m`` of ``M = num_bins`` holds the
    confidences in ``((m-1)/M, m/M]``. 0 is perfect. The shapes are those of :func:`brier`.

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
    """Number of samples, of correct predictions, and sum of confidences in each bin.

    Each of shape ``(num_bins,)``; the bins of two sets of samples add up to those of both. With
    weights these are sums of weights.
    """

    sizes: NDArray[Any]
    hits: NDArray[Any]
    confidence: NDArray[Any]


def confidence_bins(
    probabilities: ArrayLike,
    y: ArrayLike,
    num_bins: int = 15,
    sample_weight: NDArray[np.float64] | None = None,
) -> ConfidenceBins:
    """Sort samples into the ``num_bins`` bins of :func:`expected_calibration_error`.

    A weight of 2, shape ``(n,)``, counts a sample twice.

    Examples
    --------
    >>> confidence_bins([[0.75, 0.75], [0.25, 0.25]], [0, 1], num_bins=2)
    ConfidenceBins(sizes=array([0, 2]), hits=array([0, 1]), confidence=array([0. , 1.5]))
    """
    P, y = _as_probabilities(probabilities, y)
    num_bins = as_count(num_bins, "num_bins")
    confidence = P.max(axis=0).astype(np.float64)
    bins = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    correct = P.argmax(axis=0) == y
    if sample_weight is None:
        sizes, hits = (np.bincount(b, minlength=num_bins) for b in (bins, bins[correct]))
        sums = np.bincount(bins, confidence, num_bins).astype(np.float64)
        return ConfidenceBins(sizes, hits, sums)
    size, hit, sure = sample_weight, sample_weight * correct, sample_weight * confidence
    return ConfidenceBins(*(np.bincount(bins, each, num_bins) for each in (size, hit, sure)))


def _as_probabilities(probabilities: ArrayLike, y: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    columns, labels = as_scores(probabilities, y, "probabilities")
    return as_probabilities(columns, "probabilities"), labels
