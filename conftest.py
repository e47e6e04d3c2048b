"""Shared fixtures: no test touches the user's cache folder, the working folder or the network."""

import os
import signal
from functools import partial
from pathlib import Path
from tempfile import gettempdir

# One BLAS thread, set before NumPy loads: two on busy cores took 3 to 12 times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Or every command that a test starts would look for all fonts anew.
os.environ.setdefault("MPLCONFIGDIR", str(Path(gettempdir()) / "npsoftmax-tests-matplotlib"))
if os.environ.get("NPSOFTMAX_DATA"):
    os.environ["NPSOFTMAX_DATA"] = str(Path(os.environ["NPSOFTMAX_DATA"]).expanduser().resolve())

# A shell ignores Ctrl-C for what it runs in the background; what the tests start must hear it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import numpy as np
import pytest
from hypothesis import settings

import npsoftmax
from npsoftmax.data.datasets import acquire
from npsoftmax.data.datasets import find
from npsoftmax.errors import DataUnavailableError

# It imports torch, which is optional; the tests that use it skip without.
collect_ignore = ["tests/reference/make_torch_reference.py"]

settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def private_folders(tmp_path_factory, monkeypatch) -> Path:
    """Give every test a working and a cache folder of its own; return the cache folder."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.setenv("NPSOFTMAX_OFFLINE", "1")
    monkeypatch.chdir(tmp_path_factory.mktemp("work"))
    return folder


@pytest.fixture(autouse=True)
def one_blas_thread(monkeypatch) -> None:
    """Give what a test starts one BLAS thread, whatever a benchmark or a cluster has set before."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    for variable in ("MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(scope="session")
def fashion_mnist_folder() -> str:
    """Return the folder that ``--data-dir`` takes to find the real Fashion-MNIST; else skip."""
    source = find("fashion-mnist")
    try:
        paths, _ = acquire(source, source.files, offline=True)
    except DataUnavailableError:
        pytest.skip("needs the real Fashion-MNIST: set NPSOFTMAX_DATA")
    return str(paths["train-images"].parent.parent)


@pytest.fixture(scope="session")
def fashion_mnist(fashion_mnist_folder) -> npsoftmax.Dataset:
    """Return the real data set."""
    return npsoftmax.load("fashion-mnist", fashion_mnist_folder, offline=True)


@pytest.fixture(scope="session")
def fashion_model(fashion_mnist) -> npsoftmax.SoftmaxRegression:
    """Return a model trained as the tutorials do; do not change it."""
    data = fashion_mnist
    model = npsoftmax.SoftmaxRegression(784, 10, classes=data.classes)
    loader = npsoftmax.DataLoader(data.X_train, data.y_train, 256, shuffle=True, seed=0)
    npsoftmax.Trainer(model, npsoftmax.Descent(0.1), loader).fit(epochs=10)
    model.fit_class_means(data.X_train, data.y_train)
    return model


@pytest.fixture
def train(tmp_path):
    """Return what runs the training command in an empty folder."""
    # Here: tests/test_mutants.py copies this file without the helpers of other tests.
    from running import run_train

    return partial(run_train, tmp_path)


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a seeded generator."""
    return np.random.default_rng(2024)
