"""Tables in CSV and Parquet files."""

import re

import numpy as np
import pytest

pytest.importorskip("polars")

import polars

from npsoftmax.errors import CorruptFileError, InputError
from npsoftmax.ext.tables import column_names, read_table

PETS = "weight,height,tame,kind\n4,25.5,true,cat\n30,60,false,dog\n5,23,true,cat\n"


@pytest.fixture
def write(tmp_path):
    def write(text, name="pets.csv"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_numeric_columns_are_features_by_name(write):
    pets, unused = read_table(write(PETS), "kind")
    assert pets.feature_names == ("weight", "height", "tame") and unused == []
    assert pets.X.tolist() == [[4, 30, 5], [25.5, 60, 23], [1, 0, 1]] and pets.X.dtype == np.float64
    assert pets.X.flags.f_contiguous and pets.y.tolist() == ["cat", "dog", "cat"]
    assert column_names(write(PETS)) == ["weight", "height", "tame", "kind"]


def test_parquet_holds_the_same(write, tmp_path):
    frame = polars.read_csv(write(PETS)).with_columns(polars.col("kind").cast(polars.Categorical))
    frame.write_parquet(tmp_path / "pets.parquet")
    pets, _ = read_table(tmp_path / "pets.parquet", "kind")
    again, _ = read_table(write(PETS), "kind")
    np.testing.assert_array_equal(pets.X, again.X)
    assert pets.y.tolist() == again.y.tolist() and pets.feature_names == again.feature_names


def test_columns_are_matched_by_name(write):
    pets, unused = read_table(write(PETS), None, feature_names=("height", "weight"))
    assert pets.X.tolist() == [[25.5, 60, 23], [4, 30, 5]] and pets.y is None
    assert unused == ["tame", "kind"]


def test_a_column_is_typed_by_all_its_rows(write):
    text = "x,y\n" + "1,a\n" * 200 + "2.5,b\n"
    assert read_table(write(text), "y")[0].X[0, -1] == 2.5


def test_integers_stay_exact(write):
    X = read_table(write("x,y\n16777217,a\n16777216,b\n"), "y")[0].X
    assert X.tolist() == [[16777217, 16777216]]


@pytest.mark.parametrize(("values", "y"), [("1 0 2", [1, 0, 2]), ("1.0 0.0 2.0", [1.0, 0.0, 2.0])])
def test_labels_may_be_numbers(write, values, y):
    rows = "".join(f"0,{value}\n" for value in values.split())
    assert read_table(write("x,y\n" + rows), "y")[0].y.tolist() == y


def test_texts_are_samples(write):
    text = 'review,stars,kind\n"good, very",5,yes\nbad,1,no\n'
    reviews, unused = read_table(write(text), "kind", text="review")
    assert reviews.X.tolist() == ["good, very", "bad"] and unused == ["stars"]
    with pytest.raises(InputError, match="expected a text in every row of stars, got Int64"):
        read_table(write(text), "kind", text="stars")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,z,y\n1,a,a\n2,b,b\n", "got text in z; make columns of 0 and 1"),
        ("x,y\n1,a\n,b\n,b\n", r"got missing or infinite values in x \(2 rows\); fill them in"),
        ("x,z,y\n1,1,a\nNaN,inf,b\n", r"in x \(1 rows\), z \(1 rows\)"),
        ("x,z,y\n1,,a\n1,,b\n", r"z \(2 rows\)"),
        ("x,y\n1,a\n2,\n", "got 1 rows without y; remove these rows"),
        ("x,kind\n1,a\n", "expected columns that are called y, got x, kind"),
        ("y\na\n", "expected columns of numbers next to the labels, got none"),
        (",x,y\n0,1,a\n", "expected a name for each column, got one without: usually the row"),
        ("x;y\n1;a\n", "expected commas between the columns, got ';'; write it with commas"),
        ("x\ty\n1\ta\n", r"separator='\\t'"),
        ("x;y\n1,5;a\n", r"got ';'; .*separator=';', decimal_comma=True"),
        ("x, z,kind\n1,2,a\n", "called y, got x, ' z', kind"),
        ("Unnamed: 0,x,y\n0,1,a\n", "got Unnamed: 0: usually the row numbers of pandas"),
        ("__index_level_0__,x,y\n0,1,a\n", "got __index_level_0__: usually the row"),
        ("x,x,y\n1,2,a\n", "got more than one x; rename them"),
        ("x,y,y\n1,a,a\n", "got more than one y; rename them"),
        ("x,x,x_duplicated_0,y\n1,2,3,a\n", "'x' failed; .*; rename one of them"),
        ("x,y\n1,a\nNA,b\n3,a\n", r"row of x, got the text 'NA' in row 2 after .*=\['NA'\]"),
        ("x,y\n1,a\n2 ,b\n", "got the text '2 ' in row 2 after the names; make them numbers"),
        ("x,y\n1,a\nNA,b\n?,a\n", "got text in x; make columns of 0 and 1"),
        ("x,y\n", "expected rows, got none"),
    ],
)
def test_what_a_table_must_not_hold_is_named(write, text, message):
    with pytest.raises(InputError, match=message):
        read_table(write(text), "y")


