"""Where no optimum exists this is proved, named, and never claimed where there is one."""

import numpy as np
import pytest
from newton_oracle import has_no_optimum

from npsoftmax import SoftmaxRegression, fit
from npsoftmax.objective import FullBatch, newton


def fitted(X, y, **settings):
    model = SoftmaxRegression(X.shape[1], y.max() + 1, dtype=np.float64)
    return fit(model, X.T, y, **settings)


def small_table(seed):
    """Draw a few rows of few values; half of such tables have no optimum."""
    rng = np.random.default_rng(seed)
    n, d, k = rng.integers(6, 50), rng.integers(1, 5), rng.integers(2, 5)
    kinds = [
        rng.integers(0, 2, (n, d)),
        rng.integers(0, 4, (n, d)),
        rng.poisson(0.3, (n, d)),
        rng.standard_normal((n, d)),
        np.hstack([rng.standard_normal((n, d)), np.eye(4)[rng.integers(0, 4, n)]]),
    ]
    X = kinds[seed % 5].astype(float)
    logits = X @ rng.standard_normal((X.shape[1], k)) * rng.choice([0.3, 1, 3])
    y = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    y[:k] = np.arange(k)
    return X * 10.0 ** rng.integers(-6, 7, X.shape[1]), y


def check(seeds):
    outcomes = set()
    for seed in seeds:
        X, y = small_table(seed)
        reason, expected = fitted(X, y).reason, "converged"
        if has_no_optimum(X, y):
            expected = "separated"
        assert reason == expected, seed
        outcomes.add(reason)
    assert {"separated", "converged"} <= outcomes


def test_small_tables_are_told_apart_as_by_linear_programming():
    check(range(100))


@pytest.mark.parametrize(
    "seeds",
    [
        pytest.param(range(100, 900), marks=pytest.mark.exhaustive),
        pytest.param(range(900, 3000), marks=pytest.mark.slow),
    ],
)
def test_many_small_tables_are_told_apart_as_by_linear_programming(seeds):
    check(seeds)


# With features of 1e4 and more, the first weights may predict a group of samples with such
# certainty that the steps along a separating direction are rounding errors.
@pytest.mark.parametrize("seed", [587, 1937, 2687, 2974])
@pytest.mark.parametrize("single", [True, False])
def test_a_separation_is_found_where_probabilities_are_0_at_the_start(seed, single, monkeypatch):
    if not single:
        monkeypatch.setattr(newton, "separating_features", lambda *_: None)
    assert fitted(*small_table(seed)).reason == "separated"


def test_an_optimum_with_tiny_probabilities_is_no_separation():
    assert fitted(*small_table(2969)).reason == "converged"


def overlapping(n=120, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 2))
    return X, (X @ rng.standard_normal((2, 3)) + rng.gumbel(size=(n, 3))).argmax(axis=1)


def words(X, y):
    """Return counts of three words; the last never occurs in class 1, nor the first in 0 and 2."""
    counts = np.random.default_rng(0).poisson(1.0, (len(y), 3)).astype(float)
    counts[y != 1, 0] = 0
    counts[y == 1, 2] = 0
    return np.hstack([X, counts])


def one_hot(X, y):
    """Return a column for all levels but the first, which class 2 has alone."""
    level = np.where(y == 2, 0, 1 + np.arange(len(y)) % 2)
    return np.hstack([X, np.eye(3)[level][:, 1:]])


def difference(X, y):
    """Return columns of which neither separates class 1, but their difference does."""
    gap = np.where(y == 1, 1, -1) * (0.1 + np.abs(X[:, 0]))
    return np.column_stack([X[:, 1], X[:, 1] + gap])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (words, "features 2, 4 separate class 1 from 0, 2 and l2 is 0"),
        (one_hot, "features 2, 3 separate class 2 from 0, 1 and l2 is 0"),
        (difference, "features 0, 1 separate class 1 from 0, 2 and l2 is 0"),
    ],
)
def test_classes_and_features_are_named(make, message):
    X, y = overlapping()
    optimum = fitted(make(X, y), y)
    assert optimum.reason == "separated" and not optimum.converged
    assert optimum.advice.startswith(message) and optimum.advice.endswith("set l2 > 0")
    assert fitted(make(X, y), y, l2=1e-9).converged  # as advised


def test_single_features_are_found_where_newtons_method_takes_too_long(monkeypatch):
    monkeypatch.setattr(newton, "MAX_ROWS", 0)
    X, y = overlapping()
    optimum = fitted(words(X, y), y, tol=1e-6)
    assert optimum.reason == "separated" and optimum.features == (2, 4)
    assert fitted(X, y).converged


@pytest.mark.parametrize("outlier", [1e6, 1e9, 1e13, 1e30])
def test_an_outlier_is_no_separation(outlier):
    X, y = overlapping()
    X[0, 0] = outlier
    assert fitted(X, y).reason != "separated"


def test_separating_features_need_one_sample_that_differs():
    X, y = np.array([[1.0, 0, 0, 3], [0, 0, 1, 1], [7, 7, 7, 7]]), np.array([0, 1, 1, 2])
    found = FullBatch(X, y).separating_features(3)
    assert found.groups == ((1,), (0, 2)) and found.features == (0,)
    assert FullBatch(X[2:], y).separating_features(3) is None
