r"""The hot loop: losses and gradient of a block of samples, in arrays that are reused.

With :math:`d = z - \max z`, :math:`e = \exp d`, O the sum of e without the label's entry, and
:math:`S = O + e_y`, the loss of a sample is :math:`\log S - d_y` and its gradient :math:`e / S`,
with :math:`-O / S` at the label: nothing is lost where :math:`e_y` is 1. The loop over the blocks
of a batch is ``accumulate`` in :mod:`npsoftmax.objective.batch`; the loop over batches is in
:mod:`npsoftmax.trainer`.

- Everything is computed in the dtype of ``theta``, except the running sums over blocks of classes,
  in float64.
- The scale s multiplies ``W X`` (k numbers per sample); on the way back the divisor includes it.
  So ``X`` itself is never scaled.
- All arrays are Fortran-ordered, for which the products are fastest, except d and e: with classes
  as rows every operation runs along contiguous samples.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npsoftmax.functional._compensated import C_ORDER_MAX_ROWS, resolve_infinities

__all__ = ["AnyBlock", "Workspace", "samples_per_block"]

Floats = NDArray[Any]

# The samples of a block stay in cache between its two products: 1,024 columns of 784 float32
# (benchmarks/limit.py compares sizes).
BLOCK_BYTES = 1024 * 784 * 4
MIN_BLOCK_SAMPLES, MAX_BLOCK_SAMPLES = 128, 4096
# Where MIN_BLOCK_SAMPLES samples have more logits than this, classes are cut into blocks too.
MAX_BLOCK_LOGITS = 512 * 1024


def samples_per_block(theta: Floats) -> int:
    """Return the number of samples to compute on at a time."""
    k, d = theta.shape[0], theta.shape[1] - 1
    fitting = BLOCK_BYTES // (max(1, d) * theta.itemsize)
    return int(max(MIN_BLOCK_SAMPLES, min(fitting, MAX_BLOCK_LOGITS // k, MAX_BLOCK_SAMPLES)))


class Block:
    """Losses, predictions and gradient of some samples; call the methods in this order."""

    def __init__(self, theta: Floats, samples: int) -> None:
        self.classes = theta.shape[0]
        shape, dtype = (self.classes, samples), theta.dtype
        self._product = np.empty(shape, dtype, order="F")
        self._d = np.empty(shape, dtype, order="C" if self.classes <= C_ORDER_MAX_ROWS else "F")
        self._e = np.empty_like(self._d)
        self._flat_d, self._flat_e = self._d.ravel(order="K"), self._e.ravel(order="K")
        # A row offset plus a column offset is an index into the flat arrays.
        by_row, by_column = (samples, 1) if self._d.flags.c_contiguous else (1, self.classes)
        self._row_offset = np.arange(self.classes) * by_row
        self._column_offset = np.arange(samples) * by_column
        self._at_y = np.empty(samples, np.intp)
        self._other, self._e_y, self._d_y, self._top, self._losses = np.empty((5, samples), dtype)
        self._inverse_scale = np.empty(samples, dtype)

    def losses(self, theta: Floats, X: Floats, labels: NDArray[Any], scale: float) -> Floats:
        """Return the loss of each sample, valid until the next call."""
        d, e, at_y, losses = self._d, self._e, self._at_y, self._losses
        np.matmul(theta[:, :-1], X, out=self._product)  # W X
        np.multiply(self._product, scale, out=d)
        np.add(d, theta[:, -1:], out=d)  # the logits, Z = s W X + b
        np.maximum.reduce(d, axis=0, out=self._top)
        np.subtract(d, self._top, out=d)
        if not math.isfinite(np.add.reduce(self._top)):
            resolve_infinities(d, self._top)
        np.exp(d, out=e)
        # mode="clip" writes straight into out; the labels are known to be in range.
        self._row_offset.take(labels, out=at_y, mode="clip")
        np.add(at_y, self._column_offset, out=at_y)
        self._flat_d.take(at_y, out=self._d_y, mode="clip")
        self._flat_e.take(at_y, out=self._e_y, mode="clip")
        self._flat_e[at_y] = 0.0
        np.add.reduce(e, axis=0, out=self._other)
        np.subtract(self._e_y, 1.0, out=losses)
        np.add(self._other, losses, out=losses)  # S - 1 = O + (e_y - 1)
        np.log1p(losses, out=losses)  # log S
        np.subtract(losses, self._d_y, out=losses)
        return losses

    def predict(self, out: NDArray[np.intp]) -> None:
        """Write the most likely class of each sample to ``out``."""
        np.copyto(self._product, self._d)  # argmax across rows would allocate this copy
        self._product.argmax(axis=0, out=out)

    def gradient(
        self, theta: Floats, X: Floats, scale: float, divisor: Any, out: Floats, part: Floats | None
    ) -> None:
        """Write ``[dW db]`` of the losses over ``divisor`` to ``out``.

        If ``part`` is an array, compute there and add the result to ``out``.
        """
        other, total = self._other, self._d_y  # d_y is not needed after the loss
        np.add(other, self._e_y, out=total)
        np.multiply(total, divisor / scale, out=total)  # S over s, times the divisor
        np.subtract(0.0, other, out=other)  # not -other, which makes -0.0 of 0.0
        self._flat_e[self._at_y] = other  # -O at the label
        np.divide(self._e, total, out=self._product, casting="same_kind")  # s dZ
        self._inverse_scale.fill(1 / scale)
        _pull_back(self._product, X, self._inverse_scale, out, part)


def _pull_back(
    scaled_dZ: Floats, X: Floats, inverse_scale: Floats, out: Floats, part: Floats | None
) -> None:
    """Write or add ``[dW db]``, from ``s dZ`` and a column of ``1 / s``."""
    target = out if part is None else part
    np.matmul(scaled_dZ, X.T, out=target[:, :-1])  # dW = (s dZ) X'
    np.matmul(scaled_dZ, inverse_scale, out=target[:, -1])  # db = dZ 1
    if part is not None:
        out += part


class BlockOfManyClasses:
    """Like :class:`Block`, a block of classes at a time, so that memory stays bounded.

    A sum O over the classes so far, relative to their maximum m, becomes O exp(m - M) relative to
    a new maximum M (Milakov and Gimelshein, arXiv:1805.02867, section 3). The gradient computes
    the logits a second time.
    """

    def __init__(self, theta: Floats, samples: int) -> None:
        self.classes = MAX_BLOCK_LOGITS // MIN_BLOCK_SAMPLES
        self._memory = np.empty(self.classes * samples, theta.dtype)
        self._inverse_scale = np.empty(samples, theta.dtype)

    def losses(self, theta: Floats, X: Floats, labels: NDArray[Any], scale: float) -> Floats:
        """Return the loss of each sample."""
        n = labels.size
        self._labels, self._predicted = labels.astype(np.intp), np.zeros(n, np.intp)
        self._top, self._other, self._z_y = np.full(n, -np.inf), np.zeros(n), np.zeros(n)
        sample = np.arange(n)
        for first, z in self._logits(theta, X, scale):
            best = z.argmax(axis=0)
            z_best = z[best, sample]
            np.copyto(self._predicted, first + best, where=z_best > self._top)
            top = np.maximum(self._top, z_best)
            here, rows = self._labels_in(z, first)
            self._z_y[here] = z[rows, here]
            _exponentiate(z, top)
            z[rows, here] = 0.0
            self._other *= _exponentiate(self._top[None, :], top)[0]
            self._other += np.add.reduce(z, axis=0)
            self._top = top
        d_y = self._z_y - self._top
        resolve_infinities(d_y[None, :], self._top)
        losses: Floats = np.log1p(self._other + (np.exp(d_y) - 1.0)) - d_y
        return losses

    def predict(self, out: NDArray[np.intp]) -> None:
        """Write the most likely class of each sample to ``out``."""
        out[...] = self._predicted

    def gradient(
        self, theta: Floats, X: Floats, scale: float, divisor: Any, out: Floats, part: Floats | None
    ) -> None:
        """Write or add ``[dW db]`` like :meth:`Block.gradient`."""
        e_y = _exponentiate(self._z_y[None, :].copy(), self._top)[0]
        total = ((self._other + e_y) * (divisor / scale)).astype(theta.dtype)
        self._inverse_scale.fill(1 / scale)
        for first, z in self._logits(theta, X, scale):
            _exponentiate(z, self._top)
            here, rows = self._labels_in(z, first)
            z[rows, here] = -self._other[here]
            z /= total  # s dZ
            some = out[first : first + self.classes]
            _pull_back(z, X, self._inverse_scale, some, None if part is None else part[: len(some)])

    def _logits(self, theta: Floats, X: Floats, scale: float) -> Iterator[tuple[int, Floats]]:
        """Yield the first class of each block of classes, and its logits."""
        for first in range(0, theta.shape[0], self.classes):
            some = theta[first : first + self.classes]
            z = self._memory[: len(some) * X.shape[1]].reshape((len(some), -1), order="F")
            np.matmul(some[:, :-1], X, out=z)
            z *= scale
            z += some[:, -1:]
            yield first, z

    def _labels_in(self, z: Floats, first: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the samples whose label is among these classes, and the rows of the labels."""
        rows = self._labels - first
        here = np.flatnonzero((rows >= 0) & (rows < len(z)))
        return here, rows[here]


