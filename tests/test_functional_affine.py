"""The linear layer: formula, memory order, blocks, refusals."""

import numpy as np
import pytest

from npsoftmax import _products
from npsoftmax.errors import ShapeError
from npsoftmax.functional import affine, affine_grad


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("n", [0, 1, 255, 256, 257, 700])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bytes_in_blocks_equal_floats_at_once(rng, monkeypatch, n, dtype, small):
    monkeypatch.setattr(_products, "has_small_products", lambda: small)
    monkeypatch.setattr(_products, "MAX_WORK", 12 * 100)  # pieces of at most 100 columns
    theta = np.asfortranarray(rng.standard_normal((3, 5)), dtype)
    X = rng.integers(0, 256, (n, 4), dtype=np.uint8).T
    Z = affine(theta, X, scale=1 / 255)
    assert Z.flags.f_contiguous and Z.dtype == dtype
    expected = theta[:, :-1].astype(float) @ (X / 255) + theta[:, -1:]
    np.testing.assert_allclose(Z, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(affine(theta, X.astype(dtype), 1 / 255), Z, rtol=1e-6, atol=1e-6)


def test_by_hand_and_out():
    theta = np.array([[1.0, 2.0, 10.0], [0.0, 1.0, 0.0]], order="F")
    X = np.array([[1.0, 0.0], [1.0, 1.0]], order="F")
    out = np.empty((2, 2), order="F")
    assert affine(theta, X, 2.0, out=out) is out
    np.testing.assert_array_equal(out, [[16, 14], [2, 2]])
    dZ = np.array([[1.0, 0.0], [2.0, 1.0]], order="F")
    grad = np.empty((2, 3), order="F")
    assert affine_grad(dZ, X, 2.0, out=grad) is grad
    np.testing.assert_array_equal(grad, [[2, 2, 1], [4, 6, 3]])


def test_integers_become_floats():
    np.testing.assert_allclose(
        affine([[1, 2, 10]], [[1], [1]], 1 / 255), [[10 + 3 / 255]], rtol=1e-15
    )
    np.testing.assert_array_equal(affine_grad([[1, 1]], [[1.0, 2.0]], 0.5), [[1.5, 2.0]])


@pytest.mark.parametrize(
    "call",
    [
        lambda: affine(np.zeros((2, 3)), np.zeros((3, 4))),
        lambda: affine(np.zeros((2, 3)), np.zeros(2)),
        lambda: affine(np.zeros((2, 3)), np.zeros((2, 4)), out=np.zeros((2, 5))),
        lambda: affine_grad(np.zeros((2, 3)), np.zeros((5, 4))),
        lambda: affine_grad(np.zeros((2, 4)), np.zeros((5, 4)), out=np.zeros((2, 5))),
    ],
)
def test_refusals(call):
    with pytest.raises(ShapeError, match="expected"):
        call()
