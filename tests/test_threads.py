"""How many threads are used if nobody says, and the limit of the BLAS, also after Ctrl-C."""

import os
import subprocess
import sys
from linecache import getline
from unittest import mock

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from npsoftmax import Descent, SoftmaxRegression, Trainer, _threads
from npsoftmax._threads import blas_threads, cores, default_threads
from npsoftmax.data import DataLoader
from npsoftmax.objective import FullBatch
from npsoftmax.optimum import FullBatchTrainer

X, Y = np.array([[-1.0, 1.0, -2.0, 2.0]]), np.array([0, 1, 0, 1])


def found():
    """Return the numbers of threads of all loaded BLAS."""
    return {module["num_threads"] for module in threadpool_info() if module["user_api"] == "blas"}


@pytest.fixture
def two():
    """Let the BLAS use two threads."""
    _threads._blas.cache_clear()  # SciPy's may have been loaded since it was asked for
    with threadpool_limits(2, user_api="blas"):
        yield


# The limit of the BLAS.


def test_the_smallest_number_counts_until_the_last_leaves(two):
    first, second = blas_threads(1), blas_threads(3)
    first.__enter__()
    second.__enter__()
    assert found() == {1}
    first.__exit__(None, None, None)
    assert found() == {3}
    with blas_threads(1):
        assert found() == {1}
    assert found() == {3}
    second.__exit__(None, None, None)
    assert found() == {2}


def interrupted_at(event):
    """Enter and leave, with Ctrl-C at a line of the module; tell whether it came."""
    left = iter(range(event))

    def trace(frame, kind, _):
        if frame.f_code.co_filename != _threads.__file__:
            return None
        # No signal is handled between the body of a with statement and its end.
        with_lock = "with self._lock" in getline(_threads.__file__, frame.f_lineno)
        if kind == "line" and not with_lock and next(left, None) is None:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with blas_threads(1):
            assert found() == {1}
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_ctrl_c_at_any_line_leaves_no_limit(two):
    count = 0
    while interrupted_at(count):
        assert found() == {2} and not blas_threads._inside and not blas_threads._lock._is_owned()
        count += 1
    assert count > 10


# The loops.


def trainer(**settings):
    return Trainer(SoftmaxRegression(1, 2), Descent(), DataLoader(X, Y, 2), test=(X, Y), **settings)


def full_batch(**settings):
    model = SoftmaxRegression(1, 2, dtype=np.float64)
    return FullBatchTrainer(model, FullBatch(X, Y, 0.1), **settings)


LOOPS = {"minibatches": trainer, "full batch": full_batch}


@pytest.mark.parametrize("make", LOOPS.values(), ids=LOOPS)
def test_a_loop_holds_the_blas_to_one_thread_and_gives_the_others_back(make, two):
    inside = []
    loop = make(on_step=lambda _: inside.append(found())).run(1)
    for _ in loop:
        assert found() == {2}
    assert inside and all(seen == {1} for seen in inside)
    assert found() == {2}


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
@pytest.mark.parametrize("make", LOOPS.values(), ids=LOOPS)
def test_a_loop_that_is_stopped_gives_the_threads_back(make, error, two):
    def stop(_):
        raise error

    with pytest.raises(error):
        list(make(on_step=stop).run(1))
    assert found() == {2}


def test_the_trainer_uses_as_many_threads_as_it_is_told_and_records_them(tmp_path, two):
    inside = []
    subject = trainer(threads=3, on_step=lambda _: inside.append(found()))
    subject.fit(1)
    assert inside == [{3}] * 2
    subject.save_checkpoint(tmp_path / "c.npz")
    trainer(threads=3).resume(tmp_path / "c.npz")
    with pytest.warns(UserWarning, match="threads 3 there, 1 here"):
        trainer().resume(tmp_path / "c.npz")


# The number of threads if nobody says.


def test_the_limit_of_the_caller_counts(two, monkeypatch):
    monkeypatch.setattr(_threads, "cores", lambda: 4)
    assert FullBatch(X, Y).threads == default_threads() == 2
    with blas_threads(1):  # of a loop around it
        assert default_threads() == 2
    with threadpool_limits(1):
        assert FullBatch(X, Y).threads == 1
    assert FullBatch(X, Y, threads=3).threads == 3


@pytest.mark.parametrize("variable", ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"])
def test_the_environment_counts(variable, monkeypatch):
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    monkeypatch.setenv(variable, "1")
    code = "import npsoftmax.objective as o; print(o.FullBatch([[1.0]], [0]).threads)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "1\n"


@pytest.mark.skipif(not hasattr(os, "process_cpu_count"), reason="new in Python 3.13")
def test_the_variable_of_python_counts(monkeypatch):
    monkeypatch.setenv("PYTHON_CPU_COUNT", "1")
    code = "from npsoftmax._threads import cores; print(cores())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "1\n"


GROUPS = {
    "version 2, in a container": ("0::/", {"cpu.max": "150000 100000\n"}, 2),
    "version 2, of a parent": (
        "0::/jobs/one",
        {"jobs/one/cpu.max": "max 100000\n", "jobs/cpu.max": "300000 100000\n"},
        3,
    ),
    "version 2, no limit": ("0::/one", {"one/cpu.max": "max 100000\n"}, 64),
    "version 1, in a container": (
        "4:memory:/docker/1\n3:cpu,cpuacct:/docker/1\n0::/",
        {"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"},
        1,
    ),
    "version 1, no limit": (
        "1:cpu:/",
        {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
        64,
    ),
    "another system": (None, {}, 64),
}


@pytest.mark.parametrize("kind", GROUPS)
def test_the_quota_of_a_control_group_counts(kind, tmp_path, monkeypatch):
    groups, (membership, files, expected) = tmp_path / "groups", GROUPS[kind]
    if membership is not None:
        (tmp_path / "membership").write_text(membership)
    for name, text in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(text)
    monkeypatch.setattr(_threads, "MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(_threads, "GROUPS", groups)
    for name in ("process_cpu_count", "cpu_count"):
        monkeypatch.setattr(os, name, lambda: 64, raising=False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    _threads._quota.cache_clear()
    try:
        assert cores() == expected
    finally:
        _threads._quota.cache_clear()


def test_the_blas_of_numpy_is_found_next_to_that_of_scipy(monkeypatch):
    libraries = [
        {"filepath": "/python/scipy.libs/libscipy_openblas.so", "architecture": "Zen"},
        {"filepath": "/python/numpy.libs/libscipy_openblas64_.so", "architecture": "SkylakeX"},
    ]
    monkeypatch.setattr(
        _threads, "_blas", lambda: [mock.Mock(info=found.copy) for found in libraries]
    )
    assert _threads.numpys_blas.__wrapped__() == libraries[1]
    libraries.pop()
    assert _threads.numpys_blas.__wrapped__() == libraries[0]
    libraries.pop()
    assert _threads.numpys_blas.__wrapped__() == {}
