"""Data sets by name: found locally, downloaded and verified, or drawn by code."""

import hashlib
import json
import os
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from npsoftmax.data import idx
from npsoftmax.data.download import TIMEOUT_SECONDS, RemoteFile, fetch, verify
from npsoftmax.errors import CorruptFileError, DataUnavailableError, InputError, OutputError
from npsoftmax.files import publish, quoted, read_bytes, readable

__all__ = ["DATASETS", "NAMES", "Dataset", "acquire", "cache_folder", "class_names", "find", "load"]


@dataclass(frozen=True)
class DatasetSource:
    """A data set to download: one row of the table ``DATASETS``.

    A new data set needs a row with every attribute below, and nothing else.

    Attributes
    ----------
    name, classes : str, tuple of str
        Its name on the command line and that of its folder; the names of class 0, 1, ...
    files, contents : dict of str to RemoteFile
        The IDX files, compressed with gzip, and their uncompressed contents. The keys are
        ``train-images``, ``train-labels``, ``test-images`` and ``test-labels``.
    mirrors : tuple of str
        Base addresses, tried in this order.
    framing : str
        How the items were placed in the images, as in :class:`Dataset`.
    other_names : tuple of str
        Other names of its folder than spellings of ``name``.
    """

    name: str
    classes: tuple[str, ...]
    files: dict[str, RemoteFile]
    contents: dict[str, RemoteFile]
    mirrors: tuple[str, ...]
    framing: str
    other_names: tuple[str, ...] = ()


def _mnist_files(*pins: tuple[int, str], suffix: str = "") -> dict[str, RemoteFile]:
    """Return files with the names of MNIST from their sizes and hashes."""
    # Fashion-MNIST adopted these names; only the hash tells the two apart.
    names = {
        "train-images": "train-images-idx3-ubyte",
        "train-labels": "train-labels-idx1-ubyte",
        "test-images": "t10k-images-idx3-ubyte",
        "test-labels": "t10k-labels-idx1-ubyte",
    }
    pinned = zip(names.items(), pins, strict=True)
    return {role: RemoteFile(name + suffix, *pin) for (role, name), pin in pinned}


