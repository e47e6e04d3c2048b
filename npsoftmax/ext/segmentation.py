"""From the pixels of a photo to the item, light on black, as in Fashion-MNIST or MNIST.

DOC
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Cutout", "cut_out"]

SIDE = 28  # of the images of Fashion-MNIST and MNIST
MNIST_SIDE = 20  # of the box of a digit
CELLS = 64  # along the longest side

Levels = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Box = tuple[slice, slice]


@dataclass(frozen=True, eq=False)
class Cutout:
    """The item of a photo.

    Attributes
    ----------
    pixels : ndarray of uint8
        One column for each framing, shape ``(784, m)``.
    quality : float
        From 0, nothing was found, to 1.
    is_blank : bool
        Nothing stands out from a plain background.
    contrast : int or None
        The grey levels between the item and a plain background; None before any other background.
    """

    pixels: NDArray[np.uint8]
    quality: float
    is_blank: bool = False
    contrast: int | None = None


FULL_CONTRAST = 32


def cut_out(image: Image.Image, alpha: Image.Image | None, by_mass: bool) -> Cutout:
    """Return the item of an RGB image whose transparency is ``alpha``."""
    cell = -(-max(image.size) // CELLS)
    cells = np.asarray(image.reduce(cell)).astype(np.int64)
    if alpha is not None:
        opaque = np.asarray(alpha.reduce(cell)).astype(np.int64)
        if opaque.min() < 128 <= opaque.max():
            return Cutout(_frames(cells, opaque / 255, opaque >= 128, by_mass), 1.0)
    scene = _Scene(np.asarray(image.convert("L")))
    channels = [_Scene(np.asarray(band)) for band in image.split()]
    if all(each.is_blank and each.spread < UNEVEN for each in (scene, *channels)):
        return Cutout(np.zeros((SIDE * SIDE, 1), np.uint8), 0.0, is_blank=True)
    if scene.is_plain and 2 * scene.contrast >= max(each.contrast for each in channels):
        scene = _cut_to_paper(scene)
        pixels = _place(scene, by_mass).reshape(-1, 1)
        return Cutout(pixels, min(1.0, scene.contrast / FULL_CONTRAST), contrast=scene.contrast)
    share = _segment(cells)
    item = _near_the_middle(share > 0.5)
    return Cutout(_frames(cells, share, item, by_mass), _clearness(share, item))


# An uneven background: the colours of the item and of its background, learned from the photo.

BINS = 16
ROUNDS = 4
SWEEPS = 24


def _segment(cells: Levels) -> Floats:
    """Return how likely each cell of an RGB image belongs to the item, from 0 to 1."""
    colours = _opponent(cells)
    bins = _bins(colours)
    middle = _middle(*bins.shape)
    vertical, horizontal = _bonds(colours)
    share = middle
    for _ in range(ROUNDS):
        votes = np.floor(256 * share).astype(np.int64)
        inside = _density(bins, votes) * (1 + 10 * middle)
        outside = _density(bins, 256 - votes) * (11 - 10 * middle)
        share = _diffuse(inside / (inside + outside), vertical, horizontal)
    return share


def _opponent(cells: Levels) -> Levels:
    """Return lightness, red against green, and yellow against blue; shape ``(3, h, w)``."""
    red, green, blue = np.moveaxis(cells, -1, 0)
    return np.stack([red + 2 * green + blue, 6 * (red - green), 3 * (red + green - 2 * blue)])


def _bins(colours: Levels) -> Levels:
    above = colours - colours.min(axis=(1, 2), keepdims=True)
    lightness, red, yellow = above // (max(128, int(above.max())) // BINS + 1)
    return np.asarray((lightness * BINS + red) * BINS + yellow)


def _middle(height: int, width: int) -> Floats:
    """Return 1 in the middle of an image, falling to 0 at its border."""
    rows, columns = (
        (2 * np.arange(side) + 1) * (2 * side - 2 * np.arange(side) - 1) for side in (height, width)
    )
    return np.asarray(rows[:, None] * columns / (height * height * width * width))


def _density(bins: Levels, votes: Levels) -> Floats:
    """Return the share of the votes that have about the colour of each cell."""
    counts = np.bincount(bins.ravel(), votes.ravel(), BINS**3).reshape(BINS, BINS, BINS)
    for axis in (0, 1, 2, 0, 1, 2):
        padded = np.pad(counts, [(int(axis == i),) * 2 for i in range(3)])
        before, here, after = (padded.take(range(i, i + BINS), axis) for i in range(3))
        counts = before + 2 * here + after
    return np.asarray(counts.ravel()[bins] / max(1, int(votes.sum())))


def _bonds(colours: Levels) -> tuple[Floats, Floats]:
    """Return how much cells agree with the one below, and with the one to the right."""
    down, right = (np.square(np.diff(colours, axis=axis)).sum(axis=0) for axis in (1, 2))
    typical = (int(down.sum()) + int(right.sum())) / max(1, down.size + right.size) + 64
    return typical / (typical / 8 + 6 * down), typical / (typical / 8 + 6 * right)


def _diffuse(prior: Floats, vertical: Floats, horizontal: Floats) -> Floats:
    """Return means of every cell's prior and its neighbours' shares, weighted with the bonds."""
    weights = _with_neighbours(np.ones(prior.shape), vertical, horizontal, np.ones(prior.shape))
    share = prior
    for _ in range(SWEEPS):
        share = _with_neighbours(prior, vertical, horizontal, share) / weights
    return share


def _with_neighbours(start: Floats, vertical: Floats, horizontal: Floats, share: Floats) -> Floats:
    sums = start.copy()
    sums[1:] += vertical * share[:-1]
    sums[:-1] += vertical * share[1:]
    sums[:, 1:] += horizontal * share[:, :-1]
    sums[:, :-1] += horizontal * share[:, 1:]
    return sums


def _near_the_middle(item: Mask) -> Mask:
    """Return the item without the parts that are small, or far from the middle."""
    weights = np.floor(256 * _middle(*item.shape)).astype(np.int64)
    return _without_dust(item, weights, 10)


def _clearness(share: Floats, item: Mask) -> float:
    """Return the mean share of the item's cells minus that of the others."""
    if item.all() or not item.any():
        return 0.0
    votes = np.floor(256 * share).astype(np.int64)
    inside, outside = int(votes[item].sum()), int(votes[~item].sum())
    return max(0.0, inside / (256 * item.sum()) - outside / (256 * (~item).sum()))


