"""The embedded data set: ten kinds of garment, drawn by code alone.

Its classes and its difficulty are those of Fashion-MNIST: a linear classifier gets 80 to 90 % of
the test images right, and mistakes shirts for T-shirts and pullovers for coats.

Each garment has a pattern, a function that cuts shapes and paints them one after the other on a
sheet of small images. A shape is an array of signed distances to its outline in pixels, one row
per image and one column per pixel: negative inside, positive outside. Shapes combine by minimum
and maximum, and paint fades out within half a pixel of the outline, which makes smooth edges.
Away from the outline the distances are only roughly right; only their sign matters there.

Lengths are in pixels of a 28x28 image: x counts from the middle to the right, y from the top edge
down. Every measure is one number, or a column of shape (images, 1) with one number per image.
Clothes are cut from ``half``, a sheet folded along the middle, so that both sides match; shoes
stand on the ``floor``, where y is 0, and point left.
"""

import copy
import hashlib
from collections.abc import Callable
from functools import reduce
from itertools import pairwise
from pathlib import Path
from pkgutil import get_data
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from npsoftmax._checks import as_count

__all__ = ["CLASSES", "edition", "generate"]

SIDE = 28

Floats: TypeAlias = NDArray[np.floating[Any]]
Booleans: TypeAlias = NDArray[np.bool_]
Measure: TypeAlias = float | Floats
Point: TypeAlias = tuple[Measure, Measure]

# The arrays of one sheet fit into the processor's cache.
_IMAGES_PER_SHEET = 256


