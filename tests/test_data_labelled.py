"""Labels of any kind, and the data set that is made of them."""

import numpy as np
import pytest
from scipy import sparse

from npsoftmax.data.labelled import Labelled, digest, listed, number_labels, split, take
from npsoftmax.errors import InputError, LabelError


def of(*labels, classes=None):
    return Labelled(np.zeros((1, len(labels))), np.array(labels), classes=classes)


@pytest.mark.parametrize(
    ("labels", "classes", "y"),
    [
        (["no", "yes", "no"], ("no", "yes"), [0, 1, 0]),
        ([10, 9, 10], ("9", "10"), [1, 0, 1]),
        ([1.0, -1.0], ("-1", "1"), [1, 0]),
        ([True, False], ("False", "True"), [1, 0]),
    ],
)
def test_classes_are_the_labels_that_occur_in_order(labels, classes, y):
    names, numbers = number_labels(of(*labels), "y")
    assert (names, numbers.tolist()) == (classes, y) and numbers.dtype == np.int64
    shuffled = classes[::-1]
    names, numbers = number_labels(of(*labels), "y", shuffled)
    assert names == shuffled and [shuffled[i] for i in numbers] == [classes[i] for i in y]


def test_names_of_classes_stand_for_integers():
    names, y = number_labels(of(1, 0, 1, classes=("cat", "dog", "owl")), "y")
    assert names == ("cat", "dog", "owl") and y.tolist() == [1, 0, 1]
    assert number_labels(of(1, 1, classes=("cat", "dog")), "y", ("dog", "cat"))[1].tolist() == [
        0,
        0,
    ]
    with pytest.raises(LabelError, match="expected labels 0 to 1, one for each name in classes"):
        number_labels(of(1, 2, classes=("cat", "dog")), "y")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.5, 1.0], "expected classes, got 0.5 in row 1, a missing value or a number of a scale"),
        ([1.0, np.nan], "got nan in row 2"),
        (["a", "a"], "expected at least two classes, got a everywhere"),
        ([], "expected a label for each sample, got none"),
        ([1 + 2j, 1], "got dtype complex128"),
    ],
)
def test_other_labels_are_refused(labels, message):
    with pytest.raises(LabelError, match=message):
        number_labels(of(*labels), "y")


def test_labels_unseen_in_training_are_named():
    with pytest.raises(LabelError, match=r"among .*, a, b, got c, d in 3 rows; remove these rows"):
        number_labels(of("a", "c", "d", "c"), "y", ["a", "b"])


def test_each_class_is_held_out_in_proportion_and_by_the_seed():
    samples = Labelled(np.arange(30.0)[None], np.array(["a"] * 20 + ["b"] * 10))
    data = split("mine", samples, None, seed=1)
    assert data.y_test.tolist() == [0] * 4 + [1] * 2
    assert sorted([*data.X_train[0], *data.X_test[0]]) == list(range(30))
    assert (np.diff(data.y_train) != 0).sum() > 1  # shuffled, for --limit
    assert split("mine", samples, None, seed=1).sha256 == data.sha256
    assert split("mine", samples, None, seed=2).sha256 != data.sha256


def test_a_class_with_one_sample_is_trained_on():
    data = split("mine", of(*"aaaaabbbbbc"), None)
    assert np.bincount(data.y_train).tolist() == [4, 4, 1] and np.bincount(
        data.y_test
    ).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (0.1, "none of them left to test on; give more, or hold out more"),
        (0.9, "none of them left to train on a, b; give more, or hold out less"),
        (1.5, "expected a fraction between 0 and 1, got 1.5"),
    ],
)
def test_too_few_samples_are_refused(part, message):
    with pytest.raises(InputError, match=message):
        split("mine", of(*"aabb"), None, test_part=part)


def test_test_samples_have_the_classes_of_the_training():
    test = of("b", "b")
    data = split("mine", of("a", "b"), test)
    assert data.y_test.tolist() == [1, 1] and data.X_train.shape == (1, 2)
    with pytest.raises(LabelError, match="test labels: expected labels among"):
        split("mine", of("a", "b"), of("c"))


def test_columns_of_all_kinds_are_taken():
    X, places = np.arange(6).reshape(2, 3), np.array([2, 0])
    assert take(X, places).tolist() == [[2, 0], [5, 3]] and take(X, places).flags.f_contiguous
    assert take(sparse.csc_array(X), places).toarray().tolist() == [[2, 0], [5, 3]]
    assert take(np.array(["a", "b", "c"], object), places).tolist() == ["c", "a"]


@pytest.mark.parametrize(
    "X", [np.eye(2), np.eye(2, dtype=np.float16), sparse.csc_array(np.eye(2)), np.array(["a", "b"])]
)
def test_a_digest_depends_on_samples_and_labels(X):
    y = np.array([0, 1])
    assert digest(X, y) == digest(X.copy(), y) != digest(X, y[::-1])
    assert digest(take(X, y[::-1]), y) != digest(X, y)


def test_a_dozen_names_are_listed():
    assert listed(["a"] * 12) == ", ".join("a" * 12)
    assert listed(["a"] * 14).endswith("a and 2 more")


@pytest.mark.parametrize(
    "labels",
    [
        np.array([2.0**53, 2.0**53 + 2]),
        np.array([1e300, 1.0]),
        np.array([0.0, -(2.0**63)]),
        np.array([1, 2**24], np.float32),
        np.array([1, 2**11], np.float16),
    ],
)
def test_floats_that_are_not_told_apart_are_no_labels(labels):
    with pytest.raises(LabelError, match="write them as text"):
        number_labels(Labelled(np.zeros((1, 2)), labels), "y")
    text = labels.astype(str)
    assert number_labels(Labelled(np.zeros((1, 2)), text), "y")[1].size == 2
    assert number_labels(of(2.0**53 - 1, 1.0), "y")[0] == ("1", "9007199254740991")
