"""Data of your own: what ``--data PATH`` is, and how it becomes a data set."""

import argparse
import bz2
import gzip
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npsoftmax.commands import command_line
from npsoftmax.errors import InputError
from npsoftmax.files import quoted

if TYPE_CHECKING:
    from npsoftmax import Dataset, SoftmaxRegression
    from npsoftmax.data.labelled import Labelled
    from npsoftmax.features import FeatureMap

BLOCK = 1024  # columns that become float64 at a time
TEST_PART, TEST_PART_OF_PHOTOGRAPHS = 0.2, 0.1
TABLE = (".csv", ".csv.gz", ".csv.zst", ".parquet", ".pq")
HEAD = 2**16  # bytes of a file that tell its kind
ONLY_LABEL = re.compile(rb"\s*[-+.\w]+\s*(#|$)")
SVMLIGHT = re.compile(rb"\s*[-+.\w]+(\s+\w+:[^\s:]+)+\s*(#|$)")
FIRST_LINES = 10  # one of which has more than a label
SUFFIXES = re.compile(
    r"(\.(csv|parquet|pq|npz|npy|svm|svmlight|libsvm|txt|dat|idx\d?(-ubyte)?))?"
    r"(\.(gz|bz2|zst))?$",
    re.IGNORECASE,
)
KINDS = "class folders, a table (.csv, .parquet), arrays (.npz, .npy), IDX or svmlight files"


def add_flags(flags: argparse.ArgumentParser) -> None:
    """Add the flags of data of your own."""
    group = flags.add_argument_group("data of your own")
    add_data_flag(group)
    group.add_argument("--test", metavar="PATH", type=command_line.path,
        help="test data, of the same kind as --data")  # fmt: skip
    group.add_argument("--test-label", metavar="FILE", type=command_line.path,
        help="labels of --test, if they are in a file of their own")  # fmt: skip
    group.add_argument("--test-part", metavar="F", type=float,
        help="without --test: fraction of each class to test on, chosen by --seed; default 0.2, "
        "and 0.1 of photographs")  # fmt: skip
    group.add_argument("--standardise", action=argparse.BooleanOptionalAction, default=None,
        help="give each feature the mean 0 and the standard deviation 1; default for "
        "tables")  # fmt: skip


def add_data_flag(group: Any) -> None:
    """Add the flags that name samples and their labels."""
    group.add_argument("--data", metavar="PATH", type=command_line.path,
        help="a table (CSV, Parquet), arrays (.npz, .npy), svmlight or IDX files, or a folder with "
        "a folder of photographs for each class, in place of a data set")  # fmt: skip
    group.add_argument("--label", metavar="COLUMN", type=command_line.path,
        help="the column of a table that has the labels; for .npy and IDX files, the file that "
        "has them")  # fmt: skip
    group.add_argument("--text", metavar="COLUMN",
        help="the column of a table that has texts, whose words are the features")  # fmt: skip


def kind_of(path: str | os.PathLike[str]) -> str:
    """Return what a path is: photographs, table, npz, pair or svmlight; "" if nothing known."""
    name = os.fspath(path).lower()
    if os.path.isdir(path):
        return "photographs"
    if name.endswith(TABLE):
        return "table"
    if name.endswith((".npz", ".npy")):
        return "npz" if name.endswith(".npz") else "pair"
    head = _head(path)
    if head[:2] == b"\0\0" and head[2:3] in b"\x08\x09\x0b\x0c\x0d\x0e":
        return "pair"
    return "svmlight" if _is_svmlight(head) else ""


def _is_svmlight(head: bytes) -> bool:
    """Whether the first lines have a label each, and one of them numbers."""
    if len(head) == HEAD:
        head = head[: max(head.rfind(mark) for mark in (b" ", b"\t", b"\n"))]  # the end is cut
    lines = [line for line in head.splitlines() if line.partition(b"#")[0].strip()]
    for line in lines[:FIRST_LINES]:
        if SVMLIGHT.match(line):
            return True
        if not ONLY_LABEL.match(line):
            return False
    return False


def name_of(path: str) -> str:
    """Return the name of the data set in a file."""
    return SUFFIXES.sub("", Path(path).name).lstrip(".") or "data"


