"""From any photo to the pixels that a model was trained on."""

import random
import struct
import sys
import tracemalloc
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("PIL")

from photo_set import (
    CONDITIONS,
    Conditions,
    measure,
    measure_colab,
    measure_digits,
    photo,
    take_photos,
)
from PIL import Image, features

from npsoftmax import metrics
from npsoftmax.data.garments import generate
from npsoftmax.errors import CorruptFileError, InputError
from npsoftmax.ext import photos


def bar(table=220, item=20, size=(60, 40), box=(20, 10, 30, 30)):
    """An upright bar of 10 x 20 on a table."""
    image = Image.new("L", size, table)
    image.paste(item, box)
    return image


def square_of(photo):
    return photo.pixels[:, 0].reshape(28, 28)


BY_MASS = "centre-of-mass"

# What the model sees of an upright bar: 14 of 28 columns, in the middle.
BAR = np.zeros((28, 28), np.uint8)
BAR[:, 7:21] = 255


def saved(image, path, **options):
    image.save(path, **options)
    return path


def encoded(image, kind, **options):
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


# --- Simple scenes ---


@pytest.mark.parametrize(("table", "item"), [(220, 20), (0, 255), (40, 230), (130, 250), (130, 10)])
def test_a_bar_is_trimmed_enlarged_centred_and_light_on_black(table, item):
    seen = photos.look(bar(table, item))
    assert (square_of(seen) == BAR).all()
    assert seen.pixels.shape == (784, 1) and seen.pixels.dtype == np.uint8
    assert seen.warnings == () and not seen.is_blank


def test_a_wide_item_is_in_the_middle_rows():
    seen = photos.look(bar(box=(10, 10, 38, 17)))  # 28 x 7: of the 21 other rows, 11 are above
    rows = np.flatnonzero(square_of(seen).any(axis=1))
    assert rows.tolist() == list(range(11, 18))


def test_grey_levels_between_keep_their_order_and_the_brightest_is_white():
    image = bar(200, 100)
    image.paste(150, (20, 10, 30, 20))  # the upper half stands out half as much
    square = square_of(photos.look(image))
    assert square[3, 14] == 128 and square[24, 14] == 255


def test_a_large_photo_is_reduced():
    seen = photos.look(bar().resize((1800, 1200), Image.Resampling.NEAREST))
    assert seen.image.size == (450, 300) and seen.image.mode == "RGB"
    assert (square_of(seen) == BAR).all()


def test_white_paper_on_a_table_becomes_the_background():
    desk = Image.new("L", (200, 180), 200)
    sheet = bar(255, 60, size=(100, 120), box=(30, 20, 60, 80))
    sheet.paste(225, (60, 20, 70, 80))  # lighter than the desk, darker than the paper
    desk.paste(sheet, (40, 30))
    seen = square_of(photos.look(desk))
    assert seen[14].tolist() == square_of(photos.look(sheet))[14].tolist()
    assert seen[14, 20] == round(255 * 30 / 195)


def test_dust_on_the_table_is_dropped():
    image = bar(size=(300, 200), box=(100, 50, 150, 150))
    image.paste(0, (10, 10, 13, 13))
    image.paste(0, (280, 190, 282, 192))
    assert (square_of(photos.look(image)) == BAR).all()


def test_a_small_part_of_an_item_is_kept():
    image = bar(size=(300, 200), box=(100, 50, 150, 150))
    image.paste(20, (190, 90, 200, 110))  # 1/25 of the area of the bar
    square = square_of(photos.look(image))
    assert square[14, [0, 20, 27]].tolist() == [255, 0, 255]


@pytest.mark.parametrize("corner", [(13, 13), (47, 13), (13, 47), (47, 47)])
def test_cells_that_touch_at_a_corner_are_one_part(corner):
    image = bar(size=(64, 64), box=(17, 17, 47, 47))
    left, top = corner
    image.paste(20, (left, top, left + 4, top + 4))  # dust if it did not touch
    square = square_of(photos.look(image))
    assert (square[14] == 0).sum() == (square[:, 14] == 0).sum() == 3  # of 28, as 4 of 34


