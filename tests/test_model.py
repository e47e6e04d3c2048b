"""The model: parameters, predictions, decisions, calibration, files."""

import copy
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npsoftmax import (
    Adam,
    DataLoader,
    Descent,
    FullBatchTrainer,
    SoftmaxRegression,
    Trainer,
    fit,
    metrics,
    softmax,
    storage,
)
from npsoftmax._products import memory_order
from npsoftmax.errors import (
    CorruptFileError,
    InputError,
    InputWarning,
    LabelError,
    ShapeError,
)
from npsoftmax.features import RandomFourier
from npsoftmax.novelty import ClassMeans
from npsoftmax.objective import FullBatch


@pytest.fixture
def model():
    model = SoftmaxRegression(2, 3, classes=["cat", "dog", "owl"], dtype=np.float64)
    model.theta[:] = [[1, 0, 0], [0, 1, 0], [0, 0, 0.5]]
    return model


def test_initial_parameters():
    model = SoftmaxRegression(784, 10)
    assert model.theta.shape == (10, 785) and model.theta.flags[f"{memory_order()}_CONTIGUOUS"]
    assert model.theta.dtype == np.float32
    assert (model.b == 0).all() and model.b.shape == (10, 1)
    assert abs(model.W.mean()) < 5e-4 and model.W.std() == pytest.approx(0.01, rel=0.05)
    np.testing.assert_array_equal(model.theta, SoftmaxRegression(784, 10, seed=0).theta)
    assert (model.W != SoftmaxRegression(784, 10, seed=1).W).mean() > 0.99
    double = SoftmaxRegression(784, 10, dtype=np.float64)
    np.testing.assert_array_equal(double.theta.astype(np.float32), model.theta)
    assert (SoftmaxRegression(3, 2, sigma=0).theta == 0).all()


