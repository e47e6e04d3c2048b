"""From a grey photo to 28x28 pixels: steps 4 to 13 of :mod:`npsoftmax.ext.photos`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Scene", "centred", "without_table"]

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
