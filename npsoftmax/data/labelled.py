"""Samples with labels of any kind, and the data set that is made of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npsoftmax.data.datasets import Dataset
from npsoftmax.data.split import splitobs
from npsoftmax.errors import InputError, LabelError

__all__ = ["Labelled", "number_labels", "split"]

MAX_LISTED = 12  # names in a message
MAX_FEATURES = 2**24  # each has a name


class Labelled(NamedTuple):
    """Samples with their labels, as a file has them.

    Attributes
    ----------
    X : ndarray or csc_array
        Shape ``(d, n)``, or texts of shape ``(n,)``.
    y : ndarray or None
        Labels of any kind, shape ``(n,)``; None if the file has none.
    feature_names, classes : tuple of str or None
        The names of the features, and of label 0, 1, ...
    shape : tuple of int or None
        Height and width, if the samples are images.
    """

    X: Any
    y: NDArray[Any] | None
    feature_names: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    shape: tuple[int, ...] | None = None


def number_labels(
    samples: Labelled, source: str, classes: Sequence[str] | None = None
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the names of the classes, and the labels as integers from 0.

    The classes are the labels that occur, sorted: integers as numbers, names as text. Floats are
    integers if all of them are whole.

    Parameters
    ----------
    samples : Labelled
        Samples with labels.
    source : str
        What the labels are called in messages.
    classes : sequence of str, optional
        The classes of the training, of which each label must be one.

    Examples
    --------
    >>> number_labels(Labelled(np.zeros((1, 4)), np.array(["no", "yes", "no", "no"])), "y")
    (('no', 'yes'), array([0, 1, 0, 0]))
    >>> number_labels(Labelled(np.zeros((1, 3)), np.array([10.0, 9.0, 10.0])), "y", ["10", "9"])
    (('10', '9'), array([0, 1, 0]))
    """
    values, y = np.unique(_as_discrete(samples.y, source), return_inverse=True)
    if samples.classes is None:
        names = tuple(map(str, values.tolist()))
    else:
        names, y = samples.classes, values[y]
        if values.dtype.kind not in "iu" or values[0] < 0 or values[-1] >= len(names):
            raise LabelError(
                f"{source}: expected labels 0 to {len(names) - 1}, one for each name in classes, "
                f"got {values[0]} to {values[-1]}; correct them, or leave out classes"
            )
    if classes is None:
        if len(values) < 2:
            raise LabelError(
                f"{source}: expected at least two classes, got {names[0]} everywhere; name the "
                "labels that you mean"
            )
        return names, y.astype(np.int64)
    return tuple(classes), _translate(names, y, source, tuple(classes))


def _as_discrete(y: NDArray[Any] | None, source: str) -> NDArray[Any]:
    """Return labels that are not the numbers of a scale."""
    if y is None or y.ndim != 1 or y.size == 0:
        got = "none" if y is None or y.size == 0 else f"an array of shape {y.shape}"
        raise LabelError(f"{source}: expected a label for each sample, got {got}; add them")
    if y.dtype.kind == "f":
        parts = ~(y % 1 == 0)  # of NaN and infinity too
        if parts.any():
            raise LabelError(
                f"{source}: expected classes, got {y[parts][0]} in row {parts.argmax() + 1}, a "
                "missing value or a number of a scale; remove missing ones, and make classes of "
                "numbers, for instance low and high"
            )
        whole = float(2 ** min(53, np.finfo(y.dtype).nmant + 1))
        if (large := np.abs(y) >= whole).any():
            raise LabelError(
                f"{source}: expected labels that {y.dtype} tells apart, below {whole:.0f}, got "
                f"{y[large][0]:.0f} in row {large.argmax() + 1}; number the classes 0, 1, ..., or "
                "write them as text, for instance id1 in place of 1"
            )
        return y.astype(np.int64)
    if y.dtype.kind not in "iubU":
        raise LabelError(
            f"{source}: expected labels that are text or integers, got dtype {y.dtype}; convert "
            "them with .astype(str)"
        )
    return y


def _translate(
    names: tuple[str, ...], y: NDArray[Any], source: str, classes: tuple[str, ...]
) -> NDArray[np.int64]:
    """Return the numbers that labels have among other classes."""
    place = {name: number for number, name in enumerate(classes)}
    table = np.array([place.get(name, -1) for name in names])
    labels: NDArray[np.int64] = table[y]
    unknown = labels < 0
    if unknown.any():
        found = [names[i] for i in np.unique(y[unknown])]
        raise LabelError(
            f"{source}: expected labels among the classes of the training, {listed(classes)}, got "
            f"{listed(found)} in {unknown.sum()} rows; remove these rows, or train with such ones"
        )
    return labels


