"""Photographs in class folders, as columns of pixels, with Pillow.

Each class has a folder with its name, as for ``ImageFolder`` of torchvision. Nothing is searched
for in a photograph: a model sees the whole picture, with the framing "square" of
:mod:`npsoftmax.ext.photos`, in training as later.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from npsoftmax._threads import blas_threads, cores, map_in_threads
from npsoftmax.data import Dataset, splitobs
from npsoftmax.errors import CorruptFileError, InputError, InputWarning
from npsoftmax.ext import photos
from npsoftmax.files import quoted

__all__ = ["SIDE", "find_parts", "load_folder", "read_folder"]

SIDE, FRAMING = 48, "square"
# What the folders of a data set that is split already are called.
TRAINING, HELD_OUT = ("train", "training"), ("validation", "valid", "val", "test", "testing")


def load_folder(
    path: str | os.PathLike[str],
    side: int = SIDE,
    test_part: float = 0.1,
    seed: int = 0,
    on_photo: Callable[[int], None] | None = None,
    test: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Read photographs in class folders, and hold a part of them out for testing.

    If the folder has a folder ``train``, and one named ``validation``, ``val`` or ``test``, these
    two are the parts. Otherwise a part of each class is held out, chosen by the seed. The order of
    the training photographs is shuffled by the seed.

    A damaged photograph is left out, with an :exc:`~npsoftmax.errors.InputWarning` that names it.

    Parameters
    ----------
    path : path
        A folder with one folder for each class.
    side : int
        Height and width of the images.
    test_part : float
        The fraction of each class that is held out.
    seed : int
        Seed of the choice and of the order.
    on_photo : callable, optional
        Called with 1 for each photograph, for a progress bar.
    test : path, optional
        A folder with the photographs to test on, in class folders.

    Examples
    --------
    >>> from PIL import Image
    >>> for kind, grey in (("day", 200), ("night", 20)):
    ...     os.makedirs(f"photos/{kind}")
    ...     for number in range(5):
    ...         Image.new("L", (40, 30), grey + number).save(f"photos/{kind}/{number}.png")
    >>> data = load_folder("photos", test_part=0.2)
    >>> data.classes, data.X_train.shape, data.y_test
    (('day', 'night'), (2304, 8), array([0, 1]))
    """
    training, testing = find_parts(path) if test is None else (os.fspath(path), os.fspath(test))
    classes, X, y = read_folder(training, side, on_photo=on_photo)
    rng = np.random.default_rng(seed)
    if testing is None:
        if not 0 < test_part < 1:
            raise InputError(f"test part: expected a fraction between 0 and 1, got {test_part}")
        (X_test, y_test), (X, y) = splitobs(
            (X, y), at=float(test_part), shuffle=True, stratified=y, rng=rng
        )
        _check_split(path, classes, y, y_test, test_part)
        held = f"{test_part:.0%} of each class held out, seed {seed}"
    else:
        _, X_test, y_test = read_folder(testing, side, classes, on_photo)
        held = f"tested on {quoted(testing)}"
    order = rng.permutation(y.size)
    X, y = X.T[order].T, y[order]
    sha256 = {"training pixels": _digest(X, y), "test pixels": _digest(X_test, y_test)}
    origin = f"photographs in {quoted(training)}, {side}x{side} pixels, {held}"
    name = Path(training).resolve()
    name = name.parent if name.name.lower() in TRAINING else name
    return Dataset(
        name.name, classes, X, y, X_test, y_test, sha256, origin, 1 / 255, FRAMING, (side, side)
    )


def find_parts(path: str | os.PathLike[str]) -> tuple[str, str | None]:
    """Return the folders of the training and the test photographs; None if there is no such split.

    Examples
    --------
    >>> os.makedirs("pets/train"), os.makedirs("pets/val")
    (None, None)
    >>> find_parts("pets"), find_parts("pets/train")
    (('pets/train', 'pets/val'), ('pets/train', None))
    """
    names = _folders(path)
    training = [name for name in names if name.lower() in TRAINING]
    testing = [name for want in HELD_OUT for name in names if name.lower() == want]
    if len(training) == 1 and testing:
        return os.path.join(path, training[0]), os.path.join(path, testing[0])
    return os.fspath(path), None


