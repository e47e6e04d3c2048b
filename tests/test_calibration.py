"""Temperature scaling: the derivative, the minimum, and data without a minimum."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from npsoftmax.calibration import _loss_grad, fit_temperature
from npsoftmax.errors import InputError, LabelError, ShapeError
from npsoftmax.functional import logitcrossentropy


def sample(seed, k=4, n=200, temperature=1.0):
    """Return logits, and labels drawn with the probabilities of logits / temperature."""
    rng = np.random.default_rng(seed)
    Z = rng.normal(scale=2, size=(k, n))
    noise = rng.gumbel(size=(k, n))
    return Z, (Z / temperature + noise).argmax(axis=0)


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 20))
def test_gradient_by_differences(seed, beta):
    Z, y = sample(seed, n=7)
    h = 1e-5
    above, below = (logitcrossentropy(b * Z, y) for b in (beta + h, beta - h))
    numeric = (above - below) / (2 * h)
    assert _loss_grad(beta, Z, y) == pytest.approx(numeric, rel=1e-6, abs=1e-8)


@given(st.integers(0, 2**32 - 1))
def test_the_gradient_vanishes_at_the_temperature_and_changes_sign(seed):
    Z, y = sample(seed, n=50)
    T = fit_temperature(Z, y)
    assert abs(_loss_grad(1 / T, Z, y)) < 1e-8
    assert _loss_grad(0.999 / T, Z, y) < 0 < _loss_grad(1.001 / T, Z, y)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 5.0])
def test_the_temperature_that_made_the_labels_is_found(temperature):
    Z, y = sample(0, n=20_000, temperature=temperature)
    assert fit_temperature(Z, y) == pytest.approx(temperature, rel=0.05)


def test_two_classes_by_hand():
    # 9 of 10 are right by a margin of 1: the probability is 0.9 where the margin is log 9.
    Z = np.tile([[1.0], [0.0]], 10)
    assert fit_temperature(Z, [0] * 9 + [1]) == pytest.approx(1 / np.log(9), rel=1e-9)


@given(st.floats(-8, 8), st.integers(0, 2**32 - 1))
def test_size_and_shift_of_the_logits_do_not_matter(exponent, seed):
    Z, y = sample(seed, n=40)
    assume((Z.argmax(axis=0) != y).any())
    factor = 10.0**exponent
    T = fit_temperature(Z, y)
    assert fit_temperature(factor * Z, y) / factor == pytest.approx(T, rel=1e-7)
    assert fit_temperature(Z + np.linspace(-9, 9, 40), y) == pytest.approx(T, rel=1e-7)


def test_few_errors_among_many():
    Z = np.tile([[3.0], [0.0]], 100_000)
    y = np.zeros(100_000, int)
    y[7] = 1
    assert fit_temperature(Z, y) == pytest.approx(3 / np.log(99_999), rel=1e-7)


def test_one_huge_logit_changes_nothing():
    Z, y = np.tile([[2.0], [0.0]], 1000), np.arange(1000) % 4 == 0
    Z[0, 1] = 1e12  # right, and sure
    assert fit_temperature(Z, y.astype(int)) == pytest.approx(1.8218, abs=2e-3)
    Z, y = [[1e308] * 10, [-1e308] * 10], [0] * 9 + [1]
    assert fit_temperature(Z, y) == pytest.approx(2 * (1e308 / np.log(9)), rel=1e-9)


@pytest.mark.parametrize(
    ("logits", "y", "error", "message"),
    [
        ([[1.0, 0.0], [0.0, 1.0]], [0, 1], InputError, "misclassified sample, got none among 2"),
        ([[1.0, 0.0], [0.0, 1.0]], [1, 0], InputError, "better than chance"),
        ([[1.0, 1.0], [0.0, 0.0]], [0, 1], InputError, "better than chance"),
        ([[0.0, 0.0], [0.0, 0.0]], [0, 1], InputError, "better than chance"),
        ([[5.0, 7.0]], [0, 0], InputError, "better than chance"),
        ([[np.inf], [0.0]], [0], InputError, "finite"),
        ([[1.0], [0.0]], [2], LabelError, "0..1"),
        ([[1.0], [0.0]], [0, 0], ShapeError, "as many labels"),
        (np.zeros((2, 0)), np.zeros(0, int), ShapeError, "at least one sample"),
    ],
)
def test_refusals(logits, y, error, message):
    with pytest.raises(error, match=message):
        fit_temperature(logits, y)
