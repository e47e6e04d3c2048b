"""Pictures of training, drawn with matplotlib on axes that the caller owns."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from npsoftmax.history import EpochRecord, IterationRecord

__all__ = ["accuracy_curve", "loss_curve"]

History = Sequence[EpochRecord] | Sequence[IterationRecord]


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
    """
    return _curve(
        ax,
        history,
        "loss",
        {
            "training": [record.train_loss for record in history],
            "test": [record.test_loss for record in history],
        },
        "mean cross-entropy (nats)",
    )


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
    """
    return _curve(
        ax,
        history,
        "accuracy",
        {
            "training": [record.train_acc for record in history],
            "test": [record.test_acc for record in history],
        },
        "share of samples classified right",
    )


def _curve(
    ax: Axes,
    history: History,
    title: str,
    lines: dict[str, list[float | None]],
    ylabel: str,
) -> Axes:
    unit = history[0].UNIT
    places = [getattr(record, unit) for record in history]
    for name, values in lines.items():
        points = [(place, v) for place, v in zip(places, values, strict=True) if v is not None]
        if points:
            ax.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
    ax.set(title=title, xlabel=unit, ylabel=ylabel)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(alpha=0.3)
    ax.legend()
    return ax