def test_a_faint_rim_belongs_to_the_item():
    image = Image.new("L", (512, 512), 220)
    image.paste(160, (126, 126, 386, 386))
    # The item covers whole cells, and the rim a quarter of the cells around.
    image.paste(20, (128, 128, 384, 384))
    square = square_of(photos.look(image))
    rim = round(255 * (2 * 60 + (260 / 28 - 2) * 200) / (260 / 28 * 200))
    assert square[0, 14] == square[27, 14] == square[14, 0] == square[14, 27] == rim


def test_light_spots_are_not_part_of_a_dark_item():
    image = bar()
    image.paste(255, (20, 15, 30, 25))
    square = square_of(photos.look(image))
    assert square[2, 14] == 255 and square[14, 14] == 0


def test_noise_does_not_move_the_box(rng):
    scene = np.asarray(bar(size=(300, 200), box=(100, 50, 150, 150)), float)
    noisy = Image.fromarray((scene + rng.normal(0, 8, scene.shape)).clip(0, 255).astype(np.uint8))
    assert abs(square_of(photos.look(noisy)).astype(int) - BAR).max() <= 16


# --- Properties ---

GARMENTS = generate(500, seed=1)[0].T.reshape(-1, 28, 28)
items = st.integers(0, len(GARMENTS) - 1).map(GARMENTS.__getitem__)


def placed(item, size=64, table=0, at=(18, 18)):
    scene = np.full((size, size), table, np.uint8)
    place = scene[at[0] : at[0] + 28, at[1] : at[1] + 28]
    place[:] = np.maximum(place, item)
    return scene


@given(items)
def test_a_negative_gives_the_same_pixels(item):
    scene = placed(item)
    light, dark = photos.look(Image.fromarray(scene)), photos.look(Image.fromarray(255 - scene))
    assert (light.pixels == dark.pixels).all()


@given(items, st.sampled_from([2, 3, 4, 8, 16]))
@settings(max_examples=20)
def test_enlarging_by_a_whole_factor_changes_nothing(item, factor):
    scene = placed(item)
    large = Image.fromarray(scene.repeat(factor, axis=0).repeat(factor, axis=1))
    assert (photos.look(large).pixels == photos.look(Image.fromarray(scene)).pixels).all()


@given(items, st.tuples(st.integers(1, 35), st.integers(1, 35)))
def test_the_position_of_the_item_does_not_matter(item, at):
    there = photos.look(Image.fromarray(placed(item, at=at)))
    assert (there.pixels == photos.look(Image.fromarray(placed(item))).pixels).all()


SIDES = st.integers(9, 40)


@given(SIDES, SIDES, st.tuples(*[st.integers(1, 60)] * 4), st.integers(5, 200))
def test_more_table_around_changes_nothing(width, height, margins, table):
    left, top, right, bottom = margins
    box = (left, top, left + width, top + height)
    seen = photos.look(bar(table, 240, (left + width + right, top + height + bottom), box))
    alone = photos.look(bar(table, 240, (width + 2, height + 2), (1, 1, width + 1, height + 1)))
    assert (seen.pixels == alone.pixels).all()


@given(items, st.integers(1, 8))
def test_exif_turns_the_photo_upright(item, orientation):
    scene = placed(item, at=(3, 30))
    lying = {1: scene, 2: scene[:, ::-1], 3: scene[::-1, ::-1], 4: scene[::-1], 5: scene.T,
             6: np.rot90(scene), 7: scene[::-1, ::-1].T, 8: np.rot90(scene, -1)}  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("PNG", "TIFF"):
        saved(Image.fromarray(lying[orientation]), "turned", format=kind, exif=exif)
        turned = photos.read("turned")
        assert (np.asarray(turned.image)[..., 0] == scene).all()
        assert (turned.pixels == photos.look(Image.fromarray(scene)).pixels).all()


# --- Framings ---


