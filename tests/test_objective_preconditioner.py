"""The approximate inverse of the Hessian: what it equals, and what it is in any case."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npsoftmax.errors import InputError
from npsoftmax.functional import softmax
from npsoftmax.objective import FullBatch, hot_loop, preconditioner, samples
from npsoftmax.objective.preconditioner import (
    choose,
    draw_in_proportion,
    mean_square_length,
)

K, D, N = 3, 4, 15

# What to lower so that a problem of K classes and D features is solved by this kind of inverse.
TIERS = {
    "block per class": {},
    "one block": {"MAX_BLOCK_NUMBERS": K * (D + 1) ** 2 - 1},
    "one block at zeros": {"MAX_BLOCK_ROWS": D, "DIRECTIONS_SAVE": 1e-9},
    "diagonal": {"MAX_BLOCK_ROWS": D, "MAX_SHARED_ROWS": D},
    "identity": {"MAX_PRECONDITIONED_CLASSES": K - 1},
}
# So that blocks are estimated from 2,048 samples.
FEW = {"MIN_SAMPLES": 2048, "PASSES": 0}


@pytest.fixture(params=TIERS)
def tier(request, monkeypatch):
    lower(monkeypatch, TIERS[request.param])
    return request.param


def lower(monkeypatch, constants):
    for name, value in constants.items():
        monkeypatch.setattr(preconditioner, name, value)


def data(k=K, d=D, n=N, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((k, d + 1)), rng.standard_normal((d, n)), rng.integers(0, k, n)


def dense(M, shape):
    """Return a linear map as a matrix, its rows and columns as ``theta.ravel()``."""
    return np.array([M(V).ravel() for V in np.eye(np.prod(shape)).reshape(-1, *shape)]).T


def sums_of_zero(k, d):
    """Return an orthonormal basis of what gradients are: with biases that sum to zero."""
    same = np.zeros((k, d + 1))
    same[:, -1] = 1
    _, _, vectors = np.linalg.svd(same.reshape(1, -1))
    return vectors[1:].T


def expected_inverse(theta, X, weights, l2, scale, tier="block per class", floor=None):
    """Return the matrix by the formulas, from all samples."""
    k, rows = theta.shape
    if tier == "identity":
        return np.eye(theta.size)
    A = np.vstack([scale * X, np.ones(X.shape[1])])
    at_zeros = tier == "one block at zeros"
    P, shares = softmax(0 * theta @ A if at_zeros else theta @ A), weights / weights.sum()
    floor = preconditioner.MIN_CURVATURE if floor is None else floor
    blocks = [
        k / (k - 1) * (A * shares * (p * (1 - p) + floor)) @ A.T + np.diag([l2] * (rows - 1) + [0])
        for p in P
    ]
    if tier == "one block" or at_zeros:
        blocks = [np.mean(blocks, axis=0)] * k
    inverses = [np.diag(1 / np.diag(B)) if tier == "diagonal" else np.linalg.inv(B) for B in blocks]
    mean = np.kron(np.full((k, k), 1 / k), np.eye(rows))
    centre = np.eye(theta.size) - mean
    of_blocks = np.zeros((theta.size, theta.size))
    for c, inverse in enumerate(inverses):
        of_blocks[c * rows : (c + 1) * rows, c * rows : (c + 1) * rows] = inverse
    return centre @ of_blocks @ centre + mean @ np.diag(([1 / l2] * (rows - 1) + [0]) * k)


# What it equals.


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("size", [0.0, 1.0, 30.0])
def test_it_is_the_inverse_by_the_formula(tier, size, threads, weighted, monkeypatch):
    monkeypatch.setattr(samples, "MIN_WORK_OF_SAMPLE", 0)
    monkeypatch.setattr(samples, "MIN_WORK_OF_PART", 12)
    theta, X, y = data()
    theta *= size
    weights = np.random.default_rng(1).uniform(0.1, 3, N) if weighted else np.ones(N)
    problem = FullBatch(X, y, 0.2, weights if weighted else None, scale=0.5, threads=threads)
    found = dense(problem.preconditioner(theta), theta.shape)
    expected = expected_inverse(theta, X, weights, 0.2, 0.5, tier)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * np.abs(expected).max())


def test_it_is_the_same_in_blocks_of_samples(tier, monkeypatch):
    theta, X, y = data()
    problem = FullBatch(X, y, 0.2)
    expected = dense(problem.preconditioner(theta), theta.shape)
    monkeypatch.setattr(hot_loop, "MIN_BLOCK_SAMPLES", 2)
    monkeypatch.setattr(hot_loop, "BLOCK_BYTES", 1)
    found = dense(problem.preconditioner(theta), theta.shape)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("n", [256, 257, 600])
def test_blocks_are_summed_from_blocks_of_samples(n, monkeypatch):
    monkeypatch.setattr(preconditioner, "BLOCK_BYTES", 1)
    theta, X, y = data(n=n)
    found = dense(FullBatch(X, y, 0.2).preconditioner(theta), theta.shape)
    expected = expected_inverse(theta, X, np.ones(n), 0.2, 1.0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11 * np.abs(expected).max())


@pytest.mark.parametrize("l2", [1e-3, 0.5])
@pytest.mark.parametrize("weighted", [False, True])
def test_of_two_classes_it_inverts_the_hessian(l2, weighted, monkeypatch):
    monkeypatch.setattr(preconditioner, "MIN_CURVATURE", 0.0)
    theta, X, y = data(2)
    weights = np.random.default_rng(1).uniform(0.1, 3, N) if weighted else None
    problem = FullBatch(X, y, l2, weights)
    M = problem.preconditioner(theta)
    for V in sums_of_zero(2, D).T.reshape(-1, 2, D + 1):
        product = problem.hessian_vector_product(theta, V)
        np.testing.assert_allclose(M(product), V, rtol=0, atol=1e-8)


@pytest.mark.parametrize("k", [2, 3, 7])
def test_where_all_classes_are_equally_likely_it_inverts_the_hessian(k, monkeypatch):
    monkeypatch.setattr(preconditioner, "MIN_CURVATURE", 0.0)
    theta, X, y = data(k)
    problem = FullBatch(X, y, 0.1)
    M = problem.preconditioner(0 * theta)
    for V in sums_of_zero(k, D).T.reshape(-1, k, D + 1):
        product = problem.hessian_vector_product(0 * theta, V)
        np.testing.assert_allclose(M(product), V, rtol=0, atol=1e-10)


def test_by_hand():
    # p = (1/2, 1/2), a = (2, 1): B = 2 (1/4 + 1/1000) [4 2; 2 1] + [l2 0; 0 0], l2 = 0.502.
    M = FullBatch([[2.0]], [0], 0.502).preconditioner(np.zeros((2, 2)))
    inverse = np.array([[1, -2], [-2, 5]]) / 0.502
    V = np.array([[0.3, 0.7], [-0.3, -0.7]])
    np.testing.assert_allclose(M(V), V @ inverse, rtol=1e-12)


@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("kind", [kind for kind in TIERS if kind != "identity"])
def test_what_all_classes_share_is_divided_by_the_penalty(kind, few, monkeypatch):
    lower(monkeypatch, TIERS[kind] | ({"MIN_SAMPLES": 4, "PASSES": 0} if few else {}))
    theta, X, y = data(n=40)
    M = FullBatch(X, y, 0.25).preconditioner(theta)
    same = np.tile(np.arange(1.0, D + 2), (K, 1))
    same[:, -1] = 0
    np.testing.assert_array_equal(M(same), 4 * same)


# What it is in any case.


def check_symmetric_and_positive_definite(problem, theta):
    M = dense(problem.preconditioner(theta), theta.shape)
    assert np.isfinite(M).all()
    tolerance = 1e-11 * np.abs(M).max()
    np.testing.assert_allclose(M, M.T, rtol=0, atol=tolerance)
    k, rows = theta.shape
    basis = sums_of_zero(k, rows - 1)
    if problem.l2 == 0:  # then gradients sum to zero in all columns
        mean = np.kron(np.full((k, k), 1 / k), np.eye(rows))
        basis = np.linalg.svd(np.eye(theta.size) - mean)[0][:, : (k - 1) * rows]
    M = basis.T @ M @ basis
    smallest, largest = np.linalg.eigvalsh((M + M.T) / 2)[[0, -1]]
    # Where features depend on each other and nothing is penalised, rounding hides the smallest.
    assert smallest > (0 if largest < 1e10 else -1e-13 * largest)
    V = np.random.default_rng(1).standard_normal((basis.shape[1], 9))
    assert ((V * (M @ V)).sum(axis=0) > 0).all()


@given(seed=st.integers(0, 9999), n=st.integers(1, 60), size=st.sampled_from([0.0, 1.0, 20.0]),
       l2=st.sampled_from([0.0, 1e-3, 1.0]), few=st.booleans(), weighted=st.booleans(),
       kind=st.sampled_from(list(TIERS)))  # fmt: skip
def test_it_is_symmetric_and_positive_definite(seed, n, size, l2, few, weighted, kind):
    theta, X, y = data(n=n, seed=seed)
    weights = np.random.default_rng(seed).integers(0, 3, n) + (np.arange(n) == n - 1)
    problem = FullBatch(X, y, l2, weights if weighted else None)
    with pytest.MonkeyPatch.context() as monkeypatch:
        lower(monkeypatch, TIERS[kind] | ({"MIN_SAMPLES": 4, "PASSES": 0} if few else {}))
        check_symmetric_and_positive_definite(problem, size * theta)


@pytest.mark.parametrize("l2", [0.0, 0.1])
@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize(
    "features",
    [
        np.vstack([np.zeros(12), np.ones(12), np.arange(12) % 3, np.arange(12) % 3]),
        np.eye(12),
        np.zeros((0, 12)),
        np.full((1, 12), 1e-170),
    ],
    ids=["zero, constant and equal", "more than samples", "none", "tiny"],
)
def test_features_without_an_inverse(features, k, l2, tier):
    theta = np.random.default_rng(0).standard_normal((k, len(features) + 1))
    check_symmetric_and_positive_definite(FullBatch(features, np.arange(12) % k, l2), theta)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_classes_without_doubt_leave_it_finite(tier, dtype):
    theta, X, y = data()
    theta = (theta * 1e6).astype(dtype)
    M = FullBatch(X, y, 0.0).preconditioner(theta)
    V = np.random.default_rng(2).standard_normal(theta.shape).astype(dtype)
    V -= V.mean(axis=0)
    result = M(V)
    assert result.dtype == dtype and np.isfinite(result).all() and np.vdot(V, result) > 0


def test_one_class():
    theta, X, y = data(1)
    M = FullBatch(X, 0 * y, 0.5).preconditioner(theta)
    np.testing.assert_array_equal(M(np.ones((1, D + 1))), [[2] * D + [0]])


@pytest.mark.parametrize("l2", [1e-50, 1e-42])
def test_a_penalty_that_float32_does_not_hold(l2, tier):
    theta, X, y = data()
    M = FullBatch(X, y, l2).preconditioner(theta.astype(np.float32))
    gradient = np.ones(theta.shape, np.float32) * [[2], [-1], [-1]]
    assert np.isfinite(M(gradient.astype(np.float32))).all()


def test_it_is_linear_and_leaves_its_argument_alone(tier):
    theta, X, y = data()
    M = FullBatch(X, y, 0.2).preconditioner(theta)
    U, V = np.random.default_rng(2).standard_normal((2, *theta.shape))
    before = V.copy()
    np.testing.assert_allclose(M(U + 3 * V), M(U) + 3 * M(V), rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(V, before)
    np.testing.assert_array_equal(M(V), M(np.asfortranarray(V)))


def test_it_repeats_bit_for_bit(tier, monkeypatch):
    lower(monkeypatch, {"MIN_SAMPLES": 4, "PASSES": 0})
    theta, X, y = data(n=60)
    V = np.random.default_rng(2).standard_normal(theta.shape)
    found = [FullBatch(X, y, 0.2, threads=3).preconditioner(theta)(V) for _ in range(4)]
    for again in found[1:]:
        np.testing.assert_array_equal(found[0], again)


@pytest.mark.parametrize("kind", ["block per class", "one block", "diagonal"])
def test_features_too_large_to_square_are_refused(kind, monkeypatch):
    theta, X, y = data()
    lower(monkeypatch, TIERS[kind])
    problem = FullBatch(X * 1e20, y, 0.1)
    with pytest.raises(InputError, match="X: expected features whose squares fit float32"):
        problem.preconditioner((theta * 0).astype(np.float32))
    assert np.isfinite(problem.preconditioner(theta * 0)(theta)).all()


# Blocks from some of the samples.


def many(n=20_000, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((D, n))
    X[1] *= 5
    X[2] += X[0]
    return 0.5 * rng.standard_normal((K, D + 1)), X, rng.integers(0, K, n)


def ratios(found, exact, shape):
    """Return the smallest and the largest ratio of two inverses, over all directions."""
    basis = sums_of_zero(shape[0], shape[1] - 1)
    between = np.linalg.solve(basis.T @ exact @ basis, basis.T @ found @ basis)
    return np.sort(np.linalg.eigvals(between).real)[[0, -1]]


@pytest.mark.parametrize("weighted", [False, True])
def test_a_few_samples_estimate_the_blocks(weighted, monkeypatch):
    theta, X, y = many()
    weights = np.random.default_rng(1).exponential(size=y.size) if weighted else np.ones(y.size)
    problem = FullBatch(X, y, 1e-3, weights if weighted else None)
    exact = expected_inverse(theta, X, weights, 1e-3, 1.0)
    lower(monkeypatch, FEW)
    found = dense(problem.preconditioner(theta), theta.shape)
    smallest, largest = ratios(found, exact, theta.shape)
    assert smallest > 0.75 and largest < 1.25
    assert np.abs(found - exact).max() > 1e-6, "all samples were used"


def test_with_hardly_more_samples_than_features_no_step_is_too_long(monkeypatch):
    lower(monkeypatch, {"MIN_SAMPLES": 1, "PASSES": 0, "SAMPLES_PER_FEATURE": 1})
    theta, X, y = data(2, 40, 2000)
    exact = expected_inverse(theta * 0, X, np.ones(y.size), 1e-6, 1.0)
    found = dense(FullBatch(X, y, 1e-6).preconditioner(theta * 0), theta.shape)
    assert ratios(found, exact, theta.shape)[1] < 4


def test_of_too_many_samples_some_are_candidates(monkeypatch):
    theta, X, y = many()
    exact = expected_inverse(theta, X, np.ones(y.size), 1e-3, 1.0)
    lower(monkeypatch, FEW | {"CANDIDATES": 3})
    seen = []
    original = preconditioner._invert_blocks

    def invert_blocks(curvatures, diagonals, kept, *rest):
        seen.append((curvatures.shape, kept.size))
        return original(curvatures, diagonals, kept, *rest)

    monkeypatch.setattr(preconditioner, "_invert_blocks", invert_blocks)
    found = dense(FullBatch(X, y, 1e-3).preconditioner(theta), theta.shape)
    assert seen == [((K, 6144), 6144)]
    smallest, largest = ratios(found, exact, theta.shape)
    assert smallest > 0.7 and largest < 1.3


def rare_feature(where, dtype=np.float64):
    """Return a problem whose feature 3 is 10 in one sample, and 0 in all others."""
    theta, X, y = many()
    X[3] = 0
    X[3, where] = 10.0
    theta[:, 3] = 0
    return theta.astype(dtype), X, y


def lengths_along_it(X, y, l2, theta, where):
    """Yield, for each class, the step along feature 3, and that of the true diagonal."""
    M = FullBatch(X, y, l2).preconditioner(theta)
    p = softmax(theta @ np.append(X[:, where], 1))
    diagonals = K / (K - 1) * (p * (1 - p) + preconditioner.MIN_CURVATURE) * 100 / y.size + l2
    for c in range(K):
        V = np.zeros_like(theta)
        V[c, 3] = 1
        V[:, 3] -= 1 / K
        yield np.vdot(V, M(V)), (V[:, 3] ** 2 / diagonals).sum()


@pytest.mark.parametrize("l2", [0.0, 1e-8])
@pytest.mark.parametrize("where", [0, 3, 1234, 19_999])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_rare_feature_is_not_taken_for_a_flat_one(where, l2, dtype, monkeypatch):
    lower(monkeypatch, FEW)
    theta, X, y = rare_feature(where, dtype)
    for found, expected in lengths_along_it(X, y, l2, theta, where):
        assert 0.02 * expected < found < 2 * expected


@pytest.mark.parametrize("l2", [0.0, 1e-8])
def test_nor_is_one_that_no_candidate_has(l2, monkeypatch):
    lower(monkeypatch, FEW | {"CANDIDATES": 2})  # every 5th
    theta, X, y = rare_feature(3)
    for found, expected in lengths_along_it(X, y, l2, theta, 3):
        assert found < 2 * expected


@pytest.mark.parametrize(
    ("k", "rows", "n", "samples", "candidates"),
    [
        (10, 785, 1_000, 1_000, 1_000),  # all: they are few
        (10, 100, 4_000, 4_000, 4_000),  # all: half of them would do
        (10, 785, 60_000, 3_925, 60_000),
        (10, 785, 1_000_000, 21_372, 341_952),  # a better estimate would save no more
        (10, 10, 100_000, 100_000, 100_000),  # all, as that takes few passes
        (10, 10, 1_000_000, 131_072, 524_288),  # enough, and four times as many to draw from
        (10, 2_000, 1_000_000, 10_000, 160_000),  # five for each feature at least
        (4_096, 10, 1_000_000, 16_384, 16_384),  # as many as their curvatures fit into memory
    ],
)
def test_sample_counts_samples(k, rows, n, samples, candidates):
    assert preconditioner._sample_counts(k, rows, n) == (samples, candidates)


@pytest.mark.parametrize(
    ("n", "d", "k", "mean_square", "by_l2"),
    [
        # Embeddings of length 1: blocks cost hundreds of passes, one block a few dozen.
        (1_000, 384, 2, 2, {0.0: "one block", 2e-4: "one block", 2e-3: "none", 2e-2: "none"}),
        (1_000, 384, 20, 2, {0.0: "one block", 1e-4: "one block", 1e-3: "none", 1e-2: "none"}),
        (1_000, 768, 20, 2, {0.0: "one block", 1e-4: "one block", 1e-3: "none", 1e-2: "none"}),
        (1_000, 1_536, 20, 2, {0.0: "one block", 1e-4: "one block", 1e-3: "none", 1e-2: "none"}),
        (15_000, 384, 150, 2, {1e-5: "blocks", 1e-3: "none"}),
        # Pixels: badly conditioned, and blocks cost a dozen passes over many samples.
        (60_000, 784, 10, 163, {0.0: "blocks", 1e-4: "blocks", 1e-2: "blocks", 1.0: "none"}),
        (20_000, 50, 5, 51, {1e-4: "blocks", 1.0: "none"}),
        (5_000, 500, 10, 36, {1e-4: "blocks", 1e-1: "none"}),
        # Features of images.
        (60_000, 1_600, 10, 2, {1e-6: "blocks", 1e-1: "none"}),
        (60_000, 4_096, 10, 2, {1e-6: "one block", 1e-4: "directions", 1e-1: "none"}),
        # Above 4,096 classes there is none.
        (1_000, 10, 5_000, 11, {0.0: "none", 1e-9: "none"}),
    ],
)
def test_choice_of_the_preconditioner(n, d, k, mean_square, by_l2):
    found = {}
    for l2 in by_l2:
        passes, is_shared, _, is_low_rank, _ = choose(n, d, k, l2, mean_square)
        block = "directions" if is_low_rank else "one block" if is_shared else "blocks"
        found[l2] = "none" if passes else block
    assert found == by_l2


@pytest.mark.parametrize(("n", "is_at_zeros"), [(1_000, False), (3_001, True), (60_000, True)])
def test_a_large_block_takes_as_many_samples(n, is_at_zeros):
    assert choose(n, 3_000, 10, 0.0, 0).is_at_zeros == is_at_zeros


def test_passes_without_end_when_they_have_cost_as_much():
    one_block = 385 * (1000 / 2 + 385) / (2 * (20 + 12) * 1000)
    passes, is_shared, *_ = choose(1_000, 384, 20, 1e-3, 2)
    assert is_shared and passes == pytest.approx(one_block + 25)
    assert choose(1_000, 384, 20, 1e-3, 2).cost == pytest.approx(one_block)
    assert choose(60_000, 4_096, 10, 1e-4, 2).cost < choose(60_000, 4_096, 10, 1e-6, 2).cost


def test_the_mean_square_counts_weights_scale_and_bias():
    X, y, weights = np.array([[3.0, 1.0], [4.0, 1.0]], order="F"), [0, 1], np.array([3.0, 1.0])
    store = FullBatch(X, y, 1.0, weights, scale=2.0)._store
    assert mean_square_length(store, 2.0) == pytest.approx(1 + 4 * (3 * 25 + 2) / 4)


def test_the_mean_moves_where_rounding_hides_the_penalty():
    theta, X, y = data()
    theta, X = theta.astype(np.float32), 1e6 * X.astype(np.float32)
    M = FullBatch(X, y, 1e-3).preconditioner(theta)
    common = np.zeros_like(theta)
    common[:, 0] = 0.5
    moved = M(common)[:, 0]
    assert (moved > 0).all() and (moved <= 0.5 / 1e-3 * (1 + 1e-6)).all()
    assert not FullBatch(X, y, 0.0).preconditioner(theta)(common).any()


# The draw.


sizes = st.lists(
    st.one_of(st.just(0.0), st.floats(1e-6, 1.0), st.floats(1.0, 1e3)), min_size=1, max_size=60
).map(np.array)


@given(sizes, st.integers(1, 70))
def test_the_draw(sizes, count):
    drawn, chances = draw_in_proportion(sizes, count)
    assert (np.diff(drawn) > 0).all() and ((chances > 0) & (chances <= 1)).all()
    if count >= sizes.size:
        assert drawn.tolist() == list(range(sizes.size)) and (chances == 1).all()
        return
    if not sizes.any():
        sizes = np.ones(sizes.size)
    possible = min(count, np.count_nonzero(sizes))
    assert 0.9 * possible - 1 <= drawn.size <= possible
    assert (sizes[drawn] > 0).all(), "a chance of 0 was drawn"
    # Below 1 all sizes over their chances are equal: one step, the most that is lost or added.
    certain = chances == 1
    step = (sizes[drawn] / chances)[~certain]
    np.testing.assert_allclose(step, step[:1].repeat(step.size), rtol=1e-12)
    if step.size:
        assert (sizes[drawn][certain] >= step[0] * (1 - 1e-12)).all()
        assert abs((sizes[drawn] / chances).sum() - sizes.sum()) <= step[0] * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_the_draw_is_without_bias(seed):
    sizes = np.random.default_rng(seed).lognormal(sigma=2, size=20_000).astype(np.float32)
    drawn, chances = draw_in_proportion(sizes, 500)
    assert abs(drawn.size - 500) <= 1
    assert (sizes[drawn] / chances).sum() == pytest.approx(sizes.sum(dtype=float), rel=1 / 400)
    # And so is that of other sums, as far as 500 samples can tell.
    signs = np.sign(np.random.default_rng(seed).standard_normal(sizes.size))
    estimate = (sizes * signs)[drawn] @ (1 / chances)
    assert abs(estimate - sizes @ signs) < 5 * sizes.sum() / np.sqrt(500)


@pytest.mark.parametrize("d", [62, 63, 64, 150])
def test_blocks_of_many_features(d):
    """Triangles of more than 64 rows are inverted in parts."""
    theta, X, y = data(2, d, 200)
    found = FullBatch(X, y, 0.1).preconditioner(theta)
    expected = expected_inverse(theta, X, np.ones(200), 0.1, 1.0)
    V = np.random.default_rng(0).standard_normal(theta.shape)
    np.testing.assert_allclose(found(V).ravel(), expected @ V.ravel(), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("d", "few"), [(2047, False), (4096, True), (8192, True), (8193, False)])
def test_a_few_directions_take_the_place_of_large_blocks(d, few):
    assert choose(60_000, d, 10, 1e-4, 1.0).is_low_rank == few
    assert not choose(60_000, d, 10, 0.0, 0.0).is_low_rank  # nobody knows how many passes they save
    assert choose(60_000, d, 10, 0.0, 0.0, is_sparse=True).is_low_rank == (d > 2047)
