"""The command that writes a model in formats that other programs read."""

import json
import os
import shlex
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from running import INSTALL, SCRIPTS, one_line, run_here, run_process

from npsoftmax import SoftmaxRegression
from npsoftmax.ext import advice
from npsoftmax.features import Patches

SCRIPT = SCRIPTS / "export.py"
run = partial(run_here, SCRIPT, ".")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def model(tmp_path):
    """A model that was never trained."""
    path = tmp_path / "model.npz"
    SoftmaxRegression(784, 3, classes=["cat", "dog", "owl"], pixel_scale=1 / 255).save(path)
    return path


def test_all_formats_go_beside_the_model(model):
    pytest.importorskip("onnx", reason=INSTALL)
    pytest.importorskip("safetensors", reason=INSTALL)
    process = run(model, "--onnx", "--safetensors", "--html")
    assert process.returncode == 0, process.stderr
    assert names(model.parent) == ["model.html", "model.npz", "model.onnx", "model.safetensors"]
    for path in model.parent.glob("model.[hos]*"):
        assert f"{path}  {path.stat().st_size:,} bytes\n" in process.stdout
    assert "input    pixels: uint8 (N, 784)" in process.stdout
    assert "label: int64 (N,), probabilities: float32 (N, 3)" in process.stdout
    assert "weight: float32 (3, 784), bias: float32 (3,)" in process.stdout
    assert model.with_suffix(".html").read_text("utf-8").startswith("<!DOCTYPE html>")


def test_what_is_printed_is_what_the_graph_takes_and_gives(model):
    onnxruntime = pytest.importorskip("onnxruntime", reason=INSTALL)
    assert "times 0.00392156862745098 in the graph" in run(model, "--onnx").stdout
    session = onnxruntime.InferenceSession(model.with_suffix(".onnx"))
    X = np.arange(784 * 2, dtype=np.uint8).reshape(784, 2)
    label, probabilities = session.run(["label", "probabilities"], {"pixels": X.T})
    assert label.tolist() == SoftmaxRegression.load(model).predict(X).tolist()
    np.testing.assert_allclose(probabilities.T, SoftmaxRegression.load(model)(X), atol=1e-6)


def test_the_weights_of_a_model_with_features_are_those_on_the_features(model):
    pytest.importorskip("safetensors", reason=INSTALL)
    images = np.random.default_rng(0).integers(0, 256, (784, 30), dtype=np.uint8)
    patches = Patches.fit(images, filters=2)
    SoftmaxRegression(784, 3, pixel_scale=1 / 255, features=patches).save(model)
    process = run(model, "--safetensors")
    assert "weight: float32 (3, 50)" in process.stdout
    assert "input    what model.extract(X) returns" in process.stdout


def test_json(model):
    pytest.importorskip("safetensors", reason=INSTALL)
    calibrated = SoftmaxRegression.load(model)
    calibrated.temperature = 1.7
    calibrated.save(model)
    process = run(model, "--safetensors", "--html", "--json")
    report = json.loads(process.stdout)
    assert report["classes"] == ["cat", "dog", "owl"]
    assert (report["num_inputs"], report["num_outputs"], report["dtype"]) == (784, 3, "float32")
    assert (report["pixel_scale"], report["temperature"]) == (1 / 255, 1.7)
    assert [file["format"] for file in report["files"]] == ["safetensors", "html"]
    for file in report["files"]:
        assert Path(file["path"]).stat().st_size == file["bytes"]


def test_a_file_of_another_name_replaces_what_is_there(model, tmp_path):
    path = tmp_path / "new" / "page.html"
    assert run(model, "--html", "-o", path, "--quiet").stdout == ""
    before = path.read_bytes()
    path.write_text("old")
    assert run("--html", "-o", path, model).returncode == 0
    assert path.read_bytes() == before
    assert names(model.parent) == ["model.npz", "new"]


@pytest.mark.parametrize("folder", ["site/", "my site/deep/", "there", "."])
def test_a_folder_gets_a_file_for_each_format(model, tmp_path, monkeypatch, folder):
    pytest.importorskip("safetensors", reason=INSTALL)
    monkeypatch.chdir(tmp_path)
    Path("there").mkdir()
    process = run_here(SCRIPT, tmp_path, model, "--html", "--safetensors", "-o", folder)
    assert process.returncode == 0, process.stderr
    assert {"model.html", "model.safetensors"} <= set(os.listdir(folder))
    assert Path(shlex.split(process.stdout.splitlines()[0])[0]).parent == Path(folder)