def test_drawing_weights_in_blocks_gives_the_same_weights():
    tracemalloc.start()
    try:
        model = SoftmaxRegression(500, 2000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    at_once = 0.01 * np.random.default_rng(0).standard_normal((500, 2000)).T
    np.testing.assert_array_equal(model.W, at_once.astype(np.float32))
    assert peak < 1.6 * model.theta.nbytes


def test_parameters_are_views(model):
    model.W[0, 0] = 7
    model.b[0] = 9
    assert model.theta[0, 0] == 7 and model.theta[0, -1] == 9
    assert np.shares_memory(model.W, model.theta)


def test_predictions_by_hand(model):
    X = np.array([[2.0, 0.0], [0.0, 0.0]])
    np.testing.assert_array_equal(model.logits(X), [[2, 0], [0, 0], [0.5, 0.5]])
    np.testing.assert_array_equal(model(X), softmax(model.logits(X)))
    np.testing.assert_array_equal(model.probabilities(X), model(X))
    assert model.predict(X).tolist() == [0, 2]
    assert model.predict_names(X).tolist() == ["cat", "owl"]
    (first, second) = model.top_k(X, k=2)
    assert [name for name, _ in first] == ["cat", "owl"]
    assert [name for name, _ in second] == ["owl", "cat"]  # cat and dog tie, cat comes first
    assert first[0][1] == model(X)[0, 0]
    assert model.predict(np.zeros((2, 0))).shape == (0,)


def test_bytes_and_scaled_floats_agree(rng):
    model = SoftmaxRegression(6, 3, dtype=np.float64, pixel_scale=1 / 255)
    X = rng.integers(0, 256, (6, 4), dtype=np.uint8)
    np.testing.assert_allclose(model.logits(X), model.logits(X / 255), rtol=1e-13)
    np.testing.assert_allclose(
        SoftmaxRegression(6, 3, dtype=np.float64, pixel_scale=1.0).logits(X),
        SoftmaxRegression(6, 3, dtype=np.float64).logits(X.astype(float)),
        rtol=1e-13,
    )


@pytest.mark.parametrize("kind", [*"bBhHiIlLqQ", "list"])
def test_integers_of_every_dtype_are_pixels(kind, rng):
    pixels = rng.integers(0, 127, (6, 9), dtype=np.uint8)
    X, y = pixels.tolist() if kind == "list" else pixels.astype(kind), [0, 1, 2] * 3
    models = [SoftmaxRegression(6, 3, dtype=np.float64, pixel_scale=1 / 255) for _ in range(4)]
    Trainer(models[0], Descent(), DataLoader(pixels, y, 4), test=(pixels, y)).fit(2)
    Trainer(models[1], Descent(), DataLoader(X, y, 4), test=(X, y)).fit(2)
    fit(models[2], pixels, y, l2=0.1)
    fit(models[3], X, y, l2=0.1)
    for expected, found in (models[:2], models[2:]):
        np.testing.assert_array_equal(found.theta, expected.theta)
        np.testing.assert_array_equal(found.logits(X), expected.logits(pixels))
        expected.fit_class_means(pixels, y)
        found.fit_class_means(X, y)
        np.testing.assert_array_equal(found.novelty(X), expected.novelty(pixels))


def every_way_in(model, X):
    """Yield what gives samples to a model, by name."""
    y = np.arange(X.shape[1]) % model.num_outputs
    ones = np.ones_like(X, dtype=float), y
    yield "a trainer", lambda: Trainer(model, Descent(), DataLoader(X, y))
    yield "its test data", lambda: Trainer(model, Descent(), DataLoader(*ones), test=(X, y))
    yield "fit", lambda: fit(model, X, y, l2=1.0)
    problem = FullBatch(*ones)
    yield "test data of fit", lambda: FullBatchTrainer(model, problem, test=(X, y))
    for method in (
        model,
        model.predict,
        model.predict_names,
        model.top_k,
        model.novelty,
        model.evidence,
    ):
        yield f"{method}", lambda method=method: method(X)
    yield "costs", lambda: model.decide(X, np.eye(model.num_outputs))
    yield "class means", lambda: copy.copy(model).fit_class_means(X, y)


PIXELS = np.arange(64 * 9).reshape(64, 9) % 7 * 42  # 0 to 252, as many as a picture has
FAULTS = {
    "floats as large as pixels": (1 / 255, PIXELS.astype(float), r"float64 up to 252.*X / 255"),
    "floats of 16 bits": (1 / 255, PIXELS.astype(np.float16), r"float16 up to 252.*X / 255"),
    "black and white": (1 / 255, (PIXELS > 128).astype(int), r"of 0 and 1 only.*astype\(bool\)"),
    "pixels without a scale": (None, PIXELS, "int64 up to 252, .* pixels; .*pixel_scale=1/255"),
    "bytes without a scale": (None, PIXELS.astype(np.uint8), "uint8 up to 252, .*scale=1/255"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_numbers_that_are_probably_meant_otherwise_give_one_warning(fault):
    scale, X, message = FAULTS[fault]
    model = SoftmaxRegression(64, 3, pixel_scale=scale, sigma=1)
    model.class_means = ClassMeans(np.zeros((64, 3)), np.ones(3))
    for name, call in every_way_in(model, X):
        with pytest.warns(InputWarning, match=message) as found:
            call()
        assert {warning.filename for warning in found} == {__file__}, name
        assert len(found) == 1, name


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (PIXELS * 257, "got 64764; divide pixels of 16 bits, X / 65535; if"),
        (PIXELS - 1, "got -1; if they are not pixels"),
    ],
)
def test_integers_that_are_no_pixels_are_refused(X, message):
    model = SoftmaxRegression(64, 3, pixel_scale=1 / 255)
    model.class_means = ClassMeans(np.zeros((64, 3)), np.ones(3))
    for _, call in every_way_in(model, X):
        with pytest.raises(InputError, match=f"pixels from 0 to 255, {message}"):
            call()


@pytest.mark.parametrize(
    ("scale", "X"),
    [
        (1 / 255, PIXELS > 128),
        (1 / 255, PIXELS * 0),
        (1 / 255, PIXELS[:, :0]),
        (1 / 255, PIXELS / 255),
        (1 / 255, (PIXELS - PIXELS.mean()) / 40),
        (1.0, PIXELS * 257),
        (None, (PIXELS > 128).astype(np.uint8)),
        (None, PIXELS // 2),
        (None, PIXELS - 1),
        (None, PIXELS * 257),
        (None, PIXELS.astype(float)),
        (None, PIXELS[:13]),  # a table: age, blood pressure, heart rate
    ],
)
def test_other_numbers_give_no_warning(scale, X):
    model = SoftmaxRegression(len(X), 3, pixel_scale=scale)
    model.predict(X)
    if X.size:
        Trainer(model, Descent(1e-6), DataLoader(X, np.arange(9) % 3), test=(X, [0] * 9)).fit(1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_file_round_trip(tmp_path, dtype):
    model = SoftmaxRegression(1, 2, seed=4, dtype=dtype, classes="ab", pixel_scale=0.5)
    model.framing = "whole"
    model.temperature = 2.5
    model.fit_class_means([[0, 4, 20, 28]], [0, 0, 1, 1])
    limit = model.fit_evidence_limit([[0, 4, 20, 28]], [0, 0, 1, 1])
    model.save(tmp_path / "m.npz")
    twin = SoftmaxRegression.load(tmp_path / "m.npz")
    np.testing.assert_array_equal(twin.theta, model.theta)
    assert twin.theta.dtype == dtype and twin.theta.flags[f"{memory_order()}_CONTIGUOUS"]
    assert (twin.classes, twin.pixel_scale, twin.temperature) == (("a", "b"), 0.5, 2.5)
    assert twin.framing == "whole" and twin.evidence_limit == limit > 0
    np.testing.assert_array_equal(twin.class_means.means, [[1, 12]])
    np.testing.assert_array_equal(twin.class_means.radii, [1, 2])
    np.testing.assert_array_equal(twin.novelty([[6, 0]]), [2, 1])


def test_names_of_features_are_stored_as_bytes_that_numpy_reads(tmp_path):
    names = ["", "größe", "日本\n", "'; DROP", "trailing "]
    model = SoftmaxRegression(5, 2, feature_names=names)
    model.save(tmp_path / "m.npz")
    assert SoftmaxRegression.load(tmp_path / "m.npz").feature_names == tuple(names)
    with np.load(tmp_path / "m.npz") as arrays:
        assert bytes(arrays["feature_names"]).decode().split("\0") == [*names, ""]


def test_a_vocabulary_of_130107_words_takes_little_in_a_file(tmp_path):
    model = SoftmaxRegression(130_107, 2, sigma=0, feature_names=map(str, range(130_107)))
    model.save(tmp_path / "m.npz")
    assert SoftmaxRegression.load(tmp_path / "m.npz").feature_names[-1] == "130106"
    bytes_of_names = (tmp_path / "m.npz").stat().st_size - model.theta.nbytes
    assert bytes_of_names < 8 * 130_107


def test_the_strongest_features_are_relative_to_the_mean_over_the_classes():
    model = SoftmaxRegression(3, 3, feature_names=["tail", "legs", "wings"])
    model.W[:] = [[3, 9, 0], [0, 9, 0], [0, 9, 6]]
    names = [[name for name, _ in features] for features in model.top_features(2)]
    assert names == [["tail", "legs"], ["legs", "tail"], ["wings", "legs"]]
    assert model.top_features(1)[2] == [("wings", 4.0)]
    model.feature_names = None
    assert model.top_features(1)[0] == [("0", 2.0)]


@given(st.integers(0, 99), st.integers(1, 5), st.integers(2, 4))
def test_a_number_added_to_all_classes_changes_no_strongest_feature(seed, d, k):
    model = SoftmaxRegression(d, k, sigma=0, dtype=np.float64)
    rng = np.random.default_rng(seed)
    model.W[:] = rng.integers(-3, 4, (k, d)) * k  # so that the mean is exact
    before = model.top_features(d)
    model.W[:] += rng.integers(-3, 4, d)
    assert model.top_features(d) == before
    totals = np.zeros(d)
    for features in before:
        for name, value in features:
            totals[int(name)] += value
    np.testing.assert_array_equal(totals, 0)


def test_features_that_mix_the_samples_have_no_names(rng):
    cosines = RandomFourier.fit(rng.normal(size=(2, 9)).astype(np.float32), num_features=2)
    model = SoftmaxRegression(2, 2, features=cosines, feature_names=["a", "b"])
    with pytest.raises(InputError, match="got those of RandomFourier, which mixes them"):
        model.top_features(1)


def test_a_model_of_other_features_has_neither_a_pixel_scale_nor_a_framing(tmp_path, model):
    model.save(tmp_path / "m.npz")
    twin = SoftmaxRegression.load(tmp_path / "m.npz")
    assert twin.pixel_scale is None and twin.framing is None
    ones = np.ones((2, 1), np.uint8)
    np.testing.assert_array_equal(twin.logits(ones), model.logits(ones.astype(float)))


def test_an_older_file_without_a_temperature_and_a_framing_is_read(tmp_path, model):
    names = {"classes": ["cat", "dog", "owl"], "pixel_scale": 1.0}
    storage.write(tmp_path / "m.npz", "model", {"theta": model.theta}, names)
    twin = SoftmaxRegression.load(tmp_path / "m.npz")
    assert twin.temperature == 1 and twin.class_means is twin.evidence_limit is None
    assert twin.set_rule is None
    assert twin.pixel_scale == 1 and twin.framing is None


def test_the_temperature_does_not_change_the_evidence(model, rng):
    X = rng.normal(size=(2, 90))
    evidence = model.evidence(X)
    model.temperature = 3.0
    np.testing.assert_allclose(model.evidence(X), evidence, rtol=1e-5)


def test_temperature_divides_the_logits(model):
    X = np.array([[2.0, 0.0], [0.0, 1.0]])
    logits, labels = model.logits(X), model.predict(X)
    model.temperature = 4.0
    np.testing.assert_array_equal(model.logits(X), logits / 4)
    np.testing.assert_array_equal(model(X), softmax(logits / 4))
    np.testing.assert_array_equal(model.predict(X), labels)


def test_calibration_corrects_an_overconfident_model(fashion_mnist):
    X, y = fashion_mnist.X_train[:, :1500], fashion_mnist.y_train[:1500]
    model = SoftmaxRegression(784, 10, pixel_scale=fashion_mnist.pixel_scale)
    Trainer(model, Adam(), DataLoader(X, y, 64, shuffle=True)).fit(epochs=100)  # too long
    held_out = fashion_mnist.X_train[:, -3000:], fashion_mnist.y_train[-3000:]
    test = fashion_mnist.X_test, fashion_mnist.y_test

    def scores():
        logits = model.logits(test[0])
        return (
            metrics.accuracy(logits, test[1]),
            metrics.negative_log_likelihood(logits, test[1]),
            metrics.expected_calibration_error(softmax(logits), test[1]),
        )

    before = scores()
    assert model.calibrate(*held_out) == model.temperature > 1.1
    after = scores()
    assert after[0] == before[0] and after[1] < before[1] and after[2] < before[2] / 2
    assert model.calibrate(*held_out) == pytest.approx(model.temperature, rel=1e-6)


def test_a_calibrated_model_cannot_be_trained(model):
    X, y = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]), [0, 1, 0]
    minibatches = Trainer(model, Descent(), DataLoader(X, y, 2))
    full_batch = FullBatchTrainer(model, FullBatch(X, y))
    for trainer in (minibatches, full_batch):
        trainer.fit(1)
    model.temperature = 2.0
    for call in (
        lambda: Trainer(model, Descent(), DataLoader(X, y, 2)),
        lambda: fit(model, X, y),
        lambda: minibatches.fit(2),
        lambda: full_batch.fit(2),
    ):
        with pytest.raises(InputError, match=r"temperature 2.*calibrate again"):
            call()
    model.temperature = 1.0
    for trainer in (minibatches, full_batch):
        trainer.fit(2)


def test_a_model_that_could_not_be_loaded_is_not_saved(tmp_path, model):
    path = tmp_path / "m.npz"
    model.pixel_scale = 1
    model.save(path)
    assert SoftmaxRegression.load(path).pixel_scale == 1.0
    content = path.read_bytes()
    for name, value in [
        ("pixel_scale", 0.0),
        ("pixel_scale", "a"),
        ("framing", "tight"),
        ("classes", ["a"]),
        ("theta", model.theta.astype(np.float16)),
        ("theta", model.theta + np.inf),
        ("class_means", ClassMeans(np.zeros((2, 2)), np.zeros(2))),
    ]:
        other = copy.copy(model)
        setattr(other, name, value)
        with pytest.raises(InputError, match=name):
            other.save(path)
    assert path.read_bytes() == content


def test_huge_costs_do_not_overflow(model):
    X = np.array([[2.0, 0.0], [0.0, 0.0]])
    costs = np.array([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]])
    np.testing.assert_array_equal(model.decide(X, costs * 1e308), model.decide(X, costs))
    assert model.decide(X, np.zeros((2, 3))).tolist() == [0, 0]


