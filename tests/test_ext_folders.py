"""Photographs in class folders."""

import os

import numpy as np
import pytest

pytest.importorskip("PIL")

from PIL import Image

from npsoftmax.errors import CorruptFileError, InputError, InputWarning
from npsoftmax.ext import folders, photos


def write(path, grey, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, grey).save(path)


@pytest.fixture
def pets(tmp_path):
    """Ten cats, which are dark, and ten dogs, which are light; each has a grey of its own."""
    for number in range(10):
        write(tmp_path / "pets" / "dog" / f"{number}.png", 200 + number)
        write(tmp_path / "pets" / "cat" / f"{number}.jpg", 10 + number)
    return tmp_path / "pets"


def greys(X):
    return sorted(X[0].tolist())


def test_classes_and_photographs_are_in_the_order_of_their_names(pets):
    classes, X, y = folders.read_folder(pets, side=8)
    assert classes == ("cat", "dog")
    assert X.shape == (64, 20) and X.dtype == np.uint8 and X.flags.f_contiguous
    assert y.tolist() == [0] * 10 + [1] * 10
    assert X[0, 10:].tolist() == list(range(200, 210))
    assert (X[:, :1] == photos.read(pets / "cat" / "0.jpg", "square", 8).pixels).all()


def test_a_part_of_each_class_is_held_out_by_the_seed(pets):
    data = folders.load_folder(pets, side=8, test_part=0.2, seed=1)
    assert data.y_test.tolist() == [0, 0, 1, 1] and np.bincount(data.y_train).tolist() == [8, 8]
    assert len({*greys(data.X_train), *greys(data.X_test)}) == 20
    assert (data.y_train[:-1] != data.y_train[1:]).any()  # shuffled, for --limit
    assert (data.name, data.framing, data.shape) == ("pets", "square", (8, 8))
    again = folders.load_folder(pets, side=8, test_part=0.2, seed=1)
    assert again.sha256 == data.sha256 and (again.X_train == data.X_train).all()
    other = folders.load_folder(pets, side=8, test_part=0.2, seed=2)
    assert greys(other.X_test) != greys(data.X_test) and other.sha256 != data.sha256


def test_a_folder_that_is_split_already_keeps_its_parts(pets, tmp_path):
    write(pets.parent / "split" / "val" / "dog" / "a.png", 250)
    os.rename(pets, pets.parent / "split" / "train")
    data = folders.load_folder(pets.parent / "split", side=8)
    assert data.y_train.size == 20 and data.y_test.tolist() == [1] and data.X_test[0, 0] == 250
    assert data.name == "split"


def test_a_damaged_photograph_is_named_and_left_out(pets):
    (pets / "cat" / "3.jpg").write_bytes(b"\xff\xd8 not any more")
    with pytest.warns(InputWarning, match=r"left out: .*3\.jpg"):
        _, X, y = folders.read_folder(pets, side=8)
    assert X.shape[1] == y.size == 19 and np.bincount(y).tolist() == [9, 10]


def test_a_class_of_damaged_photographs_is_refused(pets):
    for path in (pets / "cat").iterdir():
        path.write_bytes(b"")
    with (
        pytest.warns(InputWarning),
        pytest.raises(CorruptFileError, match=r"that can be read in each .*none in cat"),
    ):
        folders.read_folder(pets, side=8)


def test_photographs_in_inner_folders_count_and_hidden_ones_do_not(pets):
    write(pets / "cat" / "more" / "a.png", 30)
    write(pets / "cat" / ".trash" / "b.png", 40)
    write(pets / ".hidden" / "c.png", 50)
    (pets / "notes").mkdir()
    classes, _, y = folders.read_folder(pets, side=8)
    assert classes == ("cat", "dog") and np.bincount(y).tolist() == [11, 10]


def test_folders_of_a_trained_model_may_be_fewer_but_not_other_ones(pets):
    kinds = ("bird", "cat", "dog")
    classes, _, y = folders.read_folder(pets, 8, kinds)
    assert classes == kinds and set(y.tolist()) == {1, 2}
    with pytest.raises(InputError, match="expected class folders with names among cat, fish, got"):
        folders.read_folder(pets, 8, ("cat", "fish"))


@pytest.mark.parametrize(
    ("inside", "message"),
    [
        ("cat", "expected a folder with photographs for each class.*got 0 such folders"),
        ("nowhere", "cannot read .*nowhere: No such file"),
    ],
)
def test_other_folders_are_refused(pets, inside, message):
    with pytest.raises(InputError, match=message):
        folders.load_folder(pets / inside)


@pytest.mark.parametrize("test_part", [0, 1, 1.5, float("nan")])
def test_a_part_that_is_no_part_is_refused(pets, test_part):
    with pytest.raises(InputError, match="test part: expected a fraction between 0 and 1"):
        folders.load_folder(pets, test_part=test_part)
    with pytest.raises(InputError, match=r"hold out 1% of each class.*test on.*hold out more"):
        folders.load_folder(pets, test_part=0.01)


@pytest.mark.parametrize("test_part", [0.6, 0.9])
def test_every_class_is_trained_on(pets, test_part):
    for number in range(2, 10):
        os.remove(pets / "cat" / f"{number}.jpg")
    os.remove(pets / "cat" / "1.jpg")
    with pytest.raises(InputError, match=r"left to train on cat; take more .* hold out less"):
        folders.load_folder(pets, test_part=test_part)


def test_links_to_folders_within_a_class_are_not_followed(pets):
    os.symlink("..", pets / "cat" / "loop")
    os.symlink("../dog", pets / "cat" / "dogs")
    os.symlink("dog", pets / "wolf")  # a class of its own, which the user has made
    classes, _, y = folders.read_folder(pets, side=8)
    assert classes == ("cat", "dog", "wolf") and np.bincount(y).tolist() == [10, 10, 10]


def test_progress_counts_every_photograph(pets):
    counts = []
    folders.load_folder(pets, on_photo=counts.append)
    assert counts == [1] * 20


def test_three_photographs_are_too_few_to_hold_some_out(tmp_path):
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        write(tmp_path / "few" / name, 100)
    (tmp_path / "few" / "dog" / "notes.txt").write_text("no photograph")
    with pytest.raises(InputError, match="got 3 in 2 classes, none of them left to test on; take"):
        folders.load_folder(tmp_path / "few")
    data = folders.load_folder(tmp_path / "few", side=8, test_part=0.3)
    assert data.y_train.size == 2 and data.y_test.tolist() == [0]


def test_photographs_to_test_on_are_named(pets, tmp_path):
    write(tmp_path / "others" / "dog" / "a.png", 250)
    data = folders.load_folder(pets, side=8, test=tmp_path / "others")
    assert data.y_train.size == 20 and data.y_test.tolist() == [1] and data.X_test[0, 0] == 250
