"""Pictures of training, models and predictions, drawn on matplotlib Axes.

Each function draws on the Axes that it is given and returns them; :func:`grid` makes a figure.
None uses ``pyplot``, so no figure stays open. The settings of the user (``matplotlibrc``, styles)
apply, except where they would make a picture wrong: images are upright with square pixels, and
curves have a width. Class names are drawn literally, never as formulas; control characters are
escaped, and the middle of a long name is left out. For letters that the default font lacks, name
further fonts in ``matplotlib.rcParams["font.family"]``. ``Figure`` in the examples is
``matplotlib.figure.Figure``. In a notebook, a figure at the end of a cell is shown.
"""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from operator import attrgetter
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npsoftmax._checks import as_float, as_samples
from npsoftmax.errors import InputError, ShapeError
from npsoftmax.ext import extra
from npsoftmax.history import EpochRecord, IterationRecord
from npsoftmax.metrics import confidence_bins, expected_calibration_error, per_class

with extra("plot"):
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import TightLayoutEngine
    from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from npsoftmax.model import SoftmaxRegression
    from npsoftmax.path import PenaltyPath

__all__ = [
    "History",
    "accuracy_curve",
    "confusion",
    "defaults",
    "grid",
    "image",
    "live",
    "loss_curve",
    "misclassified",
    "path",
    "prediction_grid",
    "reliability",
    "top_features",
    "top_k_bars",
    "validation_curve",
    "weights",
]

History = Sequence[EpochRecord] | Sequence[IterationRecord]
# One Axes, the array that Figure.subplots returns, or a list.
Grid = TypeVar("Grid", bound=Axes | Sequence[Axes] | NDArray[Any])

# Blue and orange are distinct to colour-blind readers too; so are the dash and the solid line. All
# of these colours can be seen on white and on black.
BLUE, ORANGE, RED, GREY = "#4477aa", "#cc5500", "#cc3311", "0.5"
CURVE: dict[str, Any] = {"linewidth": 1.5, "marker": ".", "markersize": 9}
TRAINING: dict[str, Any] = {"color": BLUE, "linestyle": "--", **CURVE}
HELD_OUT: dict[str, Any] = {"color": ORANGE, "linestyle": "-", **CURVE}
PIXELS: dict[str, Any] = {"origin": "upper", "aspect": "equal", "interpolation": "nearest"}
LITERALLY: dict[str, Any] = {"parse_math": False, "usetex": False}
LOSS = "mean cross-entropy (nats)"


@contextmanager
def defaults() -> Iterator[None]:
    """Draw with matplotlib's default settings, whatever a ``matplotlibrc`` says.

    Make and save the figure in the block. The fonts of the user stay.

    Examples
    --------
    >>> with defaults():
    ...     ax = image(np.eye(4).ravel(), Figure().subplots())
    """
    kept = ("backend", "font.family", "font.serif", "font.sans-serif", "font.monospace")
    settings = {k: v for k, v in matplotlib.rcParamsDefault.items() if not k.startswith(kept)}
    with matplotlib.rc_context(settings):
        yield


# Training.


def loss_curve(history: History, ax: Axes) -> Axes:
    """Draw training and test loss against the epoch or iteration, from a trainer's ``history``."""
    return _history_curve(history, ax, "loss", LOSS)


def accuracy_curve(history: History, ax: Axes) -> Axes:
    """Draw training and test accuracy against the epoch or iteration, like :func:`loss_curve`."""
    return _history_curve(history, ax, "acc", "accuracy")


def _history_curve(history: History, ax: Axes, field: str, ylabel: str) -> Axes:
    if not isinstance(history, Sequence) or not history:
        raise InputError(
            f"history: expected at least one record, got {history!r:.80}; pass trainer.history"
        )
    unit = history[0].UNIT
    steps = [getattr(record, unit) for record in history]
    marker = "." if len(history) <= 30 else ""  # more would merge into a thick line
    _check_axes(ax)
    for prefix, label, style in (("train", "training", TRAINING), ("test", "test", HELD_OUT)):
        values = np.array([getattr(record, f"{prefix}_{field}") for record in history], float)
        if not np.isnan(values).all():
            ax.plot(steps, values, label=label, **{**style, "marker": marker})
    ax.set(xlabel=unit, ylabel=ylabel)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    ax.grid(alpha=0.3)
    ax.legend()
    return ax


