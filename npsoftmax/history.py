"""What training keeps count of: the epoch under way, and a record of each finished one."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

__all__ = ["EpochRecord", "Progress", "rebuild"]


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch showed.

    Losses are cross-entropies in nats without the penalty, accuracies are shares, both over all
    samples; training values are taken before each update. Without test data the test values are
    None. The ``last_batch`` values are those of the epoch's last batch alone, training and test:
    what the Julia chapter prints as the epoch's.
    """

    epoch: int
    train_loss: float
    train_acc: float
    test_loss: float | None
    test_acc: float | None
    train_seconds: float
    test_seconds: float
    last_batch_train_loss: float
    last_batch_train_acc: float
    last_batch_test_loss: float | None
    last_batch_test_acc: float | None

    def __str__(self) -> str:
        """Write the record as the line that training prints."""
        test = (
            ""
            if self.test_loss is None or self.test_acc is None
            else (f" | test_loss={self.test_loss:.4f} | test_acc={self.test_acc:.4f}")
        )
        seconds = self.train_seconds + self.test_seconds
        return (
            f"epoch {self.epoch:02d} | train_loss={self.train_loss:.4f}"
            f" | train_acc={self.train_acc:.4f}{test} | {seconds:.2f} s"
        )


@dataclass
class Progress:
    """Where training stands: ``step`` batches of ``epoch`` (from 0) are done, with their sums."""

    epoch: int = 0
    step: int = 0
    num_seen: int = 0
    num_correct: int = 0
    loss_sum: float = 0.0
    last_loss: float = 0.0
    last_acc: float = 0.0
    seconds: float = 0.0

    def add(self, loss: float, num_correct: int, num_samples: int) -> None:
        """Count one more batch: its mean loss, hits and samples."""
        self.step += 1
        self.num_seen += num_samples
        self.num_correct += num_correct
        self.loss_sum += loss * num_samples
        self.last_loss, self.last_acc = loss, num_correct / num_samples


Record = TypeVar("Record", EpochRecord, Progress)


def rebuild(kind: type[Record], values: Mapping[str, Any]) -> Record:
    """Return the record that ``dataclasses.asdict`` made these values of.

    Parameters
    ----------
    kind : type
        ``EpochRecord`` or ``Progress``.
    values : mapping
        One value for every field.

    Returns
    -------
    EpochRecord or Progress

    Raises
    ------
    TypeError, ValueError
        A field is missing, unknown, of another type or negative.

    Examples
    --------
    >>> from dataclasses import asdict
    >>> rebuild(Progress, asdict(Progress(step=3))).step
    3
    """
    record = kind(**values)
    for field in fields(record):
        value = getattr(record, field.name)
        if not isinstance(value, field.type) or isinstance(value, bool):  # type: ignore[arg-type]
            raise TypeError(f"{field.name}: expected {field.type}, got {value!r}")
        if value is not None and value < 0:
            raise ValueError(f"{field.name}: expected at least 0, got {value!r}")
    return record
