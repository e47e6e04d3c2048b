"""Pictures of training, drawn with matplotlib on axes that the caller owns."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from npsoftmax.history import EpochRecord

__all__ = ["accuracy_curve", "loss_curve"]


def loss_curve(history: Sequence[EpochRecord], ax: Axes) -> Axes:
    """Draw training and test loss against the epoch.

    Parameters
    ----------
    history : sequence of EpochRecord
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


def accuracy_curve(history: Sequence[EpochRecord], ax: Axes) -> Axes:
    """Draw training and test accuracy against the epoch.

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
    history: Sequence[EpochRecord],
    title: str,
    lines: dict[str, list[float | None]],
    ylabel: str,
) -> Axes:
    epochs = [record.epoch for record in history]
    for name, values in lines.items():
        points = [(e, v) for e, v in zip(epochs, values, strict=True) if v is not None]
        if points:
            ax.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
    ax.set(title=title, xlabel="epoch", ylabel=ylabel)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(alpha=0.3)
    ax.legend()
    return ax
