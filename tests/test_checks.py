"""Checks of arguments, and their messages."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from npsoftmax._checks import (
    Range,
    as_columns,
    as_count,
    as_labels,
    as_probabilities,
    as_weights,
    same_samples,
)
from npsoftmax.errors import InputError, LabelError, ShapeError


def test_columns_pass_without_a_copy():
    X = np.zeros((3, 5), dtype=np.uint8, order="F")
    assert as_columns(X, 3) is X


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (np.zeros(3), ShapeError, r"got \(3,\)"),
        (
            np.zeros((5, 3)),
            ShapeError,
            r"expected 3 features .* got shape \(5, 3\); pass np.asarray\(X\).T",
        ),
        (np.zeros((4, 4)), ShapeError, "samples are columns"),
        (np.array([["a"], ["b"], ["c"]]), InputError, "real numbers"),
        (np.array([[1j], [0], [0]]), InputError, "complex128"),
        (np.array([[0.0, 0], [0, np.nan], [0, 0]]), InputError, "got nan in feature 1 of sample 1"),
        (np.full((3, 1), np.inf), InputError, "got inf"),
        (None, InputError, r"expected an array of numbers, got None \(NoneType\)"),
    ],
)
def test_columns_are_refused(X, error, message):
    with pytest.raises(error, match=message):
        as_columns(X, 3)


def test_nan_is_found_in_a_late_block():
    X = np.zeros((2, 10_000))
    X[1, 9_000] = np.nan
    with pytest.raises(InputError, match="feature 1 of sample 9000"):
        as_columns(X)


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        ([0.0, 1.0], LabelError, "got dtype float64"),
        ([True, False], LabelError, "got dtype bool"),
        ([0, 3], LabelError, "labels from 0 to 3"),
        ([-1], LabelError, "from -1 to -1"),
        ([[0, 1]], ShapeError, r"got shape \(1, 2\)"),
    ],
)
def test_labels_are_refused(y, error, message):
    with pytest.raises(error, match=message):
        as_labels(y, 3)


def test_samples_must_match_and_exist():
    with pytest.raises(ShapeError, match=r"X \(2, 3\) and y \(4,\)"):
        same_samples(np.zeros((2, 3)), np.zeros(4))
    with pytest.raises(ShapeError, match="at least one sample"):
        same_samples(np.zeros((2, 0)), np.zeros(0))


@pytest.mark.parametrize("value", [0, -1, 1.0, "3", None, True])
def test_counts_are_refused(value):
    with pytest.raises(InputError, match="whole number of at least 1"):
        as_count(value, "batch_size")


def test_counts_are_accepted():
    assert as_count(np.int64(3), "k") == 3
    assert as_count(0, "seed", minimum=0) == 0


def test_weights_become_float64_in_a_new_array():
    given = np.array([0.0, 2.0])
    weights = as_weights(given, 2)
    assert weights.dtype == np.float64 and not np.shares_memory(weights, given)
    assert as_weights([True, False], 2).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ([1.0], ShapeError, r"one number for each of 2 samples, got shape \(1,\)"),
        ([1.0, -2.0], InputError, "finite numbers of at least 0, .*got -2.0 for sample 1"),
        ([1.0, np.nan], InputError, "got nan for sample 1"),
        ([np.inf, 1.0], InputError, "got inf for sample 0"),
        (["a", "b"], InputError, "real numbers"),
    ],
)
def test_weights_are_refused(weights, error, message):
    with pytest.raises(error, match=message):
        as_weights(weights, 2)


# What people give, and what the message tells them to do


LABELS = np.array([0, 2, 1, 2, 0, 1])
NAMES = np.array(["cat", "dog", "owl"])
ONE_HOT = np.eye(3)[LABELS]
NUMBER = "classes, y = np.unique(y, return_inverse=True)"


def follow(way, value, name="y"):
    """Return what becomes of a variable when a statement, or the expression for it, is run."""
    namespace = {"np": np, name: value}
    exec(way if " = " in way else f"{name} = {way}", namespace)
    return namespace[name]


@pytest.mark.parametrize(
    ("y", "got", "way"),
    [
        (LABELS[:, None], r"shape \(6, 1\)", "np.ravel(y)"),
        (LABELS[None], r"shape \(1, 6\)", "np.ravel(y)"),
        (LABELS[:, None].tolist(), r"shape \(6, 1\)", "np.ravel(y)"),
        (ONE_HOT, r"shape \(6, 3\)", "np.asarray(y).argmax(axis=1)"),
        (ONE_HOT.tolist(), r"shape \(6, 3\)", "np.asarray(y).argmax(axis=1)"),
        (ONE_HOT.T, r"shape \(3, 6\)", "np.asarray(y).argmax(axis=0)"),
        (LABELS.astype(np.float32), "dtype float32", "np.asarray(y, int)"),
        (LABELS.astype(float).tolist(), "dtype float64", "np.asarray(y, int)"),
        (LABELS + 1, "labels from 1 to 3", "np.asarray(y) - 1"),
        ((LABELS + 1).tolist(), "labels from 1 to 3", "np.asarray(y) - 1"),
        (LABELS - 1, "labels from -1 to 1", NUMBER),
        (10 * LABELS, "labels from 0 to 20", NUMBER),
        (NAMES[LABELS], "dtype <U3", NUMBER),
        (NAMES[LABELS].astype(object), "dtype object", NUMBER),
        (LABELS.astype(object), "dtype object", NUMBER),
        (LABELS.astype(str).tolist(), "dtype <U", NUMBER),
        (LABELS - 0.5, "-0.5, a number of a scale or the name of a class", NUMBER),
        (LABELS.astype("M8[D]"), r"dtype datetime64\[D\]", NUMBER),
    ],
)
def test_labels_that_are_refused_are_right_when_the_advice_is_followed(y, got, way):
    with pytest.raises(InputError, match=f"y: expected .*, got (labels of )?{got}") as caught:
        as_labels(y, 3)
    assert way in str(caught.value)
    np.testing.assert_array_equal(as_labels(follow(way, y), 3), LABELS)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([1.0, np.nan], r"got nan for sample 1; keep the samples with labels, np.isfinite\(y\)"),
        ([None, 1], "got labels of types NoneType, int; drop missing ones"),
        (np.array(["a", 1], dtype=object), "got labels of types int, str; .* all of one type"),
        (3, "give one value for each sample"),
        ({0, 1}, r"got {0, 1} \(set\); give its values as a list"),
        ((label for label in LABELS), r"\(generator\); give its values as a list"),
        ([[0], [1, 2]], "got list .*; give rows of equal length"),
        (np.ma.array(LABELS, mask=LABELS == 0), r"got a masked array; .* y.filled\(0\)"),
    ],
)
def test_labels_without_a_value_are_named(y, message):
    with pytest.raises(InputError, match=message):
        as_labels(y, 3)


ROWS = np.arange(24.0).reshape(6, 4) % 5


@pytest.mark.parametrize(
    ("X", "way"),
    [
        (ROWS, "np.asarray(X).T"),
        (ROWS.tolist(), "np.asarray(X).T"),
        (ROWS.reshape(6, 2, 2), "np.asarray(X).reshape(6, -1).T"),
        (list(ROWS.reshape(6, 2, 2)), "np.asarray(X).reshape(6, -1).T"),
        (ROWS.T.reshape(2, 2, 6), "np.asarray(X).reshape(-1, 6)"),
        (ROWS.T.astype(object), "np.asarray(X, float)"),
        (ROWS.T.astype(str), "np.asarray(X, float)"),
        (ROWS.T.astype(str).tolist(), "np.asarray(X, float)"),
        (ROWS.T.astype(np.longdouble), ".astype(np.float64)"),
        (np.ma.array(ROWS.T, mask=ROWS.T == 0), "X.filled(0)"),
    ],
)
def test_samples_that_are_refused_are_right_when_the_advice_is_followed(X, way):
    with pytest.raises(InputError, match="X: expected ") as caught:
        as_columns(X, 4)
    assert way in str(caught.value)
    np.testing.assert_array_equal(
        as_columns(follow("X" * way.startswith(".") + way, X, "X"), 4), ROWS.T
    )


@pytest.mark.parametrize(
    ("X", "way", "shape"),
    [
        (ROWS[0], "np.asarray(X)[:, None]", (4, 1)),
        (ROWS[0].tolist(), "np.asarray(X)[None]", (1, 4)),
        (np.zeros((2, 3)) + 1j, "np.vstack([X.real, X.imag])", (4, 3)),
        (np.zeros((2, 3), "M8[s]"), "(X - X.min()) / np.timedelta64(1, 'D')", (2, 3)),
    ],
)
def test_other_samples_have_a_way_too(X, way, shape):
    with pytest.raises(InputError) as caught:
        as_columns(X)
    assert way in str(caught.value)
    assert as_columns(follow(way, X, "X")).shape == shape


def test_a_colour_picture_is_no_three_images():
    for channels in (3, 4):
        with pytest.raises(ShapeError, match="if it is one colour picture") as caught:
            as_columns(np.zeros((28, 28, channels)), 784)
        way = str(caught.value).rpartition("picture, ")[2]
        assert as_columns(follow(way, np.zeros((28, 28, channels)), "X"), 784).shape == (784, 1)


def test_a_column_of_arrays_is_stacked():
    X = np.empty(6, object)
    X[:] = list(ROWS)
    with pytest.raises(InputError, match=r"got numpy.ndarray of arrays; pass np.stack\(X\).T"):
        as_columns(X)
    np.testing.assert_array_equal(as_columns(np.stack(X).T, 4), ROWS.T)


def test_a_single_image_is_told_from_rows():
    with pytest.raises(ShapeError, match=r"np.asarray\(X\).reshape\(-1, 1\)"):
        as_columns(np.zeros((28, 28)), 784)


def test_sparse_samples_are_named():
    sparse = pytest.importorskip("scipy.sparse")
    for make in (sparse.csr_array, sparse.csc_matrix, sparse.coo_array):
        X = make(ROWS.T)
        with pytest.raises(InputError, match=rf"got scipy.{make.__name__}; pass X.toarray\(\)"):
            as_columns(X, 4)
        np.testing.assert_array_equal(as_columns(X.toarray(), 4), ROWS.T)


def test_tensors_are_taken_in_place_or_named():
    torch = pytest.importorskip("torch")
    pytest.importorskip("ml_dtypes")
    rows = torch.tensor(ROWS)
    for tensor in (rows, rows.half(), rows.bfloat16(), rows.clone().requires_grad_(True)):
        X = as_columns(tensor.T, 4)
        assert X.ctypes.data == tensor.data_ptr()
        np.testing.assert_array_equal(X.astype(np.float64), ROWS.T)
    with pytest.raises(InputError, match=r"got torch\.Tensor .*; pass X\.detach\(\)\.cpu\(\)"):
        as_columns(torch.empty(4, 6, device="meta"), 4)


class Exporter:
    """An array of another library, which has DLPack only."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        if self.array.dtype == np.float16:
            raise BufferError("not on the CPU")
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_what_exports_dlpack_is_taken_in_place_or_named():
    X = np.asfortranarray(ROWS.T)
    assert np.shares_memory(as_columns(Exporter(X), 4), X)
    with pytest.raises(InputError, match=r"got test_checks\.Exporter \(not on the CPU\); move"):
        as_columns(Exporter(X.astype(np.float16)), 4)


