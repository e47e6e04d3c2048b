"""The objective on a whole data set: its value, its derivatives, and how far it is from optimal."""

import math
from itertools import chain

import numpy as np
import pytest
from gradcheck import check_gradient
from hypothesis import example, given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

from npsoftmax._threads import _blas, default_threads
from npsoftmax.errors import InputError, LabelError, ShapeError
from npsoftmax.functional import logsoftmax, softmax
from npsoftmax.lbfgs import minimise
from npsoftmax.objective import (
    FullBatch,
    full_batch,
    hessian_vector_product,
    hot_loop,
    loss_and_grad,
    sample_losses,
    samples,
)

K, D, N = 4, 3, 23
SCALE = 1 / 255


def data(k=K, d=D, n=N, seed=0):
    rng = np.random.default_rng(seed)
    theta = np.asfortranarray(rng.standard_normal((k, d + 1)))
    return theta, rng.integers(0, 256, (n, d), dtype=np.uint8).T, rng.integers(0, k, n)


def whole_numbers(n, seed=1):
    return np.random.default_rng(seed).integers(0, 4, n) + (np.arange(n) == 0)


def by_definition(theta, X, y, l2, weights, scale):
    """Return value and gradient by their formulas, sample by sample."""
    value, grad, total = 0.0, np.zeros(theta.shape), math.fsum(weights)
    for x, label, weight in zip(X.T, y, weights, strict=True):
        a = np.append(x * scale, 1.0)
        z = theta @ a
        value -= weight * logsoftmax(z)[label] / total
        grad += weight / total * np.outer(softmax(z) - np.eye(len(z))[label], a)
    grad[:, :-1] += l2 * theta[:, :-1]
    return value + l2 / 2 * (theta[:, :-1] ** 2).sum(), grad


def hessian_by_definition(theta, X, l2, weights, scale):
    """Return the sum of Kronecker products, its rows and columns as ``theta.ravel()``."""
    H = np.kron(np.eye(len(theta)), np.diag([l2] * len(X) + [0.0]))
    for x, weight in zip(X.T, weights, strict=True):
        a = np.append(x * scale, 1.0)
        p = softmax(theta @ a)
        H += weight / np.sum(weights) * np.kron(np.diag(p) - np.outer(p, p), np.outer(a, a))
    return H


def hessian(problem, theta):
    """Return the Hessian as a matrix, one product per column."""
    basis = np.eye(theta.size).reshape(theta.size, *theta.shape)
    return np.array([problem.hessian_vector_product(theta, V).ravel() for V in basis]).T


def everything(problem, theta):
    """Return all that an objective computes."""
    return [
        *problem.loss_and_grad(theta)[:4],
        problem.hessian_vector_product(theta, theta),
        problem.preconditioner(theta)(theta),
        problem.suboptimality(theta),
    ]


@pytest.fixture
def small_parts(monkeypatch):
    """Split even a few samples among the threads."""
    monkeypatch.setattr(samples, "MIN_WORK_OF_SAMPLE", 0)
    monkeypatch.setattr(samples, "MIN_WORK_OF_PART", 12)


@pytest.fixture(params=[1, 2, 3], ids="threads={}".format)
def threads(request, small_parts):
    return request.param


@pytest.fixture(params=["one", "samples", "classes", "both"])
def blocks(request, monkeypatch):
    """Cut into blocks what would be one: of 3 samples, of 2 classes, or both."""
    sizes = {
        "one": {},
        "samples": {"MIN_BLOCK_SAMPLES": 3, "BLOCK_BYTES": 1},
        "classes": {"MIN_BLOCK_SAMPLES": 20, "MAX_BLOCK_LOGITS": 40},
        "both": {"MIN_BLOCK_SAMPLES": 3, "BLOCK_BYTES": 1, "MAX_BLOCK_LOGITS": 6},
    }
    for name, value in sizes[request.param].items():
        monkeypatch.setattr(hot_loop, name, value)


# Value and gradient.


