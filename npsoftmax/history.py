"""Training records: finished epochs and iterations, and the progress of the current epoch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar

__all__ = ["EpochRecord", "IterationRecord", "Progress", "rebuild"]


class _Line:
    """A record whose ``repr`` is its line, so that a history is readable at a prompt."""

    def __repr__(self) -> str:
        return f"<{self}>"


@dataclass(frozen=True, repr=False)
class EpochRecord(_Line):
    """Losses, accuracies and times of one epoch.

    Losses are mean cross-entropies in nats without the penalty, accuracies are fractions, both over
    all samples; training values are taken before each update. Without test data the test values are
    None. The ``last_batch`` values are those of the last batch alone, for the training and for
    the test data; the Julia chapter prints these.
    """

    UNIT: ClassVar[str] = "epoch"

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
        """Format the record as the line that training prints."""
        seconds = self.train_seconds + self.test_seconds
        return f"epoch {self.epoch:02d} | {_format_means(self)} | {seconds:.2f} s"


@dataclass(frozen=True, repr=False)
class IterationRecord(_Line):
    """Objective, gradient, losses, accuracies and times of one full-batch iteration.

    Iteration 0 is the start. ``objective`` is the training loss with the penalty, ``max_gradient``
    the largest absolute entry of its gradient, ``step`` the length of the step relative to the
    quasi-Newton step, ``evaluations`` the number of passes over the samples so far. The other
    fields are as in :class:`EpochRecord`, with samples counted by their weights.
    """

    UNIT: ClassVar[str] = "iteration"

    iteration: int
    objective: float
    max_gradient: float
    step: float
    evaluations: int
    train_loss: float
    train_acc: float
    test_loss: float | None
    test_acc: float | None
    train_seconds: float
    test_seconds: float

    def __str__(self) -> str:
        """Format the record as the line that training prints."""
        return (
            f"iteration {self.iteration:03d} | {_format_means(self)}"
            f" | objective={self.objective:.6f} | max_gradient={self.max_gradient:.1e}"
            f" | {self.train_seconds:.2f} s"
        )


def _format_means(record: EpochRecord | IterationRecord) -> str:
    text = f"train_loss={record.train_loss:.4f} | train_acc={record.train_acc:.4f}"
    if record.test_loss is not None and record.test_acc is not None:
        text += f" | test_loss={record.test_loss:.4f} | test_acc={record.test_acc:.4f}"
    return text


@dataclass
class Progress:
    """Position in training: ``step`` batches of ``epoch`` (from 0) are done, with their sums."""

    epoch: int = 0
    step: int = 0
    num_seen: int = 0
    num_correct: int = 0
    loss_sum: float = 0.0
    last_loss: float = 0.0
    last_acc: float = 0.0
    seconds: float = 0.0

    def add(self, loss: float, num_correct: int, num_samples: int) -> None:
        """Add a batch: its mean loss, number of correct predictions and number of samples."""
        self.step += 1
        self.num_seen += num_samples
        self.num_correct += num_correct
        self.loss_sum += loss * num_samples
        self.last_loss, self.last_acc = loss, num_correct / num_samples


Record = TypeVar("Record", EpochRecord, IterationRecord, Progress)


def rebuild(kind: type[Record], values: Mapping[str, Any]) -> Record:
    """Return a record of this kind from untrusted values, the inverse of ``dataclasses.asdict``.

    A field that is missing, unknown, negative, not finite or of another type raises TypeError or
    ValueError.

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
            raise TypeError(f"{field.name}: expected {field.type}, got {value!r:.80}")
        # An int beyond 64 bits is no count, and may not fit a float.
        if value is not None and not 0 <= value < (2**63 if type(value) is int else math.inf):
            raise ValueError(
                f"{field.name}: expected a finite number of at least 0, got {value!r:.80}"
            )
    return record