def validation_curve(
    values: ArrayLike, train: ArrayLike, validation: ArrayLike, ax: Axes, xlabel: str
) -> Axes:
    """Draw training and validation loss against a setting, and mark the lowest validation loss.

    Parameters
    ----------
    values : array_like
        Values of the setting, positive, shape ``(m,)``; drawn on a logarithmic axis.
    train, validation : array_like
        The losses, shape ``(m,)``. Where one is NaN or infinite, training diverged; a cross at
        the top marks that value.
    ax : matplotlib Axes
    xlabel : str
        The name of the setting.

    Examples
    --------
    >>> ax = Figure().subplots()
    >>> ax = validation_curve([0.1, 1], [0.5, 0.4], [0.5, 0.6], ax, "learning rate")
    >>> ax.get_xscale(), ax.get_legend().get_texts()[-1].get_text()
    ('log', 'best: 0.5 at 0.1')
    """
    given = {"values": values, "train": train, "validation": validation}
    tried, trained, held_out = (as_float(numbers, name) for name, numbers in given.items())
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
    _check_axes(ax)
    ax.plot(tried[order], trained[order], label="training", **TRAINING)
    ax.plot(tried[order], held_out[order], label="validation", **HELD_OUT)
    label = f"best: {held_out[best]:.4g} at {tried[best]:g}"
    ax.plot(tried[best], held_out[best], "*", markersize=14, color=ORANGE, label=label)
    if not finite.all():
        top = ax.get_xaxis_transform()  # x in data coordinates, y from 0 to 1
        crosses = np.full((~finite).sum(), 0.96)
        ax.plot(tried[~finite], crosses, "x", color=GREY, transform=top, label="diverged")
    ax.set(xscale="log", xlabel=xlabel, ylabel=LOSS)
    ax.grid(alpha=0.3)
    ax.legend()
    return ax


def path(result: PenaltyPath, ax: Axes | None = None) -> Axes:
    """Draw the held-out loss of a path against the penalty, with its standard error.

    The best value is marked, and the largest one whose loss is within a standard error of it.
    Without held-out samples the objective is drawn.

    Parameters
    ----------
    result : PenaltyPath
        What :func:`npsoftmax.fit_path` returned.
    ax : matplotlib Axes, optional
        Those of a new figure by default, which is ``ax.figure``.

    Examples
    --------
    >>> from npsoftmax import PathRecord, PenaltyPath
    >>> losses = {1.0: 0.6, 0.1: 0.5}
    >>> ax = path(PenaltyPath([
    ...     PathRecord(l2, 0.4, 0.0, 0.4, 1, 0.0, True, loss, 0.05) for l2, loss in losses.items()
    ... ]))
    >>> [text.get_text() for text in ax.get_legend().get_texts()][1:]
    ['one standard error: 0.5 at 0.1', 'held-out']
    """
    ax = Figure(layout="constrained").subplots() if ax is None else ax
    _check_axes(ax)
    records = sorted(result.records, key=attrgetter("l2"))
    values = [record.l2 for record in records]
    ax.set(xscale="log", xlabel="l2", ylabel=LOSS)
    ax.grid(alpha=0.3)
    if records[0].held_out_loss is None:
        ax.plot(values, [record.objective for record in records], **TRAINING)
        ax.set_ylabel("objective (nats)")
        return ax
    losses, errors = zip(*((r.held_out_loss, r.held_out_error) for r in records), strict=True)
    ax.errorbar(values, losses, errors, label="held-out", capsize=2, **HELD_OUT)
    ax.set_yscale("log")  # or what happens near the best value could not be seen
    for name, marker in (("best", "*"), ("one_standard_error", "D")):
        chosen = getattr(result, name)
        label = f"{name.replace('_', ' ')}: {chosen.held_out_loss:.4g} at {chosen.l2:g}"
        ax.plot(chosen.l2, chosen.held_out_loss, marker, markersize=11, color=BLUE, label=label)
    ax.legend()
    return ax


Record = TypeVar("Record", EpochRecord, IterationRecord)

PAUSE = 4  # between two drawings, in durations of a drawing


