"""Data sets by name, on small stand-ins for the real files; and the pins of the real ones."""

import dataclasses
import gzip
import hashlib
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from faulty_server import FaultyServer, Step
from idx_inputs import header

from npsoftmax import load
from npsoftmax.data import datasets, garments
from npsoftmax.data.download import RemoteFile
from npsoftmax.errors import CorruptFileError, DataUnavailableError, InputError

FILES = {
    "train-images": ("train-images-idx3-ubyte.gz", (6, 28, 28)),
    "train-labels": ("train-labels-idx1-ubyte.gz", (6,)),
    "test-images": ("t10k-images-idx3-ubyte.gz", (4, 28, 28)),
    "test-labels": ("t10k-labels-idx1-ubyte.gz", (4,)),
}


def make_source(name, folder, seed):
    """Write four small files and return the source that pins them, with the arrays."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    files, contents, arrays = {}, {}, {}
    for role, (file_name, shape) in FILES.items():
        arrays[role] = rng.integers(0, 10, shape, dtype=np.uint8)
        content = header(8, *shape) + arrays[role].tobytes()
        packed = gzip.compress(content, mtime=0)
        (folder / file_name).write_bytes(packed)
        files[role] = pin(file_name, packed)
        contents[role] = pin(file_name.removesuffix(".gz"), content)
    other_names = datasets.DATASETS[name].other_names
    source = datasets.DatasetSource(
        name, tuple("abcdefghij"), files, contents, (), "whole", other_names=other_names
    )
    return source, arrays


def pin(name, content):
    return RemoteFile(name, len(content), hashlib.sha256(content).hexdigest())


def damage(path, kind):
    """Replace a file by nothing, a folder, or other bytes; return its content."""
    good = path.read_bytes()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        contents = {
            "cut": good[:-3],
            "empty": b"",
            "flipped": good[:-9] + bytes([good[-9] ^ 1]) + good[-8:],
            "longer": good + b"x",
            "reversed": good[::-1],
            "zeros": good[:1000].ljust(len(good), b"\0"),
        }
        path.write_bytes(contents[kind])
    return good


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Replace both data sets by small twins; only that of Fashion-MNIST is stored in ``data``."""
    fashion, arrays = make_source("fashion-mnist", tmp_path / "data" / "fashion-mnist", 1)
    digits, _ = make_source("mnist", tmp_path / "elsewhere", 2)
    monkeypatch.setitem(datasets.DATASETS, "fashion-mnist", fashion)
    monkeypatch.setitem(datasets.DATASETS, "mnist", digits)
    return tmp_path / "data", arrays


def test_columns_of_a_loaded_set_are_upright_images(small):
    folder, arrays = small
    data = load("fashion-mnist", folder)
    assert data.X_train.shape == (784, 6)
    assert data.X_train.dtype == np.uint8
    assert data.X_train.flags.f_contiguous
    np.testing.assert_array_equal(data.X_train[:, 2].reshape(28, 28), arrays["train-images"][2])
    np.testing.assert_array_equal(data.X_test[:, 3].reshape(28, 28), arrays["test-images"][3])
    np.testing.assert_array_equal(data.y_train, arrays["train-labels"])
    assert data.y_test.dtype == np.int64
    assert str(folder) in data.origin
    assert len(data.sha256) == 4


def test_data_dir_comes_from_the_environment(small, monkeypatch):
    folder, _ = small
    monkeypatch.setenv("NPSOFTMAX_DATA", str(folder))
    assert load("fashion-mnist").X_train.shape == (784, 6)


def test_the_second_start_reads_the_unpacked_copy(small, private_folders, monkeypatch):
    folder, arrays = small
    assert load("fashion-mnist", folder).origin.endswith("verified; 0 of 4 unpacked copies reused")
    copies = private_folders / "npsoftmax" / "unpacked" / "fashion-mnist"
    assert len(list(copies.iterdir())) == 4
    monkeypatch.setattr(datasets.idx, "unpack", lambda *_: pytest.fail("unpacked again"))
    data = load("fashion-mnist", folder)
    assert data.origin.endswith("verified; 4 of 4 unpacked copies reused")
    np.testing.assert_array_equal(data.y_train, arrays["train-labels"])


