"""The objective in blocks of samples and of classes, in arrays that are allocated once."""

import copy
import pickle
import tracemalloc
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npsoftmax import _products
from npsoftmax.functional import (
    affine,
    affine_grad,
    logitcrossentropy,
    logitcrossentropy_grad,
    logsoftmax,
    onehotbatch,
    softmax,
)
from npsoftmax.objective import (
    Workspace,
    hessian_vector_product,
    hot_loop,
    loss_and_grad,
    sample_losses,
)
from npsoftmax.objective.batch import unchecked_loss_and_grad


def problem(k, d, n, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    theta = np.asfortranarray(rng.standard_normal((k, d + 1)).astype(dtype))
    return theta, rng.integers(0, 256, (n, d), dtype=np.uint8).T, rng.integers(0, k, n)


def by_definition(theta, X, y, scale):
    """Return losses, gradient and predictions by their formulas, on everything at once."""
    Z = theta[:, :-1] @ (X * scale) + theta[:, -1:]
    losses = -logsoftmax(Z)[y, np.arange(y.size)]
    dZ = (softmax(Z) - onehotbatch(y, range(theta.shape[0]))) / y.size
    return losses, np.hstack([dZ @ (X * scale).T, dZ.sum(axis=1)[:, None]]), Z.argmax(axis=0)


@pytest.fixture(params=["samples", "classes", "both", "pieces", "pieces and samples"])
def small_blocks(request, monkeypatch):
    """Cut the computation into blocks of 3 samples or 2 classes, or both, or into small pieces."""
    pieces = {
        "has_small_products": lambda: True,
        "MIN_COLUMNS": 2,
        "MAX_WORK": 105,
    }
    sizes = {
        "pieces": pieces,
        "pieces and samples": {**pieces, "MIN_BLOCK_SAMPLES": 4, "BLOCK_BYTES": 1},
        "samples": {"MIN_BLOCK_SAMPLES": 3, "BLOCK_BYTES": 1},
        "classes": {"MIN_BLOCK_SAMPLES": 20, "MAX_BLOCK_LOGITS": 40},
        "both": {"MIN_BLOCK_SAMPLES": 3, "BLOCK_BYTES": 1, "MAX_BLOCK_LOGITS": 6},
    }
    for name, value in sizes[request.param].items():
        monkeypatch.setattr(_products if hasattr(_products, name) else hot_loop, name, value)


@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 11), st.integers(0, 99))
def test_one_block_is_the_definition(k, d, n, seed):
    check_against_definition(k, d, n, seed)


@pytest.mark.parametrize("n", [1, 3, 4, 11, 12])
@pytest.mark.parametrize("k", [1, 2, 7, 600])
def test_blocks_change_nothing(small_blocks, k, n):
    check_against_definition(k, 4, n, seed=k + n)


