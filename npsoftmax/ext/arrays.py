"""Arrays in files: .npz and .npy of NumPy, with the sparse parts of SciPy, and pairs of IDX files.

Rows are samples in these files, as everybody saves them; the samples are returned as columns, which
copies nothing.
"""

from __future__ import annotations

import math
import os
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npsoftmax._checks import is_bfloat16
from npsoftmax.data import idx
from npsoftmax.data.labelled import Labelled, check_number, listed
from npsoftmax.errors import CorruptFileError, InputError, ShapeError
from npsoftmax.ext import extra
from npsoftmax.files import quoted, readable

__all__ = ["read_npz", "read_pair"]

Path = str | os.PathLike[str]
PARTS = "data", "indices", "indptr", "shape"  # of a sparse array


def read_npz(path: Path) -> tuple[Labelled, Labelled | None]:
    """Read samples and labels from an ``.npz`` file, and those to test on if it has them.

    The arrays are ``X_train`` and ``y_train``, or ``X`` and ``y``, and optionally ``X_test`` and
    ``y_test``; capital letters do not matter. Sparse samples are the four parts of a SciPy CSR
    array, ``train_data``, ``train_indices``, ``train_indptr`` and ``train_shape``, and
    ``test_data`` and so on. ``classes`` are the names of label 0, 1, ..., ``feature_names`` or
    ``vocabulary`` those of the features.

    Parameters
    ----------
    path : path
        The file. It cannot run code: arrays of Python objects are refused.

    Examples
    --------
    >>> np.savez("points.npz", X=[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], y=["a", "b", "a"])
    >>> samples, test = read_npz("points.npz")
    >>> samples.X
    array([[1., 3., 5.],
           [2., 4., 6.]])
    >>> test is None
    True
    """
    arrays = _lower(_load(path), path)
    names = _strings(arrays, "feature_names") or _strings(arrays, "vocabulary")
    classes = _strings(arrays, "classes")
    _check_classes(classes, path)
    parts: list[Labelled | None] = []
    for part in ("train", "test"):
        X, y = _samples(arrays, part), arrays.get(f"y_{part}")
        if part == "train" and X is None:
            X, y = arrays.get("x"), arrays.get("y")
        if X is None:
            parts.append(None)
            continue
        parts.append(_labelled(X, y, path, classes)._replace(feature_names=names))
    if parts[0] is None:
        way = "save them with np.savez(path, X=X, y=y)"
        if arrays.keys() >= set(PARTS):
            named = ", ".join(f"train_{name}=X.{name}" for name in PARTS)
            way = (
                "take X = scipy.sparse.load_npz(path).tocsr(), and save it with its labels, "
                f"np.savez(new, {named}, y_train=y)"
            )
        raise InputError(
            f"{quoted(path)}: expected arrays X_train and y_train, or X and y, got "
            f"{listed(list(arrays))}; {way}"
        )
    return parts[0], parts[1]


def read_pair(path: Path, labels: Path | None) -> Labelled:
    """Read samples from one file and their labels from another, both ``.npy`` or both IDX.

    Parameters
    ----------
    path, labels : path, path or None
        Samples along the first axis, and their labels. Without a file of labels, ``y`` is None.

    Examples
    --------
    >>> np.save("X.npy", [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), np.save("y.npy", [0, 1, 0])
    (None, None)
    >>> read_pair("X.npy", "y.npy").X.shape
    (2, 3)
    """
    y = None if labels is None else read_array(labels)
    return _labelled(read_array(path), y, path)


def read_array(path: Path) -> NDArray[Any]:
    """Read an ``.npy`` or an IDX file; a large ``.npy`` stays on the disk.

    Examples
    --------
    >>> np.save("y.npy", [3, 1])
    >>> read_array("y.npy").tolist()
    [3, 1]
    """
    if os.fspath(path).lower().endswith(".npy"):
        return np.asarray(_load(path))
    return idx.read(path)