FASHION_MNIST = DatasetSource(
    name="fashion-mnist",
    classes=(
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    files=_mnist_files(
        (26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        (29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        (4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        (5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
        suffix=".gz",
    ),
    contents=_mnist_files(
        (47_040_016, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
        (60_008, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
        (7_840_016, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
        (10_008, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
    ),
    mirrors=(
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
    framing="bounding-box",
    other_names=("fashion",),  # in a clone of its repository
)

MNIST = DatasetSource(
    name="mnist",
    classes=tuple("0123456789"),
    files=_mnist_files(
        (9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
        (28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        (1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        (4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
        suffix=".gz",
    ),
    contents=_mnist_files(
        (47_040_016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
        (60_008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
        (7_840_016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
        (10_008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
    ),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    framing="centre-of-mass",
)

DATASETS = {source.name: source for source in (FASHION_MNIST, MNIST)}


def find(name: str) -> DatasetSource:
    """Return the row of a data set in ``DATASETS``; its name may be spelled as libraries do.

    Examples
    --------
    >>> find("FashionMNIST").name
    'fashion-mnist'
    """
    return DATASETS[_official(name, tuple(DATASETS))]


def _official(name: str, names: Sequence[str]) -> str:
    """Return that of some names which ``name`` spells, whatever its case and its marks."""
    found = [official for official in names if _letters(official) == _letters(str(name))]
    if found:
        return found[0]
    from difflib import get_close_matches

    near = get_close_matches(_letters(str(name)), map(_letters, names), 1)
    meant = next((official for official in names if _letters(official) in near), None)
    hint = f"; did you mean {meant!r}?" if meant else ""
    if str(name).endswith(".npz"):
        hint = "; SoftmaxRegression.load reads a model"
    raise InputError(f"data set: expected one of {', '.join(names)}, got {name!r}{hint}")


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))


def class_names(name: str) -> tuple[str, ...]:
    """Return the names of the classes of a data set, without its images."""
    if _official(name, NAMES) == "garments":
        from npsoftmax.data import garments

        return garments.CLASSES
    return find(name).classes


NAMES = (*DATASETS, "garments")
SHAPE = (28, 28)  # of all their images
# Number of images, and seed. 40 batches of 256: a short last batch would favour one of two similar
# classes.
_GARMENTS = {"train": (10_240, 0), "test": (2_000, 1)}


@dataclass(frozen=True, repr=False, eq=False)
class Dataset:
    """Samples and labels, split for training and testing.

    Attributes
    ----------
    name, classes : str, tuple of str
        One of ``NAMES``, or a name for your own arrays; the names of class 0, 1, ...
    X_train, X_test : ndarray
        Samples as columns, shape ``(d, n)``. The images of :func:`load` are ``uint8`` of shape
        ``(784, n)``, Fortran-ordered; ``X[:, j].reshape(28, 28)`` is upright.
    y_train, y_test : ndarray of int64
        Labels, shape ``(n,)``.
    sha256, origin : dict of str to str, str
        The SHA-256 of the files with the data, by file name; where the data came from.
    pixel_scale, framing : float or None, str or None
        For :class:`npsoftmax.SoftmaxRegression`: the factor of pixels, and how the items were
        placed in the images. None if the samples are not images.
    shape : tuple of int or None
        Height and width of the images, for :meth:`npsoftmax.features.Patches.fit`.
    feature_names : tuple of str or None
        The names of the ``d`` numbers of a sample, such as the columns of a table.

    Examples
    --------
    A data set from your own arrays:

    >>> X, y = np.zeros((784, 6), np.uint8), np.array([0, 1, 0, 1, 0, 1])
    >>> Dataset("mine", ("cat", "dog"), X[:, :4], y[:4], X[:, 4:], y[4:])
    Dataset(mine: 4 training and 2 test samples of 784 uint8, 2 classes)
    """

    name: str
    classes: tuple[str, ...]
    X_train: NDArray[Any]
    y_train: NDArray[np.int64]
    X_test: NDArray[Any]
    y_test: NDArray[np.int64]
    sha256: dict[str, str] = field(default_factory=dict)
    origin: str = ""
    pixel_scale: float | None = None
    framing: str | None = None
    shape: tuple[int, ...] | None = None
    feature_names: tuple[str, ...] | None = None

    def __repr__(self) -> str:
        # Nothing has checked the arrays: None has the shape (), and a list has no dtype.
        n, n_test = (sum(np.shape(X)[-1:]) for X in (self.X_train, self.X_test))
        sample = [*np.shape(self.X_train)[:-1], getattr(self.X_train, "dtype", "numbers")]
        return (
            f"{type(self).__name__}({self.name}: {n} training and {n_test} test samples of "
            f"{' '.join(map(str, sample))}, {len(self.classes)} classes)"
        )


def load(
    name: str = "fashion-mnist",
    data_dir: str | os.PathLike[str] | None = None,
    mirrors: Sequence[str] = (),
    offline: bool | None = None,
    progress: bool = False,
) -> Dataset:
    """Load a data set by its name, as a :class:`Dataset`.

    Its four files are looked for in ``data_dir/name`` and ``data_dir``, in the folders that
    torchvision and Keras make there, in the user's cache folder, and where these two store them by
    default. They may be compressed with gzip or not. Their SHA-256 decides, not their names.
    Missing files are downloaded. Unpacked copies are kept in the user's cache folder; a copy
    that does not match the checksum in its ``.gz`` file is unpacked again.
    The images of ``garments`` are drawn on first use and kept there too.

    If a file is missing and cannot be downloaded, DataUnavailableError is raised; if an existing
    file is damaged or has other content, and cannot be replaced, CorruptFileError is raised.

    Parameters
    ----------
    name : str
        ``"fashion-mnist"``, ``"mnist"``, or ``"garments"``, which is drawn by code.
    data_dir : path, optional
        A data folder, which may be read-only if it is complete; files are downloaded to
        ``data_dir/name``. Default: ``$NPSOFTMAX_DATA``, else the user's cache folder.
    mirrors : sequence of str
        Base addresses to try before the built-in ones.
    offline : bool, optional
        Whether to avoid the network. Default: true if ``$NPSOFTMAX_OFFLINE`` is set to 1.
    progress : bool
        Whether to show a progress bar on stderr while downloading.

    Examples
    --------
    >>> data = load("garments")
    >>> data.X_train.shape, data.X_train.dtype, data.classes[9]
    ((784, 10240), dtype('uint8'), 'Ankle boot')
    """
    name = _official(name, NAMES)
    if name == "garments":
        return _load_garments()
    source = find(name)
    paths, origin = acquire(source, source.files, data_dir, mirrors, offline, progress)
    copies = cache_folder() / "unpacked" / name
    arrays, reused = {}, []
    for role, path in paths.items():
        if _is_compressed(path):
            arrays[role], was_there = _unpack(path, copies / source.contents[role].name)
            reused.append(was_there)
        else:
            arrays[role] = idx.memory_map(path)
    sha256 = {file.name: file.sha256 for file in source.files.values()}
    if reused:
        origin = f"{origin}; {sum(reused)} of {len(reused)} unpacked copies reused"
    return _dataset(name, source.classes, source.framing, arrays, sha256, origin)


def acquire(
    source: DatasetSource,
    files: dict[str, RemoteFile],
    data_dir: str | os.PathLike[str] | None = None,
    mirrors: Sequence[str] = (),
    offline: bool | None = None,
    progress: bool = False,
    timeout: float = TIMEOUT_SECONDS,
) -> tuple[dict[str, Path], str]:
    """Find or download the files of a data set; return their verified paths by role.

    A file that was found may be compressed or not. The second result describes where the files
    came from.

    Parameters
    ----------
    source : DatasetSource
        The data set.
    files : dict of str to RemoteFile
        The files of ``source`` that are needed, by role.
    data_dir, mirrors, offline, progress
        See :func:`load`.
    timeout : float
        Seconds for the download of each file; see :func:`npsoftmax.data.download.fetch`.
    """
    if isinstance(mirrors, str):
        raise InputError(f"mirrors: expected a sequence of addresses, got {mirrors!r}; write [...]")
    named = data_dir or os.environ.get("NPSOFTMAX_DATA")
    home = _expand(named or cache_folder()) / source.name
    if os.path.isfile(home.parent):
        raise InputError(
            f"data folder: expected a folder, got the file {quoted(home.parent)}; name the folder "
            "that it is in, or unpack it"
        )
    if offline is None:
        offline = os.environ.get("NPSOFTMAX_OFFLINE", "").lower() not in ("", "0", "false", "no")
    roots = [home.parent, cache_folder(), *map(_expand, _OTHER_ROOTS)]
    copies = {role: _find_copy(source, role, roots, bool(named)) for role in files}
    paths = {role: path for role, path in copies.items() if path}
    places = sorted({path.parent for path in paths.values()})
    missing = {role: file for role, file in files.items() if role not in paths}
    if offline and missing:
        raise _missing_error(source, list(missing.values()), home, "offline")
    for role, file in missing.items():
        paths[role] = home / file.name
        try:
            fetch(
                file,
                home,
                [*mirrors, *source.mirrors],
                timeout=timeout,
                progress=progress,
                identify=partial(_other_dataset, file.name),
            )
        except DataUnavailableError as error:
            # Another process may have downloaded it in the meantime.
            if verify(paths[role], file):
                left = [each for each in missing.values() if verify(home / each.name, each)]
                raise _missing_error(source, left, home, str(error)) from error
    states = [f"found in {' and '.join(map(quoted, places))}"] if places else []
    states += [f"{len(missing)} files downloaded to {quoted(home)}"] if missing else []
    return {role: paths[role] for role in files}, f"{', '.join(states)}, SHA-256 verified"


def cache_folder() -> Path:
    """Return the user's cache folder for this package, which may not exist yet."""
    from platformdirs import user_cache_dir

    try:
        return Path(user_cache_dir("npsoftmax"))
    except RuntimeError:  # a user without a home folder, as in some containers
        import tempfile

        return Path(tempfile.gettempdir(), "npsoftmax")


def _expand(folder: str | os.PathLike[str]) -> Path:
    # os.path keeps a ~ that it cannot resolve; pathlib raises.
    return Path(os.path.expanduser(folder))


# Where torchvision and Keras store data sets by default.
_OTHER_ROOTS = ("data", "~/.keras/datasets")


def _find_copy(source: DatasetSource, role: str, roots: Sequence[Path], named: bool) -> Path | None:
    """Return a file with the right content, if there is one in some data folders.

    If the user named the first one and it holds another file under such a name, raise
    CorruptFileError: what was pointed at is not replaced by what is found elsewhere.
    """
    file, content = source.files[role], source.contents[role]
    for root in roots:
        others = []
        for path in _candidates(source, file, root):
            if _is_copy(path, file, content):
                return path
            # A wrong file where downloads go is described, or replaced by a download.
            if path != root / source.name / file.name and os.path.isfile(path):
                others.append(path)
        if named and others and root is roots[0]:
            with readable(others[0]) as stream:
                remark = _other_dataset(file.name, stream)
            raise CorruptFileError(
                f"{source.name}: {quoted(others[0])}: expected {file} or its content, got another "
                f"file{remark}; name the data set or the folder that you mean, or remove the file"
            )
    return None


def _candidates(source: DatasetSource, file: RemoteFile, root: Path) -> Iterator[Path]:
    """Yield where a file may be in a data folder: first where it is downloaded to.

    Other programs name folders FashionMNIST/raw and files train-images.idx3-ubyte, and unpack each
    file into a folder of its own.
    """
    yield root / source.name / file.name
    pattern = re.sub("-(idx[13]).*", r"[-.]\1*", file.name)
    names = {_letters(name) for name in (source.name, *source.other_names)}
    with suppress(OSError, ValueError):  # a folder that is missing, or must not be read
        inside = (path for base in ("", "data", "datasets") for path in (root / base).glob("*/"))
        for folder in (root, *sorted(path for path in inside if _letters(path.name) in names)):
            for place in ("", f"{pattern}/"):
                yield from sorted(folder.glob(place + pattern))
                yield from sorted((folder / "raw").glob(place + pattern))


def _is_copy(path: Path, file: RemoteFile, content: RemoteFile) -> bool:
    """Return whether a file is ``file`` or ``content``, or that content compressed by others."""
    if verify(path, file) is None or verify(path, content) is None:
        return True
    try:
        unpacked = idx.unpack(read_bytes(path, content.size + 2**16), path, content.size)
    except (InputError, CorruptFileError):
        return False
    return hashlib.sha256(unpacked).hexdigest() == content.sha256


def _missing_error(
    source: DatasetSource, missing: Sequence[RemoteFile], home: Path, cause: str
) -> CorruptFileError | DataUnavailableError:
    """Return the error for files that are missing or wrong: what, the ways out, and the causes."""
    reasons = []
    for file in missing:
        path = home / file.name
        reason = str(verify(path, file))
        with suppress(InputError), readable(path) as stream:
            reason += _other_dataset(file.name, stream)
        if not reason.endswith(" is missing"):  # the first line says so
            reasons.append(reason)
    wrong = [file for file in missing if os.path.lexists(home / file.name)]
    what = f"{len(missing)} files are" if len(missing) > 1 else f"{missing[0].name} is"
    state = "damaged or another file" if wrong else "not on this machine"
    failed = "and the network is not used" if cause == "offline" else "and the download failed"
    files = ", ".join(map(str, missing))
    kind = CorruptFileError if wrong else DataUnavailableError
    return kind(
        f"{source.name}: {what} {state}, {failed}\n"
        "name a folder that has them by --data-dir or NPSOFTMAX_DATA (in Python: data_dir), or an "
        f"address by --mirror-url (mirrors){'; or go online' * (cause == 'offline')}\n"
        f"{'; '.join([*reasons, cause])}; put {files} into {quoted(home)}"
    )


def _other_dataset(name: str, stream: BinaryIO) -> str:
    """Return a remark if the content is that of the file ``name`` in a known data set."""
    for source in DATASETS.values():
        for role, file in source.files.items():
            known = (file, source.contents[role])
            if name == file.name and any(each.mismatch(stream) is None for each in known):
                return f" (it is the file of {source.name})"
    return ""


def _is_compressed(path: Path) -> bool:
    with readable(path) as file:
        return file.read(2) == b"\x1f\x8b"


def _unpack(path: Path, copy: Path) -> tuple[NDArray[Any], bool]:
    """Return the array in a verified gzip file, and whether its unpacked copy was reused.

    A copy is mapped into memory: unused parts are not loaded, and processes share the rest.
    """
    with open(path, "rb") as file:
        file.seek(-8, os.SEEK_END)
        # A gzip file ends with the CRC-32 and the length of its content (RFC 1952).
        checksum, size = struct.unpack("<II", file.read(8))
    with suppress(InputError, CorruptFileError):  # a missing or unreadable copy
        array = idx.memory_map(copy)
        length = len(idx.header_bytes(array)) + array.nbytes
        if (_crc32(array), length) == (checksum, size):
            return array, True
    content = idx.unpack(path.read_bytes(), path)
    # If the copy cannot be stored, the next start unpacks again.
    with suppress(OutputError), publish(copy) as target:
        target.write(content)
    return idx.parse(content, path), False


def _crc32(array: NDArray[Any]) -> int:
    """Return the CRC-32 of the IDX file of an array."""
    return zlib.crc32(array.data, zlib.crc32(idx.header_bytes(array)))


def _dataset(
    name: str,
    classes: tuple[str, ...],
    framing: str,
    arrays: dict[str, NDArray[Any]],
    sha256: dict[str, str],
    origin: str,
) -> Dataset:
    """Return the data set of four IDX arrays: images as columns, labels as int64."""
    X = [arrays[f"{part}-images"] for part in ("train", "test")]
    X_train, X_test = (images.reshape(len(images), -1).T for images in X)
    y_train, y_test = (arrays[f"{part}-labels"].astype(np.int64) for part in ("train", "test"))
    return Dataset(
        name, classes, X_train, y_train, X_test, y_test, sha256, origin, 1 / 255, framing, SHAPE
    )


def _load_garments() -> Dataset:
    """Draw the embedded data set, or reuse the images that an earlier start has stored."""
    from npsoftmax.data import garments

    origin = "drawn by npsoftmax.data.garments, seeds 0 and 1"
    folder, edition = cache_folder() / "drawn" / "garments", f"{garments.edition()} {_GARMENTS}"
    arrays = _read_drawn(folder, edition)
    if arrays:
        origin = f"{origin}, by an earlier start; reused from {folder}"
    else:
        for part, (number, seed) in _GARMENTS.items():
            X, y = garments.generate(number, seed)
            X.setflags(write=False)  # as the stored images are
            arrays[f"{part}-images"], arrays[f"{part}-labels"] = X.T, y
        # If the images cannot be stored, the next start draws again.
        with suppress(OutputError):
            for role, array in arrays.items():
                idx.write(folder / role, array)
            with publish(folder / "checksums.json") as file:
                file.write(_checksums(arrays, edition))
    return _dataset("garments", garments.CLASSES, FASHION_MNIST.framing, arrays, {}, origin)


def _read_drawn(folder: Path, edition: str) -> dict[str, NDArray[Any]]:
    """Return the stored arrays by role, mapped into memory; empty unless all are valid."""
    roles = [f"{part}-{kind}" for part in _GARMENTS for kind in ("images", "labels")]
    with suppress(InputError, CorruptFileError):  # missing or unreadable files
        arrays = {role: idx.memory_map(folder / role) for role in roles}
        expected = _checksums(arrays, edition)
        if read_bytes(folder / "checksums.json", len(expected)) == expected:
            return arrays
    return {}


def _checksums(arrays: dict[str, NDArray[Any]], edition: str) -> bytes:
    """Return the content of the file that detects damaged images, and images of other code."""
    checksums = {role: _crc32(array) for role, array in arrays.items()}
    return json.dumps({"edition": edition, "crc32": checksums}).encode()
