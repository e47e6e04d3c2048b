"""Tables in CSV and Parquet files, read by Polars: numbers, labels and texts by column.

Numeric columns are features; what else a table holds is refused by name, never guessed at.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npsoftmax.data.labelled import Labelled, listed
from npsoftmax.errors import CorruptFileError, InputError
from npsoftmax.ext import extra
from npsoftmax.files import quoted

with extra("table"):
    import polars

__all__ = ["column_names", "read_table"]

Path = str | os.PathLike[str]

# Names that pandas gives to row numbers when it writes or reads a table.
ROW_NUMBERS = re.compile(r"|Unnamed: \d+(\.\d+)*|__index_level_\d+__")
MARKS = ";\t|"
MAX_NAMES = 12


def read_table(
    path: Path,
    label: str | None,
    *,
    text: str | None = None,
    feature_names: Sequence[str] | None = None,
) -> tuple[Labelled, list[str]]:
    r"""Read the features and the labels of a table, and return the names of the unused columns too.

    Parameters
    ----------
    path : path
        A file ``.csv``, which may be compressed, or ``.parquet``.
    label : str or None
        The column with the labels; None for a table without labels.
    text : str, optional
        The column with texts, which are then the samples.
    feature_names : sequence of str, optional
        The columns that are features, in this order; others are not used. By default all columns
        except the labels.

    Examples
    --------
    >>> with open("pets.csv", "w") as file:
    ...     _ = file.write("weight,height,kind\n4,25,cat\n30,60,dog\n5,23,cat\n")
    >>> pets, unused = read_table("pets.csv", "kind")
    >>> pets.feature_names, pets.X.tolist(), pets.y.tolist()
    (('weight', 'height'), [[4.0, 30.0, 5.0], [25.0, 60.0, 23.0]], ['cat', 'dog', 'cat'])
    >>> read_table("pets.csv", None, feature_names=["height"])[1]
    ['weight', 'kind']
    """
    frame = _read(path)
    needed = [name for name in (label, text) if name is not None]
    if text is None:
        wanted = feature_names or [name for name in frame.columns if name != label]
        if not feature_names:
            _refuse_row_numbers(frame, wanted, path)
        needed += wanted
    missing = [name for name in needed if name not in frame.columns]
    if missing:
        raise InputError(
            f"{quoted(path)}: expected columns that are called {_named(missing)}, got "
            f"{_named(frame.columns)}; name a column that is there, or add what is missing"
        )
    y = None if label is None else _labels(frame, label, path)
    unused = [name for name in frame.columns if name and name not in needed]
    if text is not None:
        return Labelled(_texts(frame, text, path), y), unused
    _refuse_words(frame, wanted, path)
    _refuse_text(frame, wanted, path, predicting=bool(feature_names))
    return Labelled(_numbers(frame, wanted, path), y, tuple(wanted)), unused


def column_names(path: Path) -> list[str]:
    r"""Return the names of the columns of a table.

    Examples
    --------
    >>> with open("pets.csv", "w") as file:
    ...     _ = file.write("weight,kind\n4,cat\n")
    >>> column_names("pets.csv")
    ['weight', 'kind']
    """
    return list(_read(path).columns)


def _read(path: Path) -> Any:
    """Return the frame of a file."""
    if not os.path.isfile(path):
        raise InputError(f"cannot read {quoted(path)}: no such file; check the name")
    try:
        # A name is not a pattern of names: [1] and * are themselves.
        if _is_parquet(path):
            frame = polars.read_parquet(os.fspath(path), glob=False)
        else:
            # The type of a column is that of all its rows, not of the first hundred.
            frame = polars.read_csv(os.fspath(path), infer_schema_length=None, glob=False)
    except (polars.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        if not _is_parquet(path):
            _refuse_encoding(path, "utf-8" in reason.lower())
            _refuse_marks(path, decimal_comma="more fields" in reason)
        if isinstance(error, polars.exceptions.DuplicateError):
            raise InputError(
                f"{quoted(path)}: expected a name of its own for each column, got {reason:.150}; "
                "rename one of them"
            ) from error
        raise CorruptFileError(
            f"{quoted(path)}: expected a table with commas between the columns and their names in "
            f"the first line, or a Parquet file, got {reason:.150}; repair the file"
        ) from error
    if not _is_parquet(path):
        _refuse_encoding(path, any(mark in "".join(frame.columns) for mark in "\0\ufffd"))
        if len(frame.columns) == 1:
            _refuse_marks(path, decimal_comma=False)
    if frame.height == 0:
        raise InputError(f"{quoted(path)}: expected rows, got none; check the file")
    _refuse_duplicates(frame, path)
    return frame


def _is_parquet(path: Path) -> bool:
    """Return whether a file is Parquet, by its name."""
    return os.fspath(path).lower().endswith((".parquet", ".pq"))


def _rewritten(frame: Any, path: Path, steps: str, flags: str = "") -> str:
    """Return the call of Polars that writes a table anew after some steps."""
    if _is_parquet(path):
        return f"polars.read_parquet(path){steps}.write_parquet(new)"
    # By default Polars types a column by its first hundred rows.
    flags += ", infer_schema_length=None" if frame.height > 100 else ""
    return f"polars.read_csv(path{flags}){steps}.write_csv(new)"


def _named(names: Sequence[str]) -> str:
    """Return some names for a message, in quotes if spaces around one would not be seen."""
    return listed([name if name and name == name.strip() else repr(name) for name in names])


def _refuse_encoding(path: Path, wrong: bool) -> None:
    """Raise CorruptFileError if a CSV file is not UTF-8."""
    if not wrong:
        return
    with open(path, "rb") as file:
        start = file.read(100_000)
    wide = start.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in start
    first = ""
    if not os.fspath(path).lower().endswith(".csv"):
        start, wide, first = b"", False, "decompress it, and "
    encoding = "utf-16" if wide else "latin-1"
    header = start.decode(encoding, "replace").partition("\n")[0]
    flags = _reading(_mark(header), decimal_comma=_mark(header) == ";")
    raise CorruptFileError(
        f"{quoted(path)}: expected text in UTF-8, got another encoding, perhaps {encoding}; {first}"
        f"write it as UTF-8, polars.read_csv(path, encoding={encoding!r}, {flags}).write_csv(new)"
    )


def _refuse_marks(path: Path, decimal_comma: bool) -> None:
    """Raise InputError if other marks than commas are between the columns of a CSV file."""
    try:
        # No mark parts the first line, so it is the only value.
        header = polars.read_csv(
            os.fspath(path), n_rows=1, has_header=False, separator="\x1f", quote_char=None,
            infer_schema=False, glob=False,
        ).row(0)[0]  # fmt: skip
    except (polars.exceptions.PolarsError, OSError) as error:
        _refuse_encoding(path, "utf-8" in str(error).lower())
        return
    mark = _mark(header or "")
    if mark:
        raise InputError(
            f"{quoted(path)}: expected commas between the columns, got {mark!r}; write it with "
            f"commas, polars.read_csv(path, {_reading(mark, decimal_comma)}).write_csv(new)"
        )


def _mark(header: str) -> str:
    """Return the mark between the columns if it is no comma, else an empty string."""
    mark = max(MARKS, key=header.count)
    return mark if header.count(mark) > header.count(",") else ""


def _reading(mark: str, decimal_comma: bool) -> str:
    """Return the flags of polars.read_csv for columns that a mark separates."""
    separator = f"separator={mark!r}, " if mark else ""
    if decimal_comma:
        return separator + "decimal_comma=True, infer_schema_length=None"
    return separator + "infer_schema=False"


def _refuse_duplicates(frame: Any, path: Path) -> None:
    """Raise InputError if Polars has invented a name for a column whose name is there already."""
    new: dict[str, str] = {}
    for name in frame.columns:
        stem = re.sub(r"_duplicated_\d+$", "", name)
        if stem and stem != name and stem in frame.columns:
            number = 2
            while f"{stem}_{number}" in {*frame.columns, *new.values()}:
                number += 1
            new[name] = f"{stem}_{number}"
    if new:
        stems = list(dict.fromkeys(re.sub(r"_duplicated_\d+$", "", name) for name in new))
        raise InputError(
            f"{quoted(path)}: expected a name of its own for each column, got more than one "
            f"{_named(stems)}; rename them, {_rewritten(frame, path, f'.rename({new!r})')}, or "
            f"remove them, {_rewritten(frame, path, f'.drop({list(new)!r})')}"
        )


def _refuse_row_numbers(frame: Any, names: Sequence[str], path: Path) -> None:
    """Raise InputError if features have the names that pandas gives to row numbers."""
    found = [name for name in names if ROW_NUMBERS.fullmatch(name)]
    if found:
        got = _named(found) if found[0] else "one without"
        raise InputError(
            f"{quoted(path)}: expected a name for each column, got {got}: usually the row numbers "
            f"of pandas; remove them, {_rewritten(frame, path, f'.drop({found!r})')}, or write "
            "the table without them, with index=False in pandas"
        )


def _refuse_words(frame: Any, names: Sequence[str], path: Path) -> None:
    """Raise InputError if a column of text has numbers in at least half of its rows."""
    for name in names:
        column = frame[name]
        values = column.len() - column.null_count()
        if column.dtype != polars.String or not values:
            continue
        number = column.str.strip_chars().cast(polars.Float64, strict=False)
        wrong = number.is_null() & column.is_not_null()
        if 2 * wrong.sum() > values:
            continue
        cast = f".with_columns(polars.col({name!r}).str.strip_chars().cast(polars.Float64"
        if not wrong.any():
            advice = f"make them numbers, {_rewritten(frame, path, cast + '))')}"
            wrong = column.str.contains(r"^\s|\s$").fill_null(False)
            wrong = wrong if wrong.any() else column.is_not_null()
        else:
            words = column.filter(wrong).unique(maintain_order=True).to_list()[:MAX_NAMES]
            steps, flags = "", f", null_values={words!r}"
            if _is_parquet(path):
                steps, flags = f"{cast}, strict=False))", ""
            advice = (
                f"take it for missing, {_rewritten(frame, path, steps, flags)}, and fill in what "
                "is missing then, or correct it, or remove the column"
            )
        row = wrong.arg_true()[0]
        raise InputError(
            f"{quoted(path)}: expected a number in every row of {_named([name])}, got the text "
            f"{column[row]!r:.60} in row {row + 1} after the names; {advice}"
        )


def _refuse_text(frame: Any, names: Sequence[str], path: Path, predicting: bool) -> None:
    """Raise InputError if features are no numbers."""
    other = [name for name in names if not _is_numeric(frame[name])]
    if not other:
        return
    kind = str(frame[other[0]].dtype).lower().replace("string", "text")
    if predicting:
        raise InputError(
            f"{quoted(path)}: expected numbers in the columns that the model has learned from, "
            f"got {kind} in {_named(other)}; write the numbers there, as in the training table"
        )
    raise InputError(
        f"{quoted(path)}: expected numbers in every column but the label, got {kind} in "
        f"{_named(other)}; make columns of 0 and 1 of a few kinds, "
        f"{_rewritten(frame, path, f'.to_dummies([{other[0]!r}])')}, and remove what differs in "
        f"every row, .drop([{other[-1]!r}]); or learn from one column of texts with --text"
    )


def _numbers(frame: Any, names: Sequence[str], path: Path) -> NDArray[np.float64]:
    """Return numeric columns as features, shape ``(d, n)``."""
    if not names:
        raise InputError(
            f"{quoted(path)}: expected columns of numbers next to the labels, got none; add some"
        )
    some = frame.select(polars.col(list(names)).cast(polars.Float64))
    counts = some.select(
        (polars.all().is_null() | ~polars.all().is_finite()).sum()
    ).row(0)  # fmt: skip
    missing = {name: n for name, n in zip(names, counts, strict=True) if n}
    if missing:
        rows = listed([f"{_named([name])} ({n} rows)" for name, n in missing.items()])
        raise InputError(
            f"{quoted(path)}: expected a number in every row, got missing or infinite values in "
            f"{rows}; {_filled(frame, some, missing, path)}, or remove the rows or columns"
        )
    X: NDArray[np.float64] = some.to_numpy(order="c").T
    return X


def _filled(frame: Any, some: Any, missing: dict[str, int], path: Path) -> str:
    """Return how columns are filled that have missing or infinite values."""
    empty = [name for name, n in missing.items() if n == frame.height]
    if empty:
        return (
            f"columns without any number cannot be filled in, remove them from the table, "
            f"{_rewritten(frame, path, f'.drop({empty!r})')}"
        )
    which = f"polars.col({list(missing)!r})"
    if len(missing) > MAX_NAMES:
        rest = [name for name in frame.columns if name not in some.columns]
        which = f"polars.exclude({rest!r})" if rest else "polars.all()"
    steps = f".with_columns({which}.cast(polars.Float64)"
    if any(some[name].is_infinite().any() for name in missing):
        steps += ".replace([float('inf'), -float('inf')], None)"
    steps += ".fill_nan(None).fill_null(strategy='mean'))"
    return f"fill them in, for instance {_rewritten(frame, path, steps)}"


def _is_numeric(column: Any) -> bool:
    """Return whether a column has numbers, Booleans, or no value at all."""
    kind = column.dtype
    return bool(kind.is_numeric() or kind == polars.Boolean or column.null_count() == column.len())


def _labels(frame: Any, name: str, path: Path) -> NDArray[Any]:
    """Return the labels: integers of 64 bits and floats as numbers, everything else as text."""
    column = frame[name]
    if column.null_count():
        advice = _rewritten(frame, path, f".drop_nulls({name!r})")
        raise InputError(
            f"{quoted(path)}: expected a label in every row, got {column.null_count()} rows "
            f"without {name}; remove these rows, {advice}"
        )
    if column.dtype.is_nested() or column.dtype == polars.Binary:
        raise InputError(
            f"{quoted(path)}: expected text or integers as labels, got {column.dtype} in {name}; "
            "name another column"
        )
    if column.dtype.is_float():
        return np.asarray(column.to_numpy())
    if column.dtype.is_integer():
        small = column.cast(polars.Int64, strict=False)
        if not small.null_count():
            return np.asarray(small.to_numpy())
    return np.array(column.cast(polars.String).to_list())


def _texts(frame: Any, name: str, path: Path) -> NDArray[Any]:
    """Return texts, shape ``(n,)``."""
    column = frame[name]
    if column.dtype != polars.String or column.null_count():
        got = f"{column.null_count()} rows without" if column.null_count() else str(column.dtype)
        raise InputError(
            f"{quoted(path)}: expected a text in every row of {name}, got {got}; remove these "
            "rows, or name another column"
        )
    return np.array(column.to_list(), object)
