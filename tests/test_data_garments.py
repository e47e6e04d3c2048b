"""The embedded data set: arguments, appearance, difficulty, and the shapes it is made of."""

import numpy as np
import pytest

from npsoftmax.data.datasets import find
from npsoftmax.data.garments import CLASSES, SIDE, Sheet, cut, generate, join, only, overlap, ring
from npsoftmax.errors import InputError

T_SHIRT, TROUSER, PULLOVER, DRESS, COAT, SANDAL, SHIRT, SNEAKER, BAG, BOOT = range(10)


@pytest.fixture(scope="module")
def train():
    return generate(40 * 256, seed=0)


@pytest.fixture(scope="module")
def test():
    return generate(2000, seed=1)


def images_of(data, label):
    """Return the images of one class, shape (images, row, column)."""
    X, y = data
    return X.T[y == label].reshape(-1, 28, 28)


def widths_of(data, label):
    """Return the mean number of lit pixels in each row."""
    return (images_of(data, label) > 20).sum(axis=2).mean(axis=0)


# The contract


def test_classes_are_those_of_fashion_mnist():
    assert find("fashion-mnist").classes == CLASSES


@pytest.mark.parametrize("num_samples", [1, 9, 10, np.int64(123)])
def test_shape_dtype_order_and_balance(num_samples):
    X, y = generate(num_samples, seed=3)
    assert X.shape == (784, num_samples) and X.dtype == np.uint8 and X.flags.f_contiguous
    assert y.shape == (num_samples,) and y.dtype == np.uint8
    counts = np.bincount(y, minlength=10)
    assert len(counts) == 10 and counts.max() - counts.min() <= 1


def test_labels_are_shuffled(train):
    _, y = train
    assert (np.diff(y.astype(int)) < 0).mean() == pytest.approx(0.45, abs=0.02)


def test_same_arguments_same_bytes_and_other_seed_other_images():
    X, y = generate(50)
    X_again, y_again = generate(50, seed=0)
    X_other, y_other = generate(50, seed=8)
    assert X.tobytes() == X_again.tobytes() and y.tobytes() == y_again.tobytes()
    assert not (X_other == X).all(axis=0).any() and (y != y_other).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_samples": 0}, "num_samples: .*at least 1, got 0"),
        ({"num_samples": 5, "seed": -1}, "seed: .*at least 0, got -1"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        generate(**arguments)


# The appearance


def test_garments_are_bright_on_a_black_background(train):
    X, _ = train
    lit = (X > 0).mean(axis=0)
    assert 0.5 < (X == 0).mean() < 0.7
    assert lit.min() > 0.04 and lit.max() < 0.85
    assert X.max(axis=0).min() > 40 and X.max() == 255
    corners = X.reshape(28, 28, -1)[::27, ::27]
    assert (corners == 0).mean() > 0.99


def test_no_two_images_are_alike(train):
    X, _ = train
    assert len(np.unique(X.T, axis=0)) == X.shape[1]


def test_every_class_varies_in_cut_and_in_brightness(train):
    for label in range(10):
        images = images_of(train, label)
        areas = (images > 20).sum(axis=(1, 2))
        assert areas.std() > 0.08 * areas.mean(), CLASSES[label]
        shades = np.array([np.median(image[image > 20]) for image in images])
        assert shades.std() > 20, CLASSES[label]


def test_trousers_have_one_waist_above_two_legs(train):
    lit = images_of(train, TROUSER) > 20
    starts = np.diff(lit, axis=2, prepend=False) & lit
    pieces = starts.sum(axis=2)
    assert (pieces[:, 6] == 1).mean() > 0.95
    assert (pieces[:, 21] == 2).mean() > 0.95


def test_dresses_are_wider_at_the_hem_than_at_the_waist(train):
    width = widths_of(train, DRESS)
    assert width[24] > 1.1 * width[16]


def test_sleeves_are_short_on_t_shirts_and_long_on_pullovers(train):
    t_shirt, pullover = widths_of(train, T_SHIRT), widths_of(train, PULLOVER)
    assert t_shirt[7] > 1.2 * t_shirt[20]
    assert pullover[20] > 1.2 * t_shirt[20]


@pytest.mark.parametrize("label", [SANDAL, SNEAKER, BOOT])
def test_shoes_point_left(train, label):
    lit = images_of(train, label) > 20
    tops = np.where(lit.any(axis=1), lit.argmax(axis=1), 28).mean(axis=0)
    assert tops[20:25].mean() < tops[3:8].mean() - 2


def test_boots_are_taller_than_sneakers(train):
    boot, sneaker = ((images_of(train, k) > 20).any(axis=2).sum(axis=1) for k in (BOOT, SNEAKER))
    assert np.median(boot) > np.median(sneaker) + 5


def test_bags_have_their_handles_on_top(train):
    lit = images_of(train, BAG) > 20
    row_4 = lit[:, 4].sum(axis=1)
    assert (row_4 > 0).mean() > 0.4 and row_4[row_4 > 0].mean() < 8
    rows_below = lit[:, ::-1].any(axis=2).argmax(axis=1)
    assert np.median(rows_below) > 2


# The difficulty


def linear_softmax_predictions(X_train, y_train, X_test, *, epochs=10, batch=256, rate=0.1):
    """Train by plain minibatch gradient descent; samples are rows here."""
    rng = np.random.default_rng(0)
    W, b = np.zeros((784, 10), np.float32), np.zeros(10, np.float32)
    for _ in range(epochs):
        for rows in rng.permutation(len(y_train)).reshape(-1, batch):
            Z = X_train[rows] @ W + b
            P = np.exp(Z - Z.max(axis=1, keepdims=True))
            P /= P.sum(axis=1, keepdims=True)
            P[np.arange(batch), y_train[rows]] -= 1
            W -= rate / batch * (X_train[rows].T @ P)
            b -= rate / batch * P.sum(axis=0)
    return (X_test @ W + b).argmax(axis=1)


def test_a_linear_softmax_gets_80_to_90_percent_and_mistakes_shirts_for_t_shirts(train, test):
    (X_train, y_train), (X_test, y_test) = train, test
    rows_train, rows_test = (X.T.astype(np.float32) / 255 for X in (X_train, X_test))
    predicted = linear_softmax_predictions(rows_train, y_train, rows_test)
    assert 0.80 < (predicted == y_test).mean() < 0.90

    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (y_test, predicted), 1)
    mistaken = np.triu(confusion + confusion.T, 1)
    assert np.unravel_index(mistaken.argmax(), (10, 10)) == (T_SHIRT, SHIRT)
    assert mistaken[T_SHIRT, SHIRT] > 40
    assert (confusion.diagonal() > 60).all()


