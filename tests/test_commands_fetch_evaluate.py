"""The commands that fetch data and evaluate a model."""

import json
import os
import re
import sys
from dataclasses import replace

import pytest
from running import SCRIPTS, one_line, run_here

from npsoftmax import SoftmaxRegression, metrics, softmax, storage
from npsoftmax.commands import command_line, evaluate
from npsoftmax.errors import InputError, OutputError


def run(name, *arguments, **environment):
    return run_here(SCRIPTS / f"{name}.py", ".", *arguments, **environment)


@pytest.fixture
def model(tmp_path, garments):
    """A model that was never trained, for the garments' classes."""
    path = tmp_path / "model.npz"
    SoftmaxRegression(784, 10, classes=garments.classes, pixel_scale=1 / 255).save(path)
    return path


def test_every_metric_is_reported_as_text_and_as_json(model, garments):
    text = run("evaluate", model, "--no-pictures", "--dataset", "garments").stdout
    model.with_name("summary.json").write_text('{"dataset": "garments"}')
    report = json.loads(run("evaluate", model, "--no-pictures", "--json").stdout)
    assert text.startswith("data set           garments, 2000 test images")
    assert report["dataset"] == "garments"
    y, logits = garments.y_test, SoftmaxRegression.load(model).logits(garments.X_test)
    for name, value in {
        "accuracy": metrics.accuracy(logits, y),
        "top_3_accuracy": metrics.top_k_accuracy(logits, y, 3),
        "negative_log_likelihood": metrics.negative_log_likelihood(logits, y),
        "brier": metrics.brier(softmax(logits), y),
        "expected_calibration_error": metrics.expected_calibration_error(softmax(logits), y),
    }.items():
        assert report[name] == pytest.approx(value)
        assert re.search(rf"^{name.replace('_', ' ')} +{value:.4f}$", text, re.MULTILINE)
    for name in garments.classes:
        assert re.search(rf"^{name} ", text, re.MULTILINE)
    assert sum(map(sum, report["confusion"])) == report["samples"] == 2000
    assert sum(report["confusion"][i][i] for i in range(10)) == round(2000 * report["accuracy"])
    assert report["temperature"] == 1 and report["pictures"] == []


@pytest.mark.parametrize("prepare", [
    lambda path: os.mkfifo(path),
    lambda path: path.mkdir(),
    lambda path: path.write_text('{"dataset": "garments", "x": "' + "x" * 2**20 + '"}'),
    lambda path: path.write_text("[" * 100_000),
    lambda path: path.write_text("not JSON"),
    lambda path: path.write_bytes(b"\xff"),
])  # fmt: skip
def test_a_strange_summary_next_to_the_model_is_not_read(model, prepare):
    prepare(model.parent / "summary.json")
    process = run("evaluate", model, NPSOFTMAX_DATA="")
    assert process.returncode == 3
    assert process.stderr.startswith("evaluate.py: error: fashion-mnist: 4 files are not on this")


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
    assert message in one_line(run("evaluate", model, "--dataset", "garments"), code)
    assert set(os.listdir(model.parent)) <= {"model.npz"}


@pytest.mark.parametrize(("inputs", "classes"), [(784, ["a", "b"]), (4, None)])
def test_a_model_of_own_data_is_refused_before_data_are_looked_for(
    model, garments, monkeypatch, inputs, classes
):
    monkeypatch.setattr(command_line, "load", lambda *_: pytest.fail("data were loaded"))
    classes = classes or garments.classes
    SoftmaxRegression(inputs, len(classes), classes=classes).save(model)
    for flags in ([], ["--dataset", "garments"], ["--dataset", "mnist"]):
        line = one_line(run("evaluate", model, *flags), 2)
        assert f"got one of {inputs} for " in line and "npsoftmax.metrics" in line


def test_a_model_may_be_named_by_its_run_folder(model):
    process = run("evaluate", model.parent, "--no-pictures", "--dataset", "garments")
    assert process.returncode == 0, process.stderr


