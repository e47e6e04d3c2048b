r"""Fixed maps from images to features, on which a linear model is accurate.

A linear model of pixels cannot tell a bent line from a straight one. On fixed features it can, and
its objective stays convex: the features are learned from images without labels, and never change
afterwards. :class:`Patches` compares each place of an image with a few dozen patches of training
images, and sums the similarities over parts of the image. :class:`RandomFourier` approximates a
Gaussian kernel on top of other features. :class:`Chain` applies one map after the other.

**Patches.** A patch :math:`p` of :math:`q \times q` pixels is normalised, which removes brightness
and contrast, and whitened, which removes what neighbouring pixels have in common:

.. math:: u = \frac{p - \bar p}{\sigma}, \qquad
    \sigma = \sqrt{\tfrac{1}{q^2} \|p - \bar p\|^2 + \varepsilon^2}, \qquad
    v = V (u - \mu), \qquad V = (C + r I)^{-1/2},

where :math:`\mu` and :math:`C` are the mean and the covariance of the normalised patches of the
training images; :math:`\varepsilon` keeps noise in even areas small. The filters :math:`d_i` are
whitened patches themselves, drawn at random and of length 1. Their responses above a threshold are
pooled with smooth windows :math:`w_c`, and the square root lessens the weight of what occurs often:

.. math:: a_{ci} = \sqrt{\sum_p w_c(p) \, \max(0, d_i \cdot v_p - t)}

**What the normalisation costs.** With :math:`f_i = V d_i`, made to sum to 0 over the patch (which
changes nothing, since :math:`u` does), and :math:`b_i = -f_i \cdot \mu - t`,

.. math:: \max(0, f_i \cdot u + b_i) = \frac{1}{\sigma} \max(0, f_i \cdot p + b_i \sigma)

because :math:`\sigma > 0`. So patches need not be normalised: :math:`\sigma` is one more pixel of
the patch, whose weight is :math:`b_i`, and :math:`1 / \sigma` joins the windows. The filter bank is
one product, the pooling another.

At the end, the mean over training images is subtracted, and the features are divided by one number,
so that their mean square length is 1. A penalty then means the same for every map.

References
----------
Coates, Lee, Ng, "An analysis of single-layer networks in unsupervised feature learning", AISTATS
2011: whitened patches, thresholds and pooling. Coates, Ng, "The importance of encoding versus
training with sparse coding and vector quantization", ICML 2011: random patches serve as well as
learned ones. Hyvärinen, Hurri, Hoyer, "Natural Image Statistics", 2009, chapter 5: whitening.
Rahimi, Recht, "Random features for large-scale kernel machines", NIPS 2007: the Fourier features.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided, sliding_window_view
from numpy.typing import ArrayLike, DTypeLike, NDArray

from npsoftmax._checks import as_columns, as_count, as_size
from npsoftmax._threads import blas_threads, default_threads
from npsoftmax.errors import InputError, ShapeError

__all__ = ["Chain", "FeatureMap", "Patches", "RandomFourier", "pack", "unpack"]

Floats = NDArray[Any]  # float32
BLOCK_COLUMNS = 128  # computed at a time by each thread


class FeatureMap:
    """A fixed map of columns to columns of features, computed block by block on threads."""

    num_inputs: int
    num_outputs: int

    def __call__(
        self,
        X: ArrayLike,
        *,
        scale: float = 1.0,
        threads: int | None = None,
        on_block: Callable[[int], None] | None = None,
        dtype: DTypeLike = np.float32,
    ) -> Floats:
        """Compute the features of samples.

        Parameters
        ----------
        X : array_like
            Samples, shape ``(num_inputs, n)``; bytes stay bytes in memory.
        scale : float
            The factor applied to the samples, 1/255 for pixels.
        threads : int, optional
            By default as for :class:`npsoftmax.objective.FullBatch`. The result does not depend on
            it.
        on_block : callable, optional
            Called with the number of samples that were finished, for a progress bar.
        dtype : float32 or float16
            Of the result. float16 takes half of the memory, with an error of 1/2,000.

        Returns
        -------
        ndarray
            Shape ``(num_outputs, n)``, Fortran-ordered.
        """
        X = as_columns(X, self.num_inputs)
        out = np.empty((self.num_outputs, X.shape[1]), dtype, order="F")
        starts = range(0, X.shape[1], BLOCK_COLUMNS)

        def compute(start: int) -> int:
            block = slice(start, start + BLOCK_COLUMNS)
            columns: Floats = X[:, block].astype(np.float32)
            columns *= np.float32(scale)
            out[:, block] = self._transform(columns)
            return int(columns.shape[1])

        count = default_threads() if threads is None else as_count(threads, "threads")
        with blas_threads(1), ThreadPoolExecutor(count) as pool:
            for done in pool.map(compute, starts):
                if on_block is not None:
                    on_block(done)
        return out

    def _transform(self, X: Floats) -> Floats:
        """Return the features of a few scaled samples."""
        raise NotImplementedError

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that the features depend on."""
        arrays, settings = pack(self)
        sha = hashlib.sha256(repr(settings).encode())
        for name in sorted(arrays):
            sha.update(np.ascontiguousarray(arrays[name]).tobytes())
        return sha.hexdigest()


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
    >>> patches.num_outputs, patches(X, scale=1 / 255).shape
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
        return dataclasses.replace(raw, **_centre(raw(X.T[some].T, scale=scale)))

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


