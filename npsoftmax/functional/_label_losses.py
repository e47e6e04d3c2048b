r"""Cross-entropy with labels for one block of columns, in arrays that are reused.

With d the logits less their column's largest, e the exponentials of d, O the sum of e but the
label's, and S = O + e_y, the loss is log S - d_y and the gradient e / S, with -O / S at the label.
S - 1 = O + (e_y - 1) loses nothing where e_y is 1, the largest.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from npsoftmax.functional._compensated import MOST_ROWS, offsets, subtract_top

__all__ = ["LabelLosses"]


class LabelLosses:
    """The losses of a block and their gradient: write ``logits``, then call the methods in order.

    Parameters
    ----------
    classes, samples : int
        The block's shape.
    dtype : dtype
        What it is computed in.

    Attributes
    ----------
    logits : ndarray
        Shape ``(classes, samples)``, to be written by the caller; :meth:`losses` subtracts from
        each column its largest entry, which changes neither the losses nor which is largest.
    """

    def __init__(self, classes: int, samples: int, dtype: np.dtype[Any]) -> None:
        self.logits = np.empty(
            (classes, samples), dtype, order="C" if classes <= MOST_ROWS else "F"
        )
        self._exponentials = np.empty_like(self.logits)
        self._flat_d = self.logits.ravel(order="K")
        self._flat_e = self._exponentials.ravel(order="K")
        self._of_sample = tuple(np.empty((5, samples), dtype))
        self._of_row, self._of_column = offsets(self.logits)
        self._at_y = np.empty(samples, np.intp)

    def losses(self, labels: NDArray[Any]) -> NDArray[Any]:
        """Return the loss of each column, shape ``(samples,)``, valid until the next call."""
        d, exponentials, at_y = self.logits, self._exponentials, self._at_y
        other, e_y, d_y, top, losses = self._of_sample
        subtract_top(d, top)
        np.exp(d, out=exponentials)
        # mode="clip" writes straight into out; the labels are in range already.
        self._of_row.take(labels, out=at_y, mode="clip")
        np.add(at_y, self._of_column, out=at_y)
        self._flat_d.take(at_y, out=d_y, mode="clip")
        self._flat_e.take(at_y, out=e_y, mode="clip")
        self._flat_e[at_y] = 0.0
        np.add.reduce(exponentials, axis=0, out=other)
        np.subtract(e_y, 1.0, out=losses)
        np.add(other, losses, out=losses)
        np.log1p(losses, out=losses)
        result: NDArray[Any] = np.subtract(losses, d_y, out=losses)
        return result

    def gradient(self, divisor: float | NDArray[np.float64], out: NDArray[Any]) -> None:
        """Write the gradient of the sum of the losses to ``out``, each over its ``divisor``."""
        other, e_y, total = self._of_sample[:3]
        np.add(other, e_y, out=total)
        np.multiply(total, divisor, out=total)
        np.subtract(0.0, other, out=other)
        self._flat_e[self._at_y] = other
        np.divide(self._exponentials, total, out=out, casting="same_kind")
