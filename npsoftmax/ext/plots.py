"""Pictures of training, of models and of what they predict, on matplotlib Axes that you own.

Every function draws on the Axes that it is given and returns them; none touches ``pyplot``, so
nothing is left behind. Class names are drawn as they are written, never as formulas. Letters that
the font lacks become boxes; ``matplotlib.rcParams["font.family"]`` takes further fonts.
"""

import base64
import io
import math
import secrets
import sys
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.textpath import text_to_path
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from npsoftmax._checks import as_columns, as_float, as_labels, same_samples
from npsoftmax.errors import InputError, ShapeError
from npsoftmax.history import EpochRecord, IterationRecord
from npsoftmax.metrics import confidence_bins, expected_calibration_error, per_class

if TYPE_CHECKING:
    from npsoftmax.model import SoftmaxRegression

__all__ = [
    "Grid",
    "History",
    "accuracy_curve",
    "as_axes",
    "as_grid",
    "blank",
    "confusion",
    "fitted",
    "image",
    "live",
    "loss_curve",
    "misclassified",
    "prediction_grid",
    "reliability",
    "size_of",
    "text_width",
    "top_k_bars",
    "validation_curve",
    "weights",
]


# Check the Axes that a caller hands over.

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


# Names as text that matplotlib draws as they are written.

LONGEST = 80  # letters; no title has room for more


def fitted(name: str, points: float, size: float, before: str = "", after: str = "") -> str:
    r"""Return text that is drawn as ``before + name + after`` and is at most so wide.

    No formula: a dollar begins one, and ``\$`` is drawn as a dollar. No control character, no
    letter that the font lacks. The middle of a long name is left out: names often differ in
    their ends.
    """
    shown = _drawable(_cut(name, LONGEST))
    if text_width(before + shown + after, size) > points:
        lengths = range(2, len(shown))
        fits = bisect_right(
            lengths, points, key=lambda kept: text_width(before + _cut(shown, kept) + after, size)
        )
        shown = _cut(shown, 1 + max(1, fits))
    return (before + shown + after).replace("$", r"\$")


def text_width(text: str, size: float) -> float:
    """Return how wide text is in points, in a font of ``size`` points."""
    return text_to_path.get_text_width_height_descent(text, FontProperties(size=size), False)[0]


def size_of(ax: Axes) -> tuple[float, float]:
    """Return the width and height of Axes in points."""
    inch = ax.figure.dpi
    return ax.bbox.width * 72 / inch, ax.bbox.height * 72 / inch


def _drawable(text: str) -> str:
    printable = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    families = FontProperties().get_family()
    fonts = [get_font(findfont(FontProperties(family=[family]))) for family in families]
    return "".join(c if any(f.get_char_index(ord(c)) for f in fonts) else "□" for c in printable)


def _cut(text: str, kept: int) -> str:
    """Return so many letters from both ends of a text that is longer."""
    if len(text) <= kept:
        return text
    return f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"


# How training went, and which setting did best.

History = Sequence[EpochRecord] | Sequence[IterationRecord]

LOSS = "mean cross-entropy (nats)"
# Blue and orange that the colour-blind tell apart, and the dash says it once more.
TRAINING: dict[str, Any] = {"color": "#4477aa", "linestyle": "--", "marker": ".", "markersize": 9}
HELD_OUT: dict[str, Any] = {"color": "#cc5500", "linestyle": "-", "marker": ".", "markersize": 9}
MOST_MARKERS = 30  # more of them would be a thick line


def loss_curve(history: History, ax: Axes) -> Axes:
    """Draw training and test loss against the epoch or iteration.

    Parameters
    ----------
    history : sequence of EpochRecord or IterationRecord
        As a trainer keeps it.
    ax : matplotlib Axes
        Where to draw.

    Returns
    -------
    Axes
        ``ax``.

    Raises
    ------
    InputError
        ``history`` is empty, or ``ax`` is no Axes.
    """
    return _curve(history, ax, "loss", LOSS)


def accuracy_curve(history: History, ax: Axes) -> Axes:
    """Draw training and test accuracy against the epoch or iteration.

    Parameters
    ----------
    history, ax
        As for :func:`loss_curve`.

    Returns
    -------
    Axes
        ``ax``.

    Raises
    ------
    InputError
        As for :func:`loss_curve`.
    """
    return _curve(history, ax, "acc", "accuracy")


