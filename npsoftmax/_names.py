"""Names of features: their checks, their form in files, and the strongest of each class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npsoftmax.errors import InputError, ShapeError

__all__ = ["as_feature_names", "join_names", "split_names", "strongest"]

# It ends each name in a file; NumPy's own text arrays cannot hold it at the end of a text either.
END = "\0"


def as_feature_names(names: Sequence[str] | None, num_inputs: int) -> tuple[str, ...] | None:
    """Return different names, one for each number of a sample, or None."""
    if names is None:
        return None
    found = tuple(map(str, names))
    if len(found) != num_inputs:
        raise ShapeError(
            f"feature_names: expected {num_inputs} names, one for each row of X, got {len(found)}; "
            "give all of them, or None"
        )
    if len(set(found)) < len(found):
        name, count = Counter(found).most_common(1)[0]
        raise InputError(
            f"feature_names: expected different names, got {name!r:.80} {count} times; rename all "
            "but one of them"
        )
    whole = "".join(found)
    if END in whole or any("\ud800" <= character <= "\udfff" for character in set(whole)):
        raise InputError(
            "feature_names: expected text, got a name with a zero character or half of a pair of "
            "surrogates; remove them"
        )
    return found


def join_names(names: tuple[str, ...]) -> NDArray[np.uint8]:
    r"""Return names in UTF-8, each with a zero byte behind it.

    Examples
    --------
    >>> join_names(("a", "bc")).tobytes()
    b'a\x00bc\x00'
    """
    return np.frombuffer("".join(name + END for name in names).encode(), np.uint8)


def split_names(array: NDArray[Any]) -> tuple[str, ...]:
    """Return the names that :func:`join_names` joined, or raise ValueError."""
    if array.dtype != np.uint8 or array.ndim != 1 or not array.size or array[-1] != 0:
        raise ValueError("feature_names that are not bytes with a zero behind each name")
    return tuple(str(array[:-1].tobytes(), "utf-8").split(END))


def strongest(W: NDArray[Any], k: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the ``k`` largest weights of each class relative to the mean over the classes.

    Their columns and values, each of shape ``(classes, k)``, the largest first; of equal ones, the
    lower column.

    Examples
    --------
    >>> strongest(np.array([[1.0, 5.0], [3.0, 5.0]]), 1)
    (array([[1],
           [0]]), array([[0.],
           [1.]]))
    """
    mean, rows = W.mean(axis=0, dtype=np.float64), []
    for weights in W:  # one at a time, so that no second W is in memory
        relative = weights - mean
        columns = np.argsort(-relative, kind="stable")[:k]
        rows.append((columns, relative[columns]))
    found, values = zip(*rows, strict=True)
    return np.array(found), np.array(values)
