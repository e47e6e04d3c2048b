"""Texts and svmlight files as sparse features."""

import bz2

import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import dump_svmlight_file
from sklearn.feature_extraction.text import CountVectorizer

from npsoftmax.errors import CorruptFileError, InputError
from npsoftmax.ext.text import count_words, find_words, read_svmlight

TEXTS = ["Good tea, good day", "a bad day; Über-bad!", "x ? 1"]


def test_words_are_those_of_scikit_learn():
    theirs = CountVectorizer().fit(TEXTS)
    words = find_words(TEXTS)
    assert words == tuple(theirs.get_feature_names_out()) == ("bad", "day", "good", "tea", "über")
    counts = count_words(np.array(TEXTS, object), words)
    assert counts.format == "csc" and counts.shape == (5, 3)
    assert (theirs.transform(TEXTS) != counts.T).nnz == 0
    assert count_words(["tea for two"], words).toarray().ravel().tolist() == [0, 0, 0, 1, 0]
    with pytest.raises(InputError, match="expected words of at least two letters, got none"):
        find_words(["a", "b"])


@pytest.fixture
def write(tmp_path):
    def write(text, name="a.svm"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_indices_count_from_one_or_from_zero(write):
    (points,) = read_svmlight(write("1 1:5 3:6\n2 2:7\n"))
    assert points.feature_names == ("1", "2", "3") and points.y.tolist() == [1, 2]
    assert points.X.toarray().T.tolist() == [[5, 0, 6], [0, 7, 0]] and points.X.format == "csc"
    (points,) = read_svmlight(write("1 0:5 3:6\n2 2:7\n"))
    assert points.feature_names == ("0", "1", "2", "3")
    assert points.X.toarray().T.tolist() == [[5, 0, 0, 6], [0, 0, 7, 0]]


@pytest.mark.parametrize("first", [0, 1])
def test_a_later_file_has_the_features_of_the_training(write, first):
    training, test = read_svmlight(write(f"1 {first}:5 3:6\n"), write("1 2:7 4:1\n", "b.svm"))
    names = tuple(map(str, range(first, 5)))
    assert training.feature_names == test.feature_names == names
    assert training.X.shape == test.X.shape == (len(names), 1)
    # Alone, the second file would begin at 1, and end elsewhere.
    for line, expected in [("1 2:7\n", [7, 0, 0]), ("1 3:8 9:1\n", [0, 8, 0])]:
        (later,) = read_svmlight(write(line, "c.svm"), feature_names=names)
        assert later.X.toarray().ravel().tolist() == [0] * (2 - first) + expected


def test_what_scikit_learn_writes_is_read(tmp_path, rng):
    rows = sparse.csr_array(rng.integers(0, 2, (9, 5)) * 0.25 + np.eye(9, 5))
    dump_svmlight_file(rows, np.arange(9), str(tmp_path / "a.svm"))
    (tmp_path / "a.svm.bz2").write_bytes(bz2.compress((tmp_path / "a.svm").read_bytes()))
    for name in ("a.svm", "a.svm.bz2"):
        (points,) = read_svmlight(tmp_path / name)
        np.testing.assert_allclose(points.X.toarray().T, rows.toarray())
        assert points.y.tolist() == list(range(9))


@pytest.mark.parametrize("text", ["1 a:b\n", "1 3:x\n", "1 3:1 2:1\n", "1,2\n"])
def test_a_damaged_file_is_refused(write, text):
    with pytest.raises(CorruptFileError, match=r"expected lines such as 1 3:0\.5 7:2, got"):
        read_svmlight(write(text))


def test_a_model_of_other_features_cannot_take_indices(write):
    with pytest.raises(InputError, match=r"whose features are called 1, 2, .* a feature 'tea'"):
        read_svmlight(write("1 1:1\n"), feature_names=("tea", "x"))


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("1 2000000000:1\n", InputError, "expected at most 16777216 features, got 2000000000"),
        ("1 99999999999:1\n", CorruptFileError, "expected lines such as"),
        ("1\n2\n", InputError, "got labels only"),
    ],
)
def test_indices_have_a_limit(write, text, error, message):
    with pytest.raises(error, match=message):
        read_svmlight(write(text))


def test_a_zero_does_not_shift_the_features_of_a_model(write):
    with pytest.raises(InputError, match=r"count from 1, as in the training, got an index 0"):
        read_svmlight(write("1 0:5 2:6\n"), feature_names=("1", "2", "3"))
    (later,) = read_svmlight(write("1 2:6 2000000000:5\n"), feature_names=("1", "2"))
    assert later.X.toarray().ravel().tolist() == [0, 6]