def test_by_hand():
    # Logits (0, 0) and (0, log 3): losses log 2 and log(4/3), the second one three times.
    theta = np.array([[0.0, 0.0], [np.log(3), 0.0]])
    result = FullBatch([[0, 1]], [0, 1], 0.5, [1, 3]).loss_and_grad(theta)
    assert result.crossentropy == pytest.approx((np.log(2) + 3 * np.log(4 / 3)) / 4, rel=1e-15)
    assert result.loss == pytest.approx(result.crossentropy + np.log(3) ** 2 / 4, rel=1e-15)
    # dZ = (1/4) [-1/2 3/4; 1/2 -3/4]
    np.testing.assert_allclose(
        result.grad, [[3 / 16, 1 / 16], [-3 / 16 + np.log(3) / 2, -1 / 16]], rtol=1e-14
    )
    assert result.accuracy == 1 and result.predicted is None
    assert result.grad.flags.f_contiguous


@pytest.mark.parametrize("k", [1, 2, 4, 9])
@pytest.mark.parametrize("n", [1, 2, 23])
def test_it_is_the_definition_in_blocks_and_parts(threads, blocks, k, n):
    theta, X, y = data(k, n=n, seed=k + n)
    weights = np.random.default_rng(n).uniform(0.5, 2, n) * (np.arange(n) % 3 < 2)
    for given_weights in (None, weights):
        problem = FullBatch(X, y, 0.3, given_weights, scale=SCALE, threads=threads)
        result = problem.loss_and_grad(theta)
        value, grad = by_definition(
            theta, X, y, 0.3, np.ones(n) if given_weights is None else weights, SCALE
        )
        assert result.loss == pytest.approx(value, rel=1e-13)
        np.testing.assert_allclose(result.grad, grad, rtol=0, atol=1e-13)
        Z = theta[:, :-1] @ (X * SCALE) + theta[:, -1:]
        hits = np.average(Z.argmax(axis=0) == y, weights=given_weights)
        assert result.accuracy == pytest.approx(hits, rel=1e-13)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_half_floats_stay_as_they_are_in_memory_and_in_files(name, tmp_path):
    dtype = np.dtype(np.float16 if name == "float16" else pytest.importorskip("ml_dtypes").bfloat16)
    rows = np.linspace(-2, 2, 600).reshape(200, 3).astype(dtype)
    np.save(tmp_path / "rows.npy", rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r").view(dtype)
    labels, theta = np.arange(200) % 3, np.asfortranarray(np.eye(3, 4, dtype=np.float32))
    expected = FullBatch(rows.astype(np.float32).T, labels, 0.1).loss_and_grad(theta)
    for given_rows in (rows, mapped):
        problem = FullBatch(given_rows.T, labels, 0.1)
        assert np.shares_memory(problem._store.samples.X, given_rows)
        found = problem.loss_and_grad(theta)
        np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-6)
        np.testing.assert_allclose(found.grad, expected.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["uint8", "float32", "float64", "bool", "C", "memmap", "list"])
def test_samples_of_any_kind(kind, tmp_path, threads):
    theta, X, y = data()
    if kind == "memmap":
        X.T.tofile(tmp_path / "X")
        given_X = np.memmap(tmp_path / "X", np.uint8, "r", shape=(N, D)).T
    elif kind == "bool":
        X = given_X = X > 99
    else:
        convert = {"C": lambda X: X.copy(order="C"), "list": np.ndarray.tolist}
        given_X = convert.get(kind, lambda X: X.astype(kind))(X)
    expected = loss_and_grad(theta, X, y, 0.1, SCALE)
    problem = FullBatch(given_X, y, 0.1, scale=SCALE, threads=threads)
    result = problem.loss_and_grad(theta)
    assert result.loss == pytest.approx(expected.loss, rel=1e-13)
    np.testing.assert_allclose(result.grad, expected.grad, rtol=0, atol=1e-13)
    assert result.accuracy == expected.accuracy
    if kind == "memmap":
        assert np.shares_memory(problem._store.samples.X, given_X), "the file was read into memory"