def _head(path: str | os.PathLike[str]) -> bytes:
    """Return the first bytes of a file, which may be compressed."""
    for opened in (gzip.open, bz2.open, open):
        try:
            with opened(path, "rb") as file:
                return bytes(file.read(HEAD))
        except (OSError, EOFError):
            continue
    return b""


def complete(args: argparse.Namespace) -> None:
    """Fill in the defaults, and reject flags that do not belong together."""
    own = ("label", "test", "test_label", "test_part", "text", "standardise")
    for name in own:
        if args.data is None and getattr(args, name) is not None:
            raise InputError(
                f"--{name.replace('_', '-')}: expected it with --data, got it alone; a data set "
                "has labels and test images"
            )
    if args.data is None:
        return
    if args.dataset is not None:
        raise InputError(
            "--data: expected it without --dataset, got both; leave out the one you do not mean"
        )
    for path in filter(None, (args.data, args.test)):
        if not os.path.exists(path):
            raise InputError(f"cannot read {quoted(path)}: no such file; check the name")
    if args.test is not None and args.test_part is not None:
        raise InputError(
            "--test-part: expected it without --test, got both; leave out the one you do not mean"
        )
    kind = kind_of(args.data)
    _check_flags(args, kind)
    if args.test_part is None and args.test is None:
        args.test_part = TEST_PART_OF_PHOTOGRAPHS if kind == "photographs" else TEST_PART
    if args.standardise is None:
        args.standardise = kind == "table" and args.text is None


# The flags of each kind.
FLAGS = {
    "photographs": {"test", "test_part"},
    "table": {"label", "test", "test_part", "text", "standardise"},
    "npz": {"test", "test_part", "standardise"},
    "pair": {"label", "test", "test_label", "test_part", "standardise"},
    "svmlight": {"test", "test_part"},
}


def _check_flags(args: argparse.Namespace, kind: str) -> None:
    """Raise InputError for flags that do not belong to a kind of data."""
    if not kind:
        raise InputError(f"--data: expected {KINDS}, got {quoted(args.data)}; name one of these")
    for name in set.union(*FLAGS.values()) - FLAGS[kind]:
        if getattr(args, name, None):
            raise InputError(
                f"--{name.replace('_', '-')}: expected it with other data than "
                f"{quoted(args.data)}, got it with {DESCRIPTIONS[kind]}; leave it out"
            )
    if args.test is not None and (other := kind_of(args.test)) != kind:
        raise InputError(
            f"--test: expected data of the same kind as --data, {_in_words(kind)}, got "
            f"{_in_words(other)}; write {quoted(args.test)} as the other, or leave it out"
        )
    if args.text is not None and args.text == args.label:
        raise InputError(
            f"--text: expected another column than --label, got {quoted(args.text)} for both; "
            "name the column that has the texts"
        )
    if args.text is not None and args.standardise:
        raise InputError("--standardise: expected it without --text, got both; leave it out")


DESCRIPTIONS = {
    "photographs": "photographs",
    "table": "a table",
    "npz": "an .npz file, which has its labels",
    "pair": "arrays",
    "svmlight": "an svmlight file",
}


def _in_words(kind: str) -> str:
    return DESCRIPTIONS[kind].partition(",")[0] if kind else "a file of no kind that is known"


def load(args: argparse.Namespace) -> "Dataset":
    """Read the data of ``--data`` and ``--test``, or hold out a part of them."""
    from npsoftmax.data.labelled import split

    samples, test = _read_both(args, kind_of(args.data))
    data = split(
        name_of(args.data), samples, test,
        test_part=args.test_part, seed=args.seed,
        source=_source(args.data, args.label), test_source=_source(args.test, args.test_label),
    )  # fmt: skip
    named = quoted(args.test) if args.test else "its X_test"
    tested = data.origin or f"tested on {named}"
    data = replace(data, origin=f"{quoted(args.data)}; {tested}")
    if args.text is None:
        return data
    text = command_line.import_extra("npsoftmax.ext.text", "--text: ")
    words = text.find_words(data.X_train)
    X, X_test = (text.count_words(texts, words) for texts in (data.X_train, data.X_test))
    return replace(data, X_train=X, X_test=X_test, feature_names=words)