def centre_of_mass(square):
    lines = np.arange(28)
    return square.sum(axis=1) @ lines / square.sum(), square.sum(axis=0) @ lines / square.sum()


@given(items, st.sampled_from([1, 3, 10]), st.booleans())
@settings(max_examples=30)
def test_by_centre_of_mass_an_item_is_placed_as_in_mnist(item, factor, dark):
    scene = placed(item).repeat(factor, axis=0).repeat(factor, axis=1)
    square = square_of(photos.look(Image.fromarray(255 - scene if dark else scene), BY_MASS))
    assert max(np.ptp(np.flatnonzero(square.any(axis=axis))) + 1 for axis in (0, 1)) == 20
    assert square.max() == 255
    # All of 100 images of MNIST have their centre of mass between 13.5 and 14.5.
    assert all(13.5 <= place < 14.5 for place in centre_of_mass(square.astype(float)))


def test_an_item_whose_mass_is_at_one_end_stays_in_the_image():
    image = bar(255, 230, size=(200, 200), box=(50, 60, 150, 140))
    image.paste(0, (50, 60, 70, 140))
    square = square_of(photos.look(image, BY_MASS))
    assert np.flatnonzero(square.any(axis=0)).tolist() == list(range(8, 28))
    turned = square_of(photos.look(image.rotate(180), BY_MASS))
    assert np.flatnonzero(turned.any(axis=0)).tolist() == list(range(20))


def test_whole_pictures_of_the_right_size_come_through_exactly(rng, tmp_path):
    levels = rng.integers(0, 256, (28, 28), dtype=np.uint8)
    image = Image.fromarray(levels)
    for number, (picture, kind, options) in enumerate([
        (image, "PNG", {}),
        (image.convert("RGB"), "PNG", {}),
        (image.convert("RGBA"), "PNG", {}),
        (image.convert("P"), "PNG", {}),
        (Image.fromarray(levels.astype(np.uint16) * 257), "PNG", {}),
        (image, "GIF", {"save_all": True, "append_images": [Image.new("L", (28, 28))]}),
        (image, "TIFF", {}),
        (image, "BMP", {}),
    ]):  # fmt: skip
        path = saved(picture, tmp_path / f"{number} whole", format=kind, **options)
        seen = photos.read(path, "whole")
        assert (square_of(seen) == levels).all(), (picture.mode, kind)
        assert seen.warnings == () and not seen.is_blank


def test_test_images_and_their_negatives_come_through_exactly(garments):
    for column in garments.X_test[:, :50].T:
        for levels in (column, 255 - column):
            seen = photos.look(Image.fromarray(levels.reshape(28, 28)), "whole")
            assert (seen.pixels[:, 0] == levels).all()


def test_whole_pictures_of_other_sizes_become_the_means_of_areas(rng):
    levels = rng.integers(0, 256, (28, 28), dtype=np.uint8)
    large = Image.fromarray(levels.repeat(3, axis=0).repeat(5, axis=1))  # is stretched
    assert (square_of(photos.look(large, "whole")) == levels).all()
    small = photos.look(Image.fromarray(np.array([[0, 9], [50, 100]], np.uint8)), "whole", side=4)
    assert small.pixels.reshape(4, 4)[::3, ::3].tolist() == [[0, 9], [50, 100]]
    half = photos.look(Image.fromarray(np.array([[0, 9], [50, 103]], np.uint8)), "whole", side=1)
    assert half.pixels.tolist() == [[41]]  # 40.5
    dot = photos.look(Image.new("L", (1, 1), 7), "whole")
    assert dot.pixels.tolist() == [[7]] * 784 and not dot.is_blank


def test_an_unknown_framing_is_a_bounding_box_with_a_warning():
    seen = photos.look(bar(), None)
    assert (square_of(seen) == BAR).all()
    assert seen.warnings == (photos.UNKNOWN_FRAMING,)
    assert photos.look(Image.new("L", (9, 9)), None).warnings[0].startswith("blank")


