"""Check the Axes that a caller hands over."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from npsoftmax.errors import InputError

__all__ = ["Grid", "as_axes", "as_grid", "blank"]

# What Figure.subplots returns, or a list of Axes.
Grid = TypeVar("Grid", bound=Axes | Sequence[Axes] | NDArray[Any])


def as_axes(ax: object) -> Axes:
    """Return ``ax`` if it is one Axes."""
    if not isinstance(ax, Axes):
        raise InputError(
            f"ax: expected one matplotlib Axes, got {type(ax).__name__}; "
            "make it with matplotlib.figure.Figure().subplots()"
        )
    return ax


def as_grid(axes: object, needed: int = 1) -> list[Axes]:
    """Return the Axes of a grid row by row, at least as many as are needed."""
    flat: list[Any] = np.ravel(np.array(axes, dtype=object)).tolist()
    if len(flat) < needed or not all(isinstance(ax, Axes) for ax in flat):
        kinds = ", ".join(sorted({type(ax).__name__ for ax in flat})) or "none"
        raise InputError(
            f"axes: expected at least {needed} matplotlib Axes, got {len(flat)} ({kinds}); "
            "make them with matplotlib.figure.Figure().subplots(rows, columns)"
        )
    if len({ax.figure for ax in flat}) != 1:
        raise InputError("axes: expected Axes of one figure, got Axes of several; use one")
    return flat


def blank(axes: Iterable[Axes]) -> None:
    """Switch off Axes that a picture has nothing for."""
    for ax in axes:
        ax.set_axis_off()
