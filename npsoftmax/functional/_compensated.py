r"""Accurate sums of exponentials of columns, computed in blocks that stay in cache.

All accuracy in this package rests on four facts.

1. Only ``d = x - max(x)`` enters :math:`e^d`, so nothing overflows, and the largest entry
   contributes exactly 1.
2. float32 is computed in float64 and rounded once. There is nothing wider than float64, so its
   rounding error is kept next to the number as ``error``: TwoSum (Knuth, TAOCP 2, 4.2.2) gives
   ``x - max(x) = d + error`` exactly, and :math:`e^{d + error} = e^d (1 + error)` to twice the
   working precision.
3. A logarithm close to 0 is ``log1p`` of the sum of the *other* entries, never of the sum less 1.
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
    "C_ORDER_MAX_ROWS",
    "MAX_SAFE_TERM",
    "Pair",
    "add_up",
    "apply_in_blocks",
    "as_matrix",
    "divide_by_count",
    "divide_by_total",
    "fast_two_sum",
    "flat_offsets",
    "log_total",
    "multiply_by_count",
    "resolve_infinities",
    "resum_subnormal_terms",
    "shift",
    "subtract_top",
    "sum_without_top",
    "two_sum",
]

Floats = NDArray[np.float64]


# Columns less their largest entry.

# With classes as rows every operation runs along contiguous samples. With more rows than this the
# columns are contiguous instead, and NumPy sums those pairwise.
C_ORDER_MAX_ROWS = 512


class Shifted(NamedTuple):
    """A block of columns as ``x = top + d + error``, exactly, with classes along axis 0.

    ``d`` is 0 at the largest entry ``top``; if that is +Inf, it is 0 at all infinite entries and
    -Inf at the others. ``error`` is None where float64 represents ``d`` with bits to spare.
    """

    top: Floats
    d: Floats
    error: Floats | None


def shift(block: NDArray[Any]) -> Shifted:
    """Subtract the largest entry from each column; for float64 keep the rounding error."""
    x = block.astype(np.float64, order="C" if block.shape[0] <= C_ORDER_MAX_ROWS else "F")
    if block.dtype != np.float64:
        top = np.empty(x.shape[1])
        subtract_top(x, top)
        return Shifted(top, x, None)
    top = np.maximum.reduce(x, axis=0)
    d = x - top
    t = d - x
    error = (x - (d - t)) - (t + top)
    if not math.isfinite(np.add.reduce(error, axis=None)):
        # An entry is infinite, or x - top overflowed: there is no rounding error to keep.
        error[~np.isfinite(error)] = 0.0
    resolve_infinities(d, top)
    return Shifted(top, d, error)


def subtract_top(x: NDArray[Any], top: NDArray[Any]) -> None:
    """Subtract the largest entry from each column, in place, and write it to ``top``."""
    np.maximum.reduce(x, axis=0, out=top)
    np.subtract(x, top, out=x)
    resolve_infinities(x, top)


def resolve_infinities(d: NDArray[Any], top: NDArray[Any]) -> None:
    """Correct ``d = x - top`` in place where ``top`` is +Inf."""
    if not math.isfinite(np.add.reduce(top, axis=None)):
        # Inf - Inf is NaN: these entries share the top; finite ones vanish in comparison.
        np.copyto(d, np.where(np.isnan(d), 0.0, -np.inf), where=np.isposinf(top))


def flat_offsets(matrix: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the row and column offsets whose sum is an index into ``matrix.ravel(order="K")``."""
    rows, columns = matrix.shape
    row_step, column_step = (columns, 1) if matrix.flags.c_contiguous else (1, rows)
    return np.arange(rows) * row_step, np.arange(columns) * column_step


# Numbers to twice the working precision.


class Pair(NamedTuple):
    """A number as ``high + low``: ``high`` is rounded, ``low`` is its rounding error."""

    high: Floats
    low: Floats


def fast_two_sum(a: Floats, b: Floats) -> Pair:
    """Return ``a + b`` rounded, and the rounding error, for ``|a| >= |b|`` or ``a == 0``."""
    total = a + b
    return Pair(total, b - (total - a))


def two_sum(a: Pair, b: Floats, b_low: Floats) -> Pair:
    """Return ``a + b + b_low`` as a pair; either of ``a`` and ``b`` may be larger."""
    total = a.high + b
    b_added = total - a.high
    return Pair(total, (a.high - (total - b_added)) + (b - b_added) + (a.low + b_low))


def multiply_by_count(total: Pair, count: int) -> Pair:
    """Multiply by a number of samples, below 2**27, keeping the rounding error."""
    high, low = total
    product = high * count
    # Veltkamp's splitting: the product of the upper 26 bits with the count is exact.
    spread = high * 134217729.0
    upper = spread - (spread - high)
    return Pair(product, (upper * count - product) + (high - upper) * count + low * count)


def divide_by_count(total: Pair, count: int) -> Floats:
    """Divide a sum by a number of samples, with one rounding."""
    mean = total.high / count
    back = multiply_by_count(Pair(mean, np.zeros_like(mean)), count)
    rest = (total.high - back.high) - back.low + total.low
    return np.where(np.isfinite(mean), mean + rest / count, mean)


