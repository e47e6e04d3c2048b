"""DataLoader on a 2 x 5 matrix that is easy to check by eye."""

import subprocess
import sys
from itertools import tee

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npsoftmax.data import DataLoader
from npsoftmax.errors import InputError, LabelError, ShapeError

X = np.arange(1, 11).reshape(5, 2).T
Y = np.arange(5)


def test_a_partial_batch_is_kept_or_dropped():
    batches = list(DataLoader(X, Y, 2))
    assert [y.tolist() for _, y in batches] == [[0, 1], [2, 3], [4]]
    np.testing.assert_array_equal(batches[0][0], [[1, 3], [2, 4]])
    np.testing.assert_array_equal(batches[2][0], [[9], [10]])
    dropped = DataLoader(X, Y, 2, drop_last=True)
    assert len(dropped) == len(list(dropped)) == 2
    assert [y.tolist() for _, y in list(DataLoader(X, Y, 7))] == [[0, 1, 2, 3, 4]]


def test_bytes_stay_bytes_in_fortran_order():
    for X_batch, y in DataLoader(X.astype(np.uint8), Y, 2).batches(0):
        assert X_batch.dtype == np.uint8 and X_batch.flags.f_contiguous
        assert y.dtype == Y.dtype


ITERATIONS = {
    "list(loader)": list,
    "loader.batches": lambda loader: list(loader.batches(0)),
    "two at once": lambda loader: [first for first, _ in zip(loader, loader, strict=True)],
    "tee": lambda loader: [first for first, _ in zip(*tee(loader), strict=True)],
    "a break, then the same iterator": lambda loader: broken_off(iter(loader)),
}


def broken_off(batches):
    kept = [next(batches)]
    for batch in batches:
        kept.append(batch)
        break
    return [*kept, *batches]


@pytest.mark.parametrize("kept", ITERATIONS)
@pytest.mark.parametrize("batch_size", [1, 256, 1300])
def test_batches_can_be_kept(kept, batch_size):
    X = np.arange(10_000.0)[None, :] * np.ones((784, 1), np.float32)
    loader = DataLoader(X, np.arange(10_000), batch_size, shuffle=True)
    batches = ITERATIONS[kept](loader)
    order = loader.permutation(0)
    np.testing.assert_array_equal(np.concatenate([y for _, y in batches]), order)
    np.testing.assert_array_equal(np.concatenate([X[-1] for X, _ in batches]), order)


def test_batches_can_be_changed_in_place():
    (X0, y0), (X1, y1), (X2, y2) = DataLoader(X, Y, 2)
    X0[:], y0[:] = 99, 99
    np.testing.assert_array_equal(np.hstack([X1, X2]), X[:, 2:])
    assert [*y1, *y2] == [2, 3, 4]
    assert DataLoader(X, Y, 2).X.max() == 10


@pytest.mark.parametrize("samples_in_a_chunk", [1, 2, 3, 4])
@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("drop_last", [False, True])
def test_chunks_change_nothing(monkeypatch, samples_in_a_chunk, batch_size, drop_last):
    loader = DataLoader(X, Y, batch_size, shuffle=True, drop_last=drop_last)
    whole = list(loader.batches(3, start=1))
    monkeypatch.setattr("npsoftmax.data.loader.CHUNK_BYTES", samples_in_a_chunk * X[:, 0].nbytes)
    in_chunks = list(loader.batches(3, start=1))
    for (X_whole, y_whole), (X_batch, y) in zip(whole, in_chunks, strict=True):
        np.testing.assert_array_equal(X_batch, X_whole)
        np.testing.assert_array_equal(y, y_whole)


