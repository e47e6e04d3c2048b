"""The model: parameters, predictions, files."""

import tracemalloc

import numpy as np
import pytest

from npsoftmax import SoftmaxRegression, softmax, storage
from npsoftmax.errors import (
    CorruptFileError,
    FormatVersionError,
    InputError,
    OutputError,
    ShapeError,
)


@pytest.fixture
def model():
    model = SoftmaxRegression(2, 3, classes=["cat", "dog", "owl"], dtype=np.float64)
    model.theta[:] = [[1, 0, 0], [0, 1, 0], [0, 0, 0.5]]
    return model


def test_initial_parameters():
    model = SoftmaxRegression(784, 10)
    assert model.theta.shape == (10, 785) and model.theta.flags.f_contiguous
    assert model.theta.dtype == np.float32
    assert (model.b == 0).all() and model.b.shape == (10, 1)
    assert abs(model.W.mean()) < 5e-4 and model.W.std() == pytest.approx(0.01, rel=0.05)
    np.testing.assert_array_equal(model.theta, SoftmaxRegression(784, 10, seed=0).theta)
    assert (model.W != SoftmaxRegression(784, 10, seed=1).W).mean() > 0.99
    double = SoftmaxRegression(784, 10, dtype=np.float64)
    np.testing.assert_array_equal(double.theta.astype(np.float32), model.theta)
    assert (SoftmaxRegression(3, 2, sigma=0).theta == 0).all()


def test_weights_are_drawn_in_blocks_as_in_one_go():
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
    assert np.shares_memory(model.theta.ravel("F"), model.theta)


def test_predictions_by_hand(model):
    X = np.array([[2.0, 0.0], [0.0, 0.0]])
    np.testing.assert_array_equal(model.logits(X), [[2, 0], [0, 0], [0.5, 0.5]])
    np.testing.assert_array_equal(model(X), softmax(model.logits(X)))
    np.testing.assert_array_equal(model.probabilities(X), model(X))
    assert model.predict(X).tolist() == [0, 2]
    (first, second) = model.top_k(X, k=2)
    assert [name for name, _ in first] == ["cat", "owl"]
    assert [name for name, _ in second] == ["owl", "cat"]  # cat and dog tie, cat comes first
    assert first[0][1] == model(X)[0, 0]
    assert model.predict(np.zeros((2, 0))).shape == (0,)


def test_bytes_and_scaled_floats_agree(rng):
    model = SoftmaxRegression(6, 3, dtype=np.float64)
    X = rng.integers(0, 256, (6, 4), dtype=np.uint8)
    np.testing.assert_allclose(model.logits(X), model.logits(X / 255), rtol=1e-13)
    np.testing.assert_allclose(
        SoftmaxRegression(6, 3, dtype=np.float64, pixel_scale=1.0).logits(X),
        model.logits(X.astype(float)),
        rtol=1e-13,
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_file_round_trip(tmp_path, dtype):
    model = SoftmaxRegression(5, 3, seed=4, dtype=dtype, classes="abc", pixel_scale=0.5)
    model.save(tmp_path / "m.npz")
    twin = SoftmaxRegression.load(tmp_path / "m.npz")
    np.testing.assert_array_equal(twin.theta, model.theta)
    assert twin.theta.dtype == dtype and twin.theta.flags.f_contiguous
    assert twin.classes == ("a", "b", "c") and twin.pixel_scale == 0.5


def test_bad_files(tmp_path, monkeypatch, model):
    path = tmp_path / "m.npz"
    with pytest.raises(InputError, match="cannot read"):
        SoftmaxRegression.load(path)
    storage.write(path, "checkpoint", {"theta": model.theta}, {})
    with pytest.raises(CorruptFileError, match="expected a model, got a checkpoint"):
        SoftmaxRegression.load(path)
    for arrays, metadata in [
        ({}, {}),
        ({"theta": np.zeros(3)}, {}),
        ({"theta": np.zeros((2, 3), int)}, {}),
        ({"theta": np.zeros((2, 3))}, {"classes": ["a"]}),
        ({"theta": np.zeros((2, 3))}, {"unknown": 1}),
        ({"theta": np.zeros((2, 1))}, {}),
        ({"theta": np.full((2, 3), np.nan)}, {}),
        ({"theta": np.zeros((2, 3))}, {"pixel_scale": "a"}),
        ({"theta": np.zeros((2, 3))}, {"pixel_scale": 10**400}),
        ({"theta": np.zeros((2, 3))}, {"pixel_scale": -1}),
        ({"theta": np.zeros((2, 3))}, {"classes": 5}),
    ]:
        storage.write(path, "model", arrays, metadata)
        with pytest.raises(CorruptFileError, match="expected"):
            SoftmaxRegression.load(path)
    model.save(path)
    monkeypatch.setattr(storage, "FORMAT_VERSION", 99)
    with pytest.raises(FormatVersionError, match="expected format version 99, got 1"):
        SoftmaxRegression.load(path)
    with pytest.raises(OutputError):
        model.save(path / "below")
    model.b[0] = np.inf
    with pytest.raises(InputError, match="finite parameters"):
        model.save(tmp_path / "other.npz")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m.logits(np.zeros((5, 2))), ShapeError, "pass X.T"),
        (lambda m: m.predict(np.zeros(2)), ShapeError, "single sample"),
        (lambda m: m(np.array([[np.nan], [0]])), InputError, "got nan"),
        (lambda m: m.top_k(np.zeros((2, 1)), k=4), InputError, "at most 3"),
        (lambda m: m.top_k(np.zeros((2, 1)), k=0), InputError, "at least 1"),
        (lambda m: SoftmaxRegression(2, 3).predict([[1e300], [0]]), InputError, "fit float32"),
        (lambda m: SoftmaxRegression(3, 2, pixel_scale=0), InputError, "pixel_scale"),
        (lambda m: SoftmaxRegression(3, 2, pixel_scale=np.inf), InputError, "pixel_scale"),
        (lambda m: SoftmaxRegression(0, 3), InputError, "num_inputs"),
        (lambda m: SoftmaxRegression(3, 2.5), InputError, "num_outputs"),
        (lambda m: SoftmaxRegression(3, 2, sigma=-1), InputError, "sigma"),
        (lambda m: SoftmaxRegression(3, 2, seed=-1), InputError, "seed"),
        (lambda m: SoftmaxRegression(3, 2, dtype=int), InputError, "float32 or float64"),
        (lambda m: SoftmaxRegression(3, 2, classes=["a"]), ShapeError, "expected 2 names"),
    ],
)
def test_refusals(model, call, error, message):
    with pytest.raises(error, match=message):
        call(model)