def follow(path, new, **flags):
    """Run the first call that each error advises until the table can be read."""
    names = {"polars": polars, "path": path, "new": new}
    advice = []
    for _ in range(6):
        try:
            return read_table(names["path"], "y", **flags)[0], advice
        except (InputError, CorruptFileError) as error:
            found = re.search(r"polars\.read_\w+\(.*?\.write_\w+\(new\)", str(error))
        advice.append(found[0])
        eval(found[0], names)
        names["path"] = new
    raise AssertionError(advice)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("columns", "X"),
    [
        ({"x": [1.0, None, 4.0]}, [[1, 2.5, 4]]),
        ({"x": [1.0, float("nan"), 4.0]}, [[1, 2.5, 4]]),
        ({"x": [1.0, float("inf"), 4.0], "z": [None, 1, 2]}, [[1, 2.5, 4], [1.5, 1, 2]]),
        ({"x": [1, None, 4]}, [[1, 2.5, 4]]),  # the mean of integers is no integer
        ({"x": [True, None, False]}, [[1, 0.5, 0]]),
        ({"x": [1, 2, 3], "none": [None, None, None]}, [[1, 2, 3]]),
        ({f"x{i}": [None, 1, 2] for i in range(13)}, [[1.5, 1, 2]] * 13),
        ({"x": ["1", "NA", "4"]}, [[1, 2.5, 4]]),
        ({"x": ["1", "?", "4 ", "5"]}, [[1, 10 / 3, 4, 5]]),
        ({"x": [*"12" * 50, "2.5", "?"]}, [[1, 2] * 50 + [2.5, 152.5 / 101]]),
        ({"x": [" 1", "2 "]}, [[1, 2]]),
        ({"size": ["big", "small"], "x": [1, 2]}, [[1, 0], [0, 1], [1, 2]]),
        ({"": [0, 1], "Unnamed: 0": [0, 1], "x": [1, 2]}, [[1, 2]]),
        ({"__index_level_0__": [0, 1], "x": [1, 2]}, [[1, 2]]),
        ({"x": [1, 2], "x_duplicated_0": [3, 4], "x_2": [5, 6]}, [[1, 2], [3, 4], [5, 6]]),
    ],
)
def test_the_advice_works(tmp_path, kind, columns, X):
    frame = polars.DataFrame(columns)
    frame = frame.with_columns(y=polars.Series(["a", "b"] * frame.height)[: frame.height])
    path = tmp_path / f"old.{kind}"
    frame.write_csv(path) if kind == "csv" else frame.write_parquet(path)
    pets, advice = follow(path, tmp_path / f"new.{kind}")
    np.testing.assert_allclose(pets.X, X)
    assert advice and all(f"read_{kind}(path" in call for call in advice)
    assert pets.y.tolist() == frame["y"].to_list()


