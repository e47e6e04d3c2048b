r"""Cross-entropy with labels where the classes come in blocks, and never all logits at once.

For a block of classes with the largest logit m' and the running maximum m, a sum
:math:`O = \sum_{i \ne y} e^{z_i - m}` goes over to the new maximum M = max(m, m') as
:math:`O e^{m - M}`, to which the block adds its own :math:`e^{z_i - M}` (Milakov and Gimelshein,
"Online normalizer calculation for softmax", arXiv:1805.02867, section 3). What remains of a sample
is the maximum, O, the label's logit and the class at the maximum. From them
:math:`\ell = \log(O + e^{z_y - M}) - (z_y - M)`; the gradient takes the logits a second time.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from npsoftmax.functional._compensated import part_infinities

__all__ = ["RunningLosses"]


class RunningLosses:
    """What is known of the losses of a block of samples after some of the classes.

    Call :meth:`add` for each block of classes, then :meth:`losses`, then :meth:`gradient` for
    each block again.

    Parameters
    ----------
    labels : ndarray
        Integers, shape ``(samples,)``.
    """

    def __init__(self, labels: NDArray[Any]) -> None:
        self._labels = labels.astype(np.intp)
        self._top = np.full(labels.size, -np.inf)
        self._other = np.zeros(labels.size)
        self._z_y = np.zeros(labels.size)
        self.predicted = np.zeros(labels.size, np.intp)

    def add(self, z: NDArray[Any], first_class: int) -> None:
        """Take in the logits of some classes, shape ``(block, samples)``; ``z`` is overwritten."""
        at_best = z.argmax(axis=0)
        sample = np.arange(z.shape[1])
        best = z[at_best, sample]
        better = best > self._top
        np.copyto(self.predicted, first_class + at_best, where=better)
        top = np.maximum(self._top, best)
        here, rows = self._labels_among(z.shape[0], first_class)
        self._z_y[here] = z[rows, here]
        _exponentials(z, top)
        z[rows, here] = 0.0
        self._other *= _exponentials(self._top[None, :], top)[0]
        self._other += np.add.reduce(z, axis=0)
        self._top = top

    def losses(self) -> NDArray[np.float64]:
        """Return the loss of each sample."""
        d_y = self._z_y - self._top
        part_infinities(d_y[None, :], self._top)
        losses: NDArray[np.float64] = np.log1p(self._other + (np.exp(d_y) - 1.0)) - d_y
        return losses

    def gradient(
        self, z: NDArray[Any], first_class: int, divisor: float | NDArray[np.float64]
    ) -> None:
        """Replace the logits of some classes by the gradient of the losses over ``divisor``."""
        e_y = _exponentials(self._z_y[None, :].copy(), self._top)[0]
        _exponentials(z, self._top)
        here, rows = self._labels_among(z.shape[0], first_class)
        z[rows, here] = -self._other[here]
        z /= ((self._other + e_y) * divisor).astype(z.dtype)

    def _labels_among(
        self, classes: int, first_class: int
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the samples whose label is among these classes, and its row in the block."""
        rows = self._labels - first_class
        here = np.flatnonzero((rows >= 0) & (rows < classes))
        return here, rows[here]


def _exponentials(z: NDArray[Any], top: NDArray[np.float64]) -> NDArray[Any]:
    """Replace ``z`` by the exponentials of ``z - top``: all 0 where the top is still -Inf."""
    z -= np.where(np.isneginf(top), 0.0, top).astype(z.dtype)
    part_infinities(z, top)
    np.exp(z, out=z)
    return z