TYPICAL = 150


def _frames(cells: Levels, share: Floats, item: Mask, by_mass: bool) -> NDArray[np.uint8]:
    """Return the item on 28x28 black pixels."""
    box = (_rows(item), _rows(item.T))
    item = item[box] if item.any() else np.ones(item.shape, bool)
    ink = np.where(item, np.maximum(np.floor(256 * share[box]), 128), 0).astype(np.int64)
    if by_mass:
        square = _placed(255 * ink, MNIST_SIDE, 256, by_mass)
        return square.reshape(-1, 1)
    grey = (cells[box] @ np.array([1, 2, 1]) + 2) // 4
    levels = np.clip(TYPICAL + _median(grey[item]) - grey, 0, 255) * ink
    square = _placed(levels, SIDE, 256, by_mass)
    return np.stack([square.ravel(), square[:, ::-1].ravel()], axis=1)


def _placed(levels: Levels, fit: int, white: int, by_mass: bool) -> NDArray[np.uint8]:
    longest = max(levels.shape)
    height, width = (max(1, (2 * fit * side + longest) // (2 * longest)) for side in levels.shape)
    if not by_mass and levels.shape[1] <= 2 * levels.shape[0]:
        height = SIDE
    area = levels.size * white
    item = (2 * resize(levels, height, width) + area) // (2 * area)
    return _on_black(item, by_mass)


def _on_black(item: Levels, by_mass: bool) -> NDArray[np.uint8]:
    pixels = np.zeros((SIDE, SIDE), np.uint8)
    height, width = item.shape
    y, x = (SIDE + 1 - height) // 2, (SIDE + 1 - width) // 2
    if by_mass:
        y, x = _first_line(item.sum(axis=1)), _first_line(item.sum(axis=0))
    pixels[y : y + height, x : x + width] = item
    return pixels


# A plain background.

UNEVEN = 6
PLAIN = 24


def _evenly_lit(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the image without a fall of the light from one side to the other."""
    falls = []
    for lines in (grey, grey.T):
        n, fall = len(lines), _median(lines[-1]) - _median(lines[0])
        falls.append((2 * np.arange(n) + 1 - n) * fall // (2 * n))
    even = np.clip(grey - falls[0][:, None] - falls[1], 0, 255).astype(np.uint8)
    return min(even, grey, key=_unevenness)


def _unevenness(grey: NDArray[np.uint8]) -> int:
    border = _border(grey).astype(np.int64)
    return _median(abs(border - _median(border)))


class _Scene:
    """A grey image with its background, polarity and contrast (steps 4 to 7)."""

    def __init__(self, grey: NDArray[np.uint8]) -> None:
        self.grey, self.cell = _evenly_lit(grey), -(-max(grey.shape) // CELLS)
        self.cells = np.asarray(Image.fromarray(self.grey).reduce(self.cell)).astype(np.int64)
        self.background = _median(_border(self.cells))
        self.spread = _median(abs(_border(self.cells) - self.background))
        levels, n = np.sort(self.cells, axis=None), max(1, self.cells.size // 200)
        light, dark = int(levels[-n]) - self.background, self.background - int(levels[n - 1])
        self.is_item_dark, self.contrast = dark > light, max(dark, light)
        self.is_blank = self.contrast < max(8, 6 * self.spread)
        self.is_plain = self.contrast >= max(8, PLAIN * self.spread)

    def difference(self, levels: NDArray[np.uint8] | Levels) -> Levels:
        """Return ``d``, the signed distance of levels from the background (step 6)."""
        signed = levels.astype(np.int64) - self.background
        return -signed if self.is_item_dark else signed

    def box(self, opposite: float = np.inf) -> Box:
        """Return the box of the item (steps 8 and 9).

        The box also contains what is more than ``opposite`` beyond the background (step 10).
        """
        threshold = max(self.contrast // 12, 4 * self.spread)
        d = self.difference(self.cells)
        item = (d > threshold) | (d < -opposite)
        item = _without_dust(item, np.ones_like(d), 50)
        rows, columns = _rows(item), _rows(item.T)
        top, left = (max(0, (span.start - 1) * self.cell) for span in (rows, columns))
        bottom, right = ((span.stop + 1) * self.cell for span in (rows, columns))
        d = self.difference(self.grey[top:bottom, left:right])
        k = min(max(1, max(self.grey.shape) // 32), *d.shape)
        rows, columns = (
            _rows((sums > k * threshold) | (sums < -k * opposite))
            for sums in (_window_sums(d, k), _window_sums(d.T, k))
        )
        top, bottom = top + rows.start, top + rows.stop
        return slice(top, bottom), slice(left + columns.start, left + columns.stop)


def _cut_to_paper(scene: _Scene) -> _Scene:
    """Return the scene of the sheet of paper below the item, if there is one (step 10)."""
    if scene.is_blank or not scene.is_item_dark:
        return scene
    lighter = max(12, 4 * scene.spread)
    paper = scene.grey[scene.box(lighter)]
    if _median(_border(paper)) <= scene.background + lighter:
        return scene
    sheet = _Scene(paper)
    return scene if sheet.is_blank else sheet


def _place(scene: _Scene, by_mass: bool) -> NDArray[np.uint8]:
    """Return the item on 28x28 black pixels (steps 11 to 13)."""
    d = scene.difference(scene.grey[scene.box()])
    longest, fit = max(d.shape), MNIST_SIDE if by_mass else SIDE
    height, width = (max(1, (2 * fit * side + longest) // (2 * longest)) for side in d.shape)
    levels = np.maximum(resize(d, height, width), 0)
    brightest = max(1, int(levels.max()))
    return _on_black((510 * levels + brightest) // (2 * brightest), by_mass)


def _first_line(sums: Levels) -> int:
    """Return where lines with these sums begin, so that their centre of mass is in the middle."""
    moment, total = int(sums @ np.arange(sums.size)), int(sums.sum())
    first = SIDE // 2 - (2 * moment + total) // (2 * total)
    return min(max(0, first), SIDE - sums.size)


def resize(levels: NDArray[Any], height: int, width: int) -> Levels:
    """Return the sums of levels over the areas that new pixels cover, times the new size."""
    # Sums of whole numbers below 2**53 are exact in float64, in any order.
    sums = _overlaps(height, levels.shape[0]) @ levels.astype(float)
    return np.asarray(sums @ _overlaps(width, levels.shape[1]).T, np.int64)


def _overlaps(new: int, old: int) -> NDArray[np.float64]:
    """Return how much of each old pixel every new pixel covers, times ``new``."""
    i, j = np.arange(new)[:, None], np.arange(old)
    shared = np.minimum((i + 1) * old, (j + 1) * new) - np.maximum(i * old, j * new)
    return np.asarray(np.maximum(shared, 0), np.float64)


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
    """Return the slice from the first to the last row with a True; without any, all rows."""
    places = np.flatnonzero(np.logical_or.reduce(mask, axis=1))
    return slice(int(places[0]), int(places[-1]) + 1) if places.size else slice(0, len(mask))


def _without_dust(item: Mask, weights: Levels, times: int) -> Mask:
    """Return the cells without the parts that weigh ``times`` less than the heaviest (step 8)."""
    framed = np.pad(item, 1)
    flat, width = framed.ravel(), framed.shape[1]
    # Runs of cells within a row, from starts to ends. The frame separates the rows.
    edges = np.flatnonzero(np.diff(flat)) + 1
    starts, ends = edges[::2], edges[1::2]
    first = np.searchsorted(ends, starts + width)  # of the runs in the next row that touch it
    last = np.searchsorted(starts, ends + width, side="right")
    part = np.arange(starts.size)
    for run in range(starts.size):
        for below in range(first[run], last[run]):
            part[part == part[below]] = part[run]
    sums = np.append(0, np.cumsum(np.pad(weights, 1)))
    heavy = np.bincount(part, weights=sums[ends] - sums[starts])
    flat[flat] = np.repeat(times * heavy[part] >= heavy.max(initial=0), ends - starts)
    return framed[1:-1, 1:-1]
