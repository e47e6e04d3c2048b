"""From any photo of one item to the pixels that a model was trained on, with Pillow.

How the items were placed in the training images is the model's ``framing``: in the whole image by
their bounding box, as in Fashion-MNIST; in 20 of its 28 pixels by their centre of mass, as in
MNIST; or not at all, because the whole pictures were taken.

Every machine, and the web page, computes the same pixels.

1.  **Open**: the first frame, turned upright according to EXIF, as RGB or RGBA with 8 bits (the
    upper ones of 16); on white where it is transparent, while the transparency is kept aside.
2.  **Working size**: ``f = ceil(longest side / 512)``; the mean of every ``f x f`` block in each
    channel: ``((sum + n // 2) * (2**24 // n)) >> 24`` for the ``n`` pixels of a block, fewer at
    the right and lower edge.
3.  **Whole**: if the framing is "whole", the image in grey, ``(19595 R + 38470 G + 7471 B + 32768)
    // 65536`` (ITU-R 601), of ``h x w`` pixels becomes the square of the model: each new pixel is
    ``(2 * S + h * w) // (2 * h * w)``, where ``S`` is ``h * w`` times the mean over the area that
    it covers, in fractions of pixels. If the framing is "square", the image shrinks in the same way
    to ``H x W``: the longest side becomes that of the model, ``side``, and the other ``max(1, (2 *
    side * other + longest) // (2 * longest))``. It lies on a square of the median of its border,
    from row ``(side - H) // 2`` and column ``(side - W) // 2`` on. The recipe ends. For the other
    framings it continues in :mod:`npsoftmax.ext.segmentation`.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from npsoftmax._checks import as_count
from npsoftmax.errors import CorruptFileError, InputError, NpsoftmaxError
from npsoftmax.ext import extra
from npsoftmax.ext.segmentation import FULL_CONTRAST, Cutout, border, cut_out, median, resize
from npsoftmax.files import quoted, read_bytes
from npsoftmax.model import FRAMINGS

with extra("image"):
    from PIL import Image, UnidentifiedImageError

__all__ = ["Photo", "find", "look", "read"]

WORKING_SIDE = 512
MAX_BYTES = 100 * 2**20
# Not all formats of Pillow: some run other programs, some accept any bytes as an image.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "AVIF", "JPEG2000", "ICO")
# The first brands of a file in the container of MP4: what iPhones call HEIC, under any name.
HEIC = re.compile(rb".{4}ftyp(.{4}){0,8}?(hei|hev)[cmsx]", re.DOTALL)
HEIC_ENDINGS = (".heic", ".heif", ".hif")

ORIENTATION = 0x0112  # the EXIF tag: how the camera was held
UPRIGHT: dict[object, Image.Transpose] = {
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
    """A photo and the pixels that a model sees.

    Attributes
    ----------
    image : PIL.Image.Image
        The photo in RGB, upright, its longest side at most 512.
    pixels : ndarray of uint8
        The pixels row by row, shape ``(784, m)`` for 28x28: the item, light on black, or the whole
        picture. There is one column for each plausible framing; the mean of the model's
        probabilities over the columns is the prediction.
    is_blank : bool
        Nothing stands out from the background; ``pixels`` are all 0, and predictions are
        meaningless.
    warnings : tuple of str
        Reasons why predictions may be unreliable.
    quality : float
        How clearly the item was told from its background, from 0 to 1. On a plain background, the
        contrast as a part of 32 grey levels; on any other, how much likelier the cells inside the
        outline belong to the item than those outside. 1 for cut-outs and whole pictures, 0 for
        blank ones.
    """

    image: Image.Image
    pixels: NDArray[np.uint8]
    is_blank: bool
    warnings: tuple[str, ...]
    quality: float


def find(path: str | os.PathLike[str]) -> list[str]:
    """Return the images in a folder, sorted, recognised by the endings of their names.

    A path that is not a folder is returned as it is. Folders in the folder and hidden files are
    left out. A folder without images raises :exc:`~npsoftmax.errors.InputError`.

    Examples
    --------
    >>> for name in ("b.png", "a.png"):
    ...     Image.new("L", (60, 40)).save(name)
    >>> find("."), find("a.png")
    (['./a.png', './b.png'], ['a.png'])
    """
    if not os.path.isdir(path):
        return [os.fspath(path)]
    name = quoted(path)
    try:
        entries = sorted(os.listdir(path))
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror}; name another folder") from error
    kinds = Image.registered_extensions()
    endings = (*HEIC_ENDINGS, *(ending for ending, kind in kinds.items() if kind in FORMATS))
    images = (
        os.path.join(path, entry)
        for entry in entries
        if entry.lower().endswith(endings) and not entry.startswith(".")
    )
    if not (files := [image for image in images if os.path.isfile(image)]):
        raise InputError(
            f"{name}: expected a folder with images, such as photo.jpg, got none among its "
            f"{len(entries)} entries; name the images, or the folder that they are in"
        )
    return files


def read(
    path: str | os.PathLike[str], framing: str | None = "bounding-box", side: int = 28
) -> Photo:
    """Read an image file: JPEG, PNG, GIF, WebP, TIFF, BMP, AVIF, JPEG 2000, PPM or ICO.

    HEIC, the format of iPhones, is read if ``pillow-heif`` is installed.

    The first frame is read and turned upright according to EXIF. Images of more than
    ``PIL.Image.MAX_IMAGE_PIXELS`` are refused, while Pillow alone only warns up to twice as many:
    a warning does not save memory.

    Parameters
    ----------
    path : path
        A file of at most 100 MiB. A path that cannot be read raises
        :exc:`~npsoftmax.errors.InputError`; a damaged file, or one in another format, raises
        :exc:`~npsoftmax.errors.CorruptFileError`.
    framing, side : str or None, int
        As for :func:`look`.

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
        shown, orientation = _decode(data)
        if orientation in UPRIGHT:
            shown = shown.transpose(UPRIGHT[orientation])
    return _photo(shown, framing, side)


