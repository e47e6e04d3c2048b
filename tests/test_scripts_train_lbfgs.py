"""The training command with ``--solver lbfgs``, as a user runs it."""

import json
import re
import signal

import numpy as np
import pytest
from running import history_of, interrupt, one_line, told

from npsoftmax import SoftmaxRegression

SMALL = ["--dataset", "garments", "--solver", "lbfgs", "--limit", "1500", "--l2", "0.001"]
LINE = re.compile(
    r"iteration (\d{3}) \| train_loss=\d\.\d{4} \| train_acc=\d\.\d{4} \| test_loss=\d\.\d{4}"
    r" \| test_acc=\d\.\d{4} \| objective=\d\.\d{6} \| max_gradient=\d\.\de-\d\d \| \d+\.\d\d s"
)


def test_whole_run(train, tmp_path):
    process = train(*SMALL, "--run-dir", "run", "--threads", "2")
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    lines = process.stdout.splitlines()
    assert lines[2] == "model     SoftmaxRegression(784 => 10, float32)"
    assert lines[3].startswith("training  L-BFGS on all samples until max|gradient| <= 1e-05")
    assert "l2=0.001, threads=2" in lines[3]
    shown = [LINE.fullmatch(line)[1] for line in lines if line.startswith("iteration")]
    history = history_of(tmp_path / "run")
    last = history[-1]["iteration"]
    assert [record["iteration"] for record in history] == list(range(last + 1))
    assert [int(number) for number in shown] == [
        n for n in range(last + 1) if n < 10 or n % 10 == 0 or n == last
    ]
    assert history[-1]["max_gradient"] <= 1e-5 < history[-2]["max_gradient"]
    (optimum,) = [line for line in lines if line.startswith("optimum   ")]
    assert f"converged after {last} iterations" in optimum and "above the smallest" in optimum
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["optimum"]["objective"] == history[-1]["objective"]
    assert 0 <= summary["optimum"]["suboptimality"] < 1e-4
    assert summary["threads"] == 2 and summary["settings"]["solver"] == "lbfgs"
    assert summary["settings"]["tol"] == 1e-5
    model = SoftmaxRegression.load(tmp_path / "run" / "model.npz")
    np.testing.assert_allclose(model.W.sum(axis=0), 0, atol=1e-4)
    written = lines[-2].split(": ")[1].split()
    assert set(written) == {path.name for path in (tmp_path / "run").iterdir()}


@pytest.mark.exhaustive
def test_the_result_does_not_depend_on_the_seed(train, tmp_path):
    flags = [*SMALL, "--dtype", "float64", "--tol", "1e-9", "--quiet"]
    for seed in (0, 1):
        assert train(*flags, "--seed", seed, "--run-dir", f"run{seed}").returncode == 0
    models = [SoftmaxRegression.load(tmp_path / f"run{seed}" / "model.npz") for seed in (0, 1)]
    np.testing.assert_allclose(models[0].theta, models[1].theta, rtol=0, atol=1e-5)


def test_a_result_that_has_not_converged_is_a_warning_with_advice(train, tmp_path):
    process = train(*SMALL, "--max-iterations", "2", "--run-dir", "run", "--json")
    assert process.returncode == 0
    (line,) = process.stderr.splitlines()
    assert line.startswith("train.py: warning: not converged after 2 iterations")
    assert line.endswith("raise max_iterations, now 2")
    result = json.loads(process.stdout)
    assert result["optimum"]["reason"] == "iterations" and len(result["history"]) == 3
    assert SoftmaxRegression.load(tmp_path / "run" / "model.npz")


def test_separable_data_without_penalty_have_no_optimum(train, tmp_path):
    flags = ["--dataset", "garments", "--solver", "lbfgs", "--limit", "200"]
    process = train(*flags, "--run-dir", "run")
    assert process.returncode == 0, process.stderr
    assert "the optimum is at infinity" in process.stdout + process.stderr
    assert history_of(tmp_path / "run")[-1]["train_acc"] == 1.0


def test_an_interrupted_run_resumes_bit_for_bit(train, tmp_path):
    flags = [*SMALL, "--l2", "0", "--tol", "0", "--max-iterations", "60", "--limit", "5000"]
    assert train(*flags, "--run-dir", "whole").returncode == 0
    code, _, complaint = interrupt(
        tmp_path, [*flags, "--run-dir", "run"], "iteration 003", signal.SIGINT
    )
    assert code == 130
    position = re.match(r"train.py: interrupted (after iteration \d+); checkpoint", complaint)[1]
    assert len(history_of(tmp_path / "run")) < 61
    again = train(*flags, "--run-dir", "run", "--resume")
    assert again.returncode == 0, again.stderr
    assert f"resumed   {position}\n" in again.stdout
    assert told(tmp_path / "run") == told(tmp_path / "whole")
    first, second = (tmp_path / name / "model.npz" for name in ("run", "whole"))
    assert first.read_bytes() == second.read_bytes()


def test_a_finished_run_resumes_to_a_smaller_tolerance_but_not_a_smaller_number(train, tmp_path):
    assert train(*SMALL, "--tol", "1e-3", "--run-dir", "run").returncode == 0
    before = told(tmp_path / "run")
    assert train(*SMALL, "--tol", "1e-4", "--run-dir", "run", "--resume").returncode == 0
    after = told(tmp_path / "run")
    assert after[: len(before)] == before and len(after) > len(before)
    line = one_line(train(*SMALL, "--max-iterations", "1", "--run-dir", "run", "--resume"), 2)
    assert f"--max-iterations: expected at least the {after[-1]['iteration']} that run" in line


def test_a_run_of_the_other_solver_is_refused(train):
    assert train(*SMALL, "--run-dir", "run").returncode == 0
    flags = ["--dataset", "garments", "--limit", "1500", "--run-dir", "run", "--resume"]
    assert "expected a checkpoint, got a checkpoint of the lbfgs" in one_line(train(*flags), 4)


# The real data


def test_the_optimum_of_fashion_mnist(train, tmp_path, fashion_mnist_folder):
    flags = ["--solver", "lbfgs", "--l2", "1e-4", "--data-dir", fashion_mnist_folder]
    process = train(*flags, "--run-dir", "run")
    assert process.returncode == 0, process.stderr
    last = history_of(tmp_path / "run")[-1]
    # 0.3794768 is the optimum in float64, proved to 1e-9.
    assert last["objective"] == pytest.approx(0.3794768, rel=1e-4)
    assert last["test_acc"] >= 0.844
    assert last["evaluations"] <= 100
