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
        ("x;y\n1;a\n", "expected commas between the columns, got other marks"),
        ("x,y\n", "expected rows, got none"),
    ],
)
def test_what_a_table_must_not_hold_is_named(write, text, message):
    with pytest.raises(InputError, match=message):
        read_table(write(text), "y")


def test_the_advice_works(write, tmp_path, monkeypatch):
    path = write("size,name,x,y\nbig,Ann,1,a\nsmall,Bob,,b\n")
    new = tmp_path / "new.csv"
    names = {"polars": polars, "path": path, "new": new}
    for _ in range(3):
        with pytest.raises(InputError) as caught:
            read_table(path, "y")
        calls = re.findall(r"polars\.read_csv\(.*?(?=, and|, or|$)", str(caught.value))
        call = calls[0].replace("['size']", "['size', 'name']")
        eval(call, names)
        path = names["path"] = new
        if "fill_null" in call:
            break
    assert read_table(new, "y")[0].X.shape == (5, 2)


@pytest.mark.parametrize(
    ("content", "name"), [(b"", "a.csv"), (b"x,y\n1,2,3\n", "a.csv"), (b"no", "a.parquet")]
)
def test_a_damaged_file_is_refused(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorruptFileError, match="expected a table with commas"):
        read_table(tmp_path / name, "y")
    with pytest.raises(InputError, match="cannot read"):
        read_table(tmp_path / "none.csv", "y")
