"""Arrays and metadata come back bit for bit, and nothing damaged or hostile comes back at all."""

import hashlib
import io
import pickle
import zipfile
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from npsoftmax import storage
from npsoftmax.errors import CorruptFileError, InputError, OutputError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.npz"


def seal(content: bytes) -> bytes:
    """Give arbitrary bytes the trailer of a genuine file."""
    body = content + b"npsoftmax sha256 "
    return body + hashlib.sha256(body).hexdigest().encode()


def archive(compressed=False, **arrays) -> bytes:
    """Return the bytes of a genuine file that holds these arrays, pickled ones included."""
    buffer = io.BytesIO()
    compress = np.savez_compressed if compressed else np.savez
    compress(buffer, **arrays)
    with zipfile.ZipFile(buffer, "a") as file:
        file.comment = b"npsoftmax sha256 " + b"0" * 64
    return seal(buffer.getvalue()[: -64 - len(b"npsoftmax sha256 ")])


@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    ),
    st.dictionaries(st.text(), st.integers() | st.floats(allow_nan=False) | st.text()),
)
def test_round_trip(tmp_path_factory, array, metadata):
    path = tmp_path_factory.mktemp("storage") / "a.npz"
    storage.write(path, "test", {"x": array, "fortran": np.asfortranarray(array)}, metadata)
    arrays, read = storage.read(path, "test")
    assert read == metadata
    assert arrays["x"].dtype == array.dtype
    assert arrays["x"].tobytes() == array.tobytes() and arrays["x"].shape == array.shape
    assert arrays["fortran"].flags.f_contiguous


def test_numpy_opens_it_and_it_is_reproducible(path):
    storage.write(path, "test", {"x": np.arange(3)}, {"a": 1})
    first = path.read_bytes()
    with np.load(path, allow_pickle=False) as archive:
        assert archive["x"].tolist() == [0, 1, 2]
    storage.write(path, "test", {"x": np.arange(3)}, {"a": 1})
    assert path.read_bytes() == first


def test_every_flipped_bit_and_every_cut_is_noticed(path):
    storage.write(path, "test", {"x": np.arange(3.0)}, {})
    good = path.read_bytes()
    for place in range(len(good)):
        bad = bytearray(good)
        bad[place] ^= 1 << place % 8
        path.write_bytes(bad)
        with pytest.raises(CorruptFileError, match=r"file\.npz"):
            storage.read(path, "test")
    for length in range(0, len(good), 7):
        path.write_bytes(good[:length])
        with pytest.raises(CorruptFileError):
            storage.read(path, "test")
    path.write_bytes(good + b"\0")
    with pytest.raises(CorruptFileError):
        storage.read(path, "test")


class Bomb:
    """Says so when unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


def test_pickled_content_is_refused_and_never_runs(path):
    with pytest.raises(InputError, match="numeric array"):
        storage.write(path, "test", {"x": np.array([object()])}, {})
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CorruptFileError, match="written by npsoftmax"):
        storage.read(path, "test")
    path.write_bytes(archive(x=np.array([Bomb()], dtype=object)))
    with pytest.raises(CorruptFileError, match="no pickle is ever read"):
        storage.read(path, "test")
    path.write_bytes(seal(pickle.dumps(Bomb())))
    with pytest.raises(CorruptFileError):
        storage.read(path, "test")


def test_claims_beyond_the_limit_are_refused_before_memory_is_taken(path):
    path.write_bytes(archive(compressed=True, x=np.zeros(1000)))
    with pytest.raises(CorruptFileError, match=r"members that claim|a compressed"):
        storage.read(path, "test")
    with pytest.raises(CorruptFileError, match="at most 10 bytes"):
        storage.read(path, "test", max_bytes=10)


@pytest.mark.parametrize(
    "metadata", [b"", b"not json", b"[]", b"{}", b'{"content": 1, "kind": "test"}', b"\xff"]
)
def test_sealed_nonsense_is_refused(path, metadata):
    path.write_bytes(archive(metadata=np.frombuffer(metadata, np.uint8)))
    with pytest.raises(CorruptFileError):
        storage.read(path, "test")


@pytest.mark.parametrize("name", ["file", "allow_pickle", "a\0b", "../a", ".a", "", "metadata"])
def test_reserved_names(path, name):
    with pytest.raises(InputError, match="that is not reserved"):
        storage.write(path, "test", {name: np.zeros(1)}, {})


def npy_that_claims(shape):
    """Return an archive whose only array claims a shape that is not there."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        head = io.BytesIO()
        description = {"descr": "<f8", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(head, description)
        file.writestr("x.npy", head.getvalue())
        file.comment = b"npsoftmax sha256 " + b"0" * 64
    return seal(buffer.getvalue()[: -64 - len(b"npsoftmax sha256 ")])


@pytest.mark.parametrize("shape", [(10,), (10**11,), (2**70,), (-1,)])
def test_sealed_arrays_that_are_not_there(path, shape):
    path.write_bytes(npy_that_claims(shape))
    with pytest.raises(CorruptFileError, match=r"file\.npz: expected"):
        storage.read(path, "test")


def test_other_version_and_kind(path, monkeypatch):
    storage.write(path, "test", {}, {})
    assert storage.kind_of(path) == "test" and storage.is_whole(path)
    with pytest.raises(CorruptFileError, match="expected a model, got a test"):
        storage.read(path, "model")
    monkeypatch.setattr(storage, "FORMAT_VERSION", 2)
    with pytest.raises(CorruptFileError, match="expected format version 2, got 1"):
        storage.read(path, "test")


def test_the_file_before_is_kept_if_it_is_whole(path):
    before = storage.previous(path)
    for number in range(3):
        storage.write(path, "test", {"x": np.array(number)}, {}, keep_previous=True)
        assert before.exists() == (number > 0)
    assert storage.read(before, "test")[0]["x"] == 1
    path.write_bytes(b"damaged")
    assert not storage.is_whole(path)
    storage.write(path, "test", {"x": np.array(9)}, {}, keep_previous=True)
    assert storage.read(before, "test")[0]["x"] == 1
    assert storage.read(path, "test")[0]["x"] == 9


def test_what_reads_back_as_something_else_is_not_published(path, monkeypatch):
    storage.write(path, "test", {}, {"number": 1})
    good = path.read_bytes()

    @contextmanager
    def forgetful(path, kept=None):
        yield type("File", (io.BytesIO,), {"read": lambda self: b"something else"})()

    monkeypatch.setattr(storage, "publish", forgetful)
    with pytest.raises(OutputError, match="reads back as something else"):
        storage.write(path, "test", {}, {"number": 2})
    assert path.read_bytes() == good


def test_what_was_read_is_the_reader_s_own(path):
    storage.write(path, "test", {"x": np.arange(3), "scalar": np.array(1.5)}, {})
    arrays, _ = storage.read(path, "test")
    for array in arrays.values():
        assert array.flags.writeable and array.flags.aligned
    arrays["x"][0] = 7
    assert arrays["x"].tolist() == [7, 1, 2]


def test_unusable_metadata_and_paths(path, tmp_path):
    with pytest.raises(InputError, match="JSON"):
        storage.write(path, "test", {}, {"x": {1, 2}})
    with pytest.raises(InputError, match="that is not reserved"):
        storage.write(path, "test", {"metadata": np.zeros(1)}, {})
    with pytest.raises(InputError, match="cannot read"):
        storage.read(tmp_path / "none.npz", "test")
    path.write_bytes(b"a file, not a folder")
    with pytest.raises(OutputError, match="cannot write"):
        storage.write(path / "below.npz", "test", {}, {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file.npz"]
