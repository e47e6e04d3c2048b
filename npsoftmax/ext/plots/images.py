"""Samples and weights as the square images that they are."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from npsoftmax.errors import InputError, ShapeError
from npsoftmax.ext.plots._axes import Grid, as_axes, as_grid, blank
from npsoftmax.ext.plots._labels import fitted, size_of

if TYPE_CHECKING:
    from npsoftmax.model import SoftmaxRegression

__all__ = ["image", "weights"]

TITLE_SIZE = 9


def image(column: ArrayLike, ax: Axes) -> Axes:
    """Draw one sample as a grey image, upright.

    Black is 0 and white 255 for ``uint8``. For other dtypes black is 0, or the smallest number
    if that is below, and white is 1, or the largest number if that is above.

    Parameters
    ----------
    column : array_like
        The pixels row by row, shape ``(d,)`` or ``(d, 1)``, with ``d`` a square number.
    ax : matplotlib Axes
        Where to draw.

    Returns
    -------
    Axes
        ``ax``, without ticks.

    Raises
    ------
    ShapeError, InputError
        The pixels make no square, or are not finite numbers; ``ax`` is no Axes.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = image(np.arange(4, dtype=np.uint8), Figure().subplots())
    >>> ax.images[0].get_array().tolist(), ax.images[0].get_clim()
    ([[0, 1], [2, 3]], (0.0, 255.0))
    """
    pixels = _as_square(column, "column")
    black, white = 0.0, 255.0
    if pixels.dtype != np.uint8:
        black, white = min(0.0, float(pixels.min())), max(1.0, float(pixels.max()))
    as_axes(ax).imshow(pixels, cmap="gray", vmin=black, vmax=white, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    return ax


def weights(model: "SoftmaxRegression", axes: Grid) -> Grid:
    """Draw the weights of each class as an image: red speaks for the class, blue against it.

    One scale, symmetric about 0, and one colour bar serve all classes, so they can be compared.
    It ends where all but the largest 0.5 % of the weights lie, which have its last colours.

    Parameters
    ----------
    model : SoftmaxRegression
        For square images.
    axes : Axes, or array or sequence of them
        One for each class, as ``Figure.subplots(rows, columns)`` returns them; those left over
        are switched off. The colour bar takes some of their room.

    Returns
    -------
    Axes, or array or sequence of them
        ``axes``.

    Raises
    ------
    ShapeError, InputError
        The images of the model are not square, a weight is not finite, or there are fewer Axes
        than classes.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from npsoftmax import SoftmaxRegression
    >>> model = SoftmaxRegression(4, 2, classes=["up", "down"])
    >>> left, right = weights(model, Figure().subplots(1, 2))
    >>> left.get_title(), left.images[0].get_array().shape
    ('up', (2, 2))
    """
    grid = as_grid(axes, model.num_outputs)
    squares = [_as_square(row, "weights of a class") for row in model.W]
    # A few pixels stand out so far that the others would fade beside them.
    limit = float(np.quantile(np.abs(model.W), 0.995)) or 1.0
    for ax, square in zip(grid, squares, strict=False):
        shown = ax.imshow(square, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        ax.set(xticks=[], yticks=[])
    blank(grid[len(squares) :])
    label = "weight (above 0: for the class)"
    grid[0].figure.colorbar(shown, ax=grid, extend="both", pad=0.03, label=label)
    for ax, name in zip(grid, model.classes, strict=False):
        ax.set_title(fitted(name, size_of(ax)[0], TITLE_SIZE), fontsize=TITLE_SIZE)
    return axes


def _as_square(column: ArrayLike, what: str) -> NDArray[Any]:
    pixels = np.asarray(column)
    side = math.isqrt(pixels.size)
    if (pixels.shape not in ((side**2,), (side**2, 1))) or side == 0:
        raise ShapeError(
            f"{what}: expected a square image as shape (d,) or (d, 1) with d = side * side, "
            f"got {pixels.shape}; one sample of X is X[:, j]"
        )
    if pixels.dtype.kind not in "biuf" or not np.isfinite(pixels).all():
        raise InputError(
            f"{what}: expected finite numbers, got dtype {pixels.dtype}, NaN or infinities; "
            "convert or repair them first"
        )
    return pixels.reshape(side, side)