def check_against_definition(k, d, n, seed):
    theta, X, y = problem(k, d, n, seed)
    losses, grad, predicted = by_definition(theta, X, y, 1 / 255)
    workspace = Workspace()
    for _ in range(2):
        result = loss_and_grad(theta, X, y, scale=1 / 255, workspace=workspace)
        assert result.crossentropy == pytest.approx(losses.mean(), rel=1e-12, abs=1e-15)
        np.testing.assert_allclose(result.grad, grad, rtol=1e-11, atol=1e-15)
        np.testing.assert_array_equal(result.predicted, predicted)
    found, predicted_again = sample_losses(theta, X, y, 1 / 255)
    np.testing.assert_allclose(found, losses, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(predicted_again, predicted)


def test_a_negative_scale_and_whole_numbers_as_samples(small_blocks):
    theta, X, y = problem(5, 2, 4)
    _, grad, _ = by_definition(theta, X.astype(int), y, -0.5)
    result = loss_and_grad(theta, X.astype(int), y, scale=-0.5)
    np.testing.assert_allclose(result.grad, grad, rtol=1e-12, atol=1e-15)


def test_one_workspace_for_samples_of_several_dtypes_and_scales():
    theta, X, y = problem(5, 3, 40)
    workspace = Workspace()
    for samples, scale in [(X / 1.0, 1.0), (X, 1.0), (X, 0.5), (X / 1.0, 0.5), (X, 1 / 255)]:
        _, grad, _ = by_definition(theta, samples, y, scale)
        result = loss_and_grad(theta, samples, y, scale=scale, workspace=workspace)
        np.testing.assert_allclose(result.grad, grad, rtol=1e-11, atol=1e-14)


def test_of_equal_logits_the_first_class_is_predicted(small_blocks):
    theta = np.zeros((7, 2))
    theta[3:, 1] = 1.0
    assert loss_and_grad(theta, np.ones((1, 5)), np.zeros(5, int)).predicted.tolist() == [3] * 5


@pytest.mark.parametrize("k", [3, 600])
def test_a_confident_sample_keeps_its_loss_and_gradient_in_float32(small_blocks, k):
    theta = np.zeros((k, 2), np.float32)
    theta[1, 1] = 40.0
    result = loss_and_grad(theta, np.ones((1, 1)), np.array([1]))
    others = np.exp(-40.0)  # the probability of each other class
    assert result.loss == pytest.approx((k - 1) * others, rel=1e-5, abs=0)
    assert result.grad[0, 1] == pytest.approx(others, rel=1e-5, abs=0)
    assert result.grad[1, 1] == pytest.approx(-(k - 1) * others, rel=1e-5, abs=0)


def test_large_logits_neither_overflow_nor_vanish(small_blocks):
    theta = np.array([[0.0, 1e4], [0.0, -1e4], [0.0, 0.0], [0.0, 1e4]])
    result = loss_and_grad(theta, np.ones((1, 2)), np.array([1, 2]))
    assert result.loss == pytest.approx(15000 + np.log(2))
    np.testing.assert_allclose(result.grad[:, 1], [0.5, -0.5, -0.5, 0.5])


def test_two_classes_whose_difference_is_not_finite():
    theta = np.array([[1.0, np.inf], [0.0, np.inf]])
    X, y = np.array([[1.0, 0.0]]), np.array([0, 1])
    assert loss_and_grad(theta, X, y).loss == pytest.approx(np.log(2))
    theta = np.finfo(float).max * np.array([[0.9, 0.0], [-0.9, 0.0]])
    assert loss_and_grad(theta, X, y).loss == pytest.approx(np.log(2) / 2)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_parameters_that_are_not_finite_show_in_the_loss(small_blocks, bad):
    theta, X, y = problem(6, 2, 5)
    theta[1, 0] = bad
    assert not np.isfinite(loss_and_grad(theta, X, y).loss)


@pytest.mark.parametrize("label", range(6))
@pytest.mark.parametrize(
    "infinite",
    [
        {0: -np.inf},
        dict.fromkeys(range(4), -np.inf),
        dict.fromkeys(range(6), -np.inf),
        {4: np.inf},
        {1: np.inf, 4: np.inf},
        {5: np.nan},
    ],
)
def test_infinite_biases_count_as_in_functional(small_blocks, infinite, label):
    theta, X, y = problem(6, 2, 5)
    y[:] = label
    theta[list(infinite), -1] = list(infinite.values())
    losses, _ = sample_losses(theta, X, y)
    result = loss_and_grad(theta, X, y)
    np.testing.assert_allclose(losses, logitcrossentropy(affine(theta, X), y, agg="none"))
    with np.errstate(all="ignore"):
        expected = affine_grad(logitcrossentropy_grad(affine(theta, X), y), X.astype(float))
    np.testing.assert_allclose(result.grad, expected, rtol=1e-11, atol=1e-14)


def peak_memory_of_a_later_step(theta, X, y):
    """Return the peak memory that a step after the first allocates."""
    workspace = Workspace()
    first = unchecked_loss_and_grad(theta, X, y, 0.0, 1 / 255, workspace)
    tracemalloc.start()
    try:
        again = unchecked_loss_and_grad(theta, X, y, 0.0, 1 / 255, workspace)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert np.shares_memory(first.grad, again.grad)
    return peak


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [100, 520])
def test_a_later_step_allocates_nothing_of_the_size_of_the_batch(k, dtype):
    theta, X, y = problem(k, 50, 1000, dtype=dtype)
    # NumPy itself buffers at most twice 8192 numbers in one operation.
    buffers = 2 * 8192 * theta.itemsize
    assert peak_memory_of_a_later_step(theta, X, y) < buffers + X.shape[1] * 4


