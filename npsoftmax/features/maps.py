"""What a map of features is; random cosines; one map after the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from npsoftmax._checks import as_columns, as_count, as_size
from npsoftmax._threads import blas_threads, default_threads, map_in_threads
from npsoftmax.errors import ShapeError

__all__ = ["Chain", "FeatureMap", "RandomFourier", "measure_centre", "parts_of"]

Floats = NDArray[Any]  # float32
BLOCK_COLUMNS = 128  # computed at a time by each thread


class FeatureMap:
    """A fixed map of columns to columns of features, computed block by block on threads."""

    num_inputs: int
    num_outputs: int
    is_one_by_one = False  # whether feature i is made of number i of the sample alone
    precision: np.dtype[Any] = np.dtype(np.float32)  # that its inputs are converted to
    takes_sparse = False
    integer_scale = 1.0  # the factor of integers if none is given; floats are used as they are

    def __call__(
        self,
        X: ArrayLike,
        *,
        scale: float | None = None,
        threads: int | None = None,
        on_block: Callable[[int], None] | None = None,
        dtype: DTypeLike = np.float32,
    ) -> Floats:
        """Compute the features of samples.

        Parameters
        ----------
        X : array_like
            Samples, shape ``(num_inputs, n)``; bytes stay bytes in memory.
        scale : float, optional
            The factor applied to the samples. By default 1/255 for integers if the map takes
            images, else 1.
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
        if scale is None:
            scale = self.integer_scale if X.dtype.kind in "iu" else 1.0
        out = np.empty((self.num_outputs, X.shape[1]), dtype, order="F")
        starts = range(0, X.shape[1], BLOCK_COLUMNS)

        def compute(start: int) -> int:
            block = slice(start, start + BLOCK_COLUMNS)
            columns: Floats = X[:, block].astype(self.precision)
            columns *= self.precision.type(scale)
            out[:, block] = self._transform(columns)
            return int(columns.shape[1])

        count = default_threads() if threads is None else as_count(threads, "threads")
        with blas_threads(1):
            for done in map_in_threads(compute, count, starts):
                if on_block is not None:
                    on_block(done)
        return out

    def _transform(self, X: Floats) -> Floats:
        """Return the features of a few scaled samples."""
        raise NotImplementedError


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
        spread = measure_centre(np.asarray(X, np.float32))
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
    >>> from npsoftmax.features import Patches
    >>> X = np.random.default_rng(0).integers(0, 256, (784, 100), dtype=np.uint8)
    >>> patches = Patches.fit(X, filters=8)
    >>> chain = Chain([patches, RandomFourier.fit(patches(X), num_features=50)])
    >>> chain.num_inputs, chain.num_outputs
    (784, 50)
    """

    def __init__(self, maps: Sequence[FeatureMap]) -> None:
        self.maps = tuple(maps)
        sizes = [(before.num_outputs, after.num_inputs) for before, after in pairwise(self.maps)]
        if not self.maps or any(left != right for left, right in sizes):
            raise ShapeError(f"maps: expected each to take what the one before gives, got {sizes}")
        self.num_inputs, self.num_outputs = self.maps[0].num_inputs, self.maps[-1].num_outputs
        self.integer_scale = self.maps[0].integer_scale
        self.precision = self.maps[0].precision

    def _transform(self, X: Floats) -> Floats:
        for transform in self.maps:
            X = transform._transform(X.astype(transform.precision, copy=False))
        return X


def parts_of(features: FeatureMap) -> tuple[FeatureMap, ...]:
    """Return the maps that a map applies one after the other."""
    return features.maps if isinstance(features, Chain) else (features,)


def measure_centre(features: Floats) -> dict[str, Any]:
    """Return the mean of features, and the root of their mean square distance from it."""
    mean = features.mean(axis=1, dtype=np.float64)
    deviations = features - mean.astype(np.float32)[:, None]
    length = math.sqrt(np.square(deviations).sum(axis=0).mean(dtype=np.float64))
    return {"centre": mean.astype(np.float32), "divisor": length or 1.0}
