"""Where a model errs, and whether its probabilities can be believed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from numpy.typing import ArrayLike, NDArray

from npsoftmax.errors import ShapeError
from npsoftmax.ext.plots._axes import as_axes
from npsoftmax.ext.plots._labels import fitted, size_of, text_width
from npsoftmax.metrics import confidence_bins, expected_calibration_error, per_class

__all__ = ["confusion", "reliability"]

LARGEST, SMALL, SMALLEST = 9.0, 7.0, 5.0  # points; smaller text is left out
MATRIX_NAME_POINTS = 100  # about 18 letters


def confusion(counts: ArrayLike, classes: Sequence[str], ax: Axes) -> Axes:
    """Draw a confusion matrix: a row for each true class, coloured by its share of the row.

    Parameters
    ----------
    counts : array_like of int
        Shape ``(k, k)``, from :func:`npsoftmax.metrics.confusion_matrix`. All but zeros are
        written into the cells where there is room to read them.
    classes : sequence of str
        The ``k`` names; where there is no room for them, ticks count the classes.
    ax : matplotlib Axes
        Where to draw; the colour bar stands to its right.

    Returns
    -------
    Axes
        ``ax``.

    Raises
    ------
    InputError
        ``counts`` is not a square matrix of counts, or ``ax`` is no Axes.
    ShapeError
        Not one name for each class.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = confusion([[8, 2], [0, 5]], ["cat", "dog"], Figure().subplots())
    >>> ax.images[0].get_array().tolist(), [text.get_text() for text in ax.texts]
    ([[0.8, 0.2], [0.0, 1.0]], ['8', '2', '5'])
    """
    support = per_class(counts).support
    cells = np.asarray(counts)
    if len(classes) != support.size:
        raise ShapeError(
            f"classes: expected a name for each of the {support.size} classes, got {len(classes)}"
        )
    shares = cells / np.maximum(support, 1)[:, None]
    # The square root shows errors of a few per cent beside a diagonal of nearly one.
    shown = as_axes(ax).imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    bar = ax.inset_axes((1.03, 0, 0.04, 1))
    ax.figure.colorbar(shown, cax=bar, label="share of the true class")
    cell = min(size_of(ax)) / support.size
    _write_numbers(cells, shares, cell, ax)
    _write_names(classes, cell, ax)
    ax.set(xlabel="predicted class", ylabel="true class")
    return ax


def reliability(probabilities: ArrayLike, y: ArrayLike, ax: Axes, num_bins: int = 15) -> Axes:
    """Draw accuracy against confidence: where bars end below the diagonal, a model is too sure.

    The bins are those of :func:`npsoftmax.metrics.expected_calibration_error`, which stands in
    the title: the mean length of the red gaps between accuracy and mean confidence, each
    weighted by the number of samples above it.

    Parameters
    ----------
    probabilities : array_like
        Shape ``(k, n)``.
    y : array_like
        Labels, shape ``(n,)``.
    ax : matplotlib Axes
        Where to draw.
    num_bins : int
        Bins of equal width.

    Returns
    -------
    Axes
        ``ax``.

    Raises
    ------
    ShapeError, LabelError, InputError
        As for :func:`npsoftmax.metrics.expected_calibration_error`; ``ax`` is no Axes.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = reliability([[0.75, 0.75], [0.25, 0.25]], [0, 1], Figure().subplots())
    >>> ax.get_title()
    'expected calibration error 0.2500'
    """
    bins = confidence_bins(probabilities, y, num_bins)
    error = expected_calibration_error(probabilities, y, num_bins)
    full = np.flatnonzero(bins.sizes)
    sizes = bins.sizes[full]
    accuracy, confidence = bins.hits[full] / sizes, bins.confidence[full] / sizes
    middles, width = (full + 0.5) / num_bins, 0.9 / num_bins
    as_axes(ax).bar(middles, accuracy, width, color="#4477aa", label="accuracy")
    gap = ax.bar(middles, confidence - accuracy, width, accuracy, label="gap to mean confidence")
    for bar in gap:
        bar.set(facecolor="#cc331133", edgecolor="#cc3311", hatch="////", linewidth=0.8)
    ax.plot([0, 1], [0, 1], "--", color="#333333", linewidth=1, label="calibrated")
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
    taken = _write_sizes(middles, sizes, size_of(ax)[0] / num_bins, ax)
    ax.set_title(f"expected calibration error {error:.4f}", pad=6 + taken)
    ax.legend(loc="upper left")
    return ax


def _write_numbers(cells: NDArray[Any], shares: NDArray[Any], room: float, ax: Axes) -> None:
    widest = text_width(str(cells.max()), LARGEST)
    size = LARGEST * min(1, 0.85 * room / widest)
    if size < SMALLEST:
        return
    for (row, column), count in np.ndenumerate(cells):
        if count:
            colour = "white" if shares[row, column] > 0.3 else "black"
            ax.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=size)


def _write_names(classes: Sequence[str], room: float, ax: Axes) -> None:
    size = min(LARGEST, 0.75 * room)
    if size < SMALLEST:
        return
    names = [fitted(str(name), MATRIX_NAME_POINTS, size) for name in classes]
    places = np.arange(len(names))
    ax.set_yticks(places, names, fontsize=size)
    ax.set_xticks(places, names, fontsize=size)
    if max(text_width(name, size) for name in names) > 0.9 * room:
        angle = 45 if room > 2 * size else 90
        ax.tick_params(axis="x", labelrotation=angle)
        for label in ax.get_xticklabels():
            label.set(rotation_mode="anchor", ha="right", va="center")


def _write_sizes(middles: NDArray[Any], sizes: NDArray[Any], room: float, ax: Axes) -> float:
    """Write how many samples each bin has above it; return the height that takes in points."""
    if room < SMALL:
        return 0
    texts = [str(size) if size < 10_000 else f"{size / 1000:.0f}k" for size in sizes]
    widest = max(text_width(text, SMALL) for text in texts)
    flat = widest < 0.95 * room
    above: dict[str, Any] = {
        "xycoords": ax.get_xaxis_transform(),  # x as in the data, y from 0 to 1
        "textcoords": "offset points",
        "fontsize": SMALL,
    }
    angle = 0 if flat else 90
    for middle, text in zip(middles, texts, strict=True):
        ax.annotate(text, (middle, 1), xytext=(0, 3), ha="center", rotation=angle, **above)
    ax.annotate("samples", (1, 1), xytext=(4, 3), **above)
    return 3 + (SMALL if flat else widest)
