"""Training to the exact optimum: the same one as other libraries', whatever the data are like."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from npsoftmax import FullBatchTrainer, SoftmaxRegression, Trainer, certify, fit, storage
from npsoftmax.data.loader import DataLoader
from npsoftmax.errors import (
    CorruptFileError,
    DivergedError,
    InputError,
    LabelError,
    ResumeWarning,
    ShapeError,
)
from npsoftmax.features import Patches
from npsoftmax.objective import FullBatch, loss_and_grad, newton, preconditioner, samples
from npsoftmax.objective.preconditioner import Choice
from npsoftmax.optimisers import Descent
from npsoftmax.optimum import Optimum, _advice, _fit_part

D, K, N = 4, 3, 200
KIND = "checkpoint of the lbfgs solver"


def overlapping(n=N, d=D, k=K, seed=0, spread=1.0):
    """Draw labels from a softmax model, so that no model can tell them all."""
    rng = np.random.default_rng(seed)
    X = np.asfortranarray(rng.standard_normal((d, n)))
    Z = spread * rng.standard_normal((k, d)) @ X
    return X, (Z + rng.gumbel(size=Z.shape)).argmax(axis=0)


def separable(n=60):
    rng = np.random.default_rng(0)
    y = np.arange(n) % 3
    return 5 * np.eye(3)[:2, y] + rng.uniform(-1, 1, (2, n)), y


def new_model(d=D, k=K, **settings):
    return SoftmaxRegression(d, k, **{"dtype": np.float64, **settings})


def trainer_on(X, y, model=None, *, l2=0.0, sample_weight=None, threads=None, **settings):
    """Return a trainer of a new model, or of this one, on these samples."""
    model = model or new_model()
    scale = model.input_scale(X.dtype)
    problem = FullBatch(X, y, l2, sample_weight, scale=scale, threads=threads)
    return FullBatchTrainer(model, problem, **settings)


def fitted(X, y, k=K, dtype=np.float64, **settings):
    model = new_model(len(X), k, dtype=dtype)
    return model, fit(model, X.astype(dtype), y, **settings)


@pytest.fixture
def lbfgs_alone(monkeypatch):
    """Leave small problems to L-BFGS, as large ones are."""
    monkeypatch.setattr(newton, "MAX_ROWS", 0)


def by_scipy(X, y, k, l2, weights=None):
    """Return the minimum and where it lies, by SciPy and the plain formula."""
    shape, v = (k, len(X) + 1), np.ones(y.size) if weights is None else weights
    v = v / v.sum()

    def value_and_grad(flat):
        theta = flat.reshape(shape)
        Z = theta[:, :-1] @ X + theta[:, -1:]
        Z = Z - Z.max(axis=0)
        log_total = np.log(np.exp(Z).sum(axis=0))
        dZ = np.exp(Z - log_total)
        dZ[y, np.arange(y.size)] -= 1
        dZ *= v
        grad = np.hstack([dZ @ X.T + l2 * theta[:, :-1], dZ.sum(axis=1, keepdims=True)])
        losses = log_total - Z[y, np.arange(y.size)]
        return v @ losses + l2 / 2 * np.square(theta[:, :-1]).sum(), grad.ravel()

    options = {"maxiter": 5000, "maxfun": 20000, "ftol": 0, "gtol": 1e-11, "maxcor": 30}
    found = minimize(
        value_and_grad, np.zeros(math.prod(shape)), jac=True, method="L-BFGS-B", options=options
    )
    return found.fun, found.x.reshape(shape)


def check_same(model, optimum, value, theta):
    """Compare with an optimum whose rows may have something in common, which changes nothing."""
    assert optimum.objective == pytest.approx(value, rel=1e-10)
    centred = [theta - theta.mean(axis=0) for theta in (model.theta, theta)]
    np.testing.assert_allclose(*centred, rtol=0, atol=1e-6)


PROBLEMS = {
    "well conditioned": (overlapping(), K, 1e-2),
    "two classes": (overlapping(k=2), 2, 1e-3),
    "many classes": (overlapping(n=500, k=12), 12, 1e-2),
    "more features than samples": (overlapping(n=30, d=60), K, 1e-2),
    "separable": (separable(), 3, 1e-3),
    "start on a part": (overlapping(n=7000, d=3), K, 1e-4),
}


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("rows", [newton.MAX_ROWS, 0], ids=["Newton", "L-BFGS"])
def test_the_optimum_is_scipys(name, rows, monkeypatch):
    monkeypatch.setattr(newton, "MAX_ROWS", rows)
    (X, y), k, l2 = PROBLEMS[name]
    model, optimum = fitted(X, y, k, l2=l2, tol=1e-10)
    assert optimum.converged, optimum
    check_same(model, optimum, *by_scipy(X, y, k, l2))
    assert 0 <= optimum.suboptimality < 1e-12


def test_with_weights_the_optimum_is_scikit_learns():
    X, y = overlapping()
    weights = np.random.default_rng(1).uniform(0, 3, N)
    model, optimum = fitted(X, y, l2=1e-2, tol=1e-10, sample_weight=weights)
    theirs = LogisticRegression(C=1 / (1e-2 * weights.sum()), tol=1e-12, max_iter=1000)
    theirs.fit(X.T, y, weights)
    np.testing.assert_allclose(model.W, theirs.coef_, rtol=0, atol=1e-5)
    check_same(model, optimum, *by_scipy(X, y, K, 1e-2, weights))


@pytest.mark.parametrize("class_weight", ["balanced", {"1": 3.0, "2": 0.5}])
@pytest.mark.parametrize("weighted", [False, True])
def test_with_weights_of_classes_the_optimum_is_scikit_learns(class_weight, weighted):
    X, y = overlapping()
    y[:60] = 0  # so that classes differ in size
    weights = np.random.default_rng(1).uniform(0, 3, N) if weighted else np.ones(N)
    if class_weight == "balanced":
        factors = weights.sum() / (K * np.bincount(y, weights))
        given = class_weight
    else:
        factors = np.array([1, 3.0, 0.5])
        given = {int(name): value for name, value in class_weight.items()}
    model, optimum = fitted(
        X, y, l2=1e-2, tol=1e-10, class_weight=class_weight, sample_weight=weights
    )
    check_same(model, optimum, *by_scipy(X, y, K, 1e-2, weights * factors[y]))
    C = 1 / (1e-2 * (weights * factors[y]).sum())
    theirs = LogisticRegression(C=C, class_weight=given, tol=1e-12, max_iter=1000)
    if not weighted:  # there "balanced" counts samples, whatever their weights are
        np.testing.assert_allclose(model.W, theirs.fit(X.T, y).coef_, rtol=0, atol=1e-5)


def test_balanced_classes_are_predicted_equally_often():
    """The bias is free, so the mean probability of each class is its share of the weight."""
    X, y = overlapping(n=90)
    y[:70] = 1
    model, _ = fitted(X, y, k=4, l2=0.1, tol=1e-12, class_weight="balanced")  # no sample is of 3
    shares = (1 / np.bincount(y))[y] / 3
    np.testing.assert_allclose(model(X) @ shares, [1 / 3, 1 / 3, 1 / 3, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("class_weight", "message"),
    [
        ("equal", "got 'equal'; pass for instance {'cat': 2}"),
        ([1, 2], r"got \[1, 2\]"),
        ({"cow": 1}, "expected names among cat, dog, or numbers 0..1, got 'cow'"),
        ({2: 1}, "got 2; correct it"),
        ({True: 1}, "got True"),
        ({"cat": 1, 0: 2}, "got one by its name and by its number"),
        ({"cat": -1}, r"class_weight\['cat'\]: expected a number of at least 0, got -1"),
        ({"cat": np.inf}, "got inf"),
        ({"cat": 0, "dog": 0}, "got 0 for all"),
    ],
)
def test_weights_of_classes_that_are_refused(class_weight, message):
    model = new_model(1, 2, classes=["cat", "dog"])
    with pytest.raises(InputError, match=message):
        fit(model, [[1.0, 2.0]], [0, 1], class_weight=class_weight)


@settings(max_examples=25)
@given(
    st.integers(2, 5), st.integers(1, 6), st.integers(1, 40), st.integers(0, 10**6),
    st.sampled_from([1e-4, 1e-2, 1.0]), st.sampled_from([1e-3, 1.0, 1e3]),
)  # fmt: skip
def test_any_small_problem_ends_at_a_proved_optimum(k, d, n, seed, l2, unit):
    rng = np.random.default_rng(seed)
    X, y = unit * rng.standard_normal((d, n)), rng.integers(0, k, n)
    model = new_model(d, k, seed=seed)
    optimum = fit(model, X, y, l2=l2, tol=1e-9 * max(1.0, unit))
    assert optimum.converged, optimum
    assert optimum.suboptimality <= 1e-7 + 1e-6 * optimum.objective
    assert np.isfinite(model.theta).all()


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("n", [8, 60])
def test_few_samples_of_many_features_end_where_all_features_would(k, n, monkeypatch):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((300, n)) + 3, rng.integers(0, k, n)
    weights = np.arange(n) % 3.0
    models = [new_model(300, k) for _ in range(2)]
    fit(models[0], X, y, l2=1e-2, tol=1e-12, sample_weight=weights)
    monkeypatch.setattr(FullBatch, "suits_span", lambda *_, **__: False)
    fit(models[1], X, y, l2=1e-2, tol=1e-12, sample_weight=weights)
    np.testing.assert_allclose(*[model.theta for model in models], rtol=0, atol=1e-8)


def test_few_samples_of_many_features_are_separable_without_a_penalty():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((1500, 40)), rng.integers(0, 3, 40)
    model = new_model(1500, 3)
    optimum = fit(model, X, y)
    assert optimum.reason == "separated"
    assert optimum.advice.startswith("every training sample is classified correctly")


@pytest.mark.parametrize(("d", "n", "tol"), [(5, 1, 1e-6), (50, 20, 1e-8), (300, 150, 1e-12)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_few_samples_resume_bit_for_bit_from_each_record(tmp_path, d, n, tol, dtype):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((d, n)).astype(dtype), rng.integers(0, 3, n)

    def run(number=None):
        model = SoftmaxRegression(d, 3, dtype=dtype, seed=1)
        trainer = FullBatchTrainer(model, FullBatch(X, y, 0.1, threads=1), tol=tol)
        if number is not None:
            trainer.resume(tmp_path / str(number))
        trainer.on_step = lambda it: number or it.save_checkpoint(tmp_path / str(len(it.history)))
        trainer.fit()
        return trainer

    whole = run()
    assert len(whole.history) > 1
    for number in range(1, len(whole.history) + 1):
        again = run(number)
        assert (len(again.history), again.reason) == (len(whole.history), whole.reason)
        np.testing.assert_array_equal(again.model.theta, whole.model.theta)


def test_the_start_does_not_matter():
    X, y = overlapping()
    models = [new_model(seed=seed, sigma=sigma) for seed, sigma in ((0, 0.01), (1, 3.0))]
    for model in models:
        fit(model, X, y, l2=1e-2, tol=1e-11)
    np.testing.assert_allclose(*[model.theta for model in models], rtol=0, atol=1e-9)


def test_a_trained_model_is_where_it_starts():
    X, y = overlapping(n=7000)
    model = new_model()
    fit(model, X, y, l2=1e-3, tol=1e-6)
    again = trainer_on(X, y, model, l2=1e-3, tol=1e-9)
    first = next(iter(again.run()))
    assert first.max_gradient <= 1e-6
    assert again.fit().iterations <= 5


@pytest.mark.parametrize("sigma", [1e4, 1e9, 1e200])
def test_bad_weights_are_replaced_by_zeros(sigma):
    X, y = overlapping()
    trainer = trainer_on(X, y, new_model(sigma=sigma), l2=1e-2)
    assert next(iter(trainer.run())).objective <= math.log(K)
    assert trainer.fit().converged and np.abs(trainer.model.theta).max() < 10


def test_float32_comes_as_near_as_its_rounding_allows():
    X, y = overlapping(n=1000)
    single, optimum = fitted(X, y, dtype=np.float32, l2=1e-3, tol=1e-6)
    double, _ = fitted(X, y, l2=1e-3, tol=1e-10)
    assert optimum.converged and optimum.suboptimality < 1e-8
    assert single.theta.dtype == np.float32
    np.testing.assert_allclose(single.theta, double.theta, rtol=0, atol=1e-3)


def test_pixels_are_scaled_and_stay_bytes():
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 256, (N, D), dtype=np.uint8).T, rng.integers(0, K, N)
    pixels, _ = fitted(X / 255, y, l2=1e-2, tol=1e-10)
    model = new_model(pixel_scale=1 / 255)
    trainer = trainer_on(X, y, model, l2=1e-2, tol=1e-10)
    assert np.shares_memory(trainer.problem._store.samples.X, X)
    trainer.fit()
    np.testing.assert_allclose(model.theta, pixels.theta, rtol=0, atol=1e-8)


@pytest.mark.parametrize("rows", [newton.MAX_ROWS, 0], ids=["Newton", "L-BFGS"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_separable_without_penalty_ends_and_says_so(dtype, rows, monkeypatch):
    monkeypatch.setattr(newton, "MAX_ROWS", rows)
    X, y = separable()
    model, optimum = fitted(X, y, dtype=dtype)
    assert optimum.reason == "separated" and optimum.iterations < 50
    assert "the optimum is at infinity" in str(optimum) and "set l2 > 0" in str(optimum)
    np.testing.assert_array_equal(model.predict(X.astype(dtype)), y)
    assert np.abs(model.theta).max() < 100


def test_separable_with_tolerance_zero_ends_too():
    model, optimum = fitted(*separable(), tol=0.0, max_iterations=200)
    assert np.isfinite(model.theta).all() and "at infinity" in str(optimum)


@pytest.mark.parametrize("l2", [0.0, 1e-3])
def test_collinear_and_constant_features(l2):
    X, y = overlapping()
    value = by_scipy(X, y, K, l2)[0]
    extra = np.vstack([X, np.full((1, N), 7.0), np.zeros((1, N))])
    model, optimum = fitted(extra, y, l2=l2, tol=1e-9)
    assert optimum.converged
    # A constant feature is a second bias, which is free only without a penalty.
    assert optimum.objective == pytest.approx(value, rel=1e-9)
    if l2:  # without, nothing moves the weights of a feature that is always 0
        np.testing.assert_allclose(model.W[:, -1], 0, atol=1e-6)

    twice, optimum = fitted(np.vstack([X, X]), y, l2=l2, tol=1e-9)
    assert optimum.converged
    if l2:  # two equal features share the weight, at half the penalty
        half = by_scipy(X, y, K, l2 / 2)[0]
        assert optimum.objective == pytest.approx(half, rel=1e-9)
        np.testing.assert_allclose(twice.W[:, :D], twice.W[:, D:], atol=1e-6)
    else:
        assert optimum.objective == pytest.approx(value, rel=1e-9)


def test_a_class_without_samples_is_named_and_dies_out():
    X, y = overlapping()
    model, optimum = fitted(X, y, k=5, l2=1e-2, tol=1e-7)
    assert optimum.converged and "no sample is of class 3, 4" in str(optimum)
    assert optimum.objective == pytest.approx(by_scipy(X, y, K, 1e-2)[0], rel=1e-5)
    assert optimum.suboptimality < 1e-5
    assert model.probabilities(X)[3:].max() < 1e-5


@pytest.mark.parametrize("k", [1, 2, 3])
def test_one_sample(k):
    model, optimum = fitted(np.array([[1.0], [2.0]]), np.array([0]), k=k, l2=0.1)
    assert optimum.converged and optimum.objective < 1e-5
    assert model.predict(np.array([[1.0], [2.0]])) == [0]


@pytest.mark.usefixtures("lbfgs_alone")
def test_no_further_descent_says_what_helps():
    X, y = overlapping()
    _, optimum = fitted(X, y, dtype=np.float32, l2=1e-2, tol=1e-30)
    assert optimum.reason == "rounding" and not optimum.converged
    assert "max|gradient|" in str(optimum) and "> tol 1e-30" in str(optimum)
    assert str(optimum).endswith("use float64, scale the features, or raise tol")
    assert optimum.suboptimality < 1e-8


@pytest.mark.usefixtures("lbfgs_alone")
def test_too_few_iterations_say_what_helps():
    X, y = overlapping()
    _, optimum = fitted(X, y, l2=1e-3, tol=1e-12, max_iterations=2)
    assert (optimum.reason, optimum.iterations) == ("iterations", 2)
    assert str(optimum).startswith("not converged after 2 iterations")
    assert str(optimum).endswith("; raise max_iterations, now 2")


def test_the_report_of_a_good_end_has_no_advice():
    text = str(Optimum("converged", 8, 9, 0.5, 1e-6, 1e-5, 1e-7, ""))
    assert text == (
        "converged after 8 iterations, 9 evaluations: objective 0.5, at most 1.0e-07 above the "
        "smallest; max|gradient| 1.0e-06 <= tol 1e-05"
    )


def test_advice_names_one_change_that_helps():
    known = {"max_iterations": 8, "dtype": np.dtype("f8"), "missing": []}
    known |= {"separation": "", "small": False, "penalised": False}
    assert _advice("converged", **known) == ""
    assert "float64" not in _advice("rounding", **known)
    assert "use float64, " in _advice("rounding", **{**known, "dtype": np.dtype("f4")})
    assert "raise tol" not in _advice("rounding", **{**known, "small": True})
    assert _advice("stopped", **known) == "run again to continue"


def test_history_tells_each_iteration(tmp_path):
    X, y = overlapping(n=2000)
    test = overlapping(n=100, seed=1)
    steps = []
    trainer = trainer_on(X, y, l2=1e-3, test=test, tol=1e-8)
    trainer.on_step = lambda trainer: steps.append(len(trainer.history))
    records = list(trainer.run())
    assert trainer.reason == "converged" and records == trainer.history
    assert [record.iteration for record in records] == list(range(len(records)))
    assert steps == list(range(1, len(records) + 1))
    objectives = [record.objective for record in records]
    assert objectives == sorted(objectives, reverse=True)
    last, model = records[-1], trainer.model
    exact = loss_and_grad(model.theta, X, y, 1e-3)
    assert last.objective == pytest.approx(exact.loss, rel=1e-14)
    assert last.train_loss == pytest.approx(exact.crossentropy, rel=1e-14)
    assert last.train_acc == np.mean(model.predict(X) == y)
    assert last.test_acc == np.mean(model.predict(test[0]) == test[1])
    assert last.test_loss == pytest.approx(loss_and_grad(model.theta, *test).loss, rel=1e-12)
    assert str(last).startswith(f"iteration {last.iteration:03d} | train_loss=")
    assert f"objective={last.objective:.6f} | max_gradient={last.max_gradient:.1e}" in str(last)


@pytest.fixture
def small_parts(monkeypatch):
    """Split a few thousand samples among the threads."""
    monkeypatch.setattr(samples, "MIN_WORK_OF_SAMPLE", 0)
    monkeypatch.setattr(samples, "MIN_WORK_OF_PART", 1000)


@pytest.mark.parametrize(
    ("work", "number"),
    [(0, 0), (0, 1), (0, 4), (0, 6), (newton.MAX_WORK, 0), (newton.MAX_WORK, 2)],
)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_run_resumes_bit_for_bit(tmp_path, work, number, threads, small_parts, monkeypatch):
    # Without work for Newton's method, L-BFGS begins, and Newton's method finishes.
    monkeypatch.setattr(newton, "MAX_WORK", work)

    def stop(trainer):
        if trainer.history[-1].iteration == number:
            raise KeyboardInterrupt

    X, y = overlapping(n=6000, d=10, spread=0.2)
    options = {"l2": 1e-9, "tol": 1e-6, "threads": threads}
    whole = trainer_on(X, y, new_model(10, seed=3, dtype=np.float32), **options)
    whole.fit(20)
    first = trainer_on(X, y, new_model(10, seed=3, dtype=np.float32), **options)
    first.on_step = stop
    with pytest.raises(KeyboardInterrupt):
        first.fit(20)
    first.save_checkpoint(tmp_path / "c.npz")
    second = trainer_on(X, y, new_model(10, dtype=np.float32), **options)
    second.resume(tmp_path / "c.npz")
    np.testing.assert_array_equal(second.model.theta, first.model.theta)
    second.fit(20)
    np.testing.assert_array_equal(second.model.theta, whole.model.theta)
    told = [(r.iteration, r.objective, r.evaluations) for r in second.history]
    assert told == [(r.iteration, r.objective, r.evaluations) for r in whole.history]


def iterations_in(path):
    return len(storage.read(path, KIND)[1]["history"]) - 1


def test_checkpoints_are_written_when_due_and_at_the_end(tmp_path):
    X, y = overlapping(n=3000)
    path, seen = tmp_path / "c.npz", []
    trainer = trainer_on(X, y, l2=1e-4, tol=1e-9, checkpoint=path, checkpoint_every=2)
    trainer.on_step = lambda _: seen.append(iterations_in(path))
    trainer.fit(3)
    assert trainer.history[-1].test_loss is None and "test" not in str(trainer.history[-1])
    assert seen == [0, 0, 2, 2]
    assert iterations_in(path) == 3


def checkpoint_of(tmp_path, **settings):
    X, y = overlapping(n=500)
    trainer = trainer_on(X, y, **{"l2": 1e-4, "tol": 1e-12, **settings})
    trainer.fit(3)
    trainer.save_checkpoint(tmp_path / "c.npz")
    return tmp_path / "c.npz", X, y


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"l2": 1e-3}, InputError, "l2 0.0001 there, 0.001 here"),
        ({"identity": {"dataset": "mnist"}}, InputError, "dataset None there, 'mnist' here"),
        ({"y": np.zeros(500, int)}, CorruptFileError, "expected the data and weights of its run"),
        ({"sample_weight": np.arange(500)}, CorruptFileError, "the data and weights of its run"),
        ({"threads": 3}, ResumeWarning, r"threads 2 there, 3 here\); the run resumes, but not"),
    ],
)
def test_resuming_with_something_else_is_refused_or_warns(tmp_path, changes, error, message):
    path, X, y = checkpoint_of(tmp_path, threads=2)
    other = trainer_on(**{"X": X, "y": y, "l2": 1e-4, "threads": 2, **changes})
    expect = pytest.warns if error is ResumeWarning else pytest.raises
    with expect(error, match=message):
        other.resume(path)
    assert (len(other.history) > 1) == (error is ResumeWarning)


def test_data_in_the_place_of_a_problem_is_named():
    with pytest.raises(
        InputError, match=r"problem: expected a FullBatch, got tuple; pass .*FullBatch\("
    ):
        FullBatchTrainer(new_model(), overlapping())


def test_the_other_trainers_checkpoint_is_refused(tmp_path):
    path, X, y = checkpoint_of(tmp_path)
    minibatches = Trainer(new_model(), Descent(), DataLoader(X, y, 50))
    with pytest.raises(CorruptFileError, match="expected a checkpoint, got a checkpoint of the lb"):
        minibatches.resume(path)
    minibatches.save_checkpoint(path)
    with pytest.raises(CorruptFileError, match="expected a checkpoint of the lbfgs solver"):
        trainer_on(X, y, l2=1e-4).resume(path)


@pytest.mark.usefixtures("lbfgs_alone")
@pytest.mark.parametrize(
    "change",
    [
        lambda arrays, metadata: arrays.pop("change.0"),
        lambda arrays, metadata: arrays.update(extra=np.zeros(3)),
        lambda arrays, metadata: arrays.update({"step.0": np.zeros((2, 2))}),
        lambda arrays, metadata: arrays.update(theta=np.full((K, D + 1), np.nan)),
        lambda arrays, metadata: arrays.update(theta=np.zeros((K, D + 1))),
        lambda arrays, metadata: arrays.update({"change.0": np.zeros((K, D + 1))}),
        lambda arrays, metadata: arrays.update({"step.1": -arrays["step.1"]}),
        lambda arrays, metadata: metadata["history"].pop(1),
        lambda arrays, metadata: metadata["history"].clear(),
        lambda arrays, metadata: metadata.pop("settings"),
        lambda arrays, metadata: metadata["history"][0].pop("step"),
        lambda arrays, metadata: metadata["history"][0].update(objective="low"),
        lambda arrays, metadata: metadata["history"][-1].update(objective=0.1),
        lambda arrays, metadata: metadata["history"][0].update(step=-1.0),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path, change):
    path, X, y = checkpoint_of(tmp_path)
    arrays, metadata = storage.read(path, KIND)
    change(arrays, metadata)
    storage.write(path, KIND, arrays, metadata)
    model = new_model(seed=9)
    before = model.theta.copy()
    with pytest.raises(CorruptFileError):
        trainer_on(X, y, model, l2=1e-4).resume(path)
    np.testing.assert_array_equal(model.theta, before)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"X": np.zeros((D + 1, N))}, ShapeError, "expected samples of 4 features"),
        ({"y": np.full(N, K)}, LabelError, "expected labels 0..2"),
        ({"l2": -1.0}, InputError, "l2: expected a number of at least 0"),
        ({"tol": math.nan}, InputError, "tol"),
        ({"tol": "1e-5"}, InputError, "tol: expected a number of at least 0, got '1e-5'"),
        ({"l2": None}, InputError, "l2: expected a number"),
        ({"l2": [1.0, 2.0]}, InputError, "l2: expected a number"),
        ({"max_iterations": -1}, InputError, "max_iterations"),
        ({"threads": 0}, InputError, "threads"),
        ({"sample_weight": np.ones(3)}, ShapeError, "one number for each of 200 samples"),
        ({"X": np.full((D, N), 1e300)}, InputError, "squares fit float64"),
    ],
)
def test_refusals(arguments, error, message):
    X, y = overlapping()
    arguments = {"X": X, "y": y, **arguments}
    with pytest.raises(error, match=message):
        fit(new_model(), **arguments)


def test_a_trainer_refuses_without_a_run_and_an_identity_that_is_not_json(tmp_path):
    trainer = trainer_on(*overlapping())
    with pytest.raises(InputError, match="call fit"):
        trainer.optimum()
    with pytest.raises(InputError, match="call fit"):
        trainer.save_checkpoint(tmp_path / "c.npz")
    with pytest.raises(InputError, match="identity"):
        trainer_on(*overlapping(), identity={"x": object()})


@pytest.mark.usefixtures("lbfgs_alone")
@pytest.mark.parametrize("tier", [{"MAX_BLOCK_ROWS": 4}, {"MAX_PRECONDITIONED_CLASSES": 2}])
def test_it_resumes_bit_for_bit_with_other_preconditioners(tmp_path, tier, monkeypatch):
    for name, value in tier.items():
        monkeypatch.setattr(preconditioner, name, value)
    X, y = overlapping(n=900, d=9)
    whole, first, second = (trainer_on(X, y, new_model(9), l2=1e-5, tol=1e-10) for _ in range(3))
    whole.fit(25)
    first.fit(9)
    first.save_checkpoint(tmp_path / "c.npz")
    second.resume(tmp_path / "c.npz")
    second.fit(25)
    np.testing.assert_array_equal(second.model.theta, whole.model.theta)


@pytest.mark.usefixtures("lbfgs_alone")
def test_a_strong_penalty_needs_no_preconditioner(monkeypatch):
    X, y = overlapping(n=900, d=9)
    expected = by_scipy(X, y, K, 1.0)[0]
    monkeypatch.setattr(FullBatch, "preconditioner", None)
    _, optimum = fitted(X, y, l2=1.0, tol=1e-9)
    assert optimum.converged and optimum.objective == pytest.approx(expected, rel=1e-9)


@pytest.mark.usefixtures("lbfgs_alone")
@pytest.mark.parametrize("number", [2, 4, 5, 9])
def test_it_resumes_bit_for_bit_before_and_after_a_preconditioner(tmp_path, number, monkeypatch):
    monkeypatch.setattr(FullBatch, "choose_preconditioner", lambda problem, k: Choice(8.0, False))
    X, y = overlapping(n=900, d=9)
    whole, first, second = (trainer_on(X, y, new_model(9), l2=1e-5, tol=1e-10) for _ in range(3))
    anchors = [whole._state.anchor is not None for _ in whole.run(15)]
    assert anchors.index(True) > 3
    first.fit(number)
    first.save_checkpoint(tmp_path / "c.npz")
    second.resume(tmp_path / "c.npz")
    second.fit(15)
    np.testing.assert_array_equal(second.model.theta, whole.model.theta)


@pytest.mark.usefixtures("lbfgs_alone")
@pytest.mark.parametrize("k", [2, 6])
def test_labels_in_turn_are_no_harder(k):
    X, y = overlapping(n=7200, k=k)
    order = np.argsort(np.argsort(y, kind="stable") % (7200 // k), kind="stable")
    in_turn, shuffled = (
        fitted(np.asfortranarray(X[:, places]), y[places], k, l2=1e-3, tol=1e-8)[1]
        for places in (order, np.arange(7200))
    )
    assert in_turn.iterations <= shuffled.iterations + 5


@pytest.mark.usefixtures("lbfgs_alone")
@pytest.mark.parametrize("number", [0, 2])
def test_a_few_iterations_and_then_the_others_are_as_all_at_once(number):
    X, y = overlapping(n=2000)
    whole, twice = (trainer_on(X, y, l2=1e-4, tol=1e-9) for _ in range(2))
    assert twice.fit(number).reason == "iterations" and len(twice.history) == number + 1
    assert whole.fit() == twice.fit()
    np.testing.assert_array_equal(whole.model.theta, twice.model.theta)


@pytest.mark.usefixtures("lbfgs_alone")
def test_after_an_interruption_anywhere_a_run_resumes(tmp_path):
    X, y = overlapping(n=2000)
    options = {"l2": 1e-4, "tol": 1e-9, "test": (X, y)}
    whole, cut = (trainer_on(X, y, **options) for _ in range(2))
    whole.fit()
    evaluate, calls = cut._evaluate_test, []

    def interrupted():
        calls.append(1)
        if len(calls) in (2, 3, 6):
            raise KeyboardInterrupt
        return evaluate()

    cut._evaluate_test = interrupted
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            cut.fit()
        cut.save_checkpoint(tmp_path / "c.npz")
        again = trainer_on(X, y, **options)
        again.resume(tmp_path / "c.npz")
        assert again.fit().objective == whole.history[-1].objective
        np.testing.assert_array_equal(again.model.theta, whole.model.theta)
    cut.fit()
    np.testing.assert_array_equal(cut.model.theta, whole.model.theta)


@pytest.mark.usefixtures("lbfgs_alone")
def test_evaluations_count_the_search_for_a_start():
    X, y = overlapping(n=12000)
    trainer = trainer_on(X, y, l2=1e-4)
    first = next(iter(trainer.run()))
    assert 2 < first.evaluations < 10


@pytest.mark.usefixtures("lbfgs_alone")
def test_the_end_is_told_after_a_break_and_after_resuming(tmp_path):
    X, y = overlapping()
    trainer = trainer_on(X, y, l2=1e-2, tol=1e-6)
    for record in trainer.run():
        if record.max_gradient <= 1e-6:
            break
    assert trainer.optimum().converged
    trainer.save_checkpoint(tmp_path / "c.npz")
    again = trainer_on(X, y, l2=1e-2, tol=1e-6)
    again.resume(tmp_path / "c.npz")
    assert again.optimum().converged
    stopped = trainer_on(X, y, l2=1e-2, tol=1e-12)
    next(iter(stopped.run()))
    assert str(stopped.optimum()).endswith("run again to continue")


def test_a_sample_without_weight_hides_no_separation():
    X, y = separable()
    weights = np.ones(y.size)
    y[0], weights[0] = (y[0] + 1) % 3, 0
    _, optimum = fitted(X, y, sample_weight=weights)
    assert "the optimum is at infinity" in str(optimum)


def test_one_class_is_no_separation():
    _, optimum = fitted(np.array([[1.0, 2.0]]), np.array([0, 0]), k=1)
    assert optimum.converged and optimum.advice == ""


def test_a_problem_may_be_shared_by_threads(small_parts):
    X, y = overlapping(n=5000)
    problems = [FullBatch(X, y, 1e-4, threads=2) for _ in range(2)]
    thetas = [np.random.default_rng(seed).standard_normal((K, D + 1)) for seed in range(8)]
    expected = [problems[0].loss_and_grad(theta).loss for theta in thetas]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(10):
            for problem in problems:
                found = pool.map(lambda t, p=problem: p.loss_and_grad(t).loss, thetas)
                assert list(found) == expected


def test_the_start_is_short_on_a_part(monkeypatch):
    calls, original = [], FullBatch.loss_and_grad

    def loss_and_grad(problem, theta):
        calls.append(problem.summary.num_samples)
        return original(problem, theta)

    monkeypatch.setattr(FullBatch, "loss_and_grad", loss_and_grad)
    _fit_part(FullBatch(*overlapping(n=7000), 1e-4), np.zeros((K, D + 1)))
    assert set(calls) == {1000} and len(calls) <= 40


def test_a_start_without_weight_is_left_out():
    X, y = overlapping(n=7000)
    weights = np.ones(7000)
    weights[samples.draw_evenly(7000, 1000)] = 0.0
    model = new_model()
    optimum = fit(model, X, y, l2=1e-2, sample_weight=weights, tol=1e-9)
    kept = weights > 0
    assert optimum.converged
    assert optimum.objective == pytest.approx(by_scipy(X[:, kept], y[kept], K, 1e-2)[0], rel=1e-9)


@pytest.mark.usefixtures("lbfgs_alone")
def test_infinite_objectives_are_reported():
    X, y = overlapping()
    with pytest.raises((DivergedError, InputError)):
        fit(new_model(dtype=np.float32), X * 1e37, y)


def test_labels_that_count_from_1_have_a_way_to_0():
    model = SoftmaxRegression(1, 2)
    with pytest.raises(LabelError, match=r"labels from 1 to 2; .*pass np.asarray\(y\) - 1"):
        fit(model, np.eye(1, 3), [1, 2, 1])


@pytest.mark.parametrize("seed", range(3))
def test_a_tiny_loss_is_no_reason_to_stop_far_above_the_smallest(seed):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((2000, 60)) * 10.0 ** rng.integers(-2, 3, (2000, 1))
    y = rng.integers(0, 3, 60)
    found = [
        fit(SoftmaxRegression(2000, 3, dtype=np.float64), X, y, l2=1e-2, tol=tol)
        for tol in (1e-5, 1e-9)
    ]
    assert found[0].converged
    assert found[0].objective <= (1 + 2e-3) * found[1].objective


# Until the predictions are final.


def test_training_goes_on_until_enough_predictions_are_final():
    X, y = overlapping(3_000, 100, 20)  # too large for Newton's method, which ends at the optimum
    X_new = overlapping(500, 100, 20, seed=1)[0]
    settings = {"l2": 1e-3, "tol": 1e-2}
    loose, final, exact = (new_model(100, 20) for _ in range(3))
    optimum = fit(loose, X, y, **settings)
    share = certify(loose.W, loose.b, X, y, 1e-3, X_new).share
    assert optimum.certificate is None and share < 0.9
    optimum = fit(final, X, y, until_final=(X_new, 1.0), **settings)
    assert optimum.converged and optimum.tol < 1e-2 and optimum.advice == ""
    assert optimum.certificate.share == 1.0
    assert "; 500 of 500 predictions are final" in str(optimum)
    fit(exact, X, y, l2=1e-3, tol=1e-10)
    np.testing.assert_array_equal(final.predict(X_new), exact.predict(X_new))


def test_a_part_of_the_predictions_may_be_left():
    X, y = overlapping(3_000, 100, 20)
    model = new_model(100, 20)
    optimum = fit(model, X, y, l2=1e-3, tol=1e-2, until_final=(X[:, :400], 0.95))
    assert 0.95 <= optimum.certificate.share < 1


def test_what_rounding_errors_hide_is_said():
    X, y = overlapping(600, 6, 2)
    model = SoftmaxRegression(6, 2)
    fit(model, X, y, l2=1e-3, tol=1e-10)
    # Where the two largest logits are equal, no tolerance decides.
    difference = model.W[0] - model.W[1]
    on = (
        X - np.outer(difference, (difference @ X + model.b[0] - model.b[1])) / (difference**2).sum()
    )
    optimum = fit(model, X, y, l2=1e-3, until_final=(on, 1.0))
    assert optimum.certificate.share < 1 and not optimum.converged
    assert optimum.advice.endswith("use float64")


def test_samples_of_a_model_with_features_are_extracted():
    rng = np.random.default_rng(2)
    X, y = rng.integers(0, 256, (28 * 28, 90)).astype(np.uint8), np.arange(90) % 3
    map_ = Patches.fit(X, filters=2)
    model = SoftmaxRegression(784, 3, dtype=np.float64, pixel_scale=1 / 255, features=map_)
    optimum = fit(model, X, y, l2=0.1, until_final=(X[:, :20], 1.0))
    assert optimum.certificate.share == 1.0


@pytest.mark.parametrize("share", [0, 1.5, -1, math.nan])
def test_a_share_is_above_0_and_at_most_1(share):
    X, y = overlapping(40)
    with pytest.raises(InputError, match="until_final: expected a"):
        fit(new_model(), X, y, l2=0.1, until_final=(X, share))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((D, 5)), r"until_final: expected samples and a share, got ndarray; pass until"),
        ((np.zeros((D, 0)), 0.9), "X_new: expected at least one sample"),
        ((np.zeros((D + 1, 5)), 0.9), f"X_new: expected {D} features"),
        ((np.full((D, 5), np.nan), 0.9), "X_new: expected finite numbers"),
    ],
)
def test_samples_to_be_final_on_are_samples_and_a_share(given, message):
    X, y = overlapping(40)
    with pytest.raises(InputError, match=message):
        fit(new_model(), X, y, l2=0.1, until_final=given)


def test_without_a_penalty_nothing_is_final():
    X, y = overlapping(40)
    with pytest.raises(InputError, match="l2: expected a penalty > 0 for each feature, got 0"):
        fit(new_model(), X, y, until_final=(X, 0.9))


def test_new_samples_are_scaled_as_those_of_the_training():
    X = np.random.default_rng(0).integers(0, 256, (4, 60)).astype(np.uint8)
    model = SoftmaxRegression(4, 3, pixel_scale=1 / 255)
    with pytest.raises(
        InputError, match="X_new: expected samples of the dtype of X, got float64 and uint8"
    ):
        fit(model, X, np.arange(60) % 3, l2=0.1, until_final=(X / 255, 0.9))
