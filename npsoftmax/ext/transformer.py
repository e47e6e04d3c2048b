"""Scikit-learn transformer: fixed features of images, rows as samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npsoftmax.errors import ShapeError
from npsoftmax.ext import extra
from npsoftmax.features import Chain, FeatureMap, Patches, RandomFourier

with extra("sklearn"):
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils.validation import check_is_fitted, validate_data

__all__ = ["ImageFeatures"]


class ImageFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Responses of random whitened patches, and random cosines of them.

    Formulas and sources: :mod:`npsoftmax.features`. The result is float32, with about a unit of
    length, so it needs no scaler.

    Parameters
    ----------
    shape : sequence of int, optional
        Height and width of the images, and colours if there are several; by default they are
        square and grey. Pixels are in rows, the colours of a pixel next to each other.
    filters, size, cells, mirror
        As in :meth:`npsoftmax.features.Patches.fit`.
    cosines : int
        Number of random cosines (:class:`npsoftmax.features.RandomFourier`) that are computed from
        the features of patches, and replace them; 0 for none.
    gamma : float
        Width of the kernel that the cosines approximate.
    pixel_scale : float
        Factor of integers; floats are used as they are.
    random_state : int
        Seed of the draws.

    Attributes
    ----------
    features_ : npsoftmax.features.FeatureMap
        The map, also for :class:`npsoftmax.SoftmaxRegression`.
    n_features_in_ : int
        Numbers in an image.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.pipeline import make_pipeline
    >>> from npsoftmax.ext.estimator import SoftmaxClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> X = X / 16
    >>> digits = make_pipeline(ImageFeatures(size=3, cells=3), SoftmaxClassifier(alpha=1e-5))
    >>> digits.fit(X[:1000], y[:1000]).score(X[1000:], y[1000:]) > 0.95
    True
    """

    def __init__(
        self,
        shape: Sequence[int] | None = None,
        filters: int = 64,
        size: int = 6,
        cells: int = 5,
        mirror: bool = False,
        cosines: int = 0,
        gamma: float = 0.4,
        pixel_scale: float = 1 / 255,
        random_state: int = 0,
    ) -> None:
        self.shape = shape
        self.filters = filters
        self.size = size
        self.cells = cells
        self.mirror = mirror
        self.cosines = cosines
        self.gamma = gamma
        self.pixel_scale = pixel_scale
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: object = None) -> ImageFeatures:
        """Learn the features from images; labels are ignored."""
        columns = validate_data(self, X).T
        self.features_: FeatureMap = Patches.fit(
            columns,
            self._sides(columns.shape[0]),
            scale=self.pixel_scale,
            filters=self.filters,
            size=self.size,
            cells=self.cells,
            mirror=self.mirror,
            seed=self.random_state,
        )
        if self.cosines:
            some = self.features_(columns[:, :2000], scale=self._scale(columns))
            fourier = RandomFourier.fit(some, self.cosines, self.gamma, self.random_state)
            self.features_ = Chain([self.features_, fourier])
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.float32]:
        """Compute the features, shape ``(n, features)``."""
        check_is_fitted(self)
        columns = validate_data(self, X, reset=False).T
        return np.asarray(self.features_(columns, scale=self._scale(columns)).T)

    @property
    def _n_features_out(self) -> int:
        return self.features_.num_outputs

    def _scale(self, columns: NDArray[Any]) -> float:
        return self.pixel_scale if columns.dtype.kind in "iu" else 1.0

    def _sides(self, numbers: int) -> Sequence[int]:
        """Return the shape of the images."""
        if self.shape is not None:
            return self.shape
        side = math.isqrt(numbers)
        if side * side != numbers:
            raise ShapeError(
                f"X: expected square grey images, such as 784 numbers for 28x28, got {numbers}; "
                "give shape=(height, width) or (height, width, colours)"
            )
        return side, side