def validation_curve(
    values: ArrayLike, train: ArrayLike, validation: ArrayLike, ax: Axes, xlabel: str
) -> Axes:
    """Draw training and validation loss against a setting, and mark where validation is best.

    Parameters
    ----------
    values : array_like
        What was tried, positive numbers, shape ``(m,)``; drawn on a logarithmic axis.
    train, validation : array_like
        The losses reached, shape ``(m,)``; NaN or infinite where training diverged, which is
        marked by a cross at the top.
    ax : matplotlib Axes
        Where to draw.
    xlabel : str
        What the setting is called.

    Returns
    -------
    Axes
        ``ax``.

    Raises
    ------
    ShapeError, InputError
        The three do not belong together, a value is not positive, no validation loss is finite,
        or ``ax`` is no Axes.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = Figure().subplots()
    >>> ax = validation_curve([0.1, 1], [0.5, 0.4], [0.5, 0.6], ax, "learning rate")
    >>> ax.get_xscale(), ax.get_legend().get_texts()[-1].get_text()
    ('log', 'best: 0.5 at 0.1')
    """
    given = {"values": values, "train": train, "validation": validation}
    tried, trained, held_out = (as_float(numbers, what) for what, numbers in given.items())
    if tried.ndim != 1 or not tried.shape == trained.shape == held_out.shape:
        raise ShapeError(
            "values, train and validation: expected one number of each per setting, got shapes "
            f"{tried.shape}, {trained.shape} and {held_out.shape}"
        )
    finite = np.isfinite(trained) & np.isfinite(held_out)
    if not finite.any() or not ((tried > 0) & np.isfinite(tried)).all():
        raise InputError(
            f"values, validation: expected positive values and a finite loss at one of them, got "
            f"{tried.tolist()} and {held_out.tolist()}"
        )
    order = np.argsort(tried, kind="stable")
    order = order[finite[order]]
    best = order[held_out[order].argmin()]
    as_axes(ax).plot(tried[order], trained[order], label="training", **TRAINING)
    ax.plot(tried[order], held_out[order], label="validation", **HELD_OUT)
    label = f"best: {held_out[best]:.4g} at {tried[best]:g}"
    ax.plot(tried[best], held_out[best], "*", markersize=14, color=HELD_OUT["color"], label=label)
    if not finite.all():
        top = ax.get_xaxis_transform()  # x as in the data, y from 0 to 1
        crosses = np.full((~finite).sum(), 0.96)
        ax.plot(tried[~finite], crosses, "kx", transform=top, label="diverged")
    ax.set(xscale="log", xlabel=xlabel, ylabel=LOSS)
    ax.grid(alpha=0.3)
    ax.legend()
    return ax


def _curve(history: History, ax: Axes, field: str, ylabel: str) -> Axes:
    if not isinstance(history, Sequence) or not history:
        raise InputError(
            f"history: expected a sequence of at least one record, got {history!r:.80}; "
            "train first, then pass trainer.history"
        )
    unit = history[0].UNIT
    places = [getattr(record, unit) for record in history]
    marker = "." if len(history) <= MOST_MARKERS else ""
    as_axes(ax)
    for prefix, label, style in (("train", "training", TRAINING), ("test", "test", HELD_OUT)):
        values = np.array([getattr(record, f"{prefix}_{field}") for record in history], float)
        if not np.isnan(values).all():
            ax.plot(places, values, label=label, **{**style, "marker": marker})
    ax.set(xlabel=unit, ylabel=ylabel)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    ax.grid(alpha=0.3)
    ax.legend()
    return ax


# Samples and weights as the square images that they are.

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


def _as_square(column: ArrayLike, name: str) -> NDArray[Any]:
    pixels = np.asarray(column)
    side = math.isqrt(pixels.size)
    if (pixels.shape not in ((side**2,), (side**2, 1))) or side == 0:
        raise ShapeError(
            f"{name}: expected a square image as shape (d,) or (d, 1) with d = side * side, "
            f"got {pixels.shape}; one sample of X is X[:, j]"
        )
    if pixels.dtype.kind not in "biuf" or not np.isfinite(pixels).all():
        raise InputError(
            f"{name}: expected finite numbers, got dtype {pixels.dtype}, NaN or infinities; "
            "convert or repair them first"
        )
    return pixels.reshape(side, side)


# What a model says of single images.

RIGHT, WRONG = "#333333", "#b2182b"
NAME_SIZE, NAME_POINTS = 10, 120  # about 20 letters beside a bar


