"""Scikit-learn estimator: rows as samples, any labels.

Rows in C order, transposed, are Fortran-ordered columns, as in the rest of the package. Nothing is
copied.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from npsoftmax import Adam, DataLoader, SoftmaxRegression, fit
from npsoftmax._checks import as_count, as_size, as_weights, unusable_weights
from npsoftmax.errors import DivergedError, InputError, LabelError
from npsoftmax.functional import logsoftmax, softmax
from npsoftmax.objective import loss_and_grad

__all__ = ["SoftmaxClassifier"]

Floats = NDArray[np.float64]

DTYPES = [np.float64, np.float32]


def _partial_fit_is_possible(estimator: SoftmaxClassifier) -> bool:
    if str(estimator.class_weight) == "balanced":
        raise InputError(
            "class_weight: expected a dict or None for partial_fit, got 'balanced'; give "
            "n / (k * counts) of all samples as a dict"
        )
    return True


class SoftmaxClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    r"""Softmax (multinomial logistic) regression.

    With samples as rows :math:`x_j` and weights :math:`w_j` (``sample_weight`` times
    ``class_weight``) it minimises

    .. math:: \frac{1}{\sum_j w_j} \sum_j w_j \, \ell(z_j, y_j)
        + \frac{\alpha}{2} \|\mathtt{coef\_}\|^2, \qquad
        z_j = \mathtt{coef\_} \, x_j + \mathtt{intercept\_},

    with the cross-entropy :math:`\ell`. For two classes ``coef_`` is one row, and the logits are 0
    and :math:`z_j`. The intercept is not penalised. This is the objective of scikit-learn's
    ``LogisticRegression`` where :math:`C = 1 / (\alpha \sum_j w_j)`.

    Parameters
    ----------
    alpha : float
        Weight of the penalty.
    solver : {"lbfgs", "sgd"}
        The exact optimum from all samples at once, or minibatches with the step sizes of
        :class:`npsoftmax.Adam`.
    tol, max_iter : float, int
        lbfgs: stop when the largest entry of the gradient, in magnitude, is at most ``tol``, or
        after this number of iterations.
    learning_rate, batch_size : float, int
        sgd: the step size, and the number of rows for each step.
    epochs : int
        sgd: number of passes of :meth:`fit` over all rows. :meth:`partial_fit` makes one pass.
    class_weight : dict, "balanced" or None
        Factors for the sample weights of each class, 1 for classes that are not in the dict.
        "balanced" gives all classes the same total weight.
    warm_start : bool
        Whether :meth:`fit` begins at the current coefficients, if classes and features are the
        same.
    random_state : int, RandomState or None
        sgd: seed of the order of the rows. The result of lbfgs does not depend on it.

    Attributes
    ----------
    classes_ : ndarray
        The labels in ascending order, shape ``(k,)``.
    coef_ : ndarray
        Weights, shape ``(k, d)``, for two classes ``(1, d)``, in the dtype of ``X``.
    intercept_ : ndarray
        Biases, shape ``(k,)``, for two classes ``(1,)``.
    n_iter_ : int
        Number of iterations of lbfgs, or of passes over the rows.
    n_features_in_, feature_names_in_ : int, ndarray of str
        Number of features, ``d``, and their names if the columns of ``X`` have names.

    Notes
    -----
    Everything is computed in float64. Rows of float32 stay float32 in memory, and ``coef_`` is
    rounded to float32 at the end. A row of weight 0 counts as absent: a class that only such rows
    have is not in ``classes_`` after :meth:`fit`. If several ``coef_`` are optimal, as for
    collinear features without a penalty, lbfgs returns the smallest.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = SoftmaxClassifier(alpha=0.01).fit(X, y)
    >>> classifier.coef_.shape, round(classifier.score(X, y), 3)
    ((3, 4), 0.973)
    """

    def __init__(
        self,
        alpha: float = 0.0,
        solver: str = "lbfgs",
        *,
        tol: float = 1e-9,
        max_iter: int = 2000,
        learning_rate: float = 0.01,
        batch_size: int = 256,
        epochs: int = 100,
        class_weight: Mapping[Any, float] | str | None = None,
        warm_start: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.alpha = alpha
        self.solver = solver
        self.tol = tol
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.epochs = epochs
        self.class_weight = class_weight
        self.warm_start = warm_start
        self.random_state = random_state

    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> SoftmaxClassifier:
        """Fit the model, and return it.

        Parameters
        ----------
        X : array_like
            Shape ``(n, d)``.
        y : array_like
            Labels of two classes or more, shape ``(n,)``.
        sample_weight : array_like, optional
            Numbers of at least 0, shape ``(n,)``. A weight of 2 counts a row twice; only ratios
            matter.

        Raises
        ------
        DivergedError
            sgd: the coefficients became NaN or infinite.

        Warns
        -----
        ConvergenceWarning
            lbfgs: the optimum was not reached, or there is none.
        """
        self._check_parameters()
        X, y = self._validated(X, y, first=True)
        classes, labels = np.unique(y, return_inverse=True)
        samples = _weigh(X, labels, classes, sample_weight, self.class_weight)
        samples = _drop_absent_classes(samples)
        theta = self._start(samples, resume=self.warm_start)
        rule = Adam()
        if self.solver == "lbfgs":
            n_iter = _minimise(theta, samples, self._l2(theta), self.tol, self.max_iter)
        else:
            n_iter = self.epochs
            self._descend(theta, samples, range(n_iter), rule)
        return self._store(theta, samples, n_iter, rule)

    @available_if(_partial_fit_is_possible)  # type: ignore[untyped-decorator]
    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> SoftmaxClassifier:
        """Continue training with one pass over these samples, in minibatches, and return self.

        Parameters
        ----------
        X, y, sample_weight : array_like
            As in :meth:`fit`, but classes may be absent. Only ratios of weights within a call
            matter.
        classes : array_like, optional
            All labels that will ever occur. Required in the first call, and the same in later ones.
        """
        self._check_parameters()
        begun = hasattr(self, "coef_")
        known = _check_classes(classes, self.classes_ if begun else None)
        X, y = self._validated(X, y, first=not begun)
        samples = _weigh(X, _index_labels(y, known), known, sample_weight, self.class_weight)
        theta = self._start(samples, resume=True)
        passes, rule = (self.n_iter_, deepcopy(self._rule)) if begun else (0, Adam())
        self._descend(theta, samples, range(passes, passes + 1), rule)
        return self._store(theta, samples, passes + 1, rule)

    def decision_function(self, X: ArrayLike) -> NDArray[Any]:
        """Compute logits, ``(n, k)``; for two classes the second minus the first, ``(n,)``."""
        check_is_fitted(self, "coef_")
        X = validate_data(self, X, dtype=DTYPES, reset=False)
        logits = _finite_logits(X, self.coef_, self.intercept_)
        return logits[:, 0] if self.classes_.size == 2 else logits

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most likely label of each row, ``(n,)``; the first on a tie."""
        indices = self._logits(X).argmax(axis=1)
        labels: NDArray[Any] = self.classes_[indices]
        return labels

    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Compute the probability of each class, ``(n, k)`` in the order of ``classes_``."""
        return softmax(self._logits(X), axis=1)

    def predict_log_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Compute the log-probabilities, accurate even where the probabilities underflow to 0."""
        return logsoftmax(self._logits(X), axis=1)

    def _logits(self, X: ArrayLike) -> NDArray[Any]:
        logits = self.decision_function(X)
        return logits if logits.ndim == 2 else np.column_stack([np.zeros_like(logits), logits])

    def _check_parameters(self) -> None:
        for name in ("alpha", "tol", "learning_rate"):
            as_size(getattr(self, name), name)
        for name in ("max_iter", "batch_size", "epochs"):
            as_count(getattr(self, name), name)
        # As text, because arrays are compared elementwise.
        if str(self.solver) not in ("lbfgs", "sgd"):
            raise InputError(f"solver: expected 'lbfgs' or 'sgd', got {self.solver!r}")
        is_dict_or_none = isinstance(self.class_weight, Mapping | None)
        if not is_dict_or_none and str(self.class_weight) != "balanced":
            raise InputError(
                f"class_weight: expected a dict, 'balanced' or None, got {self.class_weight!r}"
            )

    def _validated(self, X: Any, y: Any, first: bool) -> tuple[NDArray[Any], NDArray[Any]]:
        X, y = validate_data(self, X, y, dtype=DTYPES, order="C", reset=first)
        check_classification_targets(y)
        return X, y

    def _start(self, samples: _Rows, resume: bool) -> NDArray[np.float64]:
        """Return zeros, or the current parameters if they fit the samples."""
        k, d = samples.classes.size, samples.X.shape[1]
        theta = np.zeros((k, d + 1), order="F")
        fits = hasattr(self, "coef_") and np.array_equal(self.classes_, samples.classes)
        if resume and fits and self.coef_.shape[1] == d:
            rows = np.column_stack([self.coef_, self.intercept_])
            theta[...] = np.vstack([-rows, rows]) / 2 if k == 2 else rows
        return theta

    def _l2(self, theta: NDArray[np.float64]) -> float:
        """Return the weight of the penalty; two rows, -w/2 and w/2, have half the square of w."""
        return float(self.alpha) * (2 if len(theta) == 2 else 1)

    @np.errstate(all="ignore")
    def _descend(
        self, theta: NDArray[np.float64], samples: _Rows, epochs: range, rule: Adam
    ) -> None:
        """Move ``theta`` by one step for each batch of each epoch."""
        rule.eta = float(self.learning_rate)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        indices = np.arange(samples.labels.size)
        loader = DataLoader(samples.X.T, indices, self.batch_size, shuffle=True, seed=seed)
        for epoch in epochs:
            for X, rows in loader.batches(epoch):
                # Soft targets that sum to its weight make a sample count by its weight.
                targets = np.zeros((len(theta), rows.size))
                targets[samples.labels[rows], np.arange(rows.size)] = samples.weights[rows]
                rule.update(theta, loss_and_grad(theta, X, targets, self._l2(theta)).grad)
            # The mean over the classes changes no probability, and costs a penalty.
            theta -= theta.mean(axis=0)
            if not np.isfinite(theta).all():
                raise DivergedError(
                    f"training diverged in epoch {epoch + 1}: expected finite coefficients, got "
                    f"NaN or infinities; scale the features, or lower the learning rate ({rule!r})"
                )

    def _store(
        self, theta: NDArray[np.float64], samples: _Rows, n_iter: int, rule: Adam
    ) -> SoftmaxClassifier:
        rows = theta[1:] - theta[:1] if len(theta) == 2 else theta
        rows = _round(rows, samples.X.dtype)
        self.coef_, self.intercept_ = rows[:, :-1].copy("C"), rows[:, -1].copy()
        self.classes_, self.n_iter_, self._rule = samples.classes, n_iter, rule
        return self