@pytest.mark.parametrize("samples", [128, 133, 300])
def test_memory_grows_with_the_block_not_with_the_classes(samples):
    def peak_of_two_steps(k):
        theta, X, y = problem(k, 30, samples, dtype=np.float32)
        tracemalloc.start()
        try:
            workspace = Workspace()
            unchecked_loss_and_grad(theta, X, y, 0.0, 1 / 255, workspace)
            unchecked_loss_and_grad(theta, X, y, 0.0, 1 / 255, workspace)
            return tracemalloc.get_traced_memory()[1] - theta.nbytes
        finally:
            tracemalloc.stop()

    # The gradient, which has the size of theta, is subtracted.
    assert peak_of_two_steps(60_000) < 1.1 * peak_of_two_steps(6_000)


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_gradient_has_the_memory_order_of_the_parameters(order):
    theta, X, y = problem(10, 5, 300, dtype=np.float32)
    theta = np.array(theta, order=order)
    result = unchecked_loss_and_grad(theta, X, y, 0.1, 1 / 255, Workspace())
    assert result.grad.strides == theta.strides


def test_a_workspace_keeps_few_sizes():
    theta, _, _ = problem(3, 4, 1)
    workspace = Workspace()
    blocks = [weakref.ref(workspace.block(theta, slice(0, stop))) for stop in range(1, 100)]
    assert 1 <= sum(block() is not None for block in blocks) <= 16
    assert workspace.block(theta, slice(0, 99)) is blocks[-1]()


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda workspace: pickle.loads(pickle.dumps(workspace))],
    ids=["deepcopy", "pickle"],
)
def test_a_copied_workspace_computes_the_same(copied):
    theta, X, y = problem(10, 5, 300)
    workspace = Workspace()
    expected = unchecked_loss_and_grad(theta, X, y, 0.1, 1 / 255, workspace)
    result = unchecked_loss_and_grad(theta, X, y, 0.1, 1 / 255, copied(workspace))
    np.testing.assert_array_equal(result.grad, expected.grad)
    assert not np.shares_memory(result.grad, expected.grad)


@pytest.mark.parametrize(
    ("k", "d", "dtype", "samples"),
    [
        (10, 784, np.float32, 1024),
        (10, 784, np.float64, 512),
        (10, 1, np.float32, 4096),  # few features: bounded
        (10, 100_000, np.float32, 128),  # many: not a handful at a time
        (1000, 784, np.float32, 524),  # fewer samples, so that all their logits are held
        (100_000, 784, np.float32, 128),  # too many classes for that
    ],
)
def test_samples_per_block(k, d, dtype, samples):
    theta = np.broadcast_to(np.zeros(1, dtype), (k, d + 1))
    assert hot_loop.samples_per_block(theta) == samples


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pieces_add_up_to_the_whole(monkeypatch, dtype, order):
    theta, X, y = problem(10, 784, 1100, dtype=dtype)
    theta = np.array(theta / 100, order=order)
    whole = loss_and_grad(theta, X, y, 1e-4, 1 / 255)
    direction = hessian_vector_product(theta, theta, X, 1e-4, 1 / 255)
    monkeypatch.setattr(_products, "has_small_products", lambda: True)
    pieces = loss_and_grad(theta, X, y, 1e-4, 1 / 255)
    tolerance = {"rtol": 1e3 * np.finfo(dtype).eps, "atol": 10 * np.finfo(dtype).eps}
    np.testing.assert_allclose(pieces.loss, whole.loss, **tolerance)
    np.testing.assert_allclose(pieces.grad, whole.grad, **tolerance)
    np.testing.assert_array_equal(pieces.predicted, whole.predicted)
    found = hessian_vector_product(theta, theta, X, 1e-4, 1 / 255)
    np.testing.assert_allclose(found, direction, **tolerance)


def test_a_tie_counts_as_a_hit_for_the_first_class_only():
    X = np.zeros((1, 4))
    assert loss_and_grad(np.zeros((2, 2)), X, np.array([0, 1, 1, 1])).accuracy == 0.25


def test_float16_becomes_the_same_float32_as_by_numpy():
    X = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(256, 256)
    X = np.where(np.isfinite(X), X, 0).astype(np.float16, order="F")[::2]
    found, expected = Workspace().floats(X, np.dtype(np.float32)), X.astype(np.float32)
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bfloat16_becomes_the_same_floats_as_by_its_package(dtype):
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    X = np.arange(2**16, dtype=np.uint16).view(bfloat16)
    X = X[np.isfinite(X.astype(np.float32))][:65024].reshape(254, 256).T[::2]
    found, expected = Workspace().floats(X, np.dtype(dtype)), X.astype(dtype)
    np.testing.assert_array_equal(found, expected)
