"""The graph computes the labels and probabilities of the model, with ONNX Runtime alone.

It sums in float64 like the model. Sums in float32 differ from that, and from each other, by 1e-6.
"""

import copy
import json

import numpy as np
import pytest
from running import INSTALL

from npsoftmax import SoftmaxRegression
from npsoftmax.errors import InputError, OutputError
from npsoftmax.features import Chain, FeatureMap, Patches, RandomFourier

pytest.importorskip("onnx", reason=INSTALL)
pytest.importorskip("onnxruntime", reason=INSTALL)
import onnx
import onnxruntime

from npsoftmax.ext import onnx_export

FLOATS = [np.float32, np.float64]


def run(model, X, dtype=np.uint8):
    """Export a model, and return the labels and probabilities (columns) of the graph for X."""
    onnx_export.save(model, "model.onnx", dtype)
    session = onnxruntime.InferenceSession("model.onnx")
    name = "pixels" if dtype == np.uint8 else "features"
    label, probabilities = session.run(["label", "probabilities"], {name: X.T.astype(dtype)})
    return label, probabilities.T


def assert_equal_to_the_model(model, X, dtype=np.uint8):
    label, probabilities = run(model, X, dtype)
    assert (label.dtype, probabilities.dtype) == (np.int64, model.theta.dtype)
    assert (label.shape, probabilities.shape) == ((X.shape[1],), (model.num_outputs, X.shape[1]))
    assert label.tolist() == model.predict(X).tolist()
    bound = 1e-12 if model.theta.dtype == np.float64 else 1e-7
    assert np.abs(probabilities - model(X)).max(initial=0) < bound


@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_real_images(fashion_model, fashion_mnist, temperature):
    model = copy.copy(fashion_model)
    model.temperature = temperature
    assert_equal_to_the_model(model, fashion_mnist.X_test[:, :1000])


@pytest.mark.parametrize("temperature", [1.0, 1.7])
@pytest.mark.parametrize("weights", FLOATS)
@pytest.mark.parametrize("given", [np.uint8, *FLOATS])
def test_every_dtype_of_weights_and_input(rng, weights, given, temperature):
    scale = 1 / 255 if given == np.uint8 else None
    model = SoftmaxRegression(20, 5, sigma=1, dtype=weights, pixel_scale=scale)
    model.temperature = temperature
    X = rng.normal(size=(20, 300)) if given != np.uint8 else rng.integers(0, 256, (20, 300))
    assert_equal_to_the_model(model, X.astype(given), given)


@pytest.mark.parametrize(("d", "k"), [(1, 1), (5, 1), (5, 2), (16_384, 3), (20, 1000)])
@pytest.mark.parametrize("n", [0, 1, 7])
def test_sizes(rng, d, k, n):
    X = rng.integers(0, 256, (d, n), dtype=np.uint8)
    assert_equal_to_the_model(SoftmaxRegression(d, k, sigma=1, pixel_scale=1 / 255), X)


@pytest.mark.parametrize("weights", FLOATS)
def test_extreme_logits(rng, weights):
    model = SoftmaxRegression(784, 10, sigma=1e4, dtype=weights, pixel_scale=1 / 255)
    X = rng.integers(0, 256, (784, 100), dtype=np.uint8)
    assert np.abs(model.logits(X)).max() > 1e5
    assert_equal_to_the_model(model, X)


