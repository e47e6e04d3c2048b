"""Fuzzing of the IDX reader: it returns the right array or raises DataCorrupt.

As a script, this file reads a given number of inputs in a process with limited address space, and
prints the outcomes as JSON.
"""

import json
import random
import subprocess
import sys
import tempfile
import tracemalloc
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from idx_inputs import array_in, content_of, grammar, header, mutants

from npsoftmax.data import idx
from npsoftmax.errors import DataCorrupt, InputError

ADDRESS_SPACE = 128 * 2**20  # a quarter was enough, most of it for inflating bombs by hand
# No input is larger, compressed or not, except the bombs, which inflate to 4 MiB.
LARGEST = 2**16
# Two copies of the largest input, zlib's windows, a chunk, and an exception's texts.
MEMORY = 2 * LARGEST + 256 * 2**10


@pytest.mark.skipif(sys.platform != "linux", reason="needs the limits of Linux")
@pytest.mark.parametrize(
    "count",
    [pytest.param(1_200, id="quick"), pytest.param(10_000, id="slow", marks=pytest.mark.slow)],
)
def test_fuzz(count, record_property):
    done = subprocess.run([sys.executable, __file__, str(count)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    others = seen["others"]
    record_property("fault", "IDX fuzz, hostile headers and mutated files")
    record_property("id", "F-IDX")
    record_property("inputs", count)
    record_property("expected", "the right array, or DataCorrupt")
    record_property(
        "happened",
        f"{seen['right']} right, {seen['refused']} refused, {len(others)} other; at most "
        f"{seen['peak'] / 2**10:.0f} KiB taken, {seen['resident'] / 2**20:.1f} MiB resident",
    )
    assert others == []
    assert seen["right"] + seen["refused"] == count
    assert min(seen["right"], seen["refused"]) > count // 20
    assert seen["resident"] < 64 * 2**20


def examine(blob: bytes, path: Path) -> tuple[bool, int]:
    """Read an input in every way; return whether it contains an array, and the peak of memory."""
    path.write_bytes(blob)
    plain, content = array_in(blob), content_of(blob)
    inner = None if content is None else array_in(content)
    peak = max(
        expect(plain, path, idx.parse, blob, path),
        expect(inner if blob[:2] == b"\x1f\x8b" else plain, path, idx.read, path, LARGEST),
        expect(None if inner is None else content, path, idx.unpack, blob, path, LARGEST),
        expect(plain, path, idx.memory_map, path),
    )
    expect_header(plain, blob, path)
    if content is not None and inner is None:
        expect_same_place(content, blob, path)
    return not (plain is None and inner is None), peak


def outcome(read, *arguments):
    """Return the result of ``read``, or its error."""
    try:
        return read(*arguments)
    except (DataCorrupt, InputError) as error:
        return error


def expect(right, path, read, *arguments) -> int:
    """Compare ``read`` with the right result, None for an error; return the memory it took."""
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    found = outcome(read, *arguments)
    peak = tracemalloc.get_traced_memory()[1] - before
    assert peak < MEMORY, f"{read.__name__} took {peak} bytes"
    if right is None:
        assert_located(found, path)
    elif read is idx.memory_map and right.itemsize > 1:
        assert type(found) is InputError and "use read" in str(found)
    else:
        assert_same(found, right)
    return peak


def assert_same(found, right) -> None:
    if isinstance(right, bytes):
        assert found == right
        return
    assert isinstance(found, np.ndarray), f"refused a whole file: {found}"
    assert found.dtype == right.dtype.newbyteorder("=") and found.dtype.isnative
    assert found.shape == right.shape and found.flags.c_contiguous
    assert found.astype(right.dtype).tobytes() == right.tobytes()


def assert_located(found, path: Path) -> None:
    assert type(found) is DataCorrupt, f"expected an error, got {found!r}"
    assert found.source == str(path)
    assert type(found.offset) is int and 0 <= found.offset <= LARGEST
    assert found.reason.startswith("expected") and str(found.offset) in str(found)


def expect_header(right, blob: bytes, path: Path) -> None:
    """Compare the header with the array, and the offset of an error with the bytes before it."""
    claim = outcome(idx.parse_header, blob[:260], path)
    if right is not None:
        assert claim[:2] == (right.dtype.newbyteorder("="), right.shape)
        assert claim.stop == len(blob)
        return
    if not isinstance(claim, idx.Header):
        assert_located(claim, path)
    place = outcome(idx.parse, blob, path).offset
    before = outcome(idx.parse, blob[:place], path)
    # The start of a file that ends too early, or a whole file.
    assert isinstance(before, np.ndarray) or before.offset == place, f"byte {place} is not it"
    if isinstance(claim, idx.Header) and array_in(blob[: claim.stop]) is not None:
        assert place == claim.stop, f"byte {place} is not the end"


def expect_same_place(content: bytes, blob: bytes, path: Path) -> None:
    """Compare the error about a whole gzip file with the error about its content."""
    claim = outcome(idx.parse_header, content, path)
    too_large = isinstance(claim, idx.Header) and claim.stop > LARGEST
    place = 4 if too_large else outcome(idx.parse, content, path).offset
    assert outcome(idx.unpack, blob, path, LARGEST).offset == place, f"expected byte {place}"


def fuzz(count: int, path: Path) -> dict[str, object]:
    """Examine ``count`` inputs, half of each kind, in limited memory."""
    import resource

    examine(header(0x0C, 1) + bytes(4), path)  # late imports must not count as memory of an input
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    rng = random.Random(2024)
    outcomes, others, largest = [], [], 0
    tracemalloc.start()
    for blob in chain(grammar(count // 2, rng), mutants(count - count // 2, rng)):
        try:
            whole, peak = examine(blob, path)
        except Exception as error:
            others.append(f"{type(error).__name__}: {error}: {blob[:4096].hex()}")
        else:
            outcomes.append(whole)
            largest = max(largest, peak)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident
    return {
        "right": sum(outcomes),
        "refused": len(outcomes) - sum(outcomes),
        "others": others,
        "peak": largest,
        "resident": grown * 2**10,
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(fuzz(int(sys.argv[1]), Path(folder, "input"))))
