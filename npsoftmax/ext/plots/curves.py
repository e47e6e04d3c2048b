"""How training went, and which setting did best."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from npsoftmax._checks import as_float
from npsoftmax.errors import InputError, ShapeError
from npsoftmax.ext.plots._axes import as_axes
from npsoftmax.history import EpochRecord, IterationRecord

__all__ = ["History", "accuracy_curve", "loss_curve", "validation_curve"]

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
