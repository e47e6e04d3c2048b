"""Any photo of one item to the 28x28 pixels that a model was trained on, with Pillow.

The recipe, all of it in whole numbers (``//`` rounds down), so that every machine, and the web
page, sees the same pixels. The median of ``m`` numbers is number ``m // 2`` of the sorted ones,
counted from 0. The border of an image are its outermost pixels, each corner once.

1.  **Open**: first frame, turned upright as EXIF says, laid on white where transparent, as RGB of
    8 bits (the upper ones of 16).
2.  **Working size**: ``f = ceil(longest side / 512)``; the mean of every ``f x f`` block in each
    channel: ``((sum + n // 2) * (2**24 // n)) >> 24`` for the ``n`` pixels of a block, fewer at
    the right and lower edge.
3.  **Grey**: ``(19595 R + 38470 G + 7471 B + 32768) // 65536``, ITU-R 601.
4.  **Cells**: ``g = ceil(longest side / 64)``; the mean of every ``g x g`` block, as in step 2.
5.  **Background**: ``bg``, the median of the border cells; ``spread``, the median of their
    ``|cell - bg|``.
6.  **Polarity**: with ``n = max(1, cells // 200)``, ``light`` is the ``n``-th largest cell minus
    ``bg`` and ``dark`` is ``bg`` minus the ``n``-th smallest. The item is dark if ``dark > light``,
    else light; ``contrast`` is the larger of the two. ``d = bg - grey`` for a dark item, else
    ``grey - bg``: signed, for pixels and for cells.
7.  **Blank**: if ``contrast < max(8, 6 * spread)``, all pixels are 0 and that is all.
8.  **Threshold**: ``t = max(contrast // 12, 4 * spread)``. Cells with ``d > t`` are the item's.
    Cells that touch, also at a corner, make a part; parts of fewer than 1/50 of the largest
    part's cells are dust and are dropped. The region is the box around the rest, one cell wider on
    every side where the image goes on, in pixels.
9.  **Box**: ``k = max(1, longest side // 32)``, at most the region's height and width. A row of
    the region belongs to the item if the sum of ``d`` over some ``k`` neighbours within the row is
    more than ``k * t``, a column likewise (over ``k`` neighbours within the column). From the first
    to the last such row and column is the box; if there is none, the region is.
10. **Paper**: once, and for a dark item only. With ``p = max(12, 4 * spread)`` steps 8 and 9 are
    done with ``d > t or d < -p`` (sums: ``> k * t or < -k * p``). If the median of the grey
    border of that box is more than ``bg + p``, the item lies on a sheet that is lighter than the
    table: the grey image is cut to the box, and unless that is blank (step 7), all begins anew with
    it at step 4.
11. **Shrink**: the box of ``h x w`` pixels becomes ``H x W``, the longest side 28, the other
    ``max(1, (56 * side + longest) // (2 * longest))``. Each new pixel is the mean of ``d`` over
    the area that it covers, in fractions of pixels (times ``h * w`` it is a whole number ``S``).
12. **Stretch**: ``S = max(S, 0)``; with ``top = max(1, largest S)``, the pixel is
    ``(510 * S + top) // (2 * top)``: the brightest is 255, as in the data set.
13. **Centre** on 28x28 black: the first row is ``(29 - H) // 2``, the first column
    ``(29 - W) // 2``: where one line is over it goes above or to the left, as in the data set.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from npsoftmax.errors import CorruptFileError, InputError, NpsoftmaxError
from npsoftmax.files import read_bytes

__all__ = ["Photo", "Scene", "centred", "look", "read", "without_table"]


# From a grey photo to 28x28 pixels: steps 4 to 13 of :mod:`npsoftmax.ext.photos`.

SIDE = 28
CELLS = 64

Levels = NDArray[np.int64]
Box = tuple[slice, slice]


class Scene:
    """A grey image, and what its cells say of background and item (steps 4 to 7)."""

    def __init__(self, grey: NDArray[np.uint8]) -> None:
        self.grey, self.cell = grey, -(-max(grey.shape) // CELLS)
        self.cells = np.asarray(Image.fromarray(grey).reduce(self.cell)).astype(np.int64)
        self.background = _median(_border(self.cells))
        self.spread = _median(abs(_border(self.cells) - self.background))
        levels, n = np.sort(self.cells, axis=None), max(1, self.cells.size // 200)
        light, dark = int(levels[-n]) - self.background, self.background - int(levels[n - 1])
        self.is_item_dark, self.contrast = dark > light, max(dark, light)
        self.is_blank = self.contrast < max(8, 6 * self.spread)

    def difference(self, levels: NDArray[np.uint8] | Levels) -> Levels:
        """Return how far levels are from the background, in the direction of the item."""
        signed = levels.astype(np.int64) - self.background
        return -signed if self.is_item_dark else signed

    def box(self, opposite: float = np.inf) -> Box:
        """Return where the item is (steps 8 and 9), or it and what is so opposite to it (10)."""
        threshold = max(self.contrast // 12, 4 * self.spread)
        d = self.difference(self.cells)
        item = _without_dust((d > threshold) | (d < -opposite))
        rows, columns = _rows(item), _rows(item.T)
        top, left = (max(0, (span.start - 1) * self.cell) for span in (rows, columns))
        bottom, right = ((span.stop + 1) * self.cell for span in (rows, columns))
        d = self.difference(self.grey[top:bottom, left:right])
        k = min(max(1, max(self.grey.shape) // 32), *d.shape)
        rows, columns = (
            _rows((sums > k * threshold) | (sums < -k * opposite))
            for sums in (_window_sums(d, k), _window_sums(d.T, k))
        )
        return (
            slice(top + rows.start, top + rows.stop),
            slice(left + columns.start, left + columns.stop),
        )


def without_table(scene: Scene) -> Scene:
    """Return the scene of the sheet of paper that the item lies on, if it does (step 10)."""
    if scene.is_blank or not scene.is_item_dark:
        return scene
    lighter = max(12, 4 * scene.spread)
    paper = scene.grey[scene.box(lighter)]
    if _median(_border(paper)) <= scene.background + lighter:
        return scene
    sheet = Scene(paper)
    return scene if sheet.is_blank else sheet


def centred(scene: Scene) -> NDArray[np.uint8]:
    """Return the item on 28x28 black pixels (steps 11 to 13)."""
    pixels = np.zeros((SIDE, SIDE), np.uint8)
    if scene.is_blank:
        return pixels
    d = scene.difference(scene.grey[scene.box()])
    longest = max(d.shape)
    height, width = (max(1, (2 * SIDE * side + longest) // (2 * longest)) for side in d.shape)
    # All are whole numbers below 2**53: float64 has them exactly, in whatever order it adds.
    sums = _overlaps(height, d.shape[0]) @ d.astype(float) @ _overlaps(width, d.shape[1]).T
    levels = np.maximum(sums, 0).astype(np.int64)
    brightest = max(1, int(levels.max()))
    y, x = (SIDE + 1 - height) // 2, (SIDE + 1 - width) // 2
    pixels[y : y + height, x : x + width] = (510 * levels + brightest) // (2 * brightest)
    return pixels


def _overlaps(new: int, old: int) -> NDArray[np.float64]:
    """Return how much of each of so many old pixels every new one covers, times ``new``."""
    i, j = np.arange(new)[:, None], np.arange(old)
    shared = np.minimum((i + 1) * old, (j + 1) * new) - np.maximum(i * old, j * new)
    overlaps: NDArray[np.float64] = np.maximum(shared, 0).astype(np.float64)
    return overlaps


def _median(levels: NDArray[Any]) -> int:
    return int(np.sort(levels, axis=None)[levels.size // 2])


def _border(levels: NDArray[Any]) -> NDArray[Any]:
    outside = np.ones(levels.shape, bool)
    outside[1:-1, 1:-1] = False
    return levels[outside]


def _window_sums(d: Levels, k: int) -> Levels:
    """Return the sums of ``k`` neighbours in every row."""
    ends = np.cumsum(np.pad(d, ((0, 0), (1, 0))), axis=1)
    return ends[:, k:] - ends[:, :-k]


def _rows(mask: NDArray[np.bool_]) -> slice:
    """Return from the first to the last row with a True in it, or all where none has any."""
    places = np.flatnonzero(np.logical_or.reduce(mask, axis=1))
    return slice(int(places[0]), int(places[-1]) + 1) if places.size else slice(0, len(mask))


def _without_dust(cells: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Drop the parts, of cells that touch, that are small next to the largest (step 8)."""
    framed = np.pad(cells, 1)
    flat, width = framed.ravel(), framed.shape[1]
    # Runs of cells within a row: from starts up to ends. The frame keeps rows apart.
    edges = np.flatnonzero(np.diff(flat)) + 1
    starts, ends = edges[::2], edges[1::2]
    first = np.searchsorted(ends, starts + width)  # the runs that touch it from the next row
    last = np.searchsorted(starts, ends + width, side="right")
    part = np.arange(starts.size)
    for run in range(starts.size):
        for below in range(first[run], last[run]):
            part[part == part[below]] = part[run]
    sizes = np.bincount(part, weights=ends - starts)
    flat[flat] = np.repeat(50 * sizes[part] >= sizes.max(), ends - starts)
    return framed[1:-1, 1:-1]