PROGRAMS = {
    "keeps iterators": """
kept = iter(loader), loader.batches(0), trainer.run(2)
for iterator in kept:
    next(iterator)
print("end")
""",
    "iterates after the main thread": """
def iterate():
    threading.main_thread().join()
    print("end" if sum(y.size for _, y in loader) == 9 and trainer.fit(1) else "")

threading.Thread(target=iterate).start()
""",
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_ends_that(program):
    code = """
import threading
import numpy as np
import npsoftmax as nps
loader = nps.DataLoader(np.eye(9), np.arange(9), 2)
trainer = nps.Trainer(nps.SoftmaxRegression(9, 9), nps.Descent(0.1), loader)
"""
    run = [sys.executable, "-c", code + PROGRAMS[program]]
    done = subprocess.run(run, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


@given(st.integers(1, 40), st.integers(1, 45), st.booleans(), st.integers(0, 9), st.integers(0, 5))
def test_every_sample_once_with_its_label(n, batch_size, shuffle, seed, epoch):
    loader = DataLoader(np.arange(n)[None, :], np.arange(n), batch_size, shuffle, seed=seed)
    batches = list(loader.batches(epoch))
    assert len(batches) == len(loader) == -(-n // batch_size)
    labels = np.concatenate([y for _, y in batches])
    np.testing.assert_array_equal(np.concatenate([X[0] for X, _ in batches]), labels)
    np.testing.assert_array_equal(labels, loader.permutation(epoch))
    assert sorted(labels) == list(range(n))
    rest = list(loader.batches(epoch, start=len(batches) // 2))
    assert [y.tolist() for _, y in rest] == [y.tolist() for _, y in batches[len(batches) // 2 :]]


def test_fortran_order_is_used_directly_and_other_orders_are_copied_once():
    fortran = np.asfortranarray(X)
    assert DataLoader(fortran, Y).X is fortran
    misaligned = np.frombuffer(b"0" * 41, np.uint8)[1:].view(np.float32).reshape(5, 2).T
    assert not misaligned.flags.aligned
    for other in (np.ascontiguousarray(X), misaligned):
        loader = DataLoader(other, Y)
        assert loader.X.flags.f_contiguous and loader.X.flags.aligned
        np.testing.assert_array_equal(loader.X, other)


def test_the_order_is_a_function_of_seed_and_epoch_alone():
    def orders(seed):
        loader = DataLoader(np.zeros((1, 50)), np.zeros(50, int), 7, shuffle=True, seed=seed)
        return [loader.permutation(epoch).tolist() for epoch in range(3)]

    assert orders(3) == orders(3)
    assert len({tuple(order) for seed in (0, 1) for order in orders(seed)}) == 6
    # Iterating advances the epoch by itself, and leaves explicit epochs alone.
    loader = DataLoader(X, Y, 5, shuffle=True, seed=1)
    first, second = next(iter(loader))[1], next(iter(loader))[1]
    np.testing.assert_array_equal(first, loader.permutation(0))
    np.testing.assert_array_equal(second, loader.permutation(1))


@pytest.mark.parametrize("order", ["C", "F"])
def test_memory_order_and_read_only_input(order):
    data = np.array(X, dtype=np.float32, order=order)
    data.flags.writeable = False
    loader = DataLoader(data, Y, 3, shuffle=True)
    for batch, y in loader.batches(0):
        np.testing.assert_array_equal(batch, X[:, y])


def test_negative_epochs_and_starts_are_refused():
    loader = DataLoader(X, Y, 2)
    for place in ({"epoch": -1}, {"epoch": 0, "start": -1}):
        with pytest.raises(InputError, match="at least 0"):
            next(loader.batches(**place))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((X, Y[:4], 2), ShapeError, r"X \(2, 5\) and y \(4,\)"),
        ((X.T, Y, 2), ShapeError, r"X \(5, 2\)"),
        ((X, Y * 1.0, 2), LabelError, "float64"),
        ((X, Y - 1, 2), LabelError, "from -1"),
        ((X, Y, 0), InputError, "batch_size.*got 0"),
        ((X[:, :0], Y[:0], 2), ShapeError, "at least one sample"),
        ((X * np.nan, Y, 2), InputError, "nan in feature 0 of sample 0"),
    ],
)
def test_refusals(arguments, error, message):
    with pytest.raises(error, match=message):
        DataLoader(*arguments)


def test_labels_cannot_be_changed_behind_a_trainer():
    y = Y.copy()
    loader = DataLoader(X, y, 5)
    y[:] = 7
    assert next(loader.batches(0))[1].tolist() == Y.tolist()
    with pytest.raises(ValueError, match="read-only"):
        loader.y[0] = 7
