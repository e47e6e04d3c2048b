"""What a model says of single images."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from npsoftmax._checks import as_columns, as_labels, same_samples
from npsoftmax.errors import InputError
from npsoftmax.ext.plots._axes import Grid, as_axes, as_grid, blank
from npsoftmax.ext.plots._labels import fitted, size_of
from npsoftmax.ext.plots.images import image

if TYPE_CHECKING:
    from npsoftmax.model import SoftmaxRegression

__all__ = ["misclassified", "prediction_grid", "top_k_bars"]

RIGHT, WRONG = "#333333", "#b2182b"
TITLE_SIZE = 9
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