@pytest.mark.parametrize("kind", ["zeros", "cut", "empty", "longer", "folder", "reversed"])
def test_a_damaged_copy_is_unpacked_again(small, private_folders, kind):
    folder, arrays = small
    load("fashion-mnist", folder)
    copy = private_folders / "npsoftmax" / "unpacked" / "fashion-mnist" / "train-images-idx3-ubyte"
    good = damage(copy, kind)
    data = load("fashion-mnist", folder)
    np.testing.assert_array_equal(data.X_train.T.reshape(6, 28, 28), arrays["train-images"])
    assert kind == "folder" or copy.read_bytes() == good


def test_a_cache_folder_that_cannot_be_written_is_no_error(small, private_folders):
    folder, arrays = small
    shutil.rmtree(private_folders / "npsoftmax")
    (private_folders / "npsoftmax").write_bytes(b"a file where the folder would be")
    data = load("fashion-mnist", folder)
    np.testing.assert_array_equal(data.y_test, arrays["test-labels"])


def test_a_user_without_a_home_folder_is_no_error(small, monkeypatch):
    folder, arrays = small

    def homeless(*_):
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr("platformdirs.user_cache_dir", homeless)
    monkeypatch.setattr("tempfile.tempdir", str(folder / "temporary"))
    data = load("fashion-mnist", folder)
    np.testing.assert_array_equal(data.y_test, arrays["test-labels"])


def test_a_folder_that_cannot_be_named_is_unavailable():
    for folder in ("~nobody-of-this-name/x", "x" * 300):
        with pytest.raises(DataUnavailableError, match="train-images"):
            load("fashion-mnist", folder, offline=True)


@pytest.mark.parametrize("place", ["home/.keras/datasets/fashion-mnist", "data/FashionMNIST/raw"])
def test_copies_of_other_libraries_are_found(small, tmp_path, monkeypatch, place):
    folder, _ = small
    Path(place).parent.mkdir(parents=True)
    (folder / "fashion-mnist").rename(place)
    monkeypatch.setenv("HOME", "home")
    for data_dir in (None, folder):
        assert f"found in {place}," in load("fashion-mnist", data_dir, offline=True).origin


PLACES = (
    "raw", "FashionMNIST/raw", "FashionMNIST", "Fashion-MNIST", "fashion_mnist", "data/fashion",
    "datasets/fashion-mnist", "data/FashionMNIST/raw",
)  # fmt: skip
SPELLINGS = (
    "{gz}", "{idx}", "{dotted}", "{dotted}.gz", "{idx}/{idx}", "{idx}/{dotted}",
    "{dotted}/{dotted}", "{idx} (1).gz", "{idx}-repacked.gz", "{idx}-unpacked-by-the-browser.gz",
)  # fmt: skip


