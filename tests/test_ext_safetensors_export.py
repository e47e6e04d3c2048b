"""The tensors are the parameters of the model, in C order, and load into torch."""

import copy
import json

import numpy as np
import pytest

from npsoftmax import SoftmaxRegression
from npsoftmax.errors import InputError, OutputError
from npsoftmax.features import Patches, unpack

pytest.importorskip("safetensors")
import safetensors.numpy

from npsoftmax.ext import safetensors_export

FLOATS = [np.float32, np.float64]


def about(path):
    with safetensors.safe_open(path, framework="numpy") as file:
        return file.metadata()


@pytest.mark.skipif(safetensors.__version__ != "0.8.0", reason="other versions may do it right")
def test_the_reason_for_copies_in_c_order():
    fortran = np.asfortranarray([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    back = safetensors.numpy.load(safetensors.numpy.save({"W": fortran}))["W"]
    assert back.tolist() == [[1.0, 4.0, 2.0], [5.0, 3.0, 6.0]]


@pytest.mark.parametrize(("d", "k"), [(1, 1), (5, 1), (16_384, 3), (20, 1000)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_tensors_are_the_parameters_bit_for_bit(d, k, dtype):
    model = SoftmaxRegression(d, k, dtype=dtype)
    model.theta[0, 0], model.theta[:, -1] = -0.0, range(k)
    safetensors_export.save(model, "model.safetensors")
    tensors = safetensors.numpy.load_file("model.safetensors")
    assert tensors.keys() == {"weight", "bias"}
    assert (tensors["weight"].shape, tensors["bias"].shape) == ((k, d), (k,))
    assert tensors["weight"].dtype == tensors["bias"].dtype == dtype
    assert tensors["weight"].tobytes() == model.W.tobytes()
    assert tensors["bias"].tobytes() == model.b.tobytes()


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_temperature_is_in_the_tensors(dtype):
    model = SoftmaxRegression(5, 3, dtype=dtype)
    model.temperature = 1.7
    safetensors_export.save(model, "model.safetensors")
    tensors = safetensors.numpy.load_file("model.safetensors")
    assert tensors["weight"].dtype == dtype
    X = np.eye(5)
    logits = tensors["weight"] @ X + tensors["bias"][:, None]
    np.testing.assert_allclose(logits, model.logits(X), rtol=1e-6)


def check_images(model, X, tolerance=1e-6):
    """Compare the logits of the model with those of the torch layer that loads its export."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    safetensors_export.save(model, "model.safetensors")
    layer = torch.nn.Linear(model.num_inputs, model.num_outputs)
    layer.load_state_dict(load_file("model.safetensors"))
    expected = model.logits(X).T
    found = layer(torch.from_numpy(X.T.astype(np.float32) / 255)).detach().numpy()
    assert np.abs(found - expected).max() < tolerance * np.abs(expected).max()
    assert found.argmax(axis=1).tolist() == model.predict(X).tolist()


@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_torch_gives_the_logits_of_real_images(fashion_model, fashion_mnist, temperature):
    model = copy.copy(fashion_model)
    model.temperature = temperature
    check_images(model, fashion_mnist.X_test[:, :1000])


def test_torch_gives_the_logits_of_noise(rng):
    X = rng.integers(0, 256, (784, 1000), dtype=np.uint8)
    model = SoftmaxRegression(784, 10, sigma=0.1, pixel_scale=1 / 255)
    check_images(model, X, 5e-6)  # torch sums in float32


@pytest.mark.parametrize(
    "classes",
    [
        ['"quoted"', "two\nlines", "back\\slash", "nul\0"],
        ["é", "漢字", "🙂", "\ud800 alone"],
        [f"class {i}" for i in range(10_000)],
    ],
)
def test_names_of_classes_come_back(classes):
    model = SoftmaxRegression(1, len(classes), 0, 0, "f4", classes, 1 / 3, "whole")
    model.temperature = 1.7
    safetensors_export.save(model, "model.safetensors")
    content = json.loads(about("model.safetensors")["npsoftmax"])
    assert content["classes"] == classes
    assert (content["pixel_scale"], content["temperature"]) == (1 / 3, 1.7)
    assert content["framing"] == "whole"


def test_a_model_of_other_features_has_no_pixel_scale():
    safetensors_export.save(SoftmaxRegression(2, 3), "model.safetensors")
    content = json.loads(about("model.safetensors")["npsoftmax"])
    assert content["pixel_scale"] is None and content["framing"] is None


def test_features_come_back(rng):
    X = rng.integers(0, 256, (784, 40), dtype=np.uint8)
    patches = Patches.fit(X, filters=8)
    model = SoftmaxRegression(784, 3, pixel_scale=1 / 255, features=patches)
    safetensors_export.save(model, "model.safetensors")
    tensors = safetensors.numpy.load_file("model.safetensors")
    assert (tensors.pop("weight").shape, tensors.pop("bias").shape) == ((3, 200), (3,))
    settings = json.loads(about("model.safetensors")["npsoftmax"])["features"]
    np.testing.assert_array_equal(unpack(tensors, settings)(X), patches(X))


def test_the_same_model_gives_the_same_bytes(tmp_path):
    for i in range(10):
        safetensors_export.save(SoftmaxRegression(20, 10), tmp_path / str(i))
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


@pytest.mark.parametrize(
    ("value", "temperature"), [(np.nan, 1.0), (np.inf, 1.0), (1e30, 1e-20), (-1e30, 1e-20)]
)
def test_parameters_that_are_not_finite_are_refused(tmp_path, value, temperature):
    model = SoftmaxRegression(2, 3)
    model.theta[0, 0], model.temperature = value, temperature
    message = r"theta / temperature: expected (finite|numbers that fit)"
    with pytest.raises(InputError, match=message):
        safetensors_export.save(model, tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_file_that_exists_is_replaced_and_a_folder_is_not(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_text("before")
    safetensors_export.save(SoftmaxRegression(2, 3), path)
    assert "npsoftmax" in about(path)
    with pytest.raises(OutputError, match="got a folder"):
        safetensors_export.save(SoftmaxRegression(2, 3), tmp_path)
