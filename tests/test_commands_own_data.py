"""Data of your own through all commands."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from running import SCRIPTS, one_line, run_here
from scipy import sparse
from sklearn.datasets import dump_svmlight_file
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

pytest.importorskip("polars")

import polars

from npsoftmax import SoftmaxRegression
from npsoftmax.commands import own_data
from npsoftmax.data import idx
from npsoftmax.errors import InputError


@pytest.fixture
def run(tmp_path):
    def run(command, *flags):
        return run_here(SCRIPTS / f"{command}.py", tmp_path, *flags)

    return run


def points(n=60, seed=0):
    """Return rows of three numbers of different units, and the names of their classes."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    rows = rng.standard_normal((n, 3)) + 2 * np.eye(3)[y]
    return rows * [1, 1000, 1e-3] + [0, 1e6, 5], np.array(["owl", "cat", "dog"])[y]


@pytest.fixture
def table(tmp_path):
    rows, kinds = points()
    frame = polars.DataFrame({"a": rows[:, 0], "kind": kinds, "b": rows[:, 1], "c": rows[:, 2]})
    frame.write_csv(tmp_path / "pets.csv")
    return frame


def predictions(process):
    assert process.returncode == 0, process.stderr
    header, *rows = csv.reader(io.StringIO(process.stdout))
    return header, [row[0] for row in rows], np.array([row[1:] for row in rows], float)


def test_a_table_is_learned_evaluated_and_predicted(run, table, tmp_path):
    process = run("train", "--data", "pets.csv", "--label", "kind", "--l2", "0.01",
                  "--tol", "1e-8", "--run-dir", "run")  # fmt: skip
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert lines[:3] == [
        "data set  pets: 48 training and 12 test rows, 3 classes",
        "          pets.csv; 20% of each class held out for testing, seed 0",
        "features  3 columns, scaled to mean 0 and standard deviation 1",
    ]
    model = SoftmaxRegression.load(tmp_path / "run" / "model.npz")
    assert model.feature_names == ("a", "b", "c") and model.classes == ("cat", "dog", "owl")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["trained_on_held_out"] is False

    report = json.loads(run("evaluate", "run", "--json", "--no-pictures").stdout)
    assert report["samples"] == 12 and report["accuracy"] == summary["test_acc"]

    table.select("c", "a", "b").with_columns(extra=1).write_csv(tmp_path / "new.csv")
    process = run("predict", "run", "new.csv")
    assert process.stderr == "predict.py: note: new.csv: not used: extra\n"
    header, names, found = predictions(process)
    assert header == ["class", "p(cat)", "p(dog)", "p(owl)"]
    np.testing.assert_allclose(found, model(points()[0].T).T, rtol=1e-5, atol=1e-6)
    assert names == [model.classes[i] for i in found.argmax(axis=1)]
    assert run("predict", "run", "pets.csv").stderr == ""  # the label is expected


def test_the_sets_of_rows_are_predicted(run, table, tmp_path):
    run("train", "--data", "pets.csv", "--label", "kind", "--run-dir", "run")
    seen = run("evaluate", "run", "--no-pictures", "--data", "pets.csv", "--calibrate-sets", "0.8")
    assert "expected data that the model has not seen" in one_line(seen, 2)
    assert run("evaluate", "run", "--no-pictures", "--calibrate-sets", "0.8").returncode == 0
    path = tmp_path / "run" / "model.npz"
    model = SoftmaxRegression.load(path)
    model.set_rule = replace(model.set_rule, thresholds=(0.2,))  # from no class to several
    model.save(path)
    sets = [np.array(model.classes)[c].tolist() for c in model.predict_sets(points()[0].T).T]
    assert {len(names) for names in sets} == {1, 2}
    process = run("predict", "run", "pets.csv")
    header, *rows = csv.reader(io.StringIO(process.stdout))
    assert header == ["class", "set", "p(cat)", "p(dog)", "p(owl)"]
    assert [row[1] for row in rows] == ["; ".join(names) for names in sets]
    assert json.loads(run("predict", "run", "pets.csv", "--json").stdout)["sets"] == sets