def top_k_bars(guesses: Sequence[tuple[str, float]], ax: Axes) -> Axes:
    """Draw the probabilities of an image's likeliest classes as bars, the first on top.

    Parameters
    ----------
    guesses : sequence of (str, float)
        Class names with their probabilities, as
        :meth:`npsoftmax.SoftmaxRegression.top_k` returns for each sample.
    ax : matplotlib Axes
        Where to draw.

    Returns
    -------
    Axes
        ``ax``, from 0 to 1, with the probabilities written beside the bars.

    Raises
    ------
    InputError
        No guess, a probability outside 0 to 1, or ``ax`` is no Axes.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = top_k_bars([("Bag", 0.75), ("Shirt", 0.25)], Figure().subplots())
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['Bag', 'Shirt']
    """
    names, shares = _as_guesses(guesses)
    places = np.arange(shares.size)
    as_axes(ax).barh(places, shares, height=0.7, color="#4477aa")
    for place, share in zip(places, shares, strict=True):
        inside = share > 0.8  # a long bar has no room beside it
        ax.annotate(
            f"{share:.3f}",
            (share, place),
            xytext=(-4 if inside else 4, 0),
            textcoords="offset points",
            verticalalignment="center",
            horizontalalignment="right" if inside else "left",
            color="white" if inside else "black",
        )
    labels = [fitted(name, NAME_POINTS, NAME_SIZE) for name in names]
    ax.set_yticks(places, labels, fontsize=NAME_SIZE)
    ax.set(xlim=(0, 1), ylim=(shares.size - 0.5, -0.5), xlabel="probability")
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def prediction_grid(model: "SoftmaxRegression", X: ArrayLike, y: ArrayLike, axes: Grid) -> Grid:
    """Draw samples with the predicted class, its probability, and the true class; errors in red.

    Parameters
    ----------
    model : SoftmaxRegression
        For square images.
    X : array_like
        Samples, shape ``(d, n)``; the first ones are drawn, one on each of the Axes.
    y : array_like
        Their labels, shape ``(n,)``.
    axes : Axes, or array or sequence of them
        As ``Figure.subplots(rows, columns)`` returns them; those left over are switched off.

    Returns
    -------
    Axes, or array or sequence of them
        ``axes``.

    Raises
    ------
    ShapeError, LabelError, InputError
        The samples do not fit the model or the labels, or make no square images; no Axes.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from npsoftmax import SoftmaxRegression
    >>> model = SoftmaxRegression(4, 2, sigma=0, classes=["up", "down"])
    >>> ax = prediction_grid(model, np.zeros((4, 1)), [1], Figure().subplots())
    >>> ax.get_title().splitlines()
    ['up 0.500', 'true: down']
    """
    grid = as_grid(axes)
    columns, labels = _as_samples(model, X, y)
    _draw_outcomes(model, columns[:, : len(grid)], labels, grid)
    return axes


def misclassified(model: "SoftmaxRegression", X: ArrayLike, y: ArrayLike, axes: Grid) -> Grid:
    """Draw the samples that the model gets wrong, the error it is surest of first.

    Parameters
    ----------
    model, X, y, axes
        As for :func:`prediction_grid`, but all samples are looked at.

    Returns
    -------
    Axes, or array or sequence of them
        ``axes``; those for which no error is left are switched off.

    Raises
    ------
    ShapeError, LabelError, InputError
        As for :func:`prediction_grid`.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from npsoftmax import SoftmaxRegression
    >>> model = SoftmaxRegression(4, 2, sigma=0, classes=["up", "down"])
    >>> left, right = misclassified(model, np.eye(4, 2), [0, 1], Figure().subplots(1, 2))
    >>> left.get_title().splitlines(), right.axison
    (['up 0.500', 'true: down'], False)
    """
    grid = as_grid(axes)
    columns, labels = _as_samples(model, X, y)
    P = model.probabilities(columns)
    wrong = np.flatnonzero(P.argmax(axis=0) != labels)
    worst = wrong[np.argsort(-P.max(axis=0)[wrong], kind="stable")][: len(grid)]
    _draw_outcomes(model, columns[:, worst], labels[worst], grid)
    return axes


def _as_guesses(guesses: Sequence[tuple[str, float]]) -> tuple[list[str], NDArray[np.float64]]:
    try:
        names, shares = [str(name) for name, _ in guesses], [float(share) for _, share in guesses]
    except (TypeError, ValueError):
        names, shares = [], []
    if not names or not all(0 <= share <= 1 for share in shares):
        raise InputError(
            f"guesses: expected names with probabilities from 0 to 1, got {guesses!r:.200}; "
            "pass one entry of model.top_k(X)"
        )
    return names, np.array(shares)