@pytest.mark.parametrize(
    ("place", "name"), [*((".", name) for name in SPELLINGS), *((p, "{idx}") for p in PLACES)]
)
def test_files_are_known_by_their_content_wherever_other_programs_put_them(small, place, name):
    folder, arrays = small
    for source in list((folder / "fashion-mnist").iterdir()):
        idx = source.stem
        dotted = idx.replace("-idx", ".idx")
        path = folder / place / name.format(gz=source.name, idx=idx, dotted=dotted)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = source.read_bytes()
        source.unlink()
        if path.suffix != ".gz" or "browser" in name:
            content = gzip.decompress(content)
        elif "repacked" in name:
            content = gzip.compress(gzip.decompress(content), 1, mtime=1)
        path.write_bytes(content)
    data = load("fashion-mnist", folder, offline=True)
    for role, array in arrays.items():
        part, kind = role.split("-")
        found = getattr(data, f"{'X' if kind == 'images' else 'y'}_{part}")
        np.testing.assert_array_equal(found.T.reshape(array.shape), array)
    assert "SHA-256 verified" in data.origin
    assert ("unpacked copies" in data.origin) == (content[:2] == b"\x1f\x8b")


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("place", [".", "FashionMNIST/raw"])
def test_other_files_in_a_named_folder_are_refused_and_not_replaced(small, tmp_path, place, packed):
    folder, _ = small
    named = tmp_path / "named" / place
    named.mkdir(parents=True)
    for path in (tmp_path / "elsewhere").iterdir():
        content = path.read_bytes()
        name, content = (path.name, content) if packed else (path.stem, gzip.decompress(content))
        (named / name).write_bytes(content)
    shutil.copytree(folder, "data")  # where the files are found if no folder is named
    assert "found in data/fashion-mnist" in load("fashion-mnist", offline=True).origin
    with pytest.raises(
        CorruptFileError, match=r"train-images.*another file \(it is the file of mn"
    ):
        load("fashion-mnist", tmp_path / "named", offline=False)
    assert load("mnist", named, offline=True).X_train.shape == (784, 6)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("missing", "\nof"), ("cut", "bytes, got"), ("flipped", "got "), ("longer", "bytes, got")],
)
def test_offline_names_what_is_wrong_and_what_to_do(small, kind, reason):
    folder, _ = small
    file = datasets.DATASETS["fashion-mnist"].files["train-labels"]
    path = folder / "fashion-mnist" / file.name
    damage(path, kind)
    with pytest.raises(DataUnavailableError if kind == "missing" else CorruptFileError) as caught:
        load("fashion-mnist", folder, offline=True)
    message = str(caught.value)
    for part in (file.name, file.sha256, str(path.parent), "offline; put ", reason):
        assert part in message
    assert "train-images" not in message
    first, ways, _ = message.splitlines()
    state = "not on this machine" if kind == "missing" else "damaged or another file"
    assert first == f"fashion-mnist: {file.name} is {state}, and the network is not used"
    assert all(way in ways for way in ("--data-dir", "NPSOFTMAX_DATA", "--mirror-url")), ways


@pytest.mark.parametrize("kind", ["missing", "cut"])
def test_a_failed_download_describes_the_existing_file(small, kind):
    folder, _ = small
    path = folder / "fashion-mnist" / "train-labels-idx1-ubyte.gz"
    damage(path, kind)
    expected = DataUnavailableError if kind == "missing" else CorruptFileError
    with pytest.raises(expected, match=rf"{path.name}[\s\S]*cannot download .*: no mirror"):
        load("fashion-mnist", folder, offline=False)


def test_all_missing_files_are_counted_though_the_first_download_fails(small, tmp_path):
    with pytest.raises(DataUnavailableError, match=r"^fashion-mnist: 4 files are .* failed\n"):
        load("fashion-mnist", tmp_path / "none", offline=False)


def test_a_file_of_the_other_data_set_is_named_as_such(small, tmp_path):
    folder, _ = small
    name = FILES["test-images"][0]
    (folder / "fashion-mnist" / name).write_bytes((tmp_path / "elsewhere" / name).read_bytes())
    with pytest.raises(CorruptFileError, match="it is the file of mnist"):
        load("fashion-mnist", folder, offline=True)


def test_missing_files_are_downloaded_into_the_data_folder(small, tmp_path):
    folder, arrays = small

    def send(request):
        return Step((folder / "fashion-mnist" / request.path[1:]).read_bytes())

    with FaultyServer(send, forever=True) as server:
        data = load("fashion-mnist", tmp_path / "fresh", [server.url], offline=False)
    np.testing.assert_array_equal(data.y_train, arrays["train-labels"])
    assert "4 files downloaded" in data.origin
    assert len(os.listdir(tmp_path / "fresh" / "fashion-mnist")) == 4
    assert "found" in load("fashion-mnist", tmp_path / "fresh", offline=True).origin


