"""IDX: round trips, hostile headers, damaged files."""

import gzip
import os
import re
import struct
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from npsoftmax.data import idx
from npsoftmax.errors import CorruptFileError, InputError, OutputError

TYPES = [np.uint8, np.int8, np.int16, np.int32, np.float32, np.float64]


def header(code, *shape, axes=None):
    count = len(shape) if axes is None else axes
    return bytes([0, 0, code, count]) + struct.pack(f">{len(shape)}I", *shape)


SMALL = header(8, 2, 3) + bytes(range(6))


@given(
    st.sampled_from(TYPES).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0))
    ),
    st.sampled_from(["C", "F"]),
    st.booleans(),
)
def test_round_trip(tmp_path_factory, array, order, swapped):
    path = tmp_path_factory.mktemp("idx") / "array"
    given_array = np.array(array, order=order)
    if swapped:
        given_array = given_array.astype(given_array.dtype.newbyteorder())
    idx.write(path, given_array)
    got = idx.read(path)
    assert got.dtype == array.dtype and got.dtype.isnative and got.flags.c_contiguous
    assert got.tobytes() == array.tobytes() and got.shape == array.shape
    compressed = path.with_suffix(".gz")
    compressed.write_bytes(gzip.compress(path.read_bytes()))
    assert idx.read(compressed).tobytes() == array.tobytes()


def test_bytes_by_hand_and_against_idx2numpy(tmp_path):
    import idx2numpy

    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    idx.write(tmp_path / "a", array)
    assert (tmp_path / "a").read_bytes() == SMALL == idx2numpy.convert_to_string(array)


