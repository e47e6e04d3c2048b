r"""The hot loop: losses and gradient of a block of samples, in arrays that are reused.

With :math:`d = z - \max z`, :math:`e = \exp d`, O the sum of e without the label's entry, and
:math:`S = O + e_y`, the loss of a sample is :math:`\log S - d_y` and its gradient :math:`e / S`,
with :math:`-O / S` at the label: nothing is lost where :math:`e_y` is 1. The loop over the blocks
of a batch is ``accumulate`` in :mod:`npsoftmax.objective.batch`; the loop over batches is in
:class:`npsoftmax.Trainer`.

- Everything is computed in the dtype of ``theta``, except the running sums over blocks of classes,
  in float64.
- A block of n samples is a stack of p pieces of q columns, ``X (p, d, q)``, with logits
  ``(p, k, q)``. One call multiplies the whole stack. If the BLAS is faster at small products, the
  pieces are as small as that takes; otherwise there is one.
- The scale s multiplies the logits (k numbers per sample); on the way back the divisor includes it.
  So ``X`` itself is never scaled. Samples that have to be converted get one more row, ``1 / s``:
  ``W X + b`` and ``[dW db]`` are then one product each.
- Sparse samples are one piece, and SciPy multiplies them.
- With classes as rows, every operation on d and e runs along contiguous samples.
"""

import math
from collections.abc import Iterator
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npsoftmax._checks import is_bfloat16
from npsoftmax._products import piece_columns
from npsoftmax._sparse import is_sparse, multiply, multiply_back
from npsoftmax.functional._compensated import C_ORDER_MAX_ROWS, resolve_infinities

__all__ = ["AnyBlock", "Workspace", "block_columns", "convert", "samples_per_block"]

Floats = NDArray[Any]

# The samples of a block stay in cache between its two products: 1,024 columns of 784 float32
# (benchmarks/limit.py compares sizes).
BLOCK_BYTES = 1024 * 784 * 4
MIN_BLOCK_SAMPLES, MAX_BLOCK_SAMPLES = 128, 4096
# Where MIN_BLOCK_SAMPLES samples have more logits than this, classes are cut into blocks too.
MAX_BLOCK_LOGITS = 512 * 1024
# The gradient of sparse samples takes as long to add as hundreds of them, so their blocks are long.
MAX_SPARSE_SAMPLES = 16 * 1024


