"""Newton's method finds the optimum of a plain one, whatever the units, offsets and penalty are."""

import numpy as np
import pytest
from newton_oracle import newton as plain

from npsoftmax import SoftmaxRegression, fit
from npsoftmax.objective import FullBatch, newton

N = 300
RNG = np.random.default_rng(0)
Z = RNG.standard_normal((N, 2))
ONE_HOT = np.eye(4)[RNG.integers(0, 4, N)]
TIMESTAMP = 1.7e9 + 1e7 * RNG.random((N, 1))
JULIAN_DATE = 2459000 + 30 * RNG.random((N, 1))
UTM = np.array([4e5, 5e6]) + 1e3 * RNG.standard_normal((N, 2))
PASCAL = 101325 + 500 * RNG.standard_normal((N, 1))

TABLES = {
    "a full one-hot and a timestamp": [ONE_HOT, Z, TIMESTAMP],
    "two full one-hots and coordinates": [ONE_HOT, np.eye(3)[RNG.integers(0, 3, N)], UTM],
    "a date in seconds and nanoseconds": [Z, TIMESTAMP, 1e9 * TIMESTAMP],
    "a Julian date": [JULIAN_DATE, Z],
    "a Julian date and its square": [JULIAN_DATE - 2459000, (JULIAN_DATE - 2459000) ** 2, Z],
    "UTM coordinates": [UTM],
    "Pascal and bar": [PASCAL, PASCAL / 1e5, Z],
    "Celsius and Fahrenheit": [20 + 5 * Z, 68 + 9 * Z[:, :1]],
    "the same in units from 1e-9 to 1e9": [Z, 1e9 * Z, 1e-9 * Z],
    "a large constant": [Z, np.full((N, 1), 7e8)],
    "shares that sum to 1": [ONE_HOT / 2 + 1 / 8, TIMESTAMP],
    "an intercept alone": [np.ones((N, 1))],
}


def table(name):
    """Return rows, and labels that no model can tell for sure."""
    X = np.hstack(TABLES[name])
    units = X.std(axis=0)
    varying = (X - X.mean(axis=0)) / np.where(units > 1e-12 * np.abs(X).max(axis=0), units, np.inf)
    rng = np.random.default_rng(1)
    logits = varying @ rng.standard_normal((X.shape[1], 3))
    return X, (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)


def fitted(X, y, k=3, dtype=np.float64, **settings):
    model = SoftmaxRegression(X.shape[1], k, dtype=dtype)
    return model, fit(model, X.T, y, **settings)