SMALLEST = np.finfo(np.float64).smallest_subnormal


class _Rows(NamedTuple):
    """Rows of positive weight, 1 on average: ``classes[labels[j]]`` is the label of ``X[j]``."""

    X: NDArray[Any]
    labels: NDArray[np.intp]
    weights: NDArray[np.float64]
    classes: NDArray[Any]


@np.errstate(all="ignore")
def _weigh(
    X: NDArray[Any],
    labels: NDArray[np.intp],
    classes: NDArray[Any],
    sample_weight: ArrayLike | None,
    class_weight: Mapping[Any, float] | str | None,
) -> _Rows:
    """Return the rows of positive weight, or raise InputError if there are none."""
    weights = _as_weights(sample_weight, labels.size)
    if str(class_weight) == "balanced":
        weights /= np.maximum(np.bincount(labels, weights), SMALLEST)[labels]
    elif isinstance(class_weight, Mapping):
        weights *= _class_factors(class_weight, classes)[labels]
    weights /= weights.max()
    kept = weights > 0
    if not kept.any():
        raise InputError(
            "class_weight: expected a nonzero weight, got zero for all rows of positive weight"
        )
    rows = X if kept.all() else X[kept]
    return _Rows(rows, labels[kept], weights[kept] / weights[kept].mean(), classes)


