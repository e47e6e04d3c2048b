"""Tables in CSV and Parquet files, read by Polars: numbers, labels and texts by column.

Numeric columns are features; what else a table holds is refused by name, never guessed at.
"""

from __future__ import annotations

import os
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
        needed += wanted
    missing = [name for name in needed if name not in frame.columns]
    if missing:
        raise InputError(
            f"{quoted(path)}: expected columns that are called {listed(missing)}, got "
            f"{listed(frame.columns)}; name a column that is there, or add what is missing"
        )
    y = None if label is None else _labels(frame, label, path)
    unused = [name for name in frame.columns if name not in needed]
    if text is not None:
        return Labelled(_texts(frame, text, path), y), unused
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
    try:
        if not os.path.isfile(path):
            raise InputError(f"cannot read {quoted(path)}: no such file; check the name")
        if os.fspath(path).lower().endswith((".parquet", ".pq")):
            frame = polars.read_parquet(os.fspath(path))
        else:
            # The type of a column is that of all its rows, not of the first hundred.
            frame = polars.read_csv(os.fspath(path), infer_schema_length=None)
    except (polars.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise CorruptFileError(
            f"{quoted(path)}: expected a table with commas between the columns and their names in "
            f"the first line, or a Parquet file, got {reason:.150}; repair the file"
        ) from error
    if frame.height == 0:
        raise InputError(f"{quoted(path)}: expected rows, got none; check the file")
    if len(frame.columns) == 1 and any(mark in frame.columns[0] for mark in ";\t"):
        raise InputError(
            f"{quoted(path)}: expected commas between the columns, got other marks; write it with "
            "commas, for instance polars.read_csv(path, separator=';').write_csv(path)"
        )
    if "" in frame.columns:
        raise InputError(
            f"{quoted(path)}: expected a name for each column, got one without: usually the row "
            "numbers of pandas; write the table without them, frame.to_csv(path, index=False)"
        )
    return frame


def _numbers(frame: Any, names: Sequence[str], path: Path) -> NDArray[np.float64]:
    """Return numeric columns as features, shape ``(d, n)``."""
    if not names:
        raise InputError(
            f"{quoted(path)}: expected columns of numbers next to the labels, got none; add some"
        )
    other = [name for name in names if not _is_numeric(frame[name])]
    if other:
        kind = str(frame[other[0]].dtype).lower().replace("string", "text")
        raise InputError(
            f"{quoted(path)}: expected numbers in every column but the label, got {kind} in "
            f"{listed(other)}; make columns of 0 and 1 of a few kinds, polars.read_csv(path)"
            f".to_dummies([{other[0]!r}]).write_csv(new), and remove what differs in every row, "
            f".drop([{other[-1]!r}]); or learn from one column of texts with --text"
        )
    some = frame.select(polars.col(list(names)).cast(polars.Float64))
    counts = some.select(
        (polars.all().is_null() | ~polars.all().is_finite()).sum()
    ).row(0)  # fmt: skip
    missing = [f"{name} ({n} rows)" for name, n in zip(names, counts, strict=True) if n]
    if missing:
        raise InputError(
            f"{quoted(path)}: expected a number in every row, got missing or infinite values in "
            f"{listed(missing)}; fill them in, for instance "
            "polars.read_csv(path).fill_null(strategy='mean').write_csv(new), or remove the rows "
            "or columns"
        )
    X: NDArray[np.float64] = some.to_numpy(order="c").T
    return X


def _is_numeric(column: Any) -> bool:
    """Return whether a column has numbers, Booleans, or no value at all."""
    kind = column.dtype
    return bool(kind.is_numeric() or kind == polars.Boolean or column.null_count() == column.len())


def _labels(frame: Any, name: str, path: Path) -> NDArray[Any]:
    """Return the labels: integers and floats as they are, everything else as text."""
    column = frame[name]
    if column.null_count():
        raise InputError(
            f"{quoted(path)}: expected a label in every row, got {column.null_count()} rows "
            f"without {name}; remove these rows, polars.read_csv(path).drop_nulls({name!r})"
        )
    if column.dtype.is_nested() or column.dtype == polars.Binary:
        raise InputError(
            f"{quoted(path)}: expected text or integers as labels, got {column.dtype} in {name}; "
            "name another column"
        )
    if column.dtype.is_numeric():
        return np.asarray(column.to_numpy())
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
