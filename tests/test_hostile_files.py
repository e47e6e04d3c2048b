"""Hostile files: refused with a reason, or read correctly.

Every file has a right seal, because anyone who can write a file can seal it. Run as a script, this
module is the process that reads the files, each in an audited child with bounded memory and time.
"""

import gc
import hashlib
import io
import json
import os
import pickle
import random
import re
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from npsoftmax import SoftmaxRegression, storage
from npsoftmax.checkpoint import SOLVER_KIND, Checkpoint, SolverCheckpoint, verify_files
from npsoftmax.errors import CorruptFileError
from npsoftmax.files import quoted
from npsoftmax.history import EpochRecord, IterationRecord, Progress

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the limits are Linux's")

ROOT = Path(__file__).parents[1]
MIB = 2**20
LONGEST_REASON = 500
# A refused file may take MEMORY and 2.5 times its size.
MEMORY, ADDRESS_SPACE = 50 * MIB, 2**30
CPU_SECONDS, WALL_SECONDS = 10, 60
TRAIN = ["--dataset", "garments", "--batch-size", "2", "--optimiser", "momentum", "--epochs"]
SOLVE = ["--dataset", "garments", "--solver", "lbfgs", "--l2", "0.1", "--max-iterations"]

Parts = dict[str, bytes]


# How hostile files are built


@dataclass
class Member:
    """A member of a zip archive, with the true or false claims of its two headers."""

    name: bytes
    data: bytes
    listed: bytes | None = None
    flags: int = 0
    method: int = 0
    size: int | None = None
    stored: int | None = None
    crc: int | None = None
    extra: bytes = b""
    descriptor: bytes = b""
    at: int | None = None


def seal(content: bytes) -> bytes:
    body = content + b"npsoftmax sha256 "
    return body + hashlib.sha256(body).hexdigest().encode()


def archive(
    members: Parts | list[Member],
    prefix: bytes = b"",
    between: bytes = b"",
    more: bytes = b"",
    before_end: bytes = b"",
    end: dict[str, int] | None = None,
    **every: Any,
) -> bytes:
    """Return a sealed archive, by default one that every reader accepts.

    ``more`` is added to the directory; ``every`` are claims of each member, ``end`` of the end.
    """
    if isinstance(members, dict):
        members = [Member(name.encode(), data, **every) for name, data in members.items()]
    body, listing = [prefix], []
    place = len(prefix)
    for member in members:
        local, listed = headers(member, place + len(between))
        body += [between, local, member.data, member.descriptor]
        listing.append(listed)
        place += len(between) + len(local) + len(member.data) + len(member.descriptor)
    table = b"".join(listing) + more
    claims = {"entries": len(members), "size": len(table), "offset": place, **(end or {})}
    numbers = (claims["entries"], claims["entries"], claims["size"], claims["offset"], 81)
    last = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, *numbers)
    return seal(b"".join([*body, table, before_end, last]))


def headers(member: Member, place: int) -> tuple[bytes, bytes]:
    """Return the header before a member, and its entry in the directory."""
    size = len(member.data) if member.size is None else member.size
    stored = len(member.data) if member.stored is None else member.stored
    crc = zlib.crc32(member.data) if member.crc is None else member.crc
    listed = member.name if member.listed is None else member.listed
    common = (member.flags, member.method, 0, 33, crc, stored, size)
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, *common, len(member.name), 0) + member.name
    at = place if member.at is None else member.at
    rest = (len(listed), len(member.extra), 0, 0, 0, 0, at)
    return local, struct.pack(
        "<4s6H3L5H2L", b"PK\1\2", 20, 20, *common, *rest
    ) + listed + member.extra


def compress_members(parts: Parts, bits: int = -15) -> bytes:
    """Return an archive of compressed members with true claims."""
    members = []
    for name, data in parts.items():
        squeezer = zlib.compressobj(9, zlib.DEFLATED, bits)
        small = squeezer.compress(data) + squeezer.flush()
        true = {"size": len(data), "crc": zlib.crc32(data)}
        members.append(Member(name.encode(), small, method=8, **true))
    return archive(members)


def npy(descr: object, shape: object, data: bytes = b"", fortran: object = False) -> bytes:
    """Return a .npy file with these claims, true or not."""
    header = f"{{'descr': {descr!r}, 'fortran_order': {fortran!r}, 'shape': {shape!r}, }}"
    return npy_header(header.encode() + b" " * (-len(header) - 11 & 63) + b"\n", data)


def npy_header(header: bytes, data: bytes = b"", version: bytes = b"\1\0") -> bytes:
    length = struct.pack("<H" if version == b"\1\0" else "<L", len(header))
    return b"\x93NUMPY" + version + length + header + data