@pytest.fixture
def photographs(tmp_path, model):
    """A model of photographs, and the folder it was trained on."""
    image = pytest.importorskip("PIL.Image")
    for kind, grey in (("day", 200), ("night", 20)):
        (tmp_path / "sky" / kind).mkdir(parents=True)
        for number in range(10):
            image.new("L", (40, 30), grey + number).save(tmp_path / "sky" / kind / f"{number}.png")
    trained = SoftmaxRegression(2304, 2, classes=("day", "night"), pixel_scale=1 / 255)
    trained.theta[:] = [[1] * 2304 + [-1152], [0] * 2305]
    trained.framing = "square"
    trained.save(model)
    return tmp_path / "sky"


def write_summary(model, folder):
    from npsoftmax.ext.folders import load_folder

    data = load_folder(folder, test_part=0.2, seed=1)
    settings = {"data": str(folder), "test_part": 0.2, "seed": 1}
    summary = {"dataset": "sky", "sha256": data.sha256, "settings": settings}
    model.with_name("summary.json").write_text(json.dumps(summary))


def test_a_model_of_photographs_is_evaluated_on_those_held_out_or_named(model, photographs):
    write_summary(model, photographs)
    report = json.loads(run("evaluate", model, "--no-pictures", "--json").stdout)
    assert (report["dataset"], report["samples"], report["accuracy"]) == ("sky", 4, 1)
    named = run("evaluate", model, "--no-pictures", "--json", "--data", photographs)
    assert json.loads(named.stdout)["samples"] == 20
    assert "the model was trained on photographs in" in named.stderr


def test_photographs_that_have_changed_since_training_are_refused(model, photographs):
    write_summary(model, photographs)
    (photographs / "day" / "0.png").unlink()
    line = one_line(run("evaluate", model, "--no-pictures"), 2)
    assert "expected the data of the training, got others" in line


def test_a_model_of_a_data_set_takes_no_photographs(model, tmp_path):
    line = one_line(run("evaluate", model, "--data", tmp_path), 2)
    assert "expected a model of photographs" in line


@pytest.fixture
def evaluated(model, garments, monkeypatch):
    """Return what evaluates the model in this process, with more flags."""
    monkeypatch.setattr(command_line, "load", lambda args, name: garments)

    def run_here(*arguments):
        evaluate.evaluate(evaluate.parser().parse_args(list(map(str, [model, *arguments]))))

    return run_here


def test_evaluate_writes_pictures_next_to_the_model(model, evaluated, capsys):
    image = pytest.importorskip("matplotlib.image")
    evaluated()
    *_, line = capsys.readouterr().out.splitlines()
    assert line == f"written  {model.parent}: {' '.join(evaluate.PICTURES)}"
    assert set(os.listdir(model.parent)) == {"model.npz", *evaluate.PICTURES}
    for name in evaluate.PICTURES:
        height, width, _ = image.imread(model.parent / name).shape
        assert 400 <= height <= 700 and 600 <= width <= 900


@pytest.fixture
def few(monkeypatch):
    """Draw few images in a picture."""
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(evaluate, "ROWS", 1)
    monkeypatch.setattr(evaluate, "COLUMNS", 2)


def test_evaluate_writes_pictures_where_it_is_told_to(model, evaluated, few, tmp_path, capsys):
    folder = tmp_path / "new" / "folder"
    evaluated("--pictures", folder, "--json")
    report = json.loads(capsys.readouterr().out)
    assert report["pictures"] == [str(folder / name) for name in evaluate.PICTURES]
    assert set(os.listdir(folder)) == set(evaluate.PICTURES)
    assert not set(os.listdir(model.parent)) & set(evaluate.PICTURES)