def samples_per_block(theta: Floats, sparse: bool = False) -> int:
    """Return the number of samples to compute on at a time."""
    k, d = theta.shape[0], theta.shape[1] - 1
    if sparse:
        return int(max(MIN_BLOCK_SAMPLES, min(MAX_BLOCK_LOGITS // k, MAX_SPARSE_SAMPLES)))
    fitting = BLOCK_BYTES // (max(1, d) * theta.itemsize)
    return int(max(MIN_BLOCK_SAMPLES, min(fitting, MAX_BLOCK_LOGITS // k, MAX_BLOCK_SAMPLES)))


def block_columns(theta: Floats, X: Any) -> Iterator[slice]:
    """Cut samples into columns of blocks."""
    step, samples = samples_per_block(theta, is_sparse(X)), X.shape[1]
    for start in range(0, samples, step):
        yield slice(start, min(start + step, samples))


class _Stack:
    """Samples as pieces of columns, with a row of ``1 / s`` if they had to be converted.

    Of two classes only the difference matters. Their products are those of one vector, which take a
    quarter of the time of those of a matrix with two rows.
    """

    def __init__(
        self, pieces: int, columns: int, rows: int, dtype: Any, is_pair: bool = False
    ) -> None:
        self.pieces, self.columns, self.rows, self.dtype = pieces, columns, rows, dtype
        self.is_pair = is_pair
        self._converted: Floats | None = None
        self._converted_scale = 0.0

    def read(self, X: NDArray[Any], scale: float) -> None:
        """Refer to samples, or convert them."""
        self.scale, rows = scale, X.T
        self.has_ones = X.dtype != self.dtype or scale != 1.0
        if self.has_ones:
            rows = self._convert(rows)
        self.X = rows.reshape(self.pieces, self.columns, rows.shape[1])

    def _convert(self, rows: NDArray[Any]) -> Floats:
        if self._converted is None:
            self._converted = np.empty((self.pieces * self.columns, self.rows), self.dtype)
        if self._converted_scale != self.scale:
            self._converted[:, -1] = 1 / self.scale
            self._converted_scale = self.scale
        convert(rows, self._converted[:, :-1])
        return self._converted

    def multiply(self, theta: Floats, product: Floats, out: Floats) -> None:
        """Write the logits ``s W X + b`` to ``out``, by way of ``product``."""
        if self.is_pair and np.isfinite(difference := theta[1:] - theta[:1]).all():
            out[:, 0] = 0.0
            theta, product, out = difference, product[:, 1:], out[:, 1:]
        self._map(theta, product, out)

    def _map(self, theta: Floats, product: Floats, out: Floats) -> None:
        columns = self.X.transpose(0, 2, 1)
        if self.has_ones:
            np.matmul(theta, columns, out=product)
            np.multiply(product, self.scale, out=out)
        else:
            np.matmul(theta[:, :-1], columns, out=product)
            np.add(product, theta[:, -1:], out=out)

    def multiply_back(self, scaled_dZ: Floats, out: Floats) -> None:
        """Write ``[dW db]`` of each piece from ``s dZ``."""
        if self.is_pair:
            scaled_dZ, of_both, out = scaled_dZ[:, 1:], out, out[:, 1:]
        self._pull_back(scaled_dZ, out)
        if self.is_pair:
            np.subtract(0.0, out, out=of_both[:, :1])  # not -out, which makes -0.0 of 0.0

    def _pull_back(self, scaled_dZ: Floats, out: Floats) -> None:
        if self.has_ones:
            np.matmul(scaled_dZ, self.X, out=out)
        else:
            np.matmul(scaled_dZ, self.X, out=out[:, :, :-1])
            np.add.reduce(scaled_dZ, axis=2, out=out[:, :, -1])


class _SparseStack(_Stack):
    """Sparse samples, as one piece."""

    def read(self, X: Any, scale: float) -> None:
        """Refer to samples, or convert their numbers."""
        self.X, self.scale = X.astype(self.dtype, copy=False), scale

    def _map(self, theta: Floats, product: Floats, out: Floats) -> None:
        np.multiply(multiply(theta[:, :-1], self.X), self.scale, out=out[0])
        np.add(out[0], theta[:, -1:], out=out[0])

    def _pull_back(self, scaled_dZ: Floats, out: Floats) -> None:
        out[0, :, :-1] = multiply_back(scaled_dZ[0], self.X)
        np.add.reduce(scaled_dZ[0], axis=1, out=out[0, :, -1])
        out[0, :, -1] /= self.scale


class Block:
    """Losses, predictions and gradient of some samples; call the methods in this order."""

    def __init__(self, theta: Floats, samples: int, sparse: bool = False) -> None:
        (k, rows), dtype = theta.shape, theta.dtype
        piece = None if sparse else piece_columns(k, rows, samples)
        q = piece or samples
        p = samples // q
        self.classes = k
        stack = _SparseStack if sparse else _Stack
        self._samples = stack(p, q, rows, dtype, is_pair=k == 2)
        self._d = _empty((p, k, q), dtype, by_class=k <= C_ORDER_MAX_ROWS)
        self._e, self._is_top = np.empty_like(self._d), np.empty_like(self._d, np.bool_)
        # Large products are fastest if the logits of a sample are next to each other.
        in_place = piece is not None or k == 2
        self._product = self._d if in_place else _empty((p, k, q), dtype, by_class=False)
        self._parts = np.empty((p, k, rows), dtype) if p > 1 else None
        self._flat_d, self._flat_e = self._d.ravel(order="K"), self._e.ravel(order="K")
        # The offset of a class plus that of a sample is an index into the flat arrays.
        by_piece, by_class, by_column = (step // dtype.itemsize for step in self._d.strides)
        self._class_offset = np.arange(k) * by_class
        columns = np.arange(q) * by_column
        self._sample_offset = np.add.outer(np.arange(p) * by_piece, columns).ravel()
        self._at_y = np.empty(samples, np.intp)
        self._top, self._other, self._e_y, self._d_y, self._losses = np.empty((5, samples), dtype)
        # The same numbers, as a row for each piece.
        views = (each.reshape(p, 1, q) for each in (self._top, self._other, self._d_y))
        self._top_row, self._other_row, self._total_row = views

    def read(self, X: NDArray[Any], scale: float) -> None:
        """Take the samples, ``(d, n)``, and their scale."""
        self._samples.read(X, scale)

    def losses(self, theta: Floats, labels: NDArray[Any]) -> Floats:
        """Return the loss of each sample, valid until the next call."""
        e, at_y, losses = self._e, self._at_y, self._losses
        self._exponentiate(theta)
        # mode="clip" writes straight into out; the labels are known to be in range.
        self._class_offset.take(labels, out=at_y, mode="clip")
        np.add(at_y, self._sample_offset, out=at_y)
        self._flat_d.take(at_y, out=self._d_y, mode="clip")
        self._flat_e.take(at_y, out=self._e_y, mode="clip")
        self._flat_e[at_y] = 0.0
        np.add.reduce(e, axis=1, keepdims=True, out=self._other_row)
        np.subtract(self._e_y, 1.0, out=losses)
        np.add(self._other, losses, out=losses)  # S - 1 = O + (e_y - 1)
        np.log1p(losses, out=losses)  # log S
        np.subtract(losses, self._d_y, out=losses)
        return losses

    def _exponentiate(self, theta: Floats) -> None:
        """Compute the logits, and d and e from them."""
        d, top = self._d, self._top_row
        self._samples.multiply(theta, self._product, out=d)
        np.maximum.reduce(d, axis=1, keepdims=True, out=top)
        np.subtract(d, top, out=d)
        if not math.isfinite(np.add.reduce(self._top)):
            resolve_infinities(d, top)
        np.exp(d, out=self._e)

    def compare(self, labels: NDArray[Any], out: NDArray[np.bool_]) -> None:
        """Write whether the label of each sample is its most likely class, the first on a tie."""
        np.equal(self._d_y, 0.0, out=out)
        np.equal(self._d, 0.0, out=self._is_top)
        if np.count_nonzero(self._is_top) > labels.size:  # a tie
            np.equal(self.predict(), labels, out=out)

    def predict(self) -> NDArray[np.intp]:
        """Return the most likely class of each sample."""
        predicted: NDArray[np.intp] = self._d.argmax(axis=1).ravel()
        return predicted

    def gradient(self, theta: Floats, divisor: Any, out: Floats, part: Floats | None) -> None:
        """Write ``[dW db]`` of the losses over ``divisor`` to ``out``.

        If ``part`` is an array, compute there and add the result to ``out``.
        """
        other, total = self._other, self._d_y  # d_y is not needed after the loss
        np.add(other, self._e_y, out=total)
        np.multiply(total, divisor / self._samples.scale, out=total)  # S over s, times the divisor
        np.subtract(0.0, other, out=other)  # not -other, which makes -0.0 of 0.0
        self._flat_e[self._at_y] = other  # -O at the label
        np.divide(self._e, self._total_row, out=self._product)  # s dZ
        self._pull_back(out, part)

    def _pull_back(self, out: Floats, part: Floats | None) -> None:
        target = out if part is None else part
        if self._parts is None:
            self._samples.multiply_back(self._product, out=target[None])
        else:
            self._samples.multiply_back(self._product, out=self._parts)
            np.add.reduce(self._parts, axis=0, out=target)
        if part is not None:
            out += part

    def hessian_product(self, theta: Floats, V: Floats, divisor: Any, out: Floats) -> None:
        """Add the product with ``V`` of the Hessian of the losses over ``divisor`` to ``out``.

        With the change D of the logits along ``V``, this is ``[dW db]`` of P (D - the sums of P D).
        """
        e, d, total = self._e, self._d, self._d_y
        self._exponentiate(theta)
        np.add.reduce(e, axis=1, keepdims=True, out=self._total_row)
        self._samples.multiply(V, self._product, out=d)
        d -= (e * d).sum(axis=1, keepdims=True) / self._total_row
        e *= d
        np.multiply(total, divisor / self._samples.scale, out=total)
        np.divide(e, self._total_row, out=self._product)
        self._pull_back(out, np.empty_like(out))


def _empty(shape: tuple[int, int, int], dtype: Any, by_class: bool) -> Floats:
    """Return an array for logits, with those of a class, or of a sample, next to each other."""
    p, k, q = shape
    return np.empty(shape, dtype) if by_class else np.empty((p, q, k), dtype).transpose(0, 2, 1)


class BlockOfManyClasses:
    """Like :class:`Block`, a block of classes at a time, so that memory stays bounded.

    A sum O over the classes so far, relative to their maximum m, becomes O exp(m - M) relative to
    a new maximum M (Milakov and Gimelshein, arXiv:1805.02867, section 3). The gradient computes
    the logits a second time. There is one piece.
    """

    def __init__(self, theta: Floats, samples: int, sparse: bool = False) -> None:
        self.classes = MAX_BLOCK_LOGITS // MIN_BLOCK_SAMPLES
        self._memory = np.empty(self.classes * samples, theta.dtype)
        stack = _SparseStack if sparse else _Stack
        self._samples = stack(1, samples, theta.shape[1], theta.dtype)

    def read(self, X: NDArray[Any], scale: float) -> None:
        """Take the samples, ``(d, n)``, and their scale."""
        self._samples.read(X, scale)

    def losses(self, theta: Floats, labels: NDArray[Any]) -> Floats:
        """Return the loss of each sample."""
        n = labels.size
        self._labels, self._predicted = labels.astype(np.intp), np.zeros(n, np.intp)
        self._top, self._other, self._z_y = np.full(n, -np.inf), np.zeros(n), np.zeros(n)
        sample = np.arange(n)
        for first, z in self._logits(theta):
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

    def compare(self, labels: NDArray[Any], out: NDArray[np.bool_]) -> None:
        """Write whether the label of each sample is its most likely class, the first on a tie."""
        np.equal(self._predicted, labels, out=out)

    def predict(self) -> NDArray[np.intp]:
        """Return the most likely class of each sample."""
        return self._predicted

    def gradient(self, theta: Floats, divisor: Any, out: Floats, part: Floats | None) -> None:
        """Write or add ``[dW db]`` like :meth:`Block.gradient`."""
        e_y = _exponentiate(self._z_y[None, :].copy(), self._top)[0]
        total = ((self._other + e_y) * (divisor / self._samples.scale)).astype(theta.dtype)
        for first, z in self._logits(theta):
            _exponentiate(z, self._top)
            here, rows = self._labels_in(z, first)
            z[rows, here] = -self._other[here]
            z /= total  # s dZ
            some = out[first : first + self.classes]
            target = some if part is None else part[: len(some)]
            self._samples.multiply_back(z[None], out=target[None])
            if part is not None:
                some += target

    def _logits(self, theta: Floats) -> Iterator[tuple[int, Floats]]:
        """Yield the first class of each block of classes, and its logits."""
        for first in range(0, theta.shape[0], self.classes):
            some = theta[first : first + self.classes]
            z = self._memory[: len(some) * self._samples.columns]
            z = z.reshape((len(some), -1), order="F")
            self._samples.multiply(some, z[None], out=z[None])
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


class Batch:
    """The blocks of a batch, with their columns, and the arrays of its results."""

    def __init__(self, theta: Floats, samples: int, blocks: list[tuple[slice, AnyBlock]]) -> None:
        self.blocks = blocks
        order = "C" if theta.flags.c_contiguous else "F"
        self._empty_like_theta = partial(np.empty, theta.shape, theta.dtype, order)
        self.part = np.empty_like(theta[: blocks[0][1].classes]) if len(blocks) > 1 else None
        self.hits = np.empty(samples, np.bool_)

    @cached_property
    def grad(self) -> Floats:
        """Where the gradient is written, unless the caller has an array for it."""
        return self._empty_like_theta()


def convert(X: NDArray[Any], out: Floats) -> None:
    """Convert numbers to the dtype of ``out``; finite half floats to float32 by their bits."""
    if out.dtype == np.float32 and X.dtype == np.float16:
        _widen(X, out)
    elif out.dtype == np.float32 and is_bfloat16(X.dtype):
        bits = out.view(np.int32)  # bfloat16 is the upper half
        np.copyto(bits, X.view(np.int16))
        np.left_shift(bits, 16, out=bits)
    else:
        np.copyto(out, X, casting="unsafe")


def _widen(X: NDArray[np.float16], out: NDArray[np.float32]) -> None:
    """Convert finite float16 to float32: the same numbers as ``astype``, in a quarter of the time.

    The bits of a float16, 13 places to the left and with the sign apart, are those of the float32
    that is 2**112 times smaller, for subnormal numbers too.
    """
    bits = out.view(np.int32)
    np.copyto(bits, X.view(np.int16))  # the sign fills the upper half
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, np.int32(-0x70000001), out=bits)
    np.multiply(out, np.float32(2.0**112), out=out)


class Workspace:
    """The arrays that evaluations compute in, one after another.

    The arrays that an evaluation returns are some of them: the next evaluation overwrites them.
    """

    def __init__(self) -> None:
        self._kept: dict[Any, Any] = {}

    def __reduce__(self) -> tuple[type["Workspace"], tuple[()]]:
        """Copy and pickle as an empty one: copied arrays would not share memory as blocks need."""
        return Workspace, ()

    def batch(self, theta: Floats, X: Any) -> Batch:
        """Return what is needed for parameters like ``theta`` and a batch like ``X``."""
        samples, sparse = X.shape[1], is_sparse(X)
        key = theta.shape, theta.strides, theta.dtype.char, samples, sparse
        batch: Batch | None = self._kept.get(key)
        if batch is None:
            cut = block_columns(theta, X)
            blocks = [(part, self.block(theta, part, sparse)) for part in cut]
            batch = Batch(theta, samples, blocks)
            self._keep(key, batch)
        return batch

    def block(self, theta: Floats, columns: slice, sparse: bool = False) -> AnyBlock:
        """Return the block for parameters like ``theta`` and this number of columns."""
        fits = theta.shape[0] * MIN_BLOCK_SAMPLES <= MAX_BLOCK_LOGITS
        kind = Block if fits else BlockOfManyClasses
        samples = columns.stop - columns.start
        key = kind, theta.shape, theta.dtype, samples, sparse
        block: AnyBlock | None = self._kept.get(key)
        if block is None:
            block = kind(theta, samples, sparse)
            self._keep(key, block)
        return block

    def whole_block(self, theta: Floats, columns: slice, sparse: bool = False) -> Block:
        """Return a block that computes all classes at once, however many there are."""
        block = self.block(theta, columns, sparse)
        if isinstance(block, Block):
            return block
        return Block(theta, columns.stop - columns.start, sparse)

    def take(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Floats:
        """Return the Fortran-ordered array of this name, with its previous contents."""
        key = (name, shape, dtype)
        array: Floats | None = self._kept.get(key)
        if array is None:
            array = np.empty(shape, dtype, order="F")
            self._keep(key, array)
        return array

    def floats(self, X: NDArray[Any], dtype: np.dtype[Any]) -> Floats:
        """Return ``X`` in ``dtype``, converted into an array of this workspace if necessary.

        Of sparse samples the numbers are converted, in an array of their own.
        """
        if X.dtype == dtype:
            return X
        if is_sparse(X):
            return X.astype(dtype)
        converted = self.take("X", X.shape, dtype)
        convert(X, converted)
        return converted

    def _keep(self, key: Any, value: Any) -> None:
        if len(self._kept) >= MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[key] = value
