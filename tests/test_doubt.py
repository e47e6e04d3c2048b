"""Doubt: the evidence, and the limit above which predictions are right."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npsoftmax.doubt import _tail, are_doubtful, evidence, fit_evidence_limit
from npsoftmax.errors import InputError, ShapeError


def binary(values, errors):
    """Return logits with these evidences, and labels that are wrong at these places."""
    Z = np.stack([2 * np.asarray(values, float), np.zeros(len(values))])
    y = np.zeros(len(values), int)
    y[errors] = 1
    return Z, y


@given(st.integers(0, 2**32 - 1), st.floats(-50, 50))
def test_evidence_is_that_of_the_definition_and_no_shift_changes_it(seed, shift):
    Z = np.random.default_rng(seed).normal(size=(4, 5))
    expected = [max(z) - sum(z) / 4 for z in Z.T]
    np.testing.assert_allclose(evidence(Z), expected, rtol=1e-12)
    np.testing.assert_allclose(evidence(Z + shift), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("errors", "count"), [(0, 1), (0, 29), (3, 50), (40, 700), (7, 7)])
@pytest.mark.parametrize("right", [0.5, 0.9, 0.999])
def test_the_tail_is_that_of_the_binomial_distribution(errors, count, right):
    binom = pytest.importorskip("scipy.stats").binom
    assert _tail(errors, count, right) == pytest.approx(binom.cdf(errors, count, 1 - right))


def test_without_errors_an_eighth_is_doubted():
    Z, y = binary(np.arange(1, 801), [])
    assert fit_evidence_limit(Z, y) == 100


def test_the_limit_is_the_lowest_whose_errors_are_few_enough():
    # 28 right ones do not show that 90 % are right, 29 do: 0.9**29 < 0.05 < 0.9**28.
    Z, y = binary(np.arange(40, 0, -1), np.arange(29, 40))
    assert fit_evidence_limit(Z, y) == 40 - 29
    Z, y = binary(np.arange(40, 0, -1), np.arange(28, 40))
    assert fit_evidence_limit(Z, y) == 40  # all are doubted


def test_close_guesses_are_doubted_whatever_the_limit_is():
    Z = np.log([[0.6, 0.6, 0.9], [0.31, 0.29, 0.05], [0.09, 0.11, 0.05]])
    assert are_doubtful(Z, 0).tolist() == [True, False, False]
    assert are_doubtful(Z, 1.5).tolist() == [True, True, False]
    assert are_doubtful(Z[:1], -1).tolist() == [False] * 3  # one class has no second


def test_a_higher_share_asks_for_more_evidence(rng):
    strength = rng.normal(size=3000)
    Z, y = binary(np.exp(strength), np.flatnonzero(rng.random(3000) > 1 / (1 + np.exp(-strength))))
    limits = [fit_evidence_limit(Z, y, right) for right in (0.6, 0.75, 0.85)]
    assert limits == sorted(set(limits))


def test_the_share_is_kept_on_other_samples(rng):
    """Limits are chosen on 300 of 30,000 samples; about one in twenty may miss the share."""
    strength = rng.gamma(2.0, size=30_000)
    is_right = rng.random(30_000) < 1 - 0.5 * np.exp(-strength)
    misses = 0
    for _ in range(100):
        chosen = rng.choice(30_000, 300, replace=False)
        limit = fit_evidence_limit(*binary(strength[chosen], ~is_right[chosen]))
        above = strength > limit
        misses += above.any() and is_right[above].mean() < 0.9
    assert misses <= 15


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fit_evidence_limit(np.eye(2), [0, 1], right=1), InputError, "between 0 and 1"),
        (lambda: fit_evidence_limit(np.eye(2), [0], right=0.9), ShapeError, "as many"),
        (lambda: evidence([1.0, 2.0]), ShapeError, "logits"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()