def test_memory_map(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(SMALL)
    mapped = idx.memory_map(path)
    assert mapped.tolist() == [[0, 1, 2], [3, 4, 5]] and not mapped.flags.writeable
    idx.write(path, np.zeros(3, np.int32))
    with pytest.raises(InputError, match="expected bytes, got int32"):
        idx.memory_map(path)
    path.write_bytes(SMALL[:-1])
    with pytest.raises(CorruptFileError, match="expected 18 bytes"):
        idx.memory_map(path)


LIMITED = """
import resource, sys
import numpy as np
from npsoftmax import DataLoader, Descent, SoftmaxRegression, Trainer
from npsoftmax.data import idx
from npsoftmax.errors import InputError

limit, kind = 300 * 2**20, getattr(resource, sys.argv[2])
resource.setrlimit(kind, (limit, limit))
try:
    np.ones(limit, np.uint8)
except MemoryError:
    pass
else:
    raise SystemExit("the limit does not hold")
try:
    images = idx.memory_map(sys.argv[1])
except InputError as error:
    raise SystemExit(str(error)) from error
X = images.reshape(len(images), -1).T
y = np.zeros(X.shape[1], int)
trainer = Trainer(SoftmaxRegression(X.shape[0], 3), Descent(0.1), DataLoader(X, y, shuffle=True))
print(trainer.fit(1)[0].train_loss)
"""


@pytest.fixture(scope="module")
def sparse_file(tmp_path_factory):
    """Write 0.8 GB of zeros, which take no room on a disk with holes."""
    path = tmp_path_factory.mktemp("sparse") / "images"
    with open(path, "wb") as file:
        file.write(header(8, 8_000, 320, 320))
        file.truncate(file.tell() + 8_000 * 320 * 320)
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="the limits are Linux's")
def test_a_file_larger_than_the_memory_allowed_is_trained_on(sparse_file):
    command = [sys.executable, "-c", LIMITED, str(sparse_file), "RLIMIT_DATA"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr == ""
    assert float(done.stdout) < np.log(3)


@pytest.mark.skipif(sys.platform != "linux", reason="the limits are Linux's")
def test_a_map_that_finds_no_room_in_the_address_space_says_so(sparse_file):
    command = [sys.executable, "-c", LIMITED, str(sparse_file), "RLIMIT_AS"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert re.fullmatch(r"cannot map .*819,200,016 bytes.*ulimit -v.*\n", done.stderr)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"\0\0\x08", "expected an IDX file"),
        (b"\1\0\x08\1", "got 01 00 08 01"),
        (header(0x0A, 1) + b"\0", "got 00 00 0a"),
        (header(8) + b"\x07", "got 0 axes"),
        (header(8, *[1] * 65) + b"\0", "got 65 axes"),
        (header(8, 2, axes=3), "3 axes and 8 bytes"),
        (header(8, 2**32 - 1, 2**32 - 1), "expected an array that NumPy can hold"),
        (header(8, 0, 2**32 - 1, 2**32 - 1), "expected an array that NumPy can hold"),
        (header(9, 1, 0x10000002, 0x80000041), "got 16"),
        (header(8, 5_000_000, 2**15, 2**15), "expected 5368709120000016 bytes"),
        (SMALL[:-1], "expected 18 bytes .*got 17"),
        (SMALL + b"\0", "got more"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_hostile_content_is_refused_before_memory_is_taken(tmp_path, content, message, compressed):
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(content) if compressed else content)
    tracemalloc.start()
    try:
        with pytest.raises(CorruptFileError) as caught:
            idx.read(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    assert str(path) in str(caught.value)
    if not compressed:
        caught.match(message)


@pytest.mark.parametrize(
    ("content", "max_bytes", "message"),
    [
        (header(8, 2**26) + bytes(2**26), 2**20, "at most 1048576 bytes, got a header that claims"),
        (header(8, 2**30 - 8), 2**30, "expected 1073741824 bytes .* got 8"),
        (SMALL + bytes(2**26), 2**30, "expected 18 bytes .* got more"),
        (header(8, 123) + bytes(2**26), 2**30, "expected 131 bytes .* got more"),
    ],
)
def test_gzip_bombs_are_refused_before_memory_is_taken(tmp_path, content, max_bytes, message):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(content))
    tracemalloc.start()
    try:
        with pytest.raises(CorruptFileError, match=message):
            idx.read(path, max_bytes)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@given(st.integers(0, 10**6), st.integers(0, 7))
def test_any_flipped_bit_of_a_gzip_file_is_refused_or_harmless(tmp_path_factory, place, bit):
    good = gzip.compress(header(8, 300) + bytes(range(256)) + bytes(44), mtime=0)
    bad = bytearray(good)
    bad[place % len(good)] ^= 1 << bit
    path = tmp_path_factory.mktemp("idx") / "f.gz"
    path.write_bytes(bad)
    try:
        array = idx.read(path)
    except CorruptFileError:
        return
    # Only the time stamp and flags in gzip's own header may change without harm.
    assert place % len(good) < 10
    assert array.tolist() == [*range(256), *[0] * 44]


@pytest.mark.parametrize("cut", [1, 5, 8, 9, 20])
def test_cut_and_padded_gzip(tmp_path, cut):
    good = gzip.compress(SMALL)
    path = tmp_path / "f.gz"
    path.write_bytes(good[:-cut])
    with pytest.raises(CorruptFileError):
        idx.read(path)
    path.write_bytes(good + b"tail")
    with pytest.raises(CorruptFileError, match="more bytes behind it"):
        idx.read(path)


@pytest.mark.parametrize(
    "array", [np.zeros(2, np.int64), np.zeros(2, bool), np.zeros(()), np.array(["a"])]
)
def test_what_the_format_cannot_hold_leaves_the_old_file(tmp_path, array):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(InputError, match="IDX: expected uint8"):
        idx.write(path, array)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


def test_missing_file_and_folder(tmp_path):
    for read in (idx.read, idx.memory_map):
        with pytest.raises(InputError, match="none"):
            read(tmp_path / "none")
        with pytest.raises(InputError):
            read(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot write"):
        idx.write(tmp_path / "file" / "below", np.zeros(1, np.uint8))