def _as_weights(sample_weight: ArrayLike | None, num_samples: int) -> NDArray[np.float64]:
    """Return the weights divided by the largest, in a new array."""
    if sample_weight is None:
        return np.ones(num_samples)
    weights = as_weights(sample_weight, num_samples)
    if not weights.any():
        raise unusable_weights("zero for all")
    return np.asarray(weights / weights.max())


def _class_factors(class_weight: Mapping[Any, float], classes: NDArray[Any]) -> NDArray[np.float64]:
    """Return the factor for the weights of each class."""
    names = classes.tolist()
    # The dict may name a class that no row has; but then one that it does not name may be misspelt.
    if set(class_weight) - set(names) and set(names) - set(class_weight):
        raise InputError(
            f"class_weight: expected keys among the labels {names}, got {list(class_weight)}"
        )
    factors = np.array([class_weight.get(name, 1.0) for name in names], np.float64)
    if not (factors.min() >= 0 and factors.max() < np.inf):
        raise InputError(
            f"class_weight: expected finite numbers of at least 0, got {dict(class_weight)}"
        )
    return factors


def _drop_absent_classes(samples: _Rows) -> _Rows:
    """Renumber the labels without the classes that no row has; at least two must remain."""
    present, labels = np.unique(samples.labels, return_inverse=True)
    _check_two_classes(samples.classes[present])
    return samples._replace(labels=labels, classes=samples.classes[present])


