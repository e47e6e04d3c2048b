"""Sparse samples give the numbers of the same samples in a dense array."""

import json
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import npsoftmax as nps
from npsoftmax import _sparse
from npsoftmax.errors import InputError, ShapeError
from npsoftmax.functional import affine, affine_grad
from npsoftmax.objective import (
    FullBatch,
    hessian_vector_product,
    hot_loop,
    loss_and_grad,
    preconditioner,
    sample_losses,
)

D, N, K = 7, 40, 3


def draw(d=D, n=N, k=K, seed=0, density=0.3, dtype=np.float64):
    rng = np.random.default_rng(seed)
    dense = np.where(rng.random((d, n)) < density, rng.standard_normal((d, n)), 0.0).astype(dtype)
    theta = np.asfortranarray(rng.standard_normal((k, d + 1)))
    return np.asfortranarray(dense), rng.integers(0, k, n), theta


FORMATS = [sp.csc_array, sp.csr_array, sp.coo_array, sp.lil_array, sp.csc_matrix, sp.csr_matrix]


@pytest.mark.parametrize("make", FORMATS)
def test_every_format_gives_the_same_numbers(make):
    dense, y, theta = draw()
    X = make(dense)
    np.testing.assert_allclose(affine(theta, X, 0.5), affine(theta, dense, 0.5), rtol=1e-13)
    dZ = np.asfortranarray(np.random.default_rng(1).standard_normal((K, N)))
    np.testing.assert_allclose(affine_grad(dZ, X, 0.5), affine_grad(dZ, dense, 0.5), rtol=1e-12)
    of_sparse, of_dense = loss_and_grad(theta, X, y, 0.1), loss_and_grad(theta, dense, y, 0.1)
    assert of_sparse.loss == pytest.approx(of_dense.loss, rel=1e-14)
    np.testing.assert_allclose(of_sparse.grad, of_dense.grad, atol=1e-15)
    assert (of_sparse.predicted == of_dense.predicted).all()


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 50), st.integers(1, 4))
def test_the_objective_is_that_of_the_dense_samples(seed, d, n, k):
    dense, y, theta = draw(d, n, k, seed)
    weights = np.random.default_rng(seed).random(n) + 0.1
    for threads in (1, 2):
        problems = [
            FullBatch(X, y, 0.1, weights, scale=0.5, threads=threads)
            for X in (sp.csr_array(dense.T).T, dense)
        ]
        of_sparse, of_dense = (problem.loss_and_grad(theta) for problem in problems)
        assert of_sparse.loss == pytest.approx(of_dense.loss, rel=1e-13)
        np.testing.assert_allclose(of_sparse.grad, of_dense.grad, rtol=1e-11, atol=1e-14)
        products = [problem.hessian_vector_product(theta, theta[::-1]) for problem in problems]
        np.testing.assert_allclose(*products, rtol=1e-10, atol=1e-13)
        bounds = [problem.suboptimality(theta) for problem in problems]
        assert bounds[0] == pytest.approx(bounds[1], rel=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int64, np.bool_])
@pytest.mark.parametrize("k", [2, 3])
def test_numbers_of_every_dtype(dtype, k):
    rng = np.random.default_rng(2)
    dense = np.asfortranarray((rng.random((D, N)) < 0.3) * rng.integers(1, 5, (D, N))).astype(dtype)
    y = rng.integers(0, k, N)
    theta = np.asfortranarray(rng.standard_normal((k, D + 1)))
    of_sparse, of_dense = (
        loss_and_grad(theta, sp.csc_array(dense), y),
        loss_and_grad(theta, dense, y),
    )
    np.testing.assert_allclose(of_sparse.grad, of_dense.grad, rtol=1e-6, atol=1e-9)