def _source(path: str | None, label: str | None) -> str:
    """Return what the labels of a file are called in messages."""
    return f"{quoted(path or 'test data')}, {f'column {label}' if label else 'labels'}"


def _read_both(args: argparse.Namespace, kind: str) -> "tuple[Labelled, Labelled | None]":
    """Return the samples to train on, and those to test on, if there are any."""
    require_label(args.data, args.label)
    if kind == "table":
        tables = command_line.import_extra("npsoftmax.ext.tables", "--data: ")
        samples, _ = tables.read_table(args.data, args.label, text=args.text)
        if args.test is None:
            return samples, None
        return samples, read_like(args.test, samples.feature_names, args.label, args.text)
    if kind == "svmlight":
        svmlight = command_line.import_extra("npsoftmax.ext.text", "--data: ").read_svmlight
        samples, *tests = svmlight(args.data, *([args.test] if args.test else []))
        return samples, tests[0] if tests else None
    samples, test = _read_arrays(args.data, args.label)
    if args.test is not None:
        test, later = _read_arrays(args.test, args.test_label)
        test = in_order(later or test, samples.feature_names, args.test, "train")
    return samples, test


def require_label(path: str, label: str | None) -> None:
    """Raise InputError if the labels of a table, or of one of two files, are not named."""
    kind = kind_of(path)
    if label is not None or kind not in ("table", "pair"):
        return
    if kind == "pair":
        raise InputError("--label: expected the file that has the labels, got none; name it")
    columns = command_line.import_extra("npsoftmax.ext.tables", "--data: ").column_names(path)
    raise InputError(
        "--label: expected the column that has the labels, got none; name one of "
        f"{', '.join(columns)}"
    )


def _read_arrays(path: str, label: str | None) -> "tuple[Labelled, Labelled | None]":
    from npsoftmax.ext import arrays

    if kind_of(path) == "npz":
        return arrays.read_npz(path)
    return arrays.read_pair(path, label), None


def read_like(
    path: str,
    feature_names: tuple[str, ...] | None,
    label: str | None,
    text: str | None,
    command: str = "train",
    expected: str | None = None,
) -> "Labelled":
    """Read samples of the features of a model, with labels if they are named or in the file.

    A note says which columns are not used, except an expected one.
    """
    kind = kind_of(path)
    if kind == "table":
        tables = command_line.import_extra("npsoftmax.ext.tables")
        samples: Labelled
        samples, unused = tables.read_table(path, label, text=text, feature_names=feature_names)
        unused = [name for name in unused if name != expected]
        if unused and text is None:
            command_line.note(command, f"{quoted(path)}: not used: {', '.join(unused)}")
    elif kind == "svmlight":
        reader = command_line.import_extra("npsoftmax.ext.text").read_svmlight
        (samples,) = reader(path, feature_names=feature_names)
    elif kind in ("npz", "pair"):
        samples, test = _read_arrays(path, label)
        samples = in_order(test or samples, feature_names, path, command)
    else:
        raise InputError(f"expected {KINDS}, got {quoted(path)}; name one of these")
    return samples


def in_order(
    samples: "Labelled", wanted: tuple[str, ...] | None, path: str, command: str
) -> "Labelled":
    """Return arrays whose features have names with those of a model, in its order.

    A note says which are not used.
    """
    import numpy as np

    from npsoftmax.data.labelled import listed

    names, X = samples.feature_names, samples.X
    if names is None or wanted is None or names == wanted:
        return samples
    place = {name: number for number, name in enumerate(names)}
    if not len(place) == len(names) == X.shape[0]:
        raise InputError(
            f"{quoted(path)}: expected a name of its own for each of {X.shape[0]} features, got "
            f"{len(place)} different of {len(names)}; correct feature_names, or leave them out"
        )
    missing = [name for name in wanted if name not in place]
    if missing:
        raise InputError(
            f"{quoted(path)}: expected features that are called {listed(missing)}, got "
            f"{listed(names)}; add what is missing"
        )
    unused = sorted(place.keys() - set(wanted), key=place.__getitem__)
    if unused:
        command_line.note(command, f"{quoted(path)}: not used: {listed(unused)}")
    places = [place[name] for name in wanted]
    X = np.take(X.T, places, axis=1).T if isinstance(X, np.ndarray) else X.T[:, places].T
    return samples._replace(X=X, feature_names=wanted)


