"""From the pixels of a photo to the item, light on black, as in Fashion-MNIST or MNIST.

Steps 1 to 3 are in :mod:`npsoftmax.ext.photos`. All numbers are whole (``//`` rounds down) except
in steps 18 to 21, which are in float64 with ``+ - * /`` only, in the order written; so every
machine, and the web page, computes the same pixels. The median of ``m`` numbers is element
``m // 2`` of the sorted numbers, counted from 0. The border of an image consists of its outermost
pixels, each corner once. Two cells touch even at a corner; cells that touch form a part.

4.  **Cells**: ``g = ceil(longest side / 64)``; the mean of every ``g x g`` block in each channel,
    as in step 2.
5.  **Cut-out**: if some cells of the transparency are below 128 and others are not, the cells of
    at least 128 are the item, ``share = alpha / 255``, and the recipe continues at step 22.

*A plain background.* Steps 6 to 9 are done for the grey image (``(19595 R + 38470 G + 7471 B +
32768) // 65536``, ITU-R 601), and for each of R, G and B.

6.  **Light**: ``fall`` is the median of the last row minus that of the first. From row ``i`` of
    ``n``, ``(2 * i + 1 - n) * fall // (2 * n)`` is subtracted, for columns likewise (their ``fall``
    is that of the original image), and the levels are clipped to 0 to 255. The result is taken if
    the median of ``|pixel - median|`` on its border is at most that of the original. Cells of
    this image are means of blocks as in step 4.
7.  **Background**: ``bg``, the median of the border cells; ``spread``, the median of their
    ``|cell - bg|``.
8.  **Polarity**: with ``n = max(1, cells // 200)``, ``light`` is the ``n``-th largest cell minus
    ``bg``, and ``dark`` is ``bg`` minus the ``n``-th smallest. The item is dark if
    ``dark > light``, else light; ``contrast`` is the larger of the two. For pixels and cells,
    ``d = bg - grey`` for a dark item, else ``grey - bg``; ``d`` may be negative.
9.  **Kind**: an image is blank if ``contrast < max(8, 6 * spread)``, and plain if
    ``contrast >= max(8, 40 * spread)``. If all four are blank with ``spread < 6``, the photo is
    blank: all pixels are 0 and the recipe ends. If the grey image is plain and twice its
    ``contrast`` is at least that of R, G and B, the recipe continues with it, else at step 16.
10. **Threshold**: ``t = max(contrast // 12, 4 * spread)``. Cells with ``d > t`` belong to the item;
    parts of fewer than 1/50 of the largest part's cells are dropped. The region is the box around
    the others, one cell wider on every side if the image continues there, in pixels.
11. **Box**: ``k = max(1, longest side // 32)``, at most the region's height and width. A row of
    the region belongs to the item if the sum of ``d`` over some ``k`` neighbours within the row is
    more than ``k * t``; the same rule holds for columns. The box reaches from the first to the last
    such row and column; without any, it is the region.
12. **Paper**: once, and for a dark item only. With ``p = max(12, 4 * spread)``, steps 10 and 11 are
    done with ``d > t or d < -p`` (sums: ``> k * t or < -k * p``). If the median of the
    border of that box is more than ``bg + p``, the item is on a sheet of paper that is lighter
    than the table: steps 6 to 8 are done for the box, and unless that is blank, the recipe
    continues with it.
13. **Quality**: ``min(1, contrast / 32)``.
14. **Shrink**: the box of step 11 of ``h x w`` pixels becomes ``H x W``: the longest side becomes
    ``fit``, the other ``max(1, (2 * fit * side + longest) // (2 * longest))``; ``fit`` is 28, or 20
    by centre of mass. Each new pixel is the mean of ``d`` over the area that it covers, in
    fractions of pixels (times ``h * w``, this is a whole number ``S``).
15. **Stretch**: ``S = max(S, 0)``; with ``top = max(1, largest S)``, the pixel is
    ``(510 * S + top) // (2 * top)``: the brightest is 255, as in the data sets. The recipe
    continues at step 24, with one column of pixels.

*Any other background.* The photo itself says which colours the item has, and which its background:
what is near the border is likelier background, each colour votes, and neighbours of a similar
colour agree. This is the idea of GrabCut (Rother, Kolmogorov and Blake 2004) with histograms
instead of Gaussian mixtures, and with a random walker's means (Grady 2006) instead of a cut.

16. **Colours** of a cell: ``R + 2 G + B``, ``6 (R - G)`` and ``3 (R + G - 2 B)``, so that shadows
    count less than hues. Its bin in each is ``(colour - least) // (max(128, range) // 16 + 1)``
    with the least of this colour, and the largest range of the three.
17. **Place**: ``middle = (2i + 1)(2h - 2i - 1)(2j + 1)(2w - 2j - 1) / (h * h * w * w)`` for row
    ``i`` of ``h`` and column ``j`` of ``w``; ``place = min(middle, 0.5)``.
18. **Bonds**: ``step`` is the sum of squared differences of the colours of two cells, one below or
    one to the right of the other. ``typical`` is the mean of all steps plus 64, and
    ``bond = typical / (typical / 8 + 6 * step)``.
19. **Votes**: the first ``share`` is ``middle``. Each cell gives its bin ``v = floor(256 * share)``
    votes for the item, and ``256 - v`` for the background. Both histograms of 16 x 16 x 16 bins are
    smoothed with (1, 2, 1) along each axis, twice; outside there are no votes. A cell reads its bin
    and divides by the sum of the votes before smoothing, at least 1: ``f`` and ``b``. With
    ``f = f * (1 + 10 * place)`` and ``b = b * (11 - 10 * place)``, ``prior = f / (f + b)``.
20. **Agreement**: 24 times from ``share = prior``, all cells at once: ``prior`` plus ``bond *
    share`` of the neighbours above, below, to the left and to the right, in this order, divided by
    1 plus these bonds, in this order. Steps 19 and 20 are done four times.
21. **Item**: with ``v = floor(256 * share)`` and ``level = 128`` at first, 8 times: ``level`` is
    the mean of all ``v > level``, plus the mean of the others, both rounded down, ``// 2``; it
    stays if either are none. The cells with ``v > level`` are the item (Ridler and Calvard 1978).
    A part weighs the sum of ``floor(256 * middle)``; parts of less than 1/10 of the heaviest are
    dropped. ``quality`` is the mean of ``v / 256`` of the item's cells minus that of the others,
    at least 0; without item cells or without others, 0.
22. **Levels**: in the box around the item (without item cells, the whole image),
    ``ink = max(floor(256 * share), 128)`` for the item's cells, else 0. By centre of mass, a level
    is ``255 * ink``. By bounding box, ``grey = (R + 2 G + B + 2) // 4``, and a level is ``ink``
    times ``150 + m - grey``, clipped to 0 to 255, with ``m`` the median of the item's ``grey``:
    Fashion-MNIST's items are negatives of about this brightness.
23. **Shrink** as in step 14, but by bounding box, a box with ``4 * w <= 7 * h`` becomes 28 high:
    sleeves that are spread out hang down in Fashion-MNIST, while shoes are wider. A pixel is
    ``(2 * S + n) // (2 * n)`` with ``n = 256 * h * w``. By bounding box, a second column of pixels
    is the mirror image, after step 24.
24. **Place** on 28x28 black pixels. By bounding box, the first row is ``(29 - H) // 2``, the first
    column ``(29 - W) // 2``: an odd line goes above or to the left, as in Fashion-MNIST. By centre
    of mass, the first row is ``14 - (2 * M + T) // (2 * T)`` with ``T`` the sum of all pixels and
    ``M`` the sum of all pixels times their rows, counted from 0, at least 0 and at most ``28 - H``;
    the same holds for columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npsoftmax.ext import extra

with extra("image"):
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
    """Return the item of a photo on 28x28 black pixels.

    Parameters
    ----------
    image : PIL.Image.Image
        Upright, in RGB, on white where it is transparent.
    alpha : PIL.Image.Image or None
        How opaque the image is, in 256 levels, for images that may be transparent.
    by_mass : bool
        Whether the item is placed as in MNIST, by its centre of mass, or as in Fashion-MNIST.

    References
    ----------
    C. Rother, V. Kolmogorov and A. Blake (2004), "GrabCut: interactive foreground extraction using
    iterated graph cuts", ACM Transactions on Graphics 23 (3), section 3.

    T. W. Ridler and S. Calvard (1978), "Picture thresholding using an iterative selection method",
    IEEE Transactions on Systems, Man and Cybernetics 8 (8).

    L. Grady (2006), "Random walks for image segmentation", IEEE Transactions on Pattern Analysis
    and Machine Intelligence 28 (11), section III.

    Examples
    --------
    >>> image = Image.effect_noise((60, 90), 80).convert("RGB")  # a grey cloth
    >>> image.paste((200, 40, 40), (20, 20, 40, 70))
    >>> item = cut_out(image, None, by_mass=False)
    >>> item.pixels.shape, item.quality > 0.7, item.contrast
    ((784, 2), True, None)
    """
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
    item = _near_the_middle(_likelier(share))
    return Cutout(_frames(cells, share, item, by_mass), _clearness(share, item))


# An uneven background: the colours of the item and of its background, learned from the photo.

BINS = 16
ROUNDS = 4
SWEEPS = 24


def _segment(cells: Levels) -> Floats:
    """Return how likely each cell belongs to the item, from 0 to 1 (steps 16 to 20)."""
    colours = _opponent(cells)
    bins = _bins(colours)
    share = _middle(*bins.shape)
    place = np.minimum(share, 0.5)  # the background is likelier near the border, nothing elsewhere
    vertical, horizontal = _bonds(colours)
    for _ in range(ROUNDS):
        votes = np.floor(256 * share).astype(np.int64)
        inside = _density(bins, votes) * (1 + 10 * place)
        outside = _density(bins, 256 - votes) * (11 - 10 * place)
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
    vertical, horizontal = (typical / (typical / 8 + 6 * step) for step in (down, right))
    return vertical, horizontal


def _diffuse(prior: Floats, vertical: Floats, horizontal: Floats) -> Floats:
    """Return means of every cell's prior and its neighbours' shares, weighted with the bonds."""
    weights = _with_neighbours(np.ones(prior.shape), vertical, horizontal, np.ones(prior.shape))
    share = prior
    for _ in range(SWEEPS):
        share = _with_neighbours(prior, vertical, horizontal, share) / weights
    return share


def _with_neighbours(start: Floats, vertical: Floats, horizontal: Floats, share: Floats) -> Floats:
    sums: Floats = start.copy()
    sums[1:] += vertical * share[:-1]
    sums[:-1] += vertical * share[1:]
    sums[:, 1:] += horizontal * share[:, :-1]
    sums[:, :-1] += horizontal * share[:, 1:]
    return sums


def _likelier(share: Floats) -> Mask:
    """Return the cells above the level halfway between the means of both sides (step 21)."""
    votes, level = np.floor(256 * share).astype(np.int64), 128
    for _ in range(8):
        above, below = votes[votes > level], votes[votes <= level]
        if above.size and below.size:
            level = (int(above.sum()) // above.size + int(below.sum()) // below.size) // 2
    return votes > level


def _near_the_middle(item: Mask) -> Mask:
    """Return the item without the parts that are small, or far from the middle (step 21)."""
    weights = np.floor(256 * _middle(*item.shape)).astype(np.int64)
    return _without_dust(item, weights, 10)


def _clearness(share: Floats, item: Mask) -> float:
    """Return the mean share of the item's cells minus that of the others (step 21)."""
    if item.all() or not item.any():
        return 0.0
    votes = np.floor(256 * share).astype(np.int64)
    inside, outside = (
        int(votes[cells].sum()) / (256 * int(cells.sum())) for cells in (item, ~item)
    )
    return max(0.0, inside - outside)