def test_a_model_may_be_named_by_its_run_folder(model, tmp_path):
    assert run(tmp_path, "--html").returncode == 0
    assert names(tmp_path) == ["model.html", "model.npz"]
    model.rename(tmp_path / "checkpoint.npz")
    line = one_line(run(tmp_path, "--html"), 2)
    assert f"run train.py again with its flags and --resume --run-dir {tmp_path}" in line


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "add --onnx, --safetensors or --html"),
        (["--html", "--onnx", "-o", "{folder}/x"], "got 2; name a folder instead: -o {folder}/x/"),
        (["--html", "-o", "{folder}/model.npz"], "name it {folder}/model.html, or "),
        (["--html", "-o", "{folder}/hard.html"], "expected a file other than a model"),
        (["--html", "-o", "{folder}/model.npz/x.html"], "cannot write"),
        (["--html", "-o", "{folder}/x"], "got {folder}/x; name it {folder}/x.html, or {folder}/x/"),
        (["--html", "-o", "{folder}/a.png"], "expected a name that ends in .html, or a folder"),
        (["--html", "--svg"], "unrecognized arguments: --svg"),
    ],
)
def test_refusals_leave_everything_as_it_was(model, flags, message):
    folder, before = model.parent, model.read_bytes()
    os.link(model, folder / "hard.html")
    process = run(model, *(flag.format(folder=folder) for flag in flags))
    assert message.format(folder=folder) in one_line(process, 2)
    assert names(folder) == ["hard.html", "model.npz"]
    assert model.read_bytes() == before


def test_the_way_out_for_features_that_are_not_pixels_works(model):
    onnxruntime = pytest.importorskip("onnxruntime", reason=INSTALL)
    iris = SoftmaxRegression(4, 3)
    iris.save(model)
    assert "export it to ONNX instead (--onnx)" in one_line(run(model, "--html"), 2)
    assert "input    features: float32 (N, 4)\n" in run(model, "--onnx").stdout
    session = onnxruntime.InferenceSession(model.with_suffix(".onnx"))
    rows = np.array([[7.0, 3.2, 4.7, 1.4]], np.float32)
    _, probabilities = session.run(None, {"features": rows})
    np.testing.assert_allclose(probabilities.T, iris(rows.T), atol=1e-6)


@pytest.mark.parametrize(
    ("prepare", "code", "message"),
    [
        (lambda path: path.unlink(), 2, "cannot read"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), 4, "model.npz"),
        (lambda path: SoftmaxRegression(3, 2).save(path), 2, "expected 784 inputs"),
        (lambda path: SoftmaxRegression(784, 2).save(path), 2, "expected one with a pixel scale"),
    ],
)
def test_models_that_cannot_be_exported(model, prepare, code, message):
    prepare(model)
    assert message in one_line(run(model, "--html"), code)
    assert not model.with_suffix(".html").exists()


def test_a_model_under_the_name_of_an_export_is_kept(model):
    path = model.rename(model.with_suffix(".html"))
    before = path.read_bytes()
    assert "name one with -o" in one_line(run(path, "--html"), 2)
    assert path.read_bytes() == before


@pytest.mark.parametrize("package", ["onnx", "safetensors"])
def test_a_missing_package_is_named_before_anything_is_written(model, tmp_path, package):
    pytest.importorskip("onnx", reason=INSTALL)
    # Found before the installed one, it fails as a missing one does.
    hiding = tmp_path / "hiding"
    hiding.mkdir()
    (hiding / f"{package}.py").write_text(f'raise ModuleNotFoundError("No module {package}")')
    flags = ["--onnx", "--safetensors", "--html"]
    process = run_process(SCRIPT, ".", model, *flags, PYTHONPATH=hiding)
    assert one_line(process, 2) == (
        f"export.py: error: --{package}: No module {package}; {advice(package)}"
    )
    assert names(model.parent) == ["hiding", "model.npz"]