def load_like(
    args: argparse.Namespace, model: "SoftmaxRegression", settings: dict[str, Any]
) -> "Dataset":
    """Read all samples of ``--data``, or its test part, to evaluate a model on them."""
    from npsoftmax import Dataset
    from npsoftmax.data.labelled import number_labels

    seen = str(settings.get("data"))
    if not os.path.exists(args.data):
        raise InputError(f"cannot read {quoted(args.data)}: no such file; check the name")
    # An .npz file may have a test part, which is then used; without --data it surely is.
    fails = kind_of(seen) != "npz" or args.calibrate_sets is not None
    if os.path.isfile(seen) and os.path.samefile(seen, args.data) and fails:
        warn_of_training(
            args,
            f"the model was trained on most of {quoted(args.data)}, so the figures say little "
            "about others; leave out --data to evaluate it on what was held out",
        )
    label = args.label or (settings.get("label") if kind_of(args.data) == "table" else None)
    require_label(args.data, label)
    X, samples = read_for(model, args.data, label, args.text, settings, "evaluate")
    _, y = number_labels(samples, _source(args.data, label), model.classes)
    return Dataset(
        name_of(args.data), model.classes, X[:, :0], y[:0], X, y,
        pixel_scale=model.pixel_scale, feature_names=model.feature_names,
    )  # fmt: skip


def warn_of_training(args: argparse.Namespace, message: str) -> None:
    """Say that a model has seen the data; sets that are calibrated on them would cover less."""
    if args.calibrate_sets is not None:
        raise InputError(f"--calibrate-sets: expected data that the model has not seen; {message}")
    command_line.warn("evaluate", message)


def read_for(
    model: "SoftmaxRegression",
    path: str,
    label: str | None,
    text: str | None,
    settings: dict[str, Any],
    command: str,
) -> "tuple[Any, Labelled]":
    """Return the columns that a model takes, and what else the file has.

    The settings are those of the training, empty if nobody knows them.
    """
    from npsoftmax.features import Tfidf

    if not isinstance(model.features, Tfidf):
        samples = read_like(path, model.feature_names, label, None, command, settings.get("label"))
        return samples.X, samples
    text = text or settings.get("text")
    if text is None:
        raise InputError("--text: expected the column that has the texts, got none; name it")
    samples = read_like(path, None, label, text, command)
    words = model.feature_names or ()
    return command_line.import_extra("npsoftmax.ext.text").count_words(samples.X, words), samples


def scaling(args: argparse.Namespace, X: Any, scale: float) -> "FeatureMap | None":
    """Return the map that ``--standardise`` or ``--text`` asks for, of samples times a scale."""
    from npsoftmax.features import Standardise, Tfidf

    if args.text is not None:
        return Tfidf.fit(X)
    if args.standardise and hasattr(X, "tocsc"):
        raise InputError(
            "--standardise: expected dense features, got sparse ones, which it would fill; leave "
            "it out"
        )
    if not args.standardise:
        return None
    fitted = Standardise.fit(X)
    # So a pixel has the same feature as a byte and as a fraction.
    return Standardise(fitted.mean * scale, fitted.deviation * scale)


def mean_square_length(X: Any, scale: float) -> float:
    """Return the mean square distance of samples from their mean, 1 if all are equal."""
    import numpy as np

    mean = np.asarray(X.mean(axis=1, dtype=np.float64)).reshape(-1, 1)
    if not isinstance(X, np.ndarray):
        total = np.square(X.data, dtype=np.float64).sum() - X.shape[1] * np.square(mean).sum()
    else:
        blocks = (X[:, start : start + BLOCK] for start in range(0, X.shape[1], BLOCK))
        total = sum(np.square(block - mean).sum() for block in blocks)
    return float(scale**2 * total / X.shape[1]) or 1.0
