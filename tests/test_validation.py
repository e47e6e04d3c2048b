"""Folds, and what is measured on held-out samples."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npsoftmax.errors import InputError
from npsoftmax.metrics import ConfidenceBins
from npsoftmax.objective import hot_loop
from npsoftmax.validation import Measures, as_folds, mean_of_folds, measure, weighted


@given(st.lists(st.integers(0, 4), min_size=2, max_size=60), st.integers(2, 6), st.integers(0, 9))
def test_folds_share_the_samples_of_each_class(labels, count, seed):
    y = np.array(labels)
    if count > y.size:
        with pytest.raises(InputError, match=f"folds: expected at most one for each of {y.size}"):
            as_folds(count, y, seed)
        return
    folds = as_folds(count, y, seed)
    assert np.array_equal(np.sort(np.concatenate([fold.test for fold in folds])), np.arange(y.size))
    sizes = [fold.test.size for fold in folds]
    assert max(sizes) - min(sizes) <= 1
    for label in set(labels):
        numbers = [np.count_nonzero(y[fold.test] == label) for fold in folds]
        assert max(numbers) - min(numbers) <= 1
    for train, test in folds:
        assert np.array_equal(np.union1d(train, test), np.arange(y.size))
        assert np.intersect1d(train, test).size == 0 and (np.diff(train) > 0).all()


def test_the_seed_decides_who_is_held_out():
    y = np.zeros(20, int)
    one, same, other = (as_folds(4, y, seed)[0].test.tolist() for seed in (0, 0, 1))
    assert one == same != other


def test_pairs_are_indices_or_masks():
    (fold,) = as_folds([([3, 1], np.array([True, False, True, False]))], np.zeros(4, int), 0)
    assert fold.train.tolist() == [1, 3] and fold.test.tolist() == [0, 2]


@pytest.mark.parametrize(
    "folds",
    [
        [],
        "5",
        2.5,
        [[0, 1, 2]],
        [([0, 1], [4])],
        [([0, 1], [-1])],
        [([0, 0], [1])],
        [([], [1])],
        [([0], [1.5])],
        [([[0]], [1])],
        [(np.array([True]), [1])],
    ],
)
def test_bad_folds(folds):
    with pytest.raises(InputError, match=r"^folds: expected .*"):
        as_folds(folds, np.zeros(4, int), 0)


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ((np.arange(3), np.array([3])), r"got ndarray in place of a pair; .*\[\(train, test\)\]"),
        (([0, 1, 2], [3]), r"got list in place of a pair; .*\[\(train, test\)\]"),
        (([0, 1], [2, 3]), r"got list in place of a pair; .*\[\(train, test\)\]"),
        ([([0, 1], [2, 7, 9])], "0..3 of samples, each once, got 7; pass"),
        ([([0, 2, 2], [1])], "each once, got 2 twice"),
        ([([0], [1.5])], r"got float64 of shape \(1,\)"),
        ([([0, 1, 2], [3, 1])], "got sample 1 in both parts of a pair"),
        (iter([]), "at least one pair of indices, got none"),
    ],
)
def test_what_is_wrong_with_folds_is_said(folds, message):
    with pytest.raises(InputError, match=rf"^folds: .*{message}"):
        as_folds(folds, np.zeros(4, int), 0)


def test_measures_by_hand():
    # Logits log 3 and 0: probabilities 3/4 and 1/4.
    theta = np.array([[0.0, math.log(3)], [0.0, 0.0]])
    found = measure(theta, np.zeros((1, 2)), np.array([0, 1]), 1.0)
    losses = np.log([4 / 3, 4])
    assert found.loss == pytest.approx(losses.mean())
    assert found.error == pytest.approx(np.std(losses, ddof=1) / math.sqrt(2))
    assert (found.accuracy, found.top5) == (0.5, 1.0)
    assert found.calibration_error == pytest.approx(0.25)


def test_the_scale_and_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    theta, X, y = rng.standard_normal((7, 4)), rng.integers(0, 255, (3, 50)), rng.integers(0, 7, 50)
    whole = measure(theta, X / 255, y, 1.0)
    scaled = measure(theta, X.astype(np.uint8), y, 1 / 255)
    monkeypatch.setattr(hot_loop, "MIN_BLOCK_SAMPLES", 1)
    monkeypatch.setattr(hot_loop, "MAX_BLOCK_SAMPLES", 3)
    parts = measure(theta, X / 255, y, 1.0)
    for found in (scaled, parts):
        assert found[:4] == pytest.approx(whole[:4])
        np.testing.assert_allclose(np.array(found.bins), np.array(whole.bins))


@given(st.lists(st.integers(1, 4), min_size=2, max_size=20))
def test_a_weight_counts_a_sample(counts):
    rng = np.random.default_rng(len(counts))
    theta, X = rng.standard_normal((7, 4)), rng.standard_normal((3, len(counts)))
    y, weights = rng.integers(0, 7, len(counts)), np.array(counts, float)
    found = measure(theta, X, y, 1.0, 2e-3 * weights)
    repeated = measure(theta, X.repeat(counts, axis=1), y.repeat(counts), 1.0)
    for name in ("loss", "accuracy", "top5", "calibration_error"):
        assert getattr(found, name) == pytest.approx(getattr(repeated, name))
    even = measure(theta, X, y, 1.0, np.full(y.size, 3.0))
    assert even[:4] == pytest.approx(measure(theta, X, y, 1.0)[:4])


def test_the_error_of_weighted_samples_by_hand():
    theta = np.array([[0.0, math.log(3)], [0.0, 0.0]])
    found = measure(theta, np.zeros((1, 2)), np.array([0, 1]), 1.0, np.array([3.0, 1.0]))
    near, far = np.log([4 / 3, 4])
    mean = (3 * near + far) / 4
    squares = (3 * (near - mean)) ** 2 + (far - mean) ** 2
    assert (found.loss, found.error) == pytest.approx((mean, math.sqrt(2 * squares) / 4))


def test_held_out_samples_without_weight_are_left_out():
    weights = np.array([1.0, 0.0, 0.0, 2.0])
    assert weighted(np.array([0, 1, 3]), weights).tolist() == [0, 3]
    with pytest.raises(InputError, match=r"folds: expected a positive weight .* all 2 of one"):
        weighted(np.array([1, 2]), weights)


def test_logits_far_apart_have_finite_losses():
    theta = np.array([[1e4, 0.0], [-1e4, 0.0]])
    assert measure(theta, np.ones((1, 2)), np.array([0, 1]), 1.0).loss == pytest.approx(1e4)


def test_the_mean_of_folds_by_hand():
    bins = ConfidenceBins(np.array([2]), np.array([1]), np.array([1.5]))
    one = Measures(1.0, 9.0, 0.5, 0.8, bins)
    assert mean_of_folds([one]).error == 9.0
    both = mean_of_folds([one, Measures(2.0, 9.0, 1.0, 1.0, bins)])
    assert both[:4] == pytest.approx((1.5, 0.5, 0.75, 0.9))
    assert both.calibration_error == pytest.approx(0.25)
