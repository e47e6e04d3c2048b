"""The commands that fetch data and evaluate a model."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from npsoftmax import SoftmaxRegression, load, metrics, softmax, storage

SCRIPTS = Path(__file__).parents[1] / "scripts"


def run(name, *arguments, **environment):
    return subprocess.run(
        [sys.executable, str(SCRIPTS / f"{name}.py"), *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def model(tmp_path):
    """A model that was never trained, for the garments' classes."""
    path = tmp_path / "model.npz"
    SoftmaxRegression(784, 10, classes=load("garments").classes).save(path)
    return path


def test_evaluate_prints_every_metric(model):
    process = run("evaluate", model, "--dataset", "garments")
    assert process.returncode == 0, process.stderr
    data = load("garments")
    logits = SoftmaxRegression.load(model).logits(data.X_test)
    assert re.search(rf"accuracy +{metrics.accuracy(logits, data.y_test):.4f}", process.stdout)
    for name in ("top 3 accuracy", "negative log likelihood", "brier", "calibration error"):
        assert name in process.stdout
    for name in data.classes:
        assert re.search(rf"^{name} ", process.stdout, re.MULTILINE)


def test_evaluate_finds_the_data_set_in_the_summary_beside_the_model(model):
    (model.parent / "summary.json").write_text('{"dataset": "garments"}')
    report = json.loads(run("evaluate", model, "--json").stdout)
    assert report["dataset"] == "garments"
    (model.parent / "summary.json").write_text("not JSON")
    assert "fashion-mnist: " in run("evaluate", model, NPSOFTMAX_DATA="").stderr


def test_evaluate_as_json(model):
    report = json.loads(run("evaluate", model, "--dataset", "garments", "--json").stdout)
    assert sum(map(sum, report["confusion"])) == report["samples"] == 2000
    hits = sum(report["confusion"][i][i] for i in range(10))
    assert report["accuracy"] == pytest.approx(hits / 2000)
    data = load("garments")
    logits = SoftmaxRegression.load(model).logits(data.X_test)
    for name, value in {
        "top_3_accuracy": metrics.top_k_accuracy(logits, data.y_test, 3),
        "negative_log_likelihood": metrics.negative_log_likelihood(logits, data.y_test),
        "brier": metrics.brier(softmax(logits), data.y_test),
        "expected_calibration_error": metrics.expected_calibration_error(
            softmax(logits), data.y_test
        ),
    }.items():
        assert report[name] == pytest.approx(value)


@pytest.mark.parametrize("prepare", [
    lambda path: os.mkfifo(path),
    lambda path: path.mkdir(),
    lambda path: path.write_text('{"dataset": "garments", "x": "' + "x" * 2**20 + '"}'),
    lambda path: path.write_text("[" * 100_000),
    lambda path: path.write_bytes(b"\xff"),
])  # fmt: skip
def test_a_strange_summary_beside_the_model_is_not_read(model, prepare):
    prepare(model.parent / "summary.json")
    process = run("evaluate", model, "--offline", NPSOFTMAX_DATA="")
    assert process.returncode == 3 and "fashion-mnist" in process.stderr


@pytest.mark.parametrize(
    ("prepare", "code", "message"),
    [
        (lambda path: path.unlink(), 2, "cannot read"),
        (lambda path: path.write_bytes(b"\x80\x04."), 4, "written by npsoftmax"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), 4, "model.npz"),
        (lambda path: storage.write(path, "checkpoint", {}, {}), 4, "expected a model"),
        (lambda path: SoftmaxRegression(784, 10).save(path), 2, "name its data set"),
    ],
)
def test_evaluate_refuses(model, prepare, code, message):
    prepare(model)
    process = run("evaluate", model, "--dataset", "garments")
    assert process.returncode == code
    (line,) = process.stderr.splitlines()
    assert message in line
    assert process.stdout == ""


def test_fetch_finds_the_real_files(fashion_mnist, fashion_mnist_folder):
    process = run("fetch", "fashion-mnist", "--data-dir", fashion_mnist_folder)
    assert process.returncode == 0, process.stderr
    assert "SHA-256 verified" in process.stdout
    assert "26,421,880 bytes" in process.stdout
    process = run("fetch", "fashion-mnist", "t10k-labels-idx1-ubyte.gz", "--json",
                  "--data-dir", fashion_mnist_folder)  # fmt: skip
    assert list(json.loads(process.stdout)) == ["test-labels"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["fashion-mnist", "--offline"], 3, "offline"),
        (["fashion-mnist", "t10k-labels-idx1-ubyte.gz"], 3, "t10k-labels-idx1-ubyte.gz is missing"),
        (["fashion-mnist", "other.gz"], 2, "expected one of train-images-idx3-ubyte.gz"),
        (["cifar"], 2, "expected one of fashion-mnist, mnist, got 'cifar'"),
        (["garments"], 2, "got 'garments'"),
        (["mnist", "--timeout", "0"], 2, "expected a positive number of seconds, got '0'"),
        (["mnist", "--timeout", "soon"], 2, "expected a positive number of seconds, got 'soon'"),
    ],
)
def test_fetch_refuses(arguments, code, message):
    process = run("fetch", *arguments, NPSOFTMAX_DATA="")
    assert process.returncode == code
    (line,) = process.stderr.splitlines()
    assert message in line
    assert process.stdout == ""