def array(value: Any, dtype: Any = None) -> bytes:
    """Return a correct .npy file of any dtype; objects are pickled."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(value, dtype), allow_pickle=True)
    return stream.getvalue()


def bytes_array(document: bytes) -> bytes:
    return array(np.frombuffer(document, np.uint8))


def document_of(parts: Parts) -> Any:
    return json.loads(np.load(io.BytesIO(parts["metadata.npy"])).tobytes())


def with_text(text: bytes) -> Callable[[Parts], bytes]:
    return with_arrays(metadata=bytes_array(text))


def with_value(place: str, value: Any) -> Callable[[Parts], bytes]:
    """Set a value of the metadata, for example ``content.progress.step``; ``...`` removes it."""

    def make(parts: Parts) -> bytes:
        document = inner = document_of(parts)
        *path, last = [int(k) if re.fullmatch("-?[0-9]+", k) else k for k in place.split(".")]
        for key in path:
            inner = inner[key]
        if value is ...:
            del inner[last]
        else:
            inner[last] = value
        return with_text(json.dumps(document).encode())(parts)

    return make


def with_arrays(**arrays: bytes) -> Callable[[Parts], bytes]:
    """Add or replace arrays; a double underscore in a name is a dot."""
    more = {f"{name.replace('__', '.')}.npy": data for name, data in arrays.items()}
    return lambda parts: archive({**parts, **more})


def without(name: str) -> Callable[[Parts], bytes]:
    return lambda parts: archive({key: data for key, data in parts.items() if key != name})


def with_member(name: bytes, **claims: Any) -> Callable[[Parts], bytes]:
    """Add a member with a strange name or strange claims."""
    return lambda parts: archive(
        [*(Member(n.encode(), d) for n, d in parts.items()), Member(name, array(1.0), **claims)]
    )


def with_theta_named(name: bytes) -> Callable[[Parts], bytes]:
    return lambda parts: archive(
        [Member(name if n == "theta.npy" else n.encode(), d) for n, d in parts.items()]
    )


def hide_metadata(parts: Parts) -> bytes:
    """Hide the metadata with its header among the numbers of another array."""
    metadata = Member(b"metadata.npy", parts["metadata.npy"])
    hidden = headers(metadata, 0)[0] + metadata.data
    outer = Member(b"outer.npy", array(np.frombuffer(hidden, np.uint8)))
    inside = len(headers(outer, 0)[0]) + len(outer.data) - len(hidden)
    rest = [Member(n.encode(), d) for n, d in parts.items() if n != "metadata.npy"]
    return archive([outer, *rest], more=headers(metadata, inside)[1])


class Bomb:
    """Leaves a file behind if it is ever unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch ran",))


# The catalogue


READER, ALL, EITHER = "by its reader", "by all", ""
EVERY = ("model", "checkpoint", SOLVER_KIND)
MODEL, CHECKPOINT, SOLVER = ("model",), ("checkpoint",), (SOLVER_KIND,)


@dataclass(frozen=True)
class Case:
    """A hostile file and the readers that must refuse it; the others must read it correctly."""

    id: str
    fault: str
    make: Callable[[Parts], bytes]
    refused: str = READER  # or by ALL; or EITHER, if reading it correctly is also right
    kinds: tuple[str, ...] = EVERY
    # The change that a reader must find if it accepts the file.
    changed: tuple[str, Any] | None = None


CODE = "__import__('os').system('touch ran')"
DEEP = b"[" * 100_000 + b"]" * 100_000


def claim(**claims: Any) -> Callable[[Parts], bytes]:
    return lambda parts: archive(parts, **claims)


def list_again(name: bytes) -> Callable[[Parts], bytes]:
    def make(parts: Parts) -> bytes:
        theta = Member(b"theta.npy", parts["theta.npy"], listed=name)
        return archive(parts, more=headers(theta, 0)[1])

    return make


def under_two_names(parts: Parts) -> bytes:
    """List theta under another name than the one in front of its bytes."""
    theta = Member(b"theta.npy", parts["theta.npy"], listed=b"other.npy")
    return archive([theta, Member(b"metadata.npy", parts["metadata.npy"])])


def swap_members(parts: Parts) -> bytes:
    return archive(dict(zip(parts, reversed(parts.values()), strict=True)))


def with_zeros(parts: Parts) -> bytes:
    return compress_members({**parts, "zeros.npy": array(np.zeros(200 * MIB, np.uint8))})


TOP = 2**32 - 1
HUGE = struct.pack("<HHQQ", 1, 16, 2**62, 2**62)
MILLION = headers(Member(b"x.npy", b""), 0)[1] * 10**6

ARCHIVES = [
    Case("bomb", "200 MB of zeros, compressed", with_zeros, ALL, MODEL),
    Case("entries", "a directory of a million members", claim(more=MILLION), ALL, MODEL),
    *(
        Case(label, fault, make, verdict)
        for label, fault, make, verdict in [
            ("as-it-should-be", "nothing, for comparison", archive, EITHER),
            ("no-archive", "a seal and nothing else", lambda p: seal(b""), ALL),
            ("pickle", "a pickle", lambda p: seal(pickle.dumps(Bomb())), ALL),
            ("compressed", "compressed members", compress_members, ALL),
            ("lzma", "LZMA without LZMA data", claim(method=14), ALL),
            ("encrypted", "members that claim to be encrypted", claim(flags=1), ALL),
            ("patched", "members that claim to be patches", claim(flags=0x20), ALL),
            ("descriptors", "sizes behind the data", claim(flags=8, descriptor=bytes(16)), EITHER),
            ("polyglot", "a script before the archive", claim(prefix=b"#!/bin/sh\n"), EITHER),
            ("two-in-one", "another archive before it", lambda p: archive(p, archive(p)), EITHER),
            ("gaps", "bytes between the members", claim(between=b"gap" * 99), EITHER),
            ("tail", "bytes before the end of the directory", claim(before_end=bytes(99)), EITHER),
            ("duplicate", "a name twice", with_member(b"theta.npy"), ALL),
            ("twice", "a member listed twice", list_again(b"theta.npy"), ALL),
            ("alias", "a member under a second name", list_again(b"again.npy"), ALL),
            ("hidden", "a member inside another's numbers", hide_metadata, READER),
            ("swapped", "theta and metadata swapped", swap_members, ALL),
            ("reordered", "another order", lambda p: archive(dict(reversed(p.items()))), EITHER),
            ("no-members", "no members", lambda p: archive({}), ALL),
            ("no-metadata", "no metadata", without("metadata.npy"), ALL),
            ("no-theta", "no theta", without("theta.npy"), READER),
            ("crc", "wrong CRC-32", claim(crc=1), EITHER),
            ("short", "members that claim too little", claim(size=70, stored=70), ALL),
            ("long", "members that claim too much", claim(size=2**31, stored=2**31), ALL),
            ("sizes", "members whose two sizes differ", claim(size=70), ALL),
            ("zip64", "2^62 bytes by zip64", claim(size=TOP, stored=TOP, extra=HUGE), ALL),
            ("extra", "an extra field that is cut off", claim(extra=b"\x75\x70\xff\xff"), EITHER),
            ("count", "an end that claims 65,535 members", claim(end={"entries": 65_535}), EITHER),
            ("offset", "a directory beyond the end", claim(end={"offset": 2**31}), ALL),
            ("directory-cut", "a directory cut in an entry", claim(end={"size": 50}), ALL),
            ("place", "members beyond the end", claim(at=2**31), ALL),
            ("other-name", "a member whose two names differ", under_two_names, ALL),
            ("name-utf8", "a name that is not UTF-8", with_member(b"\xff.npy", flags=0x800), ALL),
            ("name-nul", "a name with a NUL", with_theta_named(b"theta.npy\0.py"), EITHER),
            ("name-long", "65,000 letters for a name", with_member(b"x" * 65_000 + b".npy"), ALL),
        ]
    ),
    *(
        Case(f"name-{label}", f"a member named {name!r}", with_member(name), ALL)
        for label, name in [
            ("up", b"../x.npy"),
            ("absolute", b"/etc/x.npy"),
            ("drive", b"C:\\x.npy"),
            ("code", b"x.py"),
            ("empty", b""),
            ("reserved", b"allow_pickle.npy"),
            ("escape", b"\x1b[2J\x1b]0;owned\x07.npy"),
        ]
    ),
]