# The shapes


@pytest.fixture
def sheet(rng):
    """Return two images that are neither shifted nor turned."""
    sheet = Sheet(2, rng)
    row, column = np.mgrid[:SIDE, :SIDE].reshape(2, 1, -1) + 0.5
    sheet.x, sheet.y = (np.repeat(t, 2, axis=0) for t in (column - SIDE / 2, row))
    return sheet


def covered(shape):
    """Return which pixels a shape covers, shape (images, row, column)."""
    return (shape < 0).reshape(-1, SIDE, SIDE)


def test_panel_tapers_from_row_to_row_with_measures_of_each_image(sheet):
    hem = np.array([[4.0], [10.0]])
    widths = covered(sheet.panel((4, 4), (24, hem))).sum(axis=2)
    assert (widths[:, [3, 24]] == 0).all()
    assert (widths[0, 4:24] == 8).all()
    assert list(widths[1, [4, 13, 14, 23]]) == [8, 14, 14, 20]


def test_band_spans_the_whole_width(sheet):
    rows = covered(sheet.band(5, 8))
    assert rows[:, 5:8].all() and rows.sum() == 2 * 3 * SIDE


def test_strip_has_its_length_and_its_two_widths(sheet):
    strip = covered(sheet.strip((-10, 14), (10, 14), 8, 4))[0]
    assert strip.any(axis=0).sum() == 20
    assert strip[:, 4].sum() == 8 and strip[:, 23].sum() == 4


def test_slanted_strip_has_the_area_of_the_upright_one(sheet):
    slanted = covered(sheet.strip((-6, 6), (6, 22), 4, 4))[0]
    assert slanted.sum() == pytest.approx(20 * 4, abs=4)
    assert slanted[7, 8] and slanted[20, 19] and not slanted[7, 19]