def test_theta_of_any_order_and_results_that_stay():
    theta, X, y = data()
    problem = FullBatch(X, y, 0.1, scale=SCALE)
    before = theta.copy()
    first = problem.loss_and_grad(theta)
    held = first.grad.copy()
    in_c_order = problem.loss_and_grad(theta.copy(order="C"))
    np.testing.assert_array_equal(first.grad, in_c_order.grad)
    problem.loss_and_grad(-theta)
    np.testing.assert_array_equal(first.grad, held)
    np.testing.assert_array_equal(theta, before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_results_are_of_the_dtype_of_theta(dtype):
    theta, X, y = data()
    theta = theta.astype(dtype)
    problem = FullBatch(X, y, 0.1, np.ones(N), scale=SCALE)
    assert problem.loss_and_grad(theta).grad.dtype == dtype
    assert problem.hessian_vector_product(theta, np.ones(theta.shape)).dtype == dtype
    assert problem.preconditioner(theta)(theta).dtype == dtype
    assert isinstance(problem.suboptimality(theta), float)
    assert isinstance(problem.loss_and_grad(theta).loss, float)


@pytest.mark.parametrize("weighted", [False, True])
def test_losses_in_float32_are_summed_in_float64(weighted, monkeypatch):
    monkeypatch.setattr(hot_loop, "MAX_BLOCK_SAMPLES", 20)
    n = 30_000
    theta = np.array([[0.125, 0.0], [0.0, 1.0], [0.5, -2.0]])  # exact in float32, as are the logits
    X, y = np.arange(n)[None] % 8, np.arange(n) % 3
    weights = 1.0 + np.arange(n) % 5 if weighted else np.ones(n)
    losses, _ = sample_losses(theta, X, y)
    expected = math.fsum(losses * weights) / math.fsum(weights)
    problem = FullBatch(X, y, 0.0, weights if weighted else None, threads=1)
    assert problem.loss_and_grad(theta.astype(np.float32)).loss == pytest.approx(expected, rel=1e-7)
    # One loss of 1e6 among many of log 2: float32 would keep one digit of each of those.
    X = (np.arange(n)[None] == 0) * 1e6
    problem = FullBatch(X, np.zeros(n, int), 0.0, weights if weighted else None, threads=1)
    total = problem.loss_and_grad(np.array([[0.0, 0.0], [1.0, 0.0]], np.float32)).loss
    expected = (weights[0] * 1e6 + np.log(2) * weights[1:].sum()) / weights.sum()
    assert total == pytest.approx(expected, rel=3e-8)


def test_one_class_is_certain():
    theta, X, _ = data(1)
    problem = FullBatch(X, np.zeros(N, int), scale=SCALE)
    result = problem.loss_and_grad(theta)
    assert result.loss == 0 and not result.grad.any() and result.accuracy == 1
    assert not problem.hessian_vector_product(theta, theta).any()
    assert problem.suboptimality(theta) == 0
    penalised = FullBatch(X, np.zeros(N, int), 0.5, scale=SCALE)
    assert penalised.suboptimality(theta) == pytest.approx((theta[:, :-1] ** 2).sum() / 4)


# Weights.


@given(st.integers(0, 999), st.integers(1, 9), st.integers(1, 5))
@example(3, 7, 3)  # a sample of weight 0 has a negative entry of Q
def test_a_whole_weight_repeats_a_sample(seed, n, k):
    theta, X, y = data(k, n=n, seed=seed)
    weights = whole_numbers(n, seed)
    weighted = FullBatch(X, y, 0.2, weights, scale=SCALE)
    repeated = FullBatch(np.repeat(X, weights, axis=1), np.repeat(y, weights), 0.2, scale=SCALE)
    V = np.random.default_rng(seed).standard_normal(theta.shape)
    found, expected = weighted.loss_and_grad(theta), repeated.loss_and_grad(theta)
    assert found.loss == pytest.approx(expected.loss, rel=1e-13)
    np.testing.assert_allclose(found.grad, expected.grad, rtol=0, atol=1e-14)
    products = [problem.hessian_vector_product(theta, V) for problem in (weighted, repeated)]
    np.testing.assert_allclose(*products, rtol=0, atol=1e-13)
    assert weighted.suboptimality(theta) == pytest.approx(repeated.suboptimality(theta), abs=1e-12)


@given(st.integers(-40, 40))
def test_the_unit_of_the_weights_does_not_count(exponent):
    theta, X, y = data()
    weights = np.random.default_rng(3).uniform(0.1, 1, N)
    once = FullBatch(X, y, 0.2, weights, scale=SCALE)
    scaled = FullBatch(X, y, 0.2, weights * 2.0**exponent, scale=SCALE)
    # A power of two changes no digit of any product.
    np.testing.assert_array_equal(once.loss_and_grad(theta).grad, scaled.loss_and_grad(theta).grad)
    products = [problem.hessian_vector_product(theta, theta) for problem in (once, scaled)]
    np.testing.assert_array_equal(*products)
    assert once.suboptimality(theta) == scaled.suboptimality(theta)


# Threads.


def test_threads_agree_and_each_number_of_them_repeats_bit_for_bit(small_parts):
    theta, X, y = data()
    weights = whole_numbers(N) + 0.5
    alone = everything(FullBatch(X, y, 0.1, weights, scale=SCALE, threads=1), theta)
    for threads in (1, 2, 3):
        problem = FullBatch(X, y, 0.1, weights, scale=SCALE, threads=threads)
        first = everything(problem, theta)
        for again in (problem, FullBatch(X, y, 0.1, weights, scale=SCALE, threads=threads)):
            for _ in range(3):
                for a, b in zip(first, everything(again, theta), strict=True):
                    np.testing.assert_array_equal(a, b)
        for a, b in zip(alone, first, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize(("n", "threads"), [(3, 3), (8, 3), (23, 3), (23, 40)])
def test_parts_cover_all_samples_once(n, threads, small_parts):
    store = local_samples(n, threads)
    parts = store.map_reduce(lambda part, _: [list(range(part.start, part.stop))], list.__add__)
    assert len(parts) == max(1, min(threads, n // 4))
    assert list(chain(*parts)) == list(range(n))


def local_samples(n, threads):
    """Return samples of three multiplications each."""
    X, y = np.ones((3, n)), np.zeros(n, int)
    return samples.LocalSamples(samples.Samples(0, X, y, None), threads)


def blas_threads():
    """Return the threads of NumPy's BLAS; other tests may have loaded that of SciPy or PyTorch."""
    known = {library.filepath for library in _blas()}
    return [module["num_threads"] for module in threadpool_info() if module["filepath"] in known]


def test_the_blas_is_held_to_one_thread_while_parts_run(small_parts):
    with threadpool_limits(2, "blas"):
        before = blas_threads()
        assert max(before) == 2
        store = local_samples(N, 2)
        for _ in range(2):
            seen = store.map_reduce(lambda *_: [blas_threads()], list.__add__)
            assert seen == [[1] * len(before)] * 2
            assert blas_threads() == before
        with pytest.raises(ZeroDivisionError):
            store.map_reduce(lambda *_: 1 / 0, list.__add__)
        assert blas_threads() == before


def test_the_number_of_threads():
    assert FullBatch([[1.0]], [0]).threads == default_threads() >= 1
    assert FullBatch([[1.0]], [0], threads=3).threads == 3


# The Hessian.


@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_derivatives_against_differences(threads, blocks, l2):
    theta, X, y = data()
    V = np.random.default_rng(5).standard_normal(theta.shape)
    weights = whole_numbers(N) / 2
    problem = FullBatch(X, y, l2, weights, scale=SCALE, threads=threads)

    def gradient(theta):
        return problem.loss_and_grad(theta).grad

    check_gradient(lambda t: problem.loss_and_grad(t).loss, gradient, theta, directions=2)
    check_gradient(
        lambda t: np.vdot(gradient(t), V),
        lambda t: problem.hessian_vector_product(t, V),
        theta,
        directions=2,
    )


@given(st.integers(0, 999), st.integers(1, 4), st.integers(1, 3), st.integers(1, 6),
       st.sampled_from([0.0, 0.5]))  # fmt: skip
def test_the_hessian_is_the_definition_symmetric_and_positive_semi_definite(seed, k, d, n, l2):
    theta, X, y = data(k, d, n, seed)
    weights = whole_numbers(n, seed)
    H = hessian(FullBatch(X, y, l2, weights, scale=SCALE), theta)
    np.testing.assert_allclose(
        H, hessian_by_definition(theta, X, l2, weights, SCALE), rtol=0, atol=1e-14
    )
    np.testing.assert_allclose(H, H.T, rtol=0, atol=1e-14)
    assert np.linalg.eigvalsh(H).min() >= -1e-14


def test_without_weights_it_is_the_product_of_the_batch(threads, blocks):
    theta, X, y = data(7)
    V = np.random.default_rng(5).standard_normal(theta.shape)
    found = FullBatch(X, y, 0.1, scale=SCALE, threads=threads).hessian_vector_product(theta, V)
    np.testing.assert_allclose(
        found, hessian_vector_product(theta, V, X, 0.1, SCALE), rtol=0, atol=1e-14
    )
    assert found.flags.f_contiguous


def test_many_classes_with_weights():
    k, n = 5000, 9
    theta, X, _ = data(k, 2, n)
    y, weights = np.arange(n) * 600, whole_numbers(n) + 0.25
    problem = FullBatch(X, y, 0.1, weights, scale=SCALE)
    value, grad = by_definition(theta, X, y, 0.1, weights, SCALE)
    result = problem.loss_and_grad(theta)
    assert result.loss == pytest.approx(value, rel=1e-13)
    np.testing.assert_allclose(result.grad, grad, rtol=0, atol=1e-14)
    V = np.random.default_rng(1).standard_normal(theta.shape)
    step = 1e-5
    ahead, behind = (problem.loss_and_grad(theta + t * V).grad for t in (step, -step))
    np.testing.assert_allclose(
        problem.hessian_vector_product(theta, V), (ahead - behind) / (2 * step), rtol=0, atol=1e-9
    )
    assert problem.suboptimality(theta) == result.loss
    np.testing.assert_array_equal(problem.preconditioner(theta)(V), V)


# How far from the smallest value.


def smallest(problem, k):
    """Return the optimum in ``k`` classes, by SciPy."""
    optimize = pytest.importorskip("scipy.optimize")
    shape = k, problem.summary.num_inputs + 1

    def value_and_grad(flat):
        result = problem.loss_and_grad(flat.reshape(shape))
        return result.loss, result.grad.ravel()

    options = {"ftol": 1e-16, "gtol": 1e-10, "maxiter": 5000, "maxfun": 20000}
    start = np.zeros(math.prod(shape))
    found = optimize.minimize(value_and_grad, start, jac=True, method="L-BFGS-B", options=options)
    return found.fun, found.x.reshape(shape)


def problem_of(name, l2):
    """Return a problem, and the number of classes in it."""
    k, d, n = {"tall": (3, 4, 40), "two classes": (2, 2, 30),
               "more features": (3, 12, 6)}.get(name, (3, 3, 20))  # fmt: skip
    rng = np.random.default_rng(len(name))
    X, y = rng.standard_normal((d, n)), rng.integers(0, k, n)
    weights = rng.uniform(0, 3, n) if name == "weights" else None
    if name == "a class without samples":
        y[y == 1] = 2
    return FullBatch(X, y, l2, weights), k


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.floats(-6, 8), st.floats(-4, 1), st.booleans())
def test_the_bound_holds_on_any_problem(seed, spread, penalty, weighted):
    rng = np.random.default_rng(seed)
    k, d, n = rng.integers(2, 5), rng.integers(1, 4), rng.integers(1, 9)
    X, y = rng.standard_normal((d, n)), rng.integers(0, k, n)
    weights = rng.uniform(0.01, 1, n) if weighted else None
    problem = FullBatch(X, y, 10.0**penalty, weights)
    zeros, solve = np.zeros((k, d + 1)), problem.preconditioner
    x, history, _ = minimise(problem.loss_and_grad, zeros, preconditioner=solve, tol=1e-9)
    theta = rng.standard_normal(x.shape) * 10.0**spread
    for point in (theta, x + theta):
        loss, bound = problem.loss_and_grad(point).loss, problem.suboptimality(point)
        assert loss - history[-1].value - 1e-12 <= bound <= loss
    # At the optimum the bound says so; a class without samples has none.
    if len(np.unique(y)) == k:
        assert problem.suboptimality(x) <= 1e-7


def test_where_the_gradient_on_the_bias_is_zero_it_is_the_bound_of_strong_convexity():
    # Two classes whose samples mirror each other: without bias the gradient on it is 0.
    rng = np.random.default_rng(3)
    x, w = rng.standard_normal((3, 20)), 0.1 * rng.standard_normal(3)
    problem = FullBatch(np.hstack([x, -x]), np.repeat([0, 1], 20), 2.0)
    theta = np.array([[*w, 0], [*-w, 0]])
    result = problem.loss_and_grad(theta)
    np.testing.assert_allclose(result.grad[:, -1], 0, atol=1e-15)
    expected = (result.grad[:, :-1] ** 2).sum() / (2 * 2.0)
    assert 0 < expected < result.loss, "the cap hides the bound"
    assert problem.suboptimality(theta) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ["tall", "two classes", "more features", "weights"])
@pytest.mark.parametrize("distance", [1e-2, 1e-4])
def test_near_the_optimum_the_bound_is_tight(name, distance):
    problem, k = problem_of(name, l2=0.5)
    lowest, optimum = smallest(problem, k)
    rng = np.random.default_rng(1)
    for _ in range(5):
        theta = optimum + distance * rng.standard_normal(optimum.shape)
        gap = problem.loss_and_grad(theta).loss - lowest
        assert gap <= problem.suboptimality(theta) + 1e-12
        # Of strong convexity and the largest eigenvalue of the Hessian, over the penalty.
        largest = np.linalg.eigvalsh(hessian(problem, theta)).max()
        assert problem.suboptimality(theta) <= 1.2 * largest / 0.5 * gap + 1e-12


def test_the_dual_is_that_of_the_classes_with_samples():
    problem, _ = problem_of("a class without samples", l2=0.5)
    held = problem._store.samples
    lowest, two = smallest(FullBatch(held.X, held.y // 2, 0.5), 2)
    # The optimum but for the class that never occurs, whose probability is far from 0.
    theta = np.insert(two, 1, 0.0, axis=0)
    excess = problem.loss_and_grad(theta).loss - lowest
    assert excess > 0.1 and problem.suboptimality(theta) == pytest.approx(excess, abs=1e-9)


def test_probabilities_below_zero_are_no_bound():
    theta, X, y = data()
    P = softmax(theta[:, :-1] @ (X * SCALE) + theta[:, -1:])
    r = (P - np.eye(K)[:, y]).mean(axis=1)
    delta = -np.linalg.pinv(np.diag(P.mean(axis=1)) - P @ P.T / N) @ r
    assert (1 + delta[:, None] - delta @ P).min() < 0
    problem = FullBatch(X, y, 100.0, scale=SCALE)
    assert problem.suboptimality(theta) == problem.loss_and_grad(theta).loss


def test_a_change_of_the_bias_that_rounding_spoils_is_no_bound():
    """Probabilities of about 1e-16 leave nearly no digit of what they change."""
    problem = FullBatch(np.zeros((1, 4)), [0, 1, 1, 1], 0.1)
    lowest = -(np.log(1 / 4) + 3 * np.log(3 / 4)) / 4
    for bias in np.linspace(30, 40, 101):
        theta = np.array([[0.0, bias], [0.0, 0.0]])
        assert problem.suboptimality(theta) >= problem.loss_and_grad(theta).loss - lowest - 1e-12


@pytest.mark.parametrize("label", [0, 1, 2])
def test_a_class_whose_samples_weigh_nothing_is_one_without_samples(label):
    theta, X, _ = data(3, n=9)
    y = np.arange(9) % 3
    weights = (y != label) * 1.0
    kept = y != label
    found = FullBatch(X, y, 0.1, weights, scale=SCALE).suboptimality(theta)
    expected = FullBatch(X[:, kept], y[kept], 0.1, scale=SCALE).suboptimality(theta)
    assert found == pytest.approx(expected, rel=1e-12)


def test_far_away_or_without_a_penalty_it_is_the_objective(monkeypatch):
    theta, X, y = data()
    assert (problem := FullBatch(X, y)).suboptimality(theta) == problem.loss_and_grad(theta).loss
    problem = FullBatch(X, y, 0.1, scale=SCALE)
    far = 1e4 * theta
    assert problem.suboptimality(far) == problem.loss_and_grad(far).loss
    monkeypatch.setattr(full_batch, "MAX_PRECONDITIONED_CLASSES", K - 1)
    assert problem.suboptimality(theta) == problem.loss_and_grad(theta).loss


def test_the_bound_in_blocks_and_parts(threads, blocks):
    theta, X, y = data()
    weights = whole_numbers(N) / 2
    found = FullBatch(X, y, 0.4, weights, scale=SCALE, threads=threads).suboptimality(0.1 * theta)
    assert 0 < found < 0.9 * FullBatch(X, y, 0.4, weights).loss_and_grad(0.1 * theta).loss
    # J - D(Q) by the formulas of the derivation, densely.
    shares, A, W = weights / weights.sum(), X * SCALE, 0.1 * theta[:, :-1]
    P = softmax(W @ A + 0.1 * theta[:, -1:])
    r = (P - np.eye(K)[:, y]) @ shares
    C = np.diag(P @ shares) - (P * shares) @ P.T
    delta = -np.linalg.pinv(C) @ r
    Q = P * (1 + delta[:, None] - delta @ P)
    G = ((Q - np.eye(K)[:, y]) * shares) @ A.T
    dual = -((Q * np.log(Q)).sum(axis=0) @ shares) - (G**2).sum() / (2 * 0.4)
    value, _ = by_definition(0.1 * theta, X, y, 0.4, weights, SCALE)
    assert found == pytest.approx(value - dual, rel=1e-10)


def test_a_dual_value_that_overflows_is_no_bound():
    # G is a sum of infinities of both signs.
    X = np.array([[1e300, -1e300, 1e300, 2e300]])
    problem = FullBatch(X, [0, 1, 0, 1], 0.1, scale=1e20)
    assert problem.suboptimality(np.zeros((2, 2))) == pytest.approx(np.log(2))


def test_the_bound_at_float32_parameters_is_that_at_their_values():
    theta, X, y = data()
    problem = FullBatch(X, y, 0.4, scale=SCALE)
    single = (0.1 * theta).astype(np.float32)
    assert problem.suboptimality(single) == problem.suboptimality(single.astype(np.float64))


def test_another_penalty_is_that_of_a_new_objective_on_the_same_samples():
    theta, X, y = data()
    factors, weights = np.arange(1.0, len(X) + 1), whole_numbers(N) / 2
    old = FullBatch(X, y, 0.1, weights, scale=SCALE, penalty_factor=factors)
    new = FullBatch(X, y, 0.7, weights, scale=SCALE, penalty_factor=factors)
    again = old.with_l2(0.7)
    assert again._store is old._store and old.l2 == 0.1
    value, grad, *_ = again.loss_and_grad(theta)
    expected, expected_grad, *_ = new.loss_and_grad(theta)
    assert value == expected and grad.tobytes() == expected_grad.tobytes()
    assert again.suboptimality(theta) == new.suboptimality(theta)
    part = again.subset(np.arange(5))
    np.testing.assert_array_equal(part.penalty, new.penalty)
    np.testing.assert_array_equal(part.with_l2(0.1).penalty, old.penalty)


def test_the_span_follows_another_penalty():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((30, 8)), np.arange(8) % 2
    problem = FullBatch(X, y, 0.1)
    problem.in_span()
    span, inner = problem.with_l2(1.0).in_span()
    theta = span.leave(span.enter(rng.standard_normal((2, 31))))
    expected = FullBatch(X, y, 1.0).loss_and_grad(theta).loss
    assert inner.loss_and_grad(span.enter(theta)).loss == pytest.approx(expected)


# No warnings.


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [0.0, 1e-40, 1e-20, 1.0, 1e10, 1e30])
def test_the_error_state_of_the_caller_does_not_matter(threads, dtype, size):
    theta, X, y = data()
    theta = (theta * size).astype(dtype)
    weights = np.where(np.arange(N) % 3, 1e-200, 1.0) * (np.arange(N) % 5)
    for given_weights in (None, weights):
        problem = FullBatch(X, y, 1e-3, given_weights, scale=SCALE, threads=threads)

        with np.errstate(all="raise"):
            raising = everything(problem, theta)
        with np.errstate(all="ignore"):
            ignoring = everything(problem, theta)
        for a, b in zip(raising, ignoring, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_objective_that_overflows_is_infinite_without_a_warning(dtype):
    theta, X, y = data()
    theta = (theta * (np.finfo(dtype).max / 4)).astype(dtype)
    result = FullBatch(X, y, 1.0).loss_and_grad(theta)
    assert not np.isfinite(result.loss)


# What is refused.


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"X": np.zeros(3)}, ShapeError, r"X: expected shape \(features, samples\), got \(3,\)"),
        ({"X": np.zeros((2, 4))}, ShapeError, r"as many labels as samples, got X \(2, 4\)"),
        ({"X": np.zeros((2, 0)), "y": np.zeros(0, int)}, ShapeError, "at least one sample"),
        ({"X": np.array([[1.0, np.nan, 0.0]])}, InputError, "finite numbers, got nan in feature 0"),
        ({"y": [0, -1, 1]}, LabelError, r"labels 0\.\.k-1, got labels from -1 to 1"),
        ({"l2": -0.1}, InputError, "l2: expected a number of at least 0, got -0.1"),
        ({"l2": np.nan}, InputError, "l2: expected a number of at least 0, got nan"),
        ({"l2": np.inf}, InputError, "l2: expected a number of at least 0, got inf"),
        ({"sample_weight": 2.0}, ShapeError, r"each of 3 samples, got the number 2.0"),
        ({"sample_weight": [0, 0, 0]}, InputError, "not all 0, got numbers that sum to 0"),
        ({"sample_weight": [1e308, 1e308, 1e308]}, InputError, "sample_weight"),
        ({"scale": 0.0}, InputError, "scale: expected a magnitude"),
        ({"scale": np.nan}, InputError, "scale: expected a magnitude"),
        ({"threads": 0}, InputError, "threads: expected a whole number of at least 1, got 0"),
    ],
)
def test_refusals(changes, error, message):
    with pytest.raises(error, match=message):
        FullBatch(**{"X": np.zeros((2, 3)), "y": [0, 1, 1], **changes})


