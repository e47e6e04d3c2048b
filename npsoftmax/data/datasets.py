"""Data sets by name: found on this machine, downloaded, or drawn; always verified."""

import os
import struct
import tempfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from npsoftmax.data import idx
from npsoftmax.data.download import TIMEOUT_SECONDS, RemoteFile, fetch, plan, verify
from npsoftmax.errors import CorruptFileError, DataUnavailableError, InputError, OutputError
from npsoftmax.files import publish, readable

__all__ = ["DATASETS", "Dataset", "DatasetSource", "NAMES", "acquire", "find", "load"]


# The data sets that can be had by name: files, sizes, hashes, mirrors, class names.


@dataclass(frozen=True)
class DatasetSource:
    """Where a data set comes from and what it must be.

    Attributes
    ----------
    name : str
        As on the command line, and the folder below a data folder.
    classes : tuple of str
        The name of class 0, 1, ...
    files : dict of str to RemoteFile
        By role: ``train-images``, ``train-labels``, ``test-images``, ``test-labels``.
    mirrors : tuple of str
        Base addresses, tried in this order.
    other_homes : tuple of str
        Folders where other libraries leave the same files, ``~`` being the home folder.
    """

    name: str
    classes: tuple[str, ...]
    files: dict[str, RemoteFile]
    mirrors: tuple[str, ...]
    other_homes: tuple[str, ...]


