"""Shared fixtures: no test touches the user's cache folder, the working folder or the network."""

import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import gettempdir
from typing import Any
from zlib import crc32

# One BLAS thread, set before NumPy loads: two on busy cores took 3 to 12 times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Or every command that a test starts would look for all fonts anew.
os.environ.setdefault("MPLCONFIGDIR", str(Path(gettempdir()) / "npsoftmax-tests-matplotlib"))
if os.environ.get("NPSOFTMAX_DATA"):
    os.environ["NPSOFTMAX_DATA"] = str(Path(os.environ["NPSOFTMAX_DATA"]).expanduser().resolve())

# A shell ignores Ctrl-C for what it runs in the background, and nohup hangups. What the tests start
# must hear them: unlike what is ignored, a handler is not passed on.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)

import numpy as np
import pytest
from hypothesis import settings

import npsoftmax
from npsoftmax.data.datasets import acquire, find
from npsoftmax.data.garments import edition
from npsoftmax.errors import DataUnavailableError

# They import what is optional, torch, or not installed, MAPIE and crepes.
collect_ignore = [f"tests/reference/make_{name}_reference.py" for name in ("torch", "conformal")]
collect_ignore += ["docs/conf.py", "tutorial"]  # programs, not modules

# What few tests need. Their modules skip by importorskip; the rest of what imports it is this.
EXAMPLES_OF = {
    "distributed": ["npsoftmax/ext/*cluster*.py", "docs/cluster.md", "tests/clusters.py"],
    "onnx": ["npsoftmax/ext/onnx*.py", "docs/export.md"],
    "onnxruntime": ["docs/export.md"],
    "safetensors": ["npsoftmax/ext/safetensors*.py", "docs/export.md"],
    "playwright": [],
    "IPython": [],
    "jupytext": [],
    "nbclient": [],
    "ipykernel": [],
}
MISSING = [package for package in EXAMPLES_OF if find_spec(package) is None]
collect_ignore_glob = sorted({pattern for package in MISSING for pattern in EXAMPLES_OF[package]})


def pytest_report_header() -> list[str]:
    """Say what is left out, and how to have it."""
    if not MISSING:
        return []
    return [
        f"not installed, so that its tests skip: {', '.join(MISSING)}; "
        'python -m pip install ".[test-all]"'
    ]


def lines_of_missing(text: str) -> Iterator[int]:
    """Yield the numbers of the lines in those blocks of a document that import what is missing."""
    imports = re.compile(rf">>> (?:from|import) (?:{'|'.join(MISSING) or '$'})\b", re.MULTILINE)
    first = 0
    for block in re.split(r"^(?=```)", text, flags=re.MULTILINE):
        stop = first + block.count("\n")
        if imports.search(block):
            yield from range(first, stop)
        first = stop


# A second run with more packages repeats only what the first did not pass: .ci/run names this file.
PASSED = os.environ.pop("NPSOFTMAX_PASSED", "")
LINES: list[str] = []


def pytest_configure_node(node: Any) -> None:
    """Name the file to the processes of pytest-xdist."""
    node.workerinput["passed"] = PASSED


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember what has passed, except documents, whose blocks may have been left out."""
    if report.when == "call" and report.passed and ".md::" not in report.nodeid:
        LINES.append(f"{report.nodeid}\n")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the tests that have passed."""
    if PASSED and not hasattr(session.config, "workerinput"):
        Path(PASSED).write_text("".join(LINES), encoding="utf-8")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the blocks of a document that import what is missing; mark what few runs need."""
    before = Path(getattr(config, "workerinput", {}).get("passed", PASSED) or os.devnull)
    passed = set(before.read_text("utf-8").splitlines()) if before.exists() else set()
    items[:] = [item for item in items if item.nodeid not in passed]
    for item in items:
        if any(item.path.match(pattern) for pattern in collect_ignore_glob):
            reason = 'needs more than the tests usually do: python -m pip install ".[test-all]"'
            item.add_marker(pytest.mark.skip(reason=reason))
        elif isinstance(item, pytest.DoctestItem) and item.path.suffix == ".md":
            left_out = set(lines_of_missing(item.dtest.docstring))
            examples = [e for e in item.dtest.examples if e.lineno not in left_out]
            item.dtest.examples = examples
        if item.path.name == "cluster.md":
            item.add_marker("exhaustive")


# Runs of other versions on this machine have another folder, or each would draw for itself again.
DRAWN = Path(gettempdir()) / f"npsoftmax-tests-garments-{crc32(edition().encode()):08x}"
LEFT_BY_DASK = {v: os.environ.get(v) for v in ("MALLOC_TRIM_THRESHOLD_", "PYTHONHASHSEED")}

settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def garments() -> npsoftmax.Dataset:
    """Return the drawn data set, which is drawn once on this machine.

    Drawing takes longer than most tests. `load` verifies what lies there, and draws it again after
    a change of the code that draws.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(DRAWN))
        return npsoftmax.load("garments")


@pytest.fixture(autouse=True)
def private_folders(tmp_path_factory, garments, monkeypatch) -> Path:
    """Give every test a working and a cache folder of its own; return the cache folder.

    The drawn garments lie in the cache folder already.
    """
    folder = tmp_path_factory.mktemp("cache")
    # A test that changes one of the files in place would change it for all: remove it first.
    with suppress(OSError):  # another file system than that of the drawn files: drawn anew, slowly
        kept = folder / "npsoftmax" / "drawn" / "garments"
        kept.mkdir(parents=True)
        for path in (DRAWN / "npsoftmax" / "drawn" / "garments").iterdir():
            os.link(path, kept / path.name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.setenv("NPSOFTMAX_OFFLINE", "1")
    monkeypatch.chdir(tmp_path_factory.mktemp("work"))
    return folder


@pytest.fixture(autouse=True)
def own_environment(monkeypatch) -> None:
    """Give what a test starts one BLAS thread, whatever a benchmark or a cluster has set before.

    Dask sets two variables more when it starts a worker: one makes every process that is started
    later three times as slow, the other fixes its hashes. Both become what they were at first.
    """
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    for variable in ("MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in LEFT_BY_DASK.items():
        if value is None:
            monkeypatch.delenv(variable, raising=False)
        else:
            monkeypatch.setenv(variable, value)


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
    model = npsoftmax.SoftmaxRegression(
        784, 10, classes=data.classes, pixel_scale=data.pixel_scale, framing=data.framing
    )
    loader = npsoftmax.DataLoader(data.X_train, data.y_train, 256, shuffle=True, seed=0)
    npsoftmax.Trainer(model, npsoftmax.Descent(0.1), loader).fit(epochs=10)
    model.fit_class_means(data.X_train, data.y_train)
    return model


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Return what runs the training command in an empty folder, in this process.

    It finds no matplotlib: drawing the curves takes longer than training.
    """
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    # Here: tests/test_mutants.py copies this file without the helpers of other tests.
    from running import SCRIPT, run_here

    return partial(run_here, SCRIPT, tmp_path)


@pytest.fixture
def train_process(tmp_path):
    """Return what runs the training command in an empty folder, in a process of its own."""
    from running import SCRIPT, run_process

    return partial(run_process, SCRIPT, tmp_path)


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a seeded generator."""
    return np.random.default_rng(2024)


@pytest.fixture
def strange_matplotlib():
    """Return a context in which matplotlib has settings that make pictures wrong or unreadable."""
    matplotlib = pytest.importorskip("matplotlib")
    file = Path(__file__).parent / "tests" / "reference" / "matplotlibrc"
    return lambda: matplotlib.rc_context(fname=file)
