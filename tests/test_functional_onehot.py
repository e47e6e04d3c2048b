"""One-hot and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npsoftmax.errors import InputError, LabelError, ShapeError
from npsoftmax.functional import onecold, onehotbatch


def test_by_hand():
    encoded = onehotbatch([20, 10, 20], [10, 20, 30])
    np.testing.assert_array_equal(encoded, [[0, 1, 0], [1, 0, 1], [0, 0, 0]])
    assert encoded.dtype == bool and encoded.flags.f_contiguous
    assert onehotbatch(list("abca"), list("abc")).sum() == 4


def test_more_axes_stand_behind_the_classes():
    encoded = onehotbatch([[0, 1, 2], [2, 1, 0]], range(3))
    assert encoded.shape == (3, 2, 3)
    np.testing.assert_array_equal(onecold(encoded), [[0, 1, 2], [2, 1, 0]])


def test_repeated_labels_and_default():
    np.testing.assert_array_equal(onehotbatch([7], [7, 7])[:, 0], [1, 0])
    np.testing.assert_array_equal(onecold(onehotbatch([1, 9], [1, 2], default=2)), [0, 1])


@given(st.lists(st.integers(0, 5), max_size=20))
def test_round_trip(labels):
    assert onecold(onehotbatch(np.array(labels, int), range(6))).tolist() == labels


def test_onecold_takes_the_first_maximum_and_looks_up():
    assert onecold([1, 3, 3]) == 1
    assert onecold([[1, 5], [2, 4]], ["a", "b"]).tolist() == ["b", "a"]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: onehotbatch([4], [1, 2]), LabelError, "got .*4"),
        (lambda: onehotbatch(["x"], [1, 2]), LabelError, "'x'"),
        (lambda: onehotbatch([4], [1, 2], default=3), LabelError, "default"),
        (lambda: onehotbatch([4], []), ShapeError, "at least one label"),
        (lambda: onecold([1.0, np.nan]), InputError, "NaN"),
        (lambda: onecold([[1.0, 1], [np.nan, 0]]), InputError, "NaN"),
        (lambda: onecold([1, 2], ["a"]), ShapeError, "expected 2 labels"),
        (lambda: onecold(3.0), ShapeError, "at least one class"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()