def _load(path: Path) -> Any:
    """Return the array of an ``.npy`` file, or all arrays of an ``.npz`` file."""
    is_npz = os.fspath(path).lower().endswith(".npz")
    try:
        if not is_npz:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        with readable(path) as stream, np.load(stream, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot read {quoted(path)}: {error}; check the file") from error
    except (ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        way = "write it again"
        if "pickle" in str(error).lower():
            way = "save numbers and text only: np.asarray(y, str) makes text of Python objects"
        raise CorruptFileError(
            f"{quoted(path)}: expected a file of np.save or np.savez, got {error!s:.120}; {way}"
        ) from error


def _lower(arrays: dict[str, NDArray[Any]], path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays by their names in small letters."""
    lower = {name.lower(): array for name, array in arrays.items()}
    if len(lower) < len(arrays):
        twice = [name for name in arrays if name not in lower and name.lower() in arrays]
        raise InputError(
            f"{quoted(path)}: expected names that differ in more than capital letters, got "
            f"{listed(twice or list(arrays))} twice; save one of each, np.savez(path, X=X, y=y)"
        )
    return lower


def _check_classes(classes: tuple[str, ...] | None, path: Path) -> None:
    """Raise InputError if two classes have the same name."""
    twice = sorted({name for name in classes or () if (classes or ()).count(name) > 1})
    if twice:
        raise InputError(
            f"{quoted(path)}: expected classes that differ, got {listed(twice)} more than once; "
            "name each class once"
        )


def _samples(arrays: dict[str, NDArray[Any]], part: str) -> Any:
    """Return the rows of a part, dense or sparse, or None."""
    names = [f"{part}_{name}" for name in PARTS]
    if not arrays.keys() >= set(names):
        return arrays.get(f"x_{part}")
    with extra("sparse"):
        from scipy import sparse
    data, indices, indptr, shape = (arrays[name] for name in names)
    try:
        numbers = tuple(map(int, shape))
        if len(numbers) == 2:
            check_number(numbers[1], f"{part}_shape")
        rows = sparse.csr_array((data, indices, indptr), numbers)
        rows.check_format(full_check=True)  # compiled code would run over the end of its arrays
        return rows
    except InputError:
        raise
    except (ValueError, TypeError, OverflowError) as error:
        raise CorruptFileError(
            f"{part}_data: expected the parts of a CSR array, got {error}; save those of "
            "scipy.sparse.csr_array"
        ) from error


def _strings(arrays: dict[str, NDArray[Any]], name: str) -> tuple[str, ...] | None:
    return tuple(map(str, arrays[name].tolist())) if name in arrays else None


def _labelled(
    rows: Any, y: NDArray[Any] | None, path: Path, classes: tuple[str, ...] | None = None
) -> Labelled:
    """Return rows as columns: bytes are pixels, and more axes than two those of images."""
    n = rows.shape[0] if rows.ndim else 0
    if rows.ndim < 2 or n == 0 or (y is not None and y.shape[:1] != (n,)):
        got = f"{rows.shape}" + ("" if y is None else f" and labels {y.shape}")
        turned = y is not None and rows.ndim == 2 and y.shape == rows.shape[1:]
        raise ShapeError(
            f"{quoted(path)}: expected samples along the first axis, shape (n, d), and n labels, "
            f"got {got}; {'save X.T' if turned else 'check which arrays they are'}"
        )
    if rows.dtype.kind not in "biuf" and not is_bfloat16(rows.dtype):
        raise InputError(
            f"{quoted(path)}: expected samples of numbers, got dtype {rows.dtype}; "
            f"save {'X.real' if rows.dtype.kind == 'c' else 'X.astype(float)'}, without columns "
            "of text"
        )
    if y is not None and y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    shape = _image_shape(rows) if rows.dtype == np.uint8 else None
    if rows.ndim > 2:
        rows = rows.reshape(n, -1)
    return Labelled(rows.T, y, None, classes, shape)


def _image_shape(rows: NDArray[Any]) -> tuple[int, ...] | None:
    """Return the shape of images of bytes, or None for a table of small integers."""
    if rows.ndim > 2:
        return tuple(rows.shape[1:])
    side = math.isqrt(rows.shape[1])
    return (side, side) if side >= 8 and side * side == rows.shape[1] else None
