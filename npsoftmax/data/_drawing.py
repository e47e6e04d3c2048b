"""A sheet of small images drawn at once: shapes, cloth and paint.

A shape is an array of signed distances to its outline in pixels, one row per image and one
column per pixel: negative inside, positive outside. Shapes combine by minimum and maximum, and
half a pixel to either side of the outline is where paint fades out, which makes smooth edges.

Lengths are in pixels: x counts from the middle to the right, y from the top edge down.
Every measure may be one number, or a column with one number per image.
"""

from __future__ import annotations

import copy
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["SIDE", "Sheet", "cut", "join", "only", "overlap", "ring"]

SIDE = 28

_FAR_OUTSIDE = np.float32(99)

Floats: TypeAlias = NDArray[np.float32]
Measure: TypeAlias = float | Floats
Point: TypeAlias = tuple[Measure, Measure]


def join(*shapes: Floats) -> Floats:
    """Return the union of the shapes."""
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
    """Return a band of that thickness that follows the outline of the shape."""
    return np.abs(shape) - thickness / 2


def only(chosen: NDArray[np.bool_], shape: Floats) -> Floats:
    """Return the shape on the chosen images and nothing on the others."""
    return np.where(chosen, shape, _FAR_OUTSIDE)


def _polyline(t: Floats, points: tuple[Point, ...]) -> Floats:
    """Interpolate linearly between ``(t, value)`` points; beyond the ends the value stays."""
    (start, first), *_ = points
    value = np.full_like(t, first)
    for (left, low), (right, high) in zip(points, points[1:], strict=False):
        value += (high - low) / (right - left) * (np.clip(t, left, right) - left)
    return value


class Sheet:
    """Black images, each with a pose of its own, on which the same garment is cut differently.

    Parameters
    ----------
    num_images : int
        How many images lie on the sheet.
    rng : numpy.random.Generator
        Decides the poses, and afterwards every measure that is asked for.
    """

    def __init__(self, num_images: int, rng: np.random.Generator) -> None:
        self._rng = rng
        self._num_images = num_images
        self._image: Floats = np.zeros((num_images, SIDE * SIDE), np.float32)
        self.x, self.y = self._posed_grid()

    def _posed_grid(self) -> tuple[Floats, Floats]:
        """Return where each pixel lies on a garment that is shifted, turned, scaled, sheared."""
        row, column = np.divmod(np.arange(SIDE * SIDE, dtype=np.float32), np.float32(SIDE))
        middle = np.float32(SIDE / 2)
        right = column + np.float32(0.5) - middle - self.vary(-1.4, 1.4)
        down = row + np.float32(0.5) - middle - self.vary(-1.4, 1.4)
        turn, shear, zoom = self.vary(-0.07, 0.07), self.vary(-0.05, 0.05), self.vary(0.93, 1.07)
        x = (np.cos(turn) * right + (np.sin(turn) + shear) * down) * zoom
        y = (np.cos(turn) * down - np.sin(turn) * right) * zoom + middle
        return x, y

    def vary(self, low: float, high: float) -> Floats:
        """Return one number per image, spread evenly from low to high, shape (images, 1)."""
        spread = self._rng.random((self._num_images, 1), np.float32)
        return np.float32(low) + np.float32(high - low) * spread

    def chance(self, share: float) -> NDArray[np.bool_]:
        """Return for each image whether it belongs to a random share of them."""
        return self._rng.random((self._num_images, 1), np.float32) < share

    def fold(self, at: Measure = 0.0) -> Sheet:
        """Return the sheet folded upright at x: what is cut on the right appears on both sides."""
        folded = copy.copy(self)
        folded.x = np.abs(self.x - at)
        return folded

    def drape(self, *points: Point) -> Sheet:
        """Return the sheet hung over the line through the (x, height) points, where y is then 0."""
        draped = copy.copy(self)
        draped.y = self.y - _polyline(self.x, points)
        return draped

    def panel(self, *rows: Point) -> Floats:
        """Return a piece of cloth around the middle, given as (height, half width) from the top."""
        top, bottom = rows[0][0], rows[-1][0]
        across = np.abs(self.x) - _polyline(self.y, rows)
        return np.maximum(across, np.maximum(top - self.y, self.y - bottom))

    def strip(self, start: Point, end: Point, width: Measure, end_width: Measure) -> Floats:
        """Return a straight strip that is ``width`` wide at the start and ``end_width`` at the end."""
        run, fall = end[0] - start[0], end[1] - start[1]
        length = np.hypot(run, fall)
        dx, dy = self.x - start[0], self.y - start[1]
        along = (dx * run + dy * fall) / length
        across = np.abs(dx * fall - dy * run) / length
        half_width = (width + (end_width - width) / length * along) / 2
        return np.maximum(across - half_width, np.abs(along - length / 2) - length / 2)

    def ellipse(self, centre: Point, half_width: Measure, half_height: Measure) -> Floats:
        """Return an ellipse; its distances are exact at the outline and good near it."""
        u, v = (self.x - centre[0]) / half_width, (self.y - centre[1]) / half_height
        radius = np.hypot(u, v)
        slope = np.hypot(u / half_width, v / half_height) + np.float32(1e-6)
        return radius * (radius - 1) / slope

    def cloth(
        self, dark: float = 0.3, bright: float = 0.9, *, rows: float = 0.0, columns: float = 0.0
    ) -> Floats:
        """Return the shade of a cloth, 0 black to 1 white, where shares of images are striped."""
        shade = self.vary(dark, bright) + self.vary(-0.008, 0.008) * (self.y - SIDE / 2)
        folds = self.vary(0.4, 0.9) * self.x + self.vary(-0.3, 0.3) * self.y
        shade += self.vary(0, 0.08) * np.sin(folds + self.vary(0, 2 * np.pi))
        contrast = self.vary(0.05, 0.3)
        for t, share in ((self.y, rows), (self.x, columns)):
            wave = np.sin(self.vary(0.8, 2.4) * t + self.vary(0, 2 * np.pi))
            shade += contrast * self.chance(share) * np.clip(2 * wave, -1, 1)
        return np.clip(shade, 0.1, 1)

    def paint(self, shape: Floats, shade: Measure) -> None:
        """Cover the shape with the shade, 0 black to 1 white."""
        coverage = np.clip(np.float32(0.5) - shape, 0, 1)
        self._image += coverage * (shade - self._image)

    def pixels(self) -> NDArray[np.uint8]:
        """Return the images with the grain of their cloth, shape (images, pixels)."""
        grain = np.where(self.chance(0.25), self.vary(0.15, 0.4), self.vary(0.01, 0.05))
        noise = self._rng.standard_normal(self._image.shape, np.float32)
        return (255 * np.clip(self._image * (1 + grain * noise), 0, 1)).astype(np.uint8)