def test_a_model_of_a_table_is_exported_with_its_scaling(run, table, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    run("train", "--data", "pets.csv", "--label", "kind", "--run-dir", "run")
    process = run("export", "run", "--onnx")
    assert "input    features: float64 (N, 3)" in process.stdout
    rows = points()[0]
    session = onnxruntime.InferenceSession(tmp_path / "run" / "model.onnx")
    label, probabilities = session.run(None, {"features": rows})
    model = SoftmaxRegression.load(tmp_path / "run" / "model.npz")
    np.testing.assert_allclose(probabilities, model(rows.T).T, atol=1e-6)
    assert label.tolist() == model.predict(rows.T).tolist()


def test_a_table_gives_the_model_of_scikit_learn(run, table, tmp_path):
    table.write_csv(tmp_path / "same.csv")
    run("train", "--data", "pets.csv", "--label", "kind", "--test", "same.csv", "--l2", "0.01",
        "--tol", "1e-7", "--run-dir", "run")  # fmt: skip
    rows, kinds = points()
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=1 / (60 * 0.01), tol=1e-8))
    expected = theirs.fit(rows, kinds).predict_proba(rows)
    np.testing.assert_allclose(
        predictions(run("predict", "run", "pets.csv"))[2], expected, rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize("kind", ["parquet", "npz", "npz with test", "npy", "idx"])
def test_every_kind_of_file_is_taken(run, kind, tmp_path):
    rows, kinds = points()
    y = np.unique(kinds, return_inverse=True)[1]
    flags, unit = [], "rows"
    if kind == "parquet":
        polars.DataFrame({**dict(zip("abc", rows.T, strict=True)), "kind": kinds}).write_parquet(
            tmp_path / "pets.parquet"
        )
        data, flags = "pets.parquet", ["--label", "kind"]
    elif kind.startswith("npz"):
        test = {"X_test": rows, "y_test": kinds} if "test" in kind else {}
        np.savez(tmp_path / "pets.npz", X_train=rows, y_train=kinds, **test)
        data = "pets.npz"
    elif kind == "npy":
        np.save(tmp_path / "X.npy", rows), np.save(tmp_path / "y.npy", kinds)
        data, flags = "X.npy", ["--label", "y.npy"]
    else:
        images = (80 * np.eye(3)[y][:, :, None] + np.arange(3)).astype(np.uint8)
        idx.write(tmp_path / "images-idx3", images), idx.write(tmp_path / "labels", y.astype("u1"))
        data, flags, unit = "images-idx3", ["--label", "labels"], "images"
    process = run("train", "--data", data, *flags, "--run-dir", "run")
    assert process.returncode == 0, process.stderr
    number = "60 training and 60" if "test" in kind else "48 training and 12"
    assert f"{number} test {unit}, 3 classes" in process.stdout
    report = json.loads(run("evaluate", "run", "--json", "--no-pictures").stdout)
    assert report["samples"] == (60 if "test" in kind else 12) and report["accuracy"] > 0.5
    process = run("evaluate", "run", "--no-pictures", "--data", data, *flags)
    assert process.returncode == 0 and f", 60 test {unit}" in process.stdout
    assert ("was trained on most of" in process.stderr) == (not kind.startswith("npz"))
    process = run("evaluate", "run", "--data", data, *flags, "--calibrate-sets", "0.8")
    assert "that the model has not seen" in one_line(process, 2)
    assert len(predictions(run("predict", "run", data))[1]) == 60
    assert run("sweep", "l2", "--data", data, *flags, "--run-dir", "sweep").returncode == 0
    report = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert len(report["outcomes"]) == 8


def test_texts_are_learned_as_scikit_learn_does(run, tmp_path):
    rng = np.random.default_rng(0)
    words = np.array(["tea", "milk", "cake", "rain", "wind", "day"])
    kinds = np.array(["in", "out"] * 20)
    texts = [
        " ".join(rng.choice(words[[0, 1, 2, 5] if k == "in" else [3, 4, 5]], 5)) for k in kinds
    ]
    frame = polars.DataFrame({"kind": kinds, "stars": 1, "text": texts})
    frame.write_csv(tmp_path / "texts.csv"), frame[:7].write_csv(tmp_path / "test.csv")
    process = run("train", "--data", "texts.csv", "--label", "kind", "--text", "text", "--test",
                  "test.csv", "--l2", "0.01", "--tol", "1e-8", "--run-dir", "run")  # fmt: skip
    assert "features  6 words of text, weighted by their rarity (TF-IDF)" in process.stdout
    model = SoftmaxRegression.load(tmp_path / "run" / "model.npz")
    assert model.feature_names == tuple(sorted(words)) and model.top_features(1)[1][0][0] in words
    # Of two classes scikit-learn has one row of weights, which is twice as long.
    theirs = make_pipeline(TfidfVectorizer(), LogisticRegression(C=2 / (40 * 0.01), tol=1e-8))
    expected = theirs.fit(texts, kinds).predict_proba(frame["text"][:7].to_list())
    process = run("predict", "run", "test.csv")
    np.testing.assert_allclose(predictions(process)[2], expected, rtol=1e-4)
    assert process.stderr == ""
    report = json.loads(run("evaluate", "run", "--json", "--no-pictures").stdout)
    assert report["samples"] == 7
    named = run("evaluate", "run", "--json", "--no-pictures", "--data", "test.csv").stdout
    assert json.loads(named)["accuracy"] == report["accuracy"]
    (tmp_path / "run" / "summary.json").unlink()
    assert "--text: expected the column" in one_line(run("predict", "run", "test.csv"), 2)
    assert predictions(run("predict", "run", "test.csv", "--text", "text"))[2].shape == (7, 2)


@pytest.mark.parametrize("kind", ["svmlight", "npz"])
def test_sparse_samples_are_taken(run, kind, tmp_path):
    rows, kinds = points()
    rows = sparse.csr_array((rows - rows.mean(axis=0)) / rows.std(axis=0))
    y = np.unique(kinds, return_inverse=True)[1]
    data = "pets.svm" if kind == "svmlight" else "pets.npz"
    if kind == "svmlight":
        dump_svmlight_file(rows, y, str(tmp_path / data), zero_based=False)
    else:
        names = ("data", "indices", "indptr", "shape")
        parts = {f"train_{name}": getattr(rows, name) for name in names}
        np.savez(tmp_path / data, **parts, y_train=kinds, vocabulary=["a", "b", "c"])
    process = run("train", "--data", data, "--run-dir", "run", "--l2", "0.01")
    assert process.returncode == 0, process.stderr
    model = SoftmaxRegression.load(tmp_path / "run" / "model.npz")
    assert model.feature_names == (tuple("abc") if kind == "npz" else tuple("123"))
    report = json.loads(run("evaluate", "run", "--json", "--no-pictures").stdout)
    assert report["samples"] == 12 and report["accuracy"] > 0.5
    found = predictions(run("predict", "run", data))[2]
    np.testing.assert_allclose(found, model(rows.toarray().T).T, rtol=1e-5)
    assert run("sweep", "l2", "--data", data, "--run-dir", "sweep").returncode == 0
    line = one_line(run("train", "--data", data, "--standardise", "--run-dir", "other"), 2)
    assert "standardise" in line


def test_test_files_of_another_dtype_and_order_are_taken(run, table, tmp_path):
    table.select("b", "c", "kind", "a").with_columns(
        polars.col("b").cast(polars.Int64)
    ).write_parquet(tmp_path / "test.parquet")
    process = run("train", "--data", "pets.csv", "--label", "kind", "--test", "test.parquet",
                  "--run-dir", "run")  # fmt: skip
    assert "60 training and 60 test rows" in process.stdout, process.stderr
    assert "pets.csv; tested on test.parquet" in process.stdout


def test_without_standardising_the_numbers_stay(run, table, tmp_path):
    run("train", "--data", "pets.csv", "--label", "kind", "--no-standardise", "--run-dir", "run")
    assert SoftmaxRegression.load(tmp_path / "run" / "model.npz").features is None
    np.savez(tmp_path / "pets.npz", X=points()[0], y=points()[1])
    run("train", "--data", "pets.npz", "--standardise", "--run-dir", "run2")
    assert SoftmaxRegression.load(tmp_path / "run2" / "model.npz").features is not None


def test_a_run_is_resumed_with_the_same_data_only(run, table, tmp_path):
    flags = ["--data", "pets.csv", "--label", "kind", "--run-dir", "run"]
    run("train", *flags)
    assert "resumed   after iteration" in run("train", *flags, "--resume").stdout
    assert "expected" in one_line(run("train", *flags, "--resume", "--test-part", "0.3"), 2)
    table[:-3].write_csv(tmp_path / "pets.csv")
    line = one_line(run("evaluate", "run", "--no-pictures"), 2)
    assert "expected the data of the training, got others" in line


def test_what_is_evaluated_must_be_known_to_the_model(run, table, tmp_path):
    run("train", "--data", "pets.csv", "--label", "kind", "--run-dir", "run")
    frame = table.with_columns(polars.lit("emu").alias("kind"))
    frame.write_csv(tmp_path / "emus.csv")
    line = one_line(run("evaluate", "run", "--data", "emus.csv"), 2)
    assert (
        "column kind: expected labels among the classes of the training, cat, dog, owl, got" in line
    )
    frame.drop("b").write_csv(tmp_path / "less.csv")
    line = one_line(run("predict", "run", "less.csv"), 2)
    assert "expected columns that are called b, got a, kind, c" in line
    line = one_line(run("evaluate", "run", "--data", "none.csv"), 2)
    assert "cannot read none.csv: no such file; check the name" in line
    (tmp_path / "run" / "summary.json").unlink()
    line = one_line(run("evaluate", "run", "--data", "pets.csv"), 2)
    assert "--label: expected the column that has the labels, got none" in line


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data", "pets.csv"], "--label: expected the column that has the labels, got none; name "
         "one of a, kind, b, c"),
        (["--data", "pets.csv", "--label", "sort"], "columns that are called sort, got a, kind"),
        (["--data", "pets.csv", "--label", "a"], "got text in kind; make columns of 0 and 1"),
        (["--data", "none.csv", "--label", "a"], "cannot read none.csv: no such file; check"),
        (["--data", "pets.csv", "--label", "kind", "--test-label", "y"],
         "--test-label: expected it with other data than pets.csv, got it with a table"),
        (["--data", "pets.csv", "--label", "kind", "--test", "pets.csv", "--test-part", "0.1"],
         "--test-part: expected it without --test, got both"),
        (["--data", "pets.csv", "--label", "kind", "--test-part", "1.5"],
         "expected a fraction between 0 and 1, got 1.5"),
        (["--data", "pets.csv", "--label", "kind", "--features", "patches"],
         "--features: expected images"),
        (["--data", "pets.csv", "--label", "kind", "--dataset", "mnist"],
         "--data: expected it without --dataset"),
        (["--data", "notes.txt"], "--data: expected class folders, a table (.csv, .parquet)"),
        (["--label", "kind"], "--label: expected it with --data, got it alone"),
    ],
)  # fmt: skip
def test_wrong_flags_are_named(run, table, flags, message, tmp_path):
    (tmp_path / "notes.txt").write_text("Dear diary\n")
    assert message in one_line(run("train", *flags), 2)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"1 3:0.5 7:1\n", "svmlight"),
        (b"# from somewhere\n-1 1:1e-3\n", "svmlight"),
        (b"+1 qid:3 1:2 # note\n", "svmlight"),
        (b"1\t1:2\t3:4\n", "svmlight"),
        (b"1   1:2  3:4 \r\n", "svmlight"),
        (b"\n1\n-1 # nothing\n1 2:3\n", "svmlight"),
        (b"1\n2\n3\n", ""),
        (b"Dear diary\n1 2:3\n", ""),
        (b"\0\0\x08\x03\0\0\0\1", "pair"),
        (b"a,b\n1,2\n", ""),
        (b"", ""),
    ],
)
def test_files_without_a_known_suffix_are_told_by_their_beginning(tmp_path, content, kind):
    import bz2
    import gzip

    for number, pack in enumerate([bytes, gzip.compress, bz2.compress]):
        (tmp_path / str(number)).write_bytes(pack(content))
        assert own_data.kind_of(tmp_path / str(number)) == kind