def generate(num_samples: int, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw images of garments, bright on black, with their labels.

    Cut, pose, cloth and light of every image are random. The classes are balanced and shuffled.
    The same arguments always give the same bytes. Use different seeds for training and test.

    Returns
    -------
    X : ndarray of uint8, shape (784, num_samples), Fortran-ordered
        One image per column, 0 black to 255 white; ``X[:, i].reshape(28, 28)`` is upright.
    y : ndarray of uint8, shape (num_samples,)
        The label of each column, an index into `CLASSES`.

    Examples
    --------
    >>> X, y = generate(20, seed=1)
    >>> X.shape, X.dtype, X.flags.f_contiguous
    ((784, 20), dtype('uint8'), True)
    >>> np.bincount(y)
    array([2, 2, 2, 2, 2, 2, 2, 2, 2, 2])
    """
    num_samples = as_count(num_samples, "num_samples")
    rng = np.random.default_rng(as_count(seed, "seed", minimum=0))
    y = rng.permutation(np.arange(num_samples) % len(CLASSES)).astype(np.uint8)
    images = np.empty((num_samples, SIDE * SIDE), np.uint8)
    for label, draw in enumerate(_PATTERNS.values()):
        of_this_class = np.flatnonzero(y == label)
        for start in range(0, len(of_this_class), _IMAGES_PER_SHEET):
            chunk = of_this_class[start : start + _IMAGES_PER_SHEET]
            sheet = Sheet(len(chunk), rng)
            draw(sheet)
            images[chunk] = sheet.pixels()
    return images.T, y


def edition() -> str:
    """Return what the images depend on besides the arguments: NumPy's version and this code."""
    # Not open(): the package may be inside an archive.
    code = get_data("npsoftmax.data", Path(__file__).name) or b""
    return f"numpy {np.__version__}, code {hashlib.sha256(code).hexdigest()}"


class Sheet:
    """Black images to draw on together, each in a random pose.

    ``x`` and ``y``, shape (images, pixels), are the coordinates of each pixel on the garment.

    Examples
    --------
    >>> sheet = Sheet(3, np.random.default_rng(0))
    >>> sheet.paint(sheet.ellipse((0, 14), half_width=9, half_height=5), shade=0.8)
    >>> sheet.pixels().shape
    (3, 784)
    """

    def __init__(self, num_images: int, rng: np.random.Generator) -> None:
        self._rng = rng
        self._image: Floats = np.zeros((num_images, SIDE * SIDE), np.float32)
        self.x, self.y = self._posed_grid()

    def _posed_grid(self) -> tuple[Floats, Floats]:
        """Return the pixel centres, randomly shifted, turned, sheared and scaled."""
        row, column = np.divmod(np.arange(SIDE * SIDE, dtype=np.float32), np.float32(SIDE))
        middle = SIDE / 2
        right = column + 0.5 - middle - self.vary(-1.3, 1.3)
        down = row + 0.5 - middle - self.vary(-1.3, 1.3)
        turn, shear, scale = self.vary(-0.07, 0.07), self.vary(-0.05, 0.05), self.vary(0.92, 1.05)
        x = (np.cos(turn) * right + (np.sin(turn) + shear) * down) / scale
        y = (np.cos(turn) * down - np.sin(turn) * right) / scale + middle
        return x, y

    def vary(self, low: float, high: float) -> Floats:
        """Return one random number per image, uniform from low to high."""
        spread = self._rng.random((len(self._image), 1), np.float32)
        return low + (high - low) * spread

    def chance(self, share: float) -> Booleans:
        """Return for each image whether it belongs to a random share of them."""
        return self._rng.random((len(self._image), 1), np.float32) < share

    def fold(self, at: Measure = 0) -> "Sheet":
        """Return the sheet folded at x, so that shapes on the right appear on both sides."""
        folded = copy.copy(self)
        folded.x = np.abs(self.x - at)
        return folded

    def drape(self, *points: Point) -> "Sheet":
        """Return the sheet hung over the line through the (x, y) points, where y becomes 0."""
        draped = copy.copy(self)
        draped.y = self.y - _polyline(self.x, points)
        return draped

    def panel(self, *rows: Point) -> Floats:
        """Return a shape around the middle, given from top to bottom as (y, half width)."""
        sideways = np.abs(self.x) - _polyline(self.y, rows)
        return np.maximum(sideways, self.band(rows[0][0], rows[-1][0]))

    def band(self, top: Measure, bottom: Measure) -> Floats:
        """Return everything from one height down to another."""
        band: Floats = np.maximum(top - self.y, self.y - bottom)
        return band

    def strip(self, start: Point, end: Point, width: Measure, end_width: Measure) -> Floats:
        """Return a straight strip from point to point, ``width`` wide at its start."""
        run, fall = end[0] - start[0], end[1] - start[1]
        length = np.hypot(run, fall)
        x, y = self.x - start[0], self.y - start[1]
        along = (x * run + y * fall) / length
        across = np.abs(x * fall - y * run) / length
        half_width = (width + (end_width - width) / length * along) / 2
        strip: Floats = np.maximum(across - half_width, np.abs(along - length / 2) - length / 2)
        return strip

    def ellipse(self, centre: Point, half_width: Measure, half_height: Measure) -> Floats:
        """Return an upright ellipse."""
        u, v = (self.x - centre[0]) / half_width, (self.y - centre[1]) / half_height
        tiny = 1e-6  # keeps the centre inside
        radius = np.hypot(u, v) + tiny
        slope = np.hypot(u / half_width, v / half_height) + tiny
        ellipse: Floats = radius * (radius - 1) / slope
        return ellipse

    def cloth(
        self,
        dark: float = 0.25,
        bright: float = 0.85,
        *,
        rows: float = 0,
        columns: float = 0,
        prints: float = 0,
    ) -> Floats:
        """Return the shades of a softly lit cloth, 0 black to 1 white.

        ``rows``, ``columns`` and ``prints`` are the shares of images with horizontal stripes,
        vertical stripes and a printed pattern; both kinds of stripes together are checks.
        """
        folds = self.vary(0.4, 0.9) * self.x + self.vary(-0.3, 0.3) * self.y + self.vary(0, 6.3)
        shade = self.vary(dark, bright) + self.vary(0, 0.08) * np.sin(folds)
        shade += self.vary(-0.008, 0.008) * (self.y - SIDE / 2)
        contrast = self.vary(0.05, 0.3)
        for t, share in ((self.y, rows), (self.x, columns)):
            wave = np.sin(self.vary(0.8, 2.4) * t + self.vary(0, 6.3))
            shade += contrast * self.chance(share) * np.clip(2 * wave, -1, 1)
        shade += contrast * self.chance(prints) * self._blots()
        return np.clip(shade, 0.15, 1)

    def _blots(self) -> Floats:
        """Return noise of unit variance with spots about two pixels wide."""
        noise = self._rng.standard_normal(self._image.shape, np.float32)
        noise += np.roll(noise, 1, axis=1)
        noise += np.roll(noise, SIDE, axis=1)
        return noise / 2

    def paint(self, shape: Floats, shade: Measure) -> None:
        """Cover the shape with the shade, 0 black to 1 white."""
        coverage = np.clip(0.5 - shape, 0, 1)
        self._image += coverage * (shade - self._image)

    def pixels(self) -> NDArray[np.uint8]:
        """Return the images with the grain of a photograph, shape (images, pixels)."""
        noise = self._rng.standard_normal(self._image.shape, np.float32)
        grainy = self._image * (1 + self.vary(0.01, 0.08) * noise)
        return (255 * np.clip(grainy, 0, 1)).astype(np.uint8)


def _polyline(t: Floats, points: tuple[Point, ...]) -> Floats:
    """Interpolate linearly between (t, value) points; beyond the ends the value stays."""
    value = np.full_like(t, points[0][1])
    for (left, low), (right, high) in pairwise(points):
        value += (high - low) / (right - left) * (np.clip(t, left, right) - left)
    return value


_FAR_OUTSIDE = np.float32(99)


def join(*shapes: Floats) -> Floats:
    """Return the union of the shapes."""
    return reduce(np.minimum, shapes)


def overlap(shape: Floats, other: Floats) -> Floats:
    """Return the intersection of two shapes."""
    return np.maximum(shape, other)


def cut(shape: Floats, hole: Floats) -> Floats:
    """Return the shape without the hole."""
    return np.maximum(shape, -hole)


def ring(shape: Floats, thickness: Measure) -> Floats:
    """Return a band along the outline of the shape."""
    return np.abs(shape) - thickness / 2


def only(chosen: Booleans, shape: Floats) -> Floats:
    """Return the shape on the chosen images and nothing on the others."""
    return np.where(chosen, shape, _FAR_OUTSIDE)


def _t_shirt(sheet: Sheet) -> None:
    """Boxy, with short wide sleeves and a round or V neck; some have a badge, some a placket."""
    half, vary, chance = sheet.fold(), sheet.vary, sheet.chance
    shade = sheet.cloth(0.2, 0.75, rows=0.2, columns=0.05, prints=0.25)
    top, waist, length = vary(0.8, 3), vary(5.2, 7.5), vary(3, 11)
    shoulder = waist + vary(0.3, 1.5)
    bodice = _bodice(half, top, shoulder, waist, vary(24.5, 27), waist + vary(-0.3, 0.7))
    hang = vary(0.65, 0.95) - 0.03 * length
    sleeves = _sleeves(half, top, shoulder, length, hang, vary(4.5, 6.5), vary(3.5, 5.5))
    round_neck = half.ellipse((0, top), vary(2, 3.8), vary(1, 3.5))
    v_neck = half.panel((top - 1, vary(2, 3)), (top + vary(3, 6), 0))
    _sew(half, shade, bodice, sleeves, np.where(chance(0.3), v_neck, round_neck))
    placket = half.panel((top, 0.4), (top + vary(4, 9), 0.4))
    half.paint(only(chance(0.2), placket), vary(0.4, 0.9) * shade)
    half.paint(only(chance(0.35), _badge(half)), vary(0.1, 1))


def _trouser(sheet: Sheet) -> None:
    """Two legs below one waistband, from skinny to wide, with a fly."""
    half, vary = sheet.fold(), sheet.vary
    shade = sheet.cloth(columns=0.1, prints=0.1)
    waist, hip, ankle = vary(3, 4.8), vary(4, 6), vary(2.3, 4.2)
    top, crotch, stance = vary(0.5, 3), vary(8, 11), vary(0.8, 2.6)
    outline = half.panel((top, waist), (8, hip), (27, stance + ankle))
    between = half.panel((crotch, 0), (crotch + 3, 0.4 * stance), (28, stance))
    legs = cut(outline, between)
    half.paint(legs, shade)
    half.paint(overlap(legs, half.band(0, top + 1.5)), vary(0.6, 1.1) * shade)
    half.paint(half.panel((top + 1.5, 0.3), (crotch, 0.3)), 0.6 * shade)


def _pullover(sheet: Sheet) -> None:
    """Roomy, with long sleeves and ribbing at neck and hem; some have a badge, some a zip."""
    half, vary, chance = sheet.fold(), sheet.vary, sheet.chance
    shade = sheet.cloth(0.3, 0.85, rows=0.25, columns=0.05, prints=0.25)
    top, waist = vary(0.8, 3.2), vary(5.5, 7.7)
    shoulder = waist + vary(0.3, 1.3)
    bodice = _bodice(half, top, shoulder, waist, vary(24, 27), waist + vary(-0.8, 0.4))
    length, hang = vary(15.5, 21.5), vary(0.16, 0.32)
    sleeves = _sleeves(half, top, shoulder, length, hang, vary(4.5, 6.5), vary(2.5, 3.5))
    neck = half.ellipse((0, top), vary(1.8, 3.4), vary(1, 2.5))
    _sew(half, shade, bodice, sleeves, neck)
    half.paint(overlap(bodice, half.band(24, 28)), vary(0.7, 1) * shade)
    zipper = half.panel((top, 0.3), (top + vary(5, 30), 0.3))
    half.paint(only(chance(0.2), overlap(bodice, zipper)), vary(0.3, 0.9) * shade)
    half.paint(only(chance(0.2), _badge(half)), vary(0.1, 1))


def _dress(sheet: Sheet) -> None:
    """Full length, narrow at the waist and wide at the hem; with sleeves, or bare shoulders."""
    half, vary, chance = sheet.fold(), sheet.vary, sheet.chance
    shade = sheet.cloth(rows=0.15, columns=0.1, prints=0.25)
    top, waist = vary(0.3, 2), np.where(chance(0.25), vary(4.5, 6.5), vary(2.8, 5))
    shoulder = waist + vary(0, 1.5)
    bodice = _bodice(half, top, shoulder, waist, vary(26.5, 27.5), waist + vary(0.5, 4))
    length, hang = vary(3, 20), vary(0.15, 0.5)
    sleeves = _sleeves(half, top, shoulder, length, hang, vary(2.5, 5.5), vary(2, 3))
    neck = half.ellipse((0, top), vary(1.5, 2.4), vary(1, 4))
    _sew(half, shade, bodice, only(chance(0.6), sleeves), neck)
    belt = half.band(vary(9, 11), 12.5)
    half.paint(only(chance(0.3), overlap(bodice, belt)), vary(0.4, 1) * shade)


def _coat(sheet: Sheet) -> None:
    """Long sleeves close to the body; closed or open, some with lapels, some with pockets."""
    half, vary, chance = sheet.fold(), sheet.vary, sheet.chance
    shade = sheet.cloth(0.22, 0.78, rows=0.1, columns=0.1, prints=0.25)
    top, waist = vary(0.6, 2.7), vary(5.4, 7.5)
    shoulder = waist + vary(0.3, 1.5)
    bodice = _bodice(half, top, shoulder, waist, vary(25, 27.5), waist + vary(-0.2, 1.5))
    length, hang = vary(18, 24), vary(0.12, 0.26)
    sleeves = _sleeves(half, top, shoulder, length, hang, vary(4.5, 6.5), vary(2.6, 3.8))
    neck = half.ellipse((0, top), vary(1.5, 3), vary(0.7, 2))
    _sew(half, shade, bodice, sleeves, neck)
    opening = half.panel((top, 0.3), (27, vary(0.3, 1)))
    half.paint(only(chance(0.55), overlap(bodice, opening)), vary(0.1, 0.9) * shade)
    lapels = half.strip((2.6, top), (0.4, top + vary(3, 9)), 2.5, 1)
    half.paint(only(chance(0.6), lapels), vary(0.7, 1.2) * shade)
    pockets = half.strip((3, 19), (5, 19), 1, 1)
    half.paint(only(chance(0.5), pockets), vary(0.5, 0.9) * shade)


def _sandal(sheet: Sheet) -> None:
    """Straps that follow the foot, above a sole that lies flat or stands on a high heel."""
    vary, chance = sheet.vary, sheet.chance
    shade = sheet.cloth(prints=0.1)
    high, backed = chance(0.35), chance(0.6)
    lift = np.where(high, vary(5, 10), vary(0, 2))
    ground, ball, heel = 18.5 + lift / 2, vary(-4, -1), vary(8, 9.5)
    bed = sheet.drape((ball, ground), (heel, ground - lift))
    skin = bed.drape((-12, -2), (-9, -3.5), (-3, -4.5), (4, -vary(5.5, 8)), (12, -7))
    foot = overlap(skin.panel((0, 12.3), (20, 12.3)), bed.y)
    toes = bed.strip((-vary(6, 10), 0), (-vary(3, 6), -7), vary(1.5, 8), vary(1.5, 5))
    instep = bed.strip((vary(-4, 1), 0), (vary(1, 4), -8), vary(1.5, 6), vary(1.5, 4))
    ankle = bed.strip((1, -vary(5, 7)), (12, -vary(4, 6)), vary(1, 2), vary(1, 3))
    back = bed.strip((11.5, 0), (11, -7), vary(1, 10), vary(1, 3))
    straps = join(
        only(chance(0.85) | ~backed, toes),
        only(chance(0.5) | backed, instep),
        only(backed, join(ankle, back)),
    )
    sheet.paint(overlap(foot, straps), vary(0.8, 1.2) * shade)
    sole = bed.panel((0, 12.8), (vary(1, 3), 12.4))
    sheet.paint(sole, np.where(chance(0.5), shade, vary(0.3, 1)))
    tip = heel + 2.5, ground + 1.5
    stiletto = sheet.strip((heel + 2, ground - lift), tip, vary(1.5, 6), vary(1, 4))
    sheet.paint(only(high, stiletto), 0.9 * shade)


def _shirt(sheet: Sheet) -> None:
    """Fitted, with sleeves of any length; half of them have a collar and buttons down the front."""
    half, vary, chance = sheet.fold(), sheet.vary, sheet.chance
    shade = sheet.cloth(0.3, 0.92, rows=0.25, columns=0.2, prints=0.25)
    top, waist, length = vary(0.8, 3), vary(5, 7.2), vary(4, 17)
    shoulder = waist + vary(0.3, 1.5)
    bodice = _bodice(half, top, shoulder, waist, vary(24.7, 27.2), waist + vary(-0.2, 1))
    hang = vary(0.65, 0.9) - 0.03 * length
    sleeves = _sleeves(half, top, shoulder, length, hang, vary(4.3, 6.3), vary(3.2, 5.2))
    neck = half.ellipse((0, top), vary(1.8, 3.3), vary(1, 3.2))
    _sew(half, shade, bodice, sleeves, neck)
    buttoned = chance(0.5)
    placket = half.panel((top, 0.3), (27, 0.3))
    half.paint(only(buttoned, overlap(bodice, placket)), vary(0.7, 1) * shade)
    buttons = join(*(half.ellipse((0, top + below), 0.6, 0.6) for below in (9, 13, 17, 21)))
    half.paint(only(buttoned, buttons), vary(0.5, 1) * shade)
    collar = half.strip((2.4, top), (0.2, top + 2.5), 2, 1)
    half.paint(only(buttoned, collar), vary(0.7, 1.2) * shade)


def _sneaker(sheet: Sheet) -> None:
    """Cut below the ankle, seldom above it; a pale or dark sole, laces, a stripe on the side."""
    vary, chance = sheet.vary, sheet.chance
    shade = sheet.cloth(prints=0.1)
    height, throat = np.where(chance(0.15), vary(9, 16), vary(7.2, 9.5)), vary(-2, 1.5)
    floor = sheet.drape((0, 14 + height / 2))
    ground = floor.drape((-12.5, -1.5), (-9, 0), (12, -0.3))
    upper = _upper(floor, ground, height, throat)
    sheet.paint(upper, shade)
    sheet.paint(ground.panel((-vary(0.8, 3), 12.8), (0.2, 12.8)), vary(0.3, 1))
    sheet.paint(only(chance(0.6), overlap(upper, _laces(floor, throat))), vary(0.3, 0.9) * shade)
    back = vary(3, 8), -vary(4, 6)
    stripe = floor.strip((vary(-4, -1), -3), back, vary(0.5, 1.5), vary(0.5, 2.5))
    sheet.paint(only(chance(0.7), overlap(upper, stripe)), vary(0.2, 1))


def _bag(sheet: Sheet) -> None:
    """Box or trapezium, with a handle, a shoulder strap or neither; some with flap and clasp."""
    half, vary, chance = sheet.fold(), sheet.vary, sheet.chance
    shade = sheet.cloth(0.2, 0.75, prints=0.1)
    top, bottom, width = vary(6, 13), vary(19.5, 26.5), vary(7, 12)
    body = half.panel((top, vary(0.8, 1) * width), (bottom - 1.5, width), (bottom, width - 1.5))
    handle = ring(half.ellipse((0, top), vary(3.5, 7), vary(2, 9)), vary(1, 1.8))
    strap = half.strip((width - 1, top + 1), (0, vary(0, 3)), 1.1, 1.1)
    half.paint(only(chance(0.8), np.where(chance(0.3), strap, handle)), 0.8 * shade)
    half.paint(body, shade)
    flap = half.panel((top, width), (top + vary(3, 7), vary(0.8, 1) * width))
    half.paint(only(chance(0.5), overlap(body, ring(flap, 0.8))), 0.6 * shade)
    clasp = half.ellipse((0, top + vary(3, 6)), vary(0.8, 1.6), vary(0.8, 1.6))
    half.paint(only(chance(0.8), clasp), vary(0.2, 1))


def _ankle_boot(sheet: Sheet) -> None:
    """Cut above the ankle, on a flat sole or a heel; some laced, some with an elastic gore."""
    vary, chance = sheet.vary, sheet.chance
    shade = sheet.cloth(prints=0.1)
    height, throat = vary(11, 22), vary(-2, 1.5)
    heeled = chance(0.5)
    heel = np.where(heeled, vary(1, 4), 0)
    floor = sheet.drape((0, 14 + height / 2))
    ground = floor.drape((-12.5, -1.5), (-9, 0), (0, 0), (5, -0.7 * heel), (12, -heel - 0.3))
    upper = _upper(floor, ground, height, throat)
    sheet.paint(upper, shade)
    sole = ground.panel((-vary(0.8, 3), 12.8), (0.2, 12.8))
    sheet.paint(sole, np.where(chance(0.5), vary(0.3, 1) * shade, vary(0.3, 1)))
    block = floor.strip((9.3, -heel), (9.6, 0.5), 6, vary(2, 6))
    sheet.paint(only(heeled, block), vary(0.3, 1) * shade)
    sheet.paint(only(chance(0.6), overlap(upper, _laces(floor, throat))), vary(0.3, 0.9) * shade)
    gore = floor.fold((throat + 12.5) / 2).strip((0, -height), (0, -7), vary(2, 4), 1)
    sheet.paint(only(chance(0.5), overlap(upper, gore)), vary(0.6, 1.1) * shade)


def _bodice(
    half: Sheet, top: Measure, shoulder: Measure, waist: Measure, bottom: Measure, hem: Measure
) -> Floats:
    """Return the trunk, with sloping shoulders."""
    slope = (top, 2.6), (top + 1.2, 0.75 * shoulder), (top + 3, shoulder)
    chest = (shoulder + waist) / 2
    return half.panel(*slope, (top + 8, chest), (16, waist), (bottom, hem))


def _sleeves(
    half: Sheet,
    top: Measure,
    shoulder: Measure,
    length: Measure,
    hang: Measure,
    armhole: Measure,
    cuff: Measure,
) -> Floats:
    """Return two sleeves that hang from the shoulders at an angle (radians) to the vertical."""
    out, down = np.sin(hang), np.cos(hang)
    start = shoulder - armhole / 2 * down, top + 1.3 + armhole / 2 * out
    return half.strip(start, (start[0] + length * out, start[1] + length * down), armhole, cuff)


def _sew(half: Sheet, shade: Floats, bodice: Floats, sleeves: Floats, neck: Floats) -> None:
    """Paint sleeves and bodice with a seam between them, and the neckline with its binding."""
    half.paint(sleeves, 0.95 * shade)
    half.paint(overlap(sleeves, bodice - 0.6), 0.6 * shade)
    half.paint(bodice, shade)
    half.paint(overlap(bodice, neck - 1), half.vary(0.75, 1.15) * shade)
    half.paint(overlap(bodice, neck), half.vary(0, 0.4) * shade)


def _badge(half: Sheet) -> Floats:
    """Return a print on the chest."""
    width = half.vary(1.5, 4.5)
    return half.panel((half.vary(8, 11), width), (half.vary(12, 18), width))


def _upper(floor: Sheet, ground: Sheet, height: Measure, throat: Measure) -> Floats:
    """Return foot and shaft of a shoe, toe to the left; the throat is where the tongue begins."""
    vary = floor.vary
    toe, ankle = vary(3.5, 5.5), (12.5 - throat) / 2
    vamp = (-13, -2), (-12, 1 - toe), (-10, -toe), (-5, -1.5 - toe)
    foot = floor.drape(*vamp, (throat, -9.5), (throat + 1, -12.5)).panel((0, 12.6), (25, 12.6))
    leg = floor.fold(throat + ankle)
    shaft = leg.panel((-height, vary(5, 6.5)), (-7, ankle), (0, ankle))
    mouth = leg.ellipse((0, -height), 0.6 * ankle, vary(0.3, 2))
    whole = join(overlap(foot, floor.band(-height, 0)), shaft)
    return cut(overlap(whole, ground.y), mouth)


def _laces(floor: Sheet, throat: Measure) -> Floats:
    """Return four short laces, one above the other."""
    starts = [(throat + 4.5 - up, -up) for up in (4, 5.5, 7, 8.5)]
    return join(*(floor.strip((x, y), (x + 2.5, y + 1), 0.6, 0.6) for x, y in starts))


_PATTERNS: dict[str, Callable[[Sheet], None]] = {
    "T-shirt/top": _t_shirt,
    "Trouser": _trouser,
    "Pullover": _pullover,
    "Dress": _dress,
    "Coat": _coat,
    "Sandal": _sandal,
    "Shirt": _shirt,
    "Sneaker": _sneaker,
    "Bag": _bag,
    "Ankle boot": _ankle_boot,
}

CLASSES: tuple[str, ...] = tuple(_PATTERNS)