NINE = bytes(36)  # the size of theta
TRUE_HEADER = b"{'descr': '<f4', 'fortran_order': True, 'shape': (3, 3), }"


def npy_with(old: bytes, new: bytes) -> bytes:
    return npy_header(TRUE_HEADER.replace(old, new), NINE)


HEADERS = [
    Case(f"npy-{label}", f"a .npy header with {wrong}", with_arrays(theta=theta), verdict, MODEL)
    for label, wrong, theta, verdict in [
        ("version-2", "version 2.0", npy_header(TRUE_HEADER, NINE, b"\2\0"), ALL),
        ("magic", "another magic string", b"\x93NUMPX" + array(1.0)[6:], ALL),
        ("empty", "nothing at all", b"", ALL),
        ("length", "a length beyond the end", b"\x93NUMPY\1\0\xff\xff{}", ALL),
        ("terabytes", "terabytes", npy("<f4", (10**6, 10**6)), ALL),
        ("2-to-70", "2^70 numbers", npy("<f4", (2**70,)), ALL),
        ("overflow", "a product that is 0 modulo 2^64", npy("<f4", (2**32, 2**32)), ALL),
        ("negative", "a negative length", npy("<f4", (-9,), NINE), ALL),
        ("more", "a shape of one byte more than the data", npy("<f4", (3, 3), NINE[1:]), ALL),
        ("less", "a shape of one byte less than the data", npy("<f4", (3, 3), NINE + b"x"), ALL),
        ("axes", "65 axes", npy("<f4", (1,) * 65, NINE[:4]), ALL),
        ("axes-many", "20,000 axes", npy("<f4", (9,) * 20_000, NINE), ALL),
        ("no-tuple", "a number for a shape", npy("<f4", 9, NINE), ALL),
        ("order", "1 for the order", npy("<f4", (3, 3), NINE, 1), ALL),
        ("nested", "tuples in tuples, 5,000 deep", npy_header(b"(" * 4990 + b")" * 4990), ALL),
        ("signs", "9,000 minus signs", npy_header(b"{'shape': " + b"-" * 9000 + b"1}"), ALL),
        ("code", "code", npy_header(CODE.encode(), NINE), ALL),
        ("code-descr", "code for a dtype", npy(CODE, (3, 3), NINE), ALL),
        ("python-2", "numbers of Python 2", npy_with(b"3, 3", b"3L, 3L"), EITHER),
        ("long", "9,000 bytes that are not a literal", npy_header(b"\n\x1b[2J" * 1800), ALL),
        ("nul", "a NUL", npy_header(TRUE_HEADER + b"\0", NINE), ALL),
        ("keys", "other keys", npy_header(b"{'" + b"a" * 9000 + b"': 1}"), ALL),
        ("more-keys", "an additional key", npy_header(TRUE_HEADER[:-1] + b"'x': 1}", NINE), ALL),
        ("twice", "a key twice", npy_header(TRUE_HEADER[:-1] + b"'shape': (3, 3)}", NINE), EITHER),
        ("object", "dtype object", npy("|O", (9,), NINE), ALL),
        ("pickle", "dtype object, and a pickle", array([Bomb()], object), ALL),
        ("structured", "a structured dtype", array([(1.0, 2)], "f4,i4"), ALL),
        ("hidden-object", "an object in a structured dtype", npy([("x", "|O")], (4,), NINE), ALL),
        ("unicode", "dtype text", array(["a"]), ALL),
        ("date", "dtype datetime64", array(["2026-01-01"], "M8[D]"), ALL),
        ("void", "dtype void", array([b"a"], "V8"), ALL),
        ("complex", "dtype complex", array([[1j]]), ALL),
        ("nothing", "an item of no bytes", npy("|V0", (2**62,)), ALL),
        ("descr", "a dtype that does not exist", npy("<f99999999", (3, 3), NINE), ALL),
        ("descr-alias", "a dtype by its short name", npy("f", (3, 3), NINE), EITHER),
    ]
]

THETAS = [
    Case(f"theta-{label}", f"theta {wrong}", with_arrays(theta=theta))
    for label, wrong, theta in [
        ("scalar", "without axes", array(1.0)),
        ("1-d", "with one axis", array(np.zeros(9))),
        ("no-classes-wide", "without classes, 2^40 columns wide", npy("<f4", (0, 2**40))),
        ("no-columns-high", "without columns, 2^40 classes high", npy("<f4", (2**40, 0))),
        ("no-features", "of biases alone", array(np.zeros((3, 1)))),
        ("int", "of integers", array(np.zeros((3, 3), int))),
        ("float16", "in float16", array(np.zeros((3, 3), np.float16))),
        ("longdouble", "in extended precision", array(np.zeros((3, 3), np.longdouble))),
        ("big-endian", "in another byte order", array(np.zeros((3, 3), ">f4"))),
        ("nan", "with a NaN", array(np.float32([[0, 0, 0], [0, 0, 0], [0, 0, np.nan]]))),
        ("infinite", "of infinities", array(np.full((3, 3), -np.inf, np.float32))),
    ]
]


