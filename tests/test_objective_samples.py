"""Samples in parts: what is known of all of them does not depend on how they are cut."""

import pickle
from functools import reduce
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npsoftmax.objective import FullBatch, Samples, Summary
from npsoftmax.objective.duality import Moments
from npsoftmax.objective.hot_loop import Workspace
from npsoftmax.objective.samples import LocalSamples, add, digest_of


def samples(n=10, weights=None, k=3):
    rng = np.random.default_rng(0)
    X = np.asfortranarray(rng.integers(9, size=(2, n)).astype(np.uint8))
    return Samples(0, X, rng.integers(k, size=n), weights)


def cut(whole, ends):
    cuts = sorted({0, whole.y.size, *(end % whole.y.size for end in ends)})
    return [whole.columns(slice(*pair)) for pair in pairwise(cuts)]


def test_columns_count_on():
    some = samples(weights=np.arange(10.0)).columns(slice(2, 9)).columns(slice(1, 4))
    assert (some.start, some.stop, some.weights.tolist()) == (3, 6, [3.0, 4.0, 5.0])
    np.testing.assert_array_equal(some.X, samples().X[:, 3:6])


def test_picked_are_those_at_places_among_all():
    part = samples(weights=np.arange(10.0)).columns(slice(3, 8))
    some = part.picked(np.array([0, 3, 5, 7, 8]), start=1)
    assert (some.start, some.weights.tolist()) == (1, [3.0, 5.0, 7.0])
    assert some.X.flags.f_contiguous
    np.testing.assert_array_equal(some.X, samples().X[:, [3, 5, 7]])
    assert part.picked(np.array([0, 9]), start=0).y.size == 0


@given(st.lists(st.integers(0, 99), max_size=5), st.booleans(), st.integers(0, 2**32))
def test_contents_and_digests_of_parts_are_those_of_the_whole(ends, weighted, seed):
    weights = np.random.default_rng(seed).uniform(0, 2, 30) if weighted else None
    whole = samples(30, weights)
    parts = cut(whole, ends)
    found = reduce(Summary.merge, map(Summary.of, parts))
    expected = Summary.of(whole)
    assert (found.num_samples, found.num_inputs, found.dtype) == (30, 2, np.uint8)
    assert found.total == pytest.approx(expected.total, rel=1e-14)
    np.testing.assert_allclose(found.class_totals, expected.class_totals, rtol=1e-14)
    digests = [digest_of(part, Workspace()) for part in parts]
    assert [n % 2**64 for n in reduce(add, digests)] == [*digest_of(whole, Workspace())]


def test_the_whole_digest_in_pieces(monkeypatch):
    whole = samples(50, np.arange(50.0))
    expected = digest_of(whole, Workspace())
    monkeypatch.setattr("npsoftmax.objective.samples.DIGESTED_AT_ONCE", 7)
    assert digest_of(whole, Workspace()) == expected


@pytest.mark.parametrize("change", ["one label", "order", "shifted", "one weight"])
def test_other_labels_and_weights_have_other_digests(change):
    whole = samples(20, np.ones(20))
    y, weights = whole.y.copy(), whole.weights.copy()
    if change == "one label":
        y[7] = (y[7] + 1) % 3
    elif change == "order":
        y[:] = y[::-1]
    elif change == "shifted":
        y[:] = np.roll(y, 1)
    else:
        weights[3] = np.nextafter(1.0, 2.0)
    other = digest_of(Samples(0, whole.X, y, weights), Workspace())
    same_labels, same_weights = np.equal(other, digest_of(whole, Workspace()))
    assert (same_labels, same_weights) == (
        (True, False) if change == "one weight" else (False, True)
    )


def test_labels_of_any_integer_type_have_one_digest():
    digests = {FullBatch(np.ones((1, 4)), np.array([0, 1, 2, 1], t)).digests for t in ("u1", "i8")}
    assert len(digests) == 1
    ((labels, weights),) = digests
    assert len(labels) == 16 and weights is None


def test_missing_classes():
    summary = Summary.of(Samples(0, np.ones((1, 3)), np.array([0, 2, 1]), np.array([1.0, 1, 0])))
    assert summary.missing_classes(4) == [1, 3]


def test_added_keeps_the_kind_of_tuple():
    assert add((1, 2.0), (3, 4.0)) == (4, 6.0)
    moments = add(Moments(1.0, np.eye(2)), Moments(2.0, np.eye(2)))
    assert isinstance(moments, Moments) and moments.mean == 3.0


class Travelling(LocalSamples):
    """A store whose functions travel, as they do on a cluster."""

    def map_reduce(self, function, combine):
        return super().map_reduce(*pickle.loads(pickle.dumps((function, combine))))

    def map_reduce_draws(self, function, combine, draws):
        return super().map_reduce_draws(*pickle.loads(pickle.dumps((function, combine, draws))))


def test_all_that_is_asked_of_a_store_can_travel():
    whole, theta = samples(12), np.random.default_rng(1).standard_normal((3, 3))
    problem = FullBatch(Travelling(whole, 1), 0.1, 1.0)
    expected = FullBatch(whole.X, whole.y, 0.1)
    assert problem.evaluate(theta).loss == expected.evaluate(theta).loss
    assert problem.suboptimality(theta) == expected.suboptimality(theta)
    for there, here in (
        (problem.preconditioner(theta)(theta), expected.preconditioner(theta)(theta)),
        (
            problem.hessian_vector_product(theta, theta),
            expected.hessian_vector_product(theta, theta),
        ),
    ):
        np.testing.assert_array_equal(there, here)
    assert problem.digests == expected.digests
    assert pickle.loads(pickle.dumps(problem.summary)).num_samples == 12
