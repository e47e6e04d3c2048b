"""Small products: when samples are multiplied in pieces."""

import pytest

from npsoftmax import _products


@pytest.mark.parametrize(
    ("k", "d", "samples", "columns"),
    [
        (10, 784, 256, 64),  # at most 120 fit
        (10, 784, 1000, 100),
        (10, 784, 32, 32),  # one piece
        (10, 784, 257, None),  # a prime number
        (2, 784, 1024, 512),
        (3, 50, 1024, 256),
        (20, 768, 256, 32),
        (150, 384, 256, None),  # pieces of 8 columns would not pay
        (1000, 784, 256, None),
    ],
)
def test_pieces_are_equal_and_small(monkeypatch, k, d, samples, columns):
    monkeypatch.setattr(_products, "has_small_products", lambda: True)
    assert _products.piece_columns(k, d + 1, samples) == columns
    if columns is not None:
        assert samples % columns == 0
        assert k * (d + 1) * columns <= 1_000_000


def test_without_fast_small_products_there_are_no_pieces(monkeypatch):
    monkeypatch.setattr(_products, "has_small_products", lambda: False)
    assert _products.piece_columns(10, 785, 256) is None


@pytest.mark.parametrize(
    ("blas", "order"),
    [({"architecture": "SkylakeX"}, "C"), ({"architecture": "Haswell"}, "F"), ({}, "F")],
)
def test_the_kernels_of_the_blas_decide(monkeypatch, blas, order):
    monkeypatch.setattr(_products, "numpys_blas", lambda: blas)
    assert _products.memory_order() == order
