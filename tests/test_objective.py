"""The objective by its definition, its buffers, and what it accepts."""

import numpy as np
import pytest

from npsoftmax.errors import InputError, LabelError, ShapeError
from npsoftmax.functional import onehotbatch
from npsoftmax.objective import Workspace, hessian_vector_product, loss_and_grad, sample_losses

K, D, N = 4, 3, 7


@pytest.fixture
def problem(rng):
    theta = np.asfortranarray(rng.standard_normal((K, D + 1)))
    X = rng.integers(0, 256, (N, D), dtype=np.uint8).T
    return theta, X, rng.integers(0, K, N)


def test_value_by_the_definition(problem):
    theta, X, y = problem
    W, b = theta[:, :-1], theta[:, -1:]
    Z = W @ (X / 255) + b
    p = np.exp(Z) / np.exp(Z).sum(axis=0)
    crossentropy = -np.log(p[y, np.arange(N)]).mean()
    before = theta.copy()
    result = loss_and_grad(theta, X, y.tolist(), l2=0.2, scale=1 / 255)
    np.testing.assert_array_equal(theta, before)
    assert result.crossentropy == pytest.approx(crossentropy, rel=1e-14)
    assert result.loss == pytest.approx(crossentropy + 0.1 * (W**2).sum(), rel=1e-14)
    dZ = (p - onehotbatch(y, range(K))) / N
    np.testing.assert_allclose(result.grad[:, :-1], dZ @ (X / 255).T + 0.2 * W, rtol=1e-12)
    np.testing.assert_allclose(result.grad[:, -1], dZ.sum(axis=1), rtol=1e-12)
    np.testing.assert_array_equal(result.predicted, Z.argmax(axis=0))
    assert result.grad.flags.f_contiguous


def test_a_workspace_changes_nothing_and_is_reused(problem):
    theta, X, y = problem
    workspace = Workspace()
    fresh = loss_and_grad(theta, X, y, 0.1, 0.5)
    for columns in (N, 3, N):
        result = loss_and_grad(theta, X[:, :columns], y[:columns], 0.1, 0.5, workspace)
    np.testing.assert_array_equal(result.grad, fresh.grad)
    np.testing.assert_array_equal(result.predicted, fresh.predicted)
    again = loss_and_grad(theta, X, y, 0.1, 0.5, workspace)
    assert np.shares_memory(again.grad, result.grad)


def test_targets_of_every_kind_agree(problem):
    theta, X, y = problem
    one_hot = onehotbatch(y, range(K)).astype(float)
    by_label, by_column = loss_and_grad(theta, X, y), loss_and_grad(theta, X, one_hot)
    assert by_label.loss == by_column.loss
    np.testing.assert_array_equal(by_label.grad, by_column.grad)


def test_sample_losses_average_to_the_loss(problem):
    theta, X, y = problem
    losses, predicted = sample_losses(theta, X, y, 1 / 255)
    result = loss_and_grad(theta, X, y, scale=1 / 255)
    assert losses.mean() == pytest.approx(result.crossentropy, rel=1e-14)
    np.testing.assert_array_equal(predicted, result.predicted)


def test_float32_stays_float32(problem):
    theta, X, y = problem
    result = loss_and_grad(theta.astype(np.float32), X, y)
    assert result.grad.dtype == sample_losses(theta.astype(np.float32), X, y)[0].dtype == np.float32


def test_refusals(problem):
    theta, X, y = problem
    with pytest.raises(ShapeError, match=r"theta and X: .* \(4, 4\) and \(2, 7\)"):
        loss_and_grad(theta, X[:-1], y)
    with pytest.raises(ShapeError, match="at least one class"):
        sample_losses(theta[:0], X[:, :0], y[:0])
    for scale in (0.0, 1e-30, 1e30, np.inf, np.nan):
        with pytest.raises(InputError, match="scale"):
            loss_and_grad(theta, X, y, scale=scale)
    with pytest.raises(InputError, match="float16"):
        loss_and_grad(theta.astype(np.float16), X, y)
    with pytest.raises(InputError, match="complex"):
        loss_and_grad(theta, X + 1j, y)
    with pytest.raises(LabelError, match=r"0\.\.3"):
        loss_and_grad(theta, X, y + 4)
    with pytest.raises(ShapeError):
        loss_and_grad(theta, X, y[:-1])


def test_hessian_by_hand():
    # One feature, x = 2, P = (1/4, 3/4): diag(P) - P P^T = 3/16 [1 -1; -1 1], times [4 2; 2 1].
    theta = np.array([[0.0, 0.0], [0.0, np.log(3.0)]])
    of_one_class = 3 / 16 * np.array([[4, 2], [2, 1]]) + 0.5 * np.diag([1, 0])
    across = -3 / 16 * np.array([[4, 2], [2, 1]])
    expected = np.block([[of_one_class, across], [across, of_one_class]])
    for V, column in zip(np.eye(4).reshape(4, 2, 2), expected, strict=True):
        product = hessian_vector_product(theta, V, np.array([[2.0]]), l2=0.5)
        np.testing.assert_allclose(product.ravel(), column, atol=1e-15)


def test_hessian_vector_product_takes_what_the_loss_takes(problem, rng):
    theta, X, _ = problem
    V = rng.standard_normal(theta.shape)
    before = theta.copy(), V.copy(), X.copy()
    product = hessian_vector_product(theta, V, X, 0.1, 1 / 255)
    np.testing.assert_array_equal(
        product, hessian_vector_product(theta, V, X.astype(float), 0.1, 1 / 255)
    )
    for array, copy in zip((theta, V, X), before, strict=True):
        np.testing.assert_array_equal(array, copy)
    single = hessian_vector_product(theta.astype(np.float32), V, X, 0.1, 1 / 255)
    assert product.flags.f_contiguous and single.flags.f_contiguous
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, product, rtol=0, atol=1e-5 * abs(product).max())


@pytest.mark.parametrize(
    ("theta", "V", "X", "message"),
    [
        ((K, D + 1), (K, D), (D, N), r"expected .* \(4, 4\), got \(4, 3\)"),
        ((K, D + 1), (K, D + 1), (D,), r"theta and X: .* \(4, 4\) and \(3,\)"),
        ((K, D + 1), (K, D + 1), (D, 0), r"at least one sample, got shape \(3, 0\)"),
        ((K,), (K,), (D, N), r"theta and X: .* \(4,\) and \(3, 7\)"),
    ],
)
def test_hessian_vector_product_refusals(theta, V, X, message):
    with pytest.raises(ShapeError, match=message):
        hessian_vector_product(np.zeros(theta), np.zeros(V), np.zeros(X))