def test_the_spread_of_samples_does_not_depend_on_their_form(rng, monkeypatch):
    monkeypatch.setattr(own_data, "BLOCK", 4)
    X = rng.integers(0, 3, (5, 9)).astype(np.float32)
    expected = np.square(X - X.mean(axis=1, keepdims=True)).sum() / 9
    for form in (X, X.astype(np.uint8), X.astype(np.float16), sparse.csc_array(X), X + 1e6):
        assert own_data.mean_square_length(form, 1.0) == pytest.approx(expected)
    assert own_data.mean_square_length(X, 0.5) == pytest.approx(expected / 4)
    assert own_data.mean_square_length(np.ones((2, 3)), 1.0) == 1


def test_a_missing_extra_is_named(run, table, monkeypatch):
    monkeypatch.setattr(own_data.command_line, "import_extra", missing := Missing())
    with pytest.raises(InputError, match="--data: no polars"):
        own_data.load(
            own_data.argparse.Namespace(data="pets.csv", label="kind", text=None, test=None)
        )
    assert missing.asked == ["npsoftmax.ext.tables"]


class Missing:
    """What import_extra does without Polars."""

    def __init__(self):
        self.asked = []

    def __call__(self, module, prefix=""):
        self.asked.append(module)
        raise InputError(f"{prefix}no polars")


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array])
def test_named_features_of_arrays_are_put_in_the_order_of_the_model(run, form, tmp_path):
    rows, kinds = points()
    rows = (rows - rows.mean(axis=0)) / rows.std(axis=0)

    def save(name, rows, names):
        rows = form(rows)
        arrays = {"X_train": rows}
        if sparse.issparse(rows):
            parts = ("data", "indices", "indptr", "shape")
            arrays = {f"train_{part}": getattr(rows, part) for part in parts}
        np.savez(tmp_path / name, **arrays, y_train=kinds, feature_names=names)

    save("pets.npz", rows, ["a", "b", "c"])
    save("other.npz", np.c_[rows[:, 2], np.ones(60), rows[:, :2]], ["c", "extra", "a", "b"])
    save("less.npz", rows, ["a", "b", "z"])
    save("twice.npz", rows, ["a", "b", "b"])
    flags = "train", "--data", "pets.npz", "--run-dir", "run", "--force", "--test"
    accuracies = []
    for test in ("pets.npz", "other.npz"):
        process = run(*flags, test)
        assert process.returncode == 0, process.stderr
        accuracies.append(json.loads((tmp_path / "run" / "summary.json").read_text())["test_loss"])
    assert accuracies[0] == pytest.approx(accuracies[1])
    assert process.stderr == "train.py: note: other.npz: not used: extra\n"
    expected = predictions(run("predict", "run", "pets.npz"))[2]
    np.testing.assert_allclose(predictions(run("predict", "run", "other.npz"))[2], expected)
    line = one_line(run("predict", "run", "less.npz"), 2)
    assert "expected features that are called c, got a, b, z" in line
    line = one_line(run("predict", "run", "twice.npz"), 2)
    assert "expected a name of its own for each of 3 features, got 2 different of 3" in line