def live(records: Iterable[Record]) -> Iterator[Record]:
    """Draw loss and accuracy in the notebook while a model trains.

    The figure below the cell is replaced in place. Between two drawings it waits at least four
    times as long as a drawing takes, so training is hardly slowed. The last record is always drawn,
    even after ``break``, an error or an interruption. Outside a notebook nothing is drawn.

    Parameters
    ----------
    records : iterable of EpochRecord or IterationRecord
        The iterator that ``Trainer.run`` or ``FullBatchTrainer.run`` returns. Its records are
        yielded.

    Examples
    --------
    >>> from npsoftmax import DataLoader, Descent, SoftmaxRegression, Trainer
    >>> loader = DataLoader([[-1.0, 1.0, -2.0, 2.0]], [0, 1, 0, 1], batch_size=2)
    >>> trainer = Trainer(SoftmaxRegression(1, 2), Descent(1.0), loader)
    >>> [record.epoch for record in live(trainer.run(epochs=3))]
    [1, 2, 3]
    """
    display = _notebook_display()
    if display is None:
        yield from records
        return
    board = _Board(display)
    try:
        for record in records:
            board.history.append(record)
            if perf_counter() >= board.due:
                board.draw()
            yield record
    finally:
        if board.num_drawn < len(board.history):
            board.draw()


