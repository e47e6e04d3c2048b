"""Samples in parts: sums over them do not depend on how they are cut."""

import pickle
from functools import partial, reduce
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npsoftmax.objective import FullBatch
from npsoftmax.objective.duality import Moments
from npsoftmax.objective.samples import LocalSamples, Samples, Summary, add, draw_evenly


def samples(n=10, weights=None, k=3):
    rng = np.random.default_rng(0)
    X = np.asfortranarray(rng.integers(9, size=(2, n)).astype(np.uint8))
    return Samples(0, X, rng.integers(k, size=n), weights)


def cut(whole, ends):
    cuts = sorted({0, whole.y.size, *(end % whole.y.size for end in ends)})
    return [whole.columns(slice(*pair)) for pair in pairwise(cuts)]


def test_columns_of_columns_keep_their_global_index():
    some = samples(weights=np.arange(10.0)).columns(slice(2, 9)).columns(slice(1, 4))
    assert (some.start, some.stop, some.weights.tolist()) == (3, 6, [3.0, 4.0, 5.0])
    np.testing.assert_array_equal(some.X, samples().X[:, 3:6])


def test_take_copies_samples_by_global_index():
    part = samples(weights=np.arange(10.0)).columns(slice(3, 8))
    some = part.take(np.array([0, 3, 5, 7, 8]), start=1)
    assert (some.start, some.weights.tolist()) == (1, [3.0, 5.0, 7.0])
    assert some.X.flags.f_contiguous
    np.testing.assert_array_equal(some.X, samples().X[:, [3, 5, 7]])
    assert part.take(np.array([0, 9]), start=0).y.size == 0


@given(st.lists(st.integers(0, 99), max_size=5), st.booleans(), st.integers(0, 2**32))
def test_merged_summaries_of_parts_are_the_summary_of_the_whole(ends, weighted, seed):
    weights = np.random.default_rng(seed).uniform(0, 2, 30) if weighted else None
    whole = samples(30, weights)
    parts = cut(whole, ends)
    found = reduce(Summary.merge, map(Summary.of, parts))
    expected = Summary.of(whole)
    assert (found.num_samples, found.num_inputs, found.dtype) == (30, 2, np.uint8)
    assert found.total == pytest.approx(expected.total, rel=1e-14)
    np.testing.assert_allclose(found.class_totals, expected.class_totals, rtol=1e-14)


def test_missing_classes():
    summary = Summary.of(Samples(0, np.ones((1, 3)), np.array([0, 2, 1]), np.array([1.0, 1, 0])))
    assert summary.missing_classes(4) == [1, 3]


def test_add_keeps_the_type_of_the_tuple():
    assert add((1, 2.0), (3, 4.0)) == (4, 6.0)
    moments = add(Moments(1.0, np.eye(2)), Moments(2.0, np.eye(2)))
    assert isinstance(moments, Moments) and moments.mean == 3.0


class Travelling(LocalSamples):
    """A store whose functions travel, as they do on a cluster."""

    def map_reduce(self, function, combine):
        return super().map_reduce(*pickle.loads(pickle.dumps((function, combine))))

    def map_reduce_draws(self, function, combine, draws):
        return super().map_reduce_draws(*pickle.loads(pickle.dumps((function, combine, draws))))


def test_all_functions_for_a_store_can_be_pickled():
    whole, theta = samples(12), np.random.default_rng(1).standard_normal((3, 3))
    problem = FullBatch(whole.X, whole.y, 0.1)
    problem._set_samples(Travelling(whole, 1), 0.1, 1.0)
    expected = FullBatch(whole.X, whole.y, 0.1)
    assert problem.loss_and_grad(theta).loss == expected.loss_and_grad(theta).loss
    assert problem.suboptimality(theta) == expected.suboptimality(theta)
    for there, here in (
        (problem.preconditioner(theta)(theta), expected.preconditioner(theta)(theta)),
        (
            problem.hessian_vector_product(theta, theta),
            expected.hessian_vector_product(theta, theta),
        ),
    ):
        np.testing.assert_array_equal(there, here)
    assert pickle.loads(pickle.dumps(problem.summary)).num_samples == 12


def test_an_even_draw_is_fair_to_data_with_a_period():
    drawn = draw_evenly(6000, 1000)
    assert (np.diff(drawn) > 0).all() and drawn.size == 1000
    counts = np.bincount(drawn % 6)
    assert counts.min() > 120
    np.testing.assert_array_equal(draw_evenly(5, 5), range(5))
    np.testing.assert_array_equal(draw_evenly(5, 9), range(5))


def slow_sum(part, workspace, interrupted):
    """Return the first index of a part, or raise in the first part."""
    array = workspace.take("x", (1,), np.dtype(float))
    if part.start == 0 and interrupted:
        raise KeyboardInterrupt
    array[0] = part.start
    return array.copy()


def test_an_interrupted_call_leaves_no_workspace_in_use(monkeypatch):
    monkeypatch.setattr("npsoftmax.objective.samples.MIN_WORK_OF_SAMPLE", 0)
    monkeypatch.setattr("npsoftmax.objective.samples.MIN_WORK_OF_PART", 12)
    store = LocalSamples(samples(40), 2)
    before = list(store._workspaces)
    with pytest.raises(KeyboardInterrupt):
        store.map_reduce(partial(slow_sum, interrupted=True), np.add)
    assert not set(map(id, store._workspaces)) & set(map(id, before))
    assert store.map_reduce(partial(slow_sum, interrupted=False), np.add) == [20.0]
