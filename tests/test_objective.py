"""The objective by its definition, its buffers, and what it accepts."""

import numpy as np
import pytest

from npsoftmax.errors import LabelError, ShapeError
from npsoftmax.functional import onehotbatch
from npsoftmax.objective import Scratch, loss_and_grad, sample_losses

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
    result = loss_and_grad(theta, X, y, l2=0.2, scale=1 / 255)
    assert result.crossentropy == pytest.approx(crossentropy, rel=1e-14)
    assert result.loss == pytest.approx(crossentropy + 0.1 * (W**2).sum(), rel=1e-14)
    dZ = (p - onehotbatch(y, range(K))) / N
    np.testing.assert_allclose(result.grad[:, :-1], dZ @ (X / 255).T + 0.2 * W, rtol=1e-12)
    np.testing.assert_allclose(result.grad[:, -1], dZ.sum(axis=1), rtol=1e-12)
    np.testing.assert_allclose(result.logits, Z, rtol=1e-13)
    assert result.grad.flags.f_contiguous and result.logits.flags.f_contiguous


def test_penalty_never_touches_the_bias(problem):
    theta, X, y = problem
    with_penalty = loss_and_grad(theta, X, y, l2=5.0).grad
    without = loss_and_grad(theta, X, y).grad
    np.testing.assert_array_equal(with_penalty[:, -1], without[:, -1])
    theta[:, :-1] = 0
    theta[:, -1] = 100
    result = loss_and_grad(theta, X, y, l2=5.0)
    assert result.loss == result.crossentropy


def test_scratch_changes_nothing_and_is_reused(problem):
    theta, X, y = problem
    scratch = Scratch()
    fresh = loss_and_grad(theta, X, y, 0.1, 0.5)
    for columns in (N, 3, N):
        result = loss_and_grad(theta, X[:, :columns], y[:columns], 0.1, 0.5, scratch)
    np.testing.assert_array_equal(result.grad, fresh.grad)
    np.testing.assert_array_equal(result.logits, fresh.logits)
    again = loss_and_grad(theta, X, y, 0.1, 0.5, scratch)
    assert np.shares_memory(again.grad, result.grad)


def test_inputs_stay_as_they_are(problem):
    theta, X, y = problem
    before = theta.copy()
    loss_and_grad(theta, X.astype(float), y, 0.1)
    np.testing.assert_array_equal(theta, before)


def test_targets_of_every_kind_agree(problem):
    theta, X, y = problem
    one_hot = onehotbatch(y, range(K)).astype(float)
    by_label, by_column = loss_and_grad(theta, X, y), loss_and_grad(theta, X, one_hot)
    assert by_label.loss == by_column.loss
    np.testing.assert_array_equal(by_label.grad, by_column.grad)


def test_sample_losses_average_to_the_loss(problem):
    theta, X, y = problem
    losses, logits = sample_losses(theta, X, y, 1 / 255)
    result = loss_and_grad(theta, X, y, scale=1 / 255)
    assert losses.mean() == pytest.approx(result.crossentropy, rel=1e-14)
    np.testing.assert_allclose(logits, result.logits, rtol=1e-13)


def test_float32_stays_float32(problem):
    theta, X, y = problem
    result = loss_and_grad(theta.astype(np.float32), X, y)
    assert result.grad.dtype == result.logits.dtype == np.float32


def test_refusals(problem):
    theta, X, y = problem
    with pytest.raises(ShapeError, match="affine"):
        loss_and_grad(theta, X[:-1], y)
    with pytest.raises(LabelError, match=r"0\.\.3"):
        loss_and_grad(theta, X, y + 4)
    with pytest.raises(ShapeError):
        loss_and_grad(theta, X, y[:-1])
