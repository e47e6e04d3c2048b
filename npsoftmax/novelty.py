r"""What samples of each class look like: their mean, and how far from it they lie.

A classifier spreads its certainty over the classes that it knows, whatever it is shown. The
distance to the class means is what says that a sample is like none of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npsoftmax._checks import as_columns, as_float, as_labels, same_samples
from npsoftmax.errors import InputError, ShapeError

__all__ = ["ClassMeans"]

# So many samples, shared by the classes, tell means and radii well enough, in a tenth of a second.
MOST_SAMPLES = 10_000
WITHIN = 0.99
_BLOCK_NUMBERS = 2**20


@dataclass(frozen=True)
class ClassMeans:
    r"""The mean of each class, and the radius within which its samples lie.

    Attributes
    ----------
    means : ndarray
        :math:`m_c`, of scaled samples, shape ``(d, k)``, float64, Fortran-ordered.
    radii : ndarray
        :math:`r_c`, shape ``(k,)``, float64: 99 % of the samples of a class are at most so far
        from its mean. 0 for a class of which no two different samples were seen.

    Raises
    ------
    ShapeError, InputError
        Arrays that do not fit each other, are not finite, or negative radii.

    Examples
    --------
    >>> X = np.array([[0.0, 2.0, 10.0, 14.0]])
    >>> class_means = ClassMeans.of(X, [0, 0, 1, 1], num_outputs=2)
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
    def of(cls, X: ArrayLike, y: ArrayLike, num_outputs: int, scale: float = 1.0) -> ClassMeans:
        r"""Compute them from samples, of each class from some thousands where there are more.

        .. math:: m_c = \frac{1}{n_c} \sum_{j : y_j = c} s x_j

        Parameters
        ----------
        X : array_like
            Samples, shape ``(d, n)``.
        y : array_like
            Labels, shape ``(n,)``.
        num_outputs : int
            The number of classes ``k``.
        scale : float
            ``s``, what a sample is multiplied by.

        Returns
        -------
        ClassMeans

        Raises
        ------
        ShapeError, LabelError, InputError
            The arrays do not fit each other, or hold NaN or infinities.
        """
        columns, labels = as_columns(X), as_labels(y, num_outputs)
        same_samples(columns, labels)
        means, radii = np.zeros((columns.shape[0], num_outputs), order="F"), np.zeros(num_outputs)
        order, counts = np.argsort(labels, kind="stable"), np.bincount(labels)
        present = np.flatnonzero(counts)
        most = max(2, MOST_SAMPLES // present.size)
        for label, places in zip(
            present, np.split(order, counts[present].cumsum())[:-1], strict=True
        ):
            step = -(-places.size // most)
            own = np.float64(scale) * columns.T[places[::step]]
            means[:, label] = own.mean(axis=0)
            radii[label] = np.quantile(np.linalg.norm(own - means[:, label], axis=1), WITHIN)
        return cls(means, radii)

    def novelty(self, X: ArrayLike, scale: float = 1.0) -> NDArray[np.float64]:
        r"""Say how far samples are from all that was seen.

        .. math:: \min_c \frac{\|s x - m_c\|}{r_c}

        Parameters
        ----------
        X : array_like
            Samples, shape ``(d, n)``.
        scale : float
            As for :meth:`of`.

        Returns
        -------
        ndarray of float64
            Shape ``(n,)``; above 1 for a sample that is farther from every class than 99 % of
            that class's own samples.

        Raises
        ------
        ShapeError, InputError
            ``X`` does not have ``d`` rows, or holds NaN or infinities.
        """
        X = as_columns(X, self.means.shape[0])
        # Near 0 the squares lose no digits to what all numbers have in common.
        middle, radii = self.means.mean(axis=1, keepdims=True), self.radii[:, None]
        novelty = np.empty(X.shape[1])
        step = max(1, _BLOCK_NUMBERS // max(X.shape[0], 1))
        for start in range(0, novelty.size, step):
            block = X[:, start : start + step] * np.float64(scale) - middle
            distances = np.sqrt(_squared_distances(block, self.means - middle))
            ratios = np.full(distances.shape, np.inf)
            np.divide(distances, radii, out=ratios, where=radii > 0)
            novelty[start : start + step] = ratios.min(axis=0)
        return novelty


@np.errstate(all="ignore")
def _squared_distances(X: NDArray[np.float64], means: NDArray[Any]) -> NDArray[np.float64]:
    r"""Return :math:`\|x\|^2 - 2 m \cdot x + \|m\|^2`, of every mean (row) and sample (column)."""
    squares = np.square(means).sum(axis=0)[:, None] - 2 * (means.T @ X) + np.square(X).sum(axis=0)
    # Numbers whose squares overflow are far from everything.
    return np.where(np.isfinite(squares), np.maximum(squares, 0.0), np.inf)
