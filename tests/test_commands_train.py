"""The training command as a user runs it: output, streams, files, exit codes."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys

import numpy as np
import pytest
from running import (
    SCRIPT,
    SCRIPTS,
    history_of,
    interrupt,
    one_line,
    run_here,
    told,
)

from npsoftmax import SoftmaxRegression, storage
from npsoftmax._threads import cores
from npsoftmax.commands import command_line, evaluate
from npsoftmax.data import datasets

SMALL = ["--dataset", "garments", "--epochs", "2", "--limit", "512", "--batch-size", "64"]
LINE = re.compile(
    r"epoch (\d\d) \| train_loss=\d\.\d{4} \| train_acc=\d\.\d{4}"
    r" \| test_loss=\d\.\d{4} \| test_acc=\d\.\d{4} \| \d+\.\d\d s"
)


def same_model(*folders):
    """Return whether the models of some runs are equal, bit for bit."""
    return len({(folder / "model.npz").read_bytes() for folder in folders}) == 1


def test_whole_run(train, tmp_path):
    process = train(*SMALL, "--run-dir", "run")
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    lines = process.stdout.splitlines()
    assert lines[0] == ("data set  garments: 512 training and 2000 test images, 10 classes")
    assert "SoftmaxRegression(784 => 10, float32)" in lines[2]
    assert "2 epochs, batches of 64, Descent(eta=0.1)" in lines[3]
    assert [LINE.fullmatch(line)[1] for line in lines[4:6]] == ["01", "02"]
    assert all(re.match(r"confused  .+ taken for .+: \d+ of \d+", line) for line in lines[6:10])
    written = lines[10].split(": ")[1].split()
    assert set(written) == {path.name for path in (tmp_path / "run").iterdir()} - {"curves.png"}
    assert {"model.npz", "history.jsonl", "summary.json", "checkpoint.npz"} <= set(written)

    history = history_of(tmp_path / "run")
    assert list(history[0])[:7] == ["epoch", "train_loss", "train_acc", "test_loss", "test_acc",
                                    "train_seconds", "test_seconds"]  # fmt: skip
    assert {key for key in history[0] if "last_batch" in key} == {
        f"last_batch_{kind}_{value}" for kind in ("train", "test") for value in ("loss", "acc")
    }
    assert [record["epoch"] for record in history] == [1, 2]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["test_acc"] == history[-1]["test_acc"]
    assert summary["versions"]["numpy"] == np.__version__
    assert summary["settings"]["batch_size"] == 64
    assert summary["blas"][0]["internal_api"]
    assert set(summary["seconds"]) == {"load", "features", "train"}
    model = SoftmaxRegression.load(tmp_path / "run" / "model.npz")
    assert model.classes[9] == "Ankle boot"
    assert model.pixel_scale == 1 / 255


def test_curves_are_a_picture(train_process, tmp_path):
    pytest.importorskip("matplotlib")
    process = train_process(*SMALL, "--run-dir", "run")
    assert process.stdout.splitlines()[-1] == "drawn     run/curves.png"
    picture = (tmp_path / "run" / "curves.png").read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    strange = os.path.join(os.path.dirname(__file__), "reference")
    train_process(*SMALL, "--run-dir", "strange", MATPLOTLIBRC=strange)
    assert (tmp_path / "strange" / "curves.png").read_bytes() == picture


@pytest.mark.parametrize(
    ("error", "warning"),
    [
        ("ImportError('as if it were not installed')", ""),
        ("AttributeError('broken')", "train.py: warning: no curves.png: broken\n"),
    ],
)
def test_without_matplotlib_only_the_curves_are_missing(train_process, tmp_path, error, warning):
    (tmp_path / "matplotlib.py").write_text(f"raise {error}")
    process = train_process(*SMALL, "--run-dir", "run", PYTHONPATH=str(tmp_path))
    assert (process.returncode, process.stderr) == (0, warning)
    assert "curves.png" not in process.stdout
    assert (tmp_path / "run" / "summary.json").exists()
    assert not (tmp_path / "run" / "curves.png").exists()


def test_an_interruption_of_the_drawing_loses_the_picture_alone(train_process, tmp_path):
    (tmp_path / "matplotlib.py").write_text("raise KeyboardInterrupt")
    process = train_process(*SMALL, "--run-dir", "run", PYTHONPATH=str(tmp_path))
    assert (process.returncode, process.stderr) == (130, "train.py: interrupted\n")
    written, evaluate = process.stdout.splitlines()[-2:]
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert set(written.split(": ")[1].split()) == files
    assert evaluate.startswith("evaluate  ")


def test_json_and_quiet(train, tmp_path):
    process = train(
        *SMALL, "--run-dir", "a", "--json", "--mirror-url", "http://me:secret@127.0.0.1:1/"
    )
    (line,) = process.stdout.splitlines()
    result = json.loads(line)
    assert result["run_dir"] == "a"
    assert result["history"] == history_of(tmp_path / "a")
    assert process.stderr == ""
    summary = (tmp_path / "a" / "summary.json").read_text()
    assert "secret" not in summary and "run_dir" not in summary
    process = train(*SMALL, "--run-dir", "b", "--quiet")
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("environment", "threads"),
    [
        ({}, None),
        ({"OMP_NUM_THREADS": "0"}, None),
        ({"OMP_NUM_THREADS": "9" * 5000}, None),
        ({"OMP_NUM_THREADS": "2,1"}, 2),
        ({"OPENBLAS_NUM_THREADS": "a", "MKL_NUM_THREADS": "\u00b2", "OMP_NUM_THREADS": "2"}, 2),
    ],
)
def test_the_number_of_threads_comes_from_the_environment_else_is_one(
    monkeypatch, environment, threads
):
    monkeypatch.setattr(os, "environ", environment)
    assert command_line.choose_threads(None) == threads


def test_the_first_of_the_variables_reaches_the_blas(train_process):
    process = train_process(*SMALL, "--json", OPENBLAS_NUM_THREADS="2", OMP_NUM_THREADS="1")
    summary = json.loads(process.stdout)
    assert [blas["num_threads"] for blas in summary["blas"]] == [2]
    assert summary["threads"] == 2


def test_the_optimum_uses_all_cores_unless_told(train_process):
    flags = ["--dataset", "garments", "--solver", "lbfgs", "--limit", "500"]
    process = train_process(*flags, "--max-iterations", "1", "--json", OPENBLAS_NUM_THREADS="")
    assert json.loads(process.stdout)["threads"] == cores()


def test_the_same_seed_gives_the_same_model_in_the_default_run_folder(train_process, tmp_path):
    # Products large enough for the BLAS to share among its threads.
    flags = ["--dataset", "garments", "--epochs", "2", "--batch-size", "1024", "--threads", "2"]
    for _ in range(2):
        assert train_process(*flags).returncode == 0
    first, second = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"garments-\d{8}-\d{6}-\d{6}", first.name)
    assert same_model(first, second)


@pytest.mark.parametrize(
    ("flags", "rule"),
    [
        (["--optimiser", "adam"], "Adam(eta=0.001, beta=(0.9, 0.999), epsilon=1e-08)"),
        (["--optimiser", "momentum", "--lr", "0.05"], "Momentum(eta=0.05, rho=0.9)"),
        (["--optimiser", "nesterov"], "Nesterov(eta=0.001, rho=0.9)"),
        (["--optimiser", "adamw"], "AdamW("),
        (["--l2", "0.01", "--dtype", "float64", "--threads", "2"], "Descent(eta=0.1), l2=0.01"),
    ],
)
def test_settings_reach_the_training(train, tmp_path, flags, rule):
    process = train(*SMALL, "--run-dir", "run", *flags)
    assert process.returncode == 0, process.stderr
    assert rule in process.stdout
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    threads = 2 if "--threads" in flags else 1
    assert {blas["num_threads"] for blas in summary["blas"]} == {threads}
    model = SoftmaxRegression.load(tmp_path / "run" / "model.npz")
    assert model.theta.dtype == ("float64" if "float64" in flags else "float32")


def test_l2_shrinks_the_weights(train, tmp_path):
    norms = []
    for l2 in ("0", "1"):
        assert train(*SMALL, "--run-dir", l2, "--l2", l2).returncode == 0
        norms.append(np.linalg.norm(SoftmaxRegression.load(tmp_path / l2 / "model.npz").W))
    assert norms[1] < 0.5 * norms[0]


def test_resume_with_another_data_set_is_refused(train, tmp_path, fashion_mnist_folder):
    flags = ["--epochs", "2", "--limit", "512", "--run-dir", "run", "--dataset"]
    assert train(*flags, "garments").returncode == 0
    process = train(*flags, "fashion-mnist", "--data-dir", fashion_mnist_folder, "--resume")
    assert "dataset 'garments' there, 'fashion-mnist' here" in one_line(process, 2)


# The solver for all samples

CONVEX = ["--dataset", "garments", "--solver", "lbfgs", "--limit", "1500", "--l2", "0.001"]
ITERATION = re.compile(
    r"iteration (\d{3}) \| train_loss=\d\.\d{4} \| train_acc=\d\.\d{4} \| test_loss=\d\.\d{4}"
    r" \| test_acc=\d\.\d{4} \| objective=\d\.\d{6} \| max_gradient=\d\.\de-\d\d \| \d+\.\d\d s"
)


def test_whole_run_to_the_optimum(train, tmp_path):
    process = train(*CONVEX, "--run-dir", "run", "--threads", "2")
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    lines = process.stdout.splitlines()
    assert lines[2] == "model     SoftmaxRegression(784 => 10, float32)"
    assert lines[3].startswith("training  L-BFGS on all samples until max|gradient| <= 1e-05")
    assert "l2=0.001, threads=2" in lines[3]
    shown = [ITERATION.fullmatch(line)[1] for line in lines if line.startswith("iteration")]
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


def test_balanced_classes(train, tmp_path):
    """Also on resuming: the weights belong to the run."""
    flags = [*CONVEX, "--limit", "300", "--run-dir", "run"]
    assert train(*flags, "--class-weight", "balanced", "--max-iterations", "2").returncode == 0
    process = train(*flags, "--resume")
    assert "'class_weight' 'balanced' there, None here" in one_line(process, 2)
    process = train(*flags, "--class-weight", "balanced", "--resume")
    assert process.returncode == 0, process.stderr
    assert "l2=0.001, balanced classes, threads=" in process.stdout
    assert "optimum   converged" in process.stdout
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["settings"]["class_weight"] == "balanced"
    data = datasets.load("garments")
    model = SoftmaxRegression.load(tmp_path / "run" / "model.npz")
    y = data.y_train[:300]
    shares = (1 / np.bincount(y))[y]
    np.testing.assert_allclose(model(data.X_train[:, :300]) @ shares, 1, atol=1e-3)


def test_a_result_that_has_not_converged_is_a_warning_with_advice(train, tmp_path):
    process = train(*CONVEX, "--max-iterations", "2", "--run-dir", "run", "--json")
    assert process.returncode == 0
    (line,) = process.stderr.splitlines()
    assert line.startswith("train.py: warning: not converged after 2 iterations")
    assert line.endswith("raise max_iterations, now 2")
    result = json.loads(process.stdout)
    assert result["optimum"]["reason"] == "iterations" and len(result["history"]) == 3
    assert SoftmaxRegression.load(tmp_path / "run" / "model.npz")


def test_an_interrupted_solver_resumes_bit_for_bit(train, tmp_path):
    flags = [*CONVEX, "--l2", "0", "--tol", "0", "--max-iterations", "60", "--limit", "5000"]
    assert train(*flags, "--run-dir", "whole").returncode == 0
    code, _, complaint = interrupt(
        tmp_path, [*flags, "--run-dir", "run"], "iteration 003", signal.SIGINT
    )
    assert code == 130
    assert re.search(r"^train.py: interrupted after iteration \d+; checkpoint written", complaint)
    assert len(history_of(tmp_path / "run")) < 61
    again = train(*flags, "--run-dir", "run", "--resume")
    assert again.returncode == 0, again.stderr
    assert re.search(r"^resumed   after iteration \d+$", again.stdout, re.MULTILINE)
    assert told(tmp_path / "run") == told(tmp_path / "whole")
    assert same_model(tmp_path / "run", tmp_path / "whole")


def test_a_finished_run_resumes_to_a_smaller_tolerance_but_not_a_smaller_number(train, tmp_path):
    assert train(*CONVEX, "--tol", "1e-3", "--run-dir", "run").returncode == 0
    before = told(tmp_path / "run")
    assert train(*CONVEX, "--tol", "1e-4", "--run-dir", "run", "--resume").returncode == 0
    after = told(tmp_path / "run")
    assert after[: len(before)] == before and len(after) > len(before)
    line = one_line(train(*CONVEX, "--max-iterations", "1", "--run-dir", "run", "--resume"), 2)
    assert f"--max-iterations: expected at least the {after[-1]['iteration']} that run" in line


def test_a_run_of_the_other_solver_is_refused(train):
    small = ["--dataset", "garments", "--limit", "1500"]
    for solver, other in (("lbfgs", "sgd"), ("sgd", "lbfgs")):
        assert train(*small, "--run-dir", solver, "--solver", solver).returncode == 0
        process = train(*small, "--run-dir", solver, "--solver", other, "--resume")
        assert f"expected a run with --solver {other}, got one with" in one_line(process, 2)


# Features and photographs

PATCHES = ["--dataset", "garments", "--features", "patches", "--limit", "500"]


def test_whole_run_on_patches(train, tmp_path):
    process = train(*PATCHES, "--run-dir", "run")
    assert (process.returncode, process.stderr) == (0, "")
    lines = process.stdout.splitlines()
    assert re.fullmatch(r"features  patches: 1600 for each image; \d+\.\d s, 8 MB", lines[2])
    assert lines[4].startswith("training  L-BFGS on all samples") and "l2=3e-05" in lines[4]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["settings"]["l2"] == 3e-05 and summary["settings"]["solver"] == "lbfgs"
    assert summary["seconds"]["features"] > 0 and summary["test_acc"] > 0.8
    model = SoftmaxRegression.load(tmp_path / "run" / "model.npz")
    assert model.num_features == 1600 and model.num_inputs == 784
    data = datasets.load("garments")
    accuracy = (model.predict(data.X_test) == data.y_test).mean()
    assert accuracy == pytest.approx(summary["test_acc"])
    assert model.novelty(data.X_train[:, :200]).max() < 2
    assert (model.evidence(data.X_train[:, :500]) > model.evidence_limit).mean() > 0.87


def test_mirror_images_and_fourier_features_are_in_the_model(train, tmp_path):
    flags = ["--features", "patches+fourier", "--mirror", "--limit", "100"]
    process = train(*PATCHES, *flags, "--max-iterations", "1", "--run-dir", "run")
    assert "patches+fourier: 4096 for each image, of images and their mirror" in process.stdout
    model = SoftmaxRegression.load(tmp_path / "run" / "model.npz")
    images = datasets.load("garments").X_test[:, :3]
    mirrored = images.reshape(28, 28, 3)[:, ::-1].reshape(784, 3)
    np.testing.assert_allclose(model(images), model(mirrored), atol=1e-5)


def test_minibatches_take_features_too(train, tmp_path):
    process = train(*PATCHES, "--solver", "sgd", "--epochs", "1", "--run-dir", "run", "--quiet")
    assert process.returncode == 0, process.stderr
    assert SoftmaxRegression.load(tmp_path / "run" / "model.npz").num_features == 1600


def test_a_run_on_features_resumes_bit_for_bit_and_with_no_other_features(train, tmp_path):
    assert train(*PATCHES, "--run-dir", "whole").returncode == 0
    for number in ("2", "1000"):
        resume = ["--resume"] if number == "1000" else []
        process = train(*PATCHES, "--max-iterations", number, "--run-dir", "run", *resume)
        assert process.returncode == 0, process.stderr
    assert told(tmp_path / "run") == told(tmp_path / "whole")
    assert same_model(tmp_path / "run", tmp_path / "whole")
    process = train(*PATCHES, "--mirror", "--run-dir", "run", "--resume")
    assert "features" in one_line(process, 2)


@pytest.fixture
def pets(tmp_path):
    """Cats are upright bars, dogs lying ones."""
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for kind, size in (("cat", (6, 30)), ("dog", (30, 6))):
        (tmp_path / "pets" / kind).mkdir(parents=True)
        for number in range(30):
            picture = image.new("RGB", (60, 40), (200, 180, 160))
            x, y = rng.integers(0, (60 - size[0], 40 - size[1]))
            picture.paste((20, 40, 60), (x, y, x + size[0], y + size[1]))
            picture.save(tmp_path / "pets" / kind / f"{number}.png")
    return tmp_path / "pets"


def test_whole_run_on_photographs(train, pets, tmp_path):
    (pets / "cat" / "damaged.jpg").write_bytes(b"no picture")
    process = train("--data", pets, "--run-dir", "run")
    assert process.returncode == 0
    (warning,) = process.stderr.splitlines()
    assert warning.startswith("train.py: warning: left out: ") and "damaged.jpg" in warning
    lines = process.stdout.splitlines()
    assert lines[0] == "data set  pets: 54 training and 6 test images, 2 classes"
    assert "48x48 pixels, 10% of each class held out, seed 0" in lines[1]
    assert "patches: 1600 for each image, of images and their mirror images" in lines[2]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["test_acc"] == 1
    assert summary["settings"]["data"] == str(pets) and summary["settings"]["mirror"] is True
    model = SoftmaxRegression.load(tmp_path / "run" / "model.npz")
    assert model.framing == "square" and model.classes == ("cat", "dog")
    assert model.evidence_limit > 0
    assert "all       trained on the 6 held-out photographs too: converged" in process.stdout
    line = one_line(run_here(SCRIPTS / "evaluate.py", tmp_path, "run"), 2)
    assert "expected photographs that the model has not seen" in line
    line = one_line(train("--data", pets, "--run-dir", pets / "cat" / "run"), 2)
    assert "--run-dir: expected a folder outside of" in line
    resumed = train("--data", pets, "--run-dir", "run", "--resume")
    assert resumed.returncode == 0 and "resumed   after iteration" in resumed.stdout
    (pets / "cat" / "0.png").unlink()
    resumed = train("--data", pets, "--run-dir", "run", "--resume", "--quiet")
    assert resumed.returncode == 2 and "sha256" in resumed.stderr


# Errors


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dataset", "cifar"], "expected one of fashion-mnist, mnist, garments, got 'cifar'"),
        (["--dataset", ""], "got ''"),
        ([*SMALL, "--lr", "-1"], "expected a finite eta >= 0, got -1.0"),
        ([*SMALL, "--test-part", "0.2"], "--test-part: expected it with --data"),
        ([*SMALL, "--data", "x"], "--data: expected it without --dataset"),
        ([*SMALL, "--mirror"], "--mirror: expected it with --features patches, got pixels"),
        (["--data", "none"], "cannot read none: no such file; check"),
        ([*PATCHES, "--workers", "2"], "--workers and --scheduler: expected the pixels of a data"),
        ([*SMALL, "--l2", "nan"], "l2: expected a number of at least 0"),
        ([*CONVEX, "--tol", "nan"], "tol: expected a number of at least 0"),
        ([*CONVEX, "--lr", "0.1"], "--lr: expected with --solver sgd"),
        ([*CONVEX, "--batch-size", "3"], "--batch-size: expected with --solver sgd"),
        ([*SMALL, "--max-iterations", "1"], "--max-iterations: expected with --solver lbfgs"),
        ([*SMALL, "--resume"], "expected --run-dir"),
        ([*SMALL, "--resume=auto"], "expected --run-dir"),
        ([*SMALL, "--resume", "my run"], "got 'my run'; name the folder with --run-dir 'my run'"),
        (["--data-dir", __file__], f"expected a folder, got the file {__file__}; name the folder"),
        ([*SMALL, "--resume", "--run-dir", ""], "expected --run-dir"),
        ([*SMALL, "--resume", "--run-dir", "none"], "cannot read none/checkpoint.npz"),
        ([*SMALL, "--run-dir", f"{__file__}/run"], "cannot make the run folder"),
        (["--batch-size", "0"], "--batch-size: expected a whole number of at least 1, got '0'"),
        (["--max-iterations", "-1"], "expected a whole number of at least 0, got '-1'"),
        (["--limit", "1.5"], "--limit: expected a whole number of at least 1, got '1.5'"),
        (["--threads", "1025"], "--threads: expected at most 1024, got '1025'"),
        (["--solver", "newton"], "invalid choice: 'newton'"),
        (["--nonsense"], "unrecognized arguments: --nonsense; see train.py --help"),
    ],
)
def test_usage_errors_exit_2_with_one_line_before_data_are_loaded(
    train, flags, message, monkeypatch
):
    monkeypatch.setattr(datasets, "_load_garments", lambda: pytest.fail("data were loaded"))
    line = one_line(train(*flags), 2)
    assert line.startswith("train.py: error: ") and message in line


def test_a_run_is_replaced_only_with_force_and_then_as_a_whole(train, tmp_path):
    run = tmp_path / "run"
    assert train(*SMALL, "--run-dir", "run").returncode == 0
    before = (run / "model.npz").read_bytes()
    for name in ("notes.txt", *evaluate.PICTURES):
        (run / name).touch()
    assert "holds a run already" in one_line(train(*SMALL, "--run-dir", "run", "--seed", 1), 2)
    assert (run / "model.npz").read_bytes() == before
    assert train(*SMALL, "--run-dir", "run", "--force", "--lr", "1e38").returncode == 5
    assert {path.name for path in run.iterdir()} == {"notes.txt", "checkpoint.npz"}


def test_links_in_a_run_folder_stay_even_with_force(train, tmp_path):
    run, disk = tmp_path / "run", tmp_path / "disk"
    assert train(*SMALL, "--run-dir", "run").returncode == 0
    disk.mkdir()
    for name in ("model.npz", "checkpoint.npz"):
        (run / name).rename(disk / name)
        (run / name).symlink_to(disk / name)
    before = (disk / "model.npz").read_bytes()
    for flags in (["--resume", "--epochs", "3"], ["--force", "--seed", "1"]):
        process = train(*SMALL, "--run-dir", "run", *flags)
        assert process.returncode == 0, process.stderr
        assert (run / "model.npz").is_symlink() and (run / "checkpoint.npz").is_symlink()
        assert (disk / "model.npz").read_bytes() != before
        before = (disk / "model.npz").read_bytes()
    assert sorted(os.listdir(disk)) == ["checkpoint.npz", "model.npz"]


def test_a_run_folder_may_be_a_link_to_one_that_is_not_there_yet(train, tmp_path):
    (tmp_path / "run").symlink_to(tmp_path / "scratch" / "run")
    for flag in ("--resume=auto", "--resume", "--force"):
        process = train(*SMALL, "--run-dir", "run", flag)
        assert process.returncode == 0, process.stderr
    assert (tmp_path / "run").is_symlink() and (tmp_path / "scratch/run/model.npz").exists()


@pytest.mark.parametrize(
    ("flags", "environment"),
    [
        (["--offline"], {}),
        (["--dataset", "mnist"], {}),
        (["--data-dir", "."], {}),
        (["--data-dir", ""], {}),
        (["--mirror-url", "http://127.0.0.1:9/"], {}),
        ([], {"NPSOFTMAX_DATA": "elsewhere"}),
    ],
)
def test_data_that_were_named_and_are_missing_exit_3_with_the_ways_out(train, flags, environment):
    process = train(*flags, **{"NPSOFTMAX_DATA": "", **environment})
    assert (process.returncode, process.stdout) == (3, "")
    first, ways, causes = process.stderr.splitlines()
    assert re.fullmatch(r"train.py: error: \S*mnist: 4 files are not on this machine, .*", first)
    assert all(way in ways for way in ("--data-dir", "NPSOFTMAX_DATA", "--mirror-url", "go online"))
    digest = "440fcabf" if "mnist" in flags else "346e55b9"
    assert len(first + ways) < 280 and digest in causes and "; put " in causes


def test_without_network_and_data_it_warns_in_three_lines_and_trains_on_garments(train):
    process = train("--epochs", "1", NPSOFTMAX_DATA="")
    assert process.returncode == 0
    missing, instead, ways = process.stderr.splitlines()
    assert max(map(len, (missing, instead, ways))) < 300
    assert "fashion-mnist: 4 files are not on this machine, and the network is not used" in missing
    assert "garments instead" in instead and "not comparable" in instead
    assert all(
        way in ways for way in ("--data-dir", "NPSOFTMAX_DATA", "--mirror-url", "fetch.py fash")
    )
    assert process.stdout.startswith("data set  garments: 10240 training")


def test_divergence_exits_5_and_keeps_the_last_checkpoint(train, tmp_path):
    flags = [*SMALL, "--run-dir", "run", "--dtype", "float32"]
    process = train(*flags, "--lr", "1000", "--l2", "1", "--checkpoint-every", "1")
    assert process.returncode == 5
    (line,) = process.stderr.splitlines()
    assert "diverged in epoch" in line
    assert "learning rate" in line
    arrays, _ = storage.read(tmp_path / "run" / "checkpoint.npz", "checkpoint")
    assert np.isfinite(arrays["theta"]).all()
    assert not (tmp_path / "run" / "model.npz").exists()


def test_debug_shows_the_traceback(train):
    process = train("--dataset", "cifar", "--debug")
    assert process.returncode == 2
    assert "Traceback" in process.stderr
    assert process.stderr.splitlines()[-1].startswith("train.py: error:")


# A clock cannot choose the moment: on a busy machine the signal came before the command listened.
SIGNALLED = """
import os, runpy, sys
class Finder:
    @staticmethod
    def find_spec(name, *_):
        if name == moment:
            os.kill(os.getpid(), int(number))
