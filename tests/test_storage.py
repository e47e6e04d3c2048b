"""Sealed files: exact round trips, detected damage, and the command that verifies them.

Files made on purpose to mislead their reader are in test_hostile_files.py.
"""

import io
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from npsoftmax import DataLoader, FullBatchTrainer, Momentum, SoftmaxRegression, Trainer, storage
from npsoftmax.checkpoint import verify_files
from npsoftmax.errors import CorruptFileError, InputError, OutputError
from npsoftmax.objective import FullBatch

ROOT = Path(__file__).parents[1]
X = np.random.default_rng(0).integers(0, 256, (3, 8), dtype=np.uint8)
Y = np.array([0, 1, 1, 0, 0, 1, 1, 0])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.npz"


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
    assert all(array.flags.writeable and array.flags.aligned for array in arrays.values())


def test_numpy_opens_it_and_it_is_reproducible(path):
    storage.write(path, "test", {"x": np.arange(3)}, {"a": 1})
    first = path.read_bytes()
    with np.load(path, allow_pickle=False) as archive:
        assert archive["x"].tolist() == [0, 1, 2]
    storage.write(path, "test", {"x": np.arange(3)}, {"a": 1})
    assert path.read_bytes() == first


def test_other_kinds_versions_and_larger_files_are_refused(path, monkeypatch):
    storage.write(path, "test", {}, {})
    assert storage.kind_of(path) == "test" and storage.is_whole(path)
    with pytest.raises(CorruptFileError, match="expected a model, got a test"):
        storage.read(path, "model")
    with pytest.raises(CorruptFileError, match="at most 10 bytes"):
        storage.read(path, "test", max_bytes=10)
    monkeypatch.setattr(storage, "FORMAT_VERSION", 2)
    with pytest.raises(CorruptFileError, match="expected format version 2, got 1"):
        storage.read(path, "test")


@pytest.mark.parametrize("name", ["file", "allow_pickle", "a\0b", "../a", ".a", "", "metadata"])
def test_reserved_names_are_not_written(path, name):
    with pytest.raises(InputError, match="that is not reserved"):
        storage.write(path, "test", {name: np.zeros(1)}, {})


