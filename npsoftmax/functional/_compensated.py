r"""Exponentials of one block of columns, after subtracting the largest entry, and their sums.

Everything accurate in this package rests on four facts.

1. Only ``d = x - max(x)`` enters :math:`e^d`, so nothing overflows, and the leading entry
   contributes exactly 1.
2. float32 is computed in float64 and rounded once. float64 has nothing wider to turn to, so what
   rounding cuts off is kept beside the number as its ``error``: TwoSum (Knuth, TAOCP 2, 4.2.2)
   gives ``x - max(x) = d + error`` exactly, and :math:`e^{d + error} = e^d (1 + error)` to twice
   the working precision.
3. A logarithm close to 0 is ``log1p`` of the *other* entries' sum, never of the sum less 1.
4. Sums of float64 are split at a power of two, so that the leading parts add up without rounding
   (Rump, Ogita, Oishi, "Accurate floating-point summation part I", SIAM J. Sci. Comput. 31(1),
   2008, section 3).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Pair",
    "Shifted",
    "add_up",
    "as_matrix",
    "by_blocks",
    "divided",
    "fast_two_sum",
    "log_total",
    "offsets",
    "other_total",
    "part_infinities",
    "quotient",
    "shift",
    "shift_with_error",
    "subtract_top",
    "times",
    "two_sum",
    "with_subnormal_terms",
]

FLOAT64 = np.dtype(np.float64)
Floats = NDArray[np.float64]

# exp(d) is computed as exp(d + SCALE) * 2**-512 where it would be subnormal. SCALE + SCALE_ERROR
# is 512 log 2, and SCALE has few enough bits (a multiple of 2**-43) that the sum is exact.
SCALE = round(512 * 0.6931471805599453 * 2**43) / 2**43
SCALE_ERROR = 512 * 0.6931471805599453 - SCALE + 512 * 2.3190468138462996e-17
SUBNORMAL_TERMS = 2.0**-960

# Sums of larger terms are scaled, or the power of two that splits them would overflow.
HUGE_TERM = 2.0**900

# From here on columns are contiguous in memory, not rows.
MOST_ROWS = 512


class Shifted(NamedTuple):
    """One block of columns: ``x = top + d + error``, exactly, classes along axis 0.

    Attributes
    ----------
    top : ndarray
        The largest entry of each column, shape ``(c,)``.
    d : ndarray
        ``x - top``, shape ``(k, c)``, 0 at the largest entry. Against +Inf it is 0 for the
        infinite entries, which tie, and -Inf for the others.
    error : ndarray or None
        What rounding cut off from ``d``; None where ``d`` has bits to spare.
    """

    top: Floats
    d: Floats
    error: Floats | None


class Pair(NamedTuple):
    """Numbers to twice the working precision: ``high`` is rounded, ``low`` what that cut off."""

    high: Floats
    low: Floats


def shift(block: NDArray[Any]) -> Shifted:
    """Subtract from each column its largest entry, keeping the rounding error for float64."""
    if block.dtype == FLOAT64:
        return Shifted(*shift_with_error(block))
    x = _copied(block)
    top = np.empty(x.shape[1])
    subtract_top(x, top)
    return Shifted(top, x, None)


def shift_with_error(block: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the parts of :class:`Shifted` for float64."""
    x = _copied(block)
    top = np.maximum.reduce(x, axis=0)
    d = x - top
    t = d - x
    error = (x - (d - t)) - (t + top)
    if not math.isfinite(np.add.reduce(error, axis=None)):
        # An infinity, or x - top overflowed: there is nothing left to correct.
        error[~np.isfinite(error)] = 0.0
    part_infinities(d, top)
    return top, d, error


def _copied(block: NDArray[Any]) -> Floats:
    # With classes as rows every step runs along contiguous samples. Where classes are many,
    # columns are the contiguous ones, and NumPy adds those up in pairs.
    return block.astype(FLOAT64, order="C" if block.shape[0] <= MOST_ROWS else "F")