def _notebook_display() -> Any:
    """Return the module ``IPython.display``, or None where IPython shows no images."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is None or "image/png" not in shell.display_formatter.active_types:
        return None
    return import_module("IPython.display")


class _Board:
    """The figure below a cell."""

    def __init__(self, display: Any) -> None:
        self.display, self.handle = display, display.DisplayHandle()
        self.history: list[Any] = []
        self.num_drawn, self.due = 0, 0.0

    def draw(self) -> None:
        """Draw the history so far, in place of the previous drawing."""
        started = perf_counter()
        show = self.handle.update if self.num_drawn else self.handle.display
        show(self.display.Image(_as_png(self.history), retina=True))
        self.num_drawn = len(self.history)
        self.due = perf_counter() + PAUSE * (perf_counter() - started)


def _as_png(history: Sequence[Any]) -> bytes:
    file = io.BytesIO()
    with defaults():
        figure = Figure(figsize=(9, 3.4))
        # Fixed margins: finding them would draw everything a second time.
        figure.subplots_adjust(left=0.08, right=0.98, bottom=0.15, top=0.95, wspace=0.25)
        left, right = figure.subplots(1, 2)
        loss_curve(history, left)
        accuracy_curve(history, right)
        figure.savefig(file, format="png", dpi=150)
    return file.getvalue()


def _show_figures() -> None:
    """Let notebooks show a ``Figure``, as they do after ``pyplot`` was imported."""
    if _notebook_display() is None:
        return
    from IPython.core.pylabtools import print_figure

    formatters = sys.modules["IPython"].get_ipython().display_formatter.formatters
    if not any(Figure in formatters[kind] for kind in ("image/png", "image/svg+xml")):
        formatters["image/png"].for_type(Figure, partial(print_figure, base64=True))


_show_figures()


# Images and weights.


def image(column: ArrayLike, ax: Axes) -> Axes:
    """Draw one sample as a square grey image.

    For ``uint8``, 0 is black and 255 white. For other dtypes, 0 is black (or the smallest number,
    if that is negative), and 1 is white (or the largest number, if that is above 1).

    Parameters
    ----------
    column : array_like
        The pixels row by row, shape ``(d,)`` or ``(d, 1)``, with ``d`` a square number.
    ax : matplotlib Axes

    Examples
    --------
    >>> ax = image(np.arange(4, dtype=np.uint8), Figure().subplots())
    >>> ax.images[0].get_array().tolist(), ax.images[0].get_clim()
    ([[0, 1], [2, 3]], (0.0, 255.0))
    """
    pixels = _as_square(column, "column")
    black, white = 0.0, 255.0
    if pixels.dtype != np.uint8:
        black, white = min(0.0, float(pixels.min())), max(1.0, float(pixels.max()))
    _check_axes(ax)
    ax.imshow(pixels, cmap="gray", vmin=black, vmax=white, **PIXELS)
    ax.set(xticks=[], yticks=[])
    return ax


MAX_IMAGES = 100


def grid(X: ArrayLike, titles: Iterable[object] | None = None) -> Figure:
    r"""Draw samples like :func:`image`, each below its title, on a new figure, up to 8 in a row.

    Parameters
    ----------
    X : array_like
        Samples, ``(d, n)``, with 1 to 100 columns.
    titles : iterable of str or None
        The ``n`` titles, of one or more lines. By default there are none.

    Returns
    -------
    matplotlib.figure.Figure
        A notebook shows it at the end of a cell; ``savefig`` writes it to a file.

    Examples
    --------
    >>> figure = grid(np.eye(4), ["cat\ntrue: dog", "dog\ntrue: cat", "owl", "owl"])
    >>> len(figure.axes), figure.axes[0].get_title().splitlines()
    (4, ['cat', 'true: dog'])
    """
    columns = np.asarray(X)
    if columns.ndim != 2 or not 1 <= columns.shape[1] <= MAX_IMAGES:
        raise ShapeError(
            f"X: expected 1 to {MAX_IMAGES} samples as columns, (d, n), got shape "
            f"{columns.shape}; pass X[:, :24], or X.T if the rows are samples"
        )
    names = [""] * columns.shape[1] if titles is None else [str(title) for title in titles]
    if len(names) != columns.shape[1]:
        raise ShapeError(
            f"titles: expected one for each of the {columns.shape[1]} samples, got {len(names)}"
        )
    rows, width = math.ceil(len(names) / 8), min(len(names), 8)
    with defaults():
        figure = Figure(figsize=(1.5 * width, 1.9 * rows), layout="tight")
        axes = figure.subplots(rows, width, squeeze=False).ravel()
        for ax, column, name in zip(axes, columns.T, names, strict=False):
            title = "\n".join(_shorten(line, 17) for line in name.split("\n"))
            image(column, ax).set_title(title, fontsize=TITLE_POINTS, **LITERALLY)
        for ax in axes[len(names) :]:
            ax.set_axis_off()
    return figure


def weights(model: SoftmaxRegression, axes: Grid) -> Grid:
    """Draw the weights of each class as an image: red is evidence for the class, blue against.

    All classes share one scale, symmetric about 0, and one colour bar. The scale ends at the 99.5th
    percentile of the absolute weights; the few beyond it have the end colours.

    Parameters
    ----------
    model : SoftmaxRegression
        A model of square images.
    axes : Axes, or array or sequence of them
        At least one for each class, as ``Figure.subplots(rows, columns)`` returns them. The rest
        is switched off. The colour bar takes some of their space.

    Examples
    --------
    >>> from npsoftmax import SoftmaxRegression
    >>> model = SoftmaxRegression(4, 2, classes=["up", "down"])
    >>> left, right = weights(model, Figure().subplots(1, 2))
    >>> left.get_title(), left.images[0].get_array().shape
    ('up', (2, 2))
    """
    grid = _as_grid(axes, model.num_outputs)
    squares = [_as_square(row, "weights of a class") for row in model.W]
    # A scale up to the very largest weight would leave the others pale.
    limit = float(np.quantile(np.abs(model.W), 0.995)) or 1.0
    for ax, square in zip(grid, squares, strict=False):
        shown = ax.imshow(square, cmap="RdBu_r", vmin=-limit, vmax=limit, **PIXELS)
        ax.set(xticks=[], yticks=[])
    for ax in grid[len(squares) :]:
        ax.set_axis_off()
    label = "weight (above 0: for the class)"
    figure: Any = grid[0].figure.figure  # not one of its subfigures
    if isinstance(figure.get_layout_engine(), TightLayoutEngine):
        figure.set_layout_engine("constrained")  # the tight one draws the colour bar over images
    grid[0].figure.colorbar(shown, ax=grid, extend="both", pad=0.03, label=label)
    for ax, name in zip(grid, model.classes, strict=False):
        title = _shorten(name, _title_letters(ax))
        ax.set_title(title, fontsize=TITLE_POINTS, **LITERALLY)
    return axes


def top_features(model: SoftmaxRegression, axes: Grid, k: int = 10) -> Grid:
    """Draw the strongest features of each class as bars, the first on top.

    They and their weights are those of :meth:`npsoftmax.SoftmaxRegression.top_features`. All
    classes share one scale.

    Parameters
    ----------
    model : SoftmaxRegression
    axes : Axes, or array or sequence of them
        At least one for each class, as ``Figure.subplots(rows, columns)`` returns them. The rest
        is switched off. Names of features need space: use ``Figure(layout="constrained")``.
    k : int
        Features of each class.

    Examples
    --------
    >>> from npsoftmax import SoftmaxRegression
    >>> model = SoftmaxRegression(2, 2, classes=["cat", "dog"], feature_names=["meow", "bark"])
    >>> model.W[:] = [[2, 0], [0, 3]]
    >>> cat, dog = top_features(model, Figure(layout="constrained").subplots(1, 2), k=1)
    >>> [label.get_text() for label in dog.get_yticklabels()], float(dog.patches[0].get_width())
    (['bark'], 1.5)
    """
    grid = _as_grid(axes, model.num_outputs)
    strongest = model.top_features(k)
    weights = [weight for features in strongest for _, weight in features]
    ends = 1.05 * min(0.0, *weights), 1.05 * max(0.0, *weights)
    for ax, name, features in zip(grid, model.classes, strongest, strict=False):
        ax.barh(range(k), [weight for _, weight in features], height=0.7, color=BLUE)
        labels = [_shorten(feature) for feature, _ in features]
        ax.set_yticks(range(k), labels, fontsize=TITLE_POINTS, **LITERALLY)
        ax.set(xlim=ends if ends[0] < ends[1] else (0, 1), ylim=(k - 0.5, -0.5))
        ax.set_title(_shorten(name, _title_letters(ax)), fontsize=TITLE_POINTS, **LITERALLY)
        ax.tick_params(axis="y", length=0)
        ax.spines[["top", "right"]].set_visible(False)
    for ax in grid[model.num_outputs :]:
        ax.set_axis_off()
    return axes


def _as_square(column: ArrayLike, name: str) -> NDArray[Any]:
    pixels = np.asarray(column)
    side = math.isqrt(pixels.size)
    if (pixels.shape not in ((side**2,), (side**2, 1))) or side == 0:
        raise ShapeError(
            f"{name}: expected a square image, (d,) or (d, 1), got {pixels.shape}; pass X[:, j]"
        )
    if pixels.dtype.kind not in "biuf" or not np.isfinite(pixels).all():
        raise InputError(
            f"{name}: expected finite numbers, got dtype {pixels.dtype}, NaN or infinities"
        )
    return pixels.reshape(side, side)


# Predictions.


def top_k_bars(guesses: Sequence[tuple[str, float]], ax: Axes) -> Axes:
    """Draw the probabilities of the most likely classes of one sample as bars, the first on top.

    Parameters
    ----------
    guesses : sequence of (str, float)
        Class names and probabilities, one entry of ``SoftmaxRegression.top_k(X)``.
    ax : matplotlib Axes

    Examples
    --------
    >>> ax = top_k_bars([("Bag", 0.75), ("Shirt", 0.25)], Figure().subplots())
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['Bag', 'Shirt']
    """
    names, shares = _as_guesses(guesses)
    _check_axes(ax)
    ax.barh(range(len(names)), shares, height=0.7, color=BLUE)
    for place, share in enumerate(shares):
        # There is no space to the right of a long bar.
        points, side = (-4, "right") if share > 0.8 else (4, "left")
        style: dict[str, Any] = {"color": "white"} if share > 0.8 else {}
        style |= {"ha": side, "va": "center", "textcoords": "offset points"}
        ax.annotate(f"{share:.3f}", (share, place), (points, 0), **style)
    labels = [_shorten(name) for name in names]
    ax.set_yticks(range(len(names)), labels, fontsize=10, **LITERALLY)
    ax.set(xlim=(0, 1), ylim=(len(names) - 0.5, -0.5), xlabel="probability")
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _as_guesses(guesses: Sequence[tuple[str, float]]) -> tuple[list[str], list[float]]:
    try:
        names, shares = [str(name) for name, _ in guesses], [float(share) for _, share in guesses]
    except (TypeError, ValueError):
        names, shares = [], []
    if not names or not all(0 <= share <= 1 for share in shares):
        raise InputError(
            f"guesses: expected names with probabilities from 0 to 1, got {guesses!r:.200}; "
            "pass one entry of model.top_k(X)"
        )
    return names, shares


def prediction_grid(model: SoftmaxRegression, X: ArrayLike, y: ArrayLike, axes: Grid) -> Grid:
    """Draw samples with their predicted class, its probability and the true class; errors in red.

    Parameters
    ----------
    model : SoftmaxRegression
        A model of square images.
    X, y : array_like
        Samples, ``(d, n)``, and labels, ``(n,)``; the first ones are drawn, one on each Axes.
    axes : Axes, or array or sequence of them
        As ``Figure.subplots(rows, columns)`` returns them. The rest is switched off.

    Examples
    --------
    >>> from npsoftmax import SoftmaxRegression
    >>> model = SoftmaxRegression(4, 2, sigma=0, classes=["up", "down"])
    >>> ax = prediction_grid(model, np.zeros((4, 1)), [1], Figure().subplots())
    >>> ax.get_title().splitlines()
    ['up 0.500', 'true: down']
    """
    grid = _as_grid(axes)
    columns, labels = as_samples(X, y, model.num_inputs, model.num_outputs)
    _draw_predictions(model, columns[:, : len(grid)], labels[: len(grid)], grid)
    return axes


def misclassified(model: SoftmaxRegression, X: ArrayLike, y: ArrayLike, axes: Grid) -> Grid:
    """Draw misclassified samples like :func:`prediction_grid`, the most confident error first.

    Examples
    --------
    >>> from npsoftmax import SoftmaxRegression
    >>> model = SoftmaxRegression(4, 2, sigma=0, classes=["up", "down"])
    >>> left, right = misclassified(model, np.eye(4, 2), [0, 1], Figure().subplots(1, 2))
    >>> left.get_title().splitlines(), right.axison
    (['up 0.500', 'true: down'], False)
    """
    grid = _as_grid(axes)
    columns, labels = as_samples(X, y, model.num_inputs, model.num_outputs)
    P = model.probabilities(columns)
    wrong = np.flatnonzero(P.argmax(axis=0) != labels)
    worst = wrong[np.argsort(-P.max(axis=0)[wrong], kind="stable")][: len(grid)]
    _draw_predictions(model, columns[:, worst], labels[worst], grid)
    return axes


def _draw_predictions(
    model: SoftmaxRegression, X: NDArray[Any], y: NDArray[Any], grid: list[Axes]
) -> None:
    P = model.probabilities(X)
    if model.input_scale(X.dtype) != 1:
        X = X.astype(np.uint8)  # pixels of wider integers are drawn alike
    for ax, column, p, label in zip(grid, X.T, P.T, y, strict=False):
        predicted, letters = p.argmax(), _title_letters(ax)
        title = (
            f"{_shorten(model.classes[predicted], letters - 6)} {p[predicted]:.3f}\n"
            f"true: {_shorten(model.classes[label], letters - 6)}"
        )
        style = LITERALLY if predicted == label else LITERALLY | {"color": RED}
        image(column, ax).set_title(title, fontsize=TITLE_POINTS, **style)
    for ax in grid[len(y) :]:
        ax.set_axis_off()


# Evaluation.


def confusion(counts: ArrayLike, classes: Sequence[str], ax: Axes) -> Axes:
    """Draw a confusion matrix, a row for each true class, coloured by its share of the row.

    The colours follow the square root of the share, which shows errors of a few per cent next to a
    diagonal of nearly one. Names, and counts other than 0, are written unless the cells are too
    small.

    Parameters
    ----------
    counts : array_like of int
        Shape ``(k, k)``, from :func:`npsoftmax.metrics.confusion_matrix`.
    classes : sequence of str
        The ``k`` names.
    ax : matplotlib Axes
        The colour bar is to its right.

    Examples
    --------
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
    _check_axes(ax)
    shown = ax.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1), **PIXELS)
    ax.grid(visible=False)  # its lines would cross the counts
    bar = ax.inset_axes((1.03, 0, 0.04, 1))
    ax.figure.colorbar(shown, cax=bar, label="share of the true class")
    ax.set(xlabel="predicted class", ylabel="true class")
    cell = min(_size_in_points(ax)) / support.size
    _write_counts(cells, shares, cell, ax)
    _write_names(classes, cell, ax)
    return ax