def test_objects_other_metadata_and_bad_paths_are_refused(path, tmp_path):
    with pytest.raises(InputError, match="numeric array"):
        storage.write(path, "test", {"x": np.array([object()])}, {})
    with pytest.raises(InputError, match="JSON"):
        storage.write(path, "test", {}, {"x": {1, 2}})
    with pytest.raises(InputError, match="cannot read"):
        storage.read(tmp_path / "none.npz", "test")
    path.write_bytes(b"a file, not a folder")
    with pytest.raises(OutputError, match="cannot write"):
        storage.write(path / "below.npz", "test", {}, {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file.npz"]


def test_the_previous_file_is_kept_if_it_is_whole(path):
    previous = storage.previous(path)
    for number in range(3):
        storage.write(path, "test", {"x": np.array(number)}, {}, keep_previous=True)
        assert previous.exists() == (number > 0)
    assert storage.read(previous, "test")[0]["x"] == 1
    path.write_bytes(b"damaged")
    assert not storage.is_whole(path)
    storage.write(path, "test", {"x": np.array(9)}, {}, keep_previous=True)
    assert storage.read(previous, "test")[0]["x"] == 1
    assert storage.read(path, "test")[0]["x"] == 9


def test_a_file_that_does_not_read_back_identically_is_not_published(path, monkeypatch):
    storage.write(path, "test", {}, {"number": 1})
    good = path.read_bytes()

    @contextmanager
    def forgetful(path, kept=None):
        yield type("File", (io.BytesIO,), {"read": lambda self: b"something else"})()

    monkeypatch.setattr(storage, "publish", forgetful)
    with pytest.raises(OutputError, match="does not read back identically"):
        storage.write(path, "test", {}, {"number": 2})
    assert path.read_bytes() == good


# The command that verifies models and checkpoints.


@pytest.fixture
def good(tmp_path):
    """Return one whole file of each kind."""
    whole, checkpoint, solver = (
        tmp_path / f"{name}.npz" for name in ("model", "checkpoint", "solver")
    )
    SoftmaxRegression(3, 2, dtype=np.float64).save(whole)
    model = SoftmaxRegression(3, 2, pixel_scale=1 / 255)
    minibatches = Trainer(model, Momentum(0.1), DataLoader(X, Y, batch_size=4))
    minibatches.fit(epochs=3)
    minibatches.save_checkpoint(checkpoint)
    problem = FullBatch(X, Y, l2=0.1, scale=1 / 255)
    model = SoftmaxRegression(3, 2, dtype=np.float64, pixel_scale=1 / 255)
    full_batch = FullBatchTrainer(model, problem, tol=1e-12)
    full_batch.fit(max_iterations=2)
    full_batch.save_checkpoint(solver)
    return [whole, checkpoint, solver]


def test_whole_files_are_described(good, capsys):
    assert verify_files(list(map(str, good))) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines() == [
        f"{good[0]}: a model, SoftmaxRegression(3 => 2, float64)",
        f"{good[1]}: a checkpoint after 3 epochs and 0 steps: "
        "theta float32(2, 4), velocity float32(2, 4)",
        f"{good[2]}: a checkpoint of the lbfgs solver after 1 iterations: theta float64(2, 4)",
    ]


def test_each_file_has_one_line_and_the_worst_sets_the_exit_code(good, tmp_path, capsys):
    missing, bad = tmp_path / "missing.npz", tmp_path / "bad.npz"
    bad.write_bytes(good[0].read_bytes()[:-1])
    assert verify_files([str(good[0]), str(missing)]) == 2
    capsys.readouterr()
    assert verify_files([str(missing), str(bad), str(good[1])]) == 4
    out, err = capsys.readouterr()
    assert [line.split(": ")[0] for line in out.splitlines()] == [str(good[1])]
    first, second = err.splitlines()
    assert first == f"cannot read {missing}: No such file or directory; check the name"
    assert second.startswith(f"{bad}: expected ")


def test_an_unknown_kind_is_named(path, capsys):
    storage.write(path, "sausage", {}, {})
    assert verify_files([str(path)]) == 4
    assert capsys.readouterr().err == f"{path}: expected a model or a checkpoint, got a sausage\n"


def test_control_characters_in_a_file_name_are_escaped(good, tmp_path, capsys):
    whole, damaged = tmp_path / "\x1b[2Jwhole\n.npz", tmp_path / "\x1b[2Jdamaged\n.npz"
    whole.write_bytes(good[0].read_bytes())
    damaged.write_bytes(b"")
    assert verify_files([str(whole), str(damaged)]) == 4
    out, err = capsys.readouterr()
    assert out.count("\n") == err.count("\n") == 1
    assert out.strip().isprintable() and "\\x1b[2Jwhole\\n.npz: a model" in out
    assert err.strip().isprintable() and "\\x1b[2Jdamaged\\n.npz': expected" in err


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux allows file names of any bytes")
def test_a_file_name_that_cannot_be_encoded_is_escaped(good, tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff\xe9.npz"
    Path(os.fsdecode(path)).write_bytes(good[0].read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "npsoftmax.storage", path],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("a model, SoftmaxRegression(3 => 2, float64)\n")


def test_usage(capsys):
    for argv, code, text in (([], 2, "FILE"), (["--help"], 0, "4 one is damaged")):
        with pytest.raises(SystemExit) as end:
            verify_files(argv)
        assert end.value.code == code and text in "".join(capsys.readouterr())


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
def test_it_ends_silently_if_its_output_is_closed(path):
    SoftmaxRegression(2, 3).save(path)
    command = f"{sys.executable} -m npsoftmax.storage {' '.join(['file.npz'] * 3000)} | head -1"
    done = subprocess.run(command, shell=True, cwd=path.parent, capture_output=True, text=True)
    assert done.stdout.startswith("file.npz: a model") and done.stderr == ""
