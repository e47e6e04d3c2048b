"""What the test data show after an epoch, by the names of the record's fields."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["no_test_values", "test_values"]

_NAMES = ("test_loss", "test_acc", "last_batch_test_loss", "last_batch_test_acc")


def no_test_values() -> dict[str, float | None]:
    """Return what a record says without test data."""
    return dict.fromkeys(_NAMES)


def test_values(
    losses: NDArray[Any], hits: NDArray[np.bool_], batch_size: int
) -> dict[str, float | None]:
    """Return means over all samples, and over the last batch if they were cut as in training."""
    last = slice((losses.size - 1) // batch_size * batch_size, None)
    values = (
        float(losses.mean(dtype=np.float64)),
        float(hits.mean()),
        float(losses[last].mean(dtype=np.float64)),
        float(hits[last].mean()),
    )
    return dict(zip(_NAMES, values, strict=True))
