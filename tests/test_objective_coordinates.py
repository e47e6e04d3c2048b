"""The smallest weights are those of the pseudoinverse, and no logit changes."""

import numpy as np
import pytest

from npsoftmax.objective import FullBatch, coordinates
from npsoftmax.objective.coordinates import Coordinates, Span

RNG = np.random.default_rng(0)
Z = RNG.standard_normal((50, 4))


def by_pseudoinverse(theta, X):
    """Return the smallest weights with the logits of some weights, for features of one unit."""
    deviations = X - X.mean(axis=1, keepdims=True)
    return theta[:, :-1] @ deviations @ np.linalg.pinv(deviations, 1e-12)


@pytest.mark.parametrize(
    "X",
    [
        Z,
        np.hstack([Z, Z[:, :1] + Z[:, 1:2]]),
        np.hstack([Z, np.full((50, 1), 7.0), Z]),
        np.eye(5)[RNG.integers(0, 5, 50)],
        RNG.standard_normal((6, 9)),
        np.repeat(RNG.standard_normal((4, 9)), 2, axis=0),
    ],
    ids=["full rank", "a sum", "twice", "a full one-hot", "few samples", "repeated samples"],
)
@pytest.mark.parametrize("largest", [coordinates.MAX_COLUMNS, 3])
def test_the_smallest_weights_are_those_of_the_pseudoinverse(X, largest, monkeypatch):
    monkeypatch.setattr(coordinates, "MAX_COLUMNS", largest)
    X = X.T + 5
    theta = RNG.standard_normal((3, len(X) + 1))
    found = FullBatch(X, np.zeros(X.shape[1], int)).smallest_weights(theta)
    np.testing.assert_allclose(found[:, :-1], by_pseudoinverse(theta, X), rtol=0, atol=1e-12)
    logits = [t[:, :-1] @ X + t[:, -1:] for t in (theta, found)]
    np.testing.assert_allclose(*logits, rtol=0, atol=1e-11)


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_units_change_no_rank_and_no_logit(unit):
    one_hot = np.eye(5)[RNG.integers(0, 5, 50)]
    X = np.hstack([one_hot, unit * (170 + Z[:, :1]), Z[:, 1:2]]).T
    found = Coordinates.of(FullBatch(X, np.zeros(50, int))._store, 1.0)
    assert found.depends.sum() == 1
    theta = RNG.standard_normal((3, 8))
    theta[:, 5] /= unit
    smallest = FullBatch(X, np.zeros(50, int)).smallest_weights(theta)
    # Of the one-hot columns, and of no other ones, the mean can be moved to the biases.
    np.testing.assert_allclose(smallest[:, :5].sum(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(smallest[:, 5:7], theta[:, 5:7], rtol=1e-9)
    logits = [t[:, :-1] @ X + t[:, -1:] for t in (theta, smallest)]
    np.testing.assert_allclose(*logits, rtol=0, atol=1e-11)


def test_nearly_collinear_features_are_not_collinear():
    X = np.vstack([Z[:, 0], Z[:, 0] + 1e-9 * Z[:, 1]])
    assert not Coordinates.of(FullBatch(X, np.zeros(50, int))._store, 1.0).depends.any()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_coordinates_are_orthonormal_and_keep_the_logits(dtype, monkeypatch):
    X = RNG.integers(0, 256, (5, 400)).astype(dtype)
    problem = FullBatch(X, np.zeros(400, int), scale=1 / 255)
    found = Coordinates.of(problem._store, 1 / 255)
    u = found.apply(X)
    np.testing.assert_allclose(u @ u.T, np.eye(5), rtol=0, atol=1e-12)
    theta = RNG.standard_normal((2, 6))
    eta = found.enter(theta)
    np.testing.assert_allclose(
        eta[:, :-1] @ u + eta[:, -1:],
        theta[:, :-1] @ (X / np.float64(255)) + theta[:, -1:],
        atol=1e-12,
    )
    np.testing.assert_allclose(found.leave(eta), theta, rtol=0, atol=1e-12)
    squares = np.einsum("ci,ij,cj->", eta[:, :-1], found.metric(), eta[:, :-1])
    assert squares == pytest.approx(np.square(theta[:, :-1]).sum())


@pytest.mark.parametrize("offset", [273.15, 1e6])
def test_a_column_with_a_large_offset_depends_on_the_same_without(offset):
    for celsius in np.random.default_rng(0).standard_normal((10, 3000)):
        X = np.column_stack([celsius, celsius + offset]).T
        found = Coordinates.of(FullBatch(X, np.zeros(3000, int))._store, 1.0)
        assert found.depends.sum() == 1


@pytest.mark.parametrize("least", [coordinates.MIN_RATIO, np.inf], ids=["products", "samples"])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_the_span_of_few_samples_keeps_logits_and_squares(offset, least, monkeypatch):
    monkeypatch.setattr(coordinates, "MIN_RATIO", least)
    X = np.random.default_rng(0).standard_normal((30, 8)) + offset
    span = Span.of(FullBatch(X, np.zeros(8, int))._store, 1.0, 0.0)
    assert span.mixture.shape[1] == 7
    basis = span.columns @ span.mixture
    np.testing.assert_allclose(basis.T @ basis, np.eye(7), rtol=0, atol=1e-8)
    eta = RNG.standard_normal((3, 8))
    theta = span.leave(eta)
    logits = theta[:, :-1] @ X + theta[:, -1:]
    found = eta[:, :-1] @ span.samples + eta[:, -1:]
    # The centre is known up to rounding errors, which the bias takes up.
    np.testing.assert_allclose(logits, found, rtol=0, atol=1e-12 * max(1.0, 10 * offset))
    np.testing.assert_allclose(span.enter(theta), eta, rtol=0, atol=1e-12 * max(1.0, 10 * offset))


def test_the_span_of_equal_samples_has_fewer_coordinates():
    X = np.repeat(RNG.standard_normal((30, 4)), 2, axis=1)
    span = Span.of(FullBatch(X, np.zeros(8, int))._store, 1.0, 0.0)
    assert span.mixture.shape[1] == 3 == len(span.samples)