def _exponentiate(z: Floats, top: Floats) -> Floats:
    """Replace ``z`` by the exponentials of ``z - top``: all 0 where the top is still -Inf."""
    z -= np.where(np.isneginf(top), 0.0, top).astype(z.dtype)
    resolve_infinities(z, top)
    np.exp(z, out=z)
    return z


AnyBlock = Block | BlockOfManyClasses

MAX_KEPT = 16  # blocks and arrays


class Workspace:
    """The arrays that evaluations compute in, one after another.

    The arrays that an evaluation returns are some of them: the next evaluation overwrites them.
    """

    def __init__(self) -> None:
        self._kept: dict[Any, Any] = {}

    def __reduce__(self) -> tuple[type["Workspace"], tuple[()]]:
        """Copy and pickle as an empty one: copied arrays would not share memory as blocks need."""
        return Workspace, ()

    def block(self, theta: Floats, samples: int) -> AnyBlock:
        """Return the block for parameters like ``theta`` and this number of samples."""
        key = (theta.shape, theta.dtype, samples)
        block: AnyBlock | None = self._kept.get(key)
        if block is None:
            fits = theta.shape[0] * MIN_BLOCK_SAMPLES <= MAX_BLOCK_LOGITS
            block = Block(theta, samples) if fits else BlockOfManyClasses(theta, samples)
            self._keep(key, block)
        return block

    def take(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Floats:
        """Return the Fortran-ordered array of this name, with its previous contents."""
        key = (name, shape, dtype)
        array: Floats | None = self._kept.get(key)
        if array is None:
            array = np.empty(shape, dtype, order="F")
            self._keep(key, array)
        return array

    def floats(self, X: NDArray[Any], dtype: np.dtype[Any]) -> Floats:
        """Return ``X`` in ``dtype``, converted into an array of this workspace if necessary."""
        if X.dtype == dtype:
            return X
        converted = self.take("X", X.shape, dtype)
        np.copyto(converted, X, casting="unsafe")
        return converted

    def _keep(self, key: Any, value: Any) -> None:
        if len(self._kept) >= MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[key] = value