def _centre(features: Floats) -> dict[str, Any]:
    """Return the mean of features, and the root of their mean square distance from it."""
    mean = features.mean(axis=1, dtype=np.float64)
    deviations = features - mean.astype(np.float32)[:, None]
    length = math.sqrt(np.square(deviations).sum(axis=0).mean(dtype=np.float64))
    return {"centre": mean.astype(np.float32), "divisor": length or 1.0}


@dataclass(frozen=True, eq=False)
class RandomFourier(FeatureMap):
    r"""Random cosines, whose inner products approximate a Gaussian kernel.

    .. math:: z(a) = \sqrt{2 / D} \, \cos(\Omega a + \beta), \qquad
        E[z(a) \cdot z(a')] = \exp(-\gamma \, \|a - a'\|^2 / \ell^2)

    for independent :math:`\Omega_{ij} \sim N(0, 2 \gamma / \ell^2)` and
    :math:`\beta_i` uniform between 0 and :math:`2 \pi` (Rahimi and Recht, 2007, section 3), where
    :math:`\ell^2` is the mean square distance of the training samples from their mean. A linear
    model of these features is a smooth, not linear, function of the samples.

    Attributes
    ----------
    weights, offsets : ndarray of float32
        :math:`\Omega`, shape ``(D, d)``, and :math:`\beta`, shape ``(D,)``.

    Examples
    --------
    >>> A = np.random.default_rng(0).standard_normal((3, 50)).astype(np.float32)
    >>> Z = RandomFourier.fit(A, num_features=10_000, gamma=0.5)(A)
    >>> length = np.square(A - A.mean(axis=1, keepdims=True)).sum(axis=0).mean()
    >>> kernel = np.exp(-0.5 * np.square(A[:, 0] - A[:, 1]).sum() / length)
    >>> bool(abs(Z[:, 0] @ Z[:, 1] - kernel) < 0.02)
    True
    """

    weights: Floats
    offsets: Floats

    def __post_init__(self) -> None:
        if self.weights.ndim != 2 or self.offsets.shape != self.weights.shape[:1]:
            raise ShapeError(
                "features: expected weights (features, inputs) and an offset for each feature, got "
                f"{self.weights.shape} and {self.offsets.shape}"
            )

    @property
    def num_inputs(self) -> int:  # type: ignore[override]
        """Numbers in a sample."""
        return int(self.weights.shape[1])

    @property
    def num_outputs(self) -> int:  # type: ignore[override]
        """Features of a sample, ``D``."""
        return int(self.weights.shape[0])

    @classmethod
    def fit(
        cls, X: ArrayLike, num_features: int = 4096, gamma: float = 0.4, seed: int = 0
    ) -> RandomFourier:
        """Draw the cosines for samples like those in ``X``, shape ``(d, n)``."""
        X = as_columns(X)
        rng = np.random.default_rng(seed)
        spread = _centre(np.asarray(X, np.float32))
        width = math.sqrt(2 * as_size(gamma, "gamma")) / spread["divisor"]
        shape = as_count(num_features, "num_features"), X.shape[0]
        weights = (width * rng.standard_normal(shape)).astype(np.float32)
        offsets = rng.uniform(0, 2 * np.pi, shape[0]) - weights @ spread["centre"]
        return cls(weights, np.mod(offsets, 2 * np.pi).astype(np.float32))

    def _transform(self, X: Floats) -> Floats:
        angles = X.T @ self.weights.T
        angles += self.offsets
        np.cos(angles, out=angles)
        angles *= np.float32(math.sqrt(2 / self.num_outputs))
        return np.asarray(angles.T)