def test_bfloat16_is_taken_in_place_and_searched_for_nan():
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    X = ROWS.T.astype(bfloat16)
    assert as_columns(X, 4) is X
    assert Range.of(X) == (X.dtype, *Range.of(ROWS)[1:])
    with pytest.raises(InputError, match=r"finite numbers, got nan in feature 1 of sample 0"):
        as_columns(np.array([[0.0], [np.nan]], bfloat16))


def test_bfloat16_from_a_file_is_named(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    np.save(tmp_path / "X.npy", ROWS.astype(ml_dtypes.bfloat16))
    X = np.load(tmp_path / "X.npy", mmap_mode="r").T
    with pytest.raises(InputError, match=r"got dtype .V2; if it is bfloat16") as caught:
        as_columns(X, 4)
    assert str(caught.value).endswith("pass X.view(ml_dtypes.bfloat16)")
    np.testing.assert_array_equal(as_columns(X.view(ml_dtypes.bfloat16), 4), ROWS.T)


def test_frames_are_taken_or_named():
    pandas = pytest.importorskip("pandas")
    frame, names = pandas.DataFrame(ROWS), pandas.Series(NAMES[LABELS])
    np.testing.assert_array_equal(as_columns(frame.T, 4), ROWS.T)
    for X, way in ((frame, "np.asarray(X).T"), (frame.astype("Float64").T, "np.asarray(X, float)")):
        with pytest.raises(InputError) as caught:
            as_columns(X, 4)
        assert way in str(caught.value)
        np.testing.assert_array_equal(as_columns(follow(way, X, "X"), 4), ROWS.T)
    for y, way in (
        (names, NUMBER),
        (names.astype("category"), NUMBER),
        (pandas.Categorical(names), NUMBER),
        (pandas.DataFrame(LABELS), "np.ravel(y)"),
        (pandas.get_dummies(names), "np.asarray(y).argmax(axis=1)"),
    ):
        with pytest.raises(InputError) as caught:
            as_labels(y, 3)
        assert way in str(caught.value)
        np.testing.assert_array_equal(as_labels(follow(way, y), 3), LABELS)


def test_a_dask_frame_is_named():
    class DataFrame:
        __dask_graph__ = None

    with pytest.raises(InputError, match=r"got test_checks.DataFrame; .* X.compute\(\)"):
        as_columns(DataFrame())


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (2.0, "got the number 2.0; leave it out for equal weights"),
        ([[1.0], [2.0]], r"got shape \(2, 1\); pass np.ravel\(sample_weight\)"),
        ("balanced", "got 'balanced'"),
    ],
)
def test_weights_of_another_shape_are_named(weights, message):
    with pytest.raises(InputError, match=message):
        as_weights(weights, 2)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_probabilities_may_leave_0_and_1_by_rounding(dtype):
    eps = np.finfo(dtype).eps
    P = np.array([[1 + 2 * eps, 0.5], [-1e-17, 0.5]], dtype)
    assert as_probabilities(P, "P").tolist() == [[1, 0.5], [0, 0.5]]
    assert as_probabilities(P.astype(np.float64), "P").max() == 1
    inside = np.array([0.0, 1.0], dtype)
    assert as_probabilities(inside, "P") is inside
    for outside in (1.01, -0.01, 2.0, 100.0, np.nan):
        with pytest.raises(InputError, match="P: expected numbers from 0 to 1"):
            as_probabilities(np.array([outside]), "P")


@given(hnp.arrays(np.float16, (3, 4), elements=st.floats(-60000, 60000, width=16)))
def test_half_floats_have_the_range_of_their_numbers(X):
    high = X.max().item()
    assert Range.of(X) == (X.dtype, X.min().item() if high > 2 else 0, high)