WORKING_SIDE = 512
LOW_CONTRAST = 32
EVEN = 10  # times the background's spread: less contrast is doubtful, less than 6 times blank
MAX_BYTES = 100 * 2**20
# Not all that Pillow knows: some formats run other programs, some take any bytes for an image.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "AVIF", "JPEG2000", "ICO")

_ORIENTATION = 0x0112  # in EXIF: which way up the camera was held
_UPRIGHT: dict[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo and what a model sees of it.

    Attributes
    ----------
    image : PIL.Image.Image
        The photo in RGB, upright, its longest side at most 512.
    pixels : ndarray of uint8
        What the model sees, shape ``(784, 1)``: the item, light on black, 28x28 row by row.
    is_blank : bool
        Nothing stands out from the background; ``pixels`` are all 0, and predictions say nothing.
    warnings : tuple of str
        What is doubtful about the photo.

    Examples
    --------
    >>> photo = look(Image.new("RGB", (60, 40), "white"))
    >>> photo.is_blank, photo.warnings
    (True, ('blank: nothing stands out from the background',))
    """

    image: Image.Image
    pixels: NDArray[np.uint8]
    is_blank: bool
    warnings: tuple[str, ...]


def read(path: str | os.PathLike[str]) -> Photo:
    """Read an image file: JPEG, PNG, GIF, WebP, TIFF, BMP, AVIF, JPEG 2000, PPM or ICO.

    Its first frame is taken, and turned upright as EXIF says. The limit on the number of pixels is
    ``PIL.Image.MAX_IMAGE_PIXELS``; Pillow itself only warns up to twice as many, but a limit that
    warns does not protect a memory.

    Parameters
    ----------
    path : path
        A file of at most 100 MiB.

    Returns
    -------
    Photo

    Raises
    ------
    InputError
        There is no such file, it cannot be read, or it is a folder, a device or a pipe.
    CorruptFileError
        It is no such image, is damaged or cut off, or too large.

    Examples
    --------
    >>> image = Image.new("L", (60, 40), "white")
    >>> image.paste("black", (20, 10, 30, 30))
    >>> image.save("bar.png")
    >>> read("bar.png").pixels.reshape(28, 28)[0].tolist()  # 10 x 20 becomes 14 x 28
    [0, 0, 0, 0, 0, 0, 0, 255, 255, 255, ..., 255, 0, 0, 0, 0, 0, 0, 0]
    """
    data = read_bytes(path, MAX_BYTES)
    with _decoding(path, len(data)):
        shown, orientation = _decoded(data)
        if orientation in _UPRIGHT:
            shown = shown.transpose(_UPRIGHT[orientation])
    return _photo(shown)


def look(image: Image.Image) -> Photo:
    """Find the item in an image and make of it the pixels that a model was trained on.

    Parameters
    ----------
    image : PIL.Image.Image
        Upright, of any mode with 8 bits a channel, or 16 bits grey.

    Returns
    -------
    Photo

    Raises
    ------
    InputError
        It is no PIL image.
    CorruptFileError
        It has no pixels, or numbers of which nothing says what is white, or cannot be decoded.

    Examples
    --------
    >>> image = Image.new("L", (60, 40), 40)
    >>> image.paste(70, (20, 10, 30, 30))
    >>> photo = look(image)
    >>> photo.pixels.shape, photo.pixels.max().item()
    ((784, 1), 255)
    >>> photo.warnings
    ('low in contrast: 30 of 255 grey levels between the item and the background',)
    """
    if not isinstance(image, Image.Image):
        raise InputError(
            f"image: expected a PIL image, got {type(image).__name__}; read(path) opens a file"
        )
    with _decoding("image"):
        shown = _on_white(image)
    return _photo(shown)


def _photo(image: Image.Image) -> Photo:
    """Return what :func:`look` does, of an image in RGB (steps 2 to 13)."""
    factor = -(-max(image.size) // WORKING_SIDE)
    shown = image.reduce(factor) if factor > 1 else image
    scene = without_table(Scene(np.asarray(shown.convert("L"))))
    return Photo(shown, centred(scene).reshape(-1, 1), scene.is_blank, _doubts(scene))


def _doubts(scene: Scene) -> tuple[str, ...]:
    """Say in words what makes predictions doubtful, whatever the model."""
    if scene.is_blank:
        return ("blank: nothing stands out from the background",)
    levels, doubts = f"{scene.contrast} of 255 grey levels", []
    if scene.contrast < LOW_CONTRAST:
        doubts.append(f"low in contrast: {levels} between the item and the background")
    if scene.contrast < EVEN * scene.spread:
        doubts.append(f"uneven background: it varies by {scene.spread}, the item by {levels}")
    return tuple(doubts)


@contextmanager
def _decoding(path: str | os.PathLike[str], size: int = 0) -> Iterator[None]:
    """Turn whatever Pillow raises of a file into an error that says what to do."""
    known = f"an image ({', '.join(FORMATS)})"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of damage that Pillow copes with
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except NpsoftmaxError as error:
        raise CorruptFileError(f"{path}: {error}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise CorruptFileError(
            f"{path}: expected at most {Image.MAX_IMAGE_PIXELS} pixels, got more; scale it down"
        ) from error
    except UnidentifiedImageError as error:
        raise CorruptFileError(
            f"{path}: expected {known}, got {size} bytes that are none; save it as JPEG or PNG"
        ) from error
    except Exception as error:  # damaged bytes take the decoders to errors of every kind
        raise CorruptFileError(
            f"{path}: expected {known}, got a damaged one: {error!r:.200}; save it anew"
        ) from error


def _decoded(data: bytes) -> tuple[Image.Image, object]:
    """Return the image of a file in RGB, as it lies there, and how EXIF says that it was held."""
    with Image.open(BytesIO(data), formats=FORMATS) as image:
        # JPEG can be decoded at a half, a quarter or an eighth, in as little of the memory.
        image.draft(None, (2 * WORKING_SIDE, 2 * WORKING_SIDE))
        image.load()
        return _on_white(image), image.getexif().get(_ORIENTATION)


def _on_white(image: Image.Image) -> Image.Image:
    """Return the image as RGB without transparency (step 1)."""
    if min(image.size) < 1:
        raise InputError(f"expected pixels, got a size of {image.size}; take another image")
    if image.mode.startswith(("I", "F")):
        image = _as_bytes(image)
    elif image.has_transparency_data:
        layer = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(layer, mask=layer)
        return white
    return image.convert("RGB")


def _as_bytes(image: Image.Image) -> Image.Image:
    """Return the upper byte of 16-bit grey, as Pillow does for colours and browsers for both."""
    levels = np.asarray(image)
    if levels.dtype.kind == "f" or levels.min() < 0 or levels.max() > 65535:
        raise InputError(
            f"expected 8 bits a channel or grey of 16 bits, got numbers from {levels.min()} to "
            f"{levels.max()} ({image.mode}); save it as PNG"
        )
    return Image.fromarray((levels >> 8).astype(np.uint8))
