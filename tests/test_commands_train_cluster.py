"""The training command with --workers and --scheduler."""

import gc
import json
import re
import signal
import threading

import numpy as np
import pytest
from running import INSTALL, history_of, interrupt, one_line, told

from npsoftmax.commands import command_line

pytest.importorskip("distributed", reason=INSTALL)
from clusters import dask_scheduler
from distributed import Client

from npsoftmax import SoftmaxRegression

SMALL = ["--dataset", "garments", "--solver", "lbfgs", "--limit", "1500", "--l2", "0.001"]
LONG = [*SMALL, "--l2", "1e-7", "--dtype", "float64", "--tol", "1e-12"]


def test_whole_run_on_workers_of_this_machine(train, train_process, tmp_path):
    process = train_process(*SMALL, "--run-dir", "there", "--workers", "2")
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    lines = process.stdout.splitlines()
    assert re.fullmatch(r"cluster   tcp://127.0.0.1:\d+: 2 workers, 2 threads", lines[0])
    assert re.fullmatch(
        r"          dashboard http://127.0.0.1:\d+/status( \(.*bokeh.*\))?", lines[1]
    )
    assert any("l2=0.001, threads=2" in line for line in lines)
    assert any(line.startswith("optimum   converged") for line in lines)
    assert train(*SMALL, "--run-dir", "here").returncode == 0
    there, here = (history_of(tmp_path / name) for name in ("there", "here"))
    assert len(there) == len(here)
    assert there[-1]["objective"] == pytest.approx(here[-1]["objective"], rel=1e-6)
    summary = json.loads((tmp_path / "there" / "summary.json").read_text())
    assert summary["threads"] == 2 and "scheduler" not in summary["settings"]
    assert summary["cluster"]["workers"] == 2
    assert json.loads((tmp_path / "here" / "summary.json").read_text())["cluster"] is None
    models = [SoftmaxRegression.load(tmp_path / name / "model.npz") for name in ("there", "here")]
    np.testing.assert_allclose(models[0].theta, models[1].theta, rtol=0, atol=1e-3)


def test_a_running_cluster(train_process, tmp_path):
    with dask_scheduler() as (address, _):
        process = train_process(*SMALL, "--run-dir", "run", "--scheduler", address, "--json")
        assert process.returncode == 0, process.stderr
        result = json.loads(process.stdout)
        assert result["optimum"]["reason"] == "converged" and result["threads"] == 1


def test_the_scheduler_is_killed_and_the_run_resumes_without_it(train, tmp_path):
    with dask_scheduler() as (address, scheduler):
        code, _, err = interrupt(
            tmp_path,
            [*LONG, "--run-dir", "run", "--scheduler", address],
            "iteration 003",
            signal.SIGKILL,
            victim=scheduler,
        )
    assert code == 6, err
    (line,) = err.splitlines()
    assert line.startswith(f"train.py: error: the scheduler {address} is gone")
    assert re.search(r"checkpoint written after iteration \d+, resume with the same flags", line)
    before = told(tmp_path / "run")
    process = train(*LONG, "--run-dir", "run", "--resume", "--max-iterations", len(before) + 2)
    assert process.returncode == 0, process.stderr
    assert told(tmp_path / "run")[: len(before)] == before
    assert len(history_of(tmp_path / "run")) == len(before) + 3


@pytest.mark.parametrize(
    ("first", "code", "text"),
    [
        (KeyboardInterrupt, 130, "interrupted"),
        (ValueError, 1, "unexpected RuntimeError: release unlocked lock"),
    ],
)
def test_an_error_caused_by_an_interruption_is_an_interruption(first, code, text):
    def interrupted():
        try:
            raise first
        finally:  # as threading.Condition does if a second signal comes at the wrong moment
            threading.Lock().release()

    with pytest.raises(RuntimeError) as caught:
        interrupted()
    assert command_line._explain(caught.value) == (code, text)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_resumes(train_process, tmp_path, number):
    flags = [*LONG, "--run-dir", "run", "--workers", "2"]
    code, _, err = interrupt(tmp_path, flags, "iteration 002", number, group=True)
    assert code == 130, err
    assert re.fullmatch(
        r"train.py: interrupted after iteration \d+; checkpoint written, resume .*\n", err
    )
    done = len(history_of(tmp_path / "run"))
    process = train_process(*flags, "--resume", "--max-iterations", done + 1)
    assert process.returncode == 0 and len(history_of(tmp_path / "run")) == done + 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--workers", "0"], "expected a whole number of at least 1"),
        (["--workers", "1000"], "--workers: expected at most"),
        (["--workers", "2", "--resume"], "--resume: expected --run-dir DIR"),
        (["--workers", "2", "--run-dir", __file__], f"cannot make the run folder {__file__}: "),
        (["--workers", "2", "--scheduler", "tcp://x:1"], "got both; leave one out"),
        (["--workers", "2", "--solver", "sgd"], "--workers: expected with --solver lbfgs"),
        (["--scheduler", "odd://x:1"], "odd://x:1: expected the address of a scheduler such as"),
        (["--scheduler", "tls://x:1"], "tls://x:1: expected the address of a scheduler such as"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(train, flags, message):
    assert message in one_line(train(*SMALL, *flags), 2)
    # A client that could not connect is closed when it is collected. If the next one just starts,
    # that waits for a lock which this thread holds.
    gc.collect()


def test_a_run_folder_in_use_is_refused_before_the_cluster_starts(train, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.npz").touch()
    process = train(*SMALL, "--run-dir", "run", "--workers", "2")
    assert "run holds a run already" in one_line(process, 2)


def test_without_dask_the_error_says_what_to_install(train_process, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['distributed'] = None\n")
    process = train_process(*SMALL, "--workers", "2", PYTHONPATH=str(tmp_path))
    assert 'python -m pip install "dask[array,distributed]>=' in one_line(process, 2)


def test_the_address_of_a_worker_is_refused(train_process, tmp_path):
    with dask_scheduler() as (address, _), Client(address) as client:
        client.wait_for_workers(1)
        (worker,) = client.nthreads()
        process = train_process(*SMALL, "--scheduler", worker)
    refusals = {
        2: f"--scheduler {worker}: expected the address of a scheduler",
        6: "no scheduler was reached: no answer within 10 s",  # Dask before 2025.4
    }
    assert refusals[process.returncode] in one_line(process, process.returncode)


def test_a_scheduler_that_is_not_running(train_process):
    line = one_line(train_process(*SMALL, "--scheduler", "tcp://127.0.0.1:9"), 6)
    assert re.search(r"no scheduler was reached: .* after 10 s; start one", line)


def test_a_data_set_that_a_worker_does_not_have(train_process, tmp_path, fashion_mnist_folder):
    # The driver has it; the worker is given no folder, and looks in its cache.
    with dask_scheduler(NPSOFTMAX_DATA="") as (address, _):
        process = train_process(
            "--dataset", "fashion-mnist", "--solver", "lbfgs", "--limit", "500", "--offline",
            "--quiet", "--scheduler", address, NPSOFTMAX_DATA=fashion_mnist_folder,
        )  # fmt: skip
    assert process.returncode == 3
    what, _, causes = process.stderr.splitlines()
    assert re.search(r"on worker tcp://127.0.0.1:\d+: fashion-mnist: 4 files are not on", what)
    assert "offline; put " in causes
