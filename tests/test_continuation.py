"""What one fit hands on to the next."""

import numpy as np
import pytest

from npsoftmax.continuation import Follower, GapSolver, Preconditioner
from npsoftmax.lbfgs import begin, is_usable
from npsoftmax.objective import FullBatch, newton
from npsoftmax.objective.preconditioner import Choice

D, K, N = 6, 4, 120


@pytest.fixture(autouse=True)
def lbfgs(monkeypatch):
    monkeypatch.setattr(newton, "MAX_ROWS", 0)


def problem(l2=0.1, penalty_factor=None):
    rng = np.random.default_rng(0)
    X = np.asfortranarray(rng.standard_normal((D, N)))
    y = (rng.standard_normal((K, D)) @ X + rng.gumbel(size=(K, N))).argmax(axis=0)
    return FullBatch(X, y, l2, penalty_factor=penalty_factor)


def followed(values, gap=1e-8, **settings):
    """Return a follower after some values, and what it found."""
    follower = Follower(problem(**settings), Preconditioner(problem(**settings)))
    zeros = np.zeros((K, D + 1), order="F")
    return follower, [follower.follow(l2, gap, 1000, zeros) for l2 in values]


@pytest.mark.parametrize("penalty_factor", [None, np.arange(1.0, D + 1)])
def test_pairs_are_those_of_the_new_penalty(penalty_factor):
    """Along a step, the gradients of two objectives differ by the difference of their penalties."""
    rng = np.random.default_rng(1)
    old, new = problem(0.1, penalty_factor), problem(0.02, penalty_factor)
    x, step = rng.standard_normal((2, K, D + 1))
    change, expected = (
        each.loss_and_grad(x + step).grad - each.loss_and_grad(x).grad for each in (old, new)
    )
    assert np.abs(change - expected).max() > 0.01
    follower = Follower(old, Preconditioner(old), pairs=[(step, change)])
    follower._change_penalty(0.02)
    np.testing.assert_allclose(follower.pairs[0][1], expected, atol=1e-12)
    np.testing.assert_array_equal(follower.problem.penalty, new.penalty)
    assert is_usable(*follower.pairs[0])


def test_the_next_fit_begins_where_the_last_two_point():
    follower, _ = followed([1e-1, 3e-2])
    before, last = follower.optima
    follower._change_penalty(1e-2)
    state = follower._predict()
    ratio = np.log(1e-2 / 3e-2) / np.log(3e-2 / 1e-1)
    np.testing.assert_allclose(state.x, last.theta + ratio * (last.theta - before.theta))
    at_last = follower.problem.loss_and_grad(last.theta)
    assert state.value < at_last.loss
    # Unless this is worse.
    follower.optima = [before._replace(theta=before.theta + 100.0), last]
    state = follower._predict()
    assert np.array_equal(state.x, last.theta) and state.history[0].evaluations == 2
    assert state.value == at_last.loss


def test_a_preconditioner_serves_several_values(monkeypatch):
    made = []
    make = FullBatch.preconditioner
    monkeypatch.setattr(
        FullBatch, "preconditioner", lambda self, theta: made.append(self.l2) or make(self, theta)
    )
    monkeypatch.setattr(
        FullBatch, "choose_preconditioner", lambda self, k: Choice(0.0, False, cost=1e9)
    )
    _, found = followed(np.logspace(-1, -5, 9))
    assert made == [0.1] and all(fitted.reason == "converged" for fitted in found)


def test_it_is_made_again_when_passes_have_cost_as_much(monkeypatch):
    monkeypatch.setattr(
        FullBatch, "choose_preconditioner", lambda self, k: Choice(0.0, False, cost=10.0)
    )
    shared, theta = Preconditioner(problem()), np.zeros((K, D + 1))
    shared.renew(0.1, theta)
    assert shared.anchor is None, "there is none to renew"
    first = shared.at(0.1, theta)
    shared.excess = 9
    shared.renew(0.01, theta + 1)
    assert shared.at(0.01, theta) is first
    shared.excess = 10
    shared.renew(0.001, theta + 1)
    assert shared.at(0.01, theta) is not first
    assert (shared.l2, shared.excess) == (0.001, 0) and (shared.anchor == 1).all()


def test_passes_count_until_one_is_made(monkeypatch):
    monkeypatch.setattr(
        FullBatch, "choose_preconditioner", lambda self, k: Choice(30.0, False, cost=5.0)
    )
    shared = Preconditioner(problem())
    solver = GapSolver(problem(), K, 1e-5, 1e-4, shared, 1.0)
    state = begin(problem().loss_and_grad, np.zeros((K, D + 1)))
    assert solver._is_plain(state)
    shared.excess = 29
    assert not solver._is_plain(state)


def test_the_bound_is_asked_when_the_gradient_suggests_it(monkeypatch):
    asked = []
    bound = FullBatch.suboptimality
    monkeypatch.setattr(
        FullBatch, "suboptimality", lambda self, theta: asked.append(1) or bound(self, theta)
    )
    _, found = followed(np.logspace(-1, -5, 9), gap=1e-4)
    assert all(fitted.bound <= 1e-4 * fitted.objective for fitted in found)
    assert len(asked) <= 12, "little more than once a value"


def test_a_gap_that_is_asked_for_too_early_is_no_end():
    zeros = np.zeros((K, D + 1), order="F")
    follower = Follower(problem(), Preconditioner(problem()), ratio=1e-4)
    fitted = follower.follow(0.1, 1e-6, 1000, zeros)
    assert fitted.reason == "converged" and fitted.bound <= 1e-6 * fitted.objective
    assert follower.ratio > 0.1, "it learns"


def test_a_state_is_packed_and_unpacked():
    follower, _ = followed([1e-1, 3e-2, 1e-2])
    shared = follower.shared
    shared.at(1e-2, follower.optima[-1].theta)
    shared.excess = 3
    arrays, state = follower.pack("fit.0")
    common, shared_state = shared.pack()
    other = Follower(problem(), Preconditioner(problem()))
    other.unpack("fit.0", arrays, state)
    other.shared.unpack(common, shared_state)
    assert (other.shared.excess, other.shared.l2) == (3, 1e-2)
    zeros = np.zeros((K, D + 1), order="F")
    one, two = (each.follow(1e-3, 1e-8, 1000, zeros) for each in (follower, other))
    assert one.theta.tobytes() == two.theta.tobytes() and one[1:] == two[1:]
    # What is handed on matters.
    third = Follower(problem(), Preconditioner(problem()))
    third.unpack("fit.0", arrays, {**state, "pairs": 0})
    third.shared.unpack(common, shared_state)
    assert third.follow(1e-3, 1e-8, 1000, zeros).theta.tobytes() != one.theta.tobytes()