TYPICAL = 150  # about the mean grey level of an item of Fashion-MNIST


def _frames(cells: Levels, share: Floats, item: Mask, by_mass: bool) -> NDArray[np.uint8]:
    """Return the item on 28x28 black pixels, and its mirror image (steps 22 to 24)."""
    box = (_rows(item), _rows(item.T))
    item = item[box] if item.any() else np.ones(item.shape, bool)
    ink = np.where(item, np.maximum(np.floor(256 * share[box]), 128), 0).astype(np.int64)
    if by_mass:
        square = _placed(255 * ink, MNIST_SIDE, 256, by_mass)
        return square.reshape(-1, 1)
    grey = (cells[box] @ np.array([1, 2, 1]) + 2) // 4
    levels = np.clip(TYPICAL + median(grey[item]) - grey, 0, 255) * ink
    square = _placed(levels, SIDE, 256, by_mass)
    return np.stack([square.ravel(), square[:, ::-1].ravel()], axis=1)


def _placed(levels: Levels, fit: int, white: int, by_mass: bool) -> NDArray[np.uint8]:
    longest = max(levels.shape)
    height, width = (max(1, (2 * fit * side + longest) // (2 * longest)) for side in levels.shape)
    if not by_mass and 4 * levels.shape[1] <= 7 * levels.shape[0]:
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

UNEVEN = 6  # a spread of this many grey levels is not called blank
PLAIN = 40  # the contrast of an item as a multiple of the spread of a plain background


def _evenly_lit(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the image without a fall of the light from one side to the other (step 6)."""
    falls = []
    for lines in (grey, grey.T):
        n, fall = len(lines), median(lines[-1]) - median(lines[0])
        falls.append((2 * np.arange(n) + 1 - n) * fall // (2 * n))
    even = np.clip(grey - falls[0][:, None] - falls[1], 0, 255).astype(np.uint8)
    return min(even, grey, key=_unevenness)


def _unevenness(grey: NDArray[np.uint8]) -> int:
    edge = border(grey).astype(np.int64)
    return median(abs(edge - median(edge)))


class _Scene:
    """A grey image with its background, polarity and contrast (steps 6 to 9)."""

    def __init__(self, grey: NDArray[np.uint8]) -> None:
        self.grey, self.cell = _evenly_lit(grey), -(-max(grey.shape) // CELLS)
        self.cells = np.asarray(Image.fromarray(self.grey).reduce(self.cell)).astype(np.int64)
        self.background = median(border(self.cells))
        self.spread = median(abs(border(self.cells) - self.background))
        levels, n = np.sort(self.cells, axis=None), max(1, self.cells.size // 200)
        light, dark = int(levels[-n]) - self.background, self.background - int(levels[n - 1])
        self.is_item_dark, self.contrast = dark > light, max(dark, light)
        self.is_blank = self.contrast < max(8, 6 * self.spread)
        self.is_plain = self.contrast >= max(8, PLAIN * self.spread)

    def difference(self, levels: NDArray[np.uint8] | Levels) -> Levels:
        """Return ``d``, the signed distance of levels from the background (step 8)."""
        signed = levels.astype(np.int64) - self.background
        return -signed if self.is_item_dark else signed

    def box(self, opposite: float = np.inf) -> Box:
        """Return the box of the item (steps 10 and 11).

        The box also contains what is more than ``opposite`` beyond the background (step 12).
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
    """Return the scene of the sheet of paper below the item, if there is one (step 12)."""
    if not scene.is_item_dark:
        return scene
    lighter = max(12, 4 * scene.spread)
    paper = scene.grey[scene.box(lighter)]
    if median(border(paper)) <= scene.background + lighter:
        return scene
    sheet = _Scene(paper)
    return scene if sheet.is_blank else sheet


def _place(scene: _Scene, by_mass: bool) -> NDArray[np.uint8]:
    """Return the item on 28x28 black pixels (steps 11 to 15)."""
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


def median(levels: NDArray[Any]) -> int:
    """Return element ``levels.size // 2`` of the sorted levels."""
    return int(np.sort(levels, axis=None)[levels.size // 2])


def border(levels: NDArray[Any]) -> NDArray[Any]:
    """Return the outermost levels, each corner once."""
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
    """Return the cells without the parts that weigh ``times`` less than the heaviest."""
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
