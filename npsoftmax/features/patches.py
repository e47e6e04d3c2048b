"""Responses of random whitened patches; the formulas are in :mod:`npsoftmax.features`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided, sliding_window_view
from numpy.typing import ArrayLike, NDArray

from npsoftmax._checks import as_columns, as_count
from npsoftmax._threads import blas_threads
from npsoftmax.errors import InputError, ShapeError
from npsoftmax.features.maps import FeatureMap, Floats, measure_centre

__all__ = ["EPSILON", "PADDING", "Patches", "moving_means"]

# The filters are drawn from so many patches; a patch below this deviation is empty.
NUM_PATCHES, MIN_DEVIATION = 50_000, 0.02
# In units of pixels / 255, and of the normalised patches' variance.
EPSILON, RIDGE = 0.02, 0.1
# Of the deviation of the responses.
THRESHOLD = 0.2
PADDING = 2  # black pixels around the image
GROUP_IMAGES = 8  # for which the patches are computed at a time
CENTRE_IMAGES = 2_000  # from which the mean features are computed


@dataclass(frozen=True, eq=False)
class Patches(FeatureMap):
    """Responses of random whitened patches, pooled in overlapping smooth windows.

    Make one with :meth:`fit`. Formula, derivation and sources: :mod:`npsoftmax.features`.

    Attributes
    ----------
    shape : tuple of int
        Height, width and colours of the images; pixels row by row, the colours of a pixel next to
        each other.
    filters : ndarray of float32
        ``f``, shape ``(q * q * colours, filters)``; each sums to 0.
    offsets : ndarray of float32
        ``b``, shape ``(filters,)``.
    cells : int
        Windows along each side.
    mirror : bool
        The features are the mean of those of the image and of its mirror image, so the two have
        the same.
    centre : ndarray of float32
        The mean that is subtracted, shape ``(cells * cells * filters,)``.
    divisor : float
        The number by which the features are divided at the end.

    Examples
    --------
    >>> X = np.random.default_rng(0).integers(0, 256, (784, 100), dtype=np.uint8)
    >>> patches = Patches.fit(X, (28, 28), filters=8)
    >>> patches.num_outputs, patches(X).shape
    (200, (200, 100))
    """

    shape: tuple[int, int, int]
    filters: Floats
    offsets: Floats
    cells: int
    mirror: bool
    centre: Floats
    divisor: float

    def __post_init__(self) -> None:
        height, width, colours = self.shape
        count = self.filters.shape[1]
        fits = (
            self.filters.shape == (self.size**2 * colours, count)
            and self.offsets.shape == (count,)
            and self.centre.shape == (self.cells**2 * count,)
            and max(self.size, self.cells) <= min(height, width)
        )
        if not fits:
            raise ShapeError(
                f"features: expected filters of square patches within {self.shape} pixels, and an "
                f"offset for each, got filters {self.filters.shape}, offsets {self.offsets.shape} "
                f"and a centre of {self.centre.shape}"
            )

    integer_scale = 1 / 255

    @property
    def size(self) -> int:
        """Side of a patch, ``q``."""
        return math.isqrt(self.filters.shape[0] // self.shape[2])

    @property
    def windows(self) -> Floats:
        """``w``, shape ``(cells * cells, places down, places across)``."""
        down, across = (
            _windows(side + 2 * PADDING - self.size + 1, self.cells) for side in self.shape[:2]
        )
        windows = np.einsum("ir,jc->ijrc", down, across)
        return np.asarray(windows.reshape(-1, *windows.shape[2:]))

    @property
    def num_inputs(self) -> int:  # type: ignore[override]
        """Numbers in an image."""
        return math.prod(self.shape)

    @property
    def num_outputs(self) -> int:  # type: ignore[override]
        """Features of an image."""
        return self.centre.size

    @classmethod
    def fit(
        cls,
        X: ArrayLike,
        shape: Sequence[int] = (28, 28),
        *,
        scale: float = 1 / 255,
        filters: int = 64,
        size: int = 6,
        cells: int = 5,
        mirror: bool = False,
        seed: int = 0,
    ) -> Patches:
        """Draw the filters from training images.

        The result is a function of the images, in their order, and the seed: bit for bit on one
        machine.

        Parameters
        ----------
        X : array_like
            Images as columns, shape ``(d, n)``.
        shape : sequence of int
            Height and width of the images, and colours if there are several.
        scale : float
            The factor applied to integers; floats are used as they are.
        filters, size, cells : int
            Number of filters, side of a patch, windows along each side. There are
            ``cells * cells * filters`` features.
        mirror : bool
            Use the mean of the features of each image and of its mirror image.
        seed : int
            Seed of the draws.
        """
        size, filters, cells = (
            as_count(value, name)
            for value, name in ((size, "size"), (filters, "filters"), (cells, "cells"))
        )
        sides = _as_sides(shape, max(size, cells))
        X = as_columns(X, math.prod(sides))
        if X.shape[1] == 0:
            raise InputError("X: expected images to learn from, got none")
        scale = scale if X.dtype.kind in "iu" else 1.0
        rng = np.random.default_rng(as_count(seed, "seed", minimum=0))
        with blas_threads(1):
            patches = _normalise(_draw_patches(X, sides, size, scale, rng))
            bank, offsets = _whitened_filters(patches, filters, rng)
        zeros = np.zeros(cells**2 * filters, np.float32)
        raw = cls(sides, bank, offsets, cells, mirror, zeros, 1.0)
        some = rng.permutation(X.shape[1])[:CENTRE_IMAGES]
        return dataclasses.replace(raw, **measure_centre(raw(X.T[some].T, scale=scale)))

    def _transform(self, X: Floats) -> Floats:
        images = X.T.reshape(-1, *self.shape)
        features = np.empty((len(images), self.num_outputs), np.float32)
        responses = _Responses(self, min(GROUP_IMAGES, len(images)))
        for start in range(0, len(images), GROUP_IMAGES):
            group = slice(start, start + GROUP_IMAGES)
            features[group] = responses.pool(images[group])
            if self.mirror:
                features[group] += responses.pool(images[group, :, ::-1])
                features[group] *= np.float32(0.5)
        features -= self.centre
        features /= np.float32(self.divisor)
        return np.asarray(features.T)


class _Responses:
    """The pooled responses of one group of images after the other, in reused arrays.

    Each product takes one image, so its features do not depend on the others, and stays in a cache.
    In groups, threads seldom wait for the interpreter's lock.
    """

    def __init__(self, maps: Patches, count: int) -> None:
        (height, width, colours), q = maps.shape, maps.size
        rows, columns = height + 2 * PADDING, width + 2 * PADDING
        down, across = rows - q + 1, columns - q + 1  # places of a patch
        self.bank = np.concatenate([maps.filters, maps.offsets[None]])
        # The places of a patch run down each column first.
        self.windows = maps.windows.swapaxes(1, 2).reshape(maps.cells**2, -1)
        # In float32, the variance would lose most digits in even, bright areas.
        self.means_down = moving_means(rows, q).astype(np.float64)
        means_across = moving_means(columns, q).astype(np.float64)
        self.means_across = np.repeat(means_across.T / colours, colours, axis=0)
        self.padded = np.zeros((count, rows, columns, colours), np.float32)
        # A strip is q columns of an image: all patches in it lie in one piece of memory.
        self.strips = np.empty((count, across, rows, q, colours), np.float32)
        self.patches = np.empty((count, across, down, len(self.bank)), np.float32)
        self.responses = np.empty((count, across * down, maps.filters.shape[1]), np.float32)
        self.zeros = np.zeros_like(self.responses[0])  # np.maximum is much slower with a number
        strips = sliding_window_view(self.padded, q, axis=2)
        self._strips_of_images = strips.transpose(0, 2, 1, 4, 3)
        self._patches_of_strips = as_strided(
            self.strips, (count, across, down, q * q * colours), (*self.strips.strides[:3], 4)
        )

    def pool(self, images: Floats) -> Floats:
        """Return the square roots of the pooled responses, by image, window and filter."""
        some = slice(len(images))
        patches, responses = self.patches[some], self.responses[some]
        self.padded[some, PADDING:-PADDING, PADDING:-PADDING] = images
        self.strips[some] = self._strips_of_images[some]
        patches[..., :-1] = self._patches_of_strips[some]
        sigma = self._deviations(self.padded[some]).swapaxes(1, 2)
        patches[..., -1] = sigma
        np.matmul(patches.reshape(*responses.shape[:2], -1), self.bank, out=responses)
        np.maximum(responses, self.zeros, out=responses)
        pooled = (self.windows / sigma.reshape(len(images), 1, -1)) @ responses
        return np.asarray(np.sqrt(pooled).reshape(len(images), -1))

    def _deviations(self, padded: Floats) -> Floats:
        """Return sigma of the patch at each place."""
        pixels = padded.reshape(*padded.shape[:2], -1).astype(np.float64)
        mean, mean_square = (
            self.means_down @ values @ self.means_across for values in (pixels, pixels * pixels)
        )
        variance = np.maximum(mean_square - mean * mean, 0)
        return np.asarray(np.sqrt(variance + EPSILON**2), np.float32)


def _as_sides(shape: Sequence[int], least: int) -> tuple[int, int, int]:
    """Return height, width and colours of images that are large enough."""
    sides = tuple(as_count(side, "shape") for side in shape)
    if len(sides) not in (2, 3) or min(sides[:2]) < least:
        raise ShapeError(
            f"shape: expected (height, width) of at least {least} pixels for this size and these "
            f"cells, or (height, width, colours), got {sides}"
        )
    height, width, colours = (*sides, 1)[:3]
    return height, width, colours


def _normalise(patches: Floats) -> Floats:
    """Subtract the mean of each patch (row), and divide by sigma."""
    centred: Floats = patches - patches.mean(axis=1, keepdims=True)
    centred /= np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + EPSILON**2)
    return centred


def _draw_patches(
    X: NDArray[Any], shape: tuple[int, int, int], size: int, scale: float, rng: np.random.Generator
) -> Floats:
    """Return patches of the padded images as rows, without the empty ones."""
    height, width, colours = shape
    count = 2 * NUM_PATCHES
    which = rng.integers(0, X.shape[1], count)
    top = rng.integers(0, height + 2 * PADDING - size + 1, count)
    left = rng.integers(0, width + 2 * PADDING - size + 1, count)
    patches = np.empty((count, size, size, colours), np.float32)
    step = 4096
    steps = np.arange(size)
    for start in range(0, count, step):
        b = slice(start, start + step)
        images = X.T[which[b]].reshape(-1, *shape)
        padded = np.pad(images, ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)))
        rows, columns = top[b, None, None] + steps[:, None], left[b, None, None] + steps
        patches[b] = padded[np.arange(len(images))[:, None, None], rows, columns]
    patches = patches.reshape(count, -1) * np.float32(scale)
    return np.asarray(patches[patches.std(axis=1) > MIN_DEVIATION][:NUM_PATCHES])


def _whitened_filters(
    patches: Floats, count: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Return filters and offsets from normalised patches."""
    if len(patches) < count:
        raise InputError(
            f"X: expected images with at least {count} patches that are not empty, got "
            f"{len(patches)}; take more images, or fewer filters"
        )
    mean = patches.mean(axis=0, dtype=np.float64)
    values, vectors = np.linalg.eigh(np.cov(patches, rowvar=False, dtype=np.float64))
    whitening = vectors / np.sqrt(values + RIDGE) @ vectors.T
    white = (patches - mean) @ whitening
    chosen = white[rng.choice(len(white), count, replace=False)]
    chosen /= np.linalg.norm(chosen, axis=1, keepdims=True)
    filters = whitening @ chosen.T
    filters -= filters.mean(axis=0)
    offsets = -mean @ filters - THRESHOLD * (white @ chosen.T).std()
    return filters.astype(np.float32), offsets.astype(np.float32)


def _windows(places: int, cells: int) -> Floats:
    """Return triangular windows over the places along a side, one a row; rows sum to 1."""
    centres = (np.arange(cells)[:, None] + 0.5) * places / cells - 0.5
    weights = np.maximum(0, 1 - abs(np.arange(places) - centres) * cells / places)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def moving_means(pixels: int, size: int) -> NDArray[np.float64]:
    """Return the matrix that averages ``size`` neighbours along a side."""
    places = np.arange(pixels - size + 1)[:, None]
    inside = (places <= np.arange(pixels)) & (np.arange(pixels) < places + size)
    return inside / size
