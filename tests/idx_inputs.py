"""Whole and broken IDX files, and their content, decoded without the reader under test."""

import gzip
import math
import os
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

NUMBERS = {8: "u1", 9: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
TEXT, CHECKED, EXTRA, NAME, COMMENT, RESERVED = 1, 2, 4, 8, 16, 32
LENGTHS = (0, 0, 1, 1, 2, 3, 5, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32 - 1)
# Without elements, and with 2^63 - 2^31, 2^63 - 1 and 2^63 elements.
EDGES = (
    *((0, 2**31, 2**32 - 1), (0, 153_092_023, 92_737, 649_657), (2**31, 0, 2**31, 2)),
    *((2**31, 2**32 - 1), (153_092_023, 92_737, 649_657), (2**31, 2**31, 2)),
)
LARGEST_BODY = 20_000
BOMB = 2**22


def header(code: int, *shape: int, axes: int | None = None) -> bytes:
    """Return a header that may claim another number of axes than it has."""
    count = len(shape) if axes is None else axes
    return bytes([0, 0, code, count]) + struct.pack(f">{len(shape)}I", *shape)


def array_in(content: bytes) -> np.ndarray | None:
    """Return the array in an uncompressed IDX file, big-endian, or None."""
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in NUMBERS:
        return None
    axes = content[3]
    if not 1 <= axes <= 64 or len(content) < 4 + 4 * axes:
        return None
    shape = struct.unpack_from(f">{axes}I", content, 4)
    try:
        return np.frombuffer(content[4 + 4 * axes :], NUMBERS[content[2]]).reshape(shape)
    except ValueError:
        return None


def content_of(blob: bytes) -> bytes | None:
    """Return the content of a gzip file of one member according to RFC 1952, or None."""
    if blob[:3] != b"\x1f\x8b\x08":
        return None
    try:
        flags, place = blob[3], 10
        if flags & EXTRA:
            place += 2 + int.from_bytes(blob[place : place + 2], "little")
        for flag in (NAME, COMMENT):
            if flags & flag:
                place = blob.index(0, place) + 1
        if flags & CHECKED:
            if blob[place : place + 2] != (zlib.crc32(blob[:place]) & 0xFFFF).to_bytes(2, "little"):
                return None
            place += 2
        inflater = zlib.decompressobj(wbits=-15)
        content = inflater.decompress(blob[place:])
    except (IndexError, ValueError, zlib.error):
        return None
    trailer = struct.pack("<II", zlib.crc32(content), len(content))
    if flags >= RESERVED or inflater.unused_data != trailer:
        return None
    assert gzip.decompress(blob) == content, "two readers of gzip disagree"
    return content


def packed(content: bytes, rng: random.Random, flags: int = 0) -> bytes:
    """Compress ``content`` into one gzip member whose header has these optional fields."""
    head = b"\x1f\x8b\x08" + bytes([flags]) + rng.randbytes(6)
    if flags & EXTRA:
        extra = rng.randbytes(rng.choice([0, 4, 300]))
        head += struct.pack("<H", len(extra)) + extra
    for flag, text in ((NAME, b"t10k-labels-idx1-ubyte\0"), (COMMENT, b"\xe9t\xe9\0")):
        head += text if flags & flag else b""
    if flags & CHECKED:
        head += struct.pack("<H", zlib.crc32(head) & 0xFFFF)
    deflater = zlib.compressobj(rng.choice([0, 1, 9]) if len(content) < BOMB else 1, wbits=-15)
    body = deflater.compress(content) + deflater.flush()
    return head + body + struct.pack("<II", zlib.crc32(content), len(content))


def grammar(count: int, rng: random.Random) -> Iterator[bytes]:
    """Yield files derived from the format, starting with each number of axes and each type."""
    for number in range(count):
        if number < 256:
            content = _content(rng, rng.choice([*NUMBERS]), [1] * number)
        elif number < 512:
            content = _content(rng, number - 256, [2, 3])
        else:
            code = rng.choice([*NUMBERS]) if rng.random() < 0.9 else rng.randrange(256)
            content = _damage(_content(rng, code, _shape(rng)), rng)
        yield rng.choice([_plain, packed, _wrapped if number >= 512 else _plain])(content, rng)


def mutants(count: int, rng: random.Random) -> Iterator[bytes]:
    """Yield whole files with some bytes changed."""
    whole = [*_whole_files(rng)]
    for _ in range(count):
        content = bytearray(rng.choice(whole))
        for _ in range(rng.choice([1, 1, 1, 2, 4])):
            _mutate(content, rng)
        yield bytes(content)


def _shape(rng: random.Random) -> list[int]:
    axes = rng.choice([1, 1, 2, 3, 4, 32, 33, 64, 65, rng.randrange(256)])
    kind = rng.random()
    if kind < 0.1:
        return [*rng.choice(EDGES)]
    if kind < 0.5:
        return rng.choices(LENGTHS, k=axes)
    shape = [1] * axes
    for axis in rng.sample(range(axes), min(axes, 3)):
        shape[axis] = rng.choice([0, 1, 2, 3, 5, 20])
    return shape


def _content(rng: random.Random, code: int, shape: list[int]) -> bytes:
    """Return a header and the content that it announces, unless that is too large."""
    claim = math.prod(shape) * np.dtype(NUMBERS.get(code, "u1")).itemsize
    return header(code, *shape) + rng.randbytes(claim if claim <= LARGEST_BODY else 100)


def _damage(content: bytes, rng: random.Random) -> bytes:
    """Make half of the files longer, shorter, or not IDX."""
    ways = (
        lambda: content[:-1],
        lambda: content + rng.randbytes(rng.choice([1, 8, 1000])),
        lambda: content[: rng.randrange(len(content))],
        lambda: content[: rng.randrange(min(len(content), 300))],
        lambda: rng.randbytes(2) + content[2:],
        lambda: content + content,
    )
    return content if rng.random() < 0.5 else rng.choice(ways)()


def _plain(content: bytes, rng: random.Random) -> bytes:
    return content


def _wrapped(content: bytes, rng: random.Random) -> bytes:
    """Compress in one of several right or wrong ways."""
    flags = rng.choice([0, 0, TEXT, CHECKED, EXTRA, NAME, COMMENT, rng.randrange(RESERVED)])
    whole = packed(content, rng, flags)
    ways = {
        "whole": lambda: whole,
        "cut": lambda: whole[: rng.randrange(2, len(whole))],
        "padded": lambda: whole + rng.choice([b"\0", bytes(512), rng.randbytes(9)]),
        "reserved flag": lambda: packed(content, rng, flags | 32 << rng.randrange(3)),
        "wrong checksum": lambda: whole[:-8] + rng.randbytes(4) + whole[-4:],
        "wrong length": lambda: whole[:-4] + rng.randbytes(4),
        "two members": lambda: packed(content[:9], rng) + packed(content[9:], rng, flags),
        "an empty member first": lambda: packed(b"", rng) + whole,
        "an empty member last": lambda: whole + packed(b"", rng),
        "bomb": lambda: packed(content[: rng.choice([0, 8, 300])] + bytes(BOMB), rng, flags),
    }
    return ways[rng.choice([*["whole"] * len(ways), *ways])]()


def _whole_files(rng: random.Random) -> Iterator[bytes]:
    for code in NUMBERS:
        for shape in ((3,), (0, 4), (2, 3, 5), (40, 30)):
            size = math.prod(shape) * np.dtype(NUMBERS[code]).itemsize
            content = header(code, *shape) + rng.randbytes(size)
            yield from (content, packed(content, rng), packed(content, rng, CHECKED | NAME))
    folder = Path(os.environ.get("NPSOFTMAX_DATA", "nowhere"), "fashion-mnist")
    for path in folder.glob("t10k-labels-idx1-ubyte.gz"):
        yield from (path.read_bytes(), gzip.decompress(path.read_bytes()))


def _flip(old: bytes, rng: random.Random) -> bytes:
    return bytes(byte ^ 1 << rng.randrange(8) for byte in old[:1]) + old[1:]


MUTATIONS = (
    *(_flip, _flip),
    lambda old, rng: rng.randbytes(len(old)),
    lambda old, rng: bytes(len(old)),
    lambda old, rng: rng.randbytes(rng.choice([1, 2, 4, 50])) + old,
    lambda old, rng: b"",
    lambda old, rng: old + old,
)


def _mutate(content: bytearray, rng: random.Random) -> None:
    """Change, insert, delete or repeat a few bytes, half of them in the headers, or cut the end."""
    if rng.random() < 0.1:
        del content[rng.randrange(len(content) + 1) :]
    start = min(rng.randrange(len(content) + 1), rng.choice([24, len(content)]))
    span = slice(start, start + rng.choice([1, 2, 4, 50]))
    content[span] = rng.choice(MUTATIONS)(bytes(content[span]), rng)