def subtract_top(x: NDArray[Any], top: NDArray[Any]) -> None:
    """Subtract from each column its largest entry, in place; leave that in ``top``."""
    np.maximum.reduce(x, axis=0, out=top)
    np.subtract(x, top, out=x)
    part_infinities(x, top)


def part_infinities(d: NDArray[Any], top: NDArray[Any]) -> None:
    """Mend ``x - top`` in place where the top is infinite."""
    if not math.isfinite(np.add.reduce(top)):
        # Inf - Inf is NaN: these entries tie at the top, beside them finite ones vanish.
        np.copyto(d, np.where(np.isnan(d), 0.0, -np.inf), where=np.isposinf(top))


def offsets(matrix: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return what each row and each column adds to a position in ``matrix.ravel(order="K")``."""
    rows, columns = matrix.shape
    by_row, by_column = (columns, 1) if matrix.flags.c_contiguous else (1, rows)
    return np.arange(rows) * by_row, np.arange(columns) * by_column


def add_up(x: Floats, low: Floats | float) -> Pair:
    """Add ``x + low`` along axis 0, with the rounding error of the sum.

    With sigma a power of two of at least ``4 n max|x|``, ``(x + sigma) - sigma`` keeps the bits
    of ``x`` down to ``sigma * 2**-52``: so few that their sum is exact in any order. What was cut
    off is small, and so are the rounding errors in its sum.
    """
    largest = np.maximum.reduce(x, axis=0, initial=0.0)
    largest = np.maximum(largest, -np.minimum.reduce(x, axis=0, initial=0.0))
    if np.fmax.reduce(largest, axis=None, initial=0.0) > HUGE_TERM:
        scale = np.where(largest > HUGE_TERM, 2.0**-100, 1.0)
        high, low_part = _add_up(x * scale, low * scale, largest * scale)
        return Pair(high / scale, low_part / scale)
    return _add_up(x, low, largest)


def _add_up(x: Floats, low: Floats | float, largest: Floats) -> Pair:
    _, exponent = np.frexp(largest)
    sigma = np.ldexp(4.0, exponent + x.shape[0].bit_length())
    leading = x + sigma
    leading -= sigma
    high = np.add.reduce(leading, axis=0)
    rest = np.subtract(x, leading, out=leading)
    rest += low
    sums = fast_two_sum(high, np.add.reduce(rest, axis=0))
    finite = np.isfinite(largest)
    if finite.all():
        return sums
    return Pair(
        np.where(finite, sums.high, np.add.reduce(x, axis=0)), np.where(finite, sums.low, 0.0)
    )


def fast_two_sum(a: Floats, b: Floats) -> Pair:
    """Return ``a + b`` rounded, and the rounding error, for ``|a| >= |b|`` or ``a == 0``."""
    total = a + b
    return Pair(total, b - (total - a))


def two_sum(a: Pair, b: Floats, b_low: Floats) -> Pair:
    """Return ``a + b + b_low`` as a pair, whichever of ``a`` and ``b`` is larger."""
    total = a.high + b
    b_taken = total - a.high
    return Pair(total, (a.high - (total - b_taken)) + (b - b_taken) + (a.low + b_low))


def other_total(exponentials: Floats, shifted: Shifted) -> Floats:
    """Return the sum of ``exp(x - top)`` without one entry at the top."""
    ones = np.floor(exponentials)  # 1 for each entry at the top, 0 for the others
    ties = np.add.reduce(ones, axis=0)
    others = np.subtract(exponentials, ones, out=ones)
    if shifted.error is None:
        total: Floats = np.add.reduce(others, axis=0)
        total += ties - 1.0
        return total
    total = add_up(others, exponentials * shifted.error).high
    total += ties - 1.0
    return with_subnormal_terms(total, shifted.d, shifted.error)


def with_subnormal_terms(total: Floats, d: Floats, error: Floats) -> Floats:
    """Return the sum of all but the top entry, computed anew where its terms were subnormal.

    A subnormal number has lost bits, up to half of the last one. Such a column has one top entry.
    """
    if np.fmin.reduce(total) < SUBNORMAL_TERMS:
        tiny = total < SUBNORMAL_TERMS
        scaled = np.exp(np.where(d[:, tiny] == 0, -np.inf, d[:, tiny]) + SCALE)
        sums = add_up(scaled, scaled * (error[:, tiny] + SCALE_ERROR))
        total[tiny] = np.ldexp(sums.high, -512)
    return total


def log_total(shifted: Shifted) -> Floats:
    """Return ``log(sum(exp(x - top)))`` of each column, with all its digits where it is near 0."""
    total = other_total(np.exp(shifted.d), shifted)
    return np.log1p(total, out=total)


def times(total: Pair, count: int) -> Pair:
    """Multiply by a number of samples, below 2**27, keeping the rounding error."""
    high, low = total
    product = high * count
    # Veltkamp's splitting: the product of the upper 26 bits with the count is exact.
    spread = high * 134217729.0
    upper = spread - (spread - high)
    return Pair(product, (upper * count - product) + (high - upper) * count + low * count)


def divided(total: Pair, count: int) -> Floats:
    """Divide a sum by a number of samples, with one rounding."""
    mean = total.high / count
    back = times(Pair(mean, np.zeros_like(mean)), count)
    rest = (total.high - back.high) - back.low + total.low
    return np.where(np.isfinite(mean), mean + rest / count, mean)


def quotient(x: Floats, error: Floats, total: Pair, out: NDArray[Any]) -> None:
    """Write ``x (1 + error) / total`` to ``out``, overwriting ``x`` and ``error``."""
    x /= total.high
    error -= total.low / total.high
    error *= x
    np.add(x, error, out=out, casting="same_kind")


# Any array as a matrix with its classes along axis 0, read and written in blocks of columns.
#
# A block is small enough for its float64 copy and the few arrays beside it to stay in cache.

# 768 kB of float64 an array. With fewer the cost of a call shows, with more nothing is gained:
# benchmarks/softmax.py compares sizes.
BLOCK_ELEMENTS = 96 * 1024


def as_matrix(x: NDArray[Any], axes: tuple[int, ...]) -> NDArray[Any]:
    """Return ``x`` with ``axes`` as its rows and all others as its columns; a view for a batch."""
    if x.ndim == 2 and axes == (0,):
        return x
    others = (a for a in range(x.ndim) if a not in axes)
    rows = math.prod(x.shape[a] for a in axes)
    matrix: NDArray[Any] = x.transpose(*axes, *others).reshape(rows, x.size // rows)
    return matrix


def by_blocks(
    kernel: Callable[..., None],
    x: NDArray[Any],
    axes: tuple[int, ...],
    out: NDArray[Any] | None,
    *beside: NDArray[Any],
) -> None:
    """Call ``kernel(x, out, *beside)`` on each block of columns; ``out`` None stays None.

    ``beside`` holds what goes with the columns: its last axis counts them.
    """
    if out is not None:
        # A block that is written must not be one that is still to be read.
        if out is not x and np.may_share_memory(x, out):
            x = x.copy()
        beside = tuple(a.copy() if np.may_share_memory(a, out) else a for a in beside)
    source = as_matrix(x, axes)
    target = None if out is None else as_matrix(out, axes)
    if 0 < source.size <= BLOCK_ELEMENTS:
        kernel(source, target, *beside)
    else:
        step = max(1, BLOCK_ELEMENTS // source.shape[0])
        for start in range(0, source.shape[1], step):
            columns = slice(start, start + step)
            block_out = None if target is None else target[:, columns]
            kernel(source[:, columns], block_out, *[array[..., columns] for array in beside])
    if target is None or target is out or out is None:
        return
    if not np.may_share_memory(target, out):
        order = (*axes, *(a for a in range(out.ndim) if a not in axes))
        in_order = target.reshape([out.shape[a] for a in order])
        out[...] = in_order.transpose(np.argsort(order))
