"""The IDX format: round trips, hostile headers, damaged files."""

import gzip
import os
import random
import re
import struct
import subprocess
import sys
import tracemalloc
import zlib
from contextlib import contextmanager
from itertools import count

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from idx_inputs import CHECKED, COMMENT, EXTRA, NAME, TEXT, header, packed

from npsoftmax.data import idx
from npsoftmax.errors import DataCorrupt, InputError, OutputError

TYPES = [np.uint8, np.int8, np.int16, np.int32, np.float32, np.float64]


SMALL = header(8, 2, 3) + bytes(range(6))
SMALL_GZ = gzip.compress(SMALL, mtime=0)


@contextmanager
def memory_below(limit):
    """Fail if the block takes more bytes."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


def error_of(read, *arguments):
    """Return the DataCorrupt that a reader raises."""
    with pytest.raises(DataCorrupt) as caught:
        read(*arguments)
    error = caught.value
    assert str(error) == f"{error.source}: at byte {error.offset}: {error.reason}"
    return error


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
    assert error_of(idx.memory_map, path).offset == 17
    path.write_bytes(gzip.compress(SMALL))
    assert "expected 00, got 1f 8b 08 00" in error_of(idx.memory_map, path).reason


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


@pytest.fixture
def sparse_file(tmp_path):
    """Write 0.8 GB of zeros as a sparse file."""
    path = tmp_path / "images"
    with open(path, "wb") as file:
        file.write(header(8, 8_000, 320, 320))
        file.truncate(file.tell() + 8_000 * 320 * 320)
    return path


def train_within(limit, file):
    """Train on the file in a process with a limit of memory."""
    if sys.platform != "linux":
        pytest.skip("needs the limits of Linux")
    command = [sys.executable, "-c", LIMITED, str(file), limit]
    return subprocess.run(command, capture_output=True, text=True)


def test_training_on_a_file_larger_than_the_memory_limit(sparse_file):
    done = train_within("RLIMIT_DATA", sparse_file)
    assert done.stderr == ""
    assert float(done.stdout) < np.log(3)


def test_a_map_larger_than_the_address_space_raises_an_error(sparse_file):
    done = train_within("RLIMIT_AS", sparse_file)
    assert re.fullmatch(r"cannot map .*819,200,016 bytes.*ulimit -v.*\n", done.stderr)


@pytest.mark.parametrize(
    ("content", "offset", "reason"),
    [
        (b"", 0, "expected 00, got the end"),
        (b"\0\0\x08", 3, "axes, got the end"),
        (b"\1\0\x08\1", 0, "expected 00, got 01 00 08 01"),
        (b"\0\1\x08\1", 1, "expected 00, got 01 08 01"),
        (b"<!DOCTYPE html>", 0, "expected 00, got 3c 21 44 4f"),
        (header(0x0A, 1) + b"\0", 2, "expected the type 08, 09 or 0b to 0e, got 0a 01"),
        (header(8) + b"\x07", 3, "expected 01 to 40 .* axes, got 00"),
        (header(8, *[1] * 65) + b"\0", 3, "expected 01 to 40 .* axes, got 41"),
        (header(8, 2, axes=3), 8, "expected the lengths of 3 axes, got the end"),
        (header(8, 2**32 - 1, 2**32 - 1), 4, "expected an array that NumPy can hold"),
        (header(8, 0, 2**32 - 1, 2**32 - 1), 4, "expected an array that NumPy can hold"),
        (header(0x0E, 2**30, 2**30), 4, r"float64 of shape \(1073741824, 1073741824\)"),
        (header(9, 1, 0x10000002, 0x80000041), 16, "got (16|a claim)"),
        (header(8, 5_000_000, 2**15, 2**15), 16, "5368709120000016"),
        (SMALL[:-1], 17, "expected 18 bytes .*got 17"),
        (SMALL + b"\0", 18, "expected 18 bytes .*got more"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_hostile_content_is_refused_before_memory_is_allocated(
    tmp_path, content, offset, reason, compressed
):
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(content) if compressed else content)
    with memory_below(2**20):
        error = error_of(idx.read, path)
    if compressed and "a claim" in error.reason:
        offset = 4  # of the lengths, which claim more than max_bytes
    assert error.source == str(path) and error.offset == offset
    assert re.search(reason, error.reason)


@pytest.mark.parametrize(
    ("start", "zeros", "max_bytes", "offset", "reason"),
    [
        (header(8, 2**26), 2**26, 2**20, 4, "max_bytes=1048576, got a claim of 67108872"),
        (header(8, 2**30 - 8), 0, 2**30, 8, "expected 1073741824 bytes .* got 8"),
        (SMALL, 2**26, 2**30, 18, "expected 18 bytes .* got more"),
        (header(8, 123), 2**26, 2**30, 131, "expected 131 bytes .* got more"),
        (header(8, 1000), 2**26, 2**30, 1008, "expected 1008 bytes .* got more"),
    ],
)
def test_gzip_bombs_are_refused_before_memory_is_allocated(
    tmp_path, start, zeros, max_bytes, offset, reason
):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(start + bytes(zeros)))
    with memory_below(2**20):
        error = error_of(idx.read, path, max_bytes)
    assert error.offset == offset and re.search(reason, error.reason)


def test_the_size_of_a_file_is_limited(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(SMALL)
    assert idx.read(path, 18).shape == (2, 3)
    error = error_of(idx.read, path, 17)
    assert error.offset == 17 and "max_bytes=17, got 18 bytes" in error.reason
    compressed = gzip.compress(SMALL)
    assert idx.unpack(compressed, path, 18) == SMALL
    error = error_of(idx.unpack, compressed, path, 17)
    assert error.offset == 4 and "max_bytes=17, got a claim of 18" in error.reason


@pytest.mark.parametrize("code", [0x08, 0x0E])
@pytest.mark.parametrize("noise", [0, 2**22])
def test_at_most_two_copies_of_the_content_are_in_memory(tmp_path, rng, code, noise):
    size = 2**23
    content = header(code, size // (8 if code == 0x0E else 1)) + rng.bytes(noise)
    content += bytes(size + 8 - len(content))
    path = tmp_path / "file"
    for blob in (content, gzip.compress(content, 1)):
        path.write_bytes(blob)
        compressed = len(blob) if blob is not content else 0
        with memory_below(2 * len(content) + compressed + 2**18):
            assert idx.read(path).nbytes == size


def test_a_header_alone_allocates_no_memory():
    for content in (header(8, 2**30 - 8), header(8, 2**30 - 8) + bytes(500)):
        compressed = gzip.compress(content)
        with memory_below(2**18):
            assert error_of(idx.unpack, compressed, "claim.gz").offset == len(content)
            assert error_of(idx.parse, content, "claim").offset == len(content)


def test_empty_arrays_up_to_the_limit_of_numpy():
    for content, shape in (
        (header(0x0E, 3, 0), (3, 0)),
        (header(8, 0, 2**31, 2**32 - 1), (0, 2**31, 2**32 - 1)),
    ):
        assert idx.parse(content).shape == shape and idx.parse(content).dtype.isnative
    assert error_of(idx.parse, header(9, 2**31, 0, 2**31, 2), "empty").offset == 4


def test_an_array_of_64_axes_is_written(tmp_path):
    idx.write(tmp_path / "file", np.full((1,) * 64, 7, np.int32))
    assert (tmp_path / "file").read_bytes() == header(0x0C, *[1] * 64) + b"\0\0\0\7"


@pytest.mark.parametrize(
    ("blob", "offset", "reason"),
    [
        (zlib.compress(SMALL), 1, "expected whole gzip data"),
        (SMALL, 1, "expected whole gzip data"),
        *(
            (SMALL_GZ[:stop], len(SMALL_GZ[:stop]), "more of the compressed file, got its end")
            for stop in (0, -20, -9, -8, -5, -1)
        ),
        *(
            (SMALL_GZ + tail, len(SMALL_GZ), "got more bytes after it")
            for tail in (b"\0", b"tail", gzip.compress(b""), SMALL_GZ, bytes(512), bytes(2**17))
        ),
        (gzip.compress(SMALL[:9]) + gzip.compress(SMALL[9:]), 9, "the lengths of 2 axes"),
        (gzip.compress(b"") + SMALL_GZ, 0, "expected 00, got the end"),
    ],
    ids=count(),
)
def test_anything_but_one_whole_gzip_member_is_refused(blob, offset, reason):
    error = error_of(idx.unpack, blob, "f.gz")
    assert error.offset == offset and reason in error.reason


@pytest.mark.parametrize("flags", [0, TEXT, EXTRA, NAME, COMMENT, CHECKED, 31])
def test_the_optional_fields_of_gzip(flags):
    rng = random.Random(flags)
    good = packed(SMALL, rng, flags)
    assert gzip.decompress(good) == SMALL == idx.unpack(good, "f.gz")
    bad = bytearray(good)
    bad[3] |= 32
    error = error_of(idx.unpack, bytes(bad), "f.gz")
    assert error.offset == 3 and "unknown header flags" in error.reason


def test_a_damaged_gzip_header_that_has_a_checksum():
    bad = bytearray(packed(SMALL, random.Random(0), CHECKED))
    bad[5] ^= 1  # the time stamp, otherwise harmless
    error = error_of(idx.unpack, bytes(bad), "f.gz")
    assert error.offset == 11 and "header crc mismatch" in error.reason


def test_the_offset_of_damage_in_a_gzip_file():
    content = header(8, 150_000) + bytes(150_000)
    blocks = [content[i : i + 50_000] for i in range(0, len(content), 50_000)]
    stored = [
        bytes([block is blocks[-1]]) + struct.pack("<HH", len(block), 65535 - len(block)) + block
        for block in blocks
    ]
    trailer = struct.pack("<II", zlib.crc32(content), len(content))
    good = b"\x1f\x8b\x08" + bytes(7) + b"".join(stored) + trailer
    assert idx.parse(idx.unpack(good, "f.gz")).shape == (150_000,)
    third = 10 + 2 * 50_005
    trailer = len(good) - 8
    # The damaged byte, and the byte at which zlib detects it.
    for damaged, detected in ((third, third), (third + 1, third + 4), (trailer, trailer + 3)):
        bad = bytearray(good)
        bad[damaged] ^= 6
        error = error_of(idx.unpack, bytes(bad), "f.gz")
        assert error.source == "f.gz" and error.offset == detected
        assert "gzip" in error.reason


@pytest.mark.parametrize(
    "array", [np.zeros(2, np.int64), np.zeros(2, bool), np.zeros(()), np.array(["a"])]
)
def test_an_unsupported_array_leaves_the_old_file(tmp_path, array):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(InputError, match="IDX: expected uint8"):
        idx.write(path, array)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for read in (idx.read, idx.memory_map):
        with pytest.raises(InputError, match="none"):
            read(tmp_path / "none")
        with pytest.raises(InputError):
            read(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot write"):
        idx.write(tmp_path / "file" / "below", np.zeros(1, np.uint8))