def test_pictures_are_the_same_whatever_the_user_set(
    model, evaluated, few, tmp_path, strange_matplotlib
):
    evaluated("--pictures", tmp_path / "usual")
    with strange_matplotlib():
        evaluated("--pictures", tmp_path / "strange")
    for name in evaluate.PICTURES:
        usual, strange = ((tmp_path / kind / name).read_bytes() for kind in ("usual", "strange"))
        assert usual == strange, name


def test_the_reliability_of_a_calibrated_model_names_the_temperature(model, garments):
    figure = pytest.importorskip("matplotlib.figure").Figure
    calibrated = SoftmaxRegression.load(model)
    for temperature, title in ((1.0, "expected cal"), (2.0, "temperature 2.0000: expected cal")):
        calibrated.temperature = temperature
        evaluate.reliability(drawn := figure(), calibrated, garments)
        assert drawn.axes[0].get_title().startswith(title)


def test_pictures_that_cannot_be_written(model, evaluated, few, capsys):
    (model.parent / "confusion.png").mkdir()
    evaluated()
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == f"written  {model.parent}: weights.png"
    (line,) = err.splitlines()
    assert "warning: not all pictures: cannot write" in line and "confusion.png" in line
    with pytest.raises(OutputError, match=r"confusion\.png"):
        evaluated("--pictures", model.parent)
    with pytest.raises(OutputError, match=r"model\.npz"):
        evaluated("--pictures", model)


