"""Scikit-learn estimator: softmax regression with the penalty that cross-validation chooses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npsoftmax import PathRecord, PenaltyPath, SoftmaxRegression, fit_path
from npsoftmax._checks import as_count, as_grid, as_weights
from npsoftmax.errors import InputError, LabelError
from npsoftmax.ext import extra
from npsoftmax.ext._rows import (
    Floats,
    LinearClassifier,
    Rows,
    add_absent,
    check_class_weight,
    check_two_classes,
    number_present,
    penalty_of_rows,
    warn,
)

with extra("sklearn"):
    from scipy.sparse import issparse
    from sklearn.model_selection import check_cv

__all__ = ["SoftmaxClassifierCV"]

Pairs = list[tuple[NDArray[np.intp], NDArray[np.intp]]]

# The smallest value of the default grid, relative to the largest: as for LogisticRegressionCV.
SMALLEST_RATIO = 1e-8
# Rows of which float64 copies are made at a time.
BLOCK_ROWS = 4096


class SoftmaxClassifierCV(LinearClassifier):
    r"""Softmax (multinomial logistic) regression whose penalty cross-validation chooses.

    For each value of ``alpha`` it minimises the objective of
    :class:`~npsoftmax.ext.estimator.SoftmaxClassifier` on the rows of each fold and on all rows, by
    :func:`npsoftmax.fit_path`, in a fraction of the time of a search with as many fits. It takes
    the value with the largest mean score, the largest value on a tie. With the held-out rows
    :math:`T_f` of fold f and their ``sample_weight`` :math:`w_j`, the score is

    .. math:: \mathtt{scores\_}_{af} = \frac{1}{\sum_{j \in T_f} w_j}
        \sum_{j \in T_f} w_j \log p_{af}(y_j \mid x_j).

    This is ``scoring="neg_log_loss"`` of scikit-learn.

    Parameters
    ----------
    alphas : int or array_like
        The number of values, or the values: positive, in ascending or descending order. A number
        takes them evenly in :math:`\log \alpha` from :math:`10^{-8} s` to s, the mean squared
        distance of the rows from their mean. At s the predictions are nearly those without
        features.
    cv : int, splitter or iterable
        The number of folds, each with its share of each class, or what scikit-learn's ``check_cv``
        takes. Every class must have rows to train on in each fold.
    gap, max_iter : float, int
        As ``gap`` and ``max_iterations`` of :func:`npsoftmax.fit_path`.
    class_weight : dict, "balanced" or None
        As for :class:`~npsoftmax.ext.estimator.SoftmaxClassifier`, from all rows. Scores do not
        depend on it otherwise than by the fits.

    Attributes
    ----------
    alpha_ : float
        The chosen value.
    alphas_ : ndarray
        All values, shape ``(n_alphas,)``.
    scores_ : ndarray
        Mean log-probability of the labels of held-out rows, shape ``(n_alphas, n_folds)``.
    path_ : PenaltyPath
        The records, whose ``l2`` is ``alpha``: also accuracy and calibration. It has ``plot()`` and
        ``one_standard_error``, the largest value that is not clearly worse.
    coef_, intercept_, classes_ : ndarray
        As for :class:`~npsoftmax.ext.estimator.SoftmaxClassifier`, of the fit to all rows with
        ``alpha_``.
    n_iter_ : ndarray
        Passes over the rows for each value, those of all folds together, shape ``(n_alphas,)``.
    suboptimality_ : float
        The objective on all rows is at most this above its smallest value.
    n_features_in_, feature_names_in_ : int, ndarray of str
        Number of features, ``d``, and their names if the columns of ``X`` have names.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = SoftmaxClassifierCV().fit(X, y)
    >>> print(f"{classifier.alpha_:.1e}", classifier.scores_.shape)
    1.6e-04 (10, 5)
    >>> print(classifier.scores_.mean(axis=1).max().round(3))
    -0.055
    """

    def __init__(
        self,
        alphas: int | ArrayLike = 10,
        cv: Any = 5,
        *,
        gap: float = 1e-4,
        max_iter: int = 1000,
        class_weight: Mapping[Any, float] | str | None = None,
    ) -> None:
        self.alphas = alphas
        self.cv = cv
        self.gap = gap
        self.max_iter = max_iter
        self.class_weight = class_weight

    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> SoftmaxClassifierCV:
        """Choose the penalty, fit the model to all rows, and return it.

        Parameters
        ----------
        X, y, sample_weight : array_like
            As for :class:`~npsoftmax.ext.estimator.SoftmaxClassifier`.

        Warns
        -----
        ConvergenceWarning
            A fit did not reach the gap, or the chosen value is at an end of the grid.
        """
        check_class_weight(self.class_weight)
        as_count(self.max_iter, "max_iter")
        X, y = self._validated(X, y, first=True)
        samples = self._weighted(X, y, sample_weight)
        present, rows = number_present(samples)
        labels = rows.classes[present]
        check_two_classes(labels)
        alphas = _as_alphas(self.alphas, rows)
        own = np.ones(y.size) if sample_weight is None else as_weights(sample_weight, y.size)
        own = own[rows.kept]
        names = [str(label) for label in labels]
        model = SoftmaxRegression(
            X.shape[1], labels.size, sigma=0.0, dtype=np.float64, classes=names
        )
        factor = penalty_of_rows(1.0, rows.classes)
        path = fit_path(
            model,
            rows.X.T,
            rows.labels,
            l2=alphas * factor,
            folds=_pairs(check_cv(self.cv, y, classifier=True).split(X, y), rows, labels),
            sample_weight=own,
            class_weight=_class_factors(rows.weights / own, rows.labels),
            gap=self.gap,
            max_iterations=self.max_iter,
        )
        theta, k = model.theta, rows.classes.size
        self._keep(theta if labels.size == k else add_absent(theta, present, k), rows.classes)
        self._keep_path([replace(each, l2=each.l2 / factor) for each in path.records])
        return self

    def _keep_path(self, records: list[PathRecord]) -> None:
        """Store what led to the choice, and warn if something needs attention."""
        self.path_ = PenaltyPath(records)
        self.alphas_ = np.array([record.l2 for record in records])
        self.scores_ = -np.array([record.fold_losses for record in records])
        self.n_iter_ = np.array([record.evaluations for record in records])
        self.alpha_, self.suboptimality_ = self.path_.best.l2, self.path_.best.suboptimality
        advice = self.path_.advice.replace("l2", "alpha").replace("max_iterations", "max_iter")
        if advice:
            warn(f"SoftmaxClassifierCV: {advice}")


def _as_alphas(alphas: Any, rows: Rows) -> Floats:
    """Return the values of the grid."""
    if np.ndim(alphas) or not isinstance(alphas, Integral):
        return as_grid(alphas, "alphas")
    largest = _spread(rows.X, rows.weights / rows.weights.sum()) or 1.0
    if not largest < np.inf:
        raise InputError("X: expected numbers whose squares fit float64; scale the features")
    exponents = np.linspace(np.log10(SMALLEST_RATIO), 0, as_count(alphas, "alphas"))
    return largest * 10**exponents


@np.errstate(all="ignore")
def _spread(X: Any, shares: Floats) -> float:
    """Return the mean squared distance of rows from their mean, the sum of the variances."""
    if issparse(X):
        of_numbers = shares.repeat(np.diff(X.indptr))
        mean = X.T.astype(np.float64) @ shares
        return float(of_numbers @ np.square(X.data, dtype=np.float64) - mean @ mean)
    parts = [slice(first, first + BLOCK_ROWS) for first in range(0, len(X), BLOCK_ROWS)]
    mean = np.sum([shares[part] @ X[part].astype(np.float64) for part in parts], axis=0)
    return float(sum(shares[part] @ np.square(X[part] - mean).sum(axis=1) for part in parts))


def _class_factors(ratios: Floats, labels: NDArray[np.intp]) -> dict[Any, float]:
    """Return the factor of each class from that of each row."""
    first = np.unique(labels, return_index=True)[1]
    return dict(enumerate((ratios[first] / ratios[first].max()).tolist()))


def _pairs(splits: Iterable[Any], rows: Rows, labels: NDArray[Any]) -> Pairs:
    """Return the training and the held-out rows of each fold, numbered without the absent ones."""
    numbers = np.where(rows.kept, np.cumsum(rows.kept) - 1, -1)
    pairs: Pairs = []
    for train, test in splits:
        pair = numbers[train], numbers[test]
        pairs.append((pair[0][pair[0] >= 0], pair[1][pair[1] >= 0]))
        _check_pair(*pairs[-1], len(pairs), rows, labels)
    return pairs


def _check_pair(
    train: NDArray[np.intp], test: NDArray[np.intp], number: int, rows: Rows, labels: NDArray[Any]
) -> None:
    """Raise InputError unless all classes are trained on, and something is held out."""
    lacking = np.setdiff1d(np.arange(labels.size), rows.labels[train])
    if lacking.size:
        count = np.count_nonzero(rows.labels == lacking[0])
        raise LabelError(
            f"cv: expected rows of each class to train on, got none of class {labels[lacking[0]]} "
            f"in fold {number}, and {count} in all; give each class as many rows as there are "
            "folds, or leave this class out"
        )
    if test.size == 0:
        raise InputError(
            f"cv: expected rows of positive weight to hold out, got none in fold {number}; leave "
            "this fold out"
        )
