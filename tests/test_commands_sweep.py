"""The command that compares learning rates and batch sizes, on what it holds out."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from running import SCRIPTS, one_line, run_here

from npsoftmax import DataLoader, Descent, SoftmaxRegression, Trainer, fit, fit_path, metrics
from npsoftmax.commands import command_line, run_folder, sweep
from npsoftmax.errors import DivergedError, InputError, OutputError

SCRIPT = SCRIPTS / "sweep.py"
WRITE_PICTURE = run_folder.write_picture
QUICK = ["--dataset", "garments", "--epochs", "1"]


@pytest.fixture(name="garments")
def few_garments(garments):
    return replace(garments, X_train=garments.X_train[:, :1200], y_train=garments.y_train[:1200])


@pytest.fixture
def compare(monkeypatch, garments, capsys):
    """Return what runs the command in this process, on the data it is given; it returns stdout.

    It draws no picture, unless told otherwise.
    """
    monkeypatch.setattr(run_folder, "write_picture", lambda *_: None)

    def run(*flags, data=garments):
        monkeypatch.setattr(command_line, "load", lambda args, name: data)
        sweep.sweep(sweep.parser().parse_args([*map(str, flags), *QUICK]))
        return capsys.readouterr().out

    return run


def command(folder, *flags):
    """Run the command where there are no data."""
    return run_here(SCRIPT, folder, *flags, NPSOFTMAX_DATA="")


# What is measured


def test_whole_sweep(tmp_path):
    flags = ["--lr", 1e38, 0.3, 0.03, "--repeats", 2, "--run-dir", "s"]
    process = command(tmp_path, "lr", *QUICK, *flags)
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    lines = process.stdout.splitlines()
    assert lines[0] == (
        "data set   garments: 8533 training images, and 1707 more held out for validation"
    )
    assert lines[2] == "training   1 epochs, batches of 256, repeats=2"
    assert lines[4].split()[0] == "lr"
    assert [line.split()[0] for line in lines[5:8]] == ["0.03", "0.3", "1e+38"]
    assert "diverged" in lines[7]
    assert re.fullmatch(
        r"best       learning rate 0\.3: validation loss \d\.\d{4} \(\d\.\d{4} to \d\.\d{4}\)",
        lines[9],
    )
    assert lines[-1].startswith("written    s: sweep.json")
    report = json.loads((tmp_path / "s" / "sweep.json").read_text())
    assert (report["best"], report["diverged"]) == (0.3, [1e38])
    assert [o["value"] for o in report["outcomes"]] == [0.03, 0.3]
    assert report["settings"]["batch_size"] == 256


def test_the_test_images_are_not_used(compare, garments):
    flags = ["batch-size", "--batch-size", 100, 500, "--repeats", 1, "--json"]
    reports = [
        json.loads(compare(*flags, data=data))
        for data in (garments, replace(garments, X_test=None, y_test=None))
    ]
    for report in reports:
        del report["run_dir"]
        for row in report["outcomes"]:
            del row["seconds_per_epoch"]
    assert reports[0] == reports[1]


def test_held_out_images_are_not_trained_on(garments):
    numbered = replace(garments, X_train=np.arange(60)[None], y_train=np.arange(60))
    split = sweep.hold_out(numbered, seed=0)
    assert (split.y_train.size, split.y_test.size) == (50, 10)
    assert sorted([*split.y_train, *split.y_test]) == list(range(60))
    np.testing.assert_array_equal(split.X_train[0], split.y_train)
    np.testing.assert_array_equal(split.X_test[0], split.y_test)
    assert sweep.hold_out(numbered, seed=0).y_test.tolist() == split.y_test.tolist()
    assert sweep.hold_out(numbered, seed=1).y_test.tolist() != split.y_test.tolist()


def test_numbers_are_those_of_training_by_hand(compare, garments):
    report = json.loads(compare("lr", "--lr", 0.2, "--batch-size", 100, "--seed", 3, "--json"))
    split = sweep.hold_out(garments, seed=3)
    results = []
    for seed in (3, 4, 5):
        model = SoftmaxRegression(784, 10, seed=seed, pixel_scale=garments.pixel_scale)
        loader = DataLoader(split.X_train, split.y_train, 100, shuffle=True, seed=seed)
        Trainer(model, Descent(0.2), loader).fit(1)
        logits = model.logits(split.X_test)
        results.append((
            metrics.negative_log_likelihood(model.logits(split.X_train), split.y_train),
            metrics.negative_log_likelihood(logits, split.y_test),
            metrics.accuracy(logits, split.y_test),
        ))  # fmt: skip
    train_losses, losses, accuracies = zip(*results, strict=True)
    (row,) = report["outcomes"]
    assert row["validation_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert (row["lowest"], row["highest"]) == pytest.approx((min(losses), max(losses)), rel=1e-5)
    assert row["validation_acc"] == pytest.approx(np.mean(accuracies))
    assert row["train_loss"] == pytest.approx(np.mean(train_losses), rel=1e-5)
    assert row["seconds_per_epoch"] > 0


@pytest.mark.parametrize(("flags", "num_features"), [([], 784), (["--features", "patches"], 1600)])
def test_penalties_are_compared_at_the_optimum(compare, garments, flags, num_features):
    report = json.loads(compare("l2", "--l2", 1e-2, 1e-4, *flags, "--json"))
    assert [o["value"] for o in report["outcomes"]] == [1e-4, 1e-2]
    assert report["settings"]["repeats"] == 1
    split = sweep.extract(
        sweep.parser().parse_args(["l2", *(flags or ["--features", "pixels"])]),
        sweep.hold_out(garments, seed=0),
    )
    model = SoftmaxRegression(num_features, 10, pixel_scale=split.pixel_scale)
    fit(model, split.X_train, split.y_train, l2=1e-2)
    loss = metrics.negative_log_likelihood(model.logits(split.X_test), split.y_test)
    assert report["outcomes"][1]["validation_loss"] == pytest.approx(loss, rel=1e-2)


def test_penalties_are_compared_on_folds(compare, garments):
    flags = ["l2", "--l2", 1, 1e-2, "--folds", 2, "--seed", 2]
    text = compare(*flags)
    assert "1200 training images, and each of 2 parts held out in turn\n" in text
    report = json.loads(compare(*flags, "--json", data=replace(garments, X_test=None, y_test=None)))
    model = SoftmaxRegression(784, 10, pixel_scale=garments.pixel_scale)
    path = fit_path(model, garments.X_train, garments.y_train, l2=[1e-2, 1], folds=2, seed=2)
    assert report["best"] == path.best.l2
    assert report["one_standard_error"] == path.one_standard_error.l2
    for outcome, record in zip(report["outcomes"], path.records, strict=True):
        assert outcome["value"] == record.l2
        assert outcome["validation_loss"] == pytest.approx(record.held_out_loss, rel=1e-3)
        assert outcome["lowest"] == pytest.approx(min(record.fold_losses), rel=1e-3)
        assert outcome["highest"] == pytest.approx(max(record.fold_losses), rel=1e-3)


@pytest.mark.parametrize("folds", [1, 1201])
def test_numbers_of_folds_are_checked_before_the_table(compare, capsys, folds):
    with pytest.raises(InputError, match=f"--folds: .* 2 parts .* 1200 training .* got {folds};"):
        compare("l2", "--folds", folds)
    assert capsys.readouterr().out == ""


def test_a_best_penalty_at_an_end_of_the_grid_is_said(compare):
    text = compare("l2", "--l2", 1, 10)
    assert "\nadvice     the best l2, 1, is the smallest of the grid: add smaller ones\n" in text
    assert "\n           largest penalty within a standard error of it: 1\n" in text
    assert " to " not in text.partition("lowest to highest")[2], "there is one loss for each value"
    assert "advice" not in compare("l2", "--l2", 1, "--run-dir", "s")


def test_every_value_starts_from_the_same_seeds(compare, monkeypatch):
    seen = []
    train = sweep.train
    monkeypatch.setattr(
        sweep, "train", lambda settings, seed, data: seen.append((settings["batch_size"], seed))
        or train(settings, seed, data)
    )  # fmt: skip
    compare("batch-size", "--batch-size", 300, 200, 300, "--repeats", 2, "--seed", 7)
    assert seen == [(200, 7), (200, 8), (300, 7), (300, 8)]


def test_an_outcome_is_the_mean_and_the_range_of_its_repeats():
    repeats = [(0.4, 2, 0.7, 1), (0.6, 4, 0.9, 5)]
    assert sweep.summarise(0.1, repeats) == sweep.Outcome(
        0.1, 2, 4, pytest.approx(0.5), 3, pytest.approx(0.8), 3
    )


# Files and streams


def test_json_and_quiet(compare):
    report = json.loads(compare("lr", "--lr", 0.1, "--repeats", 1, "--run-dir", "a", "--json"))
    assert report.pop("run_dir") == "a"
    assert report == json.loads(Path("a/sweep.json").read_text())
    assert compare("lr", "--lr", 0.1, "--repeats", 1, "--run-dir", "b", "--quiet") == ""


@pytest.mark.parametrize("rates", [[0.1], [0.1, 1, 1e38]])
def test_the_picture(compare, monkeypatch, strange_matplotlib, rates):
    monkeypatch.setattr(run_folder, "write_picture", WRITE_PICTURE)
    arguments = ("lr", "--lr", *rates, "--repeats", 2, "--run-dir")
    compare(*arguments, "s")
    picture = Path("s/sweep.png").read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    with strange_matplotlib():
        compare(*arguments, "t")
    assert Path("t/sweep.png").read_bytes() == picture


def test_default_folder(compare):
    text = compare("batch-size", "--batch-size", 500, "--repeats", 1)
    (folder,) = Path("runs").iterdir()
    assert re.fullmatch(r"sweep-batch-size-\d{8}-\d{6}-\d{6}", folder.name)
    assert text.splitlines()[-1] == f"written    {folder}: sweep.json"


def test_an_existing_folder_is_not_changed(compare):
    with pytest.raises(OutputError, match=r"cannot make the run folder \.: File exists; name anot"):
        compare("lr", "--run-dir", ".")


def test_a_held_out_loss_that_overflows_is_a_divergence():
    model = SoftmaxRegression(1, 2)
    model.theta[:] = [[3e38, 0], [-3e38, 0]]
    with pytest.raises(DivergedError):
        sweep.mean_loss_and_accuracy(model, np.array([[1.0]]), np.array([1]))


def test_everything_diverged(compare):
    with pytest.raises(DivergedError, match="with every value") as caught:
        compare("lr", "--lr", 1e37, 1e38)
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "expected what to compare, lr, batch-size or l2, got none; for example"),
        (["epochs"], "invalid choice: 'epochs'"),
        (["lr", "--lr", "0"], "expected a positive learning rate, got '0'"),
        (["lr", "--lr", "inf"], "expected a positive learning rate, got 'inf'"),
        (["batch-size", "--batch-size", "1.5"], "expected a whole number of at least 1"),
        (["lr", "--batch-size", "1", "2"], "--batch-size: expected one value while those of the"),
        (["lr", "--l2", "1"], "--l2: expected it with l2, got lr"),
        (["lr", "--folds", "5"], "--folds: expected it with l2, got lr"),
        (["l2", "--repeats", "4"], "--repeats: expected it with lr or batch-size, got l2"),
        (["lr", "--dataset", "cifar"], "expected one of fashion-mnist, mnist, garments"),
    ],
)
def test_usage_errors_exit_2_with_one_line(tmp_path, flags, message):
    line = one_line(command(tmp_path, *flags), 2)
    assert line.startswith("sweep.py: error: ") and message in line


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_ctrl_c_ends_it_in_one_line(tmp_path):
    rates = np.linspace(0.01, 1, 200).round(3)
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), "lr", *QUICK, "--lr", *map(str, rates)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if line.startswith("      0.01"):
            process.send_signal(signal.SIGINT)
            break
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "sweep.py: interrupted\n")
    assert list((tmp_path / "runs").iterdir()) == []  # an empty folder would refuse the next try