def test_decisions_by_hand(model):
    model.theta[:] = 0
    model.b[:] = np.log([[0.5], [0.3], [0.2]])
    X = np.zeros((2, 1))
    wrong = 1 - np.eye(3)
    assert model.decide(X, wrong).tolist() == [0]
    assert model.decide(X, [[0, 1, 1], [1, 0, 1], [0.1, 1, 0]]).tolist() == [2]  # 0.5, 0.7, 0.35
    assert model.decide(X, [*wrong, [0.51] * 3]).tolist() == [0]
    assert model.decide(X, [*wrong, [0.49] * 3]).tolist() == [3]  # abstains
    assert model.decide(X, np.ones((4, 3), int)).tolist() == [0]  # a tie


@given(st.integers(0, 2**32 - 1), st.floats(0.5, 100))
def test_equal_costs_of_errors_give_the_most_likely_class(seed, cost):
    model = SoftmaxRegression(3, 4, sigma=2, seed=seed, dtype=np.float64)
    X = np.random.default_rng(seed).normal(size=(3, 20))
    costs = cost * (1 - np.eye(4))
    np.testing.assert_array_equal(model.decide(X, costs), model.predict(X))
    sure = model(X).max(axis=0)
    abstaining = model.decide(X, [*costs, [cost * 0.4] * 4]) == 4
    np.testing.assert_array_equal(abstaining, sure < 0.6)  # Chow's rule