@pytest.mark.parametrize("l2", [0.0, 1e-11, 1e-6])
@pytest.mark.parametrize("name", TABLES)
def test_the_units_of_columns_do_not_matter(name, l2):
    X, y = table(name)
    model, optimum = fitted(X, y, l2=l2)
    assert optimum.converged and optimum.advice == ""
    np.testing.assert_allclose(model.probabilities(X.T).T, plain(X, y, l2)[1], rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", TABLES)
def test_where_lbfgs_begins_newton_finishes(name, monkeypatch):
    monkeypatch.setattr(newton, "MAX_WORK", 0)
    X, y = table(name)
    model, optimum = fitted(X, y)
    assert optimum.converged and optimum.advice == ""
    np.testing.assert_allclose(model.probabilities(X.T).T, plain(X, y, 0.0)[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("l2", [1e-13, 1e-11, 1e-9])
def test_tiny_penalties_give_the_optimums_weights(l2):
    X, y = table("a full one-hot and a timestamp")
    y = np.where(X[:, 0] == 1, 0, y)  # without a penalty there would be no optimum
    model, optimum = fitted(X, y, l2=l2)
    assert optimum.converged
    # The gradient of the penalty is 0 along the full one-hot: it could be moved to the bias.
    np.testing.assert_allclose(model.W[:, :4].sum(axis=1), 0, atol=1e-9)
    W, _ = plain(X, y, l2)
    if l2 < 1e-12:  # which the plain method cannot see
        W[:, :4] -= W[:, :4].mean(axis=1, keepdims=True)
    rounding = 1e-19 / l2  # of the gradient, over the curvature
    assert (np.abs(model.W - W) <= (1e-6 + rounding) * np.abs(W).max(axis=0)).all()


def test_weights_of_0_leave_samples_out():
    X, y = table("a Julian date")
    weights = np.arange(N) % 3.0
    model, _ = fitted(X, y, sample_weight=weights)
    rows = np.repeat(np.arange(N), weights.astype(int))
    again, _ = fitted(X[rows], y[rows])
    np.testing.assert_allclose(model.W, again.W, rtol=1e-9)


def test_classes_without_samples_die_out():
    X, y = table("UTM coordinates")
    model, optimum = fitted(X, y, k=5)
    assert optimum.converged and "no sample is of class 3, 4" in optimum.advice
    P = model.probabilities(X.T).T
    assert P[:, 3:].max() < 1e-7
    np.testing.assert_allclose(P[:, :3], plain(X, y, 0.0)[1], rtol=0, atol=1e-7)


def test_what_float32_cannot_hold_is_told():
    X, y = table("a Julian date")
    _, optimum = fitted(X, y, dtype=np.float32)
    assert optimum.reason == "rounding"
    assert optimum.advice.endswith(
        "use float64, subtract their means from the features, or scale them"
    )
    X -= X.mean(axis=0)
    model, optimum = fitted(X, y, dtype=np.float32)  # as advised
    assert optimum.converged and optimum.advice == ""
    P = model.probabilities(X.T.astype(np.float32)).T
    np.testing.assert_allclose(P, plain(X, y, 0.0)[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("l2", [0.0, 1e-3])
def test_the_estimate_of_the_decrement_is_newtons(l2):
    X, y = table("UTM coordinates")
    X = X / 1e3
    problem = FullBatch(X.T, y, l2)
    theta = np.random.default_rng(2).standard_normal((3, 3)) / 1e3
    grad = problem.loss_and_grad(theta).grad
    exact = problem.newton(theta).at(theta).decrement
    mean = theta[:, :-1].mean(axis=0)
    exact += l2 * 3 / 2 * mean @ mean  # Newton's method begins without a common part
    assert problem.decrement(theta, grad) == pytest.approx(exact, rel=1e-2)
    assert problem.decrement(theta, grad, 0.0) > 0


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("l2", [1e-9, 1e-3])
def test_for_fewer_samples_than_features_newton_finishes_among_the_samples(k, l2):
    rng = np.random.default_rng(3)
    X, y = rng.lognormal(5, 2, (3000, 60)), rng.integers(0, k, 60)
    model = SoftmaxRegression(3000, k, sigma=0.0, dtype=np.float64)
    assert fit(model, X, y, l2=l2, tol=1e-9, max_iterations=200).converged
    U, s, _ = np.linalg.svd((X - X.mean(axis=1, keepdims=True)).T, full_matrices=False)
    P = plain(U[:, :-1] * s[:-1], y, l2)[1]
    np.testing.assert_allclose(model.probabilities(X).T, P, rtol=0, atol=1e-8)


@pytest.mark.parametrize("l2", [1e-9, 1e-3])
def test_features_in_proportion_up_to_rounding_do_not_disturb_the_others(l2):
    rng = np.random.default_rng(0)
    X = np.where(rng.random((300, 40)) < 0.2, rng.random((300, 40)), 0).astype(np.float32)
    X[:, 20:] = X[:, :20] * np.float32(0.3) * (1 + 1e-7 * rng.random((300, 20)))
    X = np.column_stack([X, rng.random((300, 20)) / 4])
    y = (X[:, 0] + X[:, 3] - X[:, 5] + rng.logistic(size=300) / 4 > 0).astype(int)
    model = SoftmaxRegression(60, 2, sigma=0.0, dtype=np.float64)
    assert fit(model, X.T, y, l2=l2).converged
    np.testing.assert_allclose(model.probabilities(X.T).T, plain(X, y, l2)[1], rtol=0, atol=1e-6)