def unnamed_classes(parts: Parts) -> bytes:
    document = {"kind": "model", "format_version": 1, "content": {"pixel_scale": 1.0}}
    theta = array(np.zeros((4_000_000, 2), np.float32))
    return archive({"theta.npy": theta, "metadata.npy": bytes_array(json.dumps(document).encode())})


SQUARE = array(np.zeros((3, 3), np.float32))
HIDDEN = {"theta": array(np.nan), "optimiser__theta": SQUARE}
MANY = {f"step__{n}": SQUARE for n in range(2000)}

ARRAYS = [
    Case(label, fault, with_arrays(**arrays), READER, kinds)
    for label, fault, arrays, kinds in [
        ("extra-array", "an additional array", {"extra": SQUARE}, MODEL + SOLVER),
        ("many-arrays", "2,000 additional arrays", MANY, MODEL + CHECKPOINT + SOLVER),
        ("more-rows", "more rows than classes", {"theta": array(np.zeros((4, 3), "f4"))}, MODEL),
        ("second-theta", "a theta that hides another", HIDDEN, CHECKPOINT),
        ("no-prefix", "a state without its prefix", {"velocity": SQUARE}, CHECKPOINT),
        ("state-nan", "a NaN in the state", {"optimiser__x": array(np.float32("nan"))}, CHECKPOINT),
        ("half-pair", "a step without its change", {"step__9": SQUARE}, SOLVER),
        ("anchor", "an anchor of another shape", {"anchor": array(np.ones(3))}, SOLVER),
    ]
] + [Case("unnamed", "four million classes without names", unnamed_classes, READER, MODEL)]


