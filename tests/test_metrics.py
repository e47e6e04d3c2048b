"""Metrics by hand on small arrays, and against scikit-learn if it is installed."""

import numpy as np
import pytest

from npsoftmax import metrics
from npsoftmax.calibration import fit_temperature
from npsoftmax.errors import InputError, LabelError, ShapeError
from npsoftmax.functional import softmax

P = np.array([[0.7, 0.2, 0.5], [0.2, 0.5, 0.5], [0.1, 0.3, 0.0]])
Y = np.array([0, 2, 1])


def test_by_hand():
    assert metrics.accuracy(P, Y) == pytest.approx(1 / 3)
    assert metrics.top_k_accuracy(P, Y, 1) == metrics.accuracy(P, Y)
    assert metrics.top_k_accuracy(P, Y, 2) == 1
    assert metrics.brier(P, Y) == pytest.approx((0.14 + 0.78 + 0.5) / 3)
    confusion = metrics.confusion_matrix([0, 1, 0], Y, 3)
    assert confusion.tolist() == [[1, 0, 0], [1, 0, 0], [0, 1, 0]]
    unsigned = np.array([0, 1, 0], np.uint64)
    np.testing.assert_array_equal(metrics.confusion_matrix(unsigned, Y, 3), confusion)
    report = metrics.per_class(confusion)
    assert report.precision.tolist() == [0.5, 0, 0]
    assert report.recall.tolist() == [1, 0, 0]
    assert report.f1.tolist() == [pytest.approx(2 / 3), 0, 0]
    assert report.support.tolist() == [1, 1, 1]


def test_calibration_by_hand():
    # Two bins: confidences 0.75, 0.75 (both right) and 0.5 (wrong, on the edge of the lower bin).
    p = np.array([[0.75, 0.25, 0.5], [0.25, 0.75, 0.5]])
    assert metrics.expected_calibration_error(p, [0, 1, 1], num_bins=2) == pytest.approx(
        (2 * 0.25 + 0.5) / 3
    )
    assert metrics.expected_calibration_error([[1.0], [0.0]], [0]) == 0


def test_likelihood_of_a_confident_sample_is_not_zero():
    loss = metrics.negative_log_likelihood(np.array([[50.0], [0.0]]), [0])
    assert loss == pytest.approx(np.exp(-50), rel=1e-12)


def test_against_scikit_learn(rng):
    reference = pytest.importorskip("sklearn.metrics")
    z = rng.standard_normal((5, 200))
    y = rng.integers(0, 5, 200)
    p = softmax(z)
    predicted = p.argmax(axis=0)
    confusion = metrics.confusion_matrix(predicted, y, 5)
    np.testing.assert_array_equal(confusion, reference.confusion_matrix(y, predicted))
    expected = reference.precision_recall_fscore_support(y, predicted)
    for ours, theirs in zip(metrics.per_class(confusion), expected, strict=True):
        np.testing.assert_allclose(ours, theirs)
    assert metrics.top_k_accuracy(z, y, 3) == reference.top_k_accuracy_score(y, z.T, k=3)
    assert metrics.negative_log_likelihood(z, y) == pytest.approx(reference.log_loss(y, p.T))


@pytest.mark.parametrize(
    "metric",
    [
        metrics.accuracy,
        metrics.top_k_accuracy,
        metrics.brier,
        metrics.expected_calibration_error,
        metrics.negative_log_likelihood,
    ],
)
@pytest.mark.parametrize(
    ("scores", "y", "error"),
    [
        (P, [0, 1], ShapeError),
        (P, [0, 1, 3], LabelError),
        (P[:, :0], np.zeros(0, int), ShapeError),
        (P * np.nan, Y, InputError),
        (P[:, 0], Y, ShapeError),
    ],
)
def test_refusals(metric, scores, y, error):
    with pytest.raises(error, match="expected"):
        metric(scores, y)


def test_labels_in_the_place_of_scores_are_told_apart():
    for metric in (metrics.accuracy, metrics.brier, metrics.negative_log_likelihood):
        with pytest.raises(InputError, match=r"expected shape \(classes, samples\)") as caught:
            metric([0, 2, 1], [0, 1, 1])
    for way in ("np.mean(np.equal(labels, y))", "np.stack([1 - p, p])"):
        assert way in str(caught.value)
    labels, y = [0, 2, 1], [0, 1, 1]
    assert np.mean(np.equal(labels, y)) == 2 / 3
    assert metrics.accuracy(np.stack([1 - np.array([0.2, 0.7, 0.9]), [0.2, 0.7, 0.9]]), y) == 1


@pytest.mark.parametrize("samples", [2, 6])
def test_scores_as_rows_are_told_to_be_transposed(samples):
    scores, y = np.eye(4)[[3, 1, 3, 2, 0, 1]][:samples], [3, 1, 3, 2, 0, 1][:samples]
    for metric in (metrics.accuracy, metrics.top_k_accuracy, metrics.brier, fit_temperature):
        with pytest.raises(
            InputError, match=r"pass np\.asarray\((scores|probabilities|logits)\)\.T"
        ):
            metric(scores, y)
    assert metrics.accuracy(np.asarray(scores).T, y) == 1


def test_one_hot_columns_in_the_place_of_predicted_labels_are_named():
    with pytest.raises(
        InputError, match=r"predicted: .*np\.asarray\(predicted\)\.argmax\(axis=0\)"
    ):
        metrics.confusion_matrix(np.eye(3)[:, [0, 1, 2, 1]], [0, 1, 2, 1], 3)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_probabilities_beyond_1_by_rounding_count_as_1(dtype):
    P = np.array([[1 + np.finfo(dtype).eps], [-1e-17]], dtype)
    assert metrics.brier(P, [0]) == metrics.expected_calibration_error(P, [0]) == 0
    assert metrics.brier(P.astype(np.float64), [1]) == 2


def test_other_refusals():
    with pytest.raises(InputError, match="square matrix"):
        metrics.per_class([[1, 2]])
    with pytest.raises(InputError, match="square matrix"):
        metrics.per_class([[0.5]])
    for metric in (metrics.brier, metrics.expected_calibration_error):
        with pytest.raises(InputError, match=r"from 0 to 1, got -3.0 to 2.0; pass softmax"):
            metric([[-3.0], [2.0]], [0])
    with pytest.raises(LabelError, match="from 0 to 7"):
        metrics.confusion_matrix([0, 7], [0, 1], 2)
    with pytest.raises(InputError, match="num_bins"):
        metrics.expected_calibration_error(P, Y, num_bins=0)


def test_the_probability_of_one_of_two_classes_has_a_way_to_both():
    p, y = np.array([0.2, 0.9]), [0, 1]
    for scores in (p, p[None]):
        with pytest.raises(ShapeError, match=r"is np.stack\(\[1 - p, p\]\)"):
            metrics.brier(scores, y)
    assert metrics.brier(np.stack([1 - p, p]), y) == pytest.approx(0.05)