def test_a_square_is_filled_up_with_the_median_of_the_border():
    image = Image.new("L", (40, 20), 90)
    image.paste(200, (10, 5, 28, 15))
    seen = photos.look(image, "square", side=8)
    square = seen.pixels.reshape(8, 8)
    assert (square[:2] == 90).all() and (square[6:] == 90).all()
    assert square[3].tolist() == [90, 90, 200, 200, 200, 156, 90, 90]
    assert seen.warnings == () and not seen.is_blank


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (700, 3), (8, 8)])
def test_a_square_takes_pictures_of_any_shape(size):
    seen = photos.look(Image.new("RGB", size, "white"), "square", side=8)
    assert seen.pixels.shape == (64, 1) and (seen.pixels == 255).all()


def test_other_framings_and_sides_are_refused():
    with pytest.raises(InputError, match=r"framing: expected one of bounding-box, .* got 'box'"):
        photos.look(bar(), "box")
    with pytest.raises(InputError, match=r"side: expected 28 unless framing is .*, got 8"):
        photos.look(bar(), BY_MASS, side=8)
    with pytest.raises(InputError, match="side: expected a whole number of at least 1, got 0"):
        photos.look(bar(), "whole", side=0)


# --- Kinds of images ---


def with_hole(mode):
    """The bar on a table that is transparent, over black pixels."""
    image = bar(0, 20).convert("RGBA")
    image.putalpha(bar(0, 255))
    return image.convert(mode)


def deep(dtype):
    return Image.fromarray(np.asarray(bar()).astype(dtype) * 257)


def palette():
    """A black table with a bar of grey 20; the table may be transparent."""
    image = bar(1, 0).convert("P")
    image.putpalette([20, 20, 20, 0, 0, 0])
    return image


def frames():
    # New images, because Pillow stores options in them.
    return {"save_all": True, "append_images": [bar(box=(0, 0, 40, 5))]}


RGB, CMYK = bar().convert("RGB"), bar().convert("CMYK")
BITS = bar(255, 0).convert("1")
JPEG = {"quality": 95}
KINDS = {
    name: encoded(image, kind, **options)
    for name, image, kind, options in (
        ("grey PNG", bar(), "PNG", {}),
        ("RGB PNG", RGB, "PNG", {}),
        ("JPEG", bar(), "JPEG", JPEG),
        ("CMYK JPEG", CMYK, "JPEG", JPEG),
        ("progressive JPEG", bar(), "JPEG", JPEG | {"progressive": True}),
        ("JPEG of two pictures (MPO)", bar(), "MPO", JPEG | frames()),
        ("1-bit PNG", BITS, "PNG", {}),
        ("1-bit TIFF", BITS, "TIFF", {"compression": "group4"}),
        ("palette PNG", bar().convert("P"), "PNG", {}),
        ("palette PNG with transparency", palette(), "PNG", {"transparency": b"\xff\x00"}),
        ("grey PNG with one transparent level", bar(9, 20), "PNG", {"transparency": 9}),
        (
            "RGB PNG with one transparent colour",
            bar(9, 20).convert("RGB"),
            "PNG",
            {"transparency": (9, 9, 9)},
        ),
        ("RGBA PNG", with_hole("RGBA"), "PNG", {}),
        ("LA PNG", with_hole("LA"), "PNG", {}),
        ("16-bit grey PNG", deep(np.uint16), "PNG", {}),
        ("16-bit grey TIFF", deep(np.uint16), "TIFF", {}),
        ("16-bit big-endian TIFF", deep(np.uint16), "TIFF", {"big_endian": True}),
        ("32-bit integer TIFF", deep(np.int32), "TIFF", {}),
        ("CMYK TIFF", CMYK, "TIFF", {}),
        ("BMP", RGB, "BMP", {}),
        ("PPM", RGB, "PPM", {}),
        ("GIF", bar(), "GIF", {}),
        ("ICO", RGB, "ICO", {"sizes": [(60, 40)]}),
        *((f"{kind} of two frames", bar(), kind, frames()) for kind in ("GIF", "PNG", "TIFF")),
        ("RGB WEBP", RGB, "WEBP", {"lossless": True}),
        ("transparent WEBP", with_hole("RGBA"), "WEBP", {"lossless": True}),
        ("WEBP of two frames", bar(), "WEBP", {"lossless": True} | frames()),
    )
    if kind != "WEBP" or features.check("webp")
}