MIN_FONT_POINTS = 5.0


def _write_counts(cells: NDArray[Any], shares: NDArray[Any], cell: float, ax: Axes) -> None:
    size = min(9.0, 1.25 * cell / len(str(cells.max())))  # digits are 0.64 times as wide as high
    if size < MIN_FONT_POINTS:
        return
    for (row, column), count in np.ndenumerate(cells):
        if count:
            colour = "white" if shares[row, column] > 0.3 else "black"
            ax.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=size)


def _write_names(classes: Sequence[str], cell: float, ax: Axes) -> None:
    size = min(9.0, 0.75 * cell)
    if size < MIN_FONT_POINTS:
        return
    is_spacious = cell > 2 * size
    names = [_shorten(str(name), 20 if is_spacious else 12) for name in classes]
    style = LITERALLY | {"fontsize": size}
    ax.set_yticks(range(len(names)), names, **style)
    if max(map(len, names)) * 0.7 * size > cell:
        angle = 45 if is_spacious else 90
        style |= {"rotation": angle, "rotation_mode": "anchor", "ha": "right", "va": "center"}
    ax.set_xticks(range(len(names)), names, **style)


def reliability(probabilities: ArrayLike, y: ArrayLike, ax: Axes, num_bins: int = 15) -> Axes:
    """Draw accuracy against confidence; bars below the diagonal mean an overconfident model.

    The bins are those of :func:`npsoftmax.metrics.expected_calibration_error`. That error, in the
    title, is the mean length of the red gaps between accuracy and mean confidence, weighted by the
    numbers of samples, which are written above the bins (up to 30 bins).

    Parameters
    ----------
    probabilities, y : array_like
        Shape ``(k, n)``, and labels, ``(n,)``.
    ax : matplotlib Axes
    num_bins : int
        The number of bins, of equal width.

    Examples
    --------
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
    _check_axes(ax)
    ax.bar(middles, accuracy, width, color=BLUE, label="accuracy")
    gap = ax.bar(middles, confidence - accuracy, width, accuracy, label="gap to mean confidence")
    for bar in gap:
        bar.set(facecolor=RED + "33", edgecolor=RED, hatch="////", linewidth=0.8)
    ax.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1, label="calibrated")
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
    if num_bins <= 30:
        texts = [str(size) if size < 10_000 else f"{size / 1000:.0f}k" for size in sizes]
        top = ax.secondary_xaxis("top")
        top.set_xticks(middles, texts, fontsize=7, rotation=0 if num_bins <= 15 else 90)
        top.tick_params(length=0, pad=2)
        top.set_xlabel("samples", fontsize=7, loc="right")
    ax.set_title(f"expected calibration error {error:.4f}")
    ax.legend(loc="upper left")
    return ax


# Axes and names.


def _check_axes(ax: object) -> None:
    if not isinstance(ax, Axes):
        raise InputError(
            f"ax: expected one matplotlib Axes, got {type(ax).__name__}; use Figure().subplots()"
        )


def _as_grid(axes: object, needed: int = 1) -> list[Axes]:
    """Return the Axes of a grid row by row."""
    flat: list[Any] = np.ravel(np.array(axes, dtype=object)).tolist()
    if len(flat) < needed or not all(isinstance(ax, Axes) for ax in flat):
        kinds = ", ".join(sorted({type(ax).__name__ for ax in flat})) or "none"
        raise InputError(
            f"axes: expected at least {needed} matplotlib Axes, got {len(flat)} ({kinds}); "
            "use Figure().subplots(rows, columns)"
        )
    if len({ax.figure for ax in flat}) != 1:
        raise InputError("axes: expected Axes of one figure, got Axes of several; use one")
    return flat


def _shorten(name: str, letters: int = 20) -> str:
    """Return a name on one line, without the middle if it is long: names often differ at the end.

    Control characters and lone surrogates, which no font can draw, are escaped.
    """
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in name)
    letters = max(letters, 3)
    if len(shown) <= letters:
        return shown
    return f"{shown[: letters // 2]}…{shown[letters // 2 + 1 - letters :]}"


TITLE_POINTS = 9


def _title_letters(ax: Axes) -> int:
    """Return about how many letters fit above ``ax``."""
    return int(_size_in_points(ax)[0] / (0.55 * TITLE_POINTS))


def _size_in_points(ax: Axes) -> tuple[float, float]:
    points_per_pixel = 72 / ax.figure.dpi
    return ax.bbox.width * points_per_pixel, ax.bbox.height * points_per_pixel
