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
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Pair",
    "Shifted",
    "add_up",
    "log_total",
    "other_total",
    "quotient",
    "shift",
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
    """A row of sums: ``high`` is rounded, ``low`` what rounding cut off, None where not kept."""

    high: Floats
    low: Floats | None


def shift(block: NDArray[Any]) -> Shifted:
    """Subtract from each column its largest entry, keeping the rounding error for float64."""
    # With classes as rows every step below runs along contiguous samples. Where classes are
    # many, columns are the contiguous ones, and NumPy adds those up in pairs.
    x = block.astype(FLOAT64, order="C" if block.shape[0] <= MOST_ROWS else "F")
    top = np.maximum.reduce(x, axis=0)
    error = None
    if block.dtype == FLOAT64:
        d = x - top
        t = d - x
        error = (x - (d - t)) - (t + top)
        if not math.isfinite(np.add.reduce(error, axis=None)):
            # An infinity, or x - top overflowed: there is nothing left to correct.
            error[~np.isfinite(error)] = 0.0
    else:
        d = np.subtract(x, top, out=x)
    if not math.isfinite(np.add.reduce(top)):
        # Inf - Inf is NaN: these entries tie at the top, beside them finite ones vanish.
        np.copyto(d, np.where(np.isnan(d), 0.0, -np.inf), where=np.isposinf(top))
    return Shifted(top, d, error)


def add_up(x: Floats, low: Floats | float | None) -> Pair:
    """Add non-negative ``x + low`` along axis 0, with the rounding error unless ``low`` is None.

    With sigma a power of two of at least ``4 n max(x)``, ``(x + sigma) - sigma`` keeps the bits
    of ``x`` down to ``sigma * 2**-52``: so few that their sum is exact in any order. What was cut
    off is small, and so are the rounding errors in its sum.
    """
    if low is None:
        return Pair(np.add.reduce(x, axis=0), None)
    largest = np.maximum.reduce(x, axis=0, initial=0.0)
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
    return Pair(np.where(finite, sums.high, np.add.reduce(x, axis=0)), sums.low)


def fast_two_sum(a: Floats, b: Floats) -> Pair:
    """Return ``a + b`` rounded, and the rounding error, for ``|a| >= |b|`` or ``a == 0``."""
    total = a + b
    return Pair(total, b - (total - a))


def two_sum(a: Pair, b: Floats, b_low: Floats | None) -> Pair:
    """Return ``a + b + b_low`` as a pair, whichever of ``a`` and ``b`` is larger."""
    total = a.high + b
    if a.low is None or b_low is None:
        return Pair(total, None)
    b_taken = total - a.high
    return Pair(total, (a.high - (total - b_taken)) + (b - b_taken) + (a.low + b_low))


def other_total(exponentials: Floats, shifted: Shifted) -> Floats:
    """Return the sum of ``exp(x - top)`` without one entry at the top."""
    ones = np.floor(exponentials)  # 1 for each entry at the top, 0 for the others
    ties = np.add.reduce(ones, axis=0)
    others = np.subtract(exponentials, ones, out=ones)
    low = None if shifted.error is None else exponentials * shifted.error
    total = add_up(others, low).high
    total += ties - 1.0
    return with_subnormal_terms(total, shifted)


def with_subnormal_terms(total: Floats, shifted: Shifted) -> Floats:
    """Return the sum of all but the top entry, computed anew where its terms were subnormal.

    A subnormal number has lost bits, up to half of the last one. Such a column has one top entry.
    """
    if shifted.error is None:
        return total
    if np.fmin.reduce(total) < SUBNORMAL_TERMS:
        tiny = total < SUBNORMAL_TERMS
        d, error = shifted.d[:, tiny], shifted.error[:, tiny]
        scaled = np.exp(np.where(d == 0, -np.inf, d) + SCALE)
        sums = add_up(scaled, scaled * (error + SCALE_ERROR))
        total[tiny] = np.ldexp(sums.high, -512)
    return total


def log_total(shifted: Shifted) -> Floats:
    """Return ``log(sum(exp(x - top)))`` of each column, with all its digits where it is near 0."""
    total = other_total(np.exp(shifted.d), shifted)
    return np.log1p(total, out=total)


def times(total: Pair, count: int) -> Pair:
    """Multiply sums by a number of samples, keeping the rounding error if they have one."""
    high, low = total
    product = high * count
    if low is None:
        return Pair(product, None)
    # Veltkamp's splitting: the product of the upper 26 bits with the count is exact.
    spread = high * 134217729.0
    upper = spread - (spread - high)
    return Pair(product, (upper * count - product) + (high - upper) * count + low * count)


def quotient(x: Floats, error: Floats | None, total: Pair, out: NDArray[Any]) -> None:
    """Write ``x (1 + error) / total`` to ``out``; may overwrite ``x`` and ``error``."""
    if error is None or total.low is None:
        np.divide(x, total.high, out=out, casting="same_kind")
        return
    x /= total.high
    error -= total.low / total.high
    error *= x
    np.add(x, error, out=out, casting="same_kind")
