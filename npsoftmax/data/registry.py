"""The data sets that can be had by name: files, sizes, hashes, mirrors, class names."""

from dataclasses import dataclass

from npsoftmax.data.remote_file import RemoteFile
from npsoftmax.errors import InputError

__all__ = ["DATASETS", "DatasetSource", "find"]


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