def test_without_matplotlib(model, evaluated, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    evaluated("--quiet")
    assert capsys.readouterr() == ("", "")
    assert os.listdir(model.parent) == ["model.npz"]
    evaluated()
    out, err = capsys.readouterr()
    assert "no pictures: " in out.splitlines()[-1] and err == ""
    with pytest.raises(InputError, match='pip install "matplotlib>='):
        evaluated("--pictures", model.parent)


def test_a_data_set_that_nothing_names_is_assumed_aloud(model, evaluated, capsys):
    evaluated("--no-pictures")
    assert capsys.readouterr().out.startswith("assumed            the data set: no summary.json")
    model.with_name("summary.json").write_text('{"dataset": "garments"}')
    evaluated("--no-pictures")
    assert "assumed" not in capsys.readouterr().out


def test_samples_that_are_no_square_images(model, garments, few):
    oblong = replace(garments, X_test=garments.X_test[:783])
    args = evaluate.parser().parse_args([str(model)])
    narrow = SoftmaxRegression(783, 10, classes=garments.classes, pixel_scale=1 / 255)
    written = evaluate.write_pictures(args, narrow, oblong)
    assert [path.name for path in written] == ["confusion.png", "reliability.png"]


def test_evaluate_tells_the_temperature_of_a_calibrated_model(model, evaluated, capsys):
    evaluated("--no-pictures")
    assert "temperature" not in capsys.readouterr().out
    calibrated = SoftmaxRegression.load(model)
    calibrated.temperature = 2.0
    calibrated.save(model)
    evaluated("--no-pictures")
    assert re.search(r"^temperature +2\.0000$", capsys.readouterr().out, re.MULTILINE)


def test_sets_are_calibrated_on_one_half_and_measured_on_the_other(
    model, evaluated, garments, capsys
):
    trained = SoftmaxRegression.load(model)
    trained.fit_class_means(garments.X_train, garments.y_train)
    means = trained.class_means.means  # the nearest one is the most likely class
    trained.W[:], trained.b[:, 0] = 0.2 * means.T, -0.1 * (means**2).sum(axis=0)
    trained.save(model)
    evaluated("--no-pictures", "--json")
    assert "sets" not in json.loads(capsys.readouterr().out)
    evaluated("--no-pictures", "--calibrate-sets", "0.8")
    text = capsys.readouterr().out
    evaluated("--no-pictures", "--json")
    report = json.loads(capsys.readouterr().out)["sets"]
    saved = SoftmaxRegression.load(model)
    (X, y), (X_other, y_other) = evaluate.halves(garments)
    assert saved.set_rule == trained.calibrate_sets(X, y, 0.8) and y_other.size == 1000
    sets = saved.predict_sets(X_other)
    covered = sets[y_other, range(1000)]
    assert report["coverage"] == covered.mean() and abs(covered.mean() - 0.8) < 0.07
    assert report["mean_size"] == sets.sum() / 1000
    assert report["coverage_of_classes"] == [covered[y_other == c].mean() for c in range(10)]
    low = min(zip(report["coverage_of_classes"], garments.classes, strict=True))
    line = f"{covered.mean():.4f} of 1000 images, asked 0.8; lowest {low[0]:.4f}, {low[1]}"
    assert f"coverage of sets           {line}\nmean size of sets          " in text


@pytest.mark.parametrize(
    ("coverage", "message"),
    [("90", "90 % is 0.9"), ("0", "expected a positive coverage"), ("0.9999", "at least 9999")],
)
def test_a_coverage_that_no_set_can_have(model, coverage, message):
    flags = ["--calibrate-sets", coverage, "--dataset", "garments"]
    before = model.read_bytes()
    assert message in one_line(run("evaluate", model, *flags), 2)
    assert model.read_bytes() == before


def test_sets_are_not_calibrated_on_what_the_model_was_trained_on(model, photographs):
    write_summary(model, photographs)
    flags = ["--no-pictures", "--calibrate-sets", "0.5", "--data", photographs]
    line = one_line(run("evaluate", model, *flags), 2)
    assert "--calibrate-sets: expected data that the model has not seen; the model was" in line
    assert run("evaluate", model, *flags[:-2]).returncode == 0
    assert SoftmaxRegression.load(model).set_rule.coverage == 0.5


def test_pictures_are_wanted_or_not(model):
    flags = ["--pictures", "here", "--no-pictures"]
    assert "not allowed with" in one_line(run("evaluate", model, *flags), 2)


def test_fetch_finds_the_real_files(fashion_mnist, fashion_mnist_folder):
    process = run("fetch", "fashion-mnist", "--data-dir", fashion_mnist_folder)
    assert process.returncode == 0, process.stderr
    assert "SHA-256 verified" in process.stdout
    assert "26,421,880 bytes" in process.stdout
    process = run("fetch", "fashion-mnist", "t10k-labels-idx1-ubyte.gz", "--json",
                  "--data-dir", fashion_mnist_folder)  # fmt: skip
    assert list(json.loads(process.stdout)) == ["test-labels"]


def test_fetch_takes_the_spelling_of_other_libraries(fashion_mnist_folder):
    process = run("fetch", "fashion_mnist", "--data-dir", fashion_mnist_folder)
    assert process.returncode == 0 and process.stdout.startswith("fashion-mnist: found in ")


def test_fetch_says_what_is_missing_and_how_to_have_it():
    for files, missing in (
        ([], "4 files are"),
        (["t10k-labels-idx1-ubyte.gz"], "t10k-labels-idx1"),
    ):
        process = run("fetch", "fashion-mnist", *files, NPSOFTMAX_DATA="")
        assert process.returncode == 3
        first, ways, causes = process.stderr.splitlines()
        assert first.startswith(f"fetch.py: error: fashion-mnist: {missing}")
        assert "--data-dir" in ways and "t10k-labels-idx1-ubyte.gz (5,148 bytes" in causes
        assert " is missing" not in causes, "the first line says so"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected a data set, fashion-mnist or mnist, got none; for example: python "),
        (["fashion-mnist", "other.gz"], "expected one of train-images-idx3-ubyte.gz"),
        (["cifar"], "expected one of fashion-mnist, mnist, got 'cifar'"),
        (["garments"], "got 'garments'"),
        (["mnist", "--timeout", "soon"], "expected a positive number of seconds, got 'soon'"),
    ],
)
def test_fetch_refuses(arguments, message):
    assert message in one_line(run("fetch", *arguments, NPSOFTMAX_DATA=""), 2)
