"""Texts and svmlight files as sparse features, by scikit-learn."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from npsoftmax.data.labelled import Labelled, check_number
from npsoftmax.errors import CorruptFileError, InputError
from npsoftmax.ext import extra
from npsoftmax.files import quoted

with extra("sklearn"):
    from sklearn.datasets import load_svmlight_files
    from sklearn.feature_extraction.text import CountVectorizer

__all__ = ["count_words", "find_words", "read_svmlight"]


def find_words(texts: Sequence[str] | NDArray[Any]) -> tuple[str, ...]:
    """Return the words of texts, sorted, as ``CountVectorizer()`` of scikit-learn finds them.

    Words have at least two letters or digits, and lose their capitals.

    Examples
    --------
    >>> find_words(["Good tea!", "No good"])
    ('good', 'no', 'tea')
    """
    try:
        vectorizer = CountVectorizer().fit(texts)
    except ValueError as error:
        raise InputError(
            f"texts: expected words of at least two letters, got none ({error}); name the column "
            "that has the texts"
        ) from error
    return tuple(vectorizer.get_feature_names_out().tolist())


def count_words(texts: Sequence[str] | NDArray[Any], words: Sequence[str]) -> Any:
    """Count words in texts; others are left out.

    Parameters
    ----------
    texts : sequence of str
        The ``n`` texts.
    words : sequence of str
        The ``d`` words that count.

    Returns
    -------
    csc_array
        Shape ``(d, n)``.

    Examples
    --------
    >>> count_words(["Good, good tea"], ["good", "tea"]).toarray()
    array([[2],
           [1]])
    """
    from scipy import sparse

    counts = CountVectorizer(vocabulary={word: i for i, word in enumerate(words)}).transform(texts)
    return sparse.csr_array(counts).T


def read_svmlight(
    *paths: str | os.PathLike[str], feature_names: Sequence[str] | None = None
) -> list[Labelled]:
    r"""Read text files in the format of svmlight and LIBSVM, which belong together.

    A line is a label, and ``index:value`` for each number that is not 0. Indices count from 1, or
    from 0 if one of the files has a 0. They are the names of the features.

    Parameters
    ----------
    *paths : path
        The files; ``.gz`` and ``.bz2`` are decompressed.
    feature_names : sequence of str, optional
        Those of the training. Other features are left out.

    Examples
    --------
    >>> with open("points.svm", "w") as file:
    ...     _ = file.write("1 1:0.5 3:2\n-1 2:1\n")
    >>> points, = read_svmlight("points.svm")
    >>> points.feature_names, points.X.toarray().tolist(), points.y.tolist()
    (('1', '2', '3'), [[0.5, 0.0], [0.0, 1.0], [2.0, 0.0]], [1.0, -1.0])
    """
    from scipy import sparse

    try:
        loaded = load_svmlight_files([os.fspath(path) for path in paths], zero_based=True)
    except (ValueError, OSError, OverflowError) as error:
        raise CorruptFileError(
            f"{', '.join(map(quoted, paths))}: expected lines such as 1 3:0.5 7:2, got "
            f"{error!s:.150}; repair the file"
        ) from error
    rows = [sparse.csr_array(X) for X in loaded[::2]]
    has_zero = any((X.indices == 0).any() for X in rows)
    if feature_names is None:
        feature_names = _number(paths, int(not has_zero), rows[0].shape[1])
    _check_names(paths, feature_names, has_zero)
    first, end = int(feature_names[0]), int(feature_names[-1]) + 1
    for X in rows:
        X.resize(X.shape[0], end)
    return [
        Labelled(X[:, first:].T, y, tuple(feature_names))
        for X, y in zip(rows, loaded[1::2], strict=True)
    ]


def _number(paths: Sequence[str | os.PathLike[str]], first: int, end: int) -> tuple[str, ...]:
    """Return the names of the features of files."""
    files = ", ".join(map(quoted, paths))
    if end <= first:
        raise InputError(f"{files}: expected lines such as 1 3:0.5 7:2, got labels only; add some")
    check_number(end - first, files)
    return tuple(map(str, range(first, end)))


def _check_names(
    paths: Sequence[str | os.PathLike[str]], feature_names: Sequence[str], has_zero: bool
) -> None:
    """Raise InputError if features are not called as indices are."""
    if not (feature_names[0] in ("0", "1") and feature_names[-1].isdecimal()):
        raise InputError(
            f"{', '.join(map(quoted, paths))}: expected a model of such files, whose features are "
            f"called 1, 2, and so on, got one with a feature {feature_names[0]!r:.80}; name data "
            "like those of its training"
        )
    if has_zero and feature_names[0] == "1":
        raise InputError(
            f"{', '.join(map(quoted, paths))}: expected indices that count from 1, as in the "
            "training, got an index 0; add 1 to every index"
        )
