"""Arithmetic on pairs keeps rounding errors: twice the working precision."""

from fractions import Fraction

import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mpmath import mp

from npsoftmax.functional import logitcrossentropy
from npsoftmax.functional._compensated import (
    Pair,
    add_up,
    divide_by_count,
    divide_by_total,
    fast_two_sum,
    multiply_by_count,
    shift,
    two_sum,
)

numbers = st.floats(-1e100, 1e100).filter(lambda v: v == 0 or abs(v) > 1e-100)
TWICE = Fraction(1, 2**100)


def exact(pair, column=0):
    return Fraction(float(pair.high[column])) + Fraction(float(pair.low[column]))


@given(hnp.arrays(np.float64, (7, 1), elements=numbers))
def test_sums_keep_their_rounding_error(x):
    expected = sum(Fraction(v) for v in x[:, 0].tolist())
    scale = sum(abs(Fraction(v)) for v in x[:, 0].tolist())
    got = add_up(x, 0.0)
    assert abs(exact(got) - expected) <= TWICE * scale
    assert got.high[0] + got.low[0] == got.high[0]


def test_sums_of_huge_infinite_and_missing_terms():
    x = np.array([[1.7e308, np.inf, np.nan, 1.0], [-1.6e308, 1.0, 1.0, 2.0]])
    with np.errstate(invalid="ignore"):
        got = add_up(x, 0.0)
    np.testing.assert_array_equal(got.high, [1.7e308 - 1.6e308, np.inf, np.nan, 3.0])
    np.testing.assert_array_equal(got.low[[0, 1, 3]], 0)


@given(numbers, numbers)
def test_two_sums_are_exact(a, b):
    expected = Fraction(a) + Fraction(b)
    first, second = np.array([a]), np.array([b])
    zero = np.zeros(1)
    assert exact(two_sum(Pair(first, zero), second, zero)) == expected
    larger, smaller = (first, second) if abs(a) >= abs(b) else (second, first)
    assert exact(fast_two_sum(larger, smaller)) == expected


@given(numbers, st.integers(1, 2**26))
def test_products_and_quotients_by_a_count(value, count):
    high, low = np.array([value]), np.array([value * 2.0**-55])
    total = Fraction(value) + Fraction(float(low[0]))
    assert (
        abs(exact(multiply_by_count(Pair(high, low), count)) - total * count)
        <= abs(total * count) * TWICE
    )
    mean = Fraction(float(divide_by_count(Pair(high, low), count)[0]))
    unit = Fraction(float(np.spacing(abs(float(total / count)))))
    assert abs(mean - total / count) <= unit * Fraction(501, 1000)


def test_a_quotient_uses_both_parts_of_its_divisor():
    # 1 (1 + 3u) / (1 + u) is 1 + 2u up to u**2; without the divisor's low part it is 1 + 4u.
    u = 2.0**-53
    out = np.empty((1, 1))
    divide_by_total(np.ones((1, 1)), np.full((1, 1), 3 * u), Pair(np.ones(1), np.array([u])), out)
    assert out[0, 0] == 1 + 2 * u


@given(hnp.arrays(np.float64, (4, 3), elements=numbers))
def test_the_shift_is_exact(x):
    top, d, error = shift(x)
    for (i, j), value in np.ndenumerate(x):
        difference = Fraction(float(value)) - Fraction(float(top[j]))
        assert Fraction(float(d[i, j])) + Fraction(float(error[i, j])) == difference


@pytest.mark.parametrize("offset", [0.1, 33.3, 700.7])
def test_a_label_far_behind_has_a_correctly_rounded_loss(offset):
    # The loss is log 2 and the difference of two logits: two roundings, unless the first is kept.
    behind = np.random.default_rng(0).uniform(0, 1, 200)
    x = np.stack([np.full(200, 1e3 + offset), np.full(200, 1e3 + offset), behind])
    losses = logitcrossentropy(x, np.full(200, 2), agg="none")
    with mp.workdps(oracle.DIGITS):
        for j in range(200):
            error = oracle.error_in_ulp(losses[j], oracle.exact(x[:, j], 2).loss, np.float64)
            assert error <= 0.501