def test_ellipse_has_its_area_and_contains_its_centre(sheet):
    ellipse = sheet.ellipse((0.5, 14.5), 10, 5)
    assert np.clip(0.5 - ellipse[0], 0, 1).sum() == pytest.approx(np.pi * 10 * 5, rel=0.01)
    assert covered(ellipse)[:, 14, 14].all()


def test_fold_mirrors_shapes(sheet):
    spots = covered(sheet.fold().ellipse((6, 14), 2, 2))[0]
    assert spots[14, 8] and spots[14, 19] and (spots == spots[:, ::-1]).all()
    aside = covered(sheet.fold(at=4).panel((10, 2), (12, 2)))[0]
    assert list(np.flatnonzero(aside[10])) == [16, 17, 18, 19]


def test_drape_measures_heights_from_the_line(sheet):
    slope = sheet.drape((-14, 20), (14, 6))
    assert np.allclose(slope.y, sheet.y - 13 + sheet.x / 2)
    assert slope.x is sheet.x


def test_shapes_combine_as_sets(sheet):
    left, right = sheet.strip((-10, 14), (2, 14), 6, 6), sheet.strip((-2, 14), (10, 14), 6, 6)
    a, b = covered(left), covered(right)
    assert (covered(join(left, right)) == (a | b)).all()
    assert (covered(overlap(left, right)) == (a & b)).all()
    assert (covered(cut(left, right)) == (a & ~b)).all()
    first_only = covered(only(np.array([[True], [False]]), left))
    assert (first_only[0] == a[0]).all() and not first_only[1].any()


def test_ring_follows_the_outline(sheet):
    frame = covered(ring(sheet.panel((7, 7), (21, 7)), 2))[0]
    assert frame.sum() == 16**2 - 12**2
    assert not frame[8:20, 8:20].any()


def test_paint_covers_and_fades_at_the_edge(sheet):
    sheet.paint(sheet.panel((8, 4), (20.25, 4)), 0.8)
    sheet.paint(sheet.panel((8, 4), (12, 4)), 0.4)
    column = sheet.pixels().reshape(2, SIDE, SIDE)[:, :, 12:16].mean(axis=(0, 2)) / 255
    assert column[7] == 0 and column[21] == 0
    assert column[[9, 10]] == pytest.approx(0.4, abs=0.05)
    assert column[[13, 18]] == pytest.approx(0.8, abs=0.09)
    assert column[20] == pytest.approx(0.25 * 0.8, abs=0.05)


def test_grain_never_turns_white_into_black(sheet):
    sheet.paint(sheet.band(0, 28), 1.0)
    pixels = sheet.pixels()
    assert pixels.min() > 120 and pixels.max() == 255 and len(np.unique(pixels)) > 3


def test_cloth_is_striped_only_on_request(rng):
    def roughness(axis, **shares):
        shades = Sheet(200, rng).cloth(**shares).reshape(-1, SIDE, SIDE)
        assert shades.min() >= 0 and shades.max() <= 1
        return np.abs(np.diff(shades, axis=axis)).mean(axis=(1, 2)) > 0.05

    down, across = 1, 2
    assert not roughness(down).any() and not roughness(across).any()
    assert roughness(down, rows=1).mean() > 0.5 and not roughness(across, rows=1).any()
    assert roughness(across, columns=1).mean() > 0.5 and not roughness(down, columns=1).any()
    assert 0.2 < roughness(down, prints=0.5).mean() < 0.6


def test_poses_differ_but_little(rng):
    sheet = Sheet(500, rng)
    middle = 14 * SIDE + 14
    for grid, centre in ((sheet.x, 0.5), (sheet.y, 14.5)):
        offset = grid[:, middle] - centre
        assert 0.5 < offset.std() < 1 and np.abs(offset).max() < 2
    across = sheet.x[:, middle + 10] - sheet.x[:, middle]
    assert across.std() > 0.2 and across == pytest.approx(10, rel=0.12)


def test_chance_and_vary_give_one_value_per_image(rng):
    sheet = Sheet(2000, rng)
    lengths, chosen = sheet.vary(2, 5), sheet.chance(0.3)
    assert lengths.shape == chosen.shape == (2000, 1) and lengths.dtype == np.float32
    assert lengths.min() >= 2 and lengths.max() <= 5 and lengths.std() > 0.8
    assert chosen.mean() == pytest.approx(0.3, abs=0.05)