def test_rows_without_a_label_are_dropped_as_advised(write, tmp_path):
    assert follow(write("x,y\n1,a\n2,\n"), tmp_path / "new.csv")[0].X.tolist() == [[1]]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("x,y\n1,é\n2,é\n", "latin-1"),
        ("x,y\n1,é\n2,é\n", "utf-16"),
        ("x,y\n1,é\n2,é\n", "utf-16-le"),
        ("x;y\n1,0;é\n2,0;é\n", "latin-1"),
        ("x;y\n1,0;é\n2,0;é\n", "utf-8"),
        ("x\ty\n1\té\n2\té\n", "utf-8"),
        ("x,é,y\n1,5,é\n2,5,é\n", "latin-1"),
    ],
)
def test_other_encodings_and_marks_are_rewritten_as_advised(tmp_path, text, encoding):
    (tmp_path / "old.csv").write_bytes(text.encode(encoding))
    pets, advice = follow(tmp_path / "old.csv", tmp_path / "new.csv")
    assert pets.X[0].tolist() == [1, 2] and advice
    assert pets.y.tolist() == ["é", "é"]


def test_the_name_of_a_file_is_no_pattern(write, tmp_path):
    write("x,y\n1,a\n", "pets1.csv")
    assert read_table(write("x,y\n2,b\n", "pets[1].csv"), "y")[0].X.tolist() == [[2]]
    assert read_table(write("x,y\n3,b\n", "pets*.csv"), "y")[0].X.tolist() == [[3]]
    for name, x in (("a1", 1), ("a[1]", 2), ("a*", 3)):
        polars.DataFrame({"x": [x], "y": ["a"]}).write_parquet(tmp_path / f"{name}.parquet")
    for name, x in (("a[1]", 2), ("a*", 3)):
        assert read_table(tmp_path / f"{name}.parquet", "y")[0].X.tolist() == [[x]]


@pytest.mark.parametrize(
    ("values", "y"),
    [
        ([10**25, 3], [str(10**25), "3"]),
        (polars.Series([2**64 - 1, 3], dtype=polars.UInt64), [str(2**64 - 1), "3"]),
        (polars.Series([4, 3], dtype=polars.UInt64), [4, 3]),
        (polars.Series(["1.50", "2.00"]).cast(polars.Decimal(10, 2)), ["1.50", "2.00"]),
    ],
)
def test_labels_that_int64_cannot_hold_are_text(write, tmp_path, values, y):
    if isinstance(values, list):
        path = write("x,y\n" + "".join(f"1,{value}\n" for value in values))
    else:
        path = tmp_path / "big.parquet"
        polars.DataFrame({"x": [1, 2], "y": values}).write_parquet(path)
    assert read_table(path, "y")[0].y.tolist() == y


def test_the_features_of_a_model_may_have_any_name(write):
    path = write("Unnamed: 0,,x,word\n1,2,3,a\n")
    samples, unused = read_table(path, None, feature_names=["Unnamed: 0"])
    assert samples.X.tolist() == [[1]] and unused == ["x", "word"]
    assert read_table(path, None, feature_names=["x"])[1] == ["Unnamed: 0", "word"]
    with pytest.raises(InputError, match="got text in word; write the numbers") as caught:
        read_table(path, None, feature_names=["x", "word"])
    assert "--text" not in str(caught.value) and "to_dummies" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "name"), [(b"", "a.csv"), (b"x,y\n1,2,3\n", "a.csv"), (b"no", "a.parquet")]
)
def test_a_damaged_file_is_refused(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorruptFileError, match="expected a table with commas"):
        read_table(tmp_path / name, "y")
    with pytest.raises(InputError, match="cannot read"):
        read_table(tmp_path / "none.csv", "y")
