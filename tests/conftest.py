"""Shared fixtures: no test touches the user's cache folder or the network."""

import os
from pathlib import Path

# One BLAS thread, set before NumPy loads: two that wait for a busy core lose tenfold.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest
from hypothesis import settings

import npsoftmax
from npsoftmax.errors import DataUnavailableError

settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory, monkeypatch) -> Path:
    """Give every test a cache folder of its own and forbid downloads."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.setenv("NPSOFTMAX_OFFLINE", "1")
    return folder


@pytest.fixture(scope="session")
def fashion_mnist() -> npsoftmax.Dataset:
    """The real data set where this machine has it (``NPSOFTMAX_DATA``), else skip."""
    try:
        return npsoftmax.load("fashion-mnist", offline=True)
    except DataUnavailableError as error:
        pytest.skip(f"needs the real Fashion-MNIST, set NPSOFTMAX_DATA: {error}"[:200])


@pytest.fixture(scope="session")
def fashion_mnist_folder(fashion_mnist) -> str:
    """The folder that ``--data-dir`` takes to find the real data set."""
    return os.environ.get("NPSOFTMAX_DATA") or fashion_mnist.origin


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded generator."""
    return np.random.default_rng(2024)