def _as_samples(
    model: "SoftmaxRegression", X: ArrayLike, y: ArrayLike
) -> tuple[NDArray[Any], NDArray[Any]]:
    columns, labels = as_columns(X, model.num_inputs), as_labels(y, model.num_outputs)
    same_samples(columns, labels)
    return columns, labels


def _draw_outcomes(
    model: "SoftmaxRegression", X: NDArray[Any], y: NDArray[Any], grid: list[Axes]
) -> None:
    """Draw as many samples as there are of both samples and Axes."""
    P = model.probabilities(X)
    for ax, column, p, label in zip(grid, X.T, P.T, y, strict=False):
        predicted, room = p.argmax(), size_of(ax)[0]
        lines = (
            fitted(model.classes[predicted], room, TITLE_SIZE, after=f" {p[predicted]:.3f}"),
            fitted(model.classes[label], room, TITLE_SIZE, before="true: "),
        )
        colour = RIGHT if predicted == label else WRONG
        image(column, ax).set_title("\n".join(lines), fontsize=TITLE_SIZE, color=colour)
    blank(grid[X.shape[1] :])


# Where a model errs, and whether its probabilities can be believed.

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


# Curves that grow in a notebook while a model trains.

Record = TypeVar("Record", EpochRecord, IterationRecord)

INTERVAL_SECONDS, PAUSE_PER_DRAWING = 0.5, 4
WIDTH, HEIGHT = 9.0, 3.4  # inches
DPI, SCREEN_DPI = 150, 75  # two pixels for each of an ordinary screen


def live(records: Iterable[Record]) -> Iterator[Record]:
    """Pass on the records of a training run, and draw them in the notebook as they come.

    One figure with the curves of loss and accuracy stands below the cell and is replaced in
    place, at most twice a second, and at the end, however the run ends. Between two drawings it
    waits at least four times as long as one takes. Outside a notebook the records are passed on,
    and nothing is drawn.

    Parameters
    ----------
    records : iterable of EpochRecord or IterationRecord
        What ``Trainer.run`` or ``FullBatchTrainer.run`` yields.

    Yields
    ------
    EpochRecord or IterationRecord
        The same records.

    Examples
    --------
    >>> from npsoftmax import DataLoader, Descent, SoftmaxRegression, Trainer
    >>> loader = DataLoader([[-1.0, 1.0, -2.0, 2.0]], [0, 1, 0, 1], batch_size=2)
    >>> trainer = Trainer(SoftmaxRegression(1, 2), Descent(1.0), loader)
    >>> for record in live(trainer.run(epochs=3)):
    ...     print(record.epoch)
    1
    2
    3
    """
    shell = _notebook()
    if shell is None:
        yield from records
        return
    board = _Board(shell)
    try:
        for record in records:
            board.add(record)
            yield record
    finally:
        board.finish()


class _Board:
    """The figure below the cell."""

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.name = secrets.token_hex(16)
        self.history: list[Any] = []
        self.num_shown = 0
        self.due = 0.0

    def add(self, record: EpochRecord | IterationRecord) -> None:
        """Take one more record; draw if the last drawing is long enough ago."""
        self.history.append(record)
        if perf_counter() >= self.due:
            self.show()

    def finish(self) -> None:
        """Draw what has not been drawn."""
        if self.num_shown < len(self.history):
            self.show()

    def show(self) -> None:
        """Draw, in place of the drawing before."""
        started = perf_counter()
        self.shell.display_pub.publish(
            {"image/png": _as_png(self.history), "text/plain": str(self.history[-1])},
            {"image/png": {"width": WIDTH * SCREEN_DPI, "height": HEIGHT * SCREEN_DPI}},
            transient={"display_id": self.name},
            update=self.num_shown > 0,
        )
        self.num_shown = len(self.history)
        drawing = perf_counter() - started
        self.due = perf_counter() + max(INTERVAL_SECONDS, PAUSE_PER_DRAWING * drawing)


def _as_png(history: Sequence[Any]) -> str:
    figure = Figure(figsize=(WIDTH, HEIGHT))
    # Fixed margins: finding them would draw everything a second time.
    figure.subplots_adjust(left=0.08, right=0.98, bottom=0.15, top=0.95, wspace=0.25)
    left, right = figure.subplots(1, 2)
    loss_curve(history, left)
    accuracy_curve(history, right)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI)
    return base64.b64encode(file.getvalue()).decode()


def _notebook() -> Any:
    """Return the shell of the notebook that runs this; IPython in a terminal shows text only."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is None or "image/png" not in shell.display_formatter.active_types:
        return None
    return shell