_, moment, number, *sys.argv = sys.argv
sys.meta_path.insert(0, Finder)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize(
    ("number", "moment"),
    [(signal.SIGINT, "numpy"), (signal.SIGTERM, "npsoftmax.data.garments")],
)
def test_a_signal_outside_the_loop_also_ends_in_one_line(tmp_path, number, moment):
    # Stopped while it imports NumPy or loads the data, long before the first step.
    process = subprocess.run(
        [sys.executable, "-c", SIGNALLED, moment, str(int(number)), str(SCRIPT),
         "--dataset", "garments"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )  # fmt: skip
    assert process.returncode == 130, process.stderr
    assert process.stderr.count("\n") == 1
    assert not list(tmp_path.rglob("*.part"))


def test_a_missing_project_is_an_error_that_says_how_to_install_it(train_process, tmp_path):
    (tmp_path / "npsoftmax.py").write_text("raise ModuleNotFoundError(\"No module named 'x'\")")
    line = one_line(train_process(PYTHONPATH=str(tmp_path)), 1)
    assert line.endswith(f"; install the project first: python -m pip install {SCRIPT.parents[1]}")


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
@pytest.mark.parametrize(
    ("redirection", "code"), [("| true", 1), (">&-", 0), ("2>&-", 0), (">/dev/full", 2)]
)
def test_streams_that_are_closed_or_full(tmp_path, redirection, code):
    command = f"set -o pipefail; {sys.executable} {SCRIPT} {' '.join(SMALL)} {redirection}"
    process = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert process.returncode == code, process.stderr
    assert "Traceback" not in process.stderr
    assert len(process.stderr.splitlines()) == (1 if code else 0)


# Stopping and resuming


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_resumes_bit_for_bit(train, tmp_path, number):
    flags = ["--dataset", "garments", "--epochs", "99999", "--batch-size", "16", "--limit", "2048"]
    code, _, err = interrupt(tmp_path, [*flags, "--run-dir", "run"], "epoch 01", number)
    assert code == 130
    (line,) = err.splitlines()
    assert "--resume --run-dir run" in line
    # Only 3 epochs more are needed to see that the path is the same.
    epoch = json.loads((tmp_path / "run" / "history.jsonl").read_text().splitlines()[-1])["epoch"]
    flags[3] = str(epoch + 3)
    resumed = train(*flags, "--resume", "--run-dir", "run")
    assert resumed.returncode == 0, resumed.stderr
    position = re.match(r"train.py: interrupted ((?:after|in) epoch .+); checkpoint written", line)[
        1
    ]
    assert f"resumed   {position}\n" in resumed.stdout
    assert train(*flags, "--run-dir", "whole").returncode == 0
    run, whole = tmp_path / "run", tmp_path / "whole"
    assert same_model(run, whole) and told(run) == told(whole)


def test_the_same_command_starts_resumes_and_finishes_a_run(train, tmp_path):
    flags = ["--dataset", "garments", "--epochs", "99999", "--limit", "2048", "--resume=auto"]
    code, _, _ = interrupt(tmp_path, [*flags, "--run-dir", "run"], "epoch 01", signal.SIGTERM)
    assert code == 130
    epoch = history_of(tmp_path / "run")[-1]["epoch"]
    flags[3] = str(epoch + 2)
    for position, end in (
        ("(?:after|in) epoch .*", ""),
        (f"after epoch {epoch + 2}", ": nothing is left to train"),
    ):
        process = train(*flags, "--run-dir", "run")
        assert process.returncode == 0, process.stderr
        assert re.search(f"^resumed   {position} in run{end}$", process.stdout, re.MULTILINE)
    assert (
        "started   whole: there was nothing to resume" in train(*flags, "--run-dir", "whole").stdout
    )
    assert same_model(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize(
    "names", [["job.log"], [".checkpoint.npz.0123456789abcdef.part"], ["notes", "more/notes"]]
)
def test_a_run_starts_beside_files_that_are_not_of_a_run(train, tmp_path, names):
    for name in names:
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text("mine")
    process = train(*SMALL, "--resume=auto", "--run-dir", "run")
    assert process.returncode == 0 and "started   run: there was nothing" in process.stdout
    kept = [name for name in names if not name.endswith(".part")]
    assert all((tmp_path / "run" / name).read_text() == "mine" for name in kept)


def test_what_is_neither_a_start_nor_a_run_to_resume_is_refused(train, tmp_path):
    assert train(*SMALL, "--run-dir", "run").returncode == 0
    again = [*SMALL, "--resume=auto", "--run-dir", "run"]
    assert "seed 0 there, 1 here" in one_line(train(*again, "--seed", "1"), 2)
    (tmp_path / "run" / "checkpoint.npz").unlink()  # the previous one is enough
    assert train(*again, "--quiet").returncode == 0
    for path in (tmp_path / "run").glob("checkpoint*"):
        path.unlink()
    assert "run holds a run already" in one_line(train(*again), 2)


@pytest.mark.parametrize("name", ["my  runs/first one", "a;b", "it's", "$HOME", "-x", "new\nline"])
def test_the_printed_commands_can_be_pasted(train, tmp_path, name):
    data = tmp_path / "my data"
    process = train(*SMALL, f"--run-dir={name}", "--data-dir", data)
    assert process.returncode == 0, process.stderr
    printed = re.search("^evaluate  (.*)", process.stdout, re.M)[1]
    environment = {**os.environ, "PATH": os.path.dirname(sys.executable)}
    evaluated = subprocess.run(
        ["/bin/bash", "-c", f"{printed} --no-pictures"],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert evaluated.returncode == 0, evaluated.stderr
    code, _, err = interrupt(
        tmp_path, [*SMALL, "--epochs", "99999", f"--run-dir={name}2"], "epoch 01", signal.SIGINT
    )
    advice = shlex.split(re.search(r"(--dataset .*)", err)[1]) if "\n" not in name else []
    assert code == 130 and (not advice or advice[-1].removeprefix("./") == f"{name}2")


def test_resuming_a_finished_run_with_more_epochs(train, tmp_path):
    assert train(*SMALL, "--run-dir", "run").returncode == 0
    more = [*SMALL, "--epochs", "3"]
    assert train(*more, "--run-dir", "run", "--resume").returncode == 0
    assert train(*more, "--run-dir", "whole").returncode == 0
    assert same_model(tmp_path / "run", tmp_path / "whole")


def test_resuming_with_fewer_epochs_or_another_setting_is_refused(train):
    assert train(*SMALL, "--run-dir", "run").returncode == 0
    line = one_line(train(*SMALL, "--run-dir", "run", "--resume", "--epochs", "1"), 2)
    assert "expected at least the 2 that run has done, got 1" in line
    line = one_line(train(*SMALL, "--run-dir", "run", "--resume", "--seed", "7"), 2)
    assert "seed 0 there, 7 here" in line


def test_a_damaged_checkpoint_is_replaced_by_the_previous_one_or_exits_4(train, tmp_path):
    assert train(*SMALL, "--run-dir", "run").returncode == 0
    model, history = (tmp_path / "run" / "model.npz").read_bytes(), told(tmp_path / "run")
    path = tmp_path / "run" / "checkpoint.npz"
    path.write_bytes(path.read_bytes()[:-10])
    process = train(*SMALL, "--run-dir", "run", "--resume")
    assert process.returncode == 0
    assert process.stderr.startswith("train.py: warning: run/checkpoint.npz: expected a file")
    assert process.stderr.endswith("; resuming from run/checkpoint.previous.npz\n")
    assert "resumed   after epoch 1" in process.stdout
    assert (tmp_path / "run" / "model.npz").read_bytes() == model
    assert told(tmp_path / "run") == history
    for file in (path, tmp_path / "run" / "checkpoint.previous.npz"):
        file.write_bytes(file.read_bytes()[:-10])
    assert "checkpoint.npz" in one_line(train(*SMALL, "--run-dir", "run", "--resume"), 4)


# The real data


@pytest.mark.parametrize("environment", [True, False])
def test_a_folder_that_holds_the_four_files_itself_is_used(
    train, fashion_mnist_folder, environment
):
    place = f"{fashion_mnist_folder}/fashion-mnist"
    flags = [] if environment else ["--data-dir", place]
    process = train("--epochs", "1", *flags, NPSOFTMAX_DATA=place if environment else "")
    assert process.returncode == 0, process.stderr
    assert f"found in {place}, SHA-256 verified" in process.stdout


def test_real_data_from_compressed_files_then_from_the_cache(
    train, fashion_mnist, fashion_mnist_folder, private_folders
):
    for reused in (0, 4):
        process = train("--epochs", "1", "--data-dir", fashion_mnist_folder)
        assert f"SHA-256 verified; {reused} of 4 unpacked copies reused" in process.stdout
        assert process.returncode == 0, process.stderr
        assert "60000 training and 10000 test images" in process.stdout
    copies = private_folders / "npsoftmax" / "unpacked" / "fashion-mnist"
    assert sum(path.stat().st_size for path in copies.iterdir()) == 54_950_048


def test_the_optimum_of_fashion_mnist(train, tmp_path, fashion_mnist_folder):
    flags = ["--solver", "lbfgs", "--l2", "1e-4", "--data-dir", fashion_mnist_folder]
    process = train(*flags, "--run-dir", "run")
    assert process.returncode == 0, process.stderr
    last = history_of(tmp_path / "run")[-1]
    # 0.3794768 is the optimum in float64, proved to 1e-9.
    assert last["objective"] == pytest.approx(0.3794768, rel=1e-4)
    assert last["test_acc"] >= 0.844
    assert last["evaluations"] <= 100


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_real_run_in_bounded_memory(fashion_mnist_folder, tmp_path):
    # VmHWM and not getrusage, whose maximum a child inherits from the process that starts it.
    code = (
        "import runpy, sys; sys.argv = sys.argv[1:]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "print(open('/proc/self/status').read(), file=sys.stderr)"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, str(SCRIPT), "--epochs", "2", "--data-dir",
         fashion_mnist_folder, "--run-dir", str(tmp_path / "run")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(re.search(r"VmHWM:\s+(\d+) kB", process.stderr)[1]) < 300 * 1024


def test_a_folder_is_free_once_the_run_that_uses_it_has_ended_even_if_killed(train, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / "run").mkdir()
    descriptor = os.open(tmp_path / "run", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    for flags in ([], ["--force"], ["--resume"]):
        assert "another run is using it" in one_line(train(*SMALL, "--run-dir", "run", *flags), 2)
    assert list((tmp_path / "run").iterdir()) == []
    os.close(descriptor)
    (tmp_path / "run" / ".checkpoint.npz.0123456789abcdef.part").write_bytes(b"half")
    assert train(*SMALL, "--run-dir", "run").returncode == 0
    assert not list((tmp_path / "run").glob(".*"))


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    code = f"import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); \
os.execv(sys.executable, [sys.executable, '-u', {str(SCRIPT)!r}, *sys.argv[1:]])"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *SMALL, "--epochs", "40"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for line in process.stdout:
        if line.startswith("epoch 01"):
            process.send_signal(signal.SIGINT)
            break
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert "epoch 40" in out
