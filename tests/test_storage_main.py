"""The command that verifies models and checkpoints, as a user runs it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from npsoftmax import DataLoader, FullBatchTrainer, Momentum, SoftmaxRegression, Trainer, storage
from npsoftmax.checkpoint import verify_files as main
from npsoftmax.objective import FullBatch

ROOT = Path(__file__).parents[1]
X = np.random.default_rng(0).integers(0, 256, (3, 8), dtype=np.uint8)
Y = np.array([0, 1, 1, 0, 0, 1, 1, 0])


def write_model(path):
    SoftmaxRegression(3, 2, dtype=np.float64).save(path)


def write_checkpoint(path):
    loader = DataLoader(X, Y, batch_size=4)
    trainer = Trainer(SoftmaxRegression(3, 2), Momentum(0.1), loader)
    trainer.fit(epochs=3)
    trainer.save_checkpoint(path)


def write_solver_checkpoint(path):
    model = SoftmaxRegression(3, 2, dtype=np.float64)
    problem = FullBatch(X, Y, l2=0.1, scale=model.pixel_scale)
    trainer = FullBatchTrainer(model, problem, tol=1e-12)
    trainer.fit(max_iterations=2)
    trainer.save_checkpoint(path)


@pytest.fixture
def good(tmp_path):
    """Return one whole file of each kind."""
    writers = {
        "model.npz": write_model,
        "checkpoint.npz": write_checkpoint,
        "solver.npz": write_solver_checkpoint,
    }
    for name, write in writers.items():
        write(tmp_path / name)
    return [tmp_path / name for name in writers]


@pytest.fixture
def bad(tmp_path, good):
    """Return a file whose last byte is missing."""
    path = tmp_path / "bad.npz"
    path.write_bytes(good[0].read_bytes()[:-1])
    return path


def test_whole_files_are_described(good, capsys):
    assert main(list(map(str, good))) == 0
    out, err = capsys.readouterr()
    assert err == ""
    model, checkpoint, solver = out.splitlines()
    assert model == f"{good[0]}: a model, SoftmaxRegression(3 => 2, float64)"
    assert re.fullmatch(
        rf"{re.escape(str(good[1]))}: a checkpoint after 3 epochs and 0 steps: "
        r"theta float32\(2, 4\), \w+ float32\(2, 4\)",
        checkpoint,
    )
    assert solver == (
        f"{good[2]}: a checkpoint of the lbfgs solver after 2 iterations: theta float64(2, 4)"
    )


def test_each_file_has_its_line_and_the_worst_decides(good, bad, tmp_path, capsys):
    missing = tmp_path / "missing.npz"
    assert main([str(good[0]), str(missing)]) == 2
    assert main([str(bad), str(good[0]), str(missing), str(good[1]), str(bad)]) == 4
    capsys.readouterr()
    assert main([str(missing), str(bad), str(good[1])]) == 4
    out, err = capsys.readouterr()
    assert [line.split(": ")[0] for line in out.splitlines()] == [str(good[1])]
    first, second = err.splitlines()
    assert first == f"cannot read {missing}: No such file or directory; check the name"
    assert second.startswith(f"{bad}: expected ")


def test_a_kind_that_it_does_not_know(tmp_path, capsys):
    path = tmp_path / "other.npz"
    storage.write(path, "sausage", {}, {})
    assert main([str(path)]) == 4
    assert capsys.readouterr().err == f"{path}: expected a model or a checkpoint, got a sausage\n"


@pytest.mark.parametrize("kind", ["model", "checkpoint"])
def test_whole_archives_whose_content_is_wrong(kind, tmp_path, capsys):
    path = tmp_path / "file.npz"
    storage.write(path, kind, {"theta": np.full((2, 3), np.nan)}, {})
    assert main([str(path)]) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{path}: expected a {kind}, got ")


def test_a_file_s_name_cannot_speak_to_the_terminal(good, tmp_path, capsys):
    whole, damaged = tmp_path / "\x1b[2Jwhole\n.npz", tmp_path / "\x1b[2Jdamaged\n.npz"
    whole.write_bytes(good[0].read_bytes())
    damaged.write_bytes(b"")
    assert main([str(whole), str(damaged)]) == 4
    out, err = capsys.readouterr()
    assert out.count("\n") == err.count("\n") == 1
    assert out.strip().isprintable() and "\\x1b[2Jwhole\\n.npz: a model" in out
    assert err.strip().isprintable() and "\\x1b[2Jdamaged\\n.npz: expected" in err


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "npsoftmax.storage", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_as_a_process(good, bad):
    done = run(*good, bad)
    assert done.returncode == 4
    assert len(done.stdout.splitlines()) == 3
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{bad}: expected ")


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes are Linux's")
def test_a_name_that_no_encoding_holds(good, tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff\xe9.npz"
    Path(os.fsdecode(path)).write_bytes(good[0].read_bytes())
    done = run(path, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("a model, SoftmaxRegression(3 => 2, float64)\n")


def test_usage():
    done = run()
    assert done.returncode == 2
    assert "FILE" in done.stderr and "Traceback" not in done.stderr
    done = run("--help")
    assert done.returncode == 0
    assert "4 one is damaged" in done.stdout


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
def test_it_ends_in_silence_where_nobody_reads_on(tmp_path):
    SoftmaxRegression(2, 3).save(tmp_path / "m.npz")
    command = f"{sys.executable} -m npsoftmax.storage {' '.join(['m.npz'] * 3000)} | head -1"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.startswith("m.npz: a model") and done.stderr == ""