class Chain(FeatureMap):
    """One map after the other; the features of each are the inputs of the next.

    Examples
    --------
    >>> X = np.random.default_rng(0).integers(0, 256, (784, 100), dtype=np.uint8)
    >>> patches = Patches.fit(X, filters=8)
    >>> chain = Chain([patches, RandomFourier.fit(patches(X, scale=1 / 255), num_features=50)])
    >>> chain.num_inputs, chain.num_outputs
    (784, 50)
    """

    def __init__(self, maps: Sequence[FeatureMap]) -> None:
        self.maps = tuple(maps)
        sizes = [(before.num_outputs, after.num_inputs) for before, after in pairwise(self.maps)]
        if not self.maps or any(left != right for left, right in sizes):
            raise ShapeError(f"maps: expected each to take what the one before gives, got {sizes}")
        self.num_inputs, self.num_outputs = self.maps[0].num_inputs, self.maps[-1].num_outputs

    def _transform(self, X: Floats) -> Floats:
        for transform in self.maps:
            X = transform._transform(X)
        return X


def pack(features: FeatureMap) -> tuple[dict[str, NDArray[Any]], list[dict[str, Any]]]:
    """Return the arrays and the settings of a map, for a file.

    Examples
    --------
    >>> fourier = RandomFourier.fit(np.eye(3, 5), num_features=2)
    >>> arrays, settings = pack(fourier)
    >>> sorted(arrays), settings
    (['features.0.offsets', 'features.0.weights'], [{'kind': 'RandomFourier'}])
    >>> unpack(arrays, settings).digest == fourier.digest
    True
    """
    arrays: dict[str, NDArray[Any]] = {}
    settings = []
    for number, part in enumerate(parts_of(features)):
        own: dict[str, Any] = {"kind": type(part).__name__}
        for field in dataclasses.fields(part):  # type: ignore[arg-type]
            value = getattr(part, field.name)
            if isinstance(value, np.ndarray):
                arrays[f"features.{number}.{field.name}"] = value
            else:
                own[field.name] = value
        settings.append(own)
    return arrays, settings


def parts_of(features: FeatureMap) -> tuple[FeatureMap, ...]:
    """Return the maps that a map applies one after the other."""
    return features.maps if isinstance(features, Chain) else (features,)


def unpack(arrays: Mapping[str, NDArray[Any]], settings: Any) -> FeatureMap:
    """Return the map that :func:`pack` took apart.

    Raises ShapeError, ValueError, KeyError or TypeError if it does not fit together.
    """
    parts: list[FeatureMap] = []
    for number, given in enumerate(settings):
        own = {
            name.removeprefix(f"features.{number}."): array
            for name, array in arrays.items()
            if name.startswith(f"features.{number}.")
        }
        parts.append(_restore(own, **given))
    return parts[0] if len(parts) == 1 else Chain(parts)


def _restore(arrays: dict[str, NDArray[Any]], kind: str, **settings: Any) -> FeatureMap:
    """Return one map; a file can hold anything."""
    for name, array in arrays.items():
        if array.dtype != np.float32 or not np.isfinite(array).all():
            raise ValueError(f"{name} of {array.dtype} that are not finite float32")
    if kind == "RandomFourier":
        return RandomFourier(**arrays, **settings)
    if kind != "Patches":
        raise ValueError(f"features of kind {kind!r:.80}")
    height, width, colours = (as_count(side, "shape") for side in settings.pop("shape"))
    cells, mirror, divisor = (settings.pop(name) for name in ("cells", "mirror", "divisor"))
    if type(mirror) is not bool or type(divisor) is not float or not 0 < divisor < np.inf:
        raise TypeError(f"mirror {mirror!r:.80}, divisor {divisor!r:.80}")
    if settings:
        raise ValueError(f"unknown entries {', '.join(settings):.80}")
    shape = height, width, colours
    return Patches(shape, cells=as_count(cells, "cells"), mirror=mirror, divisor=divisor, **arrays)
