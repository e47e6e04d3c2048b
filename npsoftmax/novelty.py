"""Novelty detection: the distance of a sample to the mean of each class.

A classifier distributes its probability over the classes that it knows, even for a sample that
belongs to none of them. The distance to the class means shows that such a sample is new.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npsoftmax._checks import as_columns, as_float
from npsoftmax._sparse import is_sparse, square
from npsoftmax.errors import InputError, ShapeError

__all__ = ["ClassMeans"]


@dataclass(frozen=True)
class ClassMeans:
    r"""The mean of each class, and the radius around it that contains 99 % of its samples.

    :meth:`fit` and :meth:`novelty` expect arrays that :meth:`SoftmaxRegression.fit_class_means
    <npsoftmax.SoftmaxRegression.fit_class_means>` and :meth:`SoftmaxRegression.novelty
    <npsoftmax.SoftmaxRegression.novelty>` have checked.

    Attributes
    ----------
    means : ndarray
        :math:`m_c`, of scaled samples, shape ``(d, k)``, float64, Fortran-ordered.
    radii : ndarray
        :math:`r_c`, the 99 % quantile of the distance of the samples of a class to its mean,
        shape ``(k,)``, float64; 0 if no two samples of the class differ, or there are none.

    Examples
    --------
    >>> X = np.array([[0.0, 2.0, 10.0, 14.0]])
    >>> class_means = ClassMeans.fit(X, np.array([0, 0, 1, 1]), num_outputs=2)
    >>> class_means.means, class_means.radii
    (array([[ 1., 12.]]), array([1., 2.]))
    >>> class_means.novelty(np.array([[1.0, 4.0, 13.0]]))
    array([0. , 3. , 0.5])
    """

    means: NDArray[Any]
    radii: NDArray[Any]

    def __post_init__(self) -> None:
        means = as_columns(self.means, name="means").astype(np.float64, order="F")
        radii = as_float(self.radii, "radii").astype(np.float64)
        if radii.shape != means.shape[1:]:
            raise ShapeError(
                f"radii: expected one for each of {means.shape[1]} classes, got {radii.shape}"
            )
        if not ((radii >= 0) & (radii < np.inf)).all():
            raise InputError(f"radii: expected finite numbers of at least 0, got {radii}")
        object.__setattr__(self, "means", means)
        object.__setattr__(self, "radii", radii)

    @classmethod
    def fit(
        cls, X: NDArray[Any], y: NDArray[Any], num_outputs: int, scale: float = 1.0
    ) -> ClassMeans:
        r"""Compute means and radii of samples, shape ``(d, n)``, with labels, shape ``(n,)``.

        .. math:: m_c = \frac{1}{n_c} \sum_{j : y_j = c} s x_j

        ``scale`` is ``s``.
        """
        means, radii = np.zeros((X.shape[0], num_outputs), order="F"), np.zeros(num_outputs)
        for label in np.unique(y):
            own = X.T[y == label]
            mean = own.mean(axis=0, dtype=np.float64)
            distances = np.empty(own.shape[0])
            for block in _blocks(X, distances.size):
                if is_sparse(X):
                    some = own[block].T.astype(np.float64)  # small integers would overflow
                    squares = _squared_distances(some, mean[:, None])[0]
                    distances[block] = np.sqrt(squares)
                else:
                    distances[block] = np.linalg.norm(own[block] - mean, axis=1)
            means[:, label], radii[label] = scale * mean, scale * _quantile(distances, 0.99)
        return cls(means, radii)

    def novelty(self, X: NDArray[Any], scale: float = 1.0) -> NDArray[np.float64]:
        r"""Compute the distance to the nearest class mean, in radii of that class, shape ``(n,)``.

        .. math:: \min_c \frac{\|s x - m_c\|}{r_c}
        """
        centre, radii = self.means.mean(axis=1, keepdims=True), self.radii[:, None]
        novelty = np.empty(X.shape[1])
        for block in _blocks(X, novelty.size):
            samples, means = X[:, block] * np.float64(scale), self.means
            if not is_sparse(X):
                # Centred, the squares lose no digits to an offset that all samples share.
                samples, means = samples - centre, means - centre
            distances = np.sqrt(_squared_distances(samples, means))
            ratios = np.full(distances.shape, np.inf)
            np.divide(distances, radii, out=ratios, where=radii > 0)
            novelty[block] = ratios.min(axis=0)
        return novelty


def choose_evenly(y: NDArray[Any], count: int = 10_000) -> NDArray[np.intp]:
    """Return the indices of about ``count`` samples, as many of each class as there are.

    10,000 are accurate enough for means and radii.

    Examples
    --------
    >>> choose_evenly(np.array([0, 0, 1, 0, 0]), count=4)
    array([0, 2, 3])
    """
    order, counts = np.argsort(y, kind="stable"), np.bincount(y)
    counts = counts[counts > 0]
    most = max(2, count // counts.size)
    classes = np.split(order, counts.cumsum())[:-1]
    return np.sort(np.concatenate([own[:: -(-own.size // most)] for own in classes]))


def _blocks(X: Any, num_samples: int) -> Iterator[slice]:
    """Yield slices of samples whose float64 copies, of 2 MB, stay in a cache."""
    # Of sparse samples, `size` counts the numbers that are stored.
    step = max(1, 2**18 // max(X.size // max(X.shape[1], 1), 1))
    for start in range(0, num_samples, step):
        yield slice(start, start + step)


def _quantile(values: NDArray[np.float64], q: float) -> float:
    # As np.quantile, which loads np.ma: that would take as long as all distances.
    return float(np.interp(q * (values.size - 1), np.arange(values.size), np.sort(values)))


@np.errstate(all="ignore")
def _squared_distances(X: Any, means: NDArray[Any]) -> NDArray[np.float64]:
    r"""Return :math:`\|x\|^2 - 2 m \cdot x + \|m\|^2` for every mean (row) and sample (column)."""
    squares = np.square(means).sum(axis=0)[:, None] - 2 * (means.T @ X) + square(X).sum(axis=0)
    # Numbers whose squares overflow are far from every mean.
    return np.where(np.isfinite(squares), np.maximum(squares, 0.0), np.inf)
