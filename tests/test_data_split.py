"""splitobs on arrays that are easy to check by eye."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npsoftmax import splitobs
from npsoftmax.errors import InputError, ShapeError

X = np.arange(1, 11).reshape(5, 2).T  # columns [1 2], [3 4], ... [9 10]
Y = np.arange(5)


def test_columns_stay_with_their_labels_and_are_views():
    train, rest = splitobs((X, Y), at=0.6)
    np.testing.assert_array_equal(train[0], [[1, 3, 5], [2, 4, 6]])
    np.testing.assert_array_equal(rest[0], [[7, 9], [8, 10]])
    assert [y.tolist() for _, y in (train, rest)] == [[0, 1, 2], [3, 4]]
    assert all(np.shares_memory(piece, X) for piece, _ in (train, rest))


def test_an_array_gives_arrays_and_a_tuple_of_one_gives_tuples():
    assert [piece.tolist() for piece in splitobs(Y, at=2)] == [[0, 1], [2, 3, 4]]
    assert [piece[0].tolist() for piece in splitobs((Y,), at=2)] == [[0, 1], [2, 3, 4]]


def test_the_last_axis_is_split_for_any_number_of_axes():
    images = np.zeros((2, 3, 5))
    for shuffle in (False, True):
        assert [piece.shape for piece in splitobs(images, 0.4, shuffle)] == [(2, 3, 2), (2, 3, 3)]


@pytest.mark.parametrize(
    ("n", "at", "expected"),
    [
        (5, 1, [1, 4]),
        (5, 1.0, [5, 0]),
        (5, 0, [0, 5]),
        (5, np.float32(0.5), [2, 3]),  # 2.5 to the even 2
        (7, 0.5, [4, 3]),  # 3.5 to the even 4
        (15, (0.2, 0.3), [3, 4, 8]),  # 4.5 to the even 4
        (15, (0.0, 0.1, 0.5), [0, 2, 7, 6]),  # 0.5 * 15 / 13 * 13 is below 7.5 in floating point
        (10, (0.35, 0.65), [4, 6, 0]),  # 3.5 and 6.5: MLUtils.jl refuses 6.5 of 6
        (3, (0.5, 0.5), [2, 1, 0]),  # 1.5 and 1.5: one is left
        (10, (1.0, 0.0), [10, 0, 0]),
        (10, (0.1, 0.2, 0.7), [1, 2, 7, 0]),
        (10, (np.int64(2), 8), [2, 8, 0]),
        (4, (), [4]),
    ],
)
def test_lengths(n, at, expected):
    assert [piece.size for piece in splitobs(np.arange(n), at)] == expected


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(2, 5), (3, 2, 5)])
def test_shuffled_pieces_are_fortran_ordered_copies(order, shape):
    data = np.array(np.broadcast_to(X, shape), order=order)
    for piece, y in splitobs((data, Y), 0.6, shuffle=True, rng=0):
        np.testing.assert_array_equal(piece, data[..., y])
        assert piece.flags.f_contiguous
        assert not np.shares_memory(piece, data)


def test_the_seed_decides_the_order():
    def order(rng):
        return np.concatenate(splitobs(np.arange(50), 0.5, shuffle=True, rng=rng)).tolist()

    assert order(3) == order(3) == order(np.random.default_rng(3))
    assert len({tuple(order(rng)) for rng in (0, 1, None, None)}) == 4


def test_each_label_is_cut_in_order():
    labels = ["b", "a", "b", "a", "b", "b", "a", "a", "b", "b"]
    first, second = splitobs(np.arange(10), 0.5, stratified=labels)
    assert first.tolist() == [1, 3, 0, 2, 4]
    assert second.tolist() == [6, 7, 5, 8, 9]
    by_count = splitobs(np.arange(10), 5, stratified=labels)
    np.testing.assert_array_equal(by_count, [first, second])


def test_shuffled_groups_keep_their_shares():
    labels = np.repeat([7, 8], [40, 60])
    first, second = splitobs(labels, 0.25, shuffle=True, stratified=labels, rng=0)
    assert (np.count_nonzero(first == 7), first.size) == (10, 25)
    assert (np.count_nonzero(second == 7), second.size) == (30, 75)
    places, _ = splitobs(np.arange(100), 0.25, shuffle=True, stratified=labels, rng=0)
    assert places.tolist() != sorted(places)


FRACTIONS = st.lists(st.integers(0, 20), max_size=4).map(
    lambda parts: tuple(part / max(sum(parts), 20) for part in parts)
)


@given(st.data(), st.integers(1, 60), st.booleans(), st.booleans())
def test_pieces_are_disjoint_and_cover_everything(data, n, shuffle, by_label):
    counts = st.lists(st.integers(0, n // 4), max_size=4).map(tuple)
    at = data.draw(FRACTIONS | counts)
    labels = data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)) if by_label else None
    pairs = (np.stack([np.arange(n), -np.arange(n)]), np.arange(n))
    pieces = splitobs(pairs, at, shuffle, labels, rng=data.draw(st.integers(0, 9)))
    assert len(pieces) == len(at) + 1
    assert sorted(np.concatenate([y for _, y in pieces])) == list(range(n))
    for columns, y in pieces:
        np.testing.assert_array_equal(columns, [y, -y])
    if labels is None and all(isinstance(cut, int) for cut in at):
        assert tuple(y.size for _, y in pieces)[:-1] == at


@pytest.mark.parametrize(
    ("data", "arguments", "error", "message"),
    [
        ((X, Y[:4]), {"at": 0.5}, ShapeError, r"\(2, 5\), \(4,\)"),
        ((X.T, Y), {"at": 0.5}, ShapeError, r"pass np.asarray\(X\).T if rows are samples"),
        ((), {"at": 0.5}, ShapeError, r"got shapes \[\]"),
        (3.0, {"at": 0.5}, ShapeError, r"got shapes \[\(\)\]"),
        (X[:, :0], {"at": 0.5}, ShapeError, "at least one observation"),
        (Y, {"at": 1.01}, InputError, "from 0 to 1.*got 1.01"),
        (Y, {"at": -0.1}, InputError, "got -0.1"),
        (Y, {"at": float("nan")}, InputError, "got nan"),
        (Y, {"at": (0.9, 0.2)}, InputError, r"at most 1.*got \(0.9, 0.2\)"),
        (Y, {"at": 6}, InputError, "at most 5, got 6"),
        (Y, {"at": -1}, InputError, "counts from 0.*got -1"),
        (Y, {"at": (3, 3)}, InputError, r"at most 5, got \(3, 3\)"),
        (Y, {"at": True}, InputError, "a count like 7.*got True"),
        (Y, {"at": (0.5, 1)}, InputError, r"a tuple of one kind, got \(0.5, 1\)"),
        (Y, {"at": "0.5"}, InputError, "got '0.5'"),
        (Y, {"at": 0.5, "stratified": [0, 1]}, ShapeError, r"shape \(5,\), got \(2,\)"),
        (Y, {"at": 0.5, "stratified": np.array([0, "a", 1, 1, 1], object)}, InputError, "one kind"),
        (Y, {"at": 0.5, "shuffle": True, "rng": -1}, InputError, "rng: expected a whole number"),
    ],
)
def test_refusals(data, arguments, error, message):
    with pytest.raises(error, match=message):
        splitobs(data, **arguments)


def test_samples_and_labels_as_two_arguments_are_told_to_be_a_tuple():
    X, y = np.zeros((2, 99)), np.zeros(99, int)
    with pytest.raises(
        InputError, match=r"(?s)got array.{0,75}; several arrays are a tuple, \(X, y\)$"
    ):
        splitobs(X, y)
