"""The objective without biases: the same formulas, with the biases held where they are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from npsoftmax import FullBatchTrainer, SoftmaxRegression
from npsoftmax.objective import FullBatch, ThroughOrigin


def drawn(d, n, k, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, k, n)
    y[:k] = np.arange(k)
    return rng.standard_normal((d, n)) + 2, y


def fitted(problem, k):
    model = SoftmaxRegression(problem.summary.num_inputs, k, sigma=0, dtype=np.float64)
    return model, FullBatchTrainer(model, problem, tol=1e-9).fit()


def test_it_is_the_objective_with_a_gradient_of_0_for_the_biases():
    X, y = drawn(3, 20, 3)
    theta = np.random.default_rng(1).standard_normal((3, 4))
    here, there = ThroughOrigin(X, y, 0.1), FullBatch(X, y, 0.1)
    assert here.loss_and_grad(theta).loss == there.loss_and_grad(theta).loss
    grad = here.loss_and_grad(theta).grad
    np.testing.assert_array_equal(grad[:, :-1], there.loss_and_grad(theta).grad[:, :-1])
    assert not grad[:, -1].any()
    weights = theta * [1, 1, 1, 0]
    product = here.hessian_vector_product(theta, theta)
    np.testing.assert_array_equal(
        product, there.hessian_vector_product(theta, weights) * [1, 1, 1, 0]
    )


def test_its_products_are_differences_of_gradients():
    problem, step = ThroughOrigin(*drawn(2, 9, 2), 0.1), 1e-5
    V = np.array([[1.0, -2.0, 0.0], [3.0, 0.5, 0.0]])
    ahead, behind = (problem.loss_and_grad(sign * step * V).grad for sign in (1, -1))
    product = problem.hessian_vector_product(np.zeros((2, 3)), np.add(V, [0, 0, 7]))
    np.testing.assert_allclose(product, (ahead - behind) / (2 * step), rtol=0, atol=1e-8)


# With samples of every size: few or many, with blocks of one or all classes.
@pytest.mark.parametrize("shape", [(4, 60, 2), (4, 60, 3), (30, 20, 3), (300, 3000, 5)])
@pytest.mark.parametrize("l2", [1e-1, 1e-4])
def test_the_optimum_is_that_of_scipy(shape, l2):
    (d, n, k), (X, y) = shape, drawn(*shape)
    Y = np.eye(k)[:, y]

    def value_and_grad(flat):
        W = flat.reshape(k, d)
        Z = W @ X
        Z -= Z.max(axis=0)
        P = np.exp(Z) / np.exp(Z).sum(axis=0)
        loss = -np.log(P[y, np.arange(n)]).mean() + l2 * (W**2).sum() / 2
        return loss, ((P - Y) @ X.T / n + l2 * W).ravel()

    options = {"maxiter": 9000, "maxfun": 9999, "ftol": 1e-16, "gtol": 1e-11}
    expected = minimize(
        value_and_grad, np.zeros(k * d), jac=True, method="L-BFGS-B", options=options
    )
    model, optimum = fitted(ThroughOrigin(X, y, l2), k)
    assert optimum.converged and optimum.suboptimality < 1e-8
    assert abs(optimum.objective - expected.fun) < 1e-10
    assert not model.b.any()


@given(st.integers(0, 99), st.integers(1, 5), st.integers(2, 4), st.sampled_from([1e-3, 1.0]))
def test_the_bound_holds(seed, d, k, l2):
    problem = ThroughOrigin(*drawn(d, 30, k, seed), l2)
    _, optimum = fitted(problem, k)
    theta = np.random.default_rng(seed).standard_normal((k, d + 1)) * ([1] * d + [0])
    loss = problem.loss_and_grad(theta).loss
    assert loss - optimum.objective <= problem.suboptimality(theta) + 1e-12
    assert problem.suboptimality(theta) <= loss


def test_classes_on_both_sides_of_the_origin_have_no_optimum_without_a_penalty():
    X, y = np.array([[-1.0, -2.0, 1.0, 3.0]]), [0, 0, 1, 1]
    assert fitted(ThroughOrigin(X, y), 2)[1].reason == "separated"
    # Only a bias separates these; without one the weight is finite.
    assert fitted(ThroughOrigin(X + 4, y), 2)[1].converged
    assert fitted(FullBatch(X + 4, y), 2)[1].reason == "separated"


def test_a_part_has_no_biases_either():
    X, y = drawn(2, 30, 2)
    part = ThroughOrigin(X, y, 0.1).subset(np.arange(9))
    assert not part.loss_and_grad(np.ones((2, 3))).grad[:, -1].any()