@pytest.mark.parametrize(
    "method", ["loss_and_grad", "hessian_vector_product", "preconditioner", "suboptimality"]
)
@pytest.mark.parametrize(
    ("theta", "error", "message"),
    [
        (np.zeros((2, 2)), ShapeError, r"\(k, 3\) with k of at least 2, .* got \(2, 2\)"),
        (np.zeros((1, 3)), ShapeError, r"k of at least 2, one more than .* got \(1, 3\)"),
        (np.zeros(6), ShapeError, r"got \(6,\)"),
        (np.zeros((2, 3), int), InputError, "float32 or float64, got int64"),
        (np.zeros((2, 3), np.float16), InputError, "float32 or float64, got float16"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(method, theta, error, message):
    problem = FullBatch(np.zeros((2, 3)), [0, 1, 1])
    arguments = (theta, theta) if method == "hessian_vector_product" else (theta,)
    with pytest.raises(error, match=message):
        getattr(problem, method)(*arguments)


@pytest.mark.parametrize(
    ("V", "error", "message"),
    [
        (np.zeros((2, 2)), ShapeError, r"V: expected theta's shape \(2, 3\), got \(2, 2\)"),
        (np.full((2, 3), 1j), InputError, "V"),
    ],
)
def test_directions_that_do_not_fit_are_refused(V, error, message):
    problem = FullBatch(np.zeros((2, 3)), [0, 1, 1])
    with pytest.raises(error, match=message):
        problem.hessian_vector_product(np.zeros((2, 3)), V)