def on_features(rng, shape, mirror=False, fourier=False):
    """Return a model on features of images with even, bright areas, and such images."""
    images = rng.integers(0, 256, (40, *shape), dtype=np.uint8)
    images[:, : shape[0] // 2] = 255
    X = images.reshape(40, -1).T
    features = Patches.fit(X, shape, filters=8, mirror=mirror)
    if fourier:
        later = RandomFourier.fit(features(X, scale=1 / 255), 50)
        features = Chain([features, later])
    d = X.shape[0]
    model = SoftmaxRegression(d, 5, sigma=0.3, pixel_scale=1 / 255, features=features)
    return model, X


@pytest.mark.parametrize("shape", [(28, 28), (12, 17, 3)])
@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("fourier", [False, True])
def test_features_are_in_the_graph(rng, shape, mirror, fourier):
    model, X = on_features(rng, shape, mirror, fourier)
    for part, dtype in ((X, np.uint8), (X[:, :0], np.uint8), ((X / 255).astype("f4"), np.float32)):
        label, probabilities = run(model, part, dtype)
        assert label.tolist() == model.predict(part).tolist()
        assert np.abs(probabilities - model(part)).max(initial=0) < 1e-5
    about = onnxruntime.InferenceSession("model.onnx").get_modelmeta().custom_metadata_map
    kinds = [part["kind"] for part in json.loads(about["features"])]
    assert kinds == ["Patches", "RandomFourier"][: 1 + fourier]


def test_other_features_are_refused(rng):
    class Other(FeatureMap):
        num_inputs = num_outputs = 4

    with pytest.raises(
        InputError, match="expected Patches, RandomFourier or Standardise, got Other; export"
    ):
        onnx_export.save(SoftmaxRegression(4, 3, features=Other()), "model.onnx")


@pytest.mark.parametrize(
    ("theta", "x", "label"),
    [
        ([[0, 0], [2, 0], [2, 0], [1, 0]], 3.0, 1),
        ([[1, 5], [np.float32(1.0000001), 5]], 0.5, 0),  # equal after rounding
    ],
)
def test_the_first_class_wins_a_tie(theta, x, label):
    model = SoftmaxRegression(1, len(theta))
    model.theta[:] = theta
    X = np.array([[x]])
    assert run(model, X, np.float32)[0].tolist() == model.predict(X).tolist() == [label]


def test_logits_decide_where_probabilities_round_to_the_same():
    model = SoftmaxRegression(1, 2)
    model.theta[:, -1] = [0.25, np.nextafter(np.float32(0.25), 1)]
    X = np.array([[0.0]])
    label, probabilities = run(model, X, np.float32)
    assert probabilities.tolist() == [[0.5], [0.5]]
    assert label.tolist() == model.predict(X).tolist() == [1]


def test_other_scales_of_pixels():
    model = SoftmaxRegression(1, 2, dtype=np.float64, pixel_scale=0.5)
    model.theta[:] = [[0, 0], [1, 0]]
    _, probabilities = run(model, np.array([[2]], dtype=np.uint8))
    assert probabilities[1, 0] == pytest.approx(1 / (1 + np.exp(-1)))
    _, probabilities = run(model, np.array([[2.0]]), np.float64)
    assert probabilities[1, 0] == pytest.approx(1 / (1 + np.exp(-2)))


@pytest.mark.parametrize(
    ("expected", "given"), [(np.uint8, np.float32), (np.uint8, np.int64), (np.float32, np.uint8)]
)
def test_input_of_another_type_is_an_error(expected, given):
    onnx_export.save(SoftmaxRegression(2, 3, pixel_scale=1 / 255), "model.onnx", expected)
    session = onnxruntime.InferenceSession("model.onnx")
    (put,) = session.get_inputs()
    with pytest.raises(Exception, match="Unexpected input data type"):
        session.run(None, {put.name: np.zeros((1, 2), dtype=given)})


@pytest.mark.parametrize(
    ("pixel_scale", "dtype", "name", "given"),
    [
        (1 / 255, np.float32, "pixels", "uint8"),
        (None, np.float32, "features", "float"),
        (None, np.float64, "features", "double"),
    ],
)
def test_the_signature_of_the_graph(pixel_scale, dtype, name, given):
    model = SoftmaxRegression(4, 3, dtype=dtype, pixel_scale=pixel_scale)
    onnx_export.save(model, "model.onnx")
    session = onnxruntime.InferenceSession("model.onnx")
    facts = [
        [(place.name, place.type, place.shape) for place in places]
        for places in (session.get_inputs(), session.get_outputs())
    ]
    output = "tensor(double)" if dtype == np.float64 else "tensor(float)"
    assert facts == [
        [(name, f"tensor({given})", ["N", 4])],
        [("label", "tensor(int64)", ["N"]), ("probabilities", output, ["N", 3])],
    ]
    model = onnx.load("model.onnx")
    assert model.ir_version == 8  # higher versions are too new for ONNX Runtime before 1.15
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]
    assert {node.op_type for node in model.graph.node} == {
        "Cast", "Mul", "Gemm", "ArgMax", "Softmax",
    }  # fmt: skip


@pytest.mark.parametrize(
    "classes",
    [
        ['"quoted"', "two\nlines", "back\\slash", "nul\0"],
        ["é", "漢字", "🙂", "\ud800 alone"],
        ["", "", "</script>", "x" * 10_000],
        [f"class {i}" for i in range(10_000)],
    ],
)
def test_names_of_classes_come_back(classes):
    model = SoftmaxRegression(1, len(classes), 0, 0, "f4", classes, 1 / 3, "whole")
    model.temperature = 1.7
    onnx_export.save(model, "model.onnx")
    about = onnxruntime.InferenceSession("model.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == classes
    assert (float(about["pixel_scale"]), about["framing"]) == (1 / 3, "whole")
    assert float(about["temperature"]) == 1.7


def test_the_same_model_gives_the_same_bytes(tmp_path):
    for name in "ab":
        onnx_export.save(SoftmaxRegression(20, 10), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    onnx_export.save(SoftmaxRegression(20, 10, seed=1), tmp_path / "b")
    assert (tmp_path / "a").read_bytes() != (tmp_path / "b").read_bytes()


def spoilt(value=1.0, temperature=1.0, dtype=np.float32):
    model = SoftmaxRegression(2, 3, dtype=dtype)
    model.theta[0, 0], model.temperature = value, temperature
    return model


def huge():
    model = SoftmaxRegression(2, 3)
    model.theta = np.broadcast_to(np.float32(0), (1000, 240_001))
    return model


@pytest.mark.parametrize(
    ("model", "dtype", "message"),
    [
        (spoilt(), np.int32, "expected uint8, float32 or float64 for the input, got int32"),
        (spoilt(), np.uint8, "expected float32 or float64, as the model has no pixel scale"),
        (spoilt(np.nan), None, "theta / temperature: expected finite"),
        (spoilt(np.inf), None, "theta / temperature: expected finite"),
        (spoilt(1e300, 1e-20, np.float64), None, "theta / temperature: expected finite"),
        (huge(), None, "at most 240,000,000 parameters for an ONNX file, got 240,001,000"),
    ],
)
def test_refused_models_leave_the_file_alone(tmp_path, model, dtype, message):
    path = tmp_path / "model.onnx"
    path.write_text("before")
    with pytest.raises(InputError, match=message):
        onnx_export.save(model, path, dtype)
    assert path.read_text() == "before"


def test_an_invalid_graph_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "IR_VERSION", 99)
    with pytest.raises(OutputError, match=r"expected a graph that onnx .* finds valid"):
        onnx_export.save(spoilt(), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_file_that_exists_is_replaced_and_a_folder_is_not(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_text("before")
    onnx_export.save(spoilt(), path)
    assert onnx.load(path).producer_name == "npsoftmax"
    with pytest.raises(OutputError, match="got a folder"):
        onnx_export.save(spoilt(), tmp_path)