def check_number(d: int, source: str) -> None:
    """Raise InputError for more features than can have names.

    Examples
    --------
    >>> check_number(2**24, "X")
    """
    if d > MAX_FEATURES:
        raise InputError(
            f"{source}: expected at most {MAX_FEATURES} features, got {d}; keep those that "
            "occur, numbered without gaps"
        )


def listed(names: Sequence[str]) -> str:
    """Return some names for a message, at most the first dozen.

    Examples
    --------
    >>> listed("abcdefghijklmn")
    'a, b, c, d, e, f, g, h, i, j, k, l and 2 more'
    """
    rest = len(names) - MAX_LISTED
    return ", ".join(names[:MAX_LISTED]) + (f" and {rest} more" if rest > 0 else "")


def split(
    name: str,
    samples: Labelled,
    test: Labelled | None,
    *,
    test_part: float = 0.2,
    seed: int = 0,
    source: str = "labels",
    test_source: str = "test labels",
) -> Dataset:
    """Make a data set of samples and test samples, or hold out a part of each class for testing.

    The order of training samples is shuffled if a part is held out.

    Parameters
    ----------
    name : str
        The name of the data set.
    samples, test : Labelled, Labelled or None
        The samples, and those to test on.
    test_part : float
        The fraction of each class that is held out if there are no test samples. A class with one
        sample is trained on.
    seed : int
        Seed of the choice and of the order.
    source, test_source : str
        What the labels are called in messages.

    Examples
    --------
    >>> samples = Labelled(np.arange(10.0)[None], np.arange(10) % 2)
    >>> data = split("mine", samples, None)
    >>> data.classes, data.X_test.size, data.y_test.tolist(), data.origin
    (('0', '1'), 2, [0, 1], '20% of each class held out for testing, seed 0')
    """
    classes, y = number_labels(samples, source)
    X, held = samples.X, ""
    if test is not None:
        X_test, (_, y_test) = test.X, number_labels(test, test_source, classes)
    else:
        if not 0 < test_part < 1:
            raise InputError(f"test part: expected a fraction between 0 and 1, got {test_part}")
        rng = np.random.default_rng(seed)
        places = np.arange(y.size)
        chosen, rest = splitobs(places, at=float(test_part), shuffle=True, stratified=y, rng=rng)
        left = np.setdiff1d(y, y[rest])
        if left.size or chosen.size == 0:
            whom = f"train on {listed([classes[i] for i in left])}" if left.size else "test on"
            raise InputError(
                f"{source}: expected enough samples to hold out {test_part:.0%} of each class, got "
                f"{y.size} of {len(classes)} classes, none of them left to {whom}; give more, or "
                f"hold out {'less' if left.size else 'more'}"
            )
        rest = rng.permutation(rest)
        X_test, y_test, X, y = take(X, chosen), y[chosen], take(X, rest), y[rest]
        held = f"{test_part:.0%} of each class held out for testing, seed {seed}"
    pixels = samples.shape is not None
    return Dataset(
        name, classes, X, y, X_test, y_test,
        {"training samples": digest(X, y), "test samples": digest(X_test, y_test)},
        held, 1 / 255 if pixels else None, None, samples.shape, samples.feature_names,
    )  # fmt: skip


def take(X: Any, places: NDArray[np.int64]) -> Any:
    """Return some samples: columns of an array, dense ones Fortran-ordered, or some texts.

    Examples
    --------
    >>> take(np.array([[1, 2, 3]]), np.array([2, 0]))
    array([[3, 1]])
    """
    if isinstance(X, np.ndarray):
        return np.take(X.T, places, axis=0).T
    return X[:, places]


def digest(X: Any, y: NDArray[np.int64]) -> str:
    """Return the SHA-256 of samples and labels, by which a resumed run knows its data.

    Examples
    --------
    >>> X, y = np.array([[1.0, 2.0]]), np.array([0, 1])
    >>> digest(X, y) == digest(X.copy(), y) != digest(X + 1, y)
    True
    """
    sha = hashlib.sha256(y.astype("<i8").tobytes())
    if not isinstance(X, np.ndarray):
        for part in (X.data, X.indices, X.indptr):
            sha.update(np.ascontiguousarray(part).data)
    elif X.dtype.kind in "OU":
        sha.update("\n".join(X.tolist()).encode())
    else:
        sha.update(np.ascontiguousarray(X.T).view(np.uint8).data)
    return sha.hexdigest()