def read_folder(
    path: str | os.PathLike[str],
    side: int = SIDE,
    classes: Sequence[str] | None = None,
    on_photo: Callable[[int], None] | None = None,
) -> tuple[tuple[str, ...], NDArray[np.uint8], NDArray[np.int64]]:
    """Read all photographs in class folders, sorted by class and name, on all threads.

    Parameters
    ----------
    path, side, on_photo
        As for :func:`load_folder`.
    classes : sequence of str, optional
        The names of class 0, 1, ..., which the folders may have; by default the sorted names of
        the folders.

    Returns
    -------
    classes : tuple of str
        The names of the classes.
    X : ndarray of uint8
        The pixels, shape ``(side * side, n)``, Fortran-ordered.
    y : ndarray of int64
        The labels, shape ``(n,)``.
    """
    files = {name: list(_photographs(os.path.join(path, name))) for name in _folders(path)}
    files = {name: found for name, found in files.items() if found}
    names = tuple(files) if classes is None else tuple(classes)
    _check_classes(path, list(files), classes)
    labelled = [(file, names.index(name)) for name, found in files.items() for file in found]

    columns, labels = [], []
    results = _read_all([file for file, _ in labelled], side, on_photo)
    for result, (_, label) in zip(results, labelled, strict=True):
        if isinstance(result, CorruptFileError):
            warnings.warn(f"left out: {result}", InputWarning, stacklevel=2)
            continue
        columns.append(result)
        labels.append(label)
    missing = [name for name in files if names.index(name) not in labels]
    if missing:
        raise CorruptFileError(
            f"{quoted(path)}: expected a photograph that can be read in each class folder, got "
            f"none in {', '.join(map(quoted, missing))}; replace the files, or remove the folder"
        )
    return names, np.array(columns, np.uint8).T, np.array(labels, np.int64)


def _read_all(
    files: Sequence[str], side: int, on_photo: Callable[[int], None] | None
) -> list[NDArray[np.uint8] | CorruptFileError]:
    """Return the pixels of each file, or the error of a damaged one."""

    def read(file: str) -> NDArray[np.uint8] | CorruptFileError:
        try:
            return photos.read(file, FRAMING, side).pixels[:, 0]
        except CorruptFileError as error:
            return error

    results = []
    with warnings.catch_warnings(), blas_threads(1):
        photos.filter_warnings()  # every thread does so, and they share the filters
        for result in map_in_threads(read, cores(), files):
            results.append(result)
            if on_photo is not None:
                on_photo(1)
    return results


def _folders(path: str | os.PathLike[str]) -> list[str]:
    """Return the sorted names of the folders in a folder, without the hidden ones."""
    try:
        with os.scandir(path) as entries:
            return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    except OSError as error:
        raise InputError(
            f"cannot read {quoted(path)}: {error.strerror}; name a folder of class folders"
        ) from error


def _photographs(folder: str) -> Iterator[str]:
    """Yield the images in a class folder and in the folders in it, in order."""
    # A link may lead back, or to another class.
    for inside, names, _ in os.walk(folder):
        names[:] = sorted(name for name in names if not name.startswith("."))
        with suppress(InputError):  # a folder without images
            yield from photos.find(inside)


def _check_classes(
    path: str | os.PathLike[str], found: Sequence[str], classes: Sequence[str] | None
) -> None:
    """Raise InputError unless the folders are those of classes."""
    if classes is None and len(found) < 2:
        raise InputError(
            f"{quoted(path)}: expected a folder with photographs for each class, such as cat/1.jpg "
            f"and dog/1.jpg, got {len(found)} such folders; name the folder that has them"
        )
    if classes is not None and (not found or not set(found) <= set(classes)):
        raise InputError(
            f"{quoted(path)}: expected class folders with names among {', '.join(classes)}, got "
            f"{', '.join(found) or 'none'}; rename the folders"
        )


def _check_split(
    path: str | os.PathLike[str],
    classes: Sequence[str],
    y: NDArray[np.int64],
    y_test: NDArray[np.int64],
    test_part: float,
) -> None:
    """Raise InputError unless all classes are trained on, and something is tested."""
    left = [name for label, name in enumerate(classes) if label not in y]
    if left or y_test.size == 0:
        whom = f"train on {', '.join(left)}" if left else "test on"
        raise InputError(
            f"{quoted(path)}: expected enough photographs to hold out {test_part:.0%} of each "
            f"class, got {y.size + y_test.size} in {len(classes)} classes, none of them left to "
            f"{whom}; take more photographs, or hold out {'less' if left else 'more'}"
        )


def _digest(X: NDArray[np.uint8], y: NDArray[np.int64]) -> str:
    """Return the SHA-256 of pixels and labels, by which a resumed run knows its data."""
    return hashlib.sha256(X.T.tobytes() + y.astype("<i8").tobytes()).hexdigest()