def test_a_file_that_another_process_has_downloaded_meanwhile_is_used(small, monkeypatch):
    folder, arrays = small
    path = folder / "fashion-mnist" / "train-labels-idx1-ubyte.gz"
    content = path.read_bytes()
    path.unlink()

    def too_late(*_, **__):
        path.write_bytes(content)
        raise DataUnavailableError("silence")

    monkeypatch.setattr(datasets, "fetch", too_late)
    np.testing.assert_array_equal(
        load("fashion-mnist", folder, offline=False).y_train, arrays["train-labels"]
    )


def test_unusable_folders_and_mirrors_are_refused(small):
    folder, _ = small
    with pytest.raises(DataUnavailableError, match="cannot be read"):
        load("fashion-mnist", "a\0b", offline=True)
    with pytest.raises(InputError, match="expected a sequence of addresses, got 'http://x'"):
        load("fashion-mnist", folder, mirrors="http://x")


# The drawn data set


@pytest.fixture
def few(private_folders, monkeypatch):
    """Make garments few and not drawn yet; return the folder in which they are stored."""
    shutil.rmtree(private_folders / "npsoftmax")
    monkeypatch.setattr(datasets, "_GARMENTS", {"train": (20, 0), "test": (10, 1)})
    return private_folders / "npsoftmax" / "drawn" / "garments"


def check_few(data):
    for part, number, seed in (("train", 20, 0), ("test", 10, 1)):
        X, y = garments.generate(number, seed)
        found = getattr(data, f"X_{part}")
        np.testing.assert_array_equal(found, X)
        np.testing.assert_array_equal(getattr(data, f"y_{part}"), y)
        assert found.flags.f_contiguous and found.dtype == np.uint8
        assert not found.flags.writeable and getattr(data, f"y_{part}").dtype == np.int64


def test_drawn_images_are_stored_and_reused(few, monkeypatch):
    first = load("garments")
    assert first.origin == "drawn by npsoftmax.data.garments, seeds 0 and 1"
    check_few(first)
    with monkeypatch.context() as context:
        context.setattr(garments, "generate", lambda *_: pytest.fail("drawn again"))
        second = load("garments")
    assert second.origin == f"{first.origin}, by an earlier start; reused from {few}"
    check_few(second)


@pytest.mark.parametrize("kind", ["flipped", "cut", "empty", "folder", "missing"])
@pytest.mark.parametrize("name", ["train-images", "test-labels", "checksums.json"])
def test_damaged_drawn_images_are_drawn_again(few, name, kind):
    load("garments")
    good = damage(few / name, kind)
    data = load("garments")
    check_few(data)
    assert "reused" not in data.origin
    assert kind == "folder" or (few / name).read_bytes() == good


def test_images_of_other_code_sizes_or_seeds_are_drawn_again(few, monkeypatch):
    load("garments")
    changes = (
        (datasets, "_GARMENTS", {"train": (20, 3), "test": (10, 1)}),
        (datasets, "_GARMENTS", {"train": (30, 0), "test": (10, 1)}),
        (garments, "edition", lambda: "that of tomorrow"),
    )
    for where, name, value in changes:
        with monkeypatch.context() as context:
            context.setattr(where, name, value)
            assert "reused" not in load("garments").origin
            assert "reused" in load("garments").origin
    check_few(load("garments"))


def test_garments_are_drawn_again_if_they_cannot_be_stored(few, private_folders):
    (private_folders / "npsoftmax").write_bytes(b"a file where the folder would be")
    for _ in range(2):
        data = load("garments")
        check_few(data)
        assert "reused" not in data.origin


def test_the_edition_identifies_the_drawing_code():
    assert np.__version__ in garments.edition()
    source = Path(garments.__file__).read_bytes()
    assert hashlib.sha256(source).hexdigest() in garments.edition()


# The table of data sets


