"""A penalty for each feature: the same optimum as by other means, or none, and proofs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from newton_oracle import has_no_optimum, newton, probabilities
from scipy.optimize import minimize
from test_objective_separation import small_table

from npsoftmax import FullBatchTrainer, SoftmaxRegression, fit
from npsoftmax.errors import CorruptFileError, InputError, ShapeError
from npsoftmax.objective import FullBatch


def drawn(d, n, k, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, k, n)
    y[:k] = np.arange(k)
    return rng.standard_normal((d, n)), y


def smallest_objective(X, y, k, penalties):
    """Minimise by SciPy, in formulas that share nothing with the package."""
    rows, n = np.vstack([X, np.ones(X.shape[1])]), X.shape[1]
    weights, Y = np.append(penalties, 0), np.eye(k)[:, y]

    def value_and_grad(flat):
        theta = flat.reshape(k, -1)
        P = probabilities((theta @ rows).T).T
        loss = -np.log(P[y, np.arange(n)]).mean() + (weights * theta**2).sum() / 2
        return loss, ((P - Y) @ rows.T / n + weights * theta).ravel()

    options = {"maxiter": 20_000, "maxfun": 50_000, "ftol": 1e-16, "gtol": 1e-11, "maxcor": 40}
    start = np.zeros(k * len(rows))
    return minimize(value_and_grad, start, jac=True, method="L-BFGS-B", options=options).fun


def test_the_penalty_and_its_gradient_by_hand():
    X, y = np.zeros((2, 1)), [0]
    problem = FullBatch(X, y, l2=0.5, penalty_factor=[4, 0])
    theta = np.array([[3.0, 7.0, 0.0], [1.0, 7.0, 0.0]])
    value, grad, crossentropy, *_ = problem.loss_and_grad(theta)
    assert value - crossentropy == (3**2 + 1**2) * 0.5 * 4 / 2
    np.testing.assert_array_equal(grad[:, :2], [[6, 0], [2, 0]])
    np.testing.assert_array_equal(
        problem.hessian_vector_product(theta, theta)[:, :2], [[6, 0], [2, 0]]
    )


@given(st.integers(0, 99), st.integers(1, 6), st.integers(2, 4), st.integers(2, 30))
def test_a_factor_is_the_penalty_of_a_feature_in_another_unit(seed, d, k, n):
    """With X_i times r and W_i divided by r, a factor f is the same as 1 where r is its root."""
    X, y = drawn(d, max(n, k), k, seed)
    rng = np.random.default_rng(seed)
    roots = 2.0 ** rng.integers(-2, 3, d)
    theta = rng.standard_normal((k, d + 1))
    scaled = theta * np.append(roots, 1)
    one = FullBatch(X, y, 0.1, penalty_factor=roots**2)
    other = FullBatch(X / roots[:, None], y, 0.1)
    assert one.loss_and_grad(theta).loss == pytest.approx(other.loss_and_grad(scaled).loss)
    assert one.suboptimality(theta) == pytest.approx(other.suboptimality(scaled))
    np.testing.assert_allclose(
        one.hessian_vector_product(theta, theta),
        other.hessian_vector_product(scaled, scaled) * np.append(roots, 1),
        rtol=1e-10,
        atol=1e-12,
    )


# Newton's method, L-BFGS, fewer samples than features, collinear features, blocks for two classes.
SHAPES = [(4, 60, 3), (6, 80, 2), (30, 20, 3), (60, 300, 5), (80, 500, 30), (700, 100, 2)]


@pytest.mark.parametrize("l2", [1e-1, 1e-4])
@pytest.mark.parametrize("free", [0, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_optimum_is_that_of_scipy_and_the_bound_holds(shape, free, l2):
    (d, _, k), (X, y) = shape, drawn(*shape)
    X[d - 1] = X[0] - 2 * X[d - 2]  # collinear, and of different penalties
    factors = np.random.default_rng(1).uniform(0.1, 9, d)
    factors[:free] = 0
    model = SoftmaxRegression(d, k, dtype=np.float64)
    optimum = fit(model, X, y, l2=l2, penalty_factor=factors, tol=1e-9)
    gap = optimum.objective - smallest_objective(X, y, k, l2 * factors)
    assert optimum.converged and abs(gap) < 1e-11
    problem = FullBatch(X, y, l2, penalty_factor=factors)
    if free:
        assert optimum.suboptimality == pytest.approx(optimum.objective)
    else:
        assert optimum.suboptimality < 1e-8
        theta = np.random.default_rng(2).normal(scale=0.01, size=model.theta.shape)
        loss = problem.loss_and_grad(theta).loss
        assert loss - optimum.objective <= problem.suboptimality(theta) <= loss


def test_features_without_a_penalty_may_be_equal():
    """As the columns of a one-hot code, or of a table that has a column twice."""
    X, y = drawn(4, 60, 3)
    X[1] = X[2] = X[0]
    for factors in ([0, 0, 0, 1], [1, 0, 0, 1], [0, 1, 2, 1], [1, 2, 3, 0]):
        model = SoftmaxRegression(4, 3, dtype=np.float64)
        optimum = fit(model, X, y, l2=0.1, penalty_factor=factors)
        expected = smallest_objective(X, y, 3, 0.1 * np.array(factors))
        assert optimum.converged and abs(optimum.objective - expected) < 1e-11
        assert np.abs(model.theta).max() < 100


def test_a_one_hot_code_without_a_penalty_stands_beside_a_feature_with_one():
    """The codes sum to 1, and the rounding errors of that sum are no weights of the feature."""
    rng = np.random.default_rng(0)
    kinds, y = rng.integers(0, 3, 90), rng.integers(0, 3, 90)
    X = np.vstack([np.eye(3)[:, kinds], 100 * (kinds + rng.standard_normal(90))])
    model = SoftmaxRegression(4, 3, dtype=np.float64)
    optimum = fit(model, X, y, l2=1.0, penalty_factor=[0, 0, 0, 1e4])
    assert optimum.converged and np.abs(model.theta).max() < 10
    expected = smallest_objective(X / [[1], [1], [1], [100]], y, 3, np.array([0, 0, 0, 1.0]))
    assert abs(optimum.objective - expected) < 1e-9


@pytest.mark.parametrize("l2", [1e-9, 1e-13])
def test_a_feature_with_a_tiny_penalty_does_not_separate(l2):
    X, y = drawn(2, 60, 2)
    X[1] = np.where(y == 1, 1, -1) * (1 + np.abs(X[1]))
    model = SoftmaxRegression(2, 2, dtype=np.float64)
    assert fit(model, X, y, l2=l2, penalty_factor=[0, 1]).reason == "converged"


def check_tables(seeds):
    """An optimum exists if the features without a penalty, by themselves, separate no classes."""
    outcomes = set()
    for seed in seeds:
        X, y = small_table(seed)
        rng = np.random.default_rng(seed)
        is_free = rng.random(X.shape[1]) < 0.6
        is_free[0] = True
        factors = np.where(is_free, 0, rng.uniform(0.1, 10, X.shape[1]) * np.abs(X).max(axis=0))
        model = SoftmaxRegression(X.shape[1], y.max() + 1, dtype=np.float64)
        optimum = fit(model, X.T, y, l2=0.01, penalty_factor=factors)
        expected = "separated" if has_no_optimum(X[:, is_free], y) else "converged"
        assert optimum.reason == expected, seed
        if expected == "converged":
            _, P = newton(X, y, 0.01 * np.append(factors, 0))
            np.testing.assert_allclose(model(X.T).T, P, atol=1e-6, err_msg=str(seed))
        outcomes.add(expected)
    assert outcomes == {"separated", "converged"}


def test_small_tables_are_told_apart_as_by_linear_programming():
    check_tables(range(60))


@pytest.mark.slow
def test_many_small_tables_are_told_apart_as_by_linear_programming():
    check_tables(range(60, 1500))


@pytest.mark.parametrize("d", [5, 300])  # Newton's method, and L-BFGS alone
def test_only_features_without_a_penalty_separate(d):
    X, _ = drawn(d, 4000, 2)
    y = (X[0] + X[1] > 0).astype(int)
    X[:2] += np.sign(X[0] + X[1]) / 10
    model = SoftmaxRegression(d, 2, dtype=np.float64)
    free_both, free_one = np.ones(d), np.ones(d)
    free_both[:2] = free_one[0] = 0
    optimum = fit(model, X, y, l2=0.01, penalty_factor=free_both)
    assert optimum.reason == "separated"
    assert "and some features have no penalty, so the optimum is at infinity" in optimum.advice
    assert optimum.advice.endswith("give them a penalty_factor > 0")
    assert fit(model, X, y, l2=0.01, penalty_factor=free_one).converged


def test_factors_that_are_all_equal_change_the_penalty_alone():
    X, y = drawn(3, 50, 2)
    theta = np.ones((2, 4))
    for factor in (0, 1, 4):
        one = FullBatch(X, y, 0.5, penalty_factor=[factor] * 3)
        other = FullBatch(X, y, 0.5 * factor)
        assert one.loss_and_grad(theta).loss == other.loss_and_grad(theta).loss
        assert one.suits_span(2) == other.suits_span(2) and one.suits_newton(2)


def test_a_subset_has_the_same_factors():
    X, y = drawn(3, 50, 2)
    problem = FullBatch(X, y, 0.5, penalty_factor=[0, 1, 2]).subset(np.arange(9))
    assert problem.penalty.tolist() == [0, 0.5, 1]


def test_a_checkpoint_belongs_to_its_factors(tmp_path):
    X, y = drawn(3, 50, 2)

    def trainer(**penalty):
        model = SoftmaxRegression(3, 2, dtype=np.float64)
        return FullBatchTrainer(model, FullBatch(X, y, 0.5, **penalty))

    for number, penalty in enumerate([{}, {"penalty_factor": [1, 2, 0]}]):
        path = tmp_path / f"{number}.npz"
        first = trainer(**penalty)
        first.fit(2)
        first.save_checkpoint(path)
        trainer(**penalty).resume(path)
        with pytest.raises((InputError, CorruptFileError), match=r"penalties|l2"):
            trainer(penalty_factor=[2, 1, 0]).resume(path)
    trainer(penalty_factor=np.ones(3)).resume(tmp_path / "0.npz")


@pytest.mark.parametrize(
    ("factors", "error", "message"),
    [
        ([1, 2], ShapeError, r"for each of 3 features, got shape \(2,\)"),
        (2, ShapeError, r"got shape \(\)"),
        ([1, -1, 1], InputError, "got -1.0 for feature 1; 0 leaves"),
        ([1, np.nan, 1], InputError, "got nan for feature 1"),
        ([1, 1, np.inf], InputError, "got inf for feature 2"),
        (["a", "b", "c"], InputError, "penalty_factor: expected"),
    ],
)
def test_refusals(factors, error, message):
    with pytest.raises(error, match=message):
        fit(SoftmaxRegression(3, 2), *drawn(3, 50, 2), l2=0.1, penalty_factor=factors)
