"""Arrays in .npz, .npy and IDX files."""

import numpy as np
import pytest
from scipy import sparse

from npsoftmax.data import idx
from npsoftmax.errors import CorruptFileError, InputError, ShapeError
from npsoftmax.ext.arrays import read_npz, read_pair

ROWS, LABELS = np.arange(12.0).reshape(4, 3), np.array([0, 1, 0, 1])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data.npz"


@pytest.mark.parametrize("names", [("X_train", "y_train"), ("x_train", "y_train"), ("X", "y")])
def test_rows_are_samples(path, names):
    np.savez(path, **dict(zip(names, (ROWS, LABELS), strict=True)))
    samples, test = read_npz(path)
    assert samples.X.tolist() == ROWS.T.tolist() and samples.X.flags.f_contiguous
    assert samples.y.tolist() == LABELS.tolist() and test is None


def test_test_data_and_names_are_read(path):
    np.savez(path, X_train=ROWS, y_train=LABELS, X_test=ROWS[:1], y_test=LABELS[:1],
             classes=["cat", "dog"], feature_names=["a", "b", "c"])  # fmt: skip
    for part, n in zip(read_npz(path), (4, 1), strict=True):
        assert part.X.shape == (3, n) and part.classes == ("cat", "dog")
        assert part.feature_names == ("a", "b", "c")


def test_the_parts_of_a_sparse_array_are_one(path):
    rows = sparse.csr_array(ROWS)
    parts = {
        f"train_{name}": getattr(rows, name) for name in ("data", "indices", "indptr", "shape")
    }
    np.savez(path, **parts, y_train=LABELS, vocabulary=["a", "b", "c"])
    samples, _ = read_npz(path)
    assert samples.X.format == "csc" and samples.X.toarray().tolist() == ROWS.T.tolist()
    assert samples.feature_names == ("a", "b", "c")
    np.savez(path, **{**parts, "train_indptr": [0, 99]}, y_train=LABELS)
    with pytest.raises(CorruptFileError, match="expected the parts of a CSR array"):
        read_npz(path)


@pytest.mark.parametrize(
    ("shape", "image"), [((4, 28, 28), (28, 28)), ((4, 784), (28, 28)), ((4, 9), None)]
)
def test_bytes_are_pixels_unless_they_are_few(path, shape, image):
    np.savez(path, X=np.ones(shape, np.uint8), y=LABELS)
    samples, _ = read_npz(path)
    assert samples.shape == image and samples.X.shape == (np.prod(shape[1:]), 4)
    np.savez(path, X=np.ones(shape), y=LABELS)
    assert read_npz(path)[0].shape is None


def test_pairs_of_files_are_read(tmp_path):
    (
        np.save(tmp_path / "X.npy", ROWS.astype(np.float16)),
        np.save(tmp_path / "y.npy", LABELS[:, None]),
    )
    samples = read_pair(tmp_path / "X.npy", tmp_path / "y.npy")
    assert samples.X.dtype == np.float16 and samples.y.tolist() == LABELS.tolist()
    assert not samples.X.flags.owndata  # on the disk
    images = np.arange(64, dtype=np.uint8).reshape(4, 4, 4)
    idx.write(tmp_path / "images", images), idx.write(tmp_path / "labels", LABELS.astype(np.uint8))
    samples = read_pair(tmp_path / "images", tmp_path / "labels")
    assert samples.X[:, 1].tolist() == list(range(16, 32)) and samples.shape == (4, 4)
    assert read_pair(tmp_path / "images", None).y is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"A": ROWS, "b": LABELS}, "expected arrays X_train and y_train, or X and y, got a, b"),
        ({"X": ROWS.T, "y": LABELS}, r"got \(3, 4\) and labels \(4,\); save X.T"),
        ({"X": ROWS, "y": LABELS[:2]}, "check which arrays they are"),
        ({"X": LABELS, "y": LABELS}, r"expected samples along the first axis"),
    ],
)
def test_other_arrays_are_named(path, arrays, message):
    np.savez(path, **arrays)
    with pytest.raises((InputError, ShapeError), match=message):
        read_npz(path)


def test_a_file_cannot_run_code(path):
    np.savez(path, X=ROWS, y=np.array(["a", "b", None, "a"], object))
    with pytest.raises(CorruptFileError, match=r"save numbers and text only: np\.asarray"):
        read_npz(path)


@pytest.mark.parametrize("content", [b"", b"no", b"PK\3\4 and no more"])
def test_a_damaged_file_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(
        (CorruptFileError, InputError), match=r"expected a file of np\.save or|cannot read"
    ):
        read_npz(path)
    with pytest.raises(InputError, match="cannot read"):
        read_npz(path.with_name("none.npz"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("indices", [10**6, 1]),
        ("indices", [-1, 1]),
        ("indptr", [0, 10**6, 2]),
        ("shape", [2**80, 3]),
    ],
)
def test_a_damaged_sparse_array_is_refused(path, name, value):
    parts = {"data": [1.0, 2.0], "indices": [0, 1], "indptr": [0, 1, 2], "shape": [2, 64]}
    if name == "shape":
        value = np.array([2.0**80, 3])
    parts = {f"train_{part}": numbers for part, numbers in {**parts, name: value}.items()}
    np.savez(path, **parts, y_train=[0, 1])
    with pytest.raises(CorruptFileError, match="expected the parts of a CSR array"):
        read_npz(path)


def test_more_features_than_names_are_refused(path):
    for d in (10**15, 2**24 + 1):
        np.savez(path, train_data=[1.0], train_indices=[0], train_indptr=[0, 1],
                 train_shape=[1, d], y_train=[0])  # fmt: skip
        with pytest.raises(InputError, match=f"expected at most 16777216 features, got {d}"):
            read_npz(path)


@pytest.mark.parametrize(
    ("X", "way"),
    [
        (np.array([["1", "2"]] * 4), r"got dtype <U1; save X\.astype\(float\)"),
        (np.ones((4, 2), complex), r"got dtype complex128; save X\.real"),
        (np.ones((4, 2), "M8[s]"), r"got dtype datetime64\[s\]; save X\.astype\(float\)"),
    ],
)
def test_samples_are_numbers(path, X, way):
    np.savez(path, X=X, y=LABELS)
    with pytest.raises(InputError, match=way):
        read_npz(path)


def test_names_occur_once(path):
    np.savez(path, X=ROWS, x=ROWS, y=LABELS)
    with pytest.raises(InputError, match="differ in more than capital letters, got X twice"):
        read_npz(path)
    np.savez(path, X=ROWS, y=LABELS, classes=["cat", "cat", "dog"])
    with pytest.raises(InputError, match="expected classes that differ, got cat more than once"):
        read_npz(path)


def test_a_file_of_scipy_is_saved_with_its_labels(path, tmp_path):
    sparse.save_npz(path, sparse.csc_array(ROWS))
    with pytest.raises(InputError, match=r"take X = .*, and save it") as caught:
        read_npz(path)
    way = str(caught.value).partition("np.savez(new, ")[2].rstrip(")")
    X, new = sparse.load_npz(path).tocsr(), tmp_path / "new.npz"
    eval(f"np.savez(new, {way})", {"np": np, "X": X, "new": new, "y": LABELS})
    assert read_npz(new)[0].X.toarray().tolist() == ROWS.T.tolist()
