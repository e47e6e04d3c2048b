"""The exact softmax, loss and gradient of given logits, and the error of a result in ULP.

Every float is a rational number, so its softmax has one exact value; mpmath computes 60 digits.
Errors are counted in units in the last place (ULP) of the exact value, with the spacing of the
subnormal numbers as the smallest unit. The families are columns on which softmax functions lose
digits, each for a different reason.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from mpmath import mp, mpf
from numpy.typing import NDArray

DIGITS = 60


class Exact(NamedTuple):
    """The exact values for one column ``x`` with label ``y``, as numbers of 60 digits."""

    softmax: list[mpf]
    logsoftmax: list[mpf]
    logsumexp: mpf
    loss: mpf
    gradient: list[mpf]


def exact(x: NDArray[Any], y: int) -> Exact:
    """Return the exact values for a finite column."""
    with mp.workdps(DIGITS):
        logits = [mpf(float(v)) for v in x]
        leader = max(range(len(logits)), key=logits.__getitem__)
        d = [v - logits[leader] for v in logits]
        exponentials = [mp.exp(v) for v in d]
        without_leader = mp.fsum(e for i, e in enumerate(exponentials) if i != leader)
        without_label = mp.fsum(e for i, e in enumerate(exponentials) if i != y)
        total, log_total = without_leader + 1, mp.log1p(without_leader)
        softmax = [e / total for e in exponentials]
        gradient = softmax.copy()
        gradient[y] = -without_label / total
        return Exact(
            softmax,
            [v - log_total for v in d],
            logits[leader] + log_total,
            log_total - d[y],
            gradient,
        )


def ulp(value: mpf, dtype: Any) -> mpf:
    """Return the spacing of the numbers of ``dtype`` at ``value``."""
    info = np.finfo(dtype)
    lowest = info.minexp - info.nmant
    return mpf(2) ** max(mp.frexp(value)[1] - info.nmant - 1 if value else lowest, lowest)


def error_in_ulp(got: Any, value: mpf, dtype: Any) -> float:
    """Return the distance of ``got`` from the exact ``value`` in units of its last place."""
    if np.isnan(got):
        return float("inf")
    if np.isinf(got):
        # Rounding to nearest overflows half a unit above the largest number.
        largest = mpf(float(np.finfo(dtype).max))
        beyond = abs(value) >= largest + ulp(largest, dtype) / 2
        return 0.0 if beyond and (got > 0) == (value > 0) else float("inf")
    with mp.workdps(DIGITS):
        return float(abs(mpf(float(got)) - value) / ulp(value, dtype))


Family = Callable[[np.random.Generator, int, int, Any], NDArray[Any]]


def ordinary(rng: np.random.Generator, n: int, samples: int, dtype: Any) -> NDArray[Any]:
    """Logits as a model computes them."""
    return rng.standard_normal((n, samples)) * 3


def mixed(rng: np.random.Generator, n: int, samples: int, dtype: Any) -> NDArray[Any]:
    """Magnitudes from 2**-30 to 2**10: the difference to the maximum is rounded."""
    return rng.choice([-1, 1], (n, samples)) * 2 ** rng.uniform(-30, 10, (n, samples))


def dominant(rng: np.random.Generator, n: int, samples: int, dtype: Any) -> NDArray[Any]:
    """One class ahead, up to the largest gap with a nonzero loss."""
    x = rng.standard_normal((n, samples))
    x[rng.integers(n, size=samples), np.arange(samples)] += rng.uniform(0, reach(dtype), samples)
    return x


def subnormal(rng: np.random.Generator, n: int, samples: int, dtype: Any) -> NDArray[Any]:
    """All classes except one so far behind that their probabilities are subnormal numbers."""
    normal = -np.log(float(np.finfo(dtype).tiny))
    nearest = rng.uniform(normal, reach(dtype), samples)
    x = -rng.uniform(nearest, reach(dtype), (n, samples))
    x[rng.integers(n, size=samples), np.arange(samples)] = 0
    return x


def ties(rng: np.random.Generator, n: int, samples: int, dtype: Any) -> NDArray[Any]:
    """Several classes with the largest logit, or within two units in the last place of it."""
    x = rng.integers(-2, 3, (n, samples)) * 7.3
    return x.astype(dtype) * (1 + rng.integers(0, 3, (n, samples)) * np.finfo(dtype).eps)


def offset(rng: np.random.Generator, n: int, samples: int, dtype: Any) -> NDArray[Any]:
    """A common offset of up to 1e15, which cancels."""
    return rng.standard_normal((n, samples)) * 3 + 10 ** rng.uniform(0, 15, samples)


def overflowing(rng: np.random.Generator, n: int, samples: int, dtype: Any) -> NDArray[Any]:
    """Logits close to the largest number: differences overflow."""
    return rng.uniform(-1, 1, (n, samples)) * float(np.finfo(dtype).max)


def tiny(rng: np.random.Generator, n: int, samples: int, dtype: Any) -> NDArray[Any]:
    """Logits that are subnormal numbers, almost equal."""
    return rng.uniform(-1, 1, (n, samples)) * float(np.finfo(dtype).tiny)


FAMILIES: tuple[Family, ...] = (
    ordinary,
    mixed,
    dominant,
    subnormal,
    ties,
    offset,
    overflowing,
    tiny,
)


def reach(dtype: Any) -> float:
    """Return the largest gap between two logits at which both probabilities exceed zero."""
    info = np.finfo(dtype)
    return float((info.nmant - info.minexp) * np.log(2))
