"""What ``train`` and ``sweep`` share: the samples to train on, and their features."""

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from npsoftmax.commands import command_line, own_data
from npsoftmax.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    import npsoftmax
    from npsoftmax.features import FeatureMap

RECIPES = ("pixels", "patches", "patches+fourier")
# l2 = PRIOR * (mean square length) / n is the same prior of the logits for any number n of samples.
# On held-out images of Fashion-MNIST and on photographs, whose features have length 1, the best
# were 0.015 and 0.008 to 0.02. Of data of your own, docs/own_data.md has them.
PRIOR, OWN_PRIOR = 0.015, 0.03
FOURIER_IMAGES = 2_000  # whose mean and spread the Fourier features are fitted to


def add_flags(flags: argparse.ArgumentParser) -> None:
    """Add the flags of data of your own, and of the features of images."""
    own_data.add_flags(flags)
    group = flags.add_argument_group("images")
    group.add_argument("--features", choices=RECIPES,
        help="what the model sees of an image: its pixels (default), random patches in it (default "
        "for photographs), or a kernel on these")  # fmt: skip
    group.add_argument("--mirror", action=argparse.BooleanOptionalAction, default=None,
        help="features that an image and its mirror image share; default for "
        "photographs")  # fmt: skip


def complete(args: argparse.Namespace) -> None:
    """Fill in the defaults, and reject flags that do not belong together."""
    own_data.complete(args)
    photographs = args.data is not None and own_data.kind_of(args.data) == "photographs"
    if args.features is None:
        args.features = "patches" if photographs else "pixels"
    if args.features == "pixels" and args.mirror:
        raise InputError("--mirror: expected it with --features patches, got pixels; leave it out")
    distributed = getattr(args, "workers", None) or getattr(args, "scheduler", None)
    if distributed and (args.data is not None or args.features != "pixels"):
        raise InputError(
            "--workers and --scheduler: expected the pixels of a data set, got data of your "
            "own or other features; leave the cluster out, one machine takes less than a minute"
        )
    if args.mirror is None:
        args.mirror = photographs and args.features != "pixels"


def load(args: argparse.Namespace) -> "npsoftmax.Dataset":
    """Read the data of ``--data``."""
    if own_data.kind_of(args.data) != "photographs":
        return own_data.load(args)
    folders = command_line.import_extra("npsoftmax.ext.folders", "--data: ")
    with progress(args, None, "photographs") as on_photo:
        data: npsoftmax.Dataset = folders.load_folder(
            args.data,
            test_part=args.test_part,
            seed=args.seed,
            on_photo=on_photo,
            test=args.test,
        )
    return data


def holds_out(args: argparse.Namespace) -> bool:
    """Return whether the test photographs are a part of those to train on."""
    if args.data is None or args.test is not None or not os.path.isdir(args.data):
        return False
    from npsoftmax.ext import folders

    return folders.find_parts(args.data)[1] is None


def learn(
    args: argparse.Namespace, shape: tuple[int, ...] | None, X: "NDArray[Any]"
) -> "FeatureMap | None":
    """Return the map that ``--features`` names, learned from training images and the seed."""
    from npsoftmax.features import Chain, Patches, RandomFourier

    if args.features == "pixels":
        return own_data.scaling(args, X, 1.0 if shape is None else 1 / 255)
    if args.data is not None and shape is None:
        raise InputError("--features: expected images, got numbers of other kinds; leave it out")
    shape = shape or (28, 28)
    size = round(6 / 28 * shape[0])  # of a patch: 10 pixels of 48
    patches = Patches.fit(X, shape, size=size, mirror=args.mirror, seed=args.seed)
    if args.features == "patches":
        return patches
    some = X[:, :: -(-X.shape[1] // FOURIER_IMAGES)]
    fourier = RandomFourier.fit(patches(some, scale=1 / 255, threads=threads(args)), seed=args.seed)
    return Chain((patches, fourier))


def describe(args: argparse.Namespace) -> str:
    """Return what the model sees of a sample, in a few words."""
    if args.data is None or args.features != "pixels":
        return str(args.features)
    if args.text is not None:
        return f"words of {args.text}"
    return "standardised features" if args.standardise else "features as they are"


def say(
    args: argparse.Namespace, model: "npsoftmax.SoftmaxRegression", seconds: float, nbytes: int
) -> str:
    """Return what was computed from the samples, how long that took, and how large it is."""
    if args.text is not None:
        return f"{model.num_features} words of {args.text}, weighted by their rarity (TF-IDF)"
    if args.standardise:
        return f"{model.num_features} columns, scaled to mean 0 and standard deviation 1"
    mirrored = ", of images and their mirror images" if args.mirror else ""
    return (
        f"{args.features}: {model.num_features} for each image{mirrored}; "
        f"{seconds:.1f} s, {nbytes / 1e6:.0f} MB"
    )


def choose_l2(args: argparse.Namespace, X: "NDArray[Any]", scale: float) -> float:
    """Return the penalty of ``--l2``, or the default for features and for data of your own."""
    if args.l2 is not None:
        return float(args.l2)
    if args.data is None and args.features == "pixels":
        return 0.0
    prior = PRIOR
    if args.features == "pixels":
        # Standardised features are scaled already.
        scale = 1.0 if args.standardise else scale
        prior = OWN_PRIOR * own_data.mean_square_length(X, scale)
    return float(f"{prior / X.shape[1]:.2g}")


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
        dtype = "float32" if args.features == "pixels" else "float16"
        return model.extract(X, threads(args), on_block, dtype=dtype)


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