def fill_json(item: bytes) -> bytes:
    """Return a JSON list of this item with the largest accepted size."""
    return b"[" + (item + b",") * ((MOST_JSON - 99) // (len(item) + 1)) + item + b"]"


def in_utf_16(parts: Parts) -> bytes:
    return with_text(json.dumps(document_of(parts)).encode("utf-16"))(parts)


def with_letters(parts: Parts) -> bytes:
    """Put a letter into the metadata that json.dumps would escape."""
    document = {**document_of(parts), "note": "\u00e9"}
    return with_text(json.dumps(document, ensure_ascii=False).encode())(parts)


def with_key_twice(parts: Parts) -> bytes:
    """Put two kinds into the metadata, of which the last is valid."""
    return with_text(b'{"kind": "x", ' + json.dumps(document_of(parts)).encode()[1:])(parts)


MOST_JSON = storage.MAX_METADATA_BYTES
WIDE = b'{"kind": "' + b"x" * (MOST_JSON - 99) + b'\\ud83d\\ude00"}'
CODES = "\x1b[2J\n" * 100_000

METADATA = [
    *(
        Case(f"json-{label}", f"metadata {wrong}", with_text(text), ALL, kinds)
        for label, wrong, text, kinds in [
            ("empty", "of no bytes", b"", EVERY),
            ("none", "that is not JSON", b"not JSON", EVERY),
            ("deep", "100,000 lists deep", DEEP, EVERY),
            ("deep-objects", "100,000 objects deep", b'{"a":' * 100_000, MODEL),
            ("digits", "with 5,000 digits", b'{"content": ' + b"1" * 5000 + b"}", EVERY),
            ("list", "that is a list", b"[]", EVERY),
            ("latin", "that is not UTF-8", b'{"kind": "\xff"}', EVERY),
            ("more", "with something after it", b"{} {}", EVERY),
            ("lists", "full of empty lists", fill_json(b"[]"), MODEL),
            ("numbers", "full of numbers", fill_json(b"0.5"), MODEL),
            ("wide", "full of wide letters", WIDE, MODEL),
            ("large", "of one byte too many", b" " * (MOST_JSON + 1), MODEL),
        ]
    ),
    Case("json-floats", "floats for metadata", with_arrays(metadata=array([1.5])), ALL),
    Case("json-utf-16", "metadata in UTF-16", in_utf_16, EITHER),
    Case("json-letters", "metadata beyond ASCII", with_letters, ALL),
    Case("json-twice", "a key twice", with_key_twice, EITHER),
    *(
        Case(f"{label}", f"{key} {wrong}", with_value(key, value), verdict, MODEL)
        for label, key, wrong, value, verdict in [
            ("version-2", "format_version", "2", 2, ALL),
            ("version-true", "format_version", "true", True, ALL),
            ("version-fraction", "format_version", "1.0", 1.0, ALL),
            ("version-digits", "format_version", "of 4,000 digits", 10**3999, ALL),
            ("version-long", "format_version", "of escape codes", CODES, ALL),
            ("version-absent", "format_version", "absent", ..., ALL),
            ("kind-other", "kind", "of another program", "sausage", READER),
            ("kind-long", "kind", "of escape codes", CODES, READER),
            ("kind-list", "kind", "in a list", ["model"], ALL),
            ("kind-absent", "kind", "absent", ..., ALL),
            ("content-list", "content", "a list", [], ALL),
            ("content-absent", "content", "absent", ..., ALL),
        ]
    ),
]

CONTENTS = [
    Case(label, f"{key[:40]!r} {wrong}", with_value(f"content.{key}", value), READER, kinds)
    for label, key, wrong, value, kinds in [
        ("scale-0", "pixel_scale", "0", 0, MODEL),
        ("scale-nan", "pixel_scale", "NaN", float("nan"), MODEL),
        ("scale-tiny", "pixel_scale", "1e-300", 1e-300, MODEL),
        ("scale-true", "pixel_scale", "true", True, MODEL),
        ("scale-digits", "pixel_scale", "of 4,000 digits", 10**3999, MODEL),
        ("scale-absent", "pixel_scale", "absent", ..., MODEL),
        ("classes-numbers", "classes", "numbers", [1, 2, 3], MODEL),
        ("classes-mixed", "classes", "null, a list and an object", [None, [], {}], MODEL),
        ("classes-text", "classes", "a text", "abc", MODEL),
        ("classes-few", "classes", "two for three rows", ["a", "b"], MODEL),
        ("classes-many", "classes", "100,000 for three rows", ["\x1b[2J"] * 100_000, MODEL),
        ("classes-absent", "classes", "absent", ..., MODEL),
        ("unknown", "unknown", "is a setting", 1, MODEL),
        ("self", "self", "is a setting", 1, MODEL),
        ("settings-none", "settings", "null", None, CHECKPOINT + SOLVER),
        ("settings-absent", "settings", "absent", ..., CHECKPOINT + SOLVER),
        ("environment-text", "environment", "a text", "abc", CHECKPOINT + SOLVER),
        ("history-none", "history", "null", None, CHECKPOINT + SOLVER),
        ("history-empty", "history", "empty", [], CHECKPOINT + SOLVER),
        ("history-numbers", "history", "of numbers", [1, 2], CHECKPOINT + SOLVER),
        ("history-unknown", f"history.0.{CODES}", "is a field", 1, CHECKPOINT + SOLVER),
        ("history-order", "history.0.epoch", "9, then 2", 9, CHECKPOINT),
        ("progress-none", "progress", "null", None, CHECKPOINT),
        ("progress-seen", "progress.step", "3, without samples", 3, CHECKPOINT),
    ]
]
RIGHT = [
    Case(label, fault, with_value(f"content.{key}", value), EITHER, MODEL, (key, value))
    for label, fault, key, value in [
        ("scale-large", "pixel_scale 1e300", "pixel_scale", 1e300),
        ("classes-twice", "a class twice", "classes", ["a", "a", "b"]),
        ("classes-empty", "classes without names", "classes", ["", " ", "\n"]),
        ("classes-codes", "classes of escape codes", "classes", ["\x1b[2J", "\x07", "\ud800"]),
        ("classes-long", "a class of a million letters", "classes", ["a", "b", "c" * 10**6]),
    ]
]
CASES = [*ARCHIVES, *HEADERS, *THETAS, *ARRAYS, *METADATA, *CONTENTS, *RIGHT]


# The process that reads them

READERS = {
    "model": ("load", "read", "kind_of", "verify", "evaluate"),
    "checkpoint": ("checkpoint", "read", "kind_of", "verify", "train"),
    SOLVER_KIND: ("solver", "read", "kind_of", "verify", "solve"),
}
COMMANDS = ("verify", "evaluate", "train", "solve")
FORBIDDEN_EVENTS = (
    "pickle.", "socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.rename",
    "os.remove", "os.mkdir", "os.link", "os.symlink", "os.chmod", "shutil.",
)  # fmt: skip


def serve() -> None:
    """Read the files named on standard input; answer each with a line."""
    import npsoftmax

    # The commands need no real data and no matplotlib here.
    sys.modules["matplotlib"] = None  # type: ignore[assignment]
    load = npsoftmax.load
    npsoftmax.load = lambda name, *rest, **more: (  # type: ignore[assignment]
        small_data() if name in ("garments", "fashion-mnist") else load(name, *rest, **more)
    )
    import threadpoolctl  # noqa: F401
    import tqdm  # noqa: F401

    from npsoftmax.commands import (
        evaluate,
        run_folder,  # noqa: F401
        train,  # noqa: F401
    )

    evaluate.check_fit = lambda *_: None  # no data set has the three classes of the small data
    gc.freeze()
    for line in sys.stdin:
        print(json.dumps(run_in_child(partial(examine, *json.loads(line)))), flush=True)


def small_data() -> Any:
    import npsoftmax

    X = np.asfortranarray(np.arange(12, dtype=np.uint8).reshape(2, 6) * 20)
    y = np.array([0, 1, 2, 1, 0, 2])
    return npsoftmax.Dataset("garments", ("a", "b", "c"), X, y, X, y, {}, "made up", 1 / 255)


def run_in_child(work: Callable[[], Any]) -> Any:
    """Return the result of ``work`` in a child process with limits, or how the child ended."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        set_limits()
        os.write(theirs, json.dumps(work()).encode())
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as stream:
        answer = stream.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return json.loads(answer) if answer else {"error": f"the process ended with {status}"}


def set_limits() -> None:
    import resource
    import signal

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    signal.alarm(WALL_SECONDS)


def examine(readers: list[str], path: str) -> dict[str, Any]:
    """Let each reader read the file; return results, forbidden actions and memory growth."""
    import resource

    actions: list[str] = []
    start = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    sys.addaudithook(partial(audit, actions))
    reports = {}
    for reader in readers:
        actions.clear()
        reports[reader] = report = outcome(reader, path)
        report["actions"] = [] if reader in ("train", "solve", "make") else list(actions)
        report["grown"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10 - start
    return reports


def outcome(reader: str, path: str) -> dict[str, Any]:
    try:
        return {"found": comparable(CALLS[reader](path))} if reader in CALLS else run(reader, path)
    except CorruptFileError as error:
        return {"refused": str(error)}
    except BaseException as error:
        return {"error": f"{type(error).__name__}: {error!s:.300}"}


def audit(actions: list[str], event: str, arguments: tuple[Any, ...]) -> None:
    """Note actions that no reader needs."""
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & writing:
        actions.append(f"opens {arguments[0]!r} to write")
    elif event.startswith(FORBIDDEN_EVENTS):
        actions.append(f"{event} {arguments!r:.100}")


CALLS: dict[str, Callable[[str], Any]] = {
    "load": SoftmaxRegression.load,
    "checkpoint": Checkpoint.read,
    "solver": SolverCheckpoint.read,
    "read": lambda path: storage.read(path, storage.kind_of(path)),
    "kind_of": storage.kind_of,
}


def comparable(found: Any) -> Any:
    """Return content in a form that can be compared and sent as JSON."""
    if isinstance(found, np.ndarray):
        content = found.tobytes("F") if found.nbytes < MIB else b"many numbers"
        return [str(found.dtype), found.shape, hashlib.sha256(content).hexdigest()]
    if isinstance(found, SoftmaxRegression | Checkpoint | SolverCheckpoint):
        return {name: comparable(value) for name, value in vars(found).items()}
    if isinstance(found, dict):
        return {name: comparable(value) for name, value in found.items()}
    if isinstance(found, list | tuple):
        return [comparable(value) for value in found]
    return found if isinstance(found, str | int | float | None) else comparable(asdict(found))


def run(name: str, path: str) -> dict[str, Any]:
    """Run a command; return its exit code and output."""
    from npsoftmax.commands import command_line, evaluate, train

    folder = str(Path(path).parent)

    def run_train(flags: list[str], *more: str) -> int:
        return command_line.run(train.parser(), train.train, [*flags, *more])

    call = {
        "verify": lambda: verify_files([path]),
        "evaluate": lambda: command_line.run(evaluate.parser(), evaluate.evaluate, [path]),
        "train": lambda: run_train(TRAIN, "4", "--resume", "--run-dir", folder),
        "solve": lambda: run_train(SOLVE, "4", "--resume", "--run-dir", folder),
        "make": lambda: [
            run_train(flags, "2", "--run-dir", f"{path}/{name}")
            for name, flags in [("checkpoint", TRAIN), (SOLVER_KIND, SOLVE)]
        ],
    }[name]
    out, err = os.memfd_create("out"), os.memfd_create("err")
    os.dup2(out, 1)
    os.dup2(err, 2)
    code = call()
    sys.stdout.flush()
    sys.stderr.flush()
    texts = {"out": os.pread(out, 10**7, 0).decode(), "err": os.pread(err, 10**7, 0).decode()}
    return {"code": code, **texts}


@pytest.fixture(scope="module")
def examiner():
    """Return ``examiner(readers, path)``, which reads a file in another process."""
    folders = [str(ROOT), str(ROOT / "tests")]
    process = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
        text=True,
    )

    def ask(readers: Sequence[str], path: Path) -> Any:
        process.stdin.write(json.dumps([readers, str(path)]) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    with process:
        yield ask
    assert process.returncode == 0


class Genuine(NamedTuple):
    """The members of a genuine file of each kind, and the content that its readers find."""

    parts: dict[str, Parts]
    found: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def genuine(examiner, tmp_path_factory) -> Genuine:
    folder = tmp_path_factory.mktemp("genuine")
    made = examiner(["make"], folder)["make"]
    assert made["code"] == [0, 0], made
    paths = {kind: folder / kind / "checkpoint.npz" for kind in ("checkpoint", SOLVER_KIND)}
    paths["model"] = folder / "checkpoint" / "model.npz"
    parts, found = {}, {}
    for kind, path in paths.items():
        with zipfile.ZipFile(path) as opened:
            parts[kind] = {name: opened.read(name) for name in opened.namelist()}
        reports = examiner(READERS[kind][:3], path)
        found[kind] = {reader: report["found"] for reader, report in reports.items()}
    return Genuine(parts, found)


# The expectations


def load(kind: str, path: Path, content: bytes) -> Any:
    """Write and read a file of this kind; check that the reason of a refusal is honest."""
    path.write_bytes(content)
    try:
        return CALLS[READERS[kind][0]](path)
    except CorruptFileError as error:
        assert_honest(str(error), path)
        raise


@pytest.fixture
def record(record_property) -> Callable[..., None]:
    """Return what records the row of a test for docs/reliability.md."""

    def record(**properties: object) -> None:
        for name, value in properties.items():
            record_property(name, value)

    return record


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_hostile_file(case, examiner, genuine, tmp_path, record):
    outcomes = set()
    # A file that every reader must refuse is given to all of them, in one kind only.
    for kind in case.kinds[:1] if case.refused == ALL else case.kinds:
        path = tmp_path / kind / "checkpoint.npz"
        path.parent.mkdir()
        content = case.make(genuine.parts[kind])
        path.write_bytes(content)
        readers = READERS[kind]
        if case.refused == ALL:
            readers += ("checkpoint", "solver", "train") if len(case.kinds) > 1 else ()
        reports = examiner(readers, path)
        assert "error" not in reports, reports
        for reader, report in reports.items():
            check_report(case, reader, report, path)
            if reader in CALLS and not case.refused and "refused" not in report:
                found = genuine.found[kind][reader]
                assert report["found"] == expected_content(case, reader, found)
        any_kind = ("read", "kind_of") if case.refused == READER else ()  # these open any kind
        outcomes |= {
            describe_outcome(report, path)
            for name, report in reports.items()
            if name not in any_kind
        }
        if case.refused or kind == "model":
            assert path.read_bytes() == content
            assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert list(Path.cwd().iterdir()) == [], "code in the file ran"
    record(
        id=case.id,
        fault=case.fault,
        expected="refused" if case.refused else "refused, or right",
        happened="; ".join(sorted(outcomes)),
    )


def expected_content(case: Case, reader: str, found: Any) -> Any:
    """Return the content that a reader must find if it accepts the file."""
    if case.changed is None or reader == "kind_of":
        return found
    change = dict([case.changed])
    return {**found, **change} if reader == "load" else [found[0], {**found[1], **change}]


def check_report(case: Case, reader: str, report: dict[str, Any], path: Path) -> None:
    """Check that the file was refused with a reason or read, in bounded memory."""
    assert "error" not in report, report["error"]
    assert report["actions"] == []
    if reader in COMMANDS:
        check_command(reader, report, path, case.refused != "")
    elif "refused" in report:
        assert_honest(report["refused"], path)
    else:
        assert case.refused != ALL and (case.refused == "" or reader in ("read", "kind_of"))
    assert report["grown"] < 2.5 * path.stat().st_size + MEMORY


def check_command(reader: str, report: dict[str, Any], path: Path, refused: bool) -> None:
    """Check the exit code and that the error is one line without control characters."""
    code, lines = report["code"], report["err"].splitlines()
    assert code in ((4,) if refused else (0, 2, 4)), report
    assert len(lines) == (code != 0), report["err"]
    for line in lines:
        assert_short(line, path)
        if code == 4:
            assert_honest(re.sub(r"^npsoftmax \w+: error: ", "", line), path)
    assert all(line.isprintable() for line in report["out"].splitlines())


def assert_honest(reason: str, path: Path) -> None:
    """Check that a reason is one short line that names the file and the fault."""
    name = reason.replace(quoted(path), "FILE").replace(str(path), "FILE")
    assert re.match("FILE: expected .+ got .", name), reason[:1000]
    assert_short(reason, path)


def assert_short(line: str, path: Path) -> None:
    """Check that a line has no control characters and is short except for the path."""
    text = line.replace(quoted(path), "FILE").replace(str(path), "FILE")
    assert text.isprintable() and len(text) < LONGEST_REASON, text[:1000]


def describe_outcome(report: dict[str, Any], path: Path) -> str:
    """Describe an outcome in a few words."""
    if "refused" in report:
        return "refused: " + report["refused"].replace(str(path), "FILE")[:160]
    return "right" if report.get("code", 0) == 0 else f"exit {report['code']}"


OTHER_RUNS = [
    ("setting", "settings.l2", 1.0, (2,)),
    ("setting-long", "settings.batch_size", "\x1b[2J\n" * 100_000, (2,)),
    ("setting-deep", "settings.l2", json.loads("[" * 400 + "]" * 400), (2, 4)),
    ("setting-unknown", "settings.\x1b[2J\n" + "x" * 100_000, 1, (2,)),
    ("settings-many", "settings", {str(n): n for n in range(10_000)}, (2,)),
    ("environment", "environment.numpy", "\x1b[2J\n" * 100_000, (0,)),
    ("environment-deep", "environment.numpy", json.loads("[" * 400 + "]" * 400), (0, 4)),
    ("objective", "history.0.objective", 1e300, (0, 4)),
    ("objective-last", "history.-1.objective", 1e300, (4,)),
]


@pytest.mark.parametrize("kind", ["checkpoint", SOLVER_KIND])
@pytest.mark.parametrize(
    ("label", "place", "value", "codes"), OTHER_RUNS, ids=[run[0] for run in OTHER_RUNS]
)
def test_resuming_from_the_checkpoint_of_another_run(
    label, place, value, codes, kind, examiner, genuine, tmp_path, record
):
    if "objective" in label and kind != SOLVER_KIND:
        pytest.skip("only the solver has an objective")
    path = tmp_path / "checkpoint.npz"
    path.write_bytes(with_value(f"content.{place}", value)(genuine.parts[kind]))
    reader = READERS[kind][-1]
    report = examiner([reader], path)[reader]
    assert "error" not in report, report
    lines = report["err"].splitlines()
    assert report["code"] in codes and len(lines) <= 1, report["err"][:1000]
    assert len(lines) == 1 or report["code"] == 0
    for line in lines:
        assert_short(line, path)
    record(
        id=f"{READERS[kind][-1]}-{label}",
        fault=f"a checkpoint whose {place[:40]!r} is of another run or hostile",
        expected="refused, or a warning",
        happened=f"exit {report['code']}: {(lines or ['no complaint'])[0][:160]}",
    )


@pytest.mark.parametrize("kind", READERS)
def test_extreme_numbers_are_read_and_end_in_one_line(kind, examiner, genuine, tmp_path):
    path = tmp_path / "checkpoint.npz"
    largest = np.full((3, 3), np.finfo(np.float32).max, np.float32)
    path.write_bytes(with_arrays(theta=array(largest))(genuine.parts[kind]))
    reports = examiner(READERS[kind], path)
    assert (
        reports[READERS[kind][0]]["found"]["x" if kind == SOLVER_KIND else "theta"][0] == "float32"
    )
    last = reports[READERS[kind][-1]]
    assert last["code"] in (0, 2, 4, 5), last
    assert len(last["err"].splitlines()) == (last["code"] != 0), last["err"]


FIELDS = [
    *(("checkpoint", f"progress.{field.name}") for field in fields(Progress)),
    *(("checkpoint", f"history.0.{field.name}") for field in fields(EpochRecord)),
    *((SOLVER_KIND, f"history.0.{field.name}") for field in fields(IterationRecord)),
]
NO_NUMBERS = ["1", [], {}, [1], True, -1, -0.5, float("nan"), float("inf"), 10**400, 2**63, ...]


def test_every_field_with_every_wrong_value(genuine, tmp_path, record):
    for kind, place in FIELDS:
        for value in [*NO_NUMBERS, *([] if "test" in place else [None])]:
            if kind == "checkpoint" and value is ... and "progress" in place:
                continue  # Progress has defaults
            content = with_value(f"content.{place}", value)(genuine.parts[kind])
            with pytest.raises(CorruptFileError):
                load(kind, tmp_path / "c.npz", content)
    record(
        id="fields",
        fault="every number of the progress and the history has a wrong type or value",
        inputs=len(FIELDS) * len(NO_NUMBERS),
        expected="refused",
        happened="refused",
    )


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("model", "content.classes"),
        ("model", "content.pixel_scale"),
        ("model", "format_version"),
        ("model", "kind"),
        ("checkpoint", "content.settings"),
        ("checkpoint", "content.progress.step"),
        ("checkpoint", "content.history"),
        (SOLVER_KIND, "content.history.0.step"),
    ],
)
def test_lists_nested_to_the_recursion_limit(kind, place, genuine, tmp_path):
    # JSON and repr have different limits; depths between them once escaped both.
    for depth in range(sys.getrecursionlimit() - 400, sys.getrecursionlimit() + 50, 7):
        parts = dict(genuine.parts[kind])
        with zipfile.ZipFile(io.BytesIO(with_value(place, "HERE")(parts))) as opened:
            text = np.load(io.BytesIO(opened.read("metadata.npy"))).tobytes()
        deep = text.replace(b'"HERE"', b"[" * depth + b"]" * depth)
        with pytest.raises(CorruptFileError):
            load(kind, tmp_path / "c.npz", with_text(deep)(parts))


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize(
    "every", [pytest.param(97, id="quick"), pytest.param(1, id="slow", marks=pytest.mark.slow)]
)
def test_single_flipped_bits_and_cuts(kind, every, genuine, tmp_path, record):
    good, path = archive(genuine.parts[kind]), tmp_path / "file.npz"
    bits = range(0, 8 * len(good), every)
    for bit in bits:
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptFileError):
            load(kind, path, bad)
    lengths = range(0, len(good), max(every // 8, 1))
    for length in lengths:
        with pytest.raises(CorruptFileError):
            load(kind, path, good[:length])
    record(
        id=f"flips-{READERS[kind][0]}",
        fault=f"a bit of a {kind} flipped, or its end cut off",
        inputs=len(bits) + len(lengths),
        expected="refused",
        happened="refused",
    )


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize(
    "count",
    [pytest.param(200, id="quick"), pytest.param(10_000, id="slow", marks=pytest.mark.slow)],
)
def test_damaged_files_with_a_new_seal(kind, count, genuine, tmp_path, record):
    rng, path = random.Random(2024), tmp_path / "file.npz"
    good = archive(genuine.parts[kind])[: -64 - 17]
    taken = 0
    for _ in range(count):
        bad = bytearray(good)
        for _ in range(rng.choice((1, 1, 1, 2, 8))):
            bad[rng.randrange(len(bad))] = rng.choice(
                (rng.randrange(256), 0, 255, ord("9"), ord("-"))
            )
        with suppress(CorruptFileError):
            found = load(kind, path, seal(bytes(bad)))
            taken += 1
            theta = found.x if kind == SOLVER_KIND else found.theta
            assert theta.dtype == np.float32 and theta.ndim == 2 and np.isfinite(theta).all()
    record(
        id=f"fuzz-{READERS[kind][0]}",
        fault=f"random bytes of a {kind} changed, and sealed again",
        inputs=count,
        expected="refused, or read as a valid file",
        happened=f"{count - taken} refused, {taken} read",
    )
    assert 0 < taken < count


@pytest.mark.parametrize("reader", [*READERS["model"], "checkpoint", "solver", "train", "solve"])
@pytest.mark.parametrize("kind", ["folder", "pipe", "zeros", "nothing", "loop", "huge"])
def test_paths_that_are_not_files_or_too_large(kind, reader, examiner, tmp_path, record):
    path = tmp_path / "checkpoint.npz"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind in ("zeros", "loop"):
        path.symlink_to("/dev/zero" if kind == "zeros" else path)
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(storage.MAX_BYTES + 1)
    report = examiner([reader], path)[reader]
    line = report.get("refused") or report.get("error") or report["err"].strip()
    assert report.get("code") in (None, 4 if kind == "huge" else 2), report
    if reader in CALLS:
        assert ("refused" in report) == (kind == "huge"), report
        assert kind == "huge" or line.startswith("InputError: cannot read "), report
    assert str(path) in line and "\n" not in line
    assert report["grown"] < MEMORY
    record(
        id=f"{kind}-{reader}",
        fault=f"{kind} where {reader} expects a file",
        expected="refused",
        happened=line.replace(str(path), "FILE")[:160],
    )


@pytest.mark.parametrize(
    ("label", "put"),
    [
        ("pipe", os.mkfifo),
        ("zeros", lambda path: path.symlink_to("/dev/zero")),
        ("huge", lambda path: path.touch() or os.truncate(path, 2**34)),
        ("deep", lambda path: path.write_bytes(DEEP)),
        ("latin", lambda path: path.write_bytes(b'{"dataset": "\xff"}')),
        ("list", lambda path: path.write_bytes(b"[]")),
    ],
)
def test_a_hostile_summary_next_to_the_model_is_ignored(
    label, put, examiner, genuine, tmp_path, record
):
    path = tmp_path / "model.npz"
    path.write_bytes(archive(genuine.parts["model"]))
    put(tmp_path / "summary.json")
    report = examiner(["evaluate"], path)["evaluate"]
    assert (report["code"], report["err"]) == (0, ""), report
    assert report["grown"] < MEMORY
    record(
        id=f"summary-{label}",
        fault=f"summary.json next to the model: {label}",
        expected="ignored",
        happened="ignored",
    )


def test_a_data_set_name_from_a_summary_is_printed_short_and_escaped(examiner, genuine, tmp_path):
    path = tmp_path / "model.npz"
    path.write_bytes(archive(genuine.parts["model"]))
    for name in ("../../etc/passwd", "\x1b[2J\n" * 10_000):
        (tmp_path / "summary.json").write_text(json.dumps({"dataset": name}))
        report = examiner(["evaluate"], path)["evaluate"]
        (line,) = report["err"].splitlines()
        assert report["code"] == 2 and "expected one of" in line
        assert_short(line, path)


if __name__ == "__main__":
    serve()