@pytest.mark.parametrize("kind", KINDS)
def test_common_kinds_of_images_are_read(kind, tmp_path):
    path = tmp_path / "photo"  # without an extension
    path.write_bytes(KINDS[kind])
    seen, is_cut_out = photos.read(path), "transparen" in kind or "A PNG" in kind
    assert seen.image.mode == "RGB"
    bar = BAR // 255 * 150 if is_cut_out else BAR
    assert abs(square_of(seen).astype(int) - bar).max() <= ("JPEG" in kind) * 20
    corner = np.asarray(seen.image)[0, 0].tolist()
    assert min(corner) >= (255 if is_cut_out else 210)


@pytest.mark.parametrize("format", ["AVIF", "JPEG2000"])
def test_newer_formats_are_read_if_pillow_supports_them(format, tmp_path):
    if not features.check({"AVIF": "avif", "JPEG2000": "jpg_2000"}[format]):
        pytest.skip(f"this Pillow has no {format}")
    path = saved(bar(size=(120, 80), box=(40, 20, 60, 60)), tmp_path / "photo", format=format)
    assert abs(square_of(photos.read(path)).astype(int) - BAR).max() < 40


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX",
                                  "CMYK", "YCbCr", "HSV", "I", "I;16"])  # fmt: skip
def test_images_of_every_mode_are_seen(mode):
    image = bar(255, 0)
    if mode == "RGBa":
        image = image.convert("RGBA")
    if mode.startswith("I"):
        image = deep(np.int32 if mode == "I" else np.uint16)
    else:
        image = image.convert(mode)
    assert image.mode == mode
    assert (square_of(photos.look(image)) == BAR).all()