@pytest.mark.parametrize("source", datasets.DATASETS.values(), ids=datasets.DATASETS)
def test_every_row_of_the_table_is_complete(source):
    assert set(source.files) == set(FILES)
    assert len(source.classes) == len(set(source.classes)) == 10
    assert len(source.mirrors) >= 2
    for mirror in source.mirrors:
        assert re.fullmatch(r"https?://\S+/", mirror)
    for file in source.files.values():
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
        assert file.name.endswith("-ubyte.gz")
        assert file.size > 0
    for role, content in source.contents.items():
        assert content.name + ".gz" == source.files[role].name
        number = 60_000 if role.startswith("train") else 10_000
        assert content.size == (8 + number if role.endswith("labels") else 16 + number * 784)


def test_the_data_sets_share_file_names_but_no_content():
    fashion, digits = datasets.find("fashion-mnist").files, datasets.find("mnist").files
    for role in FILES:
        assert fashion[role].name == digits[role].name
        assert fashion[role].sha256 != digits[role].sha256
        assert fashion[role].size != digits[role].size


@pytest.mark.parametrize("name", ["FashionMNIST", "fashion_mnist", "Fashion MNIST"])
def test_a_name_may_be_spelled_as_other_libraries_do(small, name):
    folder, _ = small
    assert load(name, folder).name == datasets.find(name).name == "fashion-mnist"


@pytest.mark.parametrize(
    ("name", "hint"),
    [("cifar", ""), ("fashion", "; did you mean 'fashion-mnist'?"), (None, ""), ("", "")],
)
def test_an_unknown_name_is_refused_with_the_nearest_one(name, hint):
    for look_up, names in (
        (load, "fashion-mnist, mnist, garments"),
        (datasets.find, "n-mnist, mnist"),
    ):
        with pytest.raises(InputError, match=rf"{names}, got {name!r}{re.escape(hint)}$"):
            look_up(name)


def test_the_pins_of_the_contents_are_those_of_the_unpacked_files(fashion_mnist_folder):
    source = datasets.find("fashion-mnist")
    for role, file in source.files.items():
        packed = (Path(fashion_mnist_folder) / source.name / file.name).read_bytes()
        assert pin(file.name.removesuffix(".gz"), gzip.decompress(packed)) == source.contents[role]


def test_the_real_files(fashion_mnist):
    assert fashion_mnist.X_train.shape == (784, 60_000)
    assert fashion_mnist.X_test.shape == (784, 10_000)
    assert np.bincount(fashion_mnist.y_train).tolist() == [6000] * 10
    assert np.bincount(fashion_mnist.y_test).tolist() == [1000] * 10
    # The published mean of the scaled training images.
    assert fashion_mnist.X_train.mean() / 255 == pytest.approx(0.2860, abs=5e-5)
    assert [fashion_mnist.classes[i] for i in fashion_mnist.y_train[:2]] == [
        "Ankle boot",
        "T-shirt/top",
    ]


def test_a_data_set_is_printed_without_its_arrays():
    X, y = np.zeros((784, 4), np.uint8), np.zeros(4, int)
    printed = repr(datasets.Dataset("mine", ("cat", "dog"), X, y, X, y))
    assert printed == "Dataset(mine: 4 training and 4 test samples of 784 uint8, 2 classes)"


@pytest.mark.parametrize(
    ("X", "sample"),
    [(np.zeros((3, 4)), "3 float64"), ([[1, 2, 3, 4]], "1 numbers"), (np.zeros(4), "float64")],
)
def test_a_data_set_of_unchecked_arrays_is_printed_and_compared(X, sample):
    data = datasets.Dataset("mine", ("cat", "dog"), X, np.zeros(4, int), None, None)
    assert repr(data) == f"Dataset(mine: 4 training and 0 test samples of {sample}, 2 classes)"
    assert data == data and data != dataclasses.replace(data)


def test_a_model_is_told_from_a_data_set():
    with pytest.raises(InputError, match=r"SoftmaxRegression\.load reads a model"):
        load("model.npz")
