"""Maps of each feature by itself: standardisation of a table, weights of words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from npsoftmax._checks import as_columns
from npsoftmax._sparse import is_sparse
from npsoftmax.errors import InputError, ShapeError
from npsoftmax.features.maps import FeatureMap

__all__ = ["Standardise", "Tfidf"]

MEAN_ROWS = 16  # features whose moments are computed at a time


@dataclass(frozen=True, eq=False)
class Standardise(FeatureMap):
    r"""Features of mean 0 and standard deviation 1.

    .. math:: \phi_i(x) = \frac{x_i - \mu_i}{\sigma_i}, \qquad
        \mu_i = \frac1n \sum_j x_{ij}, \qquad
        \sigma_i^2 = \frac1n \sum_j (x_{ij} - \mu_i)^2

    A penalty then means the same for every feature, whatever its unit. A feature that is constant
    has :math:`\sigma_i = 1`. The difference is computed in float64, so that numbers such as dates
    in seconds keep what distinguishes them. :class:`~npsoftmax.Trainer` and
    :class:`~npsoftmax.objective.FullBatch` take ``model.extract(X)``, which they cannot tell from
    ``X``.

    Attributes
    ----------
    mean, deviation : ndarray of float64
        :math:`\mu` and :math:`\sigma`, shape ``(d,)``.

    Examples
    --------
    >>> X = [[1, 3, 5], [7, 7, 7]]
    >>> standardise = Standardise.fit(X)
    >>> standardise.mean.tolist(), standardise.deviation.round(3).tolist()
    ([3.0, 7.0], [1.633, 1.0])
    >>> standardise(X).round(3)
    array([[-1.225,  0.   ,  1.225],
           [ 0.   ,  0.   ,  0.   ]], dtype=float32)
    """

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    is_one_by_one = True
    precision = np.dtype(np.float64)

    def __post_init__(self) -> None:
        if self.mean.ndim != 1 or self.mean.shape != self.deviation.shape:
            raise ShapeError(
                "features: expected a mean and a deviation for each feature, got shapes "
                f"{self.mean.shape} and {self.deviation.shape}"
            )
        if not (self.deviation > 0).all():
            raise ShapeError("features: expected deviations above 0")

    @property
    def num_inputs(self) -> int:  # type: ignore[override]
        """Features of a sample, ``d``."""
        return int(self.mean.size)

    num_outputs = num_inputs

    @classmethod
    @np.errstate(over="ignore", invalid="ignore")
    def fit(cls, X: ArrayLike) -> Standardise:
        """Compute the moments of samples, shape ``(d, n)``."""
        X = as_columns(X)
        if X.shape[1] == 0:
            raise ShapeError(f"X: expected at least one sample, got shape {X.shape}")
        mean, deviation = np.empty(X.shape[0]), np.empty(X.shape[0])
        for start in range(0, X.shape[0], MEAN_ROWS):  # little memory next to a large X
            some = slice(start, start + MEAN_ROWS)
            rows = np.array(X[some], np.float64, order="C")
            low = rows.min(axis=1)
            # The mean of equal numbers may differ from them by a rounding error.
            varies = low < rows.max(axis=1)
            mean[some] = np.where(varies, rows.mean(axis=1), low)
            rows -= mean[some, None]
            spread = np.sqrt(np.square(rows).mean(axis=1))
            deviation[some] = np.where(varies & (spread > 0), spread, 1.0)
        if not np.isfinite(deviation).all():
            raise InputError(
                "X: expected features whose squares fit float64, got larger ones; divide them by a "
                "power of ten"
            )
        return cls(mean, deviation)

    def _transform(self, X: NDArray[Any]) -> NDArray[Any]:
        X -= self.mean[:, None]
        X /= self.deviation[:, None]
        return X


@dataclass(frozen=True, eq=False)
class Tfidf(FeatureMap):
    r"""Counts of words, weighted by their rarity, in vectors of length 1.

    .. math:: \phi_i(x) = \frac{x_i \, g_i}{\sqrt{\sum_{i'} (x_{i'} \, g_{i'})^2}}, \qquad
        g_i = 1 + \log \frac{1 + n}{1 + n_i}

    where :math:`n_i` of :math:`n` training texts contain word :math:`i`. This is
    ``TfidfTransformer()`` of scikit-learn. Counts are sparse, and stay so. What takes
    ``model.extract(X)`` refuses integer counts.

    Attributes
    ----------
    idf : ndarray of float64
        :math:`g`, shape ``(d,)``.

    Examples
    --------
    >>> from scipy import sparse
    >>> counts = sparse.csc_array([[2, 1], [1, 0]])  # "tea tea milk", "tea"
    >>> tfidf = Tfidf.fit(counts)
    >>> tfidf.idf.round(3).tolist()
    [1.0, 1.405]
    >>> tfidf(counts).toarray().round(3)
    array([[0.818, 1.   ],
           [0.575, 0.   ]], dtype=float32)
    """

    idf: NDArray[np.float64]
    is_one_by_one = True
    takes_sparse = True

    def __post_init__(self) -> None:
        if self.idf.ndim != 1:
            raise ShapeError(
                f"features: expected one weight for each word, got shape {self.idf.shape}"
            )

    @property
    def num_inputs(self) -> int:  # type: ignore[override]
        """Words, ``d``."""
        return int(self.idf.size)

    num_outputs = num_inputs

    @classmethod
    def fit(cls, X: Any) -> Tfidf:
        """Compute the weights for counts in a SciPy sparse array, shape ``(d, n)``."""
        columns = _as_counts(X)
        texts = np.bincount(columns.indices[columns.data != 0], minlength=columns.shape[0])
        return cls(1 + np.log((1 + columns.shape[1]) / (1 + texts)))

    def __call__(
        self,
        X: Any,
        *,
        scale: float | None = None,
        threads: int | None = None,
        on_block: Callable[[int], None] | None = None,
        dtype: DTypeLike = np.float32,
    ) -> Any:
        """Compute the features of sparse counts, shape ``(d, n)``, as a ``csc_array``.

        The parameters are those of :class:`FeatureMap`; only ``dtype`` has an effect.
        """
        columns = _as_counts(X, self.num_inputs)
        data = columns.data * self.idf[columns.indices]
        text = np.repeat(np.arange(columns.shape[1]), np.diff(columns.indptr))
        lengths = np.sqrt(np.bincount(text, np.square(data), columns.shape[1]))
        data /= np.where(lengths > 0, lengths, 1)[text]
        if on_block is not None:
            on_block(columns.shape[1])
        kind = type(columns)
        return kind((data.astype(dtype), columns.indices, columns.indptr), columns.shape)


def _as_counts(X: Any, num_inputs: int | None = None) -> Any:
    """Return sparse counts as a ``csc_array``."""
    if not is_sparse(X):
        raise InputError(
            f"X: expected a sparse array of counts, got {type(X).__name__}; pass "
            "scipy.sparse.csc_array(X)"
        )
    return as_columns(X, num_inputs, sparse=True)