def divide_by_total(x: Floats, error: Floats, total: Pair, out: NDArray[Any]) -> None:
    """Write ``x (1 + error) / total`` to ``out``, overwriting ``x`` and ``error``."""
    x /= total.high
    error -= total.low / total.high
    error *= x
    np.add(x, error, out=out, casting="same_kind")


# Larger terms are scaled down, or the power of two that splits them would overflow.
MAX_SAFE_TERM = 2.0**900


def add_up(x: Floats, low: Floats | float) -> Pair:
    """Add ``x + low`` along axis 0, keeping the rounding error of the sum.

    With sigma a power of two of at least ``4 n max|x|``, ``(x + sigma) - sigma`` keeps the bits
    of ``x`` down to ``sigma * 2**-52``: so few that their sum is exact in any order. The remaining
    bits are small, and so are the rounding errors of their sum.
    """
    largest = np.maximum.reduce(x, axis=0, initial=0.0)
    largest = np.maximum(largest, -np.minimum.reduce(x, axis=0, initial=0.0))
    if np.fmax.reduce(largest, axis=None, initial=0.0) > MAX_SAFE_TERM:
        scale = np.where(largest > MAX_SAFE_TERM, 2.0**-100, 1.0)
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


# Sums of exponentials.


def log_total(shifted: Shifted) -> Floats:
    """Return ``log(sum(exp(x - top)))`` of each column, with all its digits where it is near 0."""
    total = sum_without_top(np.exp(shifted.d), shifted)
    return np.log1p(total, out=total)


def sum_without_top(exponentials: Floats, shifted: Shifted) -> Floats:
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
    return resum_subnormal_terms(total, shifted.d, shifted.error)


# Terms of a smaller sum may be subnormal, which costs them up to half of their last bit. They are
# computed again as exp(d + LOG_SCALE) * 2**-512, where LOG_SCALE + LOG_SCALE_ERROR is 512 log 2 and
# LOG_SCALE has few enough bits (it is a multiple of 2**-43) that d + LOG_SCALE is exact.
MIN_SAFE_SUM = 2.0**-960
LOG_SCALE = round(512 * 0.6931471805599453 * 2**43) / 2**43
LOG_SCALE_ERROR = 512 * 0.6931471805599453 - LOG_SCALE + 512 * 2.3190468138462996e-17


def resum_subnormal_terms(total: Floats, d: Floats, error: Floats) -> Floats:
    """Return the sums without the top entry, computed again where their terms are subnormal.

    A sum that small has one entry at the top: each further one would add 1.
    """
    if np.fmin.reduce(total) < MIN_SAFE_SUM:
        tiny = total < MIN_SAFE_SUM
        scaled = np.exp(np.where(d[:, tiny] == 0, -np.inf, d[:, tiny]) + LOG_SCALE)
        sums = add_up(scaled, scaled * (error[:, tiny] + LOG_SCALE_ERROR))
        total[tiny] = np.ldexp(sums.high, -512)
    return total


# Blocks of columns.

# A float64 array of a block takes 768 kB, so that the few arrays of a computation stay in cache.
# With smaller blocks the cost of a call becomes noticeable; larger ones gain nothing:
# benchmarks/softmax.py compares sizes.
BLOCK_ELEMENTS = 96 * 1024


def apply_in_blocks(
    kernel: Callable[..., None],
    x: NDArray[Any],
    axes: tuple[int, ...],
    out: NDArray[Any] | None,
    *per_column: NDArray[Any],
) -> None:
    """Call ``kernel(x, out, *per_column)`` on blocks of columns; None as ``out`` is passed on.

    The last axis of each array in ``per_column`` counts the columns.
    """
    if out is not None:
        # Writing a block must not change one that is still to be read.
        if out is not x and np.may_share_memory(x, out):
            x = x.copy()
        per_column = tuple(a.copy() if np.may_share_memory(a, out) else a for a in per_column)
    source = as_matrix(x, axes)
    target = None if out is None else as_matrix(out, axes)
    if 0 < source.size <= BLOCK_ELEMENTS:
        kernel(source, target, *per_column)
    else:
        step = max(1, BLOCK_ELEMENTS // source.shape[0])
        for start in range(0, source.shape[1], step):
            columns = slice(start, start + step)
            block_out = None if target is None else target[:, columns]
            kernel(source[:, columns], block_out, *[array[..., columns] for array in per_column])
    if out is None or target is None or target is out or np.may_share_memory(target, out):
        return
    order = (*axes, *(a for a in range(out.ndim) if a not in axes))
    transposed = target.reshape([out.shape[a] for a in order])
    out[...] = transposed.transpose(np.argsort(order))


def as_matrix(x: NDArray[Any], axes: tuple[int, ...]) -> NDArray[Any]:
    """Return ``x`` with ``axes`` as rows and all others as columns; a matrix stays a view."""
    if x.ndim == 2 and axes == (0,):
        return x
    others = (a for a in range(x.ndim) if a not in axes)
    rows = math.prod(x.shape[a] for a in axes)
    matrix: NDArray[Any] = x.transpose(*axes, *others).reshape(rows, x.size // rows)
    return matrix
