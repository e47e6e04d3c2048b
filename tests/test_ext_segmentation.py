"""The item of a photo before an uneven background, and cut-outs."""

import numpy as np
import pytest

pytest.importorskip("PIL")

from PIL import Image

from npsoftmax.ext import photos, segmentation

RED, GREEN = (200, 60, 60), (60, 128, 70)  # of the same grey
JUMPER = (slice(60, 150), slice(50, 110))


def scene(rng, item=RED, table=GREEN, noise=20):
    """A garment on a creased cloth, 160 x 200."""
    levels = np.full((200, 160, 3), table, float)
    levels *= rng.uniform(0.7, 1.15, (10, 8)).repeat(20, axis=0).repeat(20, axis=1)[..., None]
    levels[JUMPER] = item
    levels += rng.normal(0, noise, (200, 160, 1))
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8))


def columns_of(photo):
    return [column.reshape(28, 28) for column in photo.pixels.T]


def test_an_item_of_the_same_grey_as_a_creased_cloth_is_found_by_its_colour(rng):
    photo = photos.look(scene(rng))
    square, mirrored = columns_of(photo)
    rows, columns = (np.flatnonzero(square.any(axis=axis)) for axis in (1, 0))
    assert (rows[0], rows[-1]) == (0, 27)
    assert abs(columns.size - 28 * 60 / 90) <= 2  # within a cell
    assert abs(int(np.median(square[square > 0])) - 150) <= 10
    assert (mirrored == square[:, ::-1]).all()
    assert photo.warnings == () and not photo.is_blank and photo.quality > photos.CLEAR


def test_dark_places_of_an_item_are_bright_as_in_fashion_mnist(rng):
    image = scene(rng, noise=0)
    image.paste((100, 10, 10), (60, 80, 100, 100))
    square = columns_of(photos.look(image))[0]
    assert square[8, 14] > square[20, 14] + 40


def test_a_part_near_the_middle_wins_against_one_at_the_edge():
    item = np.zeros((40, 40), bool)
    item[15:25, 15:25] = item[0:4, 0:12] = True
    kept = segmentation._near_the_middle(item)
    assert kept[15:25, 15:25].all() and not kept[:4].any()


@pytest.mark.parametrize(("height", "rows"), [(20, 28), (12, 28), (11, 15), (5, 7)])
def test_wide_items_are_stretched_unless_they_are_as_wide_as_shoes(height, rows):
    image, mask = Image.new("RGB", (40, 40), RED), Image.new("L", (40, 40))
    mask.paste(255, (10, 10, 30, 10 + height))
    image.putalpha(mask)
    assert columns_of(photos.look(image))[0].any(axis=1).sum() == rows


@pytest.mark.parametrize("level", [0, 128, 255])
def test_the_transparency_of_a_cut_out_is_its_mask(level, rng):
    image = Image.new("RGB", (60, 40), (level,) * 3)
    mask = Image.new("L", (60, 40))
    mask.paste(255, (20, 10, 30, 30))
    image.putalpha(mask)
    photo = photos.look(image)
    expected = np.zeros((28, 28), np.uint8)
    expected[:, 7:21] = 150
    assert (columns_of(photo)[0] == expected).all()
    assert photo.quality == 1 and photo.warnings == ()


def test_a_transparency_that_hides_nothing_is_ignored():
    image = Image.new("L", (60, 40), 220)
    image.paste(20, (20, 10, 30, 30))
    opaque = image.convert("RGBA")
    assert (photos.look(opaque).pixels == photos.look(image).pixels).all()


def test_digits_are_neither_mirrored_nor_shaded_nor_stretched(rng):
    photo = photos.look(scene(rng), "centre-of-mass")
    (square,) = columns_of(photo)
    assert square.any(axis=1).sum() == 20 and square.max() > 240  # not about 150
    assert abs(square.any(axis=0).sum() - 20 * 60 / 90) <= 2


def test_shares_are_between_0_and_1_for_any_image(rng):
    for shape in ((1, 1), (1, 64), (64, 1), (2, 3), (64, 48)):
        cells = rng.integers(0, 256, (*shape, 3))
        share = segmentation._segment(cells)
        assert share.shape == shape and (share >= 0).all() and (share <= 1).all()
