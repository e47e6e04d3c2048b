"""The objective on a cluster equals that of one machine, for any chunks."""

import gzip

import numpy as np
import pytest
from running import INSTALL

pytest.importorskip("distributed", reason=INSTALL)
import dask.array as da
from clusters import cluster_of, overlapping
from dask import delayed
from distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from npsoftmax import FullBatchTrainer, SoftmaxRegression, fit, load, metrics
from npsoftmax.data import idx
from npsoftmax.errors import (
    ClusterError,
    CorruptFileError,
    InputError,
    LabelError,
    ResumeWarning,
    ShapeError,
)
from npsoftmax.ext import _cluster_worker, cluster
from npsoftmax.objective import FullBatch, newton, preconditioner

K, D = 3, 5
THETA = np.random.default_rng(1).standard_normal((K, D + 1))


@pytest.fixture(scope="module")
def client():
    """Three workers as threads of this process: the same messages, at once."""
    with cluster_of(3, processes=False) as client:
        yield client


@pytest.fixture(scope="module", autouse=True)
def lbfgs_alone():
    """Let the comparison on one machine use L-BFGS too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(newton, "MAX_ROWS", 0)
        yield


def cut(rows, sizes):
    """Return a Dask array with chunks of these sizes."""
    return da.from_array(rows, chunks=(tuple(sizes), *([-1] * (rows.ndim - 1))))


def check_same(there, here, theta, atol):
    """Compare all methods that a solver calls."""
    V = np.random.default_rng(9).standard_normal(theta.shape).astype(theta.dtype)
    found, expected = there.loss_and_grad(theta), here.loss_and_grad(theta)
    assert found.loss == pytest.approx(expected.loss, rel=0, abs=atol)
    assert found.crossentropy == pytest.approx(expected.crossentropy, rel=0, abs=atol)
    assert found.accuracy == pytest.approx(expected.accuracy, rel=1e-14)
    np.testing.assert_allclose(found.grad, expected.grad, rtol=0, atol=atol)
    assert found.grad.flags.f_contiguous and found.grad.dtype == theta.dtype
    product = there.hessian_vector_product(theta, V)
    np.testing.assert_allclose(product, here.hessian_vector_product(theta, V), rtol=0, atol=atol)
    assert there.suboptimality(theta) == pytest.approx(here.suboptimality(theta), abs=atol)


# Any chunks.


@settings(max_examples=40)
@given(
    st.lists(st.integers(0, 25), min_size=1, max_size=7).filter(lambda sizes: sum(sizes) > 1),
    st.integers(1, 6),
    st.integers(2, 5),
    st.sampled_from(["uint8", "int16", "float32", "float64"]),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_it_equals_the_objective_of_one_machine_for_any_chunks(
    client, sizes, d, k, dtype, weighted, seed
):
    rng = np.random.default_rng(seed)
    n = sum(sizes)
    rows = rng.integers(0, 50, size=(n, d)).astype(dtype)
    y, theta = rng.integers(k, size=n), rng.standard_normal((k, d + 1))
    weights = rng.uniform(0.1, 3, n) if weighted else None
    more = {"scale": 0.1, "penalty_factor": rng.uniform(0.1, 3, d) if weighted else None}
    there = cluster.FullBatch(cut(rows, sizes), y, 0.1, client, weights, **more)
    here = FullBatch(rows.T, y, 0.1, weights, **more)
    check_same(there, here, theta, atol=1e-12)
    assert there.summary.dtype == dtype and there.summary.num_samples == n
    np.testing.assert_allclose(there.summary.class_totals, here.summary.class_totals, rtol=1e-14)
    M, N = there.preconditioner(theta), here.preconditioner(theta)
    V = rng.standard_normal(theta.shape)
    np.testing.assert_allclose(M(V), N(V), rtol=1e-8, atol=1e-8)


@settings(max_examples=20)
@given(
    st.lists(st.integers(0, 120), min_size=1, max_size=8).filter(lambda sizes: sum(sizes) > 20),
    st.sampled_from([1e-3, 1e-2, 1.0]),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_optimum_and_coefficients_equal_those_of_one_machine(client, sizes, l2, weighted, seed):
    rows, y = overlapping(sum(sizes), seed=seed)
    weights = np.random.default_rng(seed).uniform(0.1, 3, len(y)) if weighted else None
    models = [SoftmaxRegression(D, K, dtype=np.float64) for _ in range(2)]
    problem = cluster.FullBatch(cut(rows, sizes), y, l2, client, weights)
    there = FullBatchTrainer(models[0], problem, tol=1e-10).fit()
    here = fit(models[1], rows.T, y, l2=l2, sample_weight=weights, tol=1e-10, threads=1)
    assert there.converged and here.converged
    assert there.objective == pytest.approx(here.objective, rel=0, abs=1e-10)
    np.testing.assert_allclose(models[0].theta, models[1].theta, rtol=0, atol=1e-10)


@pytest.mark.parametrize("l2", [0.0, 1e-12])
def test_the_end_is_told_as_on_one_machine(client, l2):
    rows, y = overlapping(600)
    rows = np.column_stack([rows, y == 1])
    models = [SoftmaxRegression(D + 1, K, dtype=np.float64) for _ in range(2)]
    problem = cluster.FullBatch(cut(rows, [100, 0, 300, 200]), y, l2, client)
    there = FullBatchTrainer(models[0], problem, tol=1e-6).fit()
    here = fit(models[1], rows.T, y, l2=l2, tol=1e-6)
    assert there.reason == here.reason == ("converged" if l2 else "separated")
    assert there.advice == here.advice and there.features == here.features


def test_a_start_on_a_subset_and_a_preconditioner_of_a_sample(client, monkeypatch):
    # Both stay on the workers, and equal those of one machine: 7,000 rows are enough for a subset.
    monkeypatch.setattr(preconditioner, "MIN_SAMPLES", 1000)
    monkeypatch.setattr(preconditioner, "PASSES", 0)
    monkeypatch.setattr(preconditioner, "CANDIDATES", 2)
    rows, y = overlapping(7000)
    models = [SoftmaxRegression(D, K, dtype=np.float64) for _ in range(2)]
    problem = cluster.FullBatch(cut(rows, [100, 0, 4000, 2900]), y, 1e-3, client)
    there = FullBatchTrainer(models[0], problem, tol=1e-10).fit()
    here = fit(models[1], rows.T, y, l2=1e-3, tol=1e-10)
    assert there.converged and there.iterations == here.iterations
    assert there.evaluations == here.evaluations
    np.testing.assert_allclose(models[0].theta, models[1].theta, rtol=0, atol=1e-12)


@pytest.mark.parametrize("fan_in", [2, 3])
def test_answers_of_many_shards_are_combined_in_a_tree(monkeypatch, fan_in):
    monkeypatch.setattr(cluster, "FAN_IN", fan_in)
    rows, y = overlapping(110)
    with cluster_of(1, processes=False, threads=11) as client:
        received = []
        there = cluster.FullBatch(cut(rows, [10] * 11), y, 0.1, client)
        original = client.gather
        monkeypatch.setattr(
            client, "gather", lambda f, **s: received.append(len(f)) or original(f, **s)
        )
        check_same(there, FullBatch(rows.T, y, 0.1), THETA, atol=1e-13)
        assert there.threads == 11 and received and set(received) <= set(range(1, fan_in + 1))


def test_answers_do_not_grow_with_the_samples(client):
    theta = np.zeros((K, D + 1), np.float32)
    sizes = []
    for n in (600, 6000):
        rows, y = overlapping(n)
        problem = cluster.FullBatch(cut(rows, [n // 3] * 3), y, 1e-2, client)
        problem.loss_and_grad(theta)
        sizes.append([len(answer) for answer in client.gather(problem._store._previous[-1])])
    assert sizes[0] == sizes[1] and max(sizes[1]) < theta.nbytes + 2000


def chunks_on(client, problem):
    """Return the chunks that the workers hold."""
    return [chunk for shard in client.gather(problem._store._shards) for chunk in shard.chunks]


@pytest.mark.parametrize("order", ["C", "F"])
def test_bytes_stay_bytes_on_the_workers_in_fortran_order(client, order):
    rows = np.arange(60, dtype=np.uint8).reshape(12, 5)
    X = cut(rows, [5, 7]).map_blocks(np.asarray, order=order, dtype=np.uint8)
    chunks = chunks_on(client, cluster.FullBatch(X, np.arange(12) % 3, 0.1, client))
    assert [chunk.X.dtype for chunk in chunks] == [np.uint8] * 2
    assert all(chunk.X.flags.f_contiguous for chunk in chunks)
    assert [chunk.start for chunk in chunks] == [0, 5]
    np.testing.assert_array_equal(np.hstack([chunk.X for chunk in chunks]), rows.T)


def test_chunks_may_be_cut_along_features_and_labels_and_weights_differently(client):
    rows, y = overlapping()
    weights = np.random.default_rng(2).uniform(0, 2, len(y))
    X, labels = da.from_array(rows, chunks=(100, 2)), da.from_array(y, chunks=70)
    there = cluster.FullBatch(X, labels, 0.1, client, da.from_array(weights, chunks=33))
    check_same(there, FullBatch(rows.T, y, 0.1, weights), THETA, atol=1e-13)


# Files.


@pytest.fixture
def files(tmp_path):
    """Write images of bytes in every kind of file, and labels; return paths, rows and labels."""
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(50, 2, 3), dtype=np.uint8)
    labels = rng.integers(3, size=50).astype(np.uint8)
    X, y = [], []
    for name, first, stop in (("raw", 0, 20), ("gz", 20, 31), ("none", 31, 31), ("npy", 31, 50)):
        idx.write(tmp_path / f"y-{name}", labels[first:stop])
        y.append(tmp_path / f"y-{name}")
        X.append(tmp_path / f"x-{name}")
        if name == "npy":
            np.save(tmp_path / "x-npy.npy", np.asfortranarray(images[first:stop]))
            X[-1] = tmp_path / "x-npy.npy"
        else:
            idx.write(X[-1], images[first:stop])
        if name == "gz":
            X[-1].write_bytes(gzip.compress(X[-1].read_bytes()))
    return X, y, images.reshape(50, -1), labels


@pytest.mark.parametrize(
    ("block_size", "sizes"),
    [
        (None, [17, 3, 11, 17, 2]),  # a chunk for each of three threads has at most 17 rows
        (7, [7, 7, 6, 7, 4, 7, 7, 5]),
        (1000, [20, 11, 19]),
    ],
)
@pytest.mark.parametrize("labels_in", ["files", "memory"])
def test_files_are_read_by_the_workers(client, files, block_size, sizes, labels_in):
    X, y, rows, labels = files
    weights = np.random.default_rng(4).uniform(0, 2, 50) if block_size == 7 else None
    there = cluster.FullBatch(
        X, y if labels_in == "files" else labels, 0.1, client, weights, scale=1 / 255,
        block_size=block_size,
    )  # fmt: skip
    here = FullBatch(rows.T, labels, 0.1, weights, scale=1 / 255)
    check_same(there, here, np.random.default_rng(1).standard_normal((K, 7)), atol=1e-13)
    assert [chunk.y.size for chunk in chunks_on(client, there)] == sizes


def test_files_of_float64_and_int64(client, tmp_path):
    rows, y = overlapping(30)
    idx.write(tmp_path / "x", rows)
    np.save(tmp_path / "y.npy", y)
    there = cluster.FullBatch([tmp_path / "x"], [tmp_path / "y.npy"], 0.1, client, block_size=11)
    check_same(there, FullBatch(rows.T, y, 0.1), THETA, atol=1e-13)


def test_files_that_are_missing_or_corrupt_or_do_not_match_are_refused(client, files, tmp_path):
    X, y, _, labels = files
    absent, objects, other, cut_off, text = (
        tmp_path / name for name in ("absent", "objects.npy", "other.npy", "cut", "text")
    )
    np.save(objects, np.array([{}], dtype=object), allow_pickle=True)
    np.save(other, np.zeros((19, 6)))
    cut_off.write_bytes(X[1].read_bytes()[:20])
    text.write_bytes(b"no numbers")
    on_worker = "on worker inproc://.*"
    for samples, given_labels, kind, message in [
        (X, y[:3], ShapeError, "a file of labels for each of 4 files of X, got 3"),
        (X, [y[0], y[0], *y[2:]], ShapeError, r"y-raw: expected 11 labels, one for .*x-gz"),
        (X, labels[1:], ShapeError, "y: expected one for each of 50 rows of X"),
        (X, "a", InputError, "y: expected labels, or a list of files .*got 'a'"),
        ([*X[:2], other], [*y[:2], y[3]], ShapeError,
         r"other.npy: expected rows of 6 uint8, as in .*x-raw, got 6 float64"),
        ([absent], [0], InputError, f"{on_worker}: .*absent"),
        ([cut_off], [0], CorruptFileError, f"{on_worker}cut: expected gzip data"),
        ([text], [0], CorruptFileError, f"{on_worker}text: at byte 0: expected 00"),
        ([objects], [0], CorruptFileError, f"{on_worker}objects.npy: expected an array of numb"),
    ]:  # fmt: skip
        with pytest.raises(kind, match=message):
            cluster.FullBatch(samples, given_labels, 0.1, client)
    with pytest.raises(InputError, match="block_size: expected a whole number of at least 1"):
        cluster.FullBatch(X, y, 0.1, client, block_size=0)


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 2)))
    with pytest.raises(CorruptFileError, match="at least 4 rows, as at the start, got 3"):
        _cluster_worker.read_rows.__wrapped__(str(tmp_path / "x.npy"), 2, 4)


# Chunks, labels and settings that are refused.


def with_block(number, block, dtype=np.float64):
    """Return an array of five chunks of four rows, one of which is replaced."""
    parts = [np.full((4, 2), float(n)) for n in range(5)]
    parts[number] = block
    return da.concatenate(
        [da.from_delayed(delayed(part, pure=False), (4, 2), dtype) for part in parts]
    )


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (np.zeros((4, 2), np.float32), "expected 4 rows of 2 float64.*got shape .* of float32"),
        (np.zeros((4, 3)), r"expected 4 rows of 2 float64.*got shape \(4, 3\)"),
        (np.zeros((5, 2)), r"expected 4 rows of 2 float64.*got shape \(5, 2\)"),
        (np.full((4, 2), np.nan), "expected finite numbers, got nan in feature 0 of sample 0"),
        (np.ma.masked_less(np.zeros((4, 2)), 1), "expected plain numbers, got a masked array"),
        (sparse.csr_array((4, 2)), "expected dense rows, got a sparse array"),
    ],
)
def test_a_chunk_that_is_not_as_described_is_refused_with_its_number(client, block, message):
    with pytest.raises(InputError, match=f"^block 3: X?:? ?{message}"):
        cluster.FullBatch(with_block(3, block), np.zeros(20, int), 0.1, client)


@pytest.mark.parametrize(
    ("y", "kind", "message"),
    [
        (np.where(np.arange(20) == 9, -1, 0), LabelError, "block 2: y: expected labels 0"),
        (np.full(20, 2**31), LabelError, r"block [0-4]: y: expected labels 0..k-1, k at most"),
        (np.full(20, 2**63, np.uint64), LabelError, r"block [0-4]: y: expected labels 0..k-1, k a"),
        (np.zeros(20), LabelError, "block [0-4]: y: expected integer labels"),
        (np.zeros(19, int), ShapeError, "y: expected one for each of 20 rows of X, got shape"),
        (np.zeros((20, 2), int), ShapeError, r"y: expected one .*np.asarray\(y\).argmax\(axis=1\)"),
        (da.zeros((20, 1), int), ShapeError, r"y: expected one for each .*pass np.ravel\(y\)"),
    ],
)
def test_labels_that_do_not_fit_are_refused(client, y, kind, message):
    with pytest.raises(kind, match=f"^{message}"):
        cluster.FullBatch(with_block(0, np.zeros((4, 2))), y, 0.1, client)


class DataFrame:
    """What a Dask DataFrame is recognised by."""

    def to_dask_array(self, lengths): ...


@pytest.mark.parametrize(
    ("X", "settings", "message"),
    [
        (np.zeros((4, 2)), {}, "expected a Dask array of rows or a list of files, got ndarray"),
        (DataFrame(), {}, r"got DataFrame; pass X.to_dask_array\(lengths=True\)"),
        ([], {}, "expected a Dask array of rows or a list of files, got list"),
        ("x.npy", {}, "expected a Dask array of rows or a list of files, got str"),
        (da.zeros((4, 2, 2)), {}, r"expected a Dask array of shape \(samples, features\)"),
        (da.zeros((0, 2)), {}, "at least one sample, got none"),
        (da.zeros((4, 2))[da.arange(4) > 1], {}, r"known sizes.*compute_chunk_sizes\(\)"),
        (da.zeros((4, 2)), {"l2": -1}, "l2: expected a number of at least 0"),
        (da.zeros((4, 2)), {"scale": 0}, "scale: expected a magnitude"),
        (da.zeros((4, 2)), {"block_size": 2}, "block_size: expected with files"),
        (da.zeros((4, 2)), {"sample_weight": np.zeros(4)}, "not all 0, got numbers that sum to 0"),
        (da.zeros((4, 2)), {"sample_weight": -np.ones(4)}, "block 0: sample_weight: .*got -1.0"),
        (da.zeros((4, 2), dtype="c16"), {}, "block 0: X: expected real numbers"),
    ],
)
def test_arguments_that_are_not_data_are_refused(client, X, settings, message):
    n = 4 if not hasattr(X, "shape") or np.isnan(X.shape[0]) else X.shape[0]
    settings = {"l2": 0.1, **settings}
    with pytest.raises(InputError, match=message):
        cluster.FullBatch(X, np.zeros(n, int), settings.pop("l2"), client, **settings)


@pytest.mark.parametrize("error", [ZeroDivisionError, FileNotFoundError, TimeoutError])
def test_errors_of_the_users_own_tasks_are_raised_unchanged(client, error):

    def failing(rows):
        raise error("theirs")

    X = da.zeros((4, 2), chunks=2).map_blocks(failing, dtype=float, meta=np.empty((0, 0)))
    with pytest.raises(error, match="theirs"):
        cluster.FullBatch(X, np.zeros(4, int), 0.1, client)


# Trainers.


def test_a_model_that_does_not_fit_is_refused(client):
    X = da.zeros((4, 2), chunks=2, dtype=np.uint8)
    problem = cluster.FullBatch(X, [0, 1, 2, 0], 0.1, client)
    with pytest.raises(ShapeError, match="samples of 3 features, as the model takes, got 2"):
        FullBatchTrainer(SoftmaxRegression(3, 3), problem)
    with pytest.raises(LabelError, match=r"labels 0..1, .*got labels up to 2"):
        FullBatchTrainer(SoftmaxRegression(2, 2), problem)
    with pytest.raises(InputError, match=r"expected scale 0.00392157, .* got 1; pass scale="):
        FullBatchTrainer(SoftmaxRegression(2, 3, pixel_scale=1 / 255), problem)


def test_numbers_on_workers_are_checked_like_those_here(client):
    rows = da.from_array(np.array([[0, 7], [9, 300], [1, 2], [3, -4]]), chunks=(1, 2))
    problem = cluster.FullBatch(rows, [0, 1, 2, 0], 0.1, client, scale=1 / 255)
    assert problem.summary.range == (np.int64, -4, 300)
    with pytest.raises(InputError, match=r"expected pixels from 0 to 255.*got -4"):
        FullBatchTrainer(SoftmaxRegression(2, 3, pixel_scale=1 / 255), problem)


def test_a_run_resumes_on_the_cluster_or_on_one_machine(client, tmp_path):
    rows, y = overlapping()
    whole, begun, here = (SoftmaxRegression(D, K, dtype=np.float64) for _ in range(3))
    problem = cluster.FullBatch(cut(rows, [100, 300, 200]), y, 1e-3, client)
    FullBatchTrainer(whole, problem, tol=1e-9).fit()
    FullBatchTrainer(begun, problem, tol=1e-9, checkpoint=tmp_path / "c.npz").fit(3)
    begun.theta[...] = 0
    trainer = FullBatchTrainer(begun, problem, tol=1e-9)
    trainer.resume(tmp_path / "c.npz")
    assert len(trainer.history) == 4 and trainer.fit().converged
    np.testing.assert_array_equal(begun.theta, whole.theta)
    alone = FullBatchTrainer(here, FullBatch(rows.T, y, 1e-3, threads=3), tol=1e-9)
    with pytest.warns(ResumeWarning, match="samples a cluster, 3 shards there, this process here"):
        alone.resume(tmp_path / "c.npz")
    assert alone.fit().converged
    np.testing.assert_allclose(here.theta, whole.theta, rtol=0, atol=1e-10)


# Data sets.


def test_a_data_set_is_loaded_by_the_workers(client):
    data = load("garments")
    X, y = cluster.training_rows(data, client, limit=1001)
    assert X.shape == (1001, 784) and X.dtype == np.uint8 and X.numblocks == (3, 1)
    np.testing.assert_array_equal(X.compute(), data.X_train.T[:1001])
    np.testing.assert_array_equal(y.compute(), data.y_train[:1001])
    few, _ = cluster.training_rows(data, client, limit=2)
    assert few.shape == (2, 784) and few.chunks[0] == (1, 1)
    with pytest.raises(InputError, match="limit: expected a whole number of at least 1"):
        cluster.training_rows(data, client, limit=0)


# Predictions.


@pytest.fixture(scope="module")
def trained():
    rows, y = overlapping(500)
    model = SoftmaxRegression(D, 4, dtype=np.float64)
    fit(model, rows.T, y, l2=1e-2)
    return model, rows, y


SIZES = (100, 0, 1, 399)
# Dask's warning about schedulers that are not the client's.
ELSEWHERE = pytest.mark.filterwarnings("ignore:Running on a single-machine scheduler")


@ELSEWHERE
def test_predictions_equal_those_of_the_model(client, trained):
    model, rows, _ = trained
    X = cut(rows, SIZES)
    P, labels = cluster.probabilities(model, X), cluster.predict(model, X)
    assert P.shape == (500, 4) and P.dtype == np.float64 and P.chunks[0] == SIZES
    assert labels.shape == (500,) and labels.dtype == np.intp and labels.chunks == (SIZES,)
    for scheduler in ("synchronous", client):
        found = P.compute(scheduler=scheduler)
        np.testing.assert_allclose(found, model(rows.T).T, rtol=1e-14)  # the BLAS differs by shape
        np.testing.assert_array_equal(labels.compute(scheduler=scheduler), model.predict(rows.T))


@ELSEWHERE
def test_pixels_are_scaled_by_the_model_and_later_training_changes_nothing():
    data = load("garments")
    model = SoftmaxRegression(784, 10, seed=1, pixel_scale=data.pixel_scale)
    expected = model(data.X_test).T
    P = cluster.probabilities(model, da.from_array(data.X_test.T, chunks=(700, -1)))
    model.theta[...] = 0
    np.testing.assert_array_equal(P.compute(scheduler="synchronous"), expected)
    assert P.dtype == np.float32


@pytest.mark.parametrize(
    ("sizes", "rel"),
    [(SIZES, 1e-14), ([500], 1e-14), ([5] * 100, 1e-12)],  # the last in a tree
)
@pytest.mark.parametrize("is_lazy", [False, True])
def test_evaluation_equals_the_metrics_of_all_samples(client, trained, sizes, rel, is_lazy):
    model, rows, y = trained
    Z, P = model.logits(rows.T), model(rows.T)
    quality = cluster.evaluate(
        model, cut(rows, sizes), da.from_array(y, chunks=77) if is_lazy else y
    )
    assert quality.num_samples == 500
    expected = {
        "accuracy": metrics.accuracy(Z, y),
        "top_3_accuracy": metrics.top_k_accuracy(Z, y),
        "negative_log_likelihood": metrics.negative_log_likelihood(Z, y),
        "brier": metrics.brier(P, y),
    }
    assert {name: getattr(quality, name) for name in expected} == pytest.approx(expected, rel=rel)
    calibration_error = metrics.expected_calibration_error(P, y)
    assert quality.expected_calibration_error == pytest.approx(calibration_error, rel=1e-12)
    confusion = metrics.confusion_matrix(Z.argmax(axis=0), y, 4)
    np.testing.assert_array_equal(quality.confusion, confusion)


def test_rows_and_labels_that_do_not_fit_the_model_are_refused(trained):
    model, rows, y = trained
    for call, kind, message in [
        (lambda: cluster.predict(model, da.zeros((3, 4))), ShapeError, "rows of 5 features, got"),
        (lambda: cluster.predict(model, rows), InputError, "rows, got nda.*; split an array"),
        (lambda: cluster.evaluate(model, da.zeros((0, 5)), []), ShapeError, "at least one sample"),
        (lambda: cluster.evaluate(model, cut(rows, SIZES), y[1:]), ShapeError, "y: .*of 500 rows"),
        (lambda: cluster.evaluate(model, cut(rows, SIZES), y + 4), LabelError,
         "block [023]: y: expected labels 0..3"),
    ]:  # fmt: skip
        with pytest.raises(kind, match=message):
            call()


def test_samples_that_are_not_finite_are_refused_with_their_block(trained):
    model, rows, y = trained
    bad = cut(np.where(np.arange(500)[:, None] == 103, np.nan, rows), SIZES)
    for call in (
        lambda: cluster.predict(model, bad).compute(),
        lambda: cluster.probabilities(model, bad).compute(),
        lambda: cluster.evaluate(model, bad, y),
    ):
        with pytest.raises(InputError, match=r"block 3: X: expected finite .* of sample 2"):
            call()


# Workers and shards.


def test_what_is_not_a_usable_client_is_refused(client, monkeypatch):
    for other in (None, "tcp://x:1"):
        with pytest.raises(InputError, match=r"client: expected a distributed.Client, got"):
            cluster.FullBatch(da.zeros((4, 2)), np.zeros(4, int), 0.1, other)
    monkeypatch.setattr(Client, "asynchronous", property(lambda self: True))
    with pytest.raises(InputError, match=r"got Client\(asynchronous=True\)"):
        cluster.FullBatch(da.zeros((4, 2)), np.zeros(4, int), 0.1, client)


@pytest.mark.parametrize(("version", "name"), [(None, "none"), ("0.0", "0.0")])
def test_a_worker_with_another_version_is_refused(client, monkeypatch, version, name):
    monkeypatch.setattr(cluster.npsoftmax, "__version__", "9.9")
    monkeypatch.setattr(client, "run", lambda describe: {"tcp://w": (version, 1, None)})
    with pytest.raises(ClusterError, match=f"w: expected npsoftmax 9.9 as here, got {name}"):
        cluster.FullBatch(da.zeros((4, 2)), np.zeros(4, int), 0.1, client)


def test_memory_is_that_of_a_thread():
    with cluster_of(1, processes=False, threads=4, memory_limit=400_000_000) as client:
        threads = cluster.check_workers(client)
    assert threads == cluster.Threads(4, 100_000_000)
    assert threads.num_shards(10_000_000) == 4 and threads.num_shards(250_000_001) == 11


@given(
    sizes=st.lists(st.integers(1, 100), min_size=1, max_size=40),
    threads=st.integers(1, 8),
    room=st.sampled_from([0, 100, 150]),
)
def test_shards_are_consecutive_chunks_that_fit(sizes, threads, room):
    groups = cluster.group_chunks(sizes, cluster.Threads(threads, room * 4))
    assert [chunk for group in groups for chunk in group] == list(range(len(sizes)))
    shards = [sum(sizes[chunk] for chunk in group) for group in groups]
    if room:
        assert max(shards) <= room
    else:
        assert len(groups) <= threads
        assert max(shards) <= sum(sizes) / min(threads, len(sizes)) + max(sizes)


def test_samples_without_features_are_shared_too(client):
    y = np.array([0, 1, 1, 0, 1, 1])
    problem = cluster.FullBatch(da.zeros((6, 0), chunks=(2, 0)), y, 0.1, client)
    assert len(problem._store._shards) == 3
    check_same(problem, FullBatch(np.zeros((0, 6)), y, 0.1), np.array([[0.1], [0.2]]), atol=1e-15)


@pytest.mark.parametrize("indices", [[3], [0, 99, 100, 101, 599], list(range(0, 600, 7))])
def test_a_subset_equals_that_of_one_machine(client, indices):
    rows, y = overlapping()
    weights = np.random.default_rng(3).uniform(0, 2, len(y))
    problems = (
        cluster.FullBatch(cut(rows, [100] * 6), y, 0.1, client, weights),
        FullBatch(rows.T, y, 0.1, weights),
    )
    there, here = (problem.subset(np.array(indices)) for problem in problems)
    loss = here.loss_and_grad(THETA).loss
    assert there.loss_and_grad(THETA).loss == pytest.approx(loss, rel=1e-13)
    found, expected = (problem.preconditioner(THETA)(THETA) for problem in (there, here))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