def look(image: Image.Image, framing: str | None = "bounding-box", side: int = 28) -> Photo:
    """Compute the pixels that a model sees of an image.

    Parameters
    ----------
    image : PIL.Image.Image
        Upright, of any mode with 8 bits per channel, or 16-bit grey. An image that has no pixels,
        that cannot be decoded, or whose numbers have no defined white raises
        :exc:`~npsoftmax.errors.CorruptFileError`.
    framing : {"bounding-box", "centre-of-mass", "whole", "square"} or None
        The ``framing`` of the model. "whole" takes the picture as it is: nothing is searched for or
        inverted, and a picture that is not square is stretched, as ``image.resize`` does. "square"
        does the same, but fills up a picture that is not square with the grey of its border. None,
        if the model does not know, is "bounding-box" with a warning.
    side : int
        The height and width of the model's images; other than 28 only for "whole" and "square".

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
        shown = _as_rgb(image)
    return _photo(shown, framing, side)


SIDE = 28  # of the images of Fashion-MNIST and MNIST


def _photo(image: Image.Image, framing: str | None, side: int) -> Photo:
    """Return the photo of an upright image (from step 2)."""
    if framing not in (*FRAMINGS, None):
        raise InputError(f"framing: expected one of {', '.join(FRAMINGS)} or None, got {framing!r}")
    if side != SIDE and framing not in AS_THEY_ARE:
        raise InputError(f"side: expected {SIDE} unless framing is 'whole' or 'square', got {side}")
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    shown = _shrunk(_on_white(image))
    if framing in AS_THEY_ARE:
        whole = AS_THEY_ARE[framing](np.asarray(shown.convert("L")), as_count(side, "side"))
        return Photo(shown, whole.reshape(-1, 1), False, (), 1.0)
    item = cut_out(shown, alpha and _shrunk(alpha), framing == "centre-of-mass")
    return Photo(shown, item.pixels, item.is_blank, _warnings_for(item, framing), item.quality)


def _stretch(grey: NDArray[np.uint8], height: int, width: int | None = None) -> NDArray[np.uint8]:
    """Return the means of the levels over the areas that new pixels cover."""
    sums = resize(grey, height, width or height)
    return ((2 * sums + grey.size) // (2 * grey.size)).astype(np.uint8)


def _fill_up(grey: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return the picture on a square of the grey of its border."""
    longest = max(grey.shape)
    height, width = (max(1, (2 * side * old + longest) // (2 * longest)) for old in grey.shape)
    small = _stretch(grey, height, width)
    square = np.full((side, side), median(border(small)), np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = small
    return square


# The framings in which nothing is searched for.
AS_THEY_ARE: dict[str | None, Callable[[NDArray[np.uint8], int], NDArray[np.uint8]]] = {
    "whole": _stretch,
    "square": _fill_up,
}


def _shrunk(image: Image.Image) -> Image.Image:
    factor = -(-max(image.size) // WORKING_SIDE)
    return image.reduce(factor) if factor > 1 else image


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode != "RGBA":
        return image
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image)
    return white


CLEAR = 0.55
UNKNOWN_FRAMING = (
    "unknown framing: the model does not say how its training images were framed, and is taken to "
    "be one of Fashion-MNIST; set model.framing"
)


def _warnings_for(item: Cutout, framing: str | None) -> tuple[str, ...]:
    if item.is_blank:
        return ("blank: nothing stands out from the background",)
    texts = [UNKNOWN_FRAMING] if framing is None else []
    if item.contrast is not None and item.contrast < FULL_CONTRAST:
        levels = f"{item.contrast} of 255 grey levels"
        texts.append(f"low in contrast: {levels} between the item and the background")
    if item.contrast is None and item.quality < CLEAR:
        texts.append("no item found: the background is uneven")
    return tuple(texts)


@contextmanager
def _decoding(path: str | os.PathLike[str], size: int = 0) -> Iterator[None]:
    """Turn all errors of Pillow into a CorruptFileError that names the file (step 1)."""
    name, known = quoted(path), f"an image ({', '.join(FORMATS)})"
    try:
        with warnings.catch_warnings():
            filter_warnings()
            yield
    except NpsoftmaxError as error:
        raise CorruptFileError(f"{name}: {error}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise CorruptFileError(
            f"{name}: expected at most {Image.MAX_IMAGE_PIXELS} pixels, got more; scale it down"
        ) from error
    except UnidentifiedImageError as error:
        raise CorruptFileError(
            f"{name}: expected {known}, got {size} bytes in another format; save it as JPEG or PNG"
        ) from error
    except Exception as error:  # decoders raise errors of every kind on damaged bytes
        raise CorruptFileError(
            f"{name}: expected {known}, got a damaged one: {error!r:.200}; save it again"
        ) from error


def filter_warnings() -> None:
    """Ignore damage that Pillow can repair; refuse images that are too large."""
    warnings.simplefilter("ignore", UserWarning)
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def _decode(data: bytes) -> tuple[Image.Image, object]:
    """Return the image of a file in RGB, not yet upright, and its orientation in EXIF."""
    with Image.open(BytesIO(data), formats=_formats(data)) as image:
        # JPEG can be decoded at 1/2, 1/4 or 1/8 of its size, which takes less memory.
        image.draft(None, (2 * WORKING_SIDE, 2 * WORKING_SIDE))
        image.load()
        return _as_rgb(image), image.getexif().get(ORIENTATION)


def _formats(data: bytes) -> tuple[str, ...]:
    """Return the formats of Pillow that a file may have."""
    if not HEIC.match(data):
        return FORMATS
    try:
        import_module("pillow_heif").register_heif_opener()
    except ImportError as error:
        raise InputError(
            "expected an image that Pillow can read, got HEIC, the format of iPhones; "
            "python -m pip install pillow-heif, or save it as JPEG"
        ) from error
    return ("HEIF",)


def _as_rgb(image: Image.Image) -> Image.Image:
    """Return the image in RGB, or in RGBA if it may be transparent."""
    if min(image.size) < 1:
        raise InputError(f"expected pixels, got a size of {image.size}; take another image")
    if image.mode.startswith(("I", "F")):
        image = _as_bytes(image)
    elif image.has_transparency_data:
        return image.convert("RGBA")
    return image.convert("RGB")


def _as_bytes(image: Image.Image) -> Image.Image:
    """Return the upper byte of 16-bit grey, as Pillow does for colours, and browsers for both."""
    levels = np.asarray(image)
    if levels.dtype.kind == "f" or levels.min() < 0 or levels.max() > 65535:
        raise InputError(
            f"expected 8 bits per channel or 16-bit grey, got numbers from {levels.min()} to "
            f"{levels.max()} ({image.mode}); save it as PNG"
        )
    return Image.fromarray((levels >> 8).astype(np.uint8))