# Fashion-MNIST took over MNIST's file names; only size and hash tell the two apart.
FASHION_MNIST = DatasetSource(
    name="fashion-mnist",
    classes=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    files={
        "train-images": RemoteFile(
            "train-images-idx3-ubyte.gz",
            26_421_880,
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        ),
        "train-labels": RemoteFile(
            "train-labels-idx1-ubyte.gz",
            29_515,
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        ),
        "test-images": RemoteFile(
            "t10k-images-idx3-ubyte.gz",
            4_422_102,
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        ),
        "test-labels": RemoteFile(
            "t10k-labels-idx1-ubyte.gz",
            5_148,
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    },
    mirrors=(
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
    other_homes=("data/FashionMNIST/raw", "~/.keras/datasets/fashion-mnist"),
)

MNIST = DatasetSource(
    name="mnist",
    classes=tuple("0123456789"),
    files={
        "train-images": RemoteFile(
            "train-images-idx3-ubyte.gz",
            9_912_422,
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        "train-labels": RemoteFile(
            "train-labels-idx1-ubyte.gz",
            28_881,
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        ),
        "test-images": RemoteFile(
            "t10k-images-idx3-ubyte.gz",
            1_648_877,
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
        "test-labels": RemoteFile(
            "t10k-labels-idx1-ubyte.gz",
            4_542,
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    },
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    other_homes=("data/MNIST/raw",),
)

DATASETS = {source.name: source for source in (FASHION_MNIST, MNIST)}


def find(name: str) -> DatasetSource:
    """Return the source of a data set by its name.

    Parameters
    ----------
    name : str
        ``"fashion-mnist"`` or ``"mnist"``.

    Returns
    -------
    DatasetSource

    Raises
    ------
    InputError
        There is no such data set to download.

    Examples
    --------
    >>> find("mnist").classes[7]
    '7'
    """
    if name not in DATASETS:
        raise InputError(f"data set: expected one of {', '.join(DATASETS)}, got {name!r}")
    return DATASETS[name]


NAMES = (*DATASETS, "garments")
# 40 batches of 256: a short last batch would swing the look-alike classes.
_GARMENTS_SIZES = {"train": 10_240, "test": 2_000}


@dataclass(frozen=True)
class Dataset:
    """Images and labels, split for training and testing.

    Attributes
    ----------
    name : str
        One of ``NAMES``.
    classes : tuple of str
        The name of class 0, 1, ...
    X_train, X_test : ndarray of uint8
        Images as columns, shape ``(784, n)``, Fortran-ordered; ``X[:, j].reshape(28, 28)`` is
        upright.
    y_train, y_test : ndarray of int64
        Labels, shape ``(n,)``.
    sha256 : dict of str to str
        The hash of each file that the data came from, by file name.
    origin : str
        Where the data came from, for people.
    """

    name: str
    classes: tuple[str, ...]
    X_train: NDArray[np.uint8]
    y_train: NDArray[np.int64]
    X_test: NDArray[np.uint8]
    y_test: NDArray[np.int64]
    sha256: dict[str, str]
    origin: str


def load(
    name: str = "fashion-mnist",
    data_dir: str | os.PathLike[str] | None = None,
    mirrors: Sequence[str] = (),
    offline: bool | None = None,
    progress: bool = False,
) -> Dataset:
    """Load a data set by its name.

    The compressed files are looked for in ``data_dir/name``, in the user's cache folder, and
    where torchvision and Keras leave them, and count only if their SHA-256 is the pinned one.
    What is missing is downloaded. Unpacked copies are kept in the user's cache folder; a copy
    that does not match the checksum in its ``.gz`` file is made anew.

    Parameters
    ----------
    name : str
        ``"fashion-mnist"``, ``"mnist"``, or ``"garments"``, which is drawn by code.
    data_dir : path, optional
        Else ``$NPSOFTMAX_DATA``, else the user's cache folder. May be read-only if it is complete.
    mirrors : sequence of str
        Base addresses to try before the built-in ones.
    offline : bool, optional
        Never open a socket; else as ``$NPSOFTMAX_OFFLINE`` says (1 for yes).
    progress : bool
        Show a bar on stderr while downloading.

    Returns
    -------
    Dataset

    Raises
    ------
    InputError
        There is no data set of this name.
    DataUnavailableError
        A file lies nowhere on this machine and could not be downloaded.
    CorruptFileError
        The file in its place is another or damaged, and could not be replaced.

    Examples
    --------
    >>> data = load("garments")
    >>> data.X_train.shape, data.X_train.dtype, data.classes[9]
    ((784, 10240), dtype('uint8'), 'Ankle boot')
    """
    if name not in NAMES:
        raise InputError(f"data set: expected one of {', '.join(NAMES)}, got {name!r}")
    if name == "garments":
        return _draw_garments()
    source = find(name)
    paths, origin = acquire(source, source.files, data_dir, mirrors, offline, progress)
    copies = cache_folder() / "unpacked" / name
    arrays, num_reused = {}, 0
    for role, path in paths.items():
        arrays[role], reused = _unpacked(path, copies)
        num_reused += reused
    return Dataset(
        name,
        source.classes,
        X_train=_as_columns(arrays["train-images"]),
        y_train=arrays["train-labels"].astype(np.int64),
        X_test=_as_columns(arrays["test-images"]),
        y_test=arrays["test-labels"].astype(np.int64),
        sha256={file.name: file.sha256 for file in source.files.values()},
        origin=f"{origin}; {num_reused} of {len(paths)} unpacked copies reused",
    )


def acquire(
    source: DatasetSource,
    files: dict[str, RemoteFile],
    data_dir: str | os.PathLike[str] | None = None,
    mirrors: Sequence[str] = (),
    offline: bool | None = None,
    progress: bool = False,
    timeout: float = TIMEOUT_SECONDS,
) -> tuple[dict[str, Path], str]:
    """Find or download the compressed files of a data set.

    Parameters
    ----------
    source : DatasetSource
        The data set.
    files : dict of str to RemoteFile
        Those of its files that are wanted, by role.
    data_dir, mirrors, offline, progress
        As for :func:`load`.
    timeout : float
        Seconds for the download of each file, as for :func:`npsoftmax.data.download.fetch`.

    Returns
    -------
    paths : dict of str to Path
        Where each file lies, by role; each was verified just now.
    origin : str
        Where the files came from, for people.

    Raises
    ------
    InputError
        The mirrors are a single text.
    DataUnavailableError
        A file lies nowhere on this machine and could not be downloaded.
    CorruptFileError
        The file in its place is another or damaged, and could not be replaced.
    """
    if isinstance(mirrors, str):
        raise InputError(f"mirrors: expected a sequence of addresses, got {mirrors!r}; write [...]")
    home = _home(source, data_dir)
    if offline is None:
        offline = os.environ.get("NPSOFTMAX_OFFLINE", "").lower() not in ("", "0", "false", "no")
    folders = [home, cache_folder() / source.name, *map(_expanded, source.other_homes)]
    paths = {role: _whole_copy(file, folders) for role, file in files.items()}
    missing = {role: file for role, file in files.items() if paths[role] is None}
    if offline and missing:
        files_in_words = ", ".join(map(str, missing.values()))
        cause = f"offline; put {files_in_words} into {home}, or go online"
        raise _missing_error(source, list(missing.values()), home, cause)
    for role, file in missing.items():
        try:
            paths[role] = fetch(
                file,
                home,
                [*mirrors, *source.mirrors],
                timeout=timeout,
                progress=progress,
                identify=partial(_other_dataset, file.name),
            )
        except DataUnavailableError as error:
            # Another process may have brought it meanwhile.
            if plan(home / file.name, file, offline=True).action != "use":
                raise _missing_error(source, [file], home, str(error)) from error
            paths[role] = home / file.name
    places = {path.parent for role, path in paths.items() if path and role not in missing}
    states = [f"found in {' and '.join(map(str, sorted(places)))}"] if places else []
    states += [f"{len(missing)} files downloaded to {home}"] if missing else []
    return (
        {role: path for role, path in paths.items() if path},
        f"{', '.join(states)}, SHA-256 verified",
    )


def cache_folder() -> Path:
    """Return the user's cache folder for this package, which need not exist."""
    from platformdirs import user_cache_dir

    try:
        return Path(user_cache_dir("npsoftmax"))
    except RuntimeError:  # a user without a home folder, as in some containers
        return Path(tempfile.gettempdir(), "npsoftmax")


def _home(source: DatasetSource, data_dir: str | os.PathLike[str] | None) -> Path:
    """Return the folder that files of this data set belong in."""
    chosen = data_dir or os.environ.get("NPSOFTMAX_DATA") or cache_folder()
    return _expanded(chosen) / source.name


def _expanded(folder: str | os.PathLike[str]) -> Path:
    # os.path leaves a ~ that it cannot resolve; pathlib raises.
    return Path(os.path.expanduser(folder))


def _whole_copy(file: RemoteFile, folders: Sequence[Path]) -> Path | None:
    for folder in folders:
        if plan(folder / file.name, file, offline=True).action == "use":
            return folder / file.name
    return None


def _missing_error(
    source: DatasetSource, missing: list[RemoteFile], home: Path, cause: str
) -> CorruptFileError | DataUnavailableError:
    """Say what is missing or wrong, and why it stays so."""
    reasons = "; ".join(_complaint(home / file.name, file) for file in missing)
    wrong = any(os.path.lexists(home / file.name) for file in missing)
    kind = CorruptFileError if wrong else DataUnavailableError
    return kind(f"{source.name}: {reasons}; {cause}")


def _complaint(path: Path, file: RemoteFile) -> str:
    text = str(verify(path, file))
    with suppress(InputError), readable(path) as stream:
        text += _other_dataset(file.name, stream)
    return text


def _other_dataset(name: str, stream: BinaryIO) -> str:
    """Name the data set that a file belongs to: MNIST and Fashion-MNIST share file names."""
    for other in DATASETS.values():
        for file in other.files.values():
            if name == file.name and file.mismatch(stream) is None:
                return f" (it is the file of {other.name})"
    return ""


def _unpacked(path: Path, folder: Path) -> tuple[NDArray[Any], bool]:
    """Return the array in a verified ``.gz`` file, and whether a whole copy of it was there.

    A copy is mapped into memory: what is not used is not held, and processes share the rest.
    """
    copy = folder / path.stem
    with open(path, "rb") as file:
        file.seek(-8, os.SEEK_END)
        # A gzip file ends with the CRC-32 and the length of its content (RFC 1952).
        checksum, size = struct.unpack("<II", file.read(8))
    with suppress(InputError, CorruptFileError):  # no copy, or none that can be read
        array = idx.memory_map(copy)
        header = idx.header_bytes(array)
        found = zlib.crc32(array.data, zlib.crc32(header)), len(header) + array.nbytes
        if found == (checksum, size):
            return array, True
    content = idx.unpack(path.read_bytes(), path)
    # Without a place to keep the copy, the next start just unpacks again.
    with suppress(OutputError), publish(copy) as target:
        target.write(content)
    return idx.parse(content, path), False


def _as_columns(images: NDArray[Any]) -> NDArray[Any]:
    columns: NDArray[Any] = images.reshape(len(images), -1).T
    return columns


def _draw_garments() -> Dataset:
    from npsoftmax.data import garments

    X_train, y_train = garments.generate(_GARMENTS_SIZES["train"], seed=0)
    X_test, y_test = garments.generate(_GARMENTS_SIZES["test"], seed=1)
    return Dataset(
        "garments",
        garments.CLASSES,
        X_train,
        y_train.astype(np.int64),
        X_test,
        y_test.astype(np.int64),
        sha256={},
        origin="drawn by npsoftmax.data.garments, seeds 0 and 1",
    )
