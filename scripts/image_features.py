"""What ``train.py`` and ``sweep.py`` share: the images to train on, and the features of images."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import command_line

from npsoftmax.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    import npsoftmax
    from npsoftmax.features import FeatureMap

RECIPES = ("pixels", "patches", "patches+fourier")
# l2 = PRIOR / n is the same prior of the weights for any number n of images. On held-out training
# images of Fashion-MNIST and of photographs, the best of l2 n were 0.015 and 0.008 to 0.02.
PRIOR = {"pixels": 0.0, "patches": 0.015, "patches+fourier": 0.015}
FOURIER_IMAGES = 2_000  # whose mean and spread the Fourier features are fitted to


def add_flags(flags: argparse.ArgumentParser) -> None:
    """Add the flags of the images and their features."""
    group = flags.add_argument_group("images")
    group.add_argument("--data", metavar="FOLDER", type=command_line.path,
        help="photographs in class folders, such as FOLDER/cat/1.jpg, in place of a data set; "
        "needs Pillow")  # fmt: skip
    group.add_argument("--held-out", metavar="F", type=float,
        help="with --data: fraction of each class to test on, default 0.1; a folder with folders "
        "train and validation, val or test is split by these")  # fmt: skip
    group.add_argument("--features", choices=RECIPES,
        help="what the model sees of an image: its pixels (default), random patches in it (default "
        "with --data), or a kernel on these")  # fmt: skip
    group.add_argument("--mirror", action=argparse.BooleanOptionalAction, default=None,
        help="features that an image and its mirror image share; default with --data")  # fmt: skip


def complete(args: argparse.Namespace) -> None:
    """Fill in the defaults, and reject flags that do not belong together."""
    if args.data is None and args.held_out is not None:
        raise InputError(
            "--held-out: expected it with --data, got it alone; a data set has test images"
        )
    if args.data is not None and args.dataset is not None:
        raise InputError(
            "--data: expected it without --dataset, got both; leave out the one you do not mean"
        )
    photographs = args.data is not None
    args.held_out = 0.1 if photographs and args.held_out is None else args.held_out
    if args.features is None:
        args.features = "patches" if photographs else "pixels"
    if args.features == "pixels" and args.mirror:
        raise InputError("--mirror: expected it with --features patches, got pixels; leave it out")
    distributed = getattr(args, "workers", None) or getattr(args, "scheduler", None)
    if distributed and (photographs or args.features != "pixels"):
        raise InputError(
            "--workers and --scheduler: expected the pixels of a data set, got photographs or "
            "other features; leave the cluster out, one machine takes less than a minute"
        )
    if args.mirror is None:
        args.mirror = photographs and args.features != "pixels"


def load_photographs(args: argparse.Namespace) -> "npsoftmax.Dataset":
    """Read the class folders of ``--data``."""
    folders = command_line.import_extra("npsoftmax.ext.folders", "--data: ")
    with progress(args, None, "photographs") as on_photo:
        data: npsoftmax.Dataset = folders.load_folder(
            args.data, held_out=args.held_out, seed=args.seed, on_photo=on_photo
        )
    return data


def holds_out(args: argparse.Namespace) -> bool:
    """Return whether the test photographs are a part of those to train on."""
    if args.data is None:
        return False
    from npsoftmax.ext import folders

    return folders.find_parts(args.data)[1] is None


def learn(
    args: argparse.Namespace, shape: tuple[int, ...] | None, X: "NDArray[Any]"
) -> "FeatureMap | None":
    """Return the map that ``--features`` names, learned from training images and the seed."""
    from npsoftmax.features import Chain, Patches, RandomFourier

    if args.features == "pixels":
        return None
    shape = shape or (28, 28)
    size = round(6 / 28 * shape[0])  # of a patch: 10 pixels of 48
    patches = Patches.fit(X, shape, size=size, mirror=args.mirror, seed=args.seed)
    if args.features == "patches":
        return patches
    some = X[:, :: -(-X.shape[1] // FOURIER_IMAGES)]
    fourier = RandomFourier.fit(patches(some, scale=1 / 255, threads=threads(args)), seed=args.seed)
    return Chain((patches, fourier))


def choose_l2(args: argparse.Namespace, num_images: int) -> float:
    """Return the penalty of ``--l2``, or the recipe's."""
    if args.l2 is not None:
        return float(args.l2)
    return float(f"{PRIOR[args.features] / num_images:.2g}")


def weights(
    args: argparse.Namespace, y: "NDArray[Any]", classes: Sequence[str]
) -> "NDArray[Any] | None":
    """Return the weights of images with these labels; None if all are 1."""
    if args.class_weight is None:
        return None
    from npsoftmax._checks import weights_of_classes

    return weights_of_classes(args.class_weight, y, classes)


def extract(
    args: argparse.Namespace, model: "npsoftmax.SoftmaxRegression", X: "NDArray[Any]"
) -> "NDArray[Any]":
    """Return the features of images, with a progress bar on a terminal."""
    if model.features is None:
        return X
    with progress(args, X.shape[1], "features") as on_block:
        return model.extract(X, threads(args), on_block, dtype="float16")


def threads(args: argparse.Namespace) -> int:
    """Return the number of threads for the features: those of the flags, else one a core."""
    from npsoftmax._threads import cores

    return args.threads or cores()


@contextmanager
def progress(
    args: argparse.Namespace, total: int | None, name: str
) -> Iterator[Callable[[int], Any] | None]:
    """Yield what advances a bar on a terminal, or None."""
    if not command_line.wants_bar(args):
        yield None
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=name, unit="image", leave=False) as bar:
        yield bar.update