ARRAYS = {"theta": np.zeros((2, 3))}
METADATA = {"classes": ["a", "b"], "pixel_scale": 1.0}
BAD_CLASS_MEANS = [
    {"means": np.zeros((2, 2))},
    {"radii": np.zeros(2)},
    {"means": np.zeros((2, 2)), "radii": np.zeros(3)},
    {"means": np.zeros((3, 2)), "radii": np.zeros(2)},
    {"means": np.zeros((2, 2)), "radii": np.array([1.0, -1.0])},
    {"means": np.zeros((2, 2)), "radii": np.array([1.0, np.nan])},
    {"means": np.full((2, 2), np.inf), "radii": np.ones(2)},
    {"means": np.zeros((2, 2)), "radii": np.ones(2), "more": np.ones(2)},
]

BAD_NAMES = [
    np.frombuffer(b"a\0b", np.uint8),
    np.frombuffer(b"a\0", np.uint8),
    np.frombuffer(b"a\0b\0c\0", np.uint8),
    np.frombuffer(b"a\0a\0", np.uint8),
    np.frombuffer(b"a\0\xff\0", np.uint8),
    np.array([[97, 0], [98, 0]], np.uint8),
    np.array([97, 0, 98, 0], np.int16),
    np.zeros(0, np.uint8),
]


