"""Curves that grow in a notebook while a model trains."""

import base64
import io
import secrets
import sys
from collections.abc import Iterable, Iterator, Sequence
from time import perf_counter
from typing import Any, TypeVar

from matplotlib.figure import Figure

from npsoftmax.ext.plots.curves import accuracy_curve, loss_curve
from npsoftmax.history import EpochRecord, IterationRecord

__all__ = ["live"]

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