def _check_classes(given: ArrayLike | None, known: NDArray[Any] | None) -> NDArray[Any]:
    """Return the classes of partial_fit: those of previous calls, if there were any."""
    classes = known if given is None else np.unique(given)
    if classes is None:
        raise InputError("classes: expected all labels at the first call of partial_fit, got None")
    if known is not None and not np.array_equal(known, classes):
        raise InputError(
            f"classes: expected {known.tolist()} as before, got {classes.tolist()}; leave them out"
        )
    _check_two_classes(classes)
    return classes


def _index_labels(y: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.intp]:
    """Return the indices of labels in the classes, or raise LabelError if one is unknown."""
    unknown = np.setdiff1d(y, classes)
    if unknown.size:
        raise LabelError(
            f"y: expected labels among {classes.tolist()}, got {unknown.tolist()}; name all "
            "labels at the first call of partial_fit"
        )
    return np.searchsorted(classes, y)


def _check_two_classes(classes: NDArray[Any]) -> None:
    if classes.size < 2:
        raise InputError(
            f"y: expected labels of at least two classes, got only one class, {classes.tolist()}; "
            "rows of weight 0 do not count"
        )


# A preconditioner made far from the optimum can be a poor one near it. After this number of
# iterations a new one is made, then after twice that number, and so on.
ITERATIONS_PER_PRECONDITIONER = 200
# Relative variances above this are certainly not rounding errors.
MIN_VARIANCE = 1e-10


def _minimise(theta: Floats, samples: _Rows, l2: float, tol: float, max_iter: int) -> int:
    """Move ``theta`` to the optimum; return the number of iterations.

    Warns with ConvergenceWarning if the point reached needs attention.
    """
    model = SoftmaxRegression(samples.X.shape[1], len(theta), sigma=0.0, dtype=np.float64)
    model.theta = theta
    X, labels, weights, _ = samples
    done, limit = 0, ITERATIONS_PER_PRECONDITIONER
    while True:
        limit = min(limit, max_iter - done)
        optimum = fit(
            model, X.T, labels, l2=l2, sample_weight=weights, tol=tol, max_iterations=limit
        )
        done += optimum.iterations
        if optimum.reason != "iterations" or done == max_iter:
            break
        limit *= 2
    if l2 == 0:
        _make_smallest(theta, X)
    if done == 0 and optimum.max_gradient > 0 and not theta.any():
        _warn("the gradient is below tol at the start: scale the features, or lower tol")
    if optimum.advice:
        advice = optimum.advice.replace(f"max_iterations, now {limit}", f"max_iter, now {max_iter}")
        _warn(advice.replace("l2", "alpha"))
    return done


def _warn(advice: str) -> None:
    warnings.warn(f"SoftmaxClassifier: {advice}", ConvergenceWarning, stacklevel=4)


@np.errstate(all="ignore")
def _round(rows: Floats, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Convert coefficients to another dtype, or raise DivergedError if they overflow it."""
    found = rows.astype(dtype)
    if not np.isfinite(found).all():
        raise DivergedError(
            f"coefficients: expected numbers that fit {dtype}, got up to {np.abs(rows).max():g}; "
            "scale the features, or give them as float64"
        )
    return found


@np.errstate(all="ignore")
def _finite_logits(X: Any, coef: NDArray[Any], intercept: NDArray[Any]) -> NDArray[Any]:
    """Return the logits of rows, or raise InputError if they overflow."""
    logits: NDArray[Any] = X @ coef.T + intercept
    if not np.isfinite(logits).all():
        raise InputError(
            f"X: expected numbers whose logits fit {logits.dtype}, got up to "
            f"{np.abs(X).max():g}; scale the features as those that the model was fitted to"
        )
    return logits


@np.errstate(all="ignore")
def _make_smallest(theta: Floats, X: NDArray[Any]) -> None:
    """Move to the smallest weights that have the same logits on all rows.

    The loss depends on these logits alone. If features are collinear, or outnumber the rows, other
    weights have the same logits; the limit of a vanishing penalty is the smallest of them.
    """
    mean = X.mean(axis=0, dtype=np.float64)
    centred = X - mean
    if _has_full_rank(centred):
        return
    weights = np.linalg.lstsq(centred, centred @ theta[:, :-1].T, rcond=None)[0].T
    theta[:, -1] += (theta[:, :-1] - weights) @ mean
    theta[:, :-1] = weights


def _has_full_rank(centred: Floats) -> bool:
    """Whether the features are certainly independent; for many rows much faster than an SVD."""
    products = centred.T @ centred
    units = np.sqrt(products.diagonal())
    if not units.all():
        return False
    correlations = products / units / units[:, None]
    np.fill_diagonal(correlations, 1 - MIN_VARIANCE)
    try:
        np.linalg.cholesky(correlations)
    except np.linalg.LinAlgError:
        return False
    return True
