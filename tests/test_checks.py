"""Checks of arguments, and their messages."""

import numpy as np
import pytest

from npsoftmax._checks import as_columns, as_count, as_labels, as_weights, same_samples
from npsoftmax.errors import InputError, LabelError, ShapeError


def test_columns_pass_without_a_copy():
    X = np.zeros((3, 5), dtype=np.uint8, order="F")
    assert as_columns(X, 3) is X


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (np.zeros(3), ShapeError, r"got \(3,\)"),
        (np.zeros((5, 3)), ShapeError, r"expected 3 features .* got shape \(5, 3\); pass X.T"),
        (np.zeros((4, 4)), ShapeError, "samples are columns"),
        (np.array([["a"], ["b"], ["c"]]), InputError, "real numbers"),
        (np.array([[1j], [0], [0]]), InputError, "complex128"),
        (np.array([[0.0, 0], [0, np.nan], [0, 0]]), InputError, "got nan in feature 1 of sample 1"),
        (np.full((3, 1), np.inf), InputError, "got inf"),
        (None, ShapeError, "expected shape"),
    ],
)
def test_columns_are_refused(X, error, message):
    with pytest.raises(error, match=message):
        as_columns(X, 3)


def test_nan_is_found_in_a_late_block():
    X = np.zeros((2, 10_000))
    X[1, 9_000] = np.nan
    with pytest.raises(InputError, match="feature 1 of sample 9000"):
        as_columns(X)


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        ([0.0, 1.0], LabelError, "got dtype float64"),
        ([True, False], LabelError, "got dtype bool"),
        ([0, 3], LabelError, "labels from 0 to 3"),
        ([-1], LabelError, "from -1 to -1"),
        ([[0, 1]], ShapeError, r"got shape \(1, 2\)"),
    ],
)
def test_labels_are_refused(y, error, message):
    with pytest.raises(error, match=message):
        as_labels(y, 3)


def test_samples_must_match_and_exist():
    with pytest.raises(ShapeError, match=r"X \(2, 3\) and y \(4,\)"):
        same_samples(np.zeros((2, 3)), np.zeros(4))
    with pytest.raises(ShapeError, match="at least one sample"):
        same_samples(np.zeros((2, 0)), np.zeros(0))


@pytest.mark.parametrize("value", [0, -1, 1.0, "3", None, True])
def test_counts_are_refused(value):
    with pytest.raises(InputError, match="whole number of at least 1"):
        as_count(value, "batch_size")


def test_counts_are_accepted():
    assert as_count(np.int64(3), "k") == 3
    assert as_count(0, "seed", minimum=0) == 0


def test_weights_become_float64_in_a_new_array():
    given = np.array([0.0, 2.0])
    weights = as_weights(given, 2)
    assert weights.dtype == np.float64 and not np.shares_memory(weights, given)
    assert as_weights([True, False], 2).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ([1.0], ShapeError, r"one number for each of 2 samples, got shape \(1,\)"),
        ([1.0, -2.0], InputError, "numbers from -2.0 to 1.0"),
        ([1.0, np.nan], InputError, "finite numbers of at least 0"),
        ([1.0, np.inf], InputError, "finite numbers of at least 0"),
        (["a", "b"], InputError, "real numbers"),
    ],
)
def test_weights_are_refused(weights, error, message):
    with pytest.raises(error, match=message):
        as_weights(weights, 2)