def test_standardised_bytes_give_the_model_of_scikit_learn(run, rng, tmp_path):
    y = np.arange(40) % 2
    images = (rng.integers(0, 150, (40, 8, 8)) + 40 * y[:, None, None]).astype(np.uint8)
    images[:, 0, 0] = 7
    np.savez(tmp_path / "pets.npz", X_train=images, y_train=y, X_test=images, y_test=y)
    process = run("train", "--data", "pets.npz", "--standardise", "--tol", "1e-9",
                  "--run-dir", "run")  # fmt: skip
    assert process.returncode == 0, process.stderr
    l2 = json.loads((tmp_path / "run" / "summary.json").read_text())["settings"]["l2"]
    assert l2 == pytest.approx(0.03 * 63 / 40, rel=0.02)
    rows = images.reshape(40, -1)
    # Of two classes scikit-learn has one row of weights, which is twice as long.
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=2 / (40 * l2), tol=1e-10))
    expected = theirs.fit(rows, y).predict_proba(rows)
    found = predictions(run("predict", "run", "pets.npz"))[2]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    model = SoftmaxRegression.load(tmp_path / "run" / "model.npz")
    np.testing.assert_allclose(model(rows.T / 255).T, expected, rtol=1e-4, atol=1e-5)


def test_test_data_are_of_the_kind_of_the_data(run, table, tmp_path):
    np.savez(tmp_path / "pets.npz", X=points()[0], y=points()[1])
    (tmp_path / "folder").mkdir(), (tmp_path / "notes.txt").write_text("Dear diary\n")
    for test, words in [("pets.npz", "an .npz file"), ("folder", "photographs"),
                        ("notes.txt", "a file of no kind")]:  # fmt: skip
        line = one_line(run("train", "--data", "pets.csv", "--label", "kind", "--test", test), 2)
        assert f"expected data of the same kind as --data, a table, got {words}" in line
    line = one_line(run("train", "--data", "pets.csv", "--label", "kind", "--text", "kind"), 2)
    assert "--text: expected another column than --label, got kind for both" in line


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/pets.csv", "pets"),
        ("v1.2 of data.csv", "v1.2 of data"),
        ("v1.2", "v1.2"),
        (".hidden.csv", "hidden"),
        (".csv", "data"),
        ("Pets.CSV.GZ", "Pets"),
        ("a.b.svm.bz2", "a.b"),
        ("train-images.idx3-ubyte", "train-images"),
        ("train-images-idx3-ubyte.gz", "train-images-idx3-ubyte"),
    ],
)
def test_a_data_set_is_called_as_its_file_without_the_suffix(path, name):
    assert own_data.name_of(path) == name


def test_a_long_first_line_of_svmlight_is_known(tmp_path):
    for separator in (" ", "\t"):
        line = separator.join(["1", *(f"{i}:0.5" for i in range(1, 9000))])
        (tmp_path / "long").write_text(line + "\n")
        assert len(line) > own_data.HEAD and own_data.kind_of(tmp_path / "long") == "svmlight"