def test_the_upper_byte_of_sixteen_bits_is_taken():
    levels = np.arange(65536, dtype=np.uint16).reshape(512, 128)
    image = photos.look(Image.fromarray(levels)).image
    assert (np.asarray(image)[..., 0] == levels // 256).all()


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 20_000), (20_000, 1), (3, 700)])
@pytest.mark.parametrize("item", [False, True])
def test_absurd_sizes(size, item, tmp_path):
    image = Image.new("L", size, 230)
    if item:
        image.paste(0, (0, 0, -(-size[0] // 3), -(-size[1] // 3)))
    seen = photos.read(saved(image, tmp_path / "thin.png"))
    assert seen.pixels.shape == (784, 1)
    assert seen.is_blank == (seen.pixels.max() == 0) and max(seen.image.size) <= 512


# --- Warnings ---


@pytest.mark.parametrize("table", [0, 100, 255])
def test_blank_images_have_a_warning(table):
    seen = photos.look(Image.new("RGB", (50, 70), (table,) * 3))
    assert seen.is_blank and not seen.pixels.any()
    assert seen.warnings == ("blank: nothing stands out from the background",)


def test_a_table_alone_is_blank():
    nothing = np.zeros(784, np.uint8)
    for seed in range(20):
        table = photo(nothing, seed, Conditions("dark", table=(20, 240), enlarged=4, gradient=0.1))
        assert photos.look(Image.open(BytesIO(table))).is_blank


def test_low_contrast_has_a_warning():
    (warning,) = photos.look(bar(220, 190)).warnings
    assert warning.startswith("low in contrast: 30 of 255 grey levels")
    assert photos.look(bar(220, 190)).quality == 30 / 32
    assert photos.look(bar(220, 188)).warnings == ()


def test_light_that_falls_off_to_one_side_does_not_matter():
    rows = np.linspace(170, 210, 200).repeat(300).reshape(200, 300)
    scene = Image.fromarray(rows.astype(np.uint8))
    scene.paste(70, (100, 50, 150, 150))
    seen = photos.look(scene)
    assert ((square_of(seen) > 100) == (BAR > 0)).all()
    assert seen.warnings == () and seen.quality == 1


def test_an_uneven_background_without_an_item_has_a_warning(rng):
    clutter = (
        rng.integers(0, 256, (12, 16, 3), dtype=np.uint8).repeat(20, axis=0).repeat(20, axis=1)
    )
    seen = photos.look(Image.fromarray(clutter))
    assert seen.warnings == ("no item found: the background is uneven",)
    assert not seen.is_blank and 0 <= seen.quality < photos.CLEAR


# --- Unreadable files ---


def test_paths_that_are_no_files_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "missing.png", "/dev/zero", "a\0b", ""):
        with pytest.raises(InputError, match="cannot read"):
            photos.read(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b"not an image", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"<svg xmlns='http://x.org'/>"]
    + [encoded(bar().convert("RGB"), kind) for kind in ("EPS", "TGA", "PCX")],
    ids=len,
)
def test_other_formats_are_refused(content):
    Path("file.jpg").write_bytes(content)
    expected = rf"expected an image .*, got {len(content)} bytes in another format"
    with pytest.raises(CorruptFileError, match=expected):
        photos.read("file.jpg")


@pytest.mark.parametrize("brands", [b"heic____mif1heic", b"mif1____mif1heic", b"hevc____msf1hevc"])
def test_the_photos_of_iphones_are_named_under_any_name(brands, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    Path("IMG_1.jpg").write_bytes(b"\0\0\0\x18ftyp" + brands + bytes(99))
    with pytest.raises(CorruptFileError, match=r"got HEIC, .*pip install pillow-heif, or save it"):
        photos.read("IMG_1.jpg")


def test_the_photos_of_iphones_are_read_with_pillow_heif():
    pytest.importorskip("pillow_heif").register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = 6
    for options in ({}, {"exif": exif.tobytes()}):
        image = bar(size=(120, 80), box=(40, 20, 60, 60))
        image.rotate(90 if options else 0, expand=True).save("IMG_1.heic", **options)
        assert abs(square_of(photos.read("IMG_1.heic")).astype(int) - BAR).max() < 40


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF"])
def test_truncated_files_are_refused(kind, tmp_path):
    rng = np.random.default_rng(0)
    data = encoded(Image.fromarray(rng.integers(0, 256, (90, 90), np.uint8)), kind)
    path = tmp_path / "cut"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(CorruptFileError, match="expected an image"):
        photos.read(path)


def test_large_files_are_refused_before_they_are_read(tmp_path):
    path = tmp_path / "huge.png"
    with path.open("wb") as file:
        file.truncate(photos.MAX_BYTES + 1)
    with pytest.raises(CorruptFileError, match="at most 104857600 bytes"):
        photos.read(path)


def bomb(width, height):
    """A small PNG file whose header announces many pixels."""

    def chunk(kind, data):
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [9_460, 13_378, 13_379, 60_000])  # Pillow warns below 13,379
def test_decompression_bombs_are_refused_unopened(side, tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(side, side))
    tracemalloc.start()
    try:
        with pytest.raises(CorruptFileError, match="at most 89478485 pixels, got more"):
            photos.read(path)
        assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    finally:
        tracemalloc.stop()


def test_a_user_may_lower_pillows_limit(monkeypatch, tmp_path):
    path = saved(bar(), tmp_path / "bar.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)  # the bar has 2400, not twice as many
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # with any filters of the user
        with pytest.raises(CorruptFileError, match="at most 2000 pixels"):
            photos.read(path)


def test_damage_that_pillow_repairs_gives_no_python_warning(tmp_path):
    path = saved(bar(), tmp_path / "bar.png", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0")
    assert (square_of(photos.read(path)) == BAR).all()


def test_numbers_without_a_white_are_refused(tmp_path):
    path = saved(Image.fromarray(np.full((9, 9), 0.5, np.float32)), tmp_path / "float.tiff")
    with pytest.raises(CorruptFileError, match=r"float.tiff: expected 8 bits .* 0.5 \(F\)"):
        photos.read(path)
    for least, most in ((0, 70_000), (-1, 255)):
        with pytest.raises(CorruptFileError, match=rf"image: expected .* from {least} to {most}"):
            photos.look(Image.fromarray(np.array([[least, most]], np.int32)))


def test_other_objects_and_undecodable_images_are_refused():
    with pytest.raises(InputError, match=r"PIL image, got str; read\(path\)"):
        photos.look("boot.jpg")
    with pytest.raises(CorruptFileError, match=r"pixels, got a size of \(0, 5\)"):
        photos.look(Image.new("L", (0, 5)))
    with pytest.raises(CorruptFileError, match="conversion from La"):
        photos.look(bar().convert("LA").convert("La"))
    with pytest.raises(CorruptFileError, match="truncated"):
        photos.look(Image.open(BytesIO(encoded(bar(), "JPEG")[:-99])))


def mutate(data, random_):
    """Return the bytes with a few changed, dropped, repeated or cut off, mostly in the header."""
    data = bytearray(data)
    for _ in range(random_.randint(1, 6)):
        last = len(data) - 1 if random_.random() < 0.4 else min(len(data) - 1, 100)
        at, how = random_.randint(0, max(last, 0)), random_.random()
        if how < 0.6:
            data[at : at + 1] = [random_.choice([0, 1, 127, 128, 255, random_.randrange(256)])]
        elif how < 0.75:
            del data[at : at + random_.randint(1, 8)]
        elif how < 0.9:
            data[at:at] = data[at : at + random_.randint(1, 16)]
        else:
            del data[max(at, 20) :]
    return bytes(data)


@pytest.mark.parametrize("num_seeds", [25, pytest.param(500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_images_are_read_or_refused(kind, num_seeds):
    refusals = []
    for seed in range(num_seeds):
        Path("damaged").write_bytes(mutate(KINDS[kind], random.Random(seed)))
        try:
            seen = photos.read("damaged")
        except CorruptFileError as error:
            refusals.append(str(error))
        else:
            assert seen.pixels.shape in {(784, 1), (784, 2)} and seen.pixels.dtype == np.uint8
    assert refusals and all(text.startswith("damaged: expected ") for text in refusals)


# --- Accuracy ---


def test_photos_of_digits_are_recognised_by_a_model_of_digits_by_centre_of_mass():
    pytest.importorskip("sklearn")
    assert measure_digits(BY_MASS, num_photos=100)[0] > 0.9


def test_photos_of_test_items_are_recognised(fashion_model, fashion_mnist):
    X, y = fashion_mnist.X_test[:, :250], fashion_mnist.y_test[:250]
    prints, dark = Conditions("print"), Conditions("dark")
    images = take_photos(X[:, :125], prints) + take_photos(X[:, 125:], dark)
    top_1, top_3, _ = measure(fashion_model, images, y)
    assert top_1 >= 0.78 and top_3 >= 0.96


@pytest.mark.slow
@pytest.mark.parametrize("name", CONDITIONS)
def test_photos_are_recognised_in_all_ordinary_conditions(name, fashion_model, fashion_mnist):
    X, y = fashion_mnist.X_test[:, :500], fashion_mnist.y_test[:500]
    images = take_photos(X, CONDITIONS[name])
    top_1, top_3, warned = measure(fashion_model, images, y)
    assert top_1 >= 0.78 and top_3 >= 0.96 and warned < 0.05
    assert measure_colab(fashion_model, images, y)[0] < 0.4


def test_test_items_and_their_negatives_are_classified_as_before(fashion_model, fashion_mnist):
    X, y = fashion_mnist.X_test[:, :300], fashion_mnist.y_test[:300]
    for level in (np.asarray, np.invert):
        images = [Image.fromarray(level(X[:, j]).reshape(28, 28)) for j in range(300)]
        columns = np.hstack([photos.look(image).pixels for image in images])
        assert np.mean(fashion_model.predict(columns) == fashion_model.predict(X)) >= 0.97
        assert metrics.accuracy(fashion_model.logits(columns), y) >= 0.8