def test_blocks_of_samples_and_of_classes_add_up(monkeypatch):
    dense, y, theta = draw(n=300)
    expected = loss_and_grad(theta, dense, y)
    monkeypatch.setattr(hot_loop, "MAX_SPARSE_SAMPLES", 64)
    monkeypatch.setattr(hot_loop, "MIN_BLOCK_SAMPLES", 64)
    found = loss_and_grad(theta, sp.csc_array(dense), y)
    np.testing.assert_allclose(found.grad, expected.grad, rtol=1e-12)
    monkeypatch.setattr(hot_loop, "MAX_BLOCK_LOGITS", 2 * 64)  # two classes at a time
    found = loss_and_grad(theta, sp.csc_array(dense), y)
    np.testing.assert_allclose(found.grad, expected.grad, rtol=1e-12)
    product = hessian_vector_product(theta, theta, sp.csc_array(dense))
    np.testing.assert_allclose(product, hessian_vector_product(theta, theta, dense), rtol=1e-11)


def test_losses_of_samples():
    dense, y, theta = draw()
    for found, expected in zip(
        sample_losses(theta, sp.coo_array(dense), y), sample_losses(theta, dense, y), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-14)


def fitted(X, y, l2=0.01, **settings):
    model = nps.SoftmaxRegression(X.shape[0], K, sigma=0, dtype=np.float64)
    return model, nps.fit(model, X, y, l2=l2, **settings)


@pytest.mark.parametrize("l2", [0.0, 0.01])
@pytest.mark.parametrize("n", [N, 4000])
def test_fit_reaches_the_optimum_of_the_dense_samples(l2, n):
    dense, y, _ = draw(n=n)
    (of_sparse, found), (of_dense, expected) = (
        fitted(sp.csc_array(dense), y, l2),
        fitted(dense, y, l2),
    )
    assert found.converged and found.objective == pytest.approx(expected.objective, rel=1e-9)
    np.testing.assert_allclose(of_sparse.theta, of_dense.theta, atol=1e-4)