RULE = {"method": "lac", "coverage": 0.9, "thresholds": [0.5]}
BAD_RULES = [
    None,
    [],
    {},
    {**RULE, "more": 1},
    {**RULE, "method": ["lac"]},
    {**RULE, "coverage": "0.9"},
    {**RULE, "coverage": 1.0},
    {**RULE, "thresholds": [0.5] * 3},
    {**RULE, "thresholds": [1]},
    {**RULE, "thresholds": [np.nan]},
    {**RULE, "thresholds": 0.5},
    {**RULE, "thresholds": "0.5"},
    {**RULE, "method": "aps", "randomised": 1},
    {**RULE, "penalty": None},
    {**RULE, "free_ranks": 1.5},
    {**RULE, "temperature": 0.0},
]


@pytest.mark.parametrize(
    ("arrays", "metadata"),
    [
        *((ARRAYS, {**METADATA, "set_rule": rule}) for rule in BAD_RULES),
        *((ARRAYS, {**METADATA, "temperature": T}) for T in (0.0, -1.0, 1e300, 1, "1", None)),
        *((ARRAYS, {**METADATA, "evidence_limit": e}) for e in (-1.0, np.inf, 1, "1", None)),
        *((ARRAYS, {**METADATA, "framing": framing}) for framing in ("tight", 1, [])),
        *(({**ARRAYS, **more}, METADATA) for more in BAD_CLASS_MEANS),
        *(({**ARRAYS, "feature_names": names}, METADATA) for names in BAD_NAMES),
    ],
)
def test_a_file_with_bad_metadata_or_bad_class_means_is_refused(tmp_path, arrays, metadata):
    """All other bad files are in test_hostile_files.py."""
    storage.write(tmp_path / "m.npz", "model", arrays, metadata)
    with pytest.raises(CorruptFileError, match=r"m\.npz: expected a model, got"):
        SoftmaxRegression.load(tmp_path / "m.npz")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m.logits(np.zeros((5, 2))), ShapeError, r"pass np.asarray\(X\).T"),
        (lambda m: m(np.array([[np.nan], [0]])), InputError, "got nan"),
        (lambda m: m.top_k(np.zeros((2, 1)), k=4), InputError, "at most 3"),
        (lambda m: m.top_k(np.zeros((2, 1)), k=0), InputError, "at least 1"),
        (lambda m: SoftmaxRegression(2, 3).predict([[1e300], [0]]), InputError, "fit float32"),
        (lambda m: m.decide(np.zeros((2, 1)), np.zeros((2, 2))), ShapeError, r"\(actions, 3\)"),
        (lambda m: m.decide(np.zeros((2, 1)), np.zeros((0, 3))), ShapeError, r"\(actions, 3\)"),
        (lambda m: m.decide(np.zeros((2, 1)), np.full((1, 3), np.nan)), InputError, "costs"),
        (lambda m: m.decide(np.zeros((2, 1)), [1, 2, 3]), ShapeError, r"\(actions, 3\)"),
        (lambda m: setattr(m, "temperature", "2"), InputError, "temperature"),
        (lambda m: setattr(m, "temperature", 0), InputError, "temperature"),
        (lambda m: setattr(m, "temperature", np.nan), InputError, "temperature"),
        (lambda m: m.novelty(np.zeros((2, 1))), InputError, "fit_class_means"),
        (lambda m: m.fit_class_means(np.zeros((3, 1)), [0]), ShapeError, "2 features"),
        (lambda m: m.fit_class_means(np.zeros((2, 1)), [3]), LabelError, "0..2"),
        (lambda m: m.fit_class_means(np.zeros((2, 1)), [0, 0]), ShapeError, "as many labels"),
        (lambda m: m.novelty(np.zeros((3, 1))), ShapeError, "2 features"),
        (lambda m: m.calibrate(np.zeros((2, 1)), [0, 1]), ShapeError, "as many labels"),
        (lambda m: SoftmaxRegression(3, 2, pixel_scale=0), InputError, "pixel_scale"),
        (lambda m: SoftmaxRegression(3, 2, pixel_scale=np.inf), InputError, "pixel_scale"),
        (lambda m: SoftmaxRegression(3, 2, framing="tight"), InputError, "framing"),
        (lambda m: SoftmaxRegression(0, 3), InputError, "num_inputs"),
        (lambda m: SoftmaxRegression(3, 2.5), InputError, "num_outputs"),
        (lambda m: SoftmaxRegression(3, 2, sigma=-1), InputError, "sigma"),
        (lambda m: SoftmaxRegression(3, 2, seed=-1), InputError, "seed"),
        (lambda m: SoftmaxRegression(3, 2, dtype=int), InputError, "float32 or float64"),
        (lambda m: SoftmaxRegression(3, 2, classes=["a"]), ShapeError, "expected 2 names"),
        (lambda m: SoftmaxRegression(2, 2, feature_names=["a"]), ShapeError, "expected 2 names"),
        (lambda m: SoftmaxRegression(2, 2, feature_names=["a", "a"]), InputError, "'a' 2 times"),
        (lambda m: SoftmaxRegression(1, 2, feature_names=["a\0"]), InputError, "zero character"),
        (lambda m: SoftmaxRegression(1, 2, feature_names=["\ud800"]), InputError, "surrogates"),
        (lambda m: m.top_features(3), InputError, "at most 2 features"),
        (lambda m: m.top_features(0), InputError, "at least 1"),
    ],
)
def test_refusals(model, call, error, message):
    with pytest.raises(error, match=message):
        call(model)


