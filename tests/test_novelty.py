"""Novelty: samples far from all class means."""

import numpy as np
import pytest

from npsoftmax.errors import InputError, ShapeError
from npsoftmax.novelty import ClassMeans


def test_means_and_radii_by_hand():
    X = np.array([[0.0, 2.0, 10.0, 10.0], [0.0, 0.0, 0.0, 8.0]])
    class_means = ClassMeans.fit(X, np.array([0, 0, 2, 2]), num_outputs=3)
    np.testing.assert_array_equal(class_means.means, [[1, 0, 10], [0, 0, 4]])
    np.testing.assert_array_equal(class_means.radii, [1, 0, 4])
    # In radii, class 2 is nearest to both, at distances sqrt(82) and 4; class 1 is empty.
    X = np.array([[1.0, 14.0], [5.0, 4.0]])
    np.testing.assert_allclose(class_means.novelty(X), [np.hypot(9, 1) / 4, 1])


def test_scaled_bytes_are_as_floats(rng):
    X, y = rng.integers(0, 256, (6, 40), dtype=np.uint8), np.arange(40) % 3
    by_bytes, by_floats = ClassMeans.fit(X, y, 3, scale=1 / 255), ClassMeans.fit(X / 255, y, 3)
    np.testing.assert_allclose(by_bytes.means, by_floats.means, rtol=1e-6)
    np.testing.assert_allclose(by_bytes.radii, by_floats.radii, rtol=1e-6)
    np.testing.assert_allclose(by_bytes.novelty(X, 1 / 255), by_floats.novelty(X / 255), rtol=1e-6)


def test_distances_are_those_of_the_definition(rng):
    X, y = rng.normal(size=(5, 3000)), rng.integers(0, 4, 3000)
    class_means = ClassMeans.fit(X, y, 4)
    distances = np.linalg.norm(X[:, None, :] - class_means.means[:, :, None], axis=0)
    expected = (distances / class_means.radii[:, None]).min(axis=0)
    np.testing.assert_allclose(class_means.novelty(X), expected, rtol=1e-9)
    for label in range(4):
        own = distances[label, y == label]
        assert np.mean(own <= class_means.radii[label] * (1 + 1e-6)) == pytest.approx(
            0.99, abs=2e-3
        )


def test_no_class_is_lost_among_many_samples(rng):
    y = np.arange(40_000) % 10
    y[rng.choice(y.size, 5, replace=False)] = 10  # a rare class
    X = rng.normal(size=(2, y.size)) + y
    class_means = ClassMeans.fit(X, y, 11)
    np.testing.assert_allclose(class_means.means[:, :10], [range(10)] * 2, atol=0.15)
    assert (class_means.radii > 0.2).all()
    assert (class_means.novelty(X[:, y == 10]) < 1.1).all()


@pytest.mark.parametrize(("offset", "size"), [(1.7e9, 1.0), (2020.0, 1e-3), (-1e-3, 1e-9)])
def test_a_common_offset_of_all_samples_costs_no_digits(rng, offset, size):
    noise = rng.normal(size=(3, 300))
    y = np.arange(300) % 2
    expected = ClassMeans.fit(noise, y, 2).novelty(10 * noise)
    class_means = ClassMeans.fit(offset + size * noise, y, 2)
    np.testing.assert_allclose(class_means.novelty(offset + 10 * size * noise), expected, rtol=1e-4)


def test_some_of_many_samples_are_enough(rng):
    X, y = rng.normal(size=(2, 50_000)), np.arange(50_000) % 7
    class_means = ClassMeans.fit(X + y, y, 7)
    np.testing.assert_allclose(class_means.means, [range(7)] * 2, atol=0.15)
    np.testing.assert_allclose(class_means.radii, 3.03, atol=0.3)  # sqrt(-2 log 0.01)


def test_without_a_radius_every_sample_is_infinitely_far():
    class_means = ClassMeans.fit(np.array([[1.0, 1.0, 2.0]]), np.array([0, 0, 1]), 2)
    assert class_means.novelty(np.array([[1.0, 5.0]])).tolist() == [np.inf, np.inf]


def test_huge_samples_are_infinitely_far_and_no_samples_are_accepted():
    class_means = ClassMeans.fit(np.array([[0.0, 1.0]]), np.array([0, 0]), 1)
    assert class_means.novelty(np.array([[1e200, -1e308]])).tolist() == [np.inf, np.inf]
    assert class_means.novelty(np.zeros((1, 0))).shape == (0,)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ClassMeans(np.zeros((2, 3)), np.zeros(2)), ShapeError, "one for each of 3"),
        (lambda: ClassMeans(np.zeros(3), np.zeros(3)), ShapeError, "means"),
        (lambda: ClassMeans([[np.nan]], [1.0]), InputError, "means"),
        (lambda: ClassMeans([[0.0]], [-1.0]), InputError, "radii"),
        (lambda: ClassMeans([[0.0]], [np.inf]), InputError, "radii"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()
