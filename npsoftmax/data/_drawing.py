"""A sheet of small images drawn at once: shapes, cloth and paint.

A shape is an array of signed distances to its outline in pixels, one row per image and one
column per pixel: negative inside, positive outside. Shapes combine by minimum and maximum, and
paint fades out within half a pixel of the outline, which makes smooth edges. Away from the
outline the distances are only roughly right; nothing but their sign matters there.

Lengths are in pixels: x counts from the middle to the right, y from the top edge down.
Every measure may be one number, or a column of shape (images, 1) with one number per image.
"""

import copy
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "SIDE",
    "Floats",
    "Measure",
    "Sheet",
    "cut",
    "join",
    "only",
    "overlap",
    "ring",
]

SIDE = 28

Floats: TypeAlias = NDArray[np.floating[Any]]
Booleans: TypeAlias = NDArray[np.bool_]
Measure: TypeAlias = float | Floats
Point: TypeAlias = tuple[Measure, Measure]

_FAR_OUTSIDE = np.float32(99)


def join(*shapes: Floats) -> Floats:
    """Return what at least one of the shapes covers."""
    union = shapes[0]
    for shape in shapes[1:]:
        union = np.minimum(union, shape)
    return union


def overlap(shape: Floats, other: Floats) -> Floats:
    """Return what both shapes cover."""
    return np.maximum(shape, other)


def cut(shape: Floats, hole: Floats) -> Floats:
    """Return the shape without the part that the hole covers."""
    return np.maximum(shape, -hole)


def ring(shape: Floats, thickness: Measure) -> Floats:
    """Return a band of that thickness along the outline of the shape."""
    return np.abs(shape) - thickness / 2


def only(chosen: Booleans, shape: Floats) -> Floats:
    """Return the shape on the chosen images and nothing on the others."""
    return np.where(chosen, shape, _FAR_OUTSIDE)


def _polyline(t: Floats, points: tuple[Point, ...]) -> Floats:
    """Interpolate linearly between (t, value) points; beyond the ends the value stays."""
    value = np.full_like(t, points[0][1])
    for (left, low), (right, high) in pairwise(points):
        value += (high - low) / (right - left) * (np.clip(t, left, right) - left)
    return value


class Sheet:
    """Black images that are drawn on together, each in a pose of its own.

    Parameters
    ----------
    num_images : int
        How many images the sheet holds.
    rng : numpy.random.Generator
        Decides the poses and everything that varies from image to image.

    Attributes
    ----------
    x, y : ndarray of float32, shape (images, pixels)
        Where each pixel lies on the garment, in pixels.

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
        """Return the pixel centres, shifted, turned, sheared and scaled at random."""
        row, column = np.divmod(np.arange(SIDE * SIDE, dtype=np.float32), np.float32(SIDE))
        middle = SIDE / 2
        right = column + 0.5 - middle - self.vary(-1.3, 1.3)
        down = row + 0.5 - middle - self.vary(-1.3, 1.3)
        turn, shear, scale = self.vary(-0.07, 0.07), self.vary(-0.05, 0.05), self.vary(0.92, 1.05)
        x = (np.cos(turn) * right + (np.sin(turn) + shear) * down) / scale
        y = (np.cos(turn) * down - np.sin(turn) * right) / scale + middle
        return x, y

    def vary(self, low: float, high: float) -> Floats:
        """Return one number per image, spread evenly from low to high."""
        spread = self._rng.random((len(self._image), 1), np.float32)
        return low + (high - low) * spread

    def chance(self, share: float) -> Booleans:
        """Return for each image whether it is one of a random share of them."""
        return self._rng.random((len(self._image), 1), np.float32) < share

    def fold(self, at: Measure = 0) -> "Sheet":
        """Return the sheet folded upright at x: what is cut on the right appears on both sides."""
        folded = copy.copy(self)
        folded.x = np.abs(self.x - at)
        return folded

    def drape(self, *points: Point) -> "Sheet":
        """Return the sheet hung over the line through the (x, y) points: on the line, y is 0."""
        draped = copy.copy(self)
        draped.y = self.y - _polyline(self.x, points)
        return draped

    def panel(self, *rows: Point) -> Floats:
        """Return a piece around the middle, given from top to bottom as (y, half width)."""
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

        ``rows``, ``columns`` and ``prints`` are the shares of images whose cloth is striped
        across, striped upright, and printed with a pattern; both stripes together are checks.
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