@pytest.mark.parametrize("value", [True, 255, 0, -1, "1/255", np.nan])
def test_a_pixel_scale_is_a_factor_of_at_most_1(value):
    with pytest.raises(InputError, match=r"pixel_scale: expected None or .* 1/255, got"):
        SoftmaxRegression(4, 3, pixel_scale=value)


class Fitted:
    """Like a fitted estimator."""

    to_model = None


OTHERS = {
    "the samples": (np.zeros((2, 3)), "got ndarray; make one: SoftmaxRegression"),
    "the optimiser": (Descent(0.1), "got Descent; make one"),
    "the class": (SoftmaxRegression, "got type; make one"),
    "an estimator": (Fitted(), r"got Fitted; pass its to_model\(\)"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_what_is_given_instead_of_a_model_is_named(other, tmp_path):
    given, message = OTHERS[other]
    X, y = np.zeros((2, 3)), [0, 1, 0]
    ways = [
        lambda: fit(given, X, y),
        lambda: Trainer(given, Descent(), DataLoader(X, y)),
        lambda: FullBatchTrainer(given, FullBatch(X, y)),
    ]
    for module in ("onnx_export", "safetensors_export", "web_page"):
        export = pytest.importorskip(f"npsoftmax.ext.{module}")
        ways.append(lambda export=export: export.save(given, tmp_path / "file"))
    for way in ways:
        with pytest.raises(InputError, match=f"model: expected a SoftmaxRegression, {message}"):
            way()


def test_a_notebook_shows_what_a_model_is_and_knows():
    names = ["<b>", *"abcdefghijklmn"]
    model = SoftmaxRegression(2, 15, classes=names, pixel_scale=1 / 255, dtype=np.float64)
    model.theta[:] = 0
    model.W[0] = 3, 4
    shown = model._repr_html_()
    assert "<caption>SoftmaxRegression(2 =&gt; 15, float64)</caption>" in shown
    assert "<th>classes</th><td>&lt;b&gt;, a, b, c, d, e, f, g, h, i, j, k, and 3 others" in shown
    assert "<td>2 numbers, integers times 0.00392157</td>" in shown
    assert "<td>45 of float64, norm of W 5</td>" in shown
    assert "temperature" not in shown


@pytest.mark.parametrize(
    ("dtype", "largest", "norm"), [(np.float32, 3e38, "4.243e+38"), (np.float64, 1e300, "inf")]
)
def test_a_notebook_shows_a_diverged_model_and_odd_names(dtype, largest, norm):
    model = SoftmaxRegression(1, 2, classes=["", "x" * 1000], dtype=dtype)
    model.theta[:] = largest
    shown = model._repr_html_()
    assert f"norm of W {norm}</td>" in shown
    assert f"<th>classes</th><td>&#x27;&#x27;, {'x' * 39}…</td>" in shown


def test_what_a_model_has_learned_about_its_predictions_is_shown():
    X, y = np.array([[-2.0, -1.5, -1.0, 1.0, 1.5, 2.0]]), np.array([0, 1, 0, 1, 0, 1])
    model = SoftmaxRegression(1, 2, dtype=np.float64, features=RandomFourier.fit(X, 4, seed=0))
    fit(model, X, y, l2=0.1)
    model.calibrate(X, y)
    model.fit_class_means(X, y)
    model.fit_evidence_limit(X, y)
    model.calibrate_sets(X, y, coverage=0.5)
    shown = model._repr_html_()
    for row in ("features</th><td>4, by RandomFourier", "temperature", "novelty", "doubt"):
        assert f"<th>{row}" in shown
    assert "<th>sets</th><td>lac, coverage 0.5</td>" in shown