def wide(n=300, d=2500, seed=0):
    """Draw samples with a few words each, some of which tell the class."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % K
    columns = [
        np.unique(np.r_[rng.zipf(1.3, 20) % d, 7 * label + rng.integers(0, 7, 2)]) for label in y
    ]
    indptr = np.cumsum([0, *map(len, columns)])
    rows = sp.csr_array((np.ones(indptr[-1]), np.concatenate(columns), indptr), shape=(n, d))
    return rows.T / 4, y


@pytest.mark.parametrize("l2", [1e-2, 1e-4])
@pytest.mark.parametrize("n", [300, 3000])
def test_many_features_are_preconditioned_by_a_few_directions(l2, n):
    X, y = wide(n)
    problem = FullBatch(X, y, l2)
    assert problem.choose_preconditioner(K).is_low_rank
    model, optimum = fitted(X, y, l2, tol=1e-7)
    dense, expected = fitted(X.toarray(), y, l2, tol=1e-7)
    assert optimum.converged and optimum.suboptimality < 1e-6 * optimum.objective
    assert optimum.objective == pytest.approx(expected.objective, rel=1e-6)
    assert np.abs(model(X) - dense(X)).max() < 1e-3


def test_the_preconditioner_is_the_inverse_if_there_are_few_directions():
    # Two samples: M has two eigenvalues that are not 0, and no others to guess.
    X = sp.csc_array(np.eye(6, 2) * 3.0)
    y, l2 = np.array([0, 1]), 0.5
    theta = np.zeros((2, 7))
    problem = FullBatch(X, y, l2)
    choice = preconditioner.Choice(0.0, True, True, True)
    solve = preconditioner.preconditioner_at(theta, problem._store, l2, 1.0, choice)
    V = np.zeros((2, 7))
    V[:, :6] = np.outer([1, -1], [1.0, 2, 0, 0, 3, 0])
    V[:, 6] = -V[0, :2].sum(), V[0, :2].sum()
    product = problem.hessian_vector_product(theta, V)
    assert np.linalg.norm(solve(product) - V) < 0.01 * np.linalg.norm(V)


def test_threads_give_the_same_optimum():
    X, y = wide(2000)
    one, two = (fitted(X, y, 1e-3, threads=threads)[1] for threads in (1, 2))
    assert one.objective == pytest.approx(two.objective, rel=1e-6)


def test_minibatches_are_those_of_the_dense_samples():
    dense, y, _ = draw(n=50)
    loaders = [nps.DataLoader(X, y, 16, shuffle=True, seed=3) for X in (sp.csr_array(dense), dense)]
    for (some, labels), (expected, same) in zip(*loaders, strict=True):
        assert some.format == "csc" and (labels == same).all()
        assert (some.toarray() == expected).all()


def test_a_run_on_sparse_samples_resumes_bit_for_bit(tmp_path):
    X, y = wide(300)

    def trainer(epochs):
        model = nps.SoftmaxRegression(X.shape[0], K, seed=1)
        loader = nps.DataLoader(X, y, 64, shuffle=True)
        return nps.Trainer(model, nps.Momentum(0.5), loader, test=(X, y), l2=1e-3), epochs

    whole, _ = trainer(4)
    whole.fit(4)
    first, _ = trainer(2)
    first.fit(2)
    first.save_checkpoint(tmp_path / "checkpoint.npz")
    second, _ = trainer(2)
    second.resume(tmp_path / "checkpoint.npz")
    second.fit(2)
    assert (second.model.theta == whole.model.theta).all()
    assert whole.history[-1].test_acc > whole.history[0].test_acc


def test_predictions_of_a_model():
    dense, y, theta = draw()
    model = nps.SoftmaxRegression(D, K, dtype=np.float64)
    model.theta[:] = theta
    X = sp.coo_array(dense)
    np.testing.assert_allclose(model.logits(X), model.logits(dense), rtol=1e-13)
    assert model.top_k(X, 2)[5][0][0] == model.top_k(dense, 2)[5][0][0]
    assert (model.predict(X) == model.predict(dense)).all()
    for samples in (X, dense):
        model.fit_class_means(samples, y)
        np.testing.assert_allclose(model.novelty(X), model.novelty(dense), rtol=1e-6)
    assert model.calibrate(X, y) == pytest.approx(model.temperature)


@pytest.mark.parametrize("options", [{}, {"shuffle": True}, {"stratified": np.arange(N) % K}])
def test_a_split_is_that_of_the_dense_samples(options):
    dense, y, _ = draw()
    pieces = nps.splitobs((sp.csr_array(dense), y), at=0.7, rng=1, **options)
    for (X, labels), (expected, same) in zip(
        pieces, nps.splitobs((dense, y), at=0.7, rng=1, **options), strict=True
    ):
        assert (X.toarray() == expected).all() and (labels == same).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64, np.float32])
def test_squares_of_small_integers_do_not_overflow(dtype):
    dense = np.array([[100, 110, 0, 0], [0, 0, 100, 120]], dtype)
    y, model = np.array([0, 0, 1, 1]), nps.SoftmaxRegression(2, 2)
    model.fit_class_means(sp.csc_array(dense), y)
    assert model.novelty(sp.csc_array(dense)) == pytest.approx(np.ones(4))


@pytest.mark.parametrize(("n", "d", "l2"), [(14, 19, 1e-8), (30, 40, 1e-6), (50, 200, 1e-6)])
def test_few_samples_are_solved_in_their_span(n, d, l2):
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((d, n)) * 10.0 ** rng.integers(-2, 3, (d, 1))
    y = rng.integers(0, K, n)
    found, expected = (fitted(X, y, l2)[1] for X in (sp.csc_array(dense), dense))
    assert found.converged and found.objective == pytest.approx(expected.objective, rel=1e-3)


def test_a_block_of_sparse_samples_is_that_of_the_dense_ones():
    dense, y, theta = draw(n=200)
    solves = [FullBatch(X, y, 0.1).preconditioner(theta) for X in (sp.csc_array(dense), dense)]
    grad = np.random.default_rng(0).standard_normal(theta.shape)
    np.testing.assert_allclose(*(solve(grad) for solve in solves), rtol=1e-9, atol=1e-12)


def test_a_sample_without_features_has_the_biases_as_logits():
    model = nps.SoftmaxRegression(D, K, dtype=np.float64)
    model.b[:] = [[1], [2], [3]]
    assert model.logits(sp.csc_array((D, 2))).T.tolist() == [[1, 2, 3]] * 2


def test_numbers_in_one_place_are_added_and_the_callers_array_stays():
    rows = np.array([2, 0, 2, 1])
    X = sp.csc_array((np.array([1.0, 5.0, 2.0, 0.0]), rows, np.array([0, 3, 4])), (3, 2))
    before = X.data.copy(), X.indices.copy()
    taken = _sparse.as_compressed(X, "X")
    assert taken.toarray().tolist() == [[5, 0], [0, 0], [3, 0]]
    assert (X.data == before[0]).all() and (X.indices == before[1]).all()


def test_indices_of_64_bits():
    dense, y, theta = draw()
    X = sp.csc_array(dense)
    X.indices, X.indptr = X.indices.astype(np.int64), X.indptr.astype(np.int64)
    expected = loss_and_grad(theta, dense, y).loss
    assert loss_and_grad(theta, X, y).loss == pytest.approx(expected, rel=1e-14)


def test_compressed_rows_are_not_copied():
    rows = sp.csr_array(draw()[0].T)
    assert np.shares_memory(_sparse.as_compressed(rows.T, "X").data, rows.data)
    part = _sparse.columns(_sparse.as_compressed(rows.T, "X"), slice(3, 39))
    assert np.shares_memory(part.data, rows.data)
    assert (part.toarray() == rows.T.toarray()[:, 3:39]).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_number_that_is_not_finite_is_named(value):
    dense, y, _ = draw()
    dense[4, 17] = value
    with pytest.raises(InputError, match=f"got {value} in feature 4 of sample 17"):
        FullBatch(sp.csc_array(dense), y)


def test_what_cannot_be_taken_is_refused():
    dense, y, _ = draw()
    X = sp.csc_array(dense)
    with pytest.raises(ShapeError, match=r"expected as many labels.*pass X\.T"):
        FullBatch(X.T, y)
    with pytest.raises(ShapeError, match=r"expected 7 features along axis 0.*pass X\.T"):
        nps.SoftmaxRegression(D, K).predict(X.T)
    with pytest.raises(InputError, match="complex"):
        FullBatch(X * 1j, y)
    with pytest.raises(InputError, match="y: expected a dense array"):
        FullBatch(X, sp.csc_array(y[None]))
    broken = sp.csc_array(dense)
    broken.indices[0] = 99
    with pytest.raises(InputError, match="damaged"):
        FullBatch(broken, y)
    with pytest.raises(ShapeError, match="at least one sample"):
        FullBatch(X[:, :0], y[:0])


def test_only_a_sparse_array_imports_scipy():
    code = (
        "import sys, numpy as np, npsoftmax as nps;"
        "X = np.random.default_rng(0).random((5, 30));"
        "nps.fit(nps.SoftmaxRegression(5, 2), X, np.arange(30) % 2, l2=0.1);"
        "print('scipy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_nothing_as_large_as_the_dense_samples_is_made():
    # Dense, the samples would take 4 GB.
    code = """if True:
        import json, resource, numpy as np, scipy.sparse as sp, npsoftmax as nps
        rng, many = np.random.default_rng(0), 100_000
        places = rng.integers(0, 100_000, many), rng.integers(0, 5_000, many)
        X = sp.csc_array(sp.coo_array((rng.random(many), places), (100_000, 5_000)))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        model = nps.SoftmaxRegression(100_000, 2, sigma=0)
        nps.fit(model, X, np.arange(5_000) % 2, l2=1e-3, threads=1)
        model.predict(X)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps((after - before) / 1024))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) < 150


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_separation_by_a_feature_is_found(seed):
    dense, y, _ = draw(seed=seed)
    y[:3] = range(K)
    dense[2] = 0
    dense[2, y == 1] = 1.0 + np.random.default_rng(seed).random((y == 1).sum())
    problems = [FullBatch(X, y) for X in (sp.csc_array(dense), dense)]
    of_sparse, of_dense = (problem.separating_features(K) for problem in problems)
    assert of_sparse == of_dense and 2 in of_sparse.features


@pytest.mark.parametrize("make", [sp.csc_array, sp.csr_array])
@pytest.mark.parametrize("part", ["indices", "indptr"])
def test_damaged_indices_are_found_before_compiled_code_uses_them(make, part):
    X = make(np.eye(4))
    getattr(X, part)[1] = 10**6
    with pytest.raises(InputError, match="damaged"):
        _sparse.as_compressed(X, "X")
